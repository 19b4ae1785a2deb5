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
	"path"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Annotations of layers that are folders
// (https://oras.land/docs/how_to_guides/manifest_annotations).
const (
	unpackAnnotation  = "io.deis.oras.content.unpack"
	contentAnnotation = "io.deis.oras.content.digest"
)

// readFiles reads an artifact of oras push: layers that are files or folders, each
// with its path as title. It publishes the tree that oras pull would make. A file
// that is an archive by its media type is unpacked at the root instead, which is
// what Argo CD and an OCIRepository do with it.
func readFiles(ctx context.Context, in input) (*Content, error) {
	// An empty layer says that there is no content, and counts as no layer.
	layers := pick(in.Manifest.Layers, func(l v1.Descriptor) bool { return l.MediaType != types.OCIEmptyJSON })
	parts, err := partsOf(layers, in.Limits)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		archived, err := parts[0].isArchive(ctx, in)
		if err != nil {
			return nil, err
		}
		if archived {
			return publishTarball(ctx, in, parts[0].tarball, asAsked)
		}
	}
	if err := in.fetch(ctx, layers); err != nil {
		return nil, err
	}
	return in.assemble(ctx, func(a *assembly) error {
		for _, p := range parts {
			if err := p.addTo(ctx, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// part is a layer with a title.
type part struct {
	tarball
	// title as it is written.
	title string
	// folder is true when the layer is an archive of the folder that the title
	// names.
	folder bool
}

// partsOf returns the layers as files and folders.
func partsOf(layers []v1.Descriptor, limits Limits) ([]part, error) {
	var all []part
	archives := 0
	for _, l := range layers {
		p, err := newPart(l, limits)
		if err != nil {
			return nil, err
		}
		if !p.folder && isCompressedTar(l.MediaType) {
			archives++
		}
		all = append(all, p)
	}
	switch {
	case len(all) == 0:
		return nil, invalid("the artifact has no files; push some with oras push")
	case archives > 0 && len(all) > 1:
		return nil, invalid("the artifact has an archive among other files, and no telling whether it is to be unpacked; push the archive alone, or the folder instead of the archive")
	}
	return all, nil
}

func newPart(desc v1.Descriptor, limits Limits) (part, error) {
	if !isTitled(desc) {
		return part{}, invalid("the artifact has a layer of type %s without a title among files that have one, so that oras pull would leave it out; push it with a name", fault.Quote(desc.MediaType))
	}
	p := part{tarball: tarball{desc: desc}, title: desc.Annotations[titleAnnotation], folder: desc.Annotations[unpackAnnotation] == "true"}
	if err := checkName(p.title, limits); err != nil || !p.folder {
		return p, err
	}
	p.as = new(gzipped)
	if folder := path.Clean(p.title); folder != "." {
		p.under = folder
	}
	promised := desc.Annotations[contentAnnotation]
	if promised == "" {
		return p, nil
	}
	var err error
	if p.sum, err = v1.NewHash(promised); err != nil {
		return part{}, invalid("the folder %s has the content digest %s, which cannot be checked", fault.Quote(p.title), fault.Quote(promised))
	}
	return p, nil
}

func isCompressedTar(mediaType types.MediaType) bool {
	return mediaType == types.OCILayer || mediaType == types.OCILayerZStd
}

// addTo adds the file, or all files of the archive, to a tree.
func (p part) addTo(ctx context.Context, a *assembly) error {
	archived, err := p.isArchive(ctx, a.in)
	if err != nil {
		return err
	}
	if !archived {
		return a.addBlob(ctx, p.title, p.desc)
	}
	l, err := p.open(ctx, a.in)
	if err != nil {
		return err
	}
	defer l.file.Close()
	return a.walk(ctx, l, a.add)
}

// isArchive tells whether the layer is to be unpacked. ORAS calls every file a
// tar unless it is told better, so only its bytes tell.
func (p part) isArchive(ctx context.Context, in input) (bool, error) {
	switch {
	case p.folder || isCompressedTar(p.desc.MediaType):
		return true, nil
	case p.desc.MediaType != types.OCIUncompressedLayer:
		return false, nil
	}
	file, err := in.open(ctx, p.desc)
	if err != nil {
		return false, err
	}
	defer file.Close()
	// The magic of USTAR, PAX and GNU archives.
	magic, err := bytesAt(file, 257, len("ustar"))
	return string(magic) == "ustar", err
}
