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

package bridge

import (
	"cmp"
	"context"
	"errors"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Reading is what Publish would have stored of an image.
type Reading struct {
	// Image that was resolved.
	Image Image
	// Raw is the manifest as the registry keeps it; nil when it was not found.
	Raw *registry.Manifest
	// Manifest is what Raw says; nil when it cannot be read.
	Manifest *format.Manifest
	// Verified is who verified the image.
	Verified trust.Verified
	// Content is the file that would be stored; nil when there is none.
	Content *format.Content
	// Revision that consumers would see.
	Revision string
}

// Read does what Publish does with an image that is not known yet, up to the
// point where it would be stored: the file that would be published lies in
// scratch, a folder that the caller owns and removes. Of the request it takes
// what is about the image; nothing is remembered, shared or stored.
//
// The error is the one that Publish would have returned. What was found out
// before it is in the reading.
func Read(ctx context.Context, r Request, scratch string) (Reading, error) {
	reading, err := read(ctx, r, scratch)
	return reading, concealed(r.Repository, err)
}

func read(ctx context.Context, r Request, scratch string) (Reading, error) {
	reading := Reading{Image: Image{Repository: r.Repository.Name(), Tag: r.Tag, Digest: r.Digest}}
	var err error
	query := registry.Query{Tag: r.Tag, Digest: r.Digest, MaxAge: r.MaxAge, Fresh: r.Fresh}
	if reading.Raw, err = r.Repository.Resolve(ctx, query); err != nil {
		return reading, err
	}
	reading.Image.Digest = reading.Raw.Digest
	// A person wants to know what it is even if nobody vouches for it.
	manifest, malformed := format.Parse(reading.Raw.MediaType, reading.Raw.Body)
	reading.Manifest = manifest
	if reading.Verified, err = verify(ctx, r, reading.Image); err != nil || malformed != nil {
		return reading, cmp.Or(err, malformed)
	}
	r.Content.Image = reading.Image.String()
	if reading.Content, _, err = unpack(ctx, r, manifest, scratch); err != nil {
		return reading, err
	}
	reading.Revision = revision(nameable(reading.Image, reading.Content.ChartVersion), r.Content)
	return reading, nil
}

// errUnverified is a mistake in this program: a Verifier that proves nothing, or
// something of another image.
var errUnverified = errors.New("an image that nobody verified must not be pulled")

// verify is step 6: it makes the proof that an image may be pulled.
func verify(ctx context.Context, r Request, image Image) (trust.Verified, error) {
	asked := trust.Subject{Repository: image.Repository, Digest: image.Digest}
	verified, err := r.Verifier.Verify(ctx, asked)
	if err != nil {
		return trust.Verified{}, err
	}
	if subject, ok := verified.Subject(); !ok || subject != asked {
		return trust.Verified{}, errUnverified
	}
	return verified, nil
}

// unpack is steps 7 and 8: it pulls what the manifest lists into a folder, and
// makes of it the file to publish. The spool says what was pulled.
func unpack(ctx context.Context, r Request, manifest *format.Manifest, scratch string) (*format.Content, *spool, error) {
	limit := cmp.Or(r.Content.Limits.ArtifactBytes, format.DefaultLimits().ArtifactBytes)
	blobs := &spool{repository: r.Repository, dir: scratch, limit: limit, constraints: r.Constraints}
	content, err := format.Convert(ctx, manifest, blobs, r.Content, scratch)
	return content, blobs, err
}
