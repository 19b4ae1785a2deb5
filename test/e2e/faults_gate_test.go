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
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/rest"

	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// gate stands between a client and a server and lets everything pass, but for
// what a test stops or answers itself. It remembers what passed.
type gate struct {
	*httptest.Server
	next   http.Handler
	closed chan struct{}

	mu       sync.Mutex
	barriers []*barrier
	answers  []*substitute
	passed   []*passage
}

// passage is a request that came to a gate, and what it was answered.
type passage struct {
	Method, Path, UserAgent, Authorization string
	Query                                  url.Values
	// Body of a request that writes.
	Body string
	At   time.Time
	// Code of the answer; 0 while there is none.
	Code int
	// Bytes of the answer's body.
	Bytes int64
}

// String names a request as a log does.
func (p passage) String() string { return p.Method + " " + p.Path }

type matcher func(passage) bool

// point is a place on the way of a request.
type point int

const (
	// beforeServer: the server has not seen the request.
	beforeServer point = iota
	// beforeAnswer: the server has answered, the client has not heard of it. A conflict
	// is no answer.
	beforeAnswer
	// inAnswer: part of the body has passed, another part is about to.
	inAnswer
)

// barrier stops requests at a point of their way.
type barrier struct {
	gate  *gate
	at    point
	match matcher
	// late requests reach the server even when their client is gone.
	late bool
	// once lets all but the first pass.
	once bool

	taken   *passage
	reached chan struct{}
	first   sync.Once
	opened  chan struct{}
	cut     bool
}

type substitute struct {
	match  matcher
	answer http.HandlerFunc
}

// newGate opens a gate to a registry or any other server.
func newGate(t *testing.T, server string) *gate {
	g := &gate{next: forward(t, server, nil), closed: make(chan struct{})}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.shut)
	return g
}

// newAPIGate opens a gate to the API server.
func newAPIGate(t *testing.T) *gate {
	t.Helper()
	return newGateTo(t, env.RESTConfig().Host)
}

// newGateTo opens a gate to one of several API servers.
func newGateTo(t *testing.T, server string) *gate {
	t.Helper()
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(env.RESTConfig()))
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{next: forward(t, server, transport), closed: make(chan struct{})}
	g.Server = httptest.NewTLSServer(g)
	t.Cleanup(g.shut)
	return g
}

func forward(t *testing.T, server string, transport http.RoundTripper) http.Handler {
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		Transport:     transport,
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

// shut lets everything go that is stopped, and closes the gate.
func (g *gate) shut() {
	close(g.closed)
	g.mu.Lock()
	barriers := slices.Clone(g.barriers)
	g.mu.Unlock()
	for _, b := range barriers {
		b.sever()
	}
	g.CloseClientConnections()
	g.Close()
}

// host is host and port of the gate.
func (g *gate) host() string { return g.Listener.Addr().String() }

// ServeHTTP implements http.Handler.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := g.enter(r)
	w = &passing{ResponseWriter: w, gate: g, request: r, passage: p}
	g.wait(beforeServer, r, p)
	if answer := g.answerTo(p); answer != nil {
		answer(w, r)
		return
	}
	g.next.ServeHTTP(w, r)
}

func (g *gate) enter(r *http.Request) *passage {
	p := &passage{Method: r.Method, Path: r.URL.Path, Query: r.URL.Query(), At: time.Now(),
		UserAgent: r.UserAgent(), Authorization: r.Header.Get("Authorization")}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		p.Body = string(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = append(g.passed, p)
	return p
}

// wait returns when no barrier at a point stops a request any more. A request
// that is cut, or whose client is gone, goes no further.
func (g *gate) wait(at point, r *http.Request, p *passage) {
	for {
		b := g.barrierFor(at, p)
		if b == nil {
			return
		}
		b.first.Do(func() { close(b.reached) })
		gone := r.Context().Done()
		if b.late {
			gone = nil
			*r = *r.WithContext(context.WithoutCancel(r.Context()))
		}
		select {
		case <-b.opened:
		case <-gone:
			panic(http.ErrAbortHandler)
		}
		if b.cut {
			panic(http.ErrAbortHandler)
		}
	}
}

func (g *gate) barrierFor(at point, p *passage) *barrier {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.barriers {
		if b.at == at && (!b.once || b.taken == nil || b.taken == p) && b.match(*p) {
			b.taken = p
			return b
		}
	}
	return nil
}

// stop stops from now on what matches.
func (g *gate) stop(at point, match matcher, mods ...func(*barrier)) *barrier {
	b := &barrier{gate: g, at: at, match: match, reached: make(chan struct{}), opened: make(chan struct{})}
	for _, mod := range mods {
		mod(b)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.barriers = append(g.barriers, b)
	return b
}

// await waits until something is stopped.
func (b *barrier) await(n *tenant) {
	n.Helper()
	select {
	case <-b.reached:
	case <-time.After(patience):
		n.Fatalf("nothing came to the barrier; what passed last:\n%s", b.gate.tail())
	case <-n.Context().Done():
		n.Fatal(n.Context().Err())
	}
}

// answered returns what the request that was stopped last was answered.
func (b *barrier) answered() int {
	b.gate.mu.Lock()
	defer b.gate.mu.Unlock()
	return b.taken.Code
}

// open lets everything pass again.
func (b *barrier) open() { b.end(false) }

// sever ends the connections of what is stopped, and lets everything else pass.
func (b *barrier) sever() { b.end(true) }

func (b *barrier) end(cut bool) {
	b.gate.mu.Lock()
	defer b.gate.mu.Unlock()
	if i := slices.Index(b.gate.barriers, b); i >= 0 {
		b.gate.barriers = slices.Delete(b.gate.barriers, i, i+1)
		b.cut = cut
		close(b.opened)
	}
}

// answer answers what matches in the place of the server, until end is called.
func (g *gate) answer(match matcher, answer http.HandlerFunc) (end func()) {
	s := &substitute{match: match, answer: answer}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answers = append(g.answers, s)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.answers = slices.DeleteFunc(g.answers, func(other *substitute) bool { return other == s })
	}
}

func (g *gate) answerTo(p *passage) http.HandlerFunc {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.answers {
		if s.match(*p) {
			return s.answer
		}
	}
	return nil
}

// seen returns what came to the gate and matches, oldest first.
func (g *gate) seen(match matcher) []passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	var seen []passage
	for _, p := range g.passed {
		if match(*p) {
			seen = append(seen, *p)
		}
	}
	return seen
}

// forget starts the list of what came anew.
func (g *gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.passed = nil
}

// tail tells what came last, for a person.
func (g *gate) tail() string {
	const most = 30
	seen := g.seen(func(passage) bool { return true })
	var lines strings.Builder
	for _, p := range seen[max(0, len(seen)-most):] {
		fmt.Fprintf(&lines, "%s %s %d (%s) %.500s\n", p.At.Format(time.StampMilli), p, p.Code, p.UserAgent, p.Body)
	}
	return lines.String()
}

// passing is an answer on its way through a gate.
type passing struct {
	http.ResponseWriter
	gate    *gate
	request *http.Request
	passage *passage
}

// hang answers nothing more until the client has gone. A client that has another
// question on the same connection never seems to go, but gates close.
func hang(w http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-w.(*passing).gate.closed:
	}
	panic(http.ErrAbortHandler)
}

// flush sends what was written so far.
func (w *passing) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap lets the proxy flush.
func (w *passing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *passing) WriteHeader(code int) {
	w.gate.mu.Lock()
	w.passage.Code = code
	w.gate.mu.Unlock()
	if code != http.StatusConflict { // a write that was refused has not happened, and is tried again
		w.gate.wait(beforeAnswer, w.request, w.passage)
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter.
func (w *passing) Write(p []byte) (int, error) {
	w.gate.wait(inAnswer, w.request, w.passage)
	n, err := w.ResponseWriter.Write(p)
	w.gate.mu.Lock()
	defer w.gate.mu.Unlock()
	w.passage.Bytes += int64(n)
	if w.passage.Code == 0 {
		w.passage.Code = http.StatusOK
	}
	return n, err
}

// all matches what all of several match.
func all(matchers ...matcher) matcher {
	return func(p passage) bool {
		return !slices.ContainsFunc(matchers, func(m matcher) bool { return !m(p) })
	}
}

// byUs matches the requests of image-source-controller to a registry: others,
// such as image-reflector-controller, ask the same things.
func byUs(p passage) bool { return strings.HasPrefix(p.UserAgent, "image-source-controller/") }

// does matches a method and an end of the path.
func does(method, end string) matcher {
	return func(p passage) bool { return p.Method == method && strings.HasSuffix(p.Path, end) }
}

// has matches a method and a part of the path.
func has(method, part string) matcher {
	return func(p passage) bool { return p.Method == method && strings.Contains(p.Path, part) }
}

// says matches a part of the body.
func says(part string) matcher {
	return func(p passage) bool { return strings.Contains(p.Body, part) }
}

// watches matches the watch of a resource.
func watches(resource string) matcher {
	return func(p passage) bool { return strings.HasSuffix(p.Path, "/"+resource) && p.Query.Has("watch") }
}

// lists matches the list of a resource. What watches may list first, too.
func lists(resource string) matcher {
	return func(p passage) bool { return p.Method == http.MethodGet && strings.HasSuffix(p.Path, "/"+resource) }
}

// startShardBehind is startShard with a gate before the API server.
func startShardBehind(n *tenant, api *gate, shard string, args ...string) *stage.Controller {
	n.Helper()
	return replica{shard: shard, api: api}.start(n, args...)
}

// replica is one of several controllers of a shard.
type replica struct {
	shard string
	// suffix tells it from the others of its shard.
	suffix string
	// address is where it serves artifacts; a free one if empty.
	address string
	// api is the gate by which it reaches the API server.
	api *gate
}

func (r replica) start(n *tenant, args ...string) *stage.Controller {
	n.Helper()
	const readyWithin = 5 * time.Minute // a test may keep the API server away
	api, shard := r.api, r.shard
	config, err := env.ServiceAccountConfig(n.Context(), controlplane.FluxNamespace, "image-source-controller")
	n.Expect(err).NotTo(HaveOccurred())
	config.Host = api.URL
	config.CAFile, config.CAData = "", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})
	kubeconfig := filepath.Join(n.TempDir(), "kubeconfig")
	n.Expect(controlplane.WriteKubeconfig(kubeconfig, config)).To(Succeed())
	controller, err := env.StartController(n.Context(), stage.ControllerOptions{
		Name: "shard-" + shard + r.suffix, Address: r.address,
		Args: append([]string{"--watch-label-selector=" + shardLabel + "=" + shard}, args...),
		// The last one of a name counts.
		Env: []string{"KUBECONFIG=" + kubeconfig},

		ReadyWithin: readyWithin,
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Cleanup(func() {
		if err := controller.Kill(); err != nil {
			n.Error(err)
		}
		if n.Failed() {
			n.Logf("the end of its log:\n%s\nwhat it asked the API server last:\n%s", logTail(controller.LogFile()), api.tail())
		}
	})
	return controller
}
