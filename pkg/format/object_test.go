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
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/kustomize/kyaml/kio"

	"github.com/image-source/image-source-controller/pkg/format"
)

// FuzzObject reads any bytes as a policy. What is published is one object to
// kustomize too, where it reads it, of the kind and name that its file has.
func FuzzObject(f *testing.F) {
	for _, body := range []string{
		clusterPolicy, celPolicy, taskJSON, "---\n" + taskYAML + "---\n# end\n", taskYAML + "---\n" + pipelineYAML, taskJSON + taskJSON,
		"x: &m {name: build}\nmetadata: *m\nkind: Task\napiVersion: v1\n", "kind: &k yes\napiVersion: v1\nmetadata: {? name : *k}\n",
		"{\"kind\":\t\"A\",\n\t\"apiVersion\": \"v1\", \"metadata\": {\"name\": \"a\\u002db\"}}", "<<: {kind: A}\napiVersion: v1\nmetadata: {name: a}\n",
		"%YAML 1.1\n---\nkind: A\napiVersion: v1\nmetadata: {name: a}\n...\n", "\xef\xbb\xbfkind: A\napiVersion: v1\nmetadata: {name: 'a'}\n",
		"kind: A\nkind: B\napiVersion: v1\nmetadata: {name: a}\n", "kind: !!binary QQ==\napiVersion: v1\nmetadata: {name: a}\n", "- a\n", "a: *b\n", "",
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := blobs(t.TempDir())
		m := &format.Manifest{Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: []v1.Descriptor{b.put(t, kyvernoPolicy, body)}}
		content, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
		if err != nil {
			expectStall(t, err)
			return
		}
		for name, published := range unpack(t, content.Path) {
			if published != string(body) {
				t.Fatalf("published %q", published)
			}
			reader := kio.ByteReader{Reader: bytes.NewReader(body), OmitReaderAnnotations: true, DisableUnwrapping: true}
			nodes, err := reader.Read()
			if err != nil {
				return // such as a YAML directive
			}
			if len(nodes) != 1 {
				t.Fatalf("kustomize reads %d objects", len(nodes))
			}
			if want := strings.ToLower(nodes[0].GetKind()) + "-" + nodes[0].GetName() + ".yaml"; name != want {
				t.Fatalf("the file is %s, and kustomize reads %s", name, want)
			}
		}
	})
}
