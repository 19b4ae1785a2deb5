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

package store

import (
	"slices"
	"sync"
)

// maxScrubRequests bounds the files that wait to be read before their turn.
const maxScrubRequests = 1000

// contentFile is one name of a content.
type contentFile struct{ name, sha256 string }

// scrubRequests are files to be read before their turn.
type scrubRequests struct {
	mu    sync.Mutex
	files []contentFile
	added chan struct{}
}

// add drops a request when too many wait: the next round reads the file.
func (r *scrubRequests) add(file contentFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) < maxScrubRequests && !slices.Contains(r.files, file) {
		r.files = append(r.files, file)
	}
	r.signal()
}

// signal tells that files wait.
func (r *scrubRequests) signal() {
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// take returns one file, so that a round has its turn between two of them.
func (r *scrubRequests) take() (file contentFile, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.files) == 0 {
		return contentFile{}, false
	}
	file, r.files = r.files[0], r.files[1:]
	if len(r.files) > 0 {
		r.signal()
	}
	return file, true
}
