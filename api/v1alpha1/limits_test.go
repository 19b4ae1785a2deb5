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

package v1alpha1_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// What a tenant or an administrator writes has a limit, in every field.
func TestEveryFieldOfASpecHasALimit(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "config", "crd", "bases", "*.yaml"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(files).To(HaveLen(2))
	for _, file := range files {
		content, err := os.ReadFile(file)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		var crd apiextensionsv1.CustomResourceDefinition
		NewWithT(t).Expect(yaml.UnmarshalStrict(content, &crd)).To(Succeed())
		for _, version := range crd.Spec.Versions {
			for _, path := range unlimited(version.Schema.OpenAPIV3Schema.Properties["spec"], "spec") {
				t.Errorf("%s %s: %s has no limit", crd.Spec.Names.Kind, version.Name, path)
			}
		}
	}
}

// unlimited returns the paths in a schema whose values have no limit: strings, lists,
// maps, and objects of unknown fields.
func unlimited(schema apiextensionsv1.JSONSchemaProps, path string) (paths []string) {
	if schema.XPreserveUnknownFields != nil && *schema.XPreserveUnknownFields {
		paths = append(paths, path)
	}
	switch {
	case schema.XIntOrString, schema.Type == "string":
		if schema.MaxLength == nil && len(schema.Enum) == 0 {
			paths = append(paths, path)
		}
	case schema.Type == "array":
		if schema.MaxItems == nil {
			paths = append(paths, path)
		}
		paths = append(paths, unlimited(*schema.Items.Schema, path+"[]")...)
	case schema.Type == "object":
		if values := schema.AdditionalProperties; values != nil {
			if schema.MaxProperties == nil || values.Schema == nil {
				return append(paths, path)
			}
			return append(paths, unlimited(*values.Schema, path+".{}")...)
		}
		for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
			paths = append(paths, unlimited(schema.Properties[name], path+"."+name)...)
		}
	case schema.Type == "boolean", schema.Type == "integer":
	default:
		paths = append(paths, fmt.Sprintf("%s (of the type %q)", path, schema.Type))
	}
	return paths
}

// Limits hold in fields of imported types, too.
func TestTheServerRefusesWhatIsOverALimit(t *testing.T) {
	text := func(length int) string { return strings.Repeat("a", length) }
	identities := func(count int) string {
		return "[" + strings.Join(slices.Repeat([]string{`{issuer: a, subject: b}`}, count), ", ") + "]"
	}
	const base = `image: ghcr.io/org/app, policy: {semver: {range: "*"}}, `
	for field, c := range map[string]struct {
		// accepted is the largest value, and refused one more.
		accepted, refused string
		// kind is a TrustPolicy, if set.
		policy bool
	}{
		"spec.interval":                            {base + `interval: ` + text64("1s"), base + `interval: ` + text64("1s") + "1s", false},
		"spec.timeout":                             {base + `timeout: ` + text64("1s"), base + `timeout: ` + text64("1s") + "1s", false},
		"spec.secretRef.name":                      {base + `secretRef: {name: ` + text(253) + `}`, base + `secretRef: {name: ` + text(254) + `}`, false},
		"spec.certSecretRef.name":                  {base + `certSecretRef: {name: ` + text(253) + `}`, base + `certSecretRef: {name: ` + text(254) + `}`, false},
		"spec.proxySecretRef.name":                 {base + `proxySecretRef: {name: ` + text(253) + `}`, base + `proxySecretRef: {name: ` + text(254) + `}`, false},
		"spec.serviceAccountName":                  {base + `serviceAccountName: ` + text(253), base + `serviceAccountName: ` + text(254), false},
		"spec.imagePolicyRef.name":                 {`imagePolicyRef: {name: ` + text(253) + `}`, `imagePolicyRef: {name: ` + text(254) + `}`, false},
		"spec.filterTags.pattern":                  {base + `filterTags: {pattern: ` + text(1024) + `}`, base + `filterTags: {pattern: ` + text(1025) + `}`, false},
		"spec.filterTags.extract":                  {base + `filterTags: {extract: ` + text(1024) + `}`, base + `filterTags: {extract: ` + text(1025) + `}`, false},
		"spec.policy.semver.range":                 {`image: ghcr.io/org/app, policy: {semver: {range: ` + text(1024) + `}}`, `image: ghcr.io/org/app, policy: {semver: {range: ` + text(1025) + `}}`, false},
		"spec.platform":                            {base + `platform: linux/` + text(122), base + `platform: linux/` + text(123), false},
		"spec.layerSelector.mediaType":             {base + `layerSelector: {mediaType: ` + text(255) + `}`, base + `layerSelector: {mediaType: ` + text(256) + `}`, false},
		"spec.ignore":                              {base + `ignore: ` + text(16384), base + `ignore: ` + text(16385), false},
		"spec.verify.matchOIDCIdentity":            {base + `verify: {matchOIDCIdentity: ` + identities(16) + `}`, base + `verify: {matchOIDCIdentity: ` + identities(17) + `}`, false},
		"spec.verify.matchOIDCIdentity[0].issuer":  {base + `verify: {matchOIDCIdentity: [{subject: b, issuer: ` + text(1024) + `}]}`, base + `verify: {matchOIDCIdentity: [{subject: b, issuer: ` + text(1025) + `}]}`, false},
		"spec.verify.matchOIDCIdentity[0].subject": {base + `verify: {matchOIDCIdentity: [{issuer: b, subject: ` + text(1024) + `}]}`, base + `verify: {matchOIDCIdentity: [{issuer: b, subject: ` + text(1025) + `}]}`, false},
		"spec.verify.secretRef.name":               {base + `verify: {secretRef: {name: ` + text(253) + `}}`, base + `verify: {secretRef: {name: ` + text(254) + `}}`, false},
		"spec.verify.trustedRootSecretRef.name": {
			base + `verify: {secretRef: {name: a}, trustedRootSecretRef: {name: ` + text(253) + `}}`,
			base + `verify: {secretRef: {name: a}, trustedRootSecretRef: {name: ` + text(254) + `}}`, false,
		},
		"spec.authorities[0].verify.matchOIDCIdentity": {
			`namespaceSelector: {}, images: ["**"], authorities: [{name: a, verify: {matchOIDCIdentity: ` + identities(16) + `}}]`,
			`namespaceSelector: {}, images: ["**"], authorities: [{name: a, verify: {matchOIDCIdentity: ` + identities(17) + `}}]`, true,
		},
		"spec.namespaceSelector.matchLabels": {`images: ["**"], namespaceSelector: {matchLabels: {` + pairs(64) + `}}`, `images: ["**"], namespaceSelector: {matchLabels: {` + pairs(65) + `}}`, true},
		"in matchLabels, a key": {
			`images: ["**"], namespaceSelector: {matchLabels: {"` + text(253) + "/" + text(63) + `": b}}`, `images: ["**"], namespaceSelector: {matchLabels: {"` + text(254) + "/" + text(63) + `": b}}`, true,
		},
		"spec.namespaceSelector.matchExpressions[0].values": {
			`images: ["**"], namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [` + list(100) + `]}]}`,
			`images: ["**"], namespaceSelector: {matchExpressions: [{key: a, operator: In, values: [` + list(101) + `]}]}`, true,
		},
		"spec.maxArtifactBytes": {`images: ["**"], namespaceSelector: {}, maxArtifactBytes: "` + strings.Repeat("1", 62) + `Ki"`, `images: ["**"], namespaceSelector: {}, maxArtifactBytes: "` + strings.Repeat("1", 63) + `Ki"`, true},
	} {
		t.Run(field, func(t *testing.T) {
			send := create
			if c.policy {
				send = createPolicy
			}
			_, err := send(t, "{"+c.accepted+"}")
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			_, err = send(t, "{"+c.refused+"}")
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(field)))
		})
	}
}

// text64 repeats two characters to a text of 64.
func text64(pair string) string { return strings.Repeat(pair, 32) }

// pairs returns labels of a selector.
func pairs(count int) string {
	var labels []string
	for i := range count {
		labels = append(labels, fmt.Sprintf("k%d: v", i))
	}
	return strings.Join(labels, ", ")
}

// list returns items of a list.
func list(count int) string { return strings.Join(slices.Repeat([]string{"v"}, count), ", ") }

// loosen takes every limit out of the installed CustomResourceDefinition of
// ArtifactRepositories, and returns a function that puts them back.
func loosen(t *testing.T) (tighten func()) {
	t.Helper()
	g := NewWithT(t)
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	g.Expect(server.Get(t.Context(), client.ObjectKey{Name: "artifactrepositories." + v1alpha1.Group}, crd)).To(Succeed())
	installed := crd.DeepCopy()
	version := crd.Object["spec"].(map[string]any)["versions"].([]any)[0].(map[string]any)
	spec := version["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)["properties"].(map[string]any)["spec"].(map[string]any)
	var strip func(schema map[string]any)
	strip = func(schema map[string]any) {
		for _, keyword := range []string{"maxLength", "maxItems", "maxProperties", "pattern", "x-kubernetes-validations"} {
			delete(schema, keyword)
		}
		for _, value := range schema {
			if below, ok := value.(map[string]any); ok {
				strip(below)
			}
		}
	}
	strip(spec)
	probe := func() error {
		_, err := create(t, `{imagePolicyRef: {name: `+strings.Repeat("a", 300)+`}}`)
		return err
	}
	g.Expect(server.Update(t.Context(), crd)).To(Succeed())
	g.Eventually(probe).WithTimeout(time.Minute).Should(Succeed())
	return func() {
		g.Expect(server.Get(t.Context(), client.ObjectKeyFromObject(crd), crd)).To(Succeed()) // its status was written
		crd.Object["spec"] = installed.Object["spec"]
		g.Expect(server.Update(t.Context(), crd)).To(Succeed())
		g.Eventually(probe).WithTimeout(time.Minute).ShouldNot(Succeed())
	}
}

// An object that was stored before there were limits can be annotated, suspended and
// deleted, and its status can be written: a withdrawal must not stop at the schema.
func TestStoredObjectsOverTheLimitsCanBeWritten(t *testing.T) {
	g := NewWithT(t)
	tighten := loosen(t)
	identity := `{issuer: "` + strings.Repeat("i", 42_000) + `", subject: s}`
	obj := object(t, `
imagePolicyRef: {name: `+strings.Repeat("p", 300)+`}
interval: `+strings.Repeat("1s", 100)+`
ignore: "`+strings.Repeat("x", 300_000)+`"
layerSelector: {mediaType: `+strings.Repeat("m", 300)+`}
verify: {matchOIDCIdentity: [`+strings.Join(slices.Repeat([]string{identity}, 20), ", ")+`]}`)
	obj.SetName("stored")
	g.Expect(server.Create(t.Context(), obj)).To(Succeed())
	status := func(text string) {
		g.Expect(server.Status().Patch(t.Context(), obj, client.RawPatch(types.MergePatchType, []byte(text)))).To(Succeed())
	}
	status(`{"status": {"artifact": {"digest": "` + digest + `", "path": "a", "url": "http://a", "revision": "1@` + digest + `", "lastUpdateTime": "2024-01-01T00:00:00Z"}}}`)
	tighten()

	status(`{"status": {"observedGeneration": 1, "lastHandledReconcileAt": "now"}}`)
	removal := client.RawPatch(types.JSONPatchType, []byte(`[{"op": "remove", "path": "/status/artifact"}]`))
	g.Expect(server.Status().Patch(t.Context(), obj, removal)).To(Succeed())
	for _, patch := range []string{`{"metadata": {"annotations": {"a": "b"}, "labels": {"a": "b"}}}`, `{"spec": {"suspend": true}}`} {
		g.Expect(server.Patch(t.Context(), obj, client.RawPatch(types.MergePatchType, []byte(patch)))).To(Succeed(), patch)
	}
	longer := client.RawPatch(types.MergePatchType, []byte(`{"spec": {"ignore": "`+strings.Repeat("y", 20_000)+`"}}`))
	g.Expect(server.Patch(t.Context(), obj, longer)).To(MatchError(ContainSubstring("spec.ignore")))
	g.Expect(server.Delete(t.Context(), obj)).To(Succeed())
}

// install creates the objects in a file of config/admission.
func install(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(filepath.Join("..", "..", "config", "admission", name))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	for documents := k8syaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		obj := &unstructured.Unstructured{}
		if documents.Decode(&obj.Object) != nil {
			return
		}
		NewWithT(t).Expect(server.Create(t.Context(), obj)).To(Succeed())
	}
}

// The schema has no say in metadata; the admission policy has.
func TestMetadataHasLimits(t *testing.T) {
	g := NewWithT(t)
	const source = `{imagePolicyRef: {name: app}}`
	labels := func(count int) map[string]string {
		labels := map[string]string{}
		for i := range count {
			labels[fmt.Sprintf("k%d", i)] = "v"
		}
		return labels
	}
	finalizers := func(count int) (names []string) {
		for i := range count {
			names = append(names, fmt.Sprintf("example.com/f%d", i))
		}
		return names
	}
	owners := func(count int, name string) (owners []metav1.OwnerReference) {
		for i := range count {
			owners = append(owners, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: name, UID: types.UID(fmt.Sprint(i))})
		}
		return owners
	}
	sources := map[string]func(*unstructured.Unstructured){
		"labels":           func(obj *unstructured.Unstructured) { obj.SetLabels(labels(65)) },
		"finalizers":       func(obj *unstructured.Unstructured) { obj.SetFinalizers(finalizers(17)) },
		"owner references": func(obj *unstructured.Unstructured) { obj.SetOwnerReferences(owners(17, "a")) },
		"owner references, or too long ones": func(obj *unstructured.Unstructured) {
			obj.SetOwnerReferences(owners(1, strings.Repeat("a", 100_000)))
		},
	}
	before := object(t, source)
	before.SetName("before")
	before.SetLabels(labels(70))
	before.SetFinalizers(finalizers(20))
	before.SetOwnerReferences(owners(20, "a"))
	g.Expect(server.Create(t.Context(), before)).To(Succeed())
	install(t, "bounded.yaml")
	for words, set := range sources {
		g.Eventually(func() error {
			obj := object(t, source)
			set(obj)
			return server.Create(t.Context(), obj, client.DryRunAll)
		}).WithTimeout(time.Minute).Should(MatchError(ContainSubstring("too many "+words)), "new")
	}
	more := before.DeepCopy()
	more.SetLabels(labels(71))
	g.Expect(server.Update(t.Context(), more, client.DryRunAll)).To(MatchError(ContainSubstring("too many labels")), "more than before")
	for _, patch := range []string{
		`{"metadata": {"annotations": {"a": "b"}}}`, `{"metadata": {"labels": {"k1": null}}}`, `{"metadata": {"labels": null}}`, `{"spec": {"suspend": true}}`,
	} {
		g.Expect(server.Patch(t.Context(), before, client.RawPatch(types.MergePatchType, []byte(patch)), client.DryRunAll)).To(Succeed(), patch)
	}
	status := client.RawPatch(types.MergePatchType, []byte(`{"status": {"observedGeneration": 1}}`))
	g.Expect(server.Status().Patch(t.Context(), before, status)).To(Succeed())
	g.Expect(server.Delete(t.Context(), before)).To(Succeed())
	without := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`))
	g.Expect(server.Patch(t.Context(), before, without)).To(Succeed(), "it can go")
}
