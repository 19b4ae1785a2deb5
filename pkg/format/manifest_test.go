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
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

var digest = "sha256:" + strings.Repeat("ab", 32)

func descriptor(mediaType string) map[string]any {
	return map[string]any{"mediaType": mediaType, "size": 2, "digest": digest}
}

// fluxBody is a manifest as Flux writes it, with keys set, or removed by nil.
func fluxBody(changes map[string]any) map[string]any {
	body := map[string]any{
		"schemaVersion": 2,
		"mediaType":     types.OCIManifestSchema1,
		"config":        descriptor(fluxConfig),
		"layers":        []any{descriptor(fluxContent)},
		"annotations":   map[string]string{"org.opencontainers.image.revision": "main"},
	}
	maps.Copy(body, changes)
	maps.DeleteFunc(body, func(_ string, value any) bool { return value == nil })
	return body
}

func encode(t testing.TB, body any) []byte {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// layersWith is a list of one layer with keys set, or removed by nil.
func layersWith(changes map[string]any) []any {
	d := descriptor(fluxContent)
	maps.Copy(d, changes)
	maps.DeleteFunc(d, func(_ string, value any) bool { return value == nil })
	return []any{d}
}

func TestAManifestIsParsed(t *testing.T) {
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		changes   map[string]any
	}{
		"with the media type of its descriptor":  {types.OCIManifestSchema1, nil},
		"with parameters in the content type":    {types.OCIManifestSchema1 + "; charset=utf-8", nil},
		"with no media type in the body":         {types.OCIManifestSchema1, map[string]any{"mediaType": nil}},
		"with no content type":                   {"", nil},
		"with keys that nobody knows":            {types.OCIManifestSchema1, map[string]any{"future": []any{map[string]any{"a": 1}}}},
		"with sha512 digests":                    {types.OCIManifestSchema1, map[string]any{"layers": layersWith(map[string]any{"digest": "sha512:" + strings.Repeat("ab", 64)})}},
		"with inline data, which is not trusted": {types.OCIManifestSchema1, map[string]any{"layers": layersWith(map[string]any{"data": "e30="})}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			m, err := format.Parse(tc.mediaType, encode(t, fluxBody(tc.changes)))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.MediaType).To(Equal(types.OCIManifestSchema1))
			g.Expect(m.Config.MediaType).To(BeEquivalentTo(fluxConfig))
			g.Expect(m.Layers).To(HaveLen(1))
			g.Expect(m.Layers[0].Data).To(BeNil())
			g.Expect(m.Annotations).To(HaveKey("org.opencontainers.image.revision"))
			g.Expect(m.Index).To(BeNil())
		})
	}
}

func TestAnIndexIsParsed(t *testing.T) {
	g := NewWithT(t)
	for _, mediaType := range []types.MediaType{types.OCIImageIndex, types.DockerManifestList} {
		m, err := format.Parse(mediaType, encode(t, map[string]any{
			"schemaVersion": 2, "mediaType": mediaType, "manifests": []any{descriptor(string(types.OCIManifestSchema1))}}))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(m.Index.Manifests).To(HaveLen(1))
		g.Expect(m.Layers).To(BeEmpty())
	}
}

func TestWhatIsNoManifestIsRefused(t *testing.T) {
	invalid, unsupported, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonUnsupportedMediaType, v1alpha1.ReasonLimitExceeded
	body := func(changes map[string]any) []byte { return encode(t, fluxBody(changes)) }
	oci := types.OCIManifestSchema1
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		body      []byte
		reason    string
		words     string
	}{
		"more than 4 MiB":                          {oci, body(map[string]any{"annotations": map[string]string{"a": strings.Repeat("x", 4<<20)}}), exceeded, "more than the 4194304"},
		"10,000 layers":                            {oci, body(map[string]any{"layers": repeat(10_000, descriptor(fluxContent))}), exceeded, "more than the 1000 layers"},
		"10,000 manifests":                         {types.OCIImageIndex, body(map[string]any{"layers": nil, "config": nil, "manifests": repeat(10_000, descriptor("x"))}), exceeded, "more than the 1000 manifests"},
		"a million empty layers":                   {oci, body(map[string]any{"layers": repeat(1_000_000, map[string]any{})}), exceeded, "more than the 1000 layers"},
		"a million layers that are null":           {oci, body(map[string]any{"layers": make([]any, 800_000)}), exceeded, "more than the 1000 layers"},
		"a value nested without end":               {oci, []byte(`{"x":` + strings.Repeat("[", 1_000_000)), exceeded, "JSON values"},
		"nothing":                                  {oci, nil, invalid, "not a JSON object"},
		"a list":                                   {oci, []byte(`[]`), invalid, "not a JSON object"},
		"half a manifest":                          {oci, body(nil)[:100], invalid, "not valid JSON"},
		"bytes after the end":                      {oci, append(body(nil), "{}"...), invalid, "bytes after its end"},
		"docker schema 1":                          {types.DockerManifestSchema1, []byte(`{"schemaVersion":1,"fsLayers":[]}`), unsupported, "schema 1"},
		"docker schema 1, signed":                  {types.DockerManifestSchema1Signed, []byte(`{"schemaVersion":1}`), unsupported, "schema 1"},
		"docker schema 1 under another name":       {oci, []byte(`{"schemaVersion":1,"fsLayers":[]}`), unsupported, "schema 1"},
		"a schema of the future":                   {oci, body(map[string]any{"schemaVersion": 3}), invalid, "schemaVersion 3"},
		"no schema":                                {oci, body(map[string]any{"schemaVersion": nil}), invalid, "schemaVersion 0"},
		"an ORAS artifact manifest":                {"application/vnd.cncf.oras.artifact.manifest.v1+json", []byte(`{"blobs":[]}`), unsupported, "dropped"},
		"an OCI artifact manifest":                 {"application/vnd.oci.artifact.manifest.v1+json", []byte(`{"blobs":[]}`), unsupported, "dropped"},
		"blobs under another name":                 {oci, body(map[string]any{"blobs": []any{}}), invalid, "has blobs"},
		"fsLayers under another name":              {oci, body(map[string]any{"fsLayers": []any{}}), invalid, "has fsLayers"},
		"a media type that is no manifest":         {"text/html", []byte(`{}`), unsupported, `"text/html"`},
		"no media type anywhere":                   {"", body(map[string]any{"mediaType": nil}), unsupported, `media type ""`},
		"a content type that the body denies":      {types.DockerManifestSchema2, body(nil), invalid, "calls itself"},
		"both manifests and layers":                {oci, body(map[string]any{"manifests": []any{}}), invalid, "both manifests and layers"},
		"layers in two spellings":                  {oci, body(map[string]any{"Layers": []any{}}), invalid, "twice"},
		"an image called an index":                 {types.OCIImageIndex, body(map[string]any{"mediaType": nil}), invalid, "called an index"},
		"an index called an image":                 {oci, body(map[string]any{"layers": nil, "config": nil, "manifests": []any{}}), invalid, "called an image"},
		"no config":                                {oci, body(map[string]any{"config": nil}), invalid, "no config"},
		"a layer without a digest":                 {oci, body(map[string]any{"layers": layersWith(map[string]any{"digest": nil})}), invalid, "no digest"},
		"a layer that is null":                     {oci, body(map[string]any{"layers": []any{nil}}), invalid, "no digest"},
		"a digest that is a path":                  {oci, body(map[string]any{"layers": layersWith(map[string]any{"digest": "sha256:../../etc/passwd"})}), invalid, "cannot be decoded"},
		"a digest that is too short":               {oci, body(map[string]any{"layers": layersWith(map[string]any{"digest": "sha256:ab"})}), invalid, "cannot be decoded"},
		"a digest of an algorithm that is weak":    {oci, body(map[string]any{"layers": layersWith(map[string]any{"digest": "md5:" + strings.Repeat("ab", 16)})}), invalid, "cannot be decoded"},
		"a negative size":                          {oci, body(map[string]any{"layers": layersWith(map[string]any{"size": -1})}), invalid, "size -1"},
		"a size that is no integer":                {oci, body(map[string]any{"layers": layersWith(map[string]any{"size": 1e30})}), invalid, "cannot be decoded"},
		"a layer elsewhere":                        {oci, body(map[string]any{"layers": layersWith(map[string]any{"urls": []string{"http://169.254.169.254/secret?token=x"}})}), invalid, "URL of its own"},
		"a config elsewhere":                       {oci, body(map[string]any{"config": map[string]any{"mediaType": fluxConfig, "size": 2, "digest": digest, "urls": []string{"http://x"}}}), invalid, "URL of its own"},
		"a layer that registries do not store":     {oci, body(map[string]any{"layers": layersWith(map[string]any{"mediaType": types.OCIRestrictedLayer})}), unsupported, "nondistributable"},
		"a foreign layer":                          {oci, body(map[string]any{"layers": layersWith(map[string]any{"mediaType": types.DockerForeignLayer})}), unsupported, "foreign"},
		"a manifest in an index that is elsewhere": {types.OCIImageIndex, encode(t, map[string]any{"schemaVersion": 2, "manifests": layersWith(map[string]any{"urls": []string{"http://x"}})}), invalid, "URL of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := format.Parse(tc.mediaType, tc.body)
			NewWithT(t).Expect(m).To(BeNil())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
			NewWithT(t).Expect(err.Error()).NotTo(ContainSubstring("token=x"))
		})
	}
}

func repeat(n int, d map[string]any) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = d
	}
	return list
}

func TestParsingAHostileManifestTakesLittleMemory(t *testing.T) {
	g := NewWithT(t)
	var keys strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&keys, `"%d":"",`, i)
	}
	body := fmt.Appendf(nil, `{"schemaVersion":2,"annotations":{%s"z":""}}`, keys.String())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := format.Parse(types.OCIManifestSchema1, body)
	runtime.ReadMemStats(&after)
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "JSON values")
	g.Expect(after.TotalAlloc - before.TotalAlloc).To(BeNumerically("<", 8<<20))
}

func TestDescriptorsThatAreEqualKeepTheirOwnMediaTypes(t *testing.T) {
	g := NewWithT(t)
	m, err := format.Parse(types.OCIManifestSchema1, encode(t, fluxBody(map[string]any{
		"layers": []any{descriptor("a/b"), descriptor("c/d")}})))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect([]types.MediaType{m.Layers[0].MediaType, m.Layers[1].MediaType}).To(Equal([]types.MediaType{"a/b", "c/d"}))
	g.Expect(m.Layers[0].Digest).To(Equal(v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}))
}
