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

package format_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/fluxcd/pkg/sourceignore"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// utf16Of is a text in UTF-16, with a mark or without one.
func utf16Of(order binary.AppendByteOrder, text string) string {
	var body []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		body = order.AppendUint16(body, unit)
	}
	return string(body)
}

const (
	secrets = "secret.yaml\n"
	utf8BOM = "\ufeff"
)

// unreadable are texts whose patterns match nothing, though people see some.
func unreadable() map[string]string {
	return map[string]string{
		"UTF-16 as Windows writes it":         utf16Of(binary.LittleEndian, utf8BOM+secrets),
		"UTF-16 in network order":             utf16Of(binary.BigEndian, utf8BOM+secrets),
		"UTF-16 without a mark":               utf16Of(binary.LittleEndian, secrets),
		"UTF-16 in network order, no mark":    utf16Of(binary.BigEndian, secrets),
		"UTF-16 without a character of ASCII": utf16Of(binary.LittleEndian, "\ufeffгрупа"),
		"UTF-32":                              "\xff\xfe\x00\x00s\x00\x00\x00\n\x00\x00\x00",
		"a NUL":                               "secret.yaml\x00\n",
		"a NUL in a comment":                  "# \x00\n" + secrets,
		"Latin-1":                             "gehe\xefm.yaml\n",
		"two marks":                           utf8BOM + utf8BOM + secrets,
		"a mark in the middle":                "*.md\n" + utf8BOM + secrets,
		"lines that end as on old Macs":       "secret.yaml\r*.key\r",
		"two carriage returns":                "secret.yaml\r\r\n",
		"a carriage return, nearly last":      "secret.yaml\rx",
		"a long comment first":                "#" + strings.Repeat("x", 64<<10) + "\n" + secrets,
		"a long pattern first":                strings.Repeat("x", 64<<10-1) + "\n" + secrets,
		"spaces without an end":               strings.Repeat(" ", 64<<10) + "\n" + secrets,
		"a line that never ends":              secrets + strings.Repeat("x", 64<<10),
	}
}

func TestIgnoreFilesWhosePatternsCannotBeReadAreRefused(t *testing.T) {
	for name, text := range unreadable() {
		for _, path := range []string{".sourceignore", "deploy/.sourceignore"} {
			t.Run(name+" "+path, func(t *testing.T) {
				_, err := convert(t, layerOf(t, good, file{name: "secret.yaml"}, file{name: path, body: text}), format.Options{})
				expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, fmt.Sprintf("%q", path))

				_, err = pack(t, folderOf(t, map[string]string{"deploy.yaml": "x", "secret.yaml": "y", path: text}), format.PackOptions{})
				expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, fmt.Sprintf("%q", path))
			})
		}
	}
}

func TestIgnoreOptionsThatCannotBeReadAreRefused(t *testing.T) {
	for name, text := range unreadable() {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			for _, m := range []*format.Manifest{
				fluxManifest(b.put(t, fluxContent, layerOf(t, good))),
				filesManifest(titled(b.put(t, "text/plain", []byte("x")), "a.txt")),
			} {
				_, err := format.Convert(t.Context(), m, b, format.Options{Ignore: &text}, t.TempDir())
				expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall, "spec.ignore")
			}
			_, err := pack(t, folderOf(t, map[string]string{"deploy.yaml": "x"}), format.PackOptions{Ignore: text})
			expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
		})
	}
}

func TestAByteOrderMarkBeforePatternsIsSkipped(t *testing.T) {
	for name, text := range map[string]string{
		"a pattern":               utf8BOM + secrets,
		"a comment":               utf8BOM + "# secrets\n" + secrets,
		"lines that end with CR":  utf8BOM + "secret.yaml\r\n*.key\r\n",
		"the last line, too":      "*.key\r\nsecret.yaml\r",
		"a pattern with no end":   utf8BOM + "secret.yaml",
		"letters beyond of ASCII": utf8BOM + "# ümlaut\n" + secrets,
		"the longest comment":     "#" + strings.Repeat("x", 64<<10-3) + "\n" + secrets,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			files := []file{good, {name: "secret.yaml", body: "x"}}
			for what, o := range map[string]struct {
				files  []file
				option *string
			}{
				"in the artifact": {append(slices.Clip(files), file{name: ".sourceignore", body: text}), nil},
				"in the spec":     {files, &text},
			} {
				content, err := convert(t, layerOf(t, o.files...), format.Options{Ignore: o.option})
				g.Expect(err).NotTo(HaveOccurred(), what)
				g.Expect(unpack(t, content.Path)).NotTo(HaveKey("secret.yaml"), what)
				g.Expect(unpack(t, content.Path)).To(HaveKey(good.name), what)
			}
			packed, err := pack(t, folderOf(t, map[string]string{"deploy.yaml": "x", "secret.yaml": "y", ".sourceignore": text}), format.PackOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(packedNames(t, packed)).NotTo(ContainElement("secret.yaml"))
			g.Expect(readPacked(t, packed).Verbatim).To(BeTrue(), "a reader leaves out no more")
			packed, err = pack(t, folderOf(t, map[string]string{"deploy.yaml": "x", "secret.yaml": "y"}), format.PackOptions{Ignore: text})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(packedNames(t, packed)).NotTo(ContainElement("secret.yaml"))
		})
	}
}

// BenchmarkTheMostPatternsThatAreRead has texts of the largest size that is read,
// on a tree of one file. Each takes less than a tenth of a second.
func BenchmarkTheMostPatternsThatAreRead(b *testing.B) {
	const most = 128 << 10
	for name, line := range map[string]string{
		"short": "x\n", "folders": "/\n", "wildcards": "*x\n", "across folders": "**/\n", "inclusions": "!x\n", "classes": "[a]\n", "comments": "#\n",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(strings.Repeat(line, most/len(line)))
			for b.Loop() {
				matcher := sourceignore.NewMatcher(sourceignore.ReadPatterns(bytes.NewReader(text), nil))
				matcher.Match([]string{"deploy", "app.yaml"}, false)
			}
		})
	}
}
