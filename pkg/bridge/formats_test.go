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

package bridge_test

import (
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/publish"
)

const (
	helmConfig = "application/vnd.cncf.helm.config.v1+json"
	helmChart  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// imageOf is an image with a config type and titled layers of one type.
func (b *bench) imageOf(config, layerType types.MediaType, layers ...[]byte) v1.Image {
	b.Helper()
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	for i, layer := range layers {
		var err error
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:       static.NewLayer(layer, layerType),
			Annotations: map[string]string{"org.opencontainers.image.title": string(rune('a'+i)) + ".yaml"},
		})
		NewWithT(b).Expect(err).NotTo(HaveOccurred())
	}
	return image
}

// pushImage stores an image under repository:tag.
func (b *bench) pushImage(reference string, image v1.Image) (manifest v1.Hash) {
	b.Helper()
	g := NewWithT(b)
	g.Expect(b.registry.Shelf().Push(b.Context(), reference, image)).To(Succeed())
	manifest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return manifest
}

// pushIndex stores an index under repository:tag.
func (b *bench) pushIndex(reference string, index v1.ImageIndex) (digest v1.Hash) {
	b.Helper()
	g := NewWithT(b)
	ref, err := name.ParseReference(b.registry.Host() + "/" + reference)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.WriteIndex(ref, index, remote.WithContext(b.Context()), remote.WithTransport(b.registry.Shelf().Transport))).To(Succeed())
	digest, err = index.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return digest
}

// chart is a Helm chart of a version.
func (b *bench) chart(version string) v1.Image {
	b.Helper()
	layer, err := publish.Layer(publish.Files{"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: " + version + "\n", "app/logo.jpg": "x"})
	NewWithT(b).Expect(err).NotTo(HaveOccurred())
	return b.imageOf(helmConfig, helmChart, layer)
}

// helmControllerTakes tells whether helm-controller takes a chart of this
// version from an artifact of this revision: the rules of its
// mutateChartWithSourceRevision.
func helmControllerTakes(revision, chartVersion string) bool {
	if strings.Count(revision, ":") != 1 {
		return false
	}
	tag, _, ok := strings.Cut(revision, "@")
	if !ok {
		return true
	}
	promised, err := semver.NewVersion(strings.ReplaceAll(tag, "_", "+"))
	return err != nil || promised.Equal(semver.MustParse(chartVersion))
}

func TestRevisionsOfCharts(t *testing.T) {
	copying := settings(func(o *format.Options) {
		o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: helmChart, Operation: sourcev1.OCILayerCopy}
	})
	mark := format.ContentHash(copying)[:8]
	tagged := func(tag string) func(string) string { return func(d string) string { return tag + "@" + d } }
	digest := func(d string) string { return d }
	for name, tc := range map[string]struct {
		version, tag string
		content      format.Options
		want         func(digest string) string
	}{
		"a tag that is the version":                       {"1.2.3", "1.2.3", format.Options{}, tagged("1.2.3")},
		"a tag with a v":                                  {"1.2.3", "v1.2.3", format.Options{}, tagged("v1.2.3")},
		"a tag that leaves out zeros":                     {"1.2.0", "1.2", format.Options{}, tagged("1.2")},
		"a tag with an underscore for the plus":           {"1.2.3+build.7", "1.2.3_build.7", format.Options{}, tagged("1.2.3_build.7")},
		"a tag of other build metadata":                   {"1.2.3+build.7", "1.2.3_other", format.Options{}, tagged("1.2.3_other")},
		"a tag that is no version":                        {"1.2.3", "latest", format.Options{}, tagged("latest")},
		"a tag that is another version":                   {"1.2.3", "1.2.4", format.Options{}, digest},
		"a tag of a minor version":                        {"1.2.3", "1.2", format.Options{}, digest},
		"a tag that is a date":                            {"1.2.3", "20260801", format.Options{}, digest},
		"a tag that is a prerelease of the version":       {"1.2.3", "1.2.3-rc.1", format.Options{}, digest},
		"a tag that is the version, with settings":        {"1.2.3", "1.2.3", copying, tagged("1.2.3+" + mark)},
		"a tag with an underscore, with settings":         {"1.2.3+build", "1.2.3_build", copying, tagged("1.2.3_build+" + mark)},
		"a tag that is another version, with settings":    {"1.2.3", "1.2", copying, tagged("c" + mark)},
		"a tag that is no version, with settings":         {"1.2.3", "latest", copying, tagged("latest+" + mark)},
		"a digest alone":                                  {"1.2.3", "", format.Options{}, digest},
		"a digest alone, with settings":                   {"1.2.3", "", copying, tagged("c" + mark)},
		"a tag of underscores that is no version at last": {"1.2.3", "1_2_3", format.Options{}, tagged("1_2_3")},
	} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			manifest := b.pushImage("team/app:any", b.chart(tc.version))
			r := b.request("app", "team/app:"+tc.tag, nobody)
			r.Digest, r.Content = manifest, tc.content
			out := b.publish(r)
			g.Expect(out.Artifact.Revision).To(Equal(tc.want(manifest.String())))
			g.Expect(helmControllerTakes(out.Artifact.Revision, tc.version)).To(BeTrue(), out.Artifact.Revision)
			g.Expect(out.Image.Tag).To(Equal(tc.tag), "the status still tells the tag")

			r.Published = published(out)
			g.Expect(b.publish(r).Unchanged).To(BeTrue())
		})
	}
}

func TestAChartThatIsRenamedKeepsToTheRule(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest := b.pushImage("team/app:1.2.3", b.chart("1.2.3"))
	r := b.request("app", "team/app:1.2.3", nobody)
	before := b.publish(r)
	g.Expect(before.Format).To(Equal(v1alpha1.FormatHelm))
	b.reopen(advertised) // a new process has only the record
	b.asked()

	for tag, want := range map[string]string{"1.2": manifest.String(), "stable": "stable@" + manifest.String()} {
		r = b.request("app", "team/app:"+tag, nobody)
		r.Digest, r.Published = manifest, published(before)
		g.Expect(b.publish(r).Artifact.Revision).To(Equal(want))
	}
	g.Expect(b.asked()).To(BeEmpty())
}

func TestATagThatLooksLikeAVersionOfATreeIsNamed(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, _ := b.push("team/app:20260801", publish.Files{"app.yaml": "a: 1\n"})
	g.Expect(b.publish(b.request("app", "team/app:20260801", nobody)).Artifact.Revision).To(Equal("20260801@" + manifest.String()))
}

func TestAChartCostsItsManifestAndItsLayer(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	image := b.chart("1.2.3")
	b.pushImage("team/app:1.2.3", image)
	_, layer := digests(b, image)
	out := b.publish(b.request("app", "team/app:1.2.3", nobody))
	g.Expect(b.asked()).To(Equal([]string{"GET /v2/team/app/manifests/1.2.3", "GET /v2/team/app/blobs/" + layer.String()}))
	g.Expect(out.Artifact.Digest).To(Equal(layer.String()))
	stored, err := os.ReadFile(b.file(out))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stored).To(Equal(b.blob("team/app", layer)))
}

func TestABlobThatIsTwoFilesIsPulledOnce(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.pushImage("team/app:1", b.imageOf("application/vnd.unknown.config.v1+json", "application/vnd.oci.image.layer.v1.tar", []byte("a: 1\n"), []byte("a: 1\n")))
	out := b.publish(b.request("app", "team/app:1", nobody))
	g.Expect(out.Format).To(Equal(v1alpha1.FormatFiles))
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
}

func TestAnIndexIsPublishedUnderItsOwnDigest(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	platform := func(s string) *v1.Platform {
		p, err := v1.ParsePlatform(s)
		g.Expect(err).NotTo(HaveOccurred())
		return p
	}
	flux := func(what string) v1.Image {
		layer, err := publish.Layer(publish.Files{what + ".yaml": "a: 1\n"})
		g.Expect(err).NotTo(HaveOccurred())
		image, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
		g.Expect(err).NotTo(HaveOccurred())
		return image
	}
	amd64, arm64 := flux("amd64"), flux("arm64")
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: amd64, Descriptor: v1.Descriptor{Platform: platform("linux/amd64")}},
		mutate.IndexAddendum{Add: arm64, Descriptor: v1.Descriptor{Platform: platform("linux/arm64")}})
	digest := b.pushIndex("team/app:1.0.0", index)
	amd64Manifest, amd64Layer := digests(b, amd64)
	arm64Manifest, arm64Layer := digests(b, arm64)

	out := b.publish(b.request("app", "team/app:1.0.0", nobody))
	g.Expect(b.asked()).To(Equal([]string{
		"GET /v2/team/app/manifests/1.0.0",
		"GET /v2/team/app/manifests/" + amd64Manifest.String(),
		"GET /v2/team/app/manifests/" + arm64Manifest.String(),
		"GET /v2/team/app/blobs/" + amd64Layer.String(),
	}))
	g.Expect(out.Image.Digest).To(Equal(digest))
	g.Expect(out.Artifact.Revision).To(Equal("1.0.0@" + digest.String()))
	g.Expect(out.Artifact.Digest).To(Equal(amd64Layer.String()))

	r := b.request("app", "team/app:1.0.0", nobody)
	r.Published = published(out)
	g.Expect(b.publish(r).Unchanged).To(BeTrue())
	g.Expect(b.asked()).To(Equal([]string{"HEAD /v2/team/app/manifests/1.0.0"}))

	r.Content.Platform = "linux/arm64"
	other := b.publish(r)
	g.Expect(other.Unchanged).To(BeFalse())
	g.Expect(other.Artifact.Digest).To(Equal(arm64Layer.String()))
	g.Expect(other.Artifact.Revision).To(MatchRegexp(`^1\.0\.0\+[0-9a-f]{8}@` + digest.String() + `$`))
}

func TestMetadataOfAnIndexIsThatOfItsManifest(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	const revision = "org.opencontainers.image.revision"
	layer, err := publish.Layer(publish.Files{"app.yaml": "a: 1\n"})
	g.Expect(err).NotTo(HaveOccurred())
	image, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
	g.Expect(err).NotTo(HaveOccurred())
	child := mutate.Annotations(image, map[string]string{revision: "main@sha1:a"}).(v1.Image)
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: child})
	index = mutate.Annotations(index, map[string]string{revision: "main@sha1:b", "org.example.index": "x"}).(v1.ImageIndex)
	b.pushIndex("team/app:1.0.0", index)

	// The second finds the content of the first.
	for _, name := range []string{"one", "two"} {
		metadata := b.publish(b.request(name, "team/app:1.0.0", nobody)).Artifact.Metadata
		g.Expect(metadata).To(HaveKeyWithValue(revision, "main@sha1:a"))
		g.Expect(metadata).To(HaveKeyWithValue("org.example.index", "x"))
	}
}

func TestAnExplicitPlatformIsNotIgnoredForSharedContent(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	layer, err := publish.Layer(publish.Files{"app.yaml": "a: 1\n"})
	g.Expect(err).NotTo(HaveOccurred())
	image, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
	g.Expect(err).NotTo(HaveOccurred())
	arm64 := v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}
	b.pushIndex("team/app:1.0.0", mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: image, Descriptor: arm64}))
	b.publish(b.request("any", "team/app:1.0.0", nobody))
	written := b.request("written", "team/app:1.0.0", nobody)
	written.Content.Platform = format.DefaultPlatform
	_, err = b.try(t.Context(), written)
	g.Expect(err).To(MatchError(ContainSubstring(`for "linux/amd64"`)))
}

func TestAManifestThatContradictsItsIndex(t *testing.T) {
	for name, tc := range map[string]struct {
		list   v1.Descriptor
		answer func(w http.ResponseWriter)
		reason string
		class  fault.Class
		words  string
	}{
		"it is not there": {v1.Descriptor{}, func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, v1alpha1.ReasonImageNotFound, fault.Retry, "get manifest"},
		"it is another": {v1.Descriptor{}, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = w.Write([]byte(`{"schemaVersion":2}`))
		}, v1alpha1.ReasonInvalidArtifact, fault.Retry, ""},
		"it is larger than is listed": {v1.Descriptor{Size: 3}, nil, v1alpha1.ReasonInvalidArtifact, fault.Stall, "it is listed with 3"},
		"it is listed as too large":   {v1.Descriptor{Size: format.MaxManifestBytes + 1}, nil, v1alpha1.ReasonLimitExceeded, fault.Stall, "more than 4194304"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			image := b.chart("1.2.3")
			manifest := b.pushImage("team/app:chart", image)
			index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: image, Descriptor: tc.list})
			b.pushIndex("team/app:1.0.0", index)
			if tc.answer != nil {
				b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.HasSuffix(r.URL.Path, "/manifests/"+manifest.String()) {
						return false
					}
					tc.answer(w)
					return true
				})
			}
			_, err := b.try(t.Context(), b.request("app", "team/app:1.0.0", nobody))
			expectFault(t, err, tc.reason, tc.class, tc.words)
			b.expectNothingStored()
		})
	}
}

func TestMetadataOfAChart(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	const key = v1alpha1.MetadataChartVersion
	b.pushImage("team/app:1.2.3", b.chart("1.2.3"))
	g.Expect(b.publish(b.request("app", "team/app:1.2.3", nobody)).Artifact.Metadata).To(HaveKeyWithValue(key, "1.2.3"))

	layer, err := publish.Layer(publish.Files{"app.yaml": "a: 1\n"})
	g.Expect(err).NotTo(HaveOccurred())
	b.pushLayers("team/tree:1.2.3", map[string]string{key: "9.9.9"}, layer)
	tree := b.publish(b.request("tree", "team/tree:1.2.3", nobody))
	g.Expect(tree.Artifact.Metadata).NotTo(HaveKey(key), "no annotation speaks in our name")
	g.Expect(tree.Artifact.Revision).To(HavePrefix("1.2.3@"))
}
