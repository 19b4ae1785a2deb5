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
	"os"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// contentFlags say how an artifact becomes content, as the fields of an
// ArtifactRepository do.
type contentFlags struct {
	format, platform string
	layerType        string
	layerOperation   string
	ignorePaths      []string
}

// bind adds the flags to a verb.
func (f *contentFlags) bind(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.format, "format", v1alpha1.FormatAuto, "`format` that the artifact must have, as spec.format")
	fs.StringVar(&f.platform, "platform", "", "manifest of an index to read, by its `os/architecture`, as spec.platform (default: the only one, else linux/amd64)")
	fs.StringVar(&f.layerType, "layer-media-type", "", "media `type` of the one layer to read, as spec.layerSelector.mediaType")
	fs.StringVar(&f.layerOperation, "layer-operation", "", "`operation` on that layer, extract or copy, as spec.layerSelector.operation")
	fs.StringSliceVar(&f.ignorePaths, "ignore-paths", nil, "`patterns` of files to leave out, in the format of .sourceignore, as spec.ignore")
	complete(cmd, "format", formats()...)
	complete(cmd, "platform", "linux/amd64", "linux/arm64")
	complete(cmd, "layer-operation", layerOperations()...)
}

// formats are the values of spec.format.
func formats() []string {
	return []string{
		v1alpha1.FormatAuto, v1alpha1.FormatFlux, v1alpha1.FormatHelm, v1alpha1.FormatTekton, v1alpha1.FormatImgpkg,
		v1alpha1.FormatFiles, v1alpha1.FormatKyverno, v1alpha1.FormatImage,
	}
}

// layerOperations are the values of spec.layerSelector.operation.
func layerOperations() []string { return []string{sourcev1.OCILayerExtract, sourcev1.OCILayerCopy} }

// options are the flags as the code of the controller takes them.
func (f *contentFlags) options(limits format.Limits) format.Options {
	o := format.Options{Format: f.format, Platform: f.platform, Limits: limits}
	if f.layerType != "" || f.layerOperation != "" {
		o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: f.layerType, Operation: f.layerOperation}
	}
	if len(f.ignorePaths) > 0 {
		patterns := f.patterns()
		o.Ignore = &patterns
	}
	return o
}

// patterns are the lines of a .sourceignore file.
func (f *contentFlags) patterns() string { return strings.Join(f.ignorePaths, "\n") }

// origin is an artifact in a registry.
type origin struct {
	app        *app
	repository *registry.Repository
	tag        string
	digest     v1.Hash
}

// open opens the repository of a reference. With a digest, the tag beside it
// only names what the digest is called.
func (a *app) open(ctx context.Context, text string) (origin, error) {
	image, err := a.reference(text)
	if err != nil {
		return origin{}, err
	}
	r := origin{app: a, tag: image.Tag, digest: image.Digest}
	if r.tag == "" && r.digest == (v1.Hash{}) {
		r.tag = name.DefaultTag
	}
	r.repository, err = a.access(ctx, image.Repository)
	return r, err
}

// ociScheme may stand before a reference, as everywhere in Flux.
const ociScheme = "oci://"

// reading is an artifact as the controller would publish it. What was found out before a
// failure is in it.
type reading struct {
	// Image that was resolved.
	Image bridge.Image
	// Raw is the manifest as the registry keeps it; nil when it was not found.
	Raw *registry.Manifest
	// Manifest is what Raw says; nil when it cannot be read.
	Manifest *format.Manifest
	// Verified is who verified the image.
	Verified trust.Verified
	bridge.Reading
}

// read reads an artifact as the controller would, into scratch.
func (r origin) read(ctx context.Context, content format.Options, by trust.Verifier, scratch string) (reading, error) {
	from := watchedRepository{r.repository, r.app}
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

// inFlags names flags of this command where an error of code that the controller
// uses, too, names fields of its kinds.
func inFlags(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err: err, words: flagNames().Replace(err.Error())}
}

// flagNames replaces words about fields by words about flags.
func flagNames() *strings.Replacer {
	return strings.NewReplacer(
		"let the ImageRepository's exclusionList leave out such tags", "give the tag or digest of that image",
		"spec.format", "--format",
		"spec.platform", "--platform",
		"spec.ignore", "--ignore-paths",
		"spec.timeout", "--timeout",
		"spec.layerSelector.operation", "--layer-operation",
		"spec.layerSelector", "--layer-media-type",
		"set mediaType to", "set --layer-media-type to",
		"with operation: ", "with --layer-operation ",
		" of matchOIDCIdentity", " of the certificate",
	)
}

// baseName is the last element of the repository's name.
func (r origin) baseName() string { return path.Base(r.repository.Name()) }

// inScratch runs work with a folder of its own, and removes it.
func inScratch(work func(dir string) error) error {
	dir, err := os.MkdirTemp("", programName+"-")
	if err != nil {
		return fmt.Errorf("cannot make a temporary folder: %w", err)
	}
	defer os.RemoveAll(dir)
	return work(dir)
}

// isFile tells whether what is published is a file as it is, not the archive of
// a tree.
func isFile(content *format.Content, o format.Options) bool {
	return content.ChartVersion != "" || o.LayerSelector != nil && o.LayerSelector.Operation == sourcev1.OCILayerCopy
}
