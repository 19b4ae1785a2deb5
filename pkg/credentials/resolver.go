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

package credentials

import (
	"context"
	"crypto/rand"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/cache"

	"github.com/image-source/image-source-controller/pkg/access"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// Options are what a Resolver works with.
type Options struct {
	// Client reads Secrets and ServiceAccounts, and asks for the tokens of the
	// latter where they stand for a cloud identity. It must not cache the two
	// kinds: a cache would need to list every Secret of the cluster.
	Client client.Client
	// TokenCache keeps the tokens of cloud providers; with nil, one is fetched
	// whenever one is asked for.
	TokenCache *cache.TokenCache
}

// References name the objects that open a registry.
type References = access.References

// Resolver turns references into accesses. It is safe for concurrent use.
type Resolver struct {
	options Options
	// key makes fingerprints worthless outside of this process.
	key [32]byte
}

// New returns a resolver. A process has one: fingerprints of two resolvers
// cannot be compared.
func New(options Options) *Resolver {
	r := &Resolver{options: options}
	// Read never fails: where there is no randomness it ends the process.
	_, _ = rand.Read(r.key[:])
	return r
}

// Resolve returns the access that the references give to a repository. Equal
// accesses have equal fingerprints, in whatever Secrets they are written; the
// accesses that are anonymous and need neither TLS material nor proxy share one.
//
// A cloud provider is not asked here, but whenever the access is used.
//
// An object that is missing or malformed, or that the API server does not hand
// out, is a fault.Retry with v1alpha1.ReasonAuthenticationFailed: Secrets are not
// watched, so no event will announce that it was put right. References that Check
// refuses are refused before anything is read.
func (r *Resolver) Resolve(ctx context.Context, repository name.Repository, references References) (registry.Access, error) {
	if err := references.Check(); err != nil {
		return registry.Access{}, err
	}
	proxy, err := r.proxy(ctx, references)
	if err != nil {
		return registry.Access{}, err
	}
	trust, err := r.trust(ctx, references)
	if err != nil {
		return registry.Access{}, err
	}
	login, err := r.login(ctx, request{References: references, repository: repository, proxy: proxy})
	if err != nil {
		return registry.Access{}, err
	}
	return registry.Access{
		Auth:        login.auth,
		TLS:         trust.config,
		Proxy:       proxy,
		Insecure:    references.Insecure,
		Lent:        references.IsLent(),
		Fingerprint: r.fingerprint(login, trust, proxy),
		Way:         references.Way(),
	}, nil
}

// request is what a login is looked for with.
type request struct {
	References
	repository name.Repository
	proxy      *url.URL
}

// login is who calls.
type login struct {
	// auth is nil for an anonymous caller.
	auth authn.Authenticator
	// identity is what makes up the caller, secrets included.
	identity []string
}

// login returns the caller that the references name. A Secret wins over a
// provider, as it does for an OCIRepository: whoever wrote both down meant the
// more specific one.
func (r *Resolver) login(ctx context.Context, request request) (login, error) {
	if request.IsCloud() {
		return r.cloud(ctx, request)
	}
	return r.static(ctx, request)
}
