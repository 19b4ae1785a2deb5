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
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/artifact/config"
	"github.com/fluxcd/pkg/artifact/storage"
	fluxoci "github.com/fluxcd/pkg/oci"
	"github.com/fluxcd/pkg/sourceignore"
	fluxtar "github.com/fluxcd/pkg/tar"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// push gives a folder or file to Flux's own client and reads back what it
// wrote.
func push(t *testing.T, source string, options ...fluxoci.PushOption) (*format.Manifest, format.Blobs) {
	t.Helper()
	g := NewWithT(t)
	url := serve(t) + "/team/app:1.0.0"
	_, err := fluxoci.NewClient(fluxoci.DefaultOptions()).Push(t.Context(), url, source, options...)
	g.Expect(err).NotTo(HaveOccurred())
	return fetch(t, url)
}

// write makes files in a new folder.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, body := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhatFluxPushesIsPublishedAsItIs(t *testing.T) {
	many := map[string]string{}
	for i := range 2000 {
		many[fmt.Sprintf("team-%d/app-%d.yaml", i%7, i)] = fmt.Sprintf("kind: ConfigMap\nmetadata: {name: c%d}\n", i)
	}
	for name, files := range map[string]map[string]string{
		"one file":    {"deploy.yaml": "kind: ConfigMap\n"},
		"2,000 files": many,
		"a tree":      {"a/b/c.yaml": "x", "a/b.yaml": "y", ".hidden/d.yaml": "z"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := write(t, files)
			m, blobs := push(t, dir, fluxoci.WithPushMetadata(fluxoci.Metadata{Revision: "main@sha1:abc", Source: "https://git.example/app"}))
			g.Expect(m.Annotations).To(HaveKeyWithValue("org.opencontainers.image.revision", "main@sha1:abc"))

			content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Format).To(Equal(v1alpha1.FormatFlux))
			g.Expect(content.Verbatim).To(BeTrue())
			g.Expect(content.Digest).To(Equal(m.Layers[0].Digest))
			g.Expect(unpack(t, content.Path)).To(Equal(list(t, dir)))

			ours, err := format.Convert(t.Context(), again(m), blobs, format.Options{}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(unpack(t, ours.Path)).To(Equal(list(t, dir)))
		})
	}
}

func TestASingleFileIsPushedAndPublished(t *testing.T) {
	g := NewWithT(t)
	dir := write(t, map[string]string{"deploy.yaml": "kind: Pod\n"})
	m, blobs := push(t, filepath.Join(dir, "deploy.yaml"))
	content, err := format.Convert(t.Context(), m, blobs, format.Options{Format: v1alpha1.FormatFlux}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"deploy.yaml": "kind: Pod\n"}))
}

func TestAStaticFluxLayerIsRefused(t *testing.T) {
	dir := write(t, map[string]string{"deploy.yaml": "kind: Pod\n"})
	for _, extension := range []string{"", "yaml"} {
		m, blobs := push(t, filepath.Join(dir, "deploy.yaml"),
			fluxoci.WithPushLayerType(fluxoci.LayerTypeStatic), fluxoci.WithPushMediaTypeExt(extension))
		_, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
		expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "a file as it is", "flux push artifact")
	}
}

func TestWhatSourceControllerStoresIsPublished(t *testing.T) {
	g := NewWithT(t)
	body, err := os.ReadFile(sourceControllerArchive(t, layerOf(t, goldenTree()...), nil))
	g.Expect(err).NotTo(HaveOccurred())
	content, err := convert(t, body, format.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeTrue())
}

func TestAFluxArtifactHasExactlyOneContentLayer(t *testing.T) {
	b := blobs(t.TempDir())
	content := b.put(t, fluxContent, layerOf(t, good))
	other := b.put(t, types.OCILayer, layerOf(t, good))
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		reason string
		words  string
	}{
		"no layers":                   {nil, v1alpha1.ReasonInvalidArtifact, "has no layers"},
		"two content layers":          {[]v1.Descriptor{content, content}, v1alpha1.ReasonInvalidArtifact, "2 content layers"},
		"a layer of an image":         {[]v1.Descriptor{other}, v1alpha1.ReasonUnsupportedMediaType, string(types.OCILayer)},
		"a content layer and another": {[]v1.Descriptor{content, other}, v1alpha1.ReasonUnsupportedMediaType, string(types.OCILayer)},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), fluxManifest(tc.layers...), b, format.Options{}, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

// sourceControllerArchive does with a layer what source-controller does for an
// OCIRepository with this spec.ignore, by the same library calls.
func sourceControllerArchive(t testing.TB, layer []byte, ignore *string) string {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(fluxtar.Untar(strings.NewReader(string(layer)), dir, fluxtar.WithMaxUntarSize(-1), fluxtar.WithSkipSymlinks())).To(Succeed())
	domain := strings.Split(dir, string(filepath.Separator))
	patterns, err := sourceignore.LoadIgnorePatterns(dir, domain)
	g.Expect(err).NotTo(HaveOccurred())
	if ignore != nil {
		patterns = append(patterns, sourceignore.ReadPatterns(strings.NewReader(*ignore), domain)...)
	}
	root := t.TempDir()
	s, err := storage.New(&config.Options{StoragePath: root, StorageAdvAddress: "localhost", ArtifactDigestAlgo: "sha256"})
	g.Expect(err).NotTo(HaveOccurred())
	artifact := meta.Artifact{Path: "artifact.tar.gz"}
	g.Expect(s.Archive(&artifact, dir, storage.SourceIgnoreFilter(patterns, domain))).To(Succeed())
	return s.LocalPath(artifact)
}

// TestFilteringIsThatOfAnOCIRepository compares with source-controller's own
// library on the same layer.
func TestFilteringIsThatOfAnOCIRepository(t *testing.T) {
	tree := []file{
		good, {name: "a.jpg"}, {name: "a.zip/x"}, {name: "docs/readme.md"}, {name: "docs/deep/readme.md"}, {name: "a-b/x.yaml"},
		{name: "a/x.yaml"}, {name: "a/keep/x.yaml"}, {name: "a/keep/y.txt"}, folder("empty"), {name: ".git/config"}, {name: ".gitignore"},
		{name: ".github/ci.yaml"}, {name: "sub/.sops.yaml"}, {name: ".flux.yaml"}, link("l", "a"), {name: "vendor/a/b/c.yaml"},
	}
	for name, tc := range map[string]struct {
		ignores map[string]string
		option  *string
	}{
		"no rules: the default excludes":              {},
		"an option replaces the default excludes":     {option: new("*.md")},
		"an empty option changes nothing":             {option: new("")},
		"an option of comments changes nothing":       {option: new("# nothing\n\n")},
		"an option that excludes, and includes again": {option: new("/*\n!/a\n")},
		"an option for folders only":                  {option: new("docs/\nempty/\n")},
		"an option with stars across folders":         {option: new("**/deep/**\nvendor/**/c.yaml")},
		"a file at the root":                          {ignores: map[string]string{".sourceignore": "*.txt\n/docs\n"}},
		"a file in a folder counts in that folder":    {ignores: map[string]string{"a/.sourceignore": "*.yaml\n!keep/x.yaml\n"}},
		"a deeper file wins over the root's":          {ignores: map[string]string{".sourceignore": "*.yaml\n", "a/keep/.sourceignore": "!x.yaml\n"}},
		"folders are sorted by name, not by path":     {ignores: map[string]string{"a-b/.sourceignore": "x.yaml\n", "a/.sourceignore": "x.yaml\n", "a/keep/.sourceignore": "!x.yaml"}},
		"the option wins over files":                  {ignores: map[string]string{".sourceignore": "*.yaml\n"}, option: new("!deploy.yaml")},
		"a file in .git does not count":               {ignores: map[string]string{".git/.sourceignore": "*\n"}},
		"an empty file keeps the default excludes":    {ignores: map[string]string{".sourceignore": "\n# x\n"}},
		"windows line ends":                           {ignores: map[string]string{".sourceignore": "*.md\r\n*.txt\r\n"}},
		"a folder of that name":                       {ignores: map[string]string{".sourceignore/x": "*\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			files := tree
			for path, body := range tc.ignores {
				// Behind the files that they are about.
				files = append(slices.Clip(files), file{name: path, body: body})
			}
			layer := layerOf(t, files...)
			want := unpack(t, sourceControllerArchive(t, layer, tc.option))
			content, err := convert(t, layer, format.Options{Ignore: tc.option})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(unpack(t, content.Path)).To(Equal(want))
		})
	}
}

func TestIgnoreRulesThatMatchNothingLeaveALayerClean(t *testing.T) {
	g := NewWithT(t)
	content, err := convert(t, layerOf(t, good, file{name: ".sourceignore", body: "*.md\n"}), format.Options{Ignore: new("*.txt")})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeTrue())
}

func TestTooManyIgnoreRulesAreRefused(t *testing.T) {
	_, err := convert(t, layerOf(t, good, file{name: ".sourceignore", body: strings.Repeat("x\n", 200<<10)}), format.Options{})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, ".sourceignore", "131072")
	_, err = convert(t, layerOf(t, good), format.Options{Ignore: new(strings.Repeat("x\n", 200<<10))})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "spec.ignore", "131072")
	folders := []file{good}
	for i := range 1000 {
		folders = append(folders, file{name: fmt.Sprintf("%s%d/.sourceignore", strings.Repeat("n", 130), i)})
	}
	_, err = convert(t, layerOf(t, folders...), format.Options{})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, ".sourceignore", "131072")
}

func TestIgnoreRulesThatWouldTakeTooLongAreRefused(t *testing.T) {
	files := func(n int, name string) (all []file) {
		for i := range n {
			all = append(all, file{name: fmt.Sprintf("%s%d", name, i)})
		}
		return all
	}
	deep, wide := files(600, strings.Repeat("n/", 60)), files(1000, strings.Repeat("n", 250))
	for name, tc := range map[string]struct {
		files  []file
		ignore string
		words  string
	}{
		"very many":                           {deep, strings.Repeat("x\n", 60<<10), "61440 ignore patterns on 660 files and folders"},
		"long ones":                           {deep, strings.Repeat(strings.Repeat("x", 255)+"\n", 500), "500 ignore patterns on 660 files"},
		"long ones with a wildcard":           {wide, strings.Repeat("*"+strings.Repeat("n", 120)+"b\n", 1000), "1000 ignore patterns on 1000 files"},
		"one that is longer than any":         {wide, "*" + strings.Repeat("[n]", 20_000), "1 ignore patterns on 1000 files"},
		"a wildcard in a folder of a pattern": {wide, "**/*" + strings.Repeat("[n]", 20_000) + "/x", "1 ignore patterns on 1000 files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert(t, layerOf(t, tc.files...), format.Options{Ignore: &tc.ignore})
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, tc.words, "fewer or shorter patterns")
		})
	}
}

// TestManyIgnoreRulesOfALargeTreeAreTried is to notice a limit that would hinder
// people: these are as many patterns as lists of them for a language have.
func TestManyIgnoreRulesOfALargeTreeAreTried(t *testing.T) {
	g := NewWithT(t)
	files := []file{good}
	for i := range 10_000 {
		files = append(files, file{name: fmt.Sprintf("clusters/production-%d/applications/team-%d/deployment-%d.yaml", i%7, i%100, i)})
	}
	ignore := strings.Repeat("*.suffix\n**/build-output/\n/docs/*.md\n.cache/\n", 50) + "team-*\n"
	content, err := convert(t, layerOf(t, files...), format.Options{Ignore: &ignore})
	g.Expect(err).NotTo(HaveOccurred())
	tree := unpack(t, content.Path)
	g.Expect(tree).To(HaveKey("deploy.yaml"))
	g.Expect(tree).NotTo(HaveKey(HavePrefix("clusters/production-0/applications/team-")))
}
