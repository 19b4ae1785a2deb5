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
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// stage is a folder in the folder that is written to. Everything is unpacked
// there first, so that what can fail has failed before anything else is touched.
type stage struct {
	// target is the folder that is written to, and nothing is outside of it.
	target *os.Root
	// name of the stage in the target; what is unpacked is in its folder new, what
	// is overwritten stays in its folder old until all is done.
	name string
	// fresh is the folder new.
	fresh *os.Root
	// allowed are the permissions that the umask leaves.
	allowed fs.FileMode
	// made are folders that were made for the target, innermost first.
	made []string
	done bool
	// stays tells that the stage holds what could not be moved back.
	stays bool
}

// stagePrefix is how the name of a stage begins.
const stagePrefix = "." + programName + "-"

const (
	freshFolder = "new"
	oldFolder   = "old"
)

// stagesIn returns the paths of the stages in a folder. No folder has none.
func stagesIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var stages []string
	for _, entry := range entries {
		if entry.IsDir() && strings.HasPrefix(entry.Name(), stagePrefix) {
			stages = append(stages, filepath.Join(folder, entry.Name()))
		}
	}
	return stages, nil
}

// unfinished says what the stage of a pull means that did not come to its end.
const unfinished = "%q belongs to a pull that was killed or still runs: what it writes to may be of two versions, and the files of before are in its folder old; " +
	"pull again with --force, and remove it when nothing in it is needed"

// checkFinished refuses a file or folder that a pull has not written to its end. A
// push of that would look as if the missing files were deleted.
func checkFinished(ctx context.Context, dir string) error {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if whole, err = filepath.EvalSymlinks(whole); err != nil {
		return err
	}
	// A pull into a folder above may have come as far as here.
	for folder := range upwardsFrom(filepath.Dir(whole)) {
		stages, _ := stagesIn(folder) // nothing can be pulled into a folder that cannot be read
		inside, err := filepath.Rel(folder, whole)
		if err != nil {
			return err
		}
		for _, stage := range stages {
			if hasUnpacked(stage, inside) {
				return fmt.Errorf(unfinished, stage)
			}
		}
	}
	return filepath.WalkDir(whole, func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil || !d.IsDir():
			return nil //nolint:nilerr // the push tells what it cannot read
		case strings.HasPrefix(d.Name(), stagePrefix):
			return fmt.Errorf(unfinished, name)
		case d.Name() == ".git":
			return fs.SkipDir
		}
		return nil
	})
}

// hasUnpacked tells whether a stage has a file or folder that its pull has yet to move. The
// author of a change can make a folder of that name, too: no link in it is followed.
func hasUnpacked(stage, name string) bool {
	root, err := os.OpenRoot(stage)
	if err == nil {
		_, err = root.Lstat(filepath.Join(freshFolder, name))
		_ = root.Close() // nothing was written
	}
	return !errors.Is(err, fs.ErrNotExist)
}

// newStage opens the folder to write to, and makes it where it is not there. The
// caller closes the stage.
func newStage(dir string) (*stage, error) {
	s := &stage{name: stagePrefix + rand.Text()[:12]}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	for folder := range upwardsFrom(path) {
		if !isMissing(folder) {
			break
		}
		s.made = append(s.made, folder)
	}
	if err := s.open(dir); err != nil {
		s.close()
		return nil, fmt.Errorf("cannot write to %q: %w", dir, err)
	}
	return s, nil
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (s *stage) open(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if s.target, err = os.OpenRoot(dir); err != nil {
		return err
	}
	fresh, old := path.Join(s.name, freshFolder), path.Join(s.name, oldFolder)
	// Nobody else gets past the stage: the permissions of new only show the umask.
	if err := cmp.Or(s.target.Mkdir(s.name, 0o700), s.target.Mkdir(fresh, 0o777), s.target.Mkdir(old, 0o700)); err != nil {
		return err
	}
	info, err := s.target.Lstat(fresh)
	if err != nil {
		return err
	}
	s.allowed = info.Mode().Perm()
	s.fresh, err = s.target.OpenRoot(fresh)
	return err
}

// close removes the stage, and the folder itself where it was made for nothing.
func (s *stage) close() {
	if s.fresh != nil {
		_ = s.fresh.Close() // it was only opened
	}
	if s.target != nil {
		if !s.stays {
			_ = s.target.RemoveAll(s.name) // what cannot be removed is hidden, and named after this program
		}
		_ = s.target.Close()
	}
	if s.done {
		return
	}
	for _, folder := range s.made {
		_ = os.Remove(folder) // it stays when somebody else put something into it
	}
}

// plan is what is to be done to the target.
type plan struct {
	// added are to be moved to the target: folders with all that is in them, and files.
	added []string
	// overwritten are files to move over those of the target.
	overwritten []string
	// other is a file of the target that the artifact does not have.
	other string
}

// plan compares what was unpacked with what is there.
func (s *stage) plan(ctx context.Context, t *tree) (*plan, error) {
	p := &plan{}
	missing, err := s.missing(ctx, t)
	if err != nil {
		return nil, err
	}
	for folder := range missing {
		if !missing[path.Dir(folder)] {
			p.added = append(p.added, folder)
		}
	}
	slices.Sort(p.added)
	for _, f := range t.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if missing[path.Dir(f.path)] {
			continue
		}
		switch same, err := s.compare(f); {
		case errors.Is(err, fs.ErrNotExist):
			p.added = append(p.added, f.path)
		case err != nil:
			return nil, err
		case !same:
			p.overwritten = append(p.overwritten, f.path)
		}
	}
	if t.lone { // a file says nothing of those beside it
		return p, nil
	}
	p.other, err = s.other(ctx, t)
	return p, err
}

// missing returns the folders that the target does not have, and gives them their
// permissions in the stage, from where they are moved as they are.
func (s *stage) missing(ctx context.Context, t *tree) (map[string]bool, error) {
	missing := map[string]bool{}
	// Outermost first: a file has no folder in it.
	for _, folder := range slices.Sorted(maps.Keys(t.folders)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if folder == "." {
			continue
		}
		if !missing[path.Dir(folder)] {
			switch info, err := s.target.Lstat(folder); {
			case errors.Is(err, fs.ErrNotExist):
			case err != nil:
				return nil, err
			case !info.IsDir():
				return nil, fmt.Errorf("%q is a folder in the artifact, but something else in %q: remove it first", folder, s.target.Name())
			default:
				continue
			}
		}
		missing[folder] = true
		if err := s.fresh.Chmod(folder, t.folders[folder]&s.allowed|0o700); err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// compare tells whether a file of the target is that of the artifact.
func (s *stage) compare(f treeFile) (same bool, err error) {
	info, err := s.target.Lstat(f.path)
	switch {
	case err != nil:
		return false, err
	case info.IsDir():
		return false, fmt.Errorf("%q is a file in the artifact, but a folder in %q: remove it first", f.path, s.target.Name())
	case !info.Mode().IsRegular() || info.Size() != f.size:
		return false, nil
	}
	// As it was unpacked: there are file systems that keep no permissions.
	fresh, err := s.fresh.Lstat(f.path)
	if err != nil {
		return false, err
	}
	if isExecutable(info.Mode()) != isExecutable(fresh.Mode()) {
		return false, nil
	}
	file, err := limit.Open(s.target, f.path)
	if err != nil {
		return false, nil // what cannot be read is replaced, or fails to be
	}
	defer file.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return err == nil && hex.EncodeToString(sum.Sum(nil)) == f.digest, nil
}

// other looks for a file that the artifact does not have.
func (s *stage) other(ctx context.Context, t *tree) (found string, err error) {
	ours := map[string]bool{}
	for _, f := range t.files {
		ours[f.path] = true
	}
	err = fs.WalkDir(limit.FS(s.target), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fs.SkipDir // what cannot be read is not ours
		case d.IsDir() && path.Dir(name) == "." && strings.HasPrefix(name, stagePrefix):
			return fs.SkipDir
		case d.IsDir() || ours[name]:
			return nil
		}
		found = name
		return fs.SkipAll
	})
	return found, err
}

// carryOut moves files and folders into the target. At every moment each file that was there is
// there, with what it had or with what it gets, so that a process that is killed
// loses nothing. Whatever fails is undone; what cannot be moved back stays in the
// stage, which the error names.
func (s *stage) carryOut(ctx context.Context, p *plan) (err error) {
	var undo []func() error
	defer func() {
		if err == nil {
			s.done = true
			return
		}
		for _, step := range slices.Backward(undo) {
			err = errors.Join(err, step())
		}
		if s.stays {
			err = fmt.Errorf("%w; the files that could not be moved back are in %q", err, filepath.Join(s.target.Name(), s.name, oldFolder))
		}
	}()
	for _, file := range p.added { // nobody was asked about a file that is newer than the plan
		if _, err := s.target.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			return cmp.Or(err, fmt.Errorf("%q was made in %q by somebody else meanwhile", file, s.target.Name()))
		}
	}
	for _, file := range p.overwritten {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.keep(file); err != nil {
			return err
		}
	}
	for _, file := range slices.Concat(p.added, p.overwritten) {
		if err := ctx.Err(); err != nil { // before the file is moved: what has no undo must not happen
			return err
		}
		if err := s.target.Rename(path.Join(s.name, freshFolder, file), file); err != nil {
			return err
		}
		undo = append(undo, func() error { return s.moveBack(file) })
	}
	return nil
}

// keep has a file of the target in the folder old as well: as a link or, where the
// file system has none, as a copy.
func (s *stage) keep(file string) error {
	kept := path.Join(s.name, oldFolder, file)
	if err := s.target.MkdirAll(path.Dir(kept), 0o700); err != nil {
		return err
	}
	if s.target.Link(file, kept) == nil {
		return nil
	}
	info, err := s.target.Lstat(file)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		leads, err := s.target.Readlink(file)
		if err != nil {
			return err
		}
		return s.target.Symlink(leads, kept)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%q is a file in the artifact, but no regular file in %q: remove it first", file, s.target.Name())
	}
	from, err := limit.Open(s.target, file)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := s.target.OpenFile(kept, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// moveBack undoes that a file or a folder was moved into the target.
func (s *stage) moveBack(file string) error {
	kept := path.Join(s.name, oldFolder, file)
	if _, err := s.target.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
		return s.target.Rename(file, path.Join(s.name, freshFolder, file))
	}
	err := s.target.Rename(kept, file)
	s.stays = s.stays || err != nil
	return err
}
