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
	"cmp"
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// MaxManifestBytes is the size up to which a manifest is read, as in the
// distribution specification ("Pushing Manifests").
const MaxManifestBytes = 4 << 20

// Manifest is what formats are told apart by. Every descriptor in it has a
// digest of a supported algorithm, a size that is not negative, no inline data
// and no URLs.
type Manifest struct {
	// MediaType of the manifest, without parameters.
	MediaType types.MediaType
	// ArtifactType as the manifest says it; empty when it does not.
	ArtifactType string
	// Config descriptor of an image manifest.
	Config v1.Descriptor
	// Layers of an image manifest, in its order.
	Layers []v1.Descriptor
	// Annotations of the manifest.
	Annotations map[string]string
	// Index is set when this is an image index or a manifest list, and then
	// Config and Layers are empty.
	Index *v1.IndexManifest

	// labels of an image's config, once somebody has read it.
	labels map[string]string
	// flaw is why the blobs of an image manifest must not be fetched; nil: they
	// may be.
	flaw error
}

// Parse reads the body of a manifest as the registry sent it with mediaType,
// the descriptor's or the Content-Type; when that is empty the body says what
// it is. The caller has checked the body against its digest. Every error
// stalls: the same digest never parses otherwise.
func Parse(mediaType types.MediaType, body []byte) (*Manifest, error) {
	m, err := parse(mediaType, body)
	if err == nil {
		err = m.flaw
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// parse reads a manifest that may have a flaw.
func parse(mediaType types.MediaType, body []byte) (*Manifest, error) {
	if len(body) > MaxManifestBytes {
		return nil, tooLarge("the manifest has %d bytes, more than the %d that are read", len(body), MaxManifestBytes)
	}
	outline, err := limit.Manifest().Scan("the manifest", body)
	if err != nil {
		return nil, err
	}
	mediaType, err = resolveMediaType(mediaType, body)
	if err != nil {
		return nil, err
	}
	if err := checkShape(outline, mediaType); err != nil {
		return nil, err
	}
	m := &Manifest{MediaType: mediaType}
	if mediaType.IsIndex() {
		err = m.decodeIndex(body)
	} else {
		err = m.decodeImage(body)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manifest) decodeImage(body []byte) error {
	var image v1.Manifest
	if err := json.Unmarshal(body, &image); err != nil {
		return invalid("the manifest cannot be decoded: %s", fault.WordsOf(err))
	}
	m.flaw = checkDescriptor("config", &image.Config)
	for i := range image.Layers {
		m.flaw = cmp.Or(m.flaw, checkDescriptor(fmt.Sprintf("layer %d", i), &image.Layers[i]))
	}
	m.ArtifactType = image.ArtifactType
	m.Config = image.Config
	m.Layers = image.Layers
	m.Annotations = image.Annotations
	return nil
}

func (m *Manifest) decodeIndex(body []byte) error {
	var index v1.IndexManifest
	if err := json.Unmarshal(body, &index); err != nil {
		return invalid("the index cannot be decoded: %s", fault.WordsOf(err))
	}
	for i := range index.Manifests {
		if err := checkDescriptor(fmt.Sprintf("manifest %d", i), &index.Manifests[i]); err != nil {
			return err
		}
	}
	m.ArtifactType = index.ArtifactType
	m.Annotations = index.Annotations
	m.Index = &index
	return nil
}

// checkDescriptor refuses what must not be followed and drops what must not be
// trusted: inline data, which nothing has checked against the digest.
func checkDescriptor(what string, d *v1.Descriptor) error {
	d.Data = nil
	switch {
	case d.Digest.Algorithm == "":
		return invalid("the %s of the manifest has no digest", what)
	case d.Size < 0:
		return invalid("the %s of the manifest has the size %d", what, d.Size)
	case len(d.URLs) > 0:
		return invalid("the %s of the manifest is to be fetched from a URL of its own; only blobs of the registry are read: push it without urls", what)
	case !d.MediaType.IsDistributable():
		return unsupported("the %s of the manifest has the media type %s, which is not stored in the registry; push it as a normal layer", what, fault.Quote(d.MediaType))
	}
	return nil
}

// resolveMediaType returns what the manifest is, refusing types that are not
// read and a body that says something else about itself.
func resolveMediaType(outer types.MediaType, body []byte) (types.MediaType, error) {
	var inner struct {
		MediaType     string `json:"mediaType"`
		SchemaVersion int64  `json:"schemaVersion"`
	}
	if err := json.Unmarshal(body, &inner); err != nil {
		return "", invalid("the manifest cannot be decoded: %s", fault.WordsOf(err))
	}
	// A Content-Type may carry parameters (RFC 9110 section 8.3).
	bare, _, _ := strings.Cut(string(outer), ";")
	mediaType := types.MediaType(strings.TrimSpace(bare))
	if mediaType == "" {
		mediaType = types.MediaType(inner.MediaType)
	}
	switch {
	case mediaType.IsSchema1(), inner.SchemaVersion == 1:
		return "", unsupported("the image has a manifest of docker schema 1, which is not supported; push it again with a current client")
	case mediaType == "application/vnd.oci.artifact.manifest.v1+json", mediaType == "application/vnd.cncf.oras.artifact.manifest.v1+json":
		return "", unsupported("the manifest is an artifact manifest %s, which the OCI specification dropped; push it again with a current client", fault.Quote(mediaType))
	case !mediaType.IsImage() && !mediaType.IsIndex():
		return "", unsupported("the manifest has the media type %s; supported: OCI image manifest and docker schema 2", fault.Quote(mediaType))
	case inner.MediaType != "" && inner.MediaType != string(mediaType):
		return "", invalid("the registry calls the manifest %s, but the manifest calls itself %s", fault.Quote(mediaType), fault.Quote(inner.MediaType))
	case inner.SchemaVersion != 2:
		return "", invalid("the manifest has the schemaVersion %d, expected 2", inner.SchemaVersion)
	}
	return mediaType, nil
}

// checkShape refuses a manifest that has, even if empty, what does not belong
// into one of its type.
func checkShape(manifest limit.Outline, mediaType types.MediaType) error {
	switch has := manifest.Has; {
	case has("manifests") && has("layers"):
		return invalid("the manifest has both manifests and layers, so that two readers may see two things")
	case has("fslayers"):
		return invalid("the manifest has fsLayers, which belong to docker schema 1, but is called %s", fault.Quote(mediaType))
	case has("blobs"):
		return invalid("the manifest has blobs, which belong to an artifact manifest, but is called %s", fault.Quote(mediaType))
	case mediaType.IsIndex() && (has("layers") || has("config")):
		return invalid("the manifest is called an index (%s) but has the content of an image", fault.Quote(mediaType))
	case mediaType.IsImage() && has("manifests"):
		return invalid("the manifest is called an image (%s) but has the content of an index", fault.Quote(mediaType))
	case mediaType.IsImage() && !has("config"):
		return invalid("the manifest has no config")
	}
	return nil
}
