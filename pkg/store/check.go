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
	"errors"
	"io/fs"
	"os"

	"github.com/fluxcd/pkg/apis/meta"
)

// Depth says how much of a stored file Check looks at.
type Depth int

const (
	// Shallow asks whether the file is there, of the recorded length, and could be
	// read when it was last to be.
	Shallow Depth = iota
	// Deep reads the file to its end as well and compares its digest.
	Deep
)

// Check tells whether the file that a record names is stored, and describes it
// as it is served now. Of the artifact it reads path, digest and size.
//
// Bytes that are not what their name says are removed under every name that
// they have, so that they are made again and nobody is served them meanwhile. A file
// that cannot be read to its end gets false, and stays until it is replaced. A record
// that disagrees with good bytes, or names what is never stored for that key,
// gets false and removes nothing. An error says that the disk did not answer.
func (s *Store) Check(ctx context.Context, key Key, artifact meta.Artifact, depth Depth) (Stored, bool, error) {
	want, ok := understand(key, artifact)
	if !ok {
		return Stored{}, false, nil
	}
	root, err := s.open()
	if err != nil {
		return Stored{}, false, diskFault("check the file of "+key.String(), err)
	}
	defer root.Close()
	size, ok, err := s.check(ctx, root, want, depth)
	if errors.Is(err, fs.ErrNotExist) {
		return Stored{}, false, nil
	}
	if !ok || err != nil {
		return Stored{}, false, diskFault("check the file of "+key.String(), err)
	}
	return s.describe(key, want.sha256, artifact.Digest, size), true, nil
}

// expectation is the part of a record that a file can be compared with.
type expectation struct {
	path      string
	sha256    string
	algorithm string
	digits    string
	size      *int64 // nil: not recorded
}

// understand reads a record; ok is false when no file of this store could be
// meant by it.
func understand(key Key, artifact meta.Artifact) (want expectation, ok bool) {
	owner, sha256, ok := parsePath(artifact.Path)
	if !ok || owner != key {
		return expectation{}, false
	}
	algorithm, digits, ok := splitDigest(artifact.Digest)
	if !ok || algorithm == sha256Name && digits != sha256 {
		return expectation{}, false
	}
	return expectation{path: artifact.Path, sha256: sha256, algorithm: algorithm, digits: digits, size: artifact.Size}, true
}

func (s *Store) check(ctx context.Context, root *os.Root, want expectation, depth Depth) (size int64, ok bool, err error) {
	info, err := root.Lstat(want.path)
	if err != nil {
		return 0, false, err
	}
	if !info.Mode().IsRegular() {
		return 0, false, root.RemoveAll(want.path)
	}
	if depth == Shallow && s.sound.doubts(want.sha256, info) {
		return 0, false, nil
	}
	rightSize := want.size == nil || *want.size == info.Size()
	if rightSize && depth == Shallow {
		return info.Size(), true, nil
	}
	// A wrong length alone does not say who is wrong, the bytes or the record.
	f, err := root.Open(want.path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	sums, err := s.examine(ctx, f, want.sha256, want.algorithm)
	if err != nil {
		return 0, false, err
	}
	return info.Size(), rightSize && sums[want.algorithm] == want.digits, nil
}
