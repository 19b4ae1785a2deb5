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

	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// judgement is the result of judging the published image again.
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
func (j *judgement) leaves(own trustpolicy.Demands) bool {
	return j == nil || j.err == nil && j.wait == 0 && len(own.Rules) > 0
}

// judged is the judgement that an error makes.
func judged(err error) *judgement {
	return &judgement{err: err, rejected: trust.VerdictOf(err) == trust.Rejected}
}
