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

package trustpolicy

import (
	"context"
	"errors"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Demands is what is asked of the images of one repository, for one source: of their
// signatures by spec.verify and by TrustPolicies, of the rest by the latter. The zero
// value demands nothing.
type Demands struct {
	// Rules on signatures.
	Rules []trust.Rule
	// Constraints are the demands on everything else.
	Constraints trust.Constraints
	// Fingerprint of the keys, identities, roots, rules and constraints in effect; empty when
	// nothing is demanded. That of the platform comes first, and that of spec.verify after
	// ownMark. After rootMark each has that of the public root, where one of the rules
	// judges by it and it is there.
	Fingerprint string
	// Unread is why spec.verify was not read: only another spec heals it, or it has to wait.
	Unread error
	// ByPlatform tells that all are those of the platform.
	ByPlatform bool
}

// With adds what spec.verify demands to what the platform does.
func (d Demands) With(own Demands) Demands {
	d.Rules = append(own.Rules, d.Rules...)
	if own.Fingerprint != "" {
		d.Fingerprint += ownMark + own.Fingerprint
	}
	d.Unread, d.ByPlatform = own.Unread, false
	return d
}

// Verifier applies the demands to the images of a repository.
func (d Demands) Verifier(repository trust.Repository) trust.Verifier {
	switch refused := d.Refused(); {
	case refused != nil:
		return refusal{refused}
	case len(d.Rules) == 0:
		return trust.NoDemands{}
	default:
		return trust.NewRules(repository, d.Rules...).Resolved() // nobody fetches what was not resolved
	}
}

// Refused tells why no image of the repository may be published, whatever it is
// and whoever signed it; nil for most.
func (d Demands) Refused() error {
	if err := d.Constraints.Refused(); err != nil {
		return err
	}
	return d.Unread
}

// Warnings say what policies that only warn would refuse of an image that was
// accepted.
func (d Demands) Warnings(proof trust.Verified, content trust.Content) []string {
	warnings := d.Constraints.Warnings()
	for _, ruling := range proof.Rulings() {
		if ruling.Warn && ruling.Verdict != trust.Accepted {
			warnings = append(warnings, ruling.String())
		}
	}
	refused, _ := d.Constraints.Admit(content)
	warnings = append(warnings, refused...)
	for i := range warnings {
		warnings[i] = fault.Line(warnings[i])
	}
	return warnings[:min(len(warnings), maxTrustWarnings)]
}

// Observed is the fingerprint to record of demands that an image met. Where a
// policy that only warns could not be heard, there is none yet: it is asked again.
func (d Demands) Observed(proof trust.Verified) string {
	for _, ruling := range proof.Rulings() {
		if ruling.Verdict == trust.Unknown {
			return ""
		}
	}
	return d.Fingerprint
}

// Same tells whether a fingerprint is of the same demands.
func (d Demands) Same(fingerprint string) bool {
	_, ownNow, _ := strings.Cut(d.Fingerprint, ownMark)
	_, own, _ := strings.Cut(fingerprint, ownMark)
	return d.SamePlatform(fingerprint) && sameMarked(ownNow, own)
}

// SamePlatform tells whether a fingerprint is of demands whose part of the platform is
// the same.
func (d Demands) SamePlatform(fingerprint string) bool {
	now, _, _ := strings.Cut(d.Fingerprint, ownMark)
	recorded, _, _ := strings.Cut(fingerprint, ownMark)
	return sameMarked(now, recorded)
}

// sameMarked compares fingerprints. While there is no public root, nobody knows
// whether it is another one: that is no reason to judge again.
func sameMarked(now, recorded string) bool {
	if !strings.Contains(now, rootMark) {
		recorded, _, _ = strings.Cut(recorded, rootMark)
	}
	return now == recorded
}

// rootMark begins what the public root adds to a fingerprint, and ownMark what
// spec.verify does.
const (
	rootMark = "@"
	ownMark  = "+"
)

// maxTrustWarnings bounds status.trustWarnings, as its schema does.
const maxTrustWarnings = 10

// refusal is the Verifier of demands that cannot be met: it accepts nothing.
type refusal struct{ err error }

// Verify implements trust.Verifier.
func (r refusal) Verify(context.Context, trust.Subject) (trust.Verified, error) {
	return trust.Verified{}, r.err
}

// Platform reads the demands of the platform. It reads nothing of the source. Secrets that
// cannot be read make a rule that cannot be met, not an error: a published image stays then.
func (r *Resolver) Platform(ctx context.Context, now *InForce, q trust.Question) Demands {
	d := Demands{ByPlatform: true, Constraints: now.policies.Decide(q)}
	for _, policy := range d.Constraints.Policies {
		if len(policy.Authorities) > 0 {
			d.Rules = append(d.Rules, r.rule(ctx, now.specs[policy.Policy]))
		}
	}
	if len(d.Rules) > 0 || d.Constraints.Asked() {
		d.Fingerprint = fingerprintOf(d.Rules, d.Constraints.Fingerprint())
	}
	return d
}

// Own reads the demands of spec.verify, nil for none. As with Platform, there is no error.
func (r *Resolver) Own(ctx context.Context, namespace string, verify *sourcev1.OCIRepositoryVerification) (d Demands) {
	if verify == nil {
		return d
	}
	authority, err := r.own(ctx, namespace, *verify)
	if failure := fault.Of(err, ""); failure != nil && failure.Class == fault.Stall {
		d.Unread = err
	}
	d.Rules = []trust.Rule{{Name: "spec.verify", AnyOf: []trust.Alternative{{Authority: authority, Err: err}}}}
	d.Fingerprint = fingerprintOf(d.Rules)
	return d
}

// fingerprintOf identifies rules, and constraints beside them.
func fingerprintOf(rules []trust.Rule, constraints ...string) string {
	all := trust.NewRules(nil, rules...)
	fingerprint := strings.Join(append([]string{all.Fingerprint()}, constraints...), "-")
	if root := all.PublicRoot(); root != "" {
		fingerprint += rootMark + root
	}
	return fingerprint
}

// RulingsOf returns the rulings behind an error, if it has any.
func RulingsOf(err error) []trust.Ruling {
	if denial, ok := errors.AsType[*trust.VerificationError](err); ok {
		return denial.Rulings
	}
	return nil
}
