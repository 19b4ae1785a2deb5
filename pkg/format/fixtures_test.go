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
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// fixture is an artifact that can be published.
type fixture struct {
	manifest *format.Manifest
	options  format.Options
}

// fixtures has at least one artifact of every format, in every way in which
// its content is made.
func fixtures(t testing.TB, b blobs) map[string]fixture {
	t.Helper()
	tree := []file{good, {name: "z.yaml"}, {name: "a/b.yaml", body: text(10_000)}, link("l", "x"), {name: "logo.jpg"}}
	chart := b.put(t, helmChart, layerOf(t, chartYAML, file{name: "app/values.yaml"}, file{name: "app/logo.jpg"}))
	plain := titled(b.put(t, types.OCIUncompressedLayer, []byte("kind: Pod\n")), "pod.yaml")
	deploy := titled(b.put(t, types.OCILayer, layerOf(t, folder("deploy"), file{name: "deploy/a.yaml"})), "deploy", unpackMark, "true")
	child := b.put(t, types.OCIManifestSchema1, encode(t, map[string]any{
		"schemaVersion": 2, "config": descriptor(fluxConfig), "layers": []any{b.put(t, fluxContent, layerOf(t, tree...))}}))
	return map[string]fixture{
		"a Flux artifact that is clean":    {fluxManifest(b.put(t, fluxContent, layerOf(t, good))), format.Options{}},
		"a Flux artifact that is filtered": {fluxManifest(b.put(t, fluxContent, layerOf(t, tree...))), format.Options{}},
		"a Helm chart":                     {chartManifest(chart), format.Options{}},
		"a Helm chart as a tree":           {chartManifest(chart), selecting("", "extract")},
		"files and a folder":               {filesManifest(plain, deploy), format.Options{}},
		"a folder":                         {filesManifest(deploy), format.Options{}},
		"a titled archive":                 {filesManifest(titled(b.put(t, types.OCILayerZStd, zstandard(t, archive(t, tree...))), "app.tar")), format.Options{}},
		"a layer that is selected":         {unknownManifest(plain, b.put(t, "example/a", layerOf(t, tree...))), selecting("example/a", "")},
		"a layer that is copied":           {unknownManifest(plain), selecting("", "copy")},
		"a Tekton bundle": {ofImage(t, b,
			with(b.put(t, types.DockerLayer, layerOf(t, file{name: "build", body: taskJSON})), about("v1", "task", "build")),
			with(b.put(t, types.OCILayer, zipped(t, []byte(pipelineYAML))), about("v1beta1", "pipeline", "release.v1"))), format.Options{}},
		"a Kyverno artifact": {&format.Manifest{Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: []v1.Descriptor{
			b.put(t, kyvernoPolicy, []byte(clusterPolicy)), b.put(t, kyvernoPolicy, []byte(celPolicy))}}, format.Options{}},
		"an imgpkg bundle": {ofLabelled(t, b, imgpkgLabel, b.put(t, types.DockerLayer, layerOf(t, append(tree, lock())...))), format.Options{}},
		"an image": {ofImage(t, b, b.put(t, types.OCILayer, layerOf(t, tree...)), b.put(t, types.OCIUncompressedLayer, archive(t, file{name: ".wh.a"}, hardLink("b/c", good.name))),
			b.put(t, types.OCILayerZStd, zstandard(t, archive(t, file{name: "A/b.yaml"})))), format.Options{Format: v1alpha1.FormatImage}},
		"an image of one clean layer": {ofImage(t, b, b.put(t, types.OCILayer, layerOf(t, good))), format.Options{Format: v1alpha1.FormatImage}},
		"an index": {&format.Manifest{MediaType: types.OCIImageIndex, Index: &v1.IndexManifest{Manifests: []v1.Descriptor{child}}},
			format.Options{}},
	}
}

// digests publishes all fixtures and returns the digests of what came out.
func digests(t testing.TB) map[string]string {
	t.Helper()
	b := blobs(t.TempDir())
	found := map[string]string{}
	for name, f := range fixtures(t, b) {
		content, err := format.Convert(t.Context(), f.manifest, b, f.options, t.TempDir())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found[name] = content.Digest.String()
	}
	return found
}

// digestsFile is set in the second process: where it leaves its digests.
const digestsFile = "FORMAT_TEST_DIGESTS"

func TestEveryFormatGivesTheSameBytesInASecondProcess(t *testing.T) {
	g := NewWithT(t)
	first := digests(t)
	g.Expect(digests(t)).To(Equal(first), "on a second run")
	if path := os.Getenv(digestsFile); path != "" {
		g.Expect(os.WriteFile(path, encode(t, first), 0o600)).To(Succeed())
		return
	}
	path := t.TempDir() + "/digests"
	second := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	second.Env = append(os.Environ(), digestsFile+"="+path)
	out, err := second.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), string(out))
	body, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	var there map[string]string
	g.Expect(json.Unmarshal(body, &there)).To(Succeed())
	g.Expect(there).To(Equal(first))
}

// archiveReader is a way in which bytes of a layer become content.
type archiveReader struct {
	// read makes an artifact of a layer.
	read func(t testing.TB, b blobs, layer []byte) fixture
	// otherwise has the rows of hostile that say something else here; empty
	// words: what they refuse is no fault here.
	otherwise map[string]string
}

// archiveReaders are all formats that read archives which people wrote, beside
// the Flux artifact.
func archiveReaders() map[string]archiveReader {
	// What the ignore rules of Flux leave out is content elsewhere.
	unfiltered := map[string]string{"only ignored files": ""}
	noChart := map[string]string{}
	for _, row := range []string{"an empty tar", "an empty gzip", "only folders", "only links"} {
		noChart[row] = "no Chart.yaml"
	}
	noChart["only ignored files"] = "in no folder"
	// Helm loads a list of files, and has other reasons to refuse these.
	for _, row := range treeRows() {
		noChart[row] = "the chart has"
	}
	noChart["a file, then a folder of that name"] = "the chart has"
	sniffed := map[string]string{"no gzip": "", "zstd": "tar archive is damaged", "no bytes at all": "is no tar"}
	// An image may name a path again, has hard links, and is what names begin at.
	layered := map[string]string{"only ignored files": "", "a hard link": "", "a hard link out of the archive": "which is not there", "an absolute name": ""}
	for _, row := range treeRows() {
		layered[row] = ""
	}
	alone, above := maps.Clone(layered), maps.Clone(layered)
	alone["a file, then a folder of that name"] = "has no files"
	for _, row := range []string{"a file, then a folder of that name", "an empty tar", "an empty gzip", "only folders", "only links"} {
		above[row] = ""
	}
	return map[string]archiveReader{
		"an image": {func(t testing.TB, b blobs, layer []byte) fixture {
			t.Helper()
			return fixture{ofImage(t, b, b.put(t, types.OCILayer, layer)), format.Options{Format: v1alpha1.FormatImage}}
		}, alone},
		"an image of two layers": {func(t testing.TB, b blobs, layer []byte) fixture {
			t.Helper()
			below := b.put(t, types.DockerLayer, layerOf(t, good, file{name: "a/b/c"}))
			return fixture{ofImage(t, b, below, b.put(t, types.OCILayer, layer)), format.Options{Format: v1alpha1.FormatImage}}
		}, above},
		"a chart": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{chartManifest(b.put(t, helmChart, layer)), format.Options{}}
		}, noChart},
		"a chart as a tree": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{chartManifest(b.put(t, helmChart, layer)), selecting("", "extract")}
		}, sniffed},
		"a selected layer": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{unknownManifest(b.put(t, "example/a", layer)), selecting("example/a", "extract")}
		}, sniffed},
		"a Kyverno bundle": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{bundleManifest(b.put(t, kyvernoContent, layer)), format.Options{}}
		}, unfiltered},
		"a titled archive": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{filesManifest(titled(b.put(t, types.OCILayer, layer), "app.tgz")), format.Options{}}
		}, unfiltered},
		"a folder": {func(t testing.TB, b blobs, layer []byte) fixture {
			return fixture{filesManifest(titled(b.put(t, types.OCILayer, layer), ".", unpackMark, "true")), format.Options{}}
		}, unfiltered},
		"a folder among files": {func(t testing.TB, b blobs, layer []byte) fixture {
			beside := titled(b.put(t, types.OCIUncompressedLayer, []byte("x")), "beside.yaml")
			return fixture{filesManifest(beside, titled(b.put(t, types.OCILayer, layer), ".", unpackMark, "true")), format.Options{}}
		}, map[string]string{"only ignored files": "", "an empty tar": "", "an empty gzip": "", "only folders": "", "only links": ""}},
	}
}

// treeRows are the rows of hostile whose paths do not make one tree everywhere.
func treeRows() []string {
	return []string{"one name twice", "one name in two spellings", "a folder, then a file of that name", "a file, then a file in it",
		"a file deep in a folder, then the folder", "names that differ in case only", "folders that differ in case only",
		"names that differ in case only, not ASCII", "a name with the sign that folds to a letter"}
}

func TestHostileArchivesAreRefusedByEveryFormat(t *testing.T) {
	for reads, reader := range archiveReaders() {
		for name, tc := range hostile(t) {
			t.Run(reads+"/"+name, func(t *testing.T) {
				b := blobs(t.TempDir())
				f := reader.read(t, b, tc.layer)
				_, err := format.Convert(t.Context(), f.manifest, b, f.options, t.TempDir())
				words, otherwise := reader.otherwise[name]
				switch {
				case !otherwise:
					expectFault(t, err, tc.reason, fault.Stall, tc.words)
				case words == "":
					NewWithT(t).Expect(err).NotTo(HaveOccurred())
				default:
					expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, words)
				}
			})
		}
	}
}

func TestEveryFormatSkipsAndCountsSymlinks(t *testing.T) {
	for name, reader := range archiveReaders() {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			content := chartYAML
			if name == "a Kyverno bundle" {
				content = file{name: "app/policy.yaml", body: celPolicy}
			}
			f := reader.read(t, b, layerOf(t, content, link("app/absolute", "/etc/passwd"), link("app/up", "../../x")))
			published, err := format.Convert(t.Context(), f.manifest, b, f.options, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(published.SkippedLinks).To(Equal(2))
			g.Expect(unpack(t, published.Path)).NotTo(HaveKey("app/up"), "nor does a consumer make them")
		})
	}
}
