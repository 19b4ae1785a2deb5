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
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/provider"
	"sigs.k8s.io/yaml"

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
		clusterPolicy + "---#a:\n" + celPolicy, clusterPolicy + "items: []\n", clusterPolicy + "<<: {items: [{}]}\n", clusterPolicy + "\r---\r" + celPolicy,
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
			// As kustomize-controller does with a folder without a kustomization.
			found, err := provider.NewDefaultDepProvider().GetResourceFactory().SliceFromBytes(body)
			if err != nil {
				return // such as an empty element of a list
			}
			if len(found) != 1 {
				t.Fatalf("kustomize reads %d objects", len(found))
			}
			gvk := found[0].GetGvk()
			if want := strings.ToLower(gvk.Kind) + "-" + found[0].GetName() + ".yaml"; name != want {
				t.Fatalf("the file is %s, and kustomize reads %s", name, want)
			}
			if gvk.Group != "kyverno.io" && gvk.Group != "policies.kyverno.io" {
				t.Fatalf("kustomize reads an object of the group %q", gvk.Group)
			}
			// And as it splits what is to be applied, once more.
			text, err := found[0].AsYAML()
			if err != nil {
				t.Fatal(err)
			}
			var applied unstructured.Unstructured
			if err := yaml.Unmarshal(text, &applied.Object); err == nil && (applied.IsList() || applied.GetKind() != gvk.Kind) {
				t.Fatalf("a list, or a %s, is applied", applied.GetKind())
			}
		}
	})
}
