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

package store

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/artifact/digest"
)

const sha256Name = "sha256"

// newHash returns the hash of a supported algorithm. Flux's packages know sha1
// too, for Git; bytes that are deployed deserve better.
func newHash(algorithm string) (hash.Hash, error) {
	supported := []string{sha256Name, "sha384", "sha512", "blake3"}
	if !slices.Contains(supported, algorithm) {
		return nil, fmt.Errorf("digest algorithm %.40q is none of %s", algorithm, strings.Join(supported, ", "))
	}
	a, err := digest.AlgorithmForName(algorithm)
	if err != nil {
		return nil, err
	}
	return a.Hash(), nil
}

// splitDigest takes algorithm:hex apart; ok tells whether the algorithm is
// supported and the digits are as many as it gives.
func splitDigest(d string) (algorithm, digits string, ok bool) {
	algorithm, digits, _ = strings.Cut(d, ":")
	h, err := newHash(algorithm)
	if err != nil || len(digits) != hex.EncodedLen(h.Size()) || !isHex(digits) {
		return "", "", false
	}
	return algorithm, digits, true
}

// joinDigest is the opposite of splitDigest, from the digits of each algorithm.
func joinDigest(algorithm string, sums map[string]string) string {
	return algorithm + ":" + sums[algorithm]
}

// knownDigest returns algorithm:hex by the configured algorithm where no byte
// needs to be read for it: the sha256 is what a content is named by, and the
// others are remembered of what was read before.
func (s *Store) knownDigest(sha256 string) (digest string, ok bool) {
	if s.algorithm == sha256Name {
		return sha256Name + ":" + sha256, true
	}
	return s.sound.digest(sha256)
}

// storedDigest returns algorithm:hex of a stored content by the configured
// algorithm; fs.ErrNotExist says that it is not stored, or was damaged. Where it
// reads it may take long: the caller must not hold the lock of the digest.
func (s *Store) storedDigest(ctx context.Context, sha256 string) (string, error) {
	if digest, ok := s.knownDigest(sha256); ok {
		return digest, nil
	}
	digest, _, err := s.read(ctx, blobPath(sha256), sha256)
	return digest, err
}

// scratchDigest returns the same of the scratch file at name, whose sha256 is
// taken as given.
func (s *Store) scratchDigest(ctx context.Context, root *os.Root, name, sha256 string) (string, error) {
	if digest, ok := s.knownDigest(sha256); ok {
		return digest, nil
	}
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sums, err := hashAll(ctx, f, s.algorithm)
	return joinDigest(s.algorithm, sums), err
}

// hashAll reads r once and returns the digits of each algorithm.
func hashAll(ctx context.Context, r io.Reader, algorithms ...string) (map[string]string, error) {
	hashes := map[string]hash.Hash{}
	var writers []io.Writer
	for _, name := range algorithms {
		if hashes[name] != nil {
			continue
		}
		h, err := newHash(name)
		if err != nil {
			return nil, err
		}
		hashes[name] = h
		writers = append(writers, h)
	}
	if _, err := io.Copy(io.MultiWriter(writers...), cancellable(ctx, r)); err != nil {
		return nil, err
	}
	sums := map[string]string{}
	for name, h := range hashes {
		sums[name] = hex.EncodeToString(h.Sum(nil))
	}
	return sums, nil
}

// cancellable ends the reading of a large file when nobody waits any more.
func cancellable(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type readFunc func(p []byte) (int, error)

// Read implements io.Reader.
func (f readFunc) Read(p []byte) (int, error) { return f(p) }
