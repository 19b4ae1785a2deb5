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
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// block is a header of a tar and what belongs to it, whatever a writer would say.
func block(name string, flag byte, body string) string {
	header := make([]byte, 512)
	copy(header, name)
	copy(header[100:], "0000644\x00")
	copy(header[124:], fmt.Sprintf("%011o\x00", len(body)))
	header[156] = flag
	copy(header[257:], "ustar\x0000")
	return string(checksummed(header)) + body + strings.Repeat("\x00", (512-len(body)%512)%512)
}

// tarOf ends a tar of these blocks, and gzips it.
func tarOf(t testing.TB, blocks string) []byte {
	t.Helper()
	return zipped(t, []byte(blocks+strings.Repeat("\x00", 1024)))
}

// records are n bytes of PAX records, each as short as one can be.
func records(n int) string { return strings.Repeat("6 a=b\n", n/6) }

// expensive are gzip tars whose headers cost far more than their files.
func expensive(t testing.TB) map[string]struct {
	layer  []byte
	reason string
} {
	t.Helper()
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	plain := block("good.yaml", '0', good.body)
	sparse := []byte(block("f", 'S', ""))
	copy(sparse[257:], "ustar  \x00")
	copy(sparse[386:], strings.Repeat("00000000000\x00", 8))
	sparse[482] = 1
	more := strings.Repeat(strings.Repeat("00000000000\x00", 42)+"\x01"+strings.Repeat("\x00", 7), 300)
	return map[string]struct {
		layer  []byte
		reason string
	}{
		"a PAX header of 100 KiB":                     {tarOf(t, block("p", 'x', records(100<<10))+plain), invalid},
		"a PAX header behind another, and so on":      {tarOf(t, strings.Repeat(block("p", 'x', records(1000)), 100)+plain), invalid},
		"a GNU long name behind another, and so on":   {tarOf(t, strings.Repeat(block("p", 'L', "name"), 100)+plain), invalid},
		"a GNU long link of 100 KiB":                  {tarOf(t, block("p", 'K', strings.Repeat("n", 100<<10))+plain), invalid},
		"a global header of 100 KiB":                  {tarOf(t, block("p", 'g', records(100<<10))+plain), invalid},
		"a map of a sparse file that does not end":    {tarOf(t, string(checksummed(sparse))+more), invalid},
		"a map of a sparse file in PAX of 100 KiB":    {tarOf(t, block("p", 'x', paxRecord("GNU.sparse.map", strings.Repeat("0,0,", 25<<10)))+plain), invalid},
		"PAX headers of 60 KiB for each of 300 files": {tarOf(t, many(300, func(i int) string { return block("p", 'x', records(60<<10)) + block(fmt.Sprintf("f%d", i), '0', "") })), exceeded},
		"PAX headers of 20 KB for each of 900 files":  {tarOf(t, many(900, func(i int) string { return block("p", 'x', records(20_000)) + block(fmt.Sprintf("f%d", i), '0', "") })), exceeded},
		"PAX headers of links that are left out":      {tarOf(t, plain+many(900, func(i int) string { return block("p", 'x', records(20_000)) + block(fmt.Sprintf("l%d", i), '2', "") })), exceeded},
		"global headers of 20 KB":                     {tarOf(t, plain+strings.Repeat(block("p", 'g', records(20_000)), 900)), exceeded},
	}
}

func TestExtendedHeadersOfAnArchiveAreBounded(t *testing.T) {
	for name, tc := range expensive(t) {
		t.Run(name, func(t *testing.T) {
			_, err := convert(t, tc.layer, format.Options{})
			expectFault(t, err, tc.reason, fault.Stall, "extended headers")
		})
		// A chart has no tree, and an image has layers.
		for reads, reader := range archiveReaders() {
			t.Run(name+"/"+reads, func(t *testing.T) {
				b := blobs(t.TempDir())
				f := reader.read(t, b, tc.layer)
				_, err := format.Convert(t.Context(), f.manifest, b, f.options, t.TempDir())
				expectFault(t, err, tc.reason, fault.Stall, "extended headers")
			})
		}
	}
}

func TestExtendedHeadersOfAllLayersCountTogether(t *testing.T) {
	b := blobs(t.TempDir())
	half := func(name string) []byte {
		return tarOf(t, many(500, func(i int) string {
			return block("p", 'x', records(20_000)) + block(fmt.Sprintf("%s%d", name, i), '0', "")
		}))
	}
	one, two := half("a"), half("b")
	_, err := convert(t, one, format.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, f := range map[string]fixture{
		"layers of an image": {ofImage(t, b, b.put(t, types.OCILayer, one), b.put(t, types.OCILayer, two)), format.Options{Format: v1alpha1.FormatImage}},
		"folders":            {filesManifest(titled(b.put(t, types.OCILayer, one), ".", unpackMark, "true"), titled(b.put(t, types.OCILayer, two), ".", unpackMark, "true")), format.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), f.manifest, b, f.options, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "extended headers together")
		})
	}
}

func TestOrdinaryExtendedHeadersAreRead(t *testing.T) {
	b := blobs(t.TempDir())
	layer := b.stream(t, gzip.BestSpeed, func(w *tar.Writer) error {
		for i := range 30_000 {
			h := &tar.Header{Name: fmt.Sprintf("ümlaut/%d.yaml", i), Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{
				"SCHILY.xattr.user.note": strings.Repeat("x", 200), "LIBARCHIVE.creationtime": "1700000000.123456789"}}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return w.WriteHeader(&tar.Header{Name: "one", Mode: 0o644, PAXRecords: map[string]string{"SCHILY.xattr.user.icon": strings.Repeat("x", 50_000)}})
	})
	_, err := format.Convert(t.Context(), fluxManifest(layer), b, format.Options{}, t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// TestAllLayersOfATektonBundleCountTogether has layers of which each is within the
// limits.
func TestAllLayersOfATektonBundleCountTogether(t *testing.T) {
	b := blobs(t.TempDir())
	var layers []v1.Descriptor
	for i := range 3 {
		name := fmt.Sprintf("t%d", i)
		body := archive(t, file{name: "x", body: strings.ReplaceAll(taskYAML, "build", name)})
		layers = append(layers, with(b.put(t, types.OCILayer, zipped(t, append(body, make([]byte, 400<<10)...))), about("v1", "task", name)))
	}
	limits := format.Limits{UncompressedBytes: 1 << 20}
	_, err := format.Convert(t.Context(), ofImage(t, b, layers[:2]...), b, format.Options{Limits: limits}, t.TempDir())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, err = format.Convert(t.Context(), ofImage(t, b, layers...), b, format.Options{Limits: limits}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "layer 3 of 3", "--max-uncompressed-bytes")
}

// member is a gzip member of a body with fields in its header.
func member(t testing.TB, body []byte, header gzip.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Header = header
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestCompressedStreamsThatHoldNextToNothingAreRefused(t *testing.T) {
	tarball := archive(t, good)
	empty := member(t, nil, gzip.Header{})
	stored := bytes.Repeat([]byte("\x00\x00\x00\xff\xff"), 500_000)
	w, err := zstd.NewWriter(nil, zstd.WithZeroFrames(true))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		layer     []byte
	}{
		"empty gzip members":                {types.OCILayer, append(zipped(t, tarball), bytes.Repeat(empty, 100_000)...)},
		"empty gzip members first":          {types.OCILayer, append(bytes.Repeat(empty, 100_000), zipped(t, tarball)...)},
		"fields of gzip members":            {types.OCILayer, append(zipped(t, tarball), bytes.Repeat(member(t, nil, gzip.Header{Extra: make([]byte, 60_000), Name: "n", Comment: strings.Repeat("c", 400)}), 50)...)},
		"empty blocks of a gzip member":     {types.OCILayer, append(append(bytes.Clone(empty[:10]), stored...), empty[10:]...)},
		"frames of zstd to skip":            {types.OCILayerZStd, append(zstandard(t, tarball), bytes.Repeat([]byte("\x50\x2a\x4d\x18\x00\x00\x00\x00"), 500_000)...)},
		"empty frames of zstd":              {types.OCILayerZStd, append(zstandard(t, tarball), bytes.Repeat(w.EncodeAll(nil, nil), 500_000)...)},
		"empty frames of zstd, no checksum": {types.OCILayerZStd, append(zstandard(t, tarball), bytes.Repeat([]byte("\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00"), 500_000)...)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convertLayer(t, tc.mediaType, tc.layer, format.Options{})
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, "far more bytes than what it holds")
		})
	}
}

func TestWhatCompressesBadlyIsRead(t *testing.T) {
	noise := make([]byte, 8<<20)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(noise); err != nil {
		t.Fatal(err)
	}
	tarball := archive(t, good, file{name: "noise", body: string(noise)})
	// A member for each piece, as estargz has them, with a name in each.
	var pieces []byte
	for i := 0; i < len(tarball); i += 4096 {
		pieces = append(pieces, member(t, tarball[i:min(i+4096, len(tarball))], gzip.Header{Name: "piece", Extra: make([]byte, 40)})...)
	}
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		layer     []byte
	}{
		"gzip":                    {types.OCILayer, zipped(t, tarball)},
		"gzip that only stores":   {types.OCILayer, zippedAt(t, tarball, gzip.NoCompression)},
		"many small gzip members": {types.OCILayer, pieces},
		"zstd":                    {types.OCILayerZStd, zstdAs(t, tarball)},
		"no compression":          {types.OCIUncompressedLayer, tarball},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convertLayer(t, tc.mediaType, tc.layer, format.Options{})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		})
	}
}
