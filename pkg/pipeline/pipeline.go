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

// Package pipeline takes one source to a registry: it waits for a turn, resolves the
// credentials, opens the repository, and takes the steps of the bridge to the store. No
// other package opens a repository.
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

// Pipeline opens repositories in turn and carries images to the store.
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

// Origin is the repository of an image, and the attempt to read from it.
type Origin struct {
	// Namespace and Source of the attempt; it counts against the Namespace.
	Namespace, Source string
	Repository        name.Repository
	// Access to the repository.
	Access credentials.References
	// Timeout is the longest time that the attempt waits.
	Timeout time.Duration
	// Judges and Insists are those of throttle.Request.
	Judges, Insists bool
	// Idle: no request to the registry is expected, so no turn is needed.
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

// Repository is an open repository. Its first answer shows that the way to the registry
// works, long before the end of a large pull.
type Repository struct {
	*registry.Repository

	turn       *throttle.Turn // nil when Idle
	unanswered error
}

// Ask waits for the turn of an origin, opens its repository and calls work with it.
//
// Errors: *throttle.Busy and the other errors of throttle.Enter, before any request;
// *throttle.Busy if the attempt had to give way, or FetchFailed (retry) if it judges; those
// of credentials.Resolve, and those of work.
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

// tooSlow is the error of a judgement that had to give way. Unlike the one of a pull it is
// reported: it is still open whether the image may stay published.
func tooSlow(from Origin, heard bool) error {
	return &fault.Error{
		Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: heard,
		Err: fmt.Errorf("the registry %s did not return all signatures of the image in time, and other images of the namespace wait for verification", from.Repository.RegistryStr()),
	}
}

// Blame notes that the registry did not answer, although the work ends without an error.
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

// listen returns a context that sets heard at the first answer to one of its requests.
// Cached and shared answers do not set it.
func listen(ctx context.Context) (_ context.Context, heard *atomic.Bool) {
	heard = &atomic.Bool{}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { heard.Store(true) }}), heard
}
