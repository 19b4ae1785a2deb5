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
	"net/http"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// parties are authorities whose verdicts on one image are known.
type parties struct {
	*image

	good, evil, broken trust.Alternative
}

func newParties(t *testing.T) *parties {
	t.Helper()
	g := NewWithT(t)
	p := &parties{}
	by := newPair(t)
	p.image = push(t, serve(t, true), "rules")
	p.signBundle(t, by)
	authority := func(by pair) *trust.Authority {
		a, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		return a
	}
	p.good = trust.Alternative{Name: "good", Authority: authority(by)}
	p.evil = trust.Alternative{Name: "evil", Authority: authority(newPair(t))}
	p.broken = trust.Alternative{Name: "broken", Err: errors.New("Secret apps/keys was not found")}
	return p
}

func TestRules(t *testing.T) {
	p := newParties(t)
	_, empty := trust.NewAuthority(keys(nil), trust.Options{})
	keyless := trust.Alternative{Name: "empty", Err: empty}
	one := func(name string, of ...trust.Alternative) trust.Rule { return trust.Rule{Name: name, AnyOf: of} }
	warn := func(name string, of ...trust.Alternative) trust.Rule {
		return trust.Rule{Name: name, Warn: true, AnyOf: of}
	}
	for name, c := range map[string]struct {
		rules   []trust.Rule
		verdict trust.Verdict
		by      string
		words   []string
	}{
		"no rule":                                        {nil, trust.Accepted, "", nil},
		"a rule that is met":                             {[]trust.Rule{one("one", p.good)}, trust.Accepted, "one (good): key cosign.pub", nil},
		"any authority is enough":                        {[]trust.Rule{one("one", p.evil, p.good)}, trust.Accepted, "one (good): key cosign.pub", nil},
		"one that cannot be used hides no other":         {[]trust.Rule{one("one", p.broken, keyless, p.good)}, trust.Accepted, "one (good): key cosign.pub", nil},
		"none will do":                                   {[]trust.Rule{one("one", p.evil)}, trust.Rejected, "", []string{"one: evil: found a Sigstore bundle by another key"}},
		"without an authority nothing is accepted":       {[]trust.Rule{one("one")}, trust.Rejected, "", []string{"no authority"}},
		"an alternative without anything is unknown":     {[]trust.Rule{one("one", trust.Alternative{})}, trust.Unknown, "", nil},
		"a missing Secret is unknown":                    {[]trust.Rule{one("one", p.broken)}, trust.Unknown, "", []string{"broken: Secret apps/keys was not found"}},
		"a missing Secret beside one who refuses too":    {[]trust.Rule{one("one", p.evil, p.broken)}, trust.Unknown, "", []string{"another key", "was not found"}},
		"a set without a usable key is rejected":         {[]trust.Rule{one("one", keyless)}, trust.Rejected, "", []string{"no usable public key"}},
		"every rule has to be met":                       {[]trust.Rule{one("one", p.good), one("two", p.evil)}, trust.Rejected, "", []string{"two: evil"}},
		"what one rejects, no unknown saves":             {[]trust.Rule{one("one", p.broken), one("two", p.evil)}, trust.Rejected, "", []string{"one: broken", "two: evil"}},
		"what one rejects, no later unknown saves":       {[]trust.Rule{one("one", p.evil), one("two", p.broken)}, trust.Rejected, "", []string{"one: evil", "two: broken"}},
		"what none rejects but one does not know":        {[]trust.Rule{one("one", p.good), one("two", p.broken)}, trust.Unknown, "", []string{"two: broken"}},
		"all who accept are named":                       {[]trust.Rule{one("one", p.good), one("two", p.good)}, trust.Accepted, "; two (good): key cosign.pub", nil},
		"one that only warns refuses nothing":            {[]trust.Rule{one("one", p.good), warn("two", p.evil)}, trust.Accepted, "one (good): key cosign.pub", nil},
		"one that only warns, alone, proves nobody":      {[]trust.Rule{warn("two", p.evil)}, trust.Accepted, "", nil},
		"one that only warns is not who verified":        {[]trust.Rule{warn("two", p.good)}, trust.Accepted, "", nil},
		"one that only warns does not soften the others": {[]trust.Rule{one("one", p.evil), warn("two", p.good)}, trust.Rejected, "", []string{"one: evil"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			verified, err := p.verifyBy(t, c.rules...)
			if c.verdict == trust.Accepted {
				g.Expect(err).NotTo(HaveOccurred())
				if c.by == "" {
					g.Expect(verified.By()).To(BeEmpty())
				}
				g.Expect(verified.By()).To(ContainSubstring(c.by))
				g.Expect(verified.Rulings()).To(HaveLen(len(c.rules)))
				return
			}
			expectDenied(g, err, c.verdict, c.words...)
			var failure *trust.VerificationError
			g.Expect(errors.As(err, &failure)).To(BeTrue())
			g.Expect(failure.Rulings).To(HaveLen(len(c.rules)), "metrics count every rule, met or not")
		})
	}
	t.Run("what a rule that warns would refuse is told", func(t *testing.T) {
		g := NewWithT(t)
		verified, err := p.verifyBy(t, one("one", p.good), warn("two", p.evil))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(verified.Rulings()[0].String()).To(And(HavePrefix("one (good): key cosign.pub"), HaveSuffix("by a Sigstore bundle")))
		g.Expect(verified.Rulings()[1].Verdict).To(Equal(trust.Rejected))
		g.Expect(verified.Rulings()[1].String()).To(HavePrefix("two: evil: found a Sigstore bundle by another key"))
	})
}

// TestSignaturesAreReadOnceForAllRules holds that a rule more costs no request.
func TestSignaturesAreReadOnceForAllRules(t *testing.T) {
	g := NewWithT(t)
	p := newParties(t)
	count := func(rules ...trust.Rule) int {
		p.server.asked()
		_, err := p.verifyBy(t, rules...)
		g.Expect(err).NotTo(HaveOccurred())
		return len(p.server.asked())
	}
	one := trust.Rule{Name: "one", AnyOf: []trust.Alternative{p.good}}
	g.Expect(count()).To(BeZero(), "nothing is asked when nothing is demanded")
	alone := count(one)
	g.Expect(alone).To(BeNumerically("<=", 5), "ping by https and http, referrers, manifest, bundle")
	g.Expect(count(one, one, one)).To(Equal(alone))
}

// TestNotationAndCosignTogether holds that rules of both providers are met by
// signatures of both.
func TestNotationAndCosignTogether(t *testing.T) {
	g := NewWithT(t)
	p := newParties(t)
	by := newNotary(t, "release")
	authority, err := trust.NewAuthority(by.demand(policy(t, "strict", nil)), trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	both := []trust.Rule{{Name: "one", AnyOf: []trust.Alternative{p.good}}, {Name: "two", AnyOf: []trust.Alternative{{Authority: authority}}}}
	_, err = p.verifyBy(t, both...)
	expectDenied(g, err, trust.Rejected, "two: it is not signed")
	p.attachNotation(t, by.sign(t, notationOptions{target: p.descriptor}), "")
	verified, err := p.verifyBy(t, both...)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.By()).To(And(ContainSubstring("one (good): key cosign.pub"), ContainSubstring("two: CN=release")))
}

func TestWordsOfARegistryAreNotRepeated(t *testing.T) {
	g := NewWithT(t)
	p := newParties(t)
	p.server.answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`{"errors":[{"code":"DENIED","message":"token eyJhbGciOi.secret\u001b[31m"}]}`)) // the client reads it
		return true
	})
	_, err := p.verifyBy(t, trust.Rule{Name: "one", AnyOf: []trust.Alternative{p.good}})
	expectDenied(g, err, trust.Unknown, "403 Forbidden")
	g.Expect(err.Error()).NotTo(Or(ContainSubstring("secret"), ContainSubstring("\x1b")))
}
