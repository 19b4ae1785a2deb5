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

	"github.com/fluxcd/pkg/apis/meta"
)

// Check tells whether the file that a record names is stored, and describes it as it is
// served now: the file exists, has the recorded length, and its last read succeeded. It
// reads no bytes; Scrub does. Of the artifact it reads path, digest and size.
//
// An error says that the disk did not answer.
func (s *Store) Check(ctx context.Context, key Key, artifact meta.Artifact) (_ Stored, _ bool, err error) {
	defer func() { err = diskFault("check the file of "+key.String(), err) }()
	sha256, ok := understand(key, artifact)
	if !ok || ctx.Err() != nil {
		return Stored{}, false, ctx.Err()
	}
	root, err := s.open()
	if err != nil {
		return Stored{}, false, err
	}
	defer root.Close()
	info, state, err := s.look(root, artifact.Path, sha256)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && state == bad, err == nil && artifact.Size != nil && *artifact.Size != info.Size():
		return Stored{}, false, nil
	case err != nil:
		return Stored{}, false, err
	}
	return s.describe(key, sha256, info.Size()), true, nil
}

// understand returns the digest of the file that a record names; ok is false when no
// file of this store could be meant by it, as by a record with a digest of another algorithm.
func understand(key Key, artifact meta.Artifact) (sha256 string, ok bool) {
	owner, sha256, ok := parsePath(artifact.Path)
	return sha256, ok && owner == key && artifact.Digest == algorithm+":"+sha256
}

// Has tells whether a published file is on this disk with the bytes that its name
// promises, whether a record names it or not.
func (s *Store) Has(ctx context.Context, key Key, sha256 string) (bool, error) {
	if err := validate(key, sha256); err != nil {
		return false, err
	}
	f, err := s.openGood(ctx, key.file(sha256), sha256)
	switch {
	case err == nil:
		return true, f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, diskFault("read the file of "+key.String(), err)
	}
}
