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

package trustpolicy

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/lru"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// maxPlatform bounds the authorities of policies that are kept, and maxOwn those of specs,
// of which many objects share one. With expressions as costly as they may be, each takes
// 5 MiB.
const (
	maxPlatform = 1024
	maxOwn      = 32
)

// authorityKey is a verification with a state of its Secrets, which are of one namespace.
type authorityKey struct{ namespace, verify, secrets string }

func keyOf(namespace string, verify sourcev1.OCIRepositoryVerification, secrets string) (authorityKey, error) {
	text, err := json.Marshal(verify)
	return authorityKey{namespace: namespace, verify: string(text), secrets: secrets}, err
}

// authority is built from a verification and a state of its Secrets.
type authority struct {
	built *trust.Authority
	err   error
}

// rule returns the demands of a policy on signatures.
func (r *Resolver) rule(ctx context.Context, policy *v1alpha1.TrustPolicy) trust.Rule {
	rule := trust.Rule{
		Name: trust.PolicyTitle(policy.Name), Policy: policy.Name, Strict: true, Warn: policy.Spec.Mode == v1alpha1.ModeWarn,
	}
	for _, a := range policy.Spec.Authorities {
		built, err := r.authority(ctx, a.Verify)
		rule.AnyOf = append(rule.AnyOf, trust.Alternative{Name: a.Name, Authority: built, Err: err})
	}
	return rule
}

// authority returns an authority of a policy for the current state of its Secrets, or an
// error: the Secrets are missing, have no usable key, or could not be read.
func (r *Resolver) authority(ctx context.Context, verify sourcev1.OCIRepositoryVerification) (*trust.Authority, error) {
	state, err := r.secretStates(ctx, verify)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(r.Namespace, verify, state)
	if err != nil {
		return nil, err
	}
	return r.known(ctx, r.cache(&r.platform, maxPlatform), key, func() (trust.Demand, error) {
		demand, _, err := r.readDemand(ctx, r.Namespace, verify)
		return demand, err
	})
}

// own returns the authority of a spec.verify, whose Secrets have to be read to know their
// state.
func (r *Resolver) own(ctx context.Context, namespace string, verify sourcev1.OCIRepositoryVerification) (*trust.Authority, error) {
	demand, state, err := r.readDemand(ctx, namespace, verify)
	if err != nil {
		return nil, err
	}
	key, err := keyOf(namespace, verify, state)
	if err != nil {
		return nil, err
	}
	return r.known(ctx, r.cache(&r.owners, maxOwn), key, func() (trust.Demand, error) { return demand, nil })
}

func (r *Resolver) cache(kept **lru.Cache, most int) *lru.Cache {
	r.mu.Lock()
	defer r.mu.Unlock()
	if *kept == nil {
		*kept = lru.New(most)
	}
	return *kept
}

// known returns the authority of a key. It parses each once.
func (r *Resolver) known(ctx context.Context, kept *lru.Cache, key authorityKey, read func() (trust.Demand, error)) (*trust.Authority, error) {
	if known, ok := kept.Get(key); ok {
		return known.(authority).built, known.(authority).err
	}
	demand, err := read()
	if err != nil {
		return nil, err
	}
	built, err := flight.Contain(ctx, func(context.Context) (*trust.Authority, error) { return trust.NewAuthority(demand, r.Options) })
	if err != nil && r.Panicked != nil { // a panic says nothing about the demand
		err = r.Panicked(ctx, err)
	}
	kept.Add(key, authority{built: built, err: err})
	return built, err
}

// secretStates identifies the Secrets that an authority names.
func (r *Resolver) secretStates(ctx context.Context, verify sourcev1.OCIRepositoryVerification) (string, error) {
	var states []string
	for _, ref := range []*meta.LocalObjectReference{verify.SecretRef, verify.TrustedRootSecretRef} {
		if ref == nil {
			continue
		}
		state, err := r.Reader.SecretState(ctx, r.Namespace, ref.Name)
		switch {
		case err != nil:
			return "", fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s/%s could not be read: %w", r.Namespace, ref.Name, err)
		case state == "":
			return "", fault.Waitf(v1alpha1.ReasonVerificationError, "the Secret %s/%s does not exist", r.Namespace, ref.Name)
		}
		states = append(states, state)
	}
	return strings.Join(states, " "), nil
}

// StateOf identifies the content of a Secret by its metadata.
func StateOf(secret metav1.Object) string {
	return string(secret.GetUID()) + "/" + secret.GetResourceVersion()
}

// readSecret reads a Secret. A missing one is a retry: it may be created without an event
// for us.
func (r *Resolver) readSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret, err := r.Reader.Secret(ctx, namespace, name)
	switch {
	case err != nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s/%s could not be read: %w", namespace, name, err)
	case secret == nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s/%s does not exist", namespace, name)
	default:
		return secret, nil
	}
}

// readDemand reads the demand of a verification, with the Secrets that it names. The state
// identifies their content.
func (r *Resolver) readDemand(ctx context.Context, namespace string, verify sourcev1.OCIRepositoryVerification) (demand trust.Demand, state string, err error) {
	demand.Provider = verify.Provider
	for _, identity := range verify.MatchOIDCIdentity {
		demand.Identities = append(demand.Identities, trust.Identity{Issuer: identity.Issuer, Subject: identity.Subject})
	}
	var states []string
	var failures []error
	for _, named := range []struct {
		ref  *meta.LocalObjectReference
		into **trust.Secret
	}{{verify.SecretRef, &demand.Secret}, {verify.TrustedRootSecretRef, &demand.TrustedRoot}} {
		if named.ref == nil {
			continue
		}
		secret, err := r.readSecret(ctx, namespace, named.ref.Name)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		*named.into = &trust.Secret{Name: namespace + "/" + named.ref.Name, Data: secret.Data}
		states = append(states, StateOf(secret))
	}
	return demand, strings.Join(states, " "), errors.Join(failures...)
}
