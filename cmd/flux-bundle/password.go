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
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/image-source/image-source-controller/pkg/sign"
)

// passwordVariable is where cosign looks for the password of a key.
const passwordVariable = "COSIGN_PASSWORD"

// maxKeyBytes bounds the file of a key.
const maxKeyBytes = 64 << 10

// openKey reads the private key of a file, and the password from the environment
// or from the person at the terminal. It is never taken from the arguments, which
// everybody on a machine can see.
func openKey(ctx context.Context, s streams, path string, follow bool) (*sign.Key, error) {
	text, err := await(ctx, func() ([]byte, error) { return readFile(path, follow, maxKeyBytes) })
	if err != nil {
		return nil, fmt.Errorf("--sign-key %s: %w", path, pathless(err))
	}
	if err := sign.CheckKey(text); err != nil {
		return nil, fmt.Errorf("--sign-key %s: %w", path, err)
	}
	password, err := readPassword(ctx, s, "Password for "+filepath.Base(path)+": ")
	if err != nil {
		return nil, fmt.Errorf("--sign-key %s: %w", path, err)
	}
	key, err := sign.OpenKey(text, password)
	if err != nil {
		return nil, fmt.Errorf("--sign-key %s: %w", path, err)
	}
	if doubt := refusedElsewhere(key); doubt != "" {
		s.warnf("--sign-key %s: %s", path, doubt)
	}
	return key, nil
}

// refusedElsewhere names the programs that refuse the signatures of a key; empty: no known program.
func refusedElsewhere(key *sign.Key) string {
	const better = "sign with a key on P-256, as flux bundle generate-key-pair makes it"
	if key.Hash() == crypto.SHA256 {
		return ""
	}
	if public, is := key.GetPublicKey().(*ecdsa.PublicKey); is {
		return fmt.Sprintf("it is a key on %s: source-controller refuses what it signs, and so does cosign verify without --signature-digest-algorithm=%s; %s",
			public.Params().Name, strings.ToLower(strings.ReplaceAll(key.Hash().String(), "-", "")), better)
	}
	return fmt.Sprintf("it is a key of the kind %s: source-controller and cosign verify refuse what it signs; %s", key.GetKeyAlgorithm(), better)
}

// readPassword returns COSIGN_PASSWORD where it is set, be it empty, and else asks.
func readPassword(ctx context.Context, s streams, prompt string) ([]byte, error) {
	if password, found := s.lookupEnv(passwordVariable); found {
		return []byte(password), nil
	}
	terminal := terminalOf(s.in)
	if terminal == nil {
		return nil, errors.New("a password is needed: set " + passwordVariable + ", or run on a terminal")
	}
	return s.ask(ctx, terminal, prompt)
}
