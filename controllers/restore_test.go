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
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// A backup is restored without owner references, and with or without status. What was
// generated is adopted, and what its maker no longer wants is withdrawn.
func TestRestoreFromABackup(t *testing.T) {
	for sentence, withStatus := range map[string]bool{"with status": true, "without status": false} {
		t.Run(sentence, func(t *testing.T) {
			s := startScene(t)
			s.publishes("annotated", "1.0.0")
			s.push("own:1.0.0", version("1"))
			s.ofImage("own", v1alpha1.ArtifactRepositorySpec{Policy: semver("*")})
			s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "own") })
			s.picks("own", imagev1.ImageRef{Tag: "1.0.0"})
			s.waitPublished("own", "1.0.0@")
			s.stop()

			s.restore(withStatus)
			s.storage = t.TempDir() // a backup has no artifacts
			s.start()
			if !withStatus {
				s.picks("annotated", imagev1.ImageRef{Tag: "1.0.0"})
				s.picks("own", imagev1.ImageRef{Tag: "1.0.0"})
			}

			s.waitPublished("annotated", "1.0.0@")
			s.waitPublished("own", "1.0.0@")
			s.eventually(func(g Gomega) {
				maker := get[v1alpha1.ArtifactRepository](g, s, "own")
				g.Expect(metav1.IsControlledBy(get[imagev1.ImagePolicy](g, s, "own"), maker)).To(BeTrue())
				g.Expect(metav1.IsControlledBy(get[imagev1.ImageRepository](g, s, "own"), maker)).To(BeTrue())
				g.Expect(metav1.IsControlledBy(get[sourcev1.ExternalArtifact](g, s, "own"), maker)).To(BeTrue())
				policy := get[imagev1.ImagePolicy](g, s, "annotated")
				g.Expect(metav1.IsControlledBy(get[v1alpha1.ArtifactRepository](g, s, "annotated"), policy)).To(BeTrue())
			})

			edit(s, "annotated", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
			s.eventually(gone[v1alpha1.ArtifactRepository](s, "annotated"))
		})
	}
}

// While the controller was away the annotation may go, too: nothing is adopted then.
func TestARestoredSourceThatNobodyAsksForIsWithdrawn(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	s.stop()
	s.restore(true)
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
	s.start()
	s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
}

// restore deletes all objects of a scene and writes them again, as a backup has them.
func (s *scene) restore(withStatus bool) {
	s.Helper()
	g := NewWithT(s)
	for _, list := range []client.ObjectList{
		&sourcev1.ExternalArtifactList{}, &v1alpha1.ArtifactRepositoryList{}, &imagev1.ImagePolicyList{}, &imagev1.ImageRepositoryList{},
	} {
		g.Expect(s.client.List(s.Context(), list, client.InNamespace(s.namespace))).To(Succeed())
		g.Expect(apimeta.EachListItem(list, func(item runtime.Object) error {
			saved := item.DeepCopyObject().(client.Object)
			if err := s.client.Delete(s.Context(), item.(client.Object)); err != nil {
				return err
			}
			saved.SetUID("")
			saved.SetResourceVersion("")
			saved.SetOwnerReferences(nil)
			saved.SetManagedFields(nil)
			restored := saved.DeepCopyObject().(client.Object)
			if err := s.client.Create(s.Context(), restored); err != nil || !withStatus {
				return err
			}
			saved.SetResourceVersion(restored.GetResourceVersion())
			return s.client.Status().Update(s.Context(), saved)
		})).To(Succeed())
	}
}
