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
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// governedBy are surroundings in an opted-in namespace that a policy governs.
func governedBy(images ...string) Surroundings {
	policy := trust.Policy{Name: "platform", Namespaces: labels.Everything(), Images: images}
	return Surroundings{
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "apps", Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}}},
		trust:     &inForce{policies: trust.NewPolicies(policy), specs: map[string]*v1alpha1.TrustPolicy{"platform": {}}},
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
	return &ArtifactRepositoryReconciler{Rules: Rules{NamespaceOptIn: NamespaceOptInLabel}, Metrics: metrics, Trust: &Trust{}}
}

func TestAPanicKeepsNothingPublishedThatThePlatformRefuses(t *testing.T) {
	g := NewWithT(t)
	r := withoutClient(t)
	a := r.attempt(t.Context(), t.Context(), publishedObject(), governedBy("other.example/**"))
	g.Expect(a.rejected()).To(BeTrue(), "%v", a.err)
	g.Expect(a.err).To(MatchError(ContainSubstring("no TrustPolicy that enforces lists the image")))
}

func TestAPanicKeepsNothingPublishedWhereTheNamespaceHasNotOptedIn(t *testing.T) {
	g := NewWithT(t)
	r, obj, around := withoutClient(t), publishedObject(), governedBy("**")
	obj.UID = "1"
	around.Namespace.Labels = nil
	around.OwnPolicy = &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}}
	around.OwnPolicy.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
	a := r.attempt(t.Context(), t.Context(), obj, around)
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
	a := r.attempt(t.Context(), t.Context(), obj, governedBy("**"))
	g.Expect(a.plan.Action).To(Equal(Refuse))
	g.Expect(a.err).To(MatchError(ContainSubstring("a fault of this controller")))
	g.Expect(fault.Of(a.err, "").Class).To(Equal(fault.Retry))
}

// secretsOnly reads one Secret, whatever its name, in one of its versions.
type secretsOnly struct {
	client.Reader

	version string
	data    map[string][]byte
}

// Get implements client.Reader.
func (s *secretsOnly) Get(_ context.Context, key types.NamespacedName, obj client.Object, _ ...client.GetOption) error {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return errors.New("it is no Secret")
	}
	*secret = corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: "1", ResourceVersion: s.version}, Data: s.data,
	}
	return nil
}

// manyIdentities is a trust policy of Notation whose validation compares each of many
// identities with each other one.
func manyIdentities() []byte {
	var identities []string
	for i := range 18_000 {
		identities = append(identities, fmt.Sprintf(`"x509.subject: C=US, ST=WA, O=%d"`, i))
	}
	return []byte(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "trustStores": ["ca:any"],
		"signatureVerification": {"level": "strict"}, "trustedIdentities": [` + strings.Join(identities, ",") + `]}]}`)
}

func TestASpecVerifyIsParsedOnceForEachStateOfItsSecret(t *testing.T) {
	g := NewWithT(t)
	secret := &secretsOnly{version: "1", data: map[string][]byte{"trustpolicy.json": manyIdentities()}}
	known := &Trust{Live: secret}
	obj := publishedObject()
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "notation", SecretRef: &meta.LocalObjectReference{Name: "notary"}}
	own := func() error {
		_, err := known.own(t.Context(), obj)
		return err
	}
	g.Expect(own()).To(MatchError(ContainSubstring("65536")))
	obj.Name = "another" // which has the same spec
	g.Expect(own()).To(MatchError(ContainSubstring("65536")))
	g.Expect(known.owned().Len()).To(Equal(1))
	secret.version = "2"
	g.Expect(own()).To(HaveOccurred())
	g.Expect(known.owned().Len()).To(Equal(2))
	obj.Spec.Verify.Provider = "cosign"
	g.Expect(own()).To(MatchError(ContainSubstring("no usable public key")))
	g.Expect(known.owned().Len()).To(Equal(3))
	obj.Namespace = "another"
	g.Expect(own()).To(HaveOccurred())
	g.Expect(known.owned().Len()).To(Equal(4))
}

// Specs whose expressions are as costly as they may be fit into the memory of the
// controller, however many there are.
func TestWhatIsKeptOfSpecsFitsIntoMemory(t *testing.T) {
	g := NewWithT(t)
	used := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	known, before := &Trust{}, used()
	for i := range 60 {
		obj := publishedObject()
		obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign"}
		for range 16 {
			costly := fmt.Sprint(strings.Repeat("(a)", 330), i)
			obj.Spec.Verify.MatchOIDCIdentity = append(obj.Spec.Verify.MatchOIDCIdentity, sourcev1.OIDCIdentityMatch{Issuer: costly, Subject: costly})
		}
		_, err := known.own(t.Context(), obj)
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(used() - before).To(BeNumerically("<", 256<<20))
	runtime.KeepAlive(known)
}

// Parsing has a place among the attempts of a namespace, or comes later.
func TestParsingASpecVerifyCountsAgainstTheNamespace(t *testing.T) {
	g := NewWithT(t)
	places := throttle.New(4)
	r := &ArtifactRepositoryReconciler{Trust: &Trust{Live: &secretsOnly{version: "1"}}, Pipeline: &pipeline.Pipeline{Throttle: places}}
	obj := publishedObject()
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
	free := occupyAll(places, obj.Namespace)
	g.Expect(r.ownDemands(t.Context(), obj).wait).To(BeNumerically(">", 0))
	g.Expect(r.ownDemands(t.Context(), obj).refused()).To(HaveOccurred(), "nothing is accepted meanwhile")
	elsewhere := obj.DeepCopy()
	elsewhere.Namespace = "another"
	g.Expect(r.ownDemands(t.Context(), elsewhere).wait).To(BeZero())
	free()
	g.Expect(r.ownDemands(t.Context(), obj).wait).To(BeZero())
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
	plan, err := recordedPlan(obj, Surroundings{})
	g.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(root, obj.Status.Artifact.Path)
	g.Expect(os.MkdirAll(filepath.Dir(file), 0o700)).To(Succeed())
	g.Expect(os.WriteFile(file, []byte("harm"), 0o600)).To(Succeed()) // who reads it sees it
	stands := func() bool { return r.stands(t.Context(), obj, Surroundings{}, attempt{plan: plan}) }

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

// What the platform asks is told apart from what spec.verify asks.
func TestThePlatformsPartOfAFingerprint(t *testing.T) {
	g := NewWithT(t)
	now := demands{fingerprint: "rules@one"}.with(demands{fingerprint: "own@two"})
	g.Expect(now.same("rules@one+own@two")).To(BeTrue())
	g.Expect(now.same("rules@one+other")).To(BeFalse())
	g.Expect(now.samePlatform("rules@one+other")).To(BeTrue())
	g.Expect(now.samePlatform("rules@one")).To(BeTrue())
	g.Expect(now.samePlatform("others@one+own@two")).To(BeFalse())
	withoutRoot := demands{fingerprint: "rules"}.with(demands{fingerprint: "own"})
	g.Expect(withoutRoot.same("rules@one+own@two")).To(BeTrue())
	g.Expect(demands{}.samePlatform("+own")).To(BeTrue())
	g.Expect(demands{}.same("+own")).To(BeFalse())
}
