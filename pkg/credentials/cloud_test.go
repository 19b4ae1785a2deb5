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
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fluxcd/pkg/auth"
	"github.com/fluxcd/pkg/cache"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	ecr = "012345678901.dkr.ecr.eu-west-1.amazonaws.com/app"
	gar = "europe-docker.pkg.dev/project/app"
	acr = "example.azurecr.io/app"
)

// enableWorkloadIdentity does what the feature gate does. It is global, so who
// calls it cannot run beside others.
func enableWorkloadIdentity(t *testing.T) {
	t.Helper()
	auth.EnableObjectLevelWorkloadIdentity()
	t.Cleanup(auth.DisableObjectLevelWorkloadIdentity)
}

// onGoogleCloud makes this process believe that it runs there: it starts the
// service that tells a machine its identity, and returns how often it was
// asked for a token.
func onGoogleCloud(t *testing.T, answer http.HandlerFunc) *atomic.Int64 {
	t.Helper()
	var asked atomic.Int64
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			asked.Add(1)
			answer(w, r)
		}
	}))
	t.Cleanup(metadata.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(metadata.URL, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	return &asked
}

// withKeysOfAWS gives this process an identity there, and nothing else of what
// a machine may be set up with.
func withKeysOfAWS(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", password)
	t.Setenv("HOME", t.TempDir())
	for _, name := range []string{"AWS_CA_BUNDLE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_PROFILE", "AWS_ENDPOINT_URL"} {
		t.Setenv(name, "")
	}
}

func givesToken(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": password, "expires_in": 3600, "token_type": "Bearer"})
}

func TestTheControllersOwnIdentityOpensARegistryOfItsCloud(t *testing.T) {
	g := NewWithT(t)
	asked := onGoogleCloud(t, givesToken)
	ours := newAuthority(t)
	s := serve(t, ours.server(t, "europe-docker.pkg.dev"), func(s *server, w http.ResponseWriter, r *http.Request) bool {
		name, pass, _ := r.BasicAuth()
		if name == "oauth2accesstoken" && pass == password {
			s.admit(name)
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s.image = repository(t, "europe-docker.pkg.dev/org/app")
	p := serveProxy(t, s)
	t.Setenv("HTTPS_PROXY", p.address().String())
	t.Setenv("NO_PROXY", "")
	tokens, err := cache.NewTokenCache(10)
	g.Expect(err).NotTo(HaveOccurred())
	r := credentials.New(credentials.Options{TokenCache: tokens, Client: cluster()})
	// pull trusts our authority in place of those of the system.
	pull := func() error {
		access := resolve(t, r, s.image.Name(), credentials.References{Provider: "gcp"})
		g.Expect(access.Lent).To(BeTrue())
		access.Lent, access.TLS = false, ours.trust()
		return s.pull(t, access)
	}

	resolve(t, r, s.image.Name(), credentials.References{Provider: "gcp"})
	g.Expect(asked.Load()).To(BeZero(), "who resolves an access asks no cloud")
	g.Expect(pull()).To(Succeed())
	g.Expect(s.saw()).To(ContainElement("oauth2accesstoken"))
	g.Expect(p.reached()).To(ContainElement("europe-docker.pkg.dev:443"), "by the proxy of the platform")
	g.Expect(pull()).To(Succeed())
	g.Expect(asked.Load()).To(BeEquivalentTo(1), "the token cache kept the token")

	_, err = r.Resolve(t.Context(), s.image, credentials.References{Namespace: namespace, Provider: "gcp", SecretName: "regcred"})
	g.Expect(refused(t, err)).To(ContainSubstring("regcred"), "a Secret wins over a provider, even if it is of no use")
}

func TestWithoutATokenCacheTheCloudIsAskedEachTime(t *testing.T) {
	g := NewWithT(t)
	asked := onGoogleCloud(t, givesToken)
	access := resolve(t, resolver(), gar, credentials.References{Provider: "gcp"})
	for n := range 2 {
		config, err := access.Auth.Authorization()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(*config).To(Equal(authn.AuthConfig{Username: "oauth2accesstoken", Password: password}))
		g.Expect(asked.Load()).To(BeEquivalentTo(n + 1))
	}
}

func TestACloudIsAskedForTheIdentityOfTheServiceAccount(t *testing.T) {
	enableWorkloadIdentity(t)
	for name, test := range map[string]struct {
		provider, image string
		annotations     map[string]string
		audience        string
		asked           string
	}{
		"at AWS, in the region of the registry": {
			provider: "aws", image: ecr,
			annotations: map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::012345678901:role/deployer"},
			audience:    "sts.amazonaws.com",
			asked:       "sts.eu-west-1.amazonaws.com:443",
		},
		"at Azure": {
			provider: "azure", image: acr,
			annotations: map[string]string{
				"azure.workload.identity/client-id": "d6e4fc00-c5b2-4a72-9f84-6a92e3f06b08",
				"azure.workload.identity/tenant-id": "72f988bf-86f1-41af-91ab-2d7cd011db47",
			},
			audience: "api://AzureADTokenExchange",
			asked:    "login.microsoftonline.com:443",
		},
		"at Google Cloud": {
			provider: "gcp", image: gar,
			annotations: map[string]string{
				"gcp.auth.fluxcd.io/workload-identity-provider": "projects/1234567890/locations/global/workloadIdentityPools/pool/providers/provider",
			},
			audience: "//iam.googleapis.com/projects/1234567890/locations/global/workloadIdentityPools/pool/providers/provider",
			asked:    "sts.googleapis.com:443",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			p := serveProxy(t, nil)
			account := serviceAccount("deployer")
			account.Annotations = test.annotations
			var subjects, audiences []string
			c := interceptor.NewClient(cluster(account, p.secret(password)), interceptor.Funcs{
				SubResourceCreate: func(ctx context.Context, c client.Client, name string, of, request client.Object, options ...client.SubResourceCreateOption) error {
					subjects = append(subjects, name+" of "+of.GetNamespace()+"/"+of.GetName())
					if asked, ok := request.(*authenticationv1.TokenRequest); ok {
						audiences = append(audiences, asked.Spec.Audiences...)
					}
					return c.SubResource(name).Create(ctx, of, request, options...)
				},
			})
			// Nobody is there to answer: the context ends when the question was heard.
			ctx, cancel := context.WithCancel(t.Context())
			p.meanwhile = func(*http.Request) { cancel() }
			access := resolve(t, credentials.New(credentials.Options{Client: c}), test.image,
				credentials.References{Provider: test.provider, ServiceAccountName: "deployer", ProxySecretName: "proxy"})
			g.Expect(subjects).To(BeEmpty(), "not before the access is used")

			_, err := authn.Authorization(ctx, access.Auth)
			said := refused(t, err)
			g.Expect(said).To(ContainSubstring("provider " + test.provider + ` gave no credentials to ServiceAccount "apps/deployer"`))
			g.Expect(subjects).To(ConsistOf("token of apps/deployer"))
			g.Expect(audiences).To(ConsistOf(test.audience))
			g.Expect(p.reached()).To(ContainElement(test.asked))
		})
	}
}

func TestTheDefaultServiceAccountStandsInForNone(t *testing.T) {
	enableWorkloadIdentity(t)
	auth.SetDefaultServiceAccount("tenant")
	t.Cleanup(func() { auth.SetDefaultServiceAccount("") })
	g := NewWithT(t)
	references := credentials.References{Namespace: namespace, Provider: "aws"}
	_, err := resolver().Resolve(t.Context(), repository(t, ecr), references)
	g.Expect(refused(t, err)).To(And(ContainSubstring(`ServiceAccount "apps/tenant" (--default-service-account)`), ContainSubstring("does not exist")))

	tenant := serviceAccount("tenant")
	tenant.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::012345678901:role/tenant"}
	r := resolver(tenant)
	byDefault := resolve(t, r, ecr, references).Fingerprint
	references.ServiceAccountName = "tenant"
	g.Expect(resolve(t, r, ecr, references).Fingerprint).To(Equal(byDefault))
}

// TestAnIdentityOfThePlatformGoesByNoWayOfATenant holds that whoever writes an
// object cannot have the token of the controller sent to a proxy, a server or a
// connection of their own, nor the question for it.
func TestAnIdentityOfThePlatformGoesByNoWayOfATenant(t *testing.T) {
	for name, ways := range map[string]credentials.References{
		"plain HTTP":               {Insecure: true},
		"a proxy":                  {ProxySecretName: "proxy"},
		"a certificate authority":  {CertSecretName: "roots"},
		"a proxy and plain HTTP":   {ProxySecretName: "proxy", Insecure: true},
		"a proxy and an authority": {ProxySecretName: "proxy", CertSecretName: "roots"},
		"all of them":              {ProxySecretName: "proxy", CertSecretName: "roots", Insecure: true},
		"a proxy, beside a Secret on an ImageRepository": credentials.References{Provider: "gcp", SecretName: "regcred", ProxySecretName: "proxy"}.PreferProvider(),
	} {
		for provider, image := range map[string]string{"aws": ecr, "azure": acr, "gcp": gar} {
			for _, byDefault := range []string{"", "tenant"} {
				t.Run(fmt.Sprintf("%s at %s, default %q", name, provider, byDefault), func(t *testing.T) {
					g := NewWithT(t)
					asked := onGoogleCloud(t, givesToken)
					withKeysOfAWS(t)
					enableWorkloadIdentity(t)
					auth.SetDefaultServiceAccount(byDefault)
					t.Cleanup(func() { auth.SetDefaultServiceAccount("") })
					p := serveProxy(t, nil)
					r := resolver(p.secret(password), serviceAccount("tenant"),
						secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": newAuthority(t).pem}))
					ways.Namespace, ways.Provider = namespace, provider
					access, err := r.Resolve(t.Context(), repository(t, image), ways)
					var f *fault.Error
					g.Expect(errors.As(err, &f)).To(BeTrue())
					g.Expect(f.Reason).To(Equal(v1alpha1.ReasonInvalidSpec))
					g.Expect(f.Class).To(Equal(fault.Stall), "only another spec helps")
					for field, named := range map[string]bool{
						"insecure: true": ways.Insecure, "proxySecretRef": ways.ProxySecretName != "", "certSecretRef": ways.CertSecretName != "",
					} {
						g.Expect(strings.Contains(err.Error(), field)).To(Equal(named), err.Error())
					}
					g.Expect(err.Error()).To(ContainSubstring("serviceAccountName"))
					g.Expect(access).To(Equal(registry.Access{}))
					g.Expect(asked.Load()).To(BeZero())
					g.Expect(p.reached()).To(BeEmpty())
				})
			}
		}
	}
}

func TestTheControllersIdentityIsShownToTheRegionOfTheRegistry(t *testing.T) {
	g := NewWithT(t)
	withKeysOfAWS(t)
	p := serveProxy(t, nil)
	p.takesAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.meanwhile = func(*http.Request) { cancel() }
	access := resolve(t, resolver(), ecr, credentials.References{Provider: "aws"})
	_, err := authn.Authorization(ctx, access.Auth)
	g.Expect(refused(t, err)).To(ContainSubstring("provider aws gave no credentials to this controller"))
	g.Expect(p.reached()).To(ContainElement("api.ecr.eu-west-1.amazonaws.com:443"))
}

func TestACloudThatDoesNotAnswerHoldsNobodyLongerThanTheContext(t *testing.T) {
	g := NewWithT(t)
	withKeysOfAWS(t)
	p := serveProxy(t, nil)
	p.takesAll(t)
	over := make(chan struct{})
	t.Cleanup(func() { close(over) }) // before the proxy closes, which waits for its answers
	p.meanwhile = func(*http.Request) { <-over }
	access := resolve(t, resolver(), ecr, credentials.References{Provider: "aws"})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := authn.Authorization(ctx, access.Auth)
		ended <- err
	}()
	var err error
	g.Eventually(ended, "5s").Should(Receive(&err))
	refused(t, err)
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
}

func TestACloudIdentityThatIsOfNoUse(t *testing.T) {
	annotated := serviceAccount("deployer")
	annotated.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "no role"}
	for name, test := range map[string]struct {
		image      string
		disabled   bool
		objects    []client.Object
		references credentials.References
		words      []string
	}{
		"is of a cloud that does not exist": {
			image:      "ghcr.io/org/app",
			references: credentials.References{Provider: "ibm"},
			words:      []string{`"ibm"`, "expected generic, aws, azure or gcp"},
		},
		"is for a registry of no cloud": {
			image:      "ghcr.io/org/app",
			references: credentials.References{Provider: "aws"},
			words:      []string{"provider aws", `"ghcr.io"`, "provider: generic"},
		},
		"is for a registry of another cloud": {
			image:      ecr,
			references: credentials.References{Provider: "azure"},
			words:      []string{"provider azure", `"012345678901.dkr.ecr.eu-west-1.amazonaws.com"`},
		},
		"is for a registry whose name only begins like one of the cloud": {
			image:      "012345678901.dkr.ecr.eu-west-1.amazonaws.com.example.com/app",
			references: credentials.References{Provider: "aws"},
			words:      []string{"provider aws", "example.com"},
		},
		"is a ServiceAccount that does not exist": {
			image:      ecr,
			references: credentials.References{Provider: "aws", ServiceAccountName: "deployer"},
			words:      []string{`ServiceAccount "apps/deployer" (serviceAccountName)`, "does not exist", "create it"},
		},
		"is a ServiceAccount of another namespace": {
			image:      ecr,
			objects:    []client.Object{in("others", serviceAccount("deployer"))},
			references: credentials.References{Provider: "aws", ServiceAccountName: "deployer"},
			words:      []string{`ServiceAccount "apps/deployer"`, "does not exist"},
		},
		"is a ServiceAccount without a role": {
			image:      ecr,
			objects:    []client.Object{annotated},
			references: credentials.References{Provider: "aws", ServiceAccountName: "deployer"},
			words:      []string{`ServiceAccount "apps/deployer"`, "annotations name no identity of provider aws", "role-arn"},
		},
		"is a ServiceAccount although those were not allowed": {
			image:      ecr,
			disabled:   true,
			objects:    []client.Object{serviceAccount("deployer")},
			references: credentials.References{Provider: "aws", ServiceAccountName: "deployer"},
			words:      []string{`ServiceAccount "apps/deployer"`, "--feature-gates=ObjectLevelWorkloadIdentity=true"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			if !test.disabled {
				enableWorkloadIdentity(t)
			}
			test.references.Namespace = namespace
			_, err := resolver(test.objects...).Resolve(t.Context(), repository(t, test.image), test.references)
			said := refused(t, err)
			for _, words := range test.words {
				g.Expect(said).To(ContainSubstring(words))
			}
		})
	}
}
