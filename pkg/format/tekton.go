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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	tektonKind       = tektonPrefix + "kind"
	tektonName       = tektonPrefix + "name"
	tektonAPIVersion = tektonPrefix + "apiVersion"
	// maxTektonLayers is how many objects Tekton takes from a bundle.
	maxTektonLayers = 20
)

// readTekton reads Tekton bundles: images whose layers are one object each, by the
// contract of https://tekton.dev/docs/pipelines/tekton-bundle-contracts/. What
// Tekton does not check of it is checked too.
func readTekton(ctx context.Context, in input) (*Content, error) {
	layers := in.Manifest.Layers
	if len(layers) > maxTektonLayers {
		return nil, invalid("the Tekton bundle has %d layers; Tekton takes at most %d: split the bundle", len(layers), maxTektonLayers)
	}
	accepted := objects{artifact: "the Tekton bundle", groups: []string{"tekton.dev"}, tool: "tkn bundle push"}
	return publishObjects(ctx, in, layers, accepted, func(ctx context.Context, a *assembly, desc v1.Descriptor) (body []byte, said object, err error) {
		if said, err = annotatedObject(desc); err == nil {
			body, err = tektonBody(ctx, a, desc)
		}
		return body, said, err
	})
}

// annotatedObject returns the object that a layer is by its annotations.
func annotatedObject(desc v1.Descriptor) (object, error) {
	switch desc.MediaType {
	case types.OCILayer, types.OCIUncompressedLayer, types.DockerLayer, types.DockerUncompressedLayer:
	case types.OCILayerZStd, zstdDockerLayer:
		return object{}, zstdBundle()
	default:
		return object{}, unsupported("the Tekton bundle has a layer of type %s, which is no layer of an image", fault.Quote(desc.MediaType))
	}
	for _, key := range []string{tektonName, tektonKind, tektonAPIVersion} {
		if desc.Annotations[key] == "" {
			return object{}, invalid("the Tekton bundle has a layer without the annotation %s, which every layer must have; push it again with tkn bundle push", key)
		}
	}
	said := object{apiVersion: desc.Annotations[tektonAPIVersion], kind: desc.Annotations[tektonKind], name: desc.Annotations[tektonName]}
	if strings.TrimSuffix(strings.ToLower(said.kind), "s") != said.kind {
		return object{}, invalid("the Tekton bundle has a layer with the kind %s in its annotation %s; expected lower case and singular, such as task", fault.Quote(said.kind), tektonKind)
	}
	return said, nil
}

func zstdBundle() error {
	return unsupported("the Tekton bundle has a layer that is compressed with zstd, which Tekton does not read; push it with gzip")
}

// tektonBody returns the object of a layer: the one file of a tar, or the layer
// itself. Like Tekton it lets the bytes decide, of which the type says nothing.
func tektonBody(ctx context.Context, a *assembly, desc v1.Descriptor) ([]byte, error) {
	l, err := a.in.sniffed(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer l.file.Close()
	if l.compression == zstandard {
		return nil, zstdBundle()
	}
	isTar, err := l.isTar(ctx)
	if err != nil {
		return nil, err
	}
	if isTar {
		return onlyFile(ctx, a, l)
	}
	stream, err := l.unpack(ctx, 0)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	return readObject(stream)
}

// onlyFile returns the content of the one file that a tar is.
func onlyFile(ctx context.Context, a *assembly, l *layer) ([]byte, error) {
	var body []byte
	files, folders := 0, 0
	err := a.walk(ctx, l, func(e entry, content io.Reader) error {
		if e.folder {
			folders++
			return nil
		}
		if files++; files > 1 {
			return nil
		}
		var err error
		body, err = readObject(content)
		return err
	})
	if err == nil && (files != 1 || folders+l.links > 0) {
		return nil, invalid("the Tekton bundle has a layer with %d files, %d folders and %d symbolic links, of which Tekton reads the first only; push one file in each layer", files, folders, l.links)
	}
	return body, err
}
