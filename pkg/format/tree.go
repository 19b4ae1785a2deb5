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
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// node is a file or a folder of a tree.
type node struct {
	path       string
	folder     bool
	executable bool
	// named is false for a folder that only the paths below it imply.
	named bool
	// dropped by the ignore rules.
	dropped bool
	// offset and size of a file's content in the spool.
	offset, size int64
}

// tree is the files and folders of an artifact, without their content. No two
// of its paths have the same key, so that by fold they are not the same even on
// a file system without regard to case, and no file is the folder of another.
type tree struct {
	limits Limits
	// key of a path: fold, except where names that differ in case only are legal.
	key func(path string) string
	// nodes by the key of their path.
	nodes map[string]*node
	// indexBytes is the length of all paths that were named or implied, and of the keys
	// that are no paths.
	indexBytes int64
	// again says that a folder was named more than once.
	again bool
}

func newTree(limits Limits) *tree {
	return &tree{limits: limits, key: fold, nodes: map[string]*node{}}
}

// get returns the node of that path, nil when there is none.
func (t *tree) get(path string) *node { return t.nodes[t.key(path)] }

// add takes in what an artifact names, and the folders that it lies in.
func (t *tree) add(e entry) error {
	if known := t.get(e.path); known != nil {
		return t.meet(known, e)
	}
	// The name may be a small part of a large PAX header, which it would keep.
	path := strings.Clone(e.path)
	if err := t.insert(&node{path: path, folder: e.folder, executable: e.executable, named: true}); err != nil {
		return err
	}
	for path = parentOf(path); path != ""; path = parentOf(path) {
		if parent := t.get(path); parent != nil {
			return t.meet(parent, entry{path: path, folder: true, implied: true})
		}
		if err := t.insert(&node{path: path, folder: true}); err != nil {
			return err
		}
	}
	return nil
}

// parentOf returns the path of the folder that something lies in; empty: the root.
func parentOf(path string) string {
	return path[:max(0, strings.LastIndexByte(path, '/'))]
}

// meet decides whether what is named again may be.
func (t *tree) meet(known *node, again entry) error {
	switch {
	case known.path != again.path:
		return invalid("the artifact has two paths that differ in case only: %s and %s", fault.Quote(known.path), fault.Quote(again.path))
	case known.folder != again.folder:
		return invalid("the artifact has a file and a folder of one name: %s", fault.Quote(known.path))
	case again.implied:
		return nil
	case !known.folder:
		return invalid("the artifact has two files of one name: %s", fault.Quote(known.path))
	}
	// Whoever archives several folders into one names what they have in common
	// for each.
	t.again = t.again || known.named
	known.named = true
	return nil
}

func (t *tree) insert(n *node) error {
	key := t.key(n.path)
	t.indexBytes += int64(len(n.path))
	if key != n.path {
		t.indexBytes += int64(len(key))
	}
	if err := t.limits.checkIndex(len(t.nodes)+1, t.indexBytes); err != nil {
		return err
	}
	t.nodes[key] = n
	return nil
}

// checkIndex bounds what the files and folders of an artifact cost in memory.
func (l Limits) checkIndex(nodes int, pathBytes int64) error {
	if nodes > l.Entries {
		return exceeded("--max-entries", "the artifact makes more than %d files and folders", l.Entries)
	}
	if pathBytes > l.IndexBytes {
		return tooLarge("the paths of the artifact's files and folders have more than %d bytes together, the most that are read", l.IndexBytes)
	}
	return nil
}

// prune removes a folder and everything in it.
func (t *tree) prune(folder string) {
	maps.DeleteFunc(t.nodes, func(_ string, n *node) bool {
		return n.path == folder || strings.HasPrefix(n.path, folder+"/")
	})
}

// drop marks what the ignore rules leave out, and tells how many files stay
// and how many files and folders do not. A folder stays that something in it stays in.
func (t *tree) drop(ignored func(n *node) bool) (files, dropped int) {
	for _, n := range t.nodes {
		n.dropped = n.path != "." && ignored(n)
	}
	for _, n := range t.nodes {
		for path := parentOf(n.path); path != "" && !n.dropped; path = parentOf(path) {
			t.get(path).dropped = false
		}
	}
	for _, n := range t.nodes {
		switch {
		case n.dropped:
			dropped++
		case !n.folder:
			files++
		}
	}
	return files, dropped
}

// kept returns the items to archive, sorted by path.
func (t *tree) kept() []*node {
	var nodes []*node
	for _, n := range t.nodes {
		if !n.dropped && n.path != "." {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return cmp.Compare(a.path, b.path) })
	return nodes
}

// fold maps paths that differ in case only to one string, by the simple case
// folding of Unicode. What has no upper case is returned as it is.
func fold(path string) string {
	return strings.Map(func(r rune) rune {
		if r < 'A' || ('Z' < r && r <= unicode.MaxASCII) {
			// Most characters of most paths. The few letters beyond ASCII that
			// fold into it fold to the lower case.
			return r
		}
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			if 'a' <= f && f <= 'z' {
				return f
			}
			least = min(least, f)
		}
		return least
	}, path)
}
