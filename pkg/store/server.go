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

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	defaultMaxConnections  = 1000
	defaultHeaderTimeout   = 5 * time.Second
	defaultIdleTimeout     = time.Minute
	defaultShutdownTimeout = 10 * time.Second
	// maxHeaderBytes is ample: the longest published path has just over 400 characters.
	maxHeaderBytes = 16 << 10
)

// ServerOptions are the address and the limits of the server. A limit of zero
// is its default.
type ServerOptions struct {
	// Address is what to listen on (--storage-addr), host:port or :port.
	Address string
	// HandlerOptions are those of the handler that is served.
	HandlerOptions
	// MaxConnections is how many connections are open at once; more wait to
	// be accepted. Default 1000.
	MaxConnections int
	// HeaderTimeout bounds the reading of a request. Default 5 seconds.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection is kept between requests. Default one minute.
	IdleTimeout time.Duration
	// DrainTime is how long the server takes new requests after it was told to
	// stop: whoever balances over replicas needs some seconds to notice. Default none.
	DrainTime time.Duration
	// ShutdownTimeout is what transfers get to finish after that. Default 10 seconds.
	ShutdownTimeout time.Duration
}

// Server serves a store's files.
type Server struct {
	options ServerOptions
	handler http.Handler
}

// Server returns a server that is not started yet.
func (s *Store) Server(o ServerOptions) *Server {
	o.MaxConnections = cmp.Or(o.MaxConnections, defaultMaxConnections)
	o.HeaderTimeout = cmp.Or(o.HeaderTimeout, defaultHeaderTimeout)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, defaultIdleTimeout)
	o.ProgressTimeout = cmp.Or(o.ProgressTimeout, defaultProgressTimeout)
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, defaultShutdownTimeout)
	return &Server{options: o, handler: s.Handler(o.HandlerOptions)}
}

// Listen opens the server's address.
func (s *Server) Listen(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", s.options.Address)
	if err != nil {
		return nil, fmt.Errorf("listen for consumers on --storage-addr: %w", err)
	}
	return listener, nil
}

// Serve serves on a listener, which it closes, until ctx is done, and then
// drains: it goes on for the drain time, on connections that end with their answer, and
// lets transfers finish. It returns nil after an orderly stop.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	limited := limit(listener, s.options.MaxConnections)
	// Requests that are held for a missing file end with work, with a 503.
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	server := &http.Server{
		Handler:           s.handler,
		ConnState:         limited.observe,
		ReadHeaderTimeout: s.options.HeaderTimeout,
		// Bounds what the server writes itself; the handler sets its own deadlines.
		WriteTimeout:   s.options.ProgressTimeout,
		IdleTimeout:    s.options.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes,
		BaseContext:    func(net.Listener) context.Context { return work },
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(limited) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve artifacts: %w", err)
	case <-ctx.Done():
	}
	server.SetKeepAlivesEnabled(false)
	drained := time.NewTimer(s.options.DrainTime)
	defer drained.Stop()
	select {
	case err := <-failed:
		return fmt.Errorf("serve artifacts: %w", err)
	case <-drained.C:
	}
	end()
	return s.stop(work, server)
}

// stop lets transfers finish for a while and then cuts them.
func (s *Server) stop(ctx context.Context, server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}
