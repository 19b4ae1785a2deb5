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
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxElementBytes is the longest name of a file or folder that file
	// systems take.
	maxElementBytes = 255
	// bufferBytes is the size of the buffers between a file and what reads it.
	bufferBytes = 64 << 10

	// maxHeaderBytes bounds the headers of one entry, PAX records, long names and
	// maps of sparse files among them: each of their bytes costs far more time than
	// one of a file, and compresses as well.
	maxHeaderBytes = 64 << 10
	// maxHeadersBytes bounds the headers of all entries of an artifact, less
	// freeHeaderBytes of each.
	maxHeadersBytes = 16 << 20
	// gnuLabel is the type of the entry that tar --label of GNU begins an archive with.
	gnuLabel = 'V'
	// freeHeaderBytes is what an entry has whose name or time takes a PAX header:
	// three blocks, and the padding of the entry before it. The limit of entries
	// bounds these bytes.
	freeHeaderBytes = 4 * 512
)

// entry is a file or a folder of an archive that passed every check. In a layer
// of an image it may also be a link.
type entry struct {
	// path is clean: no leading, trailing or double slash, no dot elements. The
	// root folder is ".".
	path string
	// name is what the archive calls it, cleaned of nothing.
	name   string
	folder bool
	// executable by its owner, group or others.
	executable bool
	// implied by the path of something in it, not named by the archive.
	implied bool
	// symlink says that this is a symbolic link, target that it is a hard link,
	// and to which path.
	symlink bool
	target  string
}

// layer is a tar, hostile until read to its last byte.
type layer struct {
	file        *os.File
	compression compression
	limits      Limits
	// under is the folder that everything must lie in; empty: the root.
	under string
	// sum is what the uncompressed bytes must hash to; zero: anything.
	sum v1.Hash
	// ofImage says that links are handed over too.
	ofImage bool
	// ofChart says that Helm reads the layer, to which all that is no folder is a file: a
	// link is an empty one.
	ofChart bool
	// report is told about the links that are skipped; nil: nobody is.
	report *Report
	// spent is what was read of the artifact, layers before this one included: the
	// limits are for all.
	spent *amount
	// links is how many symbolic links were skipped.
	links int
	// normal is true while nothing was seen that forbids to serve the layer as
	// it is.
	normal bool
}

// amount is entries of any type, uncompressed bytes, and those bytes of headers
// that count.
type amount struct {
	entries int
	read    int64
	headers int64
}

// walk reads the layer from its first to its last byte and hands over its
// files and folders. An error of visit ends it. The bytes that it reads are added to spent.
func (l *layer) walk(ctx context.Context, spent *amount, visit func(e entry, content io.Reader) error) error {
	l.spent, l.links, l.normal = spent, 0, true
	stream, err := l.unpack(ctx, spent.read)
	if err != nil {
		return err
	}
	defer stream.Close()
	var uncompressed io.Reader = stream
	var sum hash.Hash
	if l.sum != (v1.Hash{}) {
		if sum, err = v1.Hasher(l.sum.Algorithm); err != nil {
			return err
		}
		uncompressed = io.TeeReader(stream, sum)
	}
	headers := &headerReader{in: uncompressed}
	archive := tar.NewReader(headers)
	for {
		header, err := l.next(archive, headers)
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
	if err := endOfArchive(uncompressed); err != nil {
		return err
	}
	if sum != nil {
		if got := hex.EncodeToString(sum.Sum(nil)); got != l.sum.Hex {
			return invalid("the layer's archive has the digest %s:%s, but its annotation says %s", l.sum.Algorithm, got, l.sum)
		}
	}
	spent.read = stream.read
	l.normal = l.normal && stream.isOneMember()
	return nil
}

// next returns the header of the next entry. It reads no more of the headers than
// is left of their limits.
func (l *layer) next(archive *tar.Reader, in *headerReader) (*tar.Header, error) {
	// The rest of a file belongs to no header.
	if _, err := io.Copy(io.Discard, archive); err != nil {
		return nil, err
	}
	most, over := int64(maxHeaderBytes), invalid("the layer has an entry with more than %d bytes of extended headers: %w", maxHeaderBytes, tar.ErrFieldTooLong)
	if left := maxHeadersBytes - l.spent.headers; left < most {
		most, over = left, tooLarge("the entries of the artifact have more than %d bytes of extended headers together, the most that are read; archive it without extended attributes", maxHeadersBytes)
	}
	most += freeHeaderBytes
	in.left, in.over = most, over
	header, err := archive.Next()
	in.over = nil
	l.spent.headers += max(0, most-in.left-freeHeaderBytes)
	return header, err
}

// headerReader reads an archive.
type headerReader struct {
	in io.Reader
	// left is how many bytes are read until over is returned, unless that is nil.
	left int64
	over error
}

// Read implements io.Reader.
func (r *headerReader) Read(p []byte) (int, error) {
	switch {
	case r.over == nil:
		return r.in.Read(p)
	case r.left <= 0:
		return 0, r.over
	}
	n, err := r.in.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, err
}

// unpack opens the layer's bytes, of which others were read before. The caller
// closes them.
func (l *layer) unpack(ctx context.Context, before int64) (*unpacked, error) {
	stream, err := l.compression.unpack(ctx, l.file)
	if err != nil {
		return nil, err
	}
	stream.read, stream.limit = before, l.limits.UncompressedBytes
	return stream, nil
}

// isTar tells whether the layer begins like a tar.
func (l *layer) isTar(ctx context.Context) (bool, error) {
	stream, err := l.unpack(ctx, 0)
	if err != nil {
		return false, err
	}
	defer stream.Close()
	const block = 512
	head := make([]byte, block)
	switch _, err := io.ReadFull(stream, head); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return false, nil
	case err != nil:
		return false, broken("the layer's compressed stream is damaged", err)
	}
	_, err = tar.NewReader(bytes.NewReader(head)).Next()
	return !errors.Is(err, tar.ErrHeader), nil
}

// take checks one header and hands over what it stands for, if anything.
func (l *layer) take(header *tar.Header, content io.Reader, visit func(entry, io.Reader) error) error {
	if l.spent.entries++; l.spent.entries > l.limits.Entries {
		return exceeded("--max-entries", "the artifact has more than %d entries", l.limits.Entries)
	}
	if header.Typeflag == tar.TypeXGlobalHeader || header.Typeflag == gnuLabel && header.Size == 0 && !l.ofChart {
		// No files: a default for the entries after it, which Go and so every consumer
		// ignores, and the name of the archive.
		l.normal = false
		return nil
	}
	if l.ofImage {
		// ko writes absolute names, which no consumer of an archive unpacks.
		l.normal = l.normal && !path.IsAbs(header.Name)
		header.Name, header.Linkname = rooted(header.Name), rooted(header.Linkname)
	}
	if err := checkName(header.Name, l.limits); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeLink && l.ofImage {
		if err := checkName(header.Linkname, l.limits); err != nil {
			return err
		}
	} else if err := checkType(header); err != nil {
		return err
	}
	if header.Typeflag == tar.TypeSymlink && !l.ofImage {
		l.links++
		if !l.ofChart {
			l.report.omit(path.Clean(header.Name), SymbolicLink)
		}
		l.normal = false
		return nil
	}
	l.normal = l.normal && isNormal(header)
	e := entry{path: path.Clean(header.Name), name: header.Name, folder: header.Typeflag == tar.TypeDir, executable: header.Mode&0o111 != 0}
	switch header.Typeflag {
	case tar.TypeSymlink:
		e.symlink = true
	case tar.TypeLink:
		e.target = path.Clean(header.Linkname)
	}
	if l.under != "" && e.path != l.under && !strings.HasPrefix(e.path, l.under+"/") {
		return invalid("the layer is the folder %s, but has an entry outside of it: %s", fault.Quote(l.under), fault.Quote(header.Name))
	}
	if e.path == "." && !e.folder {
		return invalid("the layer has a file named %s, which is the root folder", fault.Quote(header.Name))
	}
	if err := visit(e, content); err != nil {
		return broken(fmt.Sprintf("the layer's file %s is damaged", fault.Quote(e.path)), err)
	}
	return nil
}

// rooted makes an absolute name one below the root of an image, as everything
// that runs images does. Where it leads from there is yet to be checked.
func rooted(name string) string {
	if path.IsAbs(name) {
		return "." + name
	}
	return name
}

// isNormal tells whether a consumer can use what this header unpacks to as it
// could what our own archive has: kustomize-controller, which is not root,
// writes into the kustomization.yaml that it finds.
func isNormal(header *tar.Header) bool {
	allowed, needed := int64(0o777|0o100000), int64(0o600) // c_ISREG of the mode field
	switch header.Typeflag {
	case tar.TypeDir:
		allowed, needed = 0o777|0o040000, 0o700 // c_ISDIR
		if header.Size != 0 {
			return false
		}
	case tar.TypeSymlink, tar.TypeLink, tar.TypeCont:
		return false
	}
	return header.Mode&^allowed == 0 && header.Mode&needed == needed
}

// checkName refuses names that a consumer could not create, or that could mean
// another place than they say. The header's name is what is left after the PAX
// and GNU extensions were merged.
func checkName(name string, limits Limits) error {
	if len(name) > limits.NameBytes {
		return tooLarge("the artifact has a path of %d bytes, more than the %d that are read: %s", len(name), limits.NameBytes, fault.Quote(name))
	}
	if flaw := nameFlaw(name); flaw != "" {
		return invalid("the artifact has %s: %s", flaw, fault.Quote(name))
	}
	depth := 0
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > maxElementBytes {
			return tooLarge("the artifact has a name of %d bytes, more than the %d that file systems take: %s", len(element), maxElementBytes, fault.Quote(element))
		}
		if element != "" && element != "." {
			depth++
		}
	}
	if depth > limits.Depth {
		return exceeded("--max-depth", "the artifact has a path of %d folders, more than the %d that are read: %s", depth, limits.Depth, fault.Quote(name))
	}
	return nil
}

// nameFlaw names the flaw of a name; empty for most.
func nameFlaw(name string) string {
	switch {
	case name == "":
		return "an entry without a name"
	case !utf8.ValidString(name):
		return "a path that is not UTF-8"
	case strings.ContainsFunc(name, unicode.IsControl):
		return "a path with control characters"
	case strings.Contains(name, `\`):
		return "a path with a backslash"
	case strings.HasPrefix(name, "/"):
		return "an absolute path"
	case strings.Contains(name, "../"):
		// kustomize-controller refuses this even where it ends a name: foo../x.
		return `a path that contains "../"`
	case name == "..", strings.HasSuffix(name, "/.."):
		return "a path that leads out of its folder"
	}
	return ""
}

// checkType accepts files, folders and symbolic links, each only where all
// parts of the header agree: consumers take the type from the mode as well.
func checkType(header *tar.Header) error {
	for key := range header.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return invalid("the layer has a sparse file: %s; only plain files and folders are read", fault.Quote(header.Name))
		}
	}
	mode := header.FileInfo().Mode().Type()
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		// POSIX has a contiguous file read as any other.
		if mode != 0 || strings.HasSuffix(header.Name, "/") {
			return invalid("the layer has an entry that is a file by its type and something else by its mode or name: %s", fault.Quote(header.Name))
		}
	case tar.TypeDir:
		if mode != os.ModeDir {
			return invalid("the layer has an entry that is a folder by its type and something else by its mode: %s", fault.Quote(header.Name))
		}
	case tar.TypeSymlink:
	default:
		return invalid("the layer has %s: %s; only plain files and folders are read", typeName(header.Typeflag), fault.Quote(header.Name))
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
			return broken("the layer's compressed stream is damaged", err)
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
		return invalid("%s: %s", what, fault.WordsOf(err))
	}
}

// source reads a local file for as long as the attempt lasts.
type source struct {
	ctx  context.Context //nolint:containedctx // a reader has no other way to end with its attempt
	file io.Reader
	name string // in a message
}

// scratchFile is the source of a file that is ours.
func scratchFile(ctx context.Context, file io.Reader) *source {
	return &source{ctx, file, "a scratch file"}
}

// Read reads from the file.
func (s *source) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.file.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = disk("read "+s.name, err)
	}
	return n, err
}
