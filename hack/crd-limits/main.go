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

// Command crd-limits adds limits to the generated CustomResourceDefinitions: to the
// fields of imported types, which cannot carry markers of ours. The limits of our
// own fields are markers in api/v1alpha1.
package main

import (
	"fmt"
	"log"
	"maps"
	"os"
	"strings"

	"sigs.k8s.io/yaml"
)

// limits are keywords of OpenAPI that a schema gets.
type limits map[string]any

// The names of objects are DNS subdomains (RFC 1123). A label key is such a name, a
// slash and 63 characters; a label value has 63. A type and a subtype of a media
// type have 127 characters each (RFC 6838).
const (
	maxName       = 253
	maxLabelKey   = maxName + 1 + 63
	maxLabelValue = 63
	maxMediaType  = 127 + 1 + 127
	// The keys and values that a label can have: any other one makes a selector that no program can read.
	labelKey   = `^([a-z0-9]([a-z0-9-]*[a-z0-9])?([.][a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`
	labelValue = `^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$`
	maxPattern = 1024
)

// mustMatch demands a pattern of a string and says in words what to write: the API server answers a
// keyword pattern with the expression alone.
func mustMatch(pattern, message string) []any {
	return []any{map[string]any{"rule": "self.matches('" + pattern + "')", "message": message}}
}

// limitsByFile returns, for each file, the limits by the path of a field: [] stands for the
// items of a list, {} for the values of a map.
func limitsByFile() map[string]map[string]limits {
	repository := map[string]limits{
		"spec.imagePolicyRef.name":     {"maxLength": maxName},
		"spec.secretRef.name":          {"maxLength": maxName},
		"spec.certSecretRef.name":      {"maxLength": maxName},
		"spec.proxySecretRef.name":     {"maxLength": maxName},
		"spec.filterTags.pattern":      {"maxLength": maxPattern},
		"spec.filterTags.extract":      {"maxLength": maxPattern},
		"spec.policy.semver.range":     {"maxLength": maxPattern},
		"spec.layerSelector.mediaType": {"maxLength": maxMediaType},
	}
	key := mustMatch(labelKey, "a key must be one that a label can have, such as stage or example.com/stage")
	value := mustMatch(labelValue, "a value must be one that a label can have: at most 63 letters, digits and the characters . _ -, with a letter or a digit at both ends, such as prod")
	policy := map[string]limits{
		"spec.maxArtifactBytes":                              {"maxLength": 64},
		"spec.namespaceSelector.matchLabels":                 {"maxProperties": 64},
		"spec.namespaceSelector.matchLabels.{}":              {"maxLength": maxLabelValue, "x-kubernetes-validations": value},
		"spec.namespaceSelector.matchExpressions":            {"maxItems": 64},
		"spec.namespaceSelector.matchExpressions[].key":      {"maxLength": maxLabelKey, "x-kubernetes-validations": key},
		"spec.namespaceSelector.matchExpressions[].operator": {"maxLength": len("DoesNotExist")},
		"spec.namespaceSelector.matchExpressions[].values":   {"maxItems": 100},
		"spec.namespaceSelector.matchExpressions[].values[]": {"maxLength": maxLabelValue, "x-kubernetes-validations": value},
	}
	maps.Copy(repository, verification("spec.verify"))
	maps.Copy(policy, verification("spec.authorities[].verify"))
	return map[string]map[string]limits{
		"source.contrib.fluxcd.io_artifactrepositories.yaml": repository,
		"source.contrib.fluxcd.io_trustpolicies.yaml":        policy,
	}
}

// verification returns the limits of a field of the type OCIRepositoryVerification.
func verification(path string) map[string]limits {
	return map[string]limits{
		path + ".secretRef.name":              {"maxLength": maxName},
		path + ".trustedRootSecretRef.name":   {"maxLength": maxName},
		path + ".matchOIDCIdentity":           {"maxItems": 16},
		path + ".matchOIDCIdentity[].issuer":  {"maxLength": maxPattern},
		path + ".matchOIDCIdentity[].subject": {"maxLength": maxPattern},
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: crd-limits DIRECTORY")
	}
	root, err := os.OpenRoot(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for file, fields := range limitsByFile() {
		if err := limit(root, file, fields); err != nil {
			log.Fatalf("%s: %v", file, err)
		}
	}
}

// limit rewrites a file with the limits. A path that the schema does not have is an error.
func limit(root *os.Root, file string, fields map[string]limits) error {
	content, err := root.ReadFile(file)
	if err != nil {
		return err
	}
	var crd map[string]any
	if err := yaml.Unmarshal(content, &crd); err != nil {
		return err
	}
	for _, version := range crd["spec"].(map[string]any)["versions"].([]any) {
		schema := version.(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)
		for path, added := range fields {
			field, err := find(schema, path)
			if err != nil {
				return err
			}
			maps.Copy(field, added)
		}
	}
	if content, err = yaml.Marshal(crd); err != nil {
		return err
	}
	return root.WriteFile(file, append([]byte("---\n"), content...), 0o600) // the mode of a new file; this one exists
}

// find returns the schema of a field.
func find(schema map[string]any, path string) (map[string]any, error) {
	for step := range strings.SplitSeq(strings.ReplaceAll(path, "[]", ".[]"), ".") {
		var next any
		switch step {
		case "[]":
			next = schema["items"]
		case "{}":
			next = schema["additionalProperties"]
		default:
			properties, _ := schema["properties"].(map[string]any)
			next = properties[step]
		}
		found, ok := next.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("the schema has no field %s", path)
		}
		schema = found
	}
	return schema, nil
}
