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

package trust_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/trust"
)

func TestASignatureThatBreaksItsReaderEndsNothing(t *testing.T) {
	g := NewWithT(t)
	_, err := trust.Guarded(func() (int, error) { panic("a library") })
	g.Expect(err).To(MatchError(ContainSubstring("malformed")))
	n, err := trust.Guarded(func() (int, error) { return 7, nil })
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(n).To(Equal(7))
}

// FuzzBundle pushes bundles of any bytes to a registry: the verdict is never
// that they are good, and what is good beside them stays so.
func FuzzBundle(f *testing.F) {
	t := &testing.T{}
	s := newSigstore(t)
	by := newPair(t)
	digest := otherDigest(t)
	f.Add(keyBundle(t, newPair(t), statement(t, digest, signPredicate)))
	f.Add(keyBundle(t, by, statement(t, digest, signPredicate)))
	f.Add(keyBundle(t, by, statement(t, digest, attestation)))
	f.Add(s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, digest, signPredicate), witness{log: time.Now(), stamp: true}))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{}},"messageSignature":{}}`))
	f.Add([]byte("\x1f\x8b"))
	byKey, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	byIdentity, err := trust.NewAuthority(s.identities(t, lists{log: true}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		for _, authority := range []*trust.Authority{byKey, byIdentity} {
			verdict, words := trust.JudgeBundle(t.Context(), authority, bundle)
			if verdict != trust.Rejected || words == "" {
				t.Fatalf("verdict %s: %s", verdict, words)
			}
		}
	})
}

// FuzzLegacy does the same with a payload and annotations of any text.
func FuzzLegacy(f *testing.F) {
	t := &testing.T{}
	s := newSigstore(t)
	by := newPair(t)
	text := []byte(`{"critical":{"image":{"docker-manifest-digest":"sha256:aa"}}}`)
	f.Add(text, by.sign(t, text), "", "", "")
	f.Add(text, []byte("no"), "no", "{}", `{"SignedRFC3161Timestamp":"bm8="}`)
	f.Add(text, by.sign(t, text), "", `{"SignedEntryTimestamp":"bm8=","Payload":{"body":"e30=","logID":"aa"}}`, "")
	byKey, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	byIdentity, err := trust.NewAuthority(s.identities(t, lists{log: true, stamps: true}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload, signature []byte, certificate, log, stamp string) {
		for _, authority := range []*trust.Authority{byKey, byIdentity} {
			verdict, words := trust.JudgeLegacy(t.Context(), authority, trust.LegacyParts{
				Payload: payload, Signature: signature, Certificate: certificate, Log: log, Stamp: stamp,
			})
			if verdict != trust.Rejected || words == "" {
				t.Fatalf("verdict %s: %s", verdict, words)
			}
		}
	})
}
