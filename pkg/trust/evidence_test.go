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
	"encoding/json"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// TestEvidenceSaysWhatWasVerified holds that evidence has the signer, the images and the
// type of the statement, and a time only where somebody vouches for it.
func TestEvidenceSaysWhatWasVerified(t *testing.T) {
	s := newSigstore(t)
	at := time.Now().Add(-30 * time.Second).Truncate(time.Second)
	notary := newNotary(t, "release")
	key := newPair(t)
	logged := s.identities(t, lists{log: true})
	keyWithLog := keys(map[string][]byte{"cosign.pub": key.pem(t)})
	keyWithLog.TrustedRoot = logged.TrustedRoot
	for name, c := range map[string]struct {
		demand    trust.Demand
		sign      func(t *testing.T, i *image)
		signedAt  any // a matcher
		predicate string
	}{
		"a bundle in a log": {logged, func(t *testing.T, i *image) {
			t.Helper()
			i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{log: at}))
		}, BeTemporally("==", at), signPredicate},
		"a bundle with a timestamp": {s.identities(t, lists{stamps: true}), func(t *testing.T, i *image) {
			t.Helper()
			i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{stamp: true}))
		}, BeTemporally(">", at), signPredicate},
		"a bundle in a log with a timestamp that nobody vouches for": {logged, func(t *testing.T, i *image) {
			t.Helper()
			i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{log: at, stamp: true}))
		}, BeTemporally("==", at), signPredicate},
		"a legacy signature in a log": {logged, func(t *testing.T, i *image) {
			t.Helper()
			s.attachIdentityLegacy(t, i, s.leaf(t, leafOptions{}), claim(t, i, i.digest), witness{log: at})
		}, BeTemporally("==", at), ""},
		"a legacy signature with a timestamp": {s.identities(t, lists{stamps: true}), func(t *testing.T, i *image) {
			t.Helper()
			s.attachIdentityLegacy(t, i, s.leaf(t, leafOptions{}), claim(t, i, i.digest), witness{log: at.Add(-time.Hour), stamp: true})
		}, BeTemporally(">", at), ""},
		"a key": {keys(map[string][]byte{"cosign.pub": key.pem(t)}), func(t *testing.T, i *image) {
			t.Helper()
			i.signBundle(t, key)
		}, BeZero(), signPredicate},
		"a key in a log, where anybody may have put its signature": {keyWithLog, func(t *testing.T, i *image) {
			t.Helper()
			text := claim(t, i, i.digest)
			signature := key.sign(t, text)
			i.attachLegacy(t, text, signature, s.logged(t, key.pem(t), text, signature, at))
		}, BeZero(), ""},
		"Notation, which says by itself when it signed": {notary.demand(policy(t, "strict", override("revocation", "skip"))), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
		}, BeZero(), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), name)
			c.sign(t, i)
			verified, err := i.verify(t, c.demand)
			g.Expect(err).NotTo(HaveOccurred())
			ruling := verified.Rulings()[0]
			g.Expect(ruling.Evidence).To(HaveLen(1))
			evidence := ruling.Evidence[0]
			g.Expect(evidence.Signer).To(Equal(ruling.Signer()))
			g.Expect(evidence.Signer.String()).NotTo(BeEmpty())
			g.Expect(evidence.SignedAt).To(c.signedAt.(OmegaMatcher))
			g.Expect(evidence.PredicateType).To(Equal(c.predicate))
			g.Expect(evidence.Subjects).To(Equal([]string{i.digest.String()}))
		})
	}
	t.Run("a statement about two images", func(t *testing.T) {
		g := NewWithT(t)
		i := push(t, serve(t, true), "two")
		subject := func(hex string) any { return map[string]any{"digest": map[string]string{"sha256": hex}} }
		text, err := json.Marshal(map[string]any{
			"_type": "https://in-toto.io/Statement/v1", "predicateType": signPredicate, "predicate": map[string]any{},
			"subject": []any{subject(otherDigest(t).Hex), subject(i.digest.Hex)},
		})
		g.Expect(err).NotTo(HaveOccurred())
		i.attachBundle(t, keyBundle(t, key, text))
		verified, err := i.verify(t, keys(map[string][]byte{"cosign.pub": key.pem(t)}))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(verified.Rulings()[0].Evidence[0].Subjects).To(ConsistOf(i.digest.String(), otherDigest(t).String()))
	})
	t.Run("a level that only logs", func(t *testing.T) {
		g := NewWithT(t)
		i := push(t, serve(t, true), "audit")
		i.attachNotation(t, newNotary(t, "stranger").sign(t, notationOptions{target: i.descriptor}), "")
		verified, err := i.verify(t, notary.demand(policy(t, "audit", nil)))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(verified.Rulings()[0].Evidence).To(BeEmpty(), "whoever signed is not known")
	})
}

// TestEverySignatureIsEvidence holds that a rule which asks for all signatures gets all
// good ones, wherever they are, or no answer.
func TestEverySignatureIsEvidence(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, first := push(t, s, "app"), newPair(t)
	second, stranger := newPair(t), newPair(t)
	authority, err := trust.NewAuthority(keys(map[string][]byte{"first.pub": first.pem(t), "second.pub": second.pem(t)}), trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	every := rule(authority)
	every.All = true
	entries := func(r trust.Rule) (entries []string) {
		verified, err := i.verifyBy(t, r)
		g.Expect(err).NotTo(HaveOccurred())
		for _, e := range verified.Rulings()[0].Evidence {
			entries = append(entries, e.Signer.Entry)
		}
		return entries
	}
	i.signBundle(t, first)
	i.signBundle(t, stranger)
	i.signBundle(t, second)
	i.signLegacy(t, second)
	g.Expect(entries(rule(authority))).To(HaveLen(1))
	s.asked()
	g.Expect(entries(every)).To(ConsistOf("first.pub", "second.pub", "second.pub"))
	lists := 0
	for _, request := range s.asked() {
		if request == "GET /v2/org/app/referrers/"+i.digest.String() {
			lists++
		}
	}
	g.Expect(lists).To(Equal(1), "a place is read again only before an image is rejected")

	s.fail(".sig", http.StatusServiceUnavailable)
	g.Expect(entries(rule(authority))).To(HaveLen(1))
	_, err = i.verifyBy(t, every)
	expectDenied(g, err, trust.Unknown, "503 Service Unavailable")
	s.answer(nil)

	unsigned := push(t, s, "unsigned")
	_, err = unsigned.verifyBy(t, every)
	expectDenied(g, err, trust.Rejected, "not signed")
}
