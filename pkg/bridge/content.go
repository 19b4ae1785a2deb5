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
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"k8s.io/utils/lru"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// maxContents bounds the index of converted contents. An entry is a few hundred bytes, and
// up to 30 KiB for an index with many annotations and a hundred layers; an evicted entry
// costs another pull.
const maxContents = 2000

// contents has the converted contents and the running conversions, so that equal content is
// pulled and read once for any number of sources.
type contents struct {
	made     *lru.Cache
	flights  flight.Group[flightID, content]
	failures *failures
}

// contentID identifies content: the same manifest and the same settings result in the same
// bytes. The registry is part of it, because an untrusted registry can claim to have any
// content.
type contentID struct {
	registry string
	digest   v1.Hash
	settings string
	// platform as written in the spec: an explicit default refuses an index of which an
	// unset one may take a manifest of another platform.
	platform string
}

// flightID shares work in progress only between equal access keys and equal constraints: the
// constraints of one source must not fail the pull of another.
type flightID struct {
	access      string
	constraints string
	contentID
}

// content describes a pulled manifest.
type content struct {
	sha256       string
	format       string
	bytes        int64 // fetched
	skippedLinks int
	// ignoreFlaw is that of format.Content.
	ignoreFlaw string
	// chartVersion is that of format.Content.
	chartVersion string
	// annotations of the manifest chosen from an index; nil without an index.
	annotations map[string]string
	// origin is the repository of the bytes, blobs are the pulled blobs.
	origin string
	blobs  []v1.Hash
}

func newContents(now func() time.Time) *contents {
	return &contents{made: lru.New(maxContents), failures: newFailures(now)}
}

func (c *contents) get(id contentID) (content, bool) {
	made, ok := c.made.Get(id)
	if !ok {
		return content{}, false
	}
	return made.(content), true
}

// content returns the stored content of a verified manifest: that of another source, if the
// credentials of this one may read it too, or else it is pulled and read now, once for all
// callers with the same access key.
func (b *Bridge) content(ctx context.Context, r Request, verified trust.Verified, manifest *format.Manifest) (content, store.Stored, error) {
	subject, ok := verified.Subject()
	if !ok {
		return content{}, store.Stored{}, errUnverified
	}
	id := contentID{registry: r.Repository.Registry(), digest: subject.Digest, settings: format.ContentHash(r.Content), platform: r.Content.Platform}
	if made, ok := b.contents.get(id); ok {
		if err := mayRead(ctx, r.Repository, made); err != nil {
			return content{}, store.Stored{}, err
		}
		if err := made.admitted(r.Constraints); err != nil {
			return content{}, store.Stored{}, err
		}
		if stored, ok, err := b.store.Link(ctx, r.Key, made.sha256); ok || err != nil {
			return made, stored, err
		}
		b.contents.made.Remove(id)
	}
	made, err := b.convertOnce(ctx, r, id, manifest)
	if err == nil {
		err = made.admitted(r.Constraints)
	}
	if err != nil {
		return content{}, store.Stored{}, err
	}
	stored, ok, err := b.store.Link(ctx, r.Key, made.sha256)
	if err == nil && !ok {
		err = fault.Retryf(v1alpha1.ReasonStorageOperationFailed, "the stored content of %s was removed before it could be published", subject.Digest)
	}
	return made, stored, err
}

// convertOnce converts a manifest once for all concurrent callers with the same access key.
// If the work hit the deadline of another caller, it starts again: the shortest timeout of
// many must not decide for all.
func (b *Bridge) convertOnce(ctx context.Context, r Request, id contentID, manifest *format.Manifest) (content, error) {
	work := flightID{access: r.Repository.Key(), constraints: r.Constraints.Fingerprint(), contentID: id}
	attempt := failureID{flightID: work, limits: r.Content.Limits, image: r.Content.Image}
	for {
		if err := b.contents.failures.expected(ctx, attempt); err != nil {
			return content{}, err
		}
		made, shared, err := b.contents.flights.Do(ctx, work, func(ctx context.Context) (content, error) {
			if made, ok := b.contents.get(id); ok && mayRead(ctx, r.Repository, made) == nil { // another flight has just landed
				return made, nil
			}
			had := timeLeft(ctx)
			made, pulled, err := b.convert(ctx, r, manifest)
			if pulled {
				b.contents.failures.note(ctx, attempt, had, err)
			}
			if err == nil {
				b.contents.made.Add(id, made)
			}
			return made, err
		})
		if !shared || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return made, err
		}
	}
}

// admitted returns an error unless constraints admit content.
func (c content) admitted(constraints trust.Constraints) error {
	_, err := constraints.Admit(trust.Content{Format: c.format, Bytes: c.bytes})
	return err
}

// mayRead proves that the credentials of a repository open content that was read with other
// credentials at the same registry. Resolving has proven this for the manifest; blobs need a
// proof if they came from another repository.
func mayRead(ctx context.Context, repository Repository, made content) error {
	if made.origin == repository.Name() {
		return nil
	}
	for _, blob := range made.blobs {
		if err := repository.HasBlob(ctx, blob); err != nil {
			return err
		}
	}
	return nil
}

// convert pulls the blobs that the format of a manifest needs, reads them and stores the
// result. pulled reports whether all requested blobs were pulled, or can never be: then the
// registry is not to blame for a failure.
func (b *Bridge) convert(ctx context.Context, r Request, manifest *format.Manifest) (made content, pulled bool, err error) {
	scratch, remove, err := b.store.Scratch()
	if err != nil {
		return content{}, false, err
	}
	defer remove()
	read, blobs, err := unpack(ctx, r, manifest, scratch)
	if err != nil {
		return content{}, !blobs.failed, err
	}
	made = content{
		sha256:       read.Digest.Hex,
		format:       read.Format,
		bytes:        blobs.bytes,
		skippedLinks: read.SkippedLinks,
		ignoreFlaw:   read.IgnoreFlaw,
		chartVersion: read.ChartVersion,
		origin:       r.Repository.Name(),
		blobs:        blobs.pulled,
	}
	if manifest.Index != nil {
		made.annotations = fitting(read.Annotations, maxMetadataKeys, maxKeptBytes)
	}
	if err := made.admitted(r.Constraints); err != nil {
		return content{}, true, err
	}
	file := store.File{Path: read.Path, SHA256: read.Digest.Hex, Size: read.Size}
	_, err = b.store.Put(ctx, r.Key, file)
	return made, err == nil, err
}

// spool implements format.Blobs with a repository: each blob is pulled completely into a
// file and checked before it is read.
type spool struct {
	repository  Repository
	dir         string
	limit       int64 // in bytes, by the platform
	constraints trust.Constraints
	bytes       int64
	pulled      []v1.Hash
	// failed: a blob or manifest is missing for a reason that another attempt may not meet.
	failed bool
}

// isPassing reports whether another attempt at the same digest, within the same limits, may
// end otherwise.
func isPassing(err error) bool {
	failed := fault.Of(err, "")
	return failed != nil && (failed.Class != fault.Stall || failed.Reason != v1alpha1.ReasonInvalidArtifact && failed.Reason != v1alpha1.ReasonLimitExceeded)
}

// Manifest returns a manifest that the published one lists. Its digest is the publisher's
// choice, so moved tags have no effect.
func (s *spool) Manifest(ctx context.Context, desc v1.Descriptor) (_ types.MediaType, _ []byte, err error) {
	defer func() { s.failed = s.failed || isPassing(err) }()
	if desc.Digest.Algorithm != "sha256" {
		return "", nil, fault.Stallf(v1alpha1.ReasonInvalidArtifact, "the manifest %s is listed by a digest that is no sha256: publish it with one", desc.Digest)
	}
	manifest, err := s.repository.Resolve(ctx, registry.Query{Digest: desc.Digest})
	if err != nil {
		return "", nil, err
	}
	if size := int64(len(manifest.Body)); size != desc.Size {
		return "", nil, fault.Stallf(v1alpha1.ReasonInvalidArtifact, "the manifest %s has %d bytes, but it is listed with %d", desc.Digest, size, desc.Size)
	}
	return manifest.MediaType, manifest.Body, nil
}

// Open pulls a blob and returns its file at the start. It pulls a blob once.
func (s *spool) Open(ctx context.Context, desc v1.Descriptor) (_ *os.File, err error) {
	defer func() { s.failed = s.failed || isPassing(err) }()
	path := filepath.Join(s.dir, desc.Digest.Hex)
	if slices.Contains(s.pulled, desc.Digest) {
		return reopen(path, desc)
	}
	if left := s.limit - s.bytes; desc.Size > left {
		return nil, fault.Stallf(v1alpha1.ReasonLimitExceeded,
			"the artifact is larger than allowed: its blob %s has %d bytes where %d are left of the limit: publish less, or raise --max-artifact-bytes",
			desc.Digest, desc.Size, left)
	}
	if err := s.constraints.AdmitBytes(s.bytes + desc.Size); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // a digest in a folder of our own
	if err != nil {
		return nil, storageFault(err)
	}
	if err := s.pull(ctx, desc, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.bytes += desc.Size
	s.pulled = append(s.pulled, desc.Digest)
	return file, nil
}

// reopen opens a blob that was checked against another descriptor of the same digest,
// possibly with another size.
func reopen(path string, desc v1.Descriptor) (*os.File, error) {
	file, err := os.Open(path) //nolint:gosec // a digest in a folder of our own
	if err != nil {
		return nil, storageFault(err)
	}
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, errors.Join(storageFault(err), file.Close())
	case info.Size() != desc.Size:
		return nil, errors.Join(fault.Stallf(v1alpha1.ReasonInvalidArtifact, "the blob %s has %d bytes, but it is also listed with %d", desc.Digest, info.Size(), desc.Size), file.Close())
	}
	return file, nil
}

func (s *spool) pull(ctx context.Context, desc v1.Descriptor, file *os.File) error {
	if err := s.repository.Pull(ctx, desc, diskWriter{file}); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return storageFault(err)
	}
	return nil
}

// diskWriter marks its errors as failures of the disk, not of the registry.
type diskWriter struct{ file *os.File }

func (w diskWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if err != nil {
		err = storageFault(err)
	}
	return n, err
}

func storageFault(err error) error {
	return store.ScratchFault("keep a blob of the artifact", err)
}
