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
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxChildren bounds the manifests that are read to choose one of an index,
	// those of the indexes in it included.
	maxChildren        = 16
	sourceAnnotation   = "org.opencontainers.image.source"
	revisionAnnotation = "org.opencontainers.image.revision"

	// maxIndexDepth is how deep indexes may be nested: one in another.
	maxIndexDepth = 2
)

// child is a manifest of an index that may be the one to publish.
type child struct {
	Chosen
	// annotations of the manifest, and those of the indexes that it is in.
	annotations map[string]string
	row         *row
}

// specific tells whether the child has a format of its own, be it one that is
// refused: that it is not one of many images or bags of files.
func (c child) specific() bool {
	return c.row != nil && !c.row.needsConfig && c.row.reads.Name != v1alpha1.FormatFiles
}

// couldBe tells whether the child has a format. Of an image, only its config
// tells which of several it has.
func (c child) couldBe(name string) bool {
	switch {
	case c.row == nil:
		return false
	case c.row.needsConfig:
		return name == v1alpha1.FormatImage || name == v1alpha1.FormatImgpkg
	default:
		return c.row.reads.Name == name
	}
}

// String describes the child in a message.
func (c child) String() string {
	what := "of no format that is known"
	if c.row != nil {
		what = c.row.what
	}
	if c.Platform == nil {
		return what + " for no platform, which means " + DefaultPlatform
	}
	return what + " for " + fault.Quote(c.Platform.String())
}

// choose returns the manifest of an index to publish: the only one that is
// neither an image nor a bag of files, such as a chart beside the images that
// it deploys; else the only one; else the first for DefaultPlatform. Where a
// platform is asked for, only manifests for it count. Signatures, attestations and
// what is no manifest do not count, and of a pinned format only manifests that may
// have it.
func choose(ctx context.Context, in input) (child, error) {
	o := in.Options
	// Whoever names the kind of an index means all of it.
	if r := find(&Manifest{ArtifactType: in.Manifest.ArtifactType}, ""); r != nil && !r.isRead() {
		return child{}, r.refuse(o)
	}
	platform, err := v1.ParsePlatform(cmp.Or(o.Platform, DefaultPlatform))
	if err != nil || platform.OS == "" || platform.Architecture == "" {
		return child{}, invalidSpec("spec.platform is %s; expected os/architecture", fault.Quote(o.Platform))
	}
	l := lister{in: in, seen: map[string]bool{}}
	if err := l.list(ctx, child{Chosen: Chosen{Manifest: in.Manifest}, annotations: in.Manifest.Annotations}); err != nil {
		return child{}, err
	}
	candidates, err := candidatesOf(l.children, o)
	if err != nil {
		return child{}, err
	}
	fit := pick(candidates, func(c child) bool { return c.isFor(*platform) })
	from := candidates
	if o.Platform != "" {
		from = fit
	}
	if only, ok := theOnly(from); ok {
		return only.take(o.Report)
	}
	if len(fit) > 0 {
		return fit[0].take(o.Report)
	}
	return child{}, unsupported("unsupported artifact %s: none of the %d manifests of the index is for %s: %s; set spec.platform to one of them, or publish one by its digest",
		o.Image, len(candidates), fault.Quote(platform.String()), describe(candidates))
}

// isFor tells whether the child is for a platform. A variant counts where one is
// asked for. A child without a platform is for DefaultPlatform, as it is for
// go-containerregistry, which OCIRepository reads indexes with.
func (c child) isFor(want v1.Platform) bool {
	have := v1.Platform{OS: "linux", Architecture: "amd64"}
	if c.Platform != nil {
		have = *c.Platform
	}
	isOfVariant := want.Variant == "" || normal(have).Variant == normal(want).Variant
	have, want = normal(have), normal(want)
	have.Variant, want.Variant = "", ""
	return isOfVariant && have.Satisfies(want)
}

// normal returns a platform in the spelling of containerd: arm64 for arm64/v8.
func normal(p v1.Platform) v1.Platform {
	if p.OS == "" { // containerd takes it for the system that runs this
		return p
	}
	n := platforms.Normalize(specs.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant})
	p.OS, p.Architecture, p.Variant = n.OS, n.Architecture, n.Variant
	return p
}

// take returns the child that is chosen. Only then a flaw
// matters: an index may list images for other platforms that are not stored in
// registries as a whole, such as older ones for Windows.
func (c child) take(r *Report) (child, error) {
	if c.flaw != nil {
		return child{}, fmt.Errorf("the manifest %s of the index: %w", c.Digest, c.flaw)
	}
	if r != nil {
		r.Chosen = &c.Chosen
	}
	return c, nil
}

// candidatesOf returns the children that may have the format that is asked for.
func candidatesOf(children []child, o Options) ([]child, error) {
	if len(children) == 0 {
		return nil, invalid("the index %s lists no manifest of an artifact; signatures, attestations and media types that are no manifests do not count", o.Image)
	}
	pinned := o.settings().Format
	if pinned == "" {
		return children, nil
	}
	could := pick(children, func(c child) bool { return c.couldBe(pinned) })
	if len(could) == 0 {
		return nil, unsupported("spec.format is %s, but no manifest of the index %s has this format: %s", pinned, o.Image, describe(children))
	}
	return could, nil
}

// theOnly returns the only child of a specific format, or else the only child. One
// that is listed for several platforms is one.
func theOnly(children []child) (child, bool) {
	for _, all := range [][]child{pick(children, child.specific), children} {
		if len(all) > 0 && !slices.ContainsFunc(all, func(c child) bool { return c.Digest != all[0].Digest }) {
			return all[0], true
		}
	}
	return child{}, false
}

func describe(children []child) string {
	var parts []string
	for _, c := range children {
		parts = append(parts, c.String())
	}
	return strings.Join(parts, ", ")
}

// lister reads the manifests of an index and of those in it.
type lister struct {
	in       input
	children []child
	// seen are the digests that were read, so that nothing counts twice.
	seen map[string]bool
	// depth of the index that is read, read the number of manifests that were.
	depth, read int
	// bytes of these manifests, which are held until one is chosen.
	bytes int64
}

// list reads the manifests of an index.
func (l *lister) list(ctx context.Context, index child) error {
	l.depth++
	defer func() { l.depth-- }()
	if l.depth > maxIndexDepth {
		return invalid("the index holds an index that holds another; expected at most one in another")
	}
	for _, desc := range index.Index.Manifests {
		if describesAnother(desc) || !desc.MediaType.IsImage() && !desc.MediaType.IsIndex() {
			continue
		}
		desc.Platform = cmp.Or(desc.Platform, index.Platform)
		if l.isKnown(desc) {
			continue
		}
		if l.read++; l.read > maxChildren {
			return tooLarge("the index lists more than the %d manifests that are read to choose one; publish one by its digest", maxChildren)
		}
		if desc.Size > MaxManifestBytes-l.bytes {
			return tooLarge("the manifests of the index have more than %d bytes together, the most that are read to choose one; publish one by its digest", MaxManifestBytes)
		}
		l.bytes += desc.Size
		m, err := l.in.child(ctx, desc)
		if err != nil {
			return err
		}
		c := child{Chosen: Chosen{Manifest: m, Digest: desc.Digest, Platform: desc.Platform}, annotations: inherit(m.Annotations, index.annotations)}
		switch {
		case m.Index != nil:
			if err := l.list(ctx, c); err != nil {
				return err
			}
		case !isReferrer(m):
			c.row = find(m, l.in.settings().Format)
			l.children = append(l.children, c)
		}
	}
	return nil
}

// isKnown tells whether a manifest was listed for its platform before.
func (l *lister) isKnown(desc v1.Descriptor) bool {
	this := desc.Digest.String()
	if desc.Platform != nil {
		this += " " + normal(*desc.Platform).String()
	}
	known := l.seen[this]
	l.seen[this] = true
	return known
}

// inherit returns the annotations of a manifest, and those of its index that the
// manifest has not. Source and revision are one fact: those of the index may be of
// another commit.
func inherit(own, index map[string]string) map[string]string {
	all := maps.Clone(index)
	if own[sourceAnnotation] != "" || own[revisionAnnotation] != "" {
		delete(all, sourceAnnotation)
		delete(all, revisionAnnotation)
	}
	if all == nil {
		return own
	}
	maps.Copy(all, own)
	return all
}

// child reads a manifest that an index lists, which may have a flaw.
func (in input) child(ctx context.Context, desc v1.Descriptor) (*Manifest, error) {
	mediaType, body, err := in.Blobs.Manifest(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("failed to read the manifest %s of the index: %w", desc.Digest, err)
	}
	m, err := parse(cmp.Or(mediaType, desc.MediaType), body)
	if err != nil {
		return nil, fmt.Errorf("the manifest %s of the index: %w", desc.Digest, err)
	}
	if m.MediaType != desc.MediaType {
		return nil, invalid("the index calls the manifest %s %s, but it is %s", desc.Digest, fault.Quote(desc.MediaType), fault.Quote(m.MediaType))
	}
	return m, nil
}

// describesAnother tells whether an index lists the manifest because it signs
// or attests another: as BuildKit marks it, or by its type
// (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
func describesAnother(desc v1.Descriptor) bool {
	p := desc.Platform
	return p != nil && p.OS == "unknown" && p.Architecture == "unknown" ||
		desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		isReferrerType(desc.ArtifactType)
}
