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
	"context"
	"fmt"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	gcrempty "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// imageOf is an image with a config type and one layer.
func imageOf(t testing.TB, config, layerType types.MediaType, layer []byte) v1.Image {
	t.Helper()
	i, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(gcrempty.Image, types.OCIManifestSchema1), config), static.NewLayer(layer, layerType))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return i
}

// fluxFor is a Flux artifact that says what it is for.
func fluxFor(t testing.TB, what string) v1.Image {
	t.Helper()
	return imageOf(t, fluxConfig, fluxContent, layerOf(t, file{name: what}))
}

func containerFor(t testing.TB, what string) v1.Image {
	t.Helper()
	return imageOf(t, types.OCIConfigJSON, types.OCILayer, layerOf(t, file{name: what}))
}

func chartFor(t testing.TB) v1.Image {
	t.Helper()
	return imageOf(t, helmConfig, helmChart, layerOf(t, chartYAML))
}

// listed puts something into an index for a platform; empty for none.
func listed(child mutate.Appendable, platform string) mutate.IndexAddendum {
	a := mutate.IndexAddendum{Add: child}
	if platform != "" {
		a.Platform, _ = v1.ParsePlatform(platform)
	}
	return a
}

func indexOf(children ...mutate.IndexAddendum) v1.ImageIndex {
	return mutate.AppendManifests(mutate.IndexMediaType(gcrempty.Index, types.OCIImageIndex), children...)
}

// pushIndex gives an index to a registry and reads it back.
func pushIndex(t testing.TB, index v1.ImageIndex) (*format.Manifest, format.Blobs) {
	t.Helper()
	g := NewWithT(t)
	url := serve(t) + "/team/app:1.0.0"
	ref, err := name.ParseReference(url)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.WriteIndex(ref, index)).To(Succeed())
	return fetch(t, url)
}

// attestation is what BuildKit lists beside each image.
func attestation(t testing.TB) mutate.IndexAddendum {
	t.Helper()
	a := listed(imageOf(t, types.OCIConfigJSON, "application/vnd.in-toto+json", []byte("{}")), "unknown/unknown")
	a.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	return a
}

// foreign is an image with a layer that its registry does not store, as images
// for Windows were built on a base image of Microsoft.
func foreign(t testing.TB) v1.Image {
	t.Helper()
	g := NewWithT(t)
	base := static.NewLayer([]byte("a base image"), types.DockerForeignLayer)
	i, err := mutate.Append(gcrempty.Image, mutate.Addendum{Layer: base, MediaType: types.DockerForeignLayer, URLs: []string{"https://mcr.example/base"}})
	g.Expect(err).NotTo(HaveOccurred())
	i, err = mutate.AppendLayers(i, static.NewLayer(layerOf(t, file{name: "windows"}), types.DockerLayer))
	g.Expect(err).NotTo(HaveOccurred())
	return i
}

func TestTheManifestOfAnIndexThatIsPublished(t *testing.T) {
	amd64, arm64, other := fluxFor(t, "amd64"), fluxFor(t, "arm64"), fluxFor(t, "other")
	chart, image := chartFor(t), containerFor(t, "image")
	signature := imageOf(t, types.OCIConfigJSON, "application/vnd.dev.cosign.simplesigning.v1+json", []byte("{}"))
	byArtifactType := listed(other, "")
	byArtifactType.ArtifactType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	arm := format.Options{Platform: "linux/arm64"}
	onlyFlux := format.Options{Format: v1alpha1.FormatFlux}
	again := []mutate.IndexAddendum{listed(other, "linux/s390x"), listed(arm64, "linux/arm64")}
	for range 20 {
		again = append(again, listed(amd64, "linux/amd64"))
	}

	for name, tc := range map[string]struct {
		index   v1.ImageIndex
		options format.Options
		want    v1.Image
	}{
		"the only one":                               {indexOf(listed(amd64, "linux/amd64")), format.Options{}, amd64},
		"the only one, of no platform":               {indexOf(listed(amd64, "")), format.Options{}, amd64},
		"the only one, of another platform":          {indexOf(listed(arm64, "linux/arm64")), format.Options{}, arm64},
		"by default that for linux/amd64":            {indexOf(listed(arm64, "linux/arm64"), listed(amd64, "linux/amd64")), format.Options{}, amd64},
		"that for the platform that is asked for":    {indexOf(listed(amd64, "linux/amd64"), listed(arm64, "linux/arm64")), arm, arm64},
		"of a variant where none is asked for":       {indexOf(listed(amd64, "linux/amd64"), listed(arm64, "linux/arm64/v8")), arm, arm64},
		"the first of several that match":            {indexOf(listed(other, "linux/arm64"), listed(amd64, "linux/amd64"), listed(arm64, "linux/amd64")), format.Options{}, amd64},
		"one of no platform is for linux/amd64":      {indexOf(listed(arm64, "linux/arm64"), listed(other, ""), listed(amd64, "linux/amd64")), format.Options{}, other},
		"the first of several of no platform":        {indexOf(listed(other, ""), listed(amd64, "")), format.Options{}, other},
		"one of no platform, for linux/amd64":        {indexOf(listed(other, "")), format.Options{Platform: "linux/amd64"}, other},
		"one of a variant that all have":             {indexOf(listed(amd64, "linux/amd64"), listed(arm64, "linux/arm64")), format.Options{Platform: "linux/arm64/v8"}, arm64},
		"one of the variant that is asked for":       {indexOf(listed(other, "linux/amd64/v3"), listed(amd64, "linux/amd64")), format.Options{Platform: "linux/amd64/v1"}, amd64},
		"one of a variant that is not written":       {indexOf(listed(other, "linux/arm/v6"), listed(arm64, "linux/arm")), format.Options{Platform: "linux/arm/v7"}, arm64},
		"one in another spelling":                    {indexOf(listed(other, "linux/x86_64"), listed(arm64, "linux/aarch64")), arm, arm64},
		"one that is listed twice":                   {indexOf(listed(chart, ""), listed(image, "linux/amd64"), listed(chart, "")), format.Options{}, chart},
		"one that is listed for two platforms":       {indexOf(listed(amd64, "linux/arm64"), listed(amd64, "linux/s390x")), format.Options{}, amd64},
		"one that is listed again and again":         {indexOf(again...), arm, arm64},
		"the only one beside an attestation":         {indexOf(attestation(t), listed(amd64, "linux/amd64"), attestation(t)), format.Options{}, amd64},
		"the only one beside a signature":            {indexOf(listed(signature, ""), listed(amd64, "")), format.Options{}, amd64},
		"the only one beside a type of a signature":  {indexOf(byArtifactType, listed(amd64, "")), format.Options{}, amd64},
		"the chart beside images":                    {indexOf(listed(image, "linux/amd64"), attestation(t), listed(image, "linux/arm64"), listed(chart, "")), format.Options{}, chart},
		"the chart beside an image, for a platform":  {indexOf(listed(image, "linux/amd64"), listed(chart, "")), format.Options{Platform: "linux/amd64"}, chart},
		"the Flux artifact beside an image":          {indexOf(listed(image, "linux/amd64"), listed(arm64, "linux/arm64")), format.Options{}, arm64},
		"the Flux artifact beside a chart, pinned":   {indexOf(listed(chart, "linux/amd64"), listed(arm64, "linux/arm64")), onlyFlux, arm64},
		"a platform among those of the pinned":       {indexOf(listed(chart, ""), listed(arm64, "linux/arm64"), listed(amd64, "linux/amd64")), onlyFlux, amd64},
		"one in an index in it":                      {indexOf(listed(indexOf(listed(amd64, "")), "")), format.Options{}, amd64},
		"one in an index in it, by its own platform": {indexOf(listed(other, "linux/s390x"), listed(indexOf(listed(amd64, "linux/amd64"), listed(arm64, "linux/arm64")), "")), arm, arm64},
		"one in an index in it, by the index's":      {indexOf(listed(other, "linux/s390x"), listed(indexOf(listed(arm64, "")), "linux/arm64")), arm, arm64},
		"an image beside one for Windows":            {indexOf(listed(foreign(t), "windows/amd64"), listed(image, "linux/amd64")), format.Options{Format: v1alpha1.FormatImage}, image},
		"the chart beside an image for Windows":      {indexOf(listed(foreign(t), "windows/amd64"), listed(chart, "")), format.Options{}, chart},
		"of a list as Docker writes it":              {mutate.IndexMediaType(indexOf(listed(amd64, "linux/amd64"), listed(arm64, "linux/arm64")), types.DockerManifestList), arm, arm64},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			m, blobs := pushIndex(t, tc.index)
			content, err := format.Convert(t.Context(), m, blobs, tc.options, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			layers, err := tc.want.Layers()
			g.Expect(err).NotTo(HaveOccurred())
			digest, err := layers[0].Digest()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Digest).To(Equal(digest))
		})
	}
}

func TestAnnotationsAreThoseOfTheChosenManifest(t *testing.T) {
	const source, revision, vendor = "org.opencontainers.image.source", "org.opencontainers.image.revision", "org.opencontainers.image.vendor"
	for name, tc := range map[string]struct{ child, index, want map[string]string }{
		"its own":                           {map[string]string{source: "a", revision: "1"}, nil, map[string]string{source: "a", revision: "1"}},
		"its own, not those of the index":   {map[string]string{source: "a", revision: "1"}, map[string]string{source: "b", revision: "2"}, map[string]string{source: "a", revision: "1"}},
		"those of the index":                {nil, map[string]string{source: "b", revision: "2"}, map[string]string{source: "b", revision: "2"}},
		"of the index, what it lacks":       {map[string]string{vendor: "v"}, map[string]string{source: "b", revision: "2", vendor: "w"}, map[string]string{source: "b", revision: "2", vendor: "v"}},
		"no revision of another repository": {map[string]string{source: "a"}, map[string]string{source: "b", revision: "2"}, map[string]string{source: "a"}},
		"no repository of another revision": {map[string]string{revision: "1"}, map[string]string{source: "b", revision: "2"}, map[string]string{revision: "1"}},
		"neither has any":                   {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			annotate := func(to partial.WithRawManifest, annotations map[string]string) partial.WithRawManifest {
				if annotations == nil {
					return to
				}
				return mutate.Annotations(to, annotations)
			}
			child := annotate(fluxFor(t, "amd64"), tc.child).(v1.Image)
			inner := indexOf(listed(child, "linux/amd64"), listed(fluxFor(t, "arm64"), "linux/arm64"))
			index := annotate(indexOf(listed(inner, "")), tc.index).(v1.ImageIndex)
			m, blobs := pushIndex(t, index)
			content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Annotations).To(Equal(tc.want))
		})
	}
}

func TestWhatIsNoManifestIsNoReasonToRefuseAnIndex(t *testing.T) {
	g := NewWithT(t)
	m, blobs := pushIndex(t, indexOf(listed(fluxFor(t, "a"), "linux/amd64"), listed(fluxFor(t, "b"), "linux/arm64")))
	m.Index.Manifests[0].MediaType = "application/vnd.example.manifest+json"
	content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(HaveKey("b"))
}

func TestWhatAHelmClientTakesFromAnIndex(t *testing.T) {
	g := NewWithT(t)
	host, client := serve(t), helmClient(t)
	_, err := client.Push(packaged(t, "1.2.3"), host+"/team/app:1.2.3")
	g.Expect(err).NotTo(HaveOccurred())
	ref, err := name.ParseReference(host + "/team/app:1.2.3")
	g.Expect(err).NotTo(HaveOccurred())
	chart, err := remote.Image(ref)
	g.Expect(err).NotTo(HaveOccurred())
	mixed, err := name.ParseReference(host + "/team/app:0.1.0")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.WriteIndex(mixed, indexOf(listed(containerFor(t, "app"), "linux/amd64"), attestation(t), listed(chart, "")))).To(Succeed())
	pulled, err := client.Pull(mixed.String())
	g.Expect(err).NotTo(HaveOccurred())

	m, blobs := fetch(t, mixed.String())
	content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Digest.String()).To(Equal(pulled.Chart.Digest))
	g.Expect(content.ChartVersion).To(Equal("1.2.3"))
}

func TestASelectorReadsTheChosenManifest(t *testing.T) {
	g := NewWithT(t)
	m, blobs := pushIndex(t, indexOf(listed(containerFor(t, "amd64"), "linux/amd64"), listed(containerFor(t, "arm64"), "linux/arm64")))
	o := format.Options{Platform: "linux/arm64", LayerSelector: &sourcev1.OCILayerSelector{MediaType: string(types.OCILayer)}}
	content, err := format.Convert(t.Context(), m, blobs, o, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(HaveKey("arm64"))
}

func TestIndexesThatAreRefused(t *testing.T) {
	chart, image := chartFor(t), containerFor(t, "image")
	var many []mutate.IndexAddendum
	for i := range 17 {
		many = append(many, listed(fluxFor(t, fmt.Sprint(i)), "linux/amd64"))
	}
	deep := indexOf(listed(indexOf(listed(indexOf(listed(chart, "")), "")), ""))
	invalid, unsupported := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonUnsupportedMediaType
	for name, tc := range map[string]struct {
		index   v1.ImageIndex
		options format.Options
		reason  string
		words   []string
	}{
		"an empty one":                {indexOf(), format.Options{}, invalid, []string{"lists no manifest of an artifact"}},
		"nothing but attestations":    {indexOf(attestation(t), attestation(t)), format.Options{}, invalid, []string{"lists no manifest of an artifact"}},
		"none for the platform":       {indexOf(listed(image, "linux/s390x"), listed(image, "windows/amd64"), listed(chart, "")), format.Options{Platform: "linux/arm64"}, unsupported, []string{"none of the 3 manifests", `for "linux/arm64"`, `a container image for "linux/s390x"`, `"windows/amd64"`, "a Helm chart for no platform, which means linux/amd64", "spec.platform"}},
		"only another platform":       {indexOf(listed(fluxFor(t, "arm64"), "linux/arm64")), format.Options{Platform: "linux/s390x"}, unsupported, []string{`for "linux/s390x"`, `a Flux artifact for "linux/arm64"`}},
		"not the default, written":    {indexOf(listed(fluxFor(t, "arm64"), "linux/arm64")), format.Options{Platform: "linux/amd64"}, unsupported, []string{`for "linux/amd64"`}},
		"an only one, of no platform": {indexOf(listed(fluxFor(t, "any"), "")), format.Options{Platform: "linux/s390x"}, unsupported, []string{"no platform, which means linux/amd64"}},
		"a platform without a name":   {indexOf(listed(chart, "")), format.Options{Platform: "linux"}, v1alpha1.ReasonInvalidSpec, []string{"os/architecture"}},
		"more than are read":          {indexOf(many...), format.Options{}, v1alpha1.ReasonLimitExceeded, []string{"more than the 16 manifests"}},
		"an index in one in another":  {deep, format.Options{}, invalid, []string{"at most one in another"}},
		"no manifest of the pinned":   {indexOf(listed(image, "linux/amd64"), listed(chart, "")), format.Options{Format: v1alpha1.FormatFlux}, unsupported, []string{"spec.format is Flux, but no manifest of the index", "a Helm chart"}},
		"a platform that is none":     {indexOf(listed(chart, "")), format.Options{Platform: "a/b/c/d"}, v1alpha1.ReasonInvalidSpec, []string{`"a/b/c/d"`}},
		"an only one of no format":    {indexOf(listed(imageOf(t, "example/config", "example/layer", []byte("x")), "")), format.Options{}, unsupported, []string{`config "example/config"`}},
		"an only one for Windows":     {indexOf(listed(foreign(t), "windows/amd64")), format.Options{}, invalid, []string{"the manifest sha256:", "layer 0", "URL of its own"}},
		"one for Windows, asked for":  {indexOf(listed(foreign(t), "windows/amd64"), listed(image, "linux/amd64")), format.Options{Platform: "windows/amd64"}, invalid, []string{"URL of its own"}},
		"an only one that is named":   {indexOf(listed(imageOf(t, "application/vnd.timoni.config.v1+json", "x/y", []byte("x")), "")), format.Options{}, unsupported, []string{"a Timoni module"}},
	} {
		t.Run(name, func(t *testing.T) {
			m, blobs := pushIndex(t, tc.index)
			tc.options.Image = "registry.example/team/app:1.0.0"
			_, err := format.Convert(t.Context(), m, blobs, tc.options, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words...)
		})
	}
}

func TestAnIndexThatNamesItsKindIsRefusedByIt(t *testing.T) {
	for artifactType, what := range map[string]string{
		"application/vnd.docker.compose.project": "a Docker Compose application",
		"application/vnd.dev.sigstore.bundle.v1": "a signature, attestation or SBOM",
	} {
		m, _ := pushIndex(t, indexOf(listed(containerFor(t, "app"), "linux/amd64")))
		m.ArtifactType = artifactType
		_, err := format.Convert(t.Context(), m, none{}, format.Options{}, t.TempDir())
		expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "it is "+what)
	}
}

func TestManifestsOfAnIndexThatAreTooLargeAreNotRead(t *testing.T) {
	m, _ := pushIndex(t, indexOf(listed(chartFor(t), "")))
	m.Index.Manifests[0].Size = format.MaxManifestBytes + 1
	_, err := format.Convert(t.Context(), m, none{}, format.Options{}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "more than 4194304 bytes together")
}

// lying answers for a manifest with another media type or another body.
type lying struct {
	format.Blobs
	mediaType types.MediaType
	body      []byte
}

func (l lying) Manifest(ctx context.Context, desc v1.Descriptor) (types.MediaType, []byte, error) {
	mediaType, body, err := l.Blobs.Manifest(ctx, desc)
	if l.mediaType != "" {
		mediaType = l.mediaType
	}
	if l.body != nil {
		body = l.body
	}
	return mediaType, body, err
}

func TestAManifestThatContradictsItsIndexIsRefused(t *testing.T) {
	m, blobs := pushIndex(t, indexOf(listed(chartFor(t), "")))
	docker := encode(t, fluxBody(map[string]any{"mediaType": types.DockerManifestSchema2}))
	for name, tc := range map[string]struct {
		blobs format.Blobs
		words string
	}{
		"the registry calls it otherwise":    {lying{blobs, types.DockerManifestSchema2, nil}, "calls itself"},
		"the registry and it say otherwise":  {lying{blobs, types.DockerManifestSchema2, docker}, "the index calls the manifest"},
		"it says otherwise":                  {lying{blobs, "", docker}, "calls itself"},
		"it is no manifest":                  {lying{blobs, "", []byte("hello")}, "not a JSON object"},
		"it fetches its layer from anywhere": {lying{blobs, "", encode(t, fluxBody(map[string]any{"layers": layersWith(map[string]any{"urls": []string{"http://x"}})}))}, "URL of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), m, tc.blobs, format.Options{}, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, tc.words)
		})
	}
}

func TestAnIndexHasNoFormatOfItsOwn(t *testing.T) {
	m, _ := pushIndex(t, indexOf(listed(chartFor(t), "")))
	_, err := format.Detect(m, format.Options{})
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "an index")
}
