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

package format

import (
	"bytes"
	"unicode/utf8"
)

// byteOrderMark is that of UTF-8.
var byteOrderMark = []byte("\xef\xbb\xbf")

// checkText refuses bytes that two readers may take for two texts: what is not
// UTF-8, such as UTF-16 with a mark, and what has a NUL, such as UTF-16 without
// one. The error ends a sentence that begins with the name of the text.
func checkText(body []byte) (flaw string) {
	switch {
	case bytes.IndexByte(body, 0) >= 0:
		return "has a NUL byte, as text in UTF-16 has; save it as UTF-8"
	case !utf8.Valid(body):
		return "is not UTF-8; save it as UTF-8"
	}
	return ""
}
