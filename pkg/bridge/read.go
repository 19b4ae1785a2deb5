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

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Reading is what Build would have stored of a candidate.
type Reading struct {
	// Content is the file.
	Content *format.Content
	// Revision that consumers would see.
	Revision string
}

// Read does what Build does with an image that is not known yet, up to the point where it
// would be stored: the file that would be published lies in scratch, a folder that the
// caller owns and removes. Nothing is remembered, shared or stored. The error is the one
// that Build would have returned.
func Read(ctx context.Context, r Request, proof trust.Verified, scratch string) (Reading, error) {
	manifest, err := r.parse(ctx, proof)
	if err != nil {
		return Reading{}, concealed(r.Repository, err)
	}
	r.Content.Image = r.Candidate.String()
	content, _, err := unpack(ctx, r, manifest, scratch)
	if err != nil {
		return Reading{}, concealed(r.Repository, err)
	}
	return Reading{Content: content, Revision: revision(nameable(r.Candidate.Image, content.ChartVersion), r.Content)}, nil
}

// unpack pulls what the manifest lists into a folder, and makes of it the file to publish.
// The spool says what was pulled.
func unpack(ctx context.Context, r Request, manifest *format.Manifest, scratch string) (*format.Content, *spool, error) {
	limit := cmp.Or(r.Content.Limits.ArtifactBytes, format.DefaultLimits().ArtifactBytes)
	blobs := &spool{repository: r.Repository, dir: scratch, limit: limit, constraints: r.Constraints}
	content, err := format.Convert(ctx, manifest, blobs, r.Content, scratch)
	return content, blobs, err
}
