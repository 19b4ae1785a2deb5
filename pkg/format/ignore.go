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
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxIgnoreBytes bounds the ignore files of a tree, with the paths of their
	// folders, and the ignore option together: they are held in memory.
	maxIgnoreBytes = 128 << 10
	// maxIgnoreWork bounds the bytes that are compared to try every pattern on
	// every path, at some two nanoseconds each.
	maxIgnoreWork = 4_000_000_000
	// patternWork is what it costs to try a pattern that is not even read, in
	// bytes that are compared.
	patternWork = 8
)

// filter says what is left out of a tree.
type filter int

const (
	// asAsked leaves out what the ignore option matches and nothing else.
	asAsked filter = iota
	// likeFlux filters exactly as source-controller does for an OCIRepository:
	// .sourceignore files count in their own folder, the option's patterns come
	// last and so win, and where there is neither, Flux's default excludes apply.
	likeFlux
)

// ignoreRules are the patterns by which a tree is filtered.
type ignoreRules struct {
	filter filter
	// files are the contents of the .sourceignore files by their folder.
	files map[string][]byte
	// bytes of all files, of their folders and of the option.
	bytes  int
	option string
	// flaw is what PatternFlaw says of the first file in the archive that has one.
	flaw string
}

func newIgnoreRules(f filter, option *string) (*ignoreRules, error) {
	rules := &ignoreRules{filter: f, files: map[string][]byte{}}
	if option == nil {
		return rules, nil
	}
	if err := rules.grow(len(*option)); err != nil {
		return nil, err
	}
	text, flaw := ignoreText([]byte(*option))
	if flaw != "" {
		return nil, invalidSpec("spec.ignore %s", flaw)
	}
	rules.option = string(text)
	return rules, nil
}

// ignoreText returns the patterns in a text without its byte order mark, which Git
// skips, too. It refuses a text whose patterns would match nothing, so that what
// they are to leave out would be published: the flaw ends a sentence that begins
// with the name of the text.
func ignoreText(body []byte) (text []byte, flaw string) {
	if flaw := checkText(body); flaw != "" {
		return nil, flaw
	}
	text = bytes.TrimPrefix(body, byteOrderMark)
	if bytes.Contains(text, byteOrderMark) {
		return nil, "has a byte order mark that is not at its start; remove it"
	}
	for line := range bytes.Lines(text) {
		if len(line) >= bufio.MaxScanTokenSize { // the library reads no further
			return nil, fmt.Sprintf("has a line of %d bytes, expected less than %d; break it", len(line), bufio.MaxScanTokenSize)
		}
	}
	for i, b := range text {
		if b == '\r' && i+1 < len(text) && text[i+1] != '\n' {
			return nil, "has a carriage return within a line; end lines with a line feed"
		}
	}
	return text, ""
}

func (r *ignoreRules) grow(n int) error {
	if r.bytes += n; r.bytes > maxIgnoreBytes {
		return tooLarge("the %s files, with the paths of their folders, and spec.ignore have more than %d bytes together, the most that are read", sourceignore.IgnoreFile, maxIgnoreBytes)
	}
	return nil
}

// note keeps the content of a file if it is one of rules.
func (r *ignoreRules) note(e entry, content io.Reader) error {
	dir, base := path.Split(e.path)
	// Flux does not look into .git folders for rules.
	if r.filter != likeFlux || base != sourceignore.IgnoreFile || e.folder || slices.Contains(strings.Split(dir, "/"), ".git") {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(content, maxIgnoreBytes+1))
	if err != nil {
		return err
	}
	// The name may be a small part of a large PAX header, which it would keep.
	dir = strings.Clone(strings.TrimSuffix(dir, "/"))
	if err := r.grow(len(dir) + len(body)); err != nil {
		return err
	}
	text, flaw := ignoreText(body)
	if flaw != "" {
		return invalid("the file %s %s", fault.Quote(e.path), flaw)
	}
	if r.flaw == "" {
		r.flaw = PatternFlaw(fault.Quote(e.path), string(text))
	}
	r.files[dir] = text
	return nil
}

// apply marks in the tree what is left out. It tells how many files stay, and
// how many files and folders do not.
func (r *ignoreRules) apply(ctx context.Context, t *tree) (files, dropped int, err error) {
	if patterns, work := r.work(t); work > maxIgnoreWork {
		return 0, 0, tooLarge("%d ignore patterns on %d files and folders would take too long; use fewer or shorter patterns, and fewer with wildcards", patterns, len(t.nodes))
	}
	matcher := r.matcher(r.patterns())
	files, dropped = t.drop(func(n *node) bool {
		// An attempt that is over needs no answer.
		return ctx.Err() == nil && matcher.Match(strings.Split(n.path, "/"), n.folder)
	})
	return files, dropped, ctx.Err()
}

// leaveOut applies the rules to a tree of which at least one file has to stay, and
// tells how many files and folders do not. Links are those that were skipped.
func (r *ignoreRules) leaveOut(ctx context.Context, t *tree, links int, report *Report) (dropped int, err error) {
	files, dropped, err := r.apply(ctx, t)
	if err != nil {
		return 0, err
	}
	report.omitDropped(t)
	switch {
	case files > 0:
		return dropped, nil
	case dropped > 0:
		return 0, invalid("every file of the artifact is left out by the ignore rules; change spec.ignore or the %s files in the artifact", sourceignore.IgnoreFile)
	case links > 0:
		return 0, invalid("the artifact has symbolic links and no files; push the files that they point to")
	default:
		return 0, invalid("the artifact has no files; push a folder that has some")
	}
}

func (r *ignoreRules) matcher(patterns []gitignore.Pattern) gitignore.Matcher {
	switch {
	case r.filter != likeFlux:
		return sourceignore.NewMatcher(patterns)
	case len(patterns) == 0:
		return sourceignore.NewDefaultMatcher(nil, nil)
	default:
		return sourceignore.NewMatcher(append(sourceignore.VCSPatterns(nil), patterns...))
	}
}

// patterns returns all patterns by increasing priority: each folder before the
// folders in it, folders of one parent by name, the option last.
func (r *ignoreRules) patterns() []gitignore.Pattern {
	folders := slices.SortedFunc(maps.Keys(r.files), func(a, b string) int { return slices.Compare(domainOf(a), domainOf(b)) })
	var patterns []gitignore.Pattern
	for _, folder := range folders {
		if read := sourceignore.ReadPatterns(bytes.NewReader(r.files[folder]), nil); len(read) > 0 {
			patterns = append(patterns, scope{domainOf(folder), read})
		}
	}
	return append(patterns, sourceignore.ReadPatterns(strings.NewReader(r.option), nil)...)
}

// scope is the patterns of one file, which hold in its folder. Given to the
// library, the folder would be copied for each pattern.
type scope struct {
	domain   []string
	patterns []gitignore.Pattern
}

// Match implements gitignore.Pattern: the last pattern that says anything of a
// path decides.
func (s scope) Match(path []string, isDir bool) gitignore.MatchResult {
	depth := len(s.domain)
	if len(path) <= depth || !slices.Equal(path[:depth], s.domain) {
		return gitignore.NoMatch
	}
	for _, p := range slices.Backward(s.patterns) {
		if result := p.Match(path[depth:], isDir); result != gitignore.NoMatch {
			return result
		}
	}
	return gitignore.NoMatch
}

// work returns how many patterns there are, and what it takes to try them on all paths
// of a tree, in bytes that are compared (see path/filepath.Match).
func (r *ignoreRules) work(t *tree) (patterns int, work int64) {
	var elements, characters int64
	for _, n := range t.nodes {
		elements += int64(strings.Count(n.path, "/") + 1)
		characters += int64(len(n.path))
	}
	for _, text := range append(slices.Collect(maps.Values(r.files)), []byte(r.option)) {
		for line := range bytes.Lines(text) {
			if line[0] == '#' || len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			patterns++
			// Each element of a path is compared with all of a pattern, and with what
			// follows a star from each of its bytes on.
			work += elements * int64(len(line)+patternWork)
			for part := range bytes.SplitSeq(line, []byte("/")) {
				if bytes.IndexByte(part, '*') >= 0 {
					work += characters * int64(len(bytes.TrimLeft(part, "*")))
				}
			}
		}
	}
	return patterns, work
}

func domainOf(dir string) []string {
	if dir == "" {
		return nil
	}
	return strings.Split(dir, "/")
}

// PatternFlaw describes the first line of an ignore text that is no pattern, or has
// characters that nobody sees, for the end of a message; name is that of the text. It is
// empty if all lines can be read.
func PatternFlaw(name, text string) string {
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, string(byteOrderMark))) {
		number++
		pattern := strings.TrimRight(line, "\r\n")
		switch at := fmt.Sprintf("line %d of %s is %s, which", number, name, fault.Quote(pattern)); {
		case !IsPattern(pattern):
			return at + ` is no pattern: every [ needs its ], and \ something behind it`
		case hasUnseen(pattern):
			return at + " has a character that nobody sees and that few names have: remove it, or write ? in its place"
		}
	}
	return ""
}

// IsPattern tells whether a line of a .sourceignore file can be read. One that
// cannot matches nothing, and what it was to leave out would be published.
func IsPattern(line string) bool {
	if strings.HasPrefix(line, "#") {
		return true
	}
	for element := range strings.SplitSeq(line, "/") {
		if _, err := filepath.Match(element, ""); err != nil {
			return false
		}
	}
	return true
}

// hasUnseen tells whether a line of a .sourceignore file has a character that nobody
// sees, but for the spaces at its end that Git drops. Names with such a character are
// rare, so the line hardly matches as it seems to.
func hasUnseen(line string) bool {
	isUnseen := func(r rune) bool { return !unicode.IsGraphic(r) }
	last, _ := utf8.DecodeLastRuneInString(strings.TrimRight(line, " "))
	return !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" && (strings.ContainsFunc(line, isUnseen) || last != ' ' && unicode.IsSpace(last))
}
