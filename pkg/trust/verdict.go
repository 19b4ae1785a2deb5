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
	"errors"
	"fmt"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Verdict is what came of a demand.
type Verdict int

const (
	// Unknown means that it could not be found out. A registry, an API server or a root of
	// trust did not answer, or a Secret is missing. It says nothing about what is
	// published already.
	Unknown Verdict = iota
	// Rejected means that everything was looked at, and no good signature was there; or
	// there is nothing left that could verify one.
	Rejected
	// Accepted means that the demand is met.
	Accepted
)

// String returns the verdict as it is written in labels of metrics.
func (v Verdict) String() string {
	switch v {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	default:
		return "unknown"
	}
}

// Ruling is what came of one rule.
type Ruling struct {
	// Rule that was applied, as a person calls it.
	Rule string
	// Policy is the name of the TrustPolicy that set it; empty for spec.verify, and
	// for a refusal for want of a policy.
	Policy string
	// Warn tells that the rule only warns.
	Warn bool
	// Verdict on the subject.
	Verdict Verdict
	// Authority that accepted it.
	Authority string
	// Evidence that the authority accepted it by: the first good signature or, by
	// Rule.All, every one. It is empty when the authority is a trust policy whose level
	// only logs.
	Evidence []Evidence
	// Found are the kinds of signatures that were found and do not count, when it
	// was not accepted.
	Found []Finding
	// Words say why it was not accepted, and what is odd about the material of a
	// rule that was: fit for a condition, empty when there is nothing to say.
	Words string
}

// Signer is who made the first signature of the evidence; the zero value is nobody.
func (r Ruling) Signer() Signer {
	if len(r.Evidence) == 0 {
		return Signer{}
	}
	return r.Evidence[0].Signer
}

// VerificationError is the cause of an error of a Verifier.
type VerificationError struct {
	// Verdict is Rejected or Unknown.
	Verdict Verdict
	// Rulings of all rules; empty when it did not come to that.
	Rulings []Ruling
	// Unanswered is why the registry gave no answer when signatures were looked
	// for; nil when it answered whatever it was asked. It says something about the
	// registry, and nothing about the subject.
	Unanswered error

	words string
}

// Error says what was found, what was expected, and what helps.
func (e *VerificationError) Error() string { return e.words }

// Unwrap returns Unanswered, whose words are among those of Error already.
func (e *VerificationError) Unwrap() error { return e.Unanswered }

// VerdictOf returns what an error says about its subject: Accepted for none,
// and Unknown for one that is no *VerificationError.
func VerdictOf(err error) Verdict {
	var failure *VerificationError
	switch {
	case err == nil:
		return Accepted
	case errors.As(err, &failure):
		return failure.Verdict
	default:
		return Unknown
	}
}

// deny returns a *VerificationError as the rest of the program expects its errors: people
// push and then sign, and registries come back, so it is always worth a retry.
func deny(d *VerificationError, retryAfter time.Duration) error {
	return &fault.Error{Reason: v1alpha1.ReasonVerificationError, Class: fault.Retry, RetryAfter: retryAfter, Err: d}
}

func denyf(verdict Verdict, format string, args ...any) error {
	return deny(&VerificationError{Verdict: verdict, words: fmt.Sprintf(format, args...)}, 0)
}
