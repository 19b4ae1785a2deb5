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

package reference

import (
	"errors"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Image is a reference to an image: a repository with a tag, a digest, or both.
type Image struct {
	// Repository under its canonical name.
	Repository name.Repository
	// Tag of the image; empty where the reference has no tag.
	Tag string
	// Digest of the manifest; zero where the reference has no digest.
	Digest v1.Hash
}

// ParseImage reads a reference, such as ghcr.io/org/app:v1.0.0 or
// ghcr.io/org/app@sha256:<hex>. Neither tag nor digest is needed, and nothing
// stands for a tag that is not there. The options are those of Parse.
func ParseImage(text string, options ...name.Option) (Image, error) {
	var image Image
	var err error
	named, digest, pinned := strings.Cut(text, "@")
	if pinned {
		if image.Digest, err = ParseDigest(digest); err != nil {
			return Image{}, err
		}
	}
	if i := strings.LastIndexByte(named, ':'); i > strings.LastIndexByte(named, '/') {
		named, image.Tag = named[:i], named[i+1:]
		if !IsTag(image.Tag) {
			return Image{}, errors.New("expected a tag of at most 128 letters, digits and . _ -, which begins with a letter, a digit or _")
		}
	}
	image.Repository, err = Parse(named, options...)
	return image, err
}

// ParseDigest reads the digest of a manifest. Only sha256 is supported.
func ParseDigest(text string) (v1.Hash, error) {
	digest, err := v1.NewHash(text)
	if err != nil || digest.Algorithm != "sha256" {
		return v1.Hash{}, errors.New("expected sha256: and 64 hexadecimal digits in lower case")
	}
	return digest, nil
}
