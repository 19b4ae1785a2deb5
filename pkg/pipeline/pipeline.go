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

// Package pipeline is the way of one source to a registry: a turn, credentials, the
// repository that they open, and the steps of the bridge from there to the store. It is the
// only place that opens a repository.
package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/throttle"
)

// Pipeline opens repositories, each when it is its turn, and carries images to the store.
type Pipeline struct {
	// Throttle gives the turns.
	Throttle *throttle.Throttle
	// Credentials resolves the references of objects.
	Credentials *credentials.Resolver
	// Registry opens repositories.
	Registry *registry.Client
	// Bridge carries images from a repository to the store.
	Bridge *bridge.Bridge

	refusals refusals
}

// Origin is where an image is to be read from, and the attempt that wants to.
type Origin struct {
	// Namespace that the attempt counts against, and Source in it that makes the attempt.
	Namespace, Source string
	Repository        name.Repository
	// Access names what opens the repository.
	Access credentials.References
	// Timeout is how long the attempt is willing to wait.
	Timeout time.Duration
	// Judges and Insists are those of throttle.Request.
	Judges, Insists bool
	// Idle tells that the registry is expected not to be asked: no turn is needed.
	Idle bool
}

func (o Origin) request() throttle.Request {
	way := throttle.Way{
		Host: o.Repository.RegistryStr(), CertSecret: o.Access.CertSecretName, ProxySecret: o.Access.ProxySecretName,
		Insecure: o.Access.Insecure, Hasty: o.Timeout < throttle.Patience,
	}
	if way.CertSecret != "" || way.ProxySecret != "" || way.Insecure || way.Hasty {
		way.Namespace = o.Access.Namespace
	}
	return throttle.Request{Namespace: o.Namespace, Source: o.Source, Way: way, Login: o.Access, Judges: o.Judges, Insists: o.Insists}
}

// Repository is an open repository. Its first answer tells that the way to the registry
// works, long before a large artifact is pulled.
type Repository struct {
	*registry.Repository

	turn       *throttle.Turn // nil when Idle
	unanswered error
}

// Ask opens the repository of an origin, when it is its turn, and has work done with it.
//
// Errors: *throttle.Busy and the other errors of throttle.Enter, before anything is
// asked; *throttle.Busy where the attempt had to give way, or FetchFailed (retry) if it
// judges; those of credentials.Resolve, and those of work.
func (p *Pipeline) Ask(ctx context.Context, from Origin, work func(ctx context.Context, repository *Repository) error) (err error) {
	opened := &Repository{}
	if !from.Idle {
		if opened.turn, err = p.Throttle.Enter(from.request()); err != nil {
			return err
		}
	}
	if opened.turn != nil {
		var end func()
		ctx, end = opened.turn.Yielding(ctx)
		defer end()
	}
	listening, heard := listen(ctx)
	defer func() {
		if opened.turn == nil {
			return
		}
		busy := throttle.GaveWay(ctx)
		if busy != nil && from.Judges {
			err = tooSlow(from, heard.Load())
		}
		opened.turn.Leave(heard.Load(), cmp.Or(err, opened.unanswered))
		if busy != nil && !from.Judges {
			err = busy
		}
	}()
	access, err := p.Credentials.Resolve(ctx, from.Repository, from.Access)
	if err != nil {
		return err
	}
	opened.Repository = p.Registry.Repository(from.Repository, access)
	return work(listening, opened)
}

// tooSlow says why a judgement ended that had to give way. It is told, unlike of a pull:
// nobody knows yet whether the image may stay published.
func tooSlow(from Origin, heard bool) error {
	return &fault.Error{
		Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: heard,
		Err: fmt.Errorf("the registry %s has not shown all signatures of the image in time, and other images of the namespace wait to be judged", from.Repository.RegistryStr()),
	}
}

// Blame notes that the registry did not answer, although the work comes to an end without
// an error.
func (r *Repository) Blame(err error) { r.unanswered = err }

// Resolve implements bridge.Repository.
func (r *Repository) Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error) {
	ctx, heard := listen(ctx)
	manifest, err := r.Repository.Resolve(ctx, q)
	if r.turn != nil {
		r.turn.Learn(heard.Load(), err)
	}
	return manifest, err
}

// listen returns a context whose requests are noted in heard once they get an answer.
// What is known without a request, or by that of another attempt, is none.
func listen(ctx context.Context) (_ context.Context, heard *atomic.Bool) {
	heard = &atomic.Bool{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { heard.Store(true) }}), heard
}
