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
)

// readImage reads the file system of a container image: that which the layers
// make, one on the other. An image that is one clean layer is published as that
// layer.
func readImage(ctx context.Context, in input) (*Content, error) {
	in = in.contentOnly()
	if err := in.fetch(ctx, in.Manifest.Layers); err != nil {
		return nil, err
	}
	return in.assemble(ctx, func(a *assembly) error {
		o := newOverlay(in.Limits, in.Report)
		for number, desc := range in.Manifest.Layers {
			if err := a.apply(ctx, o, desc); err != nil {
				return inLayer(number, in.Manifest.Layers, err)
			}
		}
		var err error
		a.tree, a.links, err = o.flatten()
		return err
	})
}

// apply puts a layer on those that were applied before.
func (a *assembly) apply(ctx context.Context, o *overlay, desc v1.Descriptor) error {
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
