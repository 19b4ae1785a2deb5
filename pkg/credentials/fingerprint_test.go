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
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/pkg/credentials"
)

// question is one access that is asked for.
type question struct {
	image      string
	references credentials.References
}

func TestFingerprints(t *testing.T) {
	ours := newAuthority(t)
	certificate, key := ours.issue(t)
	other, otherKey := ours.issue(t)
	opaque := func(name string, data map[string]string) client.Object {
		return secret(name, corev1.SecretTypeOpaque, data)
	}
	account := func(name, role string) *corev1.ServiceAccount {
		a := serviceAccount(name)
		a.UID = "1"
		a.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::012345678901:role/" + role}
		return a
	}
	ghcr := func(config authn.AuthConfig) map[string]authn.AuthConfig {
		return map[string]authn.AuthConfig{"ghcr.io": config}
	}
	r := resolver(
		pullSecret("robot", ghcr(user("robot"))),
		in("others", pullSecret("same-robot", map[string]authn.AuthConfig{"https://ghcr.io/v2/": user("robot"), "quay.io": user("quay")})),
		pullSecret("other-user", ghcr(user("other"))),
		pullSecret("other-password", ghcr(authn.AuthConfig{Username: "robot", Password: "other"})),
		pullSecret("shifted", ghcr(authn.AuthConfig{Username: "robot" + password[:1], Password: password[1:]})),
		pullSecret("identity-token", ghcr(authn.AuthConfig{IdentityToken: password})),
		pullSecret("registry-token", ghcr(authn.AuthConfig{RegistryToken: password})),
		pullSecret("elsewhere", map[string]authn.AuthConfig{"quay.io": user("robot")}),
		serviceAccount("puller", "robot"),
		opaque("roots", map[string]string{"ca.crt": ours.pem}),
		opaque("old-roots", map[string]string{"caFile": ours.pem}),
		opaque("other-roots", map[string]string{"ca.crt": newAuthority(t).pem}),
		opaque("pair", map[string]string{"ca.crt": ours.pem, "tls.crt": certificate, "tls.key": key}),
		opaque("other-pair", map[string]string{"ca.crt": ours.pem, "tls.crt": other, "tls.key": otherKey}),
		opaque("proxy", map[string]string{"address": "http://proxy.example.com", "username": "u", "password": "p"}),
		opaque("same-proxy", map[string]string{"address": "http://u:p@proxy.example.com"}),
		opaque("other-proxy", map[string]string{"address": "http://proxy.example.com", "username": "u", "password": "q"}),
		account("deployer", "deployer"), in("others", account("deployer", "deployer")), account("builder", "deployer"),
	)
	enableWorkloadIdentity(t)
	ask := func(references credentials.References) question { return question{"ghcr.io/org/app", references} }
	aws := func(references credentials.References) question {
		references.Provider = "aws"
		return question{ecr, references}
	}
	// Inside a group all are the same, and no two groups are.
	groups := map[string][]question{
		"anonymous": {
			ask(credentials.References{}),
			ask(credentials.References{Provider: "generic"}),
			ask(credentials.References{Namespace: "others"}),
			ask(credentials.References{Insecure: true}),
			ask(credentials.References{SecretName: "elsewhere"}),
			{"quay.io/org/app", credentials.References{SecretName: "robot"}},
		},
		"robot": {
			ask(credentials.References{SecretName: "robot"}),
			ask(credentials.References{SecretName: "robot"}),
			ask(credentials.References{ServiceAccountName: "puller"}),
			ask(credentials.References{Namespace: "others", SecretName: "same-robot"}),
			ask(credentials.References{SecretName: "robot", Provider: "aws"}),
		},
		"other user":       {ask(credentials.References{SecretName: "other-user"})},
		"other password":   {ask(credentials.References{SecretName: "other-password"})},
		"shifted":          {ask(credentials.References{SecretName: "shifted"})},
		"identity token":   {ask(credentials.References{SecretName: "identity-token"})},
		"registry token":   {ask(credentials.References{SecretName: "registry-token"})},
		"roots":            {ask(credentials.References{CertSecretName: "roots"}), ask(credentials.References{CertSecretName: "old-roots"})},
		"other roots":      {ask(credentials.References{CertSecretName: "other-roots"})},
		"robot with roots": {ask(credentials.References{SecretName: "robot", CertSecretName: "roots"})},
		"pair":             {ask(credentials.References{CertSecretName: "pair"})},
		"other pair":       {ask(credentials.References{CertSecretName: "other-pair"})},
		"proxy":            {ask(credentials.References{ProxySecretName: "proxy"}), ask(credentials.References{ProxySecretName: "same-proxy"})},
		"other proxy":      {ask(credentials.References{ProxySecretName: "other-proxy"})},
		"robot by proxy":   {ask(credentials.References{SecretName: "robot", ProxySecretName: "proxy"})},
		"controller in aws": {
			aws(credentials.References{}),
			aws(credentials.References{Namespace: "others"}),
		},
		"controller elsewhere in aws": {
			{"012345678901.dkr.ecr.us-east-1.amazonaws.com/app", credentials.References{Provider: "aws"}},
		},
		"controller in gcp": {{gar, credentials.References{Provider: "gcp"}}},
		"deployer":          {aws(credentials.References{ServiceAccountName: "deployer"}), aws(credentials.References{ServiceAccountName: "deployer"})},
		"deployer by proxy": {aws(credentials.References{ServiceAccountName: "deployer", ProxySecretName: "proxy"})},
		"others' deployer":  {aws(credentials.References{Namespace: "others", ServiceAccountName: "deployer"})},
		"builder":           {aws(credentials.References{ServiceAccountName: "builder"})},
	}
	g := NewWithT(t)
	owner := map[string]string{}
	for group, questions := range groups {
		first := resolve(t, r, questions[0].image, questions[0].references).Fingerprint
		g.Expect(first).NotTo(BeEmpty())
		g.Expect(owner).NotTo(HaveKey(first), "%s is not %s", group, owner[first])
		owner[first] = group
		for i, question := range questions {
			g.Expect(resolve(t, r, question.image, question.references).Fingerprint).To(Equal(first), "%s, number %d", group, i)
		}
	}
}

func TestAFingerprintChangesWithWhatAServiceAccountStandsFor(t *testing.T) {
	enableWorkloadIdentity(t)
	g := NewWithT(t)
	account := serviceAccount("deployer")
	account.Annotations = map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::012345678901:role/one"}
	c := cluster(account)
	r := credentials.New(credentials.Options{Client: c})
	fingerprint := func() string {
		return resolve(t, r, ecr,
			credentials.References{Provider: "aws", ServiceAccountName: "deployer"}).Fingerprint
	}
	before := fingerprint()
	account.Annotations["eks.amazonaws.com/role-arn"] = "arn:aws:iam::012345678901:role/two"
	g.Expect(c.Update(t.Context(), account)).To(Succeed())
	changed := fingerprint()
	g.Expect(changed).NotTo(Equal(before))

	g.Expect(c.Delete(t.Context(), account)).To(Succeed())
	account.ResourceVersion, account.UID = "", "another"
	g.Expect(c.Create(t.Context(), account)).To(Succeed())
	g.Expect(fingerprint()).NotTo(Equal(changed), "another ServiceAccount of that name")
}

func TestAFingerprintIsWorthlessElsewhere(t *testing.T) {
	t.Parallel()
	references := credentials.References{SecretName: "robot"}
	robot := pullSecret("robot", map[string]authn.AuthConfig{"ghcr.io": user("robot")})
	here := resolve(t, resolver(robot.DeepCopy()), "ghcr.io/org/app", references).Fingerprint
	there := resolve(t, resolver(robot.DeepCopy()), "ghcr.io/org/app", references).Fingerprint
	NewWithT(t).Expect(here).NotTo(Equal(there))
}

// TestAWayStaysWhenASecretIsRotated holds that what is remembered of a registry is not
// forgotten with new certificates, and is not mixed up with what others see there.
func TestAWayStaysWhenASecretIsRotated(t *testing.T) {
	g := NewWithT(t)
	roots := secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": newAuthority(t).pem})
	others := in("others", roots.DeepCopy())
	c := cluster(roots, others)
	r := credentials.New(credentials.Options{Client: c})
	references := credentials.References{CertSecretName: "roots"}
	before := resolve(t, r, "ghcr.io/org/app", references)
	roots.Data["ca.crt"] = []byte(newAuthority(t).pem)
	g.Expect(c.Update(t.Context(), roots)).To(Succeed())
	after := resolve(t, r, "ghcr.io/org/app", references)
	g.Expect(after.Fingerprint).NotTo(Equal(before.Fingerprint))
	g.Expect(after.Way).To(And(Equal(before.Way), Not(BeEmpty())))
	references.Namespace = "others"
	g.Expect(resolve(t, r, "ghcr.io/org/app", references).Way).NotTo(Equal(before.Way))
	g.Expect(resolve(t, r, "ghcr.io/org/app", credentials.References{}).Way).To(BeEmpty())
}
