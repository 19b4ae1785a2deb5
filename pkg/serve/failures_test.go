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
		for _, pause := range []time.Duration{1, 2, 4, 8, 15, 15} {
			known.add(what, failed)
			time.Sleep(pause*time.Second - 1)
			if err := known.last(what); !errors.Is(err, failed) {
				t.Errorf("tried again before %d s: %v", pause, err)
			}
			time.Sleep(1)
			if err := known.last(what); err != nil {
				t.Errorf("not tried again after %d s: %v", pause, err)
			}
		}
		known.forget(what)
		known.add(what, failed)
		time.Sleep(time.Second)
		if err := known.last(what); err != nil {
			t.Errorf("a success does not shorten the pause: %v", err)
		}
	})
}
