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
	"context"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// imageObjects keeps the ImageRepository and the ImagePolicy of an
// ArtifactRepository that has a policy of its own. Tags are listed and ordered
// by image-reflector-controller, never here.
type imageObjects struct {
	client       client.Client
	labelKeys    []string
	fieldManager string
}

// keep makes the image objects what the spec asks for, and tells whether that
// changed anything: their status then speaks of what was before.
func (k imageObjects) keep(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings) (changed bool, err error) {
	repository, policy := k.repository(obj), k.policy(obj)
	if seen := around.OwnRepository; seen == nil || !current(seen, repository) || !equality.Semantic.DeepEqual(seen.Spec, repository.Spec) {
		changed = true
		if err := applyObject(ctx, k.client, repository, k.fieldManager); err != nil {
			return changed, err
		}
	}
	if seen := around.OwnPolicy; seen == nil || !current(seen, policy) || !equality.Semantic.DeepEqual(seen.Spec, policy.Spec) {
		changed = true
		if err := applyObject(ctx, k.client, policy, k.fieldManager); err != nil {
			return changed, err
		}
	}
	if changed {
		return changed, nil
	}
	return false, k.reevaluate(ctx, around)
}

// remove deletes image objects that were kept for a policy that is gone.
func (k imageObjects) remove(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings) error {
	var objects []client.Object
	if around.OwnPolicy != nil {
		objects = append(objects, around.OwnPolicy)
	}
	if around.OwnRepository != nil {
		objects = append(objects, around.OwnRepository)
	}
	for _, object := range objects {
		uid := object.GetUID()
		if !keptFor(object, obj) || object.GetDeletionTimestamp() != nil {
			continue
		}
		if err := client.IgnoreNotFound(k.client.Delete(ctx, object, client.Preconditions{UID: &uid})); err != nil {
			return err
		}
	}
	return nil
}

// reevaluate asks for the policy to be evaluated again when its repository
// scans another image than the one it picked from: image-reflector-controller
// does so by itself only when the list of tags differs.
func (k imageObjects) reevaluate(ctx context.Context, around Surroundings) error {
	repository, policy := around.OwnRepository, around.OwnPolicy
	if policy.Status.LatestRef == nil || repository.Status.ObservedGeneration != repository.Generation {
		return nil
	}
	parsed, err := parseRepository(repository.Spec.Image, repository.Spec.Insecure)
	if err != nil || sameRepository(policy.Status.LatestRef.Name, repository.Spec.Image, parsed) || !scans(repository, parsed) {
		return nil
	}
	token := "image-" + strconv.FormatInt(repository.Generation, 10)
	if policy.Annotations[meta.ReconcileRequestAnnotation] == token {
		return nil
	}
	asking := policy.DeepCopy()
	metav1.SetMetaDataAnnotation(&asking.ObjectMeta, meta.ReconcileRequestAnnotation, token)
	return k.client.Patch(ctx, asking, client.MergeFrom(policy))
}

// repository is the ImageRepository of an ArtifactRepository with a policy.
func (k imageObjects) repository(obj *v1alpha1.ArtifactRepository) *imagev1.ImageRepository {
	spec := obj.Spec
	provider := spec.Provider
	if provider == "" {
		provider = "generic" // what the API server would fill in
	}
	return &imagev1.ImageRepository{
		TypeMeta:   metav1.TypeMeta{APIVersion: imagev1.GroupVersion.String(), Kind: imagev1.ImageRepositoryKind},
		ObjectMeta: k.meta(obj),
		Spec: imagev1.ImageRepositorySpec{
			Image:              imageName(obj),
			Interval:           metav1.Duration{Duration: interval(obj, nil)},
			Timeout:            spec.Timeout,
			Provider:           provider,
			SecretRef:          spec.SecretRef,
			ServiceAccountName: spec.ServiceAccountName,
			CertSecretRef:      spec.CertSecretRef,
			ProxySecretRef:     spec.ProxySecretRef,
			Insecure:           spec.Insecure,
			Suspend:            spec.Suspend,
			ExclusionList:      signatureTags,
		},
	}
}

// policy is the ImagePolicy of an ArtifactRepository with a policy.
func (k imageObjects) policy(obj *v1alpha1.ArtifactRepository) *imagev1.ImagePolicy {
	return &imagev1.ImagePolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: imagev1.GroupVersion.String(), Kind: imagev1.ImagePolicyKind},
		ObjectMeta: k.meta(obj),
		Spec: imagev1.ImagePolicySpec{
			ImageRepositoryRef:     meta.NamespacedObjectReference{Name: obj.Name},
			Policy:                 *obj.Spec.Policy,
			FilterTags:             obj.Spec.FilterTags,
			DigestReflectionPolicy: imagev1.ReflectNever, // what the API server would fill in
		},
	}
}

func (k imageObjects) meta(obj *v1alpha1.ArtifactRepository) metav1.ObjectMeta {
	kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind)
	return metav1.ObjectMeta{
		Namespace:       obj.Namespace,
		Name:            obj.Name,
		Labels:          pick(obj.Labels, k.labelKeys),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(obj, kind)},
	}
}

// imageName is the image of a spec without the oci:// that Flux's sources write
// in front of it.
func imageName(obj *v1alpha1.ArtifactRepository) string {
	return strings.TrimPrefix(obj.Spec.Image, "oci://")
}

// keptFor tells whether an image object was made for an ArtifactRepository, or
// for one of its name that is gone.
func keptFor(object metav1.Object, obj *v1alpha1.ArtifactRepository) bool {
	return controlledByName(object, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind).GroupKind(), obj.Name)
}

// foreignImageObject names an image object that stands where one of ours has
// to be; empty when there is none.
func foreignImageObject(obj *v1alpha1.ArtifactRepository, around Surroundings) string {
	switch {
	case around.OwnRepository != nil && !keptFor(around.OwnRepository, obj):
		return imagev1.ImageRepositoryKind
	case around.OwnPolicy != nil && !keptFor(around.OwnPolicy, obj):
		return imagev1.ImagePolicyKind
	default:
		return ""
	}
}

// current tells whether an object has the owner and the labels that are wanted.
func current(seen, want metav1.Object) bool {
	owner := metav1.GetControllerOf(seen)
	return owner != nil && owner.UID == metav1.GetControllerOf(want).UID && holds(seen.GetLabels(), want.GetLabels())
}

// applyObject applies an object without its status, which is nobody's to send.
func applyObject(ctx context.Context, c client.Client, object client.Object, fieldManager string) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	delete(content, "status")
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: content}),
		client.FieldOwner(fieldManager), client.ForceOwnership)
}
