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
)

const (
	kyvernoConfig = "application/vnd.cncf.kyverno.config.v1+json"
	kyvernoPolicy = "application/vnd.cncf.kyverno.policy.layer.v1+yaml"
	// Those of https://github.com/kyverno/kyverno/blob/main/docs/dev/oci/bundle-spec.md.
	kyvernoBundle  = "application/vnd.cncf.kyverno.bundle.config.v1+json"
	kyvernoContent = "application/vnd.cncf.kyverno.bundle.content.v1.tar+gzip"

	clusterPolicy = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: require-labels\nspec: {}\n"
	celPolicy     = "apiVersion: policies.kyverno.io/v1beta1\nkind: ValidatingPolicy\nmetadata:\n  name: require-labels\n"
)

func aboutPolicy(apiVersion, kind, name string) map[string]string {
	return map[string]string{"io.kyverno.image.apiVersion": apiVersion, "io.kyverno.image.kind": kind, "io.kyverno.image.name": name}
}

func TestKyvernoPoliciesArePublishedAsFiles(t *testing.T) {
	g := NewWithT(t)
	img := mutate.ConfigMediaType(mutate.MediaType(emptyimage.Image, types.OCIManifestSchema1), kyvernoConfig)
	for _, add := range []mutate.Addendum{
		{Layer: static.NewLayer([]byte(clusterPolicy), kyvernoPolicy), Annotations: aboutPolicy("kyverno.io/v1", "ClusterPolicy", "require-labels")},
		{Layer: static.NewLayer([]byte("something else"), "text/plain")},
		{Layer: static.NewLayer([]byte(celPolicy), kyvernoPolicy), Annotations: aboutPolicy("", "ValidatingPolicy", "require-labels")},
		{Layer: static.NewLayer([]byte("{kind: Policy, apiVersion: kyverno.io/v1, metadata: {name: x}}"), kyvernoPolicy)},
	} {
		var err error
		img, err = mutate.Append(img, add)
		g.Expect(err).NotTo(HaveOccurred())
	}
	m, b := pushed(t, img)
	for _, pinned := range []string{"", v1alpha1.FormatKyverno} {
		content, err := format.Convert(t.Context(), m, b, format.Options{Format: pinned}, t.TempDir())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(content.Format).To(Equal(v1alpha1.FormatKyverno))
		g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{
			"clusterpolicy-require-labels.yaml":    clusterPolicy,
			"validatingpolicy-require-labels.yaml": celPolicy,
			"policy-x.yaml":                        "{kind: Policy, apiVersion: kyverno.io/v1, metadata: {name: x}}",
		}))
	}
}

func TestKyvernoArtifactsThatCannotBePublishedAreRefused(t *testing.T) {
	b := blobs(t.TempDir())
	policy := func(body string, annotations map[string]string) v1.Descriptor {
		return with(b.put(t, kyvernoPolicy, []byte(body)), annotations)
	}
	good := policy(clusterPolicy, nil)
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		reason string
		words  string
	}{
		"no layers":             {nil, invalid, "has no policy"},
		"only other layers":     {[]v1.Descriptor{b.put(t, "text/plain", []byte("x"))}, invalid, "has no policy"},
		"one policy twice":      {[]v1.Descriptor{good, good}, invalid, "two objects of one kind and name"},
		"another name inside":   {[]v1.Descriptor{policy(clusterPolicy, aboutPolicy("kyverno.io/v1", "ClusterPolicy", "x"))}, invalid, `annotations say kyverno.io/v1 ClusterPolicy "x"`},
		"another kind inside":   {[]v1.Descriptor{policy(clusterPolicy, aboutPolicy("kyverno.io/v1", "Policy", "require-labels"))}, invalid, `but it holds kyverno.io/v1 ClusterPolicy`},
		"no name":               {[]v1.Descriptor{policy("apiVersion: kyverno.io/v1\nkind: ClusterPolicy\n", nil)}, invalid, `the name "", which no object can have`},
		"a name that is a path": {[]v1.Descriptor{policy("apiVersion: kyverno.io/v1\nkind: Policy\nmetadata: {name: a/../../b}\n", nil)}, invalid, "which no object can have"},
		"two documents":         {[]v1.Descriptor{policy(clusterPolicy+"---\n"+celPolicy, nil)}, invalid, "more than one YAML document"},
		"a compressed policy":   {[]v1.Descriptor{policy(string(zipped(t, []byte(clusterPolicy))), nil)}, invalid, "not YAML"},
		"a policy of 2 MiB":     {[]v1.Descriptor{policy(string(make([]byte, 2<<20)), nil)}, exceeded, "more than the 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: tc.layers}, b, format.Options{}, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func bundleManifest(layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: kyvernoBundle}, Layers: layers}
}

func TestTheTreeOfAKyvernoBundleIsPublished(t *testing.T) {
	b := blobs(t.TempDir())
	layer := b.put(t, kyvernoContent, layerOf(t, file{name: "policies/labels.yaml", body: celPolicy}, file{name: "exceptions/logo.png"}))
	whole := map[string]string{"policies": "folder", "policies/labels.yaml": celPolicy, "exceptions": "folder", "exceptions/logo.png": ""}
	filtered := map[string]string{"policies": "folder", "policies/labels.yaml": celPolicy}
	for name, tc := range map[string]struct {
		options  format.Options
		want     map[string]string
		verbatim bool
	}{
		"as it is":         {format.Options{}, whole, true},
		"pinned":           {format.Options{Format: v1alpha1.FormatKyverno}, whole, true},
		"without a folder": {format.Options{Ignore: new("exceptions/")}, filtered, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			content, err := format.Convert(t.Context(), bundleManifest(layer), b, tc.options, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Format).To(Equal(v1alpha1.FormatKyverno))
			g.Expect(content.Verbatim).To(Equal(tc.verbatim))
			g.Expect(unpack(t, content.Path)).To(Equal(tc.want))
		})
	}
}

func TestKyvernoBundlesOfOtherLayersAreRefused(t *testing.T) {
	b := blobs(t.TempDir())
	content := b.put(t, kyvernoContent, layerOf(t, good))
	for name, layers := range map[string][]v1.Descriptor{
		"none":                 nil,
		"two":                  {content, content},
		"one of before 1.20":   {b.put(t, kyvernoPolicy, []byte(clusterPolicy))},
		"the tree and another": {content, b.put(t, "text/plain", []byte("x"))},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), bundleManifest(layers...), b, format.Options{}, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, "expected one of the type "+kyvernoContent)
		})
	}
}
