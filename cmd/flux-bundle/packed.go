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
	"crypto/rand"
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// packedRoot is the folder of the packed files in the file system that kustomize
// sees. Nothing else is in there. A tree cannot know its name: a path with that name
// would be found in the check, but not by kustomize-controller.
var packedRoot = "/" + rand.Text()

var errReadOnly = errors.New("the packed files are read-only")

// packedFiles is the file system of kustomize with packed files and nothing
// else: no path, however it is written, leads to a file of this machine.
type packedFiles struct{ fs.FS }

// within returns the name of a file of the archive, or an error for a path
// outside of packedRoot.
func within(name string) (string, error) {
	full := path.Clean(filepath.ToSlash(name))
	if full == packedRoot {
		return ".", nil
	}
	inside, found := strings.CutPrefix(full, packedRoot+"/")
	if !found {
		return "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return inside, nil
}

func (p packedFiles) stat(name string) (fs.FileInfo, error) {
	inside, err := within(name)
	if err != nil {
		return nil, err
	}
	return fs.Stat(p.FS, inside)
}

// ReadFile returns the content of a packed file.
func (p packedFiles) ReadFile(name string) ([]byte, error) {
	inside, err := within(name)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(p.FS, inside)
}

// Exists tells whether a file or folder was packed.
func (p packedFiles) Exists(name string) bool {
	_, err := p.stat(name)
	return err == nil
}

// IsDir tells whether a folder was packed.
func (p packedFiles) IsDir(name string) bool {
	info, err := p.stat(name)
	return err == nil && info.IsDir()
}

// CleanedAbs splits the path of a packed file or folder into folder and file.
func (p packedFiles) CleanedAbs(name string) (filesys.ConfirmedDir, string, error) {
	info, err := p.stat(name)
	if err != nil {
		return "", "", err
	}
	full := path.Clean(filepath.ToSlash(name))
	if info.IsDir() {
		return filesys.ConfirmedDir(full), "", nil
	}
	return filesys.ConfirmedDir(path.Dir(full)), path.Base(full), nil
}

// ReadDir returns the names in a packed folder.
func (p packedFiles) ReadDir(name string) ([]string, error) {
	inside, err := within(name)
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(p.FS, inside)
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, err
}

// Walk walks a packed folder.
func (p packedFiles) Walk(name string, visit filepath.WalkFunc) error {
	inside, err := within(name)
	if err != nil {
		return visit(name, nil, err)
	}
	return fs.WalkDir(p.FS, inside, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return visit(path.Join(packedRoot, name), nil, err)
		}
		info, err := d.Info()
		return visit(path.Join(packedRoot, name), info, err)
	})
}

// Glob returns the packed files that match a pattern.
func (p packedFiles) Glob(pattern string) ([]string, error) {
	inside, err := within(pattern)
	if err != nil {
		return nil, nil //nolint:nilerr // no packed file matches
	}
	names, err := fs.Glob(p.FS, inside)
	for i, name := range names {
		names[i] = path.Join(packedRoot, name)
	}
	return names, err
}

// Open is not needed to build: kustomize reads whole files.
func (packedFiles) Open(string) (filesys.File, error) { return nil, errReadOnly }

// Create fails: nothing is written.
func (packedFiles) Create(string) (filesys.File, error) { return nil, errReadOnly }

// Mkdir fails: nothing is written.
func (packedFiles) Mkdir(string) error { return errReadOnly }

// MkdirAll fails: nothing is written.
func (packedFiles) MkdirAll(string) error { return errReadOnly }

// RemoveAll fails: nothing is removed.
func (packedFiles) RemoveAll(string) error { return errReadOnly }

// WriteFile fails: nothing is written.
func (packedFiles) WriteFile(string, []byte) error { return errReadOnly }

// withFile is a file system with one file more, or another content of it.
type withFile struct {
	filesys.FileSystem
	name    string
	content []byte
}

// ReadFile returns the content of a file.
func (w withFile) ReadFile(name string) ([]byte, error) {
	if filepath.ToSlash(name) == filepath.ToSlash(w.name) {
		return w.content, nil
	}
	return w.FileSystem.ReadFile(name)
}
