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
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// While the API server is away, consumers get what is published; when it is
// back, what was under way is brought to its end, wherever it was.
func TestAPIServerDown(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	server, err := env.StartAPIServer(t.Context(), "apiserver-"+n.namespace)
	n.Expect(err).NotTo(HaveOccurred())
	v := newVictimBehind(newGateTo(t, server.URL()), n, "bereft")
	consumer := consume(n, app)
	moments := map[string]func() *barrier{
		"while the blob is fetched":        func() *barrier { return v.registry.stop(beforeServer, v.contentIsFetched()) },
		"before the record is written":     func() *barrier { return v.api.stop(beforeServer, all(recordIsWritten, v.aboutNext())) },
		"after the record is written":      func() *barrier { return v.api.stop(beforeAnswer, all(recordIsWritten, v.aboutNext())) },
		"after the record is published":    func() *barrier { return v.api.stop(beforeAnswer, all(recordIsPublished, v.aboutNext())) },
		"before the conditions are marked": func() *barrier { return v.api.stop(beforeServer, all(conditionsAreMarked, v.aboutNext())) },
	}
	const tries = 2
	for _, moment := range shuffled(v.random, moments)[:tries] {
		t.Log(moment)
		stopped := moments[moment]()
		revision, _ := v.push(nil)
		stopped.await(n)
		n.Expect(server.Kill()).To(Succeed())
		stopped.open()
		v.stillServes(get(n, app, &sourcev1.ExternalArtifact{}).Status.Artifact)
		n.Expect(v.controller.Exited()).NotTo(BeClosed(), "nothing is elected: there is no reason to end")
		n.Expect(server.Restart(t.Context())).To(Succeed())
		v.unharmed(map[string]string{app: revision}, v.controller)
	}
	// Started while there is none, it waits for one.
	n.Expect(v.controller.Kill()).To(Succeed())
	n.Expect(server.Kill()).To(Succeed())
	revision, _ := v.push(nil)
	started := make(chan error, 1)
	go func() { started <- v.controller.Restart(t.Context()) }()
	n.Consistently(started, time.Second, poll).ShouldNot(Receive(), "it neither ends nor is ready")
	n.Expect(server.Restart(t.Context())).To(Succeed())
	n.Expect(<-started).To(Succeed())
	v.collected(v.controller, map[string]string{app: revision})
	n.Expect(consumer.content()).To(HaveLen(v.level))
}

// stillServes expects that the controller answers for an artifact for a while.
func (v *victim) stillServes(artifact *meta.Artifact) {
	v.Helper()
	v.Consistently(func(g Gomega) {
		code, digest, err := download(v.Context(), artifact.URL)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusOK))
		g.Expect(digest).To(Equal(artifact.Digest))
	}, time.Second, poll).Should(Succeed())
}

// An API server that refuses, that is too busy and that forgets to answer is
// asked again, with a pause, and nothing is done twice.
func TestAPIServerFaults(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "api-faults")
	consumer := consume(v.tenant, app, neverDown)
	answers := map[string]http.HandlerFunc{
		"500": status(http.StatusInternalServerError),
		"503": status(http.StatusServiceUnavailable),
		"429": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "slow down", http.StatusTooManyRequests)
		},
		"stalled": func(http.ResponseWriter, *http.Request) {
			v.pass(2 * time.Second)
			panic(http.ErrAbortHandler)
		},
		"reset": reset,
		"lost": func(_ http.ResponseWriter, r *http.Request) {
			v.api.truth(r)
			panic(http.ErrAbortHandler)
		},
	}
	const (
		mostWrites = 30
		tries      = 3
	)
	for _, name := range shuffled(v.random, answers)[:tries] {
		t.Log(name)
		v.api.forget()
		heal := v.api.answer(all(isWrite, has(http.MethodPatch, "/namespaces/"+v.namespace+"/")), answers[name])
		revision, _ := v.push(nil)
		v.eventually(func(g Gomega) { g.Expect(v.api.seen(all(isWrite, says(revision)))).NotTo(BeEmpty()) })
		v.pass(time.Second)
		asked := len(v.api.seen(all(isWrite, says(revision))))
		heal()
		v.Expect(asked).To(BeNumerically("<", mostWrites), "%s: it is asked without a pause", name)
		v.unharmed(map[string]string{app: revision}, v.controller)
	}
	v.Expect(consumer.content()).To(HaveLen(v.level))
}
