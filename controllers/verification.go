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
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// demands is what is asked of the signatures of one object's images.
type demands struct {
	rules []trust.Rule
	// fingerprint of the keys, identities, roots and rules in effect; empty when
	// nothing is asked.
	fingerprint string
	// err is why it cannot be read.
	err error
}

// verifier applies the demands to the images of a repository.
func (d demands) verifier(repository trust.Repository) trust.Verifier {
	switch {
	case d.err != nil:
		return refusal{d.err}
	case len(d.rules) == 0:
		return trust.NoDemands{}
	default:
		return trust.NewRules(repository, d.rules...)
	}
}

// judgement is what came of judging again what is published.
type judgement struct {
	// rejected tells that it must not stay published.
	rejected bool
	// by names who verified it now; with fingerprint, when it was accepted.
	by, fingerprint string
	// err is why it is not accepted.
	err error
	// wait is when to judge; zero when it was done.
	wait time.Duration
}

// refusal is the Verifier of demands that cannot be read: it accepts nothing.
type refusal struct{ err error }

// Verify implements trust.Verifier.
func (r refusal) Verify(context.Context, trust.Subject) (trust.Verified, error) {
	return trust.Verified{}, r.err
}

// demands reads what an object asks of signatures. Secrets that cannot be read
// make a rule that cannot be met, not an error: what is published stays then.
func (r *ArtifactRepositoryReconciler) demands(ctx context.Context, obj *v1alpha1.ArtifactRepository) demands {
	verify := obj.Spec.Verify
	if verify == nil {
		return demands{}
	}
	demand := trust.Demand{Provider: verify.Provider}
	for _, identity := range verify.MatchOIDCIdentity {
		demand.Identities = append(demand.Identities, trust.Identity{Issuer: identity.Issuer, Subject: identity.Subject})
	}
	var authority *trust.Authority
	var err, rootErr error
	demand.Secret, err = r.trustSecret(ctx, obj, verify.SecretRef)
	demand.TrustedRoot, rootErr = r.trustSecret(ctx, obj, verify.TrustedRootSecretRef)
	if err = errors.Join(err, rootErr); err == nil {
		authority, err = trust.NewAuthority(demand, trust.Options{PublicRoot: r.PublicRoot})
	}
	if failure := fault.Of(err, ""); failure != nil && failure.Class == fault.Stall {
		return demands{err: err}
	}
	rules := []trust.Rule{{Name: "spec.verify", AnyOf: []trust.Alternative{{Authority: authority, Err: err}}}}
	return demands{rules: rules, fingerprint: trust.NewRules(nil, rules...).Fingerprint()}
}

// trustSecret reads a Secret with keys or roots in the namespace of the object
// that names it; nil when it names none.
func (r *ArtifactRepositoryReconciler) trustSecret(ctx context.Context, obj *v1alpha1.ArtifactRepository, ref *meta.LocalObjectReference) (*trust.Secret, error) {
	if ref == nil {
		return nil, nil
	}
	key := types.NamespacedName{Namespace: obj.Namespace, Name: ref.Name}
	secret, err := get(ctx, r.Live, key, &corev1.Secret{})
	switch {
	case err != nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s that spec.verify names could not be read: %w", key, err)
	case secret == nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s that spec.verify names does not exist", key)
	default:
		return &trust.Secret{Name: key.String(), Data: secret.Data}, nil
	}
}

// rejudge judges what is published again when what is asked of signatures is no
// longer what accepted it: a key was rotated, an identity changed, a signature
// is asked for that was not. It needs no new image.
func (r *ArtifactRepositoryReconciler) rejudge(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, asked demands) (made *judgement) {
	published := publishedBy(obj)
	if published == nil || asked.fingerprint == obj.Status.ObservedTrust {
		return nil
	}
	if asked.fingerprint == "" {
		return &judgement{}
	}
	plan, err := recordedPlan(obj, around)
	if err != nil {
		return &judgement{err: err}
	}
	// Signatures are asked for by the lanes too: a registry that hangs must not
	// occupy the workers with what it once delivered.
	switch admission, wait := r.lanes.enter(plan, requested(obj, around)); admission {
	case later, putOff:
		return &judgement{wait: wait}
	case closed:
		return &judgement{err: closedLane(plan.lane())}
	case admitted:
	}
	defer func() { r.lanes.leave(plan, made.err) }()
	access, err := r.Credentials.Resolve(ctx, plan.Repository, plan.Access)
	if err != nil {
		return &judgement{err: err}
	}
	repository := r.Registry.Repository(plan.Repository, access)
	verified, err := asked.verifier(repository).Verify(ctx, trust.Subject{Repository: repository.Name(), Digest: published.Digest})
	if err != nil {
		return &judgement{err: err, rejected: trust.VerdictOf(err) == trust.Rejected}
	}
	return &judgement{by: verified.By(), fingerprint: asked.fingerprint}
}

// judge reads what is asked of signatures, and judges what is published by it.
// While a source is frozen or withdrawn, nothing is judged.
func (r *ArtifactRepositoryReconciler) judge(ctx context.Context, obj *v1alpha1.ArtifactRepository, around Surroundings, a attempt) attempt {
	a.asked = r.demands(ctx, obj)
	if a.asked.err != nil {
		if a.plan.Action == Publish {
			a.plan.Action, a.err = Refuse, a.asked.err
		}
		return a
	}
	if a.plan.Action == Publish || a.plan.Action == Refuse {
		a.judgement = r.rejudge(ctx, obj, around, a.asked)
	}
	return a
}
