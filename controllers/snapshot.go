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
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Snapshots reads the objects that decide about a source. It returns copies.
type Snapshots struct {
	// Client reads from the caches.
	Client client.Client
	// Rules of the platform.
	Rules source.Rules
	// Trust returns the TrustPolicies in force; nil: they are not read.
	Trust *trustpolicy.Resolver
}

// Snapshot reads an ArtifactRepository and its related objects. Object is nil if it does not
// exist. The objects around a deleted one do not matter, and are not read.
func (r Snapshots) Snapshot(ctx context.Context, key types.NamespacedName) (source.Snapshot, error) {
	obj, err := apiserver.Get(ctx, r.Client, key, &v1alpha1.ArtifactRepository{})
	if err != nil || obj == nil || obj.DeletionTimestamp != nil {
		return source.Snapshot{Object: obj}, err
	}
	return r.Around(ctx, obj)
}

// Around reads the objects around an ArtifactRepository.
func (r Snapshots) Around(ctx context.Context, obj *v1alpha1.ArtifactRepository) (s source.Snapshot, err error) {
	if ref := obj.Spec.ImagePolicyRef; ref != nil {
		policy, err := apiserver.Get(ctx, r.Client, types.NamespacedName{Namespace: obj.Namespace, Name: ref.Name}, &imagev1.ImagePolicy{})
		if err != nil {
			return s, err
		}
		if policy != nil {
			if s, err = r.AroundPolicy(ctx, policy); err != nil {
				return s, err
			}
		}
	}
	s.Object = obj
	key := client.ObjectKeyFromObject(obj)
	if s.OwnPolicy, err = apiserver.Get(ctx, r.Client, key, &imagev1.ImagePolicy{}); err != nil {
		return s, err
	}
	if s.OwnRepository, err = apiserver.Get(ctx, r.Client, key, &imagev1.ImageRepository{}); err != nil {
		return s, err
	}
	if obj.Spec.Policy != nil {
		s = s.FollowingOwn()
	}
	if s.Namespace == nil {
		if s.Namespace, err = apiserver.Get(ctx, r.Client, types.NamespacedName{Name: obj.Namespace}, &corev1.Namespace{}); err != nil {
			return s, err
		}
	}
	if s.Lender, err = r.lender(ctx, obj); err != nil {
		return s, err
	}
	if s.External, err = apiserver.Get(ctx, r.Client, key, &sourcev1.ExternalArtifact{}); err != nil || r.Trust == nil {
		return s, err
	}
	s.Trust, err = r.Trust.InForce(ctx)
	return s, err
}

// platform reads the demands of the platform in a namespace.
func (r Snapshots) platform(ctx context.Context, namespace string) (s source.Snapshot, err error) {
	if s.Trust, err = r.Trust.InForce(ctx); err != nil {
		return s, err
	}
	s.Namespace, err = apiserver.Get(ctx, r.Client, types.NamespacedName{Name: namespace}, &corev1.Namespace{})
	return s, err
}

// AroundPolicy reads the objects around an ImagePolicy.
func (r Snapshots) AroundPolicy(ctx context.Context, policy *imagev1.ImagePolicy) (source.Snapshot, error) {
	s := source.Snapshot{Policy: policy}
	var err error
	if s.Namespace, err = apiserver.Get(ctx, r.Client, types.NamespacedName{Name: policy.Namespace}, &corev1.Namespace{}); err != nil {
		return s, err
	}
	key := source.RepositoryKey(policy)
	if r.Rules.NoCrossNamespaceRefs && key.Namespace != policy.Namespace {
		return s, nil // it does not count, and the cache may not have it
	}
	if s.Repository, err = apiserver.Get(ctx, r.Client, key, &imagev1.ImageRepository{}); err != nil || s.Repository == nil {
		return s, err
	}
	s.Admitted, err = r.admitted(ctx, policy, s.Repository)
	return s, err
}

// maxSelectors bounds the labels and selectors of an accessFrom. The schema of an
// ImageRepository has no limits, and each reconcile of a source reads one or two.
const maxSelectors = 1000

// admitted reports whether the accessFrom of an ImageRepository admits an object. One with
// more than maxSelectors labels and selectors admits no object.
func (r Snapshots) admitted(ctx context.Context, obj client.Object, repository *imagev1.ImageRepository) (bool, error) {
	if from := repository.Spec.AccessFrom; from != nil && obj.GetNamespace() != repository.Namespace {
		count := len(from.NamespaceSelectors)
		for _, selector := range from.NamespaceSelectors {
			count += len(selector.MatchLabels)
		}
		if count > maxSelectors {
			return false, nil
		}
	}
	err := acl.NewAuthorization(r.Client).HasAccessToRef(ctx, obj, client.ObjectKeyFromObject(repository), repository.Spec.AccessFrom)
	if refused(err) {
		return false, nil
	}
	return err == nil, err
}

// refused reports whether accessFrom refuses a namespace; another error leaves this open.
// Invalid labels admit no namespace: as an error, they would let their author delay a
// withdrawal.
func refused(err error) bool {
	_, denied := errors.AsType[acl.AccessDeniedError](err)
	_, unreadable := errors.AsType[utilerrors.Aggregate](err)
	return denied || unreadable
}

// lender reads the ImageRepository by whose access the published content was fetched. Even a
// spec that no longer refers to it needs the consent of its owner to keep the content.
func (r Snapshots) lender(ctx context.Context, obj *v1alpha1.ArtifactRepository) (*source.RepositoryFacts, error) {
	if obj.Status.Record == nil || obj.Status.Record.ImageRepository == "" {
		return nil, nil
	}
	facts := &source.RepositoryFacts{Foreign: true, Missing: true}
	if r.Rules.NoCrossNamespaceRefs {
		return facts, nil
	}
	namespace, name, _ := strings.Cut(obj.Status.Record.ImageRepository, "/")
	key := types.NamespacedName{Namespace: namespace, Name: name}
	repository, err := apiserver.Get(ctx, r.Client, key, &imagev1.ImageRepository{})
	if err != nil || repository == nil {
		return facts, err
	}
	facts.Missing, facts.Mark = false, source.MarkOf(repository.Annotations)
	facts.Admits, err = r.admitted(ctx, obj, repository)
	return facts, err
}
