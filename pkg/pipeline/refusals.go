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

package pipeline

import (
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/utils/lru"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/store"
)

// maxRefusals bounds the sources with a remembered refusal, a few hundred bytes each; an
// evicted one costs one more attempt.
const maxRefusals = 10000

// refusals has the last failure of each source that only another image or other settings can
// fix. The zero value is empty.
type refusals struct {
	once  sync.Once
	known *lru.Cache
}

type refusal struct {
	repository string
	digest     v1.Hash
	content    string // the hash of the settings
	err        error
}

func (r *refusals) cache() *lru.Cache {
	r.once.Do(func() { r.known = lru.New(maxRefusals) })
	return r.known
}

// Refused returns the known reason why an image cannot be published for a source with
// settings of the given hash (format.ContentHash), or nil.
func (p *Pipeline) Refused(key store.Key, image bridge.Image, contentHash string) error {
	known, ok := p.refusals.cache().Get(key)
	if !ok {
		return nil
	}
	last := known.(refusal)
	if last.repository != image.Repository || last.digest != image.Digest || last.content != contentHash {
		return nil
	}
	return last.err
}

// Remember stores a failure that only another image or other settings can fix, in place of
// an earlier one of the source. Any other result removes the stored one.
func (p *Pipeline) Remember(key store.Key, image bridge.Image, contentHash string, err error) {
	if f := fault.Of(err, ""); f == nil || f.Class != fault.Stall || image.Digest == (v1.Hash{}) {
		p.Forget(key)
		return
	}
	p.refusals.cache().Add(key, refusal{repository: image.Repository, digest: image.Digest, content: contentHash, err: err})
}

// Forget drops the stored failure of a source.
func (p *Pipeline) Forget(key store.Key) { p.refusals.cache().Remove(key) }
