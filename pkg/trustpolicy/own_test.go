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

package trustpolicy

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// secretsOnly reads one Secret under any name, in one of its versions.
type secretsOnly struct {
	Reader

	version string
	data    map[string][]byte
}

// Secret implements Reader.
func (s *secretsOnly) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "1", ResourceVersion: s.version}, Data: s.data}, nil
}

// manyIdentities is a trust policy of Notation with quadratic validation of its many
// identities.
func manyIdentities() []byte {
	var identities []string
	for i := range 18_000 {
		identities = append(identities, fmt.Sprintf(`"x509.subject: C=US, ST=WA, O=%d"`, i))
	}
	return []byte(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "trustStores": ["ca:any"],
		"signatureVerification": {"level": "strict"}, "trustedIdentities": [` + strings.Join(identities, ",") + `]}]}`)
}

func TestASpecVerifyIsParsedOnceForEachStateOfItsSecret(t *testing.T) {
	g := NewWithT(t)
	secret := &secretsOnly{version: "1", data: map[string][]byte{"trustpolicy.json": manyIdentities()}}
	known := &Resolver{Reader: secret}
	namespace := "apps"
	verify := sourcev1.OCIRepositoryVerification{Provider: "notation", SecretRef: &meta.LocalObjectReference{Name: "notary"}}
	own := func() error {
		_, err := known.own(t.Context(), namespace, verify)
		return err
	}
	g.Expect(own()).To(MatchError(ContainSubstring("65536")))
	g.Expect(own()).To(MatchError(ContainSubstring("65536")))
	g.Expect(known.owners.Len()).To(Equal(1))
	secret.version = "2"
	g.Expect(own()).To(HaveOccurred())
	g.Expect(known.owners.Len()).To(Equal(2))
	verify.Provider = "cosign"
	g.Expect(own()).To(MatchError(ContainSubstring("no usable public key")))
	g.Expect(known.owners.Len()).To(Equal(3))
	namespace = "another"
	g.Expect(own()).To(HaveOccurred())
	g.Expect(known.owners.Len()).To(Equal(4))
}

// Specs with the most costly expressions fit into the memory of the controller, in any
// number.
func TestCachedAuthoritiesOfSpecsFitIntoMemory(t *testing.T) {
	g := NewWithT(t)
	used := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	known, before := &Resolver{}, used()
	for i := range 60 {
		verify := sourcev1.OCIRepositoryVerification{Provider: "cosign"}
		for range 16 {
			costly := fmt.Sprint(strings.Repeat("(a)", 330), i)
			verify.MatchOIDCIdentity = append(verify.MatchOIDCIdentity, sourcev1.OIDCIdentityMatch{Issuer: costly, Subject: costly})
		}
		_, err := known.own(t.Context(), "apps", verify)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(used() - before).To(BeNumerically("<", 256<<20))
	runtime.KeepAlive(known)
}
