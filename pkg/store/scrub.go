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

package store

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"golang.org/x/time/rate"
)

const (
	// scrubPeriod is the time between two readings of a file. A file that decays is bad
	// for half of it on average, and consumers refuse bad bytes.
	scrubPeriod = time.Hour
	// scrubRate bounds the reading, in bytes per second: it is half of what a small network
	// volume reads (125 MiB/s), so that consumers are served as well, costs a few percent
	// of a core, and reads 225 GiB in a period.
	scrubRate = 64 << 20
	// scrubBurst is more than one read of io.Copy.
	scrubBurst = 1 << 20
)

// ScrubOptions say how stored files are read in the background. The zero value of each is
// its default.
type ScrubOptions struct {
	// Every is the time between two readings of a file; default one hour.
	Every time.Duration
	// Limiter bounds the bytes that are read; default 64 MiB per second.
	Limiter Limiter
	// Lost is told of each key that had a bad file. The file is not served any more.
	Lost func(ctx context.Context, key Key, sha256 string)
	// Failed is told why not all files could be read in a round.
	Failed func(err error)
}

// Scrub reads all stored files to their end, one after the other and again after each
// period, until ctx ends. A file whose bytes do not have the digest in its name loses all
// its names. A file that cannot be read counts as missing until it is read or replaced.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) {
	if o.Limiter == nil {
		o.Limiter = rate.NewLimiter(scrubRate, scrubBurst)
	}
	if o.Lost == nil {
		o.Lost = func(context.Context, Key, string) {}
	}
	rounds := time.NewTicker(cmp.Or(o.Every, scrubPeriod))
	defer rounds.Stop()
	s.scrubAll(ctx, o)
	for {
		select {
		case <-rounds.C:
			s.scrubAll(ctx, o)
		case <-s.requests.added:
			_ = s.scrubRequested(ctx, o) // a round meets the error again, and reports it
		case <-ctx.Done():
			return
		}
	}
}

// ScrubNext asks Scrub to read the file of a record next. It does not wait.
func (s *Store) ScrubNext(key Key, artifact meta.Artifact) {
	if sha256, ok := understand(key, artifact); ok {
		s.requests.add(contentFile{artifact.Path, sha256})
	}
}

// scrubAll reads each file once, under one of its names. Between two of them it reads one
// that was asked for, so that a source with many requests does not end the round.
func (s *Store) scrubAll(ctx context.Context, o ScrubOptions) {
	files, err := s.distinctFiles()
	for _, file := range files {
		err = cmp.Or(err, s.scrubRequested(ctx, o), s.scrubFile(ctx, o, file))
		if ctx.Err() != nil {
			return
		}
	}
	if err != nil && o.Failed != nil {
		o.Failed(diskFault("read stored files", err))
	}
}

// scrubRequested reads a file that was asked for, if there is any.
func (s *Store) scrubRequested(ctx context.Context, o ScrubOptions) error {
	file, found := s.requests.take()
	if !found {
		return nil
	}
	return s.scrubFile(ctx, o, file)
}

// scrubFile reads one file. It is no error if it was removed or replaced meanwhile.
func (s *Store) scrubFile(ctx context.Context, o ScrubOptions, file contentFile) error {
	lost, err := s.examine(ctx, file.name, file.sha256, o.Limiter)
	for _, key := range lost {
		o.Lost(ctx, key, file.sha256)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// distinctFiles lists all stored files, each under one of its names.
func (s *Store) distinctFiles() (files []contentFile, err error) {
	root, err := s.open()
	if err != nil {
		return nil, err
	}
	defer root.Close()
	seen := map[string][]fs.FileInfo{} // by sha256
	add := func(file contentFile) {
		info, err := root.Lstat(file.name)
		if err != nil || !info.Mode().IsRegular() ||
			slices.ContainsFunc(seen[file.sha256], func(other fs.FileInfo) bool { return os.SameFile(other, info) }) {
			return
		}
		seen[file.sha256], files = append(seen[file.sha256], info), append(files, file)
	}
	blobs, err := readFolder(root, blobsFolder)
	errs := []error{err}
	for _, blob := range blobs {
		if isSHA256(blob.Name()) {
			add(contentFile{blobPath(blob.Name()), blob.Name()})
		}
	}
	keys, err := publishedKeys(root)
	errs = append(errs, err)
	for _, key := range keys {
		published, _, err := filesOf(root, key)
		errs = append(errs, err)
		for _, file := range published {
			add(contentFile{file.path, file.sha256})
		}
	}
	return files, errors.Join(errs...)
}
