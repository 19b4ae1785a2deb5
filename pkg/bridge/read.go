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

// Reading is the result of Read.
type Reading struct {
	// Content is the file.
	Content *format.Content
	// Revision that consumers would see.
	Revision string
}

// Read takes the steps of Build for an unknown image, except for storing: the file to
// publish is in scratch, a folder that the caller owns and removes. Read remembers, shares
// and stores no result. It returns the errors of Build.
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

// unpack pulls the blobs of a manifest into a folder and converts them to the file to
// publish. The spool has the list of the pulled blobs.
func unpack(ctx context.Context, r Request, manifest *format.Manifest, scratch string) (*format.Content, *spool, error) {
	limit := cmp.Or(r.Content.Limits.ArtifactBytes, format.DefaultLimits().ArtifactBytes)
	blobs := &spool{repository: r.Repository, dir: scratch, limit: limit, constraints: r.Constraints}
	content, err := format.Convert(ctx, manifest, blobs, r.Content, scratch)
	return content, blobs, err
}
