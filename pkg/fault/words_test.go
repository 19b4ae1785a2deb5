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

package fault_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/fault"
)

func TestPlainTextIsWhatAPersonSees(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"nothing":                              {"", ""},
		"a sentence stays":                     {`it is "é", 漢, 🚀 or a+b=c; is it?`, `it is "é", 漢, 🚀 or a+b=c; is it?`},
		"white space is one space":             {" \t a\r\n\n b\u00a0\u2028\v c \u0085", "a b c"},
		"colours":                              {"\x1b[31mred\x1b[0m, \x1b[38;5;1mred\u009b0m", "red, red"},
		"orders to a cursor":                   {"a\x1b[2J\x1b[1;1H\x1bM\x1b(B\x1b7b", "ab"},
		"a title of a window":                  {"a\x1b]0;title\x07b\x1b]8;;https://host\x1b\\c\x1bP1$rq\x1b\\d", "abcd"},
		"a title without an end hides nothing": {"a\x1b]0;title b", "a0;title b"},
		"an order without an end":              {"a\x1b[", "a"},
		"a lone escape":                        {"a\x1b", "a"},
		"control characters":                   {"a\x00\a\b\x7f\u0080b", "ab"},
		"text that is turned around":           {"a\u202e\u2066\u200fb\u061c", "ab"},
		"what has no width":                    {"a\u200b\u200c\u200d\u2060\ufeff\u00adb", "ab"},
		"what is not seen, but a letter":       {"a\u3164\u115f\uffa0\u034fb", "ab"},
		"variations of a character":            {"a\ufe0f\U000e0100\u180bb", "ab"},
		"tags":                                 {"a\U000e0041b", "ab"},
		"what is no character":                 {"a\ufffe\uffff\ufdd0\ue000\U0010ffffb", "ab"},
		"what is no UTF-8":                     {"a\xff\xc3\xed\xa0\x80\ufffdb", "ab"},
		"the query of a URL":                   {"GET https://host/path?X-Amz-Signature=abc&x: 403", "GET https://host/path?*** 403"},
		"a query without a value":              {`GET "https://host/path?abcdef": 403`, `GET "https://host/path?***": 403`},
		"the query of a path":                  {"/v2/app?sig=abc 'x?y=z'", "/v2/app?*** 'x?***'"},
		"a query in a query":                   {"a?b?c=d?e=f g", "a?b?*** g"},
		"a query that is hidden":               {"https:\x00//host/\u200b?\x1b[31msecret", "https://host/?***"},
		"questions":                            {"is it https://host? or a path?", "is it https://host? or a path?"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(fault.Plain(c.text)).To(Equal(c.want))
			g.Expect(fault.Line(c.text)).To(Equal(c.want))
			g.Expect(fault.Words(c.text)).To(Equal(c.want))
		})
	}
}

func TestTextIsCutBetweenCharacters(t *testing.T) {
	const line, words = 1024, 256
	for name, c := range map[string]struct{ text, line, words string }{
		"of one byte":   {strings.Repeat("x", line+1), strings.Repeat("x", line-3) + "...", strings.Repeat("x", words-3) + "..."},
		"of two bytes":  {strings.Repeat("é", line), strings.Repeat("é", 510) + "...", strings.Repeat("é", 126) + "..."},
		"of four bytes": {strings.Repeat("🚀", line), strings.Repeat("🚀", 255) + "...", strings.Repeat("🚀", 63) + "..."},
		"words":         {strings.Repeat("words ", line), strings.Repeat("words ", 170) + "w...", strings.Repeat("words ", 42) + "w..."},
		"in a query":    {strings.Repeat("x", 231) + "https://host/path/over?a=b", strings.Repeat("x", 231) + "https://host/path/over?***", strings.Repeat("x", 231) + "https://host/path/over..."},
		"exactly":       {strings.Repeat("x", words), strings.Repeat("x", words), strings.Repeat("x", words)},
		"a megabyte":    {strings.Repeat("漢", 1<<20), strings.Repeat("漢", 340) + "...", strings.Repeat("漢", 84) + "..."},
		"of no text":    {strings.Repeat("\x80", 1<<20), "...", "..."},
		"of escapes":    {strings.Repeat("\x1b]", 1<<20), "...", "..."},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(fault.Line(c.text)).To(Equal(c.line))
			g.Expect(fault.Words(c.text)).To(Equal(c.words))
		})
	}
}

func TestAQuotedValueIsSeenToBeOdd(t *testing.T) {
	for value, want := range map[string]string{
		"":                       `""`,
		"1.0.0":                  `"1.0.0"`,
		" true\n":                `" true\n"`,
		"a \"b\" 'c' \\":         `"a \"b\" 'c' \\"`,
		"\x1b[31m\u202e\x00\xff": `"\x1b[31m\u202e\x00\xff"`,
		"a\u3164b":               `"ab"`,
		"https://host?sig=x y":   `"https://host?*** y"`,
		"https://host?\x1bx":     `"https://host?***"`,
		strings.Repeat("t", 256): `"` + strings.Repeat("t", 256) + `"`,
		strings.Repeat("t", 300): `"` + strings.Repeat("t", 253) + `..."`,
		strings.Repeat("漢", 300): `"` + strings.Repeat("漢", 84) + `..."`,
	} {
		t.Run(want, func(t *testing.T) {
			NewWithT(t).Expect(fault.Quote(value)).To(Equal(want))
		})
	}
}

// FuzzLine looks for a text that does not become fit for a message.
func FuzzLine(f *testing.F) {
	for _, text := range []string{
		"", "a sentence", "\x1b[31mred\u009b0m \x1b]0;title\x07", "a\u202eb\u200bc\ufffe\xff", "GET https://host/path?sig=abc: 403 a?b?c=d",
		strings.Repeat("漢 ", 80), strings.Repeat("x", 245) + "https://h?abc=def",
	} {
		f.Add(text)
	}
	f.Fuzz(expectFit)
}

// The fuzzer shortens what it finds, and seldom gets to texts of such length.
func TestVeryLongTextIsFitForAMessage(t *testing.T) {
	const long = 1 << 15
	for _, part := range []string{"x", "漢", "\x80", "漢\xe6", "? ", "?= ", "https://h?a ", "\x1b]", "\x1b[0m", "a\u200b", " \" '"} {
		for shift := range 8 {
			expectFit(t, strings.Repeat("x", shift)+strings.Repeat(part, long))
		}
	}
}

// expectFit asserts what whoever shows a message relies on.
func expectFit(t *testing.T, text string) {
	t.Helper()
	for name, c := range map[string]struct {
		say  func(string) string
		most int
	}{
		"Plain": {fault.Plain, 16 << 10}, "Line": {fault.Line, 1024}, "Words": {fault.Words, 256},
		"Quote": {fault.Quote[string], 2 + 4*256},
	} {
		said := c.say(text)
		switch again := fault.Plain(said); {
		case len(said) > c.most:
			t.Errorf("%s says %d bytes", name, len(said))
		case !utf8.ValidString(said):
			t.Errorf("%s says what is no UTF-8: %q", name, said)
		case strings.ContainsFunc(said, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) }):
			t.Errorf("%s says what is not seen: %q", name, said)
		case strings.Contains(said, "  ") || strings.TrimSpace(said) != said:
			t.Errorf("%s says more white space than it needs: %q", name, said)
		case again != said || name != "Quote" && c.say(said) != said || name == "Words" && fault.Line(said) != said:
			t.Errorf("%s says %q, which does not stay as it is: %q", name, said, again)
		}
	}
}
