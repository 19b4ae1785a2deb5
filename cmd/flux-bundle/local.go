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
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/image-source/image-source-controller/pkg/format"
)

// local is a folder or a file to pack.
type local struct {
	// root is the folder; a file is alone in one of its own.
	root *os.Root
	// folder is the real path of the folder, or of that of the file.
	folder string
	// name is the name that the file was given by, and file the real one, which
	// differs where a link leads to it. Both are empty for a folder.
	name, file string
	// own is the folder to remove.
	own string
}

// openLocal opens a folder or a file to pack. A file is copied: if it has more bytes
// than may be packed, only a part of it.
func openLocal(ctx context.Context, path string, follow bool, most int64) (*local, error) {
	p, err := locate(path, follow)
	if err != nil {
		return nil, err
	}
	info, err := p.stat()
	if err != nil {
		return nil, err
	}
	l := &local{}
	whole := filepath.Join(append([]string{p.folder}, p.below...)...)
	switch mode := info.Mode(); {
	case mode.IsDir():
		if l.root, err = p.openFolder(); err == nil {
			l.folder, err = filepath.EvalSymlinks(whole)
		}
	case mode.IsRegular():
		if whole, err = filepath.EvalSymlinks(whole); err == nil {
			l.folder, l.file = filepath.Split(whole)
			l.name = filepath.Base(path)
			err = l.copy(ctx, p, most)
		}
	default:
		err = errors.New("it is neither a folder nor a file")
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// copy puts the file into a folder of its own. One that is too large to be packed is
// cut, but not to a size that could be.
func (l *local) copy(ctx context.Context, from place, most int64) (err error) {
	if l.own, err = os.MkdirTemp("", programName+"-"); err != nil {
		return err
	}
	if l.root, err = os.OpenRoot(l.own); err != nil {
		return err
	}
	in, err := from.openFile()
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := l.root.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, io.LimitReader(&untilDone{ctx, in}, most+1))
	return errors.Join(err, out.Close())
}

// pack packs the folder or file. It leaves out what patterns match, and the stage of a
// pull that starts while the folder is read.
func (l *local) pack(ctx context.Context, scratch string, patterns []string, limits format.Limits) (*format.Packed, error) {
	all := append([]string{stagePrefix + "*/"}, patterns...)
	packed, err := format.Pack(ctx, l.root, scratch, format.PackOptions{Ignore: strings.Join(all, "\n"), Limits: limits})
	return packed, inFlags(err)
}

func (l *local) close() {
	if l.root != nil {
		_ = l.root.Close() // nothing was written by it but a copy
	}
	if l.own != "" {
		_ = os.RemoveAll(l.own) // the system removes what is left
	}
}
