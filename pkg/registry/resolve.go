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
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Query says which manifest is wanted.
type Query struct {
	// Tag is looked up when Digest is not set.
	Tag string
	// Digest names the manifest; the tag is not asked for then.
	Digest v1.Hash
	// MaxAge is how old a known answer for the tag may be. Zero asks the registry.
	MaxAge time.Duration
	// Fresh asks the registry whatever is known, and waits for no answer to a
	// question that was asked before.
	Fresh bool
}

// Resolve returns the manifest of a query. It costs no request when the answer
// is known and young enough, a HEAD when the tag was resolved before, and a GET
// when the manifest is not known. Equal queries at the same time cost one.
//
// Errors: ImageNotFound, AuthenticationFailed and FetchFailed (retry),
// InvalidArtifact (retry) when the bytes do not match the digest or what the
// registry calls them, LimitExceeded (retry) for an answer over MaxManifest,
// InvalidSpec (stall) for a query that names nothing.
func (r *Repository) Resolve(ctx context.Context, q Query) (*Manifest, error) {
	if q.Digest != (v1.Hash{}) {
		if err := checkDigest(q.Digest); err != nil {
			return nil, err
		}
		m, err := r.manifest(ctx, q.Digest)
		return m, r.failure("get manifest "+q.Digest.String()+" of "+r.name, err)
	}
	if !reference.IsTag(q.Tag) {
		return nil, fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s is not a tag of an image", fault.Quote(q.Tag))
	}
	m, err := r.tagged(ctx, q)
	return m, r.failure("resolve tag "+q.Tag+" of "+r.name, err)
}

func (r *Repository) tagged(ctx context.Context, q Query) (*Manifest, error) {
	key := tagKey{access: r.access, tag: q.Tag}
	if digest, ok := r.remembered(key, q); ok {
		return r.manifest(ctx, digest)
	}
	joined := tagFlight{tagKey: key}
	if q.Fresh {
		joined.fresh = r.client.flights.Add(1)
	}
	return r.client.resolving.do(ctx, joined, func(ctx context.Context) (*Manifest, error) {
		if digest, ok := r.remembered(key, q); ok { // another flight has just landed
			return r.manifest(ctx, digest)
		}
		return r.lookup(ctx, key)
	})
}

// remembered returns the digest of a tag if the query may be answered with it.
func (r *Repository) remembered(key tagKey, q Query) (v1.Hash, bool) {
	answer, ok := r.client.tags.get(key)
	young := r.client.options.Clock().Sub(answer.asked) < q.MaxAge
	return answer.digest, ok && young && !q.Fresh
}

// lookup asks the registry for a tag: by HEAD if its manifest is likely to be
// the one that is known, else by GET.
func (r *Repository) lookup(ctx context.Context, key tagKey) (*Manifest, error) {
	known, ok := r.client.tags.get(key)
	answer := tagAnswer{asked: r.client.options.Clock(), noHead: known.noHead}
	var found *Manifest
	var err error
	if ok && !known.noHead.After(answer.asked) {
		digest, failed := r.byHead(ctx, key.tag)
		switch {
		case digest != (v1.Hash{}):
			found, err = r.manifest(ctx, digest)
		case unsupported(failed):
			answer.noHead = answer.asked.Add(r.client.options.ForgetAfter)
		case !unanswered(failed):
			err = failed
		}
	}
	if found == nil && err == nil {
		found, err = r.fetch(ctx, key.tag, v1.Hash{})
	}
	if err != nil {
		return nil, err
	}
	answer.digest = found.Digest
	r.client.tags.replaceUnless(key, answer, func(old tagAnswer) bool { return old.asked.After(answer.asked) })
	return found, nil
}

// byHead asks for the digest of a tag by HEAD. The zero hash, without an error, says
// that GET has to find it out.
func (r *Repository) byHead(ctx context.Context, tag string) (v1.Hash, error) {
	head, err := r.send(ctx, ask{method: http.MethodHead, kind: "manifests", ref: tag, accept: acceptManifests})
	if err != nil {
		return v1.Hash{}, err
	}
	drain(head)
	return promised(head.Header), nil
}

// Digest asks the registry which digest a tag has now, by HEAD, and by GET where HEAD
// does not tell. Nothing that is known answers it.
//
// Errors: those of Resolve.
func (r *Repository) Digest(ctx context.Context, tag string) (v1.Hash, error) {
	digest, err := r.byHead(ctx, tag)
	refusal, _ := errors.AsType[*answerError](err)
	switch {
	case digest != (v1.Hash{}):
		return digest, nil
	case err != nil && !unanswered(err), refusal != nil && refusal.code == http.StatusForbidden:
		return v1.Hash{}, r.failure("resolve tag "+tag+" of "+r.name, err)
	}
	m, err := r.fetch(ctx, tag, v1.Hash{})
	if err != nil {
		return v1.Hash{}, err
	}
	return m.Digest, nil
}

// unanswered tells whether an answer to HEAD may mean no more than that HEAD is
// not supported or not permitted. GET decides then.
func unanswered(err error) bool {
	answer, ok := errors.AsType[*answerError](err)
	return ok && slices.Contains([]int{
		http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented,
	}, answer.code)
}

// unsupported tells whether an answer is about the method, and not about what it
// was asked for, which may be another one the next time.
func unsupported(err error) bool {
	answer, ok := errors.AsType[*answerError](err)
	return ok && (answer.code == http.StatusMethodNotAllowed || answer.code == http.StatusNotImplemented)
}

// manifest returns a manifest by its digest.
func (r *Repository) manifest(ctx context.Context, digest v1.Hash) (*Manifest, error) {
	key := digestKey{access: r.access, digest: digest}
	known := func() (*Manifest, bool) { return r.client.manifests.get(key) }
	return r.client.fetching.doUnless(ctx, known, key,
		func(ctx context.Context) (*Manifest, error) { return r.fetch(ctx, digest.String(), digest) })
}

// fetch gets a manifest by tag or digest, checks and remembers it. want is the
// digest that it must have; the zero hash when only the registry's word is known.
func (r *Repository) fetch(ctx context.Context, ref string, want v1.Hash) (*Manifest, error) {
	key := readKey{ask: ask{kind: "manifests", ref: ref, accept: acceptManifests}, most: MaxManifest}
	doing := key.doing(r)
	if want == (v1.Hash{}) {
		// The words of Resolve: whoever gives up first says the same.
		doing = "resolve tag " + ref + " of " + r.name
	}
	got, err := r.read(ctx, key, doing)
	if err == nil && got.refusal != nil {
		err = got.refusal
	}
	if err != nil {
		return nil, r.failure(doing, err)
	}
	m := &Manifest{Digest: got.digest, Body: got.body}
	if m.MediaType, err = mediaType(got.header, got.body); err != nil {
		return nil, fault.Retryf(v1alpha1.ReasonInvalidArtifact, "cannot %s: %s", doing, unpart(err.Error(), r.secrets()))
	}
	r.client.manifests.put(digestKey{access: r.access, digest: m.Digest}, m)
	return m, nil
}

// mediaType returns that of the body, and that of the header for a body that does not
// tell. No digest covers the header, so one that the body contradicts is refused, and
// not remembered with the body. A body without the field is what it has: only OCI lets
// a manifest omit the field, and signatures of the Notary Project cover the type. Its
// header only has to fit, or to be one of those by which servers say that they do not know.
func mediaType(header http.Header, body []byte) (types.MediaType, error) {
	own, claimed := bodyMediaType(body)
	said, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	is := types.MediaType(said)
	switch {
	case err != nil, said == "application/json", said == "application/octet-stream", strings.HasPrefix(said, "text/"):
		return own, nil //nolint:nilerr // a header that says nothing
	case own != "" && !claimed && (is.IsIndex() == own.IsIndex() || !is.IsImage() && !is.IsIndex()):
		return own, nil
	case claimed && is != own, own != "" && is.IsIndex() != own.IsIndex():
		return "", fmt.Errorf("the registry calls the manifest %s, but by its content it is %s", fault.Quote(said), fault.Quote(string(own)))
	default:
		// A copy: the rest of the header, which may be long, is not kept in memory.
		return types.MediaType(strings.Clone(said)), nil
	}
}

// bodyMediaType returns the mediaType field, and that it is there. OCI manifests may
// omit it; then what they have tells them apart (image-spec, manifest.md and
// image-index.md). The lists are not decoded: the reader of the manifest bounds them.
func bodyMediaType(body []byte) (own types.MediaType, claimed bool) {
	var manifest shape
	switch err := json.Unmarshal(body, &manifest); {
	case err != nil:
		return "", false
	case manifest.MediaType != "" || manifest.SchemaVersion != 2:
		return manifest.MediaType, manifest.MediaType != ""
	case bool(manifest.Manifests):
		return types.OCIImageIndex, false
	case bool(manifest.Layers):
		return types.OCIManifestSchema1, false
	default:
		return "", false
	}
}
