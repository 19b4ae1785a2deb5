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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// selected reads the one layer that spec.layerSelector names, whatever the
// artifact is, with the meaning that an OCIRepository gives it.
type selected sourcev1.OCILayerSelector

// selector returns what spec.layerSelector asks for; ok is false when it asks
// for nothing.
func (o Options) selector() (s sourcev1.OCILayerSelector, ok bool) {
	if o.LayerSelector == nil || *o.LayerSelector == (sourcev1.OCILayerSelector{}) {
		return sourcev1.OCILayerSelector{}, false
	}
	return *o.LayerSelector, true
}

// read extracts the layer into a tree, filtered as Flux filters, or copies its
// bytes. A chart is checked as one: its consumer is known.
func (s selected) read(ctx context.Context, in input) (*Content, error) {
	desc, err := s.layer(in.Manifest)
	if err != nil {
		return nil, err
	}
	switch {
	case s.Operation != sourcev1.OCILayerCopy:
		return s.extract(ctx, in, desc)
	case desc.MediaType == helmChart:
		return publishChart(ctx, in, desc)
	default:
		return copyLayer(ctx, in, desc)
	}
}

// extract unpacks a layer, whatever its media type says.
func (s selected) extract(ctx context.Context, in input, desc v1.Descriptor) (*Content, error) {
	l, err := in.sniffed(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer l.file.Close()
	if l.compression == uncompressed {
		isTar, err := l.isTar(ctx)
		if err != nil {
			return nil, err
		}
		if !isTar {
			return nil, invalid("the layer of type %s that spec.layerSelector selects is no tar, nor compressed with gzip or zstd; publish its bytes as they are with operation: %s",
				fault.Quote(desc.MediaType), sourcev1.OCILayerCopy)
		}
	}
	return publishTarball(ctx, in, tarball{desc: desc, as: &l.compression}, likeFlux)
}

// layer returns the first layer of the media type, or the first of all. The
// first layer of a chart says nothing, since Helm sorts them by digest: there
// it is the chart.
func (s selected) layer(m *Manifest) (v1.Descriptor, error) {
	if s.MediaType == "" && hasType(helmConfig)(m) {
		return chartLayer(m.Layers)
	}
	for _, l := range m.Layers {
		if s.MediaType == "" || l.MediaType == types.MediaType(s.MediaType) {
			return l, nil
		}
	}
	if len(m.Layers) == 0 {
		return v1.Descriptor{}, invalid("the artifact has no layers, so spec.layerSelector has none to select")
	}
	return v1.Descriptor{}, invalid("the artifact has no layer of the type %s that spec.layerSelector selects, only [%s]; set mediaType to one of these",
		fault.Quote(s.MediaType), layerTypes(m.Layers))
}

// checkSelector refuses an operation that is none.
func checkSelector(s sourcev1.OCILayerSelector) error {
	switch s.Operation {
	case "", sourcev1.OCILayerExtract, sourcev1.OCILayerCopy:
		return nil
	}
	return invalidSpec("spec.layerSelector.operation is %s; expected %s or %s", fault.Quote(s.Operation), sourcev1.OCILayerExtract, sourcev1.OCILayerCopy)
}
