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

// Package bridge carries one image from a reference to a stored artifact: Resolve, Reuse if
// it is published already, Verify, and Build, which pulls, reads and stores. The command
// line takes the same steps, with Read instead of Build.
//
// The package knows no cluster: credentials come in as a Repository, demands as a Verifier,
// and the published artifact as a value. It writes no status. No error contains credentials
// of the Repository.
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

// Repository is one repository of a registry, opened with the credentials of one object.
// *registry.Repository implements it.
type Repository interface {
	// Name is the canonical name of the repository.
	Name() string
	// Key is the access key: callers with equal keys may share answers and work.
	Key() string
	// Registry identifies the registry that answers. It decides only about access to content
	// that was read from it.
	Registry() string
	// Resolve returns the manifest that a query names.
	Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error)
	// HasBlob proves that the credentials may read a blob of the repository.
	HasBlob(ctx context.Context, digest v1.Hash) error
	// Pull copies a whole blob and checks it.
	Pull(ctx context.Context, desc v1.Descriptor, w io.Writer) error
	// Conceal removes the credentials of the object from a message.
	Conceal(message string) string
}

// concealed removes the credentials of a repository from an error: the registry receives
// them, may write them into a manifest, and errors repeat types and names of a manifest.
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

// concealedError is an error with another message.
type concealedError struct {
	words string
	err   error
}

// Error implements error.
func (c *concealedError) Error() string { return c.words }

// Unwrap returns the original error.
func (c *concealedError) Unwrap() error { return c.err }

// Store stores artifacts. *store.Store implements it.
type Store interface {
	Scratch() (dir string, remove func(), err error)
	Put(ctx context.Context, key store.Key, file store.File) (store.Stored, error)
	Link(ctx context.Context, key store.Key, sha256 string) (store.Stored, bool, error)
	Check(ctx context.Context, key store.Key, artifact meta.Artifact) (store.Stored, bool, error)
}

// Request asks for the file of one image.
type Request struct {
	// Key names the ExternalArtifact.
	Key store.Key
	// Repository to build from, opened with the object's own credentials.
	Repository Repository
	// Candidate to build.
	Candidate *Candidate
	// Content has the settings and limits for the conversion of the artifact to content.
	Content format.Options
	// Constraints are the demands on its format and size. The Verifier decides whether they
	// refuse the image altogether.
	Constraints trust.Constraints
}

// Published is the published artifact under the key of a request.
type Published struct {
	// Repository of the image.
	Repository string
	// Digest of the manifest.
	Digest v1.Hash
	// Content is the hash of the content settings, see format.ContentHash.
	Content string
	// Artifact as it was recorded.
	Artifact meta.Artifact
	// Format of the content.
	Format string
	// VerifiedBy names the signers.
	VerifiedBy string
	// KeepName keeps the name of the artifact if the candidate has another tag of the same
	// digest.
	KeepName bool
}

// Image is a resolved reference.
type Image struct {
	// Repository is the canonical name of the repository.
	Repository string
	// Tag of the reference; empty if it had only a digest.
	Tag string
	// Digest of the manifest; zero when the resolution failed.
	Digest v1.Hash
}

// String returns the reference in its usual form: name:tag@digest.
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

// Outcome is the result of a request.
type Outcome struct {
	// Image of the candidate.
	Image Image
	// Unchanged: the published artifact is kept as it is, bytes included.
	Unchanged bool
	// Artifact to publish.
	Artifact meta.Artifact
	// Format of the content.
	Format string
	// Content is the hash of the content settings.
	Content string
	// VerifiedBy names the signers; empty without a demand for signatures.
	VerifiedBy string
	// Proof of the Verifier; zero if the published artifact is kept.
	Proof trust.Verified
	// Bytes fetched for the image, as stored in the registry; 0 if the published artifact is
	// kept.
	Bytes int64
	// SkippedLinks counts omitted symbolic links.
	SkippedLinks int
	// IgnoreFlaw is that of format.Content; empty if the published artifact is kept.
	IgnoreFlaw string

	revision string
	// chartVersion of the published Helm chart.
	chartVersion string
}
