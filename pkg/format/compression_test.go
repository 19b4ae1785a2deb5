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
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/memory"
)

// zstdAs compresses with options.
func zstdAs(t testing.TB, body []byte, options ...zstd.EOption) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, options...)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(w, bytes.NewReader(body))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(w.Close()).To(Succeed())
	return out.Bytes()
}

// convertLayer reads one layer of a media type as an image.
func convertLayer(t testing.TB, mediaType types.MediaType, layer []byte, o format.Options) (*format.Content, error) {
	t.Helper()
	b := blobs(t.TempDir())
	o.Format = v1alpha1.FormatImage
	return format.Convert(t.Context(), ofImage(t, b, b.put(t, mediaType, layer)), b, o, t.TempDir())
}

func TestZstdLayersAreRead(t *testing.T) {
	body := archive(t, good, file{name: "large", body: text(3 << 20)})
	half := len(body) / 2
	for name, layer := range map[string][]byte{
		"one frame":                       zstandard(t, body),
		"a stream without its size":       zstdAs(t, body),
		"the fastest":                     zstdAs(t, body, zstd.WithEncoderLevel(zstd.SpeedFastest)),
		"the best":                        zstdAs(t, body, zstd.WithEncoderLevel(zstd.SpeedBestCompression)),
		"the largest window that is read": zstdAs(t, body, zstd.WithWindowSize(8<<20)),
		"no checksum":                     zstdAs(t, body, zstd.WithEncoderCRC(false)),
		"two frames":                      append(zstdAs(t, body[:half]), zstdAs(t, body[half:])...),
		"a frame to skip at the start":    append([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip"), zstandard(t, body)...),
		"a frame to skip at the end":      append(zstandard(t, body), "\x5e\x2a\x4d\x18\x04\x00\x00\x00skip"...),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := convertLayer(t, types.OCILayerZStd, layer, format.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Verbatim).To(BeFalse())
			g.Expect(unpack(t, content.Path)).To(HaveKeyWithValue("deploy.yaml", good.body))
		})
	}
}

func TestLayersThatAreDamagedOrOtherwiseCompressedAreRefused(t *testing.T) {
	tarball := archive(t, good)
	valid := zstandard(t, tarball)
	corrupt := bytes.Clone(valid)
	corrupt[len(corrupt)-1] ^= 0xff
	wide := zstdAs(t, archive(t, file{name: "large", body: text(20 << 20)}), zstd.WithWindowSize(16<<20))
	single := zstdAs(t, archive(t, file{name: "large", body: text(20 << 20)}), zstd.WithSingleSegment(true), zstd.WithWindowSize(32<<20))
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		layer     []byte
		words     string
	}{
		"half a zstd stream":                      {types.OCILayerZStd, valid[:len(valid)/2], "ends too early"},
		"a zstd stream without its checksum":      {types.OCILayerZStd, valid[:len(valid)-4], "ends too early"},
		"half a zstd checksum":                    {types.OCILayerZStd, valid[:len(valid)-2], "ends too early"},
		"a wrong zstd checksum":                   {types.OCILayerZStd, corrupt, "CRC check failed"},
		"a byte after a zstd stream":              {types.OCILayerZStd, append(bytes.Clone(valid), 'x'), "damaged"},
		"bytes after a zstd stream":               {types.OCILayerZStd, append(bytes.Clone(valid), "hello"...), "damaged"},
		"zeros after a zstd stream":               {types.OCILayerZStd, append(bytes.Clone(valid), make([]byte, 512)...), "damaged"},
		"half a frame after a zstd stream":        {types.OCILayerZStd, append(bytes.Clone(valid), valid[:9]...), "ends too early"},
		"a frame that does not end to be skipped": {types.OCILayerZStd, append(bytes.Clone(valid), "\x50\x2a\x4d\x18\xff\xff\x00\x00"...), "ends too early"},
		"a second tar in a second zstd frame":     {types.OCILayerZStd, append(bytes.Clone(valid), valid...), "bytes after the end of its tar archive"},
		"a zstd stream that wants much memory":    {types.OCILayerZStd, wide, "needs more than 8 MiB of memory"},
		"a zstd frame that wants to be one block": {types.OCILayerZStd, single, "needs more than 8 MiB of memory"},
		"zstd called gzip":                        {types.OCILayer, valid, "compressed with zstd, but its media type says that it is compressed with gzip"},
		"gzip called zstd":                        {types.OCILayerZStd, zipped(t, tarball), "compressed with gzip, but its media type says that it is compressed with zstd"},
		"gzip called not compressed":              {types.OCIUncompressedLayer, zipped(t, tarball), "compressed with gzip, but its media type says that it is not compressed"},
		"a tar called zstd":                       {types.OCILayerZStd, tarball, "not compressed with zstd, as its media type says"},
		"a tar called gzip":                       {types.DockerLayer, tarball, "not compressed with gzip, as its media type says"},
		"half a tar":                              {types.DockerUncompressedLayer, tarball[:520], "ends too early"},
		"bytes after a tar":                       {types.DockerUncompressedLayer, append(bytes.Clone(tarball), "hello"...), "bytes after the end"},
		"no tar":                                  {types.OCIUncompressedLayer, []byte("hello"), "damaged"},
		"nothing":                                 {types.OCIUncompressedLayer, nil, "has no files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convertLayer(t, tc.mediaType, tc.layer, format.Options{})
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, tc.words)
		})
	}
}

func TestAZstdBombIsBounded(t *testing.T) {
	bomb := zstdAs(t, make([]byte, 64<<20))
	var err error
	grown := memory.Peak(func() {
		_, err = convertLayer(t, types.OCILayerZStd, bomb, format.Options{Limits: format.Limits{UncompressedBytes: 1 << 20}})
	})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "--max-uncompressed-bytes")
	NewWithT(t).Expect(grown).To(BeNumerically("<", 16<<20))
}

// TestHostileTarsAreRefusedHoweverTheyAreCompressed has those archives again
// whose gzip stream is sound.
func TestHostileTarsAreRefusedHoweverTheyAreCompressed(t *testing.T) {
	compressions := map[types.MediaType]func([]byte) []byte{
		types.DockerUncompressedLayer: func(body []byte) []byte { return body },
		types.OCILayerZStd:            func(body []byte) []byte { return zstandard(t, body) },
	}
	tried := 0
	for name, h := range hostile(t) {
		z, err := gzip.NewReader(bytes.NewReader(h.layer))
		if err != nil {
			continue
		}
		body, err := io.ReadAll(z)
		if err != nil {
			continue
		}
		tried++
		t.Run(name, func(t *testing.T) {
			for mediaType, compress := range compressions {
				b := blobs(t.TempDir())
				m := ofLabelled(t, b, imgpkgLabel, b.put(t, mediaType, compress(body)))
				_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
				NewWithT(t).Expect(err).To(HaveOccurred())
				expectStall(t, err)
				if !strings.Contains(err.Error(), ".imgpkg/images.yml") {
					expectFault(t, err, h.reason, fault.Stall, h.words)
				}
			}
		})
	}
	NewWithT(t).Expect(tried).To(BeNumerically(">", 40))
}
