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

package bridge_test

import (
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// constraintsOf are those of one policy for every image.
func constraintsOf(change func(*trust.Policy)) trust.Constraints {
	policy := trust.Policy{Name: "policy", Namespaces: labels.Everything(), Images: []string{"**"}}
	change(&policy)
	return trust.NewPolicies(policy).Decide(trust.Question{Namespace: "apps", Repository: "example.com/app"})
}

func TestConstraintsDecideAboutTheStore(t *testing.T) {
	for name, c := range map[string]struct {
		constraints func(*trust.Policy)
		words       string
		pulls       int
	}{
		"a format that is not allowed": {func(p *trust.Policy) { p.Formats = []string{"Helm"} }, `the format "Flux" is not allowed`, 1},
		"a size that is not allowed":   {func(p *trust.Policy) { p.MaxBytes = 10 }, "it allows at most 10", 0},
	} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			refused := b.request("refused", "team/app:1.0.0", nobody)
			refused.Constraints = constraintsOf(c.constraints)
			expectRefused := func() {
				t.Helper()
				out, err := b.try(t.Context(), refused)
				g.Expect(err).To(MatchError(ContainSubstring(c.words)))
				g.Expect(trust.VerdictOf(err)).To(Equal(trust.Rejected))
				g.Expect(out.Artifact.Path).To(BeEmpty())
				g.Expect(b.stored()).NotTo(ContainElement(ContainSubstring("/refused/")))
				g.Expect(b.leftovers()).To(BeEmpty())
			}
			expectRefused()
			g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(c.pulls))

			// Another source of the same access is not refused for it, and its pull does not
			// admit the first one.
			out := b.publish(b.request("free", "team/app:1.0.0", nobody))
			g.Expect(out.Bytes).To(Equal(*out.Artifact.Size), "a clean layer is all that was fetched")
			expectRefused()

			// A policy in the mode Warn stops no publication.
			refused.Constraints = constraintsOf(func(p *trust.Policy) { c.constraints(p); p.Warn = true })
			b.publish(refused)
		})
	}
}

// Two concurrent requests share a pull only if they admit the same: the constraints of one
// must not fail the other.
func TestAPullThatConstraintsEndIsNotShared(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	pulling, free := make(chan struct{}, 1), make(chan struct{})
	b.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			pulling <- struct{}{}
			<-free
		}
		return false
	})
	type result struct {
		out bridge.Outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := b.try(t.Context(), b.request("free", "team/app:1.0.0", nobody))
		done <- result{out, err}
	}()
	<-pulling
	refused := b.request("refused", "team/app:1.0.0", nobody)
	refused.Constraints = constraintsOf(func(p *trust.Policy) { p.MaxBytes = 10 })
	_, err := b.try(t.Context(), refused)
	g.Expect(err).To(MatchError(ContainSubstring("it allows at most 10")))
	close(free)
	first := <-done
	g.Expect(first.err).NotTo(HaveOccurred())
	g.Expect(b.stored()).NotTo(ContainElement(ContainSubstring("/refused/")))
}
