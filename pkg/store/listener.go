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
	"net"
	"net/http"
	"sync"
)

// limiter bounds the connections that are open at once. It hands connections
// on as they are, because the server uses sendfile on plain ones only; so it is the server
// that tells, through its ConnState hook, when one has ended.
type limiter struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func limit(listener net.Listener, connections int) *limiter {
	return &limiter{Listener: listener, slots: make(chan struct{}, connections), closed: make(chan struct{})}
}

// Accept waits for a free slot before it takes the next connection; the others
// wait in the backlog of the operating system.
func (l *limiter) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
	}
	return conn, err
}

// Close implements net.Listener.
func (l *limiter) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// observe is the http.Server's ConnState hook.
func (l *limiter) observe(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		<-l.slots
	}
}
