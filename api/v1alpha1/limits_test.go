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

	. "github.com/onsi/gomega"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
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
			`images: ["**"], namespaceSelector: {matchLabels: {"` + text(317) + `": b}}`, `images: ["**"], namespaceSelector: {matchLabels: {"` + text(318) + `": b}}`, true,
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
