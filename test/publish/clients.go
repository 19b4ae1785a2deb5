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
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	fluxoci "github.com/fluxcd/pkg/oci"
	"github.com/google/go-containerregistry/pkg/crane"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/registry"
	"oras.land/oras-go/v2"
	orasfile "oras.land/oras-go/v2/content/file"
	orasremote "oras.land/oras-go/v2/registry/remote"
)

// What follows pushes with the library that the tool of a format is made of.
// Neither credentials nor a transport of the registry are used.

// FluxCLI pushes files by the library of the Flux CLI and returns the digest.
func (r Registry) FluxCLI(ctx context.Context, image string, files Files) (digest string, err error) {
	err = files.inFolder(func(dir string) error {
		client := fluxoci.NewClient([]crane.Option{crane.Insecure})
		url := r.Host + "/" + image
		_, err := client.Push(ctx, url, dir, fluxoci.WithPushMetadata(fluxoci.Metadata{
			Source: "https://github.com/org/app.git", Revision: "main@sha1:0123456789abcdef0123456789abcdef01234567",
		}))
		if err == nil {
			digest, err = crane.Digest(url, crane.Insecure, crane.WithContext(ctx))
		}
		return err
	})
	return digest, err
}

// Chart is a Helm chart.
type Chart struct {
	Name, Version string
	// Files beside Chart.yaml.
	Files Files
	// Provenance is pushed beside the chart; empty for none.
	Provenance string
}

// Package returns the archive that helm package makes of a chart.
func (c Chart) Package() ([]byte, error) {
	manifest := fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", c.Name, c.Version)
	files := []*archive.BufferedFile{{Name: "Chart.yaml", Data: []byte(manifest)}}
	for _, path := range slices.Sorted(maps.Keys(c.Files)) {
		files = append(files, &archive.BufferedFile{Name: path, Data: []byte(c.Files[path])})
	}
	chart, err := loader.LoadFiles(files)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "chart-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path, err := chartutil.Save(chart, dir)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// Helm pushes a chart into a folder of the registry by the library of Helm. The
// image is <folder>/<name of the chart>, the tag the version with an underscore
// for a plus sign.
func (r Registry) Helm(folder string, chart Chart) (*registry.PushResult, error) {
	content, err := chart.Package()
	if err != nil {
		return nil, err
	}
	client, err := registry.NewClient(registry.ClientOptPlainHTTP(), registry.ClientOptWriter(io.Discard),
		registry.ClientOptCredentialsFile(filepath.Join(os.TempDir(), "no-such-folder", "config.json")))
	if err != nil {
		return nil, err
	}
	var options []registry.PushOption
	if chart.Provenance != "" {
		options = append(options, registry.PushOptProvData([]byte(chart.Provenance)))
	}
	return client.Push(content, fmt.Sprintf("%s/%s/%s:%s", r.Host, folder, chart.Name, chart.Version), options...)
}

// Packing is how ORAS packs files.
type Packing struct {
	// Version of the manifest's rules; zero for those of OCI 1.1.
	Version oras.PackManifestVersion
	// ArtifactType, or of OCI 1.0 the type of the config; empty for ORAS' own.
	ArtifactType string
	// Parts are the files and folders to push.
	Parts []Part
}

// Part is a file or a folder that becomes a layer.
type Part struct {
	// Title is its path.
	Title string
	// MediaType of a file; empty for ORAS' own.
	MediaType string
}

// ORAS pushes files and folders by the library of ORAS and returns the digest.
func (r Registry) ORAS(ctx context.Context, image string, files Files, packing Packing) (digest string, err error) {
	err = files.inFolder(func(dir string) error {
		store, err := orasfile.New(dir)
		if err != nil {
			return err
		}
		defer store.Close()
		manifest, err := packing.pack(ctx, store)
		if err != nil {
			return err
		}
		repository, err := orasremote.NewRepository(r.Host + "/" + image)
		if err != nil {
			return err
		}
		repository.PlainHTTP = true
		tag := repository.Reference.Reference
		if err := store.Tag(ctx, manifest, tag); err != nil {
			return err
		}
		digest = manifest.Digest.String()
		_, err = oras.Copy(ctx, store, tag, repository, tag, oras.DefaultCopyOptions)
		return err
	})
	return digest, err
}

func (p Packing) pack(ctx context.Context, store *orasfile.Store) (ocispec.Descriptor, error) {
	version := p.Version
	if version == 0 {
		version = oras.PackManifestVersion1_1
	}
	artifactType := p.ArtifactType
	if artifactType == "" && version == oras.PackManifestVersion1_1 {
		artifactType = "application/vnd.unknown.artifact.v1" // the default of the command line
	}
	var layers []ocispec.Descriptor
	for _, part := range p.Parts {
		layer, err := store.Add(ctx, part.Title, part.MediaType, "")
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		layers = append(layers, layer)
	}
	return oras.PackManifest(ctx, store, version, artifactType, oras.PackManifestOptions{Layers: layers})
}

// inFolder writes files into a folder that is there while do runs.
func (f Files) inFolder(do func(dir string) error) error {
	dir, err := os.MkdirTemp("", "publish-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for path, content := range f {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o750); err != nil {
			return err
		}
		if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return do(dir)
}
