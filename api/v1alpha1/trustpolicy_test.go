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
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// createPolicy sends a TrustPolicy with this spec to the API server, which
// answers as if it kept it.
func createPolicy(t *testing.T, spec string) (*unstructured.Unstructured, error) {
	t.Helper()
	obj := object(t, spec)
	obj.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind(v1alpha1.TrustPolicyKind))
	obj.SetNamespace("")
	return obj, server.Create(t.Context(), obj, client.DryRunAll)
}

func TestTheServerAcceptsTrustPolicies(t *testing.T) {
	for sentence, spec := range map[string]string{
		"as little as possible": `{namespaceSelector: {}, images: ["ghcr.io/org/app"]}`,
		"everything": `
namespaceSelector:
  matchLabels: {env: prod}
  matchExpressions:
    - {key: team, operator: In, values: [a, b]}
    - {key: sandbox, operator: DoesNotExist}
images: ["ghcr.io/org/**", "registry.example.com:5000/apps/*"]
noMatch: Allow
mode: Warn
authorities:
  - name: release-key
    verify: {provider: cosign, secretRef: {name: release-keys}, trustedRootSecretRef: {name: root}}
  - name: release-workflow
    verify: {provider: cosign, matchOIDCIdentity: [{issuer: '^https://x$', subject: '^y$'}]}
  - name: notary
    verify: {provider: notation, secretRef: {name: notary}}
formats: [Flux, Helm, Tekton, Imgpkg, Files, Kyverno, Image, Layer]
maxArtifactBytes: 50Mi`,
		"a size without a unit":   `{namespaceSelector: {}, images: ["**"], maxArtifactBytes: 1000}`,
		"an authority by default": `{namespaceSelector: {}, images: ["**"], authorities: [{name: a, verify: {secretRef: {name: keys}}}]}`,
	} {
		t.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			obj, err := createPolicy(t, spec)
			g.Expect(err).NotTo(HaveOccurred())
			var typed v1alpha1.TrustPolicy
			content, err := yaml.Marshal(obj.Object)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(yaml.UnmarshalStrict(content, &typed)).To(Succeed(), "what the server keeps is what the types know")
			g.Expect(typed.Spec.Mode).NotTo(BeEmpty(), "the default is written down")
			g.Expect(typed.Spec.NoMatch).NotTo(BeEmpty(), "the default is written down")
		})
	}
}

func TestTheServerRefusesTrustPolicies(t *testing.T) {
	const (
		base     = `namespaceSelector: {}, images: ["**"]`
		keyless  = "list at least one identity in matchOIDCIdentity"
		selector = "the operators In and NotIn need values"
	)
	for sentence, c := range map[string]struct {
		spec string
		word string
	}{
		"nobody to govern":              {`{images: ["**"]}`, "spec.namespaceSelector: Required"},
		"no images":                     {`{namespaceSelector: {}}`, "spec.images: Required"},
		"an empty list of images":       {`{namespaceSelector: {}, images: []}`, "should have at least 1 items"},
		"an image twice":                {`{namespaceSelector: {}, images: ["**", "**"]}`, "Duplicate value"},
		"an operator of no kind":        {`{namespaceSelector: {matchExpressions: [{key: a, operator: Is, values: [b]}]}, images: ["**"]}`, selector},
		"an operator without values":    {`{namespaceSelector: {matchExpressions: [{key: a, operator: In}]}, images: ["**"]}`, selector},
		"an operator with values":       {`{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}, images: ["**"]}`, selector},
		"a mode of no kind":             {`{` + base + `, mode: Audit}`, `"Enforce", "Warn"`},
		"another answer to no match":    {`{` + base + `, noMatch: Maybe}`, `"Refuse", "Allow"`},
		"a label key with a space":      {`{namespaceSelector: {matchLabels: {"stage ": prod}}, images: ["**"]}`, "a key must be one that a label can have"},
		"a label value with a space":    {`{namespaceSelector: {matchLabels: {stage: "prod "}}, images: ["**"]}`, "a value must be one that a label can have"},
		"an expression with a bad key":  {`{namespaceSelector: {matchExpressions: [{key: "stage ", operator: Exists}]}, images: ["**"]}`, "a key must be one that a label can have"},
		"a list with a bad value":       {`{namespaceSelector: {matchExpressions: [{key: stage, operator: In, values: ["prod "]}]}, images: ["**"]}`, "a value must be one that a label can have"},
		"a format of no kind":           {`{` + base + `, formats: [Auto]}`, `"Flux", "Helm"`},
		"a format twice":                {`{` + base + `, formats: [Flux, Flux]}`, "Duplicate value"},
		"a size of nothing":             {`{` + base + `, maxArtifactBytes: 0}`, "must be more than nothing"},
		"a size below nothing":          {`{` + base + `, maxArtifactBytes: "-1Mi"}`, "must be more than nothing"},
		"a size that is none":           {`{` + base + `, maxArtifactBytes: much}`, "spec.maxArtifactBytes"},
		"an authority twice":            {`{` + base + `, authorities: [{name: a, verify: {secretRef: {name: k}}}, {name: a, verify: {secretRef: {name: l}}}]}`, "Duplicate value"},
		"an authority without a name":   {`{` + base + `, authorities: [{verify: {secretRef: {name: k}}}]}`, "authorities[0].name: Required"},
		"an authority in capitals":      {`{` + base + `, authorities: [{name: Key, verify: {secretRef: {name: k}}}]}`, "the name of an authority must have lower case letters"},
		"an authority for anybody":      {`{` + base + `, authorities: [{name: a, verify: {provider: cosign}}]}`, keyless},
		"an authority with no identity": {`{` + base + `, authorities: [{name: a, verify: {provider: cosign, matchOIDCIdentity: []}}]}`, keyless},
		"notation without a Secret":     {`{` + base + `, authorities: [{name: a, verify: {provider: notation}}]}`, "notation needs secretRef"},
		"a Secret without a name":       {`{` + base + `, authorities: [{name: a, verify: {secretRef: {name: ""}}}]}`, "must each name a Secret"},
		"a provider of no kind":         {`{` + base + `, authorities: [{name: a, verify: {provider: gpg, secretRef: {name: k}}}]}`, `"cosign", "notation"`},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, err := createPolicy(t, c.spec)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(c.word)))
		})
	}
}

// TestTheServerReadsPatterns holds that what the server lets pass is what pkg/trust
// can read.
func TestTheServerReadsPatterns(t *testing.T) {
	policy := func(pattern string) string {
		return `{namespaceSelector: {}, images: [` + quoted(pattern) + `]}`
	}
	for _, pattern := range []string{
		"**", "*/org/app", "**/app", "ghcr.io/org/app**", "ghcr.io/*/app", "*.example.com/**", "Registry.Example.COM:443/org/app", "localhost/org/app", "localhost:5000/**",
		"[::1]:5000/org/*", "127.0.0.1:5000/org/*", "nginx", "org/app", "org/**", "ghcr.io/org/a.b_c--d*", strings.Repeat("a", 231),
		"docker.io/*", "registry:443/**", "[2001:db8::*]:5000/**", "registry.example.com:50*/**", "10.0.0.*/**",
	} {
		_, err := createPolicy(t, policy(pattern))
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), pattern)
		_, err = trust.ParsePattern(pattern)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), pattern)
	}
	for _, pattern := range []string{
		"", "/", "https://ghcr.io/org/app", "ghcr.io/org/app:v1", "ghcr.io/org/app@sha256:aa", "ghcr.io/Org/app", "ghcr.io", "ghcr.io/", "ghcr.io//app", "ghcr.io/***",
		"**.example.com/app", "ghcr.io**/app", "app**", "*", "localhost", "ghcr.io/org/app\n", "ghcr.io/(org|other)/app", "ghcr.io/org/äpp", "ghcr.io/org/[a]", "Org/app", "LOCALHOST/app", strings.Repeat("a", 256),
		"ghcr.io/org/../**", "ghcr.io/./**", "ghcr.io/-org/**", "ghcr.io/org-/**", "ghcr.io/a..*", "ghcr.io/*___x", "ghcr.io./**", "ghcr.io:0443/**", "ghcr.io:/**", "*.example.com./**",
		"a_b.example/**", `ghcr.io/a\**`, "ghcr.io/%2e/**",
	} {
		_, err := createPolicy(t, policy(pattern))
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("spec.images[0]")), "%q", pattern)
	}
}

func TestTheServerReadsSignaturesOfArtifactRepositories(t *testing.T) {
	const base = `imagePolicyRef: {name: app}, verify: `
	for sentence, verify := range map[string]string{
		"keys":                    `{provider: cosign, secretRef: {name: keys}}`,
		"identities":              `{matchOIDCIdentity: [{issuer: a, subject: b}]}`,
		"identities of one's own": `{matchOIDCIdentity: [{issuer: a, subject: b}], trustedRootSecretRef: {name: root}}`,
		"certificates":            `{provider: notation, secretRef: {name: notary}}`,
	} {
		_, err := create(t, `{`+base+verify+`}`)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), sentence)
	}
	for verify, word := range map[string]string{
		`{}`:                      "list at least one identity",
		`{provider: cosign}`:      "list at least one identity",
		`{matchOIDCIdentity: []}`: "list at least one identity",
		`{provider: notation}`:    "notation needs secretRef",
		`{secretRef: {name: ""}}`: "must each name a Secret",
		`{secretRef: {name: a}, trustedRootSecretRef: {name: ""}}`: "must each name a Secret",
	} {
		_, err := create(t, `{`+base+verify+`}`)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(word)), verify)
	}
}

// quoted writes a text as a string of YAML.
func quoted(text string) string { return strconv.Quote(text) }
