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
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fluxcd/pkg/artifact/config"
)

// The folders below the storage path.
const (
	publishedFolder = "externalartifact"
	blobsFolder     = "blobs"
	scratchFolder   = "tmp"
)

// Files are readable to the group, because a volume's fsGroup is what a
// replaced pod with another user has in common with the one before it.
const (
	folderMode fs.FileMode = 0o750
	fileMode   fs.FileMode = 0o640
)

// Options say where files are kept, how they are named to consumers and how
// long they stay.
type Options struct {
	// Root is the storage path (--storage-path). It must exist.
	Root string
	// AdvertisedAddress is the host, with or without a port, under which
	// consumers reach the server (--storage-adv-addr). As in Flux, it may begin
	// with http:// or https://.
	AdvertisedAddress string
	// RetentionTTL is how long after its publication a file stays that no
	// record names (--artifact-retention-ttl).
	RetentionTTL time.Duration
	// RetentionRecords is how many files of one key stay at most
	// (--artifact-retention-records), unless records name more.
	RetentionRecords int
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

// NewOptions translates Flux's storage flags. Of the digest algorithms that Flux
// knows it takes one: that of OCI layers, so that a layer is served as it is.
func NewOptions(flags *config.Options) (Options, error) {
	if a := flags.ArtifactDigestAlgo; a != "" && a != algorithm {
		return Options{}, fmt.Errorf("--artifact-digest-algo is %.40q: expected %s, the algorithm of OCI layers, which are served as they are; remove the flag", a, algorithm)
	}
	address, err := flags.GetAdvertisedAddress()
	if err != nil {
		return Options{}, fmt.Errorf("no address to tell consumers, set --storage-adv-addr: %w", err)
	}
	return Options{
		Root:              flags.StoragePath,
		AdvertisedAddress: address,
		RetentionTTL:      flags.ArtifactRetentionTTL,
		RetentionRecords:  flags.ArtifactRetentionRecords,
	}, nil
}

// Store keeps published files below one folder. Its methods may be called
// from many goroutines. Their errors about the disk are retries with the reason
// StorageOperationFailed; nothing is half-published after one of them.
type Store struct {
	root    string // absolute
	baseURL string // scheme and host, no slash at the end
	ttl     time.Duration
	records int
	now     func() time.Time

	// digests serialise what happens to one content: making its blob, giving
	// it names and taking them away. Striped by the first byte of the digest.
	digests [256]sync.Mutex
	// folders keeps a key's folder from being removed, as empty, between its
	// making and its first file.
	folders sync.RWMutex
	// sweeps lets one collection run at a time.
	sweeps sync.Mutex
	holds  holds
	found  findings
	// requests are for Scrub.
	requests scrubRequests

	// claim keeps other processes off the storage path until it is closed.
	claim io.Closer
}

// Open prepares the storage path: it claims it for this process until Close,
// makes the layout, removes what earlier processes left unfinished, and tries
// that files can be written and linked. A disk that is merely full is opened,
// because it can still serve and collect. A path that another process has open is
// refused (ErrInUse), for either would remove what the other is making.
func Open(o Options) (*Store, error) {
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	if s.claim, err = claim(s.root); err != nil {
		return nil, diskFault("open the artifact storage", err)
	}
	if err := s.prepare(); err != nil {
		return nil, diskFault("open the artifact storage", errors.Join(err, s.Close()))
	}
	return s, nil
}

// ErrInUse says of a storage path that another process has it open.
var ErrInUse = errors.New("another process stores artifacts there")

// Close gives the storage path up. Nothing may be done with the store after it;
// the end of the process does the same.
func (s *Store) Close() error { return s.claim.Close() }

func newStore(o Options) (*Store, error) {
	if o.Root == "" {
		return nil, errors.New("no storage path, set --storage-path")
	}
	if o.AdvertisedAddress == "" {
		return nil, errors.New("no address to tell consumers, set --storage-adv-addr")
	}
	if o.RetentionTTL < 0 || o.RetentionRecords < 0 {
		return nil, fmt.Errorf("retention of %s and %d records: neither may be negative", o.RetentionTTL, o.RetentionRecords)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, fmt.Errorf("storage path %q: %w", o.Root, err)
	}
	return &Store{
		root:     root,
		baseURL:  baseURL(o.AdvertisedAddress),
		ttl:      o.RetentionTTL,
		records:  o.RetentionRecords,
		now:      o.Clock,
		holds:    holds{files: map[held]hold{}},
		found:    findings{bySHA256: map[string][]finding{}},
		requests: scrubRequests{added: make(chan struct{}, 1)},
	}, nil
}

func baseURL(address string) string {
	address = strings.TrimRight(address, "/")
	if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
		return address
	}
	return "http://" + address
}

func (s *Store) prepare() error {
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(scratchFolder); err != nil {
		return err
	}
	for _, folder := range []string{publishedFolder, blobsFolder} {
		if err := root.MkdirAll(folder, folderMode); err != nil {
			return err
		}
	}
	if err := probe(root); err != nil && !isFull(err) {
		return err
	}
	return nil
}

// probe finds out at the start, and not at the first artifact, that the path is
// read-only or that its file system has no hard links.
func probe(root *os.Root) error {
	folder, err := makeScratch(root)
	if err != nil {
		return err
	}
	defer func() { _ = root.RemoveAll(folder) }()
	file := path.Join(folder, "probe")
	if err := root.WriteFile(file, []byte("probe"), fileMode); err != nil {
		return err
	}
	return root.Link(file, path.Join(folder, "link"))
}

// open roots the file operations of one call. It is opened for each call, so
// that a storage path which was replaced or mounted anew is used from then on.
func (s *Store) open() (*os.Root, error) {
	return os.OpenRoot(s.root)
}

// Scratch makes an empty folder on the file system of the published files and
// returns its absolute path and the function that removes it with all that is
// in it. What is to be published is made there. Scratch folders do not outlive the process:
// the next Open removes them.
func (s *Store) Scratch() (dir string, remove func(), err error) {
	root, err := s.open()
	if err != nil {
		return "", nil, diskFault("make a scratch folder", err)
	}
	defer root.Close()
	folder, err := makeScratch(root)
	if err != nil {
		return "", nil, ScratchFault("make a scratch folder", err)
	}
	return filepath.Join(s.root, filepath.FromSlash(folder)), func() { s.removeScratch(folder) }, nil
}

func makeScratch(root *os.Root) (string, error) {
	folder := path.Join(scratchFolder, rand.Text())
	return folder, root.MkdirAll(folder, 0o700)
}

// removeScratch ignores failures: what is left over is removed by the next Open.
func (s *Store) removeScratch(folder string) {
	root, err := s.open()
	if err != nil {
		return
	}
	defer root.Close()
	_ = root.RemoveAll(folder)
}

// lock serialises what happens to the content of a valid digest.
func (s *Store) lock(sha256 string) (unlock func()) {
	first, _ := hex.DecodeString(sha256[:2])
	stripe := &s.digests[first[0]]
	stripe.Lock()
	return stripe.Unlock
}
