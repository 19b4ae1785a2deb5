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

// conflictDelay is how long a reconcile that read a stale object waits for the
// caches to catch up.
const conflictDelay = 200 * time.Millisecond

// decision is the result of an evaluation. Its zero value changes nothing and tells nothing.
type decision struct {
	// change of what is published, and the steps that led to it.
	change publication.Change
	trail  explain.Trail
	// target is the image that the objects ask for, as far as they tell.
	target source.Target
	// latest is the image that was resolved last; its digest is zero if none was.
	latest bridge.Image
	// stored tells that the published bytes are on disk.
	stored bool
	// doubted tells that today's demands are not known to accept the published artifact.
	doubted bool
	// rulings of each policy on each image that was judged, for the metrics.
	rulings [][]trust.Ruling
	// interval until the next look; wait comes before it unless it is zero.
	interval, wait time.Duration
	// silent tells that nothing is written: the attempt is made after wait.
	silent bool
}

// addRulings keeps what the policies said about one image, for the metrics.
func (d *decision) addRulings(rulings ...[]trust.Ruling) {
	if all := slices.Concat(rulings...); len(all) > 0 {
		d.rulings = append(d.rulings, all)
	}
}

// failure returns why the decision was not to publish; nil if it passed or holds.
func (d decision) failure() *fault.Error { return d.trail.Decided().Failure() }

// passed tells whether every step passed.
func (d decision) passed() bool { return d.trail.Decided().Effect == v1alpha1.EffectPass }

// withdraws tells whether the decision takes something away.
func (d decision) withdraws() bool {
	return d.change.Kind() == publication.KindWithdraw || d.change.Kind() == publication.KindRemove
}

// announces tells whether the ExternalArtifact exists although nothing is published:
// consumers and Alerts read there why. It does not exist where the source may have none,
// or where the name belongs to another owner.
func (d decision) announces() bool {
	failure := d.failure()
	return d.change.Kind() != publication.KindRemove &&
		(failure == nil || failure.Reason != v1alpha1.ReasonAccessDenied && failure.Reason != v1alpha1.ReasonNameConflict)
}

// judgement is the result of judging the published artifact again.
type judgement struct {
	// accepted by today's demands; nil if it is not.
	accepted *publication.Acceptance
	// err is why it is not accepted.
	err error
	// wait is when to judge; zero if it is done.
	wait time.Duration
}

// rejected tells whether the artifact must not stay published.
func (j *judgement) rejected() bool {
	return j != nil && j.err != nil && trust.VerdictOf(j.err) == trust.Rejected
}

// leaves tells whether there is something left to judge after the rules of the platform:
// spec.verify, where these accept what is published or have not changed.
func (j *judgement) leaves(ownRules int) bool {
	return j == nil || j.err == nil && j.wait == 0 && ownRules > 0
}
