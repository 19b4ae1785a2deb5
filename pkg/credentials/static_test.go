/*
Copyright 2026 The image-source-controller authors

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
*/

package credentials_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/kubernetes"
	"github.com/google/go-containerregistry/pkg/name"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// who returns the user that an access shows; empty for an anonymous one.
func who(t testing.TB, access registry.Access) string {
	t.Helper()
	if access.Auth == nil {
		return ""
	}
	config, err := authn.Authorization(t.Context(), access.Auth)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return config.Username
}

func TestTheEntryThatFitsAnImage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		image   string
		entries map[string]authn.AuthConfig
		user    string
	}{
		"is that of its host": {
			image:   "ghcr.io/org/app",
			entries: map[string]authn.AuthConfig{"quay.io": user("quay"), "ghcr.io": user("ghcr")},
			user:    "ghcr",
		},
		"is nobody's where no host is the same": {
			image:   "ghcr.io/org/app",
			entries: map[string]authn.AuthConfig{"quay.io": user("quay"), "io": user("io"), "sub.ghcr.io": user("sub")},
		},
		"has the same port": {
			image:   "registry.example.com:5000/app",
			entries: map[string]authn.AuthConfig{"registry.example.com": user("without"), "registry.example.com:5000": user("with")},
			user:    "with",
		},
		"may be written as a URL": {
			image:   "ghcr.io/org/app",
			entries: map[string]authn.AuthConfig{"https://ghcr.io/v2/": user("url")},
			user:    "url",
		},
		"is the one with the longest path": {
			image:   "ghcr.io/org/team/app",
			entries: map[string]authn.AuthConfig{"ghcr.io": user("host"), "ghcr.io/org": user("org"), "ghcr.io/org/team": user("team")},
			user:    "team",
		},
		"is not one with another path": {
			image:   "ghcr.io/org/app",
			entries: map[string]authn.AuthConfig{"ghcr.io": user("host"), "ghcr.io/other": user("other")},
			user:    "host",
		},
		"may have a wildcard for a part of the host": {
			image:   "eu.registry.example.com/app",
			entries: map[string]authn.AuthConfig{"*.registry.example.com": user("any")},
			user:    "any",
		},
		"is Docker Hub's for an image without a host": {
			image:   "library/nginx",
			entries: map[string]authn.AuthConfig{"https://index.docker.io/v1/": user("hub")},
			user:    "hub",
		},
		"is Docker Hub's for docker.io": {
			image:   "docker.io/org/app",
			entries: map[string]authn.AuthConfig{"index.docker.io": user("hub")},
			user:    "hub",
		},
		"is anonymous if it is empty": {
			image:   "ghcr.io/org/app",
			entries: map[string]authn.AuthConfig{"ghcr.io": {}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			written := pullSecret("regcred", test.entries)
			access := resolve(t, resolver(written), test.image, credentials.References{SecretName: "regcred"})
			g.Expect(who(t, access)).To(Equal(test.user))

			// Flux's controllers ask this keychain.
			keychain, err := kubernetes.NewFromPullSecrets(t.Context(), []corev1.Secret{*written})
			g.Expect(err).NotTo(HaveOccurred())
			theirs, err := authn.Resolve(t.Context(), keychain, repository(t, test.image))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(who(t, registry.Access{Auth: theirs})).To(Equal(test.user), "as in Flux")
		})
	}
}

// Images have no default port and no capitals in their host when they are compared.
func TestAnEntryIsForItsCanonicalHost(t *testing.T) {
	t.Parallel()
	for _, entry := range []string{"registry.example.com:443", "Registry.Example.com", "https://registry.example.com:443/v2/"} {
		written := pullSecret("regcred", map[string]authn.AuthConfig{entry: user("robot")})
		access := resolve(t, resolver(written), "registry.example.com/app", credentials.References{SecretName: "regcred"})
		NewWithT(t).Expect(who(t, access)).To(Equal("robot"), entry)
	}
}

func TestAnEntryMayBeWrittenInAllWaysOfDocker(t *testing.T) {
	t.Parallel()
	encoded := base64.StdEncoding.EncodeToString([]byte("robot:" + password))
	for name, test := range map[string]struct {
		secret *corev1.Secret
		config authn.AuthConfig
	}{
		"as user and password": {
			secret: pullSecret("regcred", map[string]authn.AuthConfig{"ghcr.io": user("robot")}),
			config: user("robot"),
		},
		"as both in base64": {
			secret: secret("regcred", corev1.SecretTypeDockerConfigJson, map[string]string{
				corev1.DockerConfigJsonKey: `{"auths":{"ghcr.io":{"auth":"` + encoded + `"}}}`}),
			config: user("robot"),
		},
		"as an identity token": {
			secret: secret("regcred", corev1.SecretTypeDockerConfigJson, map[string]string{
				corev1.DockerConfigJsonKey: `{"auths":{"ghcr.io":{"identitytoken":"` + password + `"}},"credsStore":"ignored"}`}),
			config: authn.AuthConfig{IdentityToken: password},
		},
		"in the older format": {
			secret: secret("regcred", corev1.SecretTypeDockercfg, map[string]string{
				corev1.DockerConfigKey: `{"ghcr.io":{"username":"robot","password":"` + password + `","email":"robot@example.com"}}`}),
			config: user("robot"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			access := resolve(t, resolver(test.secret), "ghcr.io/org/app", credentials.References{SecretName: "regcred"})
			config, err := authn.Authorization(t.Context(), access.Auth)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(*config).To(Equal(test.config))
		})
	}
}

func TestTheChoiceBetweenTwoSpellingsOfARegistryIsAlwaysTheSame(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	r := resolver(pullSecret("regcred", map[string]authn.AuthConfig{
		"ghcr.io": user("one"), "https://ghcr.io": user("two"), "https://ghcr.io/v1/": user("three"), "http://ghcr.io/v2/": user("four"),
	}))
	for range 50 {
		access := resolve(t, r, "ghcr.io/org/app", credentials.References{SecretName: "regcred"})
		g.Expect(who(t, access)).To(Equal("one"))
	}
}

func TestOfSeveralSecrets(t *testing.T) {
	t.Parallel()
	named := pullSecret("named", map[string]authn.AuthConfig{"ghcr.io": user("named")})
	for name, test := range map[string]struct {
		objects    []client.Object
		references credentials.References
		user       string
	}{
		"the one that is named wins over those of the ServiceAccount": {
			objects: []client.Object{named, serviceAccount("puller", "attached"),
				pullSecret("attached", map[string]authn.AuthConfig{"ghcr.io": user("attached")})},
			references: credentials.References{SecretName: "named", ServiceAccountName: "puller"},
			user:       "named",
		},
		"one of the ServiceAccount wins if it fits better": {
			objects: []client.Object{named, serviceAccount("puller", "attached"),
				pullSecret("attached", map[string]authn.AuthConfig{"ghcr.io/org": user("attached")})},
			references: credentials.References{SecretName: "named", ServiceAccountName: "puller"},
			user:       "attached",
		},
		"the first of the ServiceAccount wins over its second": {
			objects: []client.Object{serviceAccount("puller", "first", "second"),
				pullSecret("first", map[string]authn.AuthConfig{"https://ghcr.io": user("first")}),
				pullSecret("second", map[string]authn.AuthConfig{"ghcr.io": user("second")})},
			references: credentials.References{ServiceAccountName: "puller"},
			user:       "first",
		},
		"one of the ServiceAccount that is no login is passed over": {
			objects: []client.Object{serviceAccount("puller", "odd", "good"),
				secret("odd", corev1.SecretTypeOpaque, map[string]string{"token": password}),
				pullSecret("good", map[string]authn.AuthConfig{"ghcr.io": user("good")})},
			references: credentials.References{ServiceAccountName: "puller"},
			user:       "good",
		},
		"none of a ServiceAccount without any makes the caller anonymous": {
			objects:    []client.Object{serviceAccount("puller")},
			references: credentials.References{ServiceAccountName: "puller"},
		},
		"the one that is named wins over a cloud provider": {
			objects:    []client.Object{named},
			references: credentials.References{SecretName: "named", Provider: "gcp"},
			user:       "named",
		},
		"only those of the own namespace count": {
			objects: []client.Object{named,
				in("others", pullSecret("named", map[string]authn.AuthConfig{"ghcr.io": user("others")}))},
			references: credentials.References{Namespace: "others", SecretName: "named"},
			user:       "others",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			access := resolve(t, resolver(test.objects...), "ghcr.io/org/app", test.references)
			NewWithT(t).Expect(who(t, access)).To(Equal(test.user))
		})
	}
}

// manyEntries are logins for a number of registries.
func manyEntries(count int) string {
	var entries []string
	for i := range count {
		entries = append(entries, fmt.Sprintf(`"%d.example.com":{"username":"u","password":"p"}`, i))
	}
	return strings.Join(entries, ",")
}

func TestAPullSecretThatIsOfNoUse(t *testing.T) {
	t.Parallel()
	dockerConfig := func(content string) *corev1.Secret {
		return secret("regcred", corev1.SecretTypeDockerConfigJson, map[string]string{corev1.DockerConfigJsonKey: content})
	}
	attached := credentials.References{ServiceAccountName: "puller"}
	for name, test := range map[string]struct {
		objects    []client.Object
		references credentials.References
		words      []string
	}{
		"does not exist": {
			words: []string{`Secret "apps/regcred" (secretRef)`, "does not exist", "create it"},
		},
		"is in another namespace": {
			objects: []client.Object{in("others", pullSecret("regcred", map[string]authn.AuthConfig{"ghcr.io": user("robot")}))},
			words:   []string{`Secret "apps/regcred" (secretRef)`, "does not exist"},
		},
		"is of another type": {
			objects: []client.Object{secret("regcred", corev1.SecretTypeOpaque, map[string]string{"password": password})},
			words:   []string{`Secret "apps/regcred"`, `its type is "Opaque", expected kubernetes.io/dockerconfigjson`, "kubectl create secret docker-registry"},
		},
		"has a login that no registry takes": {
			objects: []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{"ghcr.io": {Username: "robot", Password: strings.Repeat(password, 1000)}})},
			words:   []string{`"ghcr.io"`, "bytes, expected at most 16384"},
		},
		"has no JSON": {
			objects: []client.Object{dockerConfig(password)},
			words:   []string{`Secret "apps/regcred"`, ".dockerconfigjson is no valid JSON", `"auths"`},
		},
		"has nothing": {
			objects: []client.Object{dockerConfig("")},
			words:   []string{`Secret "apps/regcred"`, ".dockerconfigjson is no valid JSON"},
		},
		"has logins in another form": {
			objects: []client.Object{dockerConfig(`{"auths":["` + password + `"]}`)},
			words:   []string{`Secret "apps/regcred"`, "another form", `"auths"`},
		},
		"has an entry that is no object": {
			objects: []client.Object{dockerConfig(`{"auths":{"ghcr.io":"` + password + `"}}`)},
			words:   []string{`Secret "apps/regcred"`, "malformed entry", "username and password"},
		},
		"has an entry that is no base64": {
			objects: []client.Object{dockerConfig(`{"auths":{"ghcr.io":{"auth":"` + password + `"}}}`)},
			words:   []string{`Secret "apps/regcred"`, "malformed entry", "base64"},
		},
		"has an entry for no registry": {
			objects: []client.Object{dockerConfig(`{"auths":{"https://robot:` + password + `@%zz/":{}}}`)},
			words:   []string{`Secret "apps/regcred"`, "no valid name", "ghcr.io"},
		},
		"has a large document": {
			objects: []client.Object{dockerConfig(`{"auths":{` + strings.Repeat(" ", 256<<10) + `}}`)},
			words:   []string{`Secret "apps/regcred"`, "262156 bytes, expected at most 262144"},
		},
		"has more entries than are read": {
			objects: []client.Object{dockerConfig(`{"auths":{` + manyEntries(1001) + `}}`)},
			words:   []string{`Secret "apps/regcred"`, "1001 entries", "at most 1000"},
		},
		"is named by no ServiceAccount that exists": {
			references: attached,
			words:      []string{`ServiceAccount "apps/puller" (serviceAccountName)`, "does not exist", "create it"},
		},
		"is named by a ServiceAccount and does not exist": {
			objects:    []client.Object{serviceAccount("puller", "regcred")},
			references: attached,
			words:      []string{`Secret "apps/regcred" (imagePullSecrets of ServiceAccount puller)`, "does not exist"},
		},
		"is one of too many": {
			objects:    []client.Object{serviceAccount("puller", make([]string, 33)...)},
			references: attached,
			words:      []string{`ServiceAccount "apps/puller"`, "33 imagePullSecrets, expected at most 32"},
		},
		"is named by a ServiceAccount and has no JSON": {
			objects:    []client.Object{serviceAccount("puller", "regcred"), dockerConfig("{" + password)},
			references: attached,
			words:      []string{`Secret "apps/regcred" (imagePullSecrets of ServiceAccount puller)`, "no valid JSON"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			references := test.references
			if references == (credentials.References{}) {
				references.SecretName = "regcred"
			}
			references.Namespace = namespace
			access, err := resolver(test.objects...).Resolve(t.Context(), repository(t, "ghcr.io/org/app"), references)
			said := refused(t, err)
			for _, words := range test.words {
				g.Expect(said).To(ContainSubstring(words))
			}
			g.Expect(access).To(Equal(registry.Access{}), "an error comes with no access")
		})
	}
}

func TestAnAPIServerThatDoesNotHandOutASecret(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer error
		is     func(error) bool
	}{
		"because it is forbidden": {
			answer: apierrors.NewForbidden(corev1.Resource("secrets"), "regcred", context.Canceled),
			is:     apierrors.IsForbidden,
		},
		"because it is overloaded": {
			answer: apierrors.NewTooManyRequests("slow down", 1),
			is:     apierrors.IsTooManyRequests,
		},
		"because a proxy before it answers 404": {
			answer: apierrors.NewGenericServerResponse(http.StatusNotFound, "get", schema.GroupResource{Resource: "secrets"}, "regcred", "<html>", 0, true),
			is:     apierrors.IsNotFound,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			failing := interceptor.NewClient(cluster(), interceptor.Funcs{
				Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
					return test.answer
				},
			})
			_, err := credentials.New(credentials.Options{Client: failing}).Resolve(t.Context(),
				repository(t, "ghcr.io/org/app"), credentials.References{Namespace: namespace, SecretName: "regcred"})
			g.Expect(refused(t, err)).To(And(ContainSubstring(`Secret "apps/regcred"`), ContainSubstring("API server")))
			g.Expect(test.is(err)).To(BeTrue(), "the cause stays in the chain")
		})
	}
}

func FuzzPullSecret(f *testing.F) {
	f.Add([]byte(`{"auths":{"ghcr.io":{"username":"a","password":"b"},"https://ghcr.io/v2/":{"username":"c"}}}`), true)
	f.Add([]byte(`{"ghcr.io/org":{"auth":"YTpi"},"*.io":{"identitytoken":"t"},"%zz":null}`), false)
	f.Add([]byte(`{"auths":null,"AUTHS":{"[::1":{}}}`), true)
	f.Fuzz(func(t *testing.T, content []byte, present bool) {
		g := NewWithT(t)
		written := secret("regcred", corev1.SecretTypeDockercfg, map[string]string{corev1.DockerConfigKey: string(content)})
		if present {
			written = secret("regcred", corev1.SecretTypeDockerConfigJson, map[string]string{corev1.DockerConfigJsonKey: string(content)})
		}
		r := resolver(written)
		references := credentials.References{Namespace: namespace, SecretName: "regcred"}
		first, err := r.Resolve(t.Context(), repository(t, "ghcr.io/org/app"), references)
		if err != nil {
			refused(t, err)
			return
		}
		second := resolve(t, r, "ghcr.io/org/app", references)
		g.Expect(second.Fingerprint).To(Equal(first.Fingerprint), "the choice between two entries is always the same")
	})
}

// BenchmarkLargestPullSecret resolves a login among as many as are read.
func BenchmarkLargestPullSecret(b *testing.B) {
	with := resolver(secret("regcred", corev1.SecretTypeDockerConfigJson, map[string]string{
		corev1.DockerConfigJsonKey: `{"auths":{` + manyEntries(1000) + `}}`,
	}))
	image, err := name.NewRepository("example.com/app")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := with.Resolve(b.Context(), image, credentials.References{Namespace: namespace, SecretName: "regcred"}); err != nil {
			b.Fatal(err)
		}
	}
}
