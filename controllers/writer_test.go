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
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
)

// Writes of a Writer.
const (
	recordStatus   = "ArtifactRepository/status"
	externalStatus = "ExternalArtifact/status"
	externalMade   = "ExternalArtifact create"
	externalGone   = "ExternalArtifact delete"
)

// refusing is a Writer with an API server that notes the writes, and refuses some of them.
type refusing struct {
	*Writer
	client client.Client
	writes []string
	refuse map[string]error
}

func newRefusing(t *testing.T, objects ...client.Object) *refusing {
	t.Helper()
	g := NewWithT(t)
	scheme := runtime.NewScheme()
	g.Expect(v1alpha1.AddToScheme(scheme)).To(Succeed())
	g.Expect(sourcev1.AddToScheme(scheme)).To(Succeed())
	w := &refusing{refuse: map[string]error{}}
	note := func(write string) error {
		w.writes = append(w.writes, write)
		return w.refuse[write]
	}
	kind := func(obj client.Object) string {
		if _, ok := obj.(*sourcev1.ExternalArtifact); ok {
			return sourcev1.ExternalArtifactKind
		}
		return v1alpha1.ArtifactRepositoryKind
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.CreateOption) error {
				if err := note(kind(obj) + " create"); err != nil {
					return err
				}
				obj.SetUID("made") // as an API server does
				return c.Create(ctx, obj, o...)
			},
			Delete: func(ctx context.Context, c client.WithWatch, obj client.Object, o ...client.DeleteOption) error {
				if err := note(kind(obj) + " delete"); err != nil {
					return err
				}
				return c.Delete(ctx, obj, o...)
			},
			Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, o ...client.PatchOption) error {
				if err := note(kind(obj)); err != nil {
					return err
				}
				return c.Patch(ctx, obj, patch, o...)
			},
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, obj client.Object, patch client.Patch, o ...client.SubResourcePatchOption) error {
				if err := note(kind(obj) + "/" + sub); err != nil {
					return err
				}
				return c.SubResource(sub).Patch(ctx, obj, patch, o...)
			},
		}).Build()
	opened, err := store.Open(store.Options{Root: t.TempDir(), AdvertisedAddress: "here.example", RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = opened.Close() })
	replica, err := store.NewReplica(opened, store.PeerOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	w.Writer = &Writer{Client: w.client, Live: w.client, Store: replica}
	return w
}

// snapshot reads the objects named app.
func (w *refusing) snapshot(g Gomega) source.Snapshot {
	key := client.ObjectKey{Namespace: "apps", Name: "app"}
	s := source.Snapshot{Object: &v1alpha1.ArtifactRepository{}}
	g.Expect(w.client.Get(context.Background(), key, s.Object)).To(Succeed())
	external := &sourcev1.ExternalArtifact{}
	err := w.client.Get(context.Background(), key, external)
	if g.Expect(client.IgnoreNotFound(err)).To(Succeed()); err == nil {
		s.External = external
	}
	return s
}

// write carries out a decision, and returns the writes in their order.
func (w *refusing) write(g Gomega, d decision) (delivery, []string, error) {
	s := w.snapshot(g)
	w.writes = nil
	out, err := w.Write(context.Background(), s, d)
	return out, slices.Clone(w.writes), err
}

func repository() *v1alpha1.ArtifactRepository {
	return &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app", UID: "1", Generation: 1}}
}

// promotes returns the decision to publish a tag, with a digest made of a digit.
func promotes(tag, digit string) decision {
	hex, size := strings.Repeat(digit, 64), int64(7)
	out := bridge.Outcome{
		Image:  bridge.Image{Repository: "ghcr.io/org/app", Tag: tag, Digest: v1.Hash{Algorithm: "sha256", Hex: hex}},
		Format: "Flux", Content: "settings",
		Artifact: meta.Artifact{
			Path: "externalartifact/apps/app/" + hex + ".tar.gz", URL: "http://here.example/app", Digest: "sha256:" + hex, Size: &size,
			Revision: tag + "@sha256:" + hex, LastUpdateTime: metav1.NewTime(time.Unix(1, 0)),
		},
	}
	return decision{
		change: publication.Promote(publication.Product{Outcome: out, Accepted: &publication.Acceptance{}}),
		trail:  explain.Trail{explain.Pass(explain.Build, "")}, latest: out.Image, stored: true,
	}
}

func withdraws() decision {
	unsigned := fault.Retryf(v1alpha1.ReasonVerificationError, "no signature")
	return decision{change: publication.Withdraw(), trail: explain.Trail{explain.Withdraw(explain.Published, unsigned)}}
}

func removes() decision {
	denied := fault.Waitf(v1alpha1.ReasonAccessDenied, "the namespace has not opted in")
	return decision{change: publication.Remove(), trail: explain.Trail{explain.Withdraw(explain.Permission, denied)}}
}

func TestTheOrderOfAPublication(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	out, writes, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writes).To(Equal([]string{recordStatus, externalMade, externalStatus, recordStatus}))
	g.Expect(out.recorded).To(BeTrue())
	g.Expect(conditions.IsReady(out.after)).To(BeTrue())

	_, writes, err = w.write(g, promotes("1.1.0", "b"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writes).To(Equal([]string{recordStatus, externalStatus, recordStatus}))

	again := promotes("1.1.0", "b")
	again.change = publication.Keep()
	_, writes, err = w.write(g, again)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writes).To(BeEmpty(), "an idle source is written never")
}

func TestTheSameFailureIsWrittenOnce(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	_, _, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	fails := func(port string) decision {
		return decision{stored: true, trail: explain.Trail{explain.Pass(explain.Target, ""), explain.Refuse(explain.Resolve,
			fault.Retryf(v1alpha1.ReasonFetchFailed, "read tcp 127.0.0.1:%s->127.0.0.1:5000: reset by peer", port))}}
	}
	out, writes, err := w.write(g, fails("40001"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writes).To(Equal([]string{externalStatus, recordStatus}))
	g.Expect(out.after.Status.Decision.Steps).To(HaveLen(2))
	_, writes, err = w.write(g, fails("40002"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(writes).To(BeEmpty())
}

func TestAPublicationThatCannotBeRecordedIsNotSeen(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	w.refuse[recordStatus] = errors.New("too large")
	out, writes, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).To(MatchError("too large"))
	g.Expect(writes).To(Equal([]string{recordStatus}))
	g.Expect(out.recorded).To(BeFalse())
}

func TestARefusedExternalArtifactIsAStepOfTheTrail(t *testing.T) {
	for write, refusal := range map[string]error{
		externalMade:   apierrors.NewForbidden(schema.GroupResource{Resource: "externalartifacts"}, "app", errors.New("quota")),
		externalStatus: errors.New("no answer"),
	} {
		g, w := NewWithT(t), newRefusing(t, repository())
		w.refuse[write] = refusal
		out, _, err := w.write(g, promotes("1.0.0", "a"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(out.recorded).To(BeTrue())
		g.Expect(out.trail.Decided().Name).To(Equal(explain.Deliver))
		g.Expect(conditions.IsReady(out.after)).To(BeFalse())
		g.Expect(out.after.Status.Artifact).NotTo(BeNil(), "the record is true")
		steps := out.after.Status.Decision.Steps
		g.Expect(steps[len(steps)-1].Effect).To(Equal(v1alpha1.EffectRefuse))
	}
}

// Neither the record nor the ExternalArtifact waits for the other one.
func TestTheOrderOfAWithdrawal(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		decision decision
		refuse   string
		// gone lists the fields that are empty afterwards.
		gone []string
	}{
		"withdrawal":                                  {withdraws(), "", []string{"record", "external"}},
		"withdrawal, record refused":                  {withdraws(), recordStatus, []string{"external"}},
		"withdrawal, ExternalArtifact refused":        {withdraws(), externalStatus, []string{"record"}},
		"removal":                                     {removes(), "", []string{"record", "external"}},
		"removal, record refused":                     {removes(), recordStatus, []string{"external"}},
		"removal, status of ExternalArtifact refused": {removes(), externalStatus, []string{"record", "external"}},
		"removal, deletion refused":                   {removes(), externalGone, []string{"record", "external"}},
	} {
		t.Run(name, func(t *testing.T) {
			g, w := NewWithT(t), newRefusing(t, repository())
			_, _, err := w.write(g, promotes("1.0.0", "a"))
			g.Expect(err).NotTo(HaveOccurred())
			w.refuse[test.refuse] = refused
			delete(w.refuse, "")
			out, writes, err := w.write(g, test.decision)
			g.Expect(writes).To(ContainElements(recordStatus, externalStatus), "both are tried")
			g.Expect(out.recorded).To(Equal(test.refuse != recordStatus))
			if test.refuse == recordStatus {
				g.Expect(err).To(MatchError(refused))
			} else {
				g.Expect(err).NotTo(HaveOccurred())
			}
			s := w.snapshot(g)
			var gone []string
			if s.Object.Status.Artifact == nil && s.Object.Status.Record == nil {
				gone = append(gone, "record")
			}
			if s.External == nil || s.External.Status.Artifact == nil {
				gone = append(gone, "external")
			}
			g.Expect(gone).To(Equal(test.gone))
		})
	}
}

func TestAWithdrawalHasNoConditionThatSaysItIsPublished(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	_, _, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	out, _, err := w.write(g, withdraws())
	g.Expect(err).NotTo(HaveOccurred())
	for _, obj := range []conditions.Getter{out.after, w.snapshot(g).External} {
		ready := conditions.Get(obj, meta.ReadyCondition)
		g.Expect(ready.Status).To(Equal(metav1.ConditionFalse))
		g.Expect(ready.Reason).To(Equal(v1alpha1.ReasonVerificationError))
	}
}

// If the source is suspended, this condition is all that tells why nothing is published.
func TestARefusedImageWhoseExternalArtifactIsRefusedTellsWhy(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	w.refuse[externalStatus] = errors.New("no answer")
	unsigned := fault.Retryf(v1alpha1.ReasonVerificationError, "no signature")
	out, _, err := w.write(g, decision{trail: explain.Trail{explain.Refuse(explain.Trust, unsigned)}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out.trail.Decided().Name).To(Equal(explain.Deliver))
	verified := conditions.Get(out.after, v1alpha1.SourceVerifiedCondition)
	g.Expect(verified).NotTo(BeNil())
	g.Expect(verified.Message).To(Equal("no signature"))
}

// The cache may be behind the record of another replica.
func TestAnOldRecordWithdrawsNoArtifact(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	_, _, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	old := w.snapshot(g)
	_, _, err = w.write(g, promotes("1.1.0", "b"))
	g.Expect(err).NotTo(HaveOccurred())
	w.writes = nil
	_, err = w.Write(context.Background(), old, withdraws())
	g.Expect(apierrors.IsConflict(err)).To(BeTrue(), "%v", err)
	g.Expect(w.writes).To(BeEmpty())
	g.Expect(w.snapshot(g).External.Status.Artifact.Revision).To(HavePrefix("1.1.0"))
}

func TestADoubtedArtifactIsNotDeliveredAgain(t *testing.T) {
	g, w := NewWithT(t), newRefusing(t, repository())
	_, _, err := w.write(g, promotes("1.0.0", "a"))
	g.Expect(err).NotTo(HaveOccurred())
	s := w.snapshot(g)
	s.External.Status.Artifact = nil
	g.Expect(w.client.Status().Update(context.Background(), s.External)).To(Succeed())
	doubts := decision{doubted: true, stored: true, trail: explain.Trail{explain.Refuse(explain.Published, fault.Retryf(v1alpha1.ReasonVerificationError, "no answer"))}}
	out, _, err := w.write(g, doubts)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.snapshot(g).External.Status.Artifact).To(BeNil())
	g.Expect(conditions.GetMessage(out.after, meta.ReadyCondition)).NotTo(ContainSubstring("still published"))

	accepted := promotes("1.0.0", "a")
	accepted.change = publication.Confirm(publication.Acceptance{By: "key"})
	_, _, err = w.write(g, accepted)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.snapshot(g).External.Status.Artifact).NotTo(BeNil())
}
