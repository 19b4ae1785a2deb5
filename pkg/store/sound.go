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
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/image-source/image-source-controller/pkg/flight"
)

// soundness knows which stored bytes are what their name says, so that each
// content is read once in a process before it is served, and once more when its
// file was changed. What decays without a trace in the file's attributes is
// found by Check.
type soundness struct {
	mu sync.Mutex
	// found are the files that were read last, by sha256, the latest last. A content has
	// more than one file where a file system bounds the names of a file.
	found    map[string][]finding
	readings flight.Group[string, struct{}]
}

// maxFiles bounds the files of one content that are remembered.
const maxFiles = 8

// finding is the result of the last reading of a file.
type finding struct {
	// file is the file as it was then.
	file fs.FileInfo
	// read is false when it could not be read to its end. Else its bytes are good.
	read bool
}

// has tells whether a file is as it was when its bytes were found good.
func (s *soundness) has(sha256 string, info fs.FileInfo) bool {
	last := s.last(sha256, info)
	return last.read && last.file.Size() == info.Size() && last.file.ModTime().Equal(info.ModTime())
}

// doubts tells whether a file could not be read when it was last to be.
func (s *soundness) doubts(sha256 string, info fs.FileInfo) bool {
	last := s.last(sha256, info)
	return last.file != nil && !last.read
}

func (s *soundness) last(sha256 string, info fs.FileInfo) finding {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.found[sha256] {
		if os.SameFile(f.file, info) {
			return f
		}
	}
	return finding{}
}

// note remembers a finding in the place of an earlier one of the same file.
func (s *soundness) note(sha256 string, file fs.FileInfo, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := slices.DeleteFunc(s.found[sha256], func(f finding) bool { return os.SameFile(f.file, file) })
	found = append(found, finding{file, read})
	s.found[sha256] = found[max(len(found)-maxFiles, 0):]
}

func (s *soundness) drop(sha256 string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.found, sha256)
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
// bytes are not is taken away, and missing (fs.ErrNotExist), as is what cannot be
// read or is no regular file. Readings of one content that are asked for at the same
// time are one, under any name.
func (s *Store) openSound(ctx context.Context, key Key, sha256 string) (*os.File, error) {
	name := key.file(sha256)
	for {
		f, info, err := s.openRegular(name)
		if err != nil || s.sound.has(sha256, info) {
			return f, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		_, shared, err := s.sound.readings.Do(ctx, sha256, func(ctx context.Context) (struct{}, error) {
			// The reading has a file of its own: it may outlive who began it.
			f, _, err := s.openRegular(name)
			if err != nil {
				return struct{}{}, err
			}
			defer f.Close()
			return struct{}{}, s.examine(ctx, f, sha256)
		})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if shared {
			// What another caller read is nearly always this file too, under another
			// name. A copy that was restored from elsewhere is not.
			continue
		}
		if err != nil {
			return nil, err
		}
		f, _, err = s.openRegular(name)
		return f, err
	}
}

// glance looks at a stored file without reading it; good is false when it could not be
// read the last time. What is no regular file is removed, and missing (fs.ErrNotExist).
func (s *Store) glance(root *os.Root, name, sha256 string) (info fs.FileInfo, good bool, err error) {
	info, err = root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = cmp.Or(root.RemoveAll(name), fs.ErrNotExist)
	}
	if err != nil {
		return nil, false, err
	}
	return info, !s.sound.doubts(sha256, info), nil
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

// examine reads an open stored file to its end. Bytes that are not what sha256 says
// lose all their names, and are missing (fs.ErrNotExist).
//
// So is a file that cannot be read to its end, but it keeps its names: the disk may
// be able to tomorrow, and nobody else may have the bytes. Whoever has them replaces it.
func (s *Store) examine(ctx context.Context, f *os.File, sha256 string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	got, err := digits(ctx, f)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		s.sound.note(sha256, info, false)
		return fs.ErrNotExist
	case got != sha256:
		return cmp.Or(s.quarantine(sha256, info), fs.ErrNotExist)
	}
	s.sound.note(sha256, info, true)
	return nil
}

// quarantine takes every name from damaged bytes. A name that has got other
// bytes since is left alone.
func (s *Store) quarantine(sha256 string, damaged fs.FileInfo) error {
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	keys, err := publishedKeys(root)
	defer s.lock(sha256)()
	s.sound.drop(sha256)
	errs := []error{err, removeSame(root, blobPath(sha256), damaged)}
	for _, key := range keys {
		errs = append(errs, removeSame(root, key.file(sha256), damaged))
	}
	return errors.Join(errs...)
}

func removeSame(root *os.Root, name string, damaged fs.FileInfo) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !os.SameFile(info, damaged) {
		return nil
	}
	return root.Remove(name)
}
