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
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/gzip"
)

// limit is what a shape takes at least on this machine, for each artifact and
// with nothing else to do: seconds of CPU.
type limit struct {
	Shape string
	// Bytes of the layer as it is in the registry.
	Bytes int64
	// Linked tells that it has to be compressed anew.
	Linked bool
	// Fetch is to read it from the registry, hash it and write it to the disk
	// once, Walk to unpack it and read through, Again to compress that anew.
	Fetch, Walk, Again float64
}

// limits measures shapes of which something is in the registry.
func (b *bench) limits(ctx context.Context, shapes []shape) ([]limit, error) {
	dir, err := os.MkdirTemp(b.Dir, "limits-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var all []limit
	for _, s := range shapes {
		l, err := b.limit(ctx, s, filepath.Join(dir, s.name))
		if err != nil {
			return nil, fmt.Errorf("measure the limits of %s: %w", s.name, err)
		}
		all = append(all, l)
	}
	return all, nil
}

func (b *bench) limit(ctx context.Context, s shape, path string) (limit, error) {
	url, size, err := b.layer(s.repository(0) + ":" + first)
	if err != nil {
		return limit{}, err
	}
	l := limit{Shape: s.name, Bytes: size, Linked: s.link}
	// CPU time is counted in steps that are longer than a small artifact takes.
	times := int(max(1, min(200, 40<<20/size)))
	for _, step := range []struct {
		took *float64
		do   func() error
	}{
		{&l.Fetch, func() error { return download(ctx, url, path) }},
		{&l.Walk, func() error { return walk(path, io.Discard) }},
		{&l.Again, func() error { return again(path) }},
	} {
		if *step.took, err = spent(times, step.do); err != nil {
			return l, err
		}
	}
	return l, os.Remove(path)
}

// layer returns where the only layer of an image is.
func (b *bench) layer(image string) (url string, size int64, err error) {
	tag, err := name.NewTag(b.shelf.Host+"/"+image, name.Insecure)
	if err != nil {
		return "", 0, err
	}
	found, err := remote.Image(tag, remote.WithTransport(b.shelf.Transport))
	if err != nil {
		return "", 0, err
	}
	m, err := found.Manifest()
	if err != nil {
		return "", 0, err
	}
	return fmt.Sprintf("%s/v2/%s/blobs/%s", b.Registry().URL(), tag.RepositoryStr(), m.Layers[0].Digest), m.Layers[0].Size, nil
}

// digest returns what a tag points at.
func (b *bench) digest(image string) (string, error) {
	tag, err := name.NewTag(b.shelf.Host+"/"+image, name.Insecure)
	if err != nil {
		return "", err
	}
	head, err := remote.Head(tag, remote.WithTransport(b.shelf.Transport))
	if err != nil {
		return "", err
	}
	return head.Digest.String(), nil
}

// spent returns the CPU time that one of some calls takes, the median of three
// attempts. Nothing else runs in this process.
func spent(times int, do func() error) (float64, error) {
	var took []float64
	for range 3 {
		before := ownCPU()
		for range times {
			if err := do(); err != nil {
				return 0, err
			}
		}
		took = append(took, (ownCPU()-before).Seconds()/float64(times))
	}
	return median(took), nil
}

// ownCPU is what this process has computed, getrusage(2).
func ownCPU() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage) // fails for no process and no address but bad ones
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// download reads a blob, hashes it and writes it to the disk.
func download(ctx context.Context, url, path string) (err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", userAgent)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(file, sum), onlyReader{response.Body}, make([]byte, 128<<10)); err != nil {
		return err
	}
	return file.Sync()
}

// onlyReader hides what would let io.Copy go without the buffer.
type onlyReader struct{ io.Reader }

// walk reads an archive to its end and writes its files to another.
func walk(path string, to io.Writer) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	archive, buffer := tar.NewReader(unpacked), make([]byte, 128<<10)
	for {
		switch _, err := archive.Next(); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if _, err := io.CopyBuffer(onlyWriter{to}, onlyReader{archive}, buffer); err != nil {
			return err
		}
	}
}

// onlyWriter hides what would let io.Copy go without the buffer.
type onlyWriter struct{ io.Writer }

// fast is the level at which this project archives again.
const fast = 2

// again unpacks an archive and compresses its files anew.
func again(path string) error {
	packed, err := gzip.NewWriterLevel(io.Discard, fast)
	if err != nil {
		return err
	}
	if err := walk(path, packed); err != nil {
		return err
	}
	return packed.Close()
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
