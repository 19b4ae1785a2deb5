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
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Action is what a plan comes to.
type Action int

const (
	// Publish the image that the plan names.
	Publish Action = iota
	// Freeze what is published: it is kept whole, and nothing is asked for.
	Freeze
	// Withdraw what is published.
	Withdraw
	// Refuse to go on; what is published stays.
	Refuse
)

// Plan is what an ArtifactRepository asks for, as far as objects tell.
type Plan struct {
	// Action to take.
	Action Action
	// Why it is not Publish: a fault, or nil for Freeze.
	Why error
	// Interval until the next look.
	Interval time.Duration
	// Timeout of one attempt.
	Timeout time.Duration
	// Repository to publish from.
	Repository name.Repository
	// Tag to publish or, where the spec names the digest, what that is called; empty
	// with a pin.
	Tag string
	// Digest to publish, if it is known; zero: whatever Tag points at.
	Digest v1.Hash
	naming
	// Access names what opens the registry.
	Access credentials.References
	// Judges tells that the published image is judged by the rules of the platform, in the
	// time of the platform.
	Judges bool
	// Note is what a person should know beside what is published.
	Note string
	// lender is the ImageRepository of another namespace whose access is used, as
	// namespace/name; empty where there is no such one.
	lender string
}

// naming tells how the tags of an image are treated.
type naming struct {
	// KeepName tells that the tag that is published stays while Tag is another one of
	// the same digest.
	KeepName bool
	// UnseenBuild is a tag that stands for a version of a Helm chart which the policy
	// does not see; empty where no such tag is known.
	UnseenBuild string
	// picked is the pick of the policy, where Tag is an equal one that is published; nil elsewhere.
	picked *pickedImage
}

// subjects are the names of the image to publish, as far as they are known.
func (p Plan) subjects() []string { return []string{p.Repository.Name(), p.Tag, p.Digest.Hex} }

// signatureTags are the names under which signatures, attestations and SBOMs
// are stored as tags, where a registry has no referrers API.
var signatureTags = []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}

var isSignatureTag = regexp.MustCompile("(?:" + strings.Join(signatureTags, ")|(?:") + ")")

// Plan tells what an ArtifactRepository asks for. It is a pure function of the
// objects.
func (r Rules) Plan(obj *v1alpha1.ArtifactRepository, around Surroundings) Plan {
	plan := Plan{Interval: interval(obj, around.Repository), Timeout: obj.GetTimeout()}
	stop := func(action Action, why error) Plan {
		plan.Action, plan.Why = action, why
		return plan
	}
	permission := r.permission(obj, around)
	switch {
	case permission.Choice == choiceOff:
		if permission.Lent {
			plan.Interval = conflictDelay // the interval of the spec has its turn when this is gone
		}
		return stop(Withdraw, fault.Waitf(v1alpha1.ReasonAccessDenied, "%s", permission.Why))
	case permission.Choice == choiceKeep && (around.Repository != nil || obj.Spec.ImagePolicyRef == nil):
		return stop(Refuse, fault.Waitf(v1alpha1.ReasonAccessDenied, "%s", permission.Why))
	case around.External != nil && !ownedBy(around.External, obj):
		return stop(Refuse, nameConflict(sourcev1.ExternalArtifactKind, obj.Name))
	case obj.Spec.Policy != nil && foreignImageObject(obj, around) != "":
		return stop(Refuse, nameConflict(foreignImageObject(obj, around), obj.Name))
	}
	if obj.Spec.Suspend || around.Policy != nil && around.Policy.Spec.Suspend {
		return stop(Freeze, nil)
	}
	if err := plan.choose(obj, around); err != nil {
		return stop(Refuse, err)
	}
	return plan
}

// choose fills in the image to publish.
func (p *Plan) choose(obj *v1alpha1.ArtifactRepository, around Surroundings) error {
	if obj.Spec.ImagePolicyRef != nil {
		return p.followPolicy(obj, around)
	}
	var err error
	if p.Repository, err = repositoryOf(obj); err != nil {
		return err
	}
	p.Access = accessOfSpec(obj)
	if err := p.Access.Check(); err != nil {
		return err
	}
	switch {
	case obj.Spec.Digest != "":
		return p.pin(obj, around.Policy)
	case obj.Spec.Tag != "":
		p.Tag = obj.Spec.Tag
		return nil
	default:
		return p.followPolicy(obj, around)
	}
}

// repositoryOf returns the repository that a spec names.
func repositoryOf(obj *v1alpha1.ArtifactRepository) (name.Repository, error) {
	repository, err := parseRepository(imageName(obj), obj.Spec.Insecure)
	if err != nil {
		return repository, fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.image is %s, which is no repository name such as ghcr.io/org/app: %w", fault.Quote(obj.Spec.Image), err)
	}
	return repository, nil
}

// permission tells whether anything may be published from these surroundings.
// Where the spec names the image, only the namespace has a say, and the owner of the
// access by which the published content was fetched.
func (r Rules) permission(obj *v1alpha1.ArtifactRepository, around Surroundings) decision {
	marks := around.markings()
	followed := r.decideNamespace(marks.Namespace)
	if around.Policy != nil && obj.Spec.ImagePolicyRef != nil {
		followed = r.decidePermission(marks)
	}
	if around.lent == nil || followed.Choice == choiceOff {
		return followed
	}
	if consent := r.consent(*around.lent); consent.Choice == choiceOff {
		return decision{Choice: choiceOff, Lent: true, Why: fmt.Sprintf(
			"what is published was fetched by the access of ImageRepository %s, which no longer allows it: %s", obj.Status.Record.ImageRepository, consent.Why)}
	}
	return followed
}

// followPolicy fills in the image that the ImagePolicy picked, or that the pin
// names in its place.
func (p *Plan) followPolicy(obj *v1alpha1.ArtifactRepository, around Surroundings) error {
	policy, repository := around.Policy, around.Repository
	if policy == nil {
		return waitFor("ImagePolicy %s does not exist", policyName(obj))
	}
	key := repositoryKey(policy)
	if repository == nil {
		return waitFor("the ImageRepository %s that ImagePolicy %s refers to does not exist", key, policy.Name)
	}
	var err error
	if p.Repository, err = parseRepository(repository.Spec.Image, repository.Spec.Insecure); err != nil {
		return waitFor("ImageRepository %s names the image %s, which is no repository name: %s", key, fault.Quote(repository.Spec.Image), err)
	}
	p.Access = accessOf(repository)
	if err := p.Access.Check(); err != nil {
		return err
	}
	if key.Namespace != obj.Namespace {
		p.lender = key.String()
	}
	if obj.Spec.Digest != "" {
		return p.pin(obj, policy)
	}
	p.UnseenBuild = unseenBuild(policy.Spec, repository)
	if err := evaluated(policy); err != nil {
		return cmp.Or(unusable(obj, policy), scanFailure(repository), p.hint(err))
	}
	latest := policy.Status.LatestRef
	if !isNameOf(latest.Name, p.Repository) {
		return cmp.Or(scanFailure(repository), waitFor("ImagePolicy %s picked from %s, but its ImageRepository %s scans %s: waiting for the policy to be evaluated again (flux reconcile image policy %s -n %s)",
			policy.Name, fault.Quote(latest.Name), key, fault.Quote(repository.Spec.Image), policy.Name, policy.Namespace))
	}
	if err := p.pick(policy.Name, latest); err != nil {
		return err
	}
	if isSignatureTag.MatchString(latest.Tag) {
		return waitFor("ImagePolicy %s picked the tag %s, which stores a signature: set spec.exclusionList of ImageRepository %s to ['%s']",
			policy.Name, fault.Quote(latest.Tag), key, strings.Join(signatureTags, "', '"))
	}
	p.stay(obj, policy)
	return nil
}

// hint adds to the reason why a policy has picked nothing how tags of charts are ordered.
func (p *Plan) hint(err error) error {
	if p.UnseenBuild == "" {
		return err
	}
	return waitFor("%w; if it holds Helm charts, %s", err, buildAdvice(p.UnseenBuild))
}

// pick fills in what a policy picked. Tenants may be able to edit a policy's
// status, so what stands there is checked like any input.
func (p *Plan) pick(policy string, latest *imagev1.ImageRef) error {
	if !reference.IsTag(latest.Tag) {
		return waitFor("ImagePolicy %s picked the tag %s, which is no valid tag", policy, fault.Quote(latest.Tag))
	}
	p.Tag = latest.Tag
	if latest.Digest == "" {
		return nil
	}
	digest, err := reference.ParseDigest(latest.Digest)
	if err != nil {
		return waitFor("ImagePolicy %s picked the digest %s: %s", policy, fault.Quote(latest.Digest), err)
	}
	p.Digest = digest
	return nil
}

// pin fills in the digest of the spec, whatever the policy picks. The tag of a
// spec without a policy only names it.
func (p *Plan) pin(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) error {
	digest, err := reference.ParseDigest(obj.Spec.Digest)
	if err != nil {
		return fault.Stallf(v1alpha1.ReasonInvalidSpec, "spec.digest is %s: %w", fault.Quote(obj.Spec.Digest), err)
	}
	p.Digest, p.Tag = digest, obj.Spec.Tag
	switch {
	case policyName(obj) == "":
	case policy == nil || policy.Status.LatestRef == nil:
		p.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s has picked nothing", policyName(obj))
	default:
		p.Note = fmt.Sprintf("pinned by spec.digest; ImagePolicy %s would pick %s", policy.Name, fault.Words(policy.Status.LatestRef.Tag))
	}
	return nil
}

// evaluated tells whether a policy's status speaks of its current spec, and of a pick.
func evaluated(policy *imagev1.ImagePolicy) error {
	ready := conditions.Get(policy, meta.ReadyCondition)
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
	stalled := conditions.Get(policy, meta.StalledCondition)
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
	return fault.Waitf(reason, "ImageRepository %s is not ready: %s", client.ObjectKeyFromObject(repository), fault.Line(message))
}

// isLoginFailure matches how go-containerregistry, with which
// image-reflector-controller scans, words the answers 401 and 403.
var isLoginFailure = regexp.MustCompile(`\b(UNAUTHORIZED|DENIED|401 Unauthorized|403 Forbidden)\b`)

// scanMessage is what an ImageRepository says when it is not ready.
func scanMessage(repository *imagev1.ImageRepository) string {
	if ready := conditions.Get(repository, meta.ReadyCondition); ready != nil && ready.Status == "False" {
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
func accessOf(repository *imagev1.ImageRepository) credentials.References {
	return credentials.References{
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
func accessOfSpec(obj *v1alpha1.ArtifactRepository) credentials.References {
	spec := obj.Spec
	return credentials.References{
		Namespace:          obj.Namespace,
		Provider:           spec.Provider,
		SecretName:         nameOf(spec.SecretRef),
		ServiceAccountName: spec.ServiceAccountName,
		CertSecretName:     nameOf(spec.CertSecretRef),
		ProxySecretName:    nameOf(spec.ProxySecretRef),
		Insecure:           spec.Insecure,
	}
}

// minInterval keeps one object from occupying a worker and a registry by
// itself.
const minInterval = time.Second

// interval is the time between two looks at a source.
func interval(obj *v1alpha1.ArtifactRepository, repository *imagev1.ImageRepository) time.Duration {
	switch {
	case obj.Spec.Interval != nil && obj.Spec.Interval.Duration > 0:
		return max(obj.Spec.Interval.Duration, minInterval)
	case repository != nil && repository.Spec.Interval.Duration > 0:
		return max(repository.Spec.Interval.Duration, minInterval)
	default:
		return v1alpha1.DefaultInterval
	}
}

// imageName is the image of a spec without the oci:// that Flux's sources write
// in front of it.
func imageName(obj *v1alpha1.ArtifactRepository) string {
	return strings.TrimPrefix(obj.Spec.Image, "oci://")
}

// foreignImageObject names an image object that stands where one of ours has
// to be; empty when there is none.
func foreignImageObject(obj *v1alpha1.ArtifactRepository, around Surroundings) string {
	switch {
	case around.OwnRepository != nil && !keptFor(around.OwnRepository, obj):
		return imagev1.ImageRepositoryKind
	case around.OwnPolicy != nil && !keptFor(around.OwnPolicy, obj):
		return imagev1.ImagePolicyKind
	default:
		return ""
	}
}

// stay keeps the plan at the tag that is published while the policy picks another one
// that is equal in its order, such as v1.0.0 for 1.0.0. image-reflector-controller
// picks any of these, at each scan another one. A tag of the same digest keeps the name
// of what is published, too: nothing is to be deployed.
func (p *Plan) stay(obj *v1alpha1.ArtifactRepository, policy *imagev1.ImagePolicy) {
	published := publication.Latest(obj).Tag
	if obj.Status.Artifact == nil || obj.Status.Record == nil || obj.Status.Record.Image != p.Repository.Name() ||
		published == "" || published == p.Tag || !admits(policy.Spec, published) {
		return
	}
	p.KeepName = true
	if !inOnePlace(policy.Spec, published, p.Tag) {
		return
	}
	p.picked = &pickedImage{tag: p.Tag, digest: p.Digest}
	p.Tag, p.Digest = published, v1.Hash{}
}

// follow lets the plan go to the pick of the policy, because the equal tag that is
// published is gone.
func (p *Plan) follow() {
	p.Tag, p.Digest, p.picked, p.KeepName = p.picked.tag, p.picked.digest, nil, false
}

// conflictDelay is how long a reconcile that read a stale object waits for the
// caches to catch up.
const conflictDelay = 200 * time.Millisecond

func nameOf(ref *meta.LocalObjectReference) string {
	if ref == nil {
		return ""
	}
	return ref.Name
}
