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

package controllers_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/test/publish"
)

// policyName is the name of a scene's TrustPolicy in the cluster.
func (s *scene) policyName(name string) string { return s.namespace + "-" + name }

// govern creates a TrustPolicy for the scene's namespace and all images of its registry.
func (s *scene) govern(name string, mods ...func(*v1alpha1.TrustPolicySpec)) {
	s.Helper()
	policy := &v1alpha1.TrustPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: s.policyName(name), Labels: map[string]string{sceneLabel: s.namespace}},
		Spec: v1alpha1.TrustPolicySpec{
			NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.namespace}},
			Images:            []v1alpha1.ImagePattern{v1alpha1.ImagePattern(s.registry.Host() + "/team/**")},
		},
	}
	for _, mod := range mods {
		mod(&policy.Spec)
	}
	s.create(policy)
	s.Cleanup(func() { _ = s.client.Delete(s.T.Context(), policy) })
}

// regovern changes a TrustPolicy as its administrator does.
func (s *scene) regovern(name string, mods ...func(*v1alpha1.TrustPolicySpec)) {
	s.Helper()
	g := NewWithT(s)
	policy := &v1alpha1.TrustPolicy{}
	g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: s.policyName(name)}, policy)).To(Succeed())
	before := policy.DeepCopy()
	for _, mod := range mods {
		mod(&policy.Spec)
	}
	g.Expect(s.client.Patch(s.Context(), policy, client.MergeFrom(before))).To(Succeed())
}

func (s *scene) ungovern(name string) {
	s.Helper()
	NewWithT(s).Expect(s.client.Delete(s.Context(), &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: s.policyName(name)}})).To(Succeed())
}

type change = func(*v1alpha1.TrustPolicySpec)

// signedBy adds an authority with the keys in the Secret of its name.
func signedBy(names ...string) change {
	return func(spec *v1alpha1.TrustPolicySpec) {
		for _, name := range names {
			spec.Authorities = append(spec.Authorities, v1alpha1.TrustAuthority{Name: name, Verify: sourcev1.OCIRepositoryVerification{
				Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: name},
			}})
		}
	}
}

func listing(images ...string) change {
	return func(spec *v1alpha1.TrustPolicySpec) {
		spec.Images = nil
		for _, image := range images {
			spec.Images = append(spec.Images, v1alpha1.ImagePattern(image))
		}
	}
}

func formats(formats ...v1alpha1.TrustFormat) change {
	return func(spec *v1alpha1.TrustPolicySpec) { spec.Formats = formats }
}

func atMost(size string) change {
	return func(spec *v1alpha1.TrustPolicySpec) { spec.MaxArtifactBytes = new(resource.MustParse(size)) }
}

func mode(mode v1alpha1.Mode) change {
	return func(spec *v1alpha1.TrustPolicySpec) { spec.Mode = mode }
}

func allowing(spec *v1alpha1.TrustPolicySpec) { spec.NoMatch = v1alpha1.NoMatchAllow }

func inProduction(spec *v1alpha1.TrustPolicySpec) {
	spec.NamespaceSelector.MatchLabels["env"] = "prod"
}

// platformKeys writes a Secret with keys into the controllers' namespace.
func (s *scene) platformKeys(name string, signers ...*publish.Signer) {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.platform, Name: name}, Data: map[string][]byte{}}
	for i, signer := range signers {
		secret.Data[string(rune('a'+i))+".pub"] = signer.PublicKey
	}
	err := s.client.Update(s.Context(), secret)
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = s.client.Create(s.Context(), secret)
	}
	NewWithT(s).Expect(err).NotTo(HaveOccurred())
}

// checked waits until a TrustPolicy's status speaks of its spec, and returns it
// when it has a status, with words in its message.
func (s *scene) checked(name string, status metav1.ConditionStatus, reason string, words ...string) *v1alpha1.TrustPolicy {
	s.Helper()
	policy := &v1alpha1.TrustPolicy{}
	s.eventually(func(g Gomega) {
		g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: s.policyName(name)}, policy)).To(Succeed())
		g.Expect(policy.Status.ObservedGeneration).To(Equal(policy.Generation))
		g.Expect(policy).To(haveCondition(meta.ReadyCondition, status, reason))
		for _, word := range words {
			g.Expect(conditions.GetMessage(policy, meta.ReadyCondition)).To(ContainSubstring(word))
		}
	})
	return policy
}

// withdrawn waits until the published artifact is withdrawn, and asserts that consumers and
// users are told.
func (s *scene) withdrawn(name string, words ...string) {
	s.Helper()
	s.taken(name)
	obj := s.waitFailed(name, v1alpha1.ReasonVerificationError, words...)
	NewWithT(s).Expect(obj).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionFalse, v1alpha1.ReasonVerificationError))
}

// taken waits until a source is withdrawn because it is rejected, and events tell so.
func (s *scene) taken(name string) {
	s.Helper()
	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, name)
		g.Expect(obj.Status.Artifact).To(BeNil(), "the record names no artifact")
		g.Expect(obj.Status.Record).To(BeNil())
		g.Expect(obj.Status.ObservedTrust).To(BeEmpty())
		external := get[sourcev1.ExternalArtifact](g, s, name)
		g.Expect(external.Status.Artifact).To(BeNil(), "consumers find no artifact")
	})
	s.eventually(func(g Gomega) {
		for _, kind := range []string{v1alpha1.ArtifactRepositoryKind, sourcev1.ExternalArtifactKind} {
			g.Expect(s.events(kind, name)).To(haveEvent(v1alpha1.ReasonVerificationError, "no longer published: "), kind)
		}
	})
}

// governed starts a scene with a policy that requires the signature of the key release, and
// a source with this signature.
func governed(t *testing.T, mods ...change) (s *scene, signer *publish.Signer) {
	t.Helper()
	s = newScene(t)
	s.start()
	signer = newSigner(t)
	s.platformKeys("release", signer)
	s.govern("policy", append([]change{signedBy("release")}, mods...)...)
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1.0.0\n"})
	s.sign("app:1.0.0", signer)
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
	return s, signer
}

func TestAnAnnotatedSourceNeedsTheSignatureThatAPolicyDemands(t *testing.T) {
	s := newScene(t)
	s.start()
	g := NewWithT(t)
	signer := newSigner(t)
	s.platformKeys("release", signer)
	s.govern("policy", signedBy("release"))
	s.source("app", "1.0.0")
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, s.policyName("policy"), "release: it is not signed")
	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(s.registry.Count(http.MethodGet, "/blobs/")).To(BeZero(), "%v", s.registry.Requests())
	g.Expect(s.stored()).To(BeEmpty())

	s.sign("app:1.0.0", newSigner(t))
	s.reconciled("app")
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "a.pub")
	s.sign("app:1.0.0", signer)
	external := s.waitPublished("app", "1.0.0@")
	obj = s.record("app")
	by := obj.Status.History[0].VerifiedBy
	g.Expect(by).To(And(HavePrefix(`TrustPolicy "`+s.policyName("policy")+`" (release): key a.pub (sha256:`), HaveSuffix("by a legacy cosign signature")))
	g.Expect(external.Status.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataVerifiedBy, by))
	for _, object := range []conditions.Getter{obj, external} {
		g.Expect(object).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
		g.Expect(conditions.GetMessage(object, v1alpha1.SourceVerifiedCondition)).To(And(ContainSubstring(by), ContainSubstring(obj.Status.Record.Digest)))
	}
	s.eventually(func(g Gomega) {
		g.Expect(s.events(v1alpha1.ArtifactRepositoryKind, "app")).To(haveEvent(v1alpha1.ReasonNewArtifact, by))
		for verdict, n := range map[string]int{"rejected": 2, "accepted": 1, "unknown": 0} {
			g.Expect(s.verdicts("policy", verdict, v1alpha1.ModeEnforce)).To(BeNumerically(">=", n), verdict)
		}
	})
}

// verdicts is the metric of the verdicts of a policy; -1 if it does not exist.
func (s *scene) verdicts(policy, verdict string, mode v1alpha1.Mode) int {
	families, err := s.running.metrics.Gather()
	NewWithT(s).Expect(err).NotTo(HaveOccurred())
	want := map[string]string{"policy": s.policyName(policy), "verdict": verdict, "mode": string(mode)}
	for _, family := range families {
		if family.GetName() != "image_source_trust_verdicts_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			matches := 0
			for _, label := range metric.GetLabel() {
				if want[label.GetName()] == label.GetValue() {
					matches++
				}
			}
			if matches == len(want) {
				return int(metric.GetCounter().GetValue())
			}
		}
	}
	return -1
}

func TestAllPoliciesHaveToBeMetAndOneAuthorityOfEach(t *testing.T) {
	s := newScene(t)
	s.start()
	one, two, three := newSigner(t), newSigner(t), newSigner(t)
	s.platformKeys("one", one)
	s.platformKeys("two", two)
	s.platformKeys("three", three)
	s.govern("a", signedBy("one", "two"))
	s.govern("b", signedBy("three"))
	s.keys(newSigner(t))
	s.source("app", "1.0.0")
	s.sign("app:1.0.0", two)
	s.waitFailed("app", v1alpha1.ReasonVerificationError, s.policyName("b"))
	s.sign("app:1.0.0", three)
	s.waitPublished("app", "1.0.0@")
	by := s.record("app").Status.History[0].VerifiedBy
	NewWithT(t).Expect(by).To(And(ContainSubstring(`(two): key`), ContainSubstring(`(three): key`)))

	// The demands of a tenant come on top.
	edit(s, "app", signed)
	s.withdrawn("app", "spec.verify")
}

func TestAnImageThatNoPolicyListsIsRefusedUnasked(t *testing.T) {
	s := newScene(t)
	s.start()
	g := NewWithT(t)
	s.govern("policy", listing("ghcr.io/org/**"))
	s.source("app", "1.0.0")
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "no TrustPolicy that enforces lists the image "+s.image("app"))
	g.Expect(s.registry.Requests()).NotTo(ContainElement(HavePrefix("GET ")), "no fetch")
	g.Expect(s.registry.Requests()).NotTo(ContainElement(HavePrefix("HEAD ")), "no request")

	s.govern("other", listing("quay.io/org/**"), allowing)
	s.regovern("policy", allowing)
	s.waitPublished("app", "1.0.0@")
	g.Expect(s.record("app")).To(haveNoCondition(v1alpha1.SourceVerifiedCondition))
	s.regovern("other", func(spec *v1alpha1.TrustPolicySpec) { spec.NoMatch = v1alpha1.NoMatchRefuse })
	s.withdrawn("app", s.policyName("other"))
	s.ungovern("other")
	s.waitPublished("app", "1.0.0@")
}

func TestAnotherSpellingOfAnImageIsNoWayAroundAPolicy(t *testing.T) {
	s, _ := governed(t)
	port := s.registry.Host()[strings.LastIndex(s.registry.Host(), ":"):]
	for name, image := range map[string]string{"localhost": "localhost" + port + "/team/app", "capitals": "LOCALHOST" + port + "/team/app"} {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
			Spec:       v1alpha1.ArtifactRepositorySpec{Image: image, Tag: "1.0.0", Insecure: true},
		})
		obj := s.waitFailed(name, v1alpha1.ReasonVerificationError, "no TrustPolicy that enforces lists the image localhost"+port)
		NewWithT(t).Expect(obj.Status.Artifact).To(BeNil())
	}
}

func TestAPolicyThatWarnsPublishesAndReportsViolations(t *testing.T) {
	s := newScene(t)
	s.start()
	g := NewWithT(t)
	s.platformKeys("release", newSigner(t))
	s.govern("policy", signedBy("release"), formats("Helm"), mode(v1alpha1.ModeWarn))
	s.source("app", "1.0.0")
	external := s.waitPublished("app", "1.0.0@")
	words := []string{s.policyName("policy"), "it is not signed", `the format "Flux" is not allowed`}
	for _, object := range []conditions.Getter{s.record("app"), external} {
		g.Expect(object).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionFalse, v1alpha1.ReasonVerificationError))
		for _, word := range words {
			g.Expect(conditions.GetMessage(object, v1alpha1.SourceVerifiedCondition)).To(ContainSubstring(word))
			g.Expect(conditions.GetMessage(object, meta.ReadyCondition)).To(ContainSubstring(word))
		}
	}
	g.Expect(external.Status.Artifact.Metadata).NotTo(HaveKey(v1alpha1.MetadataVerifiedBy))
	g.Expect(s.verdicts("policy", "rejected", v1alpha1.ModeWarn)).To(Equal(1))
	s.reconciled("app")
	s.reconciled("app")
	g.Expect(s.record("app")).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionFalse, v1alpha1.ReasonVerificationError))
	s.eventually(func(g Gomega) {
		g.Expect(s.events(v1alpha1.ArtifactRepositoryKind, "app")).To(haveEvent(v1alpha1.ReasonVerificationError, "in the mode Enforce it would be refused"))
	})
	for _, event := range s.events(v1alpha1.ArtifactRepositoryKind, "app") {
		g.Expect(event.Type == corev1.EventTypeWarning && event.Count > 1).To(BeFalse(), "%s was said %d times", event.Message, event.Count)
	}

	s.regovern("policy", mode(v1alpha1.ModeEnforce))
	s.withdrawn("app", s.policyName("policy"))
}

// An unknown verdict of a policy in the mode Warn stops no publication, and the next
// reconcile tries again.
func TestAPolicyThatWarnsIsHeardLater(t *testing.T) {
	s := newScene(t)
	s.start()
	signer := newSigner(t)
	s.platformKeys("release", signer)
	s.govern("policy", signedBy("release"), mode(v1alpha1.ModeWarn))
	s.registry.Answer(unsignable)
	s.source("app", "1.0.0")
	s.waitPublished("app", "1.0.0@")
	g := NewWithT(t)
	g.Expect(s.record("app").Status.TrustWarnings).To(ConsistOf(ContainSubstring("503")))
	s.registry.Answer(nil)
	s.sign("app:1.0.0", signer)
	obj := s.reconciled("app")
	g.Expect(obj.Status.TrustWarnings).To(BeEmpty())
	g.Expect(obj.Status.ObservedTrust).NotTo(BeEmpty())
}

// Nor is it said any longer when the policy is gone before it was heard.
func TestWarningsGoWithTheirPolicy(t *testing.T) {
	s := newScene(t)
	s.start()
	s.platformKeys("release", newSigner(t))
	s.govern("policy", signedBy("release"), mode(v1alpha1.ModeWarn))
	s.registry.Answer(unsignable)
	s.source("app", "1.0.0")
	s.waitPublished("app", "1.0.0@")
	NewWithT(t).Expect(s.record("app").Status.TrustWarnings).NotTo(BeEmpty())
	s.ungovern("policy")
	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, "app")
		g.Expect(obj.Status.TrustWarnings).To(BeEmpty())
		g.Expect(obj).To(haveNoCondition(v1alpha1.SourceVerifiedCondition))
		g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).NotTo(ContainSubstring("in the mode Enforce it would be refused"))
	})
}

// unsignable answers for a registry without signatures.
func unsignable(w http.ResponseWriter, r *http.Request) bool {
	down := strings.Contains(r.URL.Path, "sha256-") || strings.Contains(r.URL.Path, "/referrers/")
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return down
}

func TestFormatsAndSizesArePartOfAPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		tight, wide change
		words       string
		fetches     bool
	}{
		"formats": {tight: formats("Helm", "Kyverno"), wide: formats("Flux"), words: `the format "Flux" is not allowed`, fetches: true},
		"sizes":   {tight: atMost("10"), wide: atMost("1Mi"), words: "it allows at most 10"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.start()
			g := NewWithT(t)
			s.govern("policy", c.tight)
			s.source("app", "1.0.0")
			obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, s.policyName("policy"), c.words)
			g.Expect(obj.Status.Artifact).To(BeNil())
			g.Expect(s.stored()).To(BeEmpty(), "no bytes are published")
			if !c.fetches {
				g.Expect(s.registry.Count(http.MethodGet, "/blobs/")).To(BeZero(), "an oversized artifact is not pulled")
			}
			s.regovern("policy", c.wide)
			s.waitPublished("app", "1.0.0@")
			g.Expect(s.record("app").Status.Record.Size).To(BeNumerically(">", 10))

			// It also applies to published artifacts, and to bytes of other sources.
			s.registry.Forget()
			s.regovern("policy", c.tight)
			s.withdrawn("app", c.words)
			g.Expect(s.registry.Count(http.MethodGet, "/blobs/")).To(BeZero())
			s.stop()
			s.start()
			s.reconciled("app")
			g.Expect(s.waitFailed("app", v1alpha1.ReasonVerificationError, c.words).Status.Artifact).To(BeNil())
		})
	}
}

func TestAPolicyMayBeRequired(t *testing.T) {
	s := newScene(t)
	s.rules.RequireTrustPolicy = true
	s.start()
	s.source("app", "1.0.0")
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "--require-trust-policy")
	s.govern("policy", mode(v1alpha1.ModeWarn))
	s.reconciled("app")
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "--require-trust-policy")
	s.regovern("policy", mode(v1alpha1.ModeEnforce))
	s.waitPublished("app", "1.0.0@")
	s.ungovern("policy")
	s.withdrawn("app", "--require-trust-policy")
}

func TestAPolicyIsTightened(t *testing.T) {
	for name, tighten := range map[string]struct {
		how   func(*scene)
		words string
	}{
		"another key": {func(s *scene) {
			s.platformKeys("other", newSigner(s.T))
			s.regovern("policy", func(spec *v1alpha1.TrustPolicySpec) { spec.Authorities = nil }, signedBy("other"))
		}, "other"},
		"a Secret with another key": {func(s *scene) { s.platformKeys("release", newSigner(s.T)) }, "release"},
		"a Secret without a key":    {func(s *scene) { s.platformKeys("release") }, "no usable public key"},
		"a further policy": {func(s *scene) {
			s.platformKeys("other", newSigner(s.T))
			s.govern("further", signedBy("other"))
		}, "-further"},
		"the image is no longer listed": {func(s *scene) { s.regovern("policy", listing("ghcr.io/org/**")) }, "no TrustPolicy that enforces lists"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := governed(t)
			tighten.how(s)
			s.withdrawn("app", tighten.words)
		})
	}
}

func TestTheLabelsOfANamespaceSelectItsPolicies(t *testing.T) {
	s := newScene(t)
	s.start()
	s.platformKeys("release", newSigner(t))
	s.govern("policy", signedBy("release"), inProduction)
	s.publishes("app", "1.0.0")
	s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled, "env": "prod"})
	s.withdrawn("app", s.policyName("policy"))
	s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled, "env": "test"})
	s.waitPublished("app", "1.0.0@")
}

func TestAMissingSecretOfAPolicyWithdrawsNoArtifact(t *testing.T) {
	s, signer := governed(t)
	before := s.record("app")
	NewWithT(t).Expect(s.client.Delete(s.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.platform, Name: "release"}})).To(Succeed())
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "release: the Secret "+s.platform+"/release does not exist", "still published: 1.0.0@")
	NewWithT(t).Expect(obj.Status.Artifact).To(Equal(before.Status.Artifact))
	s.checked("policy", metav1.ConditionFalse, v1alpha1.ReasonVerificationError, "authority release: the Secret "+s.platform+"/release does not exist")
	s.platformKeys("release", signer)
	s.waitPublished("app", "1.0.0@")
	s.checked("policy", metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
}

func TestARegistryThatIsDownWithdrawsNoArtifact(t *testing.T) {
	s, signer := governed(t)
	other := newSigner(t)
	before := s.record("app")
	s.registry.Answer(unsignable)
	s.platformKeys("release", other)
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "still published: 1.0.0@")
	NewWithT(t).Expect(obj.Status.Artifact).To(Equal(before.Status.Artifact))
	// The same digest under another name is no reason to believe in it.
	s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.0\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "503", "still published: 1.0.0@")
	s.reconciled("app")
	NewWithT(t).Expect(s.events(v1alpha1.ArtifactRepositoryKind, "app")).NotTo(haveEvent(v1alpha1.ReasonNewArtifact, "published 1.0.1@"), "as if it were good")
	NewWithT(t).Expect(s.record("app").Status.ObservedTrust).To(Equal(before.Status.ObservedTrust))
	s.registry.Answer(nil)
	s.withdrawn("app", "release")
	s.platformKeys("release", signer)
	s.waitPublished("app", "1.0.1@")
}

// A registry that lost its content, because it is being rolled out or hides it from the
// credentials, is no proof that an image is not signed.
func TestARegistryThatHidesItsContentWithdrawsNoArtifact(t *testing.T) {
	s, _ := governed(t)
	before := s.record("app")
	s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusNotFound)
		return true
	})
	s.regovern("policy", atMost("1Gi")) // the image is smaller, so it is not refused for its size
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "404", "still published: 1.0.0@")
	NewWithT(t).Expect(s.record("app").Status.Artifact).To(Equal(before.Status.Artifact))
	s.registry.Answer(nil)
	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, "app")
		g.Expect(obj.Status.ObservedTrust).NotTo(Equal(before.Status.ObservedTrust))
		g.Expect(obj).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	})
}

// Rejected bytes are gone for good: retention is only for superseded ones.
func TestRejectedBytesDoNotComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		// instead makes a good version known, before or after the other is rejected.
		before, after func(s *scene, next *publish.Signer)
	}{
		"when a good image follows": {
			before: func(*scene, *publish.Signer) {},
			after: func(s *scene, next *publish.Signer) {
				s.withdrawn("app", "release")
				s.pushNew("1.0.1")
				s.sign("app:1.0.1", next)
				s.reconciled("app")
			},
		},
		"when a good image takes its place at once": {
			before: func(s *scene, next *publish.Signer) {
				s.pushNew("1.0.1")
				s.sign("app:1.0.1", next)
				s.waitFailed("app", v1alpha1.ReasonVerificationError, "still published: 1.0.0@")
			},
			after: func(*scene, *publish.Signer) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, signer := governed(t)
			g := NewWithT(t)
			f := s.follower(s.artifacts.host())
			rejected := s.external("app").Status.Artifact
			s.expectServed(rejected)
			f.expectServed(rejected)
			next := newSigner(t)
			c.before(s, next)
			s.platformKeys("release", next)
			c.after(s, next)

			good := s.waitPublished("app", "1.0.1@").Status.Artifact
			s.expectServed(good)
			s.eventually(func(g Gomega) {
				for _, storage := range []string{s.storage, f.storage} {
					g.Expect(filepath.Join(storage, rejected.Path)).NotTo(BeAnExistingFile())
				}
			})
			f.expectServed(good)
			code, _ := s.fetch(rejected.URL)
			g.Expect(code).To(Equal(http.StatusNotFound))
			f.expectCode(rejected, http.StatusNotFound)

			// An image that the platform trusts again is published again, and the superseded
			// one stays for a while.
			s.platformKeys("release", signer, next)
			s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			again := s.waitPublished("app", "1.0.0@").Status.Artifact
			g.Expect(again.Path).To(Equal(rejected.Path))
			s.expectServed(again)
			f.expectServed(again)
			s.expectServed(good)
		})
	}
}

// A replica that was away when a version was rejected, or is new, sees only the replacement:
// the record tells it that the other one was rejected.
func TestRejectedBytesAreServedByNoReplicaThatMissedTheRejection(t *testing.T) {
	s, signer := governed(t)
	g := NewWithT(t)
	away := s.follower(s.artifacts.host())
	rejected := s.external("app").Status.Artifact
	away.expectServed(rejected)
	_, content := s.fetch(rejected.URL)
	away.end()
	next := newSigner(t)
	s.pushNew("1.0.1")
	s.sign("app:1.0.1", next)
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "still published: 1.0.0@")
	s.platformKeys("release", next)
	good := s.waitPublished("app", "1.0.1@").Status.Artifact
	g.Expect(s.record("app").Status.Withdrawn).To(Equal([]string{rejected.Digest}))

	back := s.followerOn(away.storage, s.artifacts.host())
	back.expectCode(rejected, http.StatusNotFound)
	back.expectServed(good)
	s.eventually(func(g Gomega) { g.Expect(back.has(rejected)).To(BeFalse(), "nor does it stay on the disk") })

	keeper := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer keeper.Close()
	fresh := s.follower(keeper.Listener.Addr().String())
	fresh.expectCode(rejected, http.StatusNotFound)
	g.Expect(fresh.has(rejected)).To(BeFalse(), "no replica is asked for it")

	s.platformKeys("release", signer, next)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	again := s.waitPublished("app", "1.0.0@").Status.Artifact
	g.Expect(again.Path).To(Equal(rejected.Path))
	g.Expect(s.record("app").Status.Withdrawn).To(BeEmpty())
	back.expectServed(again)
	fresh.expectServed(again)
	back.expectServed(good)
}

// conflicting answers writes to ImagePolicies with a conflict.
type conflicting struct {
	http.RoundTripper

	on *atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (c conflicting) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.on.Load() && r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/imagepolicies/") {
		body := `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409}`
		return &http.Response{
			StatusCode: http.StatusConflict, Header: http.Header{"Content-Type": {"application/json"}},
			Body: io.NopCloser(strings.NewReader(body)), Request: r,
		}, nil
	}
	return c.RoundTripper.RoundTrip(r)
}

// Image objects with repeated conflicts keep no artifact published.
func TestAConflictOnImageObjectsDelaysNoWithdrawal(t *testing.T) {
	s := newScene(t)
	var conflicts atomic.Bool
	s.transport = func(next http.RoundTripper) http.RoundTripper { return conflicting{next, &conflicts} }
	s.start()
	s.publishedByPolicy("app", "1.0.0")
	conflicts.Store(true)
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Policy = semver("1.x") })
	s.govern("policy", formats("Helm"))
	s.taken("app") // the conditions then have the error of the image objects
	conflicts.Store(false)
	s.ungovern("policy")
	s.scanned("app")
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImagePolicy](g, s, "app").Spec.Policy).To(Equal(*semver("1.x")))
	})
}

// A user who may annotate objects could make each guarded write a conflict.
func TestPermanentEditsOfATenantDelayNoWithdrawal(t *testing.T) {
	for name, next := range map[string]func(*scene, *publish.Signer){
		"without another object": func(*scene, *publish.Signer) {},
		"that makes room": func(s *scene, signer *publish.Signer) {
			s.pushNew("1.0.1")
			s.sign("app:1.0.1", signer)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			tenant := &tenant{scene: s}
			s.transport = func(next http.RoundTripper) http.RoundTripper {
				tenant.next = next
				return tenant
			}
			s.start()
			s.publishes("app", "1.0.0")
			signer := newSigner(t)
			s.platformKeys("release", signer)
			tenant.edits.Store(true)
			defer tenant.edits.Store(false)
			next(s, signer)
			s.govern("policy", signedBy("release"))
			s.eventually(func(g Gomega) {
				for _, artifact := range []*meta.Artifact{
					get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact, get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact,
				} {
					if artifact != nil {
						g.Expect(artifact.Revision).NotTo(HavePrefix("1.0.0@"))
					}
				}
			})
		})
	}
}

// tenant edits an object before each write of its status by the controllers: the luckiest
// and fastest tenant.
type tenant struct {
	*scene
	next  http.RoundTripper
	edits atomic.Bool
	count atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (t *tenant) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.edits.Load() && r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/app/status") {
		var obj client.Object = &v1alpha1.ArtifactRepository{}
		if strings.Contains(r.URL.Path, "/externalartifacts/") {
			obj = &sourcev1.ExternalArtifact{}
		}
		obj.SetNamespace(t.namespace)
		obj.SetName("app")
		edit := fmt.Appendf(nil, `{"metadata": {"annotations": {"example.com/edit": "%d"}}}`, t.count.Add(1))
		if err := t.client.Patch(r.Context(), obj, client.RawPatch(types.MergePatchType, edit)); err != nil {
			return nil, err
		}
	}
	return t.next.RoundTrip(r)
}

// A registry that hangs only for requests for signatures takes no more workers than one that
// hangs for images: the others get an error, and do not wait.
func TestARegistryThatHangsOverSignaturesIsTriedByFew(t *testing.T) {
	s := startScene(t)
	names := []string{"a", "b", "c", "d", "e", "f"}
	for _, name := range names {
		s.publishes(name, "1.0.0")
		edit(s, name, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	}
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		signature := strings.Contains(r.URL.Path, "sha256-") || strings.Contains(r.URL.Path, "/referrers/")
		if signature {
			<-r.Context().Done()
		}
		return signature
	})
	s.platformKeys("release", newSigner(t))
	s.govern("policy", signedBy("release"))
	s.eventually(func(g Gomega) {
		var said []string
		for _, name := range names {
			said = append(said, conditions.GetMessage(get[v1alpha1.ArtifactRepository](g, s, name), meta.ReadyCondition))
		}
		g.Expect(said).To(ContainElement(ContainSubstring("did not answer the last attempt; other attempts are testing it; still published: 1.0.0@")))
	})
	s.registry.Answer(nil)
	for _, name := range names {
		s.withdrawn(name, "release: it is not signed")
	}
}

// byIdentity asks for a signature by an identity.
func byIdentity(issuer, subject string) func(*v1alpha1.ArtifactRepository) {
	return func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{
			Provider: "cosign", MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: issuer, Subject: subject}},
		}
	}
}

func TestATenantCannotKeepARejectedArtifact(t *testing.T) {
	suspended := func(s *scene) {
		s.eventually(func(g Gomega) {
			g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
		})
	}
	keys := func(s *scene) { s.platformKeys("release", newSigner(s.T)) }
	content := func(s *scene) { s.regovern("policy", formats("Helm")) }
	for name, c := range map[string]struct {
		hold func(*scene)
		// tightened are later actions of the platform: without a way to the registry,
		// signatures cannot be fetched.
		tightened []func(*scene)
	}{
		"by suspending the source": {func(s *scene) {
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
			suspended(s)
		}, []func(*scene){keys, content}},
		"by suspending the policy that it follows": {func(s *scene) {
			edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = true })
			suspended(s)
		}, []func(*scene){keys, content}},
		"by a verify of his own that cannot be read": {func(s *scene) {
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "(", Subject: "x"}}}
			})
			s.waitFailed("app", v1alpha1.ReasonInvalidSpec, "still published")
		}, []func(*scene){keys, content}},
		"by spec.verify with a missing Secret": {func(s *scene) {
			edit(s, "app", signed)
			s.waitFailed("app", v1alpha1.ReasonVerificationError, "does not exist", "still published")
		}, []func(*scene){keys, content}},
		"by an issuer that does not compile inside of brackets": {func(s *scene) {
			edit(s, "app", byIdentity(`\Qhttps://x`, "x"))
			s.waitFailed("app", v1alpha1.ReasonInvalidSpec, "not a regular expression", "still published")
		}, []func(*scene){keys, content}},
		"by an issuer that becomes a large program": {func(s *scene) {
			edit(s, "app", byIdentity(strings.Repeat(".{1000}", 140), "x"))
			s.waitFailed("app", v1alpha1.ReasonInvalidSpec, "too complex", "still published")
		}, []func(*scene){keys, content}},
		"by a timeout that leaves no time": {func(s *scene) {
			// No answer of the registry comes within the timeout.
			s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
				select {
				case <-r.Context().Done():
				case <-time.After(100 * time.Millisecond):
				}
				return false
			})
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec.Timeout = &metav1.Duration{Duration: time.Millisecond}
			})
		}, []func(*scene){keys, content}},
		"by deleting the policy that it follows": {func(s *scene) {
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.OwnerReferences = nil })
			remove[imagev1.ImagePolicy](s, "app")
			s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "still published")
		}, []func(*scene){content}},
		"by an image that cannot be reached": {func(s *scene) {
			edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Spec.Image = "127.0.0.1:1/team/app" })
			s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "still published")
		}, []func(*scene){content}},
	} {
		for i, tighten := range c.tightened {
			t.Run(fmt.Sprint(name, " ", i), func(t *testing.T) {
				s, _ := governed(t)
				c.hold(s)
				tighten(s)
				s.eventually(func(g Gomega) {
					g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil())
					g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact).To(BeNil())
				})
			})
		}
	}
}

// A trust policy of Notation that only logs failed signatures is allowed in spec.verify, but
// the platform does not accept it as a signature.
func TestATrustPolicyOfNotationThatOnlyLogsIsNotEnough(t *testing.T) {
	s := newScene(t)
	s.start()
	logs := map[string][]byte{
		"trustpolicy.json": []byte(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "skip"}}]}`),
	}
	byNotation := sourcev1.OCIRepositoryVerification{Provider: "notation", SecretRef: &meta.LocalObjectReference{Name: "notary"}}
	for _, namespace := range []string{s.namespace, s.platform} {
		s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "notary"}, Data: logs})
	}
	s.picked("app", "1.0.0")
	s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Verify = &byNotation })
	s.waitPublished("app", "1.0.0@")
	s.govern("policy", func(spec *v1alpha1.TrustPolicySpec) {
		spec.Authorities = []v1alpha1.TrustAuthority{{Name: "notary", Verify: byNotation}}
	})
	s.withdrawn("app", "notary: the level", "only logs")
}

// A record without the image of its artifact cannot be judged: the artifact is withdrawn
// until the image was verified.
func TestAnArtifactWithoutARecipeDoesNotStay(t *testing.T) {
	for name, forget := range map[string]func(*v1alpha1.ArtifactRepository){
		"there is no record":   func(obj *v1alpha1.ArtifactRepository) { obj.Status.Record = nil },
		"its digest is no one": func(obj *v1alpha1.ArtifactRepository) { obj.Status.Record.Digest = "sha256:0" },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := governed(t)
			s.stop()
			editStatus(s, "app", forget)
			s.regovern("policy", listing("ghcr.io/org/**"))
			s.start()
			s.waitFailed("app", v1alpha1.ReasonVerificationError, "no TrustPolicy that enforces lists the image")
			s.eventually(func(g Gomega) {
				g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil())
				g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact).To(BeNil())
			})
			s.regovern("policy", listing(s.registry.Host()+"/team/**"))
			s.waitPublished("app", "1.0.0@")
		})
	}
}

// A deleted object is no longer judged: a finalizer must not keep its artifact published.
func TestAFinalizerKeepsNoArtifactPublished(t *testing.T) {
	for name, finalizers := range map[string][]string{
		"of another controller":              {"example.com/hold"},
		"of the garbage collector, and more": {metav1.FinalizerOrphanDependents, "example.com/hold"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := governed(t)
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Finalizers = finalizers })
			remove[v1alpha1.ArtifactRepository](s, "app")
			s.eventually(gone[sourcev1.ExternalArtifact](s, "app"))
			s.eventually(func(g Gomega) {
				g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil())
				g.Expect(s.stored()).To(BeEmpty())
			})
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Finalizers = nil })
			s.waitPublished("app", "1.0.0@") // the annotation makes it again
		})
	}
}

// A policy that is tightened during a pull applies to the pulled image.
func TestAPolicyThatIsTightenedWhileAnImageIsPulled(t *testing.T) {
	s := newScene(t)
	s.start()
	s.govern("policy")
	pulling, tightened := make(chan struct{}, 1), make(chan struct{})
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			select {
			case pulling <- struct{}{}:
				<-tightened
			default:
			}
		}
		return false
	})
	changes, err := s.client.Watch(s.Context(), &v1alpha1.ArtifactRepositoryList{}, client.InNamespace(s.namespace))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	s.source("app", "1.0.0")
	<-pulling
	s.regovern("policy", formats("Helm"))
	s.eventually(func(g Gomega) {
		var seen v1alpha1.TrustPolicy
		g.Expect(s.running.manager.GetCache().Get(s.Context(), client.ObjectKey{Name: s.policyName("policy")}, &seen)).To(Succeed())
		g.Expect(seen.Spec.Formats).NotTo(BeEmpty())
	})
	close(tightened)
	s.waitFailed("app", v1alpha1.ReasonVerificationError, "is not allowed")
	for last := s.record("app").ResourceVersion; ; {
		seen := (<-changes.ResultChan()).Object.(*v1alpha1.ArtifactRepository)
		NewWithT(t).Expect(seen.Status.Artifact).To(BeNil(), "it was published for a moment")
		if seen.ResourceVersion == last {
			return
		}
	}
}

// stall makes the registry stop within a blob until it is released, and signals a waiting
// client.
func (s *scene) stall(blob v1.Hash) (waiting <-chan struct{}, release func()) {
	return s.hold(blob, func(_ http.ResponseWriter, r *http.Request, released <-chan struct{}) bool {
		select {
		case <-released:
		case <-r.Context().Done():
		}
		return false
	})
}

// drip makes the registry send a blob for hours, always faster than the timeout of clients,
// until it is released.
func (s *scene) drip(blob v1.Hash) (waiting <-chan struct{}, release func()) {
	return s.hold(blob, func(w http.ResponseWriter, r *http.Request, released <-chan struct{}) bool {
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				if _, err := w.Write([]byte{0}); err != nil || http.NewResponseController(w).Flush() != nil {
					return true
				}
			case <-released:
				panic(http.ErrAbortHandler)
			case <-r.Context().Done():
				return true
			}
		}
	})
}

func (s *scene) hold(blob v1.Hash, how func(http.ResponseWriter, *http.Request, <-chan struct{}) bool) (waiting <-chan struct{}, release func()) {
	asked, released := make(chan struct{}, 1), make(chan struct{})
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/blobs/"+blob.String()) {
			return false
		}
		select {
		case <-released:
			return false
		case asked <- struct{}{}:
		default:
		}
		return how(w, r, released)
	})
	return asked, sync.OnceFunc(func() { close(released) })
}

// A tenant decides about the length of an attempt, by the choice of the registry and by
// spec.timeout: neither rules nor revocations wait for it.
func TestASlowPullDelaysNoRule(t *testing.T) {
	for name, c := range map[string]struct {
		tighten func(*scene)
		after   func(*scene) // the pull goes on
	}{
		"a key is replaced": {
			func(s *scene) {
				next := newSigner(s.T)
				s.sign("app:1.0.1", next)
				s.platformKeys("release", next)
			},
			func(s *scene) { s.waitPublished("app", "1.0.1@") },
		},
		"formats are restricted": {
			func(s *scene) { s.regovern("policy", formats("Helm")) },
			func(s *scene) { s.waitFailed("app", v1alpha1.ReasonVerificationError, "is not allowed") },
		},
		"the namespace has not opted in any more": {
			func(s *scene) { s.labels(nil) },
			func(s *scene) { s.eventually(gone[sourcev1.ExternalArtifact](s, "app")) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, signer := governed(t)
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec.Timeout = &metav1.Duration{Duration: 59 * time.Minute}
			})
			_, layer := s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
			s.sign("app:1.0.1", signer)
			waiting, release := s.drip(layer)
			defer release()
			s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			<-waiting
			c.tighten(s)
			s.eventually(func(g Gomega) {
				external := &sourcev1.ExternalArtifact{}
				err := s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "app"}, external)
				g.Expect(client.IgnoreNotFound(err)).NotTo(HaveOccurred())
				g.Expect(external.Status.Artifact).To(BeNil())
				// The next attempt may be pulling already.
				g.Expect(slices.DeleteFunc(s.stored(), func(file string) bool { return strings.HasPrefix(file, "/tmp/") })).To(BeEmpty())
			})
			release()
			c.after(s)
		})
	}
}

// An event without a changed rule must not restart a long pull.
func TestHarmlessEventsInterruptNoPull(t *testing.T) {
	s, signer := governed(t)
	_, layer := s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
	s.sign("app:1.0.1", signer)
	waiting, release := s.stall(layer)
	defer release()
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	<-waiting
	g := NewWithT(t)
	policy := &v1alpha1.TrustPolicy{}
	g.Expect(s.client.Get(s.Context(), client.ObjectKey{Name: s.policyName("policy")}, policy)).To(Succeed())
	note := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"example.com/note": "harmless"}}}`))
	for _, obj := range []client.Object{policy, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}} {
		g.Expect(s.client.Patch(s.Context(), obj, note)).To(Succeed())
		annotated := obj.GetResourceVersion()
		s.eventually(func(g Gomega) {
			g.Expect(s.running.manager.GetCache().Get(s.Context(), client.ObjectKeyFromObject(obj), obj)).To(Succeed())
			g.Expect(obj.GetResourceVersion()).To(Equal(annotated))
		})
	}
	s.platformKeys("another", newSigner(t))
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Annotations = map[string]string{"example.com/note": "harmless"}
	})
	release()
	s.waitPublished("app", "1.0.1@")
	g.Expect(s.registry.Count(http.MethodGet, "/blobs/"+layer.String())).To(Equal(1))
}

// heldUp keeps requests with a part in their path from the API server until it
// is let go.
type heldUp struct {
	http.RoundTripper

	part string
	free <-chan struct{}
}

func (h heldUp) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.Contains(r.URL.Path, h.part) {
		select {
		case <-h.free:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return h.RoundTripper.RoundTrip(r)
}

func TestNoImageIsPublishedBeforePoliciesAreKnown(t *testing.T) {
	for name, part := range map[string]string{"TrustPolicies": "/trustpolicies", "Namespaces": "/api/v1/namespaces", "Secrets": "/secrets"} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			g := NewWithT(t)
			s.platformKeys("release", newSigner(t))
			s.govern("policy", signedBy("release"))
			s.source("app", "1.0.0")
			s.artifactRepository("explicit", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.ImagePolicyRef.Name = "app" })
			free := make(chan struct{})
			s.transport = func(next http.RoundTripper) http.RoundTripper { return heldUp{next, part, free} }
			s.startAs(launchOptions{unsynced: true})
			// An attempt would send a request to the registry: there is no attempt.
			g.Consistently(func() []string { return s.registry.Requests() }, "1s").ShouldNot(ContainElement(ContainSubstring("/blobs/")))
			g.Expect(s.record("explicit").Status.Artifact).To(BeNil())
			g.Expect(s.record("explicit").Status.Conditions).To(BeEmpty(), "no attempt was made")
			close(free)
			s.waitFailed("explicit", v1alpha1.ReasonVerificationError, s.policyName("policy"))
			s.waitFailed("app", v1alpha1.ReasonVerificationError, s.policyName("policy"))
		})
	}
}

func TestTheStatusOfATrustPolicy(t *testing.T) {
	s := newScene(t)
	s.start()
	g := NewWithT(t)
	s.platformKeys("good", newSigner(t))
	s.govern("plain")
	plain := s.checked("plain", metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "enforced", "no signature is demanded")
	g.Expect(plain).To(And(haveNoCondition(meta.ReconcilingCondition), haveNoCondition(meta.StalledCondition)))

	s.govern("keys", signedBy("good", "missing", "empty"))
	s.platformKeys("empty")
	s.checked("keys", metav1.ConditionFalse, v1alpha1.ReasonVerificationError,
		"authority missing: the Secret "+s.platform+"/missing does not exist", "authority empty: ", "no usable public key")
	s.platformKeys("missing", newSigner(t))
	s.platformKeys("empty", newSigner(t))
	s.checked("keys", metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "good or missing or empty")

	s.govern("identities", func(spec *v1alpha1.TrustPolicySpec) {
		spec.Authorities = []v1alpha1.TrustAuthority{{Name: "workflow", Verify: sourcev1.OCIRepositoryVerification{
			Provider: "cosign", MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "(", Subject: "x"}},
		}}}
	})
	bad := s.checked("identities", metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec, "authority workflow: ")
	g.Expect(bad).To(haveCondition(meta.StalledCondition, metav1.ConditionTrue, v1alpha1.ReasonInvalidSpec))

	s.ungovern("keys")
	s.ungovern("identities")
	// A selector with an invalid label key governs every namespace, and admits no new image.
	s.publishes("app", "1.0.0")
	s.regovern("plain", func(spec *v1alpha1.TrustPolicySpec) {
		spec.NamespaceSelector.MatchLabels = map[string]string{strings.Repeat("a", 254) + "/b": "x"}
	})
	s.checked("plain", metav1.ConditionFalse, v1alpha1.ReasonInvalidSpec, "spec.namespaceSelector cannot be read")
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "spec.namespaceSelector cannot be read", "still published")
	g.Expect(obj.Status.Artifact).NotTo(BeNil())
}

func TestNoDataOfASecretIsCached(t *testing.T) {
	s := newScene(t)
	s.start()
	s.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.platform, Name: "applied", Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: "the bytes"}},
		Data:       map[string][]byte{"password": []byte("the bytes")},
	})
	kept := controllers.SecretMetadata()
	s.eventually(func(g Gomega) {
		g.Expect(s.running.manager.GetCache().Get(s.Context(), client.ObjectKey{Namespace: s.platform, Name: "applied"}, kept)).To(Succeed())
	})
	NewWithT(t).Expect(kept.Annotations).To(BeEmpty())
	NewWithT(t).Expect(kept.ManagedFields).To(BeEmpty())
}

func TestALabelledSecretOfATenantCountsAtOnce(t *testing.T) {
	s := newScene(t)
	s.watchSecrets = true
	s.start()
	signer, other := newSigner(t), newSigner(t)
	s.keys(signer)
	edit(s, "keys", func(secret *corev1.Secret) {
		secret.Labels = map[string]string{meta.LabelKeyWatch: meta.LabelValueWatchEnabled}
	})
	s.picked("app", "1.0.0")
	s.sign("app:1.0.0", signer)
	s.artifactRepository("app", signed)
	s.waitPublished("app", "1.0.0@")
	s.rotate(other)
	s.withdrawn("app", "spec.verify")
	s.rotate(signer)
	s.waitPublished("app", "1.0.0@")
}
