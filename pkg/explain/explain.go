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

// Package explain holds the trail of a decision: its steps, and the reason why each one
// passed or did not.
package explain

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Name of a step.
type Name string

// The steps in their order.
const (
	// Permission: the namespace and the owner of the access allow publication.
	Permission Name = "Permission"
	// ImageObjects: the ImageRepository and ImagePolicy of a spec with a policy are kept.
	ImageObjects Name = "ImageObjects"
	// Published: today's demands accept the published artifact.
	Published Name = "Published"
	// Suspend: the source is not suspended.
	Suspend Name = "Suspend"
	// Target: the objects name an image.
	Target Name = "Target"
	// Resolve: the registry has the image.
	Resolve Name = "Resolve"
	// Trust: the demands on signatures, format and size accept the image.
	Trust Name = "Trust"
	// Build: the image was pulled, read and stored.
	Build Name = "Build"
	// Deliver: the ExternalArtifact agrees with the record.
	Deliver Name = "Deliver"
)

// Step is one step of a decision. Its zero value makes no decision.
type Step struct {
	Name Name
	// Policy is the name of the deciding policy; empty without one.
	Policy string
	Effect v1alpha1.Effect
	// Reason is empty if the step passes, else a reason of api/v1alpha1.
	Reason string
	// Message for the user, of any length; may be empty.
	Message string
	// Until is the time at which the effect ends by itself; zero if it does not.
	Until time.Time
	// Err is the failure of a step with the effect Refuse or Withdraw; nil elsewhere.
	Err error
}

// Pass returns a step with the effect Pass. The message may be empty.
func Pass(name Name, message string) Step {
	return Step{Name: name, Effect: v1alpha1.EffectPass, Message: message}
}

// Hold returns a step that holds back every new image.
func Hold(name Name, reason, message string) Step {
	return Step{Name: name, Effect: v1alpha1.EffectHold, Reason: reason, Message: message}
}

// Refuse returns a step that failed with an error, which must not be nil. An error without a
// reason is a failure to fetch.
func Refuse(name Name, err error) Step { return failed(name, v1alpha1.EffectRefuse, err) }

// Withdraw returns a step that withdraws the published artifact because of an error, which
// must not be nil.
func Withdraw(name Name, err error) Step { return failed(name, v1alpha1.EffectWithdraw, err) }

func failed(name Name, effect v1alpha1.Effect, err error) Step {
	failure := fault.Of(err, v1alpha1.ReasonFetchFailed)
	return Step{Name: name, Effect: effect, Reason: failure.Reason, Message: err.Error(), Err: failure}
}

// Failure returns the error of a step with its reason and class; nil without one.
func (s Step) Failure() *fault.Error { return fault.Of(s.Err, v1alpha1.ReasonFetchFailed) }

// Trail has the steps of a decision, in order. The last one decided.
type Trail []Step

// Decided returns the deciding step; its zero value for an empty trail.
func (t Trail) Decided() Step {
	if len(t) == 0 {
		return Step{}
	}
	return t[len(t)-1]
}

// Failed returns the last failure with a reason; nil if there is none.
func (t Trail) Failed(reason string) *fault.Error {
	for _, step := range slices.Backward(t) {
		if failure := step.Failure(); failure != nil && failure.Reason == reason {
			return failure
		}
	}
	return nil
}

// Notes returns the messages of the passed steps with these names.
func (t Trail) Notes(names ...Name) (notes []string) {
	for _, step := range t {
		if step.Effect == v1alpha1.EffectPass && step.Message != "" && slices.Contains(names, step.Name) {
			notes = append(notes, step.Message)
		}
	}
	return notes
}

// Decision returns the trail in the form of the status.
func (t Trail) Decision() *v1alpha1.Decision {
	if len(t) == 0 {
		return nil
	}
	var steps []v1alpha1.Step
	for _, step := range t[max(0, len(t)-v1alpha1.MaxSteps):] {
		written := v1alpha1.Step{Name: string(step.Name), Policy: step.Policy, Effect: step.Effect, Reason: step.Reason, Message: fault.Words(step.Message)}
		if varies(step.Failure()) {
			written.Message = ""
		}
		if !step.Until.IsZero() {
			written.Until = &metav1.Time{Time: step.Until}
		}
		steps = append(steps, written)
	}
	return &v1alpha1.Decision{Steps: steps}
}

// varies reports whether the message of a failure may change at each attempt, as messages of
// networks and servers do. Messages of rejections are our own.
func varies(failure *fault.Error) bool {
	return failure != nil && failure.Class == fault.Retry && trust.VerdictOf(failure) != trust.Rejected
}

// Same reports whether two decisions differ only in messages and in passed steps: a status
// without news is not written.
func Same(a, b *v1alpha1.Decision) bool {
	return slices.EqualFunc(effects(a), effects(b), func(x, y v1alpha1.Step) bool {
		return x.Name == y.Name && x.Policy == y.Policy && x.Effect == y.Effect && x.Reason == y.Reason && x.Until.Equal(y.Until)
	})
}

// effects returns the steps of a decision without the passed ones. A missing decision
// differs from one that passes.
func effects(d *v1alpha1.Decision) []v1alpha1.Step {
	if d == nil {
		return []v1alpha1.Step{{}}
	}
	return slices.DeleteFunc(slices.Clone(d.Steps), func(s v1alpha1.Step) bool { return s.Effect == v1alpha1.EffectPass })
}
