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

// Target is the requested image.
type Target struct {
	// Repository to publish from.
	Repository name.Repository
	// Tag to publish or, with a digest in the spec, only the name of this digest; empty with
	// a pin.
	Tag string
	// Digest to publish; zero if it is not known yet: then the digest of Tag.
	Digest v1.Hash
	// KeepName: the published tag stays while Tag is another tag of the same digest.
	KeepName bool
	// UnseenBuild is a tag for a version of a Helm chart that the policy does not see; empty
	// if no such tag is known.
	UnseenBuild string
	// Access to the registry.
	Access access.References
	// Note is a remark for the user beside the published image.
	Note string
	// Lender is the ImageRepository of another namespace that lends its access, as
	// namespace/name; empty if there is no such one.
	Lender string

	// picked is the pick of the policy if Tag is an equal, published tag; else nil.
	picked *pick
}

// pick is the choice of a policy.
type pick struct {
	tag    string
	digest v1.Hash
}

// Subjects are the known names of the image.
func (t Target) Subjects() []string { return []string{t.Repository.Name(), t.Tag, t.Digest.Hex} }

// Picked returns the target with the pick of the policy, for use after the equal published
// tag is gone; false if Tag is the pick.
func (t Target) Picked() (Target, bool) {
	if t.picked == nil {
		return t, false
	}
	t.Tag, t.Digest, t.picked, t.KeepName = t.picked.tag, t.picked.digest, nil, false
	return t, true
}

// SignatureTags are the names of tags that store signatures, attestations and SBOMs on a
// registry without the referrers API.
func SignatureTags() []string {
	return []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}
}

var isSignatureTag = regexp.MustCompile("(?:" + strings.Join(SignatureTags(), ")|(?:") + ")")

// Wanted returns the image that the spec or its policy names. It also returns the known part
// with an error.
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

// Named returns the repository of a spec, and its access. It also returns the known part
// with an error.
//
// Errors: InvalidSpec (stall).
func Named(obj *v1alpha1.ArtifactRepository) (t Target, err error) {
	if t.Repository, err = parseRepository(ImageName(obj), obj.Spec.Insecure); err != nil {
		return t, fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.image is %s, expected a repository name such as ghcr.io/org/app: %w", fault.Quote(obj.Spec.Image), err)
	}
	t.Access = accessOfSpec(obj)
	return t, t.Access.Check()
}

// ImageName is the image of a spec without the prefix oci:// of Flux's sources.
func ImageName(obj *v1alpha1.ArtifactRepository) string {
	return strings.TrimPrefix(obj.Spec.Image, "oci://")
}

// followPolicy fills in the pick of the ImagePolicy, or the pin in its place.
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

// hint adds the order of chart tags to the reason why a policy has picked no tag.
func (t *Target) hint(err error) error {
	if t.UnseenBuild == "" {
		return err
	}
	return waitFor("%w; if it holds Helm charts, %s", err, BuildAdvice(t.UnseenBuild))
}

// take fills in the pick of a policy. Tenants may be able to edit a policy's status: check
// it like any input.
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

// pin fills in the digest of the spec, regardless of the policy's pick. The tag of a spec
// without a policy is only its name.
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
		t.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s has picked no image", PolicyName(obj))
	default:
		t.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s would pick %s", policy.Name, fault.Words(policy.Status.LatestRef.Tag))
	}
	return nil
}

// evaluated returns an error unless a policy's status has a pick for its current spec.
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
		return waitFor("ImagePolicy %s has picked no image", policy.Name)
	default:
		return nil
	}
}

// isCurrent reports whether a condition is about the current spec of a policy.
// image-reflector-controller does not update status.observedGeneration if a policy picks no
// tag. The condition has its own generation.
func isCurrent(condition *metav1.Condition, policy *imagev1.ImagePolicy) bool {
	return cmp.Or(condition.ObservedGeneration, policy.Status.ObservedGeneration) == policy.Generation
}

// unusable returns an error if image-reflector-controller has found the policy of a spec
// invalid, such as a malformed range.
func unusable(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) error {
	stalled := apimeta.FindStatusCondition(policy.Status.Conditions, meta.StalledCondition)
	if obj.Spec.Policy == nil || stalled == nil || stalled.Status != "True" || !isCurrent(stalled, policy) {
		return nil
	}
	return fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.policy and spec.filterTags cannot be used: %s", fault.Line(stalled.Message))
}

// scanFailure returns the reason why an ImageRepository cannot be scanned; nil if it can be.
// The policy without a pick does not repeat this reason.
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

// isLoginFailure matches the messages of go-containerregistry, which
// image-reflector-controller scans with, for the answers 401 and 403.
var isLoginFailure = regexp.MustCompile(`\b(UNAUTHORIZED|DENIED|401 Unauthorized|403 Forbidden)\b`)

// scanMessage is the message of an unready ImageRepository.
func scanMessage(repository *imagev1.ImageRepository) string {
	if ready := apimeta.FindStatusCondition(repository.Status.Conditions, meta.ReadyCondition); ready != nil && ready.Status == "False" {
		return ready.Message
	}
	return ""
}

func waitFor(format string, args ...any) error {
	return fault.Waitf(v1alpha1.ReasonDependencyNotReady, format, args...)
}

// parseRepository reads the name of a repository. Names that image-reflector-controller
// accepts and that could mean another repository are errors, see reference.Canonical.
func parseRepository(image string, insecure bool) (name.Repository, error) {
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	return reference.Parse(image, options...)
}

// isNameOf reports whether an image in the status of a Flux object names a repository.
func isNameOf(image string, repository name.Repository) bool {
	canonical, err := reference.Canonical(image)
	return err == nil && canonical == repository.Name()
}

// accessOf returns the access of an ImageRepository, as image-reflector-controller scans
// with it: it reads Secrets in the namespace of the ImageRepository, and no Secret if a
// cloud provider is set.
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

// accessOfSpec returns the access of an ArtifactRepository. Its Secret takes precedence over
// a cloud provider, as on an OCIRepository.
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

// stay keeps the target at the published tag while the policy picks another tag of equal
// order, such as v1.0.0 for 1.0.0. image-reflector-controller picks any of these, another
// one at each scan. A tag of the same digest keeps the published name, too: there is no new
// content to deploy.
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

// IsStale reports whether a policy picked from another image than its repository scans now.
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

// SecretNames are the names of the Secrets in a spec.
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
