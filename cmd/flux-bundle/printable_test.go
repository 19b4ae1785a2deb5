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

package main

import (
	"encoding/json"
	"testing"

	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"
)

// hostile is text that moves the cursor, in both ways to say so, rings, turns
// text around, is no text at all, and is an emoji of several.
const hostile = "\x1b[2Jred\u009b31m\a\u202egnp.\u2066\xff\r\n\U000E0041👩‍🚀é"

func TestWhatIsPrintedDoesNothingToATerminal(t *testing.T) {
	g := NewWithT(t)
	g.Expect(printable("a plain text, é 漢 👩‍🚀")).To(Equal("a plain text, é 漢 👩‍🚀"))
	g.Expect(printable(hostile)).To(Equal(`\x1b[2Jred\u009b31m\a\u202egnp.\u2066\xff\r\n\U000e0041👩‍🚀é`))
}

func TestEncodedResultsDoNothingToATerminalAndLoseNothing(t *testing.T) {
	want := map[string]string{"text": "\x1b[2Jred\u009b31m\a\u202egnp.\u2066\r\n\u0085\u007f\U000E0041👩‍🚀é", "more": "<&>"}
	for name, c := range map[string]struct {
		encode func(any) ([]byte, error)
		decode func([]byte, any) error
	}{
		"json": {encodeJSON, json.Unmarshal},
		"yaml": {encodeYAML, func(body []byte, into any) error { return yaml.Unmarshal(body, into) }},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			body, err := c.encode(want)
			g.Expect(err).NotTo(HaveOccurred())
			for _, r := range string(body) {
				g.Expect(r == '\n' || isPlain(r)).To(BeTrue(), "%q in %s", r, body)
			}
			var got map[string]string
			g.Expect(c.decode(body, &got)).To(Succeed())
			g.Expect(got).To(Equal(want))
		})
	}
}

// TestALargeResultIsNoWorkForTheEncoderOfYAML: JSON is YAML, and takes a tenth of the
// memory.
func TestALargeResultIsNoWorkForTheEncoderOfYAML(t *testing.T) {
	g := NewWithT(t)
	for size, start := range map[int]string{10: "- path: x\n", 100_000: "[\n"} {
		files := make([]shownFile, size)
		for i := range files {
			files[i] = shownFile{Path: "x", SHA256: "y"}
		}
		body, err := encodeYAML(files)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(body[:len(start)])).To(Equal(start))
	}
}
