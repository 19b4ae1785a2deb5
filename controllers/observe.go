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
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/acl"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Surroundings are the objects around a policy or an ArtifactRepository that
// decide what becomes of it. What does not exist is nil.
type Surroundings struct {
	Namespace  *corev1.Namespace
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

	// trust are the TrustPolicies that are in force.
	trust *trustpolicy.InForce
	// lent are the facts about the ImageRepository of another namespace by whose access
	// the published content was fetched; nil if there is no such one.
	lent *repositoryMarkings
}

// markings returns the facts of an opt-in decision.
func (s Surroundings) markings() markings {
	marks := markings{Repository: repositoryMarkings{Missing: s.Repository == nil}}
	if s.Namespace != nil {
		marks.Namespace = markOf(s.Namespace.Labels)
	}
	if s.Policy != nil {
		marks.Policy = markOf(s.Policy.Annotations)
		marks.PolicyOwned = madeBy(s.Policy, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind).GroupKind())
		marks.Repository.Foreign = repositoryKey(s.Policy).Namespace != s.Policy.Namespace
	}
	if s.Repository != nil {
		marks.Repository.Mark = markOf(s.Repository.Annotations)
		marks.Repository.Admits = s.Admitted
	}
	return marks
}

// observer reads the surroundings of objects from the caches.
type observer struct {
	client client.Client
	rules  Rules
	// trust tells which TrustPolicies are in force; nil: they are not asked for.
	trust *trustpolicy.Resolver
}

// aroundPolicy reads what surrounds an ImagePolicy.
func (o observer) aroundPolicy(ctx context.Context, policy *imagev1.ImagePolicy) (Surroundings, error) {
	s := Surroundings{Policy: policy}
	var err error
	if s.Namespace, err = apiserver.Get(ctx, o.client, types.NamespacedName{Name: policy.Namespace}, &corev1.Namespace{}); err != nil {
		return s, err
	}
	key := repositoryKey(policy)
	if r := o.rules; r.NoCrossNamespaceRefs && key.Namespace != policy.Namespace {
		return s, nil // it has no say, and may be outside of what is watched
	}
	if s.Repository, err = apiserver.Get(ctx, o.client, key, &imagev1.ImageRepository{}); err != nil || s.Repository == nil {
		return s, err
	}
	s.Admitted, err = o.admitted(ctx, policy, s.Repository)
	return s, err
}

// maxSelectors bounds the labels and selectors of an accessFrom that is read. The schema
// of an ImageRepository has no limits, and each look at a source reads one or two.
const maxSelectors = 1000

// admitted tells whether the accessFrom of an ImageRepository lets an object in. One with
// more than maxSelectors labels and selectors lets nobody in.
func (o observer) admitted(ctx context.Context, obj client.Object, repository *imagev1.ImageRepository) (bool, error) {
	if from := repository.Spec.AccessFrom; from != nil && obj.GetNamespace() != repository.Namespace {
		count := len(from.NamespaceSelectors)
		for _, selector := range from.NamespaceSelectors {
			count += len(selector.MatchLabels)
		}
		if count > maxSelectors {
			return false, nil
		}
	}
	err := acl.NewAuthorization(o.client).HasAccessToRef(ctx, obj, client.ObjectKeyFromObject(repository), repository.Spec.AccessFrom)
	if refused(err) {
		return false, nil
	}
	return err == nil, err
}

// refused tells that accessFrom does not let a namespace in, and not that this
// could not be found out. Labels that no namespace can have let nobody in: were
// they an error, whoever writes them could keep published what is to be withdrawn.
func refused(err error) bool {
	_, denied := errors.AsType[acl.AccessDeniedError](err)
	_, unreadable := errors.AsType[utilerrors.Aggregate](err)
	return denied || unreadable
}

// aroundArtifactRepository reads what surrounds an ArtifactRepository.
func (o observer) aroundArtifactRepository(ctx context.Context, obj *v1alpha1.ArtifactRepository) (Surroundings, error) {
	var s Surroundings
	var err error
	if ref := obj.Spec.ImagePolicyRef; ref != nil {
		policy, err := apiserver.Get(ctx, o.client, types.NamespacedName{Namespace: obj.Namespace, Name: ref.Name}, &imagev1.ImagePolicy{})
		if err != nil {
			return s, err
		}
		if policy != nil {
			if s, err = o.aroundPolicy(ctx, policy); err != nil {
				return s, err
			}
		}
	}
	key := client.ObjectKeyFromObject(obj)
	if s.OwnPolicy, err = apiserver.Get(ctx, o.client, key, &imagev1.ImagePolicy{}); err != nil {
		return s, err
	}
	if s.OwnRepository, err = apiserver.Get(ctx, o.client, key, &imagev1.ImageRepository{}); err != nil {
		return s, err
	}
	if obj.Spec.Policy != nil {
		s.followOwn(obj)
	}
	if s.Namespace == nil {
		if s.Namespace, err = apiserver.Get(ctx, o.client, types.NamespacedName{Name: obj.Namespace}, &corev1.Namespace{}); err != nil {
			return s, err
		}
	}
	if s.lent, err = o.lender(ctx, obj); err != nil {
		return s, err
	}
	if s.External, err = apiserver.Get(ctx, o.client, key, &sourcev1.ExternalArtifact{}); err != nil || o.trust == nil {
		return s, err
	}
	s.trust, err = o.trust.InForce(ctx)
	return s, err
}

// lender reads the ImageRepository by whose access the published content was fetched. A
// spec that no longer refers to it keeps its content only with its owner's consent.
func (o observer) lender(ctx context.Context, obj *v1alpha1.ArtifactRepository) (*repositoryMarkings, error) {
	if obj.Status.Record == nil || obj.Status.Record.ImageRepository == "" {
		return nil, nil
	}
	marks := &repositoryMarkings{Foreign: true, Missing: true}
	if o.rules.NoCrossNamespaceRefs {
		return marks, nil
	}
	namespace, name, _ := strings.Cut(obj.Status.Record.ImageRepository, "/")
	key := types.NamespacedName{Namespace: namespace, Name: name}
	repository, err := apiserver.Get(ctx, o.client, key, &imagev1.ImageRepository{})
	if err != nil || repository == nil {
		return marks, err
	}
	marks.Missing, marks.Mark = false, markOf(repository.Annotations)
	marks.Admits, err = o.admitted(ctx, obj, repository)
	return marks, err
}

// followOwn makes the image objects that are kept for an ArtifactRepository
// those that it follows, whatever they refer to.
func (s *Surroundings) followOwn(obj *v1alpha1.ArtifactRepository) {
	if s.OwnPolicy != nil && keptFor(s.OwnPolicy, obj) {
		s.Policy = s.OwnPolicy
	}
	if s.OwnRepository != nil && keptFor(s.OwnRepository, obj) {
		s.Repository = s.OwnRepository
	}
}

// policyName is the ImagePolicy that an ArtifactRepository follows: the one it
// refers to, or the one that is kept for it; empty when it follows none.
func policyName(obj *v1alpha1.ArtifactRepository) string {
	switch {
	case obj.Spec.ImagePolicyRef != nil:
		return obj.Spec.ImagePolicyRef.Name
	case obj.Spec.Policy != nil:
		return obj.Name
	default:
		return ""
	}
}

// repositoryKey is where the ImageRepository of a policy lives.
func repositoryKey(policy *imagev1.ImagePolicy) types.NamespacedName {
	ref := policy.Spec.ImageRepositoryRef
	if ref.Namespace == "" {
		return types.NamespacedName{Namespace: policy.Namespace, Name: ref.Name}
	}
	return types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
}
