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
	"fmt"
	"io"
	"path"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// minShownBytes is the size from which a download is shown: what is smaller is
// there before anybody could read of it.
const minShownBytes = 1 << 20

// watchedRepository is a repository that shows the progress of downloads.
type watchedRepository struct {
	*registry.Repository
	streams
}

// Pull is that of the repository.
func (r watchedRepository) Pull(ctx context.Context, desc v1.Descriptor, to io.Writer) (err error) {
	if desc.Size < minShownBytes {
		return r.Repository.Pull(ctx, desc, to)
	}
	shown := &progress{streams: r.streams, transfer: downwards, what: layerText(desc.Digest), repository: r.Name(), size: desc.Size}
	defer func() { shown.end(err) }()
	return r.Repository.Pull(ctx, desc, io.MultiWriter(to, shown.start()))
}

// origin is an artifact in a registry.
type origin struct {
	streams    streams
	repository *registry.Repository
	tag        string
	digest     v1.Hash
}

// openOrigin opens the repository of a reference. With a digest, the tag beside it
// only names what the digest is called.
func openOrigin(ctx context.Context, a *app, text string) (origin, error) {
	image, err := a.reference(text)
	if err != nil {
		return origin{}, err
	}
	r := origin{streams: a.streams, tag: image.Tag, digest: image.Digest}
	if r.tag == "" && r.digest == (v1.Hash{}) {
		r.tag = name.DefaultTag
	}
	r.repository, err = a.access(ctx, image.Repository)
	return r, err
}

// baseName is the last element of the repository's name.
func (r origin) baseName() string { return path.Base(r.repository.Name()) }

// reading is an artifact as the controller would publish it. What was found out before a
// failure is in it.
type reading struct {
	// Image that was resolved.
	Image bridge.Image
	// Raw is the manifest as the registry keeps it; nil when it was not found.
	Raw *registry.Manifest
	// Manifest is the content of Raw; nil when it cannot be read.
	Manifest *format.Manifest
	// Verified names the signers of the image.
	Verified trust.Verified
	bridge.Reading
}

// read reads an artifact as the controller would, into scratch.
func (r origin) read(ctx context.Context, content format.Options, by trust.Verifier, scratch string) (reading, error) {
	from := watchedRepository{r.repository, r.streams}
	found := reading{Image: bridge.Image{Repository: from.Name(), Tag: r.tag, Digest: r.digest}}
	candidates, err := bridge.Resolve(ctx, from, bridge.Reference{Tag: r.tag, Digest: r.digest})
	if err != nil {
		return found, inFlags(err)
	}
	candidate := candidates[0]
	found.Verified, err = bridge.Verify(ctx, from, candidate, by)
	found.Image, found.Raw = candidate.Image, candidate.Manifest()
	if found.Raw != nil { // a person wants to know what it is even if nobody vouches for it
		found.Manifest, _ = format.Parse(found.Raw.MediaType, found.Raw.Body) // Read tells why it cannot be
	}
	if err == nil {
		found.Reading, err = bridge.Read(ctx, bridge.Request{Repository: from, Candidate: candidate, Content: content}, found.Verified, scratch)
	}
	return found, inFlags(err)
}

// oneReference accepts the one argument of verbs about an artifact.
func oneReference(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s given, expected one: a reference such as ghcr.io/org/app-deploy:v1.0.0", counted(len(args), "argument"))
	}
	return nil
}
