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

// Package source computes the request of an ArtifactRepository: whether it may be a source,
// and the image to publish. It computes all of this from one Snapshot, without a cluster. It
// owns the one list of the used fields, see fields.go.
package source

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Snapshot is an ArtifactRepository, or an ImagePolicy, with all objects that decide about
// it. A missing object is nil. It is a copy: it does not point into a cache, and no method
// writes.
type Snapshot struct {
	// Object is the ArtifactRepository; nil in the snapshot of an ImagePolicy.
	Object    *v1alpha1.ArtifactRepository
	Namespace *corev1.Namespace
	// Policy and Repository are the image objects that Object follows.
	Policy     *imagev1.ImagePolicy
	Repository *imagev1.ImageRepository
	// Admitted: the ImageRepository's accessFrom admits the namespace.
	Admitted bool
	// OwnPolicy and OwnRepository are the image objects with the name of the
	// ArtifactRepository, made by any owner.
	OwnPolicy     *imagev1.ImagePolicy
	OwnRepository *imagev1.ImageRepository
	// External is the ExternalArtifact of the same name.
	External *sourcev1.ExternalArtifact
	// Trust are the TrustPolicies in force; nil if they were not read.
	Trust *trustpolicy.InForce
	// Lender has the facts about the ImageRepository of another namespace by whose access
	// the published content was fetched; nil if there is no such one.
	Lender *RepositoryFacts
}

// Usable reports whether the namespace exists and is not being deleted.
func (s Snapshot) Usable() bool {
	return s.Namespace != nil && s.Namespace.DeletionTimestamp == nil
}

// Facts returns the facts of an opt-in decision.
func (s Snapshot) Facts() Facts {
	facts := Facts{Repository: RepositoryFacts{Missing: s.Repository == nil}}
	if s.Namespace != nil {
		facts.Namespace = MarkOf(s.Namespace.Labels)
	}
	if s.Policy != nil {
		facts.Policy = MarkOf(s.Policy.Annotations)
		facts.PolicyOwned = ArtifactRepository("").Owns(s.Policy)
		facts.Repository.Foreign = RepositoryKey(s.Policy).Namespace != s.Policy.Namespace
	}
	if s.Repository != nil {
		facts.Repository.Mark = MarkOf(s.Repository.Annotations)
		facts.Repository.Admits = s.Admitted
	}
	return facts
}

// Owns reports whether an object was made for the ArtifactRepository.
func (s Snapshot) Owns(object metav1.Object) bool {
	return ArtifactRepository(s.Object.Name).Owns(object)
}

// FollowingOwn returns a snapshot that follows the image objects of the ArtifactRepository,
// regardless of their references.
func (s Snapshot) FollowingOwn() Snapshot {
	if s.OwnPolicy != nil && s.Owns(s.OwnPolicy) {
		s.Policy = s.OwnPolicy
	}
	if s.OwnRepository != nil && s.Owns(s.OwnRepository) {
		s.Repository = s.OwnRepository
	}
	return s
}

// NameConflict returns an error if an object of another owner has a name that the
// ArtifactRepository needs.
//
// Errors: NameConflict (wait).
func (s Snapshot) NameConflict() error {
	if s.External != nil && !s.Owns(s.External) {
		return NameConflict(sourcev1.ExternalArtifactKind, s.Object.Name)
	}
	return s.ImageConflict()
}

// ImageConflict is NameConflict about the image objects alone.
//
// Errors: NameConflict (wait).
func (s Snapshot) ImageConflict() error {
	switch {
	case s.Object.Spec.Policy == nil: // no image objects
		return nil
	case s.OwnRepository != nil && !s.Owns(s.OwnRepository):
		return NameConflict(imagev1.ImageRepositoryKind, s.Object.Name)
	case s.OwnPolicy != nil && !s.Owns(s.OwnPolicy):
		return NameConflict(imagev1.ImagePolicyKind, s.Object.Name)
	default:
		return nil
	}
}

// Suspended reports whether the published artifact stays as it is.
func (s Snapshot) Suspended() bool {
	return s.Object.Spec.Suspend || s.Policy != nil && s.Policy.Spec.Suspend
}

// minInterval keeps one object from occupying a worker and a registry alone.
const minInterval = time.Second

// Interval is the time between two reconciles of a source.
func (s Snapshot) Interval() time.Duration {
	switch {
	case s.Object.Spec.Interval != nil && s.Object.Spec.Interval.Duration > 0:
		return max(s.Object.Spec.Interval.Duration, minInterval)
	case s.Repository != nil && s.Repository.Spec.Interval.Duration > 0:
		return max(s.Repository.Spec.Interval.Duration, minInterval)
	default:
		return v1alpha1.DefaultInterval
	}
}

// PolicyName is the ImagePolicy that an ArtifactRepository follows, by reference or because
// it was generated; empty if it follows no policy.
func PolicyName(obj *v1alpha1.ArtifactRepository) string {
	switch {
	case obj.Spec.ImagePolicyRef != nil:
		return obj.Spec.ImagePolicyRef.Name
	case obj.Spec.Policy != nil:
		return obj.Name
	default:
		return ""
	}
}

// RepositoryKey is the name of the ImageRepository of a policy.
func RepositoryKey(policy *imagev1.ImagePolicy) types.NamespacedName {
	ref := policy.Spec.ImageRepositoryRef
	if ref.Namespace == "" {
		return types.NamespacedName{Namespace: policy.Namespace, Name: ref.Name}
	}
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}
