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
	"github.com/image-source/image-source-controller/pkg/fault"
)

// publisher keeps the ExternalArtifact of an ArtifactRepository equal to its
// record. The record is the truth: what stands in the ExternalArtifact is
// never read as such, because tenants may be able to edit it.
type publisher struct {
	client client.Client
	// live reads past the caches, for what they may not have seen yet.
	live client.Reader
	// labelKeys are copied to the ExternalArtifact.
	labelKeys []string
}

// confirm fails with a conflict when the record has moved on since the cache saw
// it: the cache of the ExternalArtifact may be ahead of it, and publishing an
// old record would take consumers back.
func (p publisher) confirm(ctx context.Context, obj *v1alpha1.ArtifactRepository) error {
	var now v1alpha1.ArtifactRepository
	if err := p.live.Get(ctx, client.ObjectKeyFromObject(obj), &now); err != nil {
		return err
	}
	// What else is edited, by whoever may annotate it, does not count.
	if now.UID != obj.UID || !equality.Semantic.DeepEqual(now.Status.Artifact, obj.Status.Artifact) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("artifactrepositories").GroupResource(), obj.Name,
			errors.New("the record has moved on since it was read"))
	}
	return nil
}

// publish makes the ExternalArtifact say what the record says. seen is the
// object as the cache has it, nil when there is none.
func (p publisher) publish(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) error {
	external, err := p.claim(ctx, obj, seen)
	if err != nil {
		return err
	}
	if obj.Status.Artifact == nil && metav1.IsControlledBy(external, obj) {
		// What is withdrawn does not wait for labels and references. What an owner
		// that is gone has left is adopted first, so that everybody sees why it goes.
		if err := p.patchStatus(ctx, external, obj); err != nil {
			return err
		}
		return p.patchMeta(ctx, external, obj)
	}
	if err := p.patchMeta(ctx, external, obj); err != nil {
		return err
	}
	return p.patchStatus(ctx, external, obj)
}

func (p publisher) patchMeta(ctx context.Context, external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) error {
	before := external.DeepCopy()
	if !p.writeMeta(external, obj) {
		return nil
	}
	return p.client.Patch(ctx, external, guarded(before))
}

func (p publisher) patchStatus(ctx context.Context, external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) error {
	before := external.DeepCopy()
	if !p.writeStatus(external, obj) {
		return nil
	}
	status := external.Status.DeepCopy()
	err := p.client.Status().Patch(ctx, external, guarded(before))
	if apierrors.IsConflict(err) && obj.Status.Artifact == nil {
		return withdrawal{status: status}.insist(ctx, p.client, external, err)
	}
	return err
}

// claim returns the ExternalArtifact to write to: the one that was seen, a new
// one, or one that appeared meanwhile. One of somebody else's is a conflict. A
// write to what was seen fails if another replica, that leads by now, has written
// since the record was; of what was not, the record has to be confirmed.
func (p publisher) claim(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) (*sourcev1.ExternalArtifact, error) {
	if seen == nil {
		created := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
		p.writeMeta(created, obj)
		err := p.client.Create(ctx, created)
		if err == nil {
			return created, p.confirm(ctx, obj)
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		seen = &sourcev1.ExternalArtifact{}
		if err := p.live.Get(ctx, client.ObjectKeyFromObject(obj), seen); err != nil {
			return nil, err
		}
		if err := p.confirm(ctx, obj); err != nil {
			return nil, err
		}
	}
	if !ownedBy(seen, obj) {
		return nil, nameConflict(sourcev1.ExternalArtifactKind, obj.Name)
	}
	return seen.DeepCopy(), nil
}

// withdraw deletes the ExternalArtifact, if it is ours.
func (p publisher) withdraw(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) error {
	if seen == nil || !ownedBy(seen, obj) || seen.DeletionTimestamp != nil {
		return nil
	}
	return client.IgnoreNotFound(p.client.Delete(ctx, seen, client.Preconditions{UID: &seen.UID}))
}

// matches tells whether an ExternalArtifact says what the record says.
func (p publisher) matches(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	external = external.DeepCopy()
	return !p.writeMeta(external, obj) && !p.writeStatus(external, obj)
}

// writeMeta writes owner, labels and spec, and tells whether that changed anything.
func (p publisher) writeMeta(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	changed := false
	kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind)
	if owner := metav1.GetControllerOf(external); owner == nil || owner.UID != obj.UID {
		external.OwnerReferences = append(withoutController(external.OwnerReferences), *metav1.NewControllerRef(obj, kind))
		changed = true
	}
	labels, relabelled := relabel(external.Labels, pick(obj.Labels, p.labelKeys), p.labelKeys)
	external.Labels = labels
	source := &meta.NamespacedObjectKindReference{APIVersion: kind.GroupVersion().String(), Kind: kind.Kind, Namespace: obj.Namespace, Name: obj.Name}
	if external.Spec.SourceRef == nil || *external.Spec.SourceRef != *source {
		external.Spec.SourceRef = source
		changed = true
	}
	return changed || relabelled
}

// writeStatus copies the record and its conditions, and tells whether that
// changed anything.
func (p publisher) writeStatus(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	before := external.Status.DeepCopy()
	external.Status.Artifact = obj.Status.Artifact.DeepCopy()
	for _, kind := range []string{meta.ReadyCondition, v1alpha1.SourceVerifiedCondition} {
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

// withdrawal is a status that names an artifact no longer. It is written even if
// the object is edited all the time: whoever may annotate it could delay for
// ever a patch that holds only for the version that was read.
type withdrawal struct {
	status any
	// of is the artifact that is withdrawn, where no other may be.
	of *meta.Artifact
}

// insist writes it to the object with the UID, whatever version that has now,
// after a guarded patch was a conflict. That stays the error when the object is
// another one, or names another artifact.
func (w withdrawal) insist(ctx context.Context, c client.Client, obj client.Object, conflict error) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	operations := []operation{{"test", "/metadata/uid", obj.GetUID()}}
	if w.of != nil {
		operations = append(operations,
			operation{"test", "/status/artifact/revision", w.of.Revision}, operation{"test", "/status/artifact/digest", w.of.Digest})
	}
	patch, err := json.Marshal(append(operations, operation{"add", "/status", w.status})) // RFC 6902: add replaces
	if err != nil {
		return err
	}
	if err := c.Status().Patch(ctx, obj, client.RawPatch(types.JSONPatchType, patch)); !apierrors.IsInvalid(err) {
		return err
	}
	return conflict
}

// guarded is a merge patch that fails when the object has changed since before was read.
func guarded(before client.Object) client.Patch {
	return client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
}
