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

// Package serve is the work of every replica, whether it leads or not: it serves the
// files that the records name, gets those that its disk lacks, and removes from the
// disk the files that no record names.
package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/image-source/image-source-controller/pkg/store"
)

// Endpoint is the artifact server of a replica. It runs beside the manager and not in
// it: on a signal to end, the manager releases the lease at once, while consumers are
// served until their connections go elsewhere.
type Endpoint struct {
	// Server serves the stored files.
	Server *store.Server
	// Supplier gets the missing ones.
	Supplier *Supplier
	// Cache that records are read from: nothing is served before it is synced.
	Cache cache.Cache

	ready atomic.Bool
	waits atomic.Pointer[error]
}

// Start serves until ctx ends and the server has drained.
func (e *Endpoint) Start(ctx context.Context) error {
	if !e.Cache.WaitForCacheSync(ctx) {
		return nil // ctx ended first
	}
	listener, err := e.Server.Listen(ctx)
	if err != nil {
		return err
	}
	return e.serve(ctx, listener)
}

func (e *Endpoint) serve(ctx context.Context, listener net.Listener) error {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	var supplying sync.WaitGroup
	supplying.Go(func() { e.Supplier.Run(work) })
	defer supplying.Wait()
	defer end()
	e.ready.Store(true)
	context.AfterFunc(ctx, func() { e.ready.Store(false) })
	return e.Server.Serve(ctx, listener)
}

// Waits says why the replica does not serve yet; nil says that nothing is waited for.
func (e *Endpoint) Waits(why error) { e.waits.Store(&why) }

// Ready is the readiness check of a replica: it serves the records in its caches, and
// is not about to end. Leadership does not matter.
func (e *Endpoint) Ready(*http.Request) error {
	if !e.ready.Load() {
		if why := e.waits.Load(); why != nil && *why != nil {
			return *why
		}
		return errors.New("artifacts are not served yet, or not for much longer")
	}
	return nil
}
