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
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/test/publish"
)

// failure is a failure of a source that has published 1.0.0.
type failure struct {
	fail   func(*scene)
	reason string
	class  fault.Class
	words  []string
	// heal fixes it; then 1.0.0 or the new pick is published.
	heal func(*scene)
	// silent: the ExternalArtifact does not change. It is not ours, so the message does not
	// say: still published.
	silent bool
}

// answering fails a new version by the answers of the registry to requests with a part in
// their path.
func answering(part string, handler http.HandlerFunc) func(*scene) {
	return func(s *scene) {
		s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, part) {
				return false
			}
			handler(w, r)
			return true
		})
		s.pushNew("1.0.1")
	}
}

func code(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// pushNew pushes another version and picks it.
func (s *scene) pushNew(tag string) {
	s.Helper()
	s.push("app:"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
	s.picks("app", imagev1.ImageRef{Tag: tag})
}

// answers lets the registry answer by itself again.
func (s *scene) answers() { s.registry.Answer(nil) }

// failures has an entry for every possible reason.
func failures() map[string]failure {
	return map[string]failure{
		"a namespace with a typo in its label": {
			fail:   func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: "on"}) },
			reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{`"on"`},
			heal: func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"}) },
		},
		"a policy that is not ready": {
			fail: func(s *scene) {
				editStatus(s, "app", func(obj *imagev1.ImagePolicy) {
					conditions.MarkFalse(obj, meta.ReadyCondition, "Failure", "nothing fits")
				})
			},
			reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"nothing fits"},
			heal: func(s *scene) { s.picks("app", imagev1.ImageRef{Tag: "1.0.0"}) },
		},
		"a registry that asks for a login": {
			fail:   answering("/v2/", publishDemand()),
			reason: v1alpha1.ReasonAuthenticationFailed, class: fault.Retry,
			heal: (*scene).answers,
		},
		"a Secret that does not exist": {
			fail: func(s *scene) {
				edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} })
			},
			reason: v1alpha1.ReasonAuthenticationFailed, class: fault.Retry, words: []string{"login"},
			heal: func(s *scene) {
				edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = nil })
			},
		},
		"a tag that is not there": {
			fail:   func(s *scene) { s.picks("app", imagev1.ImageRef{Tag: "9.9.9"}) },
			reason: v1alpha1.ReasonImageNotFound, class: fault.Retry, words: []string{"9.9.9"},
			heal: func(s *scene) { s.push("app:9.9.9", publish.Files{"app.yaml": "version: 9\n"}) },
		},
		"a registry that answers badly": {
			fail:   answering("/manifests/", code(http.StatusBadGateway)),
			reason: v1alpha1.ReasonFetchFailed, class: fault.Retry, words: []string{"502"},
			heal: (*scene).answers,
		},
		"an artifact of another kind": {
			fail: func(s *scene) {
				s.pushImage("app:1.0.1")
				s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			},
			reason: v1alpha1.ReasonUnsupportedMediaType, class: fault.Stall, words: []string{"container image", "supported: Flux"},
			heal: func(s *scene) { s.pushNew("1.0.1") },
		},
		"an artifact with an invalid archive as its layer": {
			fail: func(s *scene) {
				s.pushNonsense("app:1.0.1")
				s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			},
			reason: v1alpha1.ReasonInvalidArtifact, class: fault.Stall,
			heal: func(s *scene) { s.pushNew("1.0.2") },
		},
		"a blob that contradicts its manifest": {
			fail:   answering("/blobs/", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("altered")) }),
			reason: v1alpha1.ReasonInvalidArtifact, class: fault.Retry,
			heal: (*scene).answers,
		},
		"an artifact over a limit": {
			fail: func(s *scene) {
				s.push("app:1.0.1", publish.Files{"app.yaml": strings.Repeat("version: 1.0.1\n", 1000)})
				s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			},
			reason: v1alpha1.ReasonLimitExceeded, class: fault.Stall, words: []string{"--max-uncompressed-bytes"},
			heal: func(s *scene) { s.pushNew("1.0.2") },
		},
		"a disk that is not there": {
			fail: func(s *scene) {
				NewWithT(s).Expect(os.Rename(s.storage, s.storage+"-away")).To(Succeed())
				s.pushNew("1.0.1")
			},
			reason: v1alpha1.ReasonStorageOperationFailed, class: fault.Retry,
			heal: func(s *scene) { NewWithT(s).Expect(os.Rename(s.storage+"-away", s.storage)).To(Succeed()) },
		},
		"an attempt that takes too long": {
			fail: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Timeout = &metav1.Duration{Duration: 500 * time.Millisecond}
				})
				answering("/blobs/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })(s)
			},
			reason: v1alpha1.ReasonFetchFailed, class: fault.Retry, words: []string{"spec.timeout (500ms)"},
			heal: (*scene).answers,
		},
		"a verification by identities that cannot be read": {
			fail: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{
						Provider: "cosign", MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "(", Subject: "x"}},
					}
				})
			},
			reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"verify"},
			heal: func(s *scene) { edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Verify = nil }) },
		},
		"a name of another owner": {
			fail: func(s *scene) {
				edit(s, "app", func(obj *sourcev1.ExternalArtifact) {
					obj.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Other", Name: "app", UID: "1", Controller: new(true)}}
				})
			},
			reason: v1alpha1.ReasonNameConflict, class: fault.Wait, words: []string{"ExternalArtifact app"},
			heal:   func(s *scene) { remove[sourcev1.ExternalArtifact](s, "app") },
			silent: true,
		},
	}
}

func publishDemand() http.HandlerFunc {
	demand := publish.DemandBasic(nil)
	return func(w http.ResponseWriter, r *http.Request) { demand(w, r) }
}

func TestAFailureHasAReasonAndKeepsTheArtifact(t *testing.T) {
	for name, c := range failures() {
		t.Run(name, func(t *testing.T) {
			s, g := newScene(t), NewWithT(t)
			s.limits.UncompressedBytes = 10_000
			s.interval = 2 * time.Second
			s.start()
			s.artifactRepository("app")
			before := s.publishes("app", "1.0.0")

			c.fail(s)

			stays := "still published: 1.0.0@"
			if c.silent {
				stays = ""
			}
			obj := s.waitFailed("app", c.reason, append(c.words, stays)...)
			g.Expect(strings.Contains(conditions.GetMessage(obj, meta.ReadyCondition), "published")).NotTo(Equal(c.silent))
			g.Expect(obj.Status.Artifact).To(Equal(before.Status.Artifact))
			switch c.class {
			case fault.Retry:
				g.Expect(obj).To(haveCondition(meta.ReconcilingCondition, metav1.ConditionTrue, v1alpha1.ReasonProgressingWithRetry))
				g.Expect(obj).To(haveNoCondition(meta.StalledCondition))
			case fault.Wait:
				g.Expect(obj).To(haveNoCondition(meta.ReconcilingCondition))
				g.Expect(obj).To(haveNoCondition(meta.StalledCondition))
			case fault.Stall:
				g.Expect(obj).To(haveNoCondition(meta.ReconcilingCondition))
				g.Expect(obj).To(haveCondition(meta.StalledCondition, metav1.ConditionTrue, c.reason))
			}
			if c.reason != v1alpha1.ReasonStorageOperationFailed {
				g.Expect(obj).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
				s.expectServed(before.Status.Artifact)
			}
			external := s.external("app")
			g.Expect(external.Status.Artifact).To(Equal(before.Status.Artifact))
			if !c.silent {
				s.eventually(func(g Gomega) {
					g.Expect(get[sourcev1.ExternalArtifact](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionFalse, c.reason))
				})
			}
			s.eventually(func(g Gomega) {
				g.Expect(s.events("ArtifactRepository", "app")).To(haveEvent(c.reason, stays))
			})

			c.heal(s)
			tag := read[imagev1.ImagePolicy](s, "app").Status.LatestRef.Tag
			after := s.waitPublished("app", tag+"@")
			g.Expect(s.record("app")).To(haveNoCondition(meta.StalledCondition))
			s.expectServed(after.Status.Artifact)
		})
	}
}

func TestAFailureBeforeTheFirstPublicationLeavesNoArtifact(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.pushNonsense("app:1.0.0")
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	obj := s.waitFailed("app", v1alpha1.ReasonInvalidArtifact)
	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(obj.Status.LatestRef.Tag).To(Equal("1.0.0"), "the last resolved image is shown")
	g.Expect(obj).To(haveNoCondition(v1alpha1.ArtifactInStorageCondition))
	g.Expect(s.external("app").Status.Artifact).To(BeNil())
	g.Expect(s.stored()).To(BeEmpty())
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonInvalidArtifact, ""))
	})
}

// TestOneLargePageStallsNoSource answers once, in place of a manifest with a known digest,
// with a page larger than any manifest.
func TestOneLargePageStallsNoSource(t *testing.T) {
	s := startScene(t)
	digest, _ := s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		_, _ = w.Write(bytes.Repeat([]byte("<p>"), 2<<20))
		return true
	})
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0", Digest: digest.String()})
	s.waitFailed("app", v1alpha1.ReasonLimitExceeded)

	s.answers()
	s.waitPublished("app", "1.0.0@")
}

func TestARefusedImageIsNotPulledAgain(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.pushNonsense("app:1.0.0")
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitFailed("app", v1alpha1.ReasonInvalidArtifact)
	s.registry.Forget()

	s.reconciled("app")
	s.reconciled("app")

	g.Expect(s.registry.Requests()).To(Equal([]string{"HEAD /v2/team/app/manifests/1.0.0", "HEAD /v2/team/app/manifests/1.0.0"}))
	s.waitFailed("app", v1alpha1.ReasonInvalidArtifact)
}

// TestNoSecretIsTold makes the registry repeat every secret.
func TestNoSecretIsTold(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.create(s.dockerConfig(client.ObjectKey{Namespace: s.namespace, Name: "login"}, "user", "hunter2"))
	s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"errors":[{"code":"UNAUTHORIZED","message":"bad password hunter2 \u001b[31m` + strings.Repeat("x", 100_000) + `"}]}`))
		return true
	})
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app", func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} })
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})

	message := conditions.GetMessage(s.waitFailed("app", v1alpha1.ReasonAuthenticationFailed), meta.ReadyCondition)

	g.Expect(message).NotTo(ContainSubstring("hunter2"))
	g.Expect(message).NotTo(ContainSubstring("\x1b"))
	g.Expect(len(message)).To(BeNumerically("<", 2000))
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonAuthenticationFailed, ""))
	})
	for _, e := range s.events("ImagePolicy", "app") {
		g.Expect(e.Message).NotTo(ContainSubstring("hunter2"))
	}
	g.Expect(s.log.String()).NotTo(ContainSubstring("hunter2"))
}

// A registry that takes all the time of an attempt must not hide whether the published file
// is stored: after a start, all files are read.
func TestAHangingRegistryDoesNotHideTheStateOfTheDisk(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	s.stop()
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	})
	s.start()
	obj := s.waitFailed("app", v1alpha1.ReasonFetchFailed, "spec.timeout (1s)", "still published: 1.0.0@")
	NewWithT(t).Expect(conditions.IsTrue(obj, v1alpha1.ArtifactInStorageCondition)).To(BeTrue())
	s.expectServed(obj.Status.Artifact)
	s.answers()
}

// An attempt that takes all of its time leaves some for lost files.
func TestLostFilesAreRebuiltWhileANewVersionTakesTooLong(t *testing.T) {
	s := startScene(t)
	external := s.publishes("app", "1.0.0")
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	_, layer := s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
	answering(layer.String(), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })(s)
	s.waitFailed("app", v1alpha1.ReasonFetchFailed, "spec.timeout (1s)", "still published: 1.0.0@")

	NewWithT(t).Expect(os.Remove(s.file(external.Status.Artifact))).To(Succeed())

	s.eventually(func(g Gomega) { g.Expect(s.file(external.Status.Artifact)).To(BeARegularFile()) })
}
