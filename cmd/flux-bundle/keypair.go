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

func newGenerateKeyPair(s streams) *cobra.Command {
	var prefix string
	var follow bool
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
		RunE: func(cmd *cobra.Command, _ []string) error { return generateKeyPair(cmd.Context(), s, prefix, follow) },
	}
	cmd.Flags().StringVar(&prefix, "output-key-prefix", "cosign", "`name` of the two files, before .key and .pub")
	cmd.Flags().BoolVar(&follow, followFlag, false, followUsage)
	return cmd
}

func generateKeyPair(ctx context.Context, s streams, prefix string, follow bool) error {
	folder, _ := filepath.Split(prefix)
	at, err := locate(folder, follow)
	if err != nil {
		return fmt.Errorf("--output-key-prefix %s: %w", prefix, err)
	}
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	root, err := at.openFolder()
	if err != nil {
		return fmt.Errorf("--output-key-prefix %s: %w", prefix, pathless(err))
	}
	defer root.Close()
	private, public := prefix+".key", prefix+".pub"
	for _, path := range []string{private, public} {
		if _, err := root.Lstat(filepath.Base(path)); err == nil {
			return fmt.Errorf("%s exists and is not overwritten: what it signed could not be verified any more", path)
		}
	}
	password, err := newPassword(ctx, s, private)
	if err != nil {
		return err
	}
	pair, err := sign.GenerateKeyPair(password)
	if err != nil {
		return err
	}
	const secret, anybody = 0o600, 0o644
	if err := create(root, newFile{private, pair.Private, secret}, newFile{public, pair.Public, anybody}); err != nil {
		return err
	}
	s.statusf("%s holds the private key: keep it secret, and its password", private)
	s.statusf("%s holds the public key: it verifies what the other signs", public)
	return nil
}

// newPassword asks twice where it asks.
func newPassword(ctx context.Context, s streams, private string) ([]byte, error) {
	password, err := readPassword(ctx, s, "Password to encrypt "+private+" with: ")
	if err != nil {
		return nil, err
	}
	if _, found := s.lookupEnv(passwordVariable); found {
		return password, nil
	}
	again, err := readPassword(ctx, s, "The same again: ")
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
	// path as the person named it. Its last element is the name in the folder.
	path    string
	content []byte
	mode    os.FileMode
}

func (f newFile) name() string { return filepath.Base(f.path) }

// create writes files to a folder that must not exist: all of them, or on an error none. Each
// gets its name only when all are on the disk, so that a process that is killed
// leaves no part of one.
func create(folder *os.Root, files ...newFile) (err error) {
	var made []string
	defer func() {
		if err != nil {
			for _, name := range made {
				err = errors.Join(err, folder.Remove(name))
			}
		}
	}()
	written := make([]string, len(files))
	for i, f := range files {
		if written[i], err = f.write(folder); err != nil {
			return err
		}
		defer func() { _ = folder.Remove(written[i]) }() // after a rename it is gone already
	}
	for i, f := range files {
		if err := f.claim(folder, written[i]); err != nil {
			return err
		}
		made = append(made, f.name())
	}
	return nil
}

// write puts the file on the disk, beside its place, and returns its name there.
func (f newFile) write(folder *os.Root) (name string, err error) {
	name = "." + f.name() + "-" + rand.Text()
	file, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.mode)
	if err != nil {
		return "", fmt.Errorf("cannot write %s: %w", f.path, pathless(err))
	}
	_, err = file.Write(f.content)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("cannot write %s: %w", f.path, pathless(err)), folder.Remove(name))
	}
	return name, nil
}

// claim gives the written file its name, which must not be taken. A file
// system without links cannot tell by itself whether it is.
func (f newFile) claim(folder *os.Root, written string) error {
	if folder.Link(written, f.name()) == nil {
		return nil
	}
	if _, err := folder.Lstat(f.name()); err == nil {
		return fmt.Errorf("%s exists and is not overwritten", f.path)
	}
	return folder.Rename(written, f.name())
}

// checkPrefix refuses what two files cannot be named after.
func checkPrefix(prefix string) error {
	const flag = "output-key-prefix"
	folder, file := filepath.Split(prefix)
	if file == "" {
		return unexpected(flag, prefix, "how the names of two files begin, such as cosign or keys/cosign")
	}
	if folder == "" {
		return nil
	}
	switch info, err := os.Stat(folder); {
	case err != nil:
		return fmt.Errorf("--%s is %q, but there is no folder %q: %w", flag, prefix, folder, pathless(err))
	case !info.IsDir():
		return fmt.Errorf("--%s is %q, but %q is no folder", flag, prefix, folder)
	}
	return nil
}
