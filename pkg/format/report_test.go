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
	"archive/tar"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
)

func symlink(name string) file {
	return file{name: name, Header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "elsewhere"}}
}

func TestAReportSaysWhatIsLeftOutAndWhy(t *testing.T) {
	g := NewWithT(t)
	report := &format.Report{}
	layer := layerOf(t, file{name: "a.yaml", body: "x"}, symlink("./link"), file{name: "b.md", body: "y"}, file{name: "docs/c.md", body: "z"})
	ignore := "*.md"
	_, err := convert(t, layer, format.Options{Report: report, Ignore: &ignore})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Kind).To(Equal("a Flux artifact"))
	g.Expect(report.Chosen).To(BeNil())
	g.Expect(report.Omitted).To(ConsistOf(
		format.Omission{Path: "link", Cause: format.SymbolicLink},
		format.Omission{Path: "b.md", Cause: format.Ignored},
		format.Omission{Path: "docs/c.md", Cause: format.Ignored},
	), "each once, though the layer is read twice")
}

// TestAReportIsBounded reads an artifact that packs links with 20 MB of paths into a few
// kilobytes.
func TestAReportIsBounded(t *testing.T) {
	g := NewWithT(t)
	const links = 20_000
	files := []file{{name: "a.yaml", body: "x"}}
	for i := range links {
		files = append(files, symlink(strings.Repeat(strings.Repeat("a", 249)+"/", 4)+strconv.Itoa(i)))
	}
	report := &format.Report{}
	_, err := convert(t, layerOf(t, files...), format.Options{Report: report})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(len(report.Omitted)).To(BeNumerically("~", 8400, 100))
	g.Expect(len(report.Omitted) + report.Unlisted).To(Equal(links))
}

func TestAReportIsOfWhatIsRefusedToo(t *testing.T) {
	g := NewWithT(t)
	report := &format.Report{}
	_, err := convert(t, layerOf(t, symlink("link")), format.Options{Report: report})
	g.Expect(err).To(HaveOccurred())
	g.Expect(report.Kind).To(Equal("a Flux artifact"))
	g.Expect(report.Omitted).To(ConsistOf(format.Omission{Path: "link", Cause: format.SymbolicLink}))

	report = &format.Report{}
	timoni := &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: "application/vnd.timoni.config.v1+json"}}
	_, err = format.Convert(t.Context(), timoni, blobs(t.TempDir()), format.Options{Report: report}, t.TempDir())
	g.Expect(err).To(HaveOccurred())
	g.Expect(report.Kind).To(Equal("a Timoni artifact"))
}

func TestAReportOfAnImageNamesItsLinks(t *testing.T) {
	g := NewWithT(t)
	b, report := blobs(t.TempDir()), &format.Report{}
	first := b.put(t, types.OCILayer, layerOf(t, file{name: "a.yaml", body: "x"}, symlink("link"), symlink("gone"), symlink("folder")))
	second := b.put(t, types.OCILayer, layerOf(t, file{name: ".wh.gone"}, file{name: "folder/b.yaml", body: "y"}))
	m := &format.Manifest{MediaType: types.OCIManifestSchema1, Config: b.put(t, types.OCIConfigJSON, []byte("{}")), Layers: []v1.Descriptor{first, second}}
	content, err := format.Convert(t.Context(), m, b, format.Options{Format: v1alpha1.FormatImage, Report: report}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.SkippedLinks).To(Equal(2))
	g.Expect(report.Omitted).To(ConsistOf(
		format.Omission{Path: "link", Cause: format.SymbolicLink}, format.Omission{Path: "folder", Cause: format.SymbolicLink}))
}

func TestAReportOfAnImgpkgBundleNamesItsLock(t *testing.T) {
	g := NewWithT(t)
	b, report := blobs(t.TempDir()), &format.Report{}
	config := b.put(t, types.DockerConfigJSON, []byte(`{"config":{"Labels":{"dev.carvel.imgpkg.bundle":"true"}}}`))
	m := &format.Manifest{MediaType: types.DockerManifestSchema2, Config: config, Layers: []v1.Descriptor{
		b.put(t, types.DockerLayer, layerOf(t, folder(".imgpkg/"), lock(), file{name: "a.yaml", body: "x"})),
	}}
	_, err := format.Convert(t.Context(), m, b, format.Options{Report: report}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Kind).To(Equal("an imgpkg bundle"))
	g.Expect(report.Omitted).To(ConsistOf(format.Omission{Path: ".imgpkg/images.yml", Cause: format.LockFile}))
}

func TestAReportNamesTheManifestOfAnIndexThatIsRead(t *testing.T) {
	g := NewWithT(t)
	arm := fluxFor(t, "arm64")
	want, err := arm.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	m, b := pushIndex(t, indexOf(listed(fluxFor(t, "amd64"), "linux/amd64"), listed(arm, "linux/arm64")))
	report := &format.Report{}
	content, err := format.Convert(t.Context(), m, b, format.Options{Platform: "linux/arm64", Report: report}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(report.Chosen.Digest).To(Equal(want))
	g.Expect(report.Chosen.Platform.String()).To(Equal("linux/arm64"))
	g.Expect(report.Chosen.Layers).To(HaveLen(1))
	g.Expect(report.Chosen.Layers[0].Digest).To(Equal(content.Digest))
}
