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

package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Pull copies a blob to w. It returns nil only when the answer came to its end
// and was exactly what the descriptor says, size and sha256; until then nothing
// that w got can be trusted. w gets at most desc.Size bytes, and at most maxMeasured
// are read if that is more. The descriptor's URLs and inline data are ignored.
//
// Errors: those of Resolve; FetchFailed for a blob that ends early,
// InvalidArtifact for one that does not match, which stalls if the digest does and the
// size does not. An error of w is returned as it is.
func (r *Repository) Pull(ctx context.Context, desc v1.Descriptor, w io.Writer) error {
	if err := checkDigest(desc.Digest); err != nil || desc.Size < 0 {
		return fault.Stallf(v1alpha1.ReasonInvalidArtifact,
			"a descriptor asks for a blob of %d bytes with digest %s: the size must not be negative and the digest must be a sha256",
			desc.Size, fault.Quote(desc.Digest.String()))
	}
	blob := ask{kind: "blobs", ref: desc.Digest.String()}
	doing := blob.doing(r)
	answer, err := r.send(ctx, blob)
	if err != nil {
		return r.failure(doing, err)
	}
	defer answer.Body.Close()
	if coded(answer.Header) && answer.ContentLength != desc.Size {
		return r.pullCoded(ctx, desc, answer, w)
	}
	if length := answer.ContentLength; length >= 0 && length != desc.Size {
		failed := fault.Retryf(v1alpha1.ReasonInvalidArtifact, "cannot %s: the answer is %d bytes long, the manifest says %d", doing, length, desc.Size)
		if length > max(desc.Size, maxMeasured) {
			return failed
		}
		return misfit(doing, desc, &measured{digest: sha256.New()}, answer.Body, failed)
	}
	if err := r.copyBlob(doing, desc, answer.Body, w); err != nil {
		return err
	}
	r.prove(digestKey{access: r.access, digest: desc.Digest})
	return nil
}

// pullCoded copies a blob that may be compressed on its way. It reads the answer once
// to see which bytes have the digest, and asks again to copy them.
func (r *Repository) pullCoded(ctx context.Context, desc v1.Descriptor, answer *http.Response, w io.Writer) error {
	blob := ask{kind: "blobs", ref: desc.Digest.String()}
	doing := blob.doing(r)
	asSent := r.copyBlob(doing, desc, answer.Body, io.Discard)
	_ = answer.Body.Close() // what is left of it does not matter
	if failed := fault.Of(asSent, ""); failed != nil && failed.Class == fault.Stall {
		return asSent
	}
	again, err := r.send(ctx, blob)
	if err != nil {
		return r.failure(doing, err)
	}
	defer again.Body.Close()
	content := again.Body
	if asSent != nil {
		if content, err = decoder(again.Body); err != nil {
			return fmt.Errorf("%w (its Content-Encoding is %s)", asSent, unpart(fault.Quote(answer.Header.Get("Content-Encoding")), r.secrets()))
		}
		defer content.Close()
	}
	if err := r.copyBlob(doing, desc, content, w); err != nil {
		return err
	}
	r.prove(digestKey{access: r.access, digest: desc.Digest})
	return nil
}

// maxMeasured bounds how much of a blob is read to see whether the size in its
// descriptor is wrong, in bytes; the size in the descriptor does if that is more.
const maxMeasured = 64 << 20

// measured is what was read of a blob.
type measured struct {
	digest hash.Hash
	size   int64
}

// misfit returns the error of an answer that has not the length of the descriptor. rest
// is what of it was not read yet. If the answer has the digest of the descriptor, the
// size in the manifest is wrong for good. If it has not, a proxy may have altered it,
// and failed is the error.
func misfit(doing string, desc v1.Descriptor, read *measured, rest io.Reader, failed error) error {
	n, err := io.Copy(read.digest, io.LimitReader(rest, max(desc.Size, maxMeasured)-read.size))
	if err != nil || hex.EncodeToString(read.digest.Sum(nil)) != desc.Digest.Hex {
		return failed
	}
	return fault.Stallf(v1alpha1.ReasonInvalidArtifact,
		"cannot %s: it has %d bytes, the manifest says %d: publish it again with a manifest that says its size", doing, read.size+n, desc.Size)
}

func (r *Repository) copyBlob(doing string, desc v1.Descriptor, body io.Reader, w io.Writer) error {
	digest := sha256.New()
	source := &source{reader: body}
	n, err := io.CopyN(io.MultiWriter(w, digest), source, desc.Size)
	switch {
	case source.err != nil && !errors.Is(source.err, io.EOF):
		return r.failure(doing, source.err)
	case errors.Is(err, io.EOF):
		return misfit(doing, desc, &measured{digest, n}, http.NoBody, &fault.Error{
			Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: true,
			Err: fmt.Errorf("cannot %s: it ended after %d of %d bytes", doing, n, desc.Size),
		})
	case err != nil:
		return err // of w
	}
	switch n, err := io.CopyN(digest, source, 1); {
	case err == nil:
		return misfit(doing, desc, &measured{digest, desc.Size + n}, source,
			fault.Retryf(v1alpha1.ReasonInvalidArtifact, "cannot %s: it goes on after %d bytes, where the manifest says it ends", doing, desc.Size))
	case !errors.Is(err, io.EOF):
		return r.failure(doing, err)
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != desc.Digest.Hex {
		return fault.Retryf(v1alpha1.ReasonInvalidArtifact, "cannot %s: its bytes have the digest sha256:%s", doing, sum)
	}
	return nil
}

// source remembers how reading ended, to tell a registry that fails from a
// writer that does.
type source struct {
	reader io.Reader
	err    error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.reader.Read(p)
	s.err = err
	return n, err
}
