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
	"crypto/sha256"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// attention is what a process remembers of the objects that it reconciles: what
// saves work, what ends a reconcile that was overtaken, and what tells a stale
// cache. A new process starts with none of it, and needs none: it has no reconcile
// under way and has written nothing that its caches do not know.
type attention struct {
	mu    sync.Mutex
	notes map[types.NamespacedName]*note
}

type note struct {
	// cancel ends the attempt that is under way, and leave all of it but the judgement by
	// the platform.
	cancel, leave context.CancelFunc
	// refused is the last failure that only another digest heals.
	refused *bridge.Refusal
	// inspected is when the stored bytes were last read to their end.
	inspected time.Time
	// pick is what the policy was last seen to pick, and awaited since when it is
	// to be published; zero when it is not, or no longer.
	pick    pickHash
	awaited time.Time
	// overwritten are the resource versions that this process replaced last.
	overwritten [4]string
}

// pickHash identifies the pick of a policy. The pick itself is not kept: the schema of a
// status does not limit it, and a note outlasts the policy.
type pickHash [sha256.Size]byte

func hashOf(pick imagev1.ImageRef) pickHash {
	return sha256.Sum256([]byte(strings.Join([]string{pick.Name, pick.Tag, pick.Digest}, "\n")))
}

func (a *attention) on(key types.NamespacedName, do func(*note)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.notes == nil {
		a.notes = map[types.NamespacedName]*note{}
	}
	n, ok := a.notes[key]
	if !ok {
		n = &note{}
		a.notes[key] = n
	}
	do(n)
}

// begin notes that an attempt is under way. Its contexts end with end, or when it
// is interrupted: that of the judgement by the platform, and that of the rest.
func (a *attention) begin(ctx context.Context, key types.NamespacedName) (judging, attempting context.Context, end func()) {
	judging, cancel := context.WithCancel(ctx)
	attempting, leave := context.WithCancel(judging) //nolint:gosec // it ends with judging
	a.on(key, func(n *note) { n.cancel, n.leave = cancel, leave })
	return judging, attempting, func() {
		cancel()
		a.mu.Lock()
		defer a.mu.Unlock()
		if n, ok := a.notes[key]; ok { // else the object was forgotten
			n.cancel, n.leave = nil, nil
		}
	}
}

// attends tells whether an attempt is under way for an object.
func (a *attention) attends(key types.NamespacedName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.notes[key]
	return ok && n.cancel != nil
}

// interrupt ends the attempt that is under way for an object, because what it
// started from holds no longer.
func (a *attention) interrupt(key types.NamespacedName) {
	a.end(key, func(n *note) context.CancelFunc { return n.cancel })
}

// abandon ends the work under way for an object that is deleted, or whose content an owner no
// longer lends, but the judgement by the platform. The object may be one that left the shard,
// and consent may come back: a tenant who changes labels or consent all the time must not keep
// an image published that the platform rejects.
func (a *attention) abandon(key types.NamespacedName) {
	a.end(key, func(n *note) context.CancelFunc { return n.leave })
}

func (a *attention) end(key types.NamespacedName, which func(*note) context.CancelFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n, ok := a.notes[key]; ok && which(n) != nil {
		which(n)()
	}
}

// judged remembers a failure that only another digest heals, or that there is none.
func (a *attention) judged(key types.NamespacedName, out bridge.Outcome, err error) {
	var refused *bridge.Refusal
	if f := fault.Of(err, ""); f != nil && f.Class == fault.Stall && out.Image.Digest.Hex != "" {
		refused = &bridge.Refusal{Repository: out.Image.Repository, Digest: out.Image.Digest, Content: out.Content, Err: err}
	}
	a.on(key, func(n *note) { n.refused = refused })
}

// refusal returns what judged remembered.
func (a *attention) refusal(key types.NamespacedName) (refused *bridge.Refusal) {
	a.on(key, func(n *note) { refused = n.refused })
	return refused
}

// inspect tells whether the stored bytes were not read to their end for the
// given time, and notes that they are now.
func (a *attention) inspect(key types.NamespacedName, every time.Duration) (due bool) {
	a.on(key, func(n *note) {
		if due = time.Since(n.inspected) >= every; due {
			n.inspected = time.Now()
		}
	})
	return due
}

// await notes when a policy was first seen to pick what it picks.
func (a *attention) await(key types.NamespacedName, pick pickHash) {
	a.on(key, func(n *note) {
		if n.pick != pick {
			n.pick, n.awaited = pick, time.Now()
		}
	})
}

// arrived returns since when a pick was awaited, and notes that it is no longer;
// zero when it was not, or when there is a newer one by now.
func (a *attention) arrived(key types.NamespacedName, pick pickHash) (since time.Time) {
	a.on(key, func(n *note) {
		if n.pick == pick {
			since, n.awaited = n.awaited, time.Time{}
		}
	})
	return since
}

// overwrote notes a resource version of an object that is history since we
// wrote to it.
func (a *attention) overwrote(key types.NamespacedName, resourceVersion string) {
	a.on(key, func(n *note) {
		copy(n.overwritten[1:], n.overwritten[:])
		n.overwritten[0] = resourceVersion
	})
}

// outdated tells whether an object is older than what we wrote to it last: the
// cache has not seen that yet.
func (a *attention) outdated(key types.NamespacedName, resourceVersion string) (outdated bool) {
	a.on(key, func(n *note) { outdated = slices.Contains(n.overwritten[:], resourceVersion) })
	return outdated
}

// forget drops all that is known of an object.
func (a *attention) forget(key types.NamespacedName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.notes, key)
}
