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
	"fmt"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/fluxcd/pkg/auth"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"github.com/fluxcd/pkg/cache"
)

// askTimeout bounds a question to a cloud provider that comes without a context.
const askTimeout = 30 * time.Second

// cloud returns a login that asks a cloud provider for credentials. What can be
// found wrong without asking it is found here.
func (r *Resolver) cloud(ctx context.Context, request request) (login, error) {
	provider, err := providerOf(request.Provider, request.repository)
	if err != nil {
		return login{}, err
	}
	from := serviceAccountOf(request.References, request.ServiceAccountName, "serviceAccountName")
	if from.Name == "" {
		from = serviceAccountOf(request.References, auth.GetDefaultServiceAccount(), "--"+auth.ControllerFlagDefaultServiceAccount)
	}
	identity, err := r.identity(ctx, provider, from)
	if err != nil {
		return login{}, err
	}
	return login{
		auth:     &live{provider: provider, repository: request.repository, account: from, options: r.ask(request, from)},
		identity: append([]string{"cloud", request.Provider, request.repository.RegistryStr()}, identity...),
	}, nil
}

// providerOf returns the cloud of a name, which must be that of the registry.
func providerOf(cloud string, repository name.Repository) (auth.ArtifactRegistryCredentialsProvider, error) {
	provider, err := authutils.ProviderByName[auth.ArtifactRegistryCredentialsProvider](cloud)
	if err != nil {
		return nil, failed("provider is %q, expected generic, aws, azure or gcp", cloud)
	}
	if _, err := provider.ParseArtifactRepository(repository.Name()); err != nil {
		return nil, failed("provider %s gives no credentials for the registry %q; set provider: generic, or name a registry of that cloud: %w",
			cloud, repository.RegistryStr(), err)
	}
	return provider, nil
}

// identity returns what makes up the caller whom a provider will see: a
// ServiceAccount of a namespace as it stands there now, or, with no name, the
// controller itself, who is the same for every namespace.
func (r *Resolver) identity(ctx context.Context, provider auth.Provider, from reference) ([]string, error) {
	if from.Name == "" {
		return nil, nil
	}
	if !auth.IsObjectLevelWorkloadIdentityEnabled() {
		return nil, from.refuse("as an identity for provider %s it needs this controller to run with --feature-gates=%s=true; enable that, or remove serviceAccountName",
			provider.GetName(), auth.FeatureGateObjectLevelWorkloadIdentity)
	}
	account, err := r.serviceAccount(ctx, from)
	if err != nil {
		return nil, err
	}
	identity, err := provider.GetIdentity(*account)
	if err != nil {
		return nil, from.refuse("its annotations name no identity of provider %s: %w", provider.GetName(), err)
	}
	return []string{account.Namespace, account.Name, string(account.UID), identity}, nil
}

// ask returns how a provider is asked.
func (r *Resolver) ask(request request, account reference) []auth.Option {
	options := []auth.Option{
		auth.WithClient(r.options.Client),
		auth.WithServiceAccountNamespace(account.Namespace),
		auth.WithServiceAccountName(account.Name),
	}
	if request.proxy != nil {
		options = append(options, auth.WithProxyURL(*request.proxy))
	}
	if r.options.TokenCache != nil {
		// A token is shared by all who may have it, so that its metrics are about nobody.
		options = append(options, auth.WithCache(*r.options.TokenCache, cache.InvolvedObject{}))
	}
	return options
}

// live asks the token cache, and through it the provider, each time: cloud
// credentials expire.
type live struct {
	provider   auth.ArtifactRegistryCredentialsProvider
	repository name.Repository
	account    reference // without a name: the controller itself
	options    []auth.Option
}

var _ authn.ContextAuthenticator = (*live)(nil)

// Authorization implements authn.Authenticator.
func (l *live) Authorization() (*authn.AuthConfig, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout) //nolint:forbidigo // the interface has no context
	defer cancel()
	return l.AuthorizationContext(ctx)
}

// AuthorizationContext implements authn.ContextAuthenticator.
func (l *live) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	credentials, err := auth.GetArtifactRegistryCredentials(ctx, l.provider, l.repository.Name(), l.options...)
	if err != nil {
		return nil, l.failed(err)
	}
	config, err := authn.Authorization(ctx, credentials)
	if err != nil {
		return nil, l.failed(err)
	}
	return config, nil
}

func (l *live) failed(err error) error {
	who := "this controller"
	if l.account.Name != "" {
		who = fmt.Sprintf("ServiceAccount %q", l.account.NamespacedName)
	}
	return failed("provider %s gave no credentials to %s: %w", l.provider.GetName(), who, err)
}
