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
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func privatePEM(t *testing.T, p pair) []byte {
	t.Helper()
	text, err := cryptoutils.MarshalPrivateKeyToPEM(p.private)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

func TestSetsOfKeysThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		entries map[string][]byte
		words   []string
	}{
		"an empty set":                      {nil, []string{"no usable public key", "no entry that ends in .pub"}},
		"entries of other names only":       {map[string][]byte{"cosign.key": newPair(t).pem(t), "key.pem": newPair(t).pem(t)}, []string{"no entry that ends in .pub"}},
		"an entry that is no key":           {map[string][]byte{"cosign.pub": []byte("no key")}, []string{`"cosign.pub"`, "not a public key in PEM format"}},
		"an empty entry":                    {map[string][]byte{"cosign.pub": nil}, []string{"not a public key"}},
		"a private key":                     {map[string][]byte{"cosign.pub": privatePEM(t, newPair(t))}, []string{`"cosign.pub"`, "private key"}},
		"a private key of cosign's":         {map[string][]byte{"cosign.pub": cosignPair(t).PrivateBytes}, []string{"private key"}},
		"a public key with its private key": {map[string][]byte{"cosign.pub": append(newPair(t).pem(t), privatePEM(t, newPair(t))...)}, []string{"private key"}},
		"a certificate":                     {map[string][]byte{"cosign.pub": newNotary(t, "x").pem()}, []string{"not a public key"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trust.NewAuthority(keys(c.entries), trust.Options{})
			expectDenied(NewWithT(t), err, trust.Rejected, append(c.words, `"apps/keys"`)...)
			NewWithT(t).Expect(err.Error()).NotTo(ContainSubstring("BEGIN"))
		})
	}
}

func TestOneMalformedEntryHidesNoOther(t *testing.T) {
	g := NewWithT(t)
	i, by, _ := keyed(t, serve(t, true))
	i.signBundle(t, by)
	demand := keys(map[string][]byte{
		"a.pub": []byte("no key"), "b.pub": privatePEM(t, newPair(t)), "c.pub": newPair(t).pem(t), "good.pub": by.pem(t), "z.pub": nil,
	})
	authority, err := trust.NewAuthority(demand, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(authority.Notes()).To(HaveLen(3))
	g.Expect(authority.Notes()[0]).To(ContainSubstring(`"a.pub"`))
	g.Expect(authority.Notes()[1]).To(And(ContainSubstring(`"b.pub"`), ContainSubstring("private key")))
	verified, err := i.verifyBy(t, rule(authority))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.By()).To(ContainSubstring("key good.pub (sha256:" + by.fingerprint(t) + ")"))
	g.Expect(verified.Rulings()[0].Words).To(ContainSubstring(`"a.pub"`))
}

func TestSeveralKeysInOneEntryAreAlternatives(t *testing.T) {
	g := NewWithT(t)
	i, by, _ := keyed(t, serve(t, true))
	i.signBundle(t, by)
	_, err := i.verify(t, keys(map[string][]byte{"all.pub": append(newPair(t).pem(t), by.pem(t)...)}))
	g.Expect(err).NotTo(HaveOccurred())
}

// TestKindsOfKeys holds that the keys of every kind that people have can be
// used, with the hash that cosign takes for them.
func TestKindsOfKeys(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	short, err := rsa.GenerateKey(rand.Reader, 2048)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	sum256 := func(m []byte) []byte { s := sha256.Sum256(m); return s[:] }
	sum384 := func(m []byte) []byte { s := sha512.Sum384(m); return s[:] }
	sum512 := func(m []byte) []byte { s := sha512.Sum512(m); return s[:] }
	plain := func(m []byte) []byte { return m }
	for name, c := range map[string]struct {
		key    crypto.Signer
		digest func([]byte) []byte
		opts   crypto.SignerOpts
	}{
		"P-384 with sha256":       {p384, sum256, crypto.SHA256},
		"P-384 with sha384":       {p384, sum384, crypto.SHA384},
		"RSA":                     {short, sum256, crypto.SHA256},
		"Ed25519":                 {edwards, plain, crypto.Hash(0)},
		"Ed25519 with a pre-hash": {edwards, sum512, &ed25519.Options{Hash: crypto.SHA512}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), name)
			public, err := cryptoutils.MarshalPublicKeyToPEM(c.key.Public())
			g.Expect(err).NotTo(HaveOccurred())
			demand := keys(map[string][]byte{"cosign.pub": public})
			text := claim(t, i, i.digest)
			signature, err := c.key.Sign(rand.Reader, c.digest(text), c.opts)
			g.Expect(err).NotTo(HaveOccurred())
			i.attachLegacy(t, text, signature)
			_, err = i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())

			j := push(t, serve(t, true), name)
			said := statement(t, j.digest, signPredicate)
			signature, err = c.key.Sign(rand.Reader, c.digest(dsse.PAE(ctypes.IntotoPayloadType, said)), c.opts)
			g.Expect(err).NotTo(HaveOccurred())
			j.attachBundle(t, encoded(t, &protobundle.Bundle{
				MediaType: bundleMediaType,
				Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
					Payload: said, PayloadType: ctypes.IntotoPayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
				}},
				VerificationMaterial: &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}},
			}))
			_, err = j.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
	t.Run("RSA in the older encoding", func(t *testing.T) {
		g := NewWithT(t)
		older := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&short.PublicKey)})
		newer, err := cryptoutils.MarshalPublicKeyToPEM(short.Public())
		g.Expect(err).NotTo(HaveOccurred())
		a, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": older}), trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		b, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": newer}), trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(a.Fingerprint()).To(Equal(b.Fingerprint()), "it is the same key")
	})
}

func TestDemandsThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		demand trust.Demand
		words  string
	}{
		"no provider":                     {trust.Demand{}, "the provider"},
		"an unknown provider":             {trust.Demand{Provider: "gpg"}, `"gpg"`},
		"keyless without identities":      {trust.Demand{Provider: trust.ProviderCosign}, "at least one entry in matchOIDCIdentity"},
		"an identity without a subject":   {keylessBy(trust.Identity{Issuer: "x"}), `the subject "" of matchOIDCIdentity must not be empty`},
		"an identity without an issuer":   {keylessBy(trust.Identity{Subject: "x"}), `the issuer "" of matchOIDCIdentity must not be empty`},
		"a subject that does not compile": {keylessBy(trust.Identity{Issuer: "x", Subject: "("}), "not a regular expression"},
		"an issuer that does not compile": {keylessBy(trust.Identity{Issuer: "*", Subject: "x"}), "not a regular expression"},
		"one that only compiles anchored": {keylessBy(trust.Identity{Issuer: "x", Subject: "good)|(?:.*"}), "not a regular expression"},
		"Notation without a Secret":       {trust.Demand{Provider: trust.ProviderNotation}, "secretRef"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := trust.NewAuthority(c.demand, trust.Options{})
			g.Expect(err).To(MatchError(ContainSubstring(c.words)))
			f := fault.Of(err, "")
			g.Expect(f.Reason).To(Equal(v1alpha1.ReasonInvalidSpec))
			g.Expect(f.Class).To(Equal(fault.Stall))
			g.Expect(trust.VerdictOf(err)).To(Equal(trust.Unknown), "a typo must not clear what is published")
		})
	}
}

func keylessBy(identities ...trust.Identity) trust.Demand {
	return trust.Demand{Provider: trust.ProviderCosign, Identities: identities}
}

func TestTrustedRootsThatAreRefused(t *testing.T) {
	s := newSigstore(t)
	for name, c := range map[string]struct {
		data  map[string][]byte
		words string
	}{
		"no entry":                    {map[string][]byte{"root.json": s.trustedRoot(t, lists{log: true})}, "no entry trusted_root.json"},
		"no trusted root":             {map[string][]byte{"trusted_root.json": []byte("{")}, "is not a trusted root"},
		"neither a log nor a witness": {map[string][]byte{"trusted_root.json": s.trustedRoot(t, lists{})}, "neither a transparency log nor a timestamp authority"},
	} {
		t.Run(name, func(t *testing.T) {
			demand := s.identities(t, lists{log: true})
			demand.TrustedRoot.Data = c.data
			_, err := trust.NewAuthority(demand, trust.Options{})
			expectDenied(NewWithT(t), err, trust.Rejected, c.words, `"apps/root"`)
		})
	}
}

// TestIdentitiesMatchAllOfAValue holds that expressions are anchored, whatever
// is written in them.
func TestIdentitiesMatchAllOfAValue(t *testing.T) {
	s := newSigstore(t)
	i := push(t, serve(t, true), "anchored")
	i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{log: time.Now()}))
	j := push(t, serve(t, true), "anchored")
	s.attachIdentityLegacy(t, j, s.leaf(t, leafOptions{}), claim(t, j, j.digest), witness{log: time.Now()})
	for name, c := range map[string]struct {
		identities []trust.Identity
		verdict    trust.Verdict
	}{
		"all of both":                       {[]trust.Identity{{Issuer: "https://issuer.example.com", Subject: "https://example.com/org/.*"}}, trust.Accepted},
		"anchored by themselves":            {[]trust.Identity{{Issuer: "^https://issuer.example.com$", Subject: "^https://example.com/org/.*$"}}, trust.Accepted},
		"the beginning of the subject":      {[]trust.Identity{{Issuer: "https://issuer.example.com", Subject: "https://example.com/org"}}, trust.Rejected},
		"the end of the subject":            {[]trust.Identity{{Issuer: "https://issuer.example.com", Subject: "refs/heads/main"}}, trust.Rejected},
		"the beginning of the issuer":       {[]trust.Identity{{Issuer: "https://issuer", Subject: ".*"}}, trust.Rejected},
		"an alternative that only begins":   {[]trust.Identity{{Issuer: ".*", Subject: "nobody|https://example.com"}}, trust.Rejected},
		"flags do not end at the anchors":   {[]trust.Identity{{Issuer: ".*", Subject: "(?m)https://example.com"}}, trust.Rejected},
		"the second of two identities":      {[]trust.Identity{{Issuer: "nobody", Subject: "nobody"}, {Issuer: ".*", Subject: ".*/org/app/.*"}}, trust.Accepted},
		"halves of two do not make a whole": {[]trust.Identity{{Issuer: ".*", Subject: "nobody"}, {Issuer: "nobody", Subject: ".*"}}, trust.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			demand := s.identities(t, lists{log: true})
			demand.Identities = c.identities
			for _, one := range []*image{i, j} {
				verified, err := one.verify(t, demand)
				if c.verdict == trust.Rejected {
					expectDenied(g, err, trust.Rejected, "by another identity", subject)
					continue
				}
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(verified.Rulings()[0].Signer().Subject).To(Equal(subject))
				g.Expect(verified.Rulings()[0].Signer().Issuer).To(Equal(issuer))
			}
		})
	}
}

func TestFingerprints(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	a, b := newPair(t), newPair(t)
	printOf := func(demand trust.Demand) string {
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		return authority.Fingerprint()
	}
	both := printOf(keys(map[string][]byte{"a.pub": a.pem(t), "b.pub": b.pem(t)}))
	g.Expect(printOf(keys(map[string][]byte{"x.pub": b.pem(t), "y.pub": a.pem(t), "z.pub": []byte("no")}))).To(Equal(both), "names, order and what is not used do not matter")
	g.Expect(printOf(keys(map[string][]byte{"a.pub": a.pem(t)}))).NotTo(Equal(both))
	g.Expect(printOf(keys(map[string][]byte{"a.pub": b.pem(t)}))).NotTo(Equal(printOf(keys(map[string][]byte{"a.pub": a.pem(t)}))), "a rotated key matters")

	one, two := trust.Identity{Issuer: "a", Subject: "b"}, trust.Identity{Issuer: "a", Subject: "c"}
	g.Expect(printOf(keylessBy(one, two))).To(Equal(printOf(keylessBy(two, one))))
	g.Expect(printOf(keylessBy(one))).NotTo(Equal(printOf(keylessBy(two))))
	g.Expect(printOf(keylessBy(trust.Identity{Issuer: "ab", Subject: "c"}))).NotTo(Equal(printOf(keylessBy(trust.Identity{Issuer: "a", Subject: "bc"}))), "neighbours are kept apart")

	private, other := s.identities(t, lists{log: true}), newSigstore(t).identities(t, lists{log: true})
	g.Expect(printOf(private)).NotTo(Equal(printOf(other)), "the root matters")
	public := private
	public.TrustedRoot = nil
	g.Expect(printOf(private)).NotTo(Equal(printOf(public)))

	by := newNotary(t, "release")
	g.Expect(printOf(by.demand(policy(t, "strict", nil)))).NotTo(Equal(printOf(by.demand(policy(t, "audit", nil)))), "the level matters")
	g.Expect(printOf(by.demand(policy(t, "strict", nil)))).NotTo(Equal(printOf(newNotary(t, "release").demand(policy(t, "strict", nil)))), "the certificate matters")

	rules := func(rules ...trust.Rule) string { return trust.NewRules(nil, rules...).Fingerprint() }
	authority, err := trust.NewAuthority(keylessBy(one), trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	policyRule := trust.Rule{Name: "policy", AnyOf: []trust.Alternative{{Authority: authority}}}
	g.Expect(rules(rule(authority), policyRule)).To(Equal(rules(policyRule, rule(authority))))
	g.Expect(rules(rule(authority))).NotTo(Equal(rules(policyRule)))
	g.Expect(rules()).NotTo(Equal(rules(policyRule)))
	missing := policyRule
	missing.AnyOf = []trust.Alternative{{Err: errors.New("no Secret")}}
	g.Expect(rules(missing)).NotTo(Equal(rules(policyRule)))
}

func TestTheZeroProofProvesNothing(t *testing.T) {
	g := NewWithT(t)
	_, ok := trust.Verified{}.Subject()
	g.Expect(ok).To(BeFalse())
	digest := v1.Hash{Algorithm: "sha256", Hex: "aa"}
	verified, err := trust.NoDemands{}.Verify(t.Context(), trust.Subject{Repository: "example.com/app", Digest: digest})
	g.Expect(err).NotTo(HaveOccurred())
	proven, ok := verified.Subject()
	g.Expect(ok).To(BeTrue())
	g.Expect(proven.String()).To(Equal("example.com/app@sha256:aa"))
	g.Expect(verified.By()).To(BeEmpty())
}
