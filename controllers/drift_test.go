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
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// A tenant may be able to edit an ExternalArtifact.
func TestDriftOfTheExternalArtifactIsRepaired(t *testing.T) {
	const key = "sharding.fluxcd.io/key"
	forged := &meta.Artifact{
		Path: "x", URL: "http://evil.example/x.tar.gz", Revision: "9.9.9@" + digestA, Digest: digestA, LastUpdateTime: metav1.Now(),
	}
	for name, drift := range map[string]func(*scene){
		"a forged artifact": func(s *scene) {
			editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = forged })
		},
		"an artifact that was taken away": func(s *scene) {
			editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = nil })
		},
		"a forged condition": func(s *scene) {
			editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) {
				conditions.MarkFalse(obj, meta.ReadyCondition, "Forged", "forged")
			})
		},
		"a claim that the source is verified": func(s *scene) {
			editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) {
				conditions.MarkTrue(obj, v1alpha1.SourceVerifiedCondition, "Succeeded", "forged verification")
			})
		},
		"labels of the watch selector": func(s *scene) {
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { delete(obj.Labels, key) })
		},
		"owner references that were stripped": func(s *scene) {
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.OwnerReferences = nil })
		},
		"an owner reference with another UID": func(s *scene) {
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.OwnerReferences[0].UID = "gone" })
		},
		"another source": func(s *scene) {
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Spec.SourceRef.Name = "other" })
		},
		"no source": func(s *scene) {
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Spec.SourceRef = nil })
		},
		"its deletion": func(s *scene) { remove[sourcev1.ExternalArtifact](s, "app") },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := newScene(t), NewWithT(t)
			s.labelKeys = []string{key}
			s.start()
			s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			s.imageRepository("app")
			s.imagePolicy("app", annotated, func(obj *imagev1.ImagePolicy) { obj.Labels = map[string]string{key: "shard1"} })
			s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			before := s.waitPublished("app", "1.0.0@")
			record := s.record("app")
			s.registry.Forget()

			drift(s)

			s.eventually(func(g Gomega) {
				now := get[sourcev1.ExternalArtifact](g, s, "app")
				g.Expect(now.Spec).To(Equal(before.Spec))
				g.Expect(now.Labels).To(Equal(before.Labels))
				g.Expect(now.OwnerReferences).To(Equal(before.OwnerReferences))
				g.Expect(now.Status.Artifact).To(Equal(before.Status.Artifact))
				g.Expect(now).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
				g.Expect(now).To(haveNoCondition(v1alpha1.SourceVerifiedCondition))
			})
			g.Expect(s.record("app").Status).To(Equal(record.Status), "the copy does not change the record")
			g.Expect(s.registry.Requests()).To(BeEmpty(), "no request for the recorded image")
		})
	}
}

func TestFieldsOfOthersOnTheExternalArtifactStay(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) {
		obj.Labels = map[string]string{"team": "a"}
		obj.Annotations = map[string]string{"note": "b"}
		obj.Finalizers = []string{"example.com/hold"}
	})
	s.pushNew("1.0.1")
	now := s.waitPublished("app", "1.0.1@")
	g.Expect(now.Labels).To(HaveKeyWithValue("team", "a"))
	g.Expect(now.Annotations).To(HaveKeyWithValue("note", "b"))
	g.Expect(now.Finalizers).To(ConsistOf("example.com/hold"))
}

func TestAForeignExternalArtifactIsNeverTouched(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	foreign := &sourcev1.ExternalArtifact{}
	foreign.Namespace, foreign.Name = s.namespace, "app"
	foreign.Spec.SourceRef = &meta.NamespacedObjectKindReference{APIVersion: "source.extensions.fluxcd.io/v1beta1", Kind: "ArtifactGenerator", Name: "app"}
	s.create(foreign)
	before := s.external("app")
	s.start()
	s.source("app", "1.0.0")

	obj := s.waitFailed("app", v1alpha1.ReasonNameConflict, "ExternalArtifact app")
	s.reconciled("app")

	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(s.external("app")).To(Equal(before))
	g.Expect(s.registry.Requests()).To(BeEmpty(), "no pull without a possible publication")
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ArtifactRepository", "app")).To(haveEvent(v1alpha1.ReasonNameConflict, ""))
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonNameConflict, ""))
	})
	g.Expect(s.events("ExternalArtifact", "app")).To(BeEmpty())

	s.labels(nil)
	s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
	g.Expect(s.external("app")).To(Equal(before), "opting out does not touch it either")
	s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"})
	s.waitFailed("app", v1alpha1.ReasonNameConflict)

	remove[sourcev1.ExternalArtifact](s, "app")
	s.waitPublished("app", "1.0.0@")
}

func TestReconcileRequestsAskTheRegistryAfresh(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	head := []string{"HEAD /v2/team/app/manifests/1.0.0"}
	handled := map[string]func(g Gomega, obj *v1alpha1.ArtifactRepository) string{
		"ArtifactRepository": func(_ Gomega, obj *v1alpha1.ArtifactRepository) string { return obj.Status.LastHandledReconcileAt },
		"ImagePolicy": func(g Gomega, obj *v1alpha1.ArtifactRepository) string {
			g.Expect(obj.Status.ObservedRequests).NotTo(BeNil())
			return obj.Status.ObservedRequests.ImagePolicy
		},
		"ExternalArtifact": func(g Gomega, obj *v1alpha1.ArtifactRepository) string {
			g.Expect(obj.Status.ObservedRequests).NotTo(BeNil())
			return obj.Status.ObservedRequests.ExternalArtifact
		},
	}
	for _, c := range []struct {
		kind, token string
	}{
		{"ArtifactRepository", "one"}, {"ImagePolicy", "two"}, {"ExternalArtifact", "three"},
		{"ExternalArtifact", "four"}, {"ImagePolicy", "five"}, {"ArtifactRepository", "six"},
	} {
		s.registry.Forget()
		switch c.kind {
		case "ArtifactRepository":
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { request(obj, c.token) })
		case "ImagePolicy":
			edit(s, "app", func(obj *imagev1.ImagePolicy) { request(obj, c.token) })
		case "ExternalArtifact":
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { request(obj, c.token) })
		}
		s.eventually(func(g Gomega) {
			g.Expect(handled[c.kind](g, get[v1alpha1.ArtifactRepository](g, s, "app"))).To(Equal(c.token))
		})
		g.Expect(s.registry.Requests()).To(Equal(head), "%s %s", c.kind, c.token)
	}
	obj := s.record("app")
	g.Expect(obj.Status.ObservedRequests).To(Equal(&v1alpha1.ObservedRequests{ImagePolicy: "five", ExternalArtifact: "four"}))

	// Another reason to look again is no request: the answer is still young.
	s.registry.Forget()
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Timeout = &metav1.Duration{Duration: time.Minute} })
	s.waitPublished("app", "1.0.0@")
	g.Expect(s.registry.Requests()).To(BeEmpty())
}

func TestAMovedTagIsFoundByARequestOrTheInterval(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.interval = time.Hour
	s.start()
	first := s.publishes("app", "latest")
	s.push("app:latest", publish.Files{"app.yaml": "version: 2\n"})

	s.reconciled("app")
	second := s.waitPublished("app", "latest@")
	g.Expect(second.Status.Artifact.Revision).NotTo(Equal(first.Status.Artifact.Revision))

	edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Spec.Interval.Duration = time.Second })
	third, _ := s.push("app:latest", publish.Files{"app.yaml": "version: 3\n"})
	s.waitPublished("app", "latest@"+third.String())
}

// The registry names each request in its errors, as many do. So the conditions and their
// copies on the ExternalArtifact differ after each attempt; this must not start the next
// one.
func TestOtherWordsAreNoNews(t *testing.T) {
	const (
		within = 3 * time.Second
		// The backoff of the tests reaches 400 ms; half of this number is slack.
		most = 20
	)
	s, g := newScene(t), NewWithT(t)
	s.start()
	s.source("app", "1.0.0")
	s.waitPublished("app", "1.0.0")
	var attempts atomic.Uint64
	answering("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, fmt.Sprintf("request %d failed", attempts.Add(1)), http.StatusBadRequest)
	})(s)
	s.waitFailed("app", v1alpha1.ReasonFetchFailed)
	before := attempts.Load()
	g.Consistently(func() uint64 { return attempts.Load() - before }, within, within/10).Should(BeNumerically("<", most))
}
