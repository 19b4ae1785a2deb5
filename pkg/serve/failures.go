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

package serve

import (
	"time"

	utilcache "k8s.io/apimachinery/pkg/util/cache"
)

// failures remember the files that could not be supplied, and how long each is not tried
// again: twice as long after each failure. Files are supplied one at a time each.
type failures struct{ known *utilcache.LRUExpireCache }

func newFailures() failures { return failures{utilcache.NewLRUExpireCache(maxRemembered)} }

// The pause after the first failure, and the longest. Consumers come back after some
// seconds; a registry that recovers is to be noticed soon.
const (
	minPause = time.Second
	maxPause = 15 * time.Second
)

type failure struct {
	err   error
	pause time.Duration
	until time.Time
}

// last returns why a file could not be supplied, while it is not tried again.
func (f failures) last(what file) error {
	if last := f.get(what); time.Now().Before(last.until) {
		return last.err
	}
	return nil
}

func (f failures) add(what file, err error) {
	pause := min(max(2*f.get(what).pause, minPause), maxPause)
	// It is remembered beyond its pause: the next failure waits longer than this one.
	f.known.Add(what, failure{err: err, pause: pause, until: time.Now().Add(pause)}, 2*maxPause)
}

func (f failures) forget(what file) { f.known.Remove(what) }

func (f failures) get(what file) failure {
	known, _ := f.known.Get(what)
	last, _ := known.(failure)
	return last
}
