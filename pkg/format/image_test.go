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
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	fluxtar "github.com/fluxcd/pkg/tar"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	emptyimage "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/memory"
)

func writeImage(t testing.TB, url string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(url)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(remote.Write(ref, img)).To(Succeed())
}

func hardLink(name, target string) file {
	return file{name: name, Header: tar.Header{Typeflag: tar.TypeLink, Linkname: target}}
}

// flatten reads gzip layers as an image.
func flatten(t testing.TB, o format.Options, layers ...[]file) (*format.Content, error) {
	t.Helper()
	b := blobs(t.TempDir())
	var descs []v1.Descriptor
	for _, files := range layers {
		descs = append(descs, b.put(t, types.OCILayer, layerOf(t, files...)))
	}
	o.Format, o.Image = v1alpha1.FormatImage, image
	return format.Convert(t.Context(), ofImage(t, b, descs...), b, o, t.TempDir())
}

// TestTheLayersOfAnImageAreAppliedAsTheSpecificationDemands has trees from
// https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md and what
// follows from its words.
func TestTheLayersOfAnImageAreAppliedAsTheSpecificationDemands(t *testing.T) {
	type tree = map[string]string
	const dir = "folder"
	for name, tc := range map[string]struct {
		layers [][]file
		want   tree
		links  int
		// ggcr says that go-containerregistry gets this right too.
		ggcr bool
	}{
		"the example of a changeset": {
			layers: [][]file{
				{folder("./"), folder("./etc/"), {name: "./etc/my-app-config", body: "1"}, folder("./bin/"), {name: "./bin/my-app-binary", body: "b"}, {name: "./bin/my-app-tools", body: "1"}},
				{folder("./etc/my-app.d/"), {name: "./etc/my-app.d/default.cfg", body: "2"}, {name: "./bin/my-app-tools", body: "2"}, {name: "./etc/.wh.my-app-config"}},
			},
			want: tree{"etc": dir, "etc/my-app.d": dir, "etc/my-app.d/default.cfg": "2", "bin": dir, "bin/my-app-binary": "b", "bin/my-app-tools": "2"}, ggcr: true},
		"the example of an opaque whiteout that comes first": {
			layers: [][]file{
				{folder("a/"), folder("a/b/"), folder("a/b/c/"), {name: "a/b/c/bar"}},
				{folder("a/"), {name: "a/.wh..wh..opq"}, folder("a/b/"), folder("a/b/c/"), {name: "a/b/c/foo"}},
			},
			want: tree{"a": dir, "a/b": dir, "a/b/c": dir, "a/b/c/foo": ""}, ggcr: true},
		"the example of an opaque whiteout that comes last": {
			layers: [][]file{
				{folder("a/"), folder("a/b/"), folder("a/b/c/"), {name: "a/b/c/bar"}},
				{folder("a/"), folder("a/b/"), folder("a/b/c/"), {name: "a/b/c/foo"}, {name: "a/.wh..wh..opq"}},
			},
			want: tree{"a": dir, "a/b": dir, "a/b/c": dir, "a/b/c/foo": ""}, ggcr: true},
		"the example of an opaque whiteout and nothing else": {
			layers: [][]file{
				{{name: "etc/my-app-config"}, {name: "bin/my-app-binary"}, {name: "bin/tools/my-app-tool-one"}},
				{folder("bin/"), {name: "bin/.wh..wh..opq"}},
			},
			want: tree{"etc": dir, "etc/my-app-config": "", "bin": dir}, ggcr: true},
		"the same with explicit whiteouts": {
			layers: [][]file{
				{{name: "etc/my-app-config"}, {name: "bin/my-app-binary"}, {name: "bin/tools/my-app-tool-one"}},
				{folder("bin/"), {name: "bin/.wh.my-app-binary"}, {name: "bin/.wh.tools"}},
			},
			want: tree{"etc": dir, "etc/my-app-config": "", "bin": dir}, ggcr: true},
		"an opaque whiteout at the root": {
			layers: [][]file{{{name: "a"}, {name: "d/b"}}, {{name: "c"}, {name: ".wh..wh..opq"}}}, want: tree{"c": ""}},
		"an opaque whiteout leaves alone what this layer implies": {
			layers: [][]file{{{name: "a/b/old"}}, {{name: "a/b/new"}, {name: "a/.wh..wh..opq"}}}, want: tree{"a": dir, "a/b": dir, "a/b/new": ""}},

		"a file replaces a file": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: "a", body: "2"}}}, want: tree{"a": "2"}, ggcr: true},
		"a file replaces a folder": {
			layers: [][]file{{folder("a"), {name: "a/b"}, {name: "a/c/d"}}, {{name: "a", body: "2"}}}, want: tree{"a": "2"}},
		"a folder replaces a file": {
			layers: [][]file{{{name: "a", body: "1"}}, {folder("a"), {name: "a/b"}}}, want: tree{"a": dir, "a/b": ""}},
		"a folder that is only implied replaces a file": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: "a/b/c"}}}, want: tree{"a": dir, "a/b": dir, "a/b/c": ""}},
		"a folder on a folder keeps what is in it": {
			layers: [][]file{{folder("a"), {name: "a/b"}}, {folder("a"), {name: "a/c"}}, {{name: "a/d"}}}, want: tree{"a": dir, "a/b": "", "a/c": "", "a/d": ""}, ggcr: true},
		"a link replaces a folder": {
			layers: [][]file{{{name: "a/b"}, good}, {link("a", "deploy.yaml")}}, want: tree{"deploy.yaml": good.body}, links: 1},
		"a file replaces a link": {
			layers: [][]file{{link("a", "x")}, {{name: "a", body: "2"}}}, want: tree{"a": "2"}},
		"a file, a folder and a file of one name": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: "a/b"}}, {{name: "a", body: "3"}}}, want: tree{"a": "3"}},

		"a whiteout of a file": {
			layers: [][]file{{{name: "a"}, good}, {{name: ".wh.a"}}}, want: tree{"deploy.yaml": good.body}, ggcr: true},
		"a whiteout of a folder": {
			layers: [][]file{{{name: "d/a"}, {name: "d/e/b"}, good}, {{name: ".wh.d"}}}, want: tree{"deploy.yaml": good.body}},
		"a whiteout deep in a folder": {
			layers: [][]file{{{name: "d/e/a"}, {name: "d/e/b"}}, {{name: "d/e/.wh.a"}}}, want: tree{"d": dir, "d/e": dir, "d/e/b": ""}, ggcr: true},
		"a whiteout of a link": {
			layers: [][]file{{link("l", "x"), good}, {{name: ".wh.l"}}}, want: tree{"deploy.yaml": good.body}, ggcr: true},
		"a whiteout of nothing": {
			layers: [][]file{{good}, {{name: ".wh.x"}, {name: "no/.wh.x"}, {name: "no/.wh..wh..opq"}}}, want: tree{"deploy.yaml": good.body}},
		"a whiteout in the first layer": {
			layers: [][]file{{{name: ".wh.deploy.yaml"}, good}}, want: tree{"deploy.yaml": good.body}},
		"a whiteout, then the file again": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: ".wh.a"}, {name: "a", body: "2"}}}, want: tree{"a": "2"}},
		"the file again, then a whiteout": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: "a", body: "2"}, {name: ".wh.a"}}}, want: tree{"a": "2"}},
		"a whiteout, then the folder again": {
			layers: [][]file{{{name: "d/old"}}, {{name: ".wh.d"}, folder("d"), {name: "d/new"}}}, want: tree{"d": dir, "d/new": ""}},
		"the folder again, then a whiteout": {
			layers: [][]file{{{name: "d/old"}, {name: "d/e/old"}}, {folder("d"), {name: "d/new"}, {name: "d/e/new"}, {name: ".wh.d"}}}, want: tree{"d": dir, "d/new": "", "d/e": dir, "d/e/new": ""}},
		"a file in a folder, then a whiteout of the folder": {
			layers: [][]file{{{name: "d/old"}}, {{name: "d/new"}, {name: ".wh.d"}}}, want: tree{"d": dir, "d/new": ""}},
		"a whiteout, and the file again in the next layer": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: ".wh.a"}}, {{name: "a", body: "3"}}}, want: tree{"a": "3"}, ggcr: true},
		"a whiteout of what an upper layer changed": {
			layers: [][]file{{{name: "a", body: "1"}, good}, {{name: "a", body: "2"}}, {{name: ".wh.a"}}}, want: tree{"deploy.yaml": good.body}, ggcr: true},
		"two whiteouts in a folder that both layers touch": {
			layers: [][]file{{{name: "d/a"}, {name: "d/e/b"}, {name: "d/e/c"}}, {{name: "d/e/x"}, {name: "d/e/.wh.b"}, {name: ".wh.d"}}}, want: tree{"d": dir, "d/e": dir, "d/e/x": ""}},
		"a whiteout written as a hard link, as AUFS did": {
			layers: [][]file{{{name: "a"}, good}, {{name: ".wh..wh.aufs"}, hardLink(".wh.a", ".wh..wh.aufs")}}, want: tree{"deploy.yaml": good.body}},

		"a hard link to a file of its layer": {
			layers: [][]file{{{name: "a", body: "1", mode: 0o755}, hardLink("d/b", "a"), hardLink("c", "./d/b")}}, want: tree{"a": "1", "d": dir, "d/b": "1", "c": "1"}},
		"a hard link to a file of a lower layer": {
			layers: [][]file{{{name: "a", body: "1"}}, {{name: "x"}}, {hardLink("b", "a")}}, want: tree{"a": "1", "x": "", "b": "1"}},
		"a hard link to what is there now": {
			layers: [][]file{{{name: "a", body: "1"}}, {hardLink("b", "a"), {name: "a", body: "2"}, hardLink("c", "a")}}, want: tree{"a": "2", "b": "1", "c": "2"}},
		"a hard link whose target is removed later": {
			layers: [][]file{{{name: "a", body: "1"}}, {hardLink("b", "a")}, {{name: ".wh.a"}}}, want: tree{"b": "1"}},
		"a hard link that replaces a folder": {
			layers: [][]file{{{name: "a", body: "1"}, {name: "b/c"}}, {hardLink("b", "a")}}, want: tree{"a": "1", "b": "1"}},
		"a hard link to a symbolic link": {
			layers: [][]file{{link("l", "/etc/passwd"), hardLink("m", "l"), good}}, want: tree{"deploy.yaml": good.body}, links: 2},

		"symbolic links anywhere": {
			layers: [][]file{{link("a", "/etc/passwd"), link("up", "../../x"), link("loop", "loop"), link("d/l", ".."), good}}, want: tree{"d": dir, "deploy.yaml": good.body}, links: 4},
		"a file in a folder that is a link": {
			layers: [][]file{{link("etc", "/etc"), {name: "etc/passwd", body: "ours"}}}, want: tree{"etc": dir, "etc/passwd": "ours"}, links: 1},
		"a file in a folder that is a link of a lower layer": {
			layers: [][]file{{{name: "usr/bin/a"}, link("bin", "usr/bin")}, {{name: "bin/b", body: "b"}}}, want: tree{"usr": dir, "usr/bin": dir, "usr/bin/a": "", "bin": dir, "bin/b": "b"}, links: 1},
		"a whiteout in a folder that is a link": {
			layers: [][]file{{{name: "d/a"}, link("l", "d")}, {{name: "l/.wh.a"}}}, want: tree{"d": dir, "d/a": ""}, links: 1},
		"names with dots and slashes": {
			layers: [][]file{{folder("./"), {name: "./a/./b//c", body: "1"}}, {{name: "a/b/c", body: "2"}, {name: "./a/.wh.x"}}}, want: tree{"a": dir, "a/b": dir, "a/b/c": "2"}, ggcr: true},
		"absolute names, as ko writes them": {
			layers: [][]file{
				{folder("/"), folder("/ko-app"), {name: "/ko-app/app", body: "1", mode: 0o555}, {name: "/var/run/ko/a.yaml", body: "a"}, link("/var/run/ko/HEAD", "/etc/passwd"), {name: "//d", body: "d"}},
				{{name: "/var/run/ko/.wh.a.yaml"}, {name: "var/run/ko/b.yaml", body: "b"}, hardLink("/c", "/ko-app/app"), hardLink("e", "/d")},
			},
			want: tree{"ko-app": dir, "ko-app/app": "1", "var": dir, "var/run": dir, "var/run/ko": dir, "var/run/ko/b.yaml": "b", "c": "1", "d": "d", "e": "d"}, links: 1},
		"names that differ in case only": {
			layers: [][]file{{{name: "e/x", body: "1"}, {name: "E/x", body: "2"}, {name: "README"}}, {{name: "Readme"}, {name: ".wh.README"}}}, want: tree{"e": dir, "e/x": "1", "E": dir, "E/x": "2", "Readme": ""}},
		"one name twice in a layer": {
			layers: [][]file{{folder("d"), {name: "a", body: "1"}, {name: "./a", body: "2"}, {name: "d/x"}, folder("d/")}}, want: tree{"a": "2", "d": dir, "d/x": ""}},
		"setuid and sticky bits": {
			layers: [][]file{{{name: "a", mode: 0o4755, body: "1"}, {name: "b", Header: tar.Header{Mode: 0o1000}}}}, want: tree{"a": "1", "b": ""}},
		"files that Flux would leave out": {
			layers: [][]file{{{name: "a.png"}, {name: ".github/ci.yaml"}}, {{name: ".sourceignore", body: "*"}}}, want: tree{"a.png": "", ".github": dir, ".github/ci.yaml": "", ".sourceignore": "*"}, ggcr: true},
		"an empty layer": {
			layers: [][]file{{good}, {}}, want: tree{"deploy.yaml": good.body}, ggcr: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := flatten(t, format.Options{}, tc.layers...)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Format).To(Equal(v1alpha1.FormatImage))
			g.Expect(unpack(t, content.Path)).To(Equal(tc.want))
			g.Expect(content.SkippedLinks).To(Equal(tc.links))
			for _, h := range headers(t, content.Path) {
				g.Expect(h.Typeflag).To(BeElementOf(byte(tar.TypeReg), byte(tar.TypeDir)))
			}
			if tc.ggcr {
				g.Expect(extracted(t, tc.layers)).To(Equal(tc.want))
			}
		})
	}
}

// extracted is the tree that go-containerregistry makes of the layers, as a
// consumer of Flux would unpack it.
func extracted(t testing.TB, layers [][]file) map[string]string {
	t.Helper()
	g := NewWithT(t)
	img := emptyimage.Image
	for _, files := range layers {
		body := layerOf(t, files...)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil })
		g.Expect(err).NotTo(HaveOccurred())
		img, err = mutate.AppendLayers(img, l)
		g.Expect(err).NotTo(HaveOccurred())
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	dir := t.TempDir()
	g.Expect(fluxtar.Untar(flat, dir, fluxtar.WithMaxUntarSize(-1), fluxtar.WithSkipSymlinks(), fluxtar.WithSkipGzip())).To(Succeed())
	return list(t, dir)
}

func TestImagesThatNobodyShouldUnpackAreRefused(t *testing.T) {
	special := func(flag byte) file { return file{name: "s", Header: tar.Header{Typeflag: flag}} }
	invalid := v1alpha1.ReasonInvalidArtifact
	for name, tc := range map[string]struct {
		layers [][]file
		words  string
	}{
		"a bare whiteout":                          {[][]file{{good}, {{name: ".wh."}}}, "a whiteout that names no file"},
		"a bare whiteout in a folder":              {[][]file{{good}, {{name: "d/.wh."}}}, "a whiteout that names no file"},
		"a whiteout of the folder it is in":        {[][]file{{{name: "d/a"}, good}, {{name: "d/.wh.."}}}, "a whiteout that names no file"},
		"a whiteout of the folder above":           {[][]file{{{name: "d/e/a"}, good}, {{name: "d/e/.wh..."}}}, "a whiteout that names no file"},
		"a whiteout that is a folder":              {[][]file{{good}, {folder(".wh.a")}}, "which is reserved, but which is no file"},
		"a whiteout that is a symbolic link":       {[][]file{{good}, {link(".wh.a", "x")}}, "which is reserved, but which is no file"},
		"a file in a folder of a reserved name":    {[][]file{{good}, {{name: ".wh.d/a"}}}, "which is reserved"},
		"a file deep in a folder of such a name":   {[][]file{{good}, {{name: "d/.wh..wh.plnk/12.34/a"}}}, "which is reserved"},
		"a hard link to nothing":                   {[][]file{{good}, {hardLink("b", "a")}}, `the hard link "b" to "a", which is not there`},
		"a hard link to what comes later":          {[][]file{{hardLink("b", "deploy.yaml"), good}}, "which is not there"},
		"a hard link to what a lower layer hid":    {[][]file{{{name: "a"}, good}, {{name: ".wh.a"}}, {hardLink("b", "a")}}, "which is not there"},
		"a hard link through a symbolic link":      {[][]file{{{name: "d/a"}, link("l", "d"), hardLink("b", "l/a")}}, "which is not there"},
		"a hard link to a folder":                  {[][]file{{{name: "d/a"}, hardLink("b", "d")}}, "to the folder"},
		"a hard link to the root":                  {[][]file{{good, hardLink("b", "./")}}, "which is not there"},
		"a hard link out of the image":             {[][]file{{good, hardLink("b", "/etc/passwd")}}, `to "etc/passwd", which is not there`},
		"an absolute name that leads up":           {[][]file{{good, {name: "/../x"}}}, `contains "../"`},
		"an absolute name that leads up later":     {[][]file{{good, {name: "/a/../../x"}}}, `contains "../"`},
		"an absolute folder that is two dots":      {[][]file{{good, folder("/..")}}, "leads out of its folder"},
		"an absolute hard link that leads up":      {[][]file{{good, hardLink("b", "/../etc/passwd")}}, `contains "../"`},
		"an absolute hard link to two dots":        {[][]file{{good, hardLink("b", "/..")}}, "leads out of its folder"},
		"a symbolic link whose name leads up":      {[][]file{{good, link("/../x", "y")}}, `contains "../"`},
		"a link that is the root":                  {[][]file{{good, link("/", "x")}}, "which is the root folder"},
		"a hard link that leads up":                {[][]file{{good, hardLink("b", "../../etc/passwd")}}, `contains "../"`},
		"a hard link that leads up at its end":     {[][]file{{good, hardLink("b", "d/..")}}, "leads out of its folder"},
		"a hard link to a name with a line break":  {[][]file{{good, hardLink("b", "a\nb")}}, "control characters"},
		"a symbolic link at the root":              {[][]file{{good, link("./", "x")}}, "which is the root folder"},
		"a device":                                 {[][]file{{good}, {special(tar.TypeChar)}}, "a device"},
		"a FIFO":                                   {[][]file{{good}, {special(tar.TypeFifo)}}, "a FIFO"},
		"a device that is hidden by a later layer": {[][]file{{special(tar.TypeBlock)}, {{name: ".wh.s"}, good}}, "a device"},
		"nothing":      {[][]file{{good}, {{name: ".wh.deploy.yaml"}}}, "has no files"},
		"folders only": {[][]file{{good, folder("d")}, {{name: ".wh.deploy.yaml"}}}, "has no files"},
		"links only":   {[][]file{{link("l", "x")}}, "symbolic links and no files"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := flatten(t, format.Options{}, tc.layers...)
			NewWithT(t).Expect(content).To(BeNil())
			expectFault(t, err, invalid, fault.Stall, tc.words)
		})
	}
}

func TestTheLimitsOfAnImageAreThoseOfAllItsLayers(t *testing.T) {
	some := func(prefix string, n int) []file {
		var files []file
		for i := range n {
			files = append(files, file{name: fmt.Sprintf("%s%d", prefix, i), body: "12345"})
		}
		return files
	}
	large := file{name: "large", body: string(make([]byte, 1<<20))}
	var copies []file
	for i := range 20 {
		copies = append(copies, hardLink(fmt.Sprintf("copy-%d", i), "large"))
	}
	for name, tc := range map[string]struct {
		layers [][]file
		limits format.Limits
		words  []string
	}{
		"entries of two layers":           {[][]file{some("a", 10), some("a", 10)}, format.Limits{Entries: 19}, []string{"more than 19 entries", "--max-entries"}},
		"whiteouts":                       {[][]file{some("a", 10), some(".wh.a", 10)}, format.Limits{Entries: 19}, []string{"--max-entries"}},
		"folders that are only implied":   {[][]file{{{name: "a/b/c"}}, {{name: "d/e/f"}}}, format.Limits{Entries: 5}, []string{"more than 5 files and folders"}},
		"paths":                           {[][]file{some("a", 10), some("b", 10)}, format.Limits{IndexBytes: 30}, []string{"more than 30 bytes together"}},
		"bytes of two layers":             {[][]file{{large}, {large}}, format.Limits{UncompressedBytes: 1<<20 + 1<<19}, []string{"unpacks to more than 1572864 bytes", "--max-uncompressed-bytes"}},
		"bytes that hard links stand for": {[][]file{{large}, copies}, format.Limits{UncompressedBytes: 10 << 20}, []string{"hard links", "--max-uncompressed-bytes"}},
		"layers":                          {[][]file{{good}, {good}, {good}}, format.Limits{Layers: 2}, []string{"3 layers"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := flatten(t, format.Options{Limits: tc.limits}, tc.layers...)
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, tc.words...)
		})
	}
	t.Run("what a layer replaces counts no more", func(t *testing.T) {
		limits := format.Limits{Entries: 30, IndexBytes: 35}
		content, err := flatten(t, format.Options{Limits: limits}, some("a", 10), some(".wh.a", 10), some("b", 10))
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(unpack(t, content.Path)).To(HaveLen(10))
	})
}

func TestAnImageIsReadWhateverItsLayersAreCompressedWith(t *testing.T) {
	g := NewWithT(t)
	lower, upper := []file{good, {name: "a", body: "1"}}, []file{{name: ".wh.a"}, {name: "b", body: "2"}}
	compress := map[types.MediaType]func([]byte) []byte{
		types.OCILayer:     func(b []byte) []byte { return zipped(t, b) },
		types.DockerLayer:  func(b []byte) []byte { return inMembers(t, b) },
		types.OCILayerZStd: func(b []byte) []byte { return zstandard(t, b) },
		"application/vnd.docker.image.rootfs.diff.tar.zstd": func(b []byte) []byte { return zstandard(t, b) },
		types.OCIUncompressedLayer:                          func(b []byte) []byte { return b },
		types.DockerUncompressedLayer:                       func(b []byte) []byte { return b },
	}
	var want v1.Hash
	for of, lowerBytes := range compress {
		for as, upperBytes := range compress {
			img, err := mutate.AppendLayers(emptyimage.Image,
				static.NewLayer(lowerBytes(archive(t, lower...)), of), static.NewLayer(upperBytes(archive(t, upper...)), as))
			g.Expect(err).NotTo(HaveOccurred())
			m, b := pushed(t, img)
			content, err := format.Convert(t.Context(), m, b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"deploy.yaml": good.body, "b": "2"}))
			if want == (v1.Hash{}) {
				want = content.Digest
			}
			g.Expect(content.Digest).To(Equal(want))
		}
	}
}

func TestAnImageMayHaveOneLayerTwice(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	first, second := b.put(t, types.OCILayer, layerOf(t, file{name: "a", body: "1"})), b.put(t, types.OCILayer, layerOf(t, file{name: ".wh.a"}, good))
	content, err := format.Convert(t.Context(), ofImage(t, b, first, second, first), b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"a": "1", "deploy.yaml": good.body}))
}

func TestAnImageOfOneCleanLayerIsPublishedAsThatLayer(t *testing.T) {
	for name, tc := range map[string]struct {
		layer    []byte
		of       types.MediaType
		o        format.Options
		verbatim bool
	}{
		"files and folders":       {layerOf(t, folder("d"), file{name: "d/x"}, good), types.OCILayer, format.Options{}, true},
		"names of two cases":      {layerOf(t, file{name: "a"}, file{name: "A"}), types.DockerLayer, format.Options{}, true},
		"a link":                  {layerOf(t, good, link("l", "x")), types.OCILayer, format.Options{}, false},
		"a hard link":             {layerOf(t, good, hardLink("l", good.name)), types.OCILayer, format.Options{}, false},
		"an absolute name":        {layerOf(t, good, file{name: "/x"}), types.OCILayer, format.Options{}, false},
		"a whiteout":              {layerOf(t, good, file{name: ".wh.x"}), types.OCILayer, format.Options{}, false},
		"one name twice":          {layerOf(t, good, good), types.OCILayer, format.Options{}, false},
		"one folder twice":        {layerOf(t, good, folder("d"), folder("d")), types.OCILayer, format.Options{}, false},
		"a file that is left out": {layerOf(t, good, file{name: "x"}), types.OCILayer, format.Options{Ignore: new("x")}, false},
		"zstd":                    {zstandard(t, archive(t, good)), types.OCILayerZStd, format.Options{}, false},
		"no compression":          {archive(t, good), types.OCIUncompressedLayer, format.Options{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			desc := b.put(t, tc.of, tc.layer)
			tc.o.Format = v1alpha1.FormatImage
			scratch := t.TempDir()
			content, err := format.Convert(t.Context(), ofImage(t, b, desc), b, tc.o, scratch)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Verbatim).To(Equal(tc.verbatim))
			g.Expect(content.Digest == desc.Digest).To(Equal(tc.verbatim))
			g.Expect(list(t, scratch)).To(HaveLen(map[bool]int{true: 0, false: 1}[tc.verbatim]))
			g.Expect(unpack(t, content.Path)).NotTo(BeEmpty())
		})
	}
}

func TestAnImageIsNeverChosenByItself(t *testing.T) {
	b := blobs(t.TempDir())
	m := ofImage(t, b, b.put(t, types.OCILayer, layerOf(t, good)))
	for _, pinned := range []string{"", v1alpha1.FormatAuto} {
		_, err := format.Convert(t.Context(), m, b, format.Options{Format: pinned, Image: image}, t.TempDir())
		expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "it is a container image", "where spec.format is Image")
	}
	olm := ofLabelled(t, b, `{"operators.operatorframework.io.bundle.manifests.v1":"manifests/"}`, b.put(t, types.OCILayer, layerOf(t, file{name: "manifests/x.yaml"})))
	_, err := format.Convert(t.Context(), olm, b, format.Options{Image: image}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "it is an OLM bundle", "spec.path of the Kustomization to ./manifests")
	content, err := format.Convert(t.Context(), olm, b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(unpack(t, content.Path)).To(HaveKey("manifests/x.yaml"))
}

func TestForeignLayersAreRefused(t *testing.T) {
	for _, mediaType := range []types.MediaType{types.DockerForeignLayer, types.OCIRestrictedLayer, types.OCIUncompressedRestrictedLayer} {
		img, err := mutate.AppendLayers(emptyimage.Image, static.NewLayer(layerOf(t, good), mediaType))
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		body, err := img.RawManifest()
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		_, err = format.Parse(types.DockerManifestSchema2, body)
		expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "not stored in the registry")
	}
}

func TestNothingIsWrittenOutsideTheScratchFolder(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	victim := filepath.Join(root, "victim")
	g.Expect(os.WriteFile(victim, []byte("safe"), 0o600)).To(Succeed())
	b := blobs(mkdir(t, root, "blobs"))
	layers := []v1.Descriptor{
		b.put(t, types.OCILayer, layerOf(t, link("out", root), link("victim", victim), good)),
		b.put(t, types.OCILayer, layerOf(t, file{name: "out/victim", body: "hit"}, file{name: "victim", body: "hit"}, file{name: "out/.wh.victim"})),
	}
	content, err := format.Convert(t.Context(), ofImage(t, b, layers...), b, format.Options{Format: v1alpha1.FormatImage}, mkdir(t, root, "scratch"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(HaveKeyWithValue("out/victim", "hit"))
	g.Expect(os.ReadFile(victim)).To(BeEquivalentTo("safe"))
	expectOnly(t, root, "blobs", "scratch", "victim")
}

// TestAnImageOfManyWhiteoutsTakesLittleTime has layers that cost the square of
// their size where each whiteout looks at all that it does not hide.
func TestAnImageOfManyWhiteoutsTakesLittleTime(t *testing.T) {
	const n = 24_000
	lower := slices.Collect(func(yield func(file) bool) {
		for i := range n {
			if !yield(file{name: fmt.Sprintf("d/e/%d", i)}) {
				return
			}
		}
	})
	var upper []file
	for i := range n {
		upper = append(upper, file{name: fmt.Sprintf("d/e/new-%d", i)}, file{name: ".wh.d"}, file{name: "d/.wh..wh..opq"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b := blobs(t.TempDir())
	m := ofImage(t, b, b.put(t, types.OCILayer, layerOf(t, lower...)), b.put(t, types.OCILayer, layerOf(t, upper...)))
	content, err := format.Convert(ctx, m, b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(headers(t, content.Path)).To(HaveLen(n + 2))
}

// TestTheFoldersOfAnImageTakeLittleMemory has images of as many folders as are read,
// and of paths that stay in memory where a part of them does.
func TestTheFoldersOfAnImageTakeLittleMemory(t *testing.T) {
	long := strings.Repeat("/"+strings.Repeat("x", 250), 4)
	for name, names := range map[string]func(yield func(string) bool){
		"deep folders": func(yield func(string) bool) {
			for i := range 3000 {
				if !yield(strings.Repeat(fmt.Sprintf("%x/", i), 31) + "f") {
					return
				}
			}
		},
		"paths that others replace": func(yield func(string) bool) {
			for i := range 49_000 {
				if !yield(fmt.Sprintf("%x/x%s", i, long)) || !yield(fmt.Sprintf("%x/x", i)) {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			layer := b.stream(t, gzip.BestSpeed, func(w *tar.Writer) error {
				for name := range names {
					if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
						return err
					}
				}
				return nil
			})
			layer.MediaType = types.OCILayer
			var err error
			grown := memory.Peak(func() {
				_, err = format.Convert(t.Context(), ofImage(t, b, layer), b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
			})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			t.Logf("%s: %d KiB", name, grown>>10)
			NewWithT(t).Expect(grown).To(BeNumerically("<", 32<<20))
		})
	}
}

func TestALargeImageTakesLittleMemory(t *testing.T) {
	chunk := text(1 << 20)
	const parts, size = 3, 100 << 20
	write := func(part int) func(w *tar.Writer) error {
		return func(w *tar.Writer) error {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("large-%d.yaml", part), Mode: 0o644, Size: size}); err != nil {
				return err
			}
			for range size / len(chunk) {
				if _, err := io.WriteString(w, chunk); err != nil {
					return err
				}
			}
			return w.WriteHeader(&tar.Header{Name: ".wh.nothing", Mode: 0o644})
		}
	}
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		compress  func(io.Writer) (io.WriteCloser, error)
	}{
		"gzip": {types.OCILayer, func(out io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(out, gzip.BestSpeed) }},
		"zstd": {types.OCILayerZStd, func(out io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(out) }},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			var layers []v1.Descriptor
			for part := range parts {
				layers = append(layers, b.streamBy(t, tc.compress, write(part)))
				layers[part].MediaType = tc.mediaType
			}
			m := ofImage(t, b, layers...)
			var content *format.Content
			var err error
			grown := memory.Peak(func() {
				content, err = format.Convert(t.Context(), m, b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
			})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Verbatim).To(BeFalse())
			g.Expect(content.Size).To(BeNumerically(">", 10<<20))
			t.Logf("an image of 300 MiB, %s: %d KiB", name, grown>>10)
			// A zstd stream has a window of 8 MiB, and that of the layer before is garbage.
			g.Expect(grown).To(BeNumerically("<", 24<<20))
		})
	}
}
