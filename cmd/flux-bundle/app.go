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

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// app is the state that all verbs share.
type app struct {
	streams
	flags globalFlags
	// registries is set by start.
	registries *registry.Client
	login      login
	// cancel ends the time that --timeout gives.
	cancel context.CancelFunc
	// check checks packed files; tests run the check in their own process.
	check func(ctx context.Context, s streams, job checkJob, tell func(message)) error
}

// start checks the flags and prepares what the verbs use.
func (a *app) start(cmd *cobra.Command, _ []string) error {
	if err := a.flags.check(); err != nil {
		return err
	}
	networks, err := a.flags.networks()
	if err != nil {
		return err
	}
	client, err := registry.NewClient(registry.Options{
		UserAgent:    userAgent(),
		AuthRealms:   a.flags.authRealms,
		AllowedCIDRs: networks,
		// Some registries hash all of an upload before they answer.
		HeaderTimeout: a.flags.timeout,
		Hints: registry.Hints{ //nolint:gosec // advice about credentials, and none itself
			Authority:   "add its CA certificate to those that this machine trusts, or name a file of trusted ones in SSL_CERT_FILE",
			Plain:       "give --insecure-registry if that is intended",
			Certificate: "client certificates are not supported here",
			Proxy:       "check user and password in HTTPS_PROXY or HTTP_PROXY",
			Credentials: "log in with docker login, or name the cloud that the registry is of with --provider",
		},
	})
	if err != nil {
		return err
	}
	a.registries = client
	var ctx context.Context
	ctx, a.cancel = context.WithTimeoutCause(cmd.Context(), a.flags.timeout, errTimeout{a.flags.timeout})
	cmd.SetContext(ctx)
	a.login, err = readLogin(ctx, a.streams, &a.flags)
	return err
}

// reference reads a reference as people write it, with or without oci://, to a
// registry that the provider has credentials for.
func (a *app) reference(text string) (reference.Image, error) {
	named := strings.TrimPrefix(text, ociScheme)
	if strings.Contains(named, "://") {
		return reference.Image{}, fmt.Errorf("%q is an address, expected a reference to an artifact such as ghcr.io/org/app-deploy:v1.0.0; --insecure-registry is for plain HTTP", text)
	}
	var options []name.Option
	if a.flags.insecure {
		options = append(options, name.Insecure)
	}
	image, err := reference.ParseImage(named, options...)
	if err != nil {
		return image, fmt.Errorf("%q is no reference to an artifact, expected one such as ghcr.io/org/app-deploy:v1.0.0: %w", text, err)
	}
	if err := credentials.CheckLocal(image.Repository, a.flags.provider); err != nil {
		return image, &failure{err: err, words: fmt.Sprintf("--provider is %q, but %q is no registry of that cloud; leave --provider out for the credentials of docker login",
			a.flags.provider, image.Repository.RegistryStr())}
	}
	return image, a.login.only(image.Repository)
}

// access returns the way to a repository with the credentials of --creds or those of
// this machine: of the Docker config and its helpers, or of a cloud.
func (a *app) access(ctx context.Context, repository name.Repository) (*registry.Repository, error) {
	granted, err := await(ctx, func() (registry.Access, error) {
		return a.login.grant(ctx, repository, a.flags.provider)
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("no credentials for %q: %w", repository.RegistryStr(), ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	granted.Insecure = a.flags.insecure
	return a.registries.Repository(repository, granted), nil
}

// ociScheme may stand before a reference, as everywhere in Flux.
const ociScheme = "oci://"
