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
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

// replicas are several controllers of one shard behind a balancer, with disks
// of their own.
type replicas struct {
	*tenant
	shard    string
	all      []*stage.Controller
	balancer *stage.Balancer
	level    int
	random   *rand.Rand

	mu sync.Mutex
	// down are those that a test has ended.
	down map[*stage.Controller]bool
}

// shutdownDelay has a replica serve on until the balancer leads nobody there, who
// may wait for the answer to some probes first.
const shutdownDelay = "--shutdown-delay=5s"

// startReplicas starts three, as config/manager does.
func startReplicas(t *testing.T, shard string, args ...string) *replicas {
	t.Helper()
	r := &replicas{tenant: newTenant(t, v1alpha1.UseAsSourceEnabled), shard: shard, random: chance(t), down: map[*stage.Controller]bool{}}
	var err error
	r.balancer, err = stage.StartBalancer(t.Context())
	r.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { r.Expect(r.balancer.Close()).To(Succeed()) })
	addresses := make([]string, 3)
	for i := range addresses { // each has to know the others' before it starts
		addresses[i], err = controlplane.FreeAddress()
		r.Expect(err).NotTo(HaveOccurred())
	}
	for i, address := range addresses {
		name := fmt.Sprintf("shard-%s-%d", shard, i)
		controller, err := env.StartController(t.Context(), stage.ControllerOptions{
			Name: name, Address: address,
			Args: slices.Concat(quickAPI, []string{
				"--watch-label-selector=" + shardLabel + "=" + shard,
				"--storage-adv-addr=" + r.balancer.Address(),
				"--storage-peers=" + strings.Join(addresses, ","),
				"--enable-leader-election", "--leader-election-lease-duration=3s",
				"--leader-election-renew-deadline=2s", "--leader-election-retry-period=500ms",
			}, args),
		})
		r.Expect(err).NotTo(HaveOccurred())
		t.Cleanup(func() {
			r.Expect(controller.Kill()).To(Succeed())
			if t.Failed() {
				t.Logf("the end of the log of %s:\n%s", name, logTail(controller.LogFile()))
			}
		})
		r.balancer.Add(t.Context(), controller)
		r.all = append(r.all, controller)
	}
	r.keep()
	return r
}

// keep starts replicas again that have ended by themselves, as a kubelet does:
// on a busy machine, one that leads may lose its lease at any time.
func (r *replicas) keep() {
	const often = 100 * time.Millisecond
	ctx, stop := context.WithCancel(r.Context())
	kubelet := &watcher{}
	kubelet.repeat(ctx, often, func(ctx context.Context) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, controller := range r.all {
			if !r.down[controller] && hasEnded(controller) {
				_ = controller.Restart(ctx) // if it is not ready, the next turn finds it ended
			}
		}
	})
	r.Cleanup(func() {
		stop()
		kubelet.running.Wait()
	})
}

func hasEnded(controller *stage.Controller) bool {
	select {
	case <-controller.Exited():
		return true
	default:
		return false
	}
}

// takeDown ends replicas, which stay down until they are brought up again.
func (r *replicas) takeDown(end func(*stage.Controller) error, which ...*stage.Controller) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, controller := range which {
		r.down[controller] = true
		r.Expect(end(controller)).To(Succeed())
	}
}

// bringUp starts a replica, unless it runs.
func (r *replicas) bringUp(controller *stage.Controller) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if hasEnded(controller) {
		r.Expect(controller.Restart(r.Context())).To(Succeed())
	}
	delete(r.down, controller)
}

// source publishes a first version of app, whose layer is served as it is, and
// of again, which is archived again; app is deployed.
func (r *replicas) source() {
	r.Helper()
	r.level = 1
	for _, name := range []string{app, "again"} {
		r.release(name)
		r.scan(name, inShard(r.shard))
		r.published(name, r.tag())
	}
	r.deploy(app)
	r.deployed(app, r.tag())
}

func (r *replicas) tag() string { return fmt.Sprintf("1.0.%d", r.level) }

// release pushes the version that r.level says.
func (r *replicas) release(name string) {
	r.Helper()
	files := configMap(name, r.tag())
	if name == "again" {
		files = publish.Files{"deploy/app.yaml": r.tag(), ".gitignore": "left out"}
	}
	r.push(name, r.tag(), files)
}

// next publishes and deploys one more version.
func (r *replicas) next() {
	r.Helper()
	r.level++
	for _, name := range []string{app, "again"} {
		r.release(name)
	}
	for _, name := range []string{app, "again"} {
		r.published(name, r.tag())
	}
	r.deployed(app, r.tag())
}

// inTurn returns the replicas in an order that the seed decides.
func (r *replicas) inTurn() []*stage.Controller {
	order := slices.Clone(r.all)
	r.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	return order
}

// sometime lets a time pass that the seed decides.
func (r *replicas) sometime(within time.Duration) {
	r.pass(time.Duration(r.random.Int64N(int64(within))))
}

// out does without some of the replicas, which end takes away: while others are
// left, the Kustomization is reconciled from those. They start again with empty disks.
func (r *replicas) out(w *watcher, end func(*stage.Controller) error, which ...*stage.Controller) {
	r.Helper()
	r.takeDown(end, which...)
	if gone := time.Now(); len(which) < len(r.all) {
		r.eventually(func(g Gomega) {
			g.Expect(w.lastReconcile()).To(BeTemporally(">", gone), "the Kustomization is not reconciled")
		})
	}
	for _, controller := range which {
		r.wipe(controller.StorageDir)
		r.bringUp(controller)
	}
}

// kill ends a replica as a crash does, and stop as a roll-out does.
func kill(controller *stage.Controller) error { return controller.Kill() }
func stop(controller *stage.Controller) error { return controller.Stop() }

// answers waits until a replica has answered for what is recorded some times more.
func (r *replicas) answers(w *watcher, controller *stage.Controller) {
	r.Helper()
	before := w.count(controller)
	r.eventually(func(g Gomega) { g.Expect(w.count(controller)).To(BeNumerically(">=", before+4), controller.Name()) })
}

// losesFiles removes what a replica stores, while it may be storing more.
func (r *replicas) losesFiles(controller *stage.Controller) {
	r.Helper()
	for _, pattern := range []string{"externalartifact/*/*/*", "blobs/*"} {
		files, err := filepath.Glob(filepath.Join(controller.StorageDir, pattern))
		r.Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			r.Expect(os.Remove(file)).To(Or(Succeed(), MatchError(os.ErrNotExist)))
		}
	}
}

// leader returns the replica that leads.
func (r *replicas) leader() (leads *stage.Controller) {
	r.Helper()
	r.eventually(func(g Gomega) {
		i := slices.IndexFunc(r.all, func(controller *stage.Controller) bool { return leading(r.Context(), controller) })
		g.Expect(i).NotTo(Equal(-1), "nobody leads")
		leads = r.all[i]
	})
	return leads
}

// leading tells whether a controller says that it leads.
func leading(ctx context.Context, controller *stage.Controller) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+controller.Metrics+"/metrics", http.NoBody)
	if err != nil {
		return false
	}
	answer, err := plainClient.Do(request)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "leader_election_master_status{") && strings.HasSuffix(lines.Text(), " 1") {
			return true
		}
	}
	return false
}

// watcher looks on all along, and keeps what must not be.
type watcher struct {
	mu    sync.Mutex
	wrong []string
	// answered counts what each replica answered well.
	answered map[string]int
	// reconciled is when the last reconcile of a Kustomization that went well was
	// asked for.
	reconciled time.Time
	running    sync.WaitGroup
	stop       context.CancelFunc
}

func (w *watcher) blame(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, time.Now().Format(time.StampMilli)+" "+fmt.Sprintf(format, args...))
}

func (w *watcher) praise(controller *stage.Controller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answered[controller.Name()]++
}

func (w *watcher) count(controller *stage.Controller) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered[controller.Name()]
}

func (w *watcher) lastReconcile() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reconciled
}

// repeat does something again and again until the watcher ends.
func (w *watcher) repeat(ctx context.Context, every time.Duration, do func(context.Context)) {
	w.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				do(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
}

// watch has the Kustomization reconciled all the time, reads each state that it
// goes through, and asks each replica for whatever the records name.
func (r *replicas) watch() *watcher {
	r.Helper()
	ctx, w := r.watchReplicas()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kustomizations)
	states, err := env.Client.Watch(ctx, list, client.InNamespace(r.namespace))
	r.Expect(err).NotTo(HaveOccurred())
	w.running.Go(func() {
		defer states.Stop()
		for event := range states.ResultChan() {
			if obj, ok := event.Object.(*unstructured.Unstructured); ok {
				w.judge(obj)
			}
		}
		if ctx.Err() == nil {
			w.blame("the watch of Kustomizations ended early")
		}
	})
	w.repeat(ctx, 100*time.Millisecond, func(ctx context.Context) { r.force(ctx) })
	return w
}

// watchReplicas asks each replica for whatever the records name, until the
// context ends.
func (r *replicas) watchReplicas() (context.Context, *watcher) {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	w := &watcher{answered: map[string]int{}, stop: stop}
	r.Cleanup(stop)
	for _, controller := range r.all {
		w.repeat(ctx, 20*time.Millisecond, func(ctx context.Context) { r.probe(ctx, w, controller) })
	}
	return ctx, w
}

// judge looks for the condition that a source could not be had, and takes note
// of what went well.
func (w *watcher) judge(obj *unstructured.Unstructured) {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, condition := range conditions {
		c, ok := condition.(map[string]any)
		switch {
		case !ok:
		case c["reason"] == "ArtifactFailed":
			w.blame("the Kustomization %s said %v", obj.GetName(), c["message"])
		case c["type"] == meta.ReadyCondition && c["status"] == "True":
			w.note(obj)
		}
	}
}

// note takes note of the request that a reconcile has handled, which is the time of it.
func (w *watcher) note(obj *unstructured.Unstructured) {
	handled, _, _ := unstructured.NestedString(obj.Object, "status", "lastHandledReconcileAt")
	asked, err := time.Parse(time.RFC3339Nano, handled)
	if err != nil {
		return // nothing was asked for yet
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reconciled = asked
}

// force asks for a reconcile of the Kustomization.
func (r *replicas) force(ctx context.Context) {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(kustomizations)
	obj.SetNamespace(r.namespace)
	obj.SetName(app)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, meta.ReconcileRequestAnnotation, time.Now().Format(time.RFC3339Nano))
	_ = env.Client.Patch(ctx, obj, client.RawPatch("application/merge-patch+json", []byte(patch))) // the next one follows
}

// probe asks a replica for all that is recorded. It may not run or have to be
// asked again, but what a record names it may neither deny nor alter.
func (r *replicas) probe(ctx context.Context, w *watcher, controller *stage.Controller) {
	var records v1alpha1.ArtifactRepositoryList
	if err := env.Client.List(ctx, &records, client.InNamespace(r.namespace)); err != nil {
		return
	}
	for _, record := range records.Items {
		artifact := record.Status.Artifact
		if artifact == nil {
			continue
		}
		code, digest, err := download(ctx, "http://"+controller.Address+"/"+artifact.Path)
		switch {
		case err != nil || code == http.StatusServiceUnavailable:
		case code != http.StatusOK || digest != artifact.Digest:
			// A record that was replaced meanwhile binds nobody.
			now := &v1alpha1.ArtifactRepository{}
			if err := env.Client.Get(ctx, client.ObjectKeyFromObject(&record), now); err != nil || now.UID != record.UID || now.Status.Artifact == nil || now.Status.Artifact.Path != artifact.Path {
				continue
			}
			w.blame("%s answered for %s of %s with %d and %s", controller.Name(), artifact.Revision, record.Name, code, digest)
		default:
			w.praise(controller)
		}
	}
}

// end ends the watcher, who must have seen nothing that is wrong, and expects
// that each replica has what is published, and nothing else.
func (r *replicas) end(w *watcher) {
	r.Helper()
	r.content(w)
	wanted := map[string]string{app: r.tag(), "again": r.tag()}
	for _, artifact := range r.unharmed(wanted) {
		r.held(artifact)
	}
	r.unharmed(wanted, r.all...)
}

// content ends the watcher.
func (r *replicas) content(w *watcher) {
	r.Helper()
	w.stop()
	w.running.Wait()
	r.Expect(w.wrong).To(BeEmpty())
	r.Expect(slices.Collect(maps.Keys(w.answered))).To(HaveLen(len(r.all)), "each replica answered for what is recorded")
}

// held waits until each replica has an artifact, for which it is asked.
func (r *replicas) held(artifact *meta.Artifact) {
	r.Helper()
	for _, controller := range r.all {
		r.eventually(func(g Gomega) {
			code, digest, err := download(r.Context(), "http://"+controller.Address+"/"+artifact.Path)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect([]any{code, digest}).To(Equal([]any{http.StatusOK, artifact.Digest}), controller.Name())
		})
	}
}

// Replicas are killed one after the other and start again with empty disks, and
// at last all at once. Whoever deploys from them does not notice, nor does a
// replica ever deny what is recorded.
func TestReplicasAreKilledOneAfterTheOther(t *testing.T) {
	t.Parallel()
	r := startReplicas(t, "replicas")
	r.source()
	w := r.watch()
	for _, controller := range r.inTurn() {
		r.sometime(time.Second)
		r.out(w, kill, controller)
		r.answers(w, controller)
		r.next()
	}
	r.sometime(time.Second)
	r.out(w, kill, r.all...)
	for _, controller := range r.all {
		r.answers(w, controller)
	}
	r.next()
	r.end(w)
}

// The replica that leads is killed as soon as a new version is recorded, before
// or after it is told to consumers: the others have neither its bytes nor its
// memory, nor those of the version before, and go on all the same.
func TestTheLeaderIsKilledWhilePublishing(t *testing.T) {
	t.Parallel()
	const soon = 50 * time.Millisecond
	r := startReplicas(t, "led")
	r.source()
	consumer := consume(r.tenant, app)
	w := r.watch()
	for range 3 {
		leader := r.leader()
		r.level++
		recorded := r.recorded(app, r.tag())
		for _, name := range []string{app, "again"} {
			r.release(name)
		}
		<-recorded
		r.sometime(soon)
		r.out(w, func(controller *stage.Controller) error {
			defer func() {
				for _, replica := range r.all {
					r.losesFiles(replica)
				}
			}()
			return controller.Kill()
		}, leader)
		for _, name := range []string{app, "again"} {
			r.published(name, r.tag())
		}
		r.deployed(app, r.tag())
	}
	r.Expect(consumer.content()).To(HaveLen(r.level), "each version was published once")
	r.end(w)
}

// recorded tells when a tag is in the record of a source.
func (r *replicas) recorded(name, tag string) <-chan struct{} {
	r.Helper()
	ctx, stop := context.WithCancel(r.Context())
	r.Cleanup(stop)
	states, err := env.Client.Watch(ctx, &v1alpha1.ArtifactRepositoryList{}, client.InNamespace(r.namespace))
	r.Expect(err).NotTo(HaveOccurred())
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		defer states.Stop()
		for event := range states.ResultChan() {
			obj, ok := event.Object.(*v1alpha1.ArtifactRepository)
			if ok && obj.Name == name && obj.Status.Artifact != nil && strings.HasPrefix(obj.Status.Artifact.Revision, tag+"@") {
				return
			}
		}
	}()
	return seen
}

// Replicas are replaced one after the other, as a Deployment does it: told to
// end, and then started with an empty disk. Not one fetch through the balancer fails.
func TestARollOutFailsNoFetch(t *testing.T) {
	t.Parallel()
	r := startReplicas(t, "rolled", shutdownDelay)
	r.source()
	w := r.watch()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fetched := &watcher{answered: map[string]int{}}
	artifact := r.published(app, r.tag())
	for range 4 {
		fetched.repeat(ctx, 5*time.Millisecond, func(ctx context.Context) {
			code, digest, err := download(ctx, artifact.URL)
			if ctx.Err() == nil && (err != nil || code != http.StatusOK || digest != artifact.Digest) {
				fetched.blame("fetched %d, %s, %v", code, digest, err)
			}
		})
	}
	for _, controller := range r.inTurn() {
		r.sometime(time.Second)
		r.out(w, stop, controller)
		r.answers(w, controller)
	}
	cancel()
	fetched.running.Wait()
	r.Expect(fetched.wrong).To(BeEmpty())
	r.end(w)
}

// A source moves to another shard when its label changes, from the address of
// one controller to that of the other. Whoever deploys from it does not notice, and
// who still has the old address is served there as well.
func TestASourceMovesBetweenShards(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	from, to := startShard(t, "from", quickAPI...), startShard(t, "to", quickAPI...)
	r := &replicas{tenant: n, shard: "from", all: []*stage.Controller{from, to}, random: chance(t)}
	r.source()
	first := r.published(app, r.tag())
	n.Expect(first.URL).To(Equal("http://" + from.Address + "/" + first.Path))
	w := r.watch()

	r.sometime(time.Second)
	for _, name := range []string{app, "again"} {
		change(n, named(n, name, &imagev1.ImagePolicy{}), func(policy *imagev1.ImagePolicy) { policy.Labels[shardLabel] = "to" })
	}
	n.eventually(func(g Gomega) {
		for _, name := range []string{app, "again"} {
			g.Expect(get(n, name, &v1alpha1.ArtifactRepository{}).Labels).To(HaveKeyWithValue(shardLabel, "to"))
			external := get(n, name, &sourcev1.ExternalArtifact{})
			g.Expect(external.Labels).To(HaveKeyWithValue(shardLabel, "to"))
			g.Expect(external.Status.Artifact.URL).To(HavePrefix("http://" + to.Address + "/"))
		}
	})
	moved := r.published(app, r.tag())
	n.Expect([]string{moved.Path, moved.Digest, moved.Revision}).To(Equal([]string{first.Path, first.Digest, first.Revision}))
	for _, controller := range r.all {
		r.answers(w, controller)
	}
	r.next()
	n.Expect(r.published(app, r.tag()).URL).To(HavePrefix("http://" + to.Address + "/"))
	n.Expect(get(n, app, &v1alpha1.ArtifactRepository{}).Status.History).To(HaveLen(2), "to move is no news")
	r.end(w)
}
