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
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Policy is one TrustPolicy as far as it matters here.
type Policy struct {
	// Name of the policy.
	Name string `json:"policy"`
	// Namespaces selects whom it governs; nil is nobody.
	Namespaces labels.Selector `json:"-"`
	// Images are the patterns of what it lists, see Pattern. One that cannot be
	// read makes the policy Unreadable.
	Images []string `json:"-"`
	// Unreadable says why the policy cannot be read; empty when it can. It then
	// lets no image pass in the namespaces that it governs, and says nothing about
	// what is published already.
	Unreadable string `json:"-"`
	// AllowNoMatch lets images pass that no policy of a governed namespace lists,
	// if every governing policy says so.
	AllowNoMatch bool `json:"-"`
	// Warn says what the policy would refuse, and refuses nothing.
	Warn bool `json:"warn"`
	// Authorities are alternatives, by name; without any no signature is demanded.
	Authorities []string `json:"authorities"`
	// Formats that are allowed; empty: all.
	Formats []string `json:"formats"`
	// MaxBytes is the size of the largest artifact that is allowed, see Content;
	// 0: as large as anything.
	MaxBytes int64 `json:"maxBytes"`
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
			parsed.Unreadable = cmp.Or(parsed.Unreadable, err.Error())
			continue
		}
		parsed.images = append(parsed.images, pattern)
	}
	return parsed
}

// Check says why the policy cannot be read; empty when it can.
func (p Policy) Check() string { return parsePolicyImages(p).Unreadable }

// Governs tells whether any policy governs namespaces with some labels.
func (p *Policies) Governs(of map[string]string) bool {
	return slices.ContainsFunc(p.all, func(policy parsedPolicy) bool { return policy.governs(of) })
}

func (p parsedPolicy) governs(of map[string]string) bool {
	return p.Namespaces != nil && p.Namespaces.Matches(labels.Set(of))
}

func (p parsedPolicy) lists(repository string) bool {
	return slices.ContainsFunc(p.images, func(image Pattern) bool { return image.Matches(repository) })
}

// Constraints are the demands of policies on one image.
type Constraints struct {
	// Governed tells whether any policy governs the namespace.
	Governed bool
	// Policies are those that list the image; all of them have to be met.
	Policies []Policy
	// Refusals say why the image is refused whatever its signatures are. One of a policy
	// that cannot be read is Unknown: nobody knows what it would say.
	Refusals []Ruling
}

// Decide returns what the policies demand.
func (p *Policies) Decide(q Question) Constraints {
	var governing []parsedPolicy
	for _, policy := range p.all {
		if policy.governs(q.Labels) {
			governing = append(governing, policy)
		}
	}
	constraints := Constraints{Governed: len(governing) > 0}
	if constraints.Governed && !reference.IsCanonical(q.Repository) {
		constraints.Refusals = unnamed(q, governing)
		return constraints
	}
	for _, policy := range governing {
		switch {
		case policy.Unreadable != "":
			refusal := policy.ruling(policy.Unreadable)
			refusal.Verdict = Unknown
			constraints.Refusals = append(constraints.Refusals, refusal)
		case policy.lists(q.Repository):
			constraints.Policies = append(constraints.Policies, policy.Policy)
		}
	}
	constraints.Refusals = append(constraints.Refusals, unlisted(q, governing, constraints)...)
	return constraints
}

// unnamed refuses a name that could mean another repository than the one that
// patterns match. Records of earlier versions may have one.
func unnamed(q Question, governing []parsedPolicy) (refusals []Ruling) {
	for _, policy := range governing {
		refusals = append(refusals, policy.ruling(fmt.Sprintf(
			"%s is not the canonical name of a repository, and patterns match canonical names only", fault.Quote(q.Repository))))
	}
	return refusals
}

// unlisted refuses what no policy lists: so that another spelling of a host, a
// mirror or a port is no way around the policies.
func unlisted(q Question, governing []parsedPolicy, constraints Constraints) []Ruling {
	enforcing := slices.DeleteFunc(slices.Clone(governing), func(p parsedPolicy) bool { return p.Warn })
	listed := slices.ContainsFunc(constraints.Policies, func(p Policy) bool { return !p.Warn }) ||
		slices.ContainsFunc(enforcing, unreadable) // it may be the one that lists it
	switch refusing := refusers(enforcing); {
	case len(enforcing) == 0 && q.Required:
		return []Ruling{{Verdict: Rejected, Words: fmt.Sprintf("no TrustPolicy governs the namespace %s, and --require-trust-policy demands one", fault.Quote(q.Namespace))}}
	case len(refusing) > 0 && !listed:
		return []Ruling{Policy{Name: refusing[0]}.ruling(fmt.Sprintf("no TrustPolicy that enforces lists the image %s; the namespace %s is governed by %s",
			q.Repository, fault.Quote(q.Namespace), strings.Join(refusing, ", ")))}
	}
	if refusing := refusers(governing); len(refusing) > 0 && len(constraints.Policies) == 0 && !slices.ContainsFunc(governing, unreadable) {
		return []Ruling{Policy{Name: refusing[0], Warn: true}.ruling(fmt.Sprintf("no TrustPolicy lists the image %s; if it enforced, %s would refuse it",
			q.Repository, strings.Join(refusing, ", ")))}
	}
	return nil
}

func unreadable(p parsedPolicy) bool { return p.Unreadable != "" }

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

// Fingerprint identifies the constraints: while it is the same, they demand the same.
func (c Constraints) Fingerprint() string {
	text, err := json.Marshal(c)
	if err != nil { // strings and numbers are always written
		return ""
	}
	return bytesPrint(text)
}

// Asked tells whether the policies have any say about the image.
func (c Constraints) Asked() bool { return c.Governed || len(c.Refusals) > 0 }

// Refused returns the *VerificationError for an image that is refused whatever its
// signatures are, and nil for the others. It waits for a change of a policy or
// of the namespace; what a readable policy refuses is Rejected.
func (c Constraints) Refused() error {
	var unknown error
	for _, refusal := range c.Refusals {
		switch {
		case refusal.Warn:
		case refusal.Verdict == Rejected:
			return denyByConstraints(refusal, c.Refusals)
		case unknown == nil:
			unknown = denyByConstraints(refusal, c.Refusals)
		}
	}
	return unknown
}

// denyByConstraints returns a *VerificationError for one of some rulings. Only another policy, or
// another label of the namespace, takes it back. Both are announced.
func denyByConstraints(by Ruling, all []Ruling) error {
	failure := &VerificationError{Verdict: by.Verdict, Rulings: all, words: by.String()}
	return fault.Waitf(v1alpha1.ReasonVerificationError, "%w", failure)
}

// Warnings say what policies that only warn would refuse.
func (c Constraints) Warnings() (words []string) {
	for _, refusal := range c.Refusals {
		if refusal.Warn {
			words = append(words, refusal.String())
		}
	}
	return words
}

// PolicyTitle names a policy for a person; Rule.Name of its rule.
func PolicyTitle(name string) string { return "TrustPolicy " + strconv.Quote(name) }

// Content is what was found to be in an image.
type Content struct {
	// Format it is read as.
	Format string
	// Bytes that are fetched of it, as they are in the registry.
	Bytes int64
}

// Judge returns what each policy that lists the image says of its format and size.
func (c Constraints) Judge(of Content) (rulings []Ruling) {
	for _, policy := range c.Policies {
		rulings = append(rulings, policy.ruling(policy.refuses(of)))
	}
	return rulings
}

// AdmitBytes judges the size of what was fetched so far, before more is: an
// error as of Admit, or nil.
func (c Constraints) AdmitBytes(bytes int64) error {
	for _, policy := range c.Policies {
		if ruling := policy.ruling(policy.tooLarge(bytes)); ruling.Verdict == Rejected && !ruling.Warn {
			return denyByConstraints(ruling, []Ruling{ruling})
		}
	}
	return nil
}

// Admit judges formats and size. What policies that only warn would refuse is
// in warnings; the error is a *VerificationError that says Rejected, with the rulings of all.
func (c Constraints) Admit(of Content) (warnings []string, err error) {
	rulings := c.Judge(of)
	for _, ruling := range rulings {
		switch {
		case ruling.Verdict == Accepted:
		case ruling.Warn:
			warnings = append(warnings, ruling.String())
		case err == nil:
			err = denyByConstraints(ruling, rulings)
		}
	}
	return warnings, err
}

// ruling is the ruling of a policy on an image: it accepts without words.
func (p Policy) ruling(words string) Ruling {
	ruling := Ruling{Rule: PolicyTitle(p.Name), Policy: p.Name, Warn: p.Warn, Verdict: Accepted, Words: words}
	if words != "" {
		ruling.Verdict = Rejected
	}
	return ruling
}

func (p Policy) refuses(of Content) string {
	if len(p.Formats) > 0 && !slices.Contains(p.Formats, of.Format) {
		return fmt.Sprintf("the format %s is not allowed; it allows %s", fault.Quote(of.Format), strings.Join(p.Formats, ", "))
	}
	return p.tooLarge(of.Bytes)
}

func (p Policy) tooLarge(bytes int64) string {
	if p.MaxBytes > 0 && bytes > p.MaxBytes {
		return fmt.Sprintf("the artifact has %d bytes or more; it allows at most %d", bytes, p.MaxBytes)
	}
	return ""
}
