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

package controllers_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// hugeKey is a public key in PEM with a verification time of more than a minute.
func hugeKey(t *testing.T) []byte {
	t.Helper()
	modulus := new(big.Int).Lsh(big.NewInt(1), 1<<20-1)
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// neighbours are the names of sources of a hostile tenant, with a Secret beside them.
func (s *scene) neighbours(count int, verify sourcev1.OCIRepositoryVerification, data map[string][]byte) (tenant string, names []string) {
	s.Helper()
	tenant = s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.beside = []string{tenant}
	s.start()
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: verify.SecretRef.Name}, Data: data})
	for i := range count {
		names = append(names, fmt.Sprintf("app-%d", i))
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: names[i]},
			Spec: v1alpha1.ArtifactRepositorySpec{
				Image: s.image("hostile"), Tag: "1", Verify: &verify,
				Timeout: &metav1.Duration{Duration: time.Second}, Interval: &metav1.Duration{Duration: time.Second},
			},
		})
	}
	return tenant, names
}

// saysOf waits for a message of a source of another namespace.
func (s *scene) saysOf(tenant, name string, words ...string) {
	s.Helper()
	s.eventually(func(g Gomega) {
		obj := &v1alpha1.ArtifactRepository{}
		g.Expect(s.client.Get(s.Context(), types.NamespacedName{Namespace: tenant, Name: name}, obj)).To(Succeed())
		for _, word := range words {
			g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(ContainSubstring(word))
		}
	})
}

// Without a limit, the validation of such a policy takes most of a minute, without a way to
// stop it.
func TestATrustPolicyOfManyIdentitiesDelaysNoOtherSource(t *testing.T) {
	s := newScene(t)
	s.push("hostile:1", publish.Files{"app.yaml": "version: 1\n"})
	var identities []string
	for i := range 18_000 {
		identities = append(identities, fmt.Sprintf(`"x509.subject: C=US, ST=WA, O=%d"`, i))
	}
	policy := `{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "trustStores": ["ca:any"],
		"signatureVerification": {"level": "strict"}, "trustedIdentities": [` + strings.Join(identities, ",") + `]}]}`
	verify := sourcev1.OCIRepositoryVerification{Provider: "notation", SecretRef: &meta.LocalObjectReference{Name: "notary"}}

	tenant, names := s.neighbours(10, verify, map[string][]byte{"trustpolicy.json": []byte(policy)})

	for _, name := range names {
		s.saysOf(tenant, name, "spec.verify", "expected at most 65536")
	}
	s.publishes("app", "1.0.0")
}

func TestAKeyOfAnySizeDelaysNoOtherSource(t *testing.T) {
	s := newScene(t)
	s.push("hostile:1", publish.Files{"app.yaml": "version: 1\n"})
	verify := sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}

	tenant, names := s.neighbours(10, verify, map[string][]byte{"a.pub": hugeKey(t)})

	for _, name := range names {
		s.saysOf(tenant, name, "no usable public key", "an RSA key of 1048576 bits, expected 1024 to 8192")
	}
	s.publishes("app", "1.0.0")
}

// A key that is too large is skipped if there is a good one.
func TestAKeyThatIsTooLargeHidesNoOther(t *testing.T) {
	s := newScene(t)
	s.start()
	signer := newSigner(t)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "keys"}, Data: map[string][]byte{
		"a.pub": hugeKey(t), "b.pub": signer.PublicKey,
	}})
	s.picked("app", "1.0.0")
	s.sign("app:1.0.0", signer)
	s.artifactRepository("app", signed)
	s.waitPublished("app", "1.0.0@")
}

func TestATrustRootOfAnySizeIsRefused(t *testing.T) {
	s := newScene(t)
	s.start()
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "roots"}, Data: map[string][]byte{"ca.crt": hugeKey(t)}})
	s.create(&v1alpha1.ArtifactRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "app"},
		Spec: v1alpha1.ArtifactRepositorySpec{
			Image: s.image("app"), Tag: "1", CertSecretRef: &meta.LocalObjectReference{Name: "roots"}, Interval: &metav1.Duration{Duration: time.Second},
		},
	})
	s.waitFailed("app", v1alpha1.ReasonAuthenticationFailed, "ca.crt holds an RSA key of 1048576 bits")
}
