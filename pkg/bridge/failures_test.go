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
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// spent is a repository of artifacts that no attempt has time to read: each blob comes
// whole, and its attempt is over then.
type spent struct {
	bridge.Repository

	pulls *atomic.Int32
}

func (s spent) Pull(ctx context.Context, desc v1.Descriptor, w io.Writer) error {
	err := s.Repository.Pull(ctx, desc, w)
	s.pulls.Add(1)
	<-ctx.Done()
	return err
}

// An artifact with a manifest that lies about a blob is pulled once, for all sources.
func TestASizeThatIsWrongForGoodIsFoundOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	_, layer := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	size := len(b.blob("team/app", layer))
	b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
			`"config":{"mediaType":"application/vnd.cncf.flux.config.v1+json","digest":"sha256:%064d","size":2},`+
			`"layers":[{"mediaType":"application/vnd.cncf.flux.content.v1.tar+gzip","digest":%q,"size":%d}]}`, 0, layer, size+1) // the client reads it
		return true
	})
	r := b.request("app", "team/app:1.0.0", nobody)
	for range 3 {
		_, err := b.try(t.Context(), r)
		expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, fmt.Sprintf("it has %d bytes, the manifest says %d", size, size+1))
	}
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
}

func TestAnArtifactThatNoAttemptHasTimeToReadIsReadLessAndLess(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	var clock atomic.Int64
	b.bridge = bridge.New(b.store, func() time.Time { return noon.Add(time.Duration(clock.Load())) })
	r := b.request("app", "team/app:1.0.0", nobody)
	pulls := &atomic.Int32{}
	r.Repository = spent{r.Repository, pulls}
	attempt := func(timeout time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		_, err := b.try(ctx, r)
		return err
	}
	const enough = 300 * time.Millisecond
	// paused waits until an attempt is remembered: it outlives its Publish.
	paused := func() {
		t.Helper()
		g.Eventually(func() error { return attempt(enough) }, time.Minute).Should(MatchError(ContainSubstring("after a pause of")))
	}

	g.Expect(attempt(enough)).To(MatchError(context.DeadlineExceeded))
	paused()
	before := pulls.Load()
	for range 10 {
		err := attempt(enough)
		expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
		g.Expect(fault.Of(err, "").Answered).To(BeTrue(), "the registry is not at fault")
	}
	g.Expect(pulls.Load()).To(Equal(before), "the same bytes were read again")

	// Each pause is longer than the last.
	pause := func() (minutes int) {
		t.Helper()
		for {
			clock.Add(int64(time.Minute))
			minutes++
			before := pulls.Load()
			if err := attempt(enough); pulls.Load() > before {
				g.Expect(err).To(MatchError(context.DeadlineExceeded))
				return minutes
			}
			g.Expect(minutes).To(BeNumerically("<", 100))
		}
	}
	first := pause()
	g.Expect(first).To(BeNumerically(">", 1))
	paused()
	g.Expect(pause()).To(BeNumerically(">", first))
	paused()

	// More time is another question, and so are other settings.
	before = pulls.Load()
	g.Expect(attempt(4 * enough)).To(MatchError(context.DeadlineExceeded))
	g.Expect(pulls.Load()).To(Equal(before + 1))
	r.Content = settings(func(o *format.Options) { o.Ignore = new("*.md") })
	g.Expect(attempt(enough)).To(MatchError(context.DeadlineExceeded))
	g.Expect(pulls.Load()).To(Equal(before + 2))

	// So is another digest.
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 2\n"})
	r.Repository = b.request("app", "team/app:1.0.0", nobody).Repository
	r.Fresh = true
	g.Expect(attempt(time.Minute)).To(Succeed())
}

func TestASlowRegistryIsNoSlowArtifact(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	b.answerBlobs(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	r := b.request("app", "team/app:1.0.0", nobody)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := b.try(ctx, r)
		cancel()
		g.Expect(err).To(MatchError(context.DeadlineExceeded))
	}
	b.registry.Answer(nil)
	b.publish(r)
}

// TestAnArtifactThatIsRefusedIsReadOnce has sources, and attempts, without a memory of those
// before.
func TestAnArtifactThatIsRefusedIsReadOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.pushLayers("team/app:1.0.0", nil, []byte("this is no gzip"))
	for _, name := range []string{"one", "two", "one"} {
		_, err := b.try(t.Context(), b.request(name, "team/app:1.0.0", nobody))
		expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall)
	}
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
}

func TestAnArtifactThatConstraintsRefuseIsReadOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	r := b.request("app", "team/app:1.0.0", nobody)
	r.Constraints = constraintsOf(func(p *trust.Policy) { p.Formats = []string{"Helm"} })
	for range 3 {
		_, err := b.try(t.Context(), r)
		g.Expect(trust.VerdictOf(err)).To(Equal(trust.Rejected))
	}
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
	r.Constraints = constraintsOf(func(p *trust.Policy) { p.Formats = []string{"Flux"} })
	b.publish(r)
}
