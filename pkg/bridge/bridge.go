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
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Bridge carries images to the store. One serves a whole process, so that equal content is
// pulled and read once.
type Bridge struct {
	store    Store
	contents *contents
	now      func() time.Time
}

// New returns a Bridge to a store. The clock stamps artifacts.
func New(s Store, now func() time.Time) *Bridge {
	return &Bridge{store: s, contents: newContents(now), now: now}
}

// Reuse reports whether a candidate is already published and stored, read with the same
// settings: then no pull is necessary. A new tag for the same digest, unless the name is
// kept, and another address of the server only rename the artifact.
func (b *Bridge) Reuse(ctx context.Context, r Request, p *Published) (out Outcome, ok bool, err error) {
	out = r.outcome()
	if p == nil || p.Repository != out.Image.Repository || p.Digest != out.Image.Digest || p.Content != out.Content {
		return out, false, nil
	}
	kept, ok, err := b.store.Check(ctx, r.Key, p.Artifact)
	if !ok || err != nil {
		return out, false, concealed(r.Repository, err)
	}
	out.Format, out.VerifiedBy, out.chartVersion = p.Format, p.VerifiedBy, p.Artifact.Metadata[v1alpha1.MetadataChartVersion]
	out.revision = revision(nameable(out.Image, out.chartVersion), r.Content)
	named := out
	if p.KeepName {
		named.revision, named.Image.Tag = p.Artifact.Revision, p.Artifact.Metadata[v1alpha1.MetadataTag]
	}
	if p.Artifact.Revision == named.revision && p.Artifact.URL == kept.URL {
		out.Unchanged, out.Artifact = true, p.Artifact
		return out, true, nil
	}
	out.Artifact = b.artifact(kept, named, p.Artifact.Metadata)
	return out, true, nil
}

// Build pulls and reads a verified candidate, checks its format and size, stores its file
// and returns the artifact. Errors carry a reason and a class (pkg/fault); a failure never
// touches the published artifact.
func (b *Bridge) Build(ctx context.Context, r Request, proof trust.Verified) (Outcome, error) {
	out, err := b.build(ctx, r, proof)
	return out, concealed(r.Repository, err)
}

func (b *Bridge) build(ctx context.Context, r Request, proof trust.Verified) (Outcome, error) {
	out := r.outcome()
	parsed, err := r.parse(ctx, proof)
	if err != nil {
		return out, err
	}
	r.Content.Image = out.Image.String()
	content, stored, err := b.content(ctx, r, proof, parsed)
	if err != nil {
		return out, err
	}
	out.Proof, out.Bytes = proof, content.bytes
	out.Format, out.VerifiedBy, out.SkippedLinks, out.IgnoreFlaw = content.format, proof.By(), content.skippedLinks, content.ignoreFlaw
	out.chartVersion = content.chartVersion
	out.revision = revision(nameable(out.Image, out.chartVersion), r.Content)
	annotations := parsed.Annotations
	if parsed.Index != nil {
		annotations = content.annotations
	}
	out.Artifact = b.artifact(stored, out, annotations)
	return out, nil
}

// outcome returns the outcome as it is known before the first step.
func (r Request) outcome() Outcome {
	return Outcome{Image: r.Candidate.Image, Content: format.ContentHash(r.Content)}
}

// parse parses the manifest of a proven candidate.
func (r Request) parse(ctx context.Context, proof trust.Verified) (*format.Manifest, error) {
	if err := r.Candidate.provenBy(proof); err != nil {
		return nil, err
	}
	manifest, err := r.Candidate.read(ctx, r.Repository)
	if err != nil {
		return nil, err
	}
	return format.Parse(manifest.MediaType, manifest.Body)
}

// artifact describes a stored file for Flux's consumers.
func (b *Bridge) artifact(stored store.Stored, out Outcome, annotations map[string]string) meta.Artifact {
	// The API server stores whole seconds, and we compare the record with its answer.
	now := metav1.NewTime(b.now().Truncate(time.Second))
	return meta.Artifact{
		Path:           stored.Path,
		URL:            stored.URL,
		Digest:         stored.Digest,
		Size:           &stored.Size,
		Revision:       out.revision,
		LastUpdateTime: now,
		Metadata:       metadata(annotations, out),
	}
}
