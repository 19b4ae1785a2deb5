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
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/sign"
)

func newGenerateKeyPair(a *app) *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:     "generate-key-pair",
		Aliases: []string{"keygen"},
		Short:   "Make a key pair to sign with",
		Long: `Makes a key pair as cosign does: cosign.key, encrypted with a password, and cosign.pub. The password is asked for on a terminal, or
read from COSIGN_PASSWORD. Files that exist are never overwritten, and on an error neither file is there.

cosign.key signs, here with --sign-key or with cosign itself: keep it where nobody else reads it. cosign.pub verifies: put it into the
Secret that verify.secretRef of an ArtifactRepository or an OCIRepository names.`,
		Example: `  # make cosign.key and cosign.pub, and give the public key to the cluster
  flux bundle generate-key-pair
  kubectl -n apps create secret generic release-keys --from-file=cosign.pub

  # in CI, with another name
  COSIGN_PASSWORD="$PASSWORD" flux bundle generate-key-pair --output-key-prefix release`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s given, expected none: how the names of the files begin is said with --output-key-prefix", counted(len(args), "argument"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return a.generateKeyPair(cmd.Context(), prefix) },
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "`name` of the two files, before .key and .pub")
	return cmd
}

func (a *app) generateKeyPair(ctx context.Context, prefix string) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	private, public := prefix+".key", prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists and is not overwritten: what it signed could not be verified any more", path)
		}
	}
	password, err := a.newPassword(ctx, private)
	if err != nil {
		return err
	}
	pair, err := sign.GenerateKeyPair(password)
	if err != nil {
		return err
	}
	const secret, anybody = 0o600, 0o644
	if err := create(newFile{private, pair.Private, secret}, newFile{public, pair.Public, anybody}); err != nil {
		return err
	}
	a.statusf("%s holds the private key: keep it secret, and its password", private)
	a.statusf("%s holds the public key: it verifies what the other signs", public)
	return nil
}

// newPassword asks twice where it asks.
func (a *app) newPassword(ctx context.Context, private string) ([]byte, error) {
	password, err := a.password(ctx, "Password to encrypt "+private+" with: ")
	if err != nil {
		return nil, err
	}
	if _, found := a.lookupEnv(passwordVariable); found {
		return password, nil
	}
	again, err := a.password(ctx, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(password, again) {
		return nil, errors.New("the two passwords differ")
	}
	return password, nil
}

// newFile is a file to create.
type newFile struct {
	path    string
	content []byte
	mode    os.FileMode
}

// create writes files that must not exist: all of them, or on an error none. Each
// gets its name only when all are on the disk, so that a process that is killed
// leaves no part of one.
func create(files ...newFile) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, path := range made {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	written := make([]string, len(files))
	for i, f := range files {
		if written[i], err = f.write(); err != nil {
			return err
		}
		defer os.Remove(written[i]) // after a rename it is gone already
	}
	for i, f := range files {
		if err := claim(written[i], f.path); err != nil {
			return err
		}
		made = append(made, f.path)
	}
	return nil
}

// write puts the file on the disk, beside its place, and returns its path there.
func (f newFile) write() (path string, err error) {
	folder, name := filepath.Split(f.path)
	path = filepath.Join(folder, "."+name+"-"+rand.Text())
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode) //nolint:gosec // the person who runs the command names it
	if err != nil {
		return "", fmt.Errorf("cannot write %s: %w", f.path, pathless(err))
	}
	_, err = file.Write(f.content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("cannot write %s: %w", f.path, pathless(err)), os.Remove(path))
	}
	return path, nil
}

// claim gives a file a name that must not be taken. A file system without links
// cannot tell by itself whether it is.
func claim(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	if _, err := os.Lstat(to); err == nil {
		return fmt.Errorf("%s exists and is not overwritten", to)
	}
	return os.Rename(from, to)
}
