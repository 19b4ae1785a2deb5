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

// Package publish pushes artifacts to a registry the way their usual tools do:
// what flux push artifact would push, and what it never would.
package publish

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Media types of Flux CLI artifacts.
const (
	FluxConfig  types.MediaType = "application/vnd.cncf.flux.config.v1+json"
	FluxContent types.MediaType = "application/vnd.cncf.flux.content.v1.tar+gzip"
)

// Files are the files of a tree: path to content.
type Files map[string]string

// Registry is where and as whom to push.
type Registry struct {
	// Host and port of the registry.
	Host string
	// Username and Password, both empty for nobody.
	Username, Password string
	// Transport reaches the registry; nil is plain HTTP or public TLS.
	Transport http.RoundTripper
}

// Flux pushes files as flux push artifact does and returns the image.
func (r Registry) Flux(ctx context.Context, image string, files Files) (v1.Image, error) {
	layer, err := Layer(files)
	if err != nil {
		return nil, err
	}
	artifact, err := FluxImage(static.NewLayer(layer, FluxContent))
	if err != nil {
		return nil, err
	}
	return artifact, r.Push(ctx, image, artifact)
}

// FluxImage returns a Flux CLI artifact of layers.
func FluxImage(layers ...v1.Layer) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, FluxConfig)
	image, err := mutate.Append(image, addenda(layers)...)
	if err != nil {
		return nil, err
	}
	annotated := mutate.Annotations(image, map[string]string{
		"org.opencontainers.image.source":   "https://github.com/org/app.git",
		"org.opencontainers.image.revision": "main@sha1:0123456789abcdef0123456789abcdef01234567",
	})
	return annotated.(v1.Image), nil
}

func addenda(layers []v1.Layer) []mutate.Addendum {
	var all []mutate.Addendum
	for _, layer := range layers {
		all = append(all, mutate.Addendum{Layer: layer})
	}
	return all
}

// Push pushes any image under repository:tag, given without the host.
func (r Registry) Push(ctx context.Context, image string, artifact v1.Image) error {
	tag, err := name.NewTag(r.Host+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Write(tag, artifact, r.options(ctx)...); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}

// Put pushes a manifest alone under repository:tag. What it names is there already.
func (r Registry) Put(ctx context.Context, image string, manifest remote.Taggable) error {
	tag, err := name.NewTag(r.Host+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.Put(tag, manifest, r.options(ctx)...); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}

// PushIndex pushes an index, and all that is in it, under repository:tag.
func (r Registry) PushIndex(ctx context.Context, image string, index v1.ImageIndex) error {
	tag, err := name.NewTag(r.Host+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(tag, index, r.options(ctx)...); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	return nil
}

func (r Registry) options(ctx context.Context) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx)}
	if r.Username != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: r.Username, Password: r.Password}))
	}
	if r.Transport != nil {
		options = append(options, remote.WithTransport(r.Transport))
	}
	return options
}

// Layer returns files as the gzip-compressed tar that the Flux CLI makes: names
// without a leading dot, folders before what is in them.
func Layer(files Files) ([]byte, error) {
	archive, err := Tar(files)
	if err != nil {
		return nil, err
	}
	return compress(archive)
}

func compress(content []byte) ([]byte, error) {
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	if _, err := compressor.Write(content); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Tar returns files as a tar that is not compressed.
func Tar(files Files) ([]byte, error) {
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	folders := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if err := writeFolders(archive, path, folders); err != nil {
			return nil, err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o600, Size: int64(len(files[path]))}
		if err := archive.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(archive, files[path]); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func writeFolders(archive *tar.Writer, path string, written map[string]bool) error {
	for i := range path {
		if folder := path[:i]; path[i] == '/' && !written[folder] {
			written[folder] = true
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o750}); err != nil {
				return err
			}
		}
	}
	return nil
}
