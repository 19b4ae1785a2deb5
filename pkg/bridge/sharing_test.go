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
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/test/publish"
)

var (
	alice = access{"alice", "a-secret"}
	bob   = access{"bob", "b-secret"}
	eve   = access{"eve", "guessed"}
)

// private makes the registry open to alice and bob only.
func (b *bench) private() {
	b.registry.Answer(publish.DemandBasic(map[string]string{alice.user: alice.password, bob.user: bob.password}))
}

func TestFiftySourcesOfOneAccessKeyPullOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	b.private()
	const sources = 50
	outcomes := make([]bridge.Outcome, sources)
	group, ctx := errgroup.WithContext(t.Context())
	for i := range sources {
		r := b.request(fmt.Sprintf("app-%d", i), "team/app:1.0.0", alice)
		r.MaxAge = 3600e9
		group.Go(func() (err error) {
			outcomes[i], err = b.try(ctx, r)
			return err
		})
	}
	g.Expect(group.Wait()).To(Succeed())

	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
	g.Expect(b.registry.Count(http.MethodGet, "/manifests/")+b.registry.Count(http.MethodHead, "/manifests/")).To(Equal(1), "%v", b.registry.Requests())
	first, err := os.Stat(b.file(outcomes[0]))
	g.Expect(err).NotTo(HaveOccurred())
	for i, out := range outcomes {
		g.Expect(out.Artifact.Path).To(HavePrefix(fmt.Sprintf("externalartifact/apps/app-%d/", i)))
		g.Expect(out.Artifact.Digest).To(Equal(outcomes[0].Artifact.Digest))
		info, err := os.Stat(b.file(out))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.SameFile(first, info)).To(BeTrue(), "equal content is stored once")
	}
	g.Expect(b.leftovers()).To(BeEmpty())
}

func TestOneSourceAfterAnotherOfOneAccessKeyPullsOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	b.publish(b.request("one", "team/app:1.0.0", nobody))
	b.asked()
	b.publish(b.request("two", "team/app:1.0.0", nobody))
	g.Expect(b.asked()).To(Equal([]string{"HEAD /v2/team/app/manifests/1.0.0"}))
}

func TestWithoutCredentialsNoContentIsShared(t *testing.T) {
	for name, who := range map[string]access{"without credentials": nobody, "with a wrong password": eve} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			b.private()
			first := b.publish(b.request("first", "team/app:1.0.0", alice))
			before := b.stored()

			_, err := b.try(t.Context(), b.request("second", "team/app:1.0.0", who))
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)

			byDigest := b.request("second", "team/app:1.0.0", who)
			byDigest.Digest = manifest
			_, err = b.try(t.Context(), byDigest)
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			if who.password != "" {
				g.Expect(err.Error()).NotTo(ContainSubstring(who.password))
			}

			g.Expect(b.stored()).To(Equal(before), "not a byte is stored for the second")
			g.Expect(b.file(first)).To(BeARegularFile())
		})
	}
}

func TestOtherCredentialsAreServedFromStoredBytesAfterTheirOwnManifest(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	b.private()
	first := b.publish(b.request("first", "team/app:1.0.0", alice))
	b.asked()

	r := b.request("second", "team/app:1.0.0", bob)
	r.Digest = manifest
	second := b.publish(r)

	g.Expect(b.registry.Count(http.MethodGet, "/manifests/"+manifest.String())).To(BeNumerically(">=", 1), "bob's own credentials open the manifest")
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(BeZero(), "without another pull")
	g.Expect(second.Artifact.Digest).To(Equal(first.Artifact.Digest))
	g.Expect(second.Artifact.Path).To(HavePrefix("externalartifact/apps/second/"))
	g.Expect(b.file(second)).To(BeARegularFile())
}

func TestBytesOfAnotherRepositoryAreServedAfterAHeadOfTheBlob(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	files := publish.Files{"app.yaml": "version: 1\n"}
	_, layer := b.push("team/app:1.0.0", files)
	b.push("mirror/app:1.0.0", files)
	b.publish(b.request("first", "team/app:1.0.0", nobody))
	b.asked()

	second := b.publish(b.request("second", "mirror/app:1.0.0", nobody))

	g.Expect(b.asked()).To(Equal([]string{
		"GET /v2/mirror/app/manifests/1.0.0",
		"HEAD /v2/mirror/app/blobs/" + layer.String(),
	}))
	g.Expect(second.Artifact.Digest).To(Equal(layer.String()))
	g.Expect(second.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataImage, b.registry.Host()+"/mirror/app"))
}

func TestBytesOfAnotherRepositoryStayThereWhenTheBlobIsRefused(t *testing.T) {
	for name, code := range map[string]int{"forbidden": http.StatusForbidden, "not found": http.StatusNotFound, "unavailable": http.StatusServiceUnavailable} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			files := publish.Files{"app.yaml": "version: 1\n"}
			b.push("team/app:1.0.0", files)
			b.push("mirror/app:1.0.0", files)
			b.publish(b.request("first", "team/app:1.0.0", nobody))
			before := b.stored()
			b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, "/v2/mirror/app/blobs/") {
					return false
				}
				w.WriteHeader(code)
				return true
			})
			_, err := b.try(t.Context(), b.request("second", "mirror/app:1.0.0", nobody))
			g.Expect(err).To(HaveOccurred())
			g.Expect(b.stored()).To(Equal(before))
		})
	}
}

// A tenant who knows a private manifest, which is no secret, can have its own server show it
// and claim to have every blob of it.
func TestATenantsServerProvesNoAccessToContentOfOthers(t *testing.T) {
	for name, open := range map[string]func(b *bench, forged *publish.InProcess) *registry.Repository{
		"under its own name": func(b *bench, forged *publish.InProcess) *registry.Repository {
			return b.openAt(forged.Host()+"/eve/app", registry.Access{})
		},
		"under the name of the registry, by a proxy of one's own": func(b *bench, forged *publish.InProcess) *registry.Repository {
			proxy, err := url.Parse(forged.URL)
			NewWithT(b).Expect(err).NotTo(HaveOccurred())
			return b.openAt(b.registry.Host()+"/team/app", registry.Access{Proxy: proxy, Fingerprint: "eve"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			digest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			manifest, err := b.open("team/app", nobody).Resolve(t.Context(), registry.Query{Digest: digest})
			g.Expect(err).NotTo(HaveOccurred())
			b.private()
			b.publish(b.request("first", "team/app:1.0.0", alice))
			before := b.stored()

			forged := publish.Serve()
			t.Cleanup(forged.Close)
			forged.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method == http.MethodConnect:
					w.WriteHeader(http.StatusBadGateway)
				case strings.Contains(r.URL.Path, "/manifests/"):
					w.Header().Set("Content-Type", string(manifest.MediaType))
					_, _ = w.Write(manifest.Body)
				case strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet:
					w.WriteHeader(http.StatusNotFound)
				}
				return true
			})
			r := b.request("second", "team/app:1.0.0", nobody)
			r.Repository = open(b, forged)
			_, err = b.try(t.Context(), r)

			expectFault(t, err, v1alpha1.ReasonImageNotFound, fault.Retry)
			g.Expect(b.stored()).To(Equal(before), "not a byte is stored for the second")
		})
	}
}

func TestAWayOfOnesOwnToARegistryIsBelievedForItselfOnly(t *testing.T) {
	for name, own := range map[string]registry.Access{
		"certificates": {TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Insecure: true, Fingerprint: "certificates"},
		"plain HTTP":   {Insecure: true},
	} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			files := publish.Files{"app.yaml": "version: 1\n"}
			b.push("team/app:1.0.0", files)
			b.push("mirror/app:1.0.0", files)
			b.publish(b.request("first", "team/app:1.0.0", nobody))
			b.asked()
			for _, pulls := range []int{1, 0} {
				r := b.request("second", "team/app:1.0.0", nobody)
				r.Repository = b.openAt(b.registry.Host()+"/team/app", own)
				b.publish(r)
				g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(pulls))
				b.asked()
			}
			r := b.request("third", "mirror/app:1.0.0", nobody)
			r.Repository = b.openAt(b.registry.Host()+"/mirror/app", own)
			b.publish(r)
			g.Expect(b.registry.Count(http.MethodHead, "/blobs/")).To(Equal(1), "a source of the same registry checks access, and does not pull")
			g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(BeZero())
		})
	}
}

func TestPullsInFlightAreNotSharedAcrossAccessKeys(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	var mu sync.Mutex
	seen := map[string]bool{}
	both := make(chan struct{})
	demand := publish.DemandBasic(map[string]string{alice.user: alice.password, bob.user: bob.password})
	b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		if demand(w, r) {
			return true
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			user, _, _ := r.BasicAuth()
			mu.Lock()
			if seen[user] = true; len(seen) == 2 {
				close(both)
			}
			mu.Unlock()
			// Each waits for the other: with a shared pull, neither would end.
			select {
			case <-both:
			case <-r.Context().Done():
			}
		}
		return false
	})
	group, ctx := errgroup.WithContext(t.Context())
	for _, who := range []access{alice, bob} {
		r := b.request(who.user, "team/app:1.0.0", who)
		group.Go(func() error {
			_, err := b.try(ctx, r)
			return err
		})
	}
	g.Expect(group.Wait()).To(Succeed())
	g.Expect(seen).To(HaveLen(2))
}

func TestACanceledCallerDoesNotEndSharedWork(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	started, release := make(chan struct{}, 2), make(chan struct{})
	b.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			started <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return false
	})
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := b.try(impatient, b.request("impatient", "team/app:1.0.0", nobody))
		left <- err
	}()
	g.Eventually(started).Should(Receive())
	stayed := make(chan error, 1)
	r := b.request("patient", "team/app:1.0.0", nobody)
	go func() {
		_, err := b.try(t.Context(), r)
		stayed <- err
	}()
	// The patient one has asked for the tag once it waits for the same pull.
	g.Eventually(func() int { return b.registry.Count(http.MethodHead, "/manifests/1.0.0") }).Should(Equal(1))

	leave()
	g.Eventually(left).Should(Receive(MatchError(context.Canceled)))
	close(release)

	g.Eventually(stayed).Should(Receive(Succeed()))
	g.Expect(b.leftovers()).To(BeEmpty())
}

func TestTheShortestTimeoutDoesNotDecideForAll(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	pulls := make(chan struct{}, 2)
	b.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			pulls <- struct{}{}
			if len(pulls) == 1 {
				<-r.Context().Done() // the first pull never ends by itself
			}
		}
		return false
	})
	hasty, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := b.try(hasty, b.request("hasty", "team/app:1.0.0", nobody))
		ended <- err
	}()
	g.Eventually(pulls).Should(HaveLen(1))

	b.publish(b.request("patient", "team/app:1.0.0", nobody))

	g.Eventually(ended).Should(Receive(MatchError(context.DeadlineExceeded)))
}

func TestSettingsAreNotSharedAsContent(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "README.md": "# app\n"})
	plain := b.publish(b.request("plain", "team/app:1.0.0", nobody))
	r := b.request("filtered", "team/app:1.0.0", nobody)
	r.Content = settings(func(o *format.Options) { o.Ignore = new("*.md") })
	filtered := b.publish(r)
	g.Expect(filtered.Artifact.Digest).NotTo(Equal(plain.Artifact.Digest))
}
