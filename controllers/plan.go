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

	"github.com/image-source/image-source-controller/pkg/source"
)

// Action is what a plan comes to.
type Action int

const (
	// Publish the image that the plan names.
	Publish Action = iota
	// Freeze what is published: it is kept whole, and nothing is asked for.
	Freeze
	// Withdraw what is published.
	Withdraw
	// Refuse to go on; what is published stays.
	Refuse
)

// Plan is what an ArtifactRepository asks for, as far as objects tell.
type Plan struct {
	source.Target

	// Action to take.
	Action Action
	// Why it is not Publish: a fault, or nil for Freeze.
	Why error
	// Interval until the next look.
	Interval time.Duration
	// Timeout of one attempt.
	Timeout time.Duration
	// Judges tells that the published image is judged by the rules of the platform, in the
	// time of the platform.
	Judges bool
}

// planOf tells what an ArtifactRepository asks for. It is a pure function of the
// objects.
func planOf(rules source.Rules, s source.Snapshot) Plan {
	plan := Plan{Interval: s.Interval(), Timeout: s.Object.GetTimeout()}
	permission := rules.Permission(s)
	conflict := s.NameConflict()
	switch {
	case permission.Choice == source.Off:
		plan.Action, plan.Why = Withdraw, permission.Err()
		if permission.Lent {
			plan.Interval = conflictDelay // the interval of the spec has its turn when this is gone
		}
	case permission.Choice == source.Undecided && (s.Repository != nil || s.Object.Spec.ImagePolicyRef == nil):
		plan.Action, plan.Why = Refuse, permission.Err()
	case conflict != nil:
		plan.Action, plan.Why = Refuse, conflict
	case s.Suspended():
		plan.Action = Freeze
	default:
		if plan.Target, plan.Why = s.Wanted(); plan.Why != nil {
			plan.Action = Refuse
		}
	}
	return plan
}

// recordedPlan is the way to what the record says.
func recordedPlan(s source.Snapshot) (Plan, error) {
	target, err := s.Recorded()
	return Plan{Target: target, Timeout: s.Object.GetTimeout()}, err
}
