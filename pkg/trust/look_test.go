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
	"net/http"
	"testing"
	"time"

	"github.com/notaryproject/notation-core-go/signature/cose"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func look(t *testing.T, i *image) ([]trust.Sighting, error) {
	t.Helper()
	return trust.Look(t.Context(), i.open(t, registry.Access{}), i.subject())
}

func TestALookSeesEverySignatureWhereverItIs(t *testing.T) {
	g := NewWithT(t)
	i := push(t, serve(t, true), "all kinds")
	pair, stranger, s, notary := newPair(t), newPair(t), newSigstore(t), newNotary(t, "release")
	i.attachBundle(t, keyBundle(t, pair, statement(t, i.digest, signPredicate)))
	i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{log: time.Now()}))
	i.attachBundle(t, keyBundle(t, pair, statement(t, i.digest, attestation)))
	i.tagBundle(t, keyBundle(t, stranger, statement(t, otherDigest(t), signPredicate)))
	text := claim(t, i, i.digest)
	i.attachLegacy(t, text, pair.sign(t, text))
	i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
	i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor, mediaType: cose.MediaTypeEnvelope}), cose.MediaTypeEnvelope)
	i.attachBundle(t, []byte("{"))

	found, err := look(t, i)
	g.Expect(err).NotTo(HaveOccurred())
	here := []string{i.digest.String()}
	for n := range found {
		if found[n].Format != trust.NotationJWS && found[n].Format != trust.NotationCOSE && found[n].Subject == "" {
			g.Expect(found[n].Times).To(BeEmpty())
		} else {
			g.Expect(found[n].Times).To(ConsistOf(BeTemporally("~", time.Now(), time.Hour)))
		}
		found[n].Times = nil
	}
	notation := trust.Sighting{Subject: "CN=release,O=Notary,ST=WA,C=US", Issuer: "CN=root,O=Notary,ST=WA,C=US", Digests: here}
	jws, inCBOR := notation, notation
	jws.Format, inCBOR.Format = trust.NotationJWS, trust.NotationCOSE
	g.Expect(found).To(ConsistOf(
		trust.Sighting{Format: trust.BundleReferrer, Key: "hint", Digests: here},
		trust.Sighting{Format: trust.BundleReferrer, Subject: subject, Issuer: issuer, Digests: here},
		trust.Sighting{Format: trust.BundleReferrer, Key: "hint", Predicate: attestation, Digests: here},
		trust.Sighting{Format: trust.BundleTag, Key: "hint", Digests: []string{otherDigest(t).String()}},
		trust.Sighting{Format: trust.Legacy, Digests: here},
		jws, inCBOR,
		HaveField("Malformed", ContainSubstring("a Sigstore bundle that cannot be read")),
	))
}

func TestALookSeesNothingWhereThereIsNothing(t *testing.T) {
	g := NewWithT(t)
	found, err := look(t, push(t, serve(t, true), "plain"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(found).To(BeEmpty())
}

func TestALookTellsWhatItCouldNotRead(t *testing.T) {
	g := NewWithT(t)
	i := push(t, serve(t, true), "half read")
	pair := newPair(t)
	text := claim(t, i, i.digest)
	i.attachLegacy(t, text, pair.sign(t, text))
	i.server.fail("/referrers/", http.StatusBadGateway)
	found, err := look(t, i)
	g.Expect(err).To(MatchError(ContainSubstring("502")))
	g.Expect(found).To(HaveLen(1), "what could be read is there")
}

func TestALookIsBounded(t *testing.T) {
	g := NewWithT(t)
	i := push(t, serve(t, true), "many")
	pair := newPair(t)
	for range 55 {
		i.attachBundle(t, keyBundle(t, pair, statement(t, i.digest, signPredicate)))
	}
	found, err := look(t, i)
	g.Expect(err).To(MatchError(ContainSubstring("more than 50")))
	g.Expect(found).To(HaveLen(50))
}

func TestFilesInPlaceOfASecret(t *testing.T) {
	g := NewWithT(t)
	i := push(t, serve(t, true), "files")
	pair := newPair(t)
	i.attachBundle(t, keyBundle(t, pair, statement(t, i.digest, signPredicate)))
	files := func(entries map[string][]byte) trust.Demand {
		paths := map[string]string{}
		for entry := range entries {
			paths[entry] = "keys/" + entry
		}
		return trust.Demand{Provider: trust.ProviderCosign, Secret: &trust.Secret{Name: "--key", Data: entries, Files: paths}}
	}
	verified, err := i.verify(t, files(map[string][]byte{"release.pem": pair.pem(t), "old": []byte("none")}))
	g.Expect(err).NotTo(HaveOccurred(), "a key is one whatever its file is called")
	g.Expect(verified.By()).To(Equal("spec.verify: key release.pem (sha256:" + pair.fingerprint(t) + ") by a Sigstore bundle"))
	g.Expect(verified.Rulings()[0].Words).To(Equal(`file "keys/old" is not used: it is not a public key in PEM format`))

	_, err = trust.NewAuthority(files(map[string][]byte{"old": []byte("none")}), trust.Options{})
	g.Expect(err).To(MatchError(`--key has no usable public key: file "keys/old" is not used: it is not a public key in PEM format`))
}
