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
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/leaderelection"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// Two replicas are ready, one leads, and both answer for what is published,
// under the one address that consumers know. When the leader dies the other
// goes on, and nothing that was published changes.
func TestLeaderLost(t *testing.T) {
	t.Parallel()
	const shard = "elected"
	n, front := newTenant(t, v1alpha1.UseAsSourceEnabled), newFront(t)
	replica := func(name string) *stage.Controller {
		controller, err := env.StartController(t.Context(), stage.ControllerOptions{
			Name: "shard-" + shard + "-" + name,
			Args: append([]string{
				"--watch-label-selector=" + shardLabel + "=" + shard,
				"--storage-adv-addr=" + front.address(),
				"--enable-leader-election", "--leader-election-lease-duration=10s",
				"--leader-election-renew-deadline=8s", "--leader-election-retry-period=500ms", // nobody starts again what loses the lease on a busy machine
			}, quickAPI...),
		})
		n.Expect(err).NotTo(HaveOccurred(), "a replica is ready whether it leads or not")
		t.Cleanup(func() {
			if err := controller.Kill(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("the end of the log of %s:\n%s", name, logTail(controller.LogFile()))
			}
		})
		return controller
	}
	first := replica("first")
	holder := n.holder(shard, "")
	second := replica("second")
	front.to(t, first, second)

	n.push(app, "1.0.0", configMap(app, "1.0.0"))
	n.scan(app, inShard(shard))
	artifact := n.published(app, "1.0.0")
	n.Expect(artifact.URL).To(Equal("http://" + front.address() + "/" + artifact.Path))
	n.Expect(n.answered(first, artifact.Path)).To(Equal(http.StatusOK))

	n.Expect(n.answered(second, artifact.Path)).To(Or(Equal(http.StatusOK), Equal(http.StatusServiceUnavailable)), "it is published: come again")
	unknown := strings.Replace(artifact.Path, artifact.Digest[len("sha256:"):], strings.Repeat("0", 64), 1)
	for _, controller := range []*stage.Controller{first, second} {
		n.Expect(n.answered(controller, unknown)).To(Equal(http.StatusNotFound))
		n.Expect(n.answered(controller, "externalartifact/"+n.namespace+"/other/"+strings.Repeat("0", 64)+".tar.gz")).To(Equal(http.StatusNotFound))
	}

	n.Expect(first.Kill()).To(Succeed())
	front.to(t, second)
	n.Expect(n.holder(shard, holder)).NotTo(Equal(holder))
	n.eventually(func(g Gomega) { g.Expect(n.answered(second, artifact.Path)).To(Equal(http.StatusOK)) })
	n.Expect(n.unharmed(map[string]string{app: "1.0.0"}, second)).To(HaveKeyWithValue(app, BeSamePublication(artifact)))

	n.unharmed(map[string]string{app: n.push(app, "1.1.0", configMap(app, "1.1.0"))}, second)
}

// holder waits until another than before leads a shard, and returns who.
func (n *tenant) holder(shard, before string) (now string) {
	n.Helper()
	n.eventually(func(g Gomega) {
		now = *n.lease(g, shard).HolderIdentity
		g.Expect(now).NotTo(Or(BeEmpty(), Equal(before)))
	})
	return now
}

// lease is that of a shard.
func (n *tenant) lease(g Gomega, shard string) coordinationv1.LeaseSpec {
	lease := &coordinationv1.Lease{}
	g.Expect(env.Client.Get(n.Context(), client.ObjectKey{
		Namespace: controlplane.FluxNamespace,
		Name:      leaderelection.GenerateID("image-source-controller-leader-election", shardLabel+"="+shard),
	}, lease)).To(Succeed())
	g.Expect(lease.Spec.HolderIdentity).NotTo(BeNil())
	return lease.Spec
}

// answered returns the status code with which a replica answers for a path.
func (n *tenant) answered(controller *stage.Controller, path string) int {
	n.Helper()
	code, _, err := download(n.Context(), "http://"+controller.Address+"/"+path)
	n.Expect(err).NotTo(HaveOccurred())
	return code
}

// BeSamePublication matches an artifact that is the same for consumers: it may
// have been written at another time.
func BeSamePublication(want *meta.Artifact) OmegaMatcher {
	return WithTransform(publication, Equal(publication(want)))
}

func publication(artifact *meta.Artifact) [3]string {
	return [3]string{artifact.URL, artifact.Digest, artifact.Revision}
}
