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

package limit

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// ErrTooLong is a stream that is longer than what may be read of it.
var ErrTooLong = errors.New("it is too long")

// ReadAll reads a stream to its end, which must come within most bytes. With an
// error it returns the bytes before it, at most most of them.
//
// Errors: ErrTooLong, and those of the stream.
func ReadAll(from io.Reader, most int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(from, most+1))
	if err == nil && int64(len(text)) > most {
		return text[:most], ErrTooLong
	}
	return text, err
}

// Open opens a file below a folder, and nothing that could hold up its reader: a pipe
// that a stranger puts in its place is opened without a wait, and refused.
//
// Errors: those of opening it, and one for anything but a regular file.
func Open(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// FS returns the files below a folder. A pipe that a stranger puts in the place of a
// file or folder holds up no reader, unlike with the FS of the root itself.
func FS(root *os.Root) fs.FS { return files{root} }

type files struct{ root *os.Root }

// Open opens a file or folder without a wait.
func (f files) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	file, err := f.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return file, nil
}
