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

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/stream"

	"github.com/image-source/image-source-controller/test/publish"
)

// Tags of the artifacts that scenarios push.
const (
	first  = "1.0.0"
	second = "2.0.0"
)

// shape is how the artifacts of a scenario look. No two of them are the same.
type shape struct {
	// name is the first part of their repositories.
	name string
	// files of size bytes each, filled with text.
	files, size int
	text        text
	// link adds a symbolic link: consumers never see it, so that the layer
	// cannot be published as it is.
	link bool
}

// text is what files are filled with.
type text int

const (
	// settings are short keys and values, which a compressor has to search for long.
	settings text = iota
	// prose is of words, as in the descriptions of CustomResourceDefinitions.
	prose
	// noise does not compress.
	noise
)

var (
	// warm is what a process publishes before it is measured.
	warm = shape{name: "warm", files: 3, size: 1 << 10}
	// tiny makes numbers of sources that grow.
	tiny = shape{name: "tiny", files: 3, size: 1 << 10}
	// small is an application of 20 manifests, 40 KiB.
	small = shape{name: "small", files: 20, size: 2 << 10}
	// clean are 40 MB of manifests, 16 MiB compressed.
	clean = shape{name: "clean", files: 400, size: 100_000}
	// linked is the same with a link.
	linked = shape{name: "linked", files: 400, size: 100_000, link: true}
	// book is as large, but prose.
	book = shape{name: "prose", files: 400, size: 100_000, text: prose}
	// linkedBook is the same with a link.
	linkedBook = shape{name: "prose-linked", files: 400, size: 100_000, text: prose, link: true}
	// huge is 500 MiB that do not compress.
	huge = shape{name: "huge", files: 10, size: 50 << 20, text: noise}
	// hugeLinked is the same with a link.
	hugeLinked = shape{name: "huge-linked", files: 10, size: 50 << 20, text: noise, link: true}
	// asked is what latencies are measured with.
	asked = shape{name: "asked", files: 1, size: 50 << 10, text: noise}
)

// shapes are those of which the physical limits are measured.
func shapes() []shape {
	return []shape{small, clean, linked, book, linkedBook, huge, hugeLinked}
}

func (s shape) repository(i int) string { return fmt.Sprintf("%s/%d", s.name, i) }

// sources asks for the first n artifacts of a shape.
func (s shape) sources(n int, tag string) []source {
	all := make([]source, 0, n)
	for i := range n {
		all = append(all, source{name: fmt.Sprintf("%s-%d", s.name, i), repository: s.repository(i), tag: tag, interval: once})
	}
	return all
}

// push pushes the first n artifacts of a shape under tag, each to a repository of its own.
func (b *bench) push(ctx context.Context, s shape, n int, tag string) error {
	return each(ctx, n, func(ctx context.Context, i int) error {
		return b.pushOne(ctx, s, s.repository(i)+":"+tag)
	})
}

// pushOne pushes an artifact whose content is made of its name.
func (b *bench) pushOne(ctx context.Context, s shape, image string) error {
	level := gzip.DefaultCompression
	if s.text == noise {
		level = gzip.NoCompression
	}
	layer := stream.NewLayer(s.tree(image), stream.WithMediaType(publish.FluxContent), stream.WithCompressionLevel(level))
	artifact, err := publish.FluxImage(v1.Layer(layer))
	if err != nil {
		return err
	}
	return b.shelf.Push(ctx, image, artifact)
}

// tree is the tar of an artifact.
func (s shape) tree(seed string) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(s.write(writer, seed)) }()
	return reader
}

func (s shape) write(w io.Writer, seed string) error {
	var key [32]byte
	copy(key[:], seed)
	archive := tar.NewWriter(w)
	content := s.text.reader(rand.NewChaCha8(key))
	for i := range s.files {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("app-%d.yaml", i), Mode: 0o644, Size: int64(s.size)}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.CopyN(archive, content, int64(s.size)); err != nil {
			return err
		}
	}
	if s.link {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "link.yaml", Linkname: "app-0.yaml"}); err != nil {
			return err
		}
	}
	return archive.Close()
}

// reader reads text without end, of which no two seeds give the same.
func (t text) reader(seed *rand.ChaCha8) io.Reader {
	chance := rand.New(seed)
	switch t {
	case settings:
		return &lines{func() []byte {
			return fmt.Appendf(nil, "  key-%04x: %010x\n", chance.Uint32()>>16, chance.Uint64()>>24)
		}, nil}
	case prose:
		const words = 8000
		vocabulary := newVocabulary(words)
		return &lines{func() []byte {
			line := []byte("  description:")
			for range 10 {
				line = append(append(line, ' '), vocabulary[chance.IntN(words)]...)
			}
			return fmt.Appendf(line, "\n  name: %x\n", chance.Uint64())
		}, nil}
	default:
		return seed
	}
}

// newVocabulary makes words, always the same ones.
func newVocabulary(n int) []string {
	chance := rand.New(rand.NewPCG(1, 2))
	words := make([]string, n)
	for i := range words {
		word := make([]byte, 3+chance.IntN(8))
		for j := range word {
			word[j] = byte('a' + chance.IntN(26))
		}
		words[i] = string(word)
	}
	return words
}

// lines reads what next makes.
type lines struct {
	next func() []byte
	left []byte
}

func (l *lines) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(l.left) == 0 {
			l.left = l.next()
		}
		copied := copy(p[n:], l.left)
		l.left = l.left[copied:]
		n += copied
	}
	return n, nil
}
