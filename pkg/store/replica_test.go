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

package store_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sync/errgroup"

	"github.com/image-source/image-source-controller/pkg/store"
)

// peer is another replica, of any kind.
func peer(t testing.TB, handler http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// replica is one of several, on an empty disk.
func replica(t testing.TB, root string, peers ...string) *store.Replica {
	t.Helper()
	r, err := store.NewReplica(open(t, options(root)), store.PeerOptions{Hosts: peers, Address: ":9090", MaxBytes: 1 << 20})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return r
}

func TestReplicaAsksItsPeers(t *testing.T) {
	t.Parallel()
	const content = "what was published"
	other := open(t, options(t.TempDir()))
	stored := put(t, other, app, content)
	has := serve(t, other, store.HandlerOptions{})
	lacks := serve(t, open(t, options(t.TempDir())), store.HandlerOptions{})
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	sends := func(body string) string {
		return peer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) })
	}

	for name, tc := range map[string]struct {
		peers []string
		ok    bool
	}{
		"one that has the file":         {[]string{has}, true},
		"one that lacks it":             {[]string{lacks}, false},
		"one that does not run":         {[]string{down.Listener.Addr().String()}, false},
		"one whose name is not known":   {[]string{"no-such-host.invalid:9090"}, false},
		"one that sends other bytes":    {[]string{sends("something else, as long")}, false},
		"one that sends too few":        {[]string{sends(content[1:])}, false},
		"one that sends too many":       {[]string{sends(content + "!")}, false},
		"one that sends no end of them": {[]string{peer(t, endless)}, false},
		"one that breaks off": {[]string{peer(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "18")
			_, _ = io.WriteString(w, content[:5])
			panic(http.ErrAbortHandler)
		})}, false},
		"one that sends us elsewhere": {[]string{peer(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+has+r.URL.Path, http.StatusFound)
		})}, false},
		"the one that has it, among others": {[]string{
			lacks, down.Listener.Addr().String(), sends("something else"), sends(content + "!"), peer(t, endless), has,
		}, true},
		"none": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			r := replica(t, root, tc.peers...)
			found, ok, err := r.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(Equal(tc.ok))
			g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())
			if !tc.ok {
				g.Expect(files(t, root)).To(BeEmpty())
				return
			}
			g.Expect(found).To(Equal(stored))
			g.Expect(read(t, root, stored.Path)).To(Equal(content))
			g.Expect(r.Collect(t.Context(), []store.Record{live(app, stored)})).To(BeZero())
		})
	}

	t.Run("for what no record names, by its digest alone", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		r := replica(t, root, sends("something else"), has)
		g.Expect(r.Fetch(t.Context(), app, stored.SHA256)).To(BeTrue())
		g.Expect(read(t, root, stored.Path)).To(Equal(content))
		g.Expect(replica(t, t.TempDir(), has, lacks).Fetch(t.Context(), app, digestOf("never published"))).To(BeFalse())
		_, err := r.Fetch(t.Context(), app, "../../../etc/passwd")
		g.Expect(err).To(HaveOccurred())
	})

	t.Run("when its own bytes are damaged", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		r := replica(t, root, has)
		put(t, r.Store, app, content)
		overwrite(t, filepath.Join(root, stored.Path), strings.Repeat("x", len(content)))
		scrub(t, r.Store)
		_, ok, err := r.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
		g.Expect(read(t, root, stored.Path)).To(Equal(content))
	})

	t.Run("and not when a record cannot be about a file of its own", func(t *testing.T) {
		g := NewWithT(t)
		artifact := recorded(stored)
		artifact.Digest = "sha256:" + digestOf("another")
		_, ok, err := replica(t, t.TempDir(), has).Check(t.Context(), app, artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse())
	})
}

func endless(w http.ResponseWriter, _ *http.Request) {
	for range 1 << 10 {
		if _, err := w.Write(make([]byte, 32<<10)); err != nil {
			return
		}
	}
}

// That nobody has a file is known only when everybody has been asked.
func TestReplicaTellsWhoLacksAFileFromWhoCouldNotBeAsked(t *testing.T) {
	t.Parallel()
	says := func(code int) string {
		return peer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	lacks := says(http.StatusMisdirectedRequest)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	hangs := peer(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for name, tc := range map[string]struct {
		peers []string
		heard bool
	}{
		"nobody is there":             {nil, true},
		"it lacks it":                 {[]string{lacks}, true},
		"all lack it":                 {[]string{lacks, says(http.StatusMisdirectedRequest)}, true},
		"one cannot say now":          {[]string{lacks, says(http.StatusServiceUnavailable)}, false},
		"one does not run":            {[]string{lacks, down.Listener.Addr().String()}, false},
		"one does not answer in time": {[]string{lacks, hangs}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			r := replica(t, t.TempDir(), tc.peers...)
			for range 2 { // the second time, who did not answer is left alone
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				had, err := r.Fetch(ctx, app, digestOf("v1"))
				cancel()
				g.Expect(had).To(BeFalse())
				if tc.heard {
					g.Expect(err).NotTo(HaveOccurred())
				} else {
					g.Expect(err).To(MatchError(store.ErrUnheard))
				}
			}
		})
	}
}

// A file that all replicas lack is asked for once of each, and not in circles.
func TestReplicasDoNotAskInCircles(t *testing.T) {
	g := NewWithT(t)
	var asked [3]atomic.Int64
	var lacking atomic.Int64
	var addresses [3]string
	var handlers [3]atomic.Pointer[http.Handler]
	for i := range addresses {
		addresses[i] = peer(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get(store.PeerHeader) != "" {
				asked[i].Add(1)
			}
			(*handlers[i].Load()).ServeHTTP(w, r)
		})
	}
	for i := range addresses {
		r := replica(t, t.TempDir(), addresses[:]...)
		handler := r.Handler(store.HandlerOptions{
			Missing: func(ctx context.Context, key store.Key, sha256 string) error {
				if ok, err := r.Fetch(ctx, key, sha256); !ok {
					return store.ErrNotPublished
				} else {
					return err
				}
			},
			Lacking: func(context.Context, store.Key, string) { lacking.Add(1) },
		})
		handlers[i].Store(&handler)
	}
	response, _ := exchange(t, addresses[0], "GET", "/externalartifact/apps/app/"+digestOf("nobody's")+".tar.gz")
	g.Expect(response.StatusCode).To(Equal(http.StatusNotFound))
	for i := range asked {
		g.Expect(asked[i].Load()).To(BeEquivalentTo(1), "replica %d", i)
	}
	g.Expect(lacking.Load()).To(BeEquivalentTo(3), "each was told that another one lacks it too")
}

func TestReplicaDoesNotAskItself(t *testing.T) {
	g := NewWithT(t)
	var asked atomic.Int64
	address := peer(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	r, err := store.NewReplica(open(t, options(t.TempDir())), store.PeerOptions{Hosts: []string{address}, Address: address, MaxBytes: 1 << 20})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.Fetch(t.Context(), app, digestOf("v1"))).To(BeFalse())
	g.Expect(asked.Load()).To(BeZero())
}

func TestReplicaAsksOnceForAllWhoWait(t *testing.T) {
	g := NewWithT(t)
	other := open(t, options(t.TempDir()))
	stored := put(t, other, app, "v1")
	handler := other.Handler(store.HandlerOptions{})
	var asked atomic.Int64
	release := make(chan struct{})
	r := replica(t, t.TempDir(), peer(t, func(w http.ResponseWriter, request *http.Request) {
		asked.Add(1)
		<-release
		handler.ServeHTTP(w, request)
	}))
	var group errgroup.Group
	for range 20 {
		group.Go(func() error {
			_, _, err := r.Check(t.Context(), app, recorded(stored))
			return err
		})
	}
	g.Eventually(asked.Load).WithTimeout(10 * time.Second).Should(BeEquivalentTo(1))
	close(release)
	g.Expect(group.Wait()).To(Succeed())
	g.Expect(asked.Load()).To(BeNumerically("<=", 2), "but for one who came when it had just ended")
}

// A peer that hangs costs its time once, and not for each file.
func TestReplicaAvoidsAPeerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	other := open(t, options(t.TempDir()))
	var asked atomic.Int64
	hangs := peer(t, func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	})
	r := replica(t, t.TempDir(), hangs, serve(t, other, store.HandlerOptions{}))
	for _, content := range []string{"v1", "v2", "v3", "v4", "v5", "v6"} {
		stored := put(t, other, app, content)
		g.Expect(r.Fetch(t.Context(), app, stored.SHA256)).To(BeTrue())
	}
	g.Expect(asked.Load()).To(BeNumerically("<=", 1))
}

// Who asks may need the rest of his time to have the file made again.
func TestReplicaLeavesTimeThatASlowPeerDoesNotUseUp(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	other := open(t, options(t.TempDir()))
	stored := put(t, other, app, "v1")
	for name, slow := range map[string]http.HandlerFunc{
		"before it answers":     func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"while it is answering": func(w http.ResponseWriter, r *http.Request) { trickle(w, r) },
	} {
		var asked atomic.Int64
		r := replica(t, t.TempDir(), peer(t, func(w http.ResponseWriter, request *http.Request) {
			asked.Add(1)
			slow(w, request)
		}))
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			_, ok, err := r.Check(ctx, app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(BeFalse())
			g.Expect(ctx.Err()).NotTo(HaveOccurred(), name)
			cancel()
		}
		g.Expect(asked.Load()).To(BeEquivalentTo(1), "it is left alone for a while")
	}
}

// trickle sends a byte from time to time.
func trickle(w http.ResponseWriter, r *http.Request) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// names is a name server that knows one name, and can be made to hang.
type names struct {
	address string

	mu sync.Mutex
	// held is closed when the server is to answer again; nil while it does.
	held chan struct{}
	// asked counts the questions, and waiting those that have no answer yet.
	asked, waiting atomic.Int64
}

const replicasName = "replicas.example."

// nameServer answers over UDP that the replicas are at 127.0.0.1.
func nameServer(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	var serving sync.WaitGroup
	serving.Go(func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer := nameAnswer(buffer[:n]); answer != nil {
				_, _ = conn.WriteTo(answer, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return &names{address: conn.LocalAddr().String()}
}

func nameAnswer(query []byte) []byte {
	var message dnsmessage.Message
	if message.Unpack(query) != nil || len(message.Questions) != 1 {
		return nil
	}
	question := message.Questions[0]
	message.Response, message.Authoritative, message.Additionals = true, true, nil
	if question.Name.String() != replicasName {
		message.RCode = dnsmessage.RCodeNameError
	} else if question.Type == dnsmessage.TypeA {
		message.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 1},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	answer, err := message.Pack()
	if err != nil {
		return nil
	}
	return answer
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		n.asked.Add(1)
		n.waiting.Add(1)
		defer n.waiting.Add(-1)
		n.mu.Lock()
		held := n.held
		n.mu.Unlock()
		if held != nil {
			select {
			case <-held:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return (&net.Dialer{}).DialContext(ctx, "udp", n.address)
	}}
}

func (n *names) hang() (resume func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	held := make(chan struct{})
	n.held = held
	return sync.OnceFunc(func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.held = nil
		close(held)
	})
}

// named returns a replica whose peer is known by its name.
func named(t *testing.T, server *names, peer string) *store.Replica {
	t.Helper()
	_, port, err := net.SplitHostPort(peer)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	r, err := store.NewReplica(open(t, options(t.TempDir())), store.PeerOptions{
		Hosts: []string{net.JoinHostPort(replicasName, port)}, Address: ":9090", MaxBytes: 1 << 20, Resolver: server.resolver(),
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return r
}

func TestReplicaLooksItsPeersUp(t *testing.T) {
	t.Parallel()
	other := open(t, options(t.TempDir()))
	address := serve(t, other, store.HandlerOptions{})

	t.Run("without waiting for a name server that hangs when it knows where they were", func(t *testing.T) {
		g := NewWithT(t)
		server := nameServer(t)
		r := named(t, server, address)
		g.Expect(r.Fetch(t.Context(), app, put(t, other, app, "known").SHA256)).To(BeTrue())
		defer server.hang()()
		count := 0
		g.Eventually(func(g Gomega) {
			count++
			stored := put(t, other, app, fmt.Sprint("hangs ", count))
			before, waiting := server.asked.Load(), server.waiting.Load()
			g.Expect(r.Fetch(t.Context(), app, stored.SHA256)).To(BeTrue())
			g.Expect(waiting).NotTo(BeZero(), "what is known is still believed")
			g.Expect(server.waiting.Load()).NotTo(BeZero(), "the file came only when the lookup had ended")
			g.Expect(server.asked.Load()).To(Equal(before))
		}).WithTimeout(20 * time.Second).WithPolling(20 * time.Millisecond).Should(Succeed())
	})

	t.Run("once for all who wait, and not for longer than each of them may", func(t *testing.T) {
		g := NewWithT(t)
		server := nameServer(t)
		r := named(t, server, address)
		resume := server.hang()
		defer resume()
		hasty, giveUp := context.WithCancel(t.Context())
		gaveUp := make(chan error, 1)
		stored := put(t, other, app, "hasty")
		go func() {
			_, err := r.Fetch(hasty, app, stored.SHA256)
			gaveUp <- err
		}()
		g.Eventually(server.waiting.Load).WithTimeout(10 * time.Second).ShouldNot(BeZero())
		var group errgroup.Group
		for i := range 20 {
			stored := put(t, other, app, fmt.Sprint("waits ", i))
			group.Go(func() error {
				if ok, err := r.Fetch(t.Context(), app, stored.SHA256); err != nil || !ok {
					return fmt.Errorf("fetched: %t, %w", ok, err)
				}
				return nil
			})
		}
		giveUp()
		g.Expect(<-gaveUp).To(MatchError(context.Canceled), "who gives up is not told that nobody has the file")
		resume()
		g.Expect(group.Wait()).To(Succeed())
		g.Expect(server.asked.Load()).To(BeNumerically("<=", 2), "one question for each family of addresses")
	})
}

func TestReplicaSaysThatItsOwnDiskIsAtFault(t *testing.T) {
	g := NewWithT(t)
	other := open(t, options(t.TempDir()))
	stored := put(t, other, app, "v1")
	root := t.TempDir()
	r := replica(t, root, serve(t, other, store.HandlerOptions{}))
	g.Expect(os.RemoveAll(filepath.Join(root, "tmp"))).To(Succeed())
	overwrite(t, filepath.Join(root, "tmp"), "in the way")
	_, err := r.Fetch(t.Context(), app, stored.SHA256)
	expectDiskFault(t, err, "give the controller a folder of its own")
	_, _, err = r.Check(t.Context(), app, recorded(stored))
	expectDiskFault(t, err, "give the controller a folder of its own")
	g.Expect(published(t, root)).To(BeEmpty())
}

func TestNewReplicaRefuses(t *testing.T) {
	for name, o := range map[string]store.PeerOptions{
		"a peer without a port":           {Hosts: []string{"peers"}, Address: ":9090"},
		"a peer without a host":           {Hosts: []string{":9090"}, Address: ":9090"},
		"a peer with a port by its name":  {Hosts: []string{"peers:http"}, Address: ":9090"},
		"peers of an address that is not": {Hosts: []string{"peers:9090"}, Address: "9090"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := store.NewReplica(open(t, options(t.TempDir())), o)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring("expected host:port")))
		})
	}
}

func TestHandlerOfPeers(t *testing.T) {
	g := NewWithT(t)
	s := open(t, options(t.TempDir()))
	stored := put(t, s, app, "v1")
	var withdrawn string
	var lacking []string
	address := serve(t, s, store.HandlerOptions{
		Publishes: func(_ context.Context, _ store.Key, sha256 string) bool { return sha256 != withdrawn },
		Missing: func(context.Context, store.Key, string) error {
			t.Error("a question of a replica is answered from the disk alone")
			return nil
		},
		Lacking: func(_ context.Context, key store.Key, sha256 string) {
			lacking = append(lacking, key.String()+" "+sha256)
		},
	})
	response, body := exchange(t, address, "GET", "/"+stored.Path, store.PeerHeader+": 1")
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	g.Expect(body).To(Equal("v1"))
	g.Expect(lacking).To(BeEmpty())

	missing := digestOf("v2")
	response, _ = exchange(t, address, "GET", "/externalartifact/apps/app/"+missing+".tar.gz", store.PeerHeader+": 1")
	g.Expect(response.StatusCode).To(Equal(http.StatusMisdirectedRequest))
	g.Expect(lacking).To(Equal([]string{"apps/app " + missing}))

	withdrawn = stored.SHA256
	response, _ = exchange(t, address, "GET", "/"+stored.Path, store.PeerHeader+": 1")
	g.Expect(response.StatusCode).To(Equal(http.StatusMisdirectedRequest), "what was withdrawn is for nobody")
}
