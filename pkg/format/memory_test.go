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
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/memory"
)

// stream stores a gzip layer that is written piece by piece, never held.
func (b blobs) stream(t testing.TB, level int, write func(w *tar.Writer) error) v1.Descriptor {
	t.Helper()
	return b.streamBy(t, func(out io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(out, level) }, write)
}

// streamBy does so with any compression.
func (b blobs) streamBy(t testing.TB, compress func(io.Writer) (io.WriteCloser, error), write func(w *tar.Writer) error) v1.Descriptor {
	t.Helper()
	g := NewWithT(t)
	f, err := os.Create(filepath.Join(string(b), "new"))
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	z, err := compress(out)
	g.Expect(err).NotTo(HaveOccurred())
	w := tar.NewWriter(z)
	g.Expect(write(w)).To(Succeed())
	g.Expect(w.Close()).To(Succeed())
	g.Expect(z.Close()).To(Succeed())
	g.Expect(out.Flush()).To(Succeed())
	info, err := f.Stat()
	g.Expect(err).NotTo(HaveOccurred())
	digest := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum.Sum(nil))}
	g.Expect(os.Rename(f.Name(), filepath.Join(string(b), digest.Hex))).To(Succeed())
	return v1.Descriptor{MediaType: fluxContent, Size: info.Size(), Digest: digest}
}

func TestALargeArtifactTakesLittleMemory(t *testing.T) {
	b := blobs(t.TempDir())
	chunk := text(1 << 20)
	large := b.stream(t, gzip.BestSpeed, func(w *tar.Writer) error {
		for i := range 6 {
			const size = 50 << 20
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("large-%d.yaml", i), Mode: 0o644, Size: size}); err != nil {
				return err
			}
			for range size / len(chunk) {
				if _, err := io.WriteString(w, chunk); err != nil {
					return err
				}
			}
		}
		return nil
	})
	asFile, asFolder := large, large
	asFile.MediaType, asFolder.MediaType = "text/plain", types.OCILayer
	for name, tc := range map[string]fixture{
		"as it is":       {fluxManifest(large), format.Options{}},
		"archived again": {again(fluxManifest(large)), format.Options{}},
		"as files":       {filesManifest(titled(asFolder, ".", unpackMark, "true"), titled(asFile, "file.tgz")), format.Options{}},
		"as a copy":      {unknownManifest(large), selecting("", "copy")},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var content *format.Content
			var err error
			grown := memory.Peak(func() { content, err = format.Convert(t.Context(), tc.manifest, b, tc.options, t.TempDir()) })
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Size).To(BeNumerically(">", 1<<20))
			t.Logf("300 MiB %s: %d KiB", name, grown>>10)
			g.Expect(grown).To(BeNumerically("<", 16<<20))
		})
	}
}

func TestHostileIndexesTakeLittleMemory(t *testing.T) {
	for name, tc := range map[string]struct {
		write func(w *tar.Writer) error
		words string
	}{
		"millions of empty entries": {func(w *tar.Writer) error {
			for i := range 300_000 {
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", i), Mode: 0o644}); err != nil {
					return err
				}
			}
			return nil
		}, "more than 100000 entries"},
		"long names with capitals": {func(w *tar.Writer) error {
			for i := range 50_000 {
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%s/%d", strings.Repeat("N", 250), i), Mode: 0o644}); err != nil {
					return err
				}
			}
			return nil
		}, "bytes together"},
		"short names in large PAX headers": {func(w *tar.Writer) error {
			rest := strings.Repeat("c", 40<<10)
			for i := range 300 {
				h := &tar.Header{Name: fmt.Sprintf("ü%d", i), Mode: 0o644, PAXRecords: map[string]string{"X.comment": rest}}
				if err := w.WriteHeader(h); err != nil {
					return err
				}
			}
			return nil
		}, ""},
		"empty ignore files in folders with short names in large PAX headers": {func(w *tar.Writer) error {
			rest := strings.Repeat("c", 40<<10)
			for i := range 300 {
				h := &tar.Header{Name: fmt.Sprintf("ü%d/.sourceignore", i), Mode: 0o644, PAXRecords: map[string]string{"X.comment": rest}}
				if err := w.WriteHeader(h); err != nil {
					return err
				}
			}
			return nil
		}, ""},
		"many ignore patterns deep in a tree": {func(w *tar.Writer) error {
			body := strings.Repeat("x\n", 65_000)
			if err := w.WriteHeader(&tar.Header{Name: strings.Repeat("a/", 63) + ".sourceignore", Mode: 0o644, Size: int64(len(body))}); err != nil {
				return err
			}
			_, err := io.WriteString(w, body)
			return err
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			layer := b.stream(t, gzip.BestSpeed, tc.write)
			var err error
			grown := memory.Peak(func() { _, err = format.Convert(t.Context(), fluxManifest(layer), b, format.Options{}, t.TempDir()) })
			if tc.words != "" {
				expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, tc.words)
			} else {
				g.Expect(err).NotTo(HaveOccurred())
			}
			t.Logf("%s: %d KiB", name, grown>>10)
			g.Expect(grown).To(BeNumerically("<", 32<<20))
		})
	}
}

// BenchmarkConvert reads 40 MB of manifests in 400 files, which a gzip layer
// holds in 14 MiB, as it is and archived again, and a small artifact of 20
// files of 2 KiB.
func BenchmarkConvert(b *testing.B) {
	for name, tc := range map[string]struct{ files, size int }{"large": {400, 100_000}, "small": {20, 2048}} {
		store := blobs(b.TempDir())
		all := text(tc.files * tc.size)
		layer := store.stream(b, gzip.DefaultCompression, func(w *tar.Writer) error {
			for i := range tc.files {
				if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("apps/app-%d.yaml", i), Mode: 0o644, Size: int64(tc.size)}); err != nil {
					return err
				}
				if _, err := io.WriteString(w, all[i*tc.size:(i+1)*tc.size]); err != nil {
					return err
				}
			}
			return nil
		})
		for way, m := range map[string]*format.Manifest{"verbatim": fluxManifest(layer), "rearchived": again(fluxManifest(layer))} {
			b.Run(name+"/"+way, func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(tc.files * tc.size))
				for b.Loop() {
					content, err := format.Convert(b.Context(), m, store, format.Options{}, b.TempDir())
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(content.Size), "published-bytes")
				}
			})
		}
	}
}
