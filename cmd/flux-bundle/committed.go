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
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/sourceignore/gitignore"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/git"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// difference is the first file that is packed and not as it was committed, or
// committed and gone. It names no file where there is no commit.
type difference struct {
	file string
	// converted says how git may convert the file between the repository and the
	// working tree; empty for a plain change. No filter is run to undo that.
	converted string
}

// Error implements error, so that the first difference ends the comparison.
func (d *difference) Error() string { return d.file }

// packedOf is what was packed, and the commit that it may be of.
type packedOf struct {
	*format.Packed
	commit git.ID
	tree   git.ID
}

// packedFile is a file to compare with the commit.
type packedFile struct {
	id         git.ID
	executable bool
	// ruling tells that it is a .sourceignore file that is not packed.
	ruling bool
}

// comparing compares packed files with the tree of a commit.
type comparing struct {
	ctx  context.Context //nolint:containedctx // it lives for one call of differs
	from *local
	// prefix is the path of the folder in the working tree of the repository.
	prefix string
	// files by their path below the folder, and the folders that they are in.
	// What is found in the commit is removed.
	files   map[string]packedFile
	folders map[string]bool
	// ignored are the files that patterns left out, sorted.
	ignored []string
}

// differs compares what was packed with a commit: contents, names and executable
// bits. The index of git and its settings have no say, and nor has what patterns
// left out, but for the .sourceignore files that they are from. Files are compared as
// they were when they were packed: the folder may have changed since.
func differs(ctx context.Context, r *git.Repository, from *local, p packedOf) (*difference, error) {
	top, err := filepath.EvalSymlinks(r.Worktree())
	if err != nil {
		return nil, err
	}
	prefix, err := filepath.Rel(top, from.folder)
	if err != nil {
		return nil, err
	}
	c := &comparing{ctx: ctx, from: from, prefix: filepath.ToSlash(prefix), files: map[string]packedFile{}, folders: map[string]bool{}, ignored: p.Ignored}
	err = eachFile(ctx, p.Path, func(header *tar.Header, content io.Reader) error {
		return c.take(header, content, p.commit)
	})
	if err != nil {
		return nil, err
	}
	err = c.addIgnoreFiles(p.IgnoreFiles, p.commit)
	if err == nil {
		err = c.compareWith(r, p.tree)
	}
	if err == nil && len(c.files) > 0 {
		err = &difference{file: slices.Min(slices.Collect(maps.Keys(c.files)))}
	}
	if d, ok := errors.AsType[*difference](err); ok {
		return d, nil
	}
	return nil, err
}

// addIgnoreFiles adds the .sourceignore files that are not packed. One that is packed
// must be the one that decided.
func (c *comparing) addIgnoreFiles(bodies map[string][]byte, commit git.ID) error {
	for name, body := range bodies {
		sum := commit.BlobHash(int64(len(body)))
		sum.Write(body)
		decided := packedFile{id: git.ID(sum.Sum(nil)), ruling: true}
		file, packed := c.files[name]
		switch {
		case packed && file.id != decided.id, !packed && !c.isIgnored(name):
			return &difference{file: name}
		case !packed:
			c.files[name] = decided
		}
	}
	return nil
}

func (c *comparing) isIgnored(name string) bool {
	_, ignored := slices.BinarySearch(c.ignored, name)
	return ignored
}

// take hashes a packed file as git does.
func (c *comparing) take(header *tar.Header, content io.Reader, commit git.ID) error {
	name := path.Clean(header.Name)
	if c.from.file != "" {
		name = c.from.file
	}
	sum := commit.BlobHash(header.Size)
	if _, err := io.Copy(sum, content); err != nil {
		return err
	}
	c.files[name] = packedFile{id: git.ID(sum.Sum(nil)), executable: isExecutable(header.FileInfo().Mode())}
	for folder := path.Dir(name); !c.folders[folder]; folder = path.Dir(folder) {
		c.folders[folder] = true
	}
	return nil
}

// compareWith compares the folder with its tree in that of the commit.
func (c *comparing) compareWith(r *git.Repository, tree git.ID) error {
	tree, found, err := c.descend(r, tree)
	if err != nil || !found {
		return err
	}
	return c.compare(r, tree, ".")
}

// descend finds the tree of the folder in that of the commit.
func (c *comparing) descend(r *git.Repository, tree git.ID) (git.ID, bool, error) {
	if c.prefix == "." {
		return tree, true, nil
	}
next:
	for element := range strings.SplitSeq(c.prefix, "/") {
		entries, err := r.Tree(c.ctx, tree)
		if err != nil {
			return "", false, err
		}
		for _, e := range entries {
			if e.Name == element && e.Mode == git.ModeTree {
				tree = e.ID
				continue next
			}
		}
		return "", false, nil
	}
	return tree, true, nil
}

// compare compares a folder with its tree.
func (c *comparing) compare(r *git.Repository, tree git.ID, folder string) error {
	entries, err := r.Tree(c.ctx, tree)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name)
		file, packed := c.files[name]
		switch {
		case packed:
			delete(c.files, name)
			err = c.compareFile(r, e, name, file)
		case c.from.file != "":
		case e.Mode == git.ModeTree:
			// A tree may have more folders than anybody can visit, and a disk has not.
			if info, wrong := c.from.root.Lstat(name); wrong != nil || !info.IsDir() {
				return &difference{file: name}
			}
			err = c.compare(r, e.ID, name)
		case e.Mode == git.ModeCommit:
			if c.folders[name] {
				err = c.compareSubmodule(e.ID, name)
			}
		case e.Mode != git.ModeLink && !c.isIgnored(name): // a link is never packed
			return &difference{file: name}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *comparing) compareFile(r *git.Repository, e git.Entry, name string, file packedFile) error {
	isFile := e.Mode == git.ModeFile || e.Mode == git.ModeExecutable
	// Windows has no executable bit, and patterns need none.
	sameMode := file.ruling || file.executable == (e.Mode == git.ModeExecutable) || runtime.GOOS == "windows"
	switch {
	case isFile && file.id == e.ID && sameMode:
		return nil
	case !isFile || file.id == e.ID:
		return &difference{file: name}
	}
	return &difference{file: name, converted: c.conversion(r, e.ID, name)}
}

// compareSubmodule compares a folder with the commit of a submodule that the
// repository names, whatever commit is checked out in there.
func (c *comparing) compareSubmodule(commit git.ID, name string) error {
	r, err := git.Open(filepath.Join(c.from.folder, filepath.FromSlash(name)))
	if errors.Is(err, git.ErrNone) {
		return &difference{file: name}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	read, err := r.Commit(c.ctx, commit)
	if err != nil {
		return err
	}
	return c.compare(r, read.Tree, name)
}

// lfsPointer is how a file begins that Git LFS put in the place of another one:
// https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md.
const lfsPointer = "version https://git-lfs.github.com/spec/"

// conversion says why a file may differ from the commit without a change.
func (c *comparing) conversion(r *git.Repository, id git.ID, name string) string {
	if blob, err := r.Blob(c.ctx, id); err == nil && bytes.HasPrefix(blob, []byte(lfsPointer)) {
		return "Git LFS keeps its content"
	}
	onDisk := cmp.Or(c.from.name, name)
	if body, err := readBelow(c.from.root, onDisk, git.MaxObjectBytes); err == nil {
		unix := bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n"))
		sum := id.BlobHash(int64(len(unix)))
		sum.Write(unix)
		if git.ID(sum.Sum(nil)) == id {
			return "its line endings are converted"
		}
	}
	if c.hasAttribute(r, name) {
		return "a .gitattributes file has it converted"
	}
	return ""
}

// maxAttributesBytes is the size of the largest .gitattributes file that is read.
const maxAttributesBytes = 128 << 10

// hasAttribute tells whether a .gitattributes file names a filter, an encoding or a
// keyword for a file. A later line may take that back: it is not looked at, because
// the answer only words a warning.
func (c *comparing) hasAttribute(r *git.Repository, name string) bool {
	top, err := filepath.EvalSymlinks(r.Worktree())
	if err != nil {
		return false
	}
	file, err := filepath.Rel(top, filepath.Join(c.from.folder, filepath.FromSlash(name)))
	if err != nil {
		return false
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return false
	}
	defer root.Close()
	elements := strings.Split(filepath.ToSlash(file), "/")
	for i := range elements {
		if c.ctx.Err() != nil { // to try all patterns may take long
			return false
		}
		domain := elements[:i]
		text, err := readBelow(root, path.Join(path.Join(domain...), ".gitattributes"), maxAttributesBytes)
		if err == nil && converts(string(text), domain, elements) {
			return true
		}
	}
	return false
}

// converts tells whether a .gitattributes file of a folder has a file converted.
func converts(text string, domain, file []string) bool {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		conversion := slices.ContainsFunc(fields[1:], func(attribute string) bool {
			return attribute == "ident" || strings.HasPrefix(attribute, "filter=") || strings.HasPrefix(attribute, "working-tree-encoding=")
		})
		if conversion && gitignore.ParsePattern(fields[0], domain).Match(file, false) == gitignore.Exclude {
			return true
		}
	}
	return false
}

// readBelow reads a file below a folder of at most so many bytes.
func readBelow(root *os.Root, name string, most int64) ([]byte, error) {
	file, err := limit.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return limit.ReadAll(file, most)
}
