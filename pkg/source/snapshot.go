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

// Package source tells what an ArtifactRepository asks for: whether it may be a source,
// and which image it publishes. All of it is computed from one Snapshot, without a
// cluster. It owns the one list of the fields that are read, see fields.go.
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

// Snapshot is an ArtifactRepository, or an ImagePolicy, and the objects that decide what
// becomes of it. What does not exist is nil. It is a copy: nothing in it points into a
// cache, and no method writes.
type Snapshot struct {
	// Object is the ArtifactRepository; nil in the snapshot of an ImagePolicy.
	Object    *v1alpha1.ArtifactRepository
	Namespace *corev1.Namespace
	// Policy and Repository are the image objects that Object follows.
	Policy     *imagev1.ImagePolicy
	Repository *imagev1.ImageRepository
	// Admitted tells that the ImageRepository's accessFrom lets the namespace in.
	Admitted bool
	// OwnPolicy and OwnRepository are the image objects that have the name of
	// the ArtifactRepository, whoever made them.
	OwnPolicy     *imagev1.ImagePolicy
	OwnRepository *imagev1.ImageRepository
	// External is the ExternalArtifact of the same name.
	External *sourcev1.ExternalArtifact
	// Trust are the TrustPolicies that are in force; nil: they were not asked for.
	Trust *trustpolicy.InForce
	// Lender are the facts about the ImageRepository of another namespace by whose access
	// the published content was fetched; nil if there is no such one.
	Lender *RepositoryFacts
}

// Usable tells whether the namespace is there, and stays.
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

// Owns tells whether an object was made for the ArtifactRepository.
func (s Snapshot) Owns(object metav1.Object) bool {
	return ArtifactRepository(s.Object.Name).Owns(object)
}

// FollowingOwn returns a snapshot in which the image objects that are kept for the
// ArtifactRepository are those that it follows, whatever they refer to.
func (s Snapshot) FollowingOwn() Snapshot {
	if s.OwnPolicy != nil && s.Owns(s.OwnPolicy) {
		s.Policy = s.OwnPolicy
	}
	if s.OwnRepository != nil && s.Owns(s.OwnRepository) {
		s.Repository = s.OwnRepository
	}
	return s
}

// NameConflict says that an object of somebody else's has a name that the
// ArtifactRepository needs; nil if there is no such one.
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
	case s.Object.Spec.Policy == nil: // it needs none
		return nil
	case s.OwnRepository != nil && !s.Owns(s.OwnRepository):
		return NameConflict(imagev1.ImageRepositoryKind, s.Object.Name)
	case s.OwnPolicy != nil && !s.Owns(s.OwnPolicy):
		return NameConflict(imagev1.ImagePolicyKind, s.Object.Name)
	default:
		return nil
	}
}

// Suspended tells whether what is published stays as it is.
func (s Snapshot) Suspended() bool {
	return s.Object.Spec.Suspend || s.Policy != nil && s.Policy.Spec.Suspend
}

// minInterval keeps one object from occupying a worker and a registry by
// itself.
const minInterval = time.Second

// Interval is the time between two looks at a source.
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

// PolicyName is the ImagePolicy that an ArtifactRepository follows: the one it
// refers to, or the one that is kept for it; empty when it follows none.
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

// RepositoryKey is where the ImageRepository of a policy lives.
func RepositoryKey(policy *imagev1.ImagePolicy) types.NamespacedName {
	ref := policy.Spec.ImageRepositoryRef
	if ref.Namespace == "" {
		return types.NamespacedName{Namespace: policy.Namespace, Name: ref.Name}
	}
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}
