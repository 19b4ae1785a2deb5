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
	// Tag to look up; with Digest it only names what the digest is called.
	Tag string
	// Digest of the manifest; zero: the one that Tag points at.
	Digest v1.Hash
	// MaxAge is how old a shared answer for Tag may be.
	MaxAge time.Duration
	// Fresh asks the registry whatever is known.
	Fresh bool
}

// Candidate is an image that a reference stands for.
type Candidate struct {
	Image

	manifest *registry.Manifest // nil until it was read
}

// Manifest returns the manifest as the registry keeps it; nil until it was read.
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

// Resolve returns the images that a reference stands for, the preferred one first; today
// that is one. It is the only step that sends a tag to a registry. A digest is its own
// resolution: nothing is asked.
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

// errUnverified is a mistake in this program: a Verifier that proves nothing, or
// something of another image.
var errUnverified = errors.New("an image that nobody verified must not be pulled")

// Verify makes the proof that a candidate may be pulled. It reads the manifest before it
// asks the verifier.
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
