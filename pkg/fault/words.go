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

package fault

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// The most that is repeated of what somebody else wrote, in bytes.
const (
	// maxLine is for a whole message: an event takes no more.
	maxLine = 1024
	// maxWords is for what is repeated within one: it holds a media type, the
	// name of a file and the identity of a signer.
	maxWords = 256
	// maxText is what is looked at.
	maxText = 16 << 10
)

// ellipsis stands for what was cut.
const ellipsis = "..."

var (
	// escapes are what a terminal obeys (ECMA-48 sections 5.3 to 5.6): control
	// sequences such as colours, control strings such as titles, and the rest.
	escapes = regexp.MustCompile(`(\x1b\[|\x{9b})[0-?]*[ -/]*[@-~]|` +
		`\x1b[\]PX^_][^\x00-\x1f\x7f]*(\x07|\x1b\\)|` +
		`\x1b[ -/]*[0-~]`)
	// queries are those of URLs, which may carry a signature or a token, and
	// those of paths where they look like one.
	queries = regexp.MustCompile(`(://[^\s"'?]*\?)[^\s"']+|(\?)[^\s"'?=]*=[^\s"']*`)
)

// Line makes text of any origin fit for a condition, an event or a line of a
// terminal: one line of at most 1024 bytes, Plain. A Line stays as it is.
func Line(text string) string { return line(text, maxLine) }

// Words makes what somebody else wrote, such as an answer, fit to be repeated
// within a message: as Line does, with at most 256 bytes.
func Words(text string) string { return line(text, maxWords) }

// WordsOf returns the Words of an error of another's making.
func WordsOf(err error) string { return Words(err.Error()) }

// Plain returns what a person sees of a text, on one line: white space becomes
// one space; sequences that a terminal obeys, control characters, what has no
// width or turns the order of text around, what is no character, and the queries
// of URLs are left out. It is for whoever looks into a text before it is cut, and
// reads its first 16 KiB only.
func Plain(text string) string { return line(text, maxText) }

// Quote makes a value that somebody else chose fit to be repeated within a
// message: at most 256 bytes of it in quotes, with the escapes of Go in place of
// what is not Plain, so that a value is seen to be odd.
func Quote[S ~string](value S) string { return Plain(strconv.Quote(cut(string(value), maxWords))) }

func line(text string, limit int) string {
	text = escapes.ReplaceAllString(cut(text, maxText), "")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !isSeen(r):
			return -1
		default:
			return r
		}
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return cut(queries.ReplaceAllString(text, "$1$2***"), limit)
}

// isSeen tells whether a character shows itself and does nothing else: what
// Unicode calls ignorable by default is neither seen nor missed.
func isSeen(r rune) bool {
	return r != unicode.ReplacementChar && unicode.IsGraphic(r) &&
		!unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// cut cuts between characters. What is left of a query goes too: with what
// stands for the rest it would look like another.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	text = strings.ToValidUTF8(text[:limit-len(ellipsis)], "")
	return strings.TrimRight(text, " ?*") + ellipsis
}
