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
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// A cluster may lose a type and get it back: a reinstall, an upgrade, a bootstrap in
// another order. This has an API server of its own, because all tests share the types
// of the other one.
func TestTypesComeAndGo(t *testing.T) {
	t.Parallel()
	s := newSceneOn(t, ownServer(t))
	s.start()

	s.publishes("app", "1.0.0")
	back := s.withoutType("externalartifacts." + sourcev1.GroupVersion.Group)
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ExternalArtifact")
	back()
	s.waitPublished("app", "1.0.0@")

	// A pick while the type is missing is published after its return.
	back = s.withoutType("externalartifacts." + sourcev1.GroupVersion.Group)
	s.push("app:1.1.0", publish.Files{"app.yaml": "version: 1.1.0\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.1.0"})
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ExternalArtifact")
	back()
	s.waitPublished("app", "1.1.0@")

	// Ours: the policy is asked to be a source all the time.
	back = s.withoutType("artifactrepositories." + v1alpha1.Group)
	back()
	s.waitPublished("app", "1.1.0@")

	// Those of image-reflector-controller, with the image objects of a source.
	back = s.withoutType("imagepolicies." + imagev1.GroupVersion.Group)
	s.create(&v1alpha1.ArtifactRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "own"},
		Spec: v1alpha1.ArtifactRepositorySpec{
			Image:  s.image("app"),
			Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}},
		},
	})
	s.waitFailed("own", v1alpha1.ReasonDependencyNotReady, "ImagePolicy")
	back()
	s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "own") })
	s.picks("own", imagev1.ImageRef{Name: s.image("app"), Tag: "1.1.0"})
	s.waitPublished("own", "1.1.0@")

	// A version that is not served for a while keeps its objects.
	back = s.unserved("externalartifacts." + sourcev1.GroupVersion.Group)
	s.push("app:1.2.0", publish.Files{"app.yaml": "version: 1.2.0\n"})
	s.picks("own", imagev1.ImageRef{Name: s.image("app"), Tag: "1.2.0"})
	s.waitFailed("own", v1alpha1.ReasonDependencyNotReady, "ExternalArtifact")
	back()
	s.waitPublished("own", "1.2.0@")

	back = s.unserved("artifactrepositories." + v1alpha1.Group)
	s.push("app:1.3.0", publish.Files{"app.yaml": "version: 1.3.0\n"})
	s.picks("own", imagev1.ImageRef{Name: s.image("app"), Tag: "1.3.0"})
	back()
	s.waitPublished("own", "1.3.0@")
}

// unserved makes the API server serve no version of a type. The returned function makes it
// serve them again.
func (s *scene) unserved(name string) (back func()) {
	s.Helper()
	g := NewWithT(s)
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: name}, crd)).To(Succeed())
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	g.Expect(err).NotTo(HaveOccurred())
	serve := func(served bool) {
		s.Helper()
		var patch []string
		for i := range versions {
			patch = append(patch, fmt.Sprintf(`{"op": "replace", "path": "/spec/versions/%d/served", "value": %t}`, i, served))
		}
		g.Expect(s.client.Patch(s.Context(), crd, client.RawPatch(types.JSONPatchType, []byte("["+strings.Join(patch, ",")+"]")))).To(Succeed())
		s.eventually(func(g Gomega) {
			for _, version := range versions {
				list := &unstructured.UnstructuredList{}
				list.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version.(map[string]any)["name"].(string), Kind: kind})
				g.Expect(s.client.List(s.Context(), list) == nil).To(Equal(served))
			}
		})
	}
	serve(false)
	return func() {
		s.Helper()
		serve(true)
	}
}

// withoutType removes a type and all of its objects. The returned function puts the type
// back.
func (s *scene) withoutType(name string) (back func()) {
	s.Helper()
	g := NewWithT(s)
	read := func() (*unstructured.Unstructured, error) {
		crd := &unstructured.Unstructured{}
		crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
		return crd, s.client.Get(s.Context(), client.ObjectKey{Name: name}, crd)
	}
	crd, err := read()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.client.Delete(s.Context(), crd.DeepCopy())).To(Succeed())
	s.eventually(func(g Gomega) {
		_, err := read()
		g.Expect(err).To(HaveOccurred())
		g.Expect(client.IgnoreNotFound(err)).NotTo(HaveOccurred())
	})
	return func() {
		s.Helper()
		crd := crd.DeepCopy()
		crd.SetResourceVersion("")
		crd.SetUID("")
		delete(crd.Object, "status")
		g.Expect(s.client.Create(s.Context(), crd)).To(Succeed())
	}
}
