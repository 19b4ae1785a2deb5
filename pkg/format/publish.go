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
	"errors"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// tarball is a layer to unpack, and what its annotations promise about it.
type tarball struct {
	desc v1.Descriptor
	// as is how it is compressed; nil: as its media type says.
	as *compression
	// under and sum are those of layer.
	under string
	sum   v1.Hash
	// check looks into what is kept of the layer; nil: nothing does.
	check func(ctx context.Context, l *layer, t *tree) error
}

// open opens the layer.
func (t tarball) open(ctx context.Context, in input) (*layer, error) {
	file, err := in.open(ctx, t.desc)
	if err != nil {
		return nil, err
	}
	as := compressionOf(t.desc.MediaType)
	if t.as != nil {
		as = *t.as
	}
	return &layer{file: file, compression: as, limits: in.Limits, under: t.under, sum: t.sum, report: in.Report}, nil
}

// sniffed opens a layer by its first bytes: those who give it a media type of their own
// say by it what the layer is for, not how it is compressed.
func (in input) sniffed(ctx context.Context, desc v1.Descriptor) (*layer, error) {
	file, err := in.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	head, err := bytesAt(file, 0, len(zstdMagic))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &layer{file: file, compression: compressionBy(head), limits: in.Limits}, nil
}

// publishTarball makes content of a gzip tar layer, less what the filter leaves
// out. A layer that is clean is published as its own bytes, so that the digest
// which consumers check is the one that the signed manifest lists. Any other is
// archived again.
//
// The layer is read once to check all of it and to learn its paths and ignore
// files, which may come last, and once more for the files that are kept, and for
// the look into them, where there are such.
func publishTarball(ctx context.Context, in input, from tarball, f filter) (*Content, error) {
	desc := from.desc
	l, err := from.open(ctx, in)
	if err != nil {
		return nil, err
	}
	defer l.file.Close()
	rules, err := newIgnoreRules(f, in.Ignore)
	if err != nil {
		return nil, err
	}
	t, err := survey(ctx, l, rules)
	if err != nil {
		return nil, err
	}
	dropped, err := rules.leaveOut(ctx, t, l.links, in.Report)
	if err != nil {
		return nil, err
	}
	l.report = nil // it knows everything from the first reading
	if from.check != nil {
		if err := from.check(ctx, l, t); err != nil {
			return nil, err
		}
	}
	content := asIs(l, desc)
	if content == nil || dropped > 0 || t.again {
		if content, err = rearchive(ctx, in, l, t); err != nil {
			return nil, err
		}
	}
	content.SkippedLinks = l.links
	content.IgnoreFlaw = rules.flaw
	return content, nil
}

// asIs returns the content that is the layer itself, nil when it must be
// archived again.
func asIs(l *layer, desc v1.Descriptor) *Content {
	if desc.Digest.Algorithm != "sha256" || !l.normal {
		return nil
	}
	return &Content{Path: l.file.Name(), Digest: desc.Digest, Size: desc.Size, Verbatim: true}
}

// copyLayer publishes the bytes of a layer as they are, whatever they are.
func copyLayer(ctx context.Context, in input, desc v1.Descriptor) (*Content, error) {
	file, err := in.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return verbatim(ctx, file, desc)
}

// verbatim is the content that is the blob in file.
func verbatim(ctx context.Context, file *os.File, desc v1.Descriptor) (*Content, error) {
	content := &Content{Path: file.Name(), Digest: desc.Digest, Size: desc.Size, Verbatim: true}
	if desc.Digest.Algorithm == "sha256" {
		return content, nil
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, disk("read the layer", err)
	}
	var err error
	content.Digest, _, err = v1.SHA256(scratchFile(ctx, file))
	return content, err
}

// survey reads all of a layer and keeps no content but that of ignore files.
func survey(ctx context.Context, l *layer, rules *ignoreRules) (*tree, error) {
	t := newTree(l.limits)
	err := l.walk(ctx, &amount{}, func(e entry, content io.Reader) error {
		if err := t.add(e); err != nil {
			return err
		}
		return rules.note(e, content)
	})
	return t, err
}

// bytesAt returns as many bytes of a file at an offset, or those that there are.
func bytesAt(file io.ReaderAt, offset int64, count int) ([]byte, error) {
	buf := make([]byte, count)
	n, err := file.ReadAt(buf, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, disk("read the layer", err)
	}
	return buf[:n], nil
}
