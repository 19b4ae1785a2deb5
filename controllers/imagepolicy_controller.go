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
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/source"
)

// ImagePolicyReconciler keeps an ArtifactRepository of the same name for every ImagePolicy
// that is a source, and removes it from the others.
type ImagePolicyReconciler struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Live reads past the caches, which may be incomplete.
	Live client.Reader
	// Rules of the platform.
	Rules source.Rules
	// LabelKeys are copied from the policy to the ArtifactRepository, so that one shard sees
	// both.
	LabelKeys []string
	// Events reports to users.
	Events *Events
}

// Reconcile makes the ArtifactRepository follow the decision about a policy.
func (r *ImagePolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	start := time.Now()
	policy, err := apiserver.Get(ctx, r.Client, req.NamespacedName, &imagev1.ImagePolicy{})
	if policy == nil && err == nil {
		r.Events.forgetImagePolicy(ctx, req.NamespacedName)
	}
	if policy == nil || err != nil || policy.DeletionTimestamp != nil {
		return ctrl.Result{}, err
	}
	defer r.Events.duration(ctx, policy, start)
	s, err := Snapshots{Client: r.Client, Rules: r.Rules}.AroundPolicy(ctx, policy)
	if err != nil || !s.Usable() {
		return ctrl.Result{}, err
	}
	permission := r.Rules.OptIn(s.Facts())
	existing, err := r.existing(ctx, req.NamespacedName, permission)
	if err != nil {
		return ctrl.Result{}, err
	}
	r.warn(s, existing, permission)
	switch {
	case permission.Choice == source.On:
		err = r.keep(ctx, policy, existing)
	case permission.Choice == source.Off && existing != nil && source.ImagePolicy(policy.Name).Owns(existing):
		ctrl.LoggerFrom(ctx).Info("no longer a source", "reason", permission.Why)
		if err = r.remove(ctx, existing); err == nil {
			r.Events.send(policy, nil, news{corev1.EventTypeNormal, v1alpha1.ReasonSucceeded, "no longer published: " + permission.Why})
		}
	}
	if apiserver.IsGone(err) || apiserver.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, err
}

// existing reads the ArtifactRepository with the name of a policy. The cache lacks a new
// one, and one that still has the labels of another shard, from which the policy came: it
// must neither be created twice nor be left behind.
func (r *ImagePolicyReconciler) existing(ctx context.Context, key client.ObjectKey, permission source.Permission) (*v1alpha1.ArtifactRepository, error) {
	obj, err := apiserver.Get(ctx, r.Client, key, &v1alpha1.ArtifactRepository{})
	if obj != nil || err != nil {
		return obj, err
	}
	if permission.Choice == source.On || permission.Choice == source.Off && len(r.LabelKeys) > 0 {
		return apiserver.Get(ctx, r.Live, key, &v1alpha1.ArtifactRepository{})
	}
	return nil, nil
}

// warn sends each warning about the marks around a policy once.
func (r *ImagePolicyReconciler) warn(s source.Snapshot, existing *v1alpha1.ArtifactRepository, permission source.Permission) {
	for _, warning := range permission.Warnings {
		switch warning.Place {
		case source.OnRepository:
			r.Events.warnOnce(s.Repository, warning)
		case source.OnNamespace:
			// The label of a namespace is a warning only for the affected policies.
			if existing != nil || s.Facts().Policy != nil {
				r.Events.warnOnce(s.Policy, warning)
			}
		default:
			r.Events.warnOnce(s.Policy, warning)
		}
	}
}

// keep applies the ArtifactRepository of a policy. One of another owner for this policy
// satisfies the annotation as it is; one with another reference is left alone, and the
// policy waits for its name.
func (r *ImagePolicyReconciler) keep(ctx context.Context, policy *imagev1.ImagePolicy, existing *v1alpha1.ArtifactRepository) error {
	// Do not add a reference to a spec with an image: it would mix two forms of a spec.
	if existing != nil && (existing.Spec.ImagePolicyRef == nil || !source.ImagePolicy(policy.Name).Owns(existing)) {
		if ref := existing.Spec.ImagePolicyRef; ref == nil || ref.Name != policy.Name {
			r.Events.warnOnce(policy, source.Warning{
				Value:  string(existing.UID),
				Reason: v1alpha1.ReasonNameConflict,
				Message: fmt.Sprintf("the image is not published: an ArtifactRepository %s exists and does not refer to this ImagePolicy: rename one of them, or set its spec.imagePolicyRef.name to %s",
					policy.Name, policy.Name),
			})
		}
		return nil
	}
	want := r.artifactRepository(policy)
	if existing != nil {
		if r.upToDate(existing, want) {
			return nil
		}
		// Do not apply to an object that has changed since it was checked.
		want.ResourceVersion = existing.ResourceVersion
	}
	_, err := applyObject(ctx, r.Client, want)
	return err
}

// remove deletes exactly the object that was read.
func (r *ImagePolicyReconciler) remove(ctx context.Context, obj *v1alpha1.ArtifactRepository) error {
	return r.Client.Delete(ctx, obj, client.Preconditions{UID: &obj.UID, ResourceVersion: &obj.ResourceVersion})
}

// artifactRepository is the generated ArtifactRepository of a policy.
func (r *ImagePolicyReconciler) artifactRepository(policy *imagev1.ImagePolicy) *v1alpha1.ArtifactRepository {
	kind := imagev1.GroupVersion.WithKind(imagev1.ImagePolicyKind)
	return &v1alpha1.ArtifactRepository{
		TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.ArtifactRepositoryKind},
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       policy.Namespace,
			Name:            policy.Name,
			Labels:          generatedLabels(policy, imagev1.ImagePolicyKind, r.LabelKeys),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(policy, kind)},
		},
		Spec: v1alpha1.ArtifactRepositorySpec{ImagePolicyRef: &meta.LocalObjectReference{Name: policy.Name}},
	}
}

// upToDate reports whether applying want would change nothing.
func (r *ImagePolicyReconciler) upToDate(got, want *v1alpha1.ArtifactRepository) bool {
	if *got.Spec.ImagePolicyRef != *want.Spec.ImagePolicyRef {
		return false
	}
	return current(got, want, r.LabelKeys)
}
