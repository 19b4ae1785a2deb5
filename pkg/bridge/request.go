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

// Package bridge carries one image from a reference to a stored artifact: Resolve,
// Reuse where it is published already, Verify, and Build, which pulls, reads and stores.
// The command line takes the same steps, with Read instead of Build.
//
// The package knows no cluster: credentials come in as a Repository, demands as a
// Verifier, and what was published before as a value. It writes no status. No error of a
// step has credentials of its Repository in it.
package bridge

import (
	"context"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Repository is one repository of a registry as the credentials of one object
// see it. *registry.Repository is one.
type Repository interface {
	// Name is the canonical name of the repository.
	Name() string
	// Key is the access key: what is equal may share answers and work.
	Key() string
	// Registry identifies the registry that answers: its word on what may be read
	// counts for what was read there, and for nothing else.
	Registry() string
	// Resolve returns the manifest that a query names.
	Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error)
	// HasBlob proves that the credentials may read a blob of the repository.
	HasBlob(ctx context.Context, digest v1.Hash) error
	// Pull copies a blob to its end and checks it.
	Pull(ctx context.Context, desc v1.Descriptor, w io.Writer) error
	// Conceal removes the credentials of the object from a message.
	Conceal(message string) string
}

// concealed returns an error in words without the credentials of a repository: who gets
// them may write them into a manifest, of which errors repeat types and names.
func concealed(repository Repository, err error) error {
	if err == nil {
		return nil
	}
	words := repository.Conceal(err.Error())
	if words == err.Error() {
		return err
	}
	return &concealedError{words: words, err: err}
}

// concealedError is an error in other words than its own.
type concealedError struct {
	words string
	err   error
}

// Error implements error.
func (c *concealedError) Error() string { return c.words }

// Unwrap returns the error.
func (c *concealedError) Unwrap() error { return c.err }

// Store is where artifacts are kept. *store.Store is one.
type Store interface {
	Scratch() (dir string, remove func(), err error)
	Put(ctx context.Context, key store.Key, file store.File) (store.Stored, error)
	Link(ctx context.Context, key store.Key, sha256 string) (store.Stored, bool, error)
	Check(ctx context.Context, key store.Key, artifact meta.Artifact) (store.Stored, bool, error)
}

// Request asks for the file of one image.
type Request struct {
	// Key names the ExternalArtifact that is published.
	Key store.Key
	// Repository to build from, opened with the object's own credentials.
	Repository Repository
	// Candidate to build.
	Candidate *Candidate
	// Content says how the artifact becomes content, and within which limits.
	Content format.Options
	// Constraints are the demands on its format and size. Whether they refuse the image
	// altogether is for the Verifier to say.
	Constraints trust.Constraints
}

// Published is what is published under the key of a request.
type Published struct {
	// Repository that it came from.
	Repository string
	// Digest of the manifest.
	Digest v1.Hash
	// Content is the hash of the content settings, see format.ContentHash.
	Content string
	// Artifact as it was recorded.
	Artifact meta.Artifact
	// Format that the content was read as.
	Format string
	// VerifiedBy names who verified it.
	VerifiedBy string
	// KeepName lets its artifact keep its name while the candidate has another tag of its
	// digest.
	KeepName bool
}

// Image is a resolved reference.
type Image struct {
	// Repository is the canonical name of the repository.
	Repository string
	// Tag that was asked for; empty when only a digest was.
	Tag string
	// Digest of the manifest; zero when the resolution failed.
	Digest v1.Hash
}

// String returns the reference as people write it: name:tag@digest.
func (i Image) String() string {
	s := i.Repository
	if i.Tag != "" {
		s += ":" + i.Tag
	}
	if i.Digest != (v1.Hash{}) {
		s += "@" + i.Digest.String()
	}
	return s
}

// Outcome is what became of a request.
type Outcome struct {
	// Image of the candidate.
	Image Image
	// Unchanged tells that what was published is kept as it is, bytes included.
	Unchanged bool
	// Artifact to publish.
	Artifact meta.Artifact
	// Format that the content was read as.
	Format string
	// Content is the hash of the content settings.
	Content string
	// VerifiedBy names who verified the image; empty when nobody was asked to.
	VerifiedBy string
	// Proof is what the Verifier returned; its zero value when what was published is kept.
	Proof trust.Verified
	// Bytes that were fetched of the image, as they are in the registry; 0 when
	// what was published is kept.
	Bytes int64
	// SkippedLinks counts symbolic links that were left out.
	SkippedLinks int
	// IgnoreFlaw is that of format.Content; empty when what was published is kept.
	IgnoreFlaw string

	revision string
	// chartVersion of the Helm chart that is published.
	chartVersion string
}
