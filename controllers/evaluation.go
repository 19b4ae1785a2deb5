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

	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// evaluation is the state of one evaluation.
type evaluation struct {
	*Evaluator
	s source.Snapshot
	// judgement of the published artifact; nil if there was no reason for one.
	judgement *judgement
	// candidate and current are the demands on the image to publish and on the published
	// one.
	candidate, current trustpolicy.Demands
	// content are the content settings of the spec, and contentHash is their hash: a hash of
	// long patterns is made once.
	content     format.Options
	contentHash string
	// d is the decision so far.
	d decision
}

func (v *evaluation) pass(name explain.Name, message string) {
	v.d.trail = append(v.d.trail, explain.Pass(name, message))
}

func (v *evaluation) refuse(name explain.Name, err error) {
	step := explain.Refuse(name, err)
	step.Policy = policyOf(err)
	v.d.trail = append(v.d.trail, step)
}

// postpone ends the attempt without a report, for another attempt after a time.
func (v *evaluation) postpone(wait time.Duration) { v.d.silent, v.d.wait = true, wait }

// policyOf returns the TrustPolicy that refused an image; empty if there is no such one, or
// if there are several.
func policyOf(err error) (policy string) {
	for _, ruling := range trustpolicy.RulingsOf(err) {
		switch {
		case ruling.Warn || ruling.Verdict == trust.Accepted || ruling.Policy == policy:
		case policy != "":
			return ""
		default:
			policy = ruling.Policy
		}
	}
	return policy
}
