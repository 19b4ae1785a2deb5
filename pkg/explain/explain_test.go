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

package explain

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func TestTheZeroStepMakesNoDecision(t *testing.T) {
	var trail Trail
	if step := trail.Decided(); step.Effect != "" || step.Failure() != nil {
		t.Errorf("an empty trail decided %+v", step)
	}
	if decision := trail.Decision(); decision != nil {
		t.Errorf("an empty trail is written as %+v", decision)
	}
}

func TestATrailIsWrittenAsTheStepsOfAStatus(t *testing.T) {
	monday := time.Date(2026, 12, 7, 9, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		step Step
		want v1alpha1.Step
	}{
		"passed": {Pass(Trust, "release-key"), v1alpha1.Step{Name: "Trust", Effect: "Pass", Message: "release-key"}},
		"held":   {Hold(Suspend, v1alpha1.ReasonSuspended, ""), v1alpha1.Step{Name: "Suspend", Effect: "Hold", Reason: "Suspended"}},
		"may heal": {
			Refuse(Resolve, fault.Retryf(v1alpha1.ReasonFetchFailed, "dial tcp 127.0.0.1:43210: refused")),
			v1alpha1.Step{Name: "Resolve", Effect: "Refuse", Reason: "FetchFailed"},
		},
		"no image": {
			Refuse(Resolve, fault.Retryf(v1alpha1.ReasonImageNotFound, "404 Not Found (request 4711)")),
			v1alpha1.Step{Name: "Resolve", Effect: "Refuse", Reason: "ImageNotFound"},
		},
		"no good signature": {
			Refuse(Trust, fault.Retryf(v1alpha1.ReasonVerificationError, "no signature of release-key%w", &trust.VerificationError{Verdict: trust.Rejected})),
			v1alpha1.Step{Name: "Trust", Effect: "Refuse", Reason: "VerificationError", Message: "no signature of release-key"},
		},
		"not known": {
			Refuse(Trust, fault.Retryf(v1alpha1.ReasonVerificationError, "timeout%w", &trust.VerificationError{})),
			v1alpha1.Step{Name: "Trust", Effect: "Refuse", Reason: "VerificationError"},
		},
		"without a reason": {Refuse(Build, errors.New("reset by peer")), v1alpha1.Step{Name: "Build", Effect: "Refuse", Reason: "FetchFailed"}},
		"stalled": {
			Withdraw(Published, fault.Stallf(v1alpha1.ReasonVerificationError, "no signature\nof release-key")),
			v1alpha1.Step{Name: "Published", Effect: "Withdraw", Reason: "VerificationError", Message: "no signature of release-key"},
		},
	} {
		got := Trail{test.step}.Decision().Steps[0]
		if !equality.Semantic.DeepEqual(got, test.want) {
			t.Errorf("%s: found %+v, expected %+v", name, got, test.want)
		}
	}
	until := Step{Name: Trust, Effect: v1alpha1.EffectHold, Until: monday}
	if got := (Trail{until}).Decision().Steps[0].Until; !got.Time.Equal(monday) {
		t.Errorf("found until %v, expected %v", got, monday)
	}
}

func TestATrailFitsItsLimits(t *testing.T) {
	var trail Trail
	for range v1alpha1.MaxSteps + 4 {
		trail = append(trail, Pass(Target, "x"))
	}
	trail = append(trail, Refuse(Build, fault.Stallf(v1alpha1.ReasonInvalidArtifact, "%s", strings.Repeat("ä", 1000))))
	steps := trail.Decision().Steps
	if len(steps) != v1alpha1.MaxSteps {
		t.Errorf("found %d steps, expected %d", len(steps), v1alpha1.MaxSteps)
	}
	last := steps[len(steps)-1]
	if last.Name != string(Build) || last.Message == "" || len(last.Message) > v1alpha1.MaxStepMessage {
		t.Errorf("the step that decided is %+v", last)
	}
}

func TestADecisionWithoutNewsIsTheSame(t *testing.T) {
	decided := func(steps ...Step) *v1alpha1.Decision { return Trail(steps).Decision() }
	fetch := Refuse(Resolve, fault.Retryf(v1alpha1.ReasonFetchFailed, "timeout"))
	invalid := func(words string) Step {
		return Refuse(Build, fault.Stallf(v1alpha1.ReasonInvalidArtifact, "%s", words))
	}
	later := fetch
	later.Until = time.Date(2026, 12, 7, 9, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		a, b *v1alpha1.Decision
		want bool
	}{
		"other steps pass":    {decided(Pass(Target, "")), decided(Pass(Target, ""), Pass(Build, "Flux")), true},
		"other words":         {decided(invalid("a")), decided(invalid("b")), true},
		"other words of pass": {decided(Pass(Trust, "a")), decided(Pass(Trust, "b")), true},
		"no decision yet":     {nil, decided(Pass(Target, "")), false},
		"neither":             {nil, nil, true},
		"failed":              {decided(Pass(Target, "")), decided(Pass(Target, ""), fetch), false},
		"other step":          {decided(invalid("a")), decided(fetch), false},
		"other time":          {decided(fetch), decided(later), false},
		"healed":              {decided(fetch), decided(Pass(Resolve, "")), false},
	} {
		if got := Same(test.a, test.b); got != test.want || Same(test.b, test.a) != got {
			t.Errorf("%s: found %t, expected %t", name, got, test.want)
		}
	}
}
