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
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/access"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Target is the image that is asked for.
type Target struct {
	// Repository to publish from.
	Repository name.Repository
	// Tag to publish or, where the spec names the digest, what that is called; empty
	// with a pin.
	Tag string
	// Digest to publish, if it is known; zero: whatever Tag points at.
	Digest v1.Hash
	// KeepName tells that the tag that is published stays while Tag is another one of
	// the same digest.
	KeepName bool
	// UnseenBuild is a tag that stands for a version of a Helm chart which the policy
	// does not see; empty where no such tag is known.
	UnseenBuild string
	// Access names what opens the registry.
	Access access.References
	// Note is what a person should know beside what is published.
	Note string
	// Lender is the ImageRepository of another namespace whose access is used, as
	// namespace/name; empty where there is no such one.
	Lender string

	// picked is the pick of the policy, where Tag is an equal one that is published; nil elsewhere.
	picked *pick
}

// pick is what a policy picked from its repository.
type pick struct {
	tag    string
	digest v1.Hash
}

// Subjects are the names of the image to publish, as far as they are known.
func (t Target) Subjects() []string { return []string{t.Repository.Name(), t.Tag, t.Digest.Hex} }

// Picked returns the target with the pick of the policy, for when the equal tag that is
// published is gone; false if Tag is the pick.
func (t Target) Picked() (Target, bool) {
	if t.picked == nil {
		return t, false
	}
	t.Tag, t.Digest, t.picked, t.KeepName = t.picked.tag, t.picked.digest, nil, false
	return t, true
}

// SignatureTags are the names under which signatures, attestations and SBOMs
// are stored as tags, where a registry has no referrers API.
func SignatureTags() []string {
	return []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}
}

var isSignatureTag = regexp.MustCompile("(?:" + strings.Join(SignatureTags(), ")|(?:") + ")")

// Wanted returns the image that the spec, or its policy, asks for. With an error comes
// what is known of it.
//
// Errors: InvalidSpec (stall), DependencyNotReady (wait), AuthenticationFailed (wait).
func (s Snapshot) Wanted() (t Target, err error) {
	if s.Object.Spec.ImagePolicyRef != nil {
		err = t.followPolicy(s)
		return t, err
	}
	t, err = Named(s.Object)
	switch {
	case err != nil:
	case s.Object.Spec.Digest != "":
		err = t.pin(s)
	case s.Object.Spec.Tag != "":
		t.Tag = s.Object.Spec.Tag
	default:
		err = t.followPolicy(s)
	}
	return t, err
}

// Named returns the repository that a spec names, and what opens it. With an error comes
// what is known of it.
//
// Errors: InvalidSpec (stall).
func Named(obj *v1alpha1.ArtifactRepository) (t Target, err error) {
	if t.Repository, err = parseRepository(ImageName(obj), obj.Spec.Insecure); err != nil {
		return t, fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.image is %s, which is no repository name such as ghcr.io/org/app: %w", fault.Quote(obj.Spec.Image), err)
	}
	t.Access = accessOfSpec(obj)
	return t, t.Access.Check()
}

// ImageName is the image of a spec without the oci:// that Flux's sources write
// in front of it.
func ImageName(obj *v1alpha1.ArtifactRepository) string {
	return strings.TrimPrefix(obj.Spec.Image, "oci://")
}

// followPolicy fills in the image that the ImagePolicy picked, or that the pin
// names in its place.
func (t *Target) followPolicy(s Snapshot) error {
	obj, policy, repository := s.Object, s.Policy, s.Repository
	if policy == nil {
		return waitFor("ImagePolicy %s does not exist", PolicyName(obj))
	}
	key := RepositoryKey(policy)
	if repository == nil {
		return waitFor("the ImageRepository %s that ImagePolicy %s refers to does not exist", key, policy.Name)
	}
	var err error
	if t.Repository, err = parseRepository(repository.Spec.Image, repository.Spec.Insecure); err != nil {
		return waitFor("ImageRepository %s names the image %s, which is no repository name: %s", key, fault.Quote(repository.Spec.Image), err)
	}
	t.Access = accessOf(repository)
	if err := t.Access.Check(); err != nil {
		return err
	}
	if key.Namespace != obj.Namespace {
		t.Lender = key.String()
	}
	if obj.Spec.Digest != "" {
		return t.pin(s)
	}
	t.UnseenBuild = unseenBuild(policy.Spec, repository)
	if err := evaluated(policy); err != nil {
		return cmp.Or(unusable(obj, policy), scanFailure(repository), t.hint(err))
	}
	latest := policy.Status.LatestRef
	if !isNameOf(latest.Name, t.Repository) {
		return cmp.Or(scanFailure(repository), waitFor("ImagePolicy %s picked from %s, but its ImageRepository %s scans %s: waiting for the policy to be evaluated again (flux reconcile image policy %s -n %s)",
			policy.Name, fault.Quote(latest.Name), key, fault.Quote(repository.Spec.Image), policy.Name, policy.Namespace))
	}
	if err := t.take(policy.Name, latest); err != nil {
		return err
	}
	if isSignatureTag.MatchString(latest.Tag) {
		return waitFor("ImagePolicy %s picked the tag %s, which stores a signature: set spec.exclusionList of ImageRepository %s to ['%s']",
			policy.Name, fault.Quote(latest.Tag), key, strings.Join(SignatureTags(), "', '"))
	}
	t.stay(obj, policy)
	return nil
}

// hint adds to the reason why a policy has picked nothing how tags of charts are ordered.
func (t *Target) hint(err error) error {
	if t.UnseenBuild == "" {
		return err
	}
	return waitFor("%w; if it holds Helm charts, %s", err, BuildAdvice(t.UnseenBuild))
}

// take fills in what a policy picked. Tenants may be able to edit a policy's
// status, so what stands there is checked like any input.
func (t *Target) take(policy string, latest *imagev1.ImageRef) error {
	if !reference.IsTag(latest.Tag) {
		return waitFor("ImagePolicy %s picked the tag %s, which is no valid tag", policy, fault.Quote(latest.Tag))
	}
	t.Tag = latest.Tag
	if latest.Digest == "" {
		return nil
	}
	digest, err := reference.ParseDigest(latest.Digest)
	if err != nil {
		return waitFor("ImagePolicy %s picked the digest %s: %s", policy, fault.Quote(latest.Digest), err)
	}
	t.Digest = digest
	return nil
}

// pin fills in the digest of the spec, whatever the policy picks. The tag of a
// spec without a policy only names it.
func (t *Target) pin(s Snapshot) error {
	obj, policy := s.Object, s.Policy
	digest, err := reference.ParseDigest(obj.Spec.Digest)
	if err != nil {
		return fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.digest is %s: %w", fault.Quote(obj.Spec.Digest), err)
	}
	t.Digest, t.Tag = digest, obj.Spec.Tag
	switch {
	case PolicyName(obj) == "":
	case policy == nil || policy.Status.LatestRef == nil:
		t.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s has picked nothing", PolicyName(obj))
	default:
		t.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s would pick %s", policy.Name, fault.Words(policy.Status.LatestRef.Tag))
	}
	return nil
}

// evaluated tells whether a policy's status speaks of its current spec, and of a pick.
func evaluated(policy *imagev1.ImagePolicy) error {
	ready := apimeta.FindStatusCondition(policy.Status.Conditions, meta.ReadyCondition)
	switch {
	case ready == nil || !isCurrent(ready, policy):
		return waitFor("ImagePolicy %s has not been evaluated since it was changed", policy.Name)
	case ready.Status == "False":
		return waitFor("ImagePolicy %s is not ready: %s", policy.Name, fault.Line(ready.Message))
	case policy.Status.ObservedGeneration != policy.Generation:
		return waitFor("ImagePolicy %s has not been evaluated since it was changed", policy.Name)
	case ready.Status != "True":
		return waitFor("ImagePolicy %s is not ready: %s", policy.Name, fault.Line(ready.Message))
	case policy.Status.LatestRef == nil:
		return waitFor("ImagePolicy %s has picked nothing", policy.Name)
	default:
		return nil
	}
}

// isCurrent tells whether a condition speaks of the current spec of a policy.
// image-reflector-controller leaves status.observedGeneration behind where a policy
// picks nothing. The condition has a generation of its own.
func isCurrent(condition *metav1.Condition, policy *imagev1.ImagePolicy) bool {
	return cmp.Or(condition.ObservedGeneration, policy.Status.ObservedGeneration) == policy.Generation
}

// unusable tells that image-reflector-controller has judged the policy of a
// spec to be invalid, such as a range that is none; nil if it has not.
func unusable(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) error {
	stalled := apimeta.FindStatusCondition(policy.Status.Conditions, meta.StalledCondition)
	if obj.Spec.Policy == nil || stalled == nil || stalled.Status != "True" || !isCurrent(stalled, policy) {
		return nil
	}
	return fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.policy and spec.filterTags cannot be used: %s", fault.Line(stalled.Message))
}

// scanFailure tells why an ImageRepository cannot be scanned, nil if it can:
// the reason why a policy has picked nothing stands there and not on the policy.
func scanFailure(repository *imagev1.ImageRepository) error {
	message := scanMessage(repository)
	if message == "" {
		return nil
	}
	reason := v1alpha1.ReasonDependencyNotReady
	if isLoginFailure.MatchString(message) {
		reason = v1alpha1.ReasonAuthenticationFailed
	}
	return fault.Waitf(reason, "ImageRepository %s is not ready: %s", keyOf(repository), fault.Line(message))
}

// isLoginFailure matches how go-containerregistry, with which
// image-reflector-controller scans, words the answers 401 and 403.
var isLoginFailure = regexp.MustCompile(`\b(UNAUTHORIZED|DENIED|401 Unauthorized|403 Forbidden)\b`)

// scanMessage is what an ImageRepository says when it is not ready.
func scanMessage(repository *imagev1.ImageRepository) string {
	if ready := apimeta.FindStatusCondition(repository.Status.Conditions, meta.ReadyCondition); ready != nil && ready.Status == "False" {
		return ready.Message
	}
	return ""
}

func waitFor(format string, args ...any) error {
	return fault.Waitf(v1alpha1.ReasonDependencyNotReady, format, args...)
}

// parseRepository reads the name of a repository. Names that
// image-reflector-controller accepts and that could mean another repository are
// errors, see reference.Canonical.
func parseRepository(image string, insecure bool) (name.Repository, error) {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	return reference.Parse(image, options...)
}

// isNameOf tells whether an image in the status of a Flux object names a repository.
func isNameOf(image string, repository name.Repository) bool {
	canonical, err := reference.Canonical(image)
	return err == nil && canonical == repository.Name()
}

// accessOf names what an ImageRepository opens its registry with: what
// image-reflector-controller scans with, which reads Secrets in its namespace and
// none beside a cloud.
func accessOf(repository *imagev1.ImageRepository) access.References {
	return access.References{
		Namespace:          repository.Namespace,
		Provider:           repository.GetProvider(),
		SecretName:         nameOf(repository.Spec.SecretRef),
		ServiceAccountName: repository.Spec.ServiceAccountName,
		CertSecretName:     nameOf(repository.Spec.CertSecretRef),
		ProxySecretName:    nameOf(repository.Spec.ProxySecretRef),
		Insecure:           repository.Spec.Insecure,
	}.PreferProvider()
}

// accessOfSpec names what an ArtifactRepository opens its registry with. Its
// Secret wins over a cloud, as on an OCIRepository.
func accessOfSpec(obj *v1alpha1.ArtifactRepository) access.References {
	spec := obj.Spec
	return access.References{
		Namespace:          obj.Namespace,
		Provider:           spec.Provider,
		SecretName:         nameOf(spec.SecretRef),
		ServiceAccountName: spec.ServiceAccountName,
		CertSecretName:     nameOf(spec.CertSecretRef),
		ProxySecretName:    nameOf(spec.ProxySecretRef),
		Insecure:           spec.Insecure,
	}
}

// stay keeps the target at the tag that is published while the policy picks another one
// that is equal in its order, such as v1.0.0 for 1.0.0. image-reflector-controller
// picks any of these, at each scan another one. A tag of the same digest keeps the name
// of what is published, too: nothing is to be deployed.
func (t *Target) stay(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) {
	published := publication.Latest(obj).Tag
	if obj.Status.Artifact == nil || obj.Status.Record == nil || obj.Status.Record.Image != t.Repository.Name() ||
		published == "" || published == t.Tag || !admits(policy.Spec, published) {
		return
	}
	t.KeepName = true
	if !inOnePlace(policy.Spec, published, t.Tag) {
		return
	}
	t.picked = &pick{tag: t.Tag, digest: t.Digest}
	t.Tag, t.Digest = published, v1.Hash{}
}

// IsStale tells whether a policy picked from another image than the one that its
// repository scans now.
//
// Errors: those of reference.Parse.
func IsStale(policy *imagev1.ImagePolicy, repository *imagev1.ImageRepository) (bool, error) {
	if policy.Status.LatestRef == nil || repository.Status.ObservedGeneration != repository.Generation {
		return false, nil
	}
	parsed, err := parseRepository(repository.Spec.Image, repository.Spec.Insecure)
	if err != nil {
		return false, err
	}
	return !isNameOf(policy.Status.LatestRef.Name, parsed) && isNameOf(repository.Status.CanonicalImageName, parsed), nil
}

// SecretNames are the Secrets that a spec names.
func SecretNames(obj *v1alpha1.ArtifactRepository) (names []string) {
	refs := []*meta.LocalObjectReference{obj.Spec.SecretRef, obj.Spec.CertSecretRef, obj.Spec.ProxySecretRef}
	if verify := obj.Spec.Verify; verify != nil {
		refs = append(refs, verify.SecretRef, verify.TrustedRootSecretRef)
	}
	for _, ref := range refs {
		if name := nameOf(ref); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func keyOf(obj metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.GetName()}
}

func nameOf(ref *meta.LocalObjectReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}
