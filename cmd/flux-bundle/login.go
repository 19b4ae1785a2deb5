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
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	// fromInput is the value of --creds that means standard input.
	fromInput = "-"
	// maxCredsBytes bounds the bytes that are read of standard input.
	maxCredsBytes = 64 << 10
)

// login is a login that was given for one registry, in place of those that this machine
// has. The zero value is no login.
type login struct {
	auth authn.Authenticator
	// registry is the first one that was named: no other gets the credentials.
	registry string
}

// readLogin returns the credentials of --creds or of its variable.
func readLogin(ctx context.Context, s streams, f *globalFlags) (login, error) {
	origin, text := "--"+credsFlag, f.creds
	if text == "" {
		origin, text = credsVariable, s.getenv(credsVariable)
	}
	if text == "" {
		return login{}, nil
	}
	if f.provider != "" && f.provider != "generic" {
		return login{}, contradiction(origin, "--provider "+f.provider)
	}
	if f.creds == fromInput {
		read, err := readCreds(ctx, s)
		if err != nil {
			return login{}, fmt.Errorf("%s is %s, which means standard input: %w", origin, fromInput, err)
		}
		text = read
	}
	username, password, both := strings.Cut(text, ":")
	switch {
	case !both: // flux push artifact takes it for a token as well
		return login{auth: authn.FromConfig(authn.AuthConfig{RegistryToken: text})}, nil
	case username == "" || password == "":
		return login{}, fmt.Errorf("%s has an empty username or password, expected username:password or a token", origin)
	default:
		return login{auth: authn.FromConfig(authn.AuthConfig{Username: username, Password: password})}, nil
	}
}

// readCreds reads credentials from standard input, without showing them on a terminal.
func readCreds(ctx context.Context, s streams) (string, error) {
	var text []byte
	var err error
	if terminal := terminalOf(s.in); terminal != nil {
		text, err = s.ask(ctx, terminal, "Credentials (username:password): ")
	} else {
		text, err = await(ctx, func() ([]byte, error) { return io.ReadAll(io.LimitReader(s.in, maxCredsBytes+1)) })
	}
	text = bytes.TrimRight(text, "\r\n")
	switch {
	case err != nil:
		return "", err
	case len(text) == 0:
		return "", errors.New("it is empty, expected username:password or a token")
	case len(text) > maxCredsBytes || bytes.ContainsAny(text, "\r\n"):
		return "", errors.New("it has more than one line, expected username:password or a token")
	}
	return string(text), nil
}

// only refuses a second registry for given credentials, which would be sent there.
func (l *login) only(repository name.Repository) error {
	switch host := repository.RegistryStr(); {
	case l.auth == nil || l.registry == host:
		return nil
	case l.registry == "":
		l.registry = host
		return nil
	default:
		return fmt.Errorf("the credentials of --%s or %s are for one registry, but %q and %q are named; log in with docker login", credsFlag, credsVariable, l.registry, host)
	}
}

// grant returns the access that this machine has to a repository, or that of the given
// credentials.
func (l *login) grant(ctx context.Context, repository name.Repository, provider string) (registry.Access, error) {
	if l.auth != nil {
		return registry.Access{Auth: l.auth}, nil
	}
	return credentials.Local(ctx, repository, provider)
}
