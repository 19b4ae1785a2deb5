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

package controllers

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// ownedBy tells whether an ExternalArtifact is ours: its controller is of our
// group and kind and has the name. One that has no controller, because a
// tenant took the reference away, is known by the source that its spec names.
func ownedBy(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind).GroupKind()
	if metav1.GetControllerOf(external) != nil {
		return controlledByName(external, kind, obj.Name)
	}
	source := external.Spec.SourceRef
	return source != nil && source.Kind == kind.Kind && source.Name == obj.Name &&
		(source.Namespace == "" || source.Namespace == obj.Namespace) && groupOf(source.APIVersion) == kind.Group
}

// keptFor tells whether an image object was made for an ArtifactRepository, or
// for one of its name that is gone.
func keptFor(object metav1.Object, obj *v1alpha1.ArtifactRepository) bool {
	return madeFor(object, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind).GroupKind(), obj.Name)
}

// generatedFor tells whether an ArtifactRepository was made for a policy, or
// for one of its name that is gone.
func generatedFor(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) bool {
	return madeFor(obj, imagev1.GroupVersion.WithKind(imagev1.ImagePolicyKind).GroupKind(), policy.Name)
}

// madeForSame tells whether an object was generated for the controller of another one.
func madeForSame(seen, want metav1.Object) bool {
	owner := metav1.GetControllerOf(want)
	return madeFor(seen, schema.GroupKind{Group: groupOf(owner.APIVersion), Kind: owner.Kind}, owner.Name)
}

// madeFor tells whether an object was generated for one of a group, kind and name. What
// is generated has the name of that.
func madeFor(obj metav1.Object, kind schema.GroupKind, name string) bool {
	if metav1.GetControllerOf(obj) != nil {
		return controlledByName(obj, kind, name)
	}
	return madeBy(obj, kind) && obj.GetName() == name
}

// madeBy tells whether an object was generated for one of a group and kind: its
// controller is, or it has lost its controller, as by a restore, and has the label.
// Nothing is gained by the label: it gives away an object that its writer may edit, to
// an object of the same namespace and name.
func madeBy(obj metav1.Object, kind schema.GroupKind) bool {
	if metav1.GetControllerOf(obj) != nil {
		return controlledByKind(obj, kind)
	}
	return obj.GetLabels()[v1alpha1.MadeByLabel] == kind.Kind
}

// controlledByName tells whether an object's controller is of a group and kind
// and has a name. The UID may differ: an owner that was deleted and made again
// finds what its predecessor left.
func controlledByName(obj metav1.Object, kind schema.GroupKind, name string) bool {
	return controlledByKind(obj, kind) && metav1.GetControllerOf(obj).Name == name
}

// controlledByKind tells whether an object's controller is of a group and kind,
// in whatever version it was written down.
func controlledByKind(obj metav1.Object, kind schema.GroupKind) bool {
	owner := metav1.GetControllerOf(obj)
	if owner == nil || owner.Kind != kind.Kind {
		return false
	}
	return groupOf(owner.APIVersion) == kind.Group
}

// groupOf returns the group of an apiVersion, empty where there is none.
func groupOf(apiVersion string) string {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return ""
	}
	return gv.Group
}

// nameConflict says that an object of a kind stands where ours has to be.
func nameConflict(kind, name string) error {
	return fault.Waitf(v1alpha1.ReasonNameConflict,
		"an %s %s exists that this ArtifactRepository did not make: remove it, or give one of them another name", kind, name)
}

func withoutController(refs []metav1.OwnerReference) []metav1.OwnerReference {
	var kept []metav1.OwnerReference
	for _, ref := range refs {
		if ref.Controller == nil || !*ref.Controller {
			kept = append(kept, ref)
		}
	}
	return kept
}
