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

package trust

import (
	"context"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
)

// Shelf is the list of referrers of an image, as a Verifier reads it. Writers of
// signatures use it to write where a Verifier looks.
type Shelf struct {
	// Tag is the tag that the list is kept under. It is empty where the registry keeps
	// the list by itself (Distribution Specification 1.1).
	Tag string
	// Index is the content under Tag: an image index, or a manifest of another kind. It is
	// nil where there is nothing.
	Index []byte

	listed listing
}

// ReadShelf reads the list of referrers of a digest. With an error comes the part
// that was read.
func ReadShelf(ctx context.Context, repository Repository, digest v1.Hash) (Shelf, error) {
	r := &reader{source: repository}
	listed, err := r.referrers(ctx, digest)
	if err != nil || !listed.absent {
		return Shelf{listed: listed}, err
	}
	listed, err = r.tagged(ctx, digest)
	return Shelf{Tag: FallbackTag(digest), Index: listed.index, listed: listed}, err
}

// HasLegacy tells whether a legacy signature, in base64, is among those of a digest
// that a Verifier reads.
func HasLegacy(ctx context.Context, repository Repository, digest v1.Hash, encoded string) (bool, error) {
	r := &reader{source: repository}
	body, ok, err := r.legacyManifest(ctx, digest)
	m := manifest{}
	if !ok || m.decode(body) != nil {
		return false, err
	}
	return slices.ContainsFunc(m.Layers[:min(len(m.Layers), maxSignatures)], func(layer v1.Descriptor) bool {
		return layer.Annotations[static.SignatureAnnotationKey] == encoded
	}), nil
}

// Has tells whether a referrer is on the list.
func (s Shelf) Has(digest v1.Hash) bool {
	return slices.ContainsFunc(s.listed.found, func(r referrer) bool { return r.Digest == digest })
}
