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
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/source"
)

// externals keeps the ExternalArtifact of an ArtifactRepository equal to its record. The
// record is the source of truth: tenants may be able to edit an ExternalArtifact.
type externals struct {
	client client.Client
	// live reads past the caches.
	live client.Reader
	// labelKeys are copied to the ExternalArtifact.
	labelKeys []string
}

// confirm fails with a conflict if the record has changed since the cache saw it: the cache
// of the ExternalArtifact may be newer, and publishing an old record would roll consumers
// back.
func (e externals) confirm(ctx context.Context, obj *v1alpha1.ArtifactRepository) error {
	var now v1alpha1.ArtifactRepository
	if err := e.live.Get(ctx, client.ObjectKeyFromObject(obj), &now); err != nil {
		return err
	}
	// Other edits do not count: users may annotate the object.
	if now.UID != obj.UID || !equality.Semantic.DeepEqual(now.Status.Artifact, obj.Status.Artifact) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("artifactrepositories").GroupResource(), obj.Name,
			errors.New("the record has changed since it was read"))
	}
	return nil
}

// publish makes the ExternalArtifact agree with the record. seen is the cached object, or
// nil.
func (e externals) publish(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) error {
	external, err := e.claim(ctx, obj, seen)
	if err != nil {
		return err
	}
	if obj.Status.Artifact == nil {
		// A withdrawal waits for no other write: remove the artifact first, then write the
		// reason.
		if err := e.empty(ctx, external); err != nil {
			return err
		}
	}
	if err := e.patchMeta(ctx, external, obj); err != nil {
		return err
	}
	return e.patchStatus(ctx, external, obj)
}

func (e externals) patchMeta(ctx context.Context, external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) error {
	before := external.DeepCopy()
	if !e.writeMeta(external, obj) {
		return nil
	}
	return e.client.Patch(ctx, external, guarded(before))
}

func (e externals) patchStatus(ctx context.Context, external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) error {
	before := external.DeepCopy()
	if !e.writeStatus(external, obj) {
		return nil
	}
	return e.client.Status().Patch(ctx, external, guarded(before))
}

// empty removes the artifact of an ExternalArtifact.
func (e externals) empty(ctx context.Context, external *sourcev1.ExternalArtifact) error {
	if external.Status.Artifact == nil {
		return nil
	}
	return patchRemoval(ctx, e.client, external, operation{Op: "remove", Path: "/status/artifact"}, noConditions())
}

// claim returns the ExternalArtifact to write to: the seen one, a new one, or one that
// appeared meanwhile. An object of another owner is a conflict. A write to the seen object
// fails if another replica, the new leader, has written since the record was read; for
// another object, confirm checks the record.
func (e externals) claim(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) (*sourcev1.ExternalArtifact, error) {
	if seen == nil {
		created := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
		e.writeMeta(created, obj)
		err := e.client.Create(ctx, created)
		if err == nil {
			return created, e.confirm(ctx, obj)
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		seen = &sourcev1.ExternalArtifact{}
		if err := e.live.Get(ctx, client.ObjectKeyFromObject(obj), seen); err != nil {
			return nil, err
		}
		if err := e.confirm(ctx, obj); err != nil {
			return nil, err
		}
	}
	if !source.ArtifactRepository(obj.Name).Owns(seen) {
		return nil, source.NameConflict(sourcev1.ExternalArtifactKind, obj.Name)
	}
	return seen.DeepCopy(), nil
}

// remove empties and deletes the ExternalArtifact, if it is ours: a finalizer of another
// owner keeps the object, but not its content.
func (e externals) remove(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) error {
	if seen == nil || !source.ArtifactRepository(obj.Name).Owns(seen) {
		return nil
	}
	err := apiserver.IgnoreAbsent(e.empty(ctx, seen.DeepCopy()))
	if seen.DeletionTimestamp == nil {
		err = errors.Join(err, apiserver.IgnoreAbsent(e.client.Delete(ctx, seen, client.Preconditions{UID: &seen.UID})))
	}
	return err
}

// matches reports whether an ExternalArtifact agrees with the record.
func (e externals) matches(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	external = external.DeepCopy()
	return !e.writeMeta(external, obj) && !e.writeStatus(external, obj)
}

// writeMeta writes owner, labels and spec, and reports a change.
func (e externals) writeMeta(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	changed := false
	kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind)
	if owner := metav1.GetControllerOf(external); owner == nil || owner.UID != obj.UID {
		external.OwnerReferences = append(withoutController(external.OwnerReferences), *metav1.NewControllerRef(obj, kind))
		changed = true
	}
	labels, relabelled := relabel(external.Labels, pick(obj.Labels, e.labelKeys), e.labelKeys)
	external.Labels = labels
	from := &meta.NamespacedObjectKindReference{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: obj.Namespace, Name: obj.Name}
	if external.Spec.SourceRef == nil || *external.Spec.SourceRef != *from {
		external.Spec.SourceRef = from
		changed = true
	}
	return changed || relabelled
}

// writeStatus copies the record and its conditions, and reports a change.
func (e externals) writeStatus(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	before := external.Status.DeepCopy()
	external.Status.Artifact = obj.Status.Artifact.DeepCopy()
	for _, kind := range []string{meta.ReadyCondition, meta.StalledCondition, v1alpha1.SourceVerifiedCondition} {
		condition := conditions.Get(obj, kind)
		if condition == nil {
			conditions.Delete(external, kind)
			continue
		}
		copied := condition.DeepCopy()
		copied.ObservedGeneration = external.Generation
		copied.LastTransitionTime = metav1.Time{}
		conditions.Set(external, copied)
	}
	return !equality.Semantic.DeepEqual(before, &external.Status)
}

// operation is an operation of a JSON patch (RFC 6902).
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// noConditions empties the conditions of a status, which may be absent.
func noConditions() operation {
	return operation{Op: "add", Path: "/status/conditions", Value: []metav1.Condition{}}
}

// patchRemoval removes fields from the status of the object with this UID. The object only
// shrinks, so its size cannot be a reason to refuse the patch. It names no resource version:
// constant edits of the object could delay a versioned patch for ever.
func patchRemoval(ctx context.Context, c client.Client, obj client.Object, operations ...operation) error {
	patch, err := json.Marshal(append([]operation{{Op: "test", Path: "/metadata/uid", Value: obj.GetUID()}}, operations...))
	if err != nil {
		return err
	}
	return c.Status().Patch(ctx, obj, client.RawPatch(types.JSONPatchType, patch))
}

// guarded is a merge patch that fails if the object has changed since before was read.
func guarded(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
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
