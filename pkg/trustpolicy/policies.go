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

// Package trustpolicy turns TrustPolicies and spec.verify into the demands on one image.
// It knows no cluster: a Reader brings TrustPolicies and Secrets.
package trustpolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/lru"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Reader reads TrustPolicies and Secrets.
type Reader interface {
	// TrustPolicies returns all TrustPolicies. The Resolver does not modify them.
	TrustPolicies(ctx context.Context) ([]v1alpha1.TrustPolicy, error)
	// SecretState identifies the content of a Secret without reading it; empty if it does
	// not exist.
	SecretState(ctx context.Context, namespace, name string) (string, error)
	// Secret reads a Secret as it is now; nil if it does not exist.
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Resolver has the TrustPolicies of the cluster, and the authorities of these and of
// spec.verify. It parses policies once for each state of the cluster, and an authority once
// for each state of its Secrets: it caches only public keys, never a Secret. It is safe for
// concurrent use.
type Resolver struct {
	// Reader reads TrustPolicies and Secrets.
	Reader Reader
	// Namespace of the Secrets of TrustPolicies.
	Namespace string
	// Options of all authorities, those of spec.verify too.
	Options trust.Options
	// Panicked converts the panic of a parser to another error; nil: it is returned as it
	// is.
	Panicked func(context.Context, error) error

	mu    sync.Mutex
	state string
	last  *InForce
	// The caches of the authorities of policies and of specs, from authorityKey to authority.
	// There are two, so that specs cannot displace the authorities of policies.
	platform, owners *lru.Cache
}

// InForce are the TrustPolicies of one moment. It is immutable.
type InForce struct {
	policies *trust.Policies
	specs    map[string]*v1alpha1.TrustPolicy
}

// InForce reads the policies that are in force now.
func (r *Resolver) InForce(ctx context.Context) (*InForce, error) {
	list, err := r.Reader.TrustPolicies(ctx)
	if err != nil {
		return nil, fmt.Errorf("the TrustPolicies could not be read: %w", err)
	}
	var states []string
	for i := range list {
		states = append(states, fmt.Sprintf("%s/%d", list[i].UID, list[i].Generation))
	}
	slices.Sort(states)
	state := strings.Join(states, " ")

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last != nil && r.state == state {
		return r.last, nil
	}
	now := &InForce{specs: map[string]*v1alpha1.TrustPolicy{}}
	parsed := make([]trust.Policy, 0, len(list))
	for i := range list {
		policy := list[i].DeepCopy()
		now.specs[policy.Name] = policy
		parsed = append(parsed, Parse(policy))
	}
	now.policies = trust.NewPolicies(parsed...)
	r.state, r.last = state, now
	return now, nil
}

// Parse parses a TrustPolicy. If its selector is invalid, it governs every namespace that
// the selector may mean.
func Parse(policy *v1alpha1.TrustPolicy) trust.Policy {
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
		// Less than a byte admits no artifact, instead of every artifact.
		parsed.MaxBytes = max(spec.MaxArtifactBytes.Value(), 1)
	}
	return parsed
}

// readable selects all namespaces that a partly invalid selector may mean. An invalid
// requirement excludes no namespace, except that the operator In excludes those without a
// label of its key.
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

// Naming returns the policies that name a Secret of the platform.
//
// Errors: those of the Reader.
func (r *Resolver) Naming(ctx context.Context, secret string) (policies []*v1alpha1.TrustPolicy, err error) {
	now, err := r.InForce(ctx)
	if err != nil {
		return nil, err
	}
	for _, policy := range now.specs {
		if slices.ContainsFunc(policy.Spec.Authorities, func(a v1alpha1.TrustAuthority) bool {
			return nameOf(a.Verify.SecretRef) == secret || nameOf(a.Verify.TrustedRootSecretRef) == secret
		}) {
			policies = append(policies, policy)
		}
	}
	return policies, nil
}

func nameOf(ref *meta.LocalObjectReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}

// Check returns an error unless a policy can be applied as it is: a fault that names every
// unusable authority with the reason. Notes are remarks about the usable ones.
func (r *Resolver) Check(ctx context.Context, policy *v1alpha1.TrustPolicy) (notes []string, err error) {
	if why := Parse(policy).Check(); why != "" {
		return nil, fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s", why)
	}
	var worst *fault.Error
	var said []string
	for _, a := range policy.Spec.Authorities {
		built, err := r.authority(ctx, a.Verify)
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

// authorityFault returns the fault of an authority. A Secret without a usable key is a wait:
// its next change is watched.
func authorityFault(err error) *fault.Error {
	failure := *fault.Of(err, v1alpha1.ReasonVerificationError)
	if trust.VerdictOf(err) == trust.Rejected {
		failure.Class = fault.Wait
	}
	return &failure
}

// weight orders classes by urgency.
func weight(class fault.Class) int {
	return slices.Index([]fault.Class{fault.Wait, fault.Retry, fault.Stall}, class)
}

// Summary describes the effect of a policy for the user.
func Summary(policy *v1alpha1.TrustPolicy) string {
	parsed := Parse(policy)
	verb := "enforced"
	if parsed.Warn {
		verb = "not enforced (mode Warn)"
	}
	demand := "no signature is demanded"
	if len(parsed.Authorities) > 0 {
		demand = "the signature of " + strings.Join(parsed.Authorities, " or ") + " is demanded"
	}
	const most = 5
	images := parsed.Images
	if more := len(images) - most; more > 0 {
		images = append(images[:most], fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%s for %s: %s", verb, strings.Join(images, ", "), demand)
}
