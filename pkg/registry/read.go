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
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// readKey is a question to which equal ones at the same time get one answer.
type readKey struct {
	access                    accessKey
	kind, ref, query, accepts string
}

// reply is an answer that was read to its end.
type reply struct {
	code   int
	header http.Header
	body   []byte
	// cut is the end of a body that is longer than its limit; nil for all others.
	cut error
}

// Do sends a GET for what has no method of its own here, such as the list of
// referrers. The URL of the request is relative to the repository, as in
// referrers/sha256:<hex>?artifactType=x or manifests/<tag>, and of its header
// only Accept is sent; manifests are asked for in every type that Resolve takes
// if there is none. Login, rules, bounds and deadlines are those of everything
// else that this client asks; equal requests at the same time are one.
//
// The answer is one that says what there is: 200, whose body has at most
// MaxManifest bytes, or one of those by which registries say that there is no
// such thing or no such list, 400, 404, 405 and 406, whose body is empty: its
// text could hold anything. A 400, 404 or 405 of storage that the registry redirects to
// says no such thing, and is an error. The answer was read to its end, and need not be closed. A list
// of referrers that is longer is cut, and its body ends with LimitExceeded. A
// manifest has the digest that was asked for or that the registry names; under a
// tag without such a name it is at least a manifest.
//
// Errors: those of Resolve, for every other answer and for none; LimitExceeded
// for one that is too long.
func (r *Repository) Do(request *http.Request) (*http.Response, error) {
	kind, ref, _ := strings.Cut(request.URL.Path, "/")
	key := readKey{access: r.access, kind: kind, ref: ref, query: request.URL.RawQuery, accepts: request.Header.Get("Accept")}
	if key.kind == "manifests" && key.accepts == "" {
		key.accepts = acceptManifests
	}
	doing, err := key.doing(request.Method)
	if err != nil {
		return nil, err
	}
	doing += " of " + r.name
	answer, err := share(request.Context(), &r.client.reading, key, bounded(r.client, func(ctx context.Context) (reply, error) {
		return r.read(ctx, key, doing)
	}))
	if err != nil {
		return nil, r.failure(doing, err)
	}
	return &http.Response{
		StatusCode: answer.code, Header: answer.header.Clone(), Request: request,
		Body: io.NopCloser(answer.content()), ContentLength: int64(len(answer.body)),
	}, nil
}

func (r reply) content() io.Reader {
	if r.cut == nil {
		return bytes.NewReader(r.body)
	}
	return io.MultiReader(bytes.NewReader(r.body), broken{r.cut})
}

// broken is a reader that fails.
type broken struct{ err error }

// Read implements io.Reader.
func (b broken) Read([]byte) (int, error) { return 0, b.err }

// doing says what the request does, and refuses those that are not for
// something in the repository.
func (k readKey) doing(method string) (string, error) {
	words, known := map[string]string{
		"manifests": "get manifest ", "blobs": "get blob ", "referrers": "list the referrers of ",
	}[k.kind]
	_, err := v1.NewHash(k.ref)
	if method != http.MethodGet || !known || (err != nil && !reference.IsTag(k.ref)) {
		return "", fault.Stallf(v1alpha1.ReasonInvalidSpec,
			"refused to send %s %s: it must be a GET for manifests, blobs or referrers by tag or digest", method, fault.Quote(k.kind+"/"+k.ref))
	}
	return words + k.ref, nil
}

func (r *Repository) read(ctx context.Context, key readKey, doing string) (reply, error) {
	answer, err := r.exchange(ctx, ask{method: http.MethodGet, kind: key.kind, ref: key.ref, query: key.query, accept: key.accepts})
	if err != nil {
		return reply{}, err
	}
	defer drain(answer)
	got := reply{code: answer.StatusCode, header: answer.Header}
	switch got.code {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		if isStorage(answer, key) {
			return reply{}, newAnswerError(answer, r.client.options.Clock())
		}
		return got, nil
	case http.StatusNotAcceptable:
		return got, nil
	default:
		return reply{}, newAnswerError(answer, r.client.options.Clock())
	}
	got.body, err = limit.ReadAll(answer.Body, MaxManifest)
	want, _ := v1.NewHash(key.ref) // a tag has no digest
	if err == nil {
		meant := want
		if key.kind == "referrers" { // the digest is that of the subject
			meant = v1.Hash{}
		}
		got.body = uncoded(got.body, cmp.Or(meant, promised(answer.Header)), MaxManifest)
	}
	switch {
	case errors.Is(err, limit.ErrTooLong) && key.kind == "referrers":
		got.cut = tooLarge(doing)
		return got, nil
	case errors.Is(err, limit.ErrTooLong):
		return reply{}, tooLarge(doing)
	case err == nil && key.kind == "manifests":
		_, err = r.vouched(doing, got, want)
	}
	return got, err
}

// isStorage tells whether an answer comes from storage that the registry redirects to.
// The registry says that there is such a thing by the redirect, and storage that does
// not have it says nothing else. A registry that the redirect leads to is asked for the
// same by the same API. A redirect by 303 leads to something about the thing, such as
// the page of a website (RFC 9110 section 15.4.4).
func isStorage(answer *http.Response, key readKey) bool {
	path := answer.Request.URL.Path
	if strings.HasPrefix(path, "/v2/") && strings.HasSuffix(path, "/"+key.kind+"/"+key.ref) {
		return false
	}
	for led := answer.Request.Response; led != nil; led = led.Request.Response {
		if led.StatusCode == http.StatusSeeOther {
			return false
		}
	}
	return true
}

// Describe returns size and media type of a manifest. One that was resolved
// before is not asked for.
//
// Errors: those of Resolve.
func (r *Repository) Describe(ctx context.Context, digest v1.Hash) (v1.Descriptor, error) {
	m, err := r.Resolve(ctx, Query{Digest: digest})
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: m.MediaType, Size: int64(len(m.Body)), Digest: m.Digest}, nil
}
