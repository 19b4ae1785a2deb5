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

package controllers

import (
	"context"
	"errors"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// demands is what is asked of the images of one repository, for one object: of
// their signatures by spec.verify and by TrustPolicies, of the rest by the latter.
type demands struct {
	rules []trust.Rule
	terms trust.Terms
	// fingerprint of the keys, identities, roots, rules and terms in effect; empty
	// when nothing is asked. That of the platform comes first, and that of spec.verify
	// after ownMark. After rootMark each has that of the public root, where one of the
	// rules judges by it and it is there.
	fingerprint string
	// err is why spec.verify was not read: only another spec heals it, or it has to wait.
	err error
	// wait is when to read spec.verify, where the namespace has as much work as it may.
	wait time.Duration
	// alone tells that they are those of the platform by themselves.
	alone bool
}

// with adds what spec.verify asks for to what the platform does.
func (d demands) with(own demands) demands {
	d.rules = append(own.rules, d.rules...)
	if own.fingerprint != "" {
		d.fingerprint += ownMark + own.fingerprint
	}
	d.err, d.wait, d.alone = own.err, own.wait, false
	return d
}

// verifier applies the demands to the images of a repository.
func (d demands) verifier(repository trust.Repository) trust.Verifier {
	switch refused := d.refused(); {
	case refused != nil:
		return refusal{refused}
	case len(d.rules) == 0:
		return trust.NoDemands{}
	default:
		return trust.NewRules(repository, d.rules...).Resolved() // nobody fetches what was not resolved
	}
}

// refused tells why no image of the repository may be published, whatever it is
// and whoever signed it; nil for most.
func (d demands) refused() error {
	if err := d.terms.Refused(); err != nil {
		return err
	}
	return d.err
}

// warnings say what policies that only warn would refuse of an image that was
// accepted.
func (d demands) warnings(proof trust.Verified, content trust.Content) []string {
	warnings := d.terms.Warnings()
	for _, ruling := range proof.Rulings() {
		if ruling.Warn && ruling.Verdict != trust.Accepted {
			warnings = append(warnings, ruling.String())
		}
	}
	refused, _ := d.terms.Admit(content)
	warnings = append(warnings, refused...)
	for i := range warnings {
		warnings[i] = fault.Line(warnings[i])
	}
	return warnings[:min(len(warnings), maxTrustWarnings)]
}

// observed is the fingerprint to record of demands that an image met. Where a
// policy that only warns could not be heard, there is none yet: it is asked again.
func (d demands) observed(proof trust.Verified) string {
	for _, ruling := range proof.Rulings() {
		if ruling.Verdict == trust.Unknown {
			return ""
		}
	}
	return d.fingerprint
}

// same tells whether a fingerprint is of the same demands.
func (d demands) same(fingerprint string) bool {
	_, ownNow, _ := strings.Cut(d.fingerprint, ownMark)
	_, own, _ := strings.Cut(fingerprint, ownMark)
	return d.samePlatform(fingerprint) && sameMarked(ownNow, own)
}

// samePlatform tells whether a fingerprint is of demands whose part of the platform is
// the same.
func (d demands) samePlatform(fingerprint string) bool {
	now, _, _ := strings.Cut(d.fingerprint, ownMark)
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

// judgement is what came of judging again what is published.
type judgement struct {
	// rejected tells that it must not stay published.
	rejected bool
	// by names who verified it now; with fingerprint, when it was accepted, and
	// what policies that only warn would refuse.
	by, fingerprint string
	warnings        []string
	// err is why it is not accepted.
	err error
	// wait is when to judge; zero when it was done.
	wait time.Duration
}

// leaves tells whether there is something left to judge after the rules of the
// platform: spec.verify, where these accept what is published or have not changed.
func (j *judgement) leaves(own demands) bool {
	return j == nil || j.err == nil && j.wait == 0 && len(own.rules) > 0
}

// judged is the judgement that an error makes.
func judged(err error) *judgement {
	return &judgement{err: err, rejected: trust.VerdictOf(err) == trust.Rejected}
}

// refusal is the Verifier of demands that cannot be met: it accepts nothing.
type refusal struct{ err error }

// Verify implements trust.Verifier.
func (r refusal) Verify(context.Context, trust.Subject) (trust.Verified, error) {
	return trust.Verified{}, r.err
}

// minPlatformTime is how long a judgement by the rules of the platform may take at
// least. The time of an attempt is spec.timeout, which the owner of the object sets.
const minPlatformTime = 15 * time.Second

// platformTime bounds one judgement by the rules of the platform.
func platformTime(obj *v1alpha1.ArtifactRepository) time.Duration {
	return max(minPlatformTime, min(obj.GetTimeout(), v1alpha1.DefaultTimeout))
}

// demands reads what is asked of the images of a repository, by its canonical
// name. Secrets that cannot be read make a rule that cannot be met, not an error:
// what is published stays then.
func (r *ArtifactRepositoryReconciler) demands(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, repository string) demands {
	return r.platformDemands(ctx, around, repository).with(r.ownDemands(ctx, obj))
}

// platformDemands reads what the platform asks. It reads nothing of the object.
func (r *ArtifactRepositoryReconciler) platformDemands(ctx context.Context, around Surroundings, repository string) demands {
	d := demands{alone: true, terms: around.trust.decide(around.Namespace, r.Rules, repository)}
	for _, term := range d.terms.Policies {
		if len(term.Authorities) > 0 {
			d.rules = append(d.rules, r.Trust.rule(ctx, around.trust.specs[term.Policy]))
		}
	}
	if len(d.rules) > 0 || d.terms.Asked() {
		d.fingerprint = fingerprintOf(d.rules, d.terms.Fingerprint())
	}
	return d
}

// ownDemands reads the demands of spec.verify. The work, which takes requests to the API server
// each time, counts against the namespace.
func (r *ArtifactRepositoryReconciler) ownDemands(ctx context.Context, obj *v1alpha1.ArtifactRepository) (d demands) {
	if obj.Spec.Verify == nil {
		return d
	}
	end, busy := r.Pipeline.Throttle.Occupy(obj.Namespace)
	if busy != nil {
		err := fault.Retryf(v1alpha1.ReasonVerificationError, "spec.verify is not read yet: the namespace %s has as many attempts as it may", obj.Namespace)
		return demands{wait: busy.Wait, err: err}
	}
	defer end()
	return r.readOwnDemands(ctx, obj)
}

// readOwnDemands reads the demands of spec.verify, in a place of the namespace that is taken
// already.
func (r *ArtifactRepositoryReconciler) readOwnDemands(ctx context.Context, obj *v1alpha1.ArtifactRepository) (d demands) {
	if obj.Spec.Verify == nil {
		return d
	}
	authority, err := r.Trust.own(ctx, obj)
	if failure := fault.Of(err, ""); failure != nil && failure.Class == fault.Stall {
		d.err = err
	}
	d.rules = []trust.Rule{{Name: "spec.verify", AnyOf: []trust.Alternative{{Authority: authority, Err: err}}}}
	d.fingerprint = fingerprintOf(d.rules)
	return d
}

// fingerprintOf identifies rules, and terms beside them.
func fingerprintOf(rules []trust.Rule, terms ...string) string {
	all := trust.NewRules(nil, rules...)
	fingerprint := strings.Join(append([]string{all.Fingerprint()}, terms...), "-")
	if root := all.PublicRoot(); root != "" {
		fingerprint += rootMark + root
	}
	return fingerprint
}

// judgeByPlatform judges what is published by the rules of the platform, by
// themselves, where they changed. It comes before everything that the owner of the
// object could make fail, panic or take long, and has time of its own.
func (r *ArtifactRepositoryReconciler) judgeByPlatform(whole context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings) *judgement {
	published := publishedBy(obj)
	if published == nil || r.Rules.permission(obj, around).Choice == choiceOff { // it is withdrawn anyway
		return nil
	}
	ctx, cancel := context.WithTimeout(whole, platformTime(obj))
	defer cancel()
	asked := r.platformDemands(ctx, around, published.Repository)
	if asked.samePlatform(obj.Status.ObservedTrust) {
		return nil
	}
	return r.rejudge(ctx, obj, around, asked)
}

// judge reads what is asked of the image to publish and of the one that is
// published, refuses the one before anything is fetched, and judges the other
// again, unless the platform has judged it. What is frozen is judged too: whoever may
// suspend a source could keep published what the platform no longer accepts. What is
// withdrawn is not.
func (r *ArtifactRepositoryReconciler) judge(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, a attempt) attempt {
	if a.plan.Action == Withdraw {
		a.judgement = nil
		return a
	}
	own, repository := r.ownDemands(ctx, obj), ""
	if a.plan.Action == Publish {
		repository = a.plan.Repository.Name()
		a.asked = r.platformDemands(ctx, around, repository).with(own)
		if err := a.asked.refused(); err != nil && own.wait == 0 {
			a.plan.Action, a.err = Refuse, err
			r.Metrics.observeRulings(rulingsOf(err))
		}
	}
	if published := publishedBy(obj); published != nil {
		a.standing = a.asked
		if published.Repository != repository {
			a.standing = r.platformDemands(ctx, around, published.Repository).with(own)
		}
		if own.wait == 0 && a.judgement.leaves(own) {
			a.judgement = r.rejudge(ctx, obj, around, a.standing)
		}
	}
	if own.wait > 0 && !a.rejected() {
		a.judgement = &judgement{wait: own.wait}
	}
	if a.plan.Action == Freeze && a.judgement != nil {
		a.err = a.judgement.err
	}
	return a
}

// rejudge judges what is published again when what is asked of it is no longer
// what accepted it: a key was rotated, a policy was changed, a signature is asked
// for that was not. It needs no new image.
func (r *ArtifactRepositoryReconciler) rejudge(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, asked demands) *judgement {
	// Warnings that are left over from a policy that is gone go, too.
	if asked.same(obj.Status.ObservedTrust) && (asked.fingerprint != "" || len(obj.Status.TrustWarnings) == 0) {
		return nil
	}
	// What needs no registry is judged first: nobody who can break the way to one
	// keeps published what its name, format or size forbid.
	content := trust.Content{Format: obj.Status.Format, Bytes: publishedBytes(obj)}
	err := asked.terms.Refused()
	if err == nil {
		_, err = asked.terms.Admit(content)
	}
	if err != nil {
		r.Metrics.observeRulings(rulingsOf(err))
		return judged(err)
	}
	var proof trust.Verified
	if len(asked.rules) > 0 {
		var wait time.Duration
		if proof, wait, err = r.verifyPublished(ctx, obj, around, asked); wait > 0 {
			return &judgement{wait: wait}
		}
	}
	if err != nil {
		r.Metrics.observeRulings(rulingsOf(err))
		return judged(err)
	}
	r.Metrics.observeRulings(proof.Rulings(), asked.terms.Judge(content), asked.terms.Rulings())
	return &judgement{by: proof.By(), fingerprint: asked.observed(proof), warnings: asked.warnings(proof, content)}
}

// verifyPublished looks for the signatures of what is published, when it is its turn, and
// may have to wait: a registry that hangs must not occupy the workers with what it once
// delivered.
func (r *ArtifactRepositoryReconciler) verifyPublished(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, asked demands) (proof trust.Verified, wait time.Duration, err error) {
	plan, err := recordedPlan(obj, around)
	if err != nil {
		return proof, 0, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		plan.Timeout = max(plan.Timeout, time.Until(deadline)) // which may be that of the platform
	}
	plan.Judges = asked.alone
	err = r.Pipeline.Ask(ctx, plan.origin(requested(obj, around)), func(ctx context.Context, repository *pipeline.Repository) (err error) {
		// Not by asked.verifier: a spec.verify that cannot be read must not keep the
		// rules of the platform from being heard.
		proof, err = trust.NewRules(repository, asked.rules...).Verify(ctx, trust.Subject{Repository: repository.Name(), Digest: plan.Digest})
		repository.Blame(proof.Unanswered())
		return err
	})
	if busy, ok := errors.AsType[*throttle.Busy](err); ok {
		return proof, busy.Wait, nil
	}
	return proof, 0, err
}

// publishedBytes is the size of what was fetched of the published image. What is
// served stands in for it in records that do not have it.
func publishedBytes(obj *v1alpha1.ArtifactRepository) int64 {
	if size := obj.Status.Record.Size; size > 0 || obj.Status.Artifact.Size == nil {
		return size
	}
	return *obj.Status.Artifact.Size
}

// outdated tells whether what is asked of an image is not what an attempt started
// with: rules, the labels of the namespace, or the keys and roots behind them. What
// it made must not be published then.
func (r *ArtifactRepositoryReconciler) outdated(ctx context.Context, obj *v1alpha1.ArtifactRepository, a attempt) (bool, error) {
	var now Surroundings
	var err error
	if now.trust, err = r.Trust.inForce(ctx); err != nil {
		return false, err
	}
	now.Namespace, err = get(ctx, r.Client, types.NamespacedName{Name: obj.Namespace}, &corev1.Namespace{})
	if err != nil || now.Namespace == nil {
		return true, err
	}
	// Not by demands: the attempt would wait for a second place while it has the first.
	asked := r.platformDemands(ctx, now, a.plan.Repository.Name()).with(r.readOwnDemands(ctx, obj))
	return !a.asked.same(asked.fingerprint), nil
}

// rulingsOf are the rulings behind an error, if it has any.
func rulingsOf(err error) []trust.Ruling {
	if denial, ok := errors.AsType[*trust.Denial](err); ok {
		return denial.Rulings
	}
	return nil
}
