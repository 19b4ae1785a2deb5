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

package source

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Owner is the owner of generated objects. The UID does not count: an owner that was deleted
// and created again takes over the objects of its predecessor.
type Owner struct {
	schema.GroupKind
	// Name of the owner; empty: any of this kind.
	Name string
}

// ArtifactRepository is the ArtifactRepository with this name as an owner.
func ArtifactRepository(name string) Owner {
	return Owner{v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind).GroupKind(), name}
}

// ImagePolicy is the ImagePolicy with this name as an owner.
func ImagePolicy(name string) Owner {
	return Owner{imagev1.GroupVersion.WithKind(imagev1.ImagePolicyKind).GroupKind(), name}
}

// ControllerOf returns the controller of an object, which must have one.
func ControllerOf(object metav1.Object) Owner {
	controller := metav1.GetControllerOf(object)
	return Owner{schema.GroupKind{Group: groupOf(controller.APIVersion), Kind: controller.Kind}, controller.Name}
}

// Owns reports whether an object was made for this owner, according to its controller
// reference. An object without a controller, because a tenant removed the reference or after
// a restore, is recognised otherwise: an ExternalArtifact by its spec.sourceRef, other
// objects by the label of their maker and the shared name. The label gives no access: its
// writer may edit the object anyway, and gives it away to an object of the same namespace
// and name.
func (o Owner) Owns(object metav1.Object) bool {
	if controller := metav1.GetControllerOf(object); controller != nil {
		return o.is(controller.APIVersion, controller.Kind, controller.Name)
	}
	if external, ok := object.(*sourcev1.ExternalArtifact); ok {
		source := external.Spec.SourceRef
		return source != nil && (source.Namespace == "" || source.Namespace == external.Namespace) && o.is(source.APIVersion, source.Kind, source.Name)
	}
	return object.GetLabels()[v1alpha1.MadeByLabel] == o.Kind && (o.Name == "" || o.Name == object.GetName())
}

// is reports whether a reference means this owner, in any API version.
func (o Owner) is(apiVersion, kind, name string) bool {
	return o.Kind == kind && o.Group == groupOf(apiVersion) && (o.Name == "" || o.Name == name)
}

// groupOf returns the group of an apiVersion; empty for the core group and for invalid text.
func groupOf(apiVersion string) string {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return ""
	}
	return gv.Group
}

// NameConflict is the error about an object of another owner under a name that we need.
//
// Errors: NameConflict (wait).
func NameConflict(kind, name string) error {
	return fault.Waitf(v1alpha1.ReasonNameConflict,
		"an %s %s exists that this ArtifactRepository did not make: remove it, or give one of them another name", kind, name)
}
