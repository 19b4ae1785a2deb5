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

// state is the known state of the bytes of a file.
type state int

const (
	// unread: this process has not read the file as it is now.
	unread state = iota
	// good: the bytes have the digest in the file's name.
	good
	// bad: the file could not be read to its end the last time, or has other bytes.
	bad
)

// findings are the results of the last readings of stored files. Before it is served,
// each content is read once in a process, and once more when its file was changed. Scrub
// finds damage that leaves no trace in the file's attributes.
type findings struct {
	mu sync.Mutex
	// bySHA256 holds the files that were read last, the latest last. A content has more
	// than one file where a file system bounds the names of a file.
	bySHA256 map[string][]finding
	readings flight.Group[string, struct{}]
}

// maxFiles bounds the files of one content that are remembered.
const maxFiles = 8

// finding is the result of the last reading of a file.
type finding struct {
	// file is the file as it was then.
	file  fs.FileInfo
	state state
}

// of returns the known state of a file. A good one that was changed since is unread; a bad
// one stays bad until it is read again or replaced.
func (f *findings) of(sha256 string, file fs.FileInfo) state {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, last := range f.bySHA256[sha256] {
		if !os.SameFile(last.file, file) {
			continue
		}
		if last.state == good && (last.file.Size() != file.Size() || !last.file.ModTime().Equal(file.ModTime())) {
			return unread
		}
		return last.state
	}
	return unread
}

// note remembers a finding in the place of an earlier one of the same file; unread is no
// finding.
func (f *findings) note(sha256 string, file fs.FileInfo, now state) {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := slices.DeleteFunc(f.bySHA256[sha256], func(last finding) bool { return os.SameFile(last.file, file) })
	if now != unread {
		found = append(found, finding{file, now})
	}
	if len(found) == 0 {
		delete(f.bySHA256, sha256)
		return
	}
	f.bySHA256[sha256] = found[max(len(found)-maxFiles, 0):]
}

func (f *findings) drop(sha256 string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.bySHA256, sha256)
}

// look looks at a stored file without reading it. An entry that is no regular file is removed, and
// missing (fs.ErrNotExist).
func (s *Store) look(root *os.Root, name, sha256 string) (fs.FileInfo, state, error) {
	info, err := root.Lstat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = cmp.Or(root.RemoveAll(name), fs.ErrNotExist)
	}
	if err != nil {
		return nil, unread, err
	}
	return info, s.found.of(sha256, info), nil
}

// openGood opens a stored file whose bytes are known to be good. A bad one is missing
// (fs.ErrNotExist), and so is what is no regular file. Readings of one content that are
// asked for at the same time are one, under any name.
func (s *Store) openGood(ctx context.Context, name, sha256 string) (*os.File, error) {
	for {
		f, info, err := s.openRegular(name)
		if err != nil || s.found.of(sha256, info) == good {
			return f, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		_, shared, err := s.found.readings.Do(ctx, sha256, func(ctx context.Context) (struct{}, error) {
			// The reading has a file of its own: it may outlive its first caller.
			_, err := s.examine(ctx, name, sha256, nil)
			return struct{}{}, err
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

// openRegular opens a file below the root; an entry that is no regular file is missing.
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

// examine reads a stored file to its end. A bad one is missing (fs.ErrNotExist), and lost
// are the keys that had it. A pace bounds the rate of reading; nil does not.
func (s *Store) examine(ctx context.Context, name, sha256 string, pace Limiter) (lost []Key, err error) {
	f, _, err := s.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return s.readToEnd(ctx, f, sha256, pace)
}

// readToEnd does the work of examine. A file with other bytes than its name says loses all
// its names.
//
// A file that cannot be read to its end keeps them: the disk may be able to tomorrow, and
// nobody else may have the bytes. Put replaces it.
func (s *Store) readToEnd(ctx context.Context, f *os.File, sha256 string, pace Limiter) (lost []Key, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	source := &failing{r: f}
	got, _, err := digits(paced(ctx, source, pace))
	switch {
	case err != nil && source.err == nil: // the caller or the pace ended it
		return nil, err
	case err == nil && got == sha256:
		s.found.note(sha256, info, good)
		return nil, nil
	}
	s.found.note(sha256, info, bad)
	lost, err = s.lose(sha256, info, source.err == nil)
	return lost, cmp.Or(err, fs.ErrNotExist)
}

// lose returns the keys that have a bad file, and takes all names from it if its bytes are
// damaged. A name that has got other bytes since is left alone.
func (s *Store) lose(sha256 string, file fs.FileInfo, damaged bool) (lost []Key, err error) {
	root, err := s.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	keys, err := publishedKeys(root)
	defer s.lock(sha256)()
	errs := []error{err}
	take := func(name string) (had bool) {
		info, err := root.Lstat(name)
		if had = err == nil && os.SameFile(info, file); had && damaged {
			err = root.Remove(name)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		return had
	}
	take(blobPath(sha256))
	for _, key := range keys {
		if take(key.file(sha256)) {
			lost = append(lost, key)
		}
	}
	err = errors.Join(errs...)
	if damaged && err == nil {
		s.found.note(sha256, file, unread) // nothing has that name any more
	}
	return lost, err
}
