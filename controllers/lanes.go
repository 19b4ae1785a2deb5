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
	"errors"
	"sync"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// probes is how many attempts at a time may find out whether a registry
// answers, while that is not known.
const probes = 2

// lane is one way to a registry: its host, and the CA and the proxy by which
// it is reached. What one tenant gets wrong there closes no lane of another.
type lane struct {
	host, namespace, cert, proxy string
}

func (p Plan) lane() lane {
	l := lane{host: p.Repository.RegistryStr(), cert: p.Access.CertSecretName, proxy: p.Access.ProxySecretName}
	if l.cert != "" || l.proxy != "" {
		l.namespace = p.Access.Namespace
	}
	return l
}

// lanes keep a registry that does not answer from occupying all workers: until
// a lane is known to work, only a few attempts are in it.
type lanes struct {
	mu    sync.Mutex
	known map[lane]*laneState
}

type laneState struct {
	busy int
	// tried and works tell what the last attempt that ended found out.
	tried, works bool
}

// admission is the answer to an attempt that wants to enter a lane.
type admission int

const (
	// admitted: go on, and call leave.
	admitted admission = iota
	// later: others are finding out whether the registry answers.
	later
	// closed: the registry did not answer of late, and others try it already.
	closed
)

// maxLanes bounds what is remembered. Over it, idle lanes are forgotten.
const maxLanes = 10_000

// enter asks to use a lane. Who insists, because a person asked for it, is
// always let in.
func (l *lanes) enter(way lane, insist bool) admission {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[lane]*laneState{}
	}
	state, ok := l.known[way]
	if !ok {
		l.tidy()
		state = &laneState{}
		l.known[way] = state
	}
	switch {
	case insist || state.works || state.busy < probes:
		state.busy++
		return admitted
	case state.tried:
		return closed
	default:
		return later
	}
}

// leave ends the use of a lane.
func (l *lanes) leave(way lane, err error) {
	l.learn(way, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[way].busy--
}

// learn notes what was found out about a lane that somebody is in. Any answer
// of a registry, a refusal too, shows that the lane works; an attempt that was
// given up shows nothing.
func (l *lanes) learn(way lane, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	failure := fault.Of(err, v1alpha1.ReasonFetchFailed)
	l.mu.Lock()
	defer l.mu.Unlock()
	state := l.known[way]
	state.tried = true
	state.works = failure == nil || failure.Reason != v1alpha1.ReasonFetchFailed
}

// watched is a repository whose first answer tells that its lane works, long
// before a large artifact is pulled.
type watched struct {
	bridge.Repository
	learn func(error)
}

// Resolve implements bridge.Repository.
func (w watched) Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error) {
	manifest, err := w.Repository.Resolve(ctx, q)
	w.learn(err)
	return manifest, err
}

// tidy forgets lanes that nobody is in, when there are too many.
func (l *lanes) tidy() {
	if len(l.known) < maxLanes {
		return
	}
	for way, state := range l.known {
		if state.busy == 0 {
			delete(l.known, way)
		}
	}
}

// closedLane says why an attempt was not made.
func closedLane(way lane) error {
	return fault.Retryf(v1alpha1.ReasonFetchFailed, "the registry %s did not answer the last attempt; others are trying it already", way.host)
}
