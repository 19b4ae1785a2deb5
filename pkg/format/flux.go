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
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Media types of https://fluxcd.io/flux/cheatsheets/oci-artifacts/.
const (
	fluxConfig  = "application/vnd.cncf.flux.config.v1+json"
	fluxContent = "application/vnd.cncf.flux.content.v1.tar+gzip"
	// fluxStatic begins the types of layers that are one file as it is, which
	// Flux's library can push but Flux's controllers cannot read.
	fluxStatic = "application/vnd.cncf.flux.content.v1"
)

// readFlux reads an artifact of flux push artifact: one gzip tar of a source tree. It
// publishes the content layer, less what an OCIRepository would leave out too:
// what the .sourceignore files in the tree and the ignore option match, or
// without either what Flux leaves out by default.
func readFlux(ctx context.Context, in input) (*Content, error) {
	in = in.contentOnly()
	desc, err := fluxLayer(in.Manifest.Layers)
	if err != nil {
		return nil, err
	}
	return publishTarball(ctx, in, tarball{desc: desc}, likeFlux)
}

// fluxLayer returns the one layer that a Flux artifact has.
func fluxLayer(layers []v1.Descriptor) (v1.Descriptor, error) {
	contents := 0
	for _, l := range layers {
		switch mediaType := string(l.MediaType); {
		case mediaType == fluxContent:
			contents++
		case strings.HasPrefix(mediaType, fluxStatic):
			return v1.Descriptor{}, unsupported("the Flux artifact has a layer of type %s, a file as it is; expected a gzip tar (%s): push a folder or a file with flux push artifact",
				fault.Quote(mediaType), fluxContent)
		default:
			return v1.Descriptor{}, unsupported("the Flux artifact has a layer of type %s; expected one layer of type %s", fault.Quote(mediaType), fluxContent)
		}
	}
	switch contents {
	case 0:
		return v1.Descriptor{}, invalid("the Flux artifact has no layers; expected one of type %s", fluxContent)
	case 1:
		return layers[0], nil
	default:
		return v1.Descriptor{}, invalid("the Flux artifact has %d content layers, of which Flux itself would read only the first; push it with one", contents)
	}
}
