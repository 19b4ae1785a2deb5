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
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apitypes "k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// trickling is a registry that sends a blob for hours, and signals each pull.
func trickling(t *testing.T) (registry *publish.InProcess, pulls <-chan string) {
	t.Helper()
	registry = publish.Serve()
	t.Cleanup(func() {
		registry.CloseClientConnections()
		registry.Close()
	})
	_, err := registry.Shelf().Flux(t.Context(), "team/app:1", publish.Files{"app.yaml": "version: 1\n"})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	asked := make(chan string, 100)
	registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		asked <- r.URL.Path
		trickle(w, r, 0x1f)
		return true
	})
	return registry, asked
}

// trickle answers with a byte each second: a silent registry is given up sooner.
func trickle(w http.ResponseWriter, r *http.Request, with byte) {
	w.WriteHeader(http.StatusOK)
	for r.Context().Err() == nil {
		_, _ = w.Write([]byte{with})
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
	}
}

// pullsFrom makes sources of a registry in namespaces in turn, half of them by plain HTTP.
func (s *scene) pullsFrom(hostile *publish.InProcess, count int, namespaces ...string) {
	s.Helper()
	for i := range count {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespaces[i%len(namespaces)], Name: fmt.Sprintf("app-%d", i)},
			Spec: v1alpha1.ArtifactRepositorySpec{
				Image: hostile.Host() + "/team/app", Tag: "1", Insecure: i/len(namespaces)%2 == 0,
				// A source waits for an equal pull of others; for its own content, each one
				// pulls.
				Ignore: new(fmt.Sprint(i)), Timeout: &metav1.Duration{Duration: 50 * time.Minute},
			},
		})
	}
}

// A tenant can have many ways to registries: one registry, with and without plain HTTP, is
// two. A namespace has one share of the workers.
func TestATenantWithTricklingBlobsLeavesWorkersToOthers(t *testing.T) {
	s := newScene(t)
	hostile, pulls := trickling(t)
	defer s.stop()
	tenant := s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.beside = []string{tenant}
	s.start()
	s.pullsFrom(hostile, 8, tenant)
	NewWithT(t).Eventually(pulls).WithTimeout(deadline).Should(Receive())

	s.publishes("app", "1.0.0")
	s.publishes("other", "1.0.0")
}

// Two namespaces do not take all workers, however long their pulls last.
func TestTwoNamespacesWithTricklingBlobsLeaveAWorkerToAThird(t *testing.T) {
	s := newScene(t)
	hostile, pulls := trickling(t)
	defer s.stop()
	for range 2 {
		s.beside = append(s.beside, s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}))
	}
	s.start()
	s.pullsFrom(hostile, 16, s.beside...)
	for range 2 {
		NewWithT(t).Eventually(pulls).WithTimeout(deadline).Should(Receive())
	}

	s.publishes("app", "1.0.0")
	s.publishes("other", "1.0.0")
}

// A source with spec.verify reads its Secrets a second time at the end, in its own place. It
// takes no second place, even if others have taken many.
func TestPullsThatTrickleKeepNoVerifiedSourceFromBeingPublished(t *testing.T) {
	s := newScene(t)
	hostile, pulls := trickling(t)
	defer s.stop()
	tenant := s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.beside = []string{tenant}
	s.start()
	s.pullsFrom(hostile, 8, tenant)
	for range 2 {
		NewWithT(t).Eventually(pulls).WithTimeout(deadline).Should(Receive())
	}

	signer := newSigner(t)
	s.keys(signer)
	s.picked("app", "1.0.0")
	s.sign("app:1.0.0", signer)
	s.artifactRepository("app", signed)
	s.waitPublished("app", "1.0.0@")
}

// A tenant with enough sources to keep all workers busy, here by slowly refused writes, does
// not delay sources of others that existed before the start of the controllers.
func TestATenantWhoKeepsTheWorkersBusyDelaysNoOtherTenant(t *testing.T) {
	s, interfere := interferedScene(t)
	tenant := s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.beside = []string{tenant}
	s.start()
	s.push("app:1", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Tag: "1", Interval: &metav1.Duration{Duration: time.Second}})
	before := s.waitPublished("app", "1@").Status.Artifact.Digest
	s.stop()
	refused := make(chan string, 1000)
	interfere(func(r *http.Request, _ string) (*http.Response, error) {
		if !strings.Contains(r.URL.Path, "/namespaces/"+tenant+"/imagerepositories/") {
			return nil, nil
		}
		select {
		case <-time.After(200 * time.Millisecond): // as long as a busy API server takes
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		select {
		case refused <- r.URL.Path:
		default: // as many as are waited for are there
		}
		return tooLarge(r)
	})
	s.start()
	for i := range 60 {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("busy-%d", i)},
			Spec: v1alpha1.ArtifactRepositorySpec{
				Image: s.image("app"), Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}},
				Interval: &metav1.Duration{Duration: time.Second},
			},
		})
	}
	for range 60 {
		NewWithT(t).Eventually(refused).WithTimeout(deadline).Should(Receive())
	}

	s.push("app:1", version("2"))

	s.eventually(func(g Gomega) { g.Expect(s.external("app").Status.Artifact.Digest).NotTo(Equal(before)) })
}

// A judgement by the platform has a place of its own in the share of a namespace.
func TestTricklingPullsKeepNoRejectedArtifactPublished(t *testing.T) {
	s, _ := governed(t)
	hostile, pulls := trickling(t)
	defer s.stop()
	s.govern("free", listing(hostile.Host()+"/**"))
	for i := range 30 {
		s.ofImage(fmt.Sprintf("slow-%d", i), v1alpha1.ArtifactRepositorySpec{
			Image: hostile.Host() + "/team/app", Tag: "1", Insecure: i%2 == 0,
			Ignore: new(fmt.Sprint(i)), Timeout: &metav1.Duration{Duration: 50 * time.Minute},
		})
	}
	for range 2 {
		NewWithT(t).Eventually(pulls).WithTimeout(deadline).Should(Receive())
	}

	s.platformKeys("release", newSigner(t))

	s.withdrawn("app", "release")
}

// Nor do many judgements that a tenant makes slow, beside such pulls.
func TestManySlowJudgementsKeepNoRejectedArtifactPublished(t *testing.T) {
	s, _ := governed(t)
	g := NewWithT(t)
	slow := publish.Serve()
	defer slow.Close()
	defer slow.CloseClientConnections()
	_, err := slow.Shelf().Flux(t.Context(), "team/app:1", publish.Files{"app.yaml": "version: 1\n"})
	g.Expect(err).NotTo(HaveOccurred())
	var hangs atomic.Bool
	slow.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !hangs.Load() || !strings.Contains(r.URL.Path, "/referrers/") && !strings.Contains(r.URL.Path, "/manifests/sha256-") {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		trickle(w, r, ' ')
		return true
	})
	hostile, pulls := trickling(t)
	defer s.stop()
	s.govern("free", listing(hostile.Host()+"/**", slow.Host()+"/**"))
	s.govern("lenient", listing(slow.Host()+"/**"), signedBy("release"), mode(v1alpha1.ModeWarn))
	const crowd = 8
	for i := range crowd {
		s.ofImage(fmt.Sprintf("crowd-%d", i), v1alpha1.ArtifactRepositorySpec{
			Image: slow.Host() + "/team/app", Tag: "1", Insecure: true, Interval: &metav1.Duration{Duration: time.Second},
			Timeout: &metav1.Duration{Duration: time.Minute},
		})
	}
	for i := range crowd {
		s.waitPublished(fmt.Sprintf("crowd-%d", i), "1@")
	}
	for i := range 30 {
		s.ofImage(fmt.Sprintf("slow-%d", i), v1alpha1.ArtifactRepositorySpec{
			Image: hostile.Host() + "/team/app", Tag: "1", Insecure: i%2 == 0,
			Ignore: new(fmt.Sprint(i)), Timeout: &metav1.Duration{Duration: 50 * time.Minute},
		})
	}
	for range 2 {
		g.Eventually(pulls).WithTimeout(deadline).Should(Receive())
	}
	hangs.Store(true)

	s.platformKeys("release", newSigner(t))

	s.withdrawn("app", "release")
}

// A tenant who waits for silent registries leaves another tenant room to test its own
// registry.
func TestATenantWithHangingRegistriesKeepsNoOtherFromItsOwn(t *testing.T) {
	s := newScene(t)
	hostile := publish.Serve()
	defer hostile.Close()
	defer hostile.CloseClientConnections()
	defer s.stop()
	asked := make(chan string, 100)
	hostile.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- r.URL.Path
		<-r.Context().Done()
		return true
	})
	tenant := s.makeNamespace(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.beside = []string{tenant}
	s.start()
	for i := range 8 {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: tenant, Name: fmt.Sprintf("app-%d", i)},
			Spec: v1alpha1.ArtifactRepositorySpec{
				Image: hostile.Host() + "/team/app", Tag: "1", Insecure: i%2 == 0,
				Timeout: &metav1.Duration{Duration: 50 * time.Minute},
			},
		})
	}
	for range 2 { // by each of two ways
		NewWithT(t).Eventually(asked).WithTimeout(deadline).Should(Receive())
	}

	s.publishes("app", "1.0.0")
}

// To a shard, an object that leaves it is deleted. Its published artifact is judged to the
// end all the same.
func TestAnObjectThatChangesItsShardAllTheTimeKeepsNoRejectedArtifact(t *testing.T) {
	const key = "sharding.fluxcd.io/key"
	s := newScene(t)
	selector, err := labels.Parse(key + " notin (other)")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	s.shard, s.labelKeys = selector, []string{key}
	s.start()
	s.push("app:1", version("1"))
	s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Tag: "1"})
	s.waitPublished("app", "1@")
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		select { // as far away as many registries are
		case <-r.Context().Done():
		case <-time.After(200 * time.Millisecond):
		}
		return false
	})
	var flipping sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer flipping.Wait()
	defer stop()
	flipping.Go(func() {
		for shard := "other"; ctx.Err() == nil; {
			obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "app"}}
			patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, key, shard)
			if s.client.Patch(ctx, obj, client.RawPatch(apitypes.MergePatchType, []byte(patch))) == nil {
				shard = map[string]string{"other": "one", "one": "other"}[shard]
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	s.platformKeys("release", newSigner(t))

	s.govern("policy", signedBy("release"))

	s.eventually(func(g Gomega) { g.Expect(s.external("app").Status.Artifact).To(BeNil()) })
}

// A source without a request to the registry does not wait for it.
func TestADigestThatIsPublishedNeedsNoRegistry(t *testing.T) {
	s := newScene(t)
	s.start()
	digest, _ := s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0", Digest: digest.String()})
	s.waitPublished("app", "1.0.0@")
	s.stop()
	asked := make(chan string, 100)
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		asked <- r.URL.Path
		<-r.Context().Done()
		return true
	})
	s.start()
	for _, name := range []string{"one", "two", "three", "four"} {
		s.create(&v1alpha1.ArtifactRepository{
			ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: name},
			Spec:       v1alpha1.ArtifactRepositorySpec{Image: s.image(name), Tag: "1", Timeout: &metav1.Duration{Duration: 50 * time.Minute}},
		})
	}
	for range 2 {
		NewWithT(t).Eventually(asked).WithTimeout(deadline).Should(Receive())
	}

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Interval = &metav1.Duration{Duration: time.Second} })

	s.waitPublished("app", "1.0.0@")
	s.reconciled("app")
	NewWithT(t).Consistently(func() bool { return conditions.IsReady(s.record("app")) }).WithTimeout(4 * time.Second).Should(BeTrue())
}

// A source that shares an access with a source that a registry turned away may wait long for
// its judgement: its conditions must not report success meanwhile.
func TestAPendingJudgementIsReported(t *testing.T) {
	s := startScene(t)
	s.publishes("busy", "1.0.0")
	s.publishes("app", "1.0.0")
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/busy/") {
			return false
		}
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	s.reconciled("busy")
	s.waitFailed("busy", v1alpha1.ReasonFetchFailed, "still published: 1.0.0@")
	s.platformKeys("release", newSigner(t))

	s.govern("policy", signedBy("release"))

	s.waitFailed("app", v1alpha1.ReasonFetchFailed, "Retry-After", "still published: 1.0.0@")
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Interval = &metav1.Duration{Duration: time.Minute} })
	s.waitFailed("app", v1alpha1.ReasonFetchFailed, "Retry-After")
}
