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
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxListed bounds how many referrers are read, those of all pages together.
	maxListed = 5000
	// maxListedBytes and maxListedValues bound what their list may cost: forty
	// JSON values for each, where cosign needs twenty.
	maxListedBytes  = maxEnvelope
	maxListedValues = 40 * maxListed
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
}

// listing is a list of referrers, whose limits hold for all its pages together:
// whoever runs a registry says how many there are.
type listing struct {
	name          string // as errors call it
	found         []referrer
	bytes, values int
}

// errNoIndex is a page that is no image index.
var errNoIndex = errors.New("it is not an image index")

// add reads a page. Nothing of a page is kept that exceeds a limit.
func (l *listing) add(page []byte) error {
	if l.bytes += len(page); l.bytes > maxListedBytes {
		return l.exceeded(l.bytes, "bytes", maxListedBytes)
	}
	limits := limit.JSON{Values: maxListedValues, Elements: maxListed, Lists: []string{"manifests"}}
	outline, err := limits.Scan(l.name, page)
	if exceeds(err) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %s", errNoIndex, fault.Words(err.Error()))
	}
	if count := len(l.found) + outline.Lengths["manifests"]; count > maxListed {
		return l.exceeded(count, "manifests", maxListed)
	}
	if l.values += outline.Values; l.values > maxListedValues {
		return l.exceeded(l.values, "JSON values", maxListedValues)
	}
	var index struct {
		Manifests []referrer `json:"manifests"`
	}
	if err := json.Unmarshal(page, &index); err != nil {
		return fmt.Errorf("%w: %s", errNoIndex, fault.Words(err.Error()))
	}
	l.found = append(l.found, index.Manifests...)
	return nil
}

func (l *listing) exceeded(found int, what string, most int) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, "%s has %d %s so far, more than the %d that are read", l.name, found, what, most)
}
