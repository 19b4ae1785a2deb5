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
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// none has no blob: for what must be decided before anything is read.
type none struct{}

func (none) Open(_ context.Context, desc v1.Descriptor) (*os.File, error) {
	return nil, errors.New("nothing may be read, but " + desc.Digest.String() + " was")
}

func (none) Manifest(_ context.Context, desc v1.Descriptor) (types.MediaType, []byte, error) {
	return "", nil, errors.New("no manifest may be read, but " + desc.Digest.String() + " was")
}

// manifest has a config and layers of these types.
func manifest(config types.MediaType, layers ...types.MediaType) *format.Manifest {
	m := &format.Manifest{MediaType: types.OCIManifestSchema1, Config: v1.Descriptor{MediaType: config}}
	for _, l := range layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: l})
	}
	return m
}

func artifact(artifactType string, m *format.Manifest) *format.Manifest {
	m.ArtifactType = artifactType
	return m
}

func annotated(key, value string, m *format.Manifest) *format.Manifest {
	m.Layers[0].Annotations = map[string]string{key: value}
	return m
}

const (
	title = "org.opencontainers.image.title"
	empty = types.OCIEmptyJSON
)

func TestArtifactsOfOtherToolsAreRefusedByName(t *testing.T) {
	kcl := annotated(title, "app.tgz", artifact(string(types.OCILayer), manifest(empty, types.OCILayer)))
	kcl.Annotations = map[string]string{"org.kcllang.package.name": "app"}
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		what     string
	}{
		"a cosign signature":              {manifest(types.OCIConfigJSON, "application/vnd.dev.cosign.simplesigning.v1+json"), "a signature, attestation or SBOM"},
		"a sigstore bundle":               {artifact("application/vnd.dev.sigstore.bundle.v0.3+json", manifest(empty, "application/vnd.dev.sigstore.bundle.v0.3+json")), "a signature, attestation or SBOM"},
		"a notation signature":            {artifact("application/vnd.cncf.notary.signature", manifest(empty, "application/jose+json")), "a signature, attestation or SBOM"},
		"an in-toto attestation":          {manifest(types.OCIConfigJSON, "application/vnd.in-toto+json"), "a signature, attestation or SBOM"},
		"a cosign attestation":            {manifest(types.OCIConfigJSON, "application/vnd.dsse.envelope.v1+json"), "a signature, attestation or SBOM"},
		"an SPDX document":                {manifest(types.OCIConfigJSON, "text/spdx+json"), "a signature, attestation or SBOM"},
		"a CycloneDX document":            {artifact("application/vnd.cyclonedx+json", manifest(empty, "application/vnd.cyclonedx+json")), "a signature, attestation or SBOM"},
		"a Helm plugin":                   {artifact("application/vnd.helm.plugin.v1+json", annotated(title, "p.tgz", manifest(empty, types.OCILayer))), "a Helm plugin"},
		"a Timoni module":                 {manifest("application/vnd.timoni.config.v1+json", "application/vnd.timoni.content.v1.tar+gzip"), "a Timoni module: CUE must be rendered first"},
		"a Timoni bundle of modules":      {annotated("sh.timoni.content.type", "module/vendor", manifest("application/vnd.timoni.config.v1+json", "application/vnd.timoni.content.v1.tar+gzip")), "a Timoni module: CUE must be rendered first"},
		"a Timoni artifact":               {annotated("sh.timoni.content.type", "generic", manifest("application/vnd.timoni.config.v1+json", "application/vnd.timoni.content.v1.tar+gzip")), "a Timoni artifact: only Timoni unpacks it; push the same files as a Flux artifact"},
		"a Compose application":           {artifact("application/vnd.docker.compose.project", manifest(empty, "application/vnd.docker.compose.file+yaml")), "a Docker Compose application"},
		"an older Compose application":    {manifest("application/vnd.docker.compose.config.empty.v1+json", "application/vnd.docker.compose.file+yaml"), "a Docker Compose application"},
		"a CUE module":                    {manifest("application/vnd.cue.module.v1+json", "application/zip", "application/vnd.cue.modulefile.v1"), "a CUE module"},
		"a Fleet bundle":                  {artifact("application/fleet.manifest", manifest(empty, "application/fleet.manifest")), "a Fleet bundle"},
		"a conftest bundle":               {manifest("application/vnd.unknown.config.v1+json", "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"), "a conftest policy bundle"},
		"a KCL package":                   {kcl, "a KCL package"},
		"an annotated Crossplane package": {annotated("io.crossplane.xpkg", "base", manifest(types.OCIConfigJSON, types.OCILayer)), "a Crossplane package"},
		"a container image":               {manifest(types.OCIConfigJSON, types.OCILayer, types.OCILayerZStd), "a container image: its files are published where spec.format is Image"},
		"a docker image":                  {manifest(types.DockerConfigJSON, types.DockerLayer), "a container image"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Detect(tc.manifest, format.Options{Image: image})
			kind, _, _ := strings.Cut(tc.what, ":")
			NewWithT(t).Expect(refusals()).To(HaveKey(kind))
			expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall,
				"unsupported artifact "+image+": it is "+tc.what, "it is "+kind+": "+refusals()[kind]+"; supported: Flux, ")
		})
	}
}

// refusals is what each kind that is refused by its name is told.
func refusals() map[string]string {
	return map[string]string{
		"a signature, attestation or SBOM": "it describes another image; let the ImageRepository's exclusionList leave out such tags",
		"a Helm plugin":                    "it holds no Kubernetes objects",
		"a Timoni module":                  "CUE must be rendered first; push the output of timoni build as a Flux artifact",
		"a Timoni artifact":                "only Timoni unpacks it; push the same files as a Flux artifact",
		"a Docker Compose application":     "it holds no Kubernetes objects",
		"a CUE module":                     "CUE must be rendered first; push the rendered YAML as a Flux artifact",
		"a Fleet bundle":                   "only Fleet can read it",
		"a conftest policy bundle":         "Rego policies are no Kubernetes objects",
		"a KCL package":                    "KCL must be rendered first; push the rendered YAML as a Flux artifact",
		"a Crossplane package":             "it is installed by Crossplane's package manager; reference it in a Provider, Configuration or Function",
		"a container image":                "its files are published where spec.format is Image; use one without a base image, or push the manifests with flux push artifact",
	}
}

func TestOnlyTheConfigTellsSomeImagesApart(t *testing.T) {
	for name, tc := range map[string]struct{ config, what string }{
		"OLM":          {`{"config":{"Labels":{"operators.operatorframework.io.bundle.mediatype.v1":"registry+v1"}}}`, "an OLM bundle: its files are published where spec.format is Image; then set spec.path of the Kustomization to ./manifests"},
		"Crossplane":   {`{"config":{"Labels":{"io.crossplane.xpkg:sha256:ab":"base"}}}`, "a Crossplane package"},
		"other labels": {`{"config":{"Labels":{"maintainer":"x"}}}`, "a container image"},
		"no labels":    {`{}`, "a container image"},
	} {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			m := manifest(types.DockerConfigJSON, types.DockerLayer)
			m.Config = b.put(t, types.DockerConfigJSON, []byte(tc.config))
			_, err := format.Convert(t.Context(), m, b, format.Options{Image: image}, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "it is "+tc.what)
		})
	}
}

func TestTheConfigOfAnImageIsBounded(t *testing.T) {
	m := manifest(types.DockerConfigJSON, types.DockerLayer)
	m.Config.Size = 1<<20 + 1
	_, err := format.Convert(t.Context(), m, none{}, format.Options{}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "config", "1048576")

	b := blobs(t.TempDir())
	m.Config = b.put(t, types.DockerConfigJSON, []byte("not json"))
	_, err = format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, "config of the image")

	var labels strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&labels, `"%d":"",`, i)
	}
	m.Config = b.put(t, types.DockerConfigJSON, []byte(`{"config":{"Labels":{`+labels.String()+`"":""}}}`))
	_, err = format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "config of the image has more than the 50000 JSON values")
}

func TestAFluxArtifactIsDetected(t *testing.T) {
	for _, o := range []format.Options{{}, {Format: v1alpha1.FormatAuto}, {Format: v1alpha1.FormatFlux}, {Platform: "linux/arm64"}} {
		f, err := format.Detect(manifest(fluxConfig, fluxContent), o)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(f.Name).To(Equal(v1alpha1.FormatFlux))
	}
}

// beside is a manifest with a layer more, which describes the others.
func beside(m *format.Manifest, mediaType types.MediaType) *format.Manifest {
	m.Layers = append([]v1.Descriptor{{MediaType: mediaType}}, m.Layers...)
	return m
}

func TestALayerThatDescribesOthersDoesNotDecideWhatTheArtifactIs(t *testing.T) {
	const rego = "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"
	titled := func(m *format.Manifest) *format.Manifest {
		for i := range m.Layers {
			m.Layers[i].Annotations = map[string]string{title: fmt.Sprintf("%d.yaml", i)}
		}
		return m
	}
	task := func() *format.Manifest {
		return annotated("dev.tekton.image.name", "build", manifest(types.OCIConfigJSON, types.OCILayer, types.OCILayer))
	}
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		options  format.Options
		want     string
	}{
		"a chart with an SPDX document":               {beside(manifest(helmConfig, helmChart), "application/spdx+json"), format.Options{}, v1alpha1.FormatHelm},
		"a chart with a CycloneDX document":           {beside(manifest(helmConfig, helmChart), "application/vnd.cyclonedx+json"), format.Options{Format: v1alpha1.FormatHelm}, v1alpha1.FormatHelm},
		"a chart with an in-toto attestation":         {beside(manifest(helmConfig, helmChart), "application/vnd.in-toto+json"), format.Options{Format: v1alpha1.FormatHelm}, v1alpha1.FormatHelm},
		"a Flux artifact with an SPDX document":       {beside(manifest(fluxConfig, fluxContent), "text/spdx"), format.Options{}, v1alpha1.FormatFlux},
		"a Flux layer under a config of its own":      {manifest("application/vnd.example.config.v1+json", fluxContent), format.Options{}, v1alpha1.FormatFlux},
		"a Flux layer that ORAS pushed":               {titled(artifact("application/vnd.unknown.artifact.v1", manifest(empty, fluxContent))), format.Options{}, v1alpha1.FormatFlux},
		"a Flux layer that ORAS pushed, as files":     {titled(manifest(empty, fluxContent)), format.Options{Format: v1alpha1.FormatFiles}, v1alpha1.FormatFiles},
		"a Kyverno bundle with an SPDX document":      {beside(manifest("application/vnd.cncf.kyverno.bundle.config.v1+json", "x/y"), "text/spdx"), format.Options{}, v1alpha1.FormatKyverno},
		"a container image with an SPDX document":     {beside(manifest(types.OCIConfigJSON, types.OCILayer), "application/spdx+json"), format.Options{Format: v1alpha1.FormatImage}, v1alpha1.FormatImage},
		"files with an SPDX document, pinned":         {titled(beside(manifest(empty, "text/yaml"), "application/spdx+json")), format.Options{Format: v1alpha1.FormatFiles}, v1alpha1.FormatFiles},
		"files with a policy in Rego, pinned":         {titled(manifest(empty, "text/yaml", rego)), format.Options{Format: v1alpha1.FormatFiles}, v1alpha1.FormatFiles},
		"a chart with a policy in Rego":               {manifest(helmConfig, helmChart, rego), format.Options{}, v1alpha1.FormatHelm},
		"an image with one titled layer":              {annotated(title, "a", manifest(types.OCIConfigJSON, types.OCILayer, types.OCILayer)), format.Options{Format: v1alpha1.FormatImage}, v1alpha1.FormatImage},
		"an image with one layer of Tekton's":         {task(), format.Options{Format: v1alpha1.FormatImage}, v1alpha1.FormatImage},
		"a Tekton bundle with one layer not Tekton's": {task(), format.Options{}, v1alpha1.FormatTekton},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			f, err := format.Detect(tc.manifest, tc.options)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(f.Name).To(Equal(tc.want))
		})
	}
}

func TestAnArtifactIsPublishedWithoutTheLayerThatDescribesIt(t *testing.T) {
	const spdx types.MediaType = "application/spdx+json"
	content := layerOf(t, file{name: "a.yaml", body: "a: b\n"})
	for name, tc := range map[string]struct {
		config, layer types.MediaType
		pinned        string
	}{
		"a Flux artifact":   {fluxConfig, fluxContent, ""},
		"a container image": {types.OCIConfigJSON, types.OCILayer, v1alpha1.FormatImage},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			m := manifest(tc.config)
			m.Config = b.put(t, tc.config, []byte("{}"))
			m.Layers = []v1.Descriptor{b.put(t, spdx, []byte("{}")), b.put(t, tc.layer, content)}
			read, err := format.Convert(t.Context(), m, b, format.Options{Format: tc.pinned}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(unpack(t, read.Path)).To(HaveKey("a.yaml"))
		})
	}
}

func TestAnUnknownArtifactOfTitledLayersMayBeFiles(t *testing.T) {
	m := annotated(title, "deploy.yaml", artifact("application/vnd.example.deploy.v1", manifest(empty, "application/vnd.example.manifests+yaml")))
	_, err := format.Detect(m, format.Options{})
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "spec.format Files")
	_, err = format.Detect(m, format.Options{Format: v1alpha1.FormatFiles})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

func TestAnUnknownArtifactIsDescribed(t *testing.T) {
	g := NewWithT(t)
	m := artifact("example/at", manifest("example/config", "example/a", "example/b", "example/a"))
	m.Layers[1].Annotations = map[string]string{title: "b.txt"}
	_, err := format.Convert(t.Context(), m, none{}, format.Options{Image: image}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall)
	g.Expect(err.Error()).To(HavePrefix(`unsupported artifact ` + image + `: manifest "application/vnd.oci.image.manifest.v1+json", artifactType "example/at", ` +
		`config "example/config", layers [2x "example/a", 1x "example/b" (titled)]; supported: Flux, Helm`))
}

func TestWhatARegistrySaysIsQuotedAndCut(t *testing.T) {
	g := NewWithT(t)
	m := manifest("a\x1b[31m\"b\n", types.MediaType(strings.Repeat("x", 1000)))
	for i := range 30 {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: types.MediaType(fmt.Sprintf("type/%d", i))})
	}
	_, err := format.Detect(m, format.Options{Image: image})
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall,
		`config "a\x1b[31m\"b\n"`, `1x "`+strings.Repeat("x", 253)+`..."`, `"type/8", and 21 other types]`)
	g.Expect(err.Error()).NotTo(ContainSubstring(strings.Repeat("x", 254)))
	g.Expect(len(err.Error())).To(BeNumerically("<", 1000))
}

func TestAFormatThatIsPinnedMustMatch(t *testing.T) {
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		pinned   string
		reason   string
		words    []string
	}{
		"a chart pinned as Flux":            {manifest("application/vnd.cncf.helm.config.v1+json", "x"), "Flux", v1alpha1.ReasonUnsupportedMediaType, []string{"is a Helm chart", "set spec.format to Auto or Helm"}},
		"the unknown pinned as Flux":        {manifest("x", "y"), "Flux", v1alpha1.ReasonUnsupportedMediaType, []string{"spec.format is Flux", `config "x"`}},
		"a Flux artifact pinned as Helm":    {manifest(fluxConfig, fluxContent), "Helm", v1alpha1.ReasonUnsupportedMediaType, []string{"spec.format is Helm", "is a Flux artifact"}},
		"a format that nobody has heard of": {manifest(fluxConfig, fluxContent), "Zip", v1alpha1.ReasonInvalidSpec, []string{`"Zip"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Detect(tc.manifest, format.Options{Format: tc.pinned, Image: image})
			expectFault(t, err, tc.reason, fault.Stall, tc.words...)
		})
	}
}

func TestMoreLayersThanThePlatformAllowsAreRefused(t *testing.T) {
	_, err := format.Detect(manifest(fluxConfig, fluxContent, fluxContent), format.Options{Limits: format.Limits{Layers: 1}})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "2 layers, more than the 1")
}

func TestThePlatformMayAllowMoreLayersThanByDefault(t *testing.T) {
	g := NewWithT(t)
	text, err := json.Marshal(fluxBody(map[string]any{"layers": repeat(500, descriptor(fluxContent))}))
	g.Expect(err).NotTo(HaveOccurred())
	m, err := format.Parse(types.OCIManifestSchema1, text)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = format.Detect(m, format.Options{})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "500 layers, more than the 100", "--max-layers")
	_, err = format.Detect(m, format.Options{Limits: format.Limits{Layers: 500}})
	g.Expect(err).NotTo(HaveOccurred())
}
