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
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Rule is one condition on the signatures of an image.
type Rule struct {
	// Name of the rule for a person: spec.verify, or a policy's title.
	Name string
	// Policy is the name of the TrustPolicy that sets the rule; empty for spec.verify.
	Policy string
	// Warn reports what the rule would have refused, and stops nothing.
	Warn bool
	// Strict refuses trust policies of Notation whose level only logs.
	Strict bool
	// All has every signature looked at, and not only until one is good. What keeps one
	// from being looked at makes the verdict Unknown.
	All bool
	// AnyOf are the authorities, any of which is enough. A rule that has none
	// refuses everything.
	AnyOf []Alternative
}

// Alternative is one authority of a rule.
type Alternative struct {
	// Name of the authority for a person; it may be empty where there is only one.
	Name string
	// Authority that judges; with Err it may be nil.
	Authority *Authority
	// Err says why there is no authority: what NewAuthority returned, or why its
	// Secret could not be read.
	Err error
}

// Rules is the Verifier of the images of one repository: every rule has to be
// met. It is safe for concurrent use.
type Rules struct {
	repository Repository
	rules      []Rule
	resolved   bool
}

// NewRules returns the Verifier that applies rules to images of a repository.
func NewRules(repository Repository, rules ...Rule) *Rules {
	return &Rules{repository: repository, rules: rules}
}

// Resolved returns a Verifier of the same rules for subjects that the registry
// has shown to the caller just now. Of others it is asked whether it shows them,
// before they are rejected because there is no signature: a registry that
// answers 404 to everything is no proof that an image is not signed.
func (r *Rules) Resolved() *Rules {
	return &Rules{repository: r.repository, rules: r.rules, resolved: true}
}

// Fingerprint identifies what is demanded: while it is the same, so is every
// verdict that time does not change. An authority that cannot be used counts by
// what it means, so that a Secret which comes back unchanged changes nothing.
func (r *Rules) Fingerprint() string {
	var all []string
	for _, rule := range r.rules {
		parts := []string{rule.Name, fmt.Sprint(rule.Warn), fmt.Sprint(rule.Strict)}
		for _, a := range rule.AnyOf {
			what := "unusable " + VerdictOf(a.Err).String()
			if a.Authority != nil && a.Err == nil {
				what = a.Authority.Fingerprint()
			}
			parts = append(parts, a.Name, what)
		}
		all = append(all, digestOf(parts))
	}
	return digestOf(sorted(all))
}

// PublicRoot identifies the public root of trust that any of the rules judges by, by
// its content. It is empty where none does, and while there is none, as after
// each start: whoever asks has it fetched, and is not kept waiting.
func (r *Rules) PublicRoot() (fingerprint string) {
	for _, rule := range r.rules {
		for _, a := range rule.AnyOf {
			if a.Authority != nil && a.Err == nil && a.Authority.public != nil {
				fingerprint = a.Authority.public.fingerprint()
			}
		}
	}
	return fingerprint
}

// judge looks at one signature after the other.
type judge interface {
	// reads tells which kinds of signatures it is shown.
	reads() kind
	// judge returns evidence when the signature is good, what was found when it is not,
	// nothing when signatures of its format do not matter, and an error when it could not
	// be found out. Evidence without a signer is enough, and not kept.
	judge(ctx context.Context, s anySignature) (*Evidence, *found, error)
}

// authorityEvaluation is one authority at work on one subject.
type authorityEvaluation struct {
	name  string
	notes []string
	judge judge // nil when the verdict is already there

	verdict  Verdict
	evidence []Evidence
	err      error    // in place of a judge
	found    []*found // signatures that do not count
	unknown  []error  // what could not be found out
}

// ruleEvaluation is one rule at work on one subject.
type ruleEvaluation struct {
	rule        Rule
	authorities []*authorityEvaluation
}

// Verify implements Verifier. It reads the signatures of a subject one by one
// until every rule is met, and never more than it has bounds for.
func (r *Rules) Verify(ctx context.Context, subject Subject) (Verified, error) {
	if subject.Repository != r.repository.Name() || subject.Digest.Algorithm != "sha256" {
		return Verified{}, denyf(Unknown, "cannot verify %s by what is known of %s", fault.Quote(subject.String()), fault.Quote(r.repository.Name()))
	}
	var evaluations []*ruleEvaluation
	for _, rule := range r.rules {
		evaluations = append(evaluations, open(ctx, rule, subject))
	}
	search := &search{repository: r.repository, subject: subject, rules: evaluations, seen: map[string]bool{}}
	search.run(ctx)
	if !r.resolved {
		search.prove(ctx)
	}
	return conclude(subject, evaluations, r.repository.Conceal)
}

func open(ctx context.Context, rule Rule, subject Subject) *ruleEvaluation {
	e := &ruleEvaluation{rule: rule}
	for _, a := range rule.AnyOf {
		e.authorities = append(e.authorities, begin(ctx, a, rule, subject))
	}
	return e
}

func begin(ctx context.Context, of Alternative, rule Rule, subject Subject) *authorityEvaluation {
	a := &authorityEvaluation{name: of.Name, err: of.Err}
	if of.Err == nil && of.Authority == nil {
		a.err = denyf(Unknown, "there is no authority")
	}
	if a.err != nil {
		a.verdict = VerdictOf(a.err)
		return a
	}
	a.notes = of.Authority.notes
	a.judge, a.err = guarded(func() (judge, error) { return of.Authority.begin(ctx, subject, rule.Strict) })
	if a.judge == nil {
		a.verdict = VerdictOf(a.err)
	}
	return a
}

// met tells whether an authority has accepted the subject.
func (e *ruleEvaluation) met() bool {
	return slices.ContainsFunc(e.authorities, func(a *authorityEvaluation) bool { return a.verdict == Accepted })
}

// done tells whether no signature is of use any more.
func (e *ruleEvaluation) done() bool { return e.met() && !e.rule.All }

// evaluate shows a signature to an authority.
func (a *authorityEvaluation) evaluate(ctx context.Context, s anySignature) {
	var what *found
	evidence, err := guarded(func() (evidence *Evidence, err error) {
		evidence, what, err = a.judge.judge(ctx, s)
		return evidence, err
	})
	switch {
	case errors.Is(err, errBroken): // anybody may have pushed it
		a.found = append(a.found, foundf(Malformed, "a signature that cannot be read: %s", err))
	case err != nil:
		a.unknown = append(a.unknown, err)
	case what != nil:
		a.found = append(a.found, what)
	case evidence != nil:
		a.verdict = Accepted
		if evidence.Signer != (Signer{}) {
			a.evidence = append(a.evidence, *evidence)
		}
	}
}

// close gives the verdict of an authority that has seen everything, or all that the rule
// needs.
func (a *authorityEvaluation) close(all bool) {
	switch {
	case a.judge == nil || a.verdict == Accepted && (!all || len(a.unknown) == 0):
	case len(a.unknown) > 0:
		a.verdict = Unknown
	default:
		a.verdict = Rejected
	}
}

// words say why an authority did not accept.
func (a *authorityEvaluation) words() string {
	var said []string
	switch {
	case a.err != nil:
		return plainly(a.err)
	case len(a.unknown) > 0:
		for _, err := range a.unknown {
			said = append(said, err.Error())
		}
		if len(a.found) > 0 {
			said = append(said, "found "+a.list())
		}
	case len(a.found) == 0:
		said = append(said, "it is not signed; sign the image by its digest, and it is verified again")
	default:
		said = append(said, "found "+a.list())
	}
	return list(append(said, a.notes...))
}

// list says what was found.
func (a *authorityEvaluation) list() string {
	var said []string
	for _, f := range a.found {
		said = append(said, f.words)
	}
	return list(said)
}

// findings are the kinds of what was found, each once.
func (a *authorityEvaluation) findings() (kinds []Finding) {
	if a.judge != nil && len(a.found) == 0 && len(a.unknown) == 0 {
		return []Finding{Unsigned}
	}
	for _, f := range a.found {
		if !slices.Contains(kinds, f.what) {
			kinds = append(kinds, f.what)
		}
	}
	return kinds
}

// plainly returns the words of an error that may be of another's making.
func plainly(err error) string {
	if failure, ok := errors.AsType[*VerificationError](err); ok {
		return failure.words
	}
	return fault.WordsOf(err)
}

// ruling closes an evaluation.
func (e *ruleEvaluation) ruling() Ruling {
	ruling := Ruling{Rule: e.rule.Name, Policy: e.rule.Policy, Warn: e.rule.Warn, Verdict: Rejected}
	if len(e.authorities) == 0 {
		ruling.Words = "it lists no authority"
		return ruling
	}
	var said []string
	for _, a := range e.authorities {
		a.close(e.rule.All)
		if a.verdict == Accepted {
			ruling.Verdict, ruling.Authority, ruling.Evidence, ruling.Words, ruling.Found = Accepted, a.name, a.evidence, list(a.notes), nil
			if len(a.evidence) == 0 {
				ruling.Words = list(append([]string{"the level of its trust policy only logs, so nobody is known to have signed"}, a.notes...))
			}
			return ruling
		}
		if a.verdict == Unknown {
			ruling.Verdict = Unknown
		}
		ruling.Found = append(ruling.Found, a.findings()...)
		words := a.words()
		if a.name != "" {
			words = a.name + ": " + words
		}
		said = append(said, words)
	}
	ruling.Words = strings.Join(said, "; ")
	return ruling
}

// conclude gives the verdict of all rules together: what one rejects no other
// can save, and what none rejects but one does not know is unknown. What it says is
// concealed: a registry may write a credential into anything.
func conclude(subject Subject, evaluations []*ruleEvaluation, conceal func(string) string) (Verified, error) {
	proof := Verified{subject: subject}
	failure := &VerificationError{Verdict: Accepted}
	var said []string
	var wait time.Duration
	for _, e := range evaluations {
		ruling := e.ruling()
		ruling.Words = conceal(ruling.Words)
		proof.rulings = append(proof.rulings, ruling)
		proof.unanswered = cmp.Or(proof.unanswered, e.unanswered())
		if ruling.Verdict == Accepted || ruling.Warn {
			continue
		}
		said = append(said, ruling.Rule+": "+ruling.Words)
		wait = max(wait, e.wait())
		if failure.Verdict != Rejected {
			failure.Verdict = ruling.Verdict
		}
	}
	if failure.Verdict == Accepted {
		return proof, nil
	}
	failure.Rulings, failure.Unanswered = proof.rulings, proof.unanswered
	failure.words = fmt.Sprintf("%s is not accepted: %s", subject, strings.Join(said, "; "))
	if failure.Verdict == Unknown {
		failure.words = fmt.Sprintf("cannot verify %s: %s", subject, strings.Join(said, "; "))
	}
	return Verified{}, deny(failure, wait)
}

// title names what accepted, before who signed.
func (r Ruling) title() string {
	if r.Authority == "" {
		return r.Rule + ": "
	}
	return r.Rule + " (" + r.Authority + "): "
}

// String says it in one line: who accepted whose signature, or why not.
func (r Ruling) String() string {
	switch {
	case r.Rule == "":
		return r.Words
	case r.Verdict != Accepted:
		return r.Rule + ": " + r.Words
	case len(r.Evidence) == 0:
		return r.title() + r.Words
	default:
		return fmt.Sprintf("%s%s by a %s", r.title(), r.Signer(), r.Signer().Format)
	}
}

// unanswered returns why the registry gave no answer, nil when it answered
// whatever it was asked: a refusal is an answer, too.
func (e *ruleEvaluation) unanswered() error {
	for _, err := range e.unknown() {
		if f := fault.Of(err, ""); (f.Reason == v1alpha1.ReasonFetchFailed && !f.Answered) ||
			errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// wait is how long a registry asked to be left alone.
func (e *ruleEvaluation) wait() (longest time.Duration) {
	for _, err := range e.unknown() {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			longest = max(longest, f.RetryAfter)
		}
	}
	return longest
}

// unknown is the ruling when no authority got an answer.
func (e *ruleEvaluation) unknown() (all []error) {
	for _, a := range e.authorities {
		all = append(all, a.unknown...)
	}
	return all
}
