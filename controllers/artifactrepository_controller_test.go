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
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/publish"
)

func TestAFirstPublication(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	manifest, layer := s.source("app", "1.0.0")
	external := s.waitPublished("app", "1.0.0@")
	obj := s.record("app")

	artifact := external.Status.Artifact
	g.Expect(artifact.Revision).To(Equal("1.0.0@" + manifest.String()))
	g.Expect(artifact.Digest).To(Equal(layer.String()))
	g.Expect(artifact.Path).To(Equal("externalartifact/" + s.namespace + "/app/" + layer.Hex + ".tar.gz"))
	g.Expect(artifact.URL).To(Equal(s.artifacts.URL + "/" + artifact.Path))
	g.Expect(artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataImage, s.image("app")))
	s.expectServed(artifact)

	g.Expect(external.Spec.SourceRef).To(Equal(&meta.NamespacedObjectKindReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.ArtifactRepositoryKind, Namespace: s.namespace, Name: "app",
	}))
	g.Expect(external.OwnerReferences).To(Equal(controlledBy("app", obj.UID)))
	g.Expect(external).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	g.Expect(conditions.Get(external, meta.ReadyCondition).ObservedGeneration).To(Equal(external.Generation))
	g.Expect(external).To(haveNoCondition(v1alpha1.SourceVerifiedCondition))

	g.Expect(obj).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	g.Expect(obj).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	g.Expect(obj).To(haveNoCondition(meta.ReconcilingCondition))
	g.Expect(obj).To(haveNoCondition(meta.StalledCondition))
	g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(Equal("published 1.0.0@sha256:" + manifest.Hex[:12] + " as Flux"))
	g.Expect(obj.Status.LatestRef).To(Equal(&imagev1.ImageRef{Name: s.image("app"), Tag: "1.0.0", Digest: manifest.String()}))
	g.Expect(obj.Status.Format).To(Equal(v1alpha1.FormatFlux))
	g.Expect(obj.Status.Record).To(Equal(&v1alpha1.Recipe{Image: s.image("app"), Digest: manifest.String(), ArchiveVersion: format.ArchiveVersion, Size: *artifact.Size}))
	g.Expect(obj.Status.ObservedContent).To(Equal(format.ContentHash(format.Options{})))
	g.Expect(obj.Status.History).To(HaveLen(1))
	g.Expect(obj.Status.History[0]).To(Equal(v1alpha1.Publication{
		Revision: artifact.Revision, Tag: "1.0.0", Digest: manifest.String(), Format: v1alpha1.FormatFlux, PublishedAt: artifact.LastUpdateTime,
	}))

	g.Expect(s.registry.Requests()).To(Equal([]string{
		"GET /v2/", "GET /v2/team/app/manifests/1.0.0", "GET /v2/team/app/blobs/" + layer.String(),
	}))
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ArtifactRepository", "app")).To(haveEvent(v1alpha1.ReasonNewArtifact, "published 1.0.0@sha256:"+manifest.Hex[:12]+" as Flux"))
		g.Expect(s.events("ExternalArtifact", "app")).To(ContainElement(HaveField("Annotations",
			HaveKeyWithValue(sourcev1.GroupVersion.Group+"/revision", artifact.Revision))))
	})
}

func TestTheRecordIsWrittenBeforeTheExternalArtifact(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	record, err := s.client.Watch(t.Context(), &v1alpha1.ArtifactRepositoryList{}, client.InNamespace(s.namespace))
	g.Expect(err).NotTo(HaveOccurred())
	defer record.Stop()
	copied, err := s.client.Watch(t.Context(), &sourcev1.ExternalArtifactList{}, client.InNamespace(s.namespace))
	g.Expect(err).NotTo(HaveOccurred())
	defer copied.Stop()
	s.start()

	for _, tag := range []string{"1.0.0", "1.0.1"} {
		if tag == "1.0.0" {
			s.source("app", tag)
		} else {
			s.push("app:"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
			s.picks("app", imagev1.ImageRef{Tag: tag})
		}
		recorded, stored := s.first(record, tag)
		published, _ := s.first(copied, tag)
		g.Expect(recorded).To(BeNumerically("<", published), "the record of %s is written first", tag)
		g.Expect(stored).To(BeTrue(), "the bytes of %s are stored before its record", tag)
	}
}

// first returns the version at which a watch first shows an artifact of a tag, and whether
// its file is stored.
func (s *scene) first(changes watch.Interface, tag string) (version int, stored bool) {
	s.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case <-timeout:
			s.Fatalf("%s was not seen", tag)
		case change := <-changes.ResultChan():
			obj, ok := change.Object.(interface {
				client.Object
				GetArtifact() *meta.Artifact
			})
			if !ok || obj.GetArtifact() == nil || !strings.HasPrefix(obj.GetArtifact().Revision, tag+"@") {
				continue
			}
			version, err := strconv.Atoi(obj.GetResourceVersion())
			if err != nil {
				s.Fatal(err)
			}
			return version, fileExists(s.file(obj.GetArtifact()))
		}
	}
}

func TestTheHistoryRemembersTenPublications(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	for i := 1; i <= 11; i++ {
		tag := fmt.Sprintf("1.0.%d", i)
		s.push("app:"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
		s.picks("app", imagev1.ImageRef{Tag: tag})
		s.waitPublished("app", tag+"@")
	}
	g.Expect(s.history("app")).To(Equal([]string{"1.0.11", "1.0.10", "1.0.9", "1.0.8", "1.0.7", "1.0.6", "1.0.5", "1.0.4", "1.0.3", "1.0.2"}))
}

// TestNoWriteWithoutAChange counts reconciles by their requests to the registry.
func TestNoWriteWithoutAChange(t *testing.T) {
	notFound := func(s *scene) {
		s.source("app", "1.0.0")
		s.picks("app", imagev1.ImageRef{Tag: "9.9.9"})
		s.waitFailed("app", v1alpha1.ReasonImageNotFound)
	}
	for name, c := range map[string]struct {
		bring   func(*scene)
		request string
	}{
		"while it is published":        {bring: func(s *scene) { s.publishes("app", "1.0.0") }, request: http.MethodHead},
		"before the first publication": {bring: notFound, request: http.MethodGet},
		"while a new version fails": {
			bring: func(s *scene) {
				s.publishes("app", "1.0.0")
				s.picks("app", imagev1.ImageRef{Tag: "9.9.9"})
				s.waitFailed("app", v1alpha1.ReasonImageNotFound)
			},
			request: http.MethodGet,
		},
		"while it is stalled": {
			bring: func(s *scene) {
				s.publishes("app", "1.0.0")
				s.pushNonsense("app:1.0.1")
				s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
				s.waitFailed("app", v1alpha1.ReasonInvalidArtifact)
			},
			request: http.MethodHead,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			s.interval = time.Second
			c.bring(s)
			versions := func() []string {
				var all []string
				all = append(all, s.record("app").ResourceVersion)
				var list sourcev1.ExternalArtifactList
				g.Expect(s.client.List(t.Context(), &list, client.InNamespace(s.namespace))).To(Succeed())
				for i := range list.Items {
					all = append(all, list.Items[i].ResourceVersion)
				}
				return all
			}
			// Work from before the condition may still write.
			s.rounds(2, c.request)
			before := versions()
			s.rounds(4, c.request)
			g.Expect(versions()).To(Equal(before))
		})
	}
}

// rounds waits until the registry was asked for a manifest so many times more.
func (s *scene) rounds(n int, method string) {
	s.Helper()
	before := s.registry.Count(method, "/manifests/")
	s.eventually(func(g Gomega) {
		g.Expect(s.registry.Count(method, "/manifests/")).To(BeNumerically(">=", before+n))
	})
}

func TestWithdrawnAccessRemovesTheArtifact(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.artifactRepository("app")
	before := s.publishes("app", "1.0.0")

	s.labels(nil)

	obj := s.waitFailed("app", v1alpha1.ReasonAccessDenied, v1alpha1.UseAsSource+"=enabled")
	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(obj.Status.Record).To(BeNil())
	g.Expect(obj.Status.History).To(HaveLen(1), "the history has the former publication")
	g.Expect(obj).To(haveNoCondition(v1alpha1.ArtifactInStorageCondition))
	g.Expect(obj).To(haveNoCondition(meta.ReconcilingCondition))
	g.Expect(obj).To(haveNoCondition(meta.StalledCondition))
	gone[sourcev1.ExternalArtifact](s, "app")(g)
	g.Expect(s.stored()).To(BeEmpty())
	code, _ := s.fetch(before.Status.Artifact.URL)
	g.Expect(code).To(Equal(http.StatusNotFound))

	s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"})
	after := s.waitPublished("app", "1.0.0@")
	g.Expect(after.Status.Artifact.URL).To(Equal(before.Status.Artifact.URL))
	s.expectServed(after.Status.Artifact)
}

func TestATypoInTheLabelKeepsTheArtifact(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.artifactRepository("app")
	before := s.publishes("app", "1.0.0")

	s.labels(map[string]string{v1alpha1.UseAsSource: "enable"})

	s.waitFailed("app", v1alpha1.ReasonAccessDenied, `"enable"`, "still published: 1.0.0@")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	s.expectServed(before.Status.Artifact)
	s.push("app:1.0.1", publish.Files{"app.yaml": "version: 2\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	s.reconciled("app")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact), "nothing new is published")

	s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"})
	s.waitPublished("app", "1.0.1@")
}

// A tenant may be able to edit the status of a policy.
func TestTheStatusOfAPolicyIsChecked(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0")
	s.push("stolen:1.0.0", publish.Files{"app.yaml": "version: stolen\n"})
	s.registry.Forget()
	for _, c := range []struct {
		ref   imagev1.ImageRef
		words string
	}{
		{imagev1.ImageRef{Name: s.image("stolen"), Tag: "1.0.0"}, "flux reconcile image policy app"},
		{imagev1.ImageRef{Name: "evil.example/team/app", Tag: "1.0.0"}, "evil.example/team/app"},
		{imagev1.ImageRef{Tag: "../../../v2/_catalog"}, "no valid tag"},
		{imagev1.ImageRef{Tag: "1.0.0", Digest: "sha256:../../etc/passwd"}, "64 hexadecimal digits"},
		{imagev1.ImageRef{Tag: "1.0.0", Digest: "md5:d41d8cd98f00b204e9800998ecf8427e"}, "64 hexadecimal digits"},
		{imagev1.ImageRef{Tag: "sha256-" + strings.Repeat("a", 64)}, "exclusionList"},
		{imagev1.ImageRef{Tag: "sha256-" + strings.Repeat("a", 64) + ".sig"}, "exclusionList"},
	} {
		s.picks("app", c.ref)
		s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, c.words, "still published: 1.0.0@")
		g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	}
	g.Expect(s.registry.Requests()).To(BeEmpty(), "the registry gets no request")
	s.expectServed(before.Status.Artifact)

	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
}

func TestAPolicyCountsWhenItIsReadyAtItsGeneration(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0")
	s.push("app:2.0.0", publish.Files{"app.yaml": "version: 2\n"})

	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Policy.SemVer.Range = "2.x" })
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "has not been evaluated since it was changed", "still published")

	editStatus(s, "app", func(obj *imagev1.ImagePolicy) {
		obj.Status.ObservedGeneration = obj.Generation
		obj.Status.LatestRef = &imagev1.ImageRef{Name: s.image("app"), Tag: "2.0.0"}
		conditions.MarkFalse(obj, meta.ReadyCondition, "Failure", "no tag fits")
	})
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "no tag fits", "still published")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))

	s.picks("app", imagev1.ImageRef{Tag: "2.0.0"})
	s.waitPublished("app", "2.0.0@")
}

func TestAReflectedDigestIsTheResolution(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	first, layer := s.push("app:latest", publish.Files{"app.yaml": "version: 1\n"})
	s.push("app:latest", publish.Files{"app.yaml": "version: 2\n"})
	s.imageRepository("app")
	s.imagePolicy("app", annotated)

	s.picks("app", imagev1.ImageRef{Tag: "latest", Digest: first.String()})

	external := s.waitPublished("app", "latest@")
	g.Expect(external.Status.Artifact.Revision).To(Equal("latest@" + first.String()))
	g.Expect(s.registry.Requests()).To(Equal([]string{
		"GET /v2/", "GET /v2/team/app/manifests/" + first.String(), "GET /v2/team/app/blobs/" + layer.String(),
	}))
	s.registry.Forget()
	s.reconciled("app")
	g.Expect(s.registry.Requests()).To(BeEmpty())
}

func TestThePin(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	pinned, _ := s.push("app:0.9.0", publish.Files{"app.yaml": "version: 0.9\n"})
	s.artifactRepository("app")
	s.publishes("app", "1.0.0")

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = pinned.String() })
	s.waitPublished("app", pinned.String())
	g.Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).To(And(
		ContainSubstring("pinned by spec.digest"), ContainSubstring("would pick 1.0.0")))

	s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, "app")
		g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(ContainSubstring("would pick 1.0.1"))
		g.Expect(obj.Status.Artifact.Revision).To(Equal(pinned.String()))
	})

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = "" })
	s.waitPublished("app", "1.0.1@")
}

func TestSuspendFreezesTheArtifact(t *testing.T) {
	for name, suspend := range map[string]func(*scene, bool){
		"on the ArtifactRepository": func(s *scene, v bool) {
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = v })
		},
		"on the ImagePolicy": func(s *scene, v bool) { edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = v }) },
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			before := s.publishes("app", "1.0.0")
			s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})

			suspend(s, true)
			s.eventually(func(g Gomega) {
				g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
			})
			s.registry.Forget()
			s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			s.reconciled("app")
			g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
			g.Expect(s.registry.Requests()).To(BeEmpty())

			suspend(s, false)
			s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			s.waitPublished("app", "1.0.1@")
		})
	}
}

func TestObjectsMayAppearInAnyOrder(t *testing.T) {
	s := startScene(t)
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.artifactRepository("app")
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ImagePolicy app does not exist")
	s.imagePolicy("app")
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ImageRepository "+s.namespace+"/app", "does not exist")
	s.imageRepository("app")
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "has not been evaluated")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
}

func TestAChangeOfIgnoreRollsOutAtOnce(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	manifest, _ := s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "README.md": "# app\n"})
	s.artifactRepository("app")
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	plain := s.waitPublished("app", "1.0.0@").Status.Artifact

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("*.md\n") })

	filtered := s.waitPublished("app", "1.0.0+").Status.Artifact
	obj := s.record("app")
	g.Expect(filtered.Revision).To(Equal("1.0.0+" + obj.Status.ObservedContent[:8] + "@" + manifest.String()))
	g.Expect(filtered.Digest).NotTo(Equal(plain.Digest))
	g.Expect(obj.Status.Record.Ignore).To(Equal(new("*.md\n")))
	s.expectServed(filtered)

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = nil })
	g.Expect(s.waitPublished("app", "1.0.0@").Status.Artifact.Digest).To(Equal(plain.Digest))
}

func TestAnIgnorePatternThatCannotBeReadIsNamed(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "README.md": "# app\n"})
	s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("# docs\n*.md\ncharts/[a-\n") })
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})

	external := s.waitPublished("app", "1.0.0+")
	for _, obj := range []conditions.Getter{s.record("app"), external} {
		g.Expect(obj).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
		g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(ContainSubstring(`line 3 of spec.ignore is "charts/[a-", which is no pattern`))
	}

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("*.md\n") })
	s.eventually(func(g Gomega) {
		g.Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).NotTo(ContainSubstring("spec.ignore"))
	})
}

func TestAnIgnorePatternOfTheArtifactThatCannotBeReadIsNamed(t *testing.T) {
	s := startScene(t)
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "deploy/.sourceignore": "*.md\ncharts/[a-\n", "deploy/app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})

	s.waitPublished("app", "1.0.0@")
	for _, kind := range []string{v1alpha1.ArtifactRepositoryKind, sourcev1.ExternalArtifactKind} {
		s.eventually(func(g Gomega) {
			g.Expect(s.events(kind, "app")).To(haveEvent(v1alpha1.ReasonNewArtifact, `line 2 of "deploy/.sourceignore" is "charts/[a-", which is no pattern`))
		})
	}
}

func TestAnAnswerThatComesLateFindsItsObjectGone(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	started, ended := make(chan struct{}), make(chan struct{})
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		_, _ = w.Write([]byte("a first part"))
		_ = http.NewResponseController(w).Flush()
		close(started)
		<-r.Context().Done()
		close(ended)
		return true
	})
	// Without a generator, so that it is not created again.
	s.artifactRepository("app")
	s.push("app:1.0.0", publish.Files{"app.yaml": strings.Repeat("version: 1\n", 100)})
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	g.Eventually(started).WithTimeout(deadline).Should(BeClosed())
	g.Expect(s.stored()).NotTo(BeEmpty(), "the pull is under way")

	remove[v1alpha1.ArtifactRepository](s, "app")

	g.Eventually(ended).WithTimeout(10*time.Second).Should(BeClosed(), "the pull is cancelled long before its timeout")
	s.eventually(func(g Gomega) { g.Expect(s.stored()).To(BeEmpty()) })
	gone[sourcev1.ExternalArtifact](s, "app")(g)
}

func TestARecreatedArtifactRepositoryAdoptsItsObjects(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.artifactRepository("app")
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	before := s.waitPublished("app", "1.0.0@")
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.eventually(func(g Gomega) { g.Expect(s.stored()).To(BeEmpty()) })

	// There is no garbage collector here, so the ExternalArtifact outlives its owner.
	s.artifactRepository("app")

	after := s.waitPublished("app", "1.0.0@")
	g.Expect(after.UID).To(Equal(before.UID))
	g.Expect(after.OwnerReferences).To(Equal(controlledBy("app", s.record("app").UID)))
	s.expectServed(after.Status.Artifact)
}

// Consumers can see why the artifact goes: a new owner has the name.
func TestTheArtifactOfAFormerOwnerIsWithdrawnAndAdopted(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.artifactRepository("app")
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	before := s.waitPublished("app", "1.0.0@")
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.eventually(func(g Gomega) { g.Expect(s.stored()).To(BeEmpty()) })
	changes, err := s.client.Watch(t.Context(), &sourcev1.ExternalArtifactList{}, client.InNamespace(s.namespace))
	g.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	})

	s.artifactRepository("app")

	timeout := time.After(deadline)
	for {
		select {
		case change := <-changes.ResultChan():
			external, ok := change.Object.(*sourcev1.ExternalArtifact)
			g.Expect(ok).To(BeTrue(), "%v", change)
			if external.Status.Artifact != nil {
				continue
			}
			g.Expect(external.UID).To(Equal(before.UID))
			s.eventually(func(g Gomega) {
				g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").OwnerReferences).To(Equal(controlledBy("app", s.record("app").UID)))
			})
			return
		case <-timeout:
			t.Fatal("the artifact of the former owner is still there")
		}
	}
}

func TestAnObjectThatIsMadeAgainDuringAPullIsPublished(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	first := make(chan struct{}, 100)
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		if first <- struct{}{}; len(first) == 1 {
			<-r.Context().Done()
		}
		return false
	})
	s.artifactRepository("app")
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	g.Eventually(first).WithTimeout(deadline).Should(HaveLen(1))

	remove[v1alpha1.ArtifactRepository](s, "app")
	s.artifactRepository("app")

	external := s.waitPublished("app", "1.0.0@")
	g.Expect(external.OwnerReferences).To(Equal(controlledBy("app", s.record("app").UID)))
	s.expectServed(external.Status.Artifact)
}

func TestAPublicationThatWasInterruptedIsToldWhenItIsFinished(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	s.stop()
	// The record was written, and the process ended before its copy was.
	const recorded = "9.9.9@"
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		conditions.MarkReconciling(obj, v1alpha1.ReasonProgressing, "publishing %s", recorded)
	})
	editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = nil })
	told := len(s.events(sourcev1.ExternalArtifactKind, "app"))
	s.start()
	s.waitPublished("app", "1.0.0@")
	s.eventually(func(g Gomega) {
		times := 0
		for _, e := range s.events(sourcev1.ExternalArtifactKind, "app") {
			times += int(e.Count)
		}
		g.Expect(times).To(BeNumerically(">", told))
	})
}

func TestARecordThatLostItsRecipeGetsItBack(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	recipe := s.record("app").Status.Record
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Status.Record = nil })
	g.Expect(s.reconciled("app").Status.Record).To(Equal(recipe))
}
