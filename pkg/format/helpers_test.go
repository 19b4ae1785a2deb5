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
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	fluxtar "github.com/fluxcd/pkg/tar"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	fluxConfig  = "application/vnd.cncf.flux.config.v1+json"
	fluxContent = "application/vnd.cncf.flux.content.v1.tar+gzip"
	image       = "registry.example/team/app:1.0.0"
)

// blobs is a folder of blobs named by the hex of their digest.
type blobs string

func (b blobs) Open(_ context.Context, desc v1.Descriptor) (*os.File, error) {
	return os.Open(filepath.Join(string(b), desc.Digest.Hex))
}

func (b blobs) Manifest(_ context.Context, desc v1.Descriptor) (types.MediaType, []byte, error) {
	body, err := os.ReadFile(filepath.Join(string(b), desc.Digest.Hex))
	return desc.MediaType, body, err
}

// put stores a blob.
func (b blobs) put(t testing.TB, mediaType types.MediaType, body []byte) v1.Descriptor {
	t.Helper()
	sum := sha256.Sum256(body)
	desc := v1.Descriptor{MediaType: mediaType, Size: int64(len(body)), Digest: v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}}
	if err := os.WriteFile(filepath.Join(string(b), desc.Digest.Hex), body, 0o600); err != nil {
		t.Fatal(err)
	}
	return desc
}

// put512 stores a blob under its sha512.
func (b blobs) put512(t testing.TB, mediaType types.MediaType, body []byte) v1.Descriptor {
	t.Helper()
	sum := sha512.Sum512(body)
	desc := v1.Descriptor{MediaType: mediaType, Size: int64(len(body)), Digest: v1.Hash{Algorithm: "sha512", Hex: hex.EncodeToString(sum[:])}}
	if err := os.WriteFile(filepath.Join(string(b), desc.Digest.Hex), body, 0o600); err != nil {
		t.Fatal(err)
	}
	return desc
}

// fluxManifest is a Flux artifact of these layers.
func fluxManifest(layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: fluxConfig}, Layers: layers}
}

// again returns an artifact whose layers have sha512 digests. A published digest is a
// sha256, so each layer is archived again.
func again(m *format.Manifest) *format.Manifest {
	other := *m
	other.Layers = slices.Clone(m.Layers)
	for i := range other.Layers {
		other.Layers[i].Digest.Algorithm = "sha512"
	}
	return &other
}

// convert reads one layer as a Flux artifact.
func convert(t testing.TB, layer []byte, o format.Options) (*format.Content, error) {
	t.Helper()
	b := blobs(t.TempDir())
	o.Image = image
	return format.Convert(t.Context(), fluxManifest(b.put(t, fluxContent, layer)), b, o, t.TempDir())
}

// convertAgain does the same with a layer that is archived again.
func convertAgain(t testing.TB, layer []byte, o format.Options) (*format.Content, error) {
	t.Helper()
	b := blobs(t.TempDir())
	o.Image = image
	return format.Convert(t.Context(), again(fluxManifest(b.put(t, fluxContent, layer))), b, o, t.TempDir())
}

// file is an entry of an archive, with the header's fields where they matter.
type file struct {
	name string
	body string
	mode int64
	tar.Header
}

// archive writes a tar.
func archive(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		if h.Typeflag != tar.TypeXGlobalHeader {
			h.Name = f.name
			h.Mode = cmp.Or(f.mode, h.Mode, 0o644)
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(f.body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zipped(t testing.TB, body []byte) []byte {
	t.Helper()
	return zippedAt(t, body, gzip.DefaultCompression)
}

func zippedAt(t testing.TB, body []byte, level int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zstandard(t testing.TB, body []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(body, nil)
}

// layerOf is a gzip tar of these entries.
func layerOf(t testing.TB, files ...file) []byte {
	t.Helper()
	return zipped(t, archive(t, files...))
}

func folder(name string) file {
	return file{name: name, mode: 0o755, Header: tar.Header{Typeflag: tar.TypeDir}}
}

// text is n bytes that compress like manifests do, the same on every call.
func text(n int) string {
	rng := rand.New(rand.NewPCG(1, 2))
	lines := []string{"apiVersion: v1\n", "kind: ConfigMap\n", "metadata:\n", "  namespace: default\n", "data:\n", "  key: |\n"}
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(lines[rng.IntN(len(lines))])
		fmt.Fprintf(&b, "  name: x%x\n", rng.Uint64())
	}
	return b.String()[:n]
}

// unpack gives content to the code by which Flux's consumers unpack it, with
// their options, and returns what lies in the folder then: bodies of files by
// path, "folder" for folders.
func unpack(t testing.TB, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	if err := fluxtar.Untar(f, dir, fluxtar.WithMaxUntarSize(fluxtar.UnlimitedUntarSize), fluxtar.WithSkipSymlinks()); err != nil {
		t.Fatalf("a consumer cannot unpack the content: %v", err)
	}
	return list(t, dir)
}

// list returns the bodies of the files in dir by path, "folder" for folders.
func list(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			found[rel] = "folder"
			return nil
		}
		body, err := os.ReadFile(p)
		found[rel] = string(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// headers returns the headers of an archive in its order.
func headers(t testing.TB, path string) []*tar.Header {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var hs []*tar.Header
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return hs
		}
		if err != nil {
			t.Fatal(err)
		}
		hs = append(hs, h)
	}
}

// expectFault asserts what an error means, and that its words name the cause.
func expectFault(t testing.TB, err error, reason string, class fault.Class, words ...string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	var f *fault.Error
	g.Expect(errors.As(err, &f)).To(BeTrue(), "an error without a reason: %v", err)
	g.Expect(f.Reason).To(Equal(reason), "%v", err)
	g.Expect(f.Class).To(Equal(class), "%v", err)
	for _, w := range words {
		g.Expect(err.Error()).To(ContainSubstring(w))
	}
}
