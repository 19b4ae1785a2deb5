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

package registry_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

func TestANewVersionCostsOneManifestAndOneBlob(t *testing.T) {
	basic := &authn.Basic{Username: "user", Password: "password"}
	for _, tc := range []struct {
		name   string
		demand func(*server)
		access registry.Access
		login  []string
	}{
		{"anonymously", func(*server) {}, registry.Access{}, []string{"GET /v2/"}},
		{"with basic authentication", func(s *server) { s.demandBasic("user", "password") },
			registry.Access{Auth: basic, Fingerprint: "basic"}, []string{"GET /v2/"}},
		{"with a token for a user", func(s *server) { s.demandToken(&tokens{user: "user", password: "password"}) },
			registry.Access{Auth: basic, Fingerprint: "token"}, []string{"GET /v2/", "GET /token"}},
		{"with an anonymous token", func(s *server) { s.demandToken(&tokens{}) },
			registry.Access{}, []string{"GET /v2/", "GET /token"}},
		{"with a static token", func(s *server) { s.demandToken(&tokens{valid: "static"}) },
			registry.Access{Auth: authn.FromConfig(authn.AuthConfig{RegistryToken: "static"}), Fingerprint: "static"}, []string{"GET /v2/"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			c := newClient(t, registry.Options{})
			digest, layer := s.putImage(t, "org/app:1.0", "first")
			tc.demand(s)

			fetch := func(tag string, layer v1.Descriptor) (*registry.Manifest, string) {
				repo := c.Repository(repository(t, s.host()+"/org/app"), tc.access)
				m, err := repo.Resolve(t.Context(), registry.Query{Tag: tag})
				g.Expect(err).NotTo(HaveOccurred())
				var blob bytes.Buffer
				g.Expect(repo.Pull(t.Context(), layer, &blob)).To(Succeed())
				return m, blob.String()
			}
			m, content := fetch("1.0", layer)
			g.Expect(m.Digest).To(Equal(digest))
			g.Expect(m.MediaType).To(Equal(types.OCIManifestSchema1))
			g.Expect(content).To(Equal("first"))
			g.Expect(s.asked()).To(Equal(append(tc.login,
				"GET /v2/org/app/manifests/1.0", "GET /v2/org/app/blobs/"+layer.Digest.String())))

			_, layer = s.putImage(t, "org/app:1.1", "second")
			_, content = fetch("1.1", layer)
			g.Expect(content).To(Equal("second"))
			g.Expect(s.asked()).To(Equal([]string{
				"GET /v2/org/app/manifests/1.1", "GET /v2/org/app/blobs/" + layer.Digest.String()}))
		})
	}
}

func TestOnePingServesAllRepositoriesOfAHostAndFingerprint(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "org/a:1", "a")
	s.putImage(t, "org/b:1", "b")
	s.demandToken(&tokens{valid: "static"})
	c := newClient(t, registry.Options{})
	access := registry.Access{Auth: authn.FromConfig(authn.AuthConfig{RegistryToken: "static"}), Fingerprint: "one"}
	for _, image := range []string{"/org/a", "/org/b"} {
		_, err := c.Repository(repository(t, s.host()+image), access).Resolve(t.Context(), registry.Query{Tag: "1"})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /v2/org/a/manifests/1", "GET /v2/org/b/manifests/1"}))
}

func TestWhatIsKnownIsNotAskedAgain(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name  string
		later time.Duration
		query registry.Query
		asks  []string
	}{
		{"nothing when the answer is young enough", time.Minute, registry.Query{Tag: "1", MaxAge: 2 * time.Minute}, nil},
		{"a HEAD when it is not", 3 * time.Minute, registry.Query{Tag: "1", MaxAge: 2 * time.Minute}, []string{"HEAD /v2/app/manifests/1"}},
		{"a HEAD when the query is fresh", 0, registry.Query{Tag: "1", MaxAge: time.Hour, Fresh: true}, []string{"HEAD /v2/app/manifests/1"}},
		{"a HEAD when no age is allowed", 0, registry.Query{Tag: "1"}, []string{"HEAD /v2/app/manifests/1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			digest, _ := s.putImage(t, "app:1", "x")
			clock := now
			repo := newClient(t, registry.Options{Clock: func() time.Time { return clock }}).
				Repository(repository(t, s.host()+"/app"), registry.Access{})
			_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).NotTo(HaveOccurred())
			s.asked()

			clock = clock.Add(tc.later)
			m, err := repo.Resolve(t.Context(), tc.query)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.Digest).To(Equal(digest))
			g.Expect(s.asked()).To(Equal(tc.asks))
		})
	}
}

func TestADigestIsNeverLookedUpByTag(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	digest, _ := s.putImage(t, "app:1", "x")
	c := newClient(t, registry.Options{})
	for range 2 {
		m, err := c.Repository(repository(t, s.host()+"/app"), registry.Access{}).
			Resolve(t.Context(), registry.Query{Tag: "gone", Digest: digest})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(m.Digest).To(Equal(digest))
	}
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /v2/app/manifests/" + digest.String()}))
}

func TestAMovedTagCostsAHeadAndAGetByDigest(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "old")
	repo := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{})
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	s.asked()
	digest, _ := s.putImage(t, "app:1", "new")
	m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.Digest).To(Equal(digest))
	g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1", "GET /v2/app/manifests/" + digest.String()}))
}

func TestARegistryWithoutHeadIsAskedByGet(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"because it answers 405": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"because it answers 501": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.putImage(t, "app:1", "old")
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					answer(w, r)
				}
				return r.Method == http.MethodHead
			})
			now := time.Now()
			repo := newClient(t, registry.Options{Clock: func() time.Time { return now }, ForgetAfter: time.Hour}).Repository(repository(t, s.host()+"/app"), registry.Access{})
			resolve := func() v1.Hash {
				m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				g.Expect(err).NotTo(HaveOccurred())
				return m.Digest
			}
			resolve()
			digest, _ := s.putImage(t, "app:1", "new")
			s.asked()
			g.Expect(resolve()).To(Equal(digest))
			g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"}))
			g.Expect(resolve()).To(Equal(digest))
			g.Expect(s.asked()).To(Equal([]string{"GET /v2/app/manifests/1"}), "it remembers that HEAD does not help")

			now = now.Add(time.Hour)
			s.answer(nil)
			s.asked()
			g.Expect(resolve()).To(Equal(digest))
			g.Expect(s.asked()).To(ContainElement("HEAD /v2/app/manifests/1"), "HEAD is tried again")
			g.Expect(resolve()).To(Equal(digest))
			g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1"}))
		})
	}
}

func TestAnAnswerToHeadThatMayBeAnAccidentIsNotRemembered(t *testing.T) {
	for name, accident := range map[string]http.HandlerFunc{
		"400":                      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"403":                      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"404":                      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"a page":                   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") },
		"a digest that is no hash": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Docker-Content-Digest", "sha256:zz") },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			digest, _ := s.putImage(t, "app:1", "x")
			repo := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{})
			resolve := func() {
				m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(m.Digest).To(Equal(digest))
			}
			resolve()
			s.asked()
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					accident(w, r)
				}
				return r.Method == http.MethodHead
			})
			resolve()
			g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1", "GET /v2/app/manifests/1"}))
			s.answer(nil)
			resolve()
			g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1"}))
		})
	}
}

func TestEqualQueriesAtTheSameTimeAreOneRequest(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	c := newClient(t, registry.Options{})
	arrived, release := make(chan struct{}), make(chan struct{})
	s.answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/app/manifests/1" {
			close(arrived)
			<-release
		}
		return false
	})
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	resolve := func(ctx context.Context) error {
		_, err := c.Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(ctx, registry.Query{Tag: "1"})
		return err
	}
	go func() { left <- resolve(impatient) }()
	<-arrived
	var others, joined sync.WaitGroup
	results := make([]error, 20)
	for i := range results {
		joined.Add(1)
		others.Go(func() { results[i] = resolve(&announcing{Context: t.Context(), joined: joined.Done}) })
	}
	joined.Wait()
	leave()
	err := <-left
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	g.Expect(err).To(MatchError(context.Canceled))
	close(release)
	others.Wait()
	for _, err := range results {
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /v2/app/manifests/1"}))
}

// announcing is a context that tells when its owner begins to wait: by then the
// owner has joined what it waits for.
type announcing struct {
	context.Context
	once   sync.Once
	joined func()
}

func (a *announcing) Done() <-chan struct{} {
	a.once.Do(a.joined)
	return a.Context.Done()
}

func TestAWorkThatNobodyWaitsForIsCancelled(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	arrived, cancelled := make(chan struct{}), make(chan struct{})
	s.answerTo("/manifests/", func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(cancelled)
	})
	ctx, leave := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{}).
			Resolve(ctx, registry.Query{Tag: "1"})
		result <- err
	}()
	<-arrived
	leave()
	g.Expect(<-result).To(MatchError(context.Canceled))
	g.Eventually(cancelled).Should(BeClosed())
}

func TestTheShortestTimeoutDoesNotDecideForAll(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	c := newClient(t, registry.Options{})
	arrived := make(chan struct{}, 10)
	first := true
	s.answerTo("/manifests/1", func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		if first {
			first = false
			<-r.Context().Done()
			return
		}
		s.handler.ServeHTTP(w, r)
	})
	resolve := func(ctx context.Context) error {
		_, err := c.Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(ctx, registry.Query{Tag: "1"})
		return err
	}
	hasty, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	short, long := make(chan error, 1), make(chan error, 1)
	go func() { short <- resolve(hasty) }()
	<-arrived
	joined := make(chan struct{})
	go func() { long <- resolve(&announcing{Context: t.Context(), joined: func() { close(joined) }}) }()
	<-joined
	g.Expect(<-short).To(MatchError(context.DeadlineExceeded))
	g.Expect(<-long).To(Succeed())
}

func TestAFreshQueryJoinsNothingOlder(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	old, _ := s.putImage(t, "app:1", "old")
	c := newClient(t, registry.Options{})
	arrived, release := make(chan struct{}), make(chan struct{})
	var second atomic.Bool
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/app/manifests/1" || second.Swap(true) {
			return false
		}
		s.handler.ServeHTTP(w, r) // answers with what is there now, late
		close(arrived)
		<-release
		return true
	})
	resolve := func(fresh bool) v1.Hash {
		m, err := c.Repository(repository(t, s.host()+"/app"), registry.Access{}).
			Resolve(t.Context(), registry.Query{Tag: "1", MaxAge: time.Hour, Fresh: fresh})
		if err != nil {
			return v1.Hash{}
		}
		return m.Digest
	}
	slow := make(chan v1.Hash, 1)
	go func() { slow <- resolve(false) }()
	<-arrived
	renewed, _ := s.putImage(t, "app:1", "new")
	g.Expect(resolve(true)).To(Equal(renewed))
	close(release)
	g.Expect(<-slow).To(Equal(old))
	g.Expect(resolve(false)).To(Equal(renewed), "an older answer that came late does not replace a newer one")
}

func TestNothingIsSharedAcrossAccessKeys(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	digest, layer := s.putImage(t, "app:1", "x")
	s.demandBasic("user", "password")
	c := newClient(t, registry.Options{})
	repo := repository(t, s.host()+"/app")
	owner := c.Repository(repo, registry.Access{Auth: &authn.Basic{Username: "user", Password: "password"}, Fingerprint: "owner"})
	_, err := owner.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(owner.HasBlob(t.Context(), layer.Digest)).To(Succeed())

	for name, stranger := range map[string]registry.Access{
		"nobody":                     {},
		"another fingerprint":        {Auth: &authn.Basic{Username: "user", Password: "wrong"}, Fingerprint: "stranger"},
		"a credential without one":   {Auth: &authn.Basic{Username: "user", Password: "wrong"}},
		"a fingerprint for insecure": {Fingerprint: "owner insecure", Insecure: true},
	} {
		t.Run(name, func(t *testing.T) {
			other := c.Repository(repo, stranger)
			NewWithT(t).Expect(other.Key()).NotTo(Equal(owner.Key()))
			_, err := other.Resolve(t.Context(), registry.Query{Tag: "1", MaxAge: time.Hour})
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			_, err = other.Resolve(t.Context(), registry.Query{Digest: digest})
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			expectFault(t, other.HasBlob(t.Context(), layer.Digest), v1alpha1.ReasonAuthenticationFailed, fault.Retry)
		})
	}
}

func TestTwoAccessesWithoutFingerprintsShareNothing(t *testing.T) {
	g := NewWithT(t)
	c := newClient(t, registry.Options{})
	access := registry.Access{Auth: &authn.Basic{Username: "user", Password: "password"}}
	repo := repository(t, "registry.example.com/app")
	g.Expect(c.Repository(repo, access).Key()).NotTo(Equal(c.Repository(repo, access).Key()))
	access.Fingerprint = "f"
	g.Expect(c.Repository(repo, access).Key()).To(Equal(c.Repository(repo, access).Key()))
	g.Expect(c.Repository(repo, access).Key()).To(MatchRegexp("^[0-9a-f]{64}$"))
}

func TestWhoIsAnsweredByTheSameRegistry(t *testing.T) {
	c := newClient(t, registry.Options{})
	login := registry.Access{Auth: &authn.Basic{Username: "user", Password: "password"}, Fingerprint: "login"}
	proxied := registry.Access{Proxy: &url.URL{Scheme: "http", Host: "proxy.example.com"}, Fingerprint: "proxy"}
	for name, tc := range map[string]struct {
		one, other     string
		ofOne, ofOther registry.Access
		same           bool
	}{
		"whoever asks the same host, for whatever": {one: "ghcr.io/a", other: "ghcr.io/b", ofOther: login, same: true},
		"however its case is spelled":              {one: "ghcr.io/a", other: "GHCR.io/a", same: true},
		"nobody at another host":                   {one: "ghcr.io/a", other: "quay.io/a"},
		"nobody at another port":                   {one: "ghcr.io/a", other: "ghcr.io:80/a"},
		"whoever spells the default port":          {one: "ghcr.io/a", other: "ghcr.io:443/a", same: true},
		"nobody through a proxy of one's own":      {one: "ghcr.io/a", other: "ghcr.io/a", ofOther: proxied},
		"nobody with certificates of one's own":    {one: "ghcr.io/a", other: "ghcr.io/a", ofOther: registry.Access{TLS: &tls.Config{MinVersion: tls.VersionTLS12}, Fingerprint: "tls"}},
		"nobody by plain HTTP of one's own":        {one: "ghcr.io/a", other: "ghcr.io/a", ofOther: registry.Access{Insecure: true}},
		"whoever comes the same way":               {one: "ghcr.io/a", other: "ghcr.io/b", ofOne: proxied, ofOther: proxied, same: true},
	} {
		t.Run(name, func(t *testing.T) {
			one, other := c.Repository(repository(t, tc.one), tc.ofOne), c.Repository(repository(t, tc.other), tc.ofOther)
			NewWithT(t).Expect(one.Registry() == other.Registry()).To(Equal(tc.same))
		})
	}
}

func TestProofsAreKeptForATimeAndEndWithARefusal(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	clock := time.Now()
	repo := newClient(t, registry.Options{Clock: func() time.Time { return clock }, ProofAge: time.Minute}).
		Repository(repository(t, s.host()+"/app"), registry.Access{})
	blob := "HEAD /v2/app/blobs/" + layer.Digest.String()
	prove := func() { g.Expect(repo.HasBlob(t.Context(), layer.Digest)).To(Succeed()) }
	prove()
	prove()
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", blob}))
	clock = clock.Add(2 * time.Minute)
	prove()
	g.Expect(s.asked()).To(Equal([]string{blob}), "an old proof is no proof")

	missing := descriptorOf([]byte("missing")).Digest
	s.answerTo(missing.String(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	expectFault(t, repo.HasBlob(t.Context(), missing), v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	s.asked()
	prove()
	g.Expect(s.asked()).To(Equal([]string{blob}), "a refusal makes all proofs of the access doubtful")
}

func TestARefusalEndsWhatIsKnownOfManifests(t *testing.T) {
	for name, status := range map[string]int{"401": http.StatusUnauthorized, "403": http.StatusForbidden} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			digest, _ := s.putImage(t, "app:1", "x")
			repo := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{})
			resolve := func(q registry.Query) error {
				_, err := repo.Resolve(t.Context(), q)
				return err
			}
			g.Expect(resolve(registry.Query{Tag: "1"})).To(Succeed())
			s.asked()
			g.Expect(resolve(registry.Query{Digest: digest})).To(Succeed())
			g.Expect(s.asked()).To(BeEmpty())

			s.answer(func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(status)
				return true
			})
			expectFault(t, resolve(registry.Query{Tag: "1"}), v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			expectFault(t, resolve(registry.Query{Digest: digest}), v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			s.answer(nil)
			s.asked()
			g.Expect(resolve(registry.Query{Digest: digest})).To(Succeed())
			g.Expect(s.asked()).To(Equal([]string{"GET /v2/app/manifests/" + digest.String()}))
		})
	}
}

func TestAPullIsAProof(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	repo := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{})
	g.Expect(repo.Pull(t.Context(), layer, &bytes.Buffer{})).To(Succeed())
	s.asked()
	g.Expect(repo.HasBlob(t.Context(), layer.Digest)).To(Succeed())
	g.Expect(s.asked()).To(BeEmpty())
}

func TestEveryRequestIsObserved(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "twelve bytes")
	s.demandToken(&tokens{})
	var mu sync.Mutex
	seen := map[string]registry.Observation{}
	repo := newClient(t, registry.Options{Observe: func(o registry.Observation) {
		mu.Lock()
		defer mu.Unlock()
		if o.Code != 0 { // the attempt to speak HTTPS
			seen[o.Operation] = o
		}
	}}).Repository(repository(t, s.host()+"/app"), registry.Access{})
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(repo.HasBlob(t.Context(), layer.Digest)).To(Succeed())
	g.Expect(repo.Pull(t.Context(), layer, &bytes.Buffer{})).To(Succeed())
	g.Expect(seen).To(HaveLen(6))
	for operation, code := range map[string]int{"ping": 401, "token": 200, "get-manifest": 200, "head-manifest": 200, "head-blob": 200, "get-blob": 200} {
		g.Expect(seen).To(HaveKey(operation))
		g.Expect(seen[operation].Code).To(Equal(code), operation)
		g.Expect(seen[operation].Host).To(Equal(s.host()), operation)
		g.Expect(seen[operation].Duration).To(BeNumerically(">", 0), operation)
	}
	g.Expect(seen["get-blob"].Bytes).To(Equal(int64(12)))
}

// TestAFailureOfHeadIsNotAskedForByGet holds that only answers that may be about the
// method lead to a GET.
func TestAFailureOfHeadIsNotAskedForByGet(t *testing.T) {
	for name, failure := range map[string]http.HandlerFunc{
		"401":                 code(http.StatusUnauthorized, ""),
		"429":                 code(http.StatusTooManyRequests, ""),
		"500":                 code(http.StatusInternalServerError, ""),
		"502":                 code(http.StatusBadGateway, ""),
		"503":                 code(http.StatusServiceUnavailable, ""),
		"a broken connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.putImage(t, "app:1", "x")
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
			_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).NotTo(HaveOccurred())
			s.asked()
			s.answerTo("/manifests/", failure)
			_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).To(HaveOccurred())
			_, err = repo.Digest(t.Context(), "1")
			g.Expect(err).To(HaveOccurred())
			g.Expect(s.asked()).NotTo(ContainElement(HavePrefix("GET /v2/app/manifests/")))
		})
	}
}

// TestARefusedAnswerIsClosed looks at the observations, which are made when a body is
// closed: a connection whose body stays open is lost.
func TestARefusedAnswerIsClosed(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	s.demandToken(&tokens{})
	var mu sync.Mutex
	refused := 0
	options := quick()
	options.Observe = func(o registry.Observation) {
		mu.Lock()
		defer mu.Unlock()
		if o.Operation == "get-manifest" && o.Code == http.StatusUnauthorized {
			refused++
		}
	}
	repo := newClient(t, options).Repository(repository(t, s.host()+"/app"), user("u"))
	once := true
	inner := s.instead
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") && once {
			once = false
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return inner(w, r)
	})
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	mu.Lock()
	defer mu.Unlock()
	g.Expect(refused).To(Equal(1))
}
