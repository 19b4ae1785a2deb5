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

package git

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// ErrNoCommit says that nothing is committed yet.
var ErrNoCommit = errors.New("there is no commit yet")

var errRefTable = errors.New("its references are kept in the format reftable, which is not read here")

const (
	// maxSymbolic is how many references may lead from one to the next, as in git.
	maxSymbolic = 5
	// maxLooseTags bounds the tags that have a file each.
	maxLooseTags = 100_000

	// maxName is the longest name of a reference, in bytes.
	maxName = 1024

	tags = "refs/tags/"
)

// Head returns the commit that is checked out, and the branch: empty where a
// commit is checked out by itself.
//
// Errors: ErrNoCommit, and others when HEAD cannot be read.
func (r *Repository) Head() (commit ID, branch string, err error) {
	name, from := "HEAD", r.own
	for range maxSymbolic {
		text, err := readSmall(from, name, maxPointerBytes)
		if errors.Is(err, fs.ErrNotExist) && name != "HEAD" {
			commit, err := r.packedRef(name)
			return commit, branch, err
		}
		if err != nil {
			return "", "", err
		}
		value := strings.TrimSpace(string(text))
		target, symbolic := strings.CutPrefix(value, "ref:")
		if !symbolic {
			commit, err := parseID(value)
			return commit, branch, err
		}
		name, from = strings.TrimSpace(target), r.common
		if name == "refs/heads/.invalid" {
			return "", "", errRefTable
		}
		if !isReference(name) {
			return "", "", fmt.Errorf("%q is no reference", name)
		}
		if branch == "" {
			branch = strings.TrimPrefix(strings.TrimPrefix(name, "refs/"), "heads/")
		}
	}
	return "", "", errors.New("HEAD leads to too many references")
}

// isReference tells whether git allows the name of a reference:
// https://git-scm.com/docs/git-check-ref-format.
func isReference(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || strings.HasPrefix(element, ".") || strings.HasSuffix(element, ".lock") {
			return false
		}
	}
	return len(name) <= maxName && strings.HasPrefix(name, "refs/") && !strings.HasSuffix(name, ".") &&
		!strings.Contains(name, "..") && !strings.Contains(name, "@{") &&
		!strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '\x7f' || strings.ContainsRune(`~^:?*[\`, c) })
}

// packedRefs visits the lines of the file of references, those of tags with what
// they lead to in the end.
func (r *Repository) packedRefs(visit func(name string, id, peeled ID)) error {
	text, err := readSmall(r.common, "packed-refs", maxPackedRefsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var name string
	var id, peeled ID
	tell := func() {
		if name != "" {
			visit(name, id, peeled)
		}
		name, peeled = "", ""
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if target, found := strings.CutPrefix(line, "^"); found {
			peeled, _ = parseID(target)
			continue
		}
		tell()
		if hexadecimal, named, found := strings.Cut(line, " "); found && hexadecimal != "#" {
			if id, err = parseID(hexadecimal); err != nil {
				return fmt.Errorf("packed-refs: %w", err)
			}
			name = named
		}
	}
	tell()
	return nil
}

func (r *Repository) packedRef(wanted string) (found ID, err error) {
	err = r.packedRefs(func(name string, id, _ ID) {
		if name == wanted {
			found = id
		}
	})
	if err == nil && found == "" {
		err = ErrNoCommit
	}
	return found, err
}

// tagged is a tag of a commit.
type tagged struct {
	name string
	// made is when an annotated tag was made, in seconds; 0 for another one.
	made int64
}

// Tag returns the tag of a commit, as git describe prefers them: the annotated one
// that was made last or, without one, the first by name. It is empty where no tag
// names the commit.
func (r *Repository) Tag(ctx context.Context, commit ID) (string, error) {
	ids := map[string]ID{}
	err := r.packedRefs(func(name string, id, peeled ID) {
		if strings.HasPrefix(name, tags) && (id == commit || peeled == commit) {
			ids[name] = id
		}
	})
	if err == nil {
		err = r.looseTags(ids)
	}
	if err != nil {
		return "", err
	}
	var found []tagged
	for name, id := range ids {
		made, err := r.leadsTo(ctx, id, commit)
		if ctx.Err() != nil {
			return "", err
		}
		// A tag that cannot be read names no commit.
		if err == nil && isReference(name) {
			found = append(found, tagged{strings.TrimPrefix(name, tags), made})
		}
	}
	if len(found) == 0 {
		return "", nil
	}
	return slices.MinFunc(found, func(a, b tagged) int {
		return cmp.Or(cmp.Compare(b.made, a.made), cmp.Compare(a.name, b.name))
	}).name, nil
}

// looseTags adds the tags that have a file each. They hide those of packed-refs.
func (r *Repository) looseTags(ids map[string]ID) error {
	seen := 0
	err := fs.WalkDir(limit.FS(r.common), path.Clean(tags), func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if seen++; seen > maxLooseTags {
			return fmt.Errorf("the repository has more than %d tags in files of their own; run git pack-refs", maxLooseTags)
		}
		text, err := readSmall(r.common, name, maxPointerBytes)
		if err != nil {
			return err
		}
		delete(ids, name)
		if id, err := parseID(strings.TrimSpace(string(text))); err == nil {
			ids[name] = id
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

var errElsewhere = errors.New("the tag is of another object")

// leadsTo returns when an annotated tag of a commit was made.
func (r *Repository) leadsTo(ctx context.Context, tag, commit ID) (made int64, err error) {
	for range maxSymbolic {
		if tag == commit {
			return made, nil
		}
		o, err := r.object(ctx, tag)
		if err != nil {
			return 0, err
		}
		if o.kind != "tag" {
			break
		}
		if made == 0 {
			// It may have been made by nobody at no time.
			made = 1
			if seconds, err := stamp(field(o.body, "tagger")); err == nil {
				made = max(made, seconds)
			}
		}
		if tag, err = parseID(field(o.body, "object")); err != nil {
			return 0, err
		}
	}
	return 0, errElsewhere
}
