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
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
	"github.com/image-source/image-source-controller/test/publish"
)

// platform has the TrustPolicies and Secrets of a cluster, for a test to change.
type platform struct {
	policies []v1alpha1.TrustPolicy
	key      []byte
}

// TrustPolicies implements trustpolicy.Reader.
func (p *platform) TrustPolicies(context.Context) ([]v1alpha1.TrustPolicy, error) {
	return p.policies, nil
}

// SecretState implements trustpolicy.Reader.
func (*platform) SecretState(context.Context, string, string) (string, error) { return "1", nil }

// Secret implements trustpolicy.Reader.
func (p *platform) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return &corev1.Secret{Data: map[string][]byte{"cosign.pub": p.key}}, nil
}

// governs sets one policy that requires a signature for the matching images, and refuses all
// others. Its generation tells one policy from the next.
func (p *platform) governs(generation int64, mode v1alpha1.Mode, images ...v1alpha1.ImagePattern) {
	policy := v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "release", UID: "1", Generation: generation}}
	policy.Spec.Mode, policy.Spec.Images = mode, images
	policy.Spec.Authorities = []v1alpha1.TrustAuthority{{Name: "key", Verify: sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "key"}}}}
	p.policies = []v1alpha1.TrustPolicy{policy}
}

// stage is an evaluator with a registry, a store and a platform of its own.
type stage struct {
	*Evaluator
	registry *publish.InProcess
	platform *platform
	root     string
	signer   *publish.Signer
}

func newStage(t *testing.T) *stage {
	t.Helper()
	g := NewWithT(t)
	s := &stage{registry: publish.Serve(), platform: &platform{}, root: t.TempDir()}
	t.Cleanup(s.registry.Close)
	var err error
	s.signer, err = publish.NewSigner()
	g.Expect(err).NotTo(HaveOccurred())
	s.platform.key = s.signer.PublicKey
	opened, err := store.Open(store.Options{Root: s.root, AdvertisedAddress: "here.example", RetentionTTL: time.Hour, RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = opened.Close() })
	replica, err := store.NewReplica(opened, store.PeerOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	access, err := registry.NewClient(registry.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}}}
	reader := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(namespace).Build()
	trusted := &trustpolicy.Resolver{Reader: s.platform, Namespace: "flux-system", Options: trust.Options{}, Panicked: panicFault}
	rules := source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}
	s.Evaluator = &Evaluator{
		Rules: rules, Snapshots: Snapshots{Client: reader, Rules: rules, Trust: trusted}, Store: replica, Trust: trusted,
		Content: format.Options{Limits: format.DefaultLimits()},
		Pipeline: &pipeline.Pipeline{
			Throttle: throttle.New(4), Credentials: credentials.New(credentials.Options{Client: reader}),
			Registry: access, Bridge: bridge.New(replica, time.Now),
		},
	}
	s.push(t, "1", "version: 1\n")
	return s
}

// push moves a tag to a signed artifact with one file.
func (s *stage) push(t *testing.T, tag, content string) {
	t.Helper()
	image := "org/app:" + tag
	_, err := s.registry.Shelf().Flux(t.Context(), image, publish.Files{"app.yaml": content})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(s.registry.Shelf().Sign(t.Context(), image, s.signer)).To(Succeed())
}

// snapshot is of a source with the tag 1, under the current demands of the platform.
func (s *stage) snapshot(t *testing.T) source.Snapshot {
	t.Helper()
	obj := repository()
	obj.Spec.Image, obj.Spec.Tag, obj.Spec.Insecure = s.registry.Host()+"/org/app", "1", true
	return s.refreshed(t, source.Snapshot{Object: obj})
}

// refreshed returns a snapshot as it is read now.
func (s *stage) refreshed(t *testing.T, was source.Snapshot) source.Snapshot {
	t.Helper()
	now, err := s.Snapshots.platform(t.Context(), "apps")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	was.Namespace, was.Trust = now.Namespace, now.Trust
	return was
}

func (s *stage) decide(t *testing.T, snapshot source.Snapshot, kept error) decision {
	t.Helper()
	var running inflight
	work, end := running.begin(t.Context(), client.ObjectKeyFromObject(snapshot.Object))
	defer end()
	return s.evaluate(work, snapshot, kept)
}

// published returns a snapshot of the source after its first publication.
func (s *stage) published(t *testing.T) source.Snapshot {
	t.Helper()
	snapshot := s.snapshot(t)
	d := s.decide(t, snapshot, nil)
	NewWithT(t).Expect(d.change.Kind()).To(Equal(publication.KindPromote), "%+v", d.trail)
	snapshot.Object.Status = publication.Apply(snapshot.Object.Status, d.change)
	snapshot.Object.Status.ObservedGeneration = snapshot.Object.Generation
	return snapshot
}

// inShort returns the trail of a decision: the steps, and the reasons of those that do not
// pass.
func inShort(d decision) string {
	var steps []string
	for _, step := range d.trail {
		if step.Effect == v1alpha1.EffectPass {
			steps = append(steps, string(step.Name))
		} else {
			steps = append(steps, string(step.Name)+" "+string(step.Effect)+" "+step.Reason)
		}
	}
	return strings.Join(steps, ", ")
}

// askNow requests a reconcile: a cached answer about the tag does not count.
func askNow(s *source.Snapshot) {
	s.Object.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
}

var errBroken = errors.New("the connection broke")

func TestDecisions(t *testing.T) {
	const published = "Permission, Target, Resolve, Trust, Build"
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "imagepolicies"}, "app", errBroken)
	foreign := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
	for name, test := range map[string]struct {
		// fresh: no artifact is published yet.
		fresh bool
		edit  func(*testing.T, *stage, *source.Snapshot)
		kept  error
		kind  publication.Kind
		trail string
		// silent, and doubted: those of the decision.
		silent, doubted bool
	}{
		"first publication": {fresh: true, kind: publication.KindPromote, trail: published},
		"unchanged":         {trail: published},
		"unchanged by its digest": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Digest = s.Object.Status.Record.Digest
		}, trail: published},
		"a moved tag": {edit: func(t *testing.T, s *stage, snapshot *source.Snapshot) {
			s.push(t, "1", "version: 2\n")
			askNow(snapshot)
		}, kind: publication.KindPromote, trail: published},
		"other content settings": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Ignore = new("*.md")
		}, kind: publication.KindPromote, trail: published},
		"a new name": {edit: func(t *testing.T, s *stage, snapshot *source.Snapshot) {
			s.push(t, "2", "version: 1\n")
			snapshot.Object.Spec.Tag = "2"
		}, kind: publication.KindPromote, trail: "Permission, Target, Resolve, Build"},
		"opted out": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Namespace.Labels = nil
		}, kind: publication.KindRemove, trail: "Permission Withdraw AccessDenied"},
		"opted out, never published": {fresh: true, edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Namespace.Labels = nil
		}, kind: publication.KindRemove, trail: "Permission Withdraw AccessDenied"},
		"a typo in the label": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Namespace.Labels[v1alpha1.UseAsSource] = "enable"
		}, trail: "Permission Refuse AccessDenied"},
		"image objects fail":     {kept: errBroken, trail: "ImageObjects Refuse FetchFailed"},
		"image objects conflict": {kept: conflict, trail: "ImageObjects Refuse FetchFailed", silent: true},
		"the name is taken": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.External = foreign
		}, trail: "Permission, Deliver Refuse NameConflict"},
		"suspended": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Suspend = true
		}, trail: "Permission, Suspend Hold Suspended"},
		"no name of a repository": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Image = "Not/A/Name"
		}, trail: "Permission, Target Refuse InvalidSpec"},
		"no such tag": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Tag = "absent"
		}, trail: "Permission, Target, Resolve Refuse ImageNotFound"},
		"the registry is away": {edit: func(_ *testing.T, s *stage, snapshot *source.Snapshot) {
			s.registry.Close()
			askNow(snapshot)
		}, trail: "Permission, Target, Resolve Refuse FetchFailed"},
		"content of no format": {edit: func(_ *testing.T, _ *stage, s *source.Snapshot) {
			s.Object.Spec.Format = v1alpha1.FormatHelm
		}, trail: "Permission, Target, Resolve, Trust, Build Refuse UnsupportedMediaType"},
		"signed as demanded": {fresh: true, edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "**")
		}, kind: publication.KindPromote, trail: published},
		"accepted by new demands": {edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "**")
		}, kind: publication.KindConfirm, trail: published},
		"accepted by new demands, suspended": {edit: func(_ *testing.T, s *stage, snapshot *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "**")
			snapshot.Object.Spec.Suspend = true
		}, kind: publication.KindConfirm, trail: "Permission, Suspend Hold Suspended"},
		"refused by its name": {edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "other.example/**")
		}, kind: publication.KindWithdraw, trail: "Published Withdraw VerificationError"},
		"refused by its name, never published": {fresh: true, edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "other.example/**")
		}, trail: "Permission, Target, Trust Refuse VerificationError"},
		"refused, suspended, the registry away": {edit: func(_ *testing.T, s *stage, snapshot *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "other.example/**")
			snapshot.Object.Spec.Suspend = true
			s.registry.Close()
		}, kind: publication.KindWithdraw, trail: "Published Withdraw VerificationError"},
		"refused, image objects fail": {edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "other.example/**")
		}, kept: conflict, kind: publication.KindWithdraw, trail: "Published Withdraw VerificationError"},
		"the key is revoked": {edit: func(t *testing.T, s *stage, _ *source.Snapshot) {
			another, err := publish.NewSigner()
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			s.platform.key = another.PublicKey
			s.platform.governs(1, v1alpha1.ModeEnforce, "**")
		}, kind: publication.KindWithdraw, trail: "Published Withdraw VerificationError"},
		"new demands, the registry away": {edit: func(_ *testing.T, s *stage, _ *source.Snapshot) {
			s.platform.governs(1, v1alpha1.ModeEnforce, "**")
			s.registry.Close()
		}, trail: "Permission, Target, Resolve, Build, Published Refuse VerificationError", doubted: true},
		"a record without a recipe": {edit: func(_ *testing.T, s *stage, snapshot *source.Snapshot) {
			snapshot.Object.Status.Record = nil
			snapshot.Object.Spec.Tag = "absent"
		}, kind: publication.KindWithdraw, trail: "Permission, Target, Resolve Refuse ImageNotFound"},
		"a record without a recipe, published anew": {edit: func(_ *testing.T, s *stage, snapshot *source.Snapshot) {
			snapshot.Object.Status.Record = nil
		}, kind: publication.KindPromote, trail: published},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, s := NewWithT(t), newStage(t)
			snapshot := s.snapshot(t)
			if !test.fresh {
				snapshot = s.published(t)
			}
			if test.edit != nil {
				test.edit(t, s, &snapshot)
			}
			labels := snapshot.Namespace.Labels
			snapshot = s.refreshed(t, snapshot)
			snapshot.Namespace.Labels = labels
			before := snapshot.Object.DeepCopy()
			d := s.decide(t, snapshot, test.kept)
			g.Expect(inShort(d)).To(Equal(test.trail))
			g.Expect(d.change.Kind()).To(Equal(test.kind), "%v", d.trail)
			g.Expect(d.silent).To(Equal(test.silent), "%v", d.trail)
			g.Expect(d.doubted).To(Equal(test.doubted), "%v", d.trail)
			g.Expect(snapshot.Object).To(Equal(before), "an evaluation does not write")
			if test.kind == publication.KindKeep && !test.fresh && !test.silent {
				g.Expect(d.stored).To(BeTrue(), "the published bytes are there")
			}
		})
	}
}

// Lost files are rebuilt even if the source is held back.
func TestLostBytesAreMadeAgainWhileTheSourceIsHeldBack(t *testing.T) {
	for name, hold := range map[string]func(*v1alpha1.ArtifactRepository){
		"suspended":   func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true },
		"no such tag": func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "absent" },
	} {
		t.Run(name, func(t *testing.T) {
			g, s := NewWithT(t), newStage(t)
			snapshot := s.published(t)
			file := filepath.Join(s.root, snapshot.Object.Status.Artifact.Path)
			g.Expect(os.Remove(file)).To(Succeed())
			hold(snapshot.Object)
			d := s.decide(t, snapshot, nil)
			g.Expect(d.stored).To(BeTrue())
			g.Expect(d.change).To(Equal(publication.Keep()), "the same bytes are no news")
			g.Expect(file).To(BeARegularFile())
		})
	}
}

// A digest with a permanent failure is not pulled again.
func TestARefusedDigestIsNotPulledAgain(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	snapshot.Object.Spec.Format = v1alpha1.FormatHelm
	first := s.decide(t, snapshot, nil)
	s.registry.Forget()
	again := s.decide(t, snapshot, nil)
	g.Expect(inShort(again)).To(HaveSuffix("Build Refuse UnsupportedMediaType"))
	g.Expect(again.failure().Error()).To(Equal(first.failure().Error()))
	g.Expect(s.registry.Count("GET", "/blobs/")).To(BeZero())
}

func TestAnIdleSourceAsksTheRegistryOnlyForItsTag(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	s.registry.Forget()
	d := s.decide(t, snapshot, nil)
	g.Expect(d.change).To(Equal(publication.Keep()))
	g.Expect(len(s.registry.Requests())).To(BeNumerically("<=", 1), "%v", s.registry.Requests())
}

// Else the ImageRepository is scanned until the next interval.
func TestImageObjectsThatCouldNotBeRemovedAreRemovedSoon(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	snapshot.Namespace.Labels = nil
	d := s.decide(t, snapshot, fault.Retryf(v1alpha1.ReasonDependencyNotReady, "could not be kept: %w", errBroken))
	g.Expect(d.change.Kind()).To(Equal(publication.KindRemove))
	g.Expect(d.failure().Class).To(Equal(fault.Retry), "%v", d.trail)
	g.Expect(d.failure()).To(MatchError(errBroken))
}

// A judgement and a new name may end in one decision: the entry of the new name must not
// name the signers of before.
func TestANewNameHasTheSignersOfToday(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	g.Expect(publication.Latest(snapshot.Object).VerifiedBy).To(BeEmpty())
	s.push(t, "2", "version: 1\n")
	s.platform.governs(1, v1alpha1.ModeEnforce, "**")
	snapshot = s.refreshed(t, snapshot)
	snapshot.Object.Spec.Tag = "2"
	d := s.decide(t, snapshot, nil)
	g.Expect(d.change.Kind()).To(Equal(publication.KindPromote))
	after := publication.Apply(snapshot.Object.Status, d.change)
	g.Expect(after.History[0].Tag).To(Equal("2"))
	g.Expect(after.History[0].VerifiedBy).To(ContainSubstring("release"))
	g.Expect(after.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataVerifiedBy, after.History[0].VerifiedBy))
}
