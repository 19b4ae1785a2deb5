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
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// startReplicasOf starts three of a shard on an API server of their own. What it
// returns beside them are the ways there.
func startReplicasOf(n *tenant, shard string, server *controlplane.FurtherAPIServer) (r *replicas, ways []*gate) {
	n.Helper()
	r = &replicas{tenant: n, shard: shard}
	var err error
	r.balancer, err = stage.StartBalancer(n.Context())
	n.Expect(err).NotTo(HaveOccurred())
	n.Cleanup(func() { n.Expect(r.balancer.Close()).To(Succeed()) })
	addresses := make([]string, 3)
	for i := range addresses {
		addresses[i], err = controlplane.FreeAddress()
		n.Expect(err).NotTo(HaveOccurred())
	}
	args := slices.Concat(quickAPI, []string{
		"--storage-adv-addr=" + r.balancer.Address(), "--storage-peers=" + strings.Join(addresses, ","), shutdownDelay,
		"--enable-leader-election", "--leader-election-lease-duration=10s",
		"--leader-election-renew-deadline=8s", "--leader-election-retry-period=500ms", // nobody starts again what loses the lease on a busy machine
	})
	for i, address := range addresses {
		way := newGateTo(n.T, server.URL())
		controller := replica{shard: shard, suffix: fmt.Sprintf("-%d", i), address: address, api: way}.start(n, args...)
		r.balancer.Add(n.Context(), controller)
		r.all, ways = append(r.all, controller), append(ways, way)
	}
	return r, ways
}

// The API server is away for longer than the one that leads may go without
// renewing its lease. What is recorded is served all the while, by that one too,
// and whoever is started meanwhile waits. When it is back, all go on.
func TestAPIServerDownForLongerThanTheLease(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	server, err := env.StartAPIServer(t.Context(), "apiserver-"+n.namespace)
	n.Expect(err).NotTo(HaveOccurred())
	r, ways := startReplicasOf(n, "bereft-led", server)
	r.source()
	artifacts := []*meta.Artifact{r.published(app, r.tag()), r.published("again", r.tag())}
	for _, controller := range r.all {
		for _, artifact := range artifacts {
			n.eventually(func(g Gomega) { g.Expect(n.answered(controller, artifact.Path)).To(Equal(http.StatusOK)) })
		}
	}
	consumer := consume(n, app)
	fetched, stop := r.fetchAll(artifacts)
	leader := r.leader()
	others := slices.DeleteFunc(slices.Clone(r.all), func(c *stage.Controller) bool { return c == leader })
	late, steady := others[0], others[1]

	n.Expect(late.Stop()).To(Succeed())
	// An API server that does not say yet that it is ready is asked by nobody.
	var reopen []func()
	for _, way := range ways {
		reopen = append(reopen, way.answer(all(), reset))
	}
	n.Expect(server.Kill()).To(Succeed())
	started := r.restartInVain(late)
	n.eventually(func(g Gomega) { g.Expect(logOf(g, leader)).To(ContainSubstring("leader election lost")) })
	before := fetched.count(leader)
	n.eventually(func(g Gomega) { g.Expect(fetched.count(leader)).To(BeNumerically(">=", before+10)) })
	for _, controller := range []*stage.Controller{leader, late, steady} {
		n.Expect(controller.Exited()).NotTo(BeClosed(), "%s has ended, and could not serve before the API server is back", controller.Name())
	}

	n.Expect(server.Restart(t.Context())).To(Succeed())
	for _, open := range reopen {
		open()
	}
	n.Expect(<-started).To(Succeed(), "the one that was started meanwhile")
	n.Expect(leader.Wait(t.Context())).NotTo(Succeed(), "its controllers can be started by a new process only")
	n.Expect(leader.Restart(t.Context())).To(Succeed(), "a Pod is started again")
	for _, controller := range r.all {
		n.eventually(func(g Gomega) { g.Expect(probe(n, controller, "/readyz")).To(Equal(http.StatusOK)) })
	}
	stop()
	n.Expect(fetched.wrong).To(BeEmpty())
	r.next()
	n.unharmed(map[string]string{app: r.tag(), "again": r.tag()}, r.all...)
	n.Expect(consumer.content()).To(HaveLen(r.level))
}

// restartInVain starts a controller without an API server: it lives and waits,
// ends when it is told to, and waits again. What it returns tells how it started.
func (r *replicas) restartInVain(controller *stage.Controller) <-chan error {
	r.Helper()
	var started chan error
	start := func() {
		started = make(chan error, 1)
		from := len(logOf(r, controller))
		go func() { started <- controller.Restart(r.Context()) }()
		r.eventually(func(g Gomega) {
			g.Expect(logOf(g, controller)[from:]).To(ContainSubstring("waiting for the API server"))
		})
		r.Expect(probe(r.tenant, controller, "/healthz")).To(Equal(http.StatusOK))
		r.Expect(probe(r.tenant, controller, "/readyz")).To(Equal(http.StatusInternalServerError))
	}
	start()
	r.Expect(controller.Stop()).To(Succeed())
	r.Expect(controller.Wait(r.Context())).To(Succeed(), "it was told to end")
	r.Expect(<-started).NotTo(Succeed())
	start()
	return started
}

// fetchAll asks each replica that is ready for artifacts, all the time, and the
// balancer, of which no fetch may fail.
func (r *replicas) fetchAll(artifacts []*meta.Artifact) (fetched *watcher, end func()) {
	ctx, stop := context.WithCancel(r.Context())
	fetched = &watcher{answered: map[string]int{}}
	for _, artifact := range artifacts {
		fetched.repeat(ctx, 10*time.Millisecond, func(ctx context.Context) {
			code, digest, err := download(ctx, artifact.URL)
			if ctx.Err() == nil && (err != nil || code != http.StatusOK || digest != artifact.Digest) {
				fetched.blame("fetched %d, %s, %v", code, digest, err)
			}
		})
		for _, controller := range r.all {
			fetched.repeat(ctx, 20*time.Millisecond, func(ctx context.Context) {
				code, _, err := download(ctx, "http://"+controller.Address+"/"+artifact.Path)
				switch {
				case err != nil || code == http.StatusServiceUnavailable:
				case code != http.StatusOK:
					fetched.blame("%s answered %d", controller.Name(), code)
				default:
					fetched.praise(controller)
				}
			})
		}
	}
	return fetched, func() {
		stop()
		fetched.running.Wait()
	}
}

// probe returns what a controller answers to a kubelet.
func probe(n *tenant, controller *stage.Controller, path string) int {
	n.Helper()
	code, _, err := download(n.Context(), "http://"+controller.Health+path)
	n.Expect(err).NotTo(HaveOccurred())
	return code
}

// logOf returns what a controller has said so far.
func logOf(g Gomega, controller *stage.Controller) string {
	content, err := os.ReadFile(controller.LogFile())
	g.Expect(err).NotTo(HaveOccurred())
	return string(content)
}
