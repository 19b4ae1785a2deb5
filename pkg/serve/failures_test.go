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
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/image-source/image-source-controller/pkg/store"
)

func TestAFailureDelaysTheNextTryTwiceAsLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		what, failed := file{Key: store.Key{Namespace: "apps", Name: "app"}, sha256: "a"}, errors.New("no registry")
		known := newFailures()
		pass := func(d time.Duration) { <-time.After(d) } // the clock of synctest
		for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, maxPause, maxPause} {
			known.add(what, failed)
			pass(pause - 1)
			if err := known.last(what); !errors.Is(err, failed) {
				t.Errorf("tried again before %s: %v", pause, err)
			}
			pass(1)
			if err := known.last(what); err != nil {
				t.Errorf("not tried again after %s: %v", pause, err)
			}
		}
		known.forget(what)
		known.add(what, failed)
		pass(time.Second)
		if err := known.last(what); err != nil {
			t.Errorf("a success does not shorten the pause: %v", err)
		}
	})
}
