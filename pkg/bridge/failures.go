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

package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/utils/lru"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	// maxFailures bounds the remembered failures, a few hundred bytes each; an evicted one
	// costs one more attempt.
	maxFailures = 2000
	// firstPause follows the first attempt that ran out of time while it read an artifact,
	// and doubles up to longestPause: the same bytes take the same time again.
	firstPause   = 2 * time.Minute
	longestPause = 6 * time.Hour
)

// failures remembers the artifacts that could not be read although all their bytes were
// there. These bytes never change: each attempt would only use the CPU.
type failures struct {
	known *lru.Cache
	now   func() time.Time
}

// failureID identifies attempts with the same end. The image is part of the message of an
// error.
type failureID struct {
	flightID

	limits format.Limits
	image  string
}

type failure struct {
	// refused is the reason to never publish the artifact under these constraints; nil: an
	// attempt ran out of time.
	refused error
	// had is the longest time of an attempt.
	had time.Duration
	// pause started after the last attempt and ends at until.
	pause time.Duration
	until time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{known: lru.New(maxFailures), now: now}
}

func (f *failures) get(id failureID) failure {
	known, ok := f.known.Get(id)
	if !ok {
		return failure{}
	}
	return known.(failure)
}

// expected returns the error that an attempt would end with. An attempt with more time than
// those before may end otherwise.
func (f *failures) expected(ctx context.Context, id failureID) error {
	known := f.get(id)
	switch {
	case known.refused != nil:
		return known.refused
	case !f.now().Before(known.until), timeLeft(ctx) > known.had+known.had/4:
		return nil
	}
	return &fault.Error{Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: true, Err: fmt.Errorf(
		"the artifact was not read within the rest of spec.timeout; the next attempt follows after a pause of %s, or at once after spec.timeout is raised", known.pause)}
}

// note remembers the end of an attempt that got all blobs, and its time. A canceled attempt
// and a failure of the disk are not remembered.
func (f *failures) note(ctx context.Context, id failureID, had time.Duration, err error) {
	over := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
	switch failed := fault.Of(err, v1alpha1.ReasonFetchFailed); {
	case err == nil:
		f.known.Remove(id)
	case over && timeLeft(ctx) <= 0:
		before := f.get(id)
		pause := min(max(firstPause, 2*before.pause), longestPause)
		f.known.Add(id, failure{had: max(had, before.had), pause: pause, until: f.now().Add(pause)})
	case failed.Class != fault.Retry:
		f.known.Add(id, failure{refused: err})
	}
}

// timeLeft is the time until the deadline; longestPause without a deadline.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return longestPause
	}
	return time.Until(deadline)
}
