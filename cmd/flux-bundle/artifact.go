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
	"bytes"
	"encoding/json"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/format"
)

// Annotations of the image specification.
const (
	createdAnnotation  = "org.opencontainers.image.created"
	sourceAnnotation   = "org.opencontainers.image.source"
	revisionAnnotation = "org.opencontainers.image.revision"
)

// artifact is a Flux artifact, ready to be pushed: what flux push artifact
// makes, of a layer that is always the same for the same files.
type artifact struct {
	packed   *format.Packed
	config   v1.Layer
	manifest manifest
}

// config is what Flux puts into the config of an artifact.
type config struct {
	Created      *time.Time `json:"created,omitempty"`
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	Config       struct{}   `json:"config"`
	RootFS       v1.RootFS  `json:"rootfs"`
}

// newArtifact returns the artifact of a packed folder. What it was created at
// is in annotations, or left out.
func newArtifact(packed *format.Packed, annotations map[string]string) (*artifact, error) {
	c := config{RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{packed.DiffID}}}
	if text := annotations[createdAnnotation]; text != "" {
		created, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, err
		}
		c.Created = &created
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	m := v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        v1.Descriptor{MediaType: format.FluxConfigMediaType, Digest: digest, Size: size},
		Layers:        []v1.Descriptor{{MediaType: format.FluxContentMediaType, Digest: packed.Digest, Size: packed.Size}},
		Annotations:   annotations,
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	digest, _, err = v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	return &artifact{packed: packed, config: static.NewLayer(body, format.FluxConfigMediaType), manifest: manifest{raw, digest}}, nil
}

// manifest is a manifest that can be pushed.
type manifest struct {
	body   []byte
	digest v1.Hash
}

// layer is a packed folder on its way to a registry: read from the disk as it
// is sent.
type layer struct {
	packed *format.Packed
	// reading is called whenever the layer is read from its start, and returns
	// who is to see the bytes.
	reading func() io.Writer
}

// Digest implements v1.Layer.
func (l *layer) Digest() (v1.Hash, error) { return l.packed.Digest, nil }

// DiffID implements v1.Layer.
func (l *layer) DiffID() (v1.Hash, error) { return l.packed.DiffID, nil }

// Size implements v1.Layer.
func (l *layer) Size() (int64, error) { return l.packed.Size, nil }

// MediaType implements v1.Layer.
func (*layer) MediaType() (types.MediaType, error) { return format.FluxContentMediaType, nil }

// Compressed implements v1.Layer.
func (l *layer) Compressed() (io.ReadCloser, error) {
	file, err := os.Open(l.packed.Path)
	if err != nil {
		return nil, err
	}
	return &watched{Reader: io.TeeReader(file, l.reading()), Closer: file}, nil
}

// Uncompressed implements v1.Layer. A push sends the layer as it is.
func (*layer) Uncompressed() (io.ReadCloser, error) { return nil, os.ErrInvalid }

type watched struct {
	io.Reader
	io.Closer
}
