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
	"crypto/tls"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/cache"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
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

// References name what opens a registry. An empty name is no reference.
type References struct {
	// Namespace is where all that is named here is read.
	Namespace string
	// Provider is aws, azure or gcp, and else generic or empty.
	Provider string
	// SecretName names a Secret of type kubernetes.io/dockerconfigjson (or the
	// older kubernetes.io/dockercfg). It wins over Provider, see PreferProvider.
	SecretName string
	// ServiceAccountName names a ServiceAccount: the identity to show to
	// Provider, or, without one, whose image pull secrets to use after SecretName.
	// Provider without it uses an identity of the platform.
	ServiceAccountName string
	// CertSecretName names a Secret of type Opaque or kubernetes.io/tls with
	// trust roots, a client certificate, or both.
	CertSecretName string
	// ProxySecretName names a Secret with the address of a proxy.
	ProxySecretName string
	// Insecure allows plain HTTP. It never turns off the check of a certificate.
	Insecure bool
}

// Elsewhere returns what of these may be used at another registry than the one that
// they were written for: logins, of which each names its registry, and the way out.
// An identity in a cloud, certificates and plain HTTP were for that one alone.
func (r References) Elsewhere() References {
	if r.isCloud() {
		r.ServiceAccountName = ""
	}
	r.Provider, r.CertSecretName, r.Insecure = "", "", false
	return r
}

// PreferProvider returns what these mean on an ImageRepository, where a cloud
// wins over a Secret.
func (r References) PreferProvider() References {
	if r.namesCloud() {
		r.SecretName = ""
	}
	return r
}

// Check decides whether the references may be used together. An identity that they do
// not name is the platform's, and lent: CertSecretName, ProxySecretName and Insecure,
// which say where it would go, are refused beside it, see registry.Access.Check. So are
// names that are too long for an object. It reads nothing.
//
// Errors: InvalidSpec (stall).
func (r References) Check() error {
	for _, named := range []reference{
		r.secret(r.SecretName, "secretRef"), r.serviceAccount(r.ServiceAccountName, "serviceAccountName"),
		r.secret(r.CertSecretName, "certSecretRef"), r.secret(r.ProxySecretName, "proxySecretRef"),
	} {
		if length := len(named.Name); length > maxName {
			return fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s names a %s by %d characters, expected at most %d", named.by, named.kind, length, maxName)
		}
	}
	access := registry.Access{Lent: r.isLent(), Insecure: r.Insecure}
	if r.CertSecretName != "" {
		access.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if r.ProxySecretName != "" {
		access.Proxy = &url.URL{}
	}
	return access.Check()
}

// isCloud tells whether the login is an identity in a cloud.
func (r References) isCloud() bool { return r.SecretName == "" && r.namesCloud() }

// isLent tells whether the login is an identity that the references do not name:
// that of this controller, or the ServiceAccount of --default-service-account. The
// latter is one of the namespace, but the platform decided that it is used.
func (r References) isLent() bool { return r.isCloud() && r.ServiceAccountName == "" }

// way identifies the Secrets that say how a registry is reached, whatever is in them;
// no name of an object has a slash. It is empty without any.
func (r References) way() string {
	if r.CertSecretName == "" && r.ProxySecretName == "" {
		return ""
	}
	return strings.Join([]string{r.Namespace, r.CertSecretName, r.ProxySecretName}, "/")
}

func (r References) namesCloud() bool { return r.Provider != "" && r.Provider != "generic" }

// maxName is the length of the longest name of an object. The schema of an
// ImageRepository does not limit the names in it, and the state of a registry is kept
// by these names.
const maxName = 253

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
		Lent:        references.isLent(),
		Fingerprint: r.fingerprint(login, trust, proxy),
		Way:         references.way(),
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
	if request.isCloud() {
		return r.cloud(ctx, request)
	}
	return r.static(ctx, request)
}
