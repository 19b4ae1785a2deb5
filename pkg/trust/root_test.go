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

package trust_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// mirror is a repository of The Update Framework with a trusted root in it.
type mirror struct {
	*httptest.Server

	root []byte // what clients start from

	mu    sync.Mutex
	files map[string][]byte
	down  bool
	asked int
	// before is called before a request is answered; nil is nothing.
	before func(*http.Request)
}

func newMirror(t *testing.T, trustedRoot []byte) *mirror {
	t.Helper()
	g := NewWithT(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	signer, err := signature.LoadSigner(private, crypto.Hash(0))
	g.Expect(err).NotTo(HaveOccurred())
	key, err := metadata.KeyFromPublicKey(public)
	g.Expect(err).NotTo(HaveOccurred())

	soon := time.Now().Add(24 * time.Hour)
	top := metadata.Root(soon)
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		g.Expect(top.Signed.AddKey(key, role)).To(Succeed())
	}
	targets := metadata.Targets(soon)
	target, err := metadata.TargetFile().FromBytes("trusted_root.json", trustedRoot, "sha256")
	g.Expect(err).NotTo(HaveOccurred())
	targets.Signed.Targets["trusted_root.json"] = target
	m := &mirror{files: map[string][]byte{
		"/targets/" + fmt.Sprintf("%x", []byte(target.Hashes["sha256"])) + ".trusted_root.json": trustedRoot,
	}}
	m.root = signed(t, top, signer)
	m.files["/1.root.json"] = m.root
	m.files["/1.targets.json"] = signed(t, targets, signer)
	m.files["/1.snapshot.json"] = signed(t, metadata.Snapshot(soon), signer)
	m.files["/timestamp.json"] = signed(t, metadata.Timestamp(soon), signer)
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func signed[T metadata.Roles](t *testing.T, of *metadata.Metadata[T], signer signature.Signer) []byte {
	t.Helper()
	_, err := of.Sign(signer)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	text, err := of.ToBytes(false)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	m.asked++
	before := m.before
	m.mu.Unlock()
	if before != nil {
		before(r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	file, ok := m.files[r.URL.Path]
	switch {
	case m.down:
		w.WriteHeader(http.StatusServiceUnavailable)
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		_, _ = w.Write(file) // the client reads it
	}
}

func (m *mirror) set(down bool) (asked int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
	asked, m.asked = m.asked, 0
	return asked
}

// requests is how often it was asked since it was last set.
func (m *mirror) requests() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.asked
}

// each sets what happens before a request is answered.
func (m *mirror) each(before func(*http.Request)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.before = before
}

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// TestThePublicRoot holds that keyless signatures without a root of their own
// are judged by the public one, which is fetched when it is needed, kept, and
// always wants certificate timestamps.
func TestThePublicRoot(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	m := newMirror(t, s.trustedRoot(t, lists{log: true, certificates: true}))
	at, folder := &clock{at: time.Now()}, t.TempDir()
	public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: folder, Mirror: m.URL, Transport: roots(t), Root: m.root, Clock: at.now})
	g.Expect(err).NotTo(HaveOccurred())
	demand := s.identities(t, lists{log: true})
	demand.TrustedRoot = nil
	authority, err := trust.NewAuthority(demand, trust.Options{PublicRoot: public})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.set(true)).To(BeZero(), "nobody is asked before it is needed")

	good := push(t, serve(t, true), "good")
	good.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{logged: true}), statement(t, good.digest, signPredicate), witness{log: time.Now()}))
	legacy := push(t, serve(t, true), "legacy")
	s.attachIdentityLegacy(t, legacy, s.leaf(t, leafOptions{logged: true}), claim(t, legacy, legacy.digest), witness{log: time.Now()})
	hidden := push(t, serve(t, true), "hidden")
	hidden.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, hidden.digest, signPredicate), witness{log: time.Now()}))
	s.attachIdentityLegacy(t, hidden, s.leaf(t, leafOptions{}), claim(t, hidden, hidden.digest), witness{log: time.Now()})

	_, err = good.verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
	_, err = good.verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
	g.Expect(m.set(false)).To(BeNumerically("<", 5), "there is a pause between two attempts")

	at.pass(2 * time.Minute)
	_, err = good.verifyBy(t, rule(authority))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = legacy.verifyBy(t, rule(authority))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = hidden.verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Rejected, "does not hold")
	written, err := filepath.Glob(filepath.Join(folder, "*", "*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(written).NotTo(BeEmpty(), "it is kept where the option says")
	home, err := os.UserHomeDir()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(filepath.Join(home, ".sigstore")).NotTo(BeADirectory())

	g.Expect(m.set(true)).To(BeNumerically(">", 0))
	at.pass(23 * time.Hour)
	_, err = good.verifyBy(t, rule(authority))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(m.set(true)).To(BeZero(), "what is known is used for a day")

	at.pass(3 * 24 * time.Hour)
	_, err = good.verifyBy(t, rule(authority))
	g.Expect(err).NotTo(HaveOccurred(), "an outage does not end what is known")
	public.Wait()
	g.Expect(m.requests()).To(BeNumerically(">", 0), "it is asked for behind who needs it")
	at.pass(5 * 24 * time.Hour)
	_, err = good.verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
	public.Wait()
}

// TestAMirrorThatHangsKeepsNobodyWaiting holds that who has a root that is good
// uses it, whatever the repository does; and that an attempt ends, with all its
// requests, and is not made again at once.
func TestAMirrorThatHangsKeepsNobodyWaiting(t *testing.T) {
	s := newSigstore(t)
	trusted := s.trustedRoot(t, lists{log: true, certificates: true})
	demand := s.identities(t, lists{log: true})
	demand.TrustedRoot = nil
	good := push(t, serve(t, true), "good")
	good.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{logged: true}), statement(t, good.digest, signPredicate), witness{log: time.Now()}))
	begin := func(t *testing.T, timeout time.Duration) (*mirror, *clock, trust.Rule) {
		t.Helper()
		m, at := newMirror(t, trusted), &clock{at: time.Now()}
		public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Mirror: m.URL, Transport: roots(t), Root: m.root, Clock: at.now, Timeout: timeout})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		t.Cleanup(public.Wait)
		authority, err := trust.NewAuthority(demand, trust.Options{PublicRoot: public})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return m, at, rule(authority)
	}
	// hang answers nobody until it is released.
	hang := func(t *testing.T, m *mirror) (hung <-chan struct{}, release func()) {
		t.Helper()
		arrived, held := make(chan struct{}, 64), make(chan struct{})
		release = sync.OnceFunc(func() { close(held) })
		t.Cleanup(release)
		m.each(func(r *http.Request) {
			arrived <- struct{}{}
			select {
			case <-held:
			case <-r.Context().Done():
			}
		})
		return arrived, release
	}

	t.Run("with a root that is good", func(t *testing.T) {
		g := NewWithT(t)
		m, at, by := begin(t, time.Hour)
		_, err := good.verifyBy(t, by)
		g.Expect(err).NotTo(HaveOccurred())
		hung, release := hang(t, m)
		at.pass(25 * time.Hour)
		m.set(false)
		for range 3 {
			_, err = good.verifyBy(t, by)
			g.Expect(err).NotTo(HaveOccurred(), "the repository has not answered, and nobody waits for it")
		}
		g.Eventually(hung).WithTimeout(10 * time.Second).Should(Receive())
		g.Expect(m.requests()).To(Equal(1), "one attempt is under way")

		release()
		at.pass(156 * time.Hour)
		_, err = good.verifyBy(t, by)
		g.Expect(err).NotTo(HaveOccurred(), "the first root is older than a week, and the second is not")
	})
	t.Run("with a root that is too old", func(t *testing.T) {
		g := NewWithT(t)
		m, at, by := begin(t, time.Hour)
		_, err := good.verifyBy(t, by)
		g.Expect(err).NotTo(HaveOccurred())
		hang(t, m)
		at.pass(8 * 24 * time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err = trust.NewRules(good.open(t, registry.Access{}), by).Verify(ctx, good.subject())
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust", "deadline exceeded")
	})
	t.Run("with no root", func(t *testing.T) {
		g := NewWithT(t)
		m, at, by := begin(t, 100*time.Millisecond)
		_, release := hang(t, m)
		_, err := good.verifyBy(t, by)
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust", "deadline exceeded")
		release()
		m.set(false)
		_, err = good.verifyBy(t, by)
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
		g.Expect(m.requests()).To(BeZero(), "there is a pause after an attempt")
		g.Eventually(func() error {
			at.pass(time.Minute) // where the machine is slow, another attempt may be needed
			_, err := good.verifyBy(t, by)
			return err
		}).WithTimeout(10 * time.Second).Should(Succeed())
	})
	t.Run("in each of its answers", func(t *testing.T) {
		g := NewWithT(t)
		m, _, by := begin(t, 500*time.Millisecond)
		m.each(func(r *http.Request) {
			select { // no request takes too long, but all of them do
			case <-time.After(200 * time.Millisecond):
			case <-r.Context().Done():
			}
		})
		_, err := good.verifyBy(t, by)
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust", "deadline exceeded")
	})
	t.Run("for longer than the pause", func(t *testing.T) {
		g := NewWithT(t)
		m, at, by := begin(t, time.Hour)
		m.set(true)
		m.each(func(*http.Request) { at.pass(2 * time.Minute) })
		_, err := good.verifyBy(t, by)
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
		m.set(true)
		_, err = good.verifyBy(t, by)
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
		g.Expect(m.requests()).To(BeZero(), "the pause begins when an attempt ends")
	})
}

// TestAPublicRootWithoutALogOfCertificates holds that such a root verifies
// nothing: what the public one wants is not up to what it lists.
func TestAPublicRootWithoutALogOfCertificates(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	m := newMirror(t, s.trustedRoot(t, lists{log: true}))
	public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Mirror: m.URL, Transport: roots(t), Root: m.root})
	g.Expect(err).NotTo(HaveOccurred())
	demand := s.identities(t, lists{log: true})
	demand.TrustedRoot = nil
	authority, err := trust.NewAuthority(demand, trust.Options{PublicRoot: public})
	g.Expect(err).NotTo(HaveOccurred())
	i := push(t, serve(t, true), "plain")
	i.attachBundle(t, s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, i.digest, signPredicate), witness{log: time.Now()}))
	_, err = i.verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Rejected, "does not hold")
}

func TestAPublicRootThatLies(t *testing.T) {
	g := NewWithT(t)
	s, evil := newSigstore(t), newSigstore(t)
	m := newMirror(t, s.trustedRoot(t, lists{log: true}))
	for path := range m.files {
		if strings.HasPrefix(path, "/targets/") {
			m.files[path] = evil.trustedRoot(t, lists{log: true})
		}
	}
	public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Mirror: m.URL, Transport: roots(t), Root: m.root})
	g.Expect(err).NotTo(HaveOccurred())
	demand := evil.identities(t, lists{log: true})
	demand.TrustedRoot = nil
	authority, err := trust.NewAuthority(demand, trust.Options{PublicRoot: public})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = push(t, serve(t, true), "evil").verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Unknown, "cannot get the public root of trust")
}

// TestThePublicRootIsNotFetchedWhereverItsServerLeads holds that the server of the root
// does not have this program ask others that only this program can reach.
func TestThePublicRootIsNotFetchedWhereverItsServerLeads(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	m := newMirror(t, s.trustedRoot(t, lists{log: true}))
	listener, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatalf("the test needs a second loopback address (on macOS: ifconfig lo0 alias 127.0.0.2): %v", err)
	}
	leads := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, m.URL+r.URL.Path, http.StatusTemporaryRedirect)
	})}}
	leads.Start()
	t.Cleanup(leads.Close)
	public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Mirror: leads.URL, Transport: roots(t), Root: m.root})
	g.Expect(err).NotTo(HaveOccurred())
	authority, err := trust.NewAuthority(keylessBy(trust.Identity{Issuer: ".*", Subject: ".*"}), trust.Options{PublicRoot: public})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = push(t, serve(t, true), "led").verifyBy(t, rule(authority))
	expectDenied(g, err, trust.Unknown, "cannot get the public root of trust", "refused to connect")
	g.Expect(m.requests()).To(BeZero())
}

// roots reaches roots of trust as the program does.
func roots(t *testing.T) http.RoundTripper {
	t.Helper()
	client, err := registry.NewClient(registry.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return client.Roots()
}

func TestWithoutAPublicRoot(t *testing.T) {
	g := NewWithT(t)
	_, err := push(t, serve(t, true), "none").verify(t, keylessBy(trust.Identity{Issuer: ".*", Subject: ".*"}))
	expectDenied(g, err, trust.Unknown, "no public root of trust")

	_, err = trust.NewPublicRoot(trust.PublicRootOptions{})
	g.Expect(err).To(MatchError(ContainSubstring("folder")))
	_, err = trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir()})
	g.Expect(err).To(MatchError(ContainSubstring("transport")))

	for words, transport := range map[string]http.RoundTripper{"nowhere": nowhere{}, "made this program panic": breaking{}} {
		away, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Transport: transport})
		g.Expect(err).NotTo(HaveOccurred())
		authority, err := trust.NewAuthority(keylessBy(trust.Identity{Issuer: ".*", Subject: ".*"}), trust.Options{PublicRoot: away})
		g.Expect(err).NotTo(HaveOccurred())
		_, err = push(t, serve(t, true), "none").verifyBy(t, rule(authority))
		expectDenied(g, err, trust.Unknown, "cannot get the public root of trust", words)
	}
}

type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("nowhere") }

// breaking stands for code that panics over an answer of a repository.
type breaking struct{}

func (breaking) RoundTrip(*http.Request) (*http.Response, error) { panic("breaking") }

// TestThePublicRootHasAFingerprint holds that another public root shows in what
// identifies the demands, the same for all who have it, and none does not.
func TestThePublicRootHasAFingerprint(t *testing.T) {
	g := NewWithT(t)
	s := newSigstore(t)
	content := s.trustedRoot(t, lists{log: true, certificates: true})
	one, other := newMirror(t, content), newMirror(t, newSigstore(t).trustedRoot(t, lists{log: true, certificates: true}))
	at := &clock{at: time.Now()}
	demand := s.identities(t, lists{log: true})
	private, err := trust.NewAuthority(demand, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	demand.TrustedRoot = nil
	ask := func(m *mirror) (read func() string) {
		public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Mirror: m.URL, Transport: roots(t), Root: m.root, Clock: at.now})
		g.Expect(err).NotTo(HaveOccurred())
		authority, err := trust.NewAuthority(demand, trust.Options{PublicRoot: public})
		g.Expect(err).NotTo(HaveOccurred())
		rules := trust.NewRules(nil, rule(private), rule(authority), rule(private))
		g.Expect(rules.PublicRoot()).To(BeEmpty(), "nobody is kept waiting")
		public.Wait()
		return func() string {
			now := rules.PublicRoot()
			public.Wait()
			return now
		}
	}
	first, again, another := ask(one), ask(one), ask(other)
	known := first()
	g.Expect(known).To(HaveLen(64))
	g.Expect(again()).To(Equal(known))
	g.Expect(another()).NotTo(Or(Equal(known), BeEmpty()))
	g.Expect(trust.NewRules(nil, rule(private)).PublicRoot()).To(BeEmpty(), "it is asked for by nobody")

	one.set(true)
	at.pass(3 * 24 * time.Hour)
	g.Expect(first()).To(Equal(known), "an outage does not end what is known")
	at.pass(5 * 24 * time.Hour)
	g.Expect(first()).To(BeEmpty(), "nobody knows")
}
