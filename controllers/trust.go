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
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Trust knows the TrustPolicies of the cluster, and what their authorities and
// those of spec.verify are made of. Policies are parsed once for each state of the cluster, and an
// authority once for each state of its Secrets: what is kept are public keys,
// never a Secret.
type Trust struct {
	// Client reads TrustPolicies from a cache.
	Client client.Reader
	// Secrets reads the metadata of the Secrets of Namespace from a cache.
	Secrets client.Reader
	// Live reads past the caches.
	Live client.Reader
	// Namespace of the controller, in which the Secrets of TrustPolicies are.
	Namespace string
	// Options of all authorities, those of spec.verify too.
	Options trust.Options

	mu          sync.Mutex
	state       string
	last        *inForce
	authorities map[authorityKey]authority
	owners      *lru.Cache // of ownKey; its values are of the type authority
}

// inForce are the TrustPolicies of one moment. It is never changed.
type inForce struct {
	policies *trust.Policies
	specs    map[string]*v1alpha1.TrustPolicy
}

type authorityKey struct{ policy, name string }

// authority is one of a policy, or of a spec, as it was built from a state of its
// Secrets.
type authority struct {
	generation int64
	uid        types.UID
	secrets    string
	built      *trust.Authority
	err        error
}

// inForce reads the policies that are in force now.
func (t *Trust) inForce(ctx context.Context) (*inForce, error) {
	var list v1alpha1.TrustPolicyList
	if err := t.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("the TrustPolicies could not be read: %w", err)
	}
	var states []string
	for i := range list.Items {
		states = append(states, fmt.Sprintf("%s/%d", list.Items[i].UID, list.Items[i].Generation))
	}
	slices.Sort(states)
	state := strings.Join(states, " ")

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && t.state == state {
		return t.last, nil
	}
	now := &inForce{specs: map[string]*v1alpha1.TrustPolicy{}}
	parsed := make([]trust.Policy, 0, len(list.Items))
	for i := range list.Items {
		policy := list.Items[i].DeepCopy()
		now.specs[policy.Name] = policy
		parsed = append(parsed, parsePolicy(policy))
	}
	now.policies = trust.NewPolicies(parsed...)
	for key := range t.authorities {
		if now.specs[key.policy] == nil {
			delete(t.authorities, key)
		}
	}
	t.state, t.last = state, now
	return now, nil
}

// parsePolicy reads a TrustPolicy. One whose selector cannot be read governs every
// namespace that it may have been meant for.
func parsePolicy(policy *v1alpha1.TrustPolicy) trust.Policy {
	spec := policy.Spec
	parsed := trust.Policy{
		Name:         policy.Name,
		AllowNoMatch: spec.NoMatch == v1alpha1.NoMatchAllow,
		Warn:         spec.Mode == v1alpha1.ModeWarn,
	}
	var err error
	if parsed.Namespaces, err = metav1.LabelSelectorAsSelector(&spec.NamespaceSelector); err != nil {
		parsed.Namespaces, parsed.Unreadable = readable(&spec.NamespaceSelector), "spec.namespaceSelector cannot be read: "+fault.Line(err.Error())
	}
	for _, image := range spec.Images {
		parsed.Images = append(parsed.Images, string(image))
	}
	for _, authority := range spec.Authorities {
		parsed.Authorities = append(parsed.Authorities, authority.Name)
	}
	for _, format := range spec.Formats {
		parsed.Formats = append(parsed.Formats, string(format))
	}
	if spec.MaxArtifactBytes != nil {
		// Less than a byte lets nothing pass, and never everything.
		parsed.MaxBytes = max(spec.MaxArtifactBytes.Value(), 1)
	}
	return parsed
}

// readable selects all namespaces that a selector may mean which cannot be read as a
// whole. A requirement that cannot be read excludes none of them, unless its key can: what
// must have one of some values must have a label of this key.
func readable(selector *metav1.LabelSelector) labels.Selector {
	requirements := slices.Clone(selector.MatchExpressions)
	for key, value := range selector.MatchLabels {
		requirements = append(requirements, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value}})
	}
	meant := labels.NewSelector()
	for _, requirement := range requirements {
		read, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{requirement}})
		if err != nil && requirement.Operator == metav1.LabelSelectorOpIn {
			present := metav1.LabelSelectorRequirement{Key: requirement.Key, Operator: metav1.LabelSelectorOpExists}
			read, err = metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{present}})
		}
		if err != nil {
			continue
		}
		parts, _ := read.Requirements()
		meant = meant.Add(parts...)
	}
	return meant
}

// decide returns what the policies demand of an image in a namespace.
func (f *inForce) decide(namespace *corev1.Namespace, rules Rules, repository string) trust.Terms {
	return f.policies.Decide(trust.Question{
		Namespace: namespace.Name, Labels: namespace.Labels, Repository: repository, Required: rules.RequireTrustPolicy,
	})
}

// rule is what a policy demands of signatures.
func (t *Trust) rule(ctx context.Context, policy *v1alpha1.TrustPolicy) trust.Rule {
	rule := trust.Rule{
		Name: trust.PolicyTitle(policy.Name), Policy: policy.Name, Strict: true, Warn: policy.Spec.Mode == v1alpha1.ModeWarn,
	}
	for _, a := range policy.Spec.Authorities {
		built, err := t.authority(ctx, policy, a)
		rule.AnyOf = append(rule.AnyOf, trust.Alternative{Name: a.Name, Authority: built, Err: err})
	}
	return rule
}

// authority returns an authority of a policy as its Secrets are now, or why
// there is none: its Secrets are missing, say nothing of use, or could not be
// read.
func (t *Trust) authority(ctx context.Context, policy *v1alpha1.TrustPolicy, a v1alpha1.TrustAuthority) (*trust.Authority, error) {
	state, err := t.secretStates(ctx, a.Verify)
	if err != nil {
		return nil, err
	}
	key := authorityKey{policy: policy.Name, name: a.Name}
	t.mu.Lock()
	known, ok := t.authorities[key]
	t.mu.Unlock()
	if ok && known.uid == policy.UID && known.generation == policy.Generation && known.secrets == state {
		return known.built, known.err
	}
	now := authority{uid: policy.UID, generation: policy.Generation}
	demand, read, err := readDemand(a.Verify, func(ref *meta.LocalObjectReference) (*corev1.Secret, error) {
		return readSecret(ctx, t.Live, types.NamespacedName{Namespace: t.Namespace, Name: ref.Name})
	})
	if err != nil {
		return nil, err
	}
	now.secrets = read
	now.built, now.err = t.build(ctx, demand)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.authorities == nil {
		t.authorities = map[authorityKey]authority{}
	}
	t.authorities[key] = now
	return now.built, now.err
}

// secretStates identifies the Secrets that an authority names as the cache of
// their metadata has them.
func (t *Trust) secretStates(ctx context.Context, verify sourcev1.OCIRepositoryVerification) (string, error) {
	var states []string
	for _, ref := range []*meta.LocalObjectReference{verify.SecretRef, verify.TrustedRootSecretRef} {
		if ref == nil {
			continue
		}
		key := types.NamespacedName{Namespace: t.Namespace, Name: ref.Name}
		seen, err := get(ctx, t.Secrets, key, SecretMetadata())
		switch {
		case err != nil:
			return "", fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s could not be read: %w", key, err)
		case seen == nil:
			return "", fault.Waitf(v1alpha1.ReasonVerificationError, "the Secret %s does not exist", key)
		}
		states = append(states, secretState(seen))
	}
	return strings.Join(states, " "), nil
}

// SecretMetadata is a Secret without what is in it.
func SecretMetadata() *metav1.PartialObjectMetadata {
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return obj
}

// StripSecret takes out of a Secret's metadata, before it is kept, what may
// repeat what is in it: kubectl apply writes that to an annotation.
func StripSecret(obj any) (any, error) {
	if secret, ok := obj.(metav1.Object); ok {
		secret.SetAnnotations(nil)
		secret.SetManagedFields(nil)
	}
	return obj, nil
}

func secretState(obj client.Object) string {
	return string(obj.GetUID()) + "/" + obj.GetResourceVersion()
}

// readSecret reads a Secret past the caches. One that does not exist may come to
// be at any time, which nobody may announce: it is a retry.
func readSecret(ctx context.Context, live client.Reader, key types.NamespacedName) (*corev1.Secret, error) {
	secret, err := get(ctx, live, key, &corev1.Secret{})
	switch {
	case err != nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s could not be read: %w", key, err)
	case secret == nil:
		return nil, fault.Retryf(v1alpha1.ReasonVerificationError, "the Secret %s does not exist", key)
	default:
		return secret, nil
	}
}

// readDemand reads what a verification asks for, with the Secrets that it names.
// The state identifies what was read of them.
func readDemand(verify sourcev1.OCIRepositoryVerification, read func(*meta.LocalObjectReference) (*corev1.Secret, error)) (demand trust.Demand, state string, err error) {
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
		secret, err := read(named.ref)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		*named.into = &trust.Secret{Name: client.ObjectKeyFromObject(secret).String(), Data: secret.Data}
		states = append(states, secretState(secret))
	}
	return demand, strings.Join(states, " "), errors.Join(failures...)
}

// build parses a demand. A panic says nothing about it.
func (t *Trust) build(ctx context.Context, demand trust.Demand) (*trust.Authority, error) {
	return contained(ctx, func(context.Context) (*trust.Authority, error) { return trust.NewAuthority(demand, t.Options) })
}

// maxOwn bounds the authorities of specs that are kept. Many objects share one. With
// expressions as costly as they may be, each takes 5 MiB.
const maxOwn = 32

// ownKey is a spec.verify with a state of its Secrets, which are of one namespace.
type ownKey struct{ namespace, verify, secrets string }

// own returns the authority of a spec.verify. It parses each state of the spec and
// its Secrets once.
func (t *Trust) own(ctx context.Context, obj *v1alpha1.ArtifactRepository) (*trust.Authority, error) {
	demand, state, err := readDemand(*obj.Spec.Verify, func(ref *meta.LocalObjectReference) (*corev1.Secret, error) {
		return readSecret(ctx, t.Live, types.NamespacedName{Namespace: obj.Namespace, Name: ref.Name})
	})
	if err != nil {
		return nil, err
	}
	verify, err := json.Marshal(obj.Spec.Verify)
	if err != nil {
		return nil, err
	}
	key := ownKey{namespace: obj.Namespace, verify: string(verify), secrets: state}
	if known, ok := t.owned().Get(key); ok {
		return known.(authority).built, known.(authority).err
	}
	built, err := t.build(ctx, demand)
	t.owned().Add(key, authority{built: built, err: err})
	return built, err
}

// owned returns the authorities of specs that are known.
func (t *Trust) owned() *lru.Cache {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.owners == nil {
		t.owners = lru.New(maxOwn)
	}
	return t.owners
}

// naming returns the policies that name a Secret of the controller's namespace.
func (t *Trust) naming(ctx context.Context, secret string) (policies []*v1alpha1.TrustPolicy) {
	now, err := t.inForce(ctx)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "objects could not be listed")
		return nil
	}
	for _, policy := range now.specs {
		if slices.ContainsFunc(policy.Spec.Authorities, func(a v1alpha1.TrustAuthority) bool {
			return nameOf(a.Verify.SecretRef) == secret || nameOf(a.Verify.TrustedRootSecretRef) == secret
		}) {
			policies = append(policies, policy)
		}
	}
	return policies
}

// check tells whether a policy can be applied as it is written: nil, or a fault
// that names every authority that cannot, and why. Notes are what is odd about
// the others.
func (t *Trust) check(ctx context.Context, policy *v1alpha1.TrustPolicy) (notes []string, err error) {
	parsed := trust.NewPolicies(parsePolicy(policy))
	if why := parsed.Unreadable(policy.Name); why != "" {
		return nil, fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s", why)
	}
	var worst *fault.Error
	var said []string
	for _, a := range policy.Spec.Authorities {
		built, err := t.authority(ctx, policy, a)
		if err == nil {
			for _, note := range built.Notes() {
				notes = append(notes, fmt.Sprintf("authority %s: %s", a.Name, note))
			}
			continue
		}
		said = append(said, fmt.Sprintf("authority %s: %s", a.Name, err))
		if failure := authorityFault(err); worst == nil || weight(failure.Class) > weight(worst.Class) {
			worst = failure
		}
	}
	if worst == nil {
		return notes, nil
	}
	return notes, &fault.Error{Reason: worst.Reason, Class: worst.Class, Err: errors.New(strings.Join(said, "; "))}
}

// authorityFault tells what helps an authority: a Secret that leaves nothing to
// verify with is watched, so that its next state announces itself.
func authorityFault(err error) *fault.Error {
	failure := *fault.Of(err, v1alpha1.ReasonVerificationError)
	if trust.VerdictOf(err) == trust.Rejected {
		failure.Class = fault.Wait
	}
	return &failure
}

// weight orders classes by what has to be done first.
func weight(class fault.Class) int {
	return slices.Index([]fault.Class{fault.Wait, fault.Retry, fault.Stall}, class)
}

// summary says what a policy does, for a person.
func summary(policy *v1alpha1.TrustPolicy) string {
	spec := policy.Spec
	verb := "enforced"
	if spec.Mode == v1alpha1.ModeWarn {
		verb = "not enforced, but warned of,"
	}
	names := make([]string, 0, len(spec.Authorities))
	for _, a := range spec.Authorities {
		names = append(names, a.Name)
	}
	demand := "no signature is demanded"
	if len(names) > 0 {
		demand = "the signature of " + strings.Join(names, " or ") + " is demanded"
	}
	return fmt.Sprintf("%s for %s: %s", verb, strings.Join(patterns(spec), ", "), demand)
}

// patterns are the first images that a policy lists.
func patterns(spec v1alpha1.TrustPolicySpec) (named []string) {
	const most = 5
	for _, image := range spec.Images[:min(len(spec.Images), most)] {
		named = append(named, string(image))
	}
	if more := len(spec.Images) - most; more > 0 {
		named = append(named, fmt.Sprintf("and %d more", more))
	}
	return named
}
