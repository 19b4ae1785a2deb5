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
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxElementBytes is the longest name of a file or folder that file
	// systems take.
	maxElementBytes = 255
	// bufferBytes is the size of the buffers between a file and what reads it.
	bufferBytes = 64 << 10
)

// entry is a file or a folder of an archive that passed every check.
type entry struct {
	// path is clean: no leading, trailing or double slash, no dot elements. The
	// root folder is ".".
	path   string
	folder bool
	// executable by its owner, group or others.
	executable bool
	// implied by the path of something in it, not named by the archive.
	implied bool
}

// layer is a gzip tar, hostile until read to its last byte.
type layer struct {
	file   *os.File
	limits Limits
	// entries of any type that were read.
	entries int
	// links is how many symbolic links were skipped.
	links int
	// normal is true while nothing was seen that forbids to serve the layer as
	// it is.
	normal bool
}

// walk reads the layer from its first to its last byte and hands over its
// files and folders. An error of visit ends it.
func (l *layer) walk(ctx context.Context, visit func(e entry, content io.Reader) error) error {
	if _, err := l.file.Seek(0, io.SeekStart); err != nil {
		return disk("read the layer", err)
	}
	l.entries, l.links, l.normal = 0, 0, true
	stream, err := openMembers(bufio.NewReaderSize(&source{ctx, l.file}, bufferBytes), l.limits.UncompressedBytes)
	if err != nil {
		return err
	}
	archive := tar.NewReader(stream)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken("the layer's tar archive is damaged", err)
		}
		if err := l.take(header, archive, visit); err != nil {
			return err
		}
	}
	if err := endOfArchive(stream); err != nil {
		return err
	}
	l.normal = l.normal && stream.count == 1
	return nil
}

// take checks one header and hands over what it stands for, if anything.
func (l *layer) take(header *tar.Header, content io.Reader, visit func(entry, io.Reader) error) error {
	if l.entries++; l.entries > l.limits.Entries {
		return exceeded("--max-entries", "the layer has more than %d entries", l.limits.Entries)
	}
	if header.Typeflag == tar.TypeXGlobalHeader {
		// A default for the entries after it, which Go and so every consumer ignores.
		l.normal = false
		return nil
	}
	if err := checkName(header.Name, l.limits); err != nil {
		return err
	}
	if err := checkType(header); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeSymlink {
		l.links++
		l.normal = false
		return nil
	}
	l.normal = l.normal && isNormal(header)
	e := entry{path: path.Clean(header.Name), folder: header.Typeflag == tar.TypeDir, executable: header.Mode&0o111 != 0}
	if e.path == "." && !e.folder {
		return invalid("the layer has a file named %s, which is the root folder", quote(header.Name))
	}
	if err := visit(e, content); err != nil {
		return broken(fmt.Sprintf("the layer's file %s is damaged", quote(e.path)), err)
	}
	return nil
}

// isNormal tells whether a consumer that unpacks this header gets what our own
// archive would have given it.
func isNormal(header *tar.Header) bool {
	allowed := int64(0o777 | 0o100000) // c_ISREG of the mode field
	if header.Typeflag == tar.TypeDir {
		allowed = 0o777 | 0o040000 // c_ISDIR
		if header.Size != 0 {
			return false
		}
	}
	return header.Mode&^allowed == 0 && header.Mode&0o400 != 0
}

// checkName refuses names that a consumer could not create, or that could mean
// another place than they say. The header's name is what is left after the PAX
// and GNU extensions were merged.
func checkName(name string, limits Limits) error {
	switch {
	case name == "":
		return invalid("the layer has an entry without a name")
	case len(name) > limits.NameBytes:
		return fault.Stallf(v1alpha1.ReasonLimitExceeded, "the layer has a path of %d bytes, more than the %d that are read: %s", len(name), limits.NameBytes, quote(name))
	case !utf8.ValidString(name):
		return invalid("the layer has a path that is not UTF-8: %s", quote(name))
	case strings.ContainsFunc(name, unicode.IsControl):
		return invalid("the layer has a path with control characters: %s", quote(name))
	case strings.Contains(name, `\`):
		return invalid("the layer has a path with a backslash: %s", quote(name))
	case strings.HasPrefix(name, "/"):
		return invalid("the layer has an absolute path: %s", quote(name))
	case strings.Contains(name, "../"):
		// kustomize-controller refuses this even where it ends a name: foo../x.
		return invalid(`the layer has a path that contains "../": %s`, quote(name))
	}
	depth := 0
	for element := range strings.SplitSeq(name, "/") {
		switch {
		case element == "..":
			return invalid("the layer has a path that leads out of its folder: %s", quote(name))
		case len(element) > maxElementBytes:
			return fault.Stallf(v1alpha1.ReasonLimitExceeded, "the layer has a name of %d bytes, more than the %d that file systems take: %s", len(element), maxElementBytes, quote(element))
		case element != "" && element != ".":
			depth++
		}
	}
	if depth > limits.Depth {
		return fault.Stallf(v1alpha1.ReasonLimitExceeded, "the layer has a path of %d folders, more than the %d that are read: %s", depth, limits.Depth, quote(name))
	}
	return nil
}

// checkType accepts files, folders and symbolic links, each only where all
// parts of the header agree: consumers take the type from the mode as well.
func checkType(header *tar.Header) error {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return invalid("the layer has a sparse file: %s; only plain files and folders are read", quote(header.Name))
		}
	}
	mode := header.FileInfo().Mode().Type()
	switch header.Typeflag {
	case tar.TypeReg:
		if mode != 0 || strings.HasSuffix(header.Name, "/") {
			return invalid("the layer has an entry that is a file by its type and something else by its mode or name: %s", quote(header.Name))
		}
	case tar.TypeDir:
		if mode != os.ModeDir {
			return invalid("the layer has an entry that is a folder by its type and something else by its mode: %s", quote(header.Name))
		}
	case tar.TypeSymlink:
	default:
		return invalid("the layer has %s: %s; only plain files and folders are read", typeName(header.Typeflag), quote(header.Name))
	}
	return nil
}

func typeName(flag byte) string {
	switch flag {
	case tar.TypeLink:
		return "a hard link"
	case tar.TypeChar, tar.TypeBlock:
		return "a device"
	case tar.TypeFifo:
		return "a FIFO"
	case tar.TypeGNUSparse:
		return "a sparse file"
	default:
		return fmt.Sprintf("an entry of the unknown type %q", flag)
	}
}

// endOfArchive reads what follows the end marker, which must be padding, and
// with it the checksum of the compressed stream.
func endOfArchive(stream io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buf)
		for _, b := range buf[:n] {
			if b != 0 {
				return invalid("the layer has bytes after the end of its tar archive")
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken("the layer's gzip stream is damaged", err)
		}
	}
}

// broken says what is damaged, unless err already says more.
func broken(what string, err error) error {
	switch {
	case settled(err):
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return invalid("%s: it ends too early", what)
	default:
		return invalid("%s: %s", what, plain(err.Error()))
	}
}

// members reads a file of gzip members (RFC 1952 section 2.2), one after the
// other, to the last byte of the file.
type members struct {
	src  *bufio.Reader
	gzip *gzip.Reader
	// count is the number of members begun.
	count int
	// read is the number of bytes given out, limit the most there may be.
	read, limit int64
}

func openMembers(src *bufio.Reader, limit int64) (*members, error) {
	if magic, _ := src.Peek(4); string(magic) == "\x28\xb5\x2f\xfd" {
		return nil, invalid("the layer is compressed with zstd, but its media type says gzip")
	}
	z, err := gzip.NewReader(src)
	if err != nil {
		return nil, broken("the layer is not compressed with gzip, as its media type says", err)
	}
	z.Multistream(false)
	return &members{src: src, gzip: z, count: 1, limit: limit}, nil
}

// Read reads uncompressed bytes.
func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.gzip.Read(p)
		if m.read += int64(n); m.read > m.limit {
			return 0, exceeded("--max-uncompressed-bytes", "the layer unpacks to more than %d bytes", m.limit)
		}
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
	if _, err := m.src.Peek(1); err != nil {
		return err
	}
	m.count++
	if err := m.gzip.Reset(m.src); err != nil {
		return broken("the layer has bytes after its gzip stream that are not gzip", err)
	}
	m.gzip.Multistream(false)
	return nil
}

// source reads a local file for as long as the attempt lasts.
type source struct {
	ctx  context.Context
	file io.Reader
}

// Read reads from the file.
func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.file.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = disk("read a scratch file", err)
	}
	return n, err
}
