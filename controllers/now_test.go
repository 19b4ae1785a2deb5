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
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// A reconcile request on each object between an image and its artifact leads to a request to
// the registry: a moved tag is published. The test covers each way to make a source.
func TestARequestOnAnyObjectLeadsToALookAtTheRegistry(t *testing.T) {
	sources := map[string]struct {
		make func(s *scene)
		on   []client.Object
	}{
		"an annotated policy": {
			make: func(s *scene) {
				s.imageRepository("app")
				s.imagePolicy("app", annotated)
				s.picks("app", imagev1.ImageRef{Tag: "main"})
			},
			on: []client.Object{&imagev1.ImageRepository{}, &imagev1.ImagePolicy{}, &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}},
		},
		"a reference to a policy": {
			make: func(s *scene) {
				s.imageRepository("app")
				s.imagePolicy("app")
				s.picks("app", imagev1.ImageRef{Tag: "main"})
				s.artifactRepository("app")
			},
			on: []client.Object{&imagev1.ImageRepository{}, &imagev1.ImagePolicy{}, &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}},
		},
		"an image and a policy": {
			make: func(s *scene) {
				s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Policy: semver("*")})
				s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "app") })
				s.picks("app", imagev1.ImageRef{Tag: "main"})
			},
			on: []client.Object{&imagev1.ImageRepository{}, &imagev1.ImagePolicy{}, &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}},
		},
		"an image and a tag": {
			make: func(s *scene) { s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Tag: "main"}) },
			on:   []client.Object{&v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}},
		},
	}
	for sentence, source := range sources {
		t.Run(sentence, func(t *testing.T) {
			s := startScene(t)
			s.push("app:main", version("0"))
			source.make(s)
			s.waitPublished("app", "main@")
			for _, obj := range source.on {
				manifest, _ := s.push("app:main", version(s.kindOf(obj)))
				g := NewWithT(t)
				g.Expect(s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "app"}, obj)).To(Succeed())
				before := obj.DeepCopyObject().(client.Object)
				request(obj, "now")
				g.Expect(s.client.Patch(s.Context(), obj, client.MergeFrom(before))).To(Succeed())
				s.waitPublished("app", "main@"+manifest.String())
			}
		})
	}
}

func (s *scene) kindOf(obj client.Object) string {
	s.Helper()
	kind, err := s.client.GroupVersionKindFor(obj)
	NewWithT(s).Expect(err).NotTo(HaveOccurred())
	return kind.Kind
}
