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
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	adminBinding = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: admin}\n"
	nested       = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: admin}}"
)

// smuggled are files that pass for one object %[1]s of the kind %[2]s called x, and
// hold, or can be taken for, something else.
func smuggled() map[string]string {
	object := "apiVersion: %[1]s\nkind: %[2]s\nmetadata: {name: x}\n"
	indented := " " + strings.ReplaceAll(strings.TrimSpace(adminBinding), "\n", "\n ") + "\n"
	return map[string]string{
		"a list of its kind":                 "apiVersion: %[1]s\nkind: %[2]sList\nmetadata: {name: x}\nitems: [" + nested + "]\n",
		"a list without items":               "apiVersion: %[1]s\nkind: %[2]sList\nmetadata: {name: x}\n",
		"a list called so by its group":      "apiVersion: %[1]s\nkind: List\nmetadata: {name: x}\nitems: [" + nested + "]\n",
		"a list of resources":                "apiVersion: %[1]s\nkind: ResourceList\nmetadata: {name: x}\nitems: [" + nested + "]\n",
		"a list in capitals":                 "apiVersion: %[1]s\nkind: %[2]sLIST\nmetadata: {name: x}\nitems: [" + nested + "]\n",
		"a core list":                        "apiVersion: v1\nkind: List\nmetadata: {name: x}\nitems: [" + nested + "]\n",
		"items":                              object + "items: [" + nested + "]\n",
		"no items":                           object + "items: []\n",
		"items in capitals":                  object + "ITEMS: [" + nested + "]\n",
		"items with a long s":                object + "itemſ: [" + nested + "]\n",
		"items with an escape":               object + `"it\u0065ms": [` + nested + "]\n",
		"items in JSON":                      `{"apiVersion":"%[1]s","kind":"%[2]s","metadata":{"name":"x"},"items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"y"}}]}`,
		"items by a tag":                     object + "!!binary aXRlbXM=: [" + nested + "]\n",
		"items that are merged":              object + "<<: {items: [" + nested + "]}\n",
		"another kind that is merged":        object + "x: &x {kind: ClusterRoleBinding}\n<<: *x\n",
		"another kind in capitals":           object + "Kind: ClusterRoleBinding\n",
		"another group in capitals":          object + "apiversion: rbac.authorization.k8s.io/v1\n",
		"other metadata in capitals":         object + "METADATA: {name: admin}\n",
		"another kind twice":                 object + "kind: ClusterRoleBinding\n",
		"another kind twice, in JSON":        `{"apiVersion":"%[1]s","kind":"%[2]s","metadata":{"name":"x"},"kind":"ClusterRoleBinding"}`,
		"another kind twice, with an escape": `{"apiVersion":"%[1]s","kind":"%[2]s","metadata":{"name":"x"},"k\u0069nd":"ClusterRoleBinding"}`,
		"a kind by a tag":                    "apiVersion: %[1]s\nkind: !!str %[2]s\nmetadata: {name: x}\n",
		"a kind by an alias":                 "x: &x %[2]s\napiVersion: %[1]s\nkind: *x\nmetadata: {name: x}\n",
		"an alias anywhere":                  object + "a: &a [1]\nb: *a\n",
		"a second document":                  object + "---\n" + adminBinding,
		"a second document behind an end":    object + "...\n---\n" + adminBinding,
		"a second document behind CR":        object + "\r---\r" + adminBinding,
		"a second document behind a comment": object + "--- # x\n" + adminBinding,
		"a second document with a mark":      object + "---\n\xef\xbb\xbf" + adminBinding,
		"a document in a key for some":       object + "---#a:\n" + indented,
		"a document in a text for some":      object + "---#a: |\n" + indented,
		"a document in quotes for some":      "# c\n---#a: \"\n" + adminBinding + "z: \"\n" + object + "# \"\n",
		"a key that substitution renames":    object + "apiVersion${x:=}: rbac.authorization.k8s.io/v1\nkind${x:=}: ClusterRoleBinding\n",
		"a key that ends a substitution":     "a: ${x:=\n" + object + "kind}: ClusterRoleBinding\n",
		"a key that substitution unescapes":  object + "it\\/ems: []\n",
		"a kind that substitution completes": "apiVersion: %[1]s\nkind: ${x:=%[2]s}\nmetadata: {name: x}\n",
		"a version that is substituted":      "apiVersion: %[1]s${x:=}\nkind: %[2]s\nmetadata: {name: x}\n",
		"a directive":                        "%%YAML 1.1\n---\n" + object,
		"UTF-16":                             "\xfe\xff\x00k",
		"UTF-16 without a mark":              "k\x00i\x00n\x00d\x00",
		"a NUL":                              object + "a: \x00\n",
		"another object":                     adminBinding,
		"a kustomization":                    "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata: {name: x}\nresources: [https://example.com/x]\n",
		"a Kustomization of Flux":            "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\n",
		"a webhook":                          "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: x}\n",
		"the group as a part of another":     "apiVersion: x.%[1]s\nkind: %[2]s\nmetadata: {name: x}\n",
		"the group in capitals":              "apiVersion: " + "TEKTON.dev/v1" + "\nkind: %[2]s\nmetadata: {name: x}\n",
	}
}

func TestNothingIsSmuggledIntoATektonBundle(t *testing.T) {
	for name, body := range smuggled() {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(body+"%.0[1]s%.0[2]s", "tekton.dev/v1", "Task")
			for _, kind := range []string{"task", "tasklist", "list", "resourcelist", "clusterrolebinding", "kustomization"} {
				b := blobs(t.TempDir())
				for _, layer := range [][]byte{zipped(t, []byte(body)), layerOf(t, file{name: "x", body: body})} {
					m := ofImage(t, b, with(b.put(t, types.OCILayer, layer), about("v1", kind, "x")))
					_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
					expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall)
				}
			}
		})
	}
}

func TestNothingIsSmuggledIntoAKyvernoArtifact(t *testing.T) {
	for name, body := range smuggled() {
		t.Run(name, func(t *testing.T) {
			for _, group := range []string{"kyverno.io/v1", "policies.kyverno.io/v1beta1"} {
				body := fmt.Sprintf(body+"%.0[1]s%.0[2]s", group, "Policy")
				b := blobs(t.TempDir())
				m := &format.Manifest{Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: []v1.Descriptor{b.put(t, kyvernoPolicy, []byte(body))}}
				_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
				expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall)
			}
		})
	}
}

func TestNothingIsSmuggledIntoAKyvernoBundle(t *testing.T) {
	files := map[string]file{
		"a kustomization by its name":               {name: "policies/kustomization.yaml", body: celPolicy},
		"a kustomization by its other name":         {name: "kustomization.yml"},
		"a kustomization without a suffix":          {name: "a/b/Kustomization", body: "resources: [https://example.com/x]\n"},
		"a kustomization in other letters":          {name: "KUSTOMIZATION"},
		"a file larger than any object":             {name: "large.yaml", body: strings.Repeat("#", 2<<20)},
		"another object beside a policy":            {name: "two.yml", body: celPolicy + "---\n" + adminBinding},
		"another object in a folder that is hidden": {name: ".x/y.yaml", body: adminBinding},
	}
	for name, body := range smuggled() {
		if strings.HasPrefix(name, "a second document") {
			continue // of policies, a bundle may have many in a file
		}
		files[name] = file{name: "policies/x.yaml", body: fmt.Sprintf(body+"%.0[1]s%.0[2]s", "policies.kyverno.io/v1", "ValidatingPolicy")}
	}
	for name, hostile := range files {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			m := bundleManifest(b.put(t, kyvernoContent, layerOf(t, file{name: "good.yaml", body: celPolicy}, hostile)))
			for _, m := range []*format.Manifest{m, again(m)} {
				_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
				NewWithT(t).Expect(err).To(HaveOccurred())
				expectStall(t, err)
				NewWithT(t).Expect(err.Error()).To(ContainSubstring(hostile.name))
			}
			// What the owner of the source leaves out does not count.
			_, err := format.Convert(t.Context(), m, b, format.Options{Ignore: &hostile.name}, t.TempDir())
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		})
	}
}

func TestPoliciesOfAKyvernoBundleArePublishedAsTheyAre(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	many := "\xef\xbb\xbf# policies\n---\n" + celPolicy + "---\n\n---\n" + strings.ReplaceAll(celPolicy, "require-labels", "other") + "---\n"
	layer := b.put(t, kyvernoContent, layerOf(t, file{name: "a/many.yaml", body: many}, file{name: "windows.yml", body: strings.ReplaceAll(celPolicy, "\n", "\r\n")},
		file{name: "README.md", body: "apiVersion: v1"}, file{name: "empty.yaml"}))
	content, err := format.Convert(t.Context(), bundleManifest(layer), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeTrue())
	g.Expect(unpack(t, content.Path)).To(HaveKeyWithValue("a/many.yaml", many))
}

// TestObjectsOfAnArtifactAreBoundedTogether has objects of which each is within the
// limits.
func TestObjectsOfAnArtifactAreBoundedTogether(t *testing.T) {
	b := blobs(t.TempDir())
	policies := func(n int, rest string) (layers []v1.Descriptor) {
		for i := range n {
			body := strings.ReplaceAll(clusterPolicy, "require-labels", fmt.Sprintf("p%d", i)) + rest
			layers = append(layers, b.put(t, kyvernoPolicy, []byte(body)))
		}
		return layers
	}
	for name, layers := range map[string][]v1.Descriptor{
		"of many values": policies(8, "x: ["+strings.Repeat("a,", 45_000)+"]\n"),
		"of many bytes":  policies(20, "x: "+strings.Repeat("a", 1_000_000)+"\n"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), &format.Manifest{Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: layers}, b, format.Options{}, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "values together")
		})
	}
}

// TestASelectedLayerIsNoBundle holds that nothing is called a bundle, be it by a
// policy, whose objects nobody has looked at.
func TestASelectedLayerIsNoBundle(t *testing.T) {
	b := blobs(t.TempDir())
	layer := layerOf(t, file{name: "x.yaml", body: adminBinding})
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		pinned   string
	}{
		"of Tekton":            {ofImage(t, b, with(b.put(t, types.OCILayer, layer), about("v1", "task", "x"))), v1alpha1.FormatTekton},
		"of Kyverno":           {bundleManifest(b.put(t, kyvernoContent, layer)), v1alpha1.FormatKyverno},
		"of Kyverno, a policy": {&format.Manifest{Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: []v1.Descriptor{b.put(t, kyvernoPolicy, layer)}}, v1alpha1.FormatKyverno},
	} {
		for _, operation := range []string{"extract", "copy"} {
			for _, asked := range []string{"", tc.pinned} {
				t.Run(name+" "+operation+" "+asked, func(t *testing.T) {
					g := NewWithT(t)
					content, err := format.Convert(t.Context(), tc.manifest, b, pinned(selecting("", operation), asked), t.TempDir())
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(content.Format).To(Equal(v1alpha1.FormatLayer))
				})
			}
		}
	}
}
