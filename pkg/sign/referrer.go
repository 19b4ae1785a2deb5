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

package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	cosigntypes "github.com/sigstore/cosign/v3/pkg/types"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// maxListings bounds how often an entry is written to a list that others write, too.
const maxListings = 20

// listingPause is the wait for a registry to list a referrer that it has stored.
const listingPause = 250 * time.Millisecond

// store uploads a bundle and returns the manifest that refers with it to a digest, in
// the form of cosign.
func store(ctx context.Context, subject name.Digest, bundle []byte, o Options) (of v1.Hash, manifest []byte, err error) {
	if of, err = v1.NewHash(subject.DigestStr()); err != nil {
		return of, nil, err
	}
	described, err := o.Registry.Resolve(ctx, registry.Query{Digest: of})
	if err != nil {
		return of, nil, err
	}
	mediaType, err := sgbundle.MediaTypeString("0.3")
	if err != nil {
		return of, nil, err
	}
	for _, blob := range []v1.Layer{
		static.NewLayer(ocispec.DescriptorEmptyJSON.Data, ocispec.MediaTypeEmptyJSON), static.NewLayer(bundle, types.MediaType(mediaType)),
	} {
		if err := remote.WriteLayer(subject.Context(), blob, append(slices.Clip(o.Remote), remote.WithContext(ctx))...); err != nil {
			return of, nil, err
		}
	}
	empty := ocispec.DescriptorEmptyJSON
	empty.Data = nil
	manifest, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: mediaType,
		Config:  empty,
		Layers:  []ocispec.Descriptor{{MediaType: mediaType, Digest: digest.FromBytes(bundle), Size: int64(len(bundle))}},
		Subject: &ocispec.Descriptor{MediaType: string(described.MediaType), Digest: digest.Digest(of.String()), Size: int64(len(described.Body))},
		Annotations: map[string]string{
			ocispec.AnnotationCreated:     time.Now().UTC().Format(time.RFC3339),
			"dev.sigstore.bundle.content": "dsse-envelope",
			ociremote.BundlePredicateType: cosigntypes.CosignSignPredicateType,
		},
	})
	return of, manifest, err
}

// list stores the manifest of a referrer and has it on the list that a Verifier
// reads. Where the list is an index under a tag, another job may overwrite it at the
// same time: then the entry is written again.
func list(ctx context.Context, repository Registry, subject v1.Hash, body []byte) error {
	digest, size, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return err
	}
	for attempt := range maxListings {
		listed, err := repository.Referrers(ctx, subject)
		tagged := err == nil && listed.Absent
		if tagged {
			listed, err = repository.TaggedReferrers(ctx, subject)
		}
		switch {
		case listed.Has(digest):
			return nil
		case err != nil:
			return err
		case attempt == 0:
			if err := repository.Put(ctx, digest.String(), types.OCIManifestSchema1, body); err != nil {
				return err
			}
			continue
		case !tagged: // some registries take a while
			if err := pause(ctx, listingPause); err != nil {
				return fmt.Errorf("the registry stores the signature %s, but does not list it as a referrer of %s: %w", digest, subject, err)
			}
			continue
		}
		tag := registry.FallbackTag(subject)
		index, err := withEntry(tag, listed.Index, body, v1.Descriptor{Digest: digest, Size: size})
		if err != nil {
			return err
		}
		if err := repository.Put(ctx, tag, types.OCIImageIndex, index); err != nil {
			return err
		}
	}
	return fmt.Errorf("the registry stores the signature %s, but a reader does not find it on the list of referrers of %s; "+
		"if other jobs sign the same digest at the same time, try again", digest, subject)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// withEntry adds an entry to the index under a tag. It keeps all others as they are,
// also those that it cannot decode.
func withEntry(tag string, old, manifest []byte, entry v1.Descriptor) ([]byte, error) {
	var described struct {
		ArtifactType string            `json:"artifactType"`
		Annotations  map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(manifest, &described); err != nil {
		return nil, err
	}
	entry.MediaType, entry.ArtifactType, entry.Annotations = types.OCIManifestSchema1, described.ArtifactType, described.Annotations
	added, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	index := map[string]json.RawMessage{"schemaVersion": json.RawMessage("2"), "mediaType": json.RawMessage(`"` + ocispec.MediaTypeImageIndex + `"`)}
	var entries []json.RawMessage
	if old != nil {
		index = nil
		if err := errors.Join(json.Unmarshal(old, &index), json.Unmarshal(index["manifests"], &entries)); err != nil {
			return nil, fmt.Errorf("the tag %s, where the list of referrers belongs, holds something else than an image index; remove that tag", tag)
		}
	}
	if index["manifests"], err = json.Marshal(append(entries, added)); err != nil {
		return nil, err
	}
	return json.Marshal(index)
}
