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

package e2e

import (
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
)

// seldom is a change of n.scan: nobody looks at the registry unless asked to.
func seldom(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
	repository.Spec.Interval.Duration = time.Hour
}

// Whoever cannot wait for the interval asks on the object at hand, as flux
// reconcile does.
func TestRequestsAreHandledAtOnce(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		on      client.Object
		handled func(*v1alpha1.ArtifactRepositoryStatus) string
	}{
		"on the ImagePolicy": {
			on: &imagev1.ImagePolicy{},
			handled: func(status *v1alpha1.ArtifactRepositoryStatus) string {
				return status.ObservedRequests.ImagePolicy
			},
		},
		"on the ArtifactRepository": {
			on:      &v1alpha1.ArtifactRepository{},
			handled: func(status *v1alpha1.ArtifactRepositoryStatus) string { return status.LastHandledReconcileAt },
		},
		"on the ExternalArtifact": {
			on: &sourcev1.ExternalArtifact{},
			handled: func(status *v1alpha1.ArtifactRepositoryStatus) string {
				return status.ObservedRequests.ExternalArtifact
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			n.published("app", n.pushAndScan("app", "1.0.0", seldom))
			for _, token := range []string{"first", "second"} {
				moved := n.push("app", "1.0.0", configMap("app", token))
				n.annotate(named(n, "app", test.on), meta.ReconcileRequestAnnotation, token)
				n.published("app", moved)
				n.eventually(func(g Gomega) {
					g.Expect(test.handled(&get(n, "app", &v1alpha1.ArtifactRepository{}).Status)).To(Equal(token))
				})
			}
		})
	}
}

// pushAndScan pushes the first version of an image and scans it.
func (n *tenant) pushAndScan(name, tag string, mods ...func(*imagev1.ImageRepository, *imagev1.ImagePolicy)) (revision string) {
	n.Helper()
	revision = n.push(name, tag, configMap(name, tag))
	n.scan(name, mods...)
	return revision
}

func TestSuspendFreezesTheArtifact(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		suspend func(n *tenant, suspend bool)
		says    string
	}{
		"on the ArtifactRepository": {
			suspend: func(n *tenant, suspend bool) {
				change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = suspend })
			},
			says: "spec.suspend is true",
		},
		"on the ImagePolicy": {
			suspend: func(n *tenant, suspend bool) {
				change(n, named(n, "app", &imagev1.ImagePolicy{}), func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = suspend })
			},
			says: "spec.suspend of the ImagePolicy is true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			first := n.published("app", n.pushAndScan("app", "1.0.0"))
			test.suspend(n, true)
			n.eventually(func(g Gomega) {
				ready := conditions.Get(get(n, "app", &v1alpha1.ArtifactRepository{}), meta.ReadyCondition)
				g.Expect(ready.Reason).To(Equal(v1alpha1.ReasonSuspended), ready.Message)
				g.Expect(ready.Status).To(Equal(metav1.ConditionTrue))
				g.Expect(ready.Message).To(And(ContainSubstring(test.says), ContainSubstring(shortRevision(first.Revision))))
			})

			moved := n.push("app", "1.0.0", configMap("app", "moved"))
			n.push("app", "1.1.0", configMap("app", "1.1.0"))
			n.eventually(func(g Gomega) {
				g.Expect(get(n, "app", &imagev1.ImageRepository{}).Status.LastScanResult.TagCount).To(Equal(2))
			})
			n.Expect(n.reconciled("app").Status.Artifact).To(Equal(first))
			n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(first))
			n.fetch(first)

			// What is frozen is kept whole all the same.
			n.Expect(env.Client.Delete(n.Context(), named(n, "app", &sourcev1.ExternalArtifact{}))).To(Succeed())
			n.Expect(n.published("app", first.Revision)).To(Equal(first))

			test.suspend(n, false)
			n.published("app", "1.1.0")
			n.Expect(moved).NotTo(Equal(first.Revision))
		})
	}
}
