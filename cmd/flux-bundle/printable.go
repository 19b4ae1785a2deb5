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
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// What stands in an artifact was written by somebody else, and terminals and CI
// services obey what they are shown: nothing of it is printed that could be a
// command to one, or that makes text look like other text.

// isPlain tells whether a character does nothing to a terminal but show itself.
func isPlain(r rune) bool {
	return r != utf8.RuneError && (unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) && isJoiner(r))
}

// isJoiner tells the format characters that belong into words and emoji from
// those that turn the order of text around.
func isJoiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// printable returns text with escapes, as those of Go, in place of what is not
// plain.
func printable(text string) string {
	if strings.IndexFunc(text, func(r rune) bool { return !isPlain(r) }) < 0 {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		switch {
		case isPlain(r):
			b.WriteString(text[:size])
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}

// encodeJSON encodes a result with all escapes that keep a terminal safe, which
// programs undo.
func encodeJSON(result any) ([]byte, error) {
	return encodeWith(result, func(r rune) string {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	})
}

// encodeWith encodes a result as JSON, with the escapes of a language for
// characters that take more than 16 bits.
func encodeWith(result any, long func(rune) string) ([]byte, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(result); err != nil {
		return nil, err
	}
	if isHarmless(body.Bytes()) {
		return body.Bytes(), nil
	}
	// What is not plain, and the middle of a command, stands in strings only.
	var out bytes.Buffer
	var commands commandFinder
	for _, r := range body.String() {
		switch {
		case (r == '\n' || isPlain(r)) && !commands.completedBy(r):
			out.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteString(long(r))
		}
	}
	return out.Bytes(), nil
}

func isHarmless(body []byte) bool {
	var commands commandFinder
	return bytes.IndexFunc(body, func(r rune) bool { return r != '\n' && !isPlain(r) || commands.completedBy(r) }) < 0
}

// maxYAMLBytes bounds the input of the encoder of YAML, which takes some hundred
// bytes of memory for each.
const maxYAMLBytes = 4 << 20

// encodeYAML encodes a result as YAML. What YAML would print as it is although a
// terminal or a CI service might obey it, or would refuse, and what is large, is printed
// as JSON, which YAML includes but for the escapes of characters that take more than 16
// bits.
func encodeYAML(result any) ([]byte, error) {
	asJSON, err := encodeWith(result, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) })
	if err != nil || len(asJSON) > maxYAMLBytes {
		return asJSON, err
	}
	body, err := yaml.Marshal(result)
	if err == nil && isHarmless(body) {
		return body, nil
	}
	return asJSON, nil
}

// commandFinder finds in text what a CI service obeys that reads it: "::" at the
// start of a line, after spaces too, and "##[" or "##name[" anywhere. See
// https://docs.github.com/actions/reference/workflow-commands-for-github-actions and
// https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands.
type commandFinder struct {
	// inLine tells that the line has more than spaces.
	inLine bool
	// colon tells that the line begins with a colon, and that this was the last
	// character.
	colon bool
	// hashes counts the last characters up to two; letters may follow two.
	hashes int
}

// completedBy takes the next character of the text and tells whether a command
// would begin with it.
func (f *commandFinder) completedBy(r rune) bool {
	found := f.colon && r == ':' || f.hashes == 2 && r == '['
	f.colon = !f.inLine && r == ':'
	f.inLine = r != '\n' && (f.inLine || !unicode.IsSpace(r))
	switch {
	case r == '#':
		f.hashes = min(f.hashes+1, 2)
	case f.hashes < 2 || !unicode.IsLetter(r):
		f.hashes = 0
	}
	return found
}

// guard is the way of all that the command prints, whatever wrote it: a terminal
// or a CI service that shows it obeys nothing in it. Lines and tabs pass.
type guard struct {
	mu       sync.Mutex
	to       io.Writer
	commands commandFinder
	// rest is the beginning of a character.
	rest []byte
}

// Write writes text with escapes in place of what something would obey.
func (g *guard) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := slices.Concat(g.rest, p)
	out := make([]byte, 0, len(text))
	for len(text) > 0 && utf8.FullRune(text) {
		r, size := utf8.DecodeRune(text)
		switch shown := r == '\n' || r == '\t' || r == '\r' && bytes.HasPrefix(text, []byte("\r\n")) || isPlain(r); {
		case g.commands.completedBy(r):
			out = fmt.Appendf(out, `\x%02x`, r)
		case shown:
			out = append(out, text[:size]...)
		default:
			out = append(out, printable(string(text[:size]))...)
		}
		text = text[size:]
	}
	g.rest = text
	if _, err := g.to.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// unguarded returns what is behind a guard, for what draws on a terminal.
func unguarded(w io.Writer) io.Writer {
	if s, guarded := w.(*guard); guarded {
		return s.to
	}
	return w
}
