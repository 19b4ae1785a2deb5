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
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// product is the result of an attempt that made a file.
type product struct {
	bridge.Outcome
	// settings that it was made with.
	settings format.Options
	// accepted are the demands that it meets.
	accepted trustpolicy.Demands
}

// attempt is the result of one reconcile.
type attempt struct {
	plan Plan
	// image that was resolved last, as far as it became known.
	image bridge.Image
	// made is to be recorded; nil: the published file stays.
	made *product
	// candidate and current are the demands on the image to publish, and on the one that
	// is published.
	candidate, current trustpolicy.Demands
	// judgement on the published image; nil when there was no reason for one.
	judgement *judgement
	// err is why the plan was not carried out.
	err error
	// stored tells that the published bytes are on disk.
	stored bool
	// hidden tells that no consumer sees what is recorded: the ExternalArtifact is
	// somebody else's, or could not be made.
	hidden bool
	// depth of the check of those bytes that the attempt was to make.
	depth store.Depth
	// postponed is when to try again where nothing was tried yet and nothing is
	// to be said but what a judgement says; zero elsewhere.
	postponed time.Duration
}

// rejected tells whether what is published must not stay, whatever else an
// attempt waits for.
func (a attempt) rejected() bool { return a.judgement != nil && a.judgement.rejected }

// judgementFailed tells whether the judgement says something against what is published,
// which is told whatever else an attempt waits for.
func (a attempt) judgementFailed() bool { return a.judgement != nil && a.judgement.err != nil }

// verifiedAnew tells whether an attempt made something that met the demands now.
func (a attempt) verifiedAnew() bool {
	if a.made == nil {
		return false
	}
	_, ok := a.made.Proof.Subject()
	return ok
}

// accepted tells whether the rules of today accept what is recorded: they were those
// that accepted it before, or it was judged by them now.
func (a attempt) accepted() bool {
	return a.judgement == nil || a.verifiedAnew() || a.judgement.err == nil && a.judgement.wait == 0
}

// announced tells whether the ExternalArtifact exists although nothing is published:
// consumers and Alerts find there why. It does not exist where the source may have
// none, or where an object of somebody else has the name.
func (a attempt) announced() bool {
	failure := fault.Of(a.err, "")
	return a.plan.Action != Withdraw &&
		(failure == nil || failure.Reason != v1alpha1.ReasonAccessDenied && failure.Reason != v1alpha1.ReasonNameConflict)
}
