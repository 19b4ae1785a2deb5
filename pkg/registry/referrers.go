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
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxPages bounds how far a list of referrers is followed.
	maxPages = 10
	// maxListed bounds the referrers that are read, on all pages together.
	maxListed = 5000
	// maxListedBytes bounds the size of all pages together.
	maxListedBytes = MaxManifest
)

// Referrer is the part of the descriptor of a referrer that is read.
type Referrer struct {
	Digest       v1.Hash `json:"digest"`
	ArtifactType string  `json:"artifactType"`
	// Annotations may be many; only the one by which cosign notes what a bundle
	// says is kept.
	Annotations struct {
		Predicate string `json:"dev.sigstore.bundle.predicateType"`
	} `json:"annotations"`
	// Malformed says why the descriptor cannot be decoded. It is then empty otherwise.
	Malformed string `json:"-"`
}

// Referrers is a list of referrers. Its limits hold for all pages together, because
// anybody with push access can make the list long.
type Referrers struct {
	// Entries of the list. One that cannot be decoded hides no other.
	Entries []Referrer
	// Absent tells that the registry keeps no such list, so that writers keep one under
	// the tag. A list whose header a proxy has changed is absent, and read nevertheless.
	Absent bool
	// Index is the content under the tag: an image index, or a manifest of another kind.
	// It is nil where there is no such tag.
	Index []byte

	name  string // as errors call it
	bytes int
}

// Has tells whether a referrer is on the list.
func (l Referrers) Has(digest v1.Hash) bool {
	return slices.ContainsFunc(l.Entries, func(r Referrer) bool { return r.Digest == digest })
}

// Referrers lists the manifests that refer to a digest, by the registry (Distribution
// Specification 1.1, "Listing Referrers"). With an error comes the part that was listed
// before.
//
// Errors: those of Resolve; InvalidArtifact (retry) for a list that is none, and
// LimitExceeded (stall) for one that is too long.
func (r *Repository) Referrers(ctx context.Context, subject v1.Hash) (Referrers, error) {
	listed := Referrers{name: "the list of referrers of " + subject.String()}
	key := readKey{ask: ask{kind: "referrers", ref: subject.String(), accept: string(types.OCIImageIndex)}, most: MaxManifest}
	for page := range maxPages {
		got, err := r.get(ctx, key)
		// A registry that has sent one page keeps the list, so it has the others.
		if err == nil && got.refusal != nil {
			if page == 0 {
				listed.Absent = true
				return listed, nil
			}
			err = r.failure(key.doing(r), got.refusal)
		}
		if err != nil {
			return listed, err
		}
		added := listed.add(got.body)
		if page == 0 && !isIndex(got.header) {
			// Some page of somebody else, or a list whose header a proxy has changed.
			// Other clients go by the header, so a writer lists under the tag as well.
			listed.Absent = true
			if errors.Is(added, errNoIndex) && len(listed.Entries) == 0 {
				return listed, nil
			}
		}
		query, more := nextPage(key.ref, got.header)
		err = cmp.Or(got.cut, added)
		if err == nil && more && query == "" {
			err = errors.New("the link to its next page has no query, or leads to something else")
		}
		if err != nil || !more || query == key.query {
			return listed, r.unlisted(key, err)
		}
		key.query = query
	}
	return listed, r.unlisted(key, fmt.Errorf("the list is longer than %d pages, and the rest was not read", maxPages))
}

// TaggedReferrers lists what is noted under the tag that stands in for the list of
// referrers (Distribution Specification 1.1, "Referrers Tag Schema"), see FallbackTag.
//
// Errors: those of Referrers.
func (r *Repository) TaggedReferrers(ctx context.Context, subject v1.Hash) (Referrers, error) {
	tag := FallbackTag(subject)
	listed := Referrers{name: "the list of referrers under the tag " + tag}
	key := readKey{ask: ask{kind: "manifests", ref: tag, accept: string(types.OCIImageIndex)}, most: MaxManifest}
	got, err := r.get(ctx, key)
	switch {
	case err != nil:
		return listed, err
	case got.refusal == nil:
	case got.refusal.code == http.StatusNotFound, got.refusal.code == http.StatusNotAcceptable:
		listed.Absent = true
		return listed, nil
	default:
		return listed, r.failure(key.doing(r), got.refusal)
	}
	listed.Index = got.body
	if err = listed.add(got.body); errors.Is(err, errNoIndex) {
		err = nil // a manifest of another kind refers to nothing
	}
	return listed, r.unlisted(key, err)
}

// FallbackTag returns the tag that stands in for the list of referrers of a digest.
func FallbackTag(subject v1.Hash) string { return subject.Algorithm + "-" + subject.Hex }

// unlisted makes a fault of what is wrong with a list.
func (r *Repository) unlisted(key readKey, err error) error {
	var f *fault.Error
	if err == nil || errors.As(err, &f) {
		return err
	}
	return fault.Retryf(v1alpha1.ReasonInvalidArtifact, "cannot %s: %s", key.doing(r), unpart(err.Error(), r.secrets()))
}

func isIndex(header http.Header) bool {
	said, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && said == string(types.OCIImageIndex)
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
			if target, err := url.Parse(link[1]); err == nil && (target.Path == "" || path.Base(target.Path) == list) {
				query = target.RawQuery
			}
			return query, true
		}
	}
	return "", false
}

// errNoIndex is a page that is not an image index.
var errNoIndex = errors.New("it is not an image index")

// add reads a page. It keeps every descriptor in front of a limit or of the end of
// a broken page, because junk must not hide a signature.
func (l *Referrers) add(page []byte) error {
	cut := l.bytes+len(page) > maxListedBytes
	if cut {
		page = page[:maxListedBytes-l.bytes]
	}
	l.bytes += len(page)
	is, err := l.decode(json.NewDecoder(bytes.NewReader(page)))
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return err
	case cut:
		return l.exceeded(maxListedBytes, "bytes")
	case err != nil:
		return fmt.Errorf("%w: %s", errNoIndex, fault.Words(err.Error()))
	case !is:
		return errNoIndex
	default:
		return nil
	}
}

// decode reads the descriptors of an index one by one. It tells whether the
// document has a list of them.
func (l *Referrers) decode(decoder *json.Decoder) (is bool, err error) {
	if err := expect(decoder, '{'); err != nil {
		return false, err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return is, err
		}
		if key != "manifests" {
			var ignored json.RawMessage
			if err := decoder.Decode(&ignored); err != nil {
				return is, err
			}
			continue
		}
		is = true
		if err := l.descriptors(decoder); err != nil {
			return is, err
		}
	}
	return is, expect(decoder, '}')
}

func (l *Referrers) descriptors(decoder *json.Decoder) error {
	switch t, err := decoder.Token(); {
	case err != nil:
		return err
	case t == nil: // an empty list, as Go writes it
		return nil
	case t != json.Delim('['):
		return errors.New("manifests is not a list")
	}
	for decoder.More() {
		if len(l.Entries) == maxListed {
			return l.exceeded(maxListed, "manifests")
		}
		var text json.RawMessage
		if err := decoder.Decode(&text); err != nil {
			return err
		}
		var one Referrer
		if err := json.Unmarshal(text, &one); err != nil {
			one = Referrer{Malformed: "an entry of " + l.name + " that cannot be read: " + fault.Words(err.Error())}
		}
		l.Entries = append(l.Entries, one)
	}
	return expect(decoder, ']')
}

func (l *Referrers) exceeded(most int, what string) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, "%s is too long: it has more than the %d %s that are read", l.name, most, what)
}

func expect(decoder *json.Decoder, want json.Delim) error {
	switch t, err := decoder.Token(); {
	case err != nil:
		return err
	case t != want:
		return fmt.Errorf("found %s, expected %s", fault.Quote(fmt.Sprint(t)), want)
	default:
		return nil
	}
}
