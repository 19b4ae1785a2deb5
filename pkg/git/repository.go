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

// Package git reads commits and trees of a git repository on disk: its files and
// nothing else. It starts no program, reads no environment and follows nothing
// that the repository names elsewhere: no alternates, no included configuration,
// no replaced objects. Every object is checked against its name, so that a commit
// that is read is the commit of that name even in a repository of a stranger.
//
// It reads repositories of both hash algorithms, shallow ones, packed objects and
// references, linked working trees and submodules.
package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-git/gcfg/v2"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// ErrNone says that a folder is in no repository.
var ErrNone = errors.New("no git repository")

// Limits of files in a repository, in bytes.
const (
	maxPointerBytes    = 64 << 10 // .git, HEAD, a reference
	maxConfigBytes     = 1 << 20
	maxPackedRefsBytes = 64 << 20
)

// Repository is a git repository. It is not safe for concurrent use.
type Repository struct {
	// worktree is the folder of the working tree.
	worktree string
	// own holds HEAD, and common the objects, references and configuration. They
	// are the same unless the working tree is a linked one.
	own, common *os.Root
	// origin is the address of a remote, and names the working tree, both as the
	// configuration has them.
	origin, named string
	packs         []*pack
	// listed tells that packs is complete.
	listed bool
}

// Find opens the repository of a working tree that a folder is in: that of the
// nearest .git upwards. A folder that looks like a repository itself is not
// taken for one, because a tree may hold such a folder as content.
//
// Errors: ErrNone, and others when the .git that is found cannot be read, or belongs to
// a stranger.
func Find(folder string) (*Repository, error) {
	start, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	for folder := start; ; {
		r, err := Open(folder)
		if parent := filepath.Dir(folder); errors.Is(err, ErrNone) && parent != folder {
			folder = parent
			continue
		}
		if err == nil {
			err = r.checkOwner(start)
		}
		if err != nil {
			return nil, err
		}
		return r, nil
	}
}

// checkOwner refuses a .git that belongs to somebody who has no say in the folder:
// everybody may make one in /tmp. It may belong to the owner of the folder, which
// git refuses, because nothing of the repository is run here.
func (r *Repository) checkOwner(folder string) error {
	link := filepath.Join(r.worktree, ".git")
	its, err := os.Lstat(link)
	if err != nil {
		return err
	}
	of, err := os.Stat(folder)
	if err != nil {
		return err
	}
	user, known := owner(its)
	theirs, _ := owner(of)
	const root = 0
	if !known || user == root || user == os.Geteuid() || user == theirs {
		return nil
	}
	r.Close()
	return fmt.Errorf("the repository %s belongs to user %d, who is neither the owner of the folder nor the one who runs this command", link, user)
}

// Open opens the repository whose working tree a folder is.
//
// Errors are those of Find.
func Open(folder string) (*Repository, error) {
	link := filepath.Join(folder, ".git")
	info, err := os.Lstat(link)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, ErrNone
	case err != nil:
		return nil, err
	}
	r := &Repository{worktree: folder}
	switch {
	case info.IsDir():
		err = r.open(link, link)
	case info.Mode().IsRegular():
		err = r.openLinked(link)
	default:
		err = errors.New("it is neither a folder nor a file")
	}
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("cannot read the repository %s: %w", link, err)
	}
	return r, nil
}

// openLinked opens the repository that a .git file names. A tree may hold a file
// that names any repository, so the repository has to name the working tree, too.
func (r *Repository) openLinked(link string) error {
	root, err := os.OpenRoot(filepath.Dir(link))
	if err != nil {
		return err
	}
	defer root.Close()
	text, err := readSmall(root, filepath.Base(link), maxPointerBytes)
	if err != nil {
		return err
	}
	named, found := strings.CutPrefix(string(text), "gitdir: ")
	if !found {
		return errors.New(`it is a file that does not begin with "gitdir: "`)
	}
	dir := below(r.worktree, strings.TrimRight(named, "\r\n"))
	if holder := filepath.Dir(dir); filepath.Base(holder) == "worktrees" {
		if err := r.open(dir, filepath.Dir(holder)); err != nil {
			return err
		}
		back, err := readSmall(r.own, "gitdir", maxPointerBytes)
		if err != nil {
			return err
		}
		return same(below(dir, strings.TrimRight(string(back), "\r\n")), link)
	}
	if err := r.open(dir, dir); err != nil {
		return err
	}
	if r.named == "" {
		return errForeign
	}
	return same(below(dir, r.named), r.worktree)
}

var errForeign = errors.New("it names a repository that is not of this working tree")

// same is an error unless two paths lead to the same file.
func same(a, b string) error {
	one, err := os.Stat(a)
	if err != nil {
		return fmt.Errorf("%w: %w", errForeign, err)
	}
	other, err := os.Stat(b)
	if err != nil {
		return err
	}
	if !os.SameFile(one, other) {
		return errForeign
	}
	return nil
}

// below resolves a path that may be relative to a folder.
func below(folder, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(folder, path)
}

func (r *Repository) open(own, common string) (err error) {
	// A pipe in the place of a folder would hold up who opens it: it has no ".".
	const itself = string(filepath.Separator) + "."
	if r.own, err = os.OpenRoot(own + itself); err != nil {
		return err
	}
	if r.common, err = os.OpenRoot(common + itself); err != nil {
		return err
	}
	text, err := readSmall(r.common, "config", maxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = gcfg.ReadWithCallback(bytes.NewReader(text), func(section, subsection, key, value string, _ bool) error {
		switch setting := strings.ToLower(section + "." + key); {
		case setting == "remote.url" && subsection == "origin":
			r.origin = value
		case setting == "core.worktree" && subsection == "":
			r.named = value
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// Close closes the files of the repository.
func (r *Repository) Close() {
	r.closePacks()
	for _, root := range []*os.Root{r.own, r.common} {
		if root != nil {
			_ = root.Close() // nothing was written
		}
	}
}

// Worktree is the path of the folder of the working tree.
func (r *Repository) Worktree() string { return r.worktree }

// Origin is the address of the remote origin as the configuration of the
// repository has it, with credentials if they are there; empty without one.
func (r *Repository) Origin() string { return r.origin }

// readSmall reads a file of at most so many bytes.
func readSmall(root *os.Root, name string, most int64) ([]byte, error) {
	file, err := limit.Open(root, name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return text, err
}
