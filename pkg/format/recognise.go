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

package format

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// What artifacts of other tools are recognised by.
const (
	helmConfig      = "application/vnd.cncf.helm.config.v1+json"
	helmPlugin      = "application/vnd.helm.plugin.v1+json"
	kyvernoConfig   = "application/vnd.cncf.kyverno.config.v1+json"
	kyvernoBundle   = "application/vnd.cncf.kyverno.bundle.config.v1+json"
	timoniConfig    = "application/vnd.timoni.config.v1+json"
	composeArtifact = "application/vnd.docker.compose.project"
	composeConfig   = "application/vnd.docker.compose.config.empty.v1+json"
	cueConfig       = "application/vnd.cue.module.v1+json"
	fleetManifest   = "application/fleet.manifest"
	regoPrefix      = "application/vnd.cncf.openpolicyagent."
	kclPackage      = "org.kcllang.package.name"
	tektonPrefix    = "dev.tekton.image."
	crossplaneMark  = "io.crossplane.xpkg"
	imgpkgLabel     = "dev.carvel.imgpkg.bundle"
	olmPrefix       = "operators.operatorframework.io.bundle."
	timoniContent   = "sh.timoni.content.type"

	crossplaneRefusal = "it is installed by Crossplane's package manager; reference it in a Provider, Configuration or Function"

	// titleAnnotation names the file that a layer is.
	titleAnnotation = "org.opencontainers.image.title"
	// zstdDockerLayer is written by containerd.
	zstdDockerLayer types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

const (
	// maxConfigBytes is the size up to which the config of an image is read.
	maxConfigBytes = 1 << 20
	// maxListedTypes is how many different layer types a message lists.
	maxListedTypes = 10
)

// hasType matches the type of the config or of the artifact.
func hasType(accepted ...string) func(*Manifest) bool {
	return func(m *Manifest) bool {
		return slices.Contains(accepted, string(m.Config.MediaType)) || slices.Contains(accepted, m.ArtifactType)
	}
}

func hasAnnotation(key string) func(*Manifest) bool {
	return func(m *Manifest) bool {
		_, ok := m.Annotations[key]
		return ok
	}
}

// isOfType matches manifests whose config or all of whose content has a type that
// begins with prefix.
func isOfType(prefix string) func(*Manifest) bool {
	return func(m *Manifest) bool {
		return strings.HasPrefix(string(m.Config.MediaType), prefix) ||
			allContent(func(l v1.Descriptor) bool { return strings.HasPrefix(string(l.MediaType), prefix) })(m)
	}
}

func isAnnotated(prefix string) func(v1.Descriptor) bool {
	return func(l v1.Descriptor) bool { return hasKey(l.Annotations, prefix) }
}

func anyLayer(matches func(v1.Descriptor) bool) func(*Manifest) bool {
	return func(m *Manifest) bool { return slices.ContainsFunc(m.Layers, matches) }
}

// allContent matches manifests with content, all of which matches.
func allContent(matches func(v1.Descriptor) bool) func(*Manifest) bool {
	return func(m *Manifest) bool {
		content := m.content()
		return len(content) > 0 && !slices.ContainsFunc(content, func(l v1.Descriptor) bool { return !matches(l) })
	}
}

// pick returns the elements that match.
func pick[T any](from []T, matches func(T) bool) (picked []T) {
	for _, one := range from {
		if matches(one) {
			picked = append(picked, one)
		}
	}
	return picked
}

// content returns the layers but for signatures, attestations and SBOMs, which some
// vendors ship as a layer beside their subject.
func (m *Manifest) content() []v1.Descriptor {
	return pick(m.Layers, func(l v1.Descriptor) bool { return !isReferrerType(string(l.MediaType)) })
}

// contentOnly returns the input with the layers that are content.
func (in input) contentOnly() input {
	content := *in.Manifest
	content.Layers = in.Manifest.content()
	in.Manifest = &content
	return in
}

func hasKey(values map[string]string, prefix string) bool {
	for key := range values {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

func isTitled(l v1.Descriptor) bool { return l.Annotations[titleAnnotation] != "" }

// isReferrer matches an artifact that is stored beside an image to describe it, by its type or
// because it has no other content.
func isReferrer(m *Manifest) bool {
	return isReferrerType(m.ArtifactType) || isReferrerType(string(m.Config.MediaType)) || len(m.Layers) > 0 && len(m.content()) == 0
}

func isReferrerType(mediaType string) bool {
	for _, prefix := range []string{
		"application/vnd.dev.cosign.",
		"application/vnd.dev.sigstore.bundle",
		"application/vnd.cncf.notary.signature",
		"application/vnd.dsse.envelope.",
		"application/vnd.in-toto",
		"application/vnd.docker.attestation.manifest.",
		"application/vnd.cyclonedx",
		"application/vnd.syft",
		"application/spdx",
		"text/spdx",
	} {
		if strings.HasPrefix(mediaType, prefix) {
			return true
		}
	}
	return false
}

// isImage matches container images. Titles on all layers say that the layers are
// files, whatever the config says.
func isImage(m *Manifest) bool {
	return m.Config.MediaType.IsConfig() && !allContent(isTitled)(m) && allContent(func(l v1.Descriptor) bool {
		return l.MediaType.IsLayer() || l.MediaType == zstdDockerLayer
	})(m)
}

// isTimoniFiles matches what timoni artifact push wrote: none of its layers is
// CUE. A layer that says nothing is.
func isTimoniFiles(m *Manifest) bool {
	return hasType(timoniConfig)(m) && !slices.ContainsFunc(m.content(), func(l v1.Descriptor) bool {
		content := l.Annotations[timoniContent]
		return content == "" || strings.HasPrefix(content, "module") || strings.HasPrefix(content, "cue.mod")
	})
}

// isImageLabelled matches images whose config has a label that begins with
// prefix. It matches nothing before the labels are read.
func isImageLabelled(prefix string) func(*Manifest) bool {
	return func(m *Manifest) bool { return isImage(m) && hasKey(m.labels, prefix) }
}

// isFiles matches what ORAS pushes: layers that are files with a title.
func isFiles(m *Manifest) bool {
	kind := m.ArtifactType
	if kind == "" {
		kind = string(m.Config.MediaType)
	}
	switch kind {
	case "application/vnd.unknown.artifact.v1", "application/vnd.unknown.config.v1+json",
		string(types.OCIEmptyJSON), string(types.OCIConfigJSON):
	default:
		return false
	}
	return anyLayer(isTitled)(m) && !anyLayer(func(l v1.Descriptor) bool { return !isFileType(l.MediaType) })(m)
}

func isFileType(mediaType types.MediaType) bool {
	switch mediaType {
	case types.OCILayer, types.OCILayerZStd, types.OCIUncompressedLayer, types.OCIEmptyJSON,
		"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json", "text/plain":
		return true
	}
	return false
}

// readLabels returns the manifest with the labels of its image's config.
func readLabels(ctx context.Context, in input) (*Manifest, error) {
	desc := in.Manifest.Config
	if desc.Size > maxConfigBytes {
		return nil, tooLarge("the config of the image has %d bytes, more than the %d that are read", desc.Size, maxConfigBytes)
	}
	f, err := in.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxConfigBytes))
	if err != nil {
		return nil, disk("read the config of the image", err)
	}
	// Thousands of steps of its history and thousands of labels stay below.
	if _, err := (limit.JSON{Values: 50_000}).Scan("the config of the image", body); err != nil {
		return nil, err
	}
	var image struct {
		Config struct{ Labels map[string]string } `json:"config"`
	}
	if err := json.Unmarshal(body, &image); err != nil {
		return nil, invalid("the config of the image cannot be decoded: %s", fault.WordsOf(err))
	}
	labelled := *in.Manifest
	labelled.labels = image.Config.Labels
	if labelled.labels == nil {
		labelled.labels = map[string]string{}
	}
	return &labelled, nil
}

// unknown describes a manifest that no row of the table matches.
func unknown(m *Manifest, o Options) string {
	words := fmt.Sprintf("unsupported artifact %s: manifest %s, artifactType %s, config %s, layers [%s]; supported: %s",
		o.Image, fault.Quote(m.MediaType), fault.Quote(m.ArtifactType), fault.Quote(m.Config.MediaType), layerTypes(m.Layers), supported())
	if allContent(isTitled)(m) {
		words += "; all layers have titles: spec.format " + v1alpha1.FormatFiles + " publishes them as files of these names"
	}
	return words
}

// layerTypes counts layers by their type, in the order in which the types
// first occur.
func layerTypes(layers []v1.Descriptor) string {
	type group struct {
		mediaType types.MediaType
		titled    bool
	}
	count := map[group]int{}
	var groups []group
	for _, l := range layers {
		g := group{l.MediaType, isTitled(l)}
		if count[g]++; count[g] == 1 {
			groups = append(groups, g)
		}
	}
	var parts []string
	for i, g := range groups {
		if i == maxListedTypes {
			parts = append(parts, fmt.Sprintf("and %d other types", len(groups)-i))
			break
		}
		part := fmt.Sprintf("%dx %s", count[g], fault.Quote(g.mediaType))
		if g.titled {
			part += " (titled)"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
