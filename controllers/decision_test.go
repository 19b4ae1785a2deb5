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

package controllers_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// The status has the steps that led to a publication or a refusal, for users to read.
func TestTheStatusTellsTheDecision(t *testing.T) {
	s := startScene(t)
	release := newSigner(t)
	s.platformKeys("release-key", release)
	tells := func(want ...string) {
		t.Helper()
		s.eventually(func(g Gomega) {
			g.Expect(s.record("app").Status.Decision).NotTo(BeNil())
			var steps []string
			for _, step := range s.record("app").Status.Decision.Steps {
				steps = append(steps, strings.Join(strings.Fields(step.Name+" "+string(step.Effect)+" "+step.Reason+" "+step.Policy+" "+step.Message), " "))
			}
			g.Expect(steps).To(HaveLen(len(want)), "%q", steps)
			for i := range want {
				g.Expect(steps[i]).To(HavePrefix(want[i]), "%q", steps)
			}
		})
	}

	s.push("app:1.0.0", version("1"))
	s.sign("app:1.0.0", release)
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "1.0.0", Interval: second})
	tells("Permission Pass", "Target Pass", "Resolve Pass", "Trust Pass", "Build Pass")

	s.govern("production", signedBy("release-key"))
	tells("Permission Pass", "Target Pass", "Resolve Pass", `Trust Pass TrustPolicy "`+s.policyName("production")+`" (release-key)`, "Build Pass")

	s.push("app:1.0.0", version("2"))
	tells("Permission Pass", "Target Pass", "Resolve Pass", "Trust Refuse VerificationError "+s.policyName("production"))

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
	tells("Permission Pass", "Suspend Hold Suspended")

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = false })
	s.regovern("production", listing("other.example/**"))
	tells("Permission Pass", "Target Pass", "Trust Refuse VerificationError")

	s.ungovern("production")
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "absent" })
	tells("Permission Pass", "Target Pass", "Resolve Refuse ImageNotFound")

	s.labels(nil)
	tells("Permission Withdraw AccessDenied the namespace has not opted in")
}
