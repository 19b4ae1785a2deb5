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
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// MaxManifest is the size of the largest manifest that is read, in bytes: the size that
// the Distribution Specification says registries should accept.
const MaxManifest = 4 << 20

const digestHeader = "Docker-Content-Digest"

// Manifest is a manifest or index as the registry keeps it. It is shared and
// must not be changed.
type Manifest struct {
	// Digest is the sha256 of Body.
	Digest v1.Hash
	// MediaType is that of the body, or of the registry when the body has no usable one.
	// Empty when neither does.
	MediaType types.MediaType
	Body      []byte
}

// promised returns the sha256 digest that an answer claims for itself; the zero
// hash if it makes no such claim.
func promised(header http.Header) v1.Hash {
	claim, err := v1.NewHash(header.Get(digestHeader))
	if err != nil || claim.Algorithm != "sha256" {
		return v1.Hash{}
	}
	return claim
}

func checkDigest(digest v1.Hash) error {
	if _, err := reference.ParseDigest(digest.String()); err != nil {
		return fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s is not a sha256 digest", fault.Quote(digest.String()))
	}
	return nil
}

// tooLarge is a retry: no digest covers an answer that is not read to its end, so it may
// be a page of a proxy.
func tooLarge(doing string, most int64) error {
	return &fault.Error{
		Reason: v1alpha1.ReasonLimitExceeded, Class: fault.Retry, Answered: true,
		Err: fmt.Errorf("cannot %s: it is larger than %d bytes", doing, most),
	}
}

var acceptManifests = strings.Join([]string{
	string(types.OCIManifestSchema1), string(types.OCIImageIndex),
	string(types.DockerManifestSchema2), string(types.DockerManifestList),
}, ", ")

// isManifest tells whether a body is a manifest of any kind, also of one that is
// not supported.
func isManifest(body []byte) bool {
	var manifest shape
	return json.Unmarshal(body, &manifest) == nil &&
		(manifest.MediaType != "" || manifest.SchemaVersion != 0 || bool(manifest.Manifests) || bool(manifest.Layers))
}

// shape has the fields that tell kinds of manifests apart.
type shape struct {
	MediaType     types.MediaType `json:"mediaType"`
	SchemaVersion int             `json:"schemaVersion"`
	Manifests     present         `json:"manifests"`
	Layers        present         `json:"layers"`
}

// present tells that a list is there, whatever is in it.
type present bool

// UnmarshalJSON implements json.Unmarshaler.
func (p *present) UnmarshalJSON(value []byte) error {
	*p = present(bytes.HasPrefix(value, []byte("[")))
	return nil
}
