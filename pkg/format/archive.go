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
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
)

// ArchiveVersion is the version of the archive that we write. It changes when
// the bytes for a tree change, be it by a new release of the compressor: the
// golden test tells.
const ArchiveVersion = 1

const (
	// compressionLevel is the level of klauspost/compress that the archive is
	// pinned to. On 107 MB of manifests level 1 takes 0.24 s for 13.2 MiB,
	// level 2 0.26 s for 12.5 MiB and level 6 0.41 s for 10.8 MiB; on text that
	// compresses badly the higher levels take twice the time for nothing.
	compressionLevel = 2

	folderMode     = 0o750
	fileMode       = 0o600
	executableMode = 0o700

	spoolName   = "spool"
	archiveName = "artifact.tar.gz"
)

// rearchive reads the layer again and writes what is kept of its tree in our
// own archive format: folders and files sorted by path, no owner, no time, one
// gzip member.
func rearchive(ctx context.Context, in input, l *layer, t *tree) (*Content, error) {
	a, err := newAssembly(in)
	if err != nil {
		return nil, err
	}
	defer a.close()
	a.tree = t
	err = a.walk(ctx, l, func(e entry, content io.Reader) error {
		n := t.get(e.path)
		if n == nil || n.folder || n.dropped {
			return nil
		}
		return a.store(n, content)
	})
	if err != nil {
		return nil, err
	}
	return a.write(ctx)
}

func create(scratch *os.Root, name string) (*os.File, error) {
	f, err := scratch.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, disk("create a scratch file", err)
	}
	return f, nil
}

// contents opens the content of a file, which has its node's size.
type contents func(n *node) (io.ReadCloser, error)

// spooled returns the contents of files that lie in a spool.
func spooled(ctx context.Context, spool io.ReaderAt) contents {
	return func(n *node) (io.ReadCloser, error) {
		return io.NopCloser(scratchFile(ctx, io.NewSectionReader(spool, n.offset, n.size))), nil
	}
}

// writeArchive writes an archive of at most limit bytes into scratch. Watch sees it
// before it is compressed; nil: nobody does.
func writeArchive(scratch *os.Root, limit int64, watch io.Writer, nodes []*node, open contents) (*Content, error) {
	file, err := create(scratch, archiveName)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	out := &meter{out: &sink{file}, hash: sha256.New(), limit: limit, flag: "--max-artifact-bytes", words: "the archive to publish has more than %d bytes"}
	buffered := bufio.NewWriterSize(out, bufferBytes)
	compressed, err := gzip.NewWriterLevel(buffered, compressionLevel)
	if err != nil {
		return nil, err
	}
	// The rest of the header is fixed: no name, the operating system unknown.
	compressed.ModTime = time.Unix(0, 0)
	var uncompressed io.Writer = compressed
	if watch != nil {
		uncompressed = io.MultiWriter(watch, compressed)
	}
	archive := tar.NewWriter(uncompressed)
	if err := writeNodes(archive, nodes, open); err != nil {
		return nil, err
	}
	for _, finish := range []func() error{archive.Close, compressed.Close, buffered.Flush, file.Close} {
		if err := finish(); err != nil {
			return nil, writing(err)
		}
	}
	return &Content{Digest: out.digest(), Size: out.written}, nil
}

func writeNodes(archive *tar.Writer, nodes []*node, open contents) error {
	buf := make([]byte, bufferBytes)
	for _, n := range nodes {
		if err := archive.WriteHeader(headerOf(n)); err != nil {
			return writing(err)
		}
		if n.folder {
			continue
		}
		content, err := open(n)
		if err != nil {
			return err
		}
		copied, err := io.CopyBuffer(onlyWriter{archive}, content, buf)
		content.Close() //nolint:gosec // it was only read
		switch {
		case errors.Is(err, tar.ErrWriteTooLong), err == nil && copied < n.size:
			return reading(n.path, errChanged)
		case err != nil:
			return writing(err)
		}
	}
	return nil
}

// headerOf leaves the choice between USTAR and PAX to the tar writer, which
// takes PAX only for names that USTAR cannot hold.
func headerOf(n *node) *tar.Header {
	switch {
	case n.folder:
		return &tar.Header{Typeflag: tar.TypeDir, Name: n.path + "/", Mode: folderMode}
	case n.executable:
		return &tar.Header{Typeflag: tar.TypeReg, Name: n.path, Mode: executableMode, Size: n.size}
	default:
		return &tar.Header{Typeflag: tar.TypeReg, Name: n.path, Mode: fileMode, Size: n.size}
	}
}

// writing gives an error of our own writers a reason, unless it has one.
func writing(err error) error {
	if settled(err) {
		return err
	}
	return disk("write the archive", err)
}

// meter counts and hashes what passes to out, up to a limit.
type meter struct {
	out            io.Writer
	hash           hash.Hash
	written, limit int64
	// flag sets the limit, and words say that it is exceeded.
	flag, words string
}

func (m *meter) digest() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(m.hash.Sum(nil))}
}

// Write writes to out.
func (m *meter) Write(p []byte) (int, error) {
	if m.written += int64(len(p)); m.written > m.limit {
		return 0, exceeded(m.flag, m.words, m.limit)
	}
	m.hash.Write(p)
	return m.out.Write(p)
}

// sink tells an error of the local disk from one of the artifact.
type sink struct{ file io.Writer }

// Write writes to the file.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.file.Write(p)
	if err != nil {
		err = disk("write a scratch file", err)
	}
	return n, err
}

// onlyWriter hides ReadFrom, so that a copy uses the buffer it is given.
type onlyWriter struct{ io.Writer }
