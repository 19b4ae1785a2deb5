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

// Demands are the demands on the images of one repository, for one source: on their
// signatures by spec.verify and by TrustPolicies, on other properties by the latter. The
// zero value demands nothing.
type Demands struct {
	// Rules on signatures.
	Rules []trust.Rule
	// Constraints are the demands on format and size.
	Constraints trust.Constraints
	// Fingerprint of the keys, identities, roots, rules and constraints in effect; empty
	// without a demand. The part of the platform comes first, and the part of spec.verify
	// after ownMark. In each part, rootMark precedes the fingerprint of the public root, if
	// a rule uses it and it is known.
	Fingerprint string
	// Unread is the error of a spec.verify that could not be read: it needs another spec, or
	// has to wait.
	Unread error
	// ByPlatform: all demands are those of the platform.
	ByPlatform bool
}

// With adds the demands of spec.verify to those of the platform.
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
		return trust.NewRules(repository, d.Rules...).Resolved() // only resolved images are fetched
	}
}

// Refused returns the reason why no image of the repository may be published, of
// any content and signers; nil for most.
func (d Demands) Refused() error {
	if err := d.Constraints.Refused(); err != nil {
		return err
	}
	return d.Unread
}

// Warnings list the violations of policies in the mode Warn by an accepted image.
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

// Observed is the fingerprint to record for an accepted image. It is empty if a policy in
// the mode Warn could not be evaluated: the next reconcile tries again.
func (d Demands) Observed(proof trust.Verified) string {
	for _, ruling := range proof.Rulings() {
		if ruling.Verdict == trust.Unknown {
			return ""
		}
	}
	return d.Fingerprint
}

// Same reports whether a fingerprint is of the same demands.
func (d Demands) Same(fingerprint string) bool {
	_, ownNow, _ := strings.Cut(d.Fingerprint, ownMark)
	_, own, _ := strings.Cut(fingerprint, ownMark)
	return d.SamePlatform(fingerprint) && sameMarked(ownNow, own)
}

// SamePlatform reports whether the demands of the platform in a fingerprint are the same.
func (d Demands) SamePlatform(fingerprint string) bool {
	now, _, _ := strings.Cut(d.Fingerprint, ownMark)
	recorded, _, _ := strings.Cut(fingerprint, ownMark)
	return sameMarked(now, recorded)
}

// sameMarked compares fingerprints. Without the public root we cannot know whether it has
// changed: that is no reason to judge again.
func sameMarked(now, recorded string) bool {
	if !strings.Contains(now, rootMark) {
		recorded, _, _ = strings.Cut(recorded, rootMark)
	}
	return now == recorded
}

// rootMark precedes the public root in a fingerprint, and ownMark precedes spec.verify.
const (
	rootMark = "@"
	ownMark  = "+"
)

// maxTrustWarnings bounds status.trustWarnings, as its schema does.
const maxTrustWarnings = 10

// refusal is the Verifier of demands that cannot be met: it accepts no image.
type refusal struct{ err error }

// Verify implements trust.Verifier.
func (r refusal) Verify(context.Context, trust.Subject) (trust.Verified, error) {
	return trust.Verified{}, r.err
}

// Platform reads the demands of the platform. It reads no object of the source. Unreadable
// Secrets make a rule that cannot be met, not an error: a published image stays then.
func (r *Resolver) Platform(ctx context.Context, now *InForce, q trust.Question) Demands {
	d := Demands{ByPlatform: true, Constraints: now.policies.Decide(q)}
	for _, policy := range d.Constraints.Policies {
		if len(policy.Authorities) > 0 {
			d.Rules = append(d.Rules, r.rule(ctx, now.specs[policy.Name]))
		}
	}
	if len(d.Rules) > 0 || d.Constraints.Asked() {
		d.Fingerprint = fingerprintOf(d.Rules, d.Constraints.Fingerprint())
	}
	return d
}

// Own reads the demands of spec.verify, which may be nil. As with Platform, there is no
// error.
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

// fingerprintOf identifies rules and constraints.
func fingerprintOf(rules []trust.Rule, constraints ...string) string {
	all := trust.NewRules(nil, rules...)
	fingerprint := strings.Join(append([]string{all.Fingerprint()}, constraints...), "-")
	if root := all.PublicRoot(); root != "" {
		fingerprint += rootMark + root
	}
	return fingerprint
}

// RulingsOf returns the rulings of an error, if any.
func RulingsOf(err error) []trust.Ruling {
	if denial, ok := errors.AsType[*trust.VerificationError](err); ok {
		return denial.Rulings
	}
	return nil
}
