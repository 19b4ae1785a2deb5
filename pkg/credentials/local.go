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

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/fluxcd/pkg/auth"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// Local returns the access that the machine of a person, or of a CI job, has to
// a repository: for aws, azure and gcp that of the cloud identity which is
// logged in here, and for generic, or an empty provider, that of the Docker
// config and the credential helpers it names. The credential is fetched now,
// once, and is good for the run of a command.
//
// Errors: AuthenticationFailed (retry).
func Local(ctx context.Context, repository name.Repository, provider string) (registry.Access, error) {
	config, err := local(ctx, repository, provider)
	if err != nil || *config == (authn.AuthConfig{}) {
		return registry.Access{}, err
	}
	return registry.Access{Auth: authn.FromConfig(*config)}, nil
}

// CheckLocal returns the error of [Local] that can be told without asking anybody:
// for a provider that there is not, or one of another cloud than the registry's.
func CheckLocal(repository name.Repository, provider string) error {
	if isGeneric(provider) {
		return nil
	}
	_, err := providerOf(provider, repository)
	return err
}

func isGeneric(provider string) bool { return provider == "" || provider == "generic" }

func local(ctx context.Context, repository name.Repository, provider string) (*authn.AuthConfig, error) {
	var found authn.Authenticator
	if isGeneric(provider) {
		var err error
		if found, err = authn.Resolve(ctx, authn.DefaultKeychain, repository); err != nil {
			return nil, failed("the Docker config gives no credentials for %q: %w", repository.RegistryStr(), err)
		}
	} else {
		cloud, err := providerOf(provider, repository)
		if err != nil {
			return nil, err
		}
		if found, err = auth.GetArtifactRegistryCredentials(ctx, cloud, repository.Name()); err != nil {
			return nil, failed("provider %s gave no credentials for %q: %w", provider, repository.RegistryStr(), err)
		}
	}
	config, err := authn.Authorization(ctx, found)
	if err != nil {
		return nil, failed("cannot get credentials for %q: %w", repository.RegistryStr(), err)
	}
	return config, nil
}
