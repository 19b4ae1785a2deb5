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
	"net/http"
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

// ofImage creates an ArtifactRepository with an image of the scene's registry.
func (s *scene) ofImage(name string, spec v1alpha1.ArtifactRepositorySpec) {
	s.Helper()
	if spec.Image == "" {
		spec.Image = s.image(name)
	}
	if spec.Interval == nil {
		spec.Interval = &metav1.Duration{Duration: time.Hour}
	}
	s.artifactRepository(name, func(obj *v1alpha1.ArtifactRepository) { obj.Spec = spec })
}

// second is the shortest interval.
var second = &metav1.Duration{Duration: time.Second}

// version is a bundle with a version in its content.
func version(v string) publish.Files { return publish.Files{"app.yaml": "version: " + v + "\n"} }

func TestATagIsFollowedWhereverItMoves(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before, _ := s.push("app:stable", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "stable", Interval: second})
	first := s.waitPublished("app", "stable@"+before.String())
	s.expectServed(first.Status.Artifact)
	gone[imagev1.ImageRepository](s, "app")(g)
	gone[imagev1.ImagePolicy](s, "app")(g)

	after, _ := s.push("app:stable", version("2"))
	second := s.waitPublished("app", "stable@"+after.String())
	s.expectServed(second.Status.Artifact)
	record := s.record("app")
	g.Expect(record.Status.LatestRef).To(Equal(&imagev1.ImageRef{Name: s.image("app"), Tag: "stable", Digest: after.String()}))
	g.Expect(record.Status.History).To(HaveLen(2))
	g.Expect(record.Status.History[0].Digest).To(Equal(after.String()))
	g.Expect(record.Status.History[1].Digest).To(Equal(before.String()))
}

func TestATagCostsOneHeadEachInterval(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("app:stable", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "stable", Interval: second})
	s.waitPublished("app", "stable@")

	s.registry.Forget()
	start := time.Now()
	s.eventually(func(g Gomega) {
		g.Expect(s.registry.Count(http.MethodHead, "/manifests/stable")).To(BeNumerically(">=", 4))
	})
	most := int(time.Since(start)/(900*time.Millisecond)) + 1
	g.Expect(len(s.registry.Requests())).To(BeNumerically("<=", most), "only a HEAD each interval: %v", s.registry.Requests())
	g.Expect(s.registry.Count(http.MethodGet, "")).To(BeZero())
}

// A registry without HEAD gets a GET.
func TestATagIsFollowedWithoutHead(t *testing.T) {
	s := newScene(t)
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return true
		}
		return false
	})
	s.start()
	s.push("app:stable", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "stable", Interval: second})
	s.waitPublished("app", "stable@")
	after, _ := s.push("app:stable", version("2"))
	s.waitPublished("app", "stable@"+after.String())
}

func TestADigestIsFetchedOnce(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	digest, _ := s.push("app:1.0.0", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Digest: digest.String(), Interval: second})
	external := s.waitPublished("app", digest.String())
	s.expectServed(external.Status.Artifact)
	g.Expect(s.registry.Count(http.MethodGet, "/manifests/"+digest.String())).To(Equal(1))
	g.Expect(s.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
	g.Expect(s.registry.Count(http.MethodHead, "")).To(BeZero())
	g.Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).NotTo(ContainSubstring("pinned"), "there is no policy to pin against")

	s.registry.Forget()
	s.push("app:1.0.0", version("2"))
	for range 3 {
		s.reconciled("app")
	}
	g.Expect(s.registry.Requests()).To(BeEmpty())
	g.Expect(s.external("app").Status.Artifact).To(Equal(external.Status.Artifact))
	gone[imagev1.ImagePolicy](s, "app")(g)
}

// The tag beside a digest is a name for people: the registry may lack it, or have
// moved it.
func TestATagBesideADigestIsNeverAskedFor(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	digest, _ := s.push("app:1.0.0", version("1"))
	s.push("app:moved", version("2"))
	for _, tag := range []string{"released", "moved"} {
		s.ofImage(tag, v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Tag: tag, Digest: digest.String(), Interval: second})
		s.expectServed(s.waitPublished(tag, tag+"@"+digest.String()).Status.Artifact)
		s.reconciled(tag)
		g.Expect(s.record(tag).Status.LatestRef).To(Equal(&imagev1.ImageRef{Name: s.image("app"), Tag: tag, Digest: digest.String()}))
		g.Expect(conditions.GetMessage(s.record(tag), meta.ReadyCondition)).NotTo(ContainSubstring("pinned"))
		s.registry.Forget()
		s.reconciled(tag)
		g.Expect(s.registry.Requests()).To(BeEmpty())
	}

	// Another name for the same bytes needs no request, nor does the lack of a name.
	edit(s, "moved", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "1.0.0" })
	s.waitPublished("moved", "1.0.0@"+digest.String())
	edit(s, "moved", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "" })
	s.waitPublished("moved", digest.String())
	g.Expect(s.registry.Requests()).To(BeEmpty())
}

func TestATagBesideADigestDoesNotPromiseAnotherVersionOfAChart(t *testing.T) {
	s := startScene(t)
	pushed, err := publish.Registry{Host: s.registry.Host()}.Helm("team", publish.Chart{Name: "orders", Version: "1.4.2"})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	digest := pushed.Manifest.Digest
	for tag, revision := range map[string]string{"1.4": digest, "1.4.2": "1.4.2@" + digest, "stable": "stable@" + digest} {
		s.ofImage("orders-"+tag, v1alpha1.ArtifactRepositorySpec{Image: s.image("orders"), Tag: tag, Digest: digest})
		s.waitPublished("orders-"+tag, revision)
	}
}

func TestImagesMissingFromTheRegistry(t *testing.T) {
	for sentence, spec := range map[string]v1alpha1.ArtifactRepositorySpec{
		"a tag":    {Tag: "none"},
		"a digest": {Digest: digestA},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := startScene(t)
			s.push("app:1.0.0", version("1"))
			s.ofImage("app", spec)
			obj := s.waitFailed("app", v1alpha1.ReasonImageNotFound, s.image("app"))
			g := NewWithT(t)
			g.Expect(conditions.IsReconciling(obj)).To(BeTrue(), "it may be pushed yet")
			g.Expect(s.external("app").Status.Artifact).To(BeNil())
		})
	}
}

// A form may become any other in one edit; the published artifact stays until the new form
// has published one.
func TestOneFormBecomesAnother(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	pinned, _ := s.push("app:1.0.0", version("1"))
	s.push("app:2.0.0", version("2"))
	s.imageRepository("other", func(obj *imagev1.ImageRepository) { obj.Spec.Image = s.image("app") })
	s.imagePolicy("other")
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")

	become := func(change func(spec *v1alpha1.ArtifactRepositorySpec)) {
		edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
			spec := v1alpha1.ArtifactRepositorySpec{Interval: obj.Spec.Interval}
			change(&spec)
			obj.Spec = spec
		})
	}
	stays := func(revision, reason string, words ...string) {
		t.Helper()
		obj := s.waitFailed("app", reason, append(words, "still published: "+revision[:min(len(revision), len("sha256:")+12)])...)
		g.Expect(obj.Status.Artifact.Revision).To(HavePrefix(revision))
		g.Expect(s.external("app").Status.Artifact).To(Equal(obj.Status.Artifact))
	}

	become(func(spec *v1alpha1.ArtifactRepositorySpec) {
		spec.ImagePolicyRef = &meta.LocalObjectReference{Name: "other"}
	})
	stays("1.0.0@", v1alpha1.ReasonDependencyNotReady, "ImagePolicy other")
	s.picks("other", imagev1.ImageRef{Name: s.image("app"), Tag: "2.0.0"})
	s.waitPublished("app", "2.0.0@")

	become(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Image, spec.Policy = s.image("app"), semver("1.x") })
	stays("2.0.0@", v1alpha1.ReasonDependencyNotReady, "ImagePolicy app has not been evaluated")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")

	become(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Image, spec.Digest = s.image("app"), digestA })
	stays("1.0.0@", v1alpha1.ReasonImageNotFound)
	s.eventually(gone[imagev1.ImagePolicy](s, "app"))
	s.eventually(gone[imagev1.ImageRepository](s, "app"))

	become(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Image, spec.Digest = s.image("app"), pinned.String() })
	s.waitPublished("app", pinned.String())

	become(func(spec *v1alpha1.ArtifactRepositorySpec) {
		spec.Image, spec.Tag = "127.1:5000/app", "1.0.0"
	})
	stays(pinned.String(), v1alpha1.ReasonInvalidSpec, "spec.image")
	g.Expect(conditions.IsStalled(s.record("app"))).To(BeTrue())

	become(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Image, spec.Tag = s.image("app"), "2.0.0" })
	external := s.waitPublished("app", "2.0.0@")
	s.expectServed(external.Status.Artifact)
	g.Expect(conditions.IsStalled(s.record("app"))).To(BeFalse())
}

func TestATypoInTheLabelPublishesNoNewImage(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("old:1", version("1"))
	s.push("new:1", version("1"))
	s.ofImage("old", v1alpha1.ArtifactRepositorySpec{Tag: "1", Interval: second})
	before := s.waitPublished("old", "1@")
	s.labels(map[string]string{v1alpha1.UseAsSource: "Enabled"})
	s.waitFailed("old", v1alpha1.ReasonAccessDenied, `"Enabled"`)

	s.ofImage("new", v1alpha1.ArtifactRepositorySpec{Tag: "1"})
	s.waitFailed("new", v1alpha1.ReasonAccessDenied, `"Enabled"`)
	gone[sourcev1.ExternalArtifact](s, "new")(g)
	s.push("old:1", version("2"))
	s.reconciled("old")
	g.Expect(s.external("old").Status.Artifact).To(Equal(before.Status.Artifact))

	s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.waitPublished("new", "1@")
}

// A request needs an answer of the registry itself, not the cached answer for other sources
// of the tag.
func TestARequestAsksForTheTag(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("app:stable", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "stable"})
	s.waitPublished("app", "stable@")
	after, _ := s.push("app:stable", version("2"))
	s.registry.Forget()
	s.reconciled("app")
	s.waitPublished("app", "stable@"+after.String())
	g.Expect(s.registry.Count(http.MethodHead, "/manifests/stable")).To(Equal(1))

	after, _ = s.push("app:stable", version("3"))
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { request(obj, "now") })
	s.waitPublished("app", "stable@"+after.String())
}

func TestASuspendedTagStays(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("app:stable", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "stable", Interval: second})
	before := s.waitPublished("app", "stable@")
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
	})
	s.registry.Forget()
	after, _ := s.push("app:stable", version("2"))
	s.reconciled("app")
	g.Expect(s.registry.Requests()).To(BeEmpty())
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = false })
	s.waitPublished("app", "stable@"+after.String())
}
