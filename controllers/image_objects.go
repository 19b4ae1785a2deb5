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
	"maps"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
)

// ImageObjects generates the ImageRepository and the ImagePolicy of an ArtifactRepository
// with its own policy. Only image-reflector-controller lists and orders tags.
type ImageObjects struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Live reads past the caches, which lack objects without the labels of this shard.
	Live client.Reader
	// LabelKeys are copied to the objects.
	LabelKeys []string
}

// Ensure generates the image objects of a spec with a policy if the namespace permits
// publication, and removes them otherwise. It returns a snapshot with the new state of the
// objects. A panic ends only this step.
//
// Errors: those of the API server, and those of the names and credentials in the spec.
func (k ImageObjects) Ensure(ctx context.Context, s source.Snapshot, permission source.Permission) (source.Snapshot, error) {
	ctx, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	kept, err := contained(ctx, func(ctx context.Context) (source.Snapshot, error) {
		switch {
		case permission.Choice == source.Off || s.Object.Spec.Policy == nil:
			return s, k.remove(ctx, s)
		case permission.Choice == source.On && s.ImageConflict() == nil:
			return k.keep(ctx, s)
		default:
			return s, nil
		}
	})
	if kept.Object == nil { // it panicked
		kept = s
	}
	if err == nil || fault.Of(err, "").Reason != "" {
		return kept, err
	}
	return kept, fault.Retryf(v1alpha1.ReasonDependencyNotReady, "the ImageRepository and ImagePolicy %s could not be applied: %w", s.Object.Name, err)
}

// keep applies the image objects of the spec. The returned snapshot has them as they are
// now: their status about an older generation, or another image, does not count.
func (k ImageObjects) keep(ctx context.Context, s source.Snapshot) (source.Snapshot, error) {
	obj := s.Object
	// The scanning controller has an identity of the platform, too.
	if _, err := source.Named(obj); err != nil {
		return s, err
	}
	var err error
	s.OwnRepository, err = ensure(ctx, k, s.OwnRepository, k.repository(obj),
		func(r *imagev1.ImageRepository) *imagev1.ImageRepositorySpec { return &r.Spec })
	if err != nil {
		return s, err
	}
	s.OwnPolicy, err = ensure(ctx, k, s.OwnPolicy, k.policy(obj, s.OwnPolicy),
		func(p *imagev1.ImagePolicy) *imagev1.ImagePolicySpec { return &p.Spec })
	if err != nil {
		return s, err
	}
	s.Repository, s.Policy = s.OwnRepository, s.OwnPolicy
	if err := k.rescan(ctx, s); err != nil {
		return s, err
	}
	return s, k.reevaluate(ctx, s)
}

// ensure applies an image object, and returns it as it is then. An object of another owner
// is a conflict, and never written to.
func ensure[T, S any, P interface {
	*T
	client.Object
}](ctx context.Context, k ImageObjects, seen, want P, spec func(P) *S) (P, error) {
	if seen == nil {
		var err error
		if seen, err = apiserver.Get(ctx, k.Live, client.ObjectKeyFromObject(want), P(new(T))); err != nil {
			return nil, err
		}
	}
	if seen != nil {
		if !source.ControllerOf(want).Owns(seen) {
			return seen, source.NameConflict(want.GetObjectKind().GroupVersionKind().Kind, want.GetName())
		}
		if current(seen, want, k.LabelKeys) && equality.Semantic.DeepEqual(spec(seen), spec(want)) {
			return seen, nil
		}
		// Do not apply to an object that has changed since it was checked.
		want.SetResourceVersion(seen.GetResourceVersion())
	}
	applied, err := applyObject(ctx, k.Client, want)
	if err != nil {
		return seen, err
	}
	now := P(new(T))
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(applied, now); err != nil {
		return seen, err
	}
	if equality.Semantic.DeepEqual(spec(now), spec(want)) {
		return now, nil
	}
	// Fields of other owners survive a server-side apply; they would give the object another
	// meaning than the spec.
	before := now.DeepCopyObject().(P)
	*spec(now) = *spec(want)
	return now, k.Client.Patch(ctx, now, guarded(before))
}

// remove deletes the generated image objects of a removed policy.
func (k ImageObjects) remove(ctx context.Context, s source.Snapshot) error {
	var objects []client.Object
	if s.OwnPolicy != nil {
		objects = append(objects, s.OwnPolicy)
	}
	if s.OwnRepository != nil {
		objects = append(objects, s.OwnRepository)
	}
	for _, object := range objects {
		uid := object.GetUID()
		if !s.Owns(object) || object.GetDeletionTimestamp() != nil {
			continue
		}
		if err := apiserver.IgnoreAbsent(k.Client.Delete(ctx, object, client.Preconditions{UID: &uid})); err != nil {
			return err
		}
	}
	return nil
}

// rescan copies a request to reconcile to the ImageRepository: the user wants the newest
// image, so the tags have to be listed now.
func (k ImageObjects) rescan(ctx context.Context, s source.Snapshot) error {
	token := s.NewToken()
	if token == "" {
		return nil
	}
	return k.ask(ctx, s.OwnRepository, token)
}

// reevaluate requests a new evaluation of the policy if its repository scans another image
// than the picked one: image-reflector-controller evaluates it only when the list of tags
// differs.
func (k ImageObjects) reevaluate(ctx context.Context, s source.Snapshot) error {
	repository, policy := s.OwnRepository, s.OwnPolicy
	if stale, err := source.IsStale(policy, repository); err != nil || !stale {
		return err
	}
	about := "image-" + strconv.FormatInt(repository.Generation, 10) + "-"
	asked := policy.Annotations[meta.ReconcileRequestAnnotation]
	if strings.HasPrefix(asked, about) && (asked != policy.Status.LastHandledReconcileAt || !conditions.IsReady(policy)) {
		return nil
	}
	// Not requested yet, or answered from a cache without the scan.
	return k.ask(ctx, policy, about+policy.ResourceVersion)
}

// ask requests a reconcile of an image object, once for each token.
func (k ImageObjects) ask(ctx context.Context, object client.Object, token string) error {
	if object.GetAnnotations()[meta.ReconcileRequestAnnotation] == token {
		return nil
	}
	before := object.DeepCopyObject().(client.Object)
	asking := object.DeepCopyObject().(client.Object)
	asking.SetAnnotations(merge(asking.GetAnnotations(), map[string]string{meta.ReconcileRequestAnnotation: token}))
	return k.Client.Patch(ctx, asking, client.MergeFrom(before))
}

// repository is the ImageRepository of an ArtifactRepository with a policy.
func (k ImageObjects) repository(obj *v1alpha1.ArtifactRepository) *imagev1.ImageRepository {
	spec := obj.Spec
	provider := spec.Provider
	if provider == "" || spec.SecretRef != nil {
		// The default of the API server. It also gives precedence to the Secret, which
		// image-reflector-controller does not read beside a cloud provider.
		provider = "generic"
	}
	return &imagev1.ImageRepository{
		TypeMeta:   metav1.TypeMeta{APIVersion: imagev1.GroupVersion.String(), Kind: imagev1.ImageRepositoryKind},
		ObjectMeta: k.meta(obj),
		Spec: imagev1.ImageRepositorySpec{
			Image:              source.ImageName(obj),
			Interval:           metav1.Duration{Duration: source.Snapshot{Object: obj}.Interval()},
			Timeout:            spec.Timeout,
			Provider:           provider,
			SecretRef:          spec.SecretRef,
			ServiceAccountName: spec.ServiceAccountName,
			CertSecretRef:      spec.CertSecretRef,
			ProxySecretRef:     spec.ProxySecretRef,
			Insecure:           spec.Insecure,
			Suspend:            spec.Suspend,
			ExclusionList:      source.SignatureTags(),
		},
	}
}

// policy is the ImagePolicy of an ArtifactRepository with a policy. Users control its
// suspend field, as on any policy.
func (k ImageObjects) policy(obj *v1alpha1.ArtifactRepository, seen *imagev1.ImagePolicy) *imagev1.ImagePolicy {
	return &imagev1.ImagePolicy{
		TypeMeta:   metav1.TypeMeta{APIVersion: imagev1.GroupVersion.String(), Kind: imagev1.ImagePolicyKind},
		ObjectMeta: k.meta(obj),
		Spec: imagev1.ImagePolicySpec{
			ImageRepositoryRef:     meta.NamespacedObjectReference{Name: obj.Name},
			Policy:                 *obj.Spec.Policy,
			FilterTags:             obj.Spec.FilterTags,
			DigestReflectionPolicy: imagev1.ReflectNever, // the default of the API server
			Suspend:                seen != nil && seen.Spec.Suspend,
		},
	}
}

func (k ImageObjects) meta(obj *v1alpha1.ArtifactRepository) metav1.ObjectMeta {
	kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind)
	return metav1.ObjectMeta{
		Namespace:       obj.Namespace,
		Name:            obj.Name,
		Labels:          generatedLabels(obj, v1alpha1.ArtifactRepositoryKind, k.LabelKeys),
		OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(obj, kind)},
	}
}

// current reports whether an object has the wanted owner and exactly the wanted labels, of
// the keys and the label of its maker.
func current(seen, want metav1.Object, keys []string) bool {
	owner := metav1.GetControllerOf(seen)
	return owner != nil && owner.UID == metav1.GetControllerOf(want).UID &&
		maps.Equal(pick(seen.GetLabels(), append([]string{v1alpha1.MadeByLabel}, keys...)), want.GetLabels())
}

// FieldManager owns the fields that the controllers apply.
const FieldManager = "image-source-controller"

// applyObject applies an object without its status, and returns the answer of the API
// server.
func applyObject(ctx context.Context, c client.Client, object client.Object) (map[string]any, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	delete(content, "status")
	applied := &unstructured.Unstructured{Object: content}
	err = c.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner(FieldManager), client.ForceOwnership)
	return applied.Object, err
}
