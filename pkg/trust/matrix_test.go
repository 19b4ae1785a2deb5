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
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// place is where a signature is kept.
type place struct {
	name      string
	referrers bool // the registry keeps a list of them
	tag       bool // it is noted under the fallback tag
	legacy    bool
	format    trust.Format
}

func places() []place {
	return []place{
		{name: "bundle by referrers", referrers: true, format: trust.BundleReferrer},
		{name: "bundle by fallback tag", tag: true, format: trust.BundleTag},
		{name: "bundle by fallback tag, of a registry with referrers", referrers: true, tag: true, format: trust.BundleTag},
		{name: "legacy", legacy: true, format: trust.Legacy},
		{name: "legacy, of a registry with referrers", referrers: true, legacy: true, format: trust.Legacy},
	}
}

// store keeps a bundle in a place of such signatures.
func (p place) store(t *testing.T, i *image, bundle []byte) {
	t.Helper()
	if p.referrers && p.tag {
		i.tagBundle(t, bundle)
		return
	}
	i.attachBundle(t, bundle)
}

// signatures makes signatures of one kind in a place.
type signatures struct {
	demand    trust.Demand
	by        string // who is named when a good one is found
	good      func(t *testing.T, i *image)
	other     func(t *testing.T, i *image) // another key or identity
	digest    func(t *testing.T, i *image) // of another image
	predicate func(t *testing.T, i *image) // that says something else
	malformed func(t *testing.T, i *image)
	expired   func(t *testing.T, i *image) // nil for keys, which have no time to be valid in
}

const attestation = "https://slsa.dev/provenance/v1"

func keySignatures(t *testing.T, p place) signatures {
	t.Helper()
	trusted, evil := newPair(t), newPair(t)
	bundle := func(t *testing.T, i *image, by pair, digest v1.Hash, predicate string) {
		t.Helper()
		if p.legacy {
			text := claim(t, i, digest)
			if predicate == attestation {
				text = statement(t, digest, predicate)
			}
			i.attachLegacy(t, text, by.sign(t, text))
			return
		}
		p.store(t, i, keyBundle(t, by, statement(t, digest, predicate)))
	}
	return signatures{
		demand: keys(map[string][]byte{"cosign.pub": trusted.pem(t)}),
		by:     "spec.verify: key cosign.pub (sha256:" + trusted.fingerprint(t) + ")",
		good:   func(t *testing.T, i *image) { t.Helper(); bundle(t, i, trusted, i.digest, signPredicate) },
		other:  func(t *testing.T, i *image) { t.Helper(); bundle(t, i, evil, i.digest, signPredicate) },
		digest: func(t *testing.T, i *image) { t.Helper(); bundle(t, i, trusted, otherDigest(t), signPredicate) },
		predicate: func(t *testing.T, i *image) {
			t.Helper()
			bundle(t, i, trusted, i.digest, attestation)
		},
		malformed: p.malformed,
	}
}

// malformed keeps what is no signature where one should be.
func (p place) malformed(t *testing.T, i *image) {
	t.Helper()
	if p.legacy {
		i.attachLegacy(t, []byte("not a payload"), []byte("not a signature"))
		return
	}
	p.store(t, i, []byte(`{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "dsseEnvelope": 7}`))
}

const signPredicate = "https://sigstore.dev/cosign/sign/v1"

func identitySignatures(t *testing.T, p place) signatures {
	t.Helper()
	s := newSigstore(t)
	now := time.Now()
	bundle := func(t *testing.T, i *image, options leafOptions, digest v1.Hash, predicate string) {
		t.Helper()
		by, seen := s.leaf(t, options), witness{log: now}
		if p.legacy {
			text := claim(t, i, digest)
			if predicate == attestation {
				text = statement(t, digest, predicate)
			}
			s.attachIdentityLegacy(t, i, by, text, seen)
			return
		}
		p.store(t, i, s.identityBundle(t, by, statement(t, digest, predicate), seen))
	}
	return signatures{
		demand: s.identities(t, lists{log: true}),
		by:     "spec.verify: " + subject + " (issuer " + issuer + ")",
		good:   func(t *testing.T, i *image) { t.Helper(); bundle(t, i, leafOptions{}, i.digest, signPredicate) },
		other: func(t *testing.T, i *image) {
			t.Helper()
			bundle(t, i, leafOptions{subject: stranger}, i.digest, signPredicate)
		},
		digest: func(t *testing.T, i *image) {
			t.Helper()
			bundle(t, i, leafOptions{}, otherDigest(t), signPredicate)
		},
		predicate: func(t *testing.T, i *image) {
			t.Helper()
			bundle(t, i, leafOptions{}, i.digest, attestation)
		},
		expired: func(t *testing.T, i *image) {
			t.Helper()
			bundle(t, i, leafOptions{from: now.Add(-30 * time.Minute)}, i.digest, signPredicate)
		},
		malformed: p.malformed,
	}
}

func notationSignatures(t *testing.T, p place) signatures {
	t.Helper()
	trusted := newNotary(t, "release")
	evil := trusted.signer(t, "somebody")
	mediaType := jws.MediaTypeEnvelope
	if p.format == trust.NotationCOSE {
		mediaType = cose.MediaTypeEnvelope
	}
	store := func(t *testing.T, i *image, envelope []byte) {
		t.Helper()
		manifest := i.notationManifest(t, envelope, types.MediaType(mediaType))
		if p.referrers && p.tag {
			i.putUnderTag(t, manifest, notationArtifact)
			return
		}
		i.put(t, manifest)
	}
	sign := func(t *testing.T, i *image, by *notary, options notationOptions) {
		t.Helper()
		options.target, options.mediaType = i.descriptor, mediaType
		store(t, i, by.sign(t, options))
	}
	return signatures{
		demand: trusted.demand(policy(t, "strict", nil)),
		by:     "spec.verify: CN=release,O=Notary,ST=WA,C=US (issuer CN=root,O=Notary,ST=WA,C=US)",
		good:   func(t *testing.T, i *image) { t.Helper(); sign(t, i, trusted, notationOptions{}) },
		other:  func(t *testing.T, i *image) { t.Helper(); sign(t, i, evil, notationOptions{}) },
		digest: func(t *testing.T, i *image) {
			t.Helper()
			other := i.descriptor
			other.Digest = otherDigest(t)
			store(t, i, trusted.sign(t, notationOptions{target: other, mediaType: mediaType}))
		},
		predicate: func(t *testing.T, i *image) {
			t.Helper()
			sign(t, i, trusted, notationOptions{payloadType: "application/vnd.example+json"})
		},
		expired:   func(t *testing.T, i *image) { t.Helper(); sign(t, i, trusted, notationOptions{expired: true}) },
		malformed: func(t *testing.T, i *image) { t.Helper(); store(t, i, []byte("{}")) },
	}
}

// TestMatrix is every kind of signature in every place, as good and as bad as
// signatures get, with real keys, a real registry, and no network.
//
// Two kinds of cells do not exist: the Notary Project has no signatures under a
// tag of their own, as cosign's legacy ones are, and a key has no time to be
// valid in, so that what it signed does not expire.
func TestMatrix(t *testing.T) {
	for _, p := range places() {
		t.Run("key, "+p.name, func(t *testing.T) {
			testSignatures(t, p, keySignatures(t, p), "by another key than cosign.pub (sha256:")
		})
		t.Run("keyless with a private root, "+p.name, func(t *testing.T) {
			testSignatures(t, p, identitySignatures(t, p), "by another identity: "+strconv.Quote(stranger)+" of issuer "+strconv.Quote(issuer))
		})
		if p.legacy {
			continue
		}
		for _, envelope := range []trust.Format{trust.NotationJWS, trust.NotationCOSE} {
			t.Run(string(envelope)+", "+p.name, func(t *testing.T) {
				p := p
				p.format = envelope
				testSignatures(t, p, notationSignatures(t, p), `by "CN=somebody,O=Notary,ST=WA,C=US", whom the trust policy "all" does not trust`)
			})
		}
	}
}

func testSignatures(t *testing.T, p place, s signatures, otherWords string) {
	t.Helper()
	both := func(a, b func(*testing.T, *image)) func(*testing.T, *image) {
		return func(t *testing.T, i *image) { t.Helper(); a(t, i); b(t, i) }
	}
	bad, other := "a "+string(p.format), trust.OtherIdentity
	if strings.Contains(otherWords, "another key") {
		other = trust.OtherKey
	}
	malformed := trust.Malformed
	if p.legacy {
		malformed = "" // no bytes are malformed as a payload; they are by nobody known
	}
	for name, c := range map[string]struct {
		sign    func(*testing.T, *image)
		verdict trust.Verdict
		words   []string
		found   trust.Finding
	}{
		"good":                            {s.good, trust.Accepted, nil, ""},
		"unsigned":                        {func(*testing.T, *image) {}, trust.Rejected, []string{"it is not signed"}, trust.Unsigned},
		"other key or identity":           {s.other, trust.Rejected, []string{bad, otherWords}, other},
		"signature of another digest":     {s.digest, trust.Rejected, []string{bad, "of another image", otherDigest(t).String()}, trust.OtherDigest},
		"other predicate":                 {s.predicate, trust.Rejected, []string{bad, "does not say the image is signed"}, trust.OtherPredicate},
		"expired":                         {s.expired, trust.Rejected, []string{bad, "valid"}, trust.Expired},
		"malformed":                       {s.malformed, trust.Rejected, []string{bad}, malformed},
		"malformed among good":            {both(s.malformed, s.good), trust.Accepted, nil, ""},
		"a stranger's beside a good one":  {both(s.other, s.good), trust.Accepted, nil, ""},
		"a good one beside a stranger's":  {both(s.good, s.other), trust.Accepted, nil, ""},
		"all that is wrong at once":       {both(both(s.other, s.digest), s.malformed), trust.Rejected, []string{otherWords, "of another image"}, trust.OtherDigest},
		"of another digest, and a good 1": {both(s.digest, s.good), trust.Accepted, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if c.sign == nil {
				return // there is no such cell, says TestMatrix
			}
			g := NewWithT(t)
			i := push(t, serve(t, p.referrers), name)
			c.sign(t, i)
			verified, err := i.verify(t, s.demand)
			if c.verdict != trust.Accepted {
				expectDenied(g, err, c.verdict, append(c.words, i.subject().String())...)
				var failure *trust.VerificationError
				g.Expect(errors.As(err, &failure)).To(BeTrue())
				g.Expect(failure.Rulings).To(HaveLen(1))
				if c.found != "" {
					g.Expect(failure.Rulings[0].Found).To(ContainElement(c.found))
				}
				_, ok := verified.Subject()
				g.Expect(ok).To(BeFalse(), "a refusal must not make a proof")
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			proven, ok := verified.Subject()
			g.Expect(ok).To(BeTrue())
			g.Expect(proven).To(Equal(i.subject()))
			g.Expect(verified.By()).To(Equal(s.by + " by a " + string(p.format)))
			g.Expect(verified.Rulings()).To(HaveLen(1))
			g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(p.format))
		})
	}
	expectNoStrangers(NewWithT(t))
}

// TestBothFormatsAreAlwaysEvaluated holds that a stranger's signature in one
// format hides none in the other.
func TestBothFormatsAreAlwaysEvaluated(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		g := NewWithT(t)
		trusted, evil := newPair(t), newPair(t)
		demand := keys(map[string][]byte{"cosign.pub": trusted.pem(t)})

		hidden := push(t, serve(t, referrers), "legacy")
		hidden.attachBundle(t, keyBundle(t, evil, statement(t, hidden.digest, signPredicate)))
		text := claim(t, hidden, hidden.digest)
		hidden.attachLegacy(t, text, trusted.sign(t, text))
		verified, err := hidden.verify(t, demand)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(trust.Legacy))

		other := push(t, serve(t, referrers), "bundle")
		text = claim(t, other, other.digest)
		other.attachLegacy(t, text, evil.sign(t, text))
		other.attachBundle(t, keyBundle(t, trusted, statement(t, other.digest, signPredicate)))
		_, err = other.verify(t, demand)
		g.Expect(err).NotTo(HaveOccurred())
	}
}
