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

package stage

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/image-source/image-source-controller/test/controlplane"
)

const (
	// probePeriod is how often a backend is asked whether it is ready. A kubelet
	// takes longer, but tells the others of a Pod that is to end at once.
	probePeriod = 50 * time.Millisecond
	// A backend that does not answer in time is not ready after some failures
	// only, as with a kubelet: the machine may be busy. One that refuses is not at once.
	probeTimeout  = time.Second
	probeFailures = 3
)

// Balancer is a Service in miniature: it hands each connection to one of the
// controllers that are ready, in turn. As with a Service, a connection to one that has
// just died fails, and is not tried with another.
type Balancer struct {
	listener net.Listener
	end      context.CancelFunc
	running  sync.WaitGroup

	mu       sync.Mutex
	backends []*backend
	turn     int
	open     map[net.Conn]struct{}
}

type backend struct {
	address string
	ready   bool
}

// StartBalancer starts a balancer without backends. Whoever starts it closes it.
func StartBalancer(ctx context.Context) (*Balancer, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	b := &Balancer{listener: listener, end: end, open: map[net.Conn]struct{}{}}
	b.running.Go(func() { b.accept(ctx) })
	return b, nil
}

// Address is host:port of the balancer.
func (b *Balancer) Address() string { return b.listener.Addr().String() }

// Close ends the balancer and all connections through it.
func (b *Balancer) Close() error {
	b.end()
	err := b.listener.Close()
	b.mu.Lock()
	for conn := range b.open {
		err = errors.Join(err, ignoreClosed(conn.Close()))
	}
	b.mu.Unlock()
	b.running.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Add lets a controller have its part of the connections while it is ready.
func (b *Balancer) Add(ctx context.Context, controller *Controller) {
	added := &backend{address: controller.Address}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = append(b.backends, added)
	ready := controlplane.HTTPReady("http://"+controller.Health+"/readyz", nil)
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	b.running.Go(func() { b.probe(ctx, added, ready) })
	before := b.end
	b.end = func() { end(); before() }
}

// probe keeps track of whether a backend is ready.
func (b *Balancer) probe(ctx context.Context, which *backend, ready func(context.Context) error) {
	tick := time.NewTicker(probePeriod)
	defer tick.Stop()
	silent := 0
	for {
		asked, cancel := context.WithTimeout(ctx, probeTimeout)
		err := ready(asked)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			silent++
		} else {
			silent = 0
		}
		if silent == 0 || silent >= probeFailures {
			b.mu.Lock()
			which.ready = err == nil
			b.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (b *Balancer) accept(ctx context.Context) {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.running.Go(func() { b.carry(ctx, conn) })
	}
}

// carry connects a client with the backend whose turn it is.
func (b *Balancer) carry(ctx context.Context, client net.Conn) {
	defer b.track(client)()
	address, ok := b.next()
	if !ok {
		return
	}
	var dialer net.Dialer // it is for the client to lose patience
	server, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer b.track(server)()
	var there sync.WaitGroup
	there.Go(func() { pass(server, client) })
	pass(client, server)
	there.Wait()
}

// pass copies one direction to its end, and passes the end on.
func pass(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.Close() // what is broken here is broken there
		_ = from.Close()
		return
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// track keeps a connection where Close finds it, until done is called.
func (b *Balancer) track(conn net.Conn) (done func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[conn] = struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.open, conn)
		_ = conn.Close()
	}
}

// next returns the ready backend whose turn it is.
func (b *Balancer) next() (address string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.backends {
		b.turn = (b.turn + 1) % len(b.backends)
		if chosen := b.backends[b.turn]; chosen.ready {
			return chosen.address, true
		}
	}
	return "", false
}
