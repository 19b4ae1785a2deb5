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
	"path"
	"slices"
	"syscall"
	"time"
)

// Record is what one live object names.
type Record struct {
	// Key is the ExternalArtifact that the object publishes.
	Key Key
	// Paths are the files that must stay, as in artifact.path.
	Paths []string
	// Withdrawn are the SHA256 of files that must go.
	Withdrawn []string
	// Since is when the object was created. What was published before, and is not named,
	// is left of a former object of the same name, and must go: what that withdrew is
	// not known.
	Since time.Time
}

// Collected counts what was removed.
type Collected struct {
	// Files is the number of published files.
	Files int
	// Bytes is what the disk got back: shared bytes count with their last name.
	Bytes int64
}

// Collect removes what no record needs, given the records of all live objects.
//
// What a record names stays. Of the other files of a key with a record, those
// go that were withdrawn, published before the object was created or longer than the TTL ago, and then the oldest while the key
// has more files than the retention allows; this is how fluxcd/pkg/artifact understands the
// two flags. A key without a record loses all its files at once. Content that no key
// uses any more goes, and folders that are empty.
//
// Records are written after the bytes, so a file that was just published is in
// none: Put and Link hold theirs until a record names it or one that was published
// later for the same key, or Remove drops the key, or, when the record is never written, for
// five minutes or the TTL, whichever is longer.
//
// One file that cannot be removed does not keep the others.
func (s *Store) Collect(ctx context.Context, live []Record) (done Collected, err error) {
	defer func() { err = diskFault("collect files that nothing names", err) }()
	s.sweeps.Lock()
	defer s.sweeps.Unlock()
	root, err := s.open()
	if err != nil {
		return Collected{}, err
	}
	defer root.Close()
	s.holds.settle(live, s.now().Add(-max(s.ttl, minHold)))
	records := map[Key]*Record{}
	for i := range live {
		records[live[i].Key] = &live[i]
	}

	keys, err := publishedKeys(root)
	errs := []error{err}
	for _, key := range keys {
		if ctx.Err() != nil {
			break
		}
		errs = append(errs, s.sweepKey(root, key, records[key], &done))
	}
	errs = append(errs, s.sweepBlobs(ctx, root, &done), ctx.Err())
	return done, errors.Join(errs...)
}

// PublishedAt returns when a key's file was published last on this disk, under whichever
// key; zero if it is not there.
func (s *Store) PublishedAt(key Key, sha256 string) (time.Time, error) {
	f, info, err := s.openRegular(key.file(sha256))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, diskFault("look at a file of "+key.String(), err)
	}
	return info.ModTime(), f.Close()
}

// Remove removes all of a key's files now, held or not.
func (s *Store) Remove(ctx context.Context, key Key) (err error) {
	if !key.valid() || ctx.Err() != nil { // of another name there never was any
		return ctx.Err()
	}
	defer func() { err = diskFault("remove the files of "+key.String(), err) }()
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	s.holds.drop(key)
	return s.sweepKey(root, key, nil, &Collected{})
}

// Withdraw removes a key's file, held or not, and with no regard to retention:
// what was rejected must not be had again. Its content stays while another key uses it.
func (s *Store) Withdraw(ctx context.Context, key Key, sha256 string) (err error) {
	if !key.valid() || !isSHA256(sha256) || ctx.Err() != nil { // of another name there never was any
		return ctx.Err()
	}
	defer func() { err = diskFault("remove a file of "+key.String(), err) }()
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	s.holds.release(key, sha256)
	return errors.Join(s.unpublish(root, key, sha256, &Collected{}), s.removeEmpty(root, key))
}

// stored is one published file as the sweep sees it.
type stored struct {
	path      string
	sha256    string
	published time.Time
}

// garbage returns the files of a key that may go, as far as its record and their ages
// tell: all of them if there is no record.
func (s *Store) garbage(files []stored, record *Record) []stored {
	if record == nil {
		return files
	}
	slices.SortFunc(files, func(a, b stored) int { return a.published.Compare(b.published) })
	var unneeded, gone []stored
	for _, f := range files {
		switch {
		case slices.Contains(record.Paths, f.path):
		case slices.Contains(record.Withdrawn, f.sha256), f.published.Before(record.Since), s.now().Sub(f.published) > s.ttl:
			gone = append(gone, f)
		default:
			unneeded = append(unneeded, f)
		}
	}
	surplus := min(max(len(files)-len(gone)-s.records, 0), len(unneeded))
	return append(gone, unneeded[:surplus]...)
}

// sweepKey removes the files of a key that its record does not need; nil is no record.
func (s *Store) sweepKey(root *os.Root, key Key, record *Record, done *Collected) error {
	files, strangers, err := filesOf(root, key)
	if err != nil {
		return err
	}
	garbage := s.garbage(files, record)
	var errs []error
	for _, f := range garbage {
		errs = append(errs, s.unpublish(root, key, f.sha256, done))
	}
	if record == nil {
		for _, name := range strangers {
			errs = append(errs, root.RemoveAll(name))
		}
	}
	if len(garbage) == len(files) {
		errs = append(errs, s.removeEmpty(root, key))
	}
	return errors.Join(errs...)
}

// filesOf lists a key's folder: the files that were published there, and what
// is none of ours.
func filesOf(root *os.Root, key Key) (files []stored, strangers []string, err error) {
	entries, err := readFolder(root, key.folder())
	if err != nil {
		return nil, nil, err
	}
	for _, entry := range entries {
		name := path.Join(key.folder(), entry.Name())
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, nil, err
		}
		sha256, ok := parseFile(entry.Name())
		if !ok || !info.Mode().IsRegular() {
			strangers = append(strangers, name)
			continue
		}
		files = append(files, stored{path: name, sha256: sha256, published: info.ModTime()})
	}
	return files, strangers, nil
}

// unpublish removes a key's file, and its content when that was the last key.
// A file that is held stays, also when it was published after it was listed.
func (s *Store) unpublish(root *os.Root, key Key, sha256 string, done *Collected) error {
	defer s.lock(sha256)()
	if s.holds.has(key, sha256) {
		return nil
	}
	removed, err := unlink(root, key.file(sha256), done)
	if removed {
		done.Files++
	}
	return errors.Join(err, s.dropUnused(root, sha256, done))
}

// sweepBlobs removes content whose last name went without it.
func (s *Store) sweepBlobs(ctx context.Context, root *os.Root, done *Collected) error {
	entries, err := readFolder(root, blobsFolder)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		if ctx.Err() != nil {
			break
		}
		if sha256 := entry.Name(); isSHA256(sha256) {
			unlock := s.lock(sha256)
			errs = append(errs, s.dropUnused(root, sha256, done))
			unlock()
		}
	}
	return errors.Join(errs...)
}

// dropUnused removes a blob that has no other name. The caller holds the lock
// of the digest, so that no name is being made.
func (s *Store) dropUnused(root *os.Root, sha256 string, done *Collected) error {
	info, err := root.Lstat(blobPath(sha256))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !info.Mode().IsRegular() || links(info) > 1 {
		return err
	}
	s.found.drop(sha256)
	_, err = unlink(root, blobPath(sha256), done)
	return err
}

// unlink removes one name and counts the bytes that nothing names any more.
func unlink(root *os.Root, name string, done *Collected) (bool, error) {
	info, err := root.Lstat(name)
	if err == nil {
		err = root.Remove(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if links(info) == 1 {
		done.Bytes += info.Size()
	}
	return true, nil
}

// removeEmpty removes the folders of a key and of its namespace if nothing is
// left in them.
func (s *Store) removeEmpty(root *os.Root, key Key) error {
	s.folders.Lock()
	defer s.folders.Unlock()
	for _, folder := range []string{key.folder(), path.Dir(key.folder())} {
		err := root.Remove(folder)
		if errors.Is(err, fs.ErrExist) { // what the system calls "not empty"
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// publishedKeys lists the keys that have a folder. A namespace that cannot be
// listed does not hide the others.
func publishedKeys(root *os.Root) ([]Key, error) {
	namespaces, err := readFolder(root, publishedFolder)
	errs := []error{err}
	var keys []Key
	for _, namespace := range namespaces {
		if !namespace.IsDir() {
			continue
		}
		names, err := readFolder(root, path.Join(publishedFolder, namespace.Name()))
		errs = append(errs, err)
		for _, name := range names {
			if key := (Key{Namespace: namespace.Name(), Name: name.Name()}); name.IsDir() && key.valid() {
				keys = append(keys, key)
			}
		}
	}
	return keys, errors.Join(errs...)
}

// readFolder lists a folder; one that does not exist, or is none, is empty.
func readFolder(root *os.Root, folder string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(root.FS(), folder)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return entries, err
}
