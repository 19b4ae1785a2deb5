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
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"sort"
	"strings"
	"syscall"

	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxPacks is far more than git keeps before it makes one of them.
	maxPacks = 1000
	// maxChain is the longest chain of deltas that git writes.
	maxChain = 4095
)

// pack is a file of objects and its index, which is read in place: it may be
// large. Formats: https://git-scm.com/docs/gitformat-pack.
type pack struct {
	// name of both files, without the extension.
	name  string
	index *os.File
	// content is opened by the first object that is read of it.
	content *os.File
	// upTo has, for each first byte of an ID, the number of IDs up to it.
	upTo [256]uint32
}

// indexHead is the start of an index, before the IDs: magic number, version and
// the table of numbers.
const indexHead = 8 + 256*4

func (r *Repository) openPack(name string) (*pack, error) {
	p := &pack{name: name}
	var err error
	if p.index, err = limit.Open(r.common, name+".idx"); err != nil {
		return nil, err
	}
	head := make([]byte, indexHead)
	if _, err := p.index.ReadAt(head, 0); err != nil || string(head[:8]) != "\xfftOc\x00\x00\x00\x02" {
		p.close()
		return nil, fmt.Errorf("%s.idx is no index of version 2", name)
	}
	for i := range p.upTo {
		p.upTo[i] = binary.BigEndian.Uint32(head[8+4*i:])
	}
	return p, nil
}

func (p *pack) close() {
	for _, file := range []*os.File{p.index, p.content} {
		if file != nil {
			_ = file.Close() // nothing was written
		}
	}
}

func (r *Repository) closePacks() {
	for _, p := range r.packs {
		p.close()
	}
	r.packs = nil
}

// openPacks opens the indexes of all packs, or fails.
func (r *Repository) openPacks() (err error) {
	if r.listed {
		return nil
	}
	defer func() {
		if err != nil {
			r.closePacks()
		}
	}()
	folder, err := r.common.OpenFile("objects/pack", os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would hold it up
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer folder.Close()
	names, err := folder.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		name, found := strings.CutSuffix(name, ".idx")
		if !found {
			continue
		}
		if len(r.packs) == maxPacks {
			return fmt.Errorf("the repository has more than %d packs; run git gc", maxPacks)
		}
		p, err := r.openPack(path.Join("objects/pack", name))
		if err != nil {
			return err
		}
		r.packs = append(r.packs, p)
	}
	r.listed = true
	return nil
}

// packed reads an object of a pack.
func (r *Repository) packed(ctx context.Context, id ID) (object, error) {
	if err := r.openPacks(); err != nil {
		return object{}, err
	}
	for _, p := range r.packs {
		offset, found, err := p.find(id)
		if err != nil {
			return object{}, err
		}
		if !found {
			continue
		}
		if p.content == nil {
			if p.content, err = limit.Open(r.common, p.name+".pack"); err != nil {
				return object{}, err
			}
		}
		return p.read(ctx, id, offset)
	}
	return object{}, errMissing
}

// find returns where in the pack an object is.
func (p *pack) find(id ID) (offset int64, found bool, err error) {
	first, end, all := 0, int(p.upTo[id[0]]), int(p.upTo[255])
	if id[0] > 0 {
		first = int(p.upTo[id[0]-1])
	}
	at := func(offset int64, size int) []byte {
		read := make([]byte, size)
		if _, wrong := p.index.ReadAt(read, offset); wrong != nil && err == nil {
			err = errCorrupt
		}
		return read
	}
	width := len(id)
	i := first + sort.Search(max(end-first, 0), func(i int) bool {
		return string(at(indexHead+int64(first+i)*int64(width), width)) >= string(id)
	})
	if err != nil || i >= end || string(at(indexHead+int64(i)*int64(width), width)) != string(id) {
		return 0, false, err
	}
	offsets := indexHead + int64(all)*int64(width+4) // behind the IDs and their checksums
	short := binary.BigEndian.Uint32(at(offsets+4*int64(i), 4))
	if short <= math.MaxInt32 {
		return int64(short), err == nil, err
	}
	long := binary.BigEndian.Uint64(at(offsets+4*int64(all)+8*int64(short&math.MaxInt32), 8))
	return int64(long & math.MaxInt64), err == nil, err
}

// Kinds of entries of a pack.
const (
	offsetDelta = 6
	idDelta     = 7
)

// kinds are the names of entries that are whole objects.
func kinds() map[byte]string {
	return map[byte]string{1: "commit", 2: "tree", 3: "blob", 4: "tag"}
}

// packEntry is an entry of a pack.
type packEntry struct {
	kind byte
	// size of its data, inflated.
	size int64
	// base of a delta, by its place.
	base int64
	data io.Reader
}

// entry reads the head of an entry.
func (p *pack) entry(id ID, offset int64) (packEntry, error) {
	if offset <= 0 {
		return packEntry{}, errCorrupt
	}
	data := bufio.NewReader(io.NewSectionReader(p.content, offset, math.MaxInt64-offset))
	first, err := data.ReadByte()
	if err != nil {
		return packEntry{}, errCorrupt
	}
	e := packEntry{kind: first >> 4 & 7, size: int64(first & 15), data: data}
	if first&0x80 != 0 {
		more, err := binary.ReadUvarint(data)
		if err != nil || more > MaxObjectBytes {
			return e, errTooLarge
		}
		e.size |= int64(more) << 4
	}
	switch e.kind {
	case offsetDelta:
		back, err := readOffset(data)
		e.base = offset - back
		return e, err
	case idDelta:
		base := make([]byte, len(id))
		if _, err := io.ReadFull(data, base); err != nil {
			return e, errCorrupt
		}
		at, found, err := p.find(ID(base))
		if err == nil && !found {
			err = errCorrupt
		}
		e.base = at
		return e, err
	default:
		return e, nil
	}
}

// readOffset reads how far the base of a delta is in front of it. Each further
// byte counts one more than its bits say.
func readOffset(from io.ByteReader) (int64, error) {
	for value := int64(0); value < math.MaxInt64>>8; value++ {
		b, err := from.ReadByte()
		if err != nil {
			return 0, errCorrupt
		}
		value = value<<7 | int64(b&0x7f)
		if b&0x80 == 0 {
			return value, nil
		}
	}
	return 0, errCorrupt
}

func (e packEntry) inflate() ([]byte, error) {
	inflated, err := zlib.NewReader(e.data)
	if err != nil {
		return nil, errCorrupt
	}
	return readSized(inflated, e.size)
}

// read reads an object: the chain of its deltas down to an object that is whole,
// and then up again, with no more than two of them in memory.
func (p *pack) read(ctx context.Context, id ID, offset int64) (object, error) {
	var chain []int64
	e, err := p.entry(id, offset)
	for ; err == nil && e.base != 0; e, err = p.entry(id, offset) {
		if chain = append(chain, offset); len(chain) > maxChain {
			return object{}, errCorrupt
		}
		offset = e.base
	}
	if err != nil {
		return object{}, err
	}
	kind, known := kinds()[e.kind]
	if !known {
		return object{}, errCorrupt
	}
	body, err := e.inflate()
	for i := len(chain) - 1; i >= 0 && err == nil; i-- {
		if err = ctx.Err(); err != nil {
			break
		}
		if e, err = p.entry(id, chain[i]); err != nil {
			break
		}
		var delta []byte
		if delta, err = e.inflate(); err == nil {
			body, err = patch(body, delta)
		}
	}
	return object{kind, body}, err
}

// patch makes an object of its base and a delta.
func patch(base, delta []byte) ([]byte, error) {
	from := bytes.NewReader(delta)
	before, err := binary.ReadUvarint(from)
	if err != nil || before != uint64(len(base)) {
		return nil, errCorrupt
	}
	after, err := binary.ReadUvarint(from)
	switch {
	case err != nil:
		return nil, errCorrupt
	case after > MaxObjectBytes:
		return nil, errTooLarge
	}
	var out []byte
	for from.Len() > 0 {
		order, _ := from.ReadByte()
		var piece []byte
		if order&0x80 != 0 {
			start, length := partial(from, order, 4), partial(from, order>>4, 3)
			if length == 0 {
				length = 0x10000
			}
			if start+length > len(base) {
				return nil, errCorrupt
			}
			piece = base[start : start+length]
		} else {
			at := len(delta) - from.Len()
			if order == 0 || at+int(order) > len(delta) {
				return nil, errCorrupt
			}
			piece = delta[at : at+int(order)]
			_, _ = from.Seek(int64(order), io.SeekCurrent) // it is within the delta
		}
		if len(out)+len(piece) > int(after) {
			return nil, errCorrupt
		}
		out = append(out, piece...)
	}
	if len(out) != int(after) {
		return nil, errCorrupt
	}
	return out, nil
}

// partial reads a number of which those bytes are there that bits name, the lowest
// first. Bytes behind the end are zero.
func partial(from io.ByteReader, bits byte, size int) (value int) {
	for i := range size {
		if bits>>i&1 != 0 {
			b, _ := from.ReadByte()
			value |= int(b) << (8 * i)
		}
	}
	return value
}
