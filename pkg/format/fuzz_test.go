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
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	chartarchive "helm.sh/helm/v4/pkg/chart/loader/archive"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// FuzzLayer reads any bytes as a layer. Whatever is published must be taken by
// the consumers' own code, be the same tree whether published as it is or
// archived again, and nothing may be written outside the scratch folder.
func FuzzLayer(f *testing.F) {
	for _, h := range hostile(f) {
		if len(h.layer) < 64<<10 {
			f.Add(h.layer)
		}
	}
	f.Add(layerOf(f, goldenTree()[:5]...))
	f.Add(layerOf(f, good, link("l", "x"), file{name: "a.jpg"}, file{name: "d/.sourceignore", body: "*.md\n"}))
	f.Add(inMembers(f, archive(f, good)))
	// The fuzzer cannot compress: bytes that are no gzip are also read as a tar.
	f.Add(archive(f, good, folder("d"), file{name: "d/x", body: "y"}))
	f.Add(extended(paxRecord("path", "a/b")))
	for _, e := range expensive(f) {
		if len(e.layer) < 8<<10 {
			f.Add(e.layer)
		}
	}
	for _, text := range unreadable() {
		f.Add(layerOf(f, good, file{name: ".sourceignore", body: text}))
	}

	f.Fuzz(func(t *testing.T, layer []byte) {
		if !bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
			layer = zippedAt(t, layer, 0)
		}
		root := t.TempDir()
		b := blobs(mkdir(t, root, "blobs"))
		m := fluxManifest(b.put(t, fluxContent, layer))
		limits := format.Limits{UncompressedBytes: 1 << 20, Entries: 200, Depth: 16, NameBytes: 256}

		start := time.Now()
		asIs, err := format.Convert(t.Context(), m, b, format.Options{Limits: limits}, mkdir(t, root, "one"))
		expectCheap(t, time.Since(start))
		ours, errAgain := format.Convert(t.Context(), again(m), b, format.Options{Limits: limits}, mkdir(t, root, "two"))
		expectOnly(t, root, "blobs", "one", "two")
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("refused as %v, then as %v", err, errAgain)
		}
		if err != nil {
			expectStall(t, err)
			return
		}
		want, got := unpack(t, asIs.Path), unpack(t, ours.Path)
		if len(want) != len(got) {
			t.Fatalf("published as it is %q, archived again %q", want, got)
		}
		for path, body := range want {
			if got[path] != body {
				t.Fatalf("%q is %q as it is, and %q archived again", path, body, got[path])
			}
		}
	})
}

// FuzzArchive reads any bytes as a layer of every format that reads archives.
// Whatever is published must be taken by the consumers' own code.
func FuzzArchive(f *testing.F) {
	readers := archiveReaders()
	names := slices.Sorted(maps.Keys(readers))
	// Each hostile row seeds one format: the fuzzer tries it on the others.
	seed := 0
	for _, h := range hostile(f) {
		if len(h.layer) < 4<<10 {
			f.Add(uint8(seed%len(names)), h.layer)
			seed++
		}
	}
	for i := range names {
		f.Add(uint8(i), archive(f, chartYAML, folder("app/templates"), link("app/l", "x"), file{name: "app/templates/a.yaml", body: "y"}))
	}
	f.Fuzz(func(t *testing.T, which uint8, layer []byte) {
		if !bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) && which&0x80 == 0 {
			layer = zippedAt(t, layer, 0)
		}
		root := t.TempDir()
		b := blobs(mkdir(t, root, "blobs"))
		read := readers[names[int(which&0x7f)%len(names)]].read(t, b, layer)
		read.options.Limits = format.Limits{UncompressedBytes: 1 << 20, Entries: 200, Depth: 16, NameBytes: 256}
		start := time.Now()
		content, err := format.Convert(t.Context(), read.manifest, b, read.options, mkdir(t, root, "scratch"))
		expectCheap(t, time.Since(start))
		expectOnly(t, root, "blobs", "scratch")
		if err != nil {
			expectStall(t, err)
			return
		}
		unpack(t, content.Path)
		if content.ChartVersion != "" {
			body, err := os.ReadFile(content.Path)
			if err != nil {
				t.Fatal(err)
			}
			files, err := chartarchive.LoadArchiveFiles(bytes.NewReader(body))
			if err != nil || len(files) == 0 {
				t.Fatalf("Helm does not load the chart: %v", err)
			}
		}
	})
}

// FuzzManifest reads any bytes as a manifest. What is accepted holds nothing
// that the rest of the project must not follow.
func FuzzManifest(f *testing.F) {
	f.Add(string(types.OCIManifestSchema1), encode(f, fluxBody(nil)))
	f.Add(string(types.OCIManifestSchema1), encode(f, fluxBody(map[string]any{"layers": layersWith(map[string]any{"urls": []string{"http://x"}, "data": "e30="})})))
	f.Add(string(types.OCIManifestSchema1), encode(f, fluxBody(map[string]any{"manifests": []any{}, "Layers": []any{nil}})))
	f.Add(string(types.OCIImageIndex), encode(f, map[string]any{"schemaVersion": 2, "manifests": []any{descriptor("x")}}))
	f.Add(string(types.DockerManifestSchema1), []byte(`{"schemaVersion":1,"fsLayers":[]}`))
	f.Add(string(types.OCIManifestSchema1), encode(f, fluxBody(map[string]any{"config": descriptor(helmConfig), "layers": []any{descriptor(helmProof), descriptor(helmChart)}})))
	f.Add(string(types.OCIManifestSchema1), encode(f, fluxBody(map[string]any{"config": descriptor(string(types.OCIEmptyJSON)), "artifactType": "application/vnd.unknown.artifact.v1",
		"layers": layersWith(map[string]any{"mediaType": types.OCILayer, "annotations": map[string]string{title: "../a", unpackMark: "true", contentMark: "x"}})})))
	f.Add(string(types.DockerManifestList), encode(f, map[string]any{"schemaVersion": 2, "manifests": []any{
		map[string]any{"mediaType": types.DockerManifestSchema2, "size": 2, "digest": digest, "platform": map[string]string{"os": "unknown", "architecture": "unknown"}},
		map[string]any{"mediaType": types.OCIImageIndex, "size": 2, "digest": digest, "artifactType": "application/vnd.in-toto+json"}}}))
	f.Add("", []byte(`{"blobs":[[[[`))
	f.Add("text/html; charset=utf-8", []byte(`<html>`))

	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		m, err := format.Parse(types.MediaType(mediaType), body)
		if err != nil {
			expectStall(t, err)
			return
		}
		descriptors := append([]v1.Descriptor{}, m.Layers...)
		if m.Index != nil {
			descriptors = append(descriptors, m.Index.Manifests...)
		} else {
			descriptors = append(descriptors, m.Config)
		}
		if len(descriptors) > 1001 {
			t.Fatalf("%d descriptors were accepted", len(descriptors))
		}
		for _, d := range descriptors {
			if d.Size < 0 || len(d.Data) > 0 || len(d.URLs) > 0 || (d.Digest.Algorithm != "sha256" && d.Digest.Algorithm != "sha512") {
				t.Fatalf("the descriptor %+v was accepted", d)
			}
		}
		for _, o := range []format.Options{{}, selecting("", "copy"), {Format: v1alpha1.FormatFiles}} {
			if _, err := format.Detect(m, o); err != nil {
				expectStall(t, err)
			}
			// No blob is there: what needs none is refused, and nothing panics.
			if _, err := format.Convert(t.Context(), m, none{}, o, t.TempDir()); err == nil {
				t.Fatal("something was published out of nothing")
			}
		}
	})
}

// expectCheap asserts that a layer within the limits of these targets took little
// time, as a process with others beside it sees it.
func expectCheap(t *testing.T, took time.Duration) {
	t.Helper()
	if took > 10*time.Second {
		t.Fatalf("a layer took %s", took)
	}
}

// expectStall asserts that an error has one of the reasons that an artifact
// can be refused for.
func expectStall(t *testing.T, err error) {
	t.Helper()
	f := fault.Of(err, "")
	switch f.Reason {
	case v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonUnsupportedMediaType, v1alpha1.ReasonLimitExceeded:
	default:
		t.Fatalf("refused for the reason %q: %v", f.Reason, err)
	}
	if f.Class != fault.Stall {
		t.Fatalf("refused with the class %s: %v", f.Class, err)
	}
}

func mkdir(t *testing.T, root, name string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func expectOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(names) {
		t.Fatalf("something was written beside the scratch folders: %v", entries)
	}
}
