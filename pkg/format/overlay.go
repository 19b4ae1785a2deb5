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
	"path"
	"strings"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// whiteout begins the name of an entry that removes another.
	whiteout = ".wh."
	// opaque is the rest of the name of an entry that empties its folder.
	opaque = ".wh..opq"
)

// overlay is the file system that the layers of an image make when they are
// applied one on the other, as
// https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md demands.
// Where that leaves the outcome open, the last entry wins, and a path means what
// it says: no symbolic link is ever followed.
type overlay struct {
	limits Limits
	// report is told about the links that are left out; nil: nobody is.
	report *Report
	root   *item
	// items are all below the root, by path.
	items map[string]*item
	// pathBytes is the length of their paths.
	pathBytes int64
	// layer is the number of the layer that is applied, from 1.
	layer int
	// copied is how many bytes hard links add to the file system.
	copied int64
	// displaced is how many symbolic links became a folder, because a layer has
	// something in it.
	displaced int
	// plain is true while a consumer that unpacks one layer after the other gets
	// the same.
	plain bool
}

// item is a file, a folder or a symbolic link of an overlay. A list of what is in a
// folder takes far less memory than a map for each.
type item struct {
	node
	symlink bool
	// in is its folder, and first the first item of this one.
	in, first *item
	// before and next are its neighbours in the folder.
	before, next *item
	// touched is the last layer that has the item or something in it.
	touched int
	// emptied is the last layer that hid what lower layers have in it.
	emptied int
}

func newOverlay(limits Limits, report *Report) *overlay {
	return &overlay{limits: limits, report: report, root: &item{node: node{path: ".", folder: true}}, items: map[string]*item{}, plain: true}
}

// apply applies one entry of the layer. It returns the node whose content is
// that of the entry, nil when there is none.
func (o *overlay) apply(e entry) (*node, error) {
	if e.path == "." {
		return nil, nil
	}
	folder := parentOf(e.path)
	if strings.HasPrefix(folder, whiteout) || strings.Contains(folder, "/"+whiteout) {
		return nil, invalid("the image has an entry in a folder whose name begins with %s, which is reserved: %s", whiteout, fault.Quote(e.path))
	}
	if hidden, ok := strings.CutPrefix(path.Base(e.path), whiteout); ok {
		return nil, o.whiteOut(e, folder, hidden)
	}
	if e.target != "" {
		return nil, o.link(e)
	}
	i, err := o.put(e)
	if err != nil || e.folder || e.symlink {
		return nil, err
	}
	return &i.node, nil
}

// whiteOut hides what lower layers have by a name, or in the whole folder.
// What this layer has itself stays, wherever in the layer it comes.
func (o *overlay) whiteOut(e entry, folder, hidden string) error {
	o.plain = false
	switch {
	case e.folder || e.symlink:
		return invalid("the image has an entry whose name begins with %s, which is reserved, but which is no file: %s", whiteout, fault.Quote(e.path))
	case hidden == "" || hidden == "." || hidden == "..":
		return invalid("the image has a whiteout that names no file: %s", fault.Quote(e.path))
	}
	if hidden == opaque {
		o.empty(o.get(folder))
	} else {
		o.hide(o.get(strings.TrimSuffix(e.path, whiteout+hidden) + hidden))
	}
	return nil
}

// hide removes an item of lower layers, if there is one.
func (o *overlay) hide(i *item) {
	switch {
	case i == nil:
	case i.touched < o.layer:
		o.remove(i)
	default:
		o.empty(i)
	}
}

// empty removes the items of lower layers in a folder, if there is one. Once for each
// layer is enough, and keeps many whiteouts of a large folder cheap.
func (o *overlay) empty(i *item) {
	if i == nil || i.emptied == o.layer {
		return
	}
	i.emptied = o.layer
	for child := i.first; child != nil; {
		next := child.next
		o.hide(child)
		child = next
	}
}

// link makes a copy of what the target of a hard link is now.
func (o *overlay) link(e entry) error {
	target := o.get(e.target)
	switch {
	case target == nil:
		return invalid("the image has the hard link %s to %s, which is not there; push the file itself", fault.Quote(e.path), fault.Quote(e.target))
	case target.folder:
		return invalid("the image has the hard link %s to the folder %s", fault.Quote(e.path), fault.Quote(e.target))
	}
	if o.copied += target.size; o.copied > o.limits.UncompressedBytes {
		return exceeded("--max-uncompressed-bytes", "the hard links of the image stand for more than %d bytes", o.limits.UncompressedBytes)
	}
	offset, size := target.offset, target.size
	i, err := o.put(entry{path: e.path, executable: target.executable, symlink: target.symlink})
	if err != nil {
		return err
	}
	i.offset, i.size = offset, size
	return nil
}

// get returns the item of that path, nil when there is none.
func (o *overlay) get(path string) *item {
	if path == "" {
		return o.root
	}
	return o.items[path]
}

// put makes room for an entry, and the folders that it lies in.
func (o *overlay) put(e entry) (*item, error) {
	in, err := o.folder(parentOf(e.path))
	if err != nil {
		return nil, err
	}
	i, err := o.make(in, node{path: e.path, folder: e.folder, executable: e.executable, named: true})
	if err == nil {
		i.symlink = e.symlink
	}
	return i, err
}

// folder returns the folder of that path, and makes it if it is missing.
func (o *overlay) folder(path string) (*item, error) {
	known := o.get(path)
	if known != nil && known.folder {
		for i := known; i != nil && i.touched < o.layer; i = i.in {
			i.touched = o.layer
		}
		return known, nil
	}
	if known != nil && known.symlink {
		o.displaced++
		o.report.omit(known.path, SymbolicLink)
	}
	in, err := o.folder(parentOf(path))
	if err != nil {
		return nil, err
	}
	return o.make(in, node{path: path, folder: true})
}

// make puts a node into a folder. A folder on a folder keeps what is in it, and
// anything else replaces what is there.
func (o *overlay) make(in *item, n node) (*item, error) {
	if known := o.items[n.path]; known != nil {
		if known.folder && n.folder {
			o.plain = o.plain && (!known.named || !n.named)
			known.named = known.named || n.named
			known.touched = o.layer
			return known, nil
		}
		o.plain = false
		o.remove(known)
	}
	o.pathBytes += int64(len(n.path))
	if err := o.limits.checkIndex(len(o.items)+1, o.pathBytes); err != nil {
		return nil, err
	}
	// The path may be a small part of a large PAX header, or of the path of a file
	// that another replaces, and would keep it.
	n.path = strings.Clone(n.path)
	i := &item{node: n, in: in, next: in.first, touched: o.layer}
	if i.next != nil {
		i.next.before = i
	}
	in.first = i
	o.items[n.path] = i
	return i, nil
}

// remove takes an item and all that is in it out of its folder.
func (o *overlay) remove(i *item) {
	for i.first != nil {
		o.remove(i.first)
	}
	if i.before != nil {
		i.before.next = i.next
	} else {
		i.in.first = i.next
	}
	if i.next != nil {
		i.next.before = i.before
	}
	delete(o.items, i.path)
	o.pathBytes -= int64(len(i.path))
}

// flatten returns the files and folders, and how many symbolic links are left
// out. Names that differ in case only are names as any other in an image.
func (o *overlay) flatten() (*tree, int, error) {
	t, links := newTree(o.limits), o.displaced
	t.key = func(path string) string { return path }
	for _, i := range o.items {
		if i.symlink {
			links++
			o.report.omit(i.path, SymbolicLink)
		} else if err := t.insert(&i.node); err != nil {
			return nil, 0, err
		}
	}
	return t, links, nil
}
