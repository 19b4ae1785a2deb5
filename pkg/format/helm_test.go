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
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/registry"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	helmConfig = "application/vnd.cncf.helm.config.v1+json"
	helmChart  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
	helmProof  = "application/vnd.cncf.helm.chart.provenance.v1.prov"
	helmLegacy = "application/tar+gzip"
)

// chartYAML is what every chart has.
var chartYAML = file{name: "app/Chart.yaml", body: "apiVersion: v2\nname: app\nversion: 1.2.3\n"}

// chartManifest is a chart of these layers.
func chartManifest(layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: helmConfig}, Layers: layers}
}

// packaged is a chart as helm package writes it.
func packaged(t testing.TB, version string) []byte {
	t.Helper()
	g := NewWithT(t)
	dir := write(t, map[string]string{
		"Chart.yaml":              "apiVersion: v2\nname: app\nversion: " + version + "\nappVersion: \"9\"\n",
		"values.yaml":             "replicas: 2\n",
		"templates/config.yaml":   "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n",
		"templates/_helpers.tpl":  "{{/* nothing */}}\n",
		"charts/sub/Chart.yaml":   "apiVersion: v2\nname: sub\nversion: 0.1.0\n",
		"charts/sub/values.yaml":  "a: 1\n",
		"crds/crd.yaml":           "kind: CustomResourceDefinition\n",
		"files/logo.jpg":          "not really",
		"templates/tests/no.yaml": "",
	})
	loaded, err := loader.LoadDir(dir)
	g.Expect(err).NotTo(HaveOccurred())
	path, err := chartutil.Save(loaded, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	body, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	return body
}

// TestADependencyThatHelmPackagesTwice is a chart as helm dependency update
// leaves it: its dependency is a folder and an archive.
func TestADependencyThatHelmPackagesTwice(t *testing.T) {
	g := NewWithT(t)
	dir := write(t, map[string]string{"Chart.yaml": chartYAML.body, "charts/sub/Chart.yaml": "apiVersion: v2\nname: sub\nversion: 1.0.0\n"})
	sub, err := loader.LoadDir(filepath.Join(dir, "charts", "sub"))
	g.Expect(err).NotTo(HaveOccurred())
	_, err = chartutil.Save(sub, filepath.Join(dir, "charts"))
	g.Expect(err).NotTo(HaveOccurred())
	loaded, err := loader.LoadDir(dir)
	g.Expect(err).NotTo(HaveOccurred())
	path, err := chartutil.Save(loaded, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	written := 0
	for _, h := range headers(t, path) {
		if h.Name == "app/charts/sub/Chart.yaml" {
			written++
		}
	}
	g.Expect(written).To(Equal(2), "what this test is about")

	body, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	b := blobs(t.TempDir())
	content, err := format.Convert(t.Context(), chartManifest(b.put(t, helmChart, body)), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	expectChart(t, content.Path, "1.2.3")
}

// helmClient talks to a registry that has no TLS.
func helmClient(t testing.TB) *registry.Client {
	t.Helper()
	client, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptWriter(testWriter{t}), registry.ClientOptCredentialsFile(filepath.Join(t.TempDir(), "none.json")))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return client
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// expectChart asserts that Helm itself loads a file as the chart app.
func expectChart(t testing.TB, path, version string) {
	t.Helper()
	g := NewWithT(t)
	f, err := os.Open(path)
	g.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	loaded, err := loader.LoadArchive(f)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(loaded.Name()).To(Equal("app"))
	g.Expect(loaded.Metadata.Version).To(Equal(version))
}

func TestWhatHelmPushesIsPublishedAsItIs(t *testing.T) {
	for name, tc := range map[string]struct {
		version, tag string
		signed       bool
	}{
		"a chart":                               {"1.2.3", "1.2.3", false},
		"a chart with a provenance":             {"1.2.3", "1.2.3", true},
		"a chart of a version with a plus sign": {"1.2.3+build.7", "1.2.3_build.7", false},
		"a chart of a prerelease":               {"2.0.0-rc.1", "2.0.0-rc.1", true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			host, client := serve(t), helmClient(t)
			body := packaged(t, tc.version)
			ref := host + "/charts/app:"
			var options []registry.PushOption
			if tc.signed {
				options = append(options, registry.PushOptProvData([]byte("a provenance")))
			}
			_, err := client.Push(body, ref+tc.version, options...)
			g.Expect(err).NotTo(HaveOccurred())
			pulled, err := client.Pull(ref + tc.version)
			g.Expect(err).NotTo(HaveOccurred())

			m, blobs := fetch(t, ref+tc.tag)
			for _, o := range []format.Options{{}, {Format: v1alpha1.FormatHelm}, {Ignore: new("*")}} {
				content, err := format.Convert(t.Context(), m, blobs, o, t.TempDir())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(content.Format).To(Equal(v1alpha1.FormatHelm))
				g.Expect(content.ChartVersion).To(Equal(tc.version))
				g.Expect(content.Verbatim).To(BeTrue())
				g.Expect(content.Digest.String()).To(Equal(pulled.Chart.Digest))
				g.Expect(os.ReadFile(content.Path)).To(Equal(pulled.Chart.Data))
				expectChart(t, content.Path, tc.version)
			}
		})
	}
}

func TestTheProvenanceMayComeBeforeTheChart(t *testing.T) {
	g := NewWithT(t)
	host, client := serve(t), helmClient(t)
	ref := host + "/charts/app:1.2.3"
	for i := 0; ; i++ {
		g.Expect(i).To(BeNumerically("<", 100), "no provenance sorts before the chart")
		_, err := client.Push(packaged(t, "1.2.3"), ref, registry.PushOptProvData(fmt.Append(nil, "provenance ", i)))
		g.Expect(err).NotTo(HaveOccurred())
		m, blobs := fetch(t, ref)
		if m.Layers[0].MediaType != helmProof {
			continue
		}
		for _, o := range []format.Options{{}, {LayerSelector: &sourcev1.OCILayerSelector{Operation: "copy"}}} {
			content, err := format.Convert(t.Context(), m, blobs, o, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Digest).To(Equal(m.Layers[1].Digest))
			expectChart(t, content.Path, "1.2.3")
		}
		return
	}
}

func TestAChartIsATreeForWhoeverAsksForOne(t *testing.T) {
	host, client := serve(t), helmClient(t)
	ref := host + "/charts/app:1.2.3"
	_, err := client.Push(packaged(t, "1.2.3"), ref, registry.PushOptProvData([]byte("a provenance")))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	m, blobs := fetch(t, ref)
	for name, o := range map[string]format.Options{
		"extract":                         {LayerSelector: &sourcev1.OCILayerSelector{Operation: "extract"}},
		"extract, pinned":                 {LayerSelector: &sourcev1.OCILayerSelector{Operation: "extract"}, Format: v1alpha1.FormatHelm},
		"the media type of charts":        {LayerSelector: &sourcev1.OCILayerSelector{MediaType: helmChart}},
		"the media type, and extract too": {LayerSelector: &sourcev1.OCILayerSelector{MediaType: helmChart, Operation: "extract"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := format.Convert(t.Context(), m, blobs, o, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Format).To(Equal(v1alpha1.FormatHelm))
			tree := unpack(t, content.Path)
			g.Expect(tree).To(HaveKeyWithValue("app/values.yaml", "replicas: 2\n"))
			g.Expect(tree).To(HaveKey("app/templates/config.yaml"))
			g.Expect(tree).To(HaveKey("app/charts/sub/Chart.yaml"))
			g.Expect(tree).NotTo(HaveKey("app/files/logo.jpg"), "an OCIRepository leaves out images too")
		})
	}
}

func TestTheLayersOfAChart(t *testing.T) {
	b := blobs(t.TempDir())
	chart := b.put(t, helmChart, layerOf(t, chartYAML))
	legacy := b.put(t, helmLegacy, layerOf(t, chartYAML))
	other := b.put(t, "example/other", []byte("anything"))
	proof := b.put(t, helmProof, []byte("a provenance"))
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		words  string
	}{
		"a chart":                              {[]v1.Descriptor{chart}, ""},
		"a chart behind what Helm ignores":     {[]v1.Descriptor{other, proof, chart, other}, ""},
		"a chart of a type of before Helm 3.7": {[]v1.Descriptor{legacy}, ""},
		"no layers":                            {nil, "no layer of type"},
		"a provenance of no chart":             {[]v1.Descriptor{proof}, `only [1x "` + helmProof + `"]`},
		"two charts":                           {[]v1.Descriptor{chart, chart}, "2 layers that are charts"},
		"a chart of each type":                 {[]v1.Descriptor{chart, legacy}, "2 layers that are charts"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := format.Convert(t.Context(), chartManifest(tc.layers...), b, format.Options{}, t.TempDir())
			if tc.words != "" {
				expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, tc.words)
				return
			}
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			expectChart(t, content.Path, "1.2.3")
		})
	}
}

// TestHelmLoadsWhatIsPublished compares with Helm's own loader: what it does
// not load must not be published.
func TestHelmLoadsWhatIsPublished(t *testing.T) {
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	zeros := func(n int) string { return string(make([]byte, n)) }
	var full []file
	for i := range 20 {
		full = append(full, file{name: fmt.Sprintf("app/files/%d", i), body: zeros(5 << 20)})
	}
	yaml := func(body string) file { return file{name: "app/Chart.yaml", body: body} }
	const sub = "apiVersion: v2\nname: sub\nversion: 1.0.0\n"
	for name, tc := range map[string]struct {
		files  []file
		reason string
		words  string
	}{
		"a chart":                             {[]file{chartYAML}, "", ""},
		"a chart with folders":                {[]file{folder("app"), folder("app/templates"), chartYAML}, "", ""},
		"a chart in a folder of another name": {[]file{{name: "else/Chart.yaml", body: chartYAML.body}}, "", ""},
		"a chart in two folders":              {[]file{chartYAML, {name: "b/values.yaml", body: "a: 1"}}, "", ""},
		"a file twice":                        {[]file{chartYAML, {name: "app/charts/sub/Chart.yaml", body: sub}, {name: "app/charts/sub/Chart.yaml", body: sub}}, "", ""},
		"names that differ in case only":      {[]file{chartYAML, {name: "app/README.md"}, {name: "app/readme.md"}}, "", ""},
		"a file and a folder of one name":     {[]file{chartYAML, {name: "app/a"}, folder("app/a"), {name: "app/a/b"}}, "", ""},
		"a chart with a byte order mark":      {[]file{yaml("\ufeff" + chartYAML.body)}, "", ""},
		"a chart with an alias":               {[]file{yaml("name: app\napiVersion: v2\nversion: &v 1.2.3\nappVersion: *v\n")}, "", ""},
		"a chart with a symbolic link":        {[]file{chartYAML, link("app/LICENSE", "../LICENSE")}, "", ""},
		"a file of 5 MiB":                     {[]file{chartYAML, {name: "app/big", body: zeros(5 << 20)}}, "", ""},
		"a file of more than 5 MiB":           {[]file{chartYAML, {name: "app/big", body: zeros(5<<20 + 1)}}, exceeded, `"app/big" has more than 5242880 bytes`},
		"files of 100 MiB":                    {append(full, chartYAML), exceeded, "104857600 bytes"},
		"Chart.yaml at the root":              {[]file{{name: "Chart.yaml", body: chartYAML.body}}, invalid, `in no folder: "Chart.yaml"`},
		"another file at the root":            {[]file{chartYAML, {name: "README.md"}}, invalid, `in no folder: "README.md"`},
		"names with a dot":                    {[]file{{name: "./app/Chart.yaml", body: chartYAML.body}}, invalid, "no Chart.yaml in its folder"},
		"a double slash":                      {[]file{{name: "app//Chart.yaml", body: chartYAML.body}}, invalid, "Helm refuses"},
		"a name that begins with two dots":    {[]file{chartYAML, {name: "app/..data"}}, invalid, "Helm refuses"},
		"a drive of Windows":                  {[]file{chartYAML, {name: "app/c:/x"}}, invalid, "Helm refuses"},
		"no Chart.yaml":                       {[]file{{name: "app/values.yaml"}}, invalid, "no Chart.yaml"},
		"a Chart.yaml too deep":               {[]file{{name: "a/app/Chart.yaml", body: chartYAML.body}}, invalid, "no Chart.yaml"},
		"a Chart.yaml that is empty":          {[]file{yaml("")}, invalid, "no name"},
		"a Chart.yaml that is no YAML":        {[]file{yaml("a: [")}, invalid, "cannot be decoded"},
		"a Chart.yaml without a version":      {[]file{yaml("apiVersion: v2\nname: app\n")}, invalid, "no semantic version"},
		"a version that is none":              {[]file{yaml("apiVersion: v2\nname: app\nversion: one\n")}, invalid, `version "one"`},
		"a name that is a path":               {[]file{yaml("apiVersion: v2\nname: ../app\nversion: 1.0.0\n")}, invalid, "no name that Helm takes"},
		"a type that Helm does not know":      {[]file{yaml("apiVersion: v2\nname: app\nversion: 1.0.0\ntype: operator\n")}, invalid, `type "operator"`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			layer := layerOf(t, tc.files...)
			_, helms := loader.LoadArchive(bytes.NewReader(layer))
			content, err := format.Convert(t.Context(), chartManifest(b.put(t, helmChart, layer)), b, format.Options{}, t.TempDir())
			if tc.reason != "" {
				g.Expect(helms).To(HaveOccurred(), "Helm loads it")
				expectFault(t, err, tc.reason, fault.Stall, tc.words)
				return
			}
			g.Expect(helms).NotTo(HaveOccurred())
			g.Expect(err).NotTo(HaveOccurred())
			expectChart(t, content.Path, "1.2.3")
		})
	}
}

func TestWhatOnlyWeRefuseOfAChart(t *testing.T) {
	deep := []file{chartYAML}
	for i := range 2000 {
		deep = append(deep, file{name: fmt.Sprintf("app/%d/%sb", i, strings.Repeat("a/", 60))})
	}
	for name, tc := range map[string]struct {
		files  []file
		reason string
		words  string
	}{
		"two files that Helm takes for Chart.yaml": {
			[]file{chartYAML, {name: "b/Chart.yaml", body: "version: 9.9.9\nname: other\n"}}, v1alpha1.ReasonInvalidArtifact, "two files"},
		"a Chart.yaml of more than 1 MiB": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "#" + strings.Repeat("x", 1<<20)}}, v1alpha1.ReasonLimitExceeded, "1048576"},
		"a Chart.yaml with a directive that makes tags of any length": {
			[]file{{name: "app/Chart.yaml", body: "%TAG !a! " + strings.Repeat("x", 500_000) + "\n---\n" + chartYAML.body + "\nx: [" + strings.Repeat("!a!b c,", 40_000) + "]\n"}}, v1alpha1.ReasonInvalidArtifact, "has a %TAG directive"},
		"a Chart.yaml of aliases of a text that is escaped in JSON": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "\ndescription: &a " + strings.Repeat("<", 200_000) + "\nkeywords: [" + strings.Repeat("*a,", 5) + "*a]\n"}}, v1alpha1.ReasonLimitExceeded, "its aliases are written out"},
		"a Chart.yaml of aliases of a long text": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "\ndescription: &a " + strings.Repeat("x", 500_000) + "\nkeywords: [" + strings.Repeat("*a,", 200) + "*a]\n"}}, v1alpha1.ReasonLimitExceeded, "its aliases are written out"},
		"a Chart.yaml of aliases of aliases": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "\na0: &a0 [" + strings.Repeat("x", 10_000) + "]\n" + many(12, func(i int) string { return fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i) })}}, v1alpha1.ReasonLimitExceeded, "its aliases are written out"},
		"a Chart.yaml whose alias holds itself": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "\na: &a [*a]\n"}}, v1alpha1.ReasonLimitExceeded, "its aliases are written out"},
		"a Chart.yaml in UTF-16": {
			[]file{{name: "app/Chart.yaml", body: "\xff\xfe" + strings.Join(strings.Split(chartYAML.body, ""), "\x00") + "\x00"}}, v1alpha1.ReasonInvalidArtifact, "has a NUL byte"},
		"a Chart.yaml of very many values": {
			[]file{{name: "app/Chart.yaml", body: chartYAML.body + "\nkeywords: [" + strings.Repeat("a,", 200_000) + "a]"}}, v1alpha1.ReasonLimitExceeded, "more than the 100000 values"},
		"few files in very many folders": {deep, v1alpha1.ReasonLimitExceeded, "more than 100000 files and folders"},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			_, err := format.Convert(t.Context(), chartManifest(b.put(t, helmChart, layerOf(t, tc.files...))), b, format.Options{}, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func TestAChartOfAnotherDigestAlgorithmKeepsItsBytes(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	body := layerOf(t, chartYAML)
	content, err := format.Convert(t.Context(), chartManifest(b.put512(t, helmChart, body)), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	want, _, err := v1.SHA256(bytes.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Digest).To(Equal(want))
	g.Expect(os.ReadFile(content.Path)).To(Equal(body))
}
