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
	"maps"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	emptyimage "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/memory"
)

const (
	taskYAML     = "# a task\napiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: build\nspec:\n  steps: []\n"
	taskJSON     = `{"apiVersion":"tekton.dev/v1","kind":"Task","metadata":{"name":"build","creationTimestamp":null},"spec":{"steps":[]}}`
	pipelineYAML = "apiVersion: tekton.dev/v1beta1\nkind: Pipeline\nmetadata:\n  name: release.v1\n"
)

// about are the annotations of a layer of a Tekton bundle.
func about(apiVersion, kind, name string) map[string]string {
	return map[string]string{"dev.tekton.image.apiVersion": apiVersion, "dev.tekton.image.kind": kind, "dev.tekton.image.name": name}
}

func with(desc v1.Descriptor, annotations map[string]string) v1.Descriptor {
	desc.Annotations = annotations
	return desc
}

// ofImage is an image of these layers without labels.
func ofImage(t testing.TB, b blobs, layers ...v1.Descriptor) *format.Manifest {
	t.Helper()
	return ofLabelled(t, b, `{}`, layers...)
}

// ofLabelled is an image of these layers and labels.
func ofLabelled(t testing.TB, b blobs, labels string, layers ...v1.Descriptor) *format.Manifest {
	t.Helper()
	return &format.Manifest{
		MediaType: types.OCIManifestSchema1,
		Config:    b.put(t, types.OCIConfigJSON, []byte(`{"config":{"Labels":`+labels+`}}`)),
		Layers:    layers,
	}
}

// pushed gives an image to a registry and reads it back.
func pushed(t testing.TB, img v1.Image) (*format.Manifest, format.Blobs) {
	t.Helper()
	url := serve(t) + "/team/app:1.0.0"
	writeImage(t, url, img)
	return fetch(t, url)
}

func TestATektonBundleIsReadWhateverItsLayersAreMadeOf(t *testing.T) {
	tarOf := func(name, body string) []byte { return archive(t, file{name: name, body: body, mode: 0o600}) }
	type made struct {
		bytes       []byte
		mediaType   types.MediaType
		annotations map[string]string
	}
	task, version := about("tekton.dev/v1", "task", "build"), about("v1", "task", "build")
	for name, tc := range map[string]struct {
		oci   bool
		layer made
		body  string
	}{
		"as tkn pushes it":                     {false, made{zipped(t, tarOf("build", taskJSON)), types.DockerLayer, version}, taskJSON},
		"a gzip tar of YAML in an OCI layer":   {true, made{zipped(t, tarOf("task.yaml", taskYAML)), types.OCILayer, task}, taskYAML},
		"a tar that is not compressed":         {true, made{tarOf("./build", taskJSON), types.OCIUncompressedLayer, task}, taskJSON},
		"YAML compressed with gzip, no tar":    {false, made{zipped(t, []byte(taskYAML)), types.DockerLayer, version}, taskYAML},
		"YAML as it is":                        {true, made{[]byte(taskYAML), types.OCIUncompressedLayer, task}, taskYAML},
		"YAML as it is, called compressed":     {true, made{[]byte(taskYAML), types.OCILayer, task}, taskYAML},
		"YAML that is longer than a tar block": {true, made{[]byte(taskYAML + strings.Repeat("# more\n", 200)), types.OCILayer, task}, taskYAML + strings.Repeat("# more\n", 200)},
		"as many rare line breaks as are read": {true, made{[]byte(taskYAML + strings.Repeat("#\u2028", 1000)), types.OCILayer, task}, taskYAML + strings.Repeat("#\u2028", 1000)},
		"a document between separators":        {true, made{zipped(t, []byte("---\n"+taskYAML+"---\n# the end\n")), types.OCILayer, task}, "---\n" + taskYAML + "---\n# the end\n"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			base := emptyimage.Image
			if tc.oci {
				base = mutate.ConfigMediaType(mutate.MediaType(base, types.OCIManifestSchema1), types.OCIConfigJSON)
			}
			img, err := mutate.Append(base, mutate.Addendum{Layer: static.NewLayer(tc.layer.bytes, tc.layer.mediaType), Annotations: tc.layer.annotations})
			g.Expect(err).NotTo(HaveOccurred())
			m, b := pushed(t, img)
			for _, pinned := range []string{"", v1alpha1.FormatTekton} {
				content, err := format.Convert(t.Context(), m, b, format.Options{Format: pinned}, t.TempDir())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(content.Format).To(Equal(v1alpha1.FormatTekton))
				g.Expect(content.Verbatim).To(BeFalse())
				g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"task-build.yaml": tc.body}))
			}
		})
	}
}

func TestATektonBundleOfSeveralObjectsIsATreeOfFiles(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	layers := []v1.Descriptor{
		with(b.put(t, types.DockerLayer, layerOf(t, file{name: "release.v1", body: pipelineYAML})), about("v1beta1", "pipeline", "release.v1")),
		with(b.put(t, types.DockerLayer, layerOf(t, file{name: "build", body: taskJSON})), about("v1", "task", "build")),
	}
	want := map[string]string{"pipeline-release.v1.yaml": pipelineYAML, "task-build.yaml": taskJSON}
	for len(layers) < 20 {
		name := fmt.Sprintf("step-%d", len(layers))
		body := strings.ReplaceAll(taskJSON, "build", name)
		layers = append(layers, with(b.put(t, types.DockerLayer, layerOf(t, file{name: name, body: body})), about("v1", "task", name)))
		want["task-"+name+".yaml"] = body
	}
	content, err := format.Convert(t.Context(), ofImage(t, b, layers...), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(Equal(want))

	content, err = format.Convert(t.Context(), ofImage(t, b, layers...), b, format.Options{Ignore: new("task-*")}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(HaveLen(1))
}

func TestATektonBundleThatBreaksItsContractIsRefused(t *testing.T) {
	b := blobs(t.TempDir())
	gzip := func(annotations map[string]string, bodies ...string) v1.Descriptor {
		var files []file
		for i, body := range bodies {
			files = append(files, file{name: fmt.Sprintf("f%d", i), body: body})
		}
		return with(b.put(t, types.OCILayer, layerOf(t, files...)), annotations)
	}
	raw := func(annotations map[string]string, body string) v1.Descriptor {
		return with(b.put(t, types.OCILayer, zipped(t, []byte(body))), annotations)
	}
	of := func(mediaType types.MediaType, desc v1.Descriptor) v1.Descriptor {
		desc.MediaType = mediaType
		return desc
	}
	task := about("tekton.dev/v1", "task", "build")
	without := func(key string) map[string]string {
		rest := maps.Clone(task)
		delete(rest, "dev.tekton.image."+key)
		return rest
	}
	good := gzip(task, taskYAML)
	var many []v1.Descriptor
	for i := range 21 {
		name := fmt.Sprintf("t%d", i)
		many = append(many, gzip(about("v1", "task", name), strings.ReplaceAll(taskYAML, "build", name)))
	}
	invalid, unsupported, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonUnsupportedMediaType, v1alpha1.ReasonLimitExceeded
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		reason string
		words  string
	}{
		"more layers than Tekton takes":          {many, invalid, "21 layers; Tekton takes at most 20"},
		"no name":                                {[]v1.Descriptor{gzip(without("name"), taskYAML)}, invalid, "a layer without the annotation dev.tekton.image.name"},
		"no kind":                                {[]v1.Descriptor{good, gzip(without("kind"), taskYAML)}, invalid, "layer 2 of 2: the Tekton bundle has a layer without the annotation dev.tekton.image.kind"},
		"no apiVersion":                          {[]v1.Descriptor{gzip(without("apiVersion"), taskYAML)}, invalid, "without the annotation dev.tekton.image.apiVersion"},
		"an empty name":                          {[]v1.Descriptor{gzip(about("v1", "task", ""), taskYAML)}, invalid, "without the annotation dev.tekton.image.name"},
		"a layer without annotations":            {[]v1.Descriptor{good, gzip(nil, pipelineYAML)}, invalid, "layer 2 of 2: the Tekton bundle has a layer without the annotation"},
		"a kind with capitals":                   {[]v1.Descriptor{gzip(about("v1", "Task", "build"), taskYAML)}, invalid, `kind "Task" in its annotation`},
		"a kind in the plural":                   {[]v1.Descriptor{gzip(about("v1", "tasks", "build"), taskYAML)}, invalid, `kind "tasks"`},
		"another kind inside":                    {[]v1.Descriptor{gzip(about("v1", "pipeline", "build"), taskYAML)}, invalid, `annotations say v1 pipeline "build", but it holds tekton.dev/v1 Task "build"`},
		"another name inside":                    {[]v1.Descriptor{gzip(about("v1", "task", "test"), taskYAML)}, invalid, `but it holds tekton.dev/v1 Task "build"`},
		"another version inside":                 {[]v1.Descriptor{gzip(about("v1beta1", "task", "build"), taskYAML)}, invalid, "annotations say v1beta1"},
		"another full version inside":            {[]v1.Descriptor{gzip(about("tekton.dev/v1beta1", "task", "build"), taskYAML)}, invalid, "annotations say tekton.dev/v1beta1"},
		"one object twice":                       {[]v1.Descriptor{good, good}, invalid, `two objects of one kind and name`},
		"one object in two versions":             {[]v1.Descriptor{good, gzip(about("v1beta1", "task", "build"), strings.ReplaceAll(taskYAML, "/v1", "/v1beta1"))}, invalid, `two objects of one kind and name`},
		"two files in a layer":                   {[]v1.Descriptor{gzip(task, taskYAML, pipelineYAML)}, invalid, "2 files, 0 folders and 0 symbolic links"},
		"a folder in a layer":                    {[]v1.Descriptor{with(b.put(t, types.OCILayer, layerOf(t, folder("d"), file{name: "d/x", body: taskYAML})), task)}, invalid, "1 files, 1 folders"},
		"a file and a link in a layer":           {[]v1.Descriptor{with(b.put(t, types.OCILayer, layerOf(t, file{name: "x", body: taskYAML}, link("l", "x"))), task)}, invalid, "1 symbolic links"},
		"no file in a layer":                     {[]v1.Descriptor{gzip(task)}, invalid, "0 files"},
		"two YAML documents":                     {[]v1.Descriptor{gzip(task, taskYAML+"---\n"+pipelineYAML)}, invalid, "more than one YAML document"},
		"two raw YAML documents":                 {[]v1.Descriptor{raw(task, taskYAML+"---\n"+pipelineYAML)}, invalid, "more than one YAML document"},
		"two JSON objects":                       {[]v1.Descriptor{raw(task, taskJSON+taskJSON)}, invalid, "not YAML"},
		"no document":                            {[]v1.Descriptor{raw(task, "# nothing\n---\n")}, invalid, "an empty YAML document"},
		"nothing":                                {[]v1.Descriptor{raw(task, "")}, invalid, "an empty YAML document"},
		"bytes that are no YAML":                 {[]v1.Descriptor{raw(task, "kind: Task\n\tname: x\n")}, invalid, "not YAML"},
		"a list":                                 {[]v1.Descriptor{raw(task, "- a\n")}, invalid, "not a YAML mapping"},
		"metadata that is a string":              {[]v1.Descriptor{raw(task, "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: build\n")}, invalid, "not a YAML mapping"},
		"metadata that is an alias":              {[]v1.Descriptor{raw(task, "x: &m {name: build}\nmetadata: *m\nkind: Task\napiVersion: tekton.dev/v1\n")}, invalid, "not a YAML mapping"},
		"a key twice":                            {[]v1.Descriptor{raw(task, taskYAML+"kind: Pipeline\n")}, invalid, `key "kind" twice`},
		"no kind inside":                         {[]v1.Descriptor{raw(task, "apiVersion: tekton.dev/v1\nmetadata: {name: build}\n")}, invalid, "no apiVersion or no kind"},
		"a name that is a number":                {[]v1.Descriptor{raw(about("v1", "task", "1"), "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: 1}\n")}, invalid, `but it holds tekton.dev/v1 Task ""`},
		"a name that is a path":                  {[]v1.Descriptor{raw(about("v1", "task", "../x"), "apiVersion: tekton.dev/v1\nkind: Task\nmetadata: {name: ../x}\n")}, invalid, `the name "../x", which no object can have`},
		"a kind that is a path":                  {[]v1.Descriptor{raw(about("v1", "a/b", "x"), "apiVersion: tekton.dev/v1\nkind: A/B\nmetadata: {name: x}\n")}, invalid, `kind "A/B"`},
		"an object that is not Tekton's":         {[]v1.Descriptor{raw(about("v1", "configmap", "x"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")}, invalid, "only objects of the group tekton.dev"},
		"an object of another group of Tekton's": {[]v1.Descriptor{raw(about("v1beta1", "trigger", "x"), "apiVersion: triggers.tekton.dev/v1beta1\nkind: Trigger\nmetadata: {name: x}\n")}, invalid, "only objects of the group tekton.dev"},
		"a zstd layer":                           {[]v1.Descriptor{with(b.put(t, types.OCILayerZStd, zstandard(t, archive(t, file{name: "x", body: taskYAML}))), task)}, unsupported, "compressed with zstd"},
		"a zstd layer that is called gzip":       {[]v1.Descriptor{with(b.put(t, types.OCILayer, zstandard(t, []byte(taskYAML))), task)}, unsupported, "compressed with zstd"},
		"a layer that is none of an image":       {[]v1.Descriptor{of("application/yaml", good)}, unsupported, `type "application/yaml"`},
		"an object larger than any":              {[]v1.Descriptor{raw(task, taskYAML+strings.Repeat("#", 1<<20))}, exceeded, "more than the 1048576 bytes"},
		"a tar with an object larger than any":   {[]v1.Descriptor{gzip(task, taskYAML+strings.Repeat("#", 1<<20))}, exceeded, "more than the 1048576 bytes"},
		"an object of too many values":           {[]v1.Descriptor{raw(task, taskYAML+"x: ["+strings.Repeat("a,", 100_000)+"]\n")}, exceeded, "more than the 100000 values"},
		"an object of too many rare line breaks": {[]v1.Descriptor{raw(task, taskYAML+strings.Repeat("#\u2028", 1001))}, exceeded, "more than the 1000 line breaks"},
		"an object with a directive":             {[]v1.Descriptor{raw(task, "%TAG !a! b\n---\n"+taskYAML)}, invalid, "has a %TAG directive"},
		"a directive behind a rare line break":   {[]v1.Descriptor{raw(task, taskYAML+"...\u2028%TAG !a! b\n---\n"+taskYAML)}, invalid, "has a %TAG directive"},
		"a directive behind a byte order mark":   {[]v1.Descriptor{raw(task, "\ufeff%TAG !a! b\n---\n"+taskYAML)}, invalid, "has a %TAG directive"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := format.Convert(t.Context(), ofImage(t, b, tc.layers...), b, format.Options{Image: image}, t.TempDir())
			NewWithT(t).Expect(content).To(BeNil())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func TestHostileLayersOfATektonBundleAreRefused(t *testing.T) {
	for name, h := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			m := ofImage(t, b, with(b.put(t, types.DockerLayer, h.layer), about("v1", "task", "x")))
			_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
			// What is no tar may be an object, so that the words differ.
			NewWithT(t).Expect(err).To(HaveOccurred())
			expectStall(t, err)
		})
	}
}

func TestAnObjectThatCostsMuchToParseTakesLittleMemory(t *testing.T) {
	b := blobs(t.TempDir())
	for name, body := range map[string]string{
		"a list of nothing":             strings.Repeat("- \n", 49_000),
		"keys without values":           "a: {" + strings.Repeat("a,", 99_000) + "}\n",
		"keys of keys":                  "a:\n" + strings.Repeat("- "+strings.Repeat("? ", 490)+"\n", 200),
		"long tags":                     "%TAG !a! " + strings.Repeat("x", 500_000) + "\n---\na: [" + strings.Repeat("!a!b c,", 400) + "]\n",
		"many keys":                     many(49_000, func(i int) string { return fmt.Sprintf("k%x: 1\n", i) }),
		"lists in lists":                strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"aliases of aliases":            "a0: &a0 [x]\n" + many(1000, func(i int) string { return fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i) }),
		"a megabyte of a key":           strings.Repeat("k", 1<<20-10) + ": v\n",
		"comments that end with U+0085": strings.Repeat("#\u0085", 330_000) + "a: b\n",
		"comments that end with U+2028": strings.Repeat("#\u2028", 250_000) + "a: b\n",
		"comments and keys in turns":    "a:\n" + strings.Repeat("\r#a\n?  #", 49_500),
		"keys behind carriage returns":  "apiVersion: tekton.dev/v1\rkind: Task\rmetadata: {name: y}\rspec:\r" + many(95_000, func(i int) string { return fmt.Sprintf(" %x: a\r", i) }),
		"comments that end with U+2029": "a: b\n" + strings.Repeat("#\u2029", 250_000),
	} {
		t.Run(name, func(t *testing.T) {
			layer := with(b.put(t, types.OCILayer, zipped(t, []byte(body))), about("v1", "task", "x"))
			var err error
			grown := memory.Peak(func() {
				_, err = format.Convert(t.Context(), ofImage(t, b, layer), b, format.Options{}, t.TempDir())
			})
			expectStall(t, err)
			t.Logf("%s: %d KiB", name, grown>>10)
			NewWithT(t).Expect(grown).To(BeNumerically("<", 32<<20))
		})
	}
}

// many joins n strings.
func many(n int, at func(i int) string) string {
	var all bytes.Buffer
	for i := range n {
		all.WriteString(at(i))
	}
	return all.String()
}
