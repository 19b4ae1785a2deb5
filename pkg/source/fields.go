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
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// This is the one list of the fields we read of watched objects. A cache keeps only
// these fields, and an update that changes none of them starts no reconcile. Do not list a
// field without a reader, nor a new field of a new release of Flux.
//
// The result of each function shares its values with the object: a copy of a whole status
// for each event would cost more than the comparison.
//
// Cached objects are the bases of merge patches, which replace a list as a whole. Keep a
// list whole if we write to it: owner references, and the conditions of ExternalArtifacts
// and ArtifactRepositories.

// KeepNamespace returns the used fields of a Namespace. TrustPolicies
// select by any label.
func KeepNamespace(obj *corev1.Namespace) *corev1.Namespace {
	kept := corev1.Namespace{ObjectMeta: identity(&obj.ObjectMeta)}
	kept.Labels, kept.DeletionTimestamp = obj.Labels, obj.DeletionTimestamp
	return &kept
}

// KeepPolicy returns the used fields of an ImagePolicy. Its whole spec
// is compared with the spec of an ArtifactRepository.
func KeepPolicy(obj *imagev1.ImagePolicy) *imagev1.ImagePolicy {
	spec, status := obj.Spec, obj.Status
	kept := imagev1.ImagePolicy{
		ObjectMeta: owned(&obj.ObjectMeta),
		Spec: imagev1.ImagePolicySpec{
			ImageRepositoryRef:     spec.ImageRepositoryRef,
			Policy:                 spec.Policy,
			FilterTags:             spec.FilterTags,
			DigestReflectionPolicy: spec.DigestReflectionPolicy,
			Interval:               spec.Interval,
			Suspend:                spec.Suspend,
		},
		Status: imagev1.ImagePolicyStatus{
			LatestRef:              status.LatestRef,
			ObservedGeneration:     status.ObservedGeneration,
			ReconcileRequestStatus: status.ReconcileRequestStatus,
		},
	}
	for _, c := range status.Conditions {
		if c.Type == meta.ReadyCondition || c.Type == meta.StalledCondition {
			kept.Status.Conditions = append(kept.Status.Conditions, metav1.Condition{
				Type: c.Type, Status: c.Status, ObservedGeneration: c.ObservedGeneration, Message: c.Message,
			})
		}
	}
	return &kept
}

// KeepRepository returns the used fields of an ImageRepository. Its
// whole spec is compared with the spec of an ArtifactRepository. Each scan rewrites the
// status: of the conditions only the failure is kept and, of the scan result, only the
// possible versions with build metadata.
func KeepRepository(obj *imagev1.ImageRepository) *imagev1.ImageRepository {
	spec, status := obj.Spec, obj.Status
	kept := imagev1.ImageRepository{
		ObjectMeta: owned(&obj.ObjectMeta),
		Spec: imagev1.ImageRepositorySpec{
			Image:              spec.Image,
			Interval:           spec.Interval,
			Timeout:            spec.Timeout,
			SecretRef:          spec.SecretRef,
			ProxySecretRef:     spec.ProxySecretRef,
			ServiceAccountName: spec.ServiceAccountName,
			CertSecretRef:      spec.CertSecretRef,
			Suspend:            spec.Suspend,
			AccessFrom:         spec.AccessFrom,
			ExclusionList:      spec.ExclusionList,
			Provider:           spec.Provider,
			Insecure:           spec.Insecure,
		},
		Status: imagev1.ImageRepositoryStatus{
			ObservedGeneration: status.ObservedGeneration,
			CanonicalImageName: status.CanonicalImageName,
		},
	}
	for _, c := range status.Conditions {
		if c.Type == meta.ReadyCondition && c.Status == metav1.ConditionFalse {
			kept.Status.Conditions = []metav1.Condition{{Type: c.Type, Status: c.Status, Message: c.Message}}
		}
	}
	if tags := buildTags(status.LastScanResult); len(tags) > 0 {
		kept.Status.LastScanResult = &imagev1.ScanResult{LatestTags: tags}
	}
	return &kept
}

// buildTags returns the tags of a scan that may stand for versions with build metadata.
func buildTags(result *imagev1.ScanResult) (tags []string) {
	if result == nil {
		return nil
	}
	for _, tag := range result.LatestTags[:min(len(result.LatestTags), maxScanned)] {
		if reference.IsTag(tag) && versionOf(tag) != tag {
			tags = append(tags, tag)
		}
	}
	return tags
}

// KeepExternal returns the used fields of an ExternalArtifact: those to
// compare with the record of an ArtifactRepository.
func KeepExternal(obj *sourcev1.ExternalArtifact) *sourcev1.ExternalArtifact {
	kept := sourcev1.ExternalArtifact{
		ObjectMeta: owned(&obj.ObjectMeta),
		Spec:       sourcev1.ExternalArtifactSpec{SourceRef: obj.Spec.SourceRef},
		Status:     sourcev1.ExternalArtifactStatus{Artifact: obj.Status.Artifact, Conditions: obj.Status.Conditions},
	}
	return &kept
}

// KeepArtifactRepository returns the used fields of an
// ArtifactRepository. The kind is ours: spec and status are kept whole.
func KeepArtifactRepository(obj *v1alpha1.ArtifactRepository) *v1alpha1.ArtifactRepository {
	kept := v1alpha1.ArtifactRepository{ObjectMeta: owned(&obj.ObjectMeta), Spec: obj.Spec, Status: obj.Status}
	kept.CreationTimestamp, kept.Finalizers = obj.CreationTimestamp, obj.Finalizers
	return &kept
}

// PolicyWithoutStatus returns the fields of KeepPolicy that decide whether the policy is a
// source.
func PolicyWithoutStatus(obj *imagev1.ImagePolicy) *imagev1.ImagePolicy {
	kept := KeepPolicy(obj)
	kept.Status = imagev1.ImagePolicyStatus{}
	return kept
}

// RepositoryWithoutStatus returns the fields of KeepRepository that decide about its use.
func RepositoryWithoutStatus(obj *imagev1.ImageRepository) *imagev1.ImageRepository {
	kept := KeepRepository(obj)
	kept.Status = imagev1.ImageRepositoryStatus{}
	return kept
}

// ArtifactRepositoryWithoutStatus is KeepArtifactRepository without the status, which we
// write.
func ArtifactRepositoryWithoutStatus(obj *v1alpha1.ArtifactRepository) *v1alpha1.ArtifactRepository {
	kept := KeepArtifactRepository(obj)
	kept.Status = v1alpha1.ArtifactRepositoryStatus{}
	return kept
}

// IsNews reports whether an update changed a field that keep keeps.
func IsNews[T metav1.Object](before, now T, keep func(T) T) bool {
	before, now = keep(before), keep(now)
	before.SetResourceVersion("")
	now.SetResourceVersion("")
	return !equality.Semantic.DeepEqual(before, now)
}

// identity returns the used metadata of every object.
func identity(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// owned returns the used metadata of objects with a possible owner.
func owned(m *metav1.ObjectMeta) metav1.ObjectMeta {
	kept := identity(m)
	kept.Generation, kept.DeletionTimestamp = m.Generation, m.DeletionTimestamp
	kept.Labels, kept.OwnerReferences = m.Labels, m.OwnerReferences
	for key, value := range m.Annotations {
		// Flux repeats the annotations of its own group in the events about an object.
		if key == v1alpha1.UseAsSource || key == meta.ReconcileRequestAnnotation || strings.HasPrefix(key, eventv1.Group+"/") {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[key] = value
		}
	}
	return kept
}
