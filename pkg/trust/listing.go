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
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxListed bounds the referrers that are read, on all pages together.
	maxListed = 5000
	// maxListedBytes bounds the size of all pages together.
	maxListedBytes = maxEnvelope
)

// referrer is what is read of the descriptor of a referrer.
type referrer struct {
	Digest       v1.Hash `json:"digest"`
	ArtifactType string  `json:"artifactType"`
	// Annotations may be many; only the one by which cosign notes what a bundle
	// says is kept.
	Annotations struct {
		Predicate string `json:"dev.sigstore.bundle.predicateType"`
	} `json:"annotations"`
	// malformed says why the descriptor cannot be decoded. It is then empty otherwise.
	malformed string
}

// key identifies an entry by what it says. Another list may call the same manifest a
// signature.
func (r referrer) key() string {
	return fmt.Sprint(r.Digest, kindOf(r), r.malformed)
}

// listing is a list of referrers. Its limits hold for all pages together, because
// anybody with push access can make the list long.
type listing struct {
	name  string // as errors call it
	found []referrer
	bytes int
	// absent tells that the registry keeps no such list.
	absent bool
	// index is the list itself where it is kept under a tag.
	index []byte
}

// errNoIndex is a page that is not an image index.
var errNoIndex = errors.New("it is not an image index")

// add reads a page. It keeps every descriptor in front of a limit or of the end of
// a broken page, because junk must not hide a signature.
func (l *listing) add(page []byte) error {
	cut := l.bytes+len(page) > maxListedBytes
	if cut {
		page = page[:maxListedBytes-l.bytes]
	}
	l.bytes += len(page)
	is, err := l.decode(json.NewDecoder(bytes.NewReader(page)))
	switch {
	case exceeds(err):
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
func (l *listing) decode(decoder *json.Decoder) (is bool, err error) {
	if err := expect(decoder, '{'); err != nil {
		return false, err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return is, err
		}
		if key != "manifests" {
			if err := decoder.Decode(&ignored{}); err != nil {
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

func (l *listing) descriptors(decoder *json.Decoder) error {
	switch t, err := decoder.Token(); {
	case err != nil:
		return err
	case t == nil: // what Go writes for an empty list
		return nil
	case t != json.Delim('['):
		return errors.New("manifests is not a list")
	}
	for decoder.More() {
		if len(l.found) == maxListed {
			return l.exceeded(maxListed, "manifests")
		}
		var text json.RawMessage
		if err := decoder.Decode(&text); err != nil {
			return err
		}
		var one referrer
		if err := json.Unmarshal(text, &one); err != nil {
			one = referrer{malformed: "an entry of " + l.name + " that cannot be read: " + fault.Words(err.Error())}
		}
		l.found = append(l.found, one)
	}
	return expect(decoder, ']')
}

func (l *listing) exceeded(most int, what string) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, "%s is too long: it has more than the %d %s that are read", l.name, most, what)
}

// ignored is a JSON value that is not kept.
type ignored struct{}

// UnmarshalJSON implements json.Unmarshaler.
func (*ignored) UnmarshalJSON([]byte) error { return nil }

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
