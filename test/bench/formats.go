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

package main

import (
	"context"
	"fmt"
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// recipe is how an artifact of a format comes into the registry.
type recipe struct {
	name, title string
	// format pins how it is read; empty to detect it.
	format string
	// push pushes it to a repository, by whose name no other one is like it.
	push func(ctx context.Context, b *bench, repository string) error
}

// repository is that of one of the artifacts.
func (r recipe) repository(i int) string { return fmt.Sprintf("formats/%s-%d", r.name, i) }

// formats publishes n small artifacts of each format.
func formats(n int) scenario {
	s := scenario{name: "formats", alone: true}
	all := recipes()
	for _, r := range all {
		s.phases = append(s.phases, phase{name: r.name, title: r.title, count: n})
	}
	s.prepare = func(ctx context.Context, b *bench) error {
		for _, r := range all {
			if err := each(ctx, n, func(ctx context.Context, i int) error { return r.push(ctx, b, r.repository(i)) }); err != nil {
				return fmt.Errorf("push %s: %w", r.title, err)
			}
		}
		return nil
	}
	s.run = func(ctx context.Context, l *lap) (used []*usage, err error) {
		for _, r := range all {
			var wanted []source
			for i := range n {
				wanted = append(wanted, source{name: fmt.Sprintf("%s-%d", r.name, i), repository: r.repository(i), tag: first, interval: once, format: r.format})
			}
			u, err := l.work(ctx, wanted, l.create)
			if err != nil {
				return nil, err
			}
			used = append(used, u)
		}
		return used, nil
	}
	return s
}

// recipes are those of all formats.
func recipes() []recipe {
	return []recipe{
		{name: "flux", title: "a Flux artifact", push: func(ctx context.Context, b *bench, repository string) error {
			return b.pushOne(ctx, tiny, repository+":"+first)
		}},
		{name: "helm", title: "a Helm chart", push: func(_ context.Context, b *bench, repository string) error {
			_, err := b.shelf.Helm(path.Dir(repository), publish.Chart{Name: path.Base(repository), Version: first})
			return err
		}},
		{name: "tekton", title: "a Tekton bundle of two tasks", push: built(func(name string) (v1.Image, error) {
			return publish.TektonBundle(manifest("tekton.dev/v1", "Task", name+"-build"), manifest("tekton.dev/v1", "Task", name+"-test"))
		})},
		{name: "imgpkg", title: "a Carvel imgpkg bundle", push: built(func(name string) (v1.Image, error) {
			return publish.ImgpkgBundle(tree(name))
		})},
		{name: "kyverno", title: "two Kyverno policies", push: built(func(name string) (v1.Image, error) {
			return publish.KyvernoPolicies(manifest("kyverno.io/v1", "ClusterPolicy", name+"-labels"), manifest("kyverno.io/v1", "ClusterPolicy", name+"-probes"))
		})},
		{name: "files", title: "two files that ORAS pushed", push: func(ctx context.Context, b *bench, repository string) error {
			name := path.Base(repository)
			files := publish.Files{"a.yaml": manifest("v1", "ConfigMap", name+"-a"), "b.yaml": manifest("v1", "ConfigMap", name+"-b")}
			_, err := b.shelf.ORAS(ctx, repository+":"+first, files, publish.Packing{Parts: []publish.Part{{Title: "a.yaml"}, {Title: "b.yaml"}}})
			return err
		}},
		{name: "image", format: v1alpha1.FormatImage, title: "an image of two layers", push: built(func(name string) (v1.Image, error) {
			return publish.ContainerImage(tree(name), publish.Files{"more.yaml": manifest("v1", "Secret", name)})
		})},
		{name: "index", format: v1alpha1.FormatImage, title: "an index of images for two platforms", push: func(ctx context.Context, b *bench, repository string) error {
			index, err := platforms(path.Base(repository))
			if err != nil {
				return err
			}
			return b.shelf.PushIndex(ctx, repository+":"+first, index)
		}},
	}
}

// built pushes an image that is built by the last part of the repository's name.
func built(build func(name string) (v1.Image, error)) func(context.Context, *bench, string) error {
	return func(ctx context.Context, b *bench, repository string) error {
		artifact, err := build(path.Base(repository))
		if err != nil {
			return err
		}
		return b.shelf.Push(ctx, repository+":"+first, artifact)
	}
}

func platforms(name string) (v1.ImageIndex, error) {
	var children []publish.Child
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		image, err := publish.ContainerImage(tree(name), publish.Files{"platform": platform})
		if err != nil {
			return nil, err
		}
		children = append(children, publish.Child{Image: image, Platform: platform})
	}
	return publish.Index(types.OCIImageIndex, children...)
}

func tree(name string) publish.Files {
	return publish.Files{"app.yaml": manifest("v1", "ConfigMap", name)}
}

func manifest(apiVersion, kind, name string) string {
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n", apiVersion, kind, name)
}
