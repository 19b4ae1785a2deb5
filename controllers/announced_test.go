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
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// byTag lets a source name an image and a tag.
func byTag(image, tag string) func(*v1alpha1.ArtifactRepository) {
	return func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: image, Tag: tag}
	}
}

// Consumers and Alerts find the ExternalArtifact of a source without a publication.
func TestExternalArtifactOfAFirstFailure(t *testing.T) {
	s := startScene(t)
	s.artifactRepository("app", byTag(s.image("app"), "missing"))
	obj := s.waitFailed("app", v1alpha1.ReasonImageNotFound)
	s.eventually(func(g Gomega) {
		external := get[sourcev1.ExternalArtifact](g, s, "app")
		g.Expect(external.Status.Artifact).To(BeNil())
		g.Expect(external.Spec.SourceRef.Name).To(Equal("app"))
		g.Expect(metav1.IsControlledBy(external, obj)).To(BeTrue())
		g.Expect(external).To(haveCondition(meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonImageNotFound))
		g.Expect(s.events(sourcev1.ExternalArtifactKind, "app")).To(haveEvent(v1alpha1.ReasonImageNotFound, "missing"))
	})

	t.Run("and opting out leaves no object", func(*testing.T) {
		s.labels(nil)
		s.waitFailed("app", v1alpha1.ReasonAccessDenied)
		s.eventually(gone[sourcev1.ExternalArtifact](s, "app"))
	})
}

// asKstatus waits until an object has a status of kstatus, which Flux and other tools wait
// for.
func asKstatus[T any, P object[T]](s *scene, name string, want status.Status) {
	s.Helper()
	s.eventually(func(g Gomega) {
		gvk, err := s.client.GroupVersionKindFor(P(new(T)))
		g.Expect(err).NotTo(HaveOccurred())
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(get[T, P](g, s, name))
		g.Expect(err).NotTo(HaveOccurred())
		obj := &unstructured.Unstructured{Object: content}
		obj.SetGroupVersionKind(gvk)
		result, err := status.Compute(obj)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(result.Status).To(Equal(want), result.Message)
	})
}

// For kstatus, an object that is neither ready nor stalled is in progress for ever.
func TestKstatus(t *testing.T) {
	s := startScene(t)
	both := func(name string, want status.Status) {
		t.Helper()
		asKstatus[v1alpha1.ArtifactRepository](s, name, want)
		asKstatus[sourcev1.ExternalArtifact](s, name, want)
	}
	s.artifactRepository("waiting", byTag(s.image("app"), "missing"))
	s.waitFailed("waiting", v1alpha1.ReasonImageNotFound)
	both("waiting", status.InProgressStatus)

	s.pushNonsense("app:1.0.0")
	s.artifactRepository("stalled", byTag(s.image("app"), "1.0.0"))
	both("stalled", status.FailedStatus)

	s.push("app:1.0.0", map[string]string{"app.yaml": "version: 1\n"})
	s.reconciled("stalled")
	both("stalled", status.CurrentStatus)

	// The published artifact stays, and is not the requested one.
	s.pushNonsense("app:1.0.0")
	s.reconciled("stalled")
	both("stalled", status.FailedStatus)
	NewWithT(t).Expect(s.external("stalled").Status.Artifact).NotTo(BeNil())
}

func TestExternalArtifactOfAStalledSource(t *testing.T) {
	s := startScene(t)
	s.pushNonsense("app:1.0.0")
	s.artifactRepository("app", byTag(s.image("app"), "1.0.0"))
	s.waitFailed("app", v1alpha1.ReasonInvalidArtifact)
	s.eventually(func(g Gomega) {
		external := get[sourcev1.ExternalArtifact](g, s, "app")
		g.Expect(external).To(haveCondition(meta.StalledCondition, metav1.ConditionTrue, v1alpha1.ReasonInvalidArtifact))
	})
	s.push("app:1.0.0", map[string]string{"app.yaml": "version: 1\n"})
	s.reconciled("app")
	external := s.waitPublished("app", "1.0.0@")
	NewWithT(t).Expect(external).To(haveNoCondition(meta.StalledCondition))
}

func TestNoExternalArtifactWithoutPermission(t *testing.T) {
	t.Run("without an opt-in", func(t *testing.T) {
		s := newScene(t)
		s.labels(nil)
		s.start()
		s.artifactRepository("app", byTag(s.image("app"), "missing"))
		s.waitFailed("app", v1alpha1.ReasonAccessDenied)
		gone[sourcev1.ExternalArtifact](s, "app")(NewWithT(t))
	})
	t.Run("with an opt-in that cannot be read", func(t *testing.T) {
		s := newScene(t)
		s.labels(map[string]string{v1alpha1.UseAsSource: "Yes"})
		s.start()
		s.artifactRepository("app", byTag(s.image("app"), "missing"))
		s.waitFailed("app", v1alpha1.ReasonAccessDenied)
		gone[sourcev1.ExternalArtifact](s, "app")(NewWithT(t))
	})
	t.Run("if another owner has the name of an image object", func(t *testing.T) {
		s := startScene(t)
		s.imageRepository("app")
		s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) {
			obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Policy: semver("*")}
		})
		s.waitFailed("app", v1alpha1.ReasonNameConflict)
		gone[sourcev1.ExternalArtifact](s, "app")(NewWithT(t))
	})
}

// Whoever is called for a withdrawal need not be called again for the image that cannot
// replace what was withdrawn, because it is the same one.
func TestAWithdrawalIsToldOnce(t *testing.T) {
	s := newScene(t)
	var mu sync.Mutex
	var warnings []string
	s.overheard = func(about runtime.Object, reason, message string) {
		if _, ok := about.(*v1alpha1.ArtifactRepository); ok && reason == v1alpha1.ReasonVerificationError {
			mu.Lock()
			defer mu.Unlock()
			warnings = append(warnings, message)
		}
	}
	s.start()
	s.publishes("app", "1.0.0")
	s.govern("policy", listing("ghcr.io/org/**"))
	s.eventually(func(g Gomega) {
		decision := get[v1alpha1.ArtifactRepository](g, s, "app").Status.Decision
		g.Expect(decision.Steps).To(HaveEach(HaveField("Effect", Not(Equal(v1alpha1.EffectWithdraw)))))
		g.Expect(decision.Steps).To(ContainElement(HaveField("Name", "Trust")), "the replacement was refused")
		g.Expect(decision.Steps[len(decision.Steps)-1].Effect).To(Equal(v1alpha1.EffectRefuse))
	})
	s.reconciled("app")
	mu.Lock()
	defer mu.Unlock()
	NewWithT(t).Expect(warnings).To(ConsistOf(ContainSubstring("no longer published")))
}
