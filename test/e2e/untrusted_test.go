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

package e2e

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// A digest in the spec is published whatever the policy picks, until it is
// taken away.
func TestThePinHolds(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	old := n.push("app", "1.0.0", configMap("app", "1.0.0"))
	_, digest, _ := strings.Cut(old, "@")
	n.published("app", n.pushAndScan("app", "1.1.0"))

	pin := func(digest string) {
		change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = digest })
	}
	wouldPick := func(tag string) {
		n.eventually(func(g Gomega) {
			obj := get(n, "app", &v1alpha1.ArtifactRepository{})
			g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(And(ContainSubstring("pinned"), ContainSubstring("would pick "+tag)))
			g.Expect(obj.Status.Artifact.Revision).To(Equal(digest))
		})
	}
	pin(digest)
	n.published("app", digest)
	wouldPick("1.1.0")
	n.push("app", "1.2.0", configMap("app", "1.2.0"))
	wouldPick("1.2.0")
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(digest))

	pin("sha256:" + strings.Repeat("0", 64))
	_, ready := n.notReady("app", v1alpha1.ReasonImageNotFound)
	n.Expect(ready.Message).To(ContainSubstring(shortRevision(digest)), "the last good stays")

	pin("")
	n.published("app", "1.2.0")
}

// Tenants may be able to edit the status of an ImagePolicy. What stands there
// leads nobody, and no credentials, away from the image of its ImageRepository.
func TestTamperedPolicyStatus(t *testing.T) {
	t.Parallel()
	var visits atomic.Int64
	attacker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits.Add(1) }))
	t.Cleanup(attacker.Close)

	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	registry, push := n.startRegistry(controlplane.RegistryOptions{Username: username, Password: password})
	n.pullSecret("regcred", registry.Host(), login{username, password})
	revision := n.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))
	n.pushTo(push, "org/other:1.0.0", configMap("other", "1.0.0"))
	n.scan("app", seldom, func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.Image = registry.Host() + "/org/app"
		repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
	})
	artifact := n.published("app", revision)

	earlier, err := registry.Requests()
	n.Expect(err).NotTo(HaveOccurred())

	untouched := get(n, "app", &imagev1.ImagePolicy{}).Status
	tamper := func(do func(*imagev1.ImagePolicyStatus)) {
		n.eventually(func(g Gomega) {
			policy := get(n, "app", &imagev1.ImagePolicy{})
			untouched.DeepCopyInto(&policy.Status)
			do(&policy.Status)
			g.Expect(env.Client.Status().Update(n.Context(), policy)).To(Succeed())
		})
	}
	for name, test := range map[string]struct {
		do   func(*imagev1.ImagePolicyStatus)
		says string
	}{
		"an image of another registry": {
			do: func(s *imagev1.ImagePolicyStatus) {
				s.LatestRef.Name = strings.TrimPrefix(attacker.URL, "http://") + "/org/app"
			},
			says: "picked from",
		},
		"another image of the same registry": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Name = registry.Host() + "/org/other" },
			says: "picked from",
		},
		"an image with a tag in its name": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Name += ":1.0.0" },
			says: "picked from",
		},
		"a tag that is a path": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Tag = "../../other/manifests/1.0.0" },
			says: "no valid tag",
		},
		"a tag that names another host": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Tag = "1.0.0@" + attacker.URL },
			says: "no valid tag",
		},
		"a digest that is a path": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Digest = "sha256:../../x" },
			says: "64 hexadecimal digits",
		},
		"nothing at all": {
			do:   func(s *imagev1.ImagePolicyStatus) { s.LatestRef = nil },
			says: "has picked no image",
		},
		"a pick of an earlier spec": {
			do: func(s *imagev1.ImagePolicyStatus) {
				s.LatestRef.Tag, s.ObservedGeneration = "9.9.9", s.ObservedGeneration+7
			},
			says: "has not been evaluated",
		},
		"a policy that is not ready": {
			do: func(s *imagev1.ImagePolicyStatus) {
				s.Conditions[0].Status, s.Conditions[0].Message = "False", "a reason of its own"
			},
			says: "a reason of its own",
		},
	} {
		tamper(test.do)
		n.eventually(func(g Gomega) {
			obj := get(n, "app", &v1alpha1.ArtifactRepository{})
			ready := conditions.Get(obj, meta.ReadyCondition)
			g.Expect(ready.Reason).To(Equal(v1alpha1.ReasonDependencyNotReady), "%s: %s", name, ready.Message)
			g.Expect(ready.Message).To(And(ContainSubstring(test.says), ContainSubstring(shortRevision(revision))), name)
			g.Expect(obj.Status.Artifact).To(Equal(artifact), name)
		})
		n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(artifact), name)
	}

	tamper(func(s *imagev1.ImagePolicyStatus) { s.LatestRef.Digest = "sha256:" + strings.Repeat("0", 64) })
	n.notReady("app", v1alpha1.ReasonImageNotFound)
	tamper(func(*imagev1.ImagePolicyStatus) {})
	n.published("app", revision)

	n.Expect(visits.Load()).To(BeZero(), "somebody went where the status pointed")
	requests, err := registry.Requests()
	n.Expect(err).NotTo(HaveOccurred())
	for _, request := range requests[len(earlier):] {
		n.Expect(request.Path).NotTo(ContainSubstring("org/other"), "another image was asked for")
	}
	n.keepsToItself(password)
}
