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
	"path"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// cleans redirects from an unclean path to the clean one, as many registries do; it may be
// in another repository.
func cleans(w http.ResponseWriter, r *http.Request) bool {
	clean := path.Clean(r.URL.Path)
	if clean == strings.TrimSuffix(r.URL.Path, "/") {
		return false
	}
	http.Redirect(w, r, clean, http.StatusMovedPermanently)
	return true
}

// follows has an annotated policy pick a tag of an image with an unusual spelling, as
// image-reflector-controller reports it.
func (s *scene) follows(name, image string) {
	s.Helper()
	s.imageRepository(name, func(obj *imagev1.ImageRepository) { obj.Spec.Image = image })
	s.imagePolicy(name, annotated)
	s.picks(name, imagev1.ImageRef{Name: image, Tag: "1.0.0"})
}

func TestANameThatMeansAnotherRepositoryIsNoWayAroundAPolicy(t *testing.T) {
	s := newScene(t)
	g := NewWithT(t)
	s.registry.Answer(cleans)
	s.start()
	app, production := newSigner(t), newSigner(t)
	s.platformKeys("app", app)
	s.platformKeys("production", production)
	s.govern("all", signedBy("app"))
	s.govern("production", signedBy("production"), listing(s.image("prod/**")))
	// Signed with the key of all teams, and not with the one of production.
	for _, image := range []string{"prod/app:1.0.0", "app:1.0.0"} {
		s.push(image, publish.Files{"app.yaml": "version: 1.0.0\n"})
		s.sign(image, app)
	}
	_, err := s.registry.Shelf().Flux(t.Context(), "evil/app:1.0.0", publish.Files{"app.yaml": "version: 1.0.0\n"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.registry.Shelf().Sign(t.Context(), "evil/app:1.0.0", app)).To(Succeed())

	s.follows("climbs-down", s.image("x/../prod/app"))
	s.follows("climbs-out", s.image("../evil/app"))
	s.follows("stays", s.image("./prod/app"))
	s.follows("empty-part", s.image("/prod/app"))
	for _, name := range []string{"climbs-down", "climbs-out", "stays", "empty-part"} {
		obj := s.waitFailed(name, v1alpha1.ReasonDependencyNotReady, "is no repository name")
		g.Expect(obj.Status.Artifact).To(BeNil(), name)
	}
	g.Expect(s.stored()).To(BeEmpty())

	// The same images by their names.
	s.follows("production", s.image("prod/app"))
	s.waitFailed("production", v1alpha1.ReasonVerificationError, s.policyName("production"))
	s.follows("app", s.image("app"))
	s.waitPublished("app", "1.0.0@")
}

func TestTheServerRefusesNamesThatMeanAnotherRepository(t *testing.T) {
	s := newScene(t)
	for _, image := range []string{
		s.image("x/../app"), s.image("./app"), s.image("/app"), s.image("app/"), s.image("%2e%2e/app"), s.image("-app"), s.image("a..b"),
		"ghcr.io./org/app", "ghcr.io:0443/org/app", "ghcr.i\u043e/org/app", "user@ghcr.io/org/app",
	} {
		err := s.client.Create(t.Context(), &v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "app"},
			Spec:       v1alpha1.ArtifactRepositorySpec{Image: image, Tag: "1.0.0"},
		})
		NewWithT(t).Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%s: %v", image, err)
	}
}

// The controller refuses ambiguous hosts that the server accepts.
func TestAnotherNotationOfAnAddressIsNoHost(t *testing.T) {
	s := startScene(t)
	port := s.registry.Host()[strings.LastIndex(s.registry.Host(), ":"):]
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1.0.0\n"})
	for name, host := range map[string]string{"short": "127.1", "number": "2130706433", "hexadecimal": "0x7f.1", "octal": "0177.0.0.1"} {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
			Spec:       v1alpha1.ArtifactRepositorySpec{Image: host + port + "/team/app", Tag: "1.0.0", Insecure: true},
		})
		obj := s.waitFailed(name, v1alpha1.ReasonInvalidSpec, "expected an IPv4 address of four decimal numbers")
		NewWithT(t).Expect(obj.Status.Artifact).To(BeNil())
	}
}

// A record of an earlier version with such a name is no reason to keep its content
// published.
func TestARecordUnderANameThatMeansAnotherRepositoryDoesNotStay(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	s.stop()
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Status.Record.Image = s.image("x/../evil/app") })
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = true })
	s.govern("all")
	s.start()
	const why = "is not the canonical name of a repository"
	s.withdrawn("app", why)
	ready := conditions.Get(s.reconciled("app"), meta.ReadyCondition)
	NewWithT(t).Expect(ready.Reason).To(Equal(v1alpha1.ReasonVerificationError))
	NewWithT(t).Expect(ready.Message).To(And(HavePrefix("suspended (spec.suspend of the ImagePolicy is true): no artifact is published: "), ContainSubstring(why)))
}
