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
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that a zstd stream may ask for. It is what RFC
// 8878 section 3.1.1.1.2 tells decoders to support and encoders not to exceed;
// only zstd --ultra and --long do.
const maxWindow = 8 << 20

// maxHollowBytes is how many bytes a compressed stream may have beyond what it
// holds. What compresses badly grows by less than a thousandth; members, frames
// and blocks without content grow without an end.
const maxHollowBytes = 1 << 20

const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
	// skipMagic follows a byte from 0x50 to 0x5f where a zstd frame is to be
	// skipped; pzstd begins with one.
	skipMagic = "\x2a\x4d\x18"
)

// compression is how a layer is compressed.
type compression int

const (
	gzipped compression = iota
	zstandard
	uncompressed
)

// compressionOf returns what a media type says of the layer: gzip, unless it
// says something else.
func compressionOf(mediaType types.MediaType) compression {
	switch bare := string(mediaType); {
	case strings.HasSuffix(bare, "+zstd"), strings.HasSuffix(bare, ".zstd"):
		return zstandard
	case strings.HasSuffix(bare, ".tar"):
		return uncompressed
	default:
		return gzipped
	}
}

// compressionBy returns what the first bytes of a layer say of it.
func compressionBy(head []byte) compression {
	switch first := string(head); {
	case strings.HasPrefix(first, gzipMagic):
		return gzipped
	case strings.HasPrefix(first, zstdMagic),
		len(first) > len(skipMagic) && first[0]&0xf0 == 0x50 && strings.HasPrefix(first[1:], skipMagic):
		return zstandard
	default:
		return uncompressed
	}
}

// String names the compression in a message.
func (c compression) String() string {
	switch c {
	case gzipped:
		return "compressed with gzip"
	case zstandard:
		return "compressed with zstd"
	default:
		return "not compressed"
	}
}

// unpacked gives out what a layer holds, to the last byte of its file, up to a
// limit.
type unpacked struct {
	// packed is what decompresses: members, a zstd decoder, or the file.
	packed io.Reader
	// read is the number of bytes given out, be it by other layers before this
	// one, and limit the most there may be.
	read, limit int64
	// taken is how many bytes of the file were read, and given how many came out.
	taken, given int64
}

// unpack opens a file for as long as the attempt lasts. What its first bytes
// say must be what was said of it. The caller sets the limit, and closes it.
func (c compression) unpack(ctx context.Context, file *os.File) (*unpacked, error) {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, disk("read the layer", err)
	}
	u := &unpacked{}
	src := bufio.NewReaderSize(&intake{scratchFile(ctx, file), u}, bufferBytes)
	head, err := src.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch is := compressionBy(head); is {
	case c:
	case uncompressed:
		return nil, invalid("the layer is not %s, as its media type says", c)
	default:
		return nil, invalid("the layer is %s, but its media type says that it is %s", is, c)
	}
	u.packed = src
	switch c {
	case gzipped:
		u.packed, err = openMembers(src)
	case zstandard:
		u.packed, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	default:
		return u, nil
	}
	if err != nil {
		return nil, broken("the layer's compressed stream is damaged", err)
	}
	return u, nil
}

// Read reads uncompressed bytes.
func (u *unpacked) Read(p []byte) (int, error) {
	n, err := u.packed.Read(p)
	u.given += int64(n)
	if u.read += int64(n); u.read > u.limit {
		return 0, exceeded("--max-uncompressed-bytes", "the artifact unpacks to more than %d bytes", u.limit)
	}
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = invalid("the layer's zstd stream needs more than %d MiB of memory; compress it without --ultra and --long", maxWindow>>20)
	}
	return n, err
}

// intake is the file of a layer on its way to what decompresses it.
type intake struct {
	file io.Reader
	into *unpacked
}

// Read implements io.Reader.
func (i *intake) Read(p []byte) (int, error) {
	if i.into.taken > i.into.given+i.into.given/8+maxHollowBytes {
		return 0, invalid("the layer's compressed stream has far more bytes than what it holds: compress it again")
	}
	n, err := i.file.Read(p)
	i.into.taken += int64(n)
	return n, err
}

// isOneMember tells whether what was read is one gzip member: of several, Flux's
// consumers read all, and other readers the first alone.
func (u *unpacked) isOneMember() bool {
	m, ok := u.packed.(*members)
	return ok && m.count == 1
}

// Close frees the memory of the decompressor.
func (u *unpacked) Close() {
	if d, ok := u.packed.(*zstd.Decoder); ok {
		d.Close()
	}
}

// members reads a file of gzip members (RFC 1952 section 2.2), one after the
// other, to the last byte of the file.
type members struct {
	src  *bufio.Reader
	gzip *gzip.Reader
	// count is the number of members begun; padding counts as one.
	count int
}

func openMembers(src *bufio.Reader) (*members, error) {
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	return &members{src: src, gzip: z, count: 1}, nil
}

// Read reads uncompressed bytes.
func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.gzip.Read(p)
		if n > 0 || len(p) == 0 {
			// The end of a member is told again by the next read.
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
		if !errors.Is(err, io.EOF) {
			return 0, err
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
}

// next begins the next member; io.EOF says that there is none.
func (m *members) next() error {
	first, err := m.src.Peek(1)
	if err != nil {
		return err
	}
	m.count++
	if first[0] == 0 {
		return m.skipPadding()
	}
	if err := m.gzip.Reset(m.src); err != nil {
		return broken("the layer has bytes after its gzip stream that are not gzip", err)
	}
	m.gzip.Multistream(false)
	return nil
}

// skipPadding reads zeros to the end of the file, with which some tools fill up a
// block. gzip ignores them. It returns io.EOF.
func (m *members) skipPadding() error {
	for {
		b, err := m.src.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return invalid("the layer has bytes after its gzip stream that are not gzip")
		}
	}
}
