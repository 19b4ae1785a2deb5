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

package trust

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Policy is one TrustPolicy as far as it matters here.
type Policy struct {
	// Name of the policy.
	Name string
	// Namespaces selects whom it governs; nil is nobody.
	Namespaces labels.Selector
	// Images are the patterns of what it lists, see Pattern. One that cannot be
	// read makes the policy refuse every image in the namespaces that it governs.
	Images []string
	// AllowNoMatch lets images pass that no policy of a governed namespace lists,
	// if every governing policy says so.
	AllowNoMatch bool
	// Warn says what the policy would refuse, and refuses nothing.
	Warn bool
	// Authorities are alternatives, by name; without any no signature is demanded.
	Authorities []string
	// Formats that are allowed; empty: all.
	Formats []string
	// MaxBytes is the size of the largest artifact that is allowed, in bytes of
	// its layers as they are in the registry; 0: as large as anything.
	MaxBytes int64
}

// Question is what policies are asked about.
type Question struct {
	// Namespace is the name of the source's, and Labels are its labels.
	Namespace string
	Labels    map[string]string
	// Repository is the canonical name of the image's repository.
	Repository string
	// Required refuses where no policy that enforces governs.
	Required bool
}

// Policies are all that a platform has set. The value is not changed once it is
// made, and safe for concurrent use.
type Policies struct{ all []parsedPolicy }

type parsedPolicy struct {
	Policy

	images []Pattern
	broken string // why a pattern cannot be read
}

// NewPolicies reads policies; their order does not matter.
func NewPolicies(all ...Policy) *Policies {
	p := &Policies{}
	for _, policy := range all {
		p.all = append(p.all, parsePolicyImages(policy))
	}
	slices.SortFunc(p.all, func(a, b parsedPolicy) int { return strings.Compare(a.Name, b.Name) })
	return p
}

func parsePolicyImages(policy Policy) parsedPolicy {
	parsed := parsedPolicy{Policy: policy}
	for _, text := range policy.Images {
		pattern, err := ParsePattern(text)
		if err != nil {
			parsed.broken = err.Error()
			continue
		}
		parsed.images = append(parsed.images, pattern)
	}
	return parsed
}

func (p parsedPolicy) governs(of map[string]string) bool {
	return p.Namespaces != nil && p.Namespaces.Matches(labels.Set(of))
}

func (p parsedPolicy) lists(repository string) bool {
	return slices.ContainsFunc(p.images, func(image Pattern) bool { return image.Matches(repository) })
}

// Terms are what policies demand of one image.
type Terms struct {
	// Governed tells whether any policy governs the namespace.
	Governed bool
	// Policies are those that list the image; all of them have to be met.
	Policies []Term
	// Refusals say why the image is refused whatever its signatures are.
	Refusals []Refusal
}

// Term is what one policy demands of an image that it lists.
type Term struct {
	// Policy is the name of the policy.
	Policy string `json:"policy"`
	// Warn tells that the policy only warns.
	Warn bool `json:"warn"`
	// Authorities are alternatives; without any no signature is demanded.
	Authorities []string `json:"authorities"`
	// Formats that are allowed; empty: all.
	Formats []string `json:"formats"`
	// MaxBytes is the size of the largest artifact; 0: any.
	MaxBytes int64 `json:"maxBytes"`
}

// Refusal is why policies refuse an image.
type Refusal struct {
	// Policy that refuses; empty when it is for want of one.
	Policy string `json:"policy"`
	// Warn tells that it only would.
	Warn bool `json:"warn"`
	// Words for a person.
	Words string `json:"words"`
}

// Decide returns what the policies demand.
func (p *Policies) Decide(q Question) Terms {
	var governing []parsedPolicy
	for _, policy := range p.all {
		if policy.governs(q.Labels) {
			governing = append(governing, policy)
		}
	}
	terms := Terms{Governed: len(governing) > 0}
	for _, policy := range governing {
		switch {
		case policy.broken != "":
			terms.Refusals = append(terms.Refusals, Refusal{Policy: policy.Name, Warn: policy.Warn, Words: policy.broken})
		case policy.lists(q.Repository):
			terms.Policies = append(terms.Policies, Term{
				Policy: policy.Name, Warn: policy.Warn, Authorities: policy.Authorities, Formats: policy.Formats, MaxBytes: policy.MaxBytes,
			})
		}
	}
	terms.Refusals = append(terms.Refusals, unlisted(q, governing, terms)...)
	return terms
}

// unlisted refuses what no policy lists: so that another spelling of a host, a
// mirror or a port is no way around the policies.
func unlisted(q Question, governing []parsedPolicy, terms Terms) []Refusal {
	enforcing := slices.DeleteFunc(slices.Clone(governing), func(p parsedPolicy) bool { return p.Warn })
	listed := slices.ContainsFunc(terms.Policies, func(t Term) bool { return !t.Warn })
	switch refusing := refusers(enforcing); {
	case len(enforcing) == 0 && q.Required:
		return []Refusal{{Words: fmt.Sprintf("no TrustPolicy governs the namespace %s, and --require-trust-policy demands one", quote(q.Namespace))}}
	case len(refusing) > 0 && !listed:
		return []Refusal{{Policy: refusing[0], Words: fmt.Sprintf("no TrustPolicy that enforces lists the image %s; the namespace %s is governed by %s",
			q.Repository, quote(q.Namespace), strings.Join(refusing, ", "))}}
	}
	if refusing := refusers(governing); len(refusing) > 0 && len(terms.Policies) == 0 {
		return []Refusal{{Policy: refusing[0], Warn: true, Words: fmt.Sprintf("no TrustPolicy lists the image %s; if it enforced, %s would refuse it",
			q.Repository, strings.Join(refusing, ", "))}}
	}
	return nil
}

// refusers names those that refuse what nobody lists; nobody does when all
// allow it.
func refusers(policies []parsedPolicy) (names []string) {
	for _, policy := range policies {
		if !policy.AllowNoMatch {
			names = append(names, policy.Name)
		}
	}
	return names
}

// Fingerprint identifies the terms: while it is the same, they demand the same.
func (t Terms) Fingerprint() string {
	text, err := json.Marshal(t)
	if err != nil { // strings and numbers are always written
		return ""
	}
	return bytesPrint(text)
}

// Refused returns the denial for an image that is refused whatever its
// signatures are, and nil for the others.
func (t Terms) Refused() error {
	for _, refusal := range t.Refusals {
		if !refusal.Warn {
			return denyf(Rejected, "%s", refusal.title()+refusal.Words)
		}
	}
	return nil
}

// Warnings say what policies that only warn would refuse.
func (t Terms) Warnings() (words []string) {
	for _, refusal := range t.Refusals {
		if refusal.Warn {
			words = append(words, refusal.title()+refusal.Words)
		}
	}
	return words
}

func (r Refusal) title() string {
	if r.Policy == "" {
		return ""
	}
	return PolicyTitle(r.Policy) + ": "
}

// PolicyTitle names a policy for a person; Rule.Name of its rule.
func PolicyTitle(name string) string { return "TrustPolicy " + strconv.Quote(name) }

// Content is what was found to be in an image.
type Content struct {
	// Format it is read as.
	Format string
	// Bytes of its layers as they are in the registry.
	Bytes int64
}

// Admit judges formats and size. What policies that only warn would refuse is
// in warnings; the error is a denial that says Rejected.
func (t Terms) Admit(c Content) (warnings []string, err error) {
	for _, term := range t.Policies {
		words := term.refuses(c)
		switch {
		case words == "":
		case term.Warn:
			warnings = append(warnings, PolicyTitle(term.Policy)+": "+words)
		case err == nil:
			err = denyf(Rejected, "%s: %s", PolicyTitle(term.Policy), words)
		}
	}
	return warnings, err
}

func (t Term) refuses(c Content) string {
	switch {
	case len(t.Formats) > 0 && !slices.Contains(t.Formats, c.Format):
		return fmt.Sprintf("the format %s is not allowed; it allows %s", quote(c.Format), strings.Join(t.Formats, ", "))
	case t.MaxBytes > 0 && c.Bytes > t.MaxBytes:
		return fmt.Sprintf("the artifact has %d bytes; it allows at most %d", c.Bytes, t.MaxBytes)
	default:
		return ""
	}
}
