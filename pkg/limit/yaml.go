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

package limit

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// HasTagDirective tells whether a line of a YAML text begins with a directive that
// shortens tags (YAML 1.1 section 7.1.2). Parsers write out the tag of each value, so
// that a text of 1 MiB takes many GiB.
func HasTagDirective(text []byte) bool {
	directive := []byte("%TAG")
	for before, rest, found := bytes.Cut(text, directive); found; before, rest, found = bytes.Cut(rest, directive) {
		if last, _ := utf8.DecodeLastRune(before); len(before) == 0 || strings.ContainsRune("\r\n\u0085\u2028\u2029\ufeff", last) {
			return true
		}
	}
	return false
}
