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
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// treeFile is a file of what is published.
type treeFile struct {
	path string
	// copy counts the files of one path: 0, and from 2 for further ones. Only charts have
	// those: helm package writes a dependency twice that it finds as folder and archive.
	copy int
	// mode is its permissions.
	mode fs.FileMode
	size int64
	// digest is the sha256 of its content, in hexadecimal.
	digest string
}

func (f treeFile) executable() bool { return isExecutable(f.mode) }

// isExecutable tells whether anybody may execute a file of that mode, which is all
// that git and Flux keep of it.
func isExecutable(mode fs.FileMode) bool { return mode&0o111 != 0 }

// tree is what an archive unpacks to.
type tree struct {
	files []treeFile
	// folders by their path, with their permissions.
	folders map[string]fs.FileMode
	// copies is how many files have a path.
	copies map[string]int
	// chart tells that it is that of a Helm chart.
	chart bool
	// lone tells that it is a file by itself, not the only one of a folder.
	lone bool
}

func newTree() *tree {
	return &tree{folders: map[string]fs.FileMode{}, copies: map[string]int{}}
}

// stored is the path of a file in the folder that the tree is unpacked to. Helm loads
// charts that no folder can hold: with two files, or a file and a folder, of one name.
func (t *tree) stored(name string, n int) string {
	if !t.chart {
		return name
	}
	return fmt.Sprintf("%x-%d", sha256.Sum256([]byte(name)), n)
}

// repeated returns the paths that more than one file has.
func (t *tree) repeated() (paths []string) {
	for path, n := range t.copies {
		if n > 1 {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// empty returns the folders with nothing in them.
func (t *tree) empty() (folders []string) {
	filled := map[string]bool{}
	for _, f := range t.files {
		filled[path.Dir(f.path)] = true
	}
	for folder := range t.folders {
		filled[path.Dir(folder)] = true
	}
	for folder := range t.folders {
		if !filled[folder] {
			folders = append(folders, folder)
		}
	}
	return folders
}

// size is how much all files hold together.
func (t *tree) size() (sum int64) {
	for _, f := range t.files {
		sum += f.size
	}
	return sum
}

// implied are the permissions of a folder that an archive does not name.
const implied fs.FileMode = 0o750

// readTree lists a published archive, which pkg/format has checked: its size,
// its names, and that it holds nothing but files and folders. With into it is unpacked
// there, as consumers unpack it: nothing is written outside, or over anything. The umask
// holds for files; folders are for this user alone.
func readTree(ctx context.Context, archive string, into *os.Root) (*tree, error) {
	t := newTree()
	return t, t.read(ctx, archive, func(header *tar.Header, content io.Reader) error { return t.take(header, content, into) })
}

// readChart is readTree for a chart, with the files that Helm reads: what is no folder
// by its mode is a file, and a link an empty one. The first element of every path is
// the folder of the chart, whatever it is called. They are unpacked under the names of stored.
func readChart(ctx context.Context, archive string, into *os.Root) (*tree, error) {
	t, top := newTree(), ""
	t.chart = true
	return t, t.read(ctx, archive, func(header *tar.Header, content io.Reader) error {
		if header.FileInfo().IsDir() {
			return nil
		}
		first, inside, _ := strings.Cut(header.Name, "/")
		top = cmp.Or(top, first)
		header.Name = path.Join(top, inside)
		return t.take(header, content, into)
	})
}

// read hands over the entries of a published archive, and sorts the files of the tree.
func (t *tree) read(ctx context.Context, archive string, take func(header *tar.Header, content io.Reader) error) error {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return err
	}
	defer file.Close()
	uncompressed, err := gzip.NewReader(file)
	if err != nil {
		return fmt.Errorf("cannot unpack what is published: %w", err)
	}
	for entries := tar.NewReader(&untilDone{ctx, uncompressed}); ; {
		header, err := entries.Next()
		switch {
		case errors.Is(err, io.EOF):
			slices.SortFunc(t.files, func(a, b treeFile) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.copy, b.copy)) })
			return nil
		case err != nil:
			return fmt.Errorf("cannot unpack what is published: %w", err)
		case header.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		if err := take(header, entries); err != nil {
			return err
		}
	}
}

func (t *tree) take(header *tar.Header, content io.Reader, into *os.Root) error {
	name, mode := path.Clean(header.Name), header.FileInfo().Mode().Perm()
	_, made := t.folders[path.Dir(name)]
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		if _, known := t.folders[folder]; known {
			break // and so are those that it is in
		}
		t.folders[folder] = implied
	}
	if header.Typeflag == tar.TypeDir {
		t.folders[name] = mode | 0o700
		if into == nil {
			return nil
		}
		return into.MkdirAll(name, 0o700)
	}
	var out io.WriteCloser = nowhere{io.Discard}
	t.copies[name]++
	taken := treeFile{path: name, mode: mode}
	if n := t.copies[name]; n > 1 {
		taken.copy = n
	}
	stored := t.stored(name, taken.copy)
	if into != nil {
		if !made {
			if err := into.MkdirAll(path.Dir(stored), 0o700); err != nil {
				return err
			}
		}
		// The system takes away what the umask does. A chart may have files that their
		// owner could not read again.
		file, err := into.OpenFile(stored, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o600)
		if err != nil {
			return err
		}
		out = file
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(out, sum), content)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("cannot unpack %q: %w", name, err)
	}
	taken.size, taken.digest = size, hex.EncodeToString(sum.Sum(nil))
	t.files = append(t.files, taken)
	return nil
}

// fileTree is a tree of one file, which is copied as it is.
func fileTree(ctx context.Context, from, name string, into *os.Root) (*tree, error) {
	source, err := os.Open(from) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return nil, err
	}
	defer source.Close()
	t := newTree()
	t.lone = true
	return t, t.take(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, &untilDone{ctx, source}, into)
}

// eachFile hands over the files of a packed archive.
func eachFile(ctx context.Context, archive string, take func(header *tar.Header, content io.Reader) error) error {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return err
	}
	defer file.Close()
	uncompressed, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	for entries := tar.NewReader(&untilDone{ctx, uncompressed}); ; {
		header, err := entries.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case header.Typeflag != tar.TypeReg:
			continue
		}
		if err := take(header, entries); err != nil {
			return err
		}
	}
}

// nowhere takes everything.
type nowhere struct{ io.Writer }

// Close implements io.Closer.
func (nowhere) Close() error { return nil }

// untilDone reads for as long as the command may run.
type untilDone struct {
	ctx  context.Context //nolint:containedctx // a reader has no other way to end with the command
	from io.Reader
}

// Read implements io.Reader.
func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.from.Read(p)
}
