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
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
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
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// objectsOnly reads one TrustPolicy and Secrets without content.
type objectsOnly struct{ policy v1alpha1.TrustPolicy }

// TrustPolicies implements trustpolicy.Reader.
func (o objectsOnly) TrustPolicies(context.Context) ([]v1alpha1.TrustPolicy, error) {
	return []v1alpha1.TrustPolicy{o.policy}, nil
}

// SecretState implements trustpolicy.Reader.
func (objectsOnly) SecretState(context.Context, string, string) (string, error) { return "1", nil }

// Secret implements trustpolicy.Reader.
func (objectsOnly) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return &corev1.Secret{}, nil
}

// governedBy is a snapshot of an object in a governed namespace with the opt-in.
func governedBy(t *testing.T, obj *v1alpha1.ArtifactRepository, images ...v1alpha1.ImagePattern) source.Snapshot {
	t.Helper()
	policy := v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: "platform"}, Spec: v1alpha1.TrustPolicySpec{Images: images}}
	now, err := (&trustpolicy.Resolver{Reader: objectsOnly{policy}}).InForce(t.Context())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return source.Snapshot{
		Object:    obj,
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}}},
		Trust:     now,
	}
}

// publishedObject has published registry.example/app.
func publishedObject() *v1alpha1.ArtifactRepository {
	obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
	obj.Spec.Image, obj.Spec.Tag = "registry.example/app", "1"
	obj.Status.Artifact = &meta.Artifact{Revision: "1@sha256:" + digestOfNothing}
	obj.Status.Record = &v1alpha1.Recipe{Image: "registry.example/app", Digest: "sha256:" + digestOfNothing}
	return obj
}

// decideWithoutClient returns the decision of a reconciler that panics at each read or write
// of an object, as a library may at an unforeseen value.
func decideWithoutClient(t *testing.T, s source.Snapshot) decision {
	t.Helper()
	e := &Evaluator{Rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}, Trust: &trustpolicy.Resolver{}}
	var running inflight
	work, end := running.begin(t.Context(), types.NamespacedName{Namespace: "apps", Name: "app"})
	defer end()
	s, kept := ImageObjects{}.Ensure(t.Context(), s, e.Rules.Permission(s))
	return e.evaluate(work, s, kept)
}

func TestAPanicKeepsNoRefusedArtifactPublished(t *testing.T) {
	g := NewWithT(t)
	d := decideWithoutClient(t, governedBy(t, publishedObject(), "other.example/**"))
	g.Expect(d.change.Kind()).To(Equal(publication.KindWithdraw), "%v", d.trail)
	g.Expect(d.trail.Decided().Message).To(ContainSubstring("no TrustPolicy that enforces lists the image"))
}

func TestAPanicKeepsNoArtifactPublishedWithoutOptIn(t *testing.T) {
	g := NewWithT(t)
	obj := publishedObject()
	s := governedBy(t, obj, "**")
	obj.UID = "1"
	s.Namespace.Labels = nil
	s.OwnPolicy = &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
	s.OwnPolicy.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
	d := decideWithoutClient(t, s)
	g.Expect(d.change.Kind()).To(Equal(publication.KindRemove))
	g.Expect(publication.Apply(obj.Status, d.change).Artifact).To(BeNil())
}

func TestAPanicIsReportedAsABugInThisController(t *testing.T) {
	obj := publishedObject()
	obj.Status = v1alpha1.ArtifactRepositoryStatus{}
	inAStep := governedBy(t, obj, "**")
	whileKept := inAStep
	whileKept.Object = obj.DeepCopy()
	whileKept.Object.Spec.Tag, whileKept.Object.Spec.Policy = "", &imagev1.ImagePolicyChoice{}
	for name, s := range map[string]source.Snapshot{"in a step": inAStep, "while image objects are kept": whileKept} {
		g, d := NewWithT(t), decideWithoutClient(t, s)
		g.Expect(d.change).To(Equal(publication.Keep()), name)
		g.Expect(d.failure()).To(MatchError(ContainSubstring("a bug in this controller")), name)
		g.Expect(d.failure().Class).To(Equal(fault.Retry), name)
	}
}

// Parsing has a place among the attempts of a namespace, or comes later.
func TestParsingASpecVerifyCountsAgainstTheNamespace(t *testing.T) {
	g := NewWithT(t)
	places := throttle.New(4)
	e := &Evaluator{Trust: &trustpolicy.Resolver{Reader: objectsOnly{}}, Pipeline: &pipeline.Pipeline{Throttle: places}}
	ownDemands := func(obj *v1alpha1.ArtifactRepository) (trustpolicy.Demands, time.Duration) {
		return e.ownDemands(t.Context(), obj)
	}
	obj := publishedObject()
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
	free := occupyAll(places, obj.Namespace)
	own, wait := ownDemands(obj)
	g.Expect(wait).To(BeNumerically(">", 0))
	g.Expect(own.Refused()).To(HaveOccurred(), "no image is accepted meanwhile")
	elsewhere := obj.DeepCopy()
	elsewhere.Namespace = "another"
	_, wait = ownDemands(elsewhere)
	g.Expect(wait).To(BeZero())
	free()
	_, wait = ownDemands(obj)
	g.Expect(wait).To(BeZero())
	g.Expect(isSpent(places, obj.Namespace)).To(BeFalse(), "the place is free again")
}

// Reading them would occupy all workers at a short interval of some hundred sources of
// large artifacts: Scrub does, see pkg/store.
func TestAReconcileReadsNoStoredBytes(t *testing.T) {
	g := NewWithT(t)
	root, digest, bytes := t.TempDir(), fmt.Sprintf("%x", sha256.Sum256([]byte("good"))), int64(len("good"))
	local, err := store.Open(store.Options{Root: root, AdvertisedAddress: "artifacts.example.com", RetentionTTL: time.Minute, RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(local.Close()).To(Succeed()) }()
	e := &Evaluator{}
	e.Store, err = store.NewReplica(local, store.PeerOptions{Address: ":0"})
	g.Expect(err).NotTo(HaveOccurred())

	obj := publishedObject()
	obj.Status.Artifact.Path = "externalartifact/apps/app/" + digest + ".tar.gz"
	obj.Status.Artifact.Digest, obj.Status.Artifact.Size = "sha256:"+digest, &bytes
	obj.Status.ObservedContent = format.ContentHash(e.settings(obj))
	v := evaluation{Evaluator: e, s: source.Snapshot{Object: obj}, contentHash: obj.Status.ObservedContent}
	v.d.target, err = v.s.Recorded()
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(root, obj.Status.Artifact.Path)
	g.Expect(os.MkdirAll(filepath.Dir(file), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(file, []byte("harm"), 0o600)).To(Succeed()) // a read finds it
	g.Expect(v.isCurrent(t.Context())).To(BeTrue())
}

// occupyAll takes all places of a namespace. free gives one of them back.
func occupyAll(places *throttle.Throttle, namespace string) (free func()) {
	for {
		end, busy := places.Occupy(namespace)
		if busy != nil {
			return free
		}
		free = end
	}
}

func isSpent(places *throttle.Throttle, namespace string) bool {
	end, busy := places.Occupy(namespace)
	if busy == nil {
		end()
	}
	return busy != nil
}
