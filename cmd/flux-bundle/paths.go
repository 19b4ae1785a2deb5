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
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// followFlag allows the links that locate refuses.
const followFlag = "follow-symlinks"

const followUsage = "follow symbolic links in paths within a repository or below the working directory"

// place is where a path leads: to elements below a folder, each of which is opened
// by itself and is no symbolic link.
type place struct {
	folder string
	below  []string
}

// locate finds where a path leads. It refuses a link that the author of a pull
// request may have made: one in a repository, or one that the path names itself,
// below the working directory. With follow it refuses nothing.
func locate(path string, follow bool) (place, error) {
	absolute, err := filepath.Abs(path)
	if err != nil || follow {
		return place{folder: absolute}, err
	}
	start, err := refuseStrange(path)
	if err != nil {
		return place{}, err
	}
	whole, err := filepath.EvalSymlinks(absolute)
	if err != nil {
		// To open it tells why. A pipe in /dev/fd is opened, and has no path.
		return place{folder: absolute}, nil //nolint:nilerr // see above
	}
	trusted := whole
	for folder := range upwardsFrom(whole) {
		if folder == start || isWorktree(folder) {
			trusted = folder
		}
	}
	p := place{folder: trusted}
	if rest, err := filepath.Rel(trusted, whole); err != nil {
		return place{}, err
	} else if rest != "." {
		p.below = pathElements(rest)
	}
	return p, nil
}

// refuseStrange refuses a path through a link that the author of a pull request may
// have made, and returns where its names begin.
func refuseStrange(path string) (start string, err error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if start, err = startOf(path); err != nil {
		return "", err
	}
	return start, refuseLinks(absolute, start)
}

// startOf returns the real path of the folder in which the names of a path begin:
// the working directory, or one above it. It is empty for an absolute path to
// elsewhere, and where that folder holds all files of the machine.
func startOf(path string) (string, error) {
	working, err := os.Getwd()
	if err != nil {
		return "", err
	}
	rest := filepath.Clean(path)
	if filepath.IsAbs(rest) {
		if rest, err = filepath.Rel(working, rest); err != nil || !filepath.IsLocal(rest) {
			return "", nil //nolint:nilerr // it is on another volume
		}
	}
	for _, element := range pathElements(rest) {
		if element != ".." {
			break
		}
		working = filepath.Dir(working)
	}
	if working, err = filepath.EvalSymlinks(working); err != nil || filepath.Dir(working) == working {
		return "", err
	}
	return working, nil
}

// maxLinks is how many links a path may lead through.
const maxLinks = 255

// refuseLinks refuses a path through a link in a folder of a repository, or in one
// below start.
func refuseLinks(absolute, start string) error {
	root := filepath.VolumeName(absolute) + string(filepath.Separator)
	at, rest := root, pathElements(strings.TrimPrefix(absolute, root))
	for links := 0; len(rest) > 0; rest = rest[1:] {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		if err != nil {
			return nil //nolint:nilerr // to open it tells why
		}
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if isStrange(at, start) {
			return fmt.Errorf("%s is a symbolic link, and the author of a change can lead it anywhere: name the path that is meant, or allow links with --%s",
				fault.Quote(next), followFlag)
		}
		if links++; links > maxLinks {
			return errors.New("it leads through too many symbolic links")
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at, target = root, strings.TrimPrefix(target, root)
		}
		rest = append(rest[:1:1], append(pathElements(target), rest[1:]...)...)
	}
	return nil
}

// isStrange tells whether the author of a change may have made what is in a folder.
func isStrange(folder, start string) bool {
	for above := range upwardsFrom(folder) {
		if above == start || isWorktree(above) {
			return true
		}
	}
	return false
}

func isWorktree(folder string) bool {
	_, err := os.Lstat(filepath.Join(folder, ".git"))
	return err == nil
}

func pathElements(path string) []string { return strings.Split(path, string(filepath.Separator)) }

// up returns the folder of a place that is below another one, and the name in it.
func (p place) up() (place, string) {
	last := len(p.below) - 1
	return place{p.folder, p.below[:last]}, p.below[last]
}

// stat describes the entry.
func (p place) stat() (os.FileInfo, error) {
	if len(p.below) == 0 {
		return os.Stat(p.folder)
	}
	folder, name := p.up()
	root, err := folder.openFolder()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Lstat(name)
}

// openFolder opens a folder.
func (p place) openFolder() (*os.Root, error) {
	root, err := os.OpenRoot(p.folder)
	for _, element := range p.below {
		if err != nil {
			return nil, err
		}
		next, wrong := openOnce(root, element, (*os.Root).OpenRoot, func(r *os.Root) (os.FileInfo, error) { return r.Stat(".") })
		err = errors.Join(wrong, root.Close())
		root = next
	}
	return root, err
}

// openFile opens a file to read it.
func (p place) openFile() (*os.File, error) {
	if len(p.below) == 0 {
		return os.Open(p.folder)
	}
	folder, name := p.up()
	root, err := folder.openFolder()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	open := (*os.Root).Open
	if info, err := root.Lstat(name); err == nil && info.Mode().IsRegular() {
		open = limit.Open
	}
	return openOnce(root, name, open, (*os.File).Stat)
}

// readFile reads a file that a flag names, of at most so many bytes.
func readFile(path string, follow bool, most int64) ([]byte, error) {
	from, err := locate(path, follow)
	if err != nil {
		return nil, err
	}
	file, err := from.openFile()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.IsDir() {
		return nil, cmp.Or(err, errors.New("it is a folder, expected a file"))
	}
	text, err := limit.ReadAll(file, most)
	if errors.Is(err, limit.ErrTooLong) {
		err = fmt.Errorf("it has more than the %d bytes that are read", most)
	}
	return text, err
}

// openOnce opens what a name is now, and not what a link leads to that takes its
// place meanwhile.
func openOnce[T io.Closer](root *os.Root, name string, open func(*os.Root, string) (T, error), stat func(T) (os.FileInfo, error)) (opened T, err error) {
	var none T
	before, err := root.Lstat(name)
	if err != nil {
		return none, err
	}
	if opened, err = open(root, name); err != nil {
		return none, err
	}
	after, err := stat(opened)
	if err == nil && !os.SameFile(before, after) {
		err = errors.New("it changes while it is opened")
	}
	if err != nil {
		return none, errors.Join(err, opened.Close())
	}
	return opened, nil
}

// upwardsFrom returns an absolute path and all folders that it is in, the root
// folder last: on Windows, that of a drive which may not be there.
func upwardsFrom(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for yield(path) && filepath.Dir(path) != path {
			path = filepath.Dir(path)
		}
	}
}

// pathless leaves out the path, where an error says it already.
func pathless(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// inScratch runs work with a folder of its own, and removes it.
func inScratch(work func(dir string) error) error {
	dir, err := os.MkdirTemp("", programName+"-")
	if err != nil {
		return fmt.Errorf("cannot make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	return work(dir)
}
