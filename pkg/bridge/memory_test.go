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

package bridge_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/test/memory"
)

// The artifacts need the most memory of all: an attacker may push one after the other.
func TestCachedContentsFitIntoMemory(t *testing.T) {
	var kept any
	grown := memory.Peak(func() {
		kept = bridge.Remember(func(number int) ([]v1.Hash, map[string]string) {
			blobs, annotations := make([]v1.Hash, 101), map[string]string{}
			for i := range blobs {
				digest, err := v1.NewHash(fmt.Sprintf("sha256:%032x%032x", number, i))
				if err != nil {
					t.Fatal(err)
				}
				blobs[i] = digest
			}
			for i := range 64 {
				annotations[fmt.Sprintf("%d-%d", number, i)] = strings.Repeat("x", 120)
			}
			return blobs, annotations
		})
	})
	runtime.KeepAlive(kept)
	t.Logf("%d KiB", grown>>10)
	NewWithT(t).Expect(grown).To(BeNumerically("<", 80<<20))
}
