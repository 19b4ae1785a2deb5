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

// Package flight shares work in progress: callers that ask for the same thing
// at the same time get one answer from one piece of work.
//
// Unlike golang.org/x/sync/singleflight, the work belongs to no single caller:
// it goes on when the one who started it gives up, and is cancelled when the
// last one does.
package flight

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// Group shares work by key. Its zero value is ready to use.
type Group[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}
	value   V
	err     error
}

// Do returns the result of work for key, starting it unless it is already
// under way. The work runs with the values and the deadline of the caller that
// started it, but is cancelled only when every caller has left. A caller that
// leaves gets the cause of its own context. shared tells whether the result
// came from work that another caller started.
func (g *Group[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (value V, shared bool, err error) {
	c, joined := g.join(ctx, key, work)
	select {
	case <-c.done:
		g.leave(key, c)
		return c.value, joined, c.err
	case <-ctx.Done():
		g.leave(key, c)
		var none V
		return none, joined, context.Cause(ctx)
	}
}

func (g *Group[K, V]) join(ctx context.Context, key K, work func(context.Context) (V, error)) (*call[V], bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		c.waiters++
		return c, true
	}
	if g.calls == nil {
		g.calls = map[K]*call[V]{}
	}
	detached, cancel := detach(ctx)
	c := &call[V]{waiters: 1, cancel: cancel, done: make(chan struct{})}
	g.calls[key] = c
	go func() {
		defer cancel()
		defer close(c.done)
		defer g.forget(key, c)
		c.value, c.err = Contain(detached, work)
	}()
	return c, false
}

// Contain does work and turns its panic into a PanicError.
func Contain[V any](ctx context.Context, work func(context.Context) (V, error)) (value V, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return work(ctx)
}

// PanicError is what callers get when the work panicked.
type PanicError struct {
	// Value is what was passed to panic.
	Value any
	// Stack is where it happened; it is for a log, not for a status.
	Stack []byte
}

// Error names the value, not the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// detach keeps the values and the deadline of ctx, but not its cancellation.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	free := context.WithoutCancel(ctx)
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(free, deadline)
	}
	return context.WithCancel(free)
}

// leave gives up one caller's interest. Work that nobody waits for is
// cancelled and forgotten, so that the next caller starts afresh.
func (g *Group[K, V]) leave(key K, c *call[V]) {
	g.mu.Lock()
	c.waiters--
	abandoned := c.waiters == 0
	if abandoned && g.calls[key] == c {
		delete(g.calls, key)
	}
	g.mu.Unlock()
	if abandoned {
		c.cancel()
	}
}

func (g *Group[K, V]) forget(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
