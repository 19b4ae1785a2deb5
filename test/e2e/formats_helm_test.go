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

package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// Media types of Helm's own.
const (
	helmConfig  types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	helmContent types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// chart returns a chart app, whose release is a ConfigMap of its name that says
// what was rendered.
func chart(version string) publish.Chart {
	return publish.Chart{Name: "app", Version: version, Files: publish.Files{
		"values.yaml": "who: nobody\n",
		"templates/app.yaml": fmt.Sprintf(`apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
  namespace: {{ .Release.Namespace }}
data:
  version: %q
  who: {{ .Values.who | quote }}
`, version),
	}}
}

// release writes a HelmRelease of the source app, whose values name the tenant.
func (n *tenant) release() {
	n.Helper()
	n.apply(fmt.Sprintf(`apiVersion: helm.toolkit.fluxcd.io/v2
kind: HelmRelease
metadata:
  name: app
spec:
  interval: 1h
  chartRef:
    kind: ExternalArtifact
    name: app
  values:
    who: %s
`, n.namespace))
}

// released waits until the HelmRelease app is ready with an artifact of a chart,
// and until what the chart makes is in the cluster.
func (n *tenant) released(version string, artifact *meta.Artifact) {
	n.Helper()
	_, digest, _ := strings.Cut(artifact.Revision, "sha256:")
	n.consumed(object{"helm.toolkit.fluxcd.io/v2", "HelmRelease", "app"}, func(g Gomega, found *unstructured.Unstructured) {
		history, _, err := unstructured.NestedSlice(found.Object, "status", "history")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(history).NotTo(BeEmpty())
		plain, _, _ := strings.Cut(version, "+")
		g.Expect(history[0]).To(And(
			HaveKeyWithValue("status", "deployed"),
			HaveKeyWithValue("chartVersion", plain+"+"+digest[:12]), // helm-controller tells charts of one version apart
		))
	})
	n.eventually(func(g Gomega) {
		made := &corev1.ConfigMap{}
		g.Expect(env.Client.Get(n.Context(), n.key("app"), made)).To(Succeed())
		g.Expect(made.Data).To(And(HaveKeyWithValue("version", version), HaveKeyWithValue("who", n.namespace)))
	})
}

// retag gives an image that was pushed another tag.
func (n *tenant) retag(image, tag string) {
	n.Helper()
	n.Expect(crane.Tag(env.Registry().Host()+"/"+n.image(image), tag, crane.Insecure, crane.WithContext(n.Context()))).To(Succeed())
}

// Helm writes _ for the + of a version. The filters are those of docs/formats/helm.md.
func TestBuildsOfAChart(t *testing.T) {
	t.Parallel()
	for sentence, test := range map[string]struct {
		versions         []string
		pattern, extract string
		order            string // a range
		want             string
		told             bool // that a build is not seen
	}{
		"without a filter, builds are not seen": {
			versions: []string{"1.0.0", "1.1.0+up2"}, order: "1.x", want: "1.0.0", told: true,
		},
		"by the version": {
			versions: []string{"1.0.0", "1.1.0+up2", "0.9.0"}, order: "1.x", want: "1.1.0_up2",
			pattern: `^(?P<v>[0-9]+\.[0-9]+\.[0-9]+)(_.+)?$`, extract: "$v",
		},
		"by the version, the first of the alphabet": {
			versions: []string{"1.0.0", "1.1.0+up9", "1.1.0+up10", "1.1.0+up11"}, order: "1.x", want: "1.1.0_up10",
			pattern: `^(?P<v>[0-9]+\.[0-9]+\.[0-9]+)(_.+)?$`, extract: "$v",
		},
		"by the version and the number of the build": {
			versions: []string{"1.1.0", "1.1.0+up9", "1.1.0+up10", "1.0.0+up99", "2.0.0+up1"}, order: ">=1.0.0-0 <2.0.0-0", want: "1.1.0_up10",
			pattern: `^(?P<v>[0-9]+\.[0-9]+\.[0-9]+)(_up(?P<n>[0-9]+))?$`, extract: "$v-1$n",
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			for _, version := range test.versions {
				n.helm(chart(version))
			}
			n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) {
				s.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: test.order}}
				if test.pattern != "" {
					s.FilterTags = &imagev1.TagFilter{Pattern: test.pattern, Extract: test.extract}
				}
			})
			n.published("app", test.want)
			message := conditions.GetMessage(get(n, "app", &v1alpha1.ArtifactRepository{}), meta.ReadyCondition)
			n.Expect(strings.Contains(message, "the tag 1.1.0_up2 stands for the version 1.1.0+up2")).To(Equal(test.told), message)
		})
	}
}

// A chart that Helm pushed is released by helm-controller, whatever its tag, its
// version and the way to it are.
func TestEveryChartIsReleased(t *testing.T) {
	t.Parallel()
	type spec = v1alpha1.ArtifactRepositorySpec
	copied := func(s *spec) {
		s.LayerSelector = &sourcev1.OCILayerSelector{MediaType: string(helmContent), Operation: sourcev1.OCILayerCopy}
	}
	pinned := func(s *spec) { s.Format = v1alpha1.FormatHelm }
	for sentence, test := range map[string]struct {
		version string
		// tag that is published; empty: what Helm makes of the version.
		tag        string
		provenance string
		spec       func(*spec)
		// revision, with the digest behind it.
		revision string
	}{
		"a chart":                                  {version: "1.2.3", revision: `1\.2\.3@`},
		"a chart with a provenance":                {version: "1.2.3", provenance: "a signature", revision: `1\.2\.3@`},
		"a prerelease":                             {version: "2.0.0-rc.1", revision: `2\.0\.0-rc\.1@`},
		"a version with a plus sign":               {version: "1.2.3+build.7", tag: "1.2.3_build.7", revision: `1\.2\.3_build\.7@`},
		"a version with a plus sign, pinned":       {version: "1.2.3+build.7", tag: "1.2.3_build.7", spec: pinned, revision: `1\.2\.3_build\.7\+[0-9a-f]{8}@`},
		"a pinned format":                          {version: "1.2.3", spec: pinned, revision: `1\.2\.3\+[0-9a-f]{8}@`},
		"a copied layer":                           {version: "1.2.3", provenance: "a signature", spec: copied, revision: `1\.2\.3\+[0-9a-f]{8}@`},
		"a tag that is leniently another version":  {version: "1.4.2", tag: "1.4", revision: ""},
		"a copied layer under such a tag":          {version: "1.4.2", tag: "1.4", spec: copied, revision: `c[0-9a-f]{8}@`},
		"a tag that is leniently the same version": {version: "1.4.0", tag: "v1.4", revision: `v1\.4@`},
		"a tag that is a date":                     {version: "1.2.3", tag: "20260801", revision: ""},
		"a tag that is no version":                 {version: "1.2.3", tag: "latest", revision: "latest@"},
		"a tag of words, pinned":                   {version: "1.2.3", tag: "main-1", spec: pinned, revision: `main-1\+[0-9a-f]{8}@`},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			pushed := chart(test.version)
			pushed.Provenance = test.provenance
			digest := n.helm(pushed)
			tag := strings.ReplaceAll(test.version, "+", "_")
			if test.tag != "" && test.tag != tag {
				n.retag("app:"+tag, test.tag)
				tag = test.tag
			}
			n.images("app", func(s *spec) {
				s.Tag = tag
				if test.spec != nil {
					test.spec(s)
				}
			})
			n.release()
			artifact := n.readAs("app", v1alpha1.FormatHelm, digest)
			n.Expect(artifact.Revision).To(MatchRegexp("^" + test.revision + digest + "$"))
			n.released(test.version, artifact)
		})
	}
}

// helmImage returns a chart as Helm makes it, from an archive that Helm need
// not have made.
func helmImage(archive []byte) (v1.Image, error) {
	return publish.LayeredArtifact(helmConfig, static.NewLayer(archive, helmContent))
}

// One tag for the images of an application and for the chart that deploys them.
func TestAChartBesideImagesInAnIndexIsReleased(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	archive, err := chart("1.2.3").Package()
	n.Expect(err).NotTo(HaveOccurred())
	packaged, err := helmImage(archive)
	n.Expect(err).NotTo(HaveOccurred())
	var children []publish.Child
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		image, err := publish.ContainerImage(publish.Files{"bin/app": platform})
		n.Expect(err).NotTo(HaveOccurred())
		attestation, err := publish.Attestation(image)
		n.Expect(err).NotTo(HaveOccurred())
		children = append(children, publish.Child{Image: image, Platform: platform}, attestation)
	}
	digest := n.pushIndex("app:1.2.3", types.OCIImageIndex, append(children, publish.Child{Image: packaged})...)
	n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) { s.Tag = "1.2.3" })
	n.release()
	artifact := n.readAs("app", v1alpha1.FormatHelm, digest)
	n.Expect(artifact.Revision).To(Equal("1.2.3@"+digest), "the digest is that of the index")
	n.released("1.2.3", artifact)
}

// A newer chart is an upgrade, the same version with other content too, and a
// chart that Helm could not load never reaches the release.
func TestAChartIsUpgraded(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	first := n.helm(chart("1.0.0"))
	n.scan("app")
	n.release()
	n.released("1.0.0", n.readAs("app", v1alpha1.FormatHelm, "1.0.0@"+first))

	signed := chart("1.1.0")
	signed.Provenance = "a signature"
	second := n.helm(signed)
	n.released("1.1.0", n.readAs("app", v1alpha1.FormatHelm, "1.1.0@"+second))

	again := chart("1.1.0")
	again.Files["templates/more.yaml"] = n.yaml(config("more"), "pushed again")
	third := n.helm(again)
	n.Expect(third).NotTo(Equal(second))
	good := n.readAs("app", v1alpha1.FormatHelm, "1.1.0@"+third)
	n.released("1.1.0", good)
	n.inCluster("pushed again", config("more"))

	flat, err := publish.Layer(publish.Files{"Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.2.0\n"})
	n.Expect(err).NotTo(HaveOccurred())
	n.pushImage("app:1.2.0")(helmImage(flat))
	obj, ready := n.notReady("app", v1alpha1.ReasonInvalidArtifact)
	n.Expect(ready.Message).To(And(ContainSubstring("Chart.yaml"), ContainSubstring(shortRevision(good.Revision))))
	n.Expect(conditions.IsStalled(obj)).To(BeTrue())
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(good))
	n.released("1.1.0", good)

	last := n.helm(chart("1.3.0"))
	n.released("1.3.0", n.readAs("app", v1alpha1.FormatHelm, "1.3.0@"+last))
	n.pruned(config("more"))
}

// What is published of a chart is the archive that Helm packaged.
func TestAChartIsPublishedByteForByte(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	pushed, err := n.reference().Helm(n.namespace, chart("1.2.3"))
	n.Expect(err).NotTo(HaveOccurred())
	n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) { s.Tag = "1.2.3" })
	artifact := n.readAs("app", v1alpha1.FormatHelm, pushed.Manifest.Digest)
	n.Expect(artifact.Digest).To(Equal(pushed.Chart.Digest))
	content := n.read(artifact.URL)
	digest, size, err := v1.SHA256(bytes.NewReader([]byte(content)))
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(digest.String()).To(Equal(pushed.Chart.Digest))
	n.Expect(size).To(Equal(pushed.Chart.Size))
}

// The sample of a chart, as it is.
func TestTheSampleOfAChart(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	push := func(version string) (digest string) {
		orders := chart(version)
		orders.Name = "orders"
		pushed, err := n.reference().Helm(n.image("charts"), orders)
		n.Expect(err).NotTo(HaveOccurred())
		return pushed.Manifest.Digest
	}
	released := func(version, digest string) {
		artifact := n.readAs("orders", v1alpha1.FormatHelm, version+"@"+digest)
		n.consumed(object{"helm.toolkit.fluxcd.io/v2", "HelmRelease", "orders"}, func(g Gomega, found *unstructured.Unstructured) {
			history, _, _ := unstructured.NestedSlice(found.Object, "status", "history")
			g.Expect(history).NotTo(BeEmpty())
			_, hex, _ := strings.Cut(artifact.Revision, "sha256:")
			g.Expect(history[0]).To(HaveKeyWithValue("chartVersion", version+"+"+hex[:12]))
		})
		n.deployed("orders", version)
	}
	first := push("1.4.2")
	n.sample("helm_chart.yaml")
	released("1.4.2", first)
	push("2.0.0") // beyond the sample's range
	released("1.5.0", push("1.5.0"))
}

// labelled returns an image with a label in its config.
func labelled(image v1.Image, key string) (v1.Image, error) {
	return mutate.Config(image, v1.Config{Labels: map[string]string{key: "true"}})
}
