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
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// image reads the file system of a container image.
type image struct{}

// Name returns the value of spec.format.
func (image) Name() string { return v1alpha1.FormatImage }

// Read publishes the file system that the layers make, one on the other. An
// image that is one clean layer is published as that layer.
func (i image) Read(ctx context.Context, in Input) (*Content, error) {
	in = in.contentOnly()
	if err := in.fetch(ctx, in.Manifest.Layers); err != nil {
		return nil, err
	}
	a, err := newAssembly(in)
	if err != nil {
		return nil, err
	}
	defer a.close()
	o := newOverlay(in.Options.Limits)
	o.report = in.Options.Report
	for number, desc := range in.Manifest.Layers {
		if err := i.apply(ctx, a, o, desc); err != nil {
			return nil, inLayer(number, in.Manifest.Layers, err)
		}
	}
	if a.tree, a.links, err = o.flatten(); err != nil {
		return nil, err
	}
	content, err := a.finish(ctx)
	if err != nil {
		return nil, err
	}
	content.Format = i.Name()
	if len(in.Manifest.Layers) == 1 {
		content.LayerDigest = in.Manifest.Layers[0].Digest
	}
	return content, nil
}

// apply puts a layer on those that were applied before.
func (image) apply(ctx context.Context, a *assembly, o *overlay, desc v1.Descriptor) error {
	l, err := tarball{desc: desc}.open(ctx, a.in)
	if err != nil {
		return err
	}
	defer l.file.Close()
	l.ofImage = true
	o.layer++
	err = a.walk(ctx, l, func(e entry, content io.Reader) error {
		n, err := o.apply(e)
		if err != nil || n == nil {
			return err
		}
		return a.store(n, content)
	})
	if err == nil && o.plain && len(a.in.Manifest.Layers) == 1 {
		a.asIs = asIs(l, desc)
	}
	return err
}
