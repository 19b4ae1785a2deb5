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

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// What the controller asks about manifests, and about blobs.
var (
	ofManifests = all(byUs, func(p passage) bool { return has(p.Method, "/manifests/")(p) })
	ofBlobs     = all(byUs, has(http.MethodGet, "/blobs/"))
)

// A registry that fails takes nothing away: what was good stays published, the
// conditions say what is wrong, and it recovers alone.
func TestRegistryFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		// alters alters what the registry would answer, where answer is nil.
		alters func(body []byte) []byte
		// of is what is answered so; questions about manifests if nil.
		of matcher
		// reason is FetchFailed if empty.
		reason, message string
		timeout         time.Duration
	}{
		"it answers 500": {
			answer:  func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "on fire", http.StatusInternalServerError) },
			message: `the answer is 500 Internal Server Error: "on fire"`,
		},
		"it answers 429": {
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "2")
				http.Error(w, "slow down", http.StatusTooManyRequests)
			},
			message: `the answer is 429 Too Many Requests: "slow down"`,
		},
		"it resets connections": {
			answer:  func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			message: "the connection ended",
		},
		"it does not answer": {
			answer:  hang,
			timeout: time.Second,
			message: "spec.timeout (1s)",
		},
		"it stops in the middle of an answer": {
			answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "1000")
				_, _ = w.Write([]byte(`{"schemaVersion":2,`)) // a client that is gone is fine
				w.(*passing).flush()
				hang(w, r)
			},
			timeout: time.Second,
			message: "spec.timeout (1s)",
		},
		"its manifests have other bytes": {
			alters: flipped, reason: v1alpha1.ReasonInvalidArtifact, message: "its bytes have the digest sha256:",
		},
		"its manifests are cut off": {
			alters: halved, reason: v1alpha1.ReasonInvalidArtifact, message: "its bytes have the digest sha256:",
		},
		"its blobs have other bytes": {
			of: ofBlobs, alters: flipped, reason: v1alpha1.ReasonInvalidArtifact, message: "its bytes have the digest sha256:",
		},
		"its blobs are cut off": {
			of: ofBlobs, alters: halved, message: "it ended after",
		},
		"its blobs do not end": {
			of: ofBlobs, alters: func(body []byte) []byte { return append(body, "and more"...) },
			reason: v1alpha1.ReasonInvalidArtifact, message: "where the manifest says it ends",
		},
		"it answers 500 for blobs": {
			of: ofBlobs, answer: status(http.StatusInternalServerError), message: "the answer is 500 Internal Server Error",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			gate := newGate(t, env.Registry().URL())
			n.push(app, "1.0.0", configMap(app, "1.0.0"))
			n.scan(app, through(n, gate.host(), app))
			before := n.published(app, "1.0.0")
			if test.timeout > 0 {
				change(n, named(n, app, &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Timeout = &metav1.Duration{Duration: test.timeout}
				})
			}

			answer, of := test.answer, test.of
			if answer == nil {
				answer = gate.altered(test.alters)
			}
			if of == nil {
				of = ofManifests
			}
			heal := gate.answer(of, answer)
			revision := n.push(app, "1.1.0", configMap(n.namespace, "1.1.0")) // nobody else has that
			n.stays(app, before, orElse(test.reason, v1alpha1.ReasonFetchFailed), test.message)
			heal()
			n.unharmed(map[string]string{app: revision})
		})
	}
}

// altered answers what the server does, with another body, of which it does not
// tell the length.
func (g *gate) altered(alter func([]byte) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		truth := g.truth(r)
		maps.Copy(w.Header(), truth.Header())
		w.Header().Del("Content-Length")
		w.WriteHeader(truth.Code)
		w.(*passing).flush()
		_, _ = w.Write(alter(truth.Body.Bytes())) // a client that is gone is fine
	}
}

// flipped is a body of which some bits are others.
func flipped(body []byte) []byte {
	if len(body) > 0 {
		body[len(body)/2] ^= 0xff
	}
	return body
}

// halved is the first half of a body.
func halved(body []byte) []byte { return body[:len(body)/2] }

// stays waits until a source is not ready for a reason, and expects that what
// was published before still is, in words and in deed.
func (n *tenant) stays(name string, before *meta.Artifact, reason, message string) *metav1.Condition {
	n.Helper()
	var ready *metav1.Condition
	n.eventually(func(g Gomega) {
		var obj *v1alpha1.ArtifactRepository
		obj, ready = n.notReady(name, reason)
		g.Expect(ready.Message).To(ContainSubstring(message))
		g.Expect(ready.Message).To(ContainSubstring("still published: " + shortRevision(before.Revision)))
		g.Expect(obj.Status.Artifact).To(Equal(before))
		external := get(n, name, &sourcev1.ExternalArtifact{})
		g.Expect(external.Status.Artifact).To(Equal(before))
		g.Expect(conditions.GetReason(external, meta.ReadyCondition)).To(Equal(reason))
		g.Expect(conditions.IsTrue(obj, v1alpha1.ArtifactInStorageCondition)).To(BeTrue())
	})
	n.served(before)
	return ready
}

// A registry that says when to come again is not asked before.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const wait = 3 * time.Second
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	gate := newGate(t, env.Registry().URL())
	n.push(app, "1.0.0", configMap(app, "1.0.0"))
	n.scan(app, through(n, gate.host(), app))
	n.published(app, "1.0.0")

	var refused []passage
	gate.forget()
	heal := gate.answer(ofManifests, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())))
		w.WriteHeader(http.StatusTooManyRequests)
	})
	n.eventually(func(g Gomega) {
		refused = gate.seen(all(ofManifests, func(p passage) bool { return p.Code == http.StatusTooManyRequests }))
		g.Expect(len(refused)).To(BeNumerically(">=", 4))
	})
	for i := range refused[1:] {
		n.Expect(refused[i+1].At.Sub(refused[i].At)).To(BeNumerically(">=", wait), "request %d after the one before", i+1)
	}
	heal()
	n.unharmed(map[string]string{app: n.push(app, "1.1.0", configMap(app, "1.1.0"))})
}

// A registry that is slow, but goes on, is waited for.
func TestSlowRegistry(t *testing.T) {
	t.Parallel()
	const (
		parts = 10
		pause = 250 * time.Millisecond
	)
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	gate := newGate(t, env.Registry().URL())
	gate.answer(all(byUs, has(http.MethodGet, "/")), func(w http.ResponseWriter, r *http.Request) {
		truth := gate.truth(r)
		maps.Copy(w.Header(), truth.Header())
		w.WriteHeader(truth.Code)
		body := truth.Body.Bytes()
		for part := range slices.Chunk(body, len(body)/parts+1) {
			n.pass(pause)
			_, _ = w.Write(part) // a client that is gone is fine
			w.(*passing).flush()
		}
	})
	revision := n.push(app, "1.0.0", configMap(n.namespace, "1.0.0")) // nobody else has that
	n.scan(app, through(n, gate.host(), app))
	n.unharmed(map[string]string{app: revision})
	n.Expect(get(n, app, &v1alpha1.ArtifactRepository{}).Status.History).To(HaveLen(1))
	n.Expect(gate.seen(all(byUs, has(http.MethodGet, "/blobs/")))).To(HaveLen(1), "it was not given up and begun again")
}

// A registry that is down is a registry like any other as soon as it is up.
func TestRegistryDown(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	registry, err := env.StartRegistry(t.Context(), controlplane.RegistryOptions{Name: "registry-" + n.namespace})
	n.Expect(err).NotTo(HaveOccurred())
	push := func(version string) string {
		return n.pushTo(publish.Registry{Host: registry.Host()}, n.image(app)+":"+version, configMap(app, version))
	}
	push("1.0.0")
	n.scan(app, through(n, registry.Host(), app))
	before := n.published(app, "1.0.0")
	n.Expect(registry.Stop()).To(Succeed())
	n.stays(app, before, v1alpha1.ReasonFetchFailed, "connection refused")
	n.Expect(registry.Restart(t.Context())).To(Succeed())
	n.Expect(n.unharmed(map[string]string{app: "1.0.0"})).To(HaveKeyWithValue(app, BeSamePublication(before)))
	n.unharmed(map[string]string{app: push("1.1.0")})
	n.Expect(registry.Stop()).To(Succeed())
}

// Sources on a registry that accepts requests and never answers do not keep
// others from being published.
func TestHangingRegistry(t *testing.T) {
	t.Parallel()
	const (
		hanging = 10 // as many as there are workers
		// A request that hangs is given up after half a minute, and its worker is free.
		soon = 25 * time.Second
	)
	for name, test := range map[string]struct {
		shard        string
		worked, lost bool
	}{
		"it never worked":  {shard: "hanging-at-first"},
		"it worked before": {shard: "hanging-later", worked: true},
		"it worked before, and what it gave us is lost": {shard: "hanging-and-lost", worked: true, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			shard := test.shard
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			gate := newGate(t, env.Registry().URL())
			controller := startShard(t, shard, append(quickAPI, "--concurrent=10")...)
			var hung *barrier
			hang := func() { hung = gate.stop(beforeServer, byUs) }
			if !test.worked {
				hang()
			}
			wanted := map[string]string{}
			for i := range hanging {
				name := fmt.Sprint("sick-", i)
				wanted[name] = n.push(name, "1.0.0", configMap(n.namespace, name))
				n.scan(name, through(n, gate.host(), name), inShard(shard))
			}
			if test.worked {
				for i := range hanging {
					n.published(fmt.Sprint("sick-", i), "1.0.0")
				}
				hang()
			}
			if test.lost {
				n.Expect(controller.Kill()).To(Succeed())
				n.wipe(controller.StorageDir)
				n.Expect(controller.Restart(t.Context())).To(Succeed())
			}
			n.push(app, "1.0.0", configMap(app, "1.0.0"))
			n.scan(app, inShard(shard))
			for i := range 6 {
				version := fmt.Sprintf("1.0.%d", i)
				wanted[app] = n.push(app, version, configMap(app, version))
				n.picked(app, version)
				start := time.Now()
				n.published(app, version)
				n.Expect(time.Since(start)).To(BeNumerically("<", soon), "version %s, while %d requests hang",
					version, len(gate.seen(all(byUs, func(p passage) bool { return p.Code == 0 }))))
			}
			hung.open()
			n.unharmed(wanted, controller)
		})
	}
}
