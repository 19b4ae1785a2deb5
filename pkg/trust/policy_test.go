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
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// prod is a policy for namespaces of production, changed by mods.
func prod(name string, mods ...func(*trust.Policy)) trust.Policy {
	p := trust.Policy{
		Name: name, Namespaces: labels.SelectorFromSet(labels.Set{"env": "prod"}), Images: []string{"ghcr.io/org/**"}, Authorities: []string{name + "-key"},
	}
	for _, mod := range mods {
		mod(&p)
	}
	return p
}

func warns(p *trust.Policy)        { p.Warn = true }
func allows(p *trust.Policy)       { p.AllowNoMatch = true }
func everywhere(p *trust.Policy)   { p.Namespaces = labels.Everything() }
func elsewhere(p *trust.Policy)    { p.Namespaces = labels.SelectorFromSet(labels.Set{"env": "dev"}) }
func nowhereAtAll(p *trust.Policy) { p.Namespaces = nil }
func unsigned(p *trust.Policy)     { p.Authorities = nil }
func unreadable(p *trust.Policy)   { p.Unreadable = "the selector is no selector" }
func images(patterns ...string) func(*trust.Policy) {
	return func(p *trust.Policy) { p.Images = patterns }
}

func TestPolicies(t *testing.T) {
	const app, other = "ghcr.io/org/app", "ghcr.io/else/app"
	for name, c := range map[string]struct {
		policies   []trust.Policy
		repository string
		required   bool
		demands    []string // names of policies that list the image
		governed   bool
		refused    string
		unknown    bool
		warns      string
	}{
		"no policy at all":                                            {repository: app},
		"no policy at all, and one is required":                       {repository: app, required: true, refused: "--require-trust-policy"},
		"a policy of other namespaces":                                {policies: []trust.Policy{prod("a", elsewhere)}, repository: other},
		"a policy of other namespaces, and one is required":           {policies: []trust.Policy{prod("a", elsewhere)}, repository: app, required: true, refused: "--require-trust-policy"},
		"a policy without a selector":                                 {policies: []trust.Policy{prod("a", nowhereAtAll)}, repository: other},
		"listed":                                                      {policies: []trust.Policy{prod("a")}, repository: app, governed: true, demands: []string{"a"}},
		"listed, and one is required":                                 {policies: []trust.Policy{prod("a")}, repository: app, required: true, governed: true, demands: []string{"a"}},
		"listed, in every namespace":                                  {policies: []trust.Policy{prod("a", everywhere)}, repository: app, governed: true, demands: []string{"a"}},
		"not listed":                                                  {policies: []trust.Policy{prod("a")}, repository: other, governed: true, refused: `no TrustPolicy that enforces lists the image ghcr.io/else/app`},
		"not listed, and that is allowed":                             {policies: []trust.Policy{prod("a", allows)}, repository: other, governed: true},
		"not listed, and only one of two allows it":                   {policies: []trust.Policy{prod("a", allows), prod("b")}, repository: other, governed: true, refused: `TrustPolicy "b"`},
		"not listed, and both allow it":                               {policies: []trust.Policy{prod("a", allows), prod("b", allows)}, repository: other, governed: true},
		"listed by one of two":                                        {policies: []trust.Policy{prod("a"), prod("b", images("ghcr.io/else/**"))}, repository: other, governed: true, demands: []string{"b"}},
		"listed by both: both have to be met":                         {policies: []trust.Policy{prod("b", images("**")), prod("a")}, repository: app, governed: true, demands: []string{"a", "b"}},
		"another spelling of the host is another image":               {policies: []trust.Policy{prod("a")}, repository: "ghcr.io:8443/org/app", governed: true, refused: "no TrustPolicy that enforces lists"},
		"a name that climbs out of what is listed":                    {policies: []trust.Policy{prod("a")}, repository: "ghcr.io/org/../else/app", governed: true, refused: "is not the canonical name of a repository"},
		"a name that is not canonical, where all names are allowed":   {policies: []trust.Policy{prod("a", allows)}, repository: "ghcr.io./org/app", governed: true, refused: "is not the canonical name of a repository"},
		"a name that is not canonical, of a policy that warns":        {policies: []trust.Policy{prod("a", warns)}, repository: "GHCR.io/org/app", governed: true, warns: "is not the canonical name of a repository"},
		"a name that is not canonical, which nobody governs":          {policies: []trust.Policy{prod("a", elsewhere)}, repository: "ghcr.io/org//app"},
		"a mirror is another image":                                   {policies: []trust.Policy{prod("a")}, repository: "mirror.example.com/ghcr.io/org/app", governed: true, refused: "no TrustPolicy that enforces lists"},
		"a policy that warns, listed":                                 {policies: []trust.Policy{prod("a", warns)}, repository: app, governed: true, demands: []string{"a"}},
		"a policy that warns, not listed":                             {policies: []trust.Policy{prod("a", warns)}, repository: other, governed: true, warns: "if it enforced, a would refuse it"},
		"a policy that warns is not the one that is required":         {policies: []trust.Policy{prod("a", warns)}, repository: app, required: true, governed: true, demands: []string{"a"}, refused: "--require-trust-policy"},
		"listed only by one that warns, where another enforces":       {policies: []trust.Policy{prod("a"), prod("w", warns, images("ghcr.io/else/**"))}, repository: other, governed: true, demands: []string{"w"}, refused: `TrustPolicy "a"`},
		"not listed, allowed by who enforces, not by who warns":       {policies: []trust.Policy{prod("a", allows), prod("w", warns)}, repository: other, governed: true, warns: "w would refuse it"},
		"a pattern that cannot be read refuses every image":           {policies: []trust.Policy{prod("a", images("ghcr.io/org/**", "https://x"))}, repository: app, governed: true, refused: "https://x", unknown: true},
		"a pattern that cannot be read, of a policy that allows":      {policies: []trust.Policy{prod("a", allows, images("https://x"))}, repository: app, governed: true, refused: "https://x", unknown: true},
		"a policy that cannot be read, beside one that does not list": {policies: []trust.Policy{prod("a", unreadable), prod("b")}, repository: other, governed: true, refused: "the selector is no selector", unknown: true},
		"a pattern that cannot be read, of a policy that warns":       {policies: []trust.Policy{prod("a", warns, allows, images("https://x"))}, repository: app, governed: true, warns: "https://x"},
		"no authorities: no signature, but the rest":                  {policies: []trust.Policy{prod("a", unsigned)}, repository: app, governed: true, demands: []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			constraints := trust.NewPolicies(c.policies...).Decide(trust.Question{
				Namespace: "apps", Labels: map[string]string{"env": "prod"}, Repository: c.repository, Required: c.required,
			})
			g.Expect(constraints.Governed).To(Equal(c.governed))
			var demands []string
			for _, constraint := range constraints.Policies {
				demands = append(demands, constraint.Name)
			}
			g.Expect(demands).To(Equal(c.demands))
			if c.refused == "" {
				g.Expect(constraints.Refused()).To(Succeed())
			} else {
				verdict := trust.Rejected
				if c.unknown {
					verdict = trust.Unknown
				}
				expectRefused(g, constraints.Refused(), verdict, c.refused)
				g.Expect(constraints.Refusals).To(ContainElement(And(HaveField("Verdict", verdict), HaveField("Warn", false))))
			}
			if c.warns == "" {
				g.Expect(constraints.Warnings()).To(BeEmpty())
			} else {
				g.Expect(constraints.Warnings()).To(ConsistOf(ContainSubstring(c.warns)))
			}
		})
	}
}

// expectRefused asserts that an image is refused until a policy changes.
func expectRefused(g *WithT, err error, verdict trust.Verdict, words string) {
	g.THelper()
	g.Expect(err).To(MatchError(ContainSubstring(words)))
	g.Expect(trust.VerdictOf(err).String()).To(Equal(verdict.String()))
	failure := fault.Of(err, "")
	g.Expect(failure.Reason).To(Equal(v1alpha1.ReasonVerificationError))
	g.Expect(failure.Class).To(Equal(fault.Wait))
}

func TestConstraintsOnContent(t *testing.T) {
	charts := func(p *trust.Policy) { p.Formats = []string{"Flux", "Helm"} }
	small := func(p *trust.Policy) { p.MaxBytes = 100 }
	for name, c := range map[string]struct {
		policies []trust.Policy
		content  trust.Content
		refused  string
		warns    string
	}{
		"all formats and sizes":               {[]trust.Policy{prod("a")}, trust.Content{Format: "Image", Bytes: 1 << 40}, "", ""},
		"a format that is allowed":            {[]trust.Policy{prod("a", charts)}, trust.Content{Format: "Helm"}, "", ""},
		"a format that is not":                {[]trust.Policy{prod("a", charts)}, trust.Content{Format: "Image"}, "it allows Flux, Helm", ""},
		"a format that nobody knows":          {[]trust.Policy{prod("a", charts)}, trust.Content{}, "it allows Flux, Helm", ""},
		"a size that just is allowed":         {[]trust.Policy{prod("a", small)}, trust.Content{Bytes: 100}, "", ""},
		"a size that is not":                  {[]trust.Policy{prod("a", small)}, trust.Content{Bytes: 101}, "at most 100", ""},
		"one of two policies refuses":         {[]trust.Policy{prod("a"), prod("b", small)}, trust.Content{Bytes: 101}, `TrustPolicy "b"`, ""},
		"one that warns":                      {[]trust.Policy{prod("a", small, warns)}, trust.Content{Bytes: 101}, "", "at most 100"},
		"one that does not list the image":    {[]trust.Policy{prod("a", small, images("ghcr.io/else/**")), prod("b")}, trust.Content{Bytes: 101}, "", ""},
		"one that warns and one that refuses": {[]trust.Policy{prod("a", small, warns), prod("b", charts)}, trust.Content{Bytes: 101}, "it allows Flux, Helm", "at most 100"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			constraints := trust.NewPolicies(c.policies...).Decide(trust.Question{Namespace: "apps", Labels: map[string]string{"env": "prod"}, Repository: "ghcr.io/org/app"})
			warnings, err := constraints.Admit(c.content)
			g.Expect(constraints.AdmitBytes(c.content.Bytes) != nil).To(Equal(strings.Contains(c.refused, "at most") || strings.Contains(c.refused, `"b"`)))
			if c.refused == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectRefused(g, err, trust.Rejected, c.refused)
			}
			if c.warns == "" {
				g.Expect(warnings).To(BeEmpty())
			} else {
				g.Expect(warnings).To(ConsistOf(ContainSubstring(c.warns)))
			}
		})
	}
}

func TestFingerprintOfTerms(t *testing.T) {
	g := NewWithT(t)
	decide := func(policies ...trust.Policy) string {
		return trust.NewPolicies(policies...).Decide(trust.Question{Labels: map[string]string{"env": "prod"}, Repository: "ghcr.io/org/app"}).Fingerprint()
	}
	g.Expect(decide(prod("a"), prod("b"))).To(Equal(decide(prod("b"), prod("a"))), "the order does not matter")
	g.Expect(decide(prod("a"))).To(Equal(decide(prod("a"), prod("c", elsewhere))), "what governs others does not matter")
	g.Expect(decide(prod("a"))).NotTo(Equal(decide(prod("a", warns))))
	g.Expect(decide(prod("a"))).NotTo(Equal(decide(prod("a"), prod("b"))))
	g.Expect(decide(prod("a"))).NotTo(Equal(decide(prod("a", func(p *trust.Policy) { p.MaxBytes = 7 }))))
	g.Expect(decide()).NotTo(Equal(decide(prod("a"))))
}
