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
	"sync"

	"github.com/image-source/image-source-controller/pkg/flight"
)

// soundness knows which stored bytes are what their name says, so that each
// content is read once in a process before it is served, and once more when its
// file was changed. What decays without a trace in the file's attributes is
// found by Check.
type soundness struct {
	mu       sync.Mutex
	files    map[string]fs.FileInfo // by digest, as they were found
	readings flight.Group[string, bool]
}

// has tells whether a file is as it was when its bytes were found good.
func (s *soundness) has(sha256 string, info fs.FileInfo) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.files[sha256]
	return ok && os.SameFile(known, info) && known.Size() == info.Size() && known.ModTime().Equal(info.ModTime())
}

func (s *soundness) add(sha256 string, info fs.FileInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		s.files = map[string]fs.FileInfo{}
	}
	s.files[sha256] = info
}

func (s *soundness) drop(sha256 string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, sha256)
}

// Has tells whether a published file is on this disk with the bytes that its name
// promises, whether a record names it or not.
func (s *Store) Has(ctx context.Context, key Key, sha256 string) (bool, error) {
	if err := validate(key, sha256); err != nil {
		return false, err
	}
	f, err := s.openSound(ctx, key, sha256)
	switch {
	case err == nil:
		return true, f.Close()
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, diskFault("read the file of "+key.String(), err)
	}
}

// openSound opens a published file whose bytes are known to be good. One whose
// bytes are not is taken away, and missing (fs.ErrNotExist), as is what is no
// regular file.
func (s *Store) openSound(ctx context.Context, key Key, sha256 string) (*os.File, error) {
	f, info, err := s.openRegular(key.file(sha256))
	if err != nil || s.sound.has(sha256, info) {
		return f, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// The reading has a file of its own: it may outlive who began it.
	good, _, err := s.sound.readings.Do(ctx, key.file(sha256), func(ctx context.Context) (bool, error) {
		return s.assure(ctx, key, sha256)
	})
	switch {
	case err != nil:
		return nil, err
	case !good:
		return nil, fs.ErrNotExist
	}
	f, _, err = s.openRegular(key.file(sha256))
	return f, err
}

// openRegular opens a file below the root; what is no regular file is missing.
func (s *Store) openRegular(name string) (*os.File, fs.FileInfo, error) {
	root, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	// Looked at before it is opened: opening a pipe would wait for its writer.
	if info, err := root.Lstat(name); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// assure reads a published file and tells whether its bytes are good. If they
// are not, they lose all their names.
func (s *Store) assure(ctx context.Context, key Key, sha256 string) (bool, error) {
	f, info, err := s.openRegular(key.file(sha256))
	if err != nil {
		return false, err
	}
	defer f.Close()
	sums, err := hashAll(ctx, f, sha256Name)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	// A file that cannot be read to its end is as damaged as one that reads differently.
	if err != nil || sums[sha256Name] != sha256 {
		return false, s.condemn(sha256, info)
	}
	s.sound.add(sha256, info)
	return true, nil
}

// condemn is quarantine for who has no root open.
func (s *Store) condemn(sha256 string, damaged fs.FileInfo) error {
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	return s.quarantine(root, sha256, damaged)
}
