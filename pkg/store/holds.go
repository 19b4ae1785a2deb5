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
	byKey map[Key]map[string]hold // by digest
}

type hold struct {
	// order counts publications; a clock may stand still.
	order uint64
	since time.Time
}

func (h *holds) add(key Key, sha256 string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.byKey[key] == nil {
		h.byKey[key] = map[string]hold{}
	}
	h.count++
	h.byKey[key][sha256] = hold{order: h.count, since: now}
}

func (h *holds) has(key Key, sha256 string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.byKey[key][sha256]
	return ok
}

func (h *holds) drop(key Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byKey, key)
}

func (h *holds) release(key Key, sha256 string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.byKey[key], sha256)
}

// settle ends the holds that records have taken over, with those that were
// published before them for the same key, and those that began before the limit.
func (h *holds) settle(live []Record, limit time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, record := range live {
		for _, p := range record.Paths {
			key, sha256, _ := parsePath(p)
			recorded, held := h.byKey[key][sha256]
			if held {
				maps.DeleteFunc(h.byKey[key], func(_ string, other hold) bool { return other.order <= recorded.order })
			}
		}
	}
	for key, files := range h.byKey {
		maps.DeleteFunc(files, func(_ string, other hold) bool { return other.since.Before(limit) })
		if len(files) == 0 {
			delete(h.byKey, key)
		}
	}
}
