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

package source_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/access"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// situation is an ArtifactRepository with its related objects. A new one works:
// ghcr.io/org/app:1.0.0.
type situation struct {
	rules      source.Rules
	obj        *v1alpha1.ArtifactRepository
	namespace  *corev1.Namespace
	policy     *imagev1.ImagePolicy
	repository *imagev1.ImageRepository
	admitted   bool
	external   *sourcev1.ExternalArtifact
}

func newSituation() *situation {
	return &situation{
		rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel},
		obj: &v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app", UID: "1"},
			Spec:       v1alpha1.ArtifactRepositorySpec{ImagePolicyRef: &meta.LocalObjectReference{Name: "app"}},
		},
		namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: map[string]string{v1alpha1.UseAsSource: "enabled"}}},
		policy: &imagev1.ImagePolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app", Generation: 2},
			Spec:       imagev1.ImagePolicySpec{ImageRepositoryRef: meta.NamespacedObjectReference{Name: "images"}},
			Status: imagev1.ImagePolicyStatus{
				ObservedGeneration: 2,
				LatestRef:          &imagev1.ImageRef{Name: "ghcr.io/org/app", Tag: "1.0.0"},
				Conditions:         []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, ObservedGeneration: 2}},
			},
		},
		repository: &imagev1.ImageRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "images"},
			Spec:       imagev1.ImageRepositorySpec{Image: "ghcr.io/org/app", Interval: metav1.Duration{Duration: 5 * time.Minute}},
		},
	}
}

// action is the effect on a source.
type action int

const (
	publish action = iota
	freeze
	withdraw
	refuse
)

// result is the effect on a source, and its reason.
type result struct {
	source.Target

	action   action
	why      error
	interval time.Duration
}

// decider is the objects of a case.
type decider interface{ decide() result }

// publishedCase changes objects whose target is published all the same.
type publishedCase[D decider] struct {
	change func(D)
	want   func(Gomega, result)
}

func expectPublished[D decider](t *testing.T, objects func() D, cases map[string]publishedCase[D]) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g, d := NewWithT(t), objects()
			if c.change != nil {
				c.change(d)
			}
			got := d.decide()
			g.Expect(got.why).NotTo(HaveOccurred())
			g.Expect(got.action).To(Equal(publish))
			if c.want != nil {
				c.want(g, got)
			}
		})
	}
}

// refusedCase changes objects so that no target is published.
type refusedCase[D decider] struct {
	change func(D)
	action action
	reason string
	class  fault.Class
	words  []string
}

func expectRefused[D decider](t *testing.T, objects func() D, cases map[string]refusedCase[D]) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g, d := NewWithT(t), objects()
			c.change(d)
			got := d.decide()
			g.Expect(got.action).To(Equal(c.action), "%v", got.why)
			g.Expect(got.interval).To(BeNumerically(">", 0))
			if c.action == freeze {
				g.Expect(got.why).NotTo(HaveOccurred())
				return
			}
			expectFault(t, got.why, c.reason, c.class, c.words...)
			g.Expect(len(got.why.Error())).To(BeNumerically("<", 1000))
		})
	}
}

// decide takes the steps in the order of a reconcile.
func decide(rules source.Rules, s source.Snapshot) result {
	got := result{interval: s.Interval()}
	permission := rules.Permission(s)
	if got.why = permission.Err(); permission.Choice == source.Off {
		got.action = withdraw
		return got
	}
	got.action = refuse
	if permission.Choice == source.Undecided && (s.Repository != nil || s.Object.Spec.ImagePolicyRef == nil) {
		return got
	}
	if got.why = s.NameConflict(); got.why != nil {
		return got
	}
	if s.Suspended() {
		got.action = freeze
		return got
	}
	if got.Target, got.why = s.Wanted(); got.why == nil {
		got.action = publish
	}
	return got
}

func (s *situation) decide() result { return decide(s.rules, s.snapshot()) }

func (s *situation) snapshot() source.Snapshot {
	return source.Snapshot{
		Object: s.obj, Namespace: s.namespace, Policy: s.policy, Repository: s.repository, Admitted: s.admitted, External: s.external,
	}
}

// foreign moves the ImageRepository into another namespace, with access and consent.
func (s *situation) foreign() {
	s.policy.Spec.ImageRepositoryRef.Namespace = "platform"
	s.repository.Namespace = "platform"
	s.repository.Annotations = map[string]string{v1alpha1.UseAsSource: "true"}
	s.admitted = true
}

func (s *situation) label(value string) {
	s.namespace.Labels = map[string]string{v1alpha1.UseAsSource: value}
}

func (s *situation) ready(change func(*metav1.Condition)) { change(&s.policy.Status.Conditions[0]) }

func external(change func(*sourcev1.ExternalArtifact)) *sourcev1.ExternalArtifact {
	obj := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
	change(obj)
	return obj
}

// controlledBy returns a controller reference to an ArtifactRepository.
func controlledBy(name string, uid types.UID) []metav1.OwnerReference {
	obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid}}
	return []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
}

func TestPublishedTargets(t *testing.T) {
	expectPublished(t, newSituation, map[string]publishedCase[*situation]{
		"the tag that the policy picked": {
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.Name()).To(Equal("ghcr.io/org/app"))
				g.Expect(p.Tag).To(Equal("1.0.0"))
				g.Expect(p.Digest.Hex).To(BeEmpty())
				g.Expect(p.Note).To(BeEmpty())
				g.Expect(p.interval).To(Equal(5 * time.Minute))
			},
		},
		"the digest that the policy reflects": {
			change: func(s *situation) { s.policy.Status.LatestRef.Digest = digestA },
			want: func(g Gomega, p result) {
				g.Expect(p.Tag).To(Equal("1.0.0"))
				g.Expect(p.Digest.String()).To(Equal(digestA))
			},
		},
		"the pin, with the pick of the policy in the note": {
			change: func(s *situation) { s.obj.Spec.Digest, s.policy.Status.LatestRef.Digest = digestB, digestA },
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestB))
				g.Expect(p.Tag).To(BeEmpty())
				g.Expect(p.Note).To(And(ContainSubstring("pinned by spec.digest"), ContainSubstring("would pick 1.0.0")))
			},
		},
		"the pin before the policy has a pick": {
			change: func(s *situation) {
				s.obj.Spec.Digest = digestB
				s.policy.Status = imagev1.ImagePolicyStatus{ObservedGeneration: -1}
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Digest.String()).To(Equal(digestB))
				g.Expect(p.Note).To(ContainSubstring("has picked no image"))
			},
		},
		"an image that the policy spells in another way": {
			change: func(s *situation) {
				s.repository.Spec.Image, s.policy.Status.LatestRef.Name = "nginx", "index.docker.io/library/nginx"
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Repository.Name()).To(Equal("index.docker.io/library/nginx"))
			},
		},
		"with the access of the ImageRepository": {
			change: func(s *situation) {
				s.repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"}
				s.repository.Spec.CertSecretRef = &meta.LocalObjectReference{Name: "certs"}
				s.repository.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"}
				s.repository.Spec.ServiceAccountName = "puller"
				s.repository.Spec.Insecure = true
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Access).To(Equal(access.References{
					Namespace: "apps", Provider: "generic", SecretName: "login", CertSecretName: "certs",
					ProxySecretName: "proxy", ServiceAccountName: "puller", Insecure: true,
				}))
				g.Expect(p.Repository.Scheme()).To(Equal("http"))
			},
		},
		"by the cloud of the ImageRepository, even with a Secret, as its scan": {
			change: func(s *situation) {
				s.repository.Spec.Provider = "aws"
				s.repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "stale"}
				s.repository.Spec.ServiceAccountName = "puller"
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Access).To(Equal(access.References{Namespace: "apps", Provider: "aws", ServiceAccountName: "puller"}))
			},
		},
		"from an ImageRepository of another namespace that admits and consents, with the Secrets there": {
			change: func(s *situation) {
				s.foreign()
				s.repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"}
			},
			want: func(g Gomega, p result) {
				g.Expect(p.Access.Namespace).To(Equal("platform"))
				g.Expect(p.Access.SecretName).To(Equal("login"))
			},
		},
		"in a namespace that opted in with all": {change: func(s *situation) { s.label("all") }},
		"in any namespace when the platform asks for no label": {
			change: func(s *situation) { s.rules.NamespaceOptIn, s.namespace.Labels = source.NamespaceOptInNone, nil },
		},
		"regardless of the annotation of the policy, because the object was written by hand": {
			change: func(s *situation) { s.policy.Annotations = map[string]string{v1alpha1.UseAsSource: "false"} },
		},
		"each interval of the object, if it has one": {
			change: func(s *situation) { s.obj.Spec.Interval = &metav1.Duration{Duration: time.Hour} },
			want:   func(g Gomega, p result) { g.Expect(p.interval).To(Equal(time.Hour)) },
		},
		"each ten minutes by default": {
			change: func(s *situation) { s.repository.Spec.Interval = metav1.Duration{} },
			want:   func(g Gomega, p result) { g.Expect(p.interval).To(Equal(10 * time.Minute)) },
		},
		"under the name of an ExternalArtifact that is its own": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) { e.OwnerReferences = controlledBy("app", "1") })
			},
		},
		"under the name of an ExternalArtifact that an object of its name left behind": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) { e.OwnerReferences = controlledBy("app", "gone") })
			},
		},
		"under the name of an ExternalArtifact that lost its owner but names its source": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) {
					e.Spec.SourceRef = &meta.NamespacedObjectKindReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ArtifactRepository", Name: "app"}
				})
			},
		},
		"with formats that are written out":               {change: func(s *situation) { s.obj.Spec.Format = "Flux" }},
		"a tag that only looks a little like a signature": {change: func(s *situation) { s.policy.Status.LatestRef.Tag = "sha256-abc" }},
		"a policy with conditions without a generation": {
			change: func(s *situation) { s.ready(func(c *metav1.Condition) { c.ObservedGeneration = 0 }) },
		},
	})
}

func TestRefusedTargets(t *testing.T) {
	expectRefused(t, newSituation, map[string]refusedCase[*situation]{
		"a namespace without the label is told which to set": {
			change: func(s *situation) { s.namespace.Labels = nil },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{v1alpha1.UseAsSource + "=enabled"},
		},
		"a namespace without the label withdraws a suspended source too": {
			change: func(s *situation) { s.namespace.Labels, s.obj.Spec.Suspend = nil, true },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait,
		},
		"a namespace without the label withdraws also where the policy is gone": {
			change: func(s *situation) { s.namespace.Labels, s.policy, s.repository = nil, nil, nil },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait,
		},
		"a namespace that is not known is one without the label": {
			change: func(s *situation) { s.namespace = nil },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait,
		},
		"a typo in the label keeps the artifact": {
			change: func(s *situation) { s.label("Enabled") },
			action: refuse, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{`"Enabled"`, `"enabled" or "all"`},
		},
		"a typo in the label and no policy keeps the artifact": {
			change: func(s *situation) { s.label("Enabled"); s.policy, s.repository = nil, nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ImagePolicy app does not exist"},
		},
		"a foreign ImageRepository that does not admit the namespace": {
			change: func(s *situation) { s.foreign(); s.admitted = false },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{"accessFrom"},
		},
		"a foreign ImageRepository without consent": {
			change: func(s *situation) { s.foreign(); s.repository.Annotations = nil },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{"owner consents", v1alpha1.UseAsSource + "=true"},
		},
		"a typo in the consent keeps the artifact": {
			change: func(s *situation) { s.foreign(); s.repository.Annotations[v1alpha1.UseAsSource] = "yes" },
			action: refuse, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{`"yes"`},
		},
		"a foreign ImageRepository where those are disabled": {
			change: func(s *situation) { s.foreign(); s.rules.NoCrossNamespaceRefs = true },
			action: withdraw, reason: v1alpha1.ReasonAccessDenied, class: fault.Wait, words: []string{"--no-cross-namespace-refs"},
		},
		"a missing foreign ImageRepository keeps the artifact": {
			change: func(s *situation) { s.foreign(); s.repository = nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"platform/images", "does not exist"},
		},
		"an ExternalArtifact of another owner": {
			change: func(s *situation) { s.external = external(func(*sourcev1.ExternalArtifact) {}) },
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait, words: []string{"ExternalArtifact app"},
		},
		"an ExternalArtifact of another ArtifactRepository": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) { e.OwnerReferences = controlledBy("other", "1") })
			},
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait,
		},
		"an ExternalArtifact of a kind of the same name in another group": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) {
					e.OwnerReferences = controlledBy("app", "1")
					e.OwnerReferences[0].APIVersion = "example.com/v1"
				})
			},
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait,
		},
		"an ExternalArtifact with a source in another namespace": {
			change: func(s *situation) {
				s.external = external(func(e *sourcev1.ExternalArtifact) {
					e.Spec.SourceRef = &meta.NamespacedObjectKindReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ArtifactRepository", Name: "app", Namespace: "elsewhere"}
				})
			},
			action: refuse, reason: v1alpha1.ReasonNameConflict, class: fault.Wait,
		},
		"spec.suspend":                       {change: func(s *situation) { s.obj.Spec.Suspend = true }, action: freeze},
		"spec.suspend of the policy":         {change: func(s *situation) { s.policy.Spec.Suspend = true }, action: freeze},
		"spec.suspend without image objects": {change: func(s *situation) { s.obj.Spec.Suspend, s.policy, s.repository = true, nil, nil }, action: freeze},
		"no policy": {
			change: func(s *situation) { s.policy, s.repository = nil, nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ImagePolicy app does not exist"},
		},
		"no ImageRepository": {
			change: func(s *situation) { s.repository = nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"apps/images", "does not exist"},
		},
		"an ImageRepository with an invalid image": {
			change: func(s *situation) { s.repository.Spec.Image = "ghcr.io/Org/App" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ghcr.io/Org/App"},
		},
		"an ImageRepository with an image that climbs to another one": {
			change: func(s *situation) {
				s.repository.Spec.Image, s.policy.Status.LatestRef.Name = "ghcr.io/org/../evil/app", "ghcr.io/org/../evil/app"
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ghcr.io/org/../evil/app", "path of lower case letters"},
		},
		"an ImageRepository with a host that ends in a dot": {
			change: func(s *situation) {
				s.repository.Spec.Image, s.policy.Status.LatestRef.Name = "ghcr.io./org/app", "ghcr.io./org/app"
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ghcr.io./org/app", "dot at its end"},
		},
		"a policy with an image in its status that climbs": {
			change: func(s *situation) { s.policy.Status.LatestRef.Name = "ghcr.io/org/x/../app" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ghcr.io/org/x/../app"},
		},
		"a tag of dots": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = ".." },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"no valid tag"},
		},
		"a policy that was changed and not evaluated since": {
			change: func(s *situation) { s.policy.Generation = 3 },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated since it was changed"},
		},
		"a policy with a condition of an older generation": {
			change: func(s *situation) { s.ready(func(c *metav1.Condition) { c.ObservedGeneration = 1 }) },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated since it was changed"},
		},
		"a policy without a condition": {
			change: func(s *situation) { s.policy.Status.Conditions = nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated"},
		},
		"a policy that is not ready": {
			change: func(s *situation) {
				s.ready(func(c *metav1.Condition) {
					c.Status, c.Message = metav1.ConditionFalse, "version list argument cannot be empty"
				})
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"is not ready", "version list argument cannot be empty"},
		},
		"a policy that was changed and evaluated, without a pick": {
			change: func(s *situation) {
				s.policy.Generation = 3
				s.ready(func(c *metav1.Condition) {
					c.Status, c.ObservedGeneration, c.Message = metav1.ConditionFalse, 3, "unable to determine latest version from provided list"
				})
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"is not ready: unable to determine latest version"},
		},
		"a policy that was changed and is evaluated now": {
			change: func(s *situation) {
				s.policy.Generation = 3
				s.ready(func(c *metav1.Condition) { c.Status, c.ObservedGeneration = metav1.ConditionUnknown, 3 })
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has not been evaluated since it was changed"},
		},
		"a policy that is ready, without a pick": {
			change: func(s *situation) { s.policy.Status.LatestRef = nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"has picked no image"},
		},
		"a policy that is not ready because its images cannot be scanned": {
			change: func(s *situation) {
				s.ready(func(c *metav1.Condition) { c.Status = metav1.ConditionFalse })
				s.repository.Status.Conditions = []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Message: "no such host"}}
			},
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ImageRepository apps/images is not ready", "no such host"},
		},
		"a policy that is not ready because the login to its registry fails": {
			change: func(s *situation) {
				s.ready(func(c *metav1.Condition) { c.Status = metav1.ConditionFalse })
				s.repository.Status.Conditions = []metav1.Condition{{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Message: "GET https://ghcr.io/v2/: UNAUTHORIZED: authentication required"}}
			},
			action: refuse, reason: v1alpha1.ReasonAuthenticationFailed, class: fault.Wait, words: []string{"UNAUTHORIZED"},
		},
		"a policy with another image in its status": {
			change: func(s *situation) { s.policy.Status.LatestRef.Name = "evil.example/org/app" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"evil.example/org/app", "flux reconcile image policy app -n apps"},
		},
		"a policy with an invalid image in its status": {
			change: func(s *situation) { s.policy.Status.LatestRef.Name = "ghcr.io/org/app@" + digestA },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait,
		},
		"a tag that stores a signature": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = "sha256-" + strings.Repeat("a", 64) },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"stores a signature", "exclusionList", "apps/images", `^sha256-[0-9a-f]{64}(\..+)?$`},
		},
		"a tag that stores a legacy signature": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = "sha256-" + strings.Repeat("a", 64) + ".sig" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"stores a signature"},
		},
		"a tag that stores an attestation": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = "1.0.0.att" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"stores a signature"},
		},
		"an invalid tag": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = "../../secrets" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"../../secrets", "no valid tag"},
		},
		"an empty tag": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = "" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"no valid tag"},
		},
		"a tag of a megabyte is cut": {
			change: func(s *situation) { s.policy.Status.LatestRef.Tag = strings.Repeat("t", 1<<20) },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"ttt..."},
		},
		"a digest that is a path": {
			change: func(s *situation) { s.policy.Status.LatestRef.Digest = "sha256:../../../../etc/passwd" },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"64 hexadecimal digits"},
		},
		"a digest of another algorithm": {
			change: func(s *situation) { s.policy.Status.LatestRef.Digest = "sha512:" + strings.Repeat("a", 128) },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"64 hexadecimal digits"},
		},
		"a digest in capitals": {
			change: func(s *situation) { s.policy.Status.LatestRef.Digest = "sha256:" + strings.Repeat("A", 64) },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait, words: []string{"lower case"},
		},
		"a pin that is no digest": {
			change: func(s *situation) { s.obj.Spec.Digest = "1.0.0" },
			action: refuse, reason: v1alpha1.ReasonInvalidSpec, class: fault.Stall, words: []string{"spec.digest"},
		},
		"a pin without its ImageRepository": {
			change: func(s *situation) { s.obj.Spec.Digest, s.repository = digestA, nil },
			action: refuse, reason: v1alpha1.ReasonDependencyNotReady, class: fault.Wait,
		},
	})
}

// expectFault asserts the identity of an error and the key words of its message.
func expectFault(t testing.TB, err error, reason string, class fault.Class, words ...string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	f := fault.Of(err, "none")
	g.Expect(f.Reason).To(Equal(reason), err.Error())
	g.Expect(f.Class).To(Equal(class), err.Error())
	for _, word := range words {
		g.Expect(err.Error()).To(ContainSubstring(word))
	}
}
