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

package trustpolicy

import (
	"testing"

	. "github.com/onsi/gomega"
)

// A missing public root is no change.
func TestDemandsAreTheSameWithAndWithoutARoot(t *testing.T) {
	for name, c := range map[string]struct {
		now, recorded string
		same          bool
	}{
		"the same root":                  {"rules@one", "rules@one", true},
		"another root":                   {"rules@two", "rules@one", false},
		"no root yet":                    {"rules", "rules@one", true},
		"no root yet, and other rules":   {"other", "rules@one", false},
		"a root, without a recorded one": {"rules@one", "rules", false},
		"no root is asked for":           {"rules", "rules", true},
		"no acceptance":                  {"rules", "", false},
		"no demand any more":             {"", "rules@one", false},
		"no demand before and after":     {"", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := (Demands{Fingerprint: c.now}).Same(c.recorded); got != c.same {
				t.Errorf("%q and %q are the same: %t", c.now, c.recorded, got)
			}
		})
	}
}

// A fingerprint separates the demands of the platform from those of spec.verify.
func TestThePlatformsPartOfAFingerprint(t *testing.T) {
	g := NewWithT(t)
	now := Demands{Fingerprint: "rules@one"}.With(Demands{Fingerprint: "own@two"})
	g.Expect(now.Same("rules@one+own@two")).To(BeTrue())
	g.Expect(now.Same("rules@one+other")).To(BeFalse())
	g.Expect(now.SamePlatform("rules@one+other")).To(BeTrue())
	g.Expect(now.SamePlatform("rules@one")).To(BeTrue())
	g.Expect(now.SamePlatform("others@one+own@two")).To(BeFalse())
	withoutRoot := Demands{Fingerprint: "rules"}.With(Demands{Fingerprint: "own"})
	g.Expect(withoutRoot.Same("rules@one+own@two")).To(BeTrue())
	g.Expect(Demands{}.SamePlatform("+own")).To(BeTrue())
	g.Expect(Demands{}.Same("+own")).To(BeFalse())
}
