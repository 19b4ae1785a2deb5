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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/trust"
)

const diffLong = `diff compares what image-source-controller would publish of A and B: files added, removed and changed, with a unified diff of text, and sizes and digests
of the rest, and empty folders added and removed. Permissions count as far as a file is executable or not.

Each of A and B is a reference, or the path of a folder or file, which is read as flux bundle push would push it. A path begins with ./, ../ or /; on Windows
also with a drive or with a backslash in it. A reference begins with the host of its registry, or with oci://. Anything else is an error, whatever files exist:
write ./deploy for a folder deploy, and oci://org/app or docker.io/org/app for a name of Docker Hub.

The exit code is 0 when there is no difference, 1 when there is, and 2 when something went wrong, as that of diff(1).`

const diffExample = `  # show what a push of a folder would change
  flux bundle diff ghcr.io/org/app-deploy:v1.0.0 ./deploy

  # show what changed from one version to the next
  flux bundle diff ghcr.io/org/app-deploy:v1.0.0 ghcr.io/org/app-deploy:v1.1.0

  # push only what is different, and not when that could not be found out
  flux bundle diff ghcr.io/org/app-deploy:latest ./deploy >/dev/null ||
    { [ $? -eq 1 ] && flux bundle push -f ./deploy -t ghcr.io/org/app-deploy:latest; }`

// diff is one run of the verb.
type diff struct {
	*app

	content contentFlags
	output  output
	follow  bool
}

func newDiff(a *app) *cobra.Command {
	d := &diff{app: a}
	cmd := &cobra.Command{
		Use:     "diff A B",
		Short:   "Compare what would be published of two artifacts or folders",
		Long:    diffLong,
		Example: diffExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return trouble(fmt.Errorf("%s given, expected two: references or folders, such as ghcr.io/org/app-deploy:v1.0.0 ./deploy", counted(len(args), "argument")))
			}
			return nil
		},
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			return trouble(a.start(cmd, args))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(d.output.check(), d.content.check(), d.checkSides(args)); err != nil {
				return trouble(err)
			}
			return trouble(d.run(cmd.Context(), [2]string(args)))
		},
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return trouble(readable(cmd, err)) })
	d.content.bind(cmd)
	d.output.bind(cmd)
	cmd.Flags().BoolVar(&d.follow, followFlag, false, followUsage)
	return cmd
}

// errDifferent ends diff with the code for a difference, and in silence: the
// result says it.
var errDifferent = &exitError{code: exitFailure}

// trouble gives every error but a difference the exit code of diff for it.
func trouble(err error) error {
	if err == nil || errors.Is(err, errDifferent) {
		return err
	}
	return &exitError{code: exitTrouble, err: err}
}

func (d *diff) run(ctx context.Context, names [2]string) error {
	return inScratch(func(scratch string) error {
		var sides [2]*side
		for i, text := range names {
			s, err := d.newSide(ctx, text, filepath.Join(scratch, fmt.Sprint(i)))
			if err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
			defer s.root.Close()
			sides[i] = s
		}
		c, err := compare(ctx, sides[0], sides[1])
		if err != nil {
			return err
		}
		if d.output.format == "text" {
			err = c.text(ctx, d.out, newPaint(isTerminal(d.out), d.getenv("NO_COLOR") == ""))
		} else {
			err = c.encode(ctx, d.output, d.out)
		}
		if err != nil {
			return err
		}
		if c.Identical {
			return nil
		}
		d.statusf("%s", c.summary())
		return errDifferent
	})
}

// side is one of two things to compare, unpacked.
type side struct {
	shown sideShown
	root  *os.Root
	tree  *tree
}

// sideShown is what the result says of a side.
type sideShown struct {
	// Path or Reference, as it was given.
	Path      string `json:"path,omitempty"`
	Reference string `json:"reference,omitempty"`
	// Digest of the manifest behind a reference.
	Digest string `json:"digest,omitempty"`
	// Published is the digest of the file that would be published.
	Published string `json:"published"`
	Format    string `json:"format"`
}

// newSide reads a side into scratch, a folder for this side alone, which is not there
// yet.
func (d *diff) newSide(ctx context.Context, text, scratch string) (*side, error) {
	unpacked := filepath.Join(scratch, "tree")
	if err := os.MkdirAll(unpacked, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(unpacked)
	if err != nil {
		return nil, err
	}
	s := &side{root: root}
	isPath, err := d.classify(text)
	switch {
	case err != nil:
	case isPath:
		err = d.readLocal(ctx, s, text, scratch)
	default:
		err = d.readReference(ctx, s, text, scratch)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return s, nil
}

// checkSides refuses an argument that is neither a path of a file or folder nor a
// reference, before the other side is read.
func (d *diff) checkSides(names []string) error {
	for _, text := range names {
		isPath, err := d.classify(text)
		if err == nil && isPath {
			err = checkThere(text, d.follow)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkThere refuses a path with nothing there. One through a planted link is refused
// whether it leads to anything or not: the author of the link must not learn that.
func checkThere(path string, follow bool) error {
	at, err := locate(path, follow)
	if err == nil {
		_, err = at.stat()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, pathless(err))
	}
	return nil
}

// classify tells a path from a reference, and refuses what is neither. The spelling
// alone decides: a tree from elsewhere may have a file of any name, such as that of
// the reference.
func (d *diff) classify(text string) (isPath bool, err error) {
	slashed := filepath.ToSlash(text)
	first, _, _ := strings.Cut(slashed, "/")
	switch {
	case strings.HasPrefix(text, ociScheme):
		_, err = d.reference(text)
		return false, err
	case first == "" && text != "", first == ".", first == "..", slashed != text, filepath.VolumeName(text) != "":
		return true, nil
	case reference.NamesHost(text):
		_, err = d.reference(text)
		return false, err
	default:
		return false, fmt.Errorf("%q may be a path or a name of Docker Hub: write %q for the path, %q for the artifact", text, "./"+text, ociScheme+text)
	}
}

// readLocal packs a folder or file as a push would, and unpacks that.
func (d *diff) readLocal(ctx context.Context, s *side, path, scratch string) error {
	from, err := openLocal(ctx, path, d.follow, d.flags.limits.UncompressedBytes)
	if err != nil {
		return pathless(err)
	}
	defer from.close()
	if err := checkFinished(ctx, filepath.Join(from.folder, from.file)); err != nil {
		return err
	}
	packed, err := from.pack(ctx, scratch, d.content.ignorePaths, d.flags.limits)
	if err != nil {
		return err
	}
	s.shown = sideShown{Path: path, Published: packed.Digest.String(), Format: v1alpha1.FormatFlux}
	s.tree, err = readTree(ctx, packed.Path, s.root)
	return err
}

func (d *diff) readReference(ctx context.Context, s *side, text, scratch string) error {
	from, err := openOrigin(ctx, d.app, text)
	if err != nil {
		return err
	}
	options := d.content.options(d.flags.limits)
	reading, err := from.read(ctx, options, trust.NoDemands{}, scratch)
	if err != nil {
		return err
	}
	s.shown = sideShown{
		Reference: text, Digest: reading.Image.Digest.String(),
		Published: reading.Content.Digest.String(), Format: reading.Content.Format,
	}
	if reading.Content.ChartVersion != "" { // whose files are compared, not its bytes
		if s.tree, err = readChart(ctx, reading.Content.Path, s.root); err != nil {
			return err
		}
		if repeated := s.tree.repeated(); len(repeated) > 0 {
			d.warnf("the chart %s has files more than once, and each copy is compared by itself: %s", text, some(repeated))
		}
		return nil
	}
	s.tree, err = unpackContent(ctx, reading.Content, unpacking{name: from.baseName(), options: options, into: s.root})
	return err
}

// comparison is the result of diff, with stable names.
type comparison struct {
	A         sideShown `json:"a"`
	B         sideShown `json:"b"`
	Identical bool      `json:"identical"`
	Changes   []change  `json:"changes"`

	from, to *side
}

// change is a file that differs, or an empty folder that only one side has.
type change struct {
	// Path ends with a slash for a folder.
	Path string `json:"path"`
	// Copy is set from 2 where a chart has the path more than once.
	Copy int `json:"copy,omitempty"`
	// Kind is added, removed or changed.
	Kind string     `json:"kind"`
	Old  *shownFile `json:"old,omitempty"`
	New  *shownFile `json:"new,omitempty"`
	// Diff is a unified diff of text; empty for what is not text or too large.
	Diff string `json:"diff,omitempty"`
}

// Kinds of changes.
const (
	added   = "added"
	removed = "removed"
	changed = "changed"
)

func compare(ctx context.Context, a, b *side) (*comparison, error) {
	c := &comparison{A: a.shown, B: b.shown, Changes: []change{}, from: a, to: b}
	before, err := byPath(ctx, a.tree)
	if err != nil {
		return nil, err
	}
	after, err := byPath(ctx, b.tree)
	if err != nil {
		return nil, err
	}
	for at, old := range before {
		switch now, ok := after[at]; {
		case !ok:
			c.Changes = append(c.Changes, change{Path: at.path, Copy: at.copy, Kind: removed, Old: &old})
		case old != now:
			c.Changes = append(c.Changes, change{Path: at.path, Copy: at.copy, Kind: changed, Old: &old, New: &now})
		}
	}
	for at, now := range after {
		if _, ok := before[at]; !ok {
			c.Changes = append(c.Changes, change{Path: at.path, Copy: at.copy, Kind: added, New: &now})
		}
	}
	for _, folder := range a.tree.empty() {
		if _, ok := b.tree.folders[folder]; !ok {
			c.Changes = append(c.Changes, change{Path: folder + "/", Kind: removed})
		}
	}
	for _, folder := range b.tree.empty() {
		if _, ok := a.tree.folders[folder]; !ok {
			c.Changes = append(c.Changes, change{Path: folder + "/", Kind: added})
		}
	}
	slices.SortFunc(c.Changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Copy, b.Copy)) })
	c.Identical = len(c.Changes) == 0
	return c, nil
}

// treePath is where a file is in a tree.
type treePath struct {
	path string
	copy int
}

func byPath(ctx context.Context, t *tree) (map[treePath]shownFile, error) {
	files := map[treePath]shownFile{}
	for _, f := range t.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		files[treePath{f.path, f.copy}] = shownOf(f)
	}
	return files, nil
}

// name of the file, for a person.
func (c change) name() string {
	if c.Copy == 0 {
		return c.Path
	}
	return fmt.Sprintf("%s (copy %d)", c.Path, c.Copy)
}

func (c *comparison) summary() string {
	count := map[string]int{}
	for _, change := range c.Changes {
		count[change.Kind]++
	}
	var parts []string
	for _, kind := range []string{added, removed, changed} {
		if n := count[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return strings.Join(parts, ", ")
}

const (
	// maxDiffedBytes bounds a file whose changes are shown.
	maxDiffedBytes = 1 << 20
	// maxEncodedBytes bounds all diffs that one result holds.
	maxEncodedBytes = 32 << 20
)

// diffOf returns a unified diff of a change; ok is false when it is not one of
// text, or of too much.
func (c *comparison) diffOf(change change) (text string, ok bool, err error) {
	old, readable, err := textOf(c.from, change.Old)
	if !readable || err != nil {
		return "", false, err
	}
	now, readable, err := textOf(c.to, change.New)
	if !readable || err != nil {
		return "", false, err
	}
	const nothing = "/dev/null" // what patch(1) knows, on every system
	before, after := "a/"+change.name(), "b/"+change.name()
	if change.Old == nil {
		before = nothing
	}
	if change.New == nil {
		after = nothing
	}
	text, err = udiff.ToUnified(printable(before), printable(after), old, udiff.Lines(old, now), udiff.DefaultContextLines)
	return text, err == nil, err
}

// textOf returns the content of a file, empty for none.
func textOf(s *side, file *shownFile) (text string, readable bool, err error) {
	switch {
	case file == nil:
		return "", true, nil
	case file.Size > maxDiffedBytes:
		return "", false, nil
	}
	body, err := fs.ReadFile(s.root.FS(), s.tree.stored(file.Path, file.Copy))
	return string(body), err == nil && isText(body), err
}

// isText tells text from the rest. What a terminal might obey is not text.
func isText(body []byte) bool {
	return utf8.Valid(body) && bytes.IndexFunc(body, func(r rune) bool {
		return unicode.IsControl(r) && r != '\n' && r != '\t' && r != '\r'
	}) < 0
}

// encode prints the comparison for a program.
func (c *comparison) encode(ctx context.Context, out output, w io.Writer) error {
	left := maxEncodedBytes
	for i, change := range c.Changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, _, err := c.diffOf(change)
		if err != nil {
			return err
		}
		if left -= len(text); left < 0 {
			break
		}
		c.Changes[i].Diff = text
	}
	return out.print(w, c, nil)
}

// text prints the comparison for a person, and for patch(1).
func (c *comparison) text(ctx context.Context, w io.Writer, p paint) error {
	if p.terminal {
		w = unguarded(w) // the colours are for the terminal; p has the text pass a guard before
	}
	for _, change := range c.Changes {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, ok, err := c.diffOf(change)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, p.diff(change.head(ok)+text)); err != nil {
			return err
		}
	}
	return nil
}

// head is what stands before a diff, or in place of one.
func (c change) head(hasDiff bool) string {
	name, head := printable(c.name()), ""
	if c.Old == nil && c.New == nil {
		return fmt.Sprintf("Folder %s is %s: empty\n", name, c.Kind)
	}
	was, is := c.Old != nil && c.Old.Executable, c.New != nil && c.New.Executable
	switch {
	case is && !was:
		head = fmt.Sprintf("File %s is executable\n", name)
	case was && !is && c.New != nil:
		head = fmt.Sprintf("File %s is not executable any more\n", name)
	}
	switch {
	case c.Kind == added && !hasDiff:
		head += fmt.Sprintf("File %s is added: %s\n", name, c.New)
	case c.Kind == removed && !hasDiff:
		head += fmt.Sprintf("File %s is removed: %s\n", name, c.Old)
	case c.Kind == changed && !hasDiff && c.Old.SHA256 != c.New.SHA256:
		head += fmt.Sprintf("File %s is changed: %s -> %s\n", name, c.Old, c.New)
	case c.Kind == added && c.New.Size == 0:
		head += fmt.Sprintf("File %s is added: empty\n", name)
	case c.Kind == removed && c.Old.Size == 0:
		head += fmt.Sprintf("File %s is removed: empty\n", name)
	}
	return head
}

// paint shows a diff on a terminal, or as it is.
type paint struct{ terminal, colour bool }

func newPaint(terminal, colour bool) paint {
	return paint{terminal: terminal, colour: terminal && colour}
}

// Colours of the lines of a diff, as those of git.
const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	reset = "\x1b[m"
)

// diff shows what passed isText: for a terminal the few characters are escaped
// that would make it show something else than the text. A CI service may be
// behind the terminal.
func (p paint) diff(text string) string {
	if !p.terminal {
		return text
	}
	var guarded, b strings.Builder
	_, _ = (&guard{to: &guarded}).Write([]byte(text)) // a builder never fails
	header := true
	for line := range strings.Lines(guarded.String()) {
		line, end := strings.CutSuffix(line, "\n")
		header = header && !strings.HasPrefix(line, "@@")
		cells := strings.Split(line, "\t")
		for i := range cells {
			cells[i] = printable(cells[i])
		}
		line = strings.Join(cells, "\t")
		if colour := colourOf(line, header); p.colour && colour != "" {
			line = colour + line + reset
		}
		b.WriteString(line)
		if end {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func colourOf(line string, header bool) string {
	switch {
	case header:
		return bold
	case strings.HasPrefix(line, "@@"):
		return cyan
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"):
		return red
	default:
		return ""
	}
}
