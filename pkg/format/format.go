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
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Format is how the manifests of one kind of artifact are read.
type Format struct {
	// Name is the value of spec.format that pins it.
	Name string
	// read makes the file to publish from the blobs of a manifest of this
	// format. What is wrong with the artifact is a stall with a reason, what is
	// wrong with the local disk a retry.
	read func(ctx context.Context, in input) (*Content, error)
}

// Blobs hands out what was pulled.
type Blobs interface {
	// Open opens a blob that was pulled to its end and whose size and digest
	// were checked. The file is positioned at its start and the caller closes
	// it; its name stays good until whoever owns the blobs removes them.
	Open(ctx context.Context, desc v1.Descriptor) (*os.File, error)
	// Manifest returns a manifest that an index lists, with the media type that
	// the registry calls it by. Its size and digest were checked; its size is
	// never asked to be more than MaxManifestBytes.
	Manifest(ctx context.Context, desc v1.Descriptor) (types.MediaType, []byte, error)
}

// input is the artifact that a format reads, and the place where it may write.
type input struct {
	Options

	Manifest *Manifest
	Blobs    Blobs
	// Scratch is a folder that the caller owns and removes.
	Scratch string
}

// Content is a file that is ready to be published.
type Content struct {
	// Format that the artifact was read as: one of the formats of api/v1alpha1.
	Format string
	// Path of the file: in the scratch folder, or the blob's own.
	Path string
	// Digest is the sha256 of the file.
	Digest v1.Hash
	// Size of the file in bytes.
	Size int64
	// Verbatim is true when the file is a layer's own bytes.
	Verbatim bool
	// SkippedLinks is how many symbolic links were left out.
	SkippedLinks int
	// IgnoreFlaw is what [PatternFlaw] says of the artifact's .sourceignore files; empty
	// if all lines can be read.
	IgnoreFlaw string
	// ChartVersion is the version of the Helm chart that the file is; empty for
	// anything else. helm-controller refuses a revision whose tag is another
	// version.
	ChartVersion string
	// Annotations of the manifest that was read, and for keys that it lacks, of the
	// index that lists it.
	Annotations map[string]string
}

// row is one line of the detection table.
type row struct {
	// what it is, with its article, as messages say it.
	what string
	// matches decides by the manifest alone.
	matches func(*Manifest) bool
	// reads is empty for formats that are recognised and refused.
	reads Format
	// refusal says why it is refused and what to do instead.
	refusal string
	// needsConfig: only the labels in the image's config tell what it really is.
	needsConfig bool
	// onlyPinned: it is refused unless spec.format names the format that reads it.
	onlyPinned bool
	// inPart: only some layers match, so that another format that spec.format names
	// decides.
	inPart bool
}

// table lists every kind of artifact that is told apart. The first row that
// matches decides, so the order matters: what carries a config type of its own
// comes first, what merely looks like an image or a bag of files last.
func table() []row {
	flux := Format{v1alpha1.FormatFlux, readFlux}
	tekton := Format{v1alpha1.FormatTekton, readTekton}
	image := Format{v1alpha1.FormatImage, readImage}
	return []row{
		{what: "a signature, attestation or SBOM", matches: isReferrer,
			refusal: "it describes another image; let the ImageRepository's exclusionList leave out such tags"},
		{what: "a Flux artifact", matches: hasType(fluxConfig), reads: flux},
		{what: "a Helm chart", matches: hasType(helmConfig), reads: Format{v1alpha1.FormatHelm, readHelm}},
		{what: "a Kyverno policy artifact", matches: hasType(kyvernoConfig, kyvernoBundle), reads: Format{v1alpha1.FormatKyverno, readKyverno}},
		{what: "a Timoni artifact", matches: isTimoniFiles,
			refusal: "only Timoni unpacks it; push the same files as a Flux artifact"},
		{what: "a Timoni module", matches: hasType(timoniConfig),
			refusal: "CUE must be rendered first; push the output of timoni build as a Flux artifact"},
		{what: "a Docker Compose application", matches: hasType(composeArtifact, composeConfig),
			refusal: "it holds no Kubernetes objects"},
		{what: "a CUE module", matches: hasType(cueConfig),
			refusal: "CUE must be rendered first; push the rendered YAML as a Flux artifact"},
		{what: "a Helm plugin", matches: hasType(helmPlugin), refusal: "it holds no Kubernetes objects"},
		{what: "a Fleet bundle", matches: hasType(fleetManifest), refusal: "only Fleet can read it"},
		{what: "a conftest policy bundle", matches: isOfType(regoPrefix),
			refusal: "Rego policies are no Kubernetes objects"},
		{what: "a KCL package", matches: hasAnnotation(kclPackage),
			refusal: "KCL must be rendered first; push the rendered YAML as a Flux artifact"},
		{what: "a Tekton bundle", matches: allContent(isAnnotated(tektonPrefix)), reads: tekton},
		{what: "a Tekton bundle", matches: anyLayer(isAnnotated(tektonPrefix)), reads: tekton, inPart: true},
		// Crossplane marks one layer of several:
		// https://github.com/crossplane/crossplane/blob/v2.0.2/contributing/specifications/xpkg.md
		{what: "a Crossplane package", matches: anyLayer(isAnnotated(crossplaneMark)), refusal: crossplaneRefusal},
		{what: "an imgpkg bundle", matches: isImageLabelled(imgpkgLabel), reads: Format{v1alpha1.FormatImgpkg, readImgpkg}},
		{what: "a Crossplane package", matches: isImageLabelled(crossplaneMark + ":"), refusal: crossplaneRefusal},
		{what: "an OLM bundle", matches: isImageLabelled(olmPrefix), reads: image, onlyPinned: true,
			refusal: "its files are published where spec.format is Image; then set spec.path of the Kustomization to ./manifests"},
		{what: "a container image", matches: isImage, needsConfig: true, reads: image, onlyPinned: true,
			refusal: "its files are published where spec.format is Image; use one without a base image, or push the manifests with flux push artifact"},
		{what: "an ORAS artifact", matches: isFiles, reads: Format{v1alpha1.FormatFiles, readFiles}},
		// Its layer tells, as it is enough for an OCIRepository.
		{what: "a Flux artifact", matches: allContent(func(l v1.Descriptor) bool { return l.MediaType == fluxContent }), reads: flux},
	}
}

// Detect decides by media types alone which format reads the manifest. Every
// error stalls. What only the config of an image tells apart (imgpkg bundle,
// Crossplane package, plain image) is a container image here; Convert looks.
// An index has no format: Convert reads one of its manifests.
func Detect(m *Manifest, o Options) (Format, error) {
	if err := checkOptions(o); err != nil {
		return Format{}, err
	}
	if m.Index != nil {
		return Format{}, unsupported("unsupported artifact %s: it is an index, of which one manifest has to be chosen; supported: %s", o.Image, supported())
	}
	if limit := o.Limits.withDefaults().Layers; len(m.Layers) > limit {
		return Format{}, exceeded("--max-layers", "the manifest has %d layers, more than the %d that are read", len(m.Layers), limit)
	}
	pinned := o.settings().Format
	r := find(m, pinned)
	if s, ok := o.selector(); ok && (pinned == "" || r.isRead() && r.reads.Name == pinned) {
		return Format{r.readAs(), selected(s).read}, nil
	}
	switch {
	case r == nil && pinned != "":
		return Format{}, unsupported("spec.format is %s, but the artifact is of no format that is known: %s", pinned, unknown(m, o))
	case r == nil:
		return Format{}, unsupported("%s", unknown(m, o))
	case !r.isRead(), r.onlyPinned && pinned == "":
		return Format{}, r.refuse(o)
	case pinned != "" && r.reads.Name != pinned:
		return Format{}, unsupported("spec.format is %s, but %s is %s; set spec.format to %s", pinned, o.Image, r.what, r.pin())
	}
	return r.reads, nil
}

// refuse says why an artifact is refused that is recognised.
func (r *row) refuse(o Options) error {
	return unsupported("unsupported artifact %s: it is %s: %s; supported: %s", o.Image, r.what, r.refusal, supported())
}

// Convert detects the format of the manifest, of an index that of the manifest
// that is chosen from it, and reads it into the file to publish, which lies in
// scratch or is a blob's own file.
func Convert(ctx context.Context, m *Manifest, blobs Blobs, o Options, scratch string) (*Content, error) {
	if err := checkOptions(o); err != nil {
		return nil, err
	}
	in := input{Options: o, Manifest: m, Blobs: blobs, Scratch: scratch}
	in.Limits = o.Limits.withDefaults()
	annotations := m.Annotations
	if m.Index != nil {
		chosen, err := choose(ctx, in)
		if err != nil {
			return nil, err
		}
		in.Manifest, annotations = chosen.Manifest, chosen.annotations
	}
	if in.needsLabels() {
		var err error
		if in.Manifest, err = readLabels(ctx, in); err != nil {
			return nil, err
		}
	}
	o.Report.recognise(in.Manifest, o)
	f, err := Detect(in.Manifest, in.Options)
	if err != nil {
		return nil, err
	}
	content, err := f.read(ctx, in)
	if err != nil {
		return nil, err
	}
	content.Format, content.Annotations = f.Name, annotations
	return content, nil
}

// needsLabels tells whether the labels of the image's config are missing to
// tell what is to be read.
func (in input) needsLabels() bool {
	pinned := in.settings().Format
	if _, ok := in.selector(); ok && pinned == "" {
		return false
	}
	r := find(in.Manifest, pinned)
	return r != nil && r.needsConfig && in.Manifest.labels == nil
}

// open opens a blob whose size the limits allow.
func (in input) open(ctx context.Context, desc v1.Descriptor) (*os.File, error) {
	if limit := in.Limits.ArtifactBytes; desc.Size > limit {
		return nil, exceeded("--max-artifact-bytes", "the layer %s has %d bytes, more than the %d that are read", desc.Digest, desc.Size, limit)
	}
	f, err := in.Blobs.Open(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("failed to open blob %s: %w", desc.Digest, err)
	}
	return f, nil
}

// fetch has several blobs pulled before one of them is read, which costs far more.
// An artifact whose last blob is missing, or has another size than its manifest
// says, would be read up to that blob in each attempt.
func (in input) fetch(ctx context.Context, layers []v1.Descriptor) error {
	for i, desc := range layers {
		file, err := in.open(ctx, desc)
		if err != nil {
			return inLayer(i, layers, err)
		}
		if err := file.Close(); err != nil {
			return disk("close a blob", err)
		}
	}
	return nil
}

// find returns the row of the table that the manifest matches, nil when none
// does. What is pinned as files may have any type: ORAS lets people choose one.
func find(m *Manifest, pinned string) *row {
	if m.Index != nil {
		return nil
	}
	for _, r := range table() {
		if r.inPart && pinned != "" && pinned != r.reads.Name {
			continue
		}
		if r.matches(m) || pinned == v1alpha1.FormatFiles && r.reads.Name == pinned && anyLayer(isTitled)(m) {
			return &r
		}
	}
	return nil
}

func (r *row) isRead() bool { return r != nil && r.reads.Name != "" }

// readAs is the format of a layer that is selected: FormatLayer where there is no
// format to read, or where it promises objects of its own, which nobody looks for
// in a layer alone.
func (r *row) readAs() string {
	if !r.isRead() || r.reads.Name == v1alpha1.FormatTekton || r.reads.Name == v1alpha1.FormatKyverno {
		return v1alpha1.FormatLayer
	}
	return r.reads.Name
}

// pin is what spec.format may be to read it.
func (r *row) pin() string {
	if r.onlyPinned {
		return r.reads.Name
	}
	return v1alpha1.FormatAuto + " or " + r.reads.Name
}

// formats returns the formats that can be read, in the order of the table.
func formats() []string {
	var names []string
	for _, r := range table() {
		if r.isRead() && !slices.Contains(names, r.reads.Name) {
			names = append(names, r.reads.Name)
		}
	}
	return names
}

func supported() string { return strings.Join(formats(), ", ") }

// checkOptions refuses what cannot be honoured: a setting is never ignored.
func checkOptions(o Options) error {
	if selector, ok := o.selector(); ok {
		if err := checkSelector(selector); err != nil {
			return err
		}
	}
	if pinned := o.settings().Format; pinned != "" && !slices.Contains(formats(), pinned) {
		return invalidSpec("spec.format %s is not supported yet; supported: %s, %s", fault.Quote(pinned), v1alpha1.FormatAuto, supported())
	}
	return nil
}
