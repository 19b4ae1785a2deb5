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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
)

// Bridge carries images to the store. One serves a whole process, so that
// equal content is pulled and read once.
type Bridge struct {
	store    Store
	contents *contents
	now      func() time.Time
}

// New returns a Bridge to a store. The clock stamps artifacts.
func New(s Store, now func() time.Time) *Bridge {
	return &Bridge{store: s, contents: newContents(now), now: now}
}

// Publish makes what the request asks for stand in the store and returns the
// artifact that says so. Its errors carry a reason and a class (pkg/fault);
// what was published before is never touched by a failure.
func (b *Bridge) Publish(ctx context.Context, r Request) (Outcome, error) {
	out, err := b.publish(ctx, r)
	return out, concealed(r.Repository, err)
}

func (b *Bridge) publish(ctx context.Context, r Request) (Outcome, error) {
	out := Outcome{
		Image:   Image{Repository: r.Repository.Name(), Tag: r.Tag, Digest: r.Digest},
		Content: format.ContentHash(r.Content),
	}
	manifest, err := resolve(ctx, r)
	if err != nil {
		return out, err
	}
	if manifest != nil {
		out.Image.Digest = manifest.Digest
	}
	if unchanged, err := b.stands(ctx, r, &out); unchanged || err != nil {
		return out, err
	}
	if refused := r.Refused; refused != nil && refused.Repository == out.Image.Repository && refused.Digest == out.Image.Digest && refused.Content == out.Content {
		return out, refused.Err
	}
	if manifest == nil {
		if manifest, err = r.Repository.Resolve(ctx, registry.Query{Digest: out.Image.Digest}); err != nil {
			return out, err
		}
	}
	verified, err := verify(ctx, r, out.Image)
	if err != nil {
		return out, err
	}
	parsed, err := format.Parse(manifest.MediaType, manifest.Body)
	if err != nil {
		return out, err
	}
	r.Content.Image = out.Image.String()
	content, stored, err := b.content(ctx, r, verified, parsed)
	if err != nil {
		return out, err
	}
	out.Proof, out.Bytes = verified, content.bytes
	out.Format, out.VerifiedBy, out.SkippedLinks, out.IgnoreFlaw = content.format, verified.By(), content.skippedLinks, content.ignoreFlaw
	out.chartVersion = content.chartVersion
	out.revision = revision(nameable(out.Image, out.chartVersion), r.Content)
	annotations := parsed.Annotations
	if parsed.Index != nil {
		annotations = content.annotations
	}
	out.Artifact = b.artifact(stored, out, annotations)
	return out, nil
}

// resolve asks the registry what the tag of a request points at. A digest is
// its own resolution: nothing is asked, and the manifest is nil.
func resolve(ctx context.Context, r Request) (*registry.Manifest, error) {
	if r.Digest != (v1.Hash{}) {
		return nil, nil
	}
	return r.Repository.Resolve(ctx, registry.Query{Tag: r.Tag, MaxAge: r.MaxAge, Fresh: r.Fresh})
}

// stands tells whether the resolved digest is what is published, read with the
// same settings and stored undamaged. A tag that is new for the same digest,
// unless the name is kept, or another address of the server, only renames the artifact.
func (b *Bridge) stands(ctx context.Context, r Request, out *Outcome) (bool, error) {
	p := r.Published
	if p == nil || p.Repository != out.Image.Repository || p.Digest != out.Image.Digest || p.Content != out.Content {
		return false, nil
	}
	kept, ok, err := b.store.Check(ctx, r.Key, p.Artifact, r.Depth)
	if !ok || err != nil {
		return false, err
	}
	out.Format, out.VerifiedBy, out.chartVersion = p.Format, p.VerifiedBy, p.Artifact.Metadata[v1alpha1.MetadataChartVersion]
	out.revision = revision(nameable(out.Image, out.chartVersion), r.Content)
	named := *out
	if r.KeepName {
		named.revision, named.Image.Tag = p.Artifact.Revision, p.Artifact.Metadata[v1alpha1.MetadataTag]
	}
	if p.Artifact.Revision == named.revision && p.Artifact.URL == kept.URL {
		out.Unchanged, out.Artifact = true, p.Artifact
		return true, nil
	}
	out.Artifact = b.artifact(kept, named, p.Artifact.Metadata)
	return true, nil
}

// artifact describes stored bytes the way Flux's consumers read it.
func (b *Bridge) artifact(stored store.Stored, out Outcome, annotations map[string]string) meta.Artifact {
	// The API server stores whole seconds, and the record is compared with what it stores.
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
