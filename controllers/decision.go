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
	"slices"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// conflictDelay is the delay after a reconcile with a stale object, in which the caches
// catch up.
const conflictDelay = 200 * time.Millisecond

// decision is the result of an evaluation. Its zero value changes and reports nothing.
type decision struct {
	// change of the published artifact, and the steps of the decision.
	change publication.Change
	trail  explain.Trail
	// target is the requested image, as far as it is known.
	target source.Target
	// latest is the last resolved image; its digest is zero without one.
	latest bridge.Image
	// stored: the published file is on disk.
	stored bool
	// doubted: today's demands do not accept the published artifact, or this is unknown.
	doubted bool
	// rulings of each policy on each judged image, for the metrics.
	rulings [][]trust.Ruling
	// interval until the next reconcile; wait takes precedence unless it is zero.
	interval, wait time.Duration
	// silent: write nothing, and try again after wait.
	silent bool
}

// addRulings keeps the rulings on one image, for the metrics.
func (d *decision) addRulings(rulings ...[]trust.Ruling) {
	if all := slices.Concat(rulings...); len(all) > 0 {
		d.rulings = append(d.rulings, all)
	}
}

// failure returns the reason against publication; nil if the decision passed or holds.
func (d decision) failure() *fault.Error { return d.trail.Decided().Failure() }

// passed reports whether every step passed.
func (d decision) passed() bool { return d.trail.Decided().Effect == v1alpha1.EffectPass }

// withdraws reports whether the decision removes an artifact.
func (d decision) withdraws() bool {
	return d.change.Kind() == publication.KindWithdraw || d.change.Kind() == publication.KindRemove
}

// announces reports whether the ExternalArtifact exists even without an artifact: consumers
// and Alerts read the reason there. It does not exist if the source may not have one, or if
// its name belongs to another owner.
func (d decision) announces() bool {
	failure := d.failure()
	return d.change.Kind() != publication.KindRemove &&
		(failure == nil || failure.Reason != v1alpha1.ReasonAccessDenied && failure.Reason != v1alpha1.ReasonNameConflict)
}

// judgement is the result of judging the published artifact again.
type judgement struct {
	// accepted by today's demands, else nil.
	accepted *publication.Acceptance
	// err is the reason of a refusal.
	err error
	// wait is the time until the judgement; zero if it is done.
	wait time.Duration
}

// rejected reports whether the artifact must not stay published.
func (j *judgement) rejected() bool {
	return j != nil && j.err != nil && trust.VerdictOf(j.err) == trust.Rejected
}

// leaves reports whether spec.verify still has to be judged after the rules of the platform:
// these accept the published artifact or have not changed.
func (j *judgement) leaves(ownRules int) bool {
	return j == nil || j.err == nil && j.wait == 0 && ownRules > 0
}
