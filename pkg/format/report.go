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
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Report is what Convert noticed on its way, also of an artifact that it
// refused in the end. It is for people who look at an artifact: nothing that is
// published depends on it.
type Report struct {
	// Kind says what the artifact is, with its article ("a Helm chart"), be it
	// one that is refused; empty when that is not known.
	Kind string
	// Chosen is the manifest of an index that is read; nil when there is no
	// index, or when none was chosen.
	Chosen *Chosen
	// Omitted is what the artifact has and the content has not, in no
	// particular order, up to maxOmittedBytes of paths.
	Omitted []Omission
	// Unlisted is how many more there are.
	Unlisted int

	omittedBytes int
}

// maxOmittedBytes bounds the paths of a report. Links are no part of the tree, whose
// limits hold for its paths.
const maxOmittedBytes = 8 << 20

// Chosen is one manifest of an index.
type Chosen struct {
	*Manifest
	// Digest that the index lists it by.
	Digest v1.Hash
	// Platform that its descriptor in the index says it is for, else that of the
	// index which it is in; nil when neither says one.
	Platform *v1.Platform
}

// Omission is a file or a link that is not published.
type Omission struct {
	// Path as the artifact has it: it passed the checks of names, and may hold
	// whatever they let through.
	Path string
	// Cause is why it is left out.
	Cause Cause
}

// Cause is why something is not published.
type Cause string

const (
	// SymbolicLink is what no consumer of Flux unpacks.
	SymbolicLink Cause = "symbolic link"
	// Ignored is left out by a .sourceignore file, the ignore option or the
	// patterns that Flux leaves out by default.
	Ignored Cause = "ignored"
	// LockFile is what imgpkg adds to a bundle for its own use.
	LockFile Cause = "imgpkg's own"
)

// omit notes what is left out. Nobody may have asked for the report.
func (r *Report) omit(path string, cause Cause) {
	if r == nil {
		return
	}
	if r.omittedBytes += len(path); r.omittedBytes > maxOmittedBytes {
		r.Unlisted++
		return
	}
	r.Omitted = append(r.Omitted, Omission{Path: strings.Clone(path), Cause: cause})
}

// omitDropped notes the files of a tree that the ignore rules leave out.
func (r *Report) omitDropped(t *tree) {
	if r == nil {
		return
	}
	for _, n := range t.nodes {
		if n.dropped && !n.folder {
			r.omit(n.path, Ignored)
		}
	}
}

// recognise notes what the manifest is.
func (r *Report) recognise(m *Manifest, o Options) {
	if r == nil {
		return
	}
	if found := find(m, o.settings().Format); found != nil {
		r.Kind = found.what
	}
}
