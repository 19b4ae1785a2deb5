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
	"fmt"
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
	ask
	access accessKey
	most   int64
}

// reply is an answer that was read to its end.
type reply struct {
	header http.Header
	body   []byte
	digest v1.Hash // of the body; not of a list
	// refusal is an answer by which registries say that there is no such thing or no such
	// list: 400, 404, 405 or 406; nil for 200.
	refusal *answerError
	// cut is the error of a list that is longer than its limit; nil for all others.
	cut error
}

// ErrNotFound is the cause of an error when the registry itself says that it has no such
// manifest or blob.
var ErrNotFound = errors.New("not found")

// ReadManifest asks the registry for a manifest under a tag or digest, whatever is known
// of it, and remembers nothing. Equal requests at the same time are one. The bytes have
// the digest that was asked for or that the registry names; under a tag without such a
// name they are at least those of a manifest.
//
// Errors: those of Resolve, with the cause ErrNotFound where the registry has none.
func (r *Repository) ReadManifest(ctx context.Context, ref string) ([]byte, error) {
	return r.whole(ctx, readKey{ask: ask{kind: "manifests", ref: ref, accept: acceptManifests}, most: MaxManifest})
}

// ReadBlob returns a blob of at most a number of bytes. Equal requests at the same time
// are one.
//
// Errors: those of ReadManifest.
func (r *Repository) ReadBlob(ctx context.Context, digest v1.Hash, most int64) ([]byte, error) {
	if err := checkDigest(digest); err != nil {
		return nil, err
	}
	return r.whole(ctx, readKey{ask: ask{kind: "blobs", ref: digest.String()}, most: most})
}

// whole returns the body of an answer of 200. That there is no such digest is asked twice:
// one answer may come from a proxy, or from one server of many that lags behind.
func (r *Repository) whole(ctx context.Context, key readKey) ([]byte, error) {
	got, err := r.get(ctx, key)
	if _, tag := v1.NewHash(key.ref); tag == nil && err == nil && got.refusal != nil {
		got, err = r.get(ctx, key)
	}
	if err == nil && got.refusal != nil {
		err = r.failure(key.doing(r), got.refusal)
	}
	if err != nil {
		return nil, err
	}
	return got.body, nil
}

// get returns an answer that says what there is. Equal ones at the same time are one.
func (r *Repository) get(ctx context.Context, key readKey) (reply, error) {
	if _, err := v1.NewHash(key.ref); err != nil && !reference.IsTag(key.ref) {
		return reply{}, fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s is neither a tag nor a digest", fault.Quote(key.ref))
	}
	key.access = r.access
	got, err := r.client.reading.do(ctx, key, func(ctx context.Context) (reply, error) {
		return r.read(ctx, key, key.doing(r))
	})
	return got, r.failure(key.doing(r), err)
}

// doing says what a request does.
func (a ask) doing(r *Repository) string {
	words := map[string]string{"manifests": "get manifest ", "blobs": "get blob ", "referrers": "list the referrers of "}
	return words[a.kind] + a.ref + " of " + r.name
}

// read asks for an answer that says what there is. A 400, 404 or 405 of storage that the
// registry redirects to says no such thing, and is an error.
func (r *Repository) read(ctx context.Context, key readKey, doing string) (reply, error) {
	answer, err := r.exchange(ctx, key.ask)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		defer drain(answer)
		refusal := newAnswerError(answer, r.client.options.Clock())
		switch refusal.code {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
			if r.isStorage(answer, key) {
				return reply{}, refusal
			}
		case http.StatusNotAcceptable:
		default:
			return reply{}, refusal
		}
		refusal.absent = refusal.code == http.StatusNotFound
		return reply{refusal: refusal}, nil
	}
	got := reply{header: answer.Header}
	isList := key.kind == "referrers"
	err = limit.ErrTooLong
	if answer.ContentLength <= key.most || isList {
		got.body, err = limit.ReadAll(answer.Body, key.most)
	}
	want, _ := v1.NewHash(key.ref) // a tag has no digest
	if isList {                    // the digest is that of the subject
		want = v1.Hash{}
	}
	if err == nil {
		got.body = uncoded(got.body, cmp.Or(want, promised(answer.Header)), key.most)
	}
	switch {
	case errors.Is(err, limit.ErrTooLong) && isList:
		got.cut, err = tooLarge(doing, key.most), nil
	case errors.Is(err, limit.ErrTooLong):
		err = tooLarge(doing, key.most)
	case err == nil && !isList:
		got.digest, err = r.vouched(doing, got, want)
	}
	return got, err
}

// isStorage tells whether an answer comes from storage that the registry redirects to.
// The registry says that there is such a thing by the redirect, and storage that does
// not have it says nothing else. A registry that the redirect leads to is asked for the
// same by the same API. A redirect by 303 leads to something about the thing, such as
// the page of a website (RFC 9110 section 15.4.4), if the registry itself sent it: what
// storage answers is about its own copy.
func (r *Repository) isStorage(answer *http.Response, key readKey) bool {
	path := answer.Request.URL.Path
	if strings.HasPrefix(path, "/v2/") && strings.HasSuffix(path, "/"+key.kind+"/"+key.ref) {
		return false
	}
	for led := answer.Request.Response; led != nil; led = led.Request.Response {
		if led.StatusCode == http.StatusSeeOther && r.answered(led) {
			return false
		}
	}
	return true
}

// vouched returns the digest of a manifest. The manifest must have the wanted digest
// or, without one, the digest that the registry names. If the registry names none,
// the body must at least be a manifest: proxies and failing registries answer 200
// with pages and error texts, which say nothing about the tag.
//
// Errors: InvalidArtifact and FetchFailed (retry).
func (r *Repository) vouched(doing string, got reply, want v1.Hash) (v1.Hash, error) {
	digest, _, err := v1.SHA256(bytes.NewReader(got.body))
	if err != nil {
		return v1.Hash{}, err
	}
	if want == (v1.Hash{}) {
		want = promised(got.header)
	}
	switch {
	case want == digest, want == v1.Hash{} && isManifest(got.body):
		return digest, nil
	case want == v1.Hash{}:
		return v1.Hash{}, &fault.Error{
			Reason: v1alpha1.ReasonFetchFailed, Class: fault.Retry, Answered: true,
			Err: fmt.Errorf("cannot %s: the answer is %d bytes of type %s without a digest, expected a manifest; "+
				"a proxy or a failing registry may have sent it", doing, len(got.body), unpart(fault.Quote(got.header.Get("Content-Type")), r.secrets())),
		}
	default:
		return v1.Hash{}, fault.Retryf(v1alpha1.ReasonInvalidArtifact,
			"cannot %s: its bytes have the digest %s, not %s", doing, digest, want)
	}
}
