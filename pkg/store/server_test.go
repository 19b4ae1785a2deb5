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
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/image-source/image-source-controller/pkg/store"
)

// running is a server of its own for one test.
type running struct {
	address string
	stop    context.CancelFunc
	stopped chan error
}

func start(t testing.TB, s *store.Store, o store.ServerOptions) running {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := running{address: listener.Addr().String(), stop: cancel, stopped: make(chan error, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.stopped <- s.Server(o).Serve(ctx, listener)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func dial(t testing.TB, address string) net.Conn {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = conn.Close() })
	NewWithT(t).Expect(conn.SetDeadline(time.Now().Add(30 * time.Second))).To(Succeed())
	return conn
}

// expectCut waits for the server to end a connection.
func expectCut(t testing.TB, conn net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	NewWithT(t).Expect(errors.As(err, &timeout) && timeout.Timeout()).To(BeFalse(), "the server kept the connection")
}

func send(t testing.TB, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestServer(t *testing.T) {
	t.Run("listens where it is told, until its context ends", func(t *testing.T) {
		g := NewWithT(t)
		var config net.ListenConfig
		taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		g.Expect(err).NotTo(HaveOccurred())
		address := taken.Addr().String()
		s := open(t, options(t.TempDir()))
		stored := put(t, s, app, "v1")
		server := s.Server(store.ServerOptions{Address: address})
		_, err = server.Listen(t.Context())
		g.Expect(err).To(MatchError(And(ContainSubstring("--storage-addr"), ContainSubstring(address))))

		g.Expect(taken.Close()).To(Succeed())
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error, 1)
		listener, err := server.Listen(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		go func() { stopped <- server.Serve(ctx, listener) }()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		get := func() (int, error) {
			response, err := client.Get("http://" + address + "/" + stored.Path)
			if err != nil {
				return 0, err
			}
			return response.StatusCode, response.Body.Close()
		}
		g.Eventually(get).WithTimeout(10 * time.Second).Should(Equal(200))
		cancel()
		g.Expect(<-stopped).To(Succeed())
		_, err = get()
		g.Expect(err).To(HaveOccurred())
	})

	t.Run("says that it cannot serve any more", func(t *testing.T) {
		g := NewWithT(t)
		var config net.ListenConfig
		listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(listener.Close()).To(Succeed())
		err = open(t, options(t.TempDir())).Server(store.ServerOptions{}).Serve(t.Context(), listener)
		g.Expect(err).To(MatchError(net.ErrClosed))
	})
}

func TestServerUnderLoad(t *testing.T) {
	t.Run("serves 500 connections", func(t *testing.T) {
		g := NewWithT(t)
		content := strings.Repeat("content ", 20_000)
		s := open(t, options(t.TempDir()))
		stored := put(t, s, app, content)
		server := start(t, s, store.ServerOptions{})
		var group errgroup.Group
		for range 500 {
			group.Go(func() error {
				response, body := exchange(t, server.address, "GET", "/"+stored.Path)
				if response.StatusCode != http.StatusOK || body != content {
					return fmt.Errorf("code %d, %d bytes", response.StatusCode, len(body))
				}
				return nil
			})
		}
		g.Expect(group.Wait()).To(Succeed())
	})

	t.Run("works on no more connections than it may, and on the others after them", func(t *testing.T) {
		g := NewWithT(t)
		var inside, most atomic.Int64
		entered, release := make(chan struct{}, 500), make(chan struct{})
		server := start(t, open(t, options(t.TempDir())), store.ServerOptions{MaxConnections: 20, HandlerOptions: store.HandlerOptions{
			Missing: func(context.Context, store.Key, string) error {
				now := inside.Add(1)
				defer inside.Add(-1)
				for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
				}
				entered <- struct{}{}
				<-release
				return store.ErrNotPublished
			},
		}})
		var group errgroup.Group
		for range 100 {
			group.Go(func() error {
				response, _ := exchange(t, server.address, "GET", "/externalartifact/apps/app/"+digestOf("missing")+".tar.gz")
				if response.StatusCode != http.StatusNotFound {
					return fmt.Errorf("code %d", response.StatusCode)
				}
				return nil
			})
		}
		for range 20 {
			<-entered
		}
		g.Consistently(inside.Load).WithTimeout(200 * time.Millisecond).Should(BeEquivalentTo(20))
		close(release)
		g.Expect(group.Wait()).To(Succeed())
		g.Expect(most.Load()).To(BeEquivalentTo(20))
	})

	t.Run("gets through to a consumer when others connect and say nothing", func(t *testing.T) {
		g := NewWithT(t)
		s := open(t, options(t.TempDir()))
		stored := put(t, s, app, "v1")
		server := start(t, s, store.ServerOptions{MaxConnections: 50, HeaderTimeout: 100 * time.Millisecond})
		for range 200 {
			dial(t, server.address)
		}
		response, body := exchange(t, server.address, "GET", "/"+stored.Path)
		g.Expect(response.StatusCode).To(Equal(200))
		g.Expect(body).To(Equal("v1"))
	})
}

func TestServerCutsOff(t *testing.T) {
	content := strings.Repeat("x", 48<<20) // more than the kernel buffers
	s := open(t, options(t.TempDir()))
	stored := put(t, s, app, content)

	t.Run("a client that does not finish its headers", func(t *testing.T) {
		t.Parallel()
		server := start(t, s, store.ServerOptions{HeaderTimeout: 100 * time.Millisecond})
		conn := dial(t, server.address)
		send(t, conn, "GET /"+stored.Path+" HTTP/1.1\r\nHost: store\r\nX-Slow: ")
		expectCut(t, conn)
	})

	t.Run("a client that sends endless headers", func(t *testing.T) {
		t.Parallel()
		server := start(t, s, store.ServerOptions{})
		conn := dial(t, server.address)
		go func() {
			_, _ = io.WriteString(conn, "HEAD /"+stored.Path+" HTTP/1.1\r\nX-Long: "+strings.Repeat("x", 64<<10))
		}()
		answer, _ := io.ReadAll(conn) // cut with a reset, or after an answer
		NewWithT(t).Expect(string(answer)).To(Or(BeEmpty(), HavePrefix("HTTP/1.1 431 ")))
	})

	t.Run("a client that asks for nothing more", func(t *testing.T) {
		t.Parallel()
		server := start(t, s, store.ServerOptions{IdleTimeout: 100 * time.Millisecond})
		conn := dial(t, server.address)
		send(t, conn, "HEAD / HTTP/1.1\r\nHost: store\r\n\r\n")
		expectCut(t, conn)
	})

	t.Run("a client that announces a body and does not send it", func(t *testing.T) {
		t.Parallel()
		server := start(t, s, store.ServerOptions{HandlerOptions: store.HandlerOptions{ProgressTimeout: 100 * time.Millisecond}})
		for _, method := range []string{"PUT", "GET"} {
			for _, body := range []string{"Content-Length: 100000", "Transfer-Encoding: chunked"} {
				conn := dial(t, server.address)
				send(t, conn, method+" /none HTTP/1.1\r\nHost: store\r\n"+body+"\r\n\r\n")
				expectCut(t, conn)
			}
		}
	})

	t.Run("a client that does not read", func(t *testing.T) {
		t.Parallel()
		sent := make(chan int64, 1)
		server := start(t, s, store.ServerOptions{HandlerOptions: store.HandlerOptions{
			ProgressTimeout: 100 * time.Millisecond,
			Observe:         func(_ int, bytes int64) { sent <- bytes },
		}})
		conn := dial(t, server.address)
		send(t, conn, "GET /"+stored.Path+" HTTP/1.1\r\nHost: store\r\n\r\n")
		select {
		case bytes := <-sent:
			NewWithT(t).Expect(bytes).To(BeNumerically("<", stored.Size))
		case <-time.After(20 * time.Second):
			t.Fatal("the server still waits for the client")
		}
	})

	t.Run("no client that is slow and goes on reading", func(t *testing.T) {
		t.Parallel()
		g := NewWithT(t)
		server := start(t, s, store.ServerOptions{HandlerOptions: store.HandlerOptions{ProgressTimeout: time.Second}})
		conn := dial(t, server.address)
		send(t, conn, "GET /"+stored.Path+" HTTP/1.1\r\nHost: store\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		g.Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		tick := time.NewTicker(50 * time.Millisecond) // 2.4 s for 48 MiB
		defer tick.Stop()
		var total int64
		for err == nil {
			<-tick.C
			var n int64
			n, err = io.CopyN(io.Discard, response.Body, 1<<20)
			total += n
		}
		g.Expect(err).To(MatchError(io.EOF))
		g.Expect(total).To(Equal(stored.Size))
	})
}

func TestServerStops(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("x", 48<<20)
	s := open(t, options(t.TempDir()))
	stored := put(t, s, app, content)
	begin := func(t *testing.T, server running) *http.Response {
		t.Helper()
		conn := dial(t, server.address)
		send(t, conn, "GET /"+stored.Path+" HTTP/1.1\r\nHost: store\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		return response
	}

	t.Run("after the transfers that had begun", func(t *testing.T) {
		g := NewWithT(t)
		server := start(t, s, store.ServerOptions{})
		response := begin(t, server)
		defer response.Body.Close()
		server.stop()
		n, err := io.Copy(io.Discard, response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(n).To(Equal(stored.Size))
		g.Expect(<-server.stopped).To(Succeed())
	})

	t.Run("without those that take too long", func(t *testing.T) {
		g := NewWithT(t)
		server := start(t, s, store.ServerOptions{ShutdownTimeout: 50 * time.Millisecond})
		response := begin(t, server)
		defer response.Body.Close()
		server.stop()
		g.Expect(<-server.stopped).To(Succeed())
		_, err := io.Copy(io.Discard, response.Body)
		g.Expect(err).To(HaveOccurred())
	})

	t.Run("after it has served who did not know yet that it ends", func(t *testing.T) {
		t.Parallel()
		g := NewWithT(t)
		small := put(t, s, store.Key{Namespace: "apps", Name: "small"}, "v1")
		held, release := make(chan struct{}), make(chan struct{})
		server := start(t, s, store.ServerOptions{DrainTime: 5 * time.Second, HandlerOptions: store.HandlerOptions{
			Missing: func(ctx context.Context, _ store.Key, _ string) error {
				close(held)
				select {
				case <-release:
				case <-ctx.Done():
				}
				return cmp.Or(ctx.Err(), store.ErrNotPublished)
			},
		}})
		idle := dial(t, server.address)
		send(t, idle, "HEAD /"+small.Path+" HTTP/1.1\r\nHost: store\r\n\r\n")
		kept, err := http.ReadResponse(bufio.NewReader(idle), &http.Request{Method: http.MethodHead})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(kept.Body.Close()).To(Succeed())
		var waiting errgroup.Group
		waiting.Go(func() error {
			response, _ := exchange(t, server.address, "GET", "/externalartifact/apps/app/"+digestOf("missing")+".tar.gz")
			if response.StatusCode != http.StatusNotFound {
				return fmt.Errorf("answered %d", response.StatusCode)
			}
			return nil
		})
		<-held
		server.stop()
		expectCut(t, idle) // what is kept for the next request is kept no longer
		response, body := exchange(t, server.address, "GET", "/"+small.Path)
		g.Expect(response.StatusCode).To(Equal(http.StatusOK))
		g.Expect(body).To(Equal("v1"))
		close(release)
		g.Expect(waiting.Wait()).To(Succeed())
		g.Expect(<-server.stopped).To(Succeed())
	})

	t.Run("with an answer to the requests that wait for a file", func(t *testing.T) {
		g := NewWithT(t)
		held := make(chan struct{})
		server := start(t, s, store.ServerOptions{HandlerOptions: store.HandlerOptions{
			Missing: func(ctx context.Context, _ store.Key, _ string) error {
				close(held)
				<-ctx.Done()
				return ctx.Err()
			},
		}})
		go func() { <-held; server.stop() }()
		response, _ := exchange(t, server.address, "GET", "/externalartifact/apps/app/"+digestOf("missing")+".tar.gz")
		g.Expect(response.StatusCode).To(Equal(http.StatusServiceUnavailable))
		g.Expect(<-server.stopped).To(Succeed())
	})
}
