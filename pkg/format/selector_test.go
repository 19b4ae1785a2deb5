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

package format_test

import (
	"bytes"
	"os"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// unknownManifest is an artifact that nothing but a selector can read.
func unknownManifest(layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: "example/config"}, Layers: layers}
}

func selecting(mediaType, operation string) format.Options {
	return format.Options{LayerSelector: &sourcev1.OCILayerSelector{MediaType: mediaType, Operation: operation}, Image: image}
}

func TestASelectorPicksTheLayerThatAnOCIRepositoryPicks(t *testing.T) {
	b := blobs(t.TempDir())
	tree := func(mediaType types.MediaType, name string) v1.Descriptor {
		return b.put(t, mediaType, layerOf(t, file{name: name + ".yaml"}))
	}
	first, second, third := tree("example/a", "first"), tree("example/b", "second"), tree("example/b", "third")
	m := unknownManifest(first, second, third)
	for name, tc := range map[string]struct {
		options format.Options
		want    v1.Descriptor
	}{
		"no media type: the first layer":       {selecting("", "extract"), first},
		"a media type: the first layer of it":  {selecting("example/b", ""), second},
		"a media type and extract":             {selecting("example/a", "extract"), first},
		"copy, no media type: the first layer": {selecting("", "copy"), first},
		"copy, a media type":                   {selecting("example/b", "copy"), second},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := format.Convert(t.Context(), m, b, tc.options, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Digest).To(Equal(tc.want.Digest), "a clean layer is published as it is")
			g.Expect(content.Format).To(Equal(v1alpha1.FormatLayer))
		})
	}
}

func TestASelectorOfNothingLeavesItToTheFormat(t *testing.T) {
	b := blobs(t.TempDir())
	_, err := format.Convert(t.Context(), unknownManifest(b.put(t, "example/a", layerOf(t, good))), b, selecting("", ""), t.TempDir())
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "unsupported artifact")
}

func TestWhatASelectorExtractsIsFilteredAsByAnOCIRepository(t *testing.T) {
	plain := archive(t, good, file{name: "logo.jpg"}, file{name: "a/README.md"}, link("l", "x"))
	zipped := zipped(t, plain)
	// As tars were before POSIX.
	old := bytes.Clone(plain)
	copy(old[257:], make([]byte, 8))
	for name, layer := range map[string][]byte{
		"gzip": zipped, "zstd": zstandard(t, plain), "no compression": plain, "no compression, and no magic": checksummed(old),
		"zstd as pzstd writes it": append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), zstandard(t, plain)...),
	} {
		for what, option := range map[string]*string{"by default": nil, "by the option": new("*.md")} {
			t.Run(name+", "+what, func(t *testing.T) {
				g := NewWithT(t)
				b := blobs(t.TempDir())
				o := selecting("example/a", "")
				o.Ignore = option
				content, err := format.Convert(t.Context(), unknownManifest(b.put(t, "example/a", layer)), b, o, t.TempDir())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(unpack(t, content.Path)).To(Equal(unpack(t, sourceControllerArchive(t, zipped, option))))
				g.Expect(content.SkippedLinks).To(Equal(1))
			})
		}
	}
}

func TestACopyIsTheBytesOfTheLayer(t *testing.T) {
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		body      []byte
		version   string
	}{
		"a tree that Flux would filter": {fluxContent, layerOf(t, good, file{name: "logo.jpg"}), ""},
		"a chart":                       {helmChart, layerOf(t, chartYAML), "1.2.3"},
		"no archive at all":             {"example/a", []byte("anything"), ""},
		"an archive that is hostile":    {"example/a", layerOf(t, file{name: "../x"}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			o := selecting(string(tc.mediaType), "copy")
			content, err := format.Convert(t.Context(), unknownManifest(b.put(t, tc.mediaType, tc.body)), b, o, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(os.ReadFile(content.Path)).To(Equal(tc.body))
			g.Expect(content.Verbatim).To(BeTrue())
			g.Expect(content.ChartVersion).To(Equal(tc.version))
		})
	}
}

func TestASelectorThatSelectsNothing(t *testing.T) {
	b := blobs(t.TempDir())
	one := b.put(t, "example/a", layerOf(t, good))
	two := b.put(t, "example/b\x1b", layerOf(t, good))
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		options  format.Options
		reason   string
		words    []string
	}{
		"a media type that no layer has": {unknownManifest(one, two, one), selecting("example/c", ""), v1alpha1.ReasonInvalidArtifact,
			[]string{`no layer of the type "example/c"`, `[2x "example/a", 1x "example/b\x1b"]`}},
		"an artifact without layers":  {unknownManifest(), selecting("", "copy"), v1alpha1.ReasonInvalidArtifact, []string{"no layers"}},
		"an operation that is none":   {unknownManifest(one), selecting("", "unzip"), v1alpha1.ReasonInvalidSpec, []string{`"unzip"`, "extract or copy"}},
		"a chart that is not there":   {chartManifest(one), selecting("", "extract"), v1alpha1.ReasonInvalidArtifact, []string{"no layer of type"}},
		"a chart that Helm refuses":   {unknownManifest(b.put(t, helmChart, layerOf(t, good))), selecting(helmChart, "copy"), v1alpha1.ReasonInvalidArtifact, []string{"in no folder"}},
		"what is no archive":          {unknownManifest(b.put(t, "example/a", []byte("kind: Pod\n"))), selecting("", "extract"), v1alpha1.ReasonInvalidArtifact, []string{`"example/a"`, "is no tar", "operation: copy"}},
		"what is a long text":         {unknownManifest(b.put(t, "application/yaml", []byte(text(2000)))), selecting("", "extract"), v1alpha1.ReasonInvalidArtifact, []string{"is no tar", "operation: copy"}},
		"another format than is said": {unknownManifest(one), pinned(selecting("", "extract"), v1alpha1.FormatFlux), v1alpha1.ReasonUnsupportedMediaType, []string{"spec.format is Flux"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), tc.manifest, b, tc.options, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words...)
		})
	}
}

func pinned(o format.Options, name string) format.Options {
	o.Format = name
	return o
}

func TestASelectorOverridesTheDetectionAndNotThePin(t *testing.T) {
	b := blobs(t.TempDir())
	flux := b.put(t, fluxContent, layerOf(t, good))
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		options  format.Options
		format   string
	}{
		"what has no format":                {unknownManifest(b.put(t, "application/vnd.example.deploy.tar+gzip", layerOf(t, good))), selecting("", "extract"), v1alpha1.FormatLayer},
		"what is refused by its name":       {manifestOf("application/vnd.timoni.config.v1+json", flux), selecting("", "extract"), v1alpha1.FormatLayer},
		"a Flux artifact of two layers":     {fluxManifest(flux, flux), selecting("", "extract"), v1alpha1.FormatFlux},
		"a Flux artifact that is pinned":    {fluxManifest(flux), pinned(selecting(fluxContent, ""), v1alpha1.FormatFlux), v1alpha1.FormatFlux},
		"a chart that is pinned, as a tree": {chartManifest(b.put(t, helmChart, layerOf(t, chartYAML))), pinned(selecting("", "extract"), v1alpha1.FormatHelm), v1alpha1.FormatHelm},
		"files of a type of somebody's own": {unknownManifest(titled(flux, "a")), pinned(selecting("", "extract"), v1alpha1.FormatFiles), v1alpha1.FormatFiles},
		"a container image":                 {manifestOf(types.OCIConfigJSON, b.put(t, types.OCILayer, layerOf(t, good))), selecting("", "extract"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := format.Convert(t.Context(), tc.manifest, b, tc.options, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			if tc.format != "" {
				g.Expect(content.Format).To(Equal(tc.format))
			}
			g.Expect(unpack(t, content.Path)).NotTo(BeEmpty())
		})
	}
}

func manifestOf(config types.MediaType, layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: config}, Layers: layers}
}
