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
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// interference replaces a write: by an answer, or nil to let it pass.
type interference func(r *http.Request, body string) (*http.Response, error)

// interfering is a connection to the API server with failing writes.
type interfering struct {
	http.RoundTripper

	with *atomic.Pointer[interference]
}

// RoundTrip implements http.RoundTripper.
func (i interfering) RoundTrip(r *http.Request) (*http.Response, error) {
	if interfere := i.with.Load(); interfere != nil && r.Method == http.MethodPatch {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if answer, err := (*interfere)(r, string(body)); answer != nil || err != nil {
			return answer, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return i.RoundTripper.RoundTrip(r)
}

// interferedScene makes a scene with an interference in its writes, once it is set.
func interferedScene(t *testing.T) (s *scene, interfere func(interference)) {
	t.Helper()
	s = newScene(t)
	var with atomic.Pointer[interference]
	s.transport = func(next http.RoundTripper) http.RoundTripper { return interfering{next, &with} }
	return s, func(i interference) {
		if i == nil {
			with.Store(nil)
			return
		}
		with.Store(&i)
	}
}

// tooLarge is the answer of an API server to an oversized write.
func tooLarge(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusRequestEntityTooLarge, Request: r, Header: http.Header{"Content-Type": {"text/plain"}},
		Body: io.NopCloser(strings.NewReader("etcdserver: request is too large")),
	}, nil
}

// never answers a request.
func never(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

const (
	recordPath   = "/artifactrepositories/app/status"
	externalPath = "/externalartifacts/app/status"
)

// fill makes an object as large as the API server stores it, with labels.
func fill[T any, P object[T]](s *scene, name string) {
	s.Helper()
	var err error
	for size := 1_490_000; size > 1_300_000; size -= 15_000 {
		obj := read[T, P](s, name)
		labels := map[string]string{}
		for i := range size / 320 {
			labels[fmt.Sprintf("%s.%05d/%s", strings.Repeat("a", 240), i, strings.Repeat("b", 60))] = "c"
		}
		obj.SetLabels(labels)
		obj.SetManagedFields([]metav1.ManagedFieldsEntry{{}}) // else they repeat all labels
		if err = s.client.Update(s.Context(), obj); err == nil {
			return
		}
	}
	NewWithT(s).Expect(err).NotTo(HaveOccurred(), "no size was accepted")
}

// A withdrawal consists of two patches that only remove. No other write stops it, and
// neither of them stops the other.
func TestAWithdrawalWaitsForNoOtherWrite(t *testing.T) {
	refuses := func(path string, answer func(*http.Request) (*http.Response, error)) interference {
		return func(r *http.Request, _ string) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, path) {
				return answer(r)
			}
			return nil, nil //nolint:nilnil // the write passes
		}
	}
	var once atomic.Bool
	for name, c := range map[string]struct {
		interference interference
		// filled objects are as large as they can be.
		filled bool
		// recorded and delivered are the results of the two patches.
		recorded, delivered bool
	}{
		"the objects are as large as they can be": {nil, true, true, true},
		"the record is refused once": {func(r *http.Request, body string) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, recordPath) && once.CompareAndSwap(false, true) {
				return tooLarge(r)
			}
			return nil, nil //nolint:nilnil // the write passes
		}, true, true, true},
		"the record is refused for ever":                     {refuses(recordPath, tooLarge), true, false, true},
		"the record is never answered":                       {refuses(recordPath, never), false, false, true},
		"the ExternalArtifact is refused for ever":           {refuses(externalPath, tooLarge), false, true, false},
		"the ExternalArtifact is never answered":             {refuses(externalPath, never), false, true, false},
		"the labels of the ExternalArtifact are not written": {refuses("/externalartifacts/app", tooLarge), false, true, true},
		"all other writes are refused": {func(r *http.Request, body string) (*http.Response, error) {
			if strings.Contains(body, `"op":"remove"`) {
				return nil, nil //nolint:nilnil // the write passes
			}
			return tooLarge(r)
		}, false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, interfere := interferedScene(t)
			s.start()
			s.publishes("app", "1.0.0")
			if c.filled {
				fill[v1alpha1.ArtifactRepository](s, "app")
				fill[sourcev1.ExternalArtifact](s, "app")
			}
			if c.interference != nil {
				interfere(c.interference)
			}

			s.govern("policy", listing("ghcr.io/org/**"))

			soon := deadline / 3 // the timeout for a silent API server is longer
			if c.filled {
				soon = deadline // it takes its time with large objects
			}
			NewWithT(t).Eventually(func(g Gomega) {
				if c.delivered {
					g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact).To(BeNil(), "consumers find no artifact")
				}
				if c.recorded {
					g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil(), "the record names no artifact")
				}
			}).WithTimeout(soon).WithPolling(poll).Should(Succeed())
			if c.recorded && c.delivered {
				return
			}
			NewWithT(t).Consistently(func(g Gomega) {
				g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact == nil).To(Equal(c.delivered))
			}).WithTimeout(2 * time.Second).WithPolling(poll).Should(Succeed())

			// Labels are for their author to remove.
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Labels = nil })
			edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Labels = nil })
			interfere(nil)
			s.withdrawn("app", "no TrustPolicy that enforces lists")
		})
	}
}

// An ExternalArtifact is empty although the record names an artifact after half a
// withdrawal. A verdict fills it again, and never repair alone.
func TestHalfAWithdrawalIsNotTakenBackByRepair(t *testing.T) {
	for name, remove := range map[string]func(*scene){
		"it is empty": func(*scene) {},
		"it is gone": func(s *scene) {
			remove[sourcev1.ExternalArtifact](s, "app")
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, interfere := interferedScene(t)
			s.start()
			signer := newSigner(t)
			s.platformKeys("release", signer)
			s.govern("policy", signedBy("release"))
			s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1.0.0\n"})
			s.sign("app:1.0.0", signer)
			s.imageRepository("app")
			s.imagePolicy("app", annotated)
			s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			published := s.waitPublished("app", "1.0.0@").Status.Artifact

			var unknown atomic.Bool
			interfere(func(r *http.Request, body string) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, recordPath) {
					unknown.CompareAndSwap(false, strings.Contains(body, "503 Service Unavailable"))
					return tooLarge(r)
				}
				return nil, nil //nolint:nilnil // the write passes
			})
			s.platformKeys("release", newSigner(t))
			s.eventually(func(g Gomega) {
				g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Status.Artifact).To(BeNil())
			})
			s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			})
			// The attempt that rejected the image may still be about to record it.
			s.eventually(func(g Gomega) { g.Expect(unknown.Load()).To(BeTrue(), "the verdict is not unknown yet") })
			interfere(nil)
			remove(s)

			s.reconciled("app")
			NewWithT(t).Consistently(func(g Gomega) {
				g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).NotTo(BeNil(), "the verdict is still unknown")
				external := &sourcev1.ExternalArtifact{}
				err := s.client.Get(t.Context(), client.ObjectKey{Namespace: s.namespace, Name: "app"}, external)
				g.Expect(client.IgnoreNotFound(err)).To(Succeed())
				g.Expect(external.Status.Artifact).To(BeNil(), "repair filled it")
			}).WithTimeout(2 * time.Second).WithPolling(poll).Should(Succeed())
			NewWithT(t).Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).NotTo(ContainSubstring("still published"))

			s.platformKeys("release", signer)
			s.registry.Answer(nil)
			s.reconciled("app")
			NewWithT(t).Expect(s.waitPublished("app", "1.0.0@").Status.Artifact.Digest).To(Equal(published.Digest))
		})
	}
}

// A finalizer keeps an object, but not its published artifact.
func TestOptingOutEmptiesAnExternalArtifactThatIsHeld(t *testing.T) {
	s := startScene(t)
	s.picked("app", "1.0.0")
	s.artifactRepository("app")
	s.waitPublished("app", "1.0.0@")
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Finalizers = []string{"example.com/hold"} })
	s.labels(nil)
	s.eventually(func(g Gomega) {
		external := get[sourcev1.ExternalArtifact](g, s, "app")
		g.Expect(external.DeletionTimestamp).NotTo(BeNil())
		g.Expect(external.Status.Artifact).To(BeNil())
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil())
	})
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Finalizers = nil })
}

// A reconcile request of any length is handled once, and repeated in no status.
func TestALongRequestIsKeptAsItsHash(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	token := strings.Repeat("t", 200_000)
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { request(obj, token) })
	edit(s, "app", func(obj *imagev1.ImagePolicy) { request(obj, token) })
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { request(obj, token) })
	hash := "sha256:" + sha256Of(token)
	s.eventually(func(g Gomega) {
		status := get[v1alpha1.ArtifactRepository](g, s, "app").Status
		g.Expect(status.LastHandledReconcileAt).To(Equal(hash))
		g.Expect(status.ObservedRequests).To(Equal(&v1alpha1.ObservedRequests{ImagePolicy: hash, ExternalArtifact: hash}))
	})
	s.waitPublished("app", "1.0.0@")
	s.registry.Forget()
	g.Consistently(s.registry.Requests).WithTimeout(time.Second).WithPolling(poll).Should(BeEmpty(), "it is handled once")
	s.registry.Forget()
	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { request(obj, token+"t") })
	s.eventually(func(g Gomega) { g.Expect(s.registry.Requests()).NotTo(BeEmpty(), "another one is another request") })
}

// unlimited has the API server store specs with any ignore, interval and timeout, as
// before they had limits, while do runs.
func (s *scene) unlimited(do func()) {
	s.Helper()
	g := NewWithT(s)
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	crd.SetName("artifactrepositories." + v1alpha1.Group)
	g.Expect(s.client.Get(s.Context(), client.ObjectKeyFromObject(crd), crd)).To(Succeed())
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	g.Expect(err).NotTo(HaveOccurred())
	path := []string{"schema", "openAPIV3Schema", "properties", "spec", "properties"}
	var forbid, allow []map[string]any
	for field, limits := range map[string][]string{
		"ignore": {"maxLength"}, "interval": {"x-kubernetes-validations"}, "timeout": {"x-kubernetes-validations"},
	} {
		for _, limit := range limits {
			value, found, err := unstructured.NestedFieldCopy(versions[0].(map[string]any), append(path, field, limit)...)
			g.Expect(found).To(BeTrue(), "%s of %s: %v", limit, field, err)
			at := "/spec/versions/0/" + strings.Join(path, "/") + "/" + field + "/" + limit
			allow = append(allow, map[string]any{"op": "remove", "path": at})
			forbid = append(forbid, map[string]any{"op": "add", "path": at, "value": value})
		}
	}
	patch := func(operations []map[string]any) {
		text, err := json.Marshal(operations)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(s.client.Patch(context.WithoutCancel(s.Context()), crd, client.RawPatch(types.JSONPatchType, text))).To(Succeed())
	}
	probe := func() error {
		ignore := strings.Repeat("a", 20_000)
		obj := &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "probe"}}
		obj.Spec.ImagePolicyRef, obj.Spec.Ignore = &meta.LocalObjectReference{Name: "probe"}, &ignore
		return s.client.Create(s.Context(), obj, client.DryRunAll)
	}
	patch(allow)
	g.Eventually(probe).WithTimeout(deadline).WithPolling(poll).Should(Succeed())
	do()
	patch(forbid)
	g.Eventually(func() bool { return apierrors.IsInvalid(probe()) }).WithTimeout(deadline).WithPolling(poll).Should(BeTrue())
}

// A spec from before the limits is published, rebuilt and withdrawn, and its durations
// occupy no worker.
func TestSpecsThatWereStoredBeforeTheyHadLimits(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.picked("app", "1.0.0")
	ignore := "*.md\n" + strings.Repeat("# "+strings.Repeat("a", 97)+"\n", 1_000)
	durations := map[string]time.Duration{
		"negative": -time.Hour, "zero": 0, "tiny": time.Nanosecond, "huge": math.MaxInt64, "years": 100_000 * time.Hour,
	}
	s.unlimited(func() {
		s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = &ignore })
		for name, d := range durations {
			s.artifactRepository(name, func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec.ImagePolicyRef.Name = "app"
				obj.Spec.Interval = &metav1.Duration{Duration: d}
				if d != time.Nanosecond { // too short for any fetch
					obj.Spec.Timeout = &metav1.Duration{Duration: d}
				}
			})
		}
	})
	s.start()
	for name := range durations {
		s.waitPublished(name, "1.0.0")
	}
	const seconds = 2
	before := len(s.registry.Requests())
	g.Consistently(func() int { return len(s.registry.Requests()) - before }).WithTimeout(seconds*time.Second).WithPolling(poll).
		Should(BeNumerically("<=", (seconds+1)*len(durations)), "at most one look each second")
	external := s.waitPublished("app", "1.0.0")
	obj := s.record("app")
	g.Expect(obj.Status.Record.Ignore).To(BeNil())
	g.Expect(obj.Status.Record.SettingsHash).To(Equal(obj.Status.ObservedContent))
	g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(ContainSubstring("only their hash is recorded"))

	g.Expect(os.Remove(s.file(external.Status.Artifact))).To(Succeed())
	s.reconciled("app")
	s.expectServed(external.Status.Artifact)

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
	})
	s.govern("policy", listing("ghcr.io/org/**"))
	s.withdrawn("app", "no TrustPolicy that enforces lists")
	for name := range durations {
		s.withdrawn(name, "no TrustPolicy that enforces lists")
	}
}
