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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// A backup is restored into a new API server with an empty etcd and with empty storage, as
// Velero does it: without owner references, and with or without status, before the
// controller starts or while it runs. Generated objects are adopted and published again, and
// unwanted ones are withdrawn.
func TestRestoreFromABackup(t *testing.T) {
	t.Parallel()
	fresh := ownServer(t)
	for sentence, test := range map[string]struct {
		status, running bool
		// abandoned is to take the annotation away before the controller starts.
		abandoned bool
	}{
		"with status":                         {status: true},
		"without status":                      {},
		"with status, the controller runs":    {status: true, running: true},
		"without status, the controller runs": {running: true},
		"of a source without its annotation":  {status: true, abandoned: true},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := startScene(t)
			s.publishes("annotated", "1.0.0")
			s.push("own:1.0.0", version("1"))
			s.ofImage("own", v1alpha1.ArtifactRepositorySpec{Policy: semver("*")})
			s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "own") })
			s.picks("own", imagev1.ImageRef{Tag: "1.0.0"})
			s.waitPublished("own", "1.0.0@")
			// A restored object starts at generation 1, and its status may name a later one.
			edit(s, "own", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Interval = &metav1.Duration{Duration: time.Hour} })
			before := map[string]*sourcev1.ExternalArtifact{"own": s.waitPublished("own", "1.0.0@"), "annotated": s.external("annotated")}
			s.stop()

			saved := s.backup()
			s.moveTo(fresh)
			if test.running {
				s.start()
			}
			s.restore(saved, test.status)
			if test.abandoned {
				edit(s, "annotated", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
			}
			if !test.running {
				s.start()
			}
			if !test.status || test.running {
				s.picks("annotated", imagev1.ImageRef{Tag: "1.0.0"})
				s.picks("own", imagev1.ImageRef{Tag: "1.0.0"})
			}
			if test.abandoned {
				s.eventually(gone[v1alpha1.ArtifactRepository](s, "annotated"))
				return
			}

			for name, was := range before {
				is := s.waitPublished(name, was.Status.Artifact.Revision)
				NewWithT(t).Expect(is.UID).NotTo(Equal(was.UID))
				NewWithT(t).Expect(is.Status.Artifact.Digest).To(Equal(was.Status.Artifact.Digest))
				NewWithT(t).Expect(is.Status.Artifact.URL).To(Equal(was.Status.Artifact.URL))
				s.eventually(func(g Gomega) {
					code, _ := s.fetch(is.Status.Artifact.URL)
					g.Expect(code).To(Equal(http.StatusOK))
				})
				s.expectServed(is.Status.Artifact)
			}
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

// backup returns all objects of a scene in Velero's order of restoring.
func (s *scene) backup() (saved []client.Object) {
	s.Helper()
	g := NewWithT(s)
	for _, list := range []client.ObjectList{
		&v1alpha1.ArtifactRepositoryList{}, &sourcev1.ExternalArtifactList{}, &imagev1.ImagePolicyList{}, &imagev1.ImageRepositoryList{},
	} {
		g.Expect(s.client.List(s.Context(), list, client.InNamespace(s.namespace))).To(Succeed())
		g.Expect(apimeta.EachListItem(list, func(item runtime.Object) error {
			saved = append(saved, item.DeepCopyObject().(client.Object))
			return nil
		})).To(Succeed())
	}
	return saved
}

// moveTo continues a scene in another cluster with the same, empty namespaces. Its storage
// is empty: a backup has no artifacts.
func (s *scene) moveTo(cluster *apiServer) {
	s.Helper()
	g := NewWithT(s)
	for _, name := range []string{s.namespace, s.platform} {
		namespace := &corev1.Namespace{}
		g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: name}, namespace)).To(Succeed())
		g.Expect(cluster.client.Create(s.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: namespace.Labels}})).To(Succeed())
	}
	s.server, s.client, s.storage = cluster, cluster.client, s.TempDir()
}

// restore writes objects as Velero does: it skips objects that the controller has created or
// changed.
func (s *scene) restore(saved []client.Object, withStatus bool) {
	s.Helper()
	g := NewWithT(s)
	for _, obj := range saved {
		obj.SetUID("")
		obj.SetResourceVersion("")
		obj.SetOwnerReferences(nil)
		obj.SetManagedFields(nil)
		restored := obj.DeepCopyObject().(client.Object)
		if err := s.client.Create(s.Context(), restored); err != nil {
			g.Expect(apierrors.IsAlreadyExists(err)).To(BeTrue(), "%v", err)
			continue
		}
		if !withStatus {
			continue
		}
		obj.SetResourceVersion(restored.GetResourceVersion())
		if err := s.client.Status().Update(s.Context(), obj); err != nil {
			g.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
		}
	}
}
