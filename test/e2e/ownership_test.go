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

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

func TestSomebodyElsesExternalArtifactIsUntouched(t *testing.T) {
	t.Parallel()
	for name, own := range map[string]func(*sourcev1.ExternalArtifact){
		"one that nobody controls": func(*sourcev1.ExternalArtifact) {},
		"one that another kind controls": func(obj *sourcev1.ExternalArtifact) {
			yes := true
			obj.OwnerReferences = []metav1.OwnerReference{{
				APIVersion: "source.extensions.fluxcd.io/v1beta1", Kind: "ArtifactGenerator", Name: "app", Controller: &yes,
				UID: "00000000-0000-0000-0000-000000000001",
			}}
		},
		"one of another ArtifactRepository": func(obj *sourcev1.ExternalArtifact) {
			yes := true
			obj.OwnerReferences = []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.ArtifactRepositoryKind, Name: "other", Controller: &yes,
				UID: "00000000-0000-0000-0000-000000000002",
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			theirs := named(n, "app", &sourcev1.ExternalArtifact{})
			theirs.Spec.SourceRef = &meta.NamespacedObjectKindReference{APIVersion: "example.com/v1", Kind: "Other", Namespace: n.namespace, Name: "app"}
			// An owner that exists: what belongs to nobody is garbage.
			own(theirs)
			theirs.OwnerReferences = n.existing(theirs.OwnerReferences)
			n.create(theirs)

			revision := n.pushAndScan("app", "1.0.0")
			obj, ready := n.notReady("app", v1alpha1.ReasonNameConflict)
			n.Expect(ready.Message).To(ContainSubstring("ExternalArtifact app"))
			n.Expect(obj.Status.Artifact).To(BeNil())
			n.Expect(n.warnings("ArtifactRepository", "app", v1alpha1.ReasonNameConflict)).NotTo(BeEmpty())
			n.reconciled("app")
			n.Expect(get(n, "app", &sourcev1.ExternalArtifact{})).To(HaveField("ResourceVersion", theirs.ResourceVersion), "it was written to")

			n.Expect(env.Client.Delete(n.Context(), theirs)).To(Succeed())
			n.published("app", revision)
		})
	}
}

// existing points owner references at an object that exists, so that the
// garbage collector keeps what they own.
func (n *tenant) existing(refs []metav1.OwnerReference) []metav1.OwnerReference {
	n.Helper()
	for i := range refs {
		if refs[i].Kind == v1alpha1.ArtifactRepositoryKind {
			owner := named(n, refs[i].Name, &v1alpha1.ArtifactRepository{})
			owner.Spec.ImagePolicyRef = &meta.LocalObjectReference{Name: "none"}
			n.create(owner)
			refs[i].UID = owner.UID
		}
	}
	return refs
}

// The record is in our status. What stands in the ExternalArtifact is its copy,
// and what a tenant does to it is repaired.
func TestDriftIsRepaired(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	artifact := n.published("app", n.pushAndScan("app", "1.0.0", seldom))
	want := get(n, "app", &sourcev1.ExternalArtifact{})
	ready := conditions.Get(want, meta.ReadyCondition)

	status := func(do func(*sourcev1.ExternalArtifactStatus)) func() {
		return func() {
			n.eventually(func(g Gomega) {
				obj := get(n, "app", &sourcev1.ExternalArtifact{})
				do(&obj.Status)
				g.Expect(env.Client.Status().Update(n.Context(), obj)).To(Succeed())
			})
		}
	}
	object := func(do func(*sourcev1.ExternalArtifact)) func() {
		return func() { change(n, named(n, "app", &sourcev1.ExternalArtifact{}), do) }
	}
	for name, tamper := range map[string]func(){
		"the object is deleted": func() {
			n.Expect(env.Client.Delete(n.Context(), named(n, "app", &sourcev1.ExternalArtifact{}))).To(Succeed())
		},
		"the artifact is taken out of the status": status(func(s *sourcev1.ExternalArtifactStatus) { s.Artifact = nil }),
		"the artifact points elsewhere": status(func(s *sourcev1.ExternalArtifactStatus) {
			s.Artifact.URL, s.Artifact.Revision = "http://attacker.invalid/x.tar.gz", "9.9.9@sha256:00"
		}),
		"the conditions are removed": status(func(s *sourcev1.ExternalArtifactStatus) { s.Conditions = nil }),
		"Ready says something else": status(func(s *sourcev1.ExternalArtifactStatus) {
			s.Conditions[0].Status, s.Conditions[0].Message = metav1.ConditionFalse, "broken"
		}),
		"the source is another":             object(func(obj *sourcev1.ExternalArtifact) { obj.Spec.SourceRef.Name = "other" }),
		"the owner reference is taken away": object(func(obj *sourcev1.ExternalArtifact) { obj.OwnerReferences = nil }),
	} {
		// One after the other, on one object.
		t.Log(name)
		tamper()
		n.eventually(func(g Gomega) {
			obj := &sourcev1.ExternalArtifact{}
			g.Expect(env.Client.Get(n.Context(), n.key("app"), obj)).To(Succeed(), name)
			g.Expect(obj.Status.Artifact).To(Equal(artifact), name)
			g.Expect(obj.Spec).To(Equal(want.Spec), name)
			g.Expect(obj.OwnerReferences).To(Equal(want.OwnerReferences), name)
			g.Expect(conditions.Get(obj, meta.ReadyCondition)).To(HaveField("Message", ready.Message), name)
			g.Expect(conditions.IsReady(obj)).To(BeTrue(), name)
		})
	}
	n.fetch(artifact)
	n.Expect(get(n, "app", &v1alpha1.ArtifactRepository{}).Status.History).To(HaveLen(1), "nothing new was published")

	// What a tenant adds is the tenant's.
	object(func(obj *sourcev1.ExternalArtifact) { obj.Labels = map[string]string{"team": "blue"} })()
	n.reconciled("app")
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Labels).To(HaveKeyWithValue("team", "blue"))
}

// The ArtifactRepository that an annotation asks for is kept as well.
func TestAGeneratedObjectComesBack(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := n.pushAndScan("app", "1.0.0")
	n.published("app", revision)
	before := get(n, "app", &v1alpha1.ArtifactRepository{})
	n.Expect(env.Client.Delete(n.Context(), before)).To(Succeed())
	n.eventually(func(g Gomega) {
		obj := &v1alpha1.ArtifactRepository{}
		g.Expect(env.Client.Get(n.Context(), n.key("app"), obj)).To(Succeed())
		g.Expect(obj.UID).NotTo(Equal(before.UID))
		external := &sourcev1.ExternalArtifact{}
		g.Expect(env.Client.Get(n.Context(), n.key("app"), external)).To(Succeed())
		g.Expect(external.OwnerReferences).To(HaveLen(1))
		g.Expect(external.OwnerReferences[0].UID).To(Equal(obj.UID))
	})
	n.fetch(n.published("app", revision))
}
