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
	// Deep reads the file to its end as well and compares its digest with its name.
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
	sha256, ok := understand(key, artifact)
	if !ok {
		return Stored{}, false, nil
	}
	root, err := s.open()
	if err != nil {
		return Stored{}, false, diskFault("check the file of "+key.String(), err)
	}
	defer root.Close()
	size, ok, err := s.check(ctx, root, artifact, sha256, depth)
	if errors.Is(err, fs.ErrNotExist) {
		return Stored{}, false, nil
	}
	if !ok || err != nil {
		return Stored{}, false, diskFault("check the file of "+key.String(), err)
	}
	return s.describe(key, sha256, size), true, nil
}

// understand returns the digest of the file that a record names; ok is false when no
// file of this store could be meant by it, as by a record with a digest of another algorithm.
func understand(key Key, artifact meta.Artifact) (sha256 string, ok bool) {
	owner, sha256, ok := parsePath(artifact.Path)
	return sha256, ok && owner == key && artifact.Digest == algorithm+":"+sha256
}

func (s *Store) check(ctx context.Context, root *os.Root, artifact meta.Artifact, sha256 string, depth Depth) (size int64, ok bool, err error) {
	info, good, err := s.glance(root, artifact.Path, sha256)
	if err != nil {
		return 0, false, err
	}
	rightSize := artifact.Size == nil || *artifact.Size == info.Size()
	if depth == Shallow && (rightSize || !good) {
		return info.Size(), good, nil
	}
	// A wrong length alone does not say who is wrong, the bytes or the record.
	f, err := root.Open(artifact.Path)
	if err != nil {
		return 0, false, err
	}
	defer f.Close()
	if err := s.examine(ctx, f, sha256); err != nil {
		return 0, false, err
	}
	return info.Size(), rightSize, nil
}
