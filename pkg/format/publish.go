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

	"github.com/fluxcd/pkg/sourceignore"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// publishLayer makes content of a gzip tar layer, filtered as Flux filters. A
// layer that is clean is published as its own bytes, so that the digest which
// consumers check is the one that the signed manifest lists. Any other is
// archived again.
//
// The layer is read twice at most: once to check all of it and to learn its
// paths and ignore files, which may come last, and once more for the files
// that are kept.
func publishLayer(ctx context.Context, in Input, desc v1.Descriptor) (*Content, error) {
	file, err := in.open(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	l := &layer{file: file, limits: in.Options.Limits}
	t, rules, err := survey(ctx, l, in.Options.Ignore)
	if err != nil {
		return nil, err
	}
	files, dropped, err := rules.apply(ctx, t)
	if err != nil {
		return nil, err
	}
	if files == 0 {
		return nil, noFiles(dropped, l.links)
	}
	content := &Content{Path: file.Name(), Digest: desc.Digest, Size: desc.Size, Verbatim: true}
	if in.Options.AlwaysRearchive || desc.Digest.Algorithm != "sha256" || !l.normal || dropped > 0 {
		if content, err = rearchive(ctx, in, l, t); err != nil {
			return nil, err
		}
	}
	content.LayerDigest = desc.Digest
	content.SkippedLinks = l.links
	return content, nil
}

// survey reads all of a layer and keeps no content but that of ignore files.
func survey(ctx context.Context, l *layer, ignore *string) (*tree, *ignoreRules, error) {
	rules, err := newIgnoreRules(ignore)
	if err != nil {
		return nil, nil, err
	}
	t := newTree(l.limits)
	err = l.walk(ctx, func(e entry, content io.Reader) error {
		if err := t.add(e); err != nil {
			return err
		}
		return rules.note(e, content)
	})
	return t, rules, err
}

func noFiles(dropped, links int) error {
	switch {
	case dropped > 0:
		return invalid("every file of the layer is left out by the ignore rules; change spec.ignore or the %s files in the artifact", sourceignore.IgnoreFile)
	case links > 0:
		return invalid("the layer has symbolic links and no files; push the files that they point to")
	default:
		return invalid("the layer has no files; push a folder that has some")
	}
}
