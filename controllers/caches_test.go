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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

func TestCachesKeepNoUnusedField(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	note := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"example.com/note": "a"}, "labels": {"example.com/note": "a"}}}`))
	for _, obj := range []client.Object{
		&corev1.Namespace{}, &imagev1.ImagePolicy{}, &imagev1.ImageRepository{}, &sourcev1.ExternalArtifact{}, &v1alpha1.ArtifactRepository{},
	} {
		obj.SetNamespace(s.namespace)
		obj.SetName("app")
		if _, ok := obj.(*corev1.Namespace); ok {
			obj.SetNamespace("")
			obj.SetName(s.namespace)
		}
		g.Expect(s.client.Patch(s.Context(), obj, note)).To(Succeed())
		s.eventually(func(g Gomega) {
			g.Expect(s.running.manager.GetCache().Get(s.Context(), client.ObjectKeyFromObject(obj), obj)).To(Succeed())
			g.Expect(obj.GetLabels()).To(HaveKey("example.com/note"))
		})
		g.Expect(obj.GetAnnotations()).NotTo(HaveKey("example.com/note"), "%T", obj)
		g.Expect(obj.GetManagedFields()).To(BeEmpty(), "%T", obj)
	}
}

// A patch of a stripped object removes nothing from it.
func TestPatchesOfCachedObjectsLoseNoField(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	s.ofImage("own", v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}}})
	s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "own") })
	others := func(obj client.Object) {
		obj.SetAnnotations(map[string]string{"example.com/note": "a"})
		obj.SetFinalizers([]string{"example.com/held"})
		obj.SetOwnerReferences(append(obj.GetOwnerReferences(), metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "1"}))
	}
	free := func(obj client.Object) { obj.SetFinalizers(nil) }
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.SetOwnerReferences(nil); others(obj) })
	edit(s, "own", func(obj *imagev1.ImageRepository) { others(obj); obj.Spec.Insecure = true })
	edit(s, "own", func(obj *imagev1.ImagePolicy) { others(obj); obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: "a"} })
	s.reconciled("own")
	s.eventually(func(g Gomega) {
		g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").OwnerReferences).To(ContainElement(controlledBy("app", s.record("app").UID)[0]))
		g.Expect(get[imagev1.ImageRepository](g, s, "own").Spec.Insecure).To(BeFalse())
		g.Expect(get[imagev1.ImagePolicy](g, s, "own").Spec.FilterTags).To(BeNil())
	})
	for _, obj := range []client.Object{s.external("app"), read[imagev1.ImageRepository](s, "own"), read[imagev1.ImagePolicy](s, "own")} {
		g.Expect(obj.GetAnnotations()).To(HaveKey("example.com/note"), "%T", obj)
		g.Expect(obj.GetFinalizers()).To(ConsistOf("example.com/held"), "%T", obj)
		g.Expect(obj.GetOwnerReferences()).To(HaveLen(2), "%T", obj)
	}
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { free(obj) })
	edit(s, "own", func(obj *imagev1.ImageRepository) { free(obj) })
	edit(s, "own", func(obj *imagev1.ImagePolicy) { free(obj) })
}
