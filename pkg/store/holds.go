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
	"maps"
	"sync"
	"time"
)

// minHold is the least time that an announced record is waited for.
const minHold = 5 * time.Minute

// holds remembers what was published and is in no record yet.
type holds struct {
	mu    sync.Mutex
	count uint64
	files map[held]hold
}

// held is a file of a key.
type held struct {
	Key
	sha256 string
}

type hold struct {
	// order counts publications; a clock may stand still.
	order uint64
	since time.Time
}

func (h *holds) add(key Key, sha256 string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	h.files[held{key, sha256}] = hold{order: h.count, since: now}
}

func (h *holds) has(key Key, sha256 string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.files[held{key, sha256}]
	return ok
}

func (h *holds) drop(key Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.files, func(f held, _ hold) bool { return f.Key == key })
}

func (h *holds) release(key Key, sha256 string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.files, held{key, sha256})
}

// settle ends the holds that records have taken over, with those that were
// published before them for the same key, and those that began before the limit.
func (h *holds) settle(live []Record, limit time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	recorded := map[Key]uint64{} // the order of the last publication that a record names
	for _, record := range live {
		for _, p := range record.Paths {
			key, sha256, _ := parsePath(p)
			recorded[key] = max(recorded[key], h.files[held{key, sha256}].order)
		}
	}
	maps.DeleteFunc(h.files, func(f held, one hold) bool {
		return one.order <= recorded[f.Key] || one.since.Before(limit)
	})
}
