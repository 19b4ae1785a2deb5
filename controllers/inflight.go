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

package controllers

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// inflight has the running attempts. Its zero value is ready.
type inflight struct {
	mu      sync.Mutex
	running map[types.NamespacedName]work
}

// work is one running attempt.
type work struct {
	// judging is the context of the judgement by the platform, attempting the context of all
	// other parts. The second one ends with the first one.
	judging, attempting context.Context //nolint:containedctx // both belong to this attempt
	interrupt, abandon  context.CancelFunc
}

// begin starts an attempt for an object; it runs until end is called.
func (f *inflight) begin(ctx context.Context, key types.NamespacedName) (w work, end func()) {
	w.judging, w.interrupt = context.WithCancel(ctx)
	w.attempting, w.abandon = context.WithCancel(w.judging)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.running == nil {
		f.running = map[types.NamespacedName]work{}
	}
	f.running[key] = w
	return w, func() {
		w.interrupt()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.running, key)
	}
}

// overtaken reports whether an event ended the attempt, which then must not be reported. A
// withdrawal is reported unless the judgement itself was interrupted.
func (w work) overtaken(withdraws bool) bool {
	return w.judging.Err() != nil || w.attempting.Err() != nil && !withdraws
}

// has reports whether an attempt runs for an object.
func (f *inflight) has(key types.NamespacedName) bool {
	_, ok := f.get(key)
	return ok
}

// interrupt ends the running attempt for an object, because its premises no longer hold.
func (f *inflight) interrupt(key types.NamespacedName) {
	if w, ok := f.get(key); ok {
		w.interrupt()
	}
}

// abandon ends the running attempt for an object, except for the judgement by the platform.
// The object is deleted, or the owner of its access no longer lends it. A tenant can take an
// object out of a shard, or give and withdraw consent, all the time: this must not keep an
// image published that the platform rejects.
func (f *inflight) abandon(key types.NamespacedName) {
	if w, ok := f.get(key); ok {
		w.abandon()
	}
}

func (f *inflight) get(key types.NamespacedName) (work, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.running[key]
	return w, ok
}
