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
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// File is a finished file in a scratch folder.
type File struct {
	// Path is its absolute path, in a folder that Scratch made.
	Path string
	// SHA256 is the digest of its bytes, 64 lower case hexadecimal digits, as
	// computed when they were written.
	SHA256 string
	// Size is its length in bytes.
	Size int64
}

// Stored is a published file, in the words of a Flux artifact.
type Stored struct {
	// Path is relative to the storage path.
	Path string
	// URL is where consumers fetch it.
	URL string
	// Digest is sha256:hex.
	Digest string
	// SHA256 is what the file is named by, 64 hexadecimal digits.
	SHA256 string
	// Size is its length in bytes.
	Size int64
}

// Put publishes a finished file as the key's file of that content. The file is
// moved, not copied; where the content is stored already, the stored bytes get
// one more name and the file stays in its scratch folder. What is published is held against
// Collect until a record names it (see Collect).
//
// The file's length is compared with its Size. Its digest is taken as given, by
// who computed it when the bytes were written: what differs is found by Scrub
// later, and refused by consumers.
func (s *Store) Put(ctx context.Context, key Key, file File) (_ Stored, err error) {
	if err := validate(key, file.SHA256); err != nil {
		return Stored{}, err
	}
	defer func() { err = ScratchFault("store the file of "+key.String(), err) }()
	root, err := s.open()
	if err != nil {
		return Stored{}, err
	}
	defer root.Close()
	name, err := s.scratchName(root, file)
	if err != nil {
		return Stored{}, err
	}
	defer s.lock(file.SHA256)()
	if err := ctx.Err(); err != nil {
		return Stored{}, err
	}
	if err := s.keep(root, name, file); err != nil {
		return Stored{}, err
	}
	if err := s.publish(ctx, root, key, file.SHA256); err != nil {
		return Stored{}, err
	}
	return s.describe(key, file.SHA256, file.Size), nil
}

// Link publishes content that is stored already, under whichever key, as the
// key's file. It returns false when the content is not stored here. Whether the
// key may have that content is for the caller to know.
func (s *Store) Link(ctx context.Context, key Key, sha256 string) (_ Stored, _ bool, err error) {
	if err := validate(key, sha256); err != nil {
		return Stored{}, false, err
	}
	defer func() { err = diskFault("share a stored file with "+key.String(), err) }()
	root, err := s.open()
	if err != nil {
		return Stored{}, false, err
	}
	defer root.Close()
	stored, err := s.linkStored(ctx, root, key, sha256)
	if errors.Is(err, errNotStored) || errors.Is(err, fs.ErrNotExist) {
		return Stored{}, false, nil
	}
	return stored, err == nil, err
}

var errNotStored = errors.New("content is not stored")

func (s *Store) linkStored(ctx context.Context, root *os.Root, key Key, sha256 string) (Stored, error) {
	if _, known, err := s.look(root, blobPath(sha256), sha256); err != nil || known == bad {
		return Stored{}, cmp.Or(err, errNotStored)
	}
	blob, err := s.openGood(ctx, blobPath(sha256), sha256)
	if err != nil {
		return Stored{}, err
	}
	defer blob.Close()
	info, err := blob.Stat()
	if err != nil {
		return Stored{}, err
	}
	defer s.lock(sha256)()
	if err := s.publish(ctx, root, key, sha256); err != nil {
		return Stored{}, err
	}
	return s.describe(key, sha256, info.Size()), nil
}

func (s *Store) describe(key Key, sha256 string, size int64) Stored {
	p := key.file(sha256)
	return Stored{Path: p, URL: s.baseURL + "/" + p, Digest: algorithm + ":" + sha256, SHA256: sha256, Size: size}
}

// scratchName returns the path of a scratch file relative to the root, after
// a look at whether it is what the caller says.
func (s *Store) scratchName(root *os.Root, file File) (string, error) {
	name, err := filepath.Rel(s.root, file.Path)
	name = filepath.ToSlash(name)
	if err != nil || !strings.HasPrefix(name, scratchFolder+"/") {
		return "", fault.Stallf(v1alpha1.ReasonStorageOperationFailed, "the file to publish is not in a scratch folder of the store")
	}
	info, err := root.Lstat(name)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() != file.Size {
		return "", fmt.Errorf("the file to publish is a %s of %d bytes, expected a regular file of %d bytes",
			info.Mode().Type(), info.Size(), file.Size)
	}
	return name, nil
}

// keep makes the scratch file the blob of its digest, or finds that there is
// one already. A blob of the wrong length is replaced, and one that could not be
// read or that no key uses as well: the bytes at hand are known to be good, and
// those may have rotted.
func (s *Store) keep(root *os.Root, name string, file File) error {
	blob := blobPath(file.SHA256)
	info, known, err := s.look(root, blob, file.SHA256)
	switch {
	case err == nil && known != bad && info.Size() == file.Size && links(info) > 1:
		// The blob of another user cannot be dated; the file at hand takes its place.
		if err := s.touchKept(root, file.SHA256, info); !errors.Is(err, syscall.EPERM) {
			return err
		}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := s.flush(root, name); err != nil {
		return err
	}
	if err := root.MkdirAll(blobsFolder, folderMode); err != nil {
		return err
	}
	if err := root.Rename(name, blob); err != nil {
		return err
	}
	return s.vouch(root, file.SHA256)
}

// touchKept dates a blob anew. Bytes that were known to be good still are.
func (s *Store) touchKept(root *os.Root, sha256 string, kept fs.FileInfo) error {
	known := s.found.of(sha256, kept)
	if err := touch(root, blobPath(sha256), s.now()); err != nil || known != good {
		return err
	}
	return s.vouch(root, sha256)
}

// vouch notes that the blob, as it is now, has good bytes.
func (s *Store) vouch(root *os.Root, sha256 string) error {
	info, err := root.Lstat(blobPath(sha256))
	if err == nil {
		s.found.note(sha256, info, good)
	}
	return err
}

// flush brings a file's bytes and attributes to the disk before it gets a
// name that others trust.
func (s *Store) flush(root *os.Root, name string) error {
	if err := touch(root, name, s.now()); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(fileMode); err != nil {
		return err
	}
	return f.Sync()
}

// touch dates a content by its latest publication; retention counts from it.
func touch(root *os.Root, name string, now time.Time) error {
	return root.Chtimes(name, now, now)
}

// publish gives the blob its name under the key. The caller holds the lock of
// the digest.
func (s *Store) publish(ctx context.Context, root *os.Root, key Key, sha256 string) error {
	folders, err := s.link(ctx, root, key, sha256)
	if err != nil {
		return err
	}
	for _, folder := range folders {
		if err := syncFolder(root, folder); err != nil {
			return err
		}
	}
	s.holds.add(key, sha256, s.now())
	return nil
}

// link makes the hard link and returns the folders that it changed.
func (s *Store) link(ctx context.Context, root *os.Root, key Key, sha256 string) (changed []string, err error) {
	s.folders.RLock()
	defer s.folders.RUnlock()
	name := key.file(sha256)
	changed = []string{key.folder()}
	err = s.linkBlob(ctx, root, sha256, name)
	if errors.Is(err, fs.ErrNotExist) {
		changed = append(changed, path.Dir(key.folder()), publishedFolder)
		if err := root.MkdirAll(key.folder(), folderMode); err != nil {
			return nil, err
		}
		err = s.linkBlob(ctx, root, sha256, name)
	}
	if errors.Is(err, fs.ErrExist) {
		return s.relink(ctx, root, key, sha256)
	}
	return changed, err
}

// linkBlob gives the blob one more name. Where the file system refuses that, a copy
// becomes the blob and gets the name; earlier names keep the earlier file.
func (s *Store) linkBlob(ctx context.Context, root *os.Root, sha256, name string) error {
	err := root.Link(blobPath(sha256), name)
	switch {
	case errors.Is(err, syscall.EMLINK): // the file has as many names as it can have; 65,000 on ext4
	case errors.Is(err, syscall.EPERM): // the file is of another user (fs.protected_hardlinks of Linux)
	default:
		return err
	}
	if err := s.renew(ctx, root, sha256); err != nil {
		return err
	}
	return root.Link(blobPath(sha256), name)
}

// renew replaces the blob by a copy. Bytes that are not what sha256 says are not
// copied: the blob is removed, and errNotStored.
func (s *Store) renew(ctx context.Context, root *os.Root, sha256 string) error {
	scratch, err := makeScratch(root)
	if err != nil {
		return err
	}
	defer func() { _ = root.RemoveAll(scratch) }()
	name := path.Join(scratch, sha256)
	got, err := copyBlob(ctx, root, sha256, name)
	if err != nil {
		return err
	}
	if got != sha256 {
		s.found.drop(sha256)
		return cmp.Or(root.Remove(blobPath(sha256)), errNotStored)
	}
	if err := s.flush(root, name); err != nil {
		return err
	}
	if err := root.Rename(name, blobPath(sha256)); err != nil {
		return err
	}
	return s.vouch(root, sha256)
}

// copyBlob copies the blob to a new file and returns the digits of the bytes that it copied.
func copyBlob(ctx context.Context, root *os.Root, sha256, name string) (got string, err error) {
	blob, err := root.Open(blobPath(sha256))
	if err != nil {
		return "", err
	}
	defer blob.Close()
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return "", err
	}
	got, _, err = digits(io.TeeReader(paced(ctx, blob, nil), file))
	return got, errors.Join(err, file.Close())
}

// relink replaces a name that exists and is not the blob's: a copy that was
// restored from elsewhere, or bytes that were found to be damaged.
func (s *Store) relink(ctx context.Context, root *os.Root, key Key, sha256 string) (changed []string, err error) {
	name := key.file(sha256)
	blob, err := root.Lstat(blobPath(sha256))
	if err != nil {
		return nil, err
	}
	former, err := root.Lstat(name)
	if err != nil || os.SameFile(blob, former) {
		return nil, err
	}
	scratch, err := makeScratch(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.RemoveAll(scratch) }()
	aside := path.Join(scratch, rand.Text())
	if err := s.linkBlob(ctx, root, sha256, aside); err != nil {
		return nil, err
	}
	if former.IsDir() {
		if err := root.RemoveAll(name); err != nil {
			return nil, err
		}
	}
	return []string{key.folder()}, root.Rename(aside, name)
}
