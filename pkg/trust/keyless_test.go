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
	"encoding/pem"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	cstatic "github.com/sigstore/cosign/v3/pkg/oci/static"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// TestWhatARootDemands holds that a root gets what it lists: a log entry where
// it has a log, a timestamp where it has only authorities for that, and a
// certificate timestamp where it has a log of certificates.
func TestWhatARootDemands(t *testing.T) {
	s := newSigstore(t)
	now := time.Now()
	for name, c := range map[string]struct {
		root    lists
		leaf    leafOptions
		seen    witness
		verdict trust.Verdict
		words   string
	}{
		"a log, and it knows the signature":                 {root: lists{log: true}, seen: witness{log: now}, verdict: trust.Accepted},
		"a log, and it does not know the signature":         {root: lists{log: true}, verdict: trust.Rejected, words: "does not hold"},
		"a log, and only a timestamp":                       {root: lists{log: true, stamps: true}, seen: witness{stamp: true}, verdict: trust.Rejected, words: "does not hold"},
		"timestamps, and there is one":                      {root: lists{stamps: true}, seen: witness{stamp: true}, verdict: trust.Accepted},
		"timestamps, and there is none":                     {root: lists{stamps: true}, verdict: trust.Rejected, words: "does not hold"},
		"timestamps, and only a log entry":                  {root: lists{stamps: true}, seen: witness{log: now}, verdict: trust.Rejected, words: "does not hold"},
		"a log of certificates, and it knows it":            {root: lists{log: true, certificates: true}, leaf: leafOptions{logged: true}, seen: witness{log: now}, verdict: trust.Accepted},
		"a log of certificates, and it does not":            {root: lists{log: true, certificates: true}, seen: witness{log: now}, verdict: trust.Rejected, words: "does not hold"},
		"timestamps and a log of certificates, without one": {root: lists{stamps: true, certificates: true}, seen: witness{stamp: true}, verdict: trust.Rejected, words: "does not hold"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			demand := s.identities(t, c.root)
			bundled := push(t, serve(t, true), "bundle")
			bundled.attachBundle(t, s.identityBundle(t, s.leaf(t, c.leaf), statement(t, bundled.digest, signPredicate), c.seen))
			legacy := push(t, serve(t, true), "legacy")
			s.attachIdentityLegacy(t, legacy, s.leaf(t, c.leaf), claim(t, legacy, legacy.digest), c.seen)
			for _, i := range []*image{bundled, legacy} {
				_, err := i.verify(t, demand)
				if c.verdict == trust.Accepted {
					g.Expect(err).NotTo(HaveOccurred())
					continue
				}
				expectDenied(g, err, c.verdict, c.words)
			}
		})
	}
	expectNoStrangers(NewWithT(t))
}

func TestCertificatesOfAnotherAuthority(t *testing.T) {
	g := NewWithT(t)
	s, evil := newSigstore(t), newSigstore(t)
	// The log is the good one; only who issued the certificate is not.
	evil.VirtualSigstore = s.VirtualSigstore
	bundled := push(t, serve(t, true), "bundle")
	bundled.attachBundle(t, evil.identityBundle(t, evil.leaf(t, leafOptions{}), statement(t, bundled.digest, signPredicate), witness{log: time.Now()}))
	legacy := push(t, serve(t, true), "legacy")
	evil.attachIdentityLegacy(t, legacy, evil.leaf(t, leafOptions{}), claim(t, legacy, legacy.digest), witness{log: time.Now()})
	for _, i := range []*image{bundled, legacy} {
		_, err := i.verify(t, s.identities(t, lists{log: true}))
		expectDenied(g, err, trust.Rejected, "the trusted root does not vouch for")
	}
}

// TestAnotherLog holds that an entry counts only of a log that the root lists.
func TestAnotherLog(t *testing.T) {
	g := NewWithT(t)
	s, evil := newSigstore(t), newSigstore(t)
	demand := s.identities(t, lists{log: true})
	s.VirtualSigstore = evil.VirtualSigstore
	bundled := push(t, serve(t, true), "bundle")
	bundled.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, bundled.digest, signPredicate), witness{log: time.Now()}))
	legacy := push(t, serve(t, true), "legacy")
	s.attachIdentityLegacy(t, legacy, s.leaf(t, leafOptions{}), claim(t, legacy, legacy.digest), witness{log: time.Now()})
	for _, i := range []*image{bundled, legacy} {
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Rejected, "does not hold")
	}
}

func TestAKeyIsNoIdentityAndAnIdentityIsNoKey(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	i, by, demand := keyed(t, serve(t, true))
	i.signBundle(t, by)
	i.signLegacy(t, by)
	_, err := i.verify(t, s.identities(t, lists{log: true}))
	expectDenied(g, err, trust.Rejected, "by a key, not by an identity")

	j := push(t, serve(t, true), "identity")
	j.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, j.digest, signPredicate), witness{log: time.Now()}))
	_, err = j.verify(t, demand)
	expectDenied(g, err, trust.Rejected, "by a certificate for", subject, "not by cosign.pub")
}

// TestAKeyWithALog holds that a trusted root beside keys wants each signature in
// its log.
func TestAKeyWithALog(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	i, by, demand := keyed(t, serve(t, true))
	demand.TrustedRoot = s.identities(t, lists{log: true}).TrustedRoot
	i.signBundle(t, by)
	i.signLegacy(t, by)
	_, err := i.verify(t, demand)
	expectDenied(g, err, trust.Rejected, "a Sigstore bundle by key cosign.pub", "a legacy cosign signature by key cosign.pub", "does not hold")

	text := claim(t, i, i.digest)
	signature := by.sign(t, text)
	i.attachLegacy(t, text, signature, s.logged(t, by.pem(t), text, signature, time.Now()))
	verified, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(trust.Legacy))
}

// TestALogEntryOfAnotherSignature holds that what a log knows must be this signature.
func TestALogEntryOfAnotherSignature(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	i := push(t, serve(t, true), "swapped")
	by := s.leaf(t, leafOptions{})
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.certificate.Raw})
	text, other := claim(t, i, i.digest), claim(t, i, otherDigest(t))
	entry := s.logged(t, certificate, other, by.sign(t, other), time.Now())
	i.attachLegacy(t, text, by.sign(t, text), []cstatic.Option{s.certified(t, by), entry}...)
	_, err := i.verify(t, s.identities(t, lists{log: true}))
	expectDenied(g, err, trust.Rejected, "does not hold")
}
