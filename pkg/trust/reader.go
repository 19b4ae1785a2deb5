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

package trust

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxEnvelope bounds a manifest, a page of referrers, a bundle, a payload or
	// a signature, in bytes, as it is sent and again unpacked.
	maxEnvelope = 4 << 20
	// maxPages bounds how far a list of referrers is followed.
	maxPages = 10
)

// Repository is where signatures are read: the repository of the image, as the
// credentials of one object see it. *registry.Repository is one.
type Repository interface {
	// Name is the canonical name of the repository.
	Name() string
	// Do sends a GET whose URL is relative to the repository, and returns an
	// answer of 200, or one of 400, 404, 405 and 406, by which registries say that
	// there is no such thing. Every other, and a 400, 404 or 405 of storage behind the
	// registry, is an error, a fault that knows how long
	// the registry wants to be left alone. Bodies are bounded, and need not be
	// closed. Manifests are asked for in all their types if none is accepted by
	// name. Bytes under a tag are those of a manifest, or the registry names their
	// digest; everything else under a tag is an error. A list of referrers that is
	// too long comes as far as it is read, and the end of its body is an error.
	Do(request *http.Request) (*http.Response, error)
	// Describe returns size and media type of a manifest.
	Describe(ctx context.Context, digest v1.Hash) (v1.Descriptor, error)
	// Conceal removes the credentials that the repository is read with from a message,
	// which may repeat some of an answer.
	Conceal(message string) string
}

// reader reads the signatures of one repository. It speaks to nobody but the
// registry, with nothing but what the repository gives it.
type reader struct {
	source Repository
}

// answerError is an answer by which a registry says that there is no such thing.
type answerError struct{ code int }

func (e *answerError) Error() string {
	return "the answer is " + strings.TrimSpace(strconv.Itoa(e.code)+" "+http.StatusText(e.code))
}

// answered tells whether an error is an answer with one of the codes.
func answered(err error, codes ...int) bool {
	answer, ok := errors.AsType[*answerError](err)
	return ok && slices.Contains(codes, answer.code)
}

// unreadError is what keeps us from knowing what a registry holds.
type unreadError struct {
	doing string
	err   error
}

func (e *unreadError) Error() string {
	// A fault says by itself what failed, and is fit for a condition as it is.
	if f, ok := errors.AsType[*fault.Error](e.err); ok {
		return f.Error()
	}
	return "cannot " + e.doing + ": " + fault.Words(e.err.Error())
}

func (e *unreadError) Unwrap() error { return e.err }

var errOtherBytes = errors.New("its bytes do not have its digest")

// page is the body of an answer and what its header says. With an error, the body
// is cut.
type page struct {
	body      []byte
	mediaType string
	// next is the query of the next page, if there is more.
	next string
	more bool
}

// ask is a request for something in the repository.
type ask struct {
	target url.URL // below the repository
	accept string
}

func (r *reader) get(ctx context.Context, a ask) (page, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.target.String(), http.NoBody)
	if err != nil {
		return page{}, err
	}
	if a.accept != "" {
		request.Header.Set("Accept", a.accept)
	}
	answer, err := r.source.Do(request)
	if err != nil {
		return page{}, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return page{}, &answerError{code: answer.StatusCode}
	}
	body, failed := limit.ReadAll(answer.Body, maxEnvelope)
	mediaType, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil {
		mediaType = ""
	}
	next, more := nextPage(a.target.Path, answer.Header)
	return page{body: body, mediaType: mediaType, next: next, more: more}, failed
}

// sure is get for an object that the registry lists: one answer to the contrary, which
// may come from a proxy or from one server of many, is not believed.
func (r *reader) sure(ctx context.Context, a ask) (page, error) {
	answer, err := r.get(ctx, a)
	if _, no := errors.AsType[*answerError](err); no {
		return r.get(ctx, a)
	}
	return answer, err
}

// links are the targets and the parameters of a Link header, and isNext the parameter of
// the link to the next page (RFC 8288).
var (
	links  = regexp.MustCompile(`<([^>]*)>([^<]*)`)
	isNext = regexp.MustCompile(`(?i);\s*rel\s*=\s*("([^"]*\s)?next(\s[^"]*)?"|next\s*([;,]|$))`)
)

// nextPage returns the query of the link to the next page of a list, and whether there is
// such a link. The query is empty for a link to something else than the list.
func nextPage(list string, header http.Header) (query string, more bool) {
	for _, value := range header.Values("Link") {
		for _, link := range links.FindAllStringSubmatch(value, -1) {
			if !isNext.MatchString(link[2]) {
				continue
			}
			if target, err := url.Parse(link[1]); err == nil && (target.Path == "" || path.Base(target.Path) == path.Base(list)) {
				query = target.RawQuery
			}
			return query, true
		}
	}
	return "", false
}

// referrers lists what the registry says refers to a digest (Distribution
// Specification 1.1, "Listing Referrers"). The list is absent where the registry
// keeps no list. With an error comes the part that was listed before.
func (r *reader) referrers(ctx context.Context, digest v1.Hash) (listing, error) {
	doing := "list the referrers of " + digest.String()
	listed := listing{name: "the list of referrers of " + digest.String()}
	for query, pages := "", 0; pages < maxPages; pages++ {
		answer, err := r.get(ctx, ask{target: url.URL{Path: "referrers/" + digest.String(), RawQuery: query}, accept: string(types.OCIImageIndex)})
		// A registry that has sent one page keeps the list, so it has the others.
		if pages == 0 && answered(err, noReferrers()...) {
			listed.absent = true
			return listed, nil
		}
		if err != nil && answer.body == nil {
			return listed, &unreadError{doing: doing, err: err}
		}
		added := listed.add(answer.body)
		if pages == 0 && answer.mediaType != string(types.OCIImageIndex) {
			// Some page of somebody else, or a list whose header a proxy has changed.
			// Other clients go by the header, so a writer lists under the tag as well.
			listed.absent = true
			if errors.Is(added, errNoIndex) && len(listed.found) == 0 {
				return listed, nil
			}
		}
		err = cmp.Or(err, added)
		if err == nil && answer.more && answer.next == "" {
			err = errors.New("the link to its next page has no query, or leads to something else")
		}
		if err != nil {
			return listed, &unreadError{doing: doing, err: err}
		}
		if !answer.more || answer.next == query {
			return listed, nil
		}
		query = answer.next
	}
	return listed, &unreadError{doing: doing, err: fmt.Errorf("the list is longer than %d pages, and the rest was not read", maxPages)}
}

// noReferrers are the answers of a registry that keeps no list of referrers. The
// specification names 404; the others are in use.
func noReferrers() []int {
	return []int{http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable}
}

// tagged lists what is noted under the tag that stands in for the list of
// referrers (Distribution Specification 1.1, "Referrers Tag Schema").
func (r *reader) tagged(ctx context.Context, digest v1.Hash) (listing, error) {
	tag := FallbackTag(digest)
	listed := listing{name: "the list of referrers under the tag " + tag}
	answer, err := r.get(ctx, ask{target: url.URL{Path: "manifests/" + tag}, accept: string(types.OCIImageIndex)})
	if answered(err, http.StatusNotFound, http.StatusNotAcceptable) {
		listed.absent = true
		return listed, nil
	}
	if err != nil {
		return listed, &unreadError{doing: "get the tag " + tag, err: err}
	}
	listed.index = answer.body
	if err = listed.add(answer.body); err != nil && !errors.Is(err, errNoIndex) {
		return listed, &unreadError{doing: "get the tag " + tag, err: err}
	}
	return listed, nil // a manifest of another kind refers to nothing
}

// FallbackTag returns the tag that stands in for the list of referrers of a digest.
func FallbackTag(digest v1.Hash) string { return digest.Algorithm + "-" + digest.Hex }

// manifestByDigest returns a manifest.
func (r *reader) manifestByDigest(ctx context.Context, digest v1.Hash) (page, error) {
	answer, err := r.sure(ctx, ask{target: url.URL{Path: "manifests/" + digest.String()}})
	if err == nil {
		err = check(answer.body, digest)
	}
	if err != nil {
		return page{}, &unreadError{doing: "get manifest " + digest.String(), err: err}
	}
	return answer, nil
}

// legacyManifest returns the manifest behind the tag of COSIGN's
// SIGNATURE_SPEC.md; ok is false when there is none.
func (r *reader) legacyManifest(ctx context.Context, digest v1.Hash) (body []byte, ok bool, err error) {
	tag := FallbackTag(digest) + ".sig"
	answer, err := r.get(ctx, ask{target: url.URL{Path: "manifests/" + tag}})
	if answered(err, http.StatusNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, &unreadError{doing: "get the tag " + tag, err: err}
	}
	return answer.body, true, nil
}

// blob returns a blob of at most maxEnvelope bytes.
func (r *reader) blob(ctx context.Context, descriptor v1.Descriptor) ([]byte, error) {
	doing := "get blob " + descriptor.Digest.String()
	answer, err := r.sure(ctx, ask{target: url.URL{Path: "blobs/" + descriptor.Digest.String()}})
	if err == nil {
		err = check(answer.body, descriptor.Digest)
	}
	if err != nil {
		return nil, &unreadError{doing: doing, err: err}
	}
	return answer.body, nil
}

func check(body []byte, digest v1.Hash) error {
	computed, _, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return err
	}
	if computed != digest {
		return errOtherBytes
	}
	return nil
}

// unpacked undoes gzip where it was used, within maxEnvelope bytes.
func unpacked(body []byte) ([]byte, error) {
	if !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		return body, nil
	}
	compressed, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return limit.ReadAll(compressed, maxEnvelope)
}
