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
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/stage"
)

// front is the address under which consumers reach whatever replica there is,
// as a Service is.
type front struct {
	*httptest.Server
	turn atomic.Uint64

	mu       sync.Mutex
	backends []http.Handler
}

func newFront(t *testing.T) *front {
	f := &front{}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// address is what --storage-adv-addr gets.
func (f *front) address() string { return f.Listener.Addr().String() }

// to has the front lead to these replicas, in turn.
func (f *front) to(t *testing.T, replicas ...*stage.Controller) {
	var backends []http.Handler
	for _, replica := range replicas {
		backends = append(backends, forward(t, "http://"+replica.Address, nil))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.backends = backends
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	backends := f.backends
	f.mu.Unlock()
	if len(backends) == 0 {
		panic(http.ErrAbortHandler) // nobody is ready
	}
	backends[f.turn.Add(1)%uint64(len(backends))].ServeHTTP(w, r)
}

// Two that both believe that they lead, of which one has an old view and writes
// late, end up with what one alone would have published.
func TestTwoLeaders(t *testing.T) {
	t.Parallel()
	const (
		shard    = "two-leaders"
		versions = 10
	)
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	random := chance(t)
	// Later than the next version, which comes with the next scan, each second.
	lateness := time.Second + time.Duration(random.Int64N(int64(time.Second)))
	front, slow := newFront(t), newAPIGate(t)
	args := slices.Concat(quickAPI, shortRetention, []string{"--storage-adv-addr=" + front.address()})
	prompt := replica{shard: shard, api: newAPIGate(t)}.start(n, args...)
	late := replica{shard: shard, suffix: "-late", api: slow}.start(n, args...)
	front.to(t, prompt, late)
	slow.answer(isWrite, func(w http.ResponseWriter, r *http.Request) {
		n.pass(lateness)
		slow.next.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	})
	v := &victim{tenant: n, random: random}
	v.push(nil)
	n.scan(app, inShard(shard))
	n.published(app, "1.0.1")
	consumer := consume(n, app)
	var revision string
	for range versions {
		n.pass(time.Duration(random.Int64N(int64(1500 * time.Millisecond))))
		revision, _ = v.push(nil)
	}
	wanted := map[string]string{app: revision}
	n.unharmed(wanted, prompt)
	n.Eventually(func() int { return n.answered(late, get(n, app, &v1alpha1.ArtifactRepository{}).Status.Artifact.Path) },
		patience, poll).Should(Equal(http.StatusOK), "each serves what either has published")
	for _, controller := range []*stage.Controller{prompt, late} {
		n.collected(controller, wanted)
	}
	consumer.content()
}

// A consumer that meets a replica which cannot answer yet asks again, and says
// nothing of it: what it deploys it never loses.
func TestConsumersComeAgain(t *testing.T) {
	t.Parallel()
	const shard = "roll-out"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	front := newFront(t)
	args := slices.Concat(quickAPI, []string{"--storage-adv-addr=" + front.address()})
	first := replica{shard: shard, suffix: "-first", api: newAPIGate(t)}.start(n, args...)
	front.to(t, first)
	n.push(app, "1.0.0", configMap(app, "1.0.0"))
	n.scan(app, inShard(shard))
	artifact := n.published(app, "1.0.0")
	n.deploy(app)
	n.deployed(app, "1.0.0")
	view := watchKustomization(n, app)

	// A replica that has nothing takes over, while the file is asked for.
	n.Expect(first.Kill()).To(Succeed())
	front.to(t)
	second := replica{shard: shard, suffix: "-second", api: newAPIGate(t)}.start(n, args...)
	front.to(t, second)
	n.Expect(n.unharmed(map[string]string{app: "1.0.0"}, second)).To(HaveKeyWithValue(app, BeSamePublication(artifact)))

	// Every file is refused some times before it is served.
	refused := front.refuse(2)
	view.reconcile()
	n.push(app, "1.1.0", configMap(app, "1.1.0"))
	n.deployed(app, "1.1.0")
	n.Expect(refused()).To(BeNumerically(">=", 2), "nothing was refused")
	n.unharmed(map[string]string{app: "1.1.0"}, second)
	view.neverFailed()
}

// refuse has the next requests for each file answered with 503, so many times.
// What it returns counts those.
func (f *front) refuse(times int) (refused func() int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var mu sync.Mutex
	total, asked := 0, map[string]int{}
	for i, next := range f.backends {
		f.backends[i] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[r.URL.Path]++
			refuse := asked[r.URL.Path] <= times
			if refuse {
				total++
			}
			mu.Unlock()
			if refuse {
				w.Header().Set("Retry-After", "1")
				status(http.StatusServiceUnavailable)(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return total
	}
}

// view is what a Kustomization says of itself.
type view struct {
	n      *tenant
	name   string
	stop   context.CancelFunc
	done   sync.WaitGroup
	failed []string
}

var kustomizations = schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"}

// watchKustomization takes note of all that a Kustomization says from now on.
func watchKustomization(n *tenant, name string) *view {
	n.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kustomizations)
	ctx, stop := context.WithCancel(n.Context())
	v := &view{n: n, name: name, stop: stop}
	watch, err := env.Client.Watch(ctx, list, client.InNamespace(n.namespace))
	n.Expect(err).NotTo(HaveOccurred())
	n.Cleanup(stop)
	v.done.Go(func() {
		defer watch.Stop()
		for {
			select {
			case event, ok := <-watch.ResultChan():
				if !ok {
					if ctx.Err() == nil {
						v.failed = append(v.failed, "the watch of Kustomizations ended early")
					}
					return
				}
				v.note(event.Object)
			case <-ctx.Done():
				return
			}
		}
	})
	return v
}

func (v *view) note(obj runtime.Object) {
	kustomization, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return
	}
	var status struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(kustomization.Object, &status); err != nil {
		v.failed = append(v.failed, err.Error())
		return
	}
	if ready := apimeta.FindStatusCondition(status.Status.Conditions, meta.ReadyCondition); ready != nil && ready.Status == metav1.ConditionFalse {
		v.failed = append(v.failed, ready.Reason+": "+ready.Message)
	}
}

// reconcile asks the Kustomization to fetch its source again.
func (v *view) reconcile() {
	v.n.Helper()
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(kustomizations)
	v.n.annotate(named(v.n, v.name, obj), meta.ReconcileRequestAnnotation, time.Now().Format(time.RFC3339Nano))
}

// neverFailed ends the watch, and expects that nothing was ever missed.
func (v *view) neverFailed() {
	v.n.Helper()
	v.stop()
	v.done.Wait()
	v.n.Expect(v.failed).To(BeEmpty())
}
