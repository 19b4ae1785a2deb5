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

package bridge

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Reference names an image of a repository.
type Reference struct {
	// Tag to look up; with Digest it is only the name of the digest.
	Tag string
	// Digest of the manifest; if zero, the digest of Tag.
	Digest v1.Hash
	// MaxAge is how old a shared answer for Tag may be.
	MaxAge time.Duration
	// Fresh asks the registry, even if the answer is known.
	Fresh bool
}

// Candidate is the image of a reference.
type Candidate struct {
	Image

	manifest *registry.Manifest // nil until it was read
}

// Manifest returns the manifest as stored in the registry; nil until it was read.
func (c *Candidate) Manifest() *registry.Manifest { return c.manifest }

// read reads the manifest of the digest, once.
func (c *Candidate) read(ctx context.Context, repository Repository) (*registry.Manifest, error) {
	if c.manifest == nil || c.manifest.Digest != c.Digest {
		manifest, err := repository.Resolve(ctx, registry.Query{Digest: c.Digest})
		if err != nil {
			return nil, err
		}
		c.manifest = manifest
	}
	return c.manifest, nil
}

// Resolve returns the images of a reference, the preferred one first; today there is only
// one. No other step sends a tag to a registry. A digest needs no request.
func Resolve(ctx context.Context, repository Repository, r Reference) ([]*Candidate, error) {
	c := &Candidate{Image: Image{Repository: repository.Name(), Tag: r.Tag, Digest: r.Digest}}
	if r.Digest == (v1.Hash{}) {
		manifest, err := repository.Resolve(ctx, registry.Query{Tag: r.Tag, MaxAge: r.MaxAge, Fresh: r.Fresh})
		if err != nil {
			return nil, concealed(repository, err)
		}
		c.Digest, c.manifest = manifest.Digest, manifest
	}
	return []*Candidate{c}, nil
}

// errUnverified is a bug in this program: a Verifier without a proof, or with a proof of
// another image.
var errUnverified = errors.New("an image without verification must not be pulled")

// Verify makes the proof for pulling a candidate. It reads the manifest before it asks the
// verifier.
func Verify(ctx context.Context, repository Repository, c *Candidate, by trust.Verifier) (trust.Verified, error) {
	if _, err := c.read(ctx, repository); err != nil {
		return trust.Verified{}, concealed(repository, err)
	}
	proof, err := by.Verify(ctx, c.subject())
	if err == nil {
		err = c.provenBy(proof)
	}
	if err != nil {
		return trust.Verified{}, concealed(repository, err)
	}
	return proof, nil
}

func (c *Candidate) subject() trust.Subject {
	return trust.Subject{Repository: c.Repository, Digest: c.Digest}
}

// provenBy returns an error unless a proof is of this candidate.
func (c *Candidate) provenBy(proof trust.Verified) error {
	if subject, ok := proof.Subject(); !ok || subject != c.subject() {
		return errUnverified
	}
	return nil
}
