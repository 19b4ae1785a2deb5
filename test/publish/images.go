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

package publish

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"sigs.k8s.io/yaml"
)

// imagesLock is a lock file of no images.
const imagesLock = "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\n"

// described is what of a Kubernetes object its annotations repeat.
type described struct {
	APIVersion string                `json:"apiVersion"`
	Kind       string                `json:"kind"`
	Metadata   struct{ Name string } `json:"metadata"`
}

// TektonBundle returns what tkn bundle push makes of objects, which are YAML: an
// image of Docker schema 2 in which each layer is a tar of one file with JSON.
func TektonBundle(objects ...string) (v1.Image, error) {
	return build(empty.Image, objects, func(object string) (mutate.Addendum, error) {
		about, annotations, err := describe(object, "dev.tekton.image.")
		if err != nil {
			return mutate.Addendum{}, err
		}
		annotations["dev.tekton.image.kind"] = strings.ToLower(about.Kind)
		_, version, _ := strings.Cut(about.APIVersion, "/")
		annotations["dev.tekton.image.apiVersion"] = version
		content, err := yaml.YAMLToJSON([]byte(object))
		if err != nil {
			return mutate.Addendum{}, err
		}
		layer, err := Layer(Files{about.Metadata.Name: string(content)})
		return mutate.Addendum{Layer: static.NewLayer(layer, types.DockerLayer), Annotations: annotations}, err
	})
}

// RawTektonBundle returns a bundle as Tekton's contract also allows: an OCI
// image in which each layer is YAML that is compressed and in no archive.
func RawTektonBundle(objects ...string) (v1.Image, error) {
	return build(ociImage(), objects, func(object string) (mutate.Addendum, error) {
		about, annotations, err := describe(object, "dev.tekton.image.")
		if err != nil {
			return mutate.Addendum{}, err
		}
		annotations["dev.tekton.image.kind"] = strings.ToLower(about.Kind)
		layer, err := compress([]byte(object))
		return mutate.Addendum{Layer: static.NewLayer(layer, types.OCILayer), Annotations: annotations}, err
	})
}

// KyvernoPolicies returns what kyverno oci push makes of policies, which are
// YAML: one layer for each.
func KyvernoPolicies(policies ...string) (v1.Image, error) {
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), "application/vnd.cncf.kyverno.config.v1+json")
	return build(base, policies, func(policy string) (mutate.Addendum, error) {
		_, annotations, err := describe(policy, "io.kyverno.image.")
		layer := static.NewLayer([]byte(policy), "application/vnd.cncf.kyverno.policy.layer.v1+yaml")
		return mutate.Addendum{Layer: layer, Annotations: annotations}, err
	})
}

// describe returns what a YAML object is, and the annotations that say so.
func describe(object, prefix string) (about described, annotations map[string]string, err error) {
	if err := yaml.Unmarshal([]byte(object), &about); err != nil {
		return about, nil, err
	}
	return about, map[string]string{
		prefix + "apiVersion": about.APIVersion,
		prefix + "kind":       about.Kind,
		prefix + "name":       about.Metadata.Name,
	}, nil
}

func build(image v1.Image, parts []string, layer func(string) (mutate.Addendum, error)) (v1.Image, error) {
	for _, part := range parts {
		addendum, err := layer(part)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.Append(image, addendum); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// ImgpkgBundle returns what imgpkg push -b makes of files, to which a lock file
// is added.
func ImgpkgBundle(files Files) (v1.Image, error) {
	locked := Files{".imgpkg/images.yml": imagesLock}
	maps.Copy(locked, files)
	layer, err := Layer(locked)
	if err != nil {
		return nil, err
	}
	image, err := mutate.Config(empty.Image, v1.Config{Labels: map[string]string{"dev.carvel.imgpkg.bundle": "true"}})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, static.NewLayer(layer, types.DockerLayer))
}

// ContainerImage returns an OCI image of trees, of which each is a layer on the
// ones before it. A name that begins with .wh. is a whiteout.
func ContainerImage(trees ...Files) (v1.Image, error) {
	image := ociImage()
	for _, files := range trees {
		layer, err := Layer(files)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, static.NewLayer(layer, types.OCILayer)); err != nil {
			return nil, err
		}
	}
	return image, nil
}

// Zstandard returns files as a layer that is compressed with zstd.
func Zstandard(files Files) (v1.Layer, error) {
	archive, err := Tar(files)
	if err != nil {
		return nil, err
	}
	compressor, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return static.NewLayer(compressor.EncodeAll(archive, nil), types.OCILayerZStd), compressor.Close()
}

// CompressedImage returns an OCI image of one layer that is compressed with zstd.
func CompressedImage(files Files) (v1.Image, error) {
	layer, err := Zstandard(files)
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(ociImage(), layer)
}

func ociImage() v1.Image {
	return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
}

// LayeredArtifact returns an artifact of types of somebody's own: a config and
// one layer for each media type.
func LayeredArtifact(config types.MediaType, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	return mutate.Append(image, addenda(layers)...)
}

// Child is one manifest of an index.
type Child struct {
	Image v1.Image
	// Platform as os/architecture; empty for none.
	Platform string
}

// Index returns an index, of OCI or of Docker by its media type.
func Index(mediaType types.MediaType, children ...Child) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, mediaType)
	for _, child := range children {
		addendum := mutate.IndexAddendum{Add: child.Image}
		if child.Platform != "" {
			platform, err := v1.ParsePlatform(child.Platform)
			if err != nil {
				return nil, err
			}
			addendum.Platform = platform
		}
		index = mutate.AppendManifests(index, addendum)
	}
	return index, nil
}

// Attestation returns what BuildKit lists beside an image, for the platform
// unknown/unknown.
func Attestation(of v1.Image) (Child, error) {
	digest, err := of.Digest()
	if err != nil {
		return Child{}, err
	}
	statement, err := json.Marshal(map[string]any{"_type": "https://in-toto.io/Statement/v0.1", "subject": []any{map[string]string{"name": digest.String()}}})
	if err != nil {
		return Child{}, err
	}
	image, err := mutate.AppendLayers(ociImage(), static.NewLayer(statement, "application/vnd.in-toto+json"))
	if err != nil {
		return Child{}, fmt.Errorf("attestation of %s: %w", digest, err)
	}
	return Child{Image: image, Platform: "unknown/unknown"}, nil
}
