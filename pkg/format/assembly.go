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
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// assembly is a tree in the making: folders, and files whose contents are
// collected in one scratch file, from where they are written as our archive.
// Whatever it takes in counts towards the limits of one artifact, however many
// layers it comes from.
type assembly struct {
	in      input
	tree    *tree
	scratch *os.Root
	spool   *os.File
	out     *bufio.Writer
	buf     []byte
	// size is how many bytes were stored.
	size int64
	// amount that was read from tar layers.
	amount
	// links is how many symbolic links were skipped.
	links int
	// asIs is the content when nothing is to be left out: the layer that the
	// tree is. Nil: our archive of the tree.
	asIs *Content
}

// assemble makes content of the tree that fill makes.
func (in input) assemble(ctx context.Context, fill func(a *assembly) error) (*Content, error) {
	a, err := newAssembly(in)
	if err != nil {
		return nil, err
	}
	defer a.close()
	if err := fill(a); err != nil {
		return nil, err
	}
	return a.finish(ctx)
}

// newAssembly begins a tree. The caller closes it.
func newAssembly(in input) (*assembly, error) {
	scratch, err := os.OpenRoot(in.Scratch)
	if err != nil {
		return nil, disk("open the scratch folder", err)
	}
	spool, err := create(scratch, spoolName)
	if err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	return &assembly{
		in:      in,
		tree:    newTree(in.Limits),
		scratch: scratch,
		spool:   spool,
		out:     bufio.NewWriterSize(&sink{spool}, bufferBytes),
		buf:     make([]byte, bufferBytes),
	}, nil
}

// close frees the disk early; where that fails, the owner of the scratch folder
// removes it anyway.
func (a *assembly) close() {
	a.spool.Close() //nolint:gosec // see above
	_ = a.scratch.Remove(spoolName)
	a.scratch.Close() //nolint:gosec // see above
}

// addFile adds a file under a name that nothing has checked yet, such as the
// title of a layer.
func (a *assembly) addFile(name string, content io.Reader) error {
	if err := checkName(name, a.in.Limits); err != nil {
		return err
	}
	e := entry{path: path.Clean(name)}
	if e.path == "." || name[len(name)-1] == '/' {
		return invalid("the artifact has a file whose name is that of a folder: %s", fault.Quote(name))
	}
	return a.add(e, content)
}

// addBlob adds a blob as it is as a file of that unchecked name.
func (a *assembly) addBlob(ctx context.Context, name string, desc v1.Descriptor) error {
	file, err := a.in.open(ctx, desc)
	if err != nil {
		return err
	}
	defer file.Close()
	return a.addFile(name, scratchFile(ctx, file))
}

// add adds a file or a folder whose name passed checkName. Two of one name are
// refused.
func (a *assembly) add(e entry, content io.Reader) error {
	if err := a.tree.add(e); err != nil {
		return err
	}
	if e.folder {
		return nil
	}
	return a.store(a.tree.get(e.path), content)
}

// store collects the content of a file of the tree, be it one that had another
// content before.
func (a *assembly) store(n *node, content io.Reader) error {
	// One byte more than is allowed tells that there is more.
	left := a.in.Limits.UncompressedBytes - a.size
	size, err := io.CopyBuffer(onlyWriter{a.out}, io.LimitReader(content, left+1), a.buf)
	if err != nil {
		return err
	}
	if size > left {
		return exceeded("--max-uncompressed-bytes", "the files of the artifact have more than %d bytes together", a.in.Limits.UncompressedBytes)
	}
	n.offset, n.size = a.size, size
	a.size += size
	return nil
}

// walk reads a tar layer within what earlier ones left of the limits.
func (a *assembly) walk(ctx context.Context, l *layer, visit func(e entry, content io.Reader) error) error {
	err := l.walk(ctx, &a.amount, visit)
	a.links += l.links
	return err
}

// finish writes the tree, less what the ignore option matches, as the file to
// publish.
func (a *assembly) finish(ctx context.Context) (*Content, error) {
	rules, err := newIgnoreRules(asAsked, a.in.Ignore)
	if err != nil {
		return nil, err
	}
	dropped, err := rules.leaveOut(ctx, a.tree, a.links, a.in.Report)
	if err != nil {
		return nil, err
	}
	if a.asIs != nil && dropped == 0 {
		return a.asIs, nil
	}
	content, err := a.write(ctx)
	if err != nil {
		return nil, err
	}
	content.SkippedLinks = a.links
	return content, nil
}

// write archives what is not dropped.
func (a *assembly) write(ctx context.Context) (*Content, error) {
	if err := a.out.Flush(); err != nil {
		return nil, err
	}
	content, err := writeArchive(a.scratch, a.in.Limits.ArtifactBytes, nil, a.tree.kept(), spooled(ctx, a.spool))
	if err != nil {
		return nil, err
	}
	content.Path = filepath.Join(a.in.Scratch, archiveName)
	return content, nil
}
