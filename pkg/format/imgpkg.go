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

package format

import (
	"context"
	"io"
	"strings"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// imgpkgFolder holds what imgpkg itself needs of a bundle.
	imgpkgFolder  = ".imgpkg"
	imgpkgLock    = imgpkgFolder + "/images.yml"
	imgpkgVersion = "imgpkg.carvel.dev/v1alpha1"
	imgpkgKind    = "ImagesLock"
)

// readImgpkg reads an artifact of imgpkg push -b: an image of one layer with a lock
// file of the images that its configuration uses. It publishes the files of the
// bundle without .imgpkg: the lock file has a kind and no name, so that it would
// break a generated kustomization. Images are not looked up and templates not
// rendered.
func readImgpkg(ctx context.Context, in input) (*Content, error) {
	layers := in.contentOnly().Manifest.Layers
	if len(layers) != 1 {
		return nil, invalid("the imgpkg bundle has %d layers; imgpkg writes and reads exactly one: push it again with imgpkg push -b", len(layers))
	}
	return in.assemble(ctx, func(a *assembly) error {
		l, err := tarball{desc: layers[0]}.open(ctx, in)
		if err != nil {
			return err
		}
		defer l.file.Close()
		return a.unpackBundle(ctx, l)
	})
}

// unpackBundle collects the files of the bundle and checks its lock file.
func (a *assembly) unpackBundle(ctx context.Context, l *layer) error {
	locked := false
	err := a.walk(ctx, l, func(e entry, content io.Reader) error {
		if e.path != imgpkgFolder && !strings.HasPrefix(e.path, imgpkgFolder+"/") {
			return a.add(e, content)
		}
		if !e.folder {
			a.in.Report.omit(e.path, LockFile)
		}
		if e.path == imgpkgLock && !e.folder {
			locked = true
			if err := checkLock(content); err != nil {
				return err
			}
		}
		return a.tree.add(e)
	})
	if err != nil {
		return err
	}
	if !locked {
		return invalid("the imgpkg bundle has no file %s; push it again with imgpkg push -b", imgpkgLock)
	}
	a.tree.prune(imgpkgFolder)
	return nil
}

func checkLock(content io.Reader) error {
	body, err := readObject(content)
	if err != nil {
		return err
	}
	lock, err := parseObject(body)
	if err != nil {
		return broken("the file "+imgpkgLock+" of the imgpkg bundle cannot be read", err)
	}
	if lock.kind != imgpkgKind || lock.apiVersion != imgpkgVersion {
		return invalid("the file %s of the imgpkg bundle is a %s %s; expected %s %s", imgpkgLock, fault.Quote(lock.apiVersion), fault.Quote(lock.kind), imgpkgVersion, imgpkgKind)
	}
	return nil
}
