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
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Commit is a commit.
type Commit struct {
	Tree ID
	// Time of the committer.
	Time time.Time
}

// Commit reads a commit.
func (r *Repository) Commit(ctx context.Context, id ID) (Commit, error) {
	body, err := r.ofKind(ctx, id, "commit")
	if err != nil {
		return Commit{}, err
	}
	tree, err := parseID(field(body, "tree"))
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s: %w", id, err)
	}
	seconds, err := stamp(field(body, "committer"))
	if err != nil {
		return Commit{}, fmt.Errorf("commit %s has no time: %w", id, err)
	}
	return Commit{tree, time.Unix(seconds, 0).UTC()}, nil
}

// field reads the first field of a name of a commit or tag.
func field(body []byte, name string) string {
	for line := range bytes.Lines(body) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(line) == 0 {
			break // the message follows
		}
		if key, value, _ := bytes.Cut(line, []byte(" ")); string(key) == name {
			return string(value)
		}
	}
	return ""
}

// stamp reads the time behind a name and an address.
func stamp(signature string) (int64, error) {
	_, when, _ := strings.Cut(signature[strings.LastIndexByte(signature, '>')+1:], " ")
	seconds, _, _ := strings.Cut(when, " ")
	return strconv.ParseInt(seconds, 10, 64)
}

// Mode is the kind of an entry of a tree.
type Mode int

// Modes of entries, as git writes them.
const (
	ModeTree       Mode = 0o040000
	ModeFile       Mode = 0o100644
	ModeExecutable Mode = 0o100755
	ModeLink       Mode = 0o120000
	// ModeCommit is a submodule: the entry names a commit of its repository.
	ModeCommit Mode = 0o160000
)

// Entry is an entry of a tree.
type Entry struct {
	Name string
	Mode Mode
	ID   ID
}

// Tree reads the entries of a tree, which is a folder.
func (r *Repository) Tree(ctx context.Context, id ID) ([]Entry, error) {
	rest, err := r.ofKind(ctx, id, "tree")
	if err != nil {
		return nil, err
	}
	var entries []Entry
	seen := map[string]bool{}
	for len(rest) > 0 {
		head, behind, found := bytes.Cut(rest, []byte{0})
		mode, name, _ := strings.Cut(string(head), " ")
		number, err := strconv.ParseUint(mode, 8, 31)
		if !found || err != nil || len(behind) < len(id) || !isName(name) || seen[name] {
			return nil, fmt.Errorf("tree %s: %w", id, errCorrupt)
		}
		entries = append(entries, Entry{Name: name, Mode: modeOf(number), ID: ID(behind[:len(id)])})
		seen[name] = true
		rest = behind[len(id):]
	}
	return entries, nil
}

// isName tells whether git takes a name of a tree for that of a file or folder.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.EqualFold(name, ".git") && !strings.Contains(name, "/")
}

// modeOf drops the permissions that old versions of git wrote into trees.
func modeOf(number uint64) Mode {
	const kind = 0o170000
	if mode := Mode(number) & kind; mode != ModeFile&kind {
		return mode
	}
	if number&0o100 != 0 {
		return ModeExecutable
	}
	return ModeFile
}

// Blob reads the content of a file of up to MaxObjectBytes.
func (r *Repository) Blob(ctx context.Context, id ID) ([]byte, error) {
	return r.ofKind(ctx, id, "blob")
}
