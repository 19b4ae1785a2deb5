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
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
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

// governedBy is a snapshot of an object in an opted-in namespace that a policy governs.
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

// withoutClient returns a reconciler that panics where it reads an object, as a library
// may at an unforeseen value.
func withoutClient(t *testing.T) *ArtifactRepositoryReconciler {
	t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return &ArtifactRepositoryReconciler{Rules: source.Rules{NamespaceOptIn: source.NamespaceOptInLabel}, Metrics: metrics, Trust: &trustpolicy.Resolver{}}
}

func TestAPanicKeepsNothingPublishedThatThePlatformRefuses(t *testing.T) {
	g := NewWithT(t)
	r := withoutClient(t)
	a := r.attempt(t.Context(), t.Context(), governedBy(t, publishedObject(), "other.example/**"))
	g.Expect(a.rejected()).To(BeTrue(), "%v", a.err)
	g.Expect(a.err).To(MatchError(ContainSubstring("no TrustPolicy that enforces lists the image")))
}

func TestAPanicKeepsNothingPublishedWhereTheNamespaceHasNotOptedIn(t *testing.T) {
	g := NewWithT(t)
	r, obj := withoutClient(t), publishedObject()
	s := governedBy(t, obj, "**")
	obj.UID = "1"
	s.Namespace.Labels = nil
	s.OwnPolicy = &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
	s.OwnPolicy.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
	a := r.attempt(t.Context(), t.Context(), s)
	g.Expect(a.err).To(MatchError(ContainSubstring("a fault of this controller")))
	g.Expect(a.plan.Action).To(Equal(Withdraw))
	record(obj, a)
	g.Expect(obj.Status.Artifact).To(BeNil())
}

func TestAPanicSaysThatItIsAFaultOfThisController(t *testing.T) {
	g := NewWithT(t)
	obj := publishedObject()
	obj.Status = v1alpha1.ArtifactRepositoryStatus{}
	r := withoutClient(t)
	a := r.attempt(t.Context(), t.Context(), governedBy(t, obj, "**"))
	g.Expect(a.plan.Action).To(Equal(Refuse))
	g.Expect(a.err).To(MatchError(ContainSubstring("a fault of this controller")))
	g.Expect(fault.Of(a.err, "").Class).To(Equal(fault.Retry))
}

// Parsing has a place among the attempts of a namespace, or comes later.
func TestParsingASpecVerifyCountsAgainstTheNamespace(t *testing.T) {
	g := NewWithT(t)
	places := throttle.New(4)
	r := &ArtifactRepositoryReconciler{Trust: &trustpolicy.Resolver{Reader: objectsOnly{}}, Pipeline: &pipeline.Pipeline{Throttle: places}}
	obj := publishedObject()
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
	free := occupyAll(places, obj.Namespace)
	own, wait := r.ownDemands(t.Context(), obj)
	g.Expect(wait).To(BeNumerically(">", 0))
	g.Expect(own.Refused()).To(HaveOccurred(), "nothing is accepted meanwhile")
	elsewhere := obj.DeepCopy()
	elsewhere.Namespace = "another"
	_, wait = r.ownDemands(t.Context(), elsewhere)
	g.Expect(wait).To(BeZero())
	free()
	_, wait = r.ownDemands(t.Context(), obj)
	g.Expect(wait).To(BeZero())
	g.Expect(isSpent(places, obj.Namespace)).To(BeFalse(), "the place is free again")
}

// Reading stored bytes has such a place, too: at a short interval, some hundred sources
// of large artifacts would occupy all workers with it.
func TestReadingWhatIsStoredCountsAgainstTheNamespace(t *testing.T) {
	g := NewWithT(t)
	root, digest, bytes := t.TempDir(), fmt.Sprintf("%x", sha256.Sum256([]byte("good"))), int64(len("good"))
	local, err := store.Open(store.Options{Root: root, AdvertisedAddress: "artifacts.example.com", RetentionTTL: time.Minute, RetentionRecords: 2})
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { g.Expect(local.Close()).To(Succeed()) }()
	places := throttle.New(4)
	r := &ArtifactRepositoryReconciler{Pipeline: &pipeline.Pipeline{Throttle: places}}
	r.Store, err = store.NewReplica(local, store.PeerOptions{Address: ":0"})
	g.Expect(err).NotTo(HaveOccurred())

	obj := publishedObject()
	obj.Status.Artifact.Path = "externalartifact/apps/app/" + digest + ".tar.gz"
	obj.Status.Artifact.Digest, obj.Status.Artifact.Size = "sha256:"+digest, &bytes
	obj.Status.ObservedContent = format.ContentHash(r.content(obj))
	plan, err := recordedPlan(source.Snapshot{Object: obj})
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(root, obj.Status.Artifact.Path)
	g.Expect(os.MkdirAll(filepath.Dir(file), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(file, []byte("harm"), 0o600)).To(Succeed()) // who reads it sees it
	stands := func() bool { return r.stands(t.Context(), source.Snapshot{Object: obj}, attempt{plan: plan}) }

	free := occupyAll(places, obj.Namespace)
	g.Expect(stands()).To(BeTrue(), "it is not read, as all places are taken")
	free()
	g.Expect(stands()).To(BeFalse())
	g.Expect(isSpent(places, obj.Namespace)).To(BeFalse(), "the place is free again")
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
