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
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	utilcache "k8s.io/apimachinery/pkg/util/cache"

	"github.com/image-source/image-source-controller/pkg/flight"
)

const (
	// maxPeers is how many other replicas are asked for one file, and maxFetches
	// how many files are asked for at once.
	maxPeers   = 8
	maxFetches = 16
	// peerDialTimeout and peerHeaderTimeout are for a network that is near and a
	// question that takes no work, but to read a large file once.
	peerDialTimeout   = time.Second
	peerHeaderTimeout = 5 * time.Second
	// peerBaseTime and peerPace bound a transfer as a whole: a peer that is
	// slower than that is no help.
	peerBaseTime = 5 * time.Second
	peerPace     = 1 << 20 // bytes in a second
	// avoidFor is how long a peer is left alone that did not answer, and maxAvoided how
	// many are.
	avoidFor   = 10 * time.Second
	maxAvoided = 1000
)

var (
	// ErrUnheard says that no replica had a file, of those that could be asked: not
	// all could.
	ErrUnheard = errors.New("not all other replicas could be asked for the file")
	// errNoPeer says that no other replica has a file.
	errNoPeer = errors.New("no other replica has the file")
)

// PeerOptions say where the other replicas are.
type PeerOptions struct {
	// Hosts are the host:port of the servers of all replicas (--storage-peers).
	// A host stands for each address that it resolves to. Without one there are no peers.
	Hosts []string
	// Address is what this replica's own server listens on (--storage-addr), so
	// that it does not ask itself.
	Address string
	// MaxBytes is the largest file that is taken from a peer.
	MaxBytes int64
	// Fetched is told of each file that a peer had.
	Fetched func(bytes int64)
	// Resolver looks the hosts up; nil is net.DefaultResolver.
	Resolver *net.Resolver
}

// Replica is a Store one of several that have the same records: what it lacks
// it may get from the others. A file is asked for by its digest and checked
// before it gets a name, so a peer can withhold a file, but not put another one in its place.
type Replica struct {
	*Store
	options PeerOptions
	others  directory
	client  *http.Client
	fetches flight.Group[string, struct{}]
	slots   chan struct{}
	avoided *utilcache.LRUExpireCache // by address
}

// NewReplica returns a replica of the peers that the options name.
func NewReplica(s *Store, o PeerOptions) (*Replica, error) {
	r := &Replica{Store: s, options: o, slots: make(chan struct{}, maxFetches), avoided: utilcache.NewLRUExpireCache(maxAvoided), client: &http.Client{
		Transport: &http.Transport{
			// Peers are beside us: no proxy is asked for them.
			DialContext:           (&net.Dialer{Timeout: peerDialTimeout}).DialContext,
			ResponseHeaderTimeout: peerHeaderTimeout,
			DisableCompression:    true,
			MaxIdleConnsPerHost:   2,
			IdleConnTimeout:       defaultIdleTimeout / 2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r.others.resolver = o.Resolver
	for _, peer := range o.Hosts {
		host, err := splitHostPort(peer)
		if err != nil || host.host == "" {
			return nil, fmt.Errorf("--storage-peers names %q: expected host:port", peer)
		}
		r.others.hosts = append(r.others.hosts, host)
	}
	if len(r.others.hosts) == 0 {
		return r, nil
	}
	own, err := splitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("--storage-addr is %q: expected host:port", o.Address)
	}
	r.others.own = own.port
	return r, nil
}

// Check is Store.Check, and gets a missing or bad file from the other
// replicas. An error says that the disk did not answer.
func (r *Replica) Check(ctx context.Context, key Key, artifact meta.Artifact) (Stored, bool, error) {
	stored, ok, err := r.Store.Check(ctx, key, artifact)
	if ok || err != nil || len(r.others.hosts) == 0 {
		return stored, ok, err
	}
	sha256, ok := understand(key, artifact)
	if !ok {
		return Stored{}, false, nil
	}
	limit := r.options.MaxBytes
	if artifact.Size != nil {
		limit = min(limit, *artifact.Size)
	}
	if err := r.fetch(ctx, key, sha256, limit); err != nil {
		return Stored{}, false, notFromPeers(err)
	}
	return r.Store.Check(ctx, key, artifact)
}

// notFromPeers keeps of an error what the disk said; what peers said is no
// reason to fail.
func notFromPeers(err error) error {
	if errors.Is(err, errNoPeer) || errors.Is(err, ErrUnheard) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// Fetch gets a file that no record here names from the other replicas, such as
// what was published until just now. It tells whether one of them had it; ErrUnheard
// says that this is not known.
func (r *Replica) Fetch(ctx context.Context, key Key, sha256 string) (bool, error) {
	if err := validate(key, sha256); err != nil {
		return false, err
	}
	err := r.fetch(ctx, key, sha256, r.options.MaxBytes)
	switch {
	case err == nil:
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, errNoPeer):
		return false, nil
	default:
		return false, err
	}
}

// fetch gets a file from the peers, once for all who ask for it at the same time.
func (r *Replica) fetch(ctx context.Context, key Key, sha256 string, limit int64) error {
	if len(r.others.hosts) == 0 {
		return errNoPeer
	}
	_, _, err := r.fetches.Do(ctx, key.file(sha256), func(ctx context.Context) (struct{}, error) {
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
			return struct{}{}, r.ask(ctx, key, sha256, limit)
		case <-ctx.Done():
			return struct{}{}, ErrUnheard
		}
	})
	return err
}

// ask asks one peer after the other, in an order that spreads the load. They get
// half of the time that there is: what none of them has may be had elsewhere.
func (r *Replica) ask(ctx context.Context, key Key, sha256 string, limit int64) error {
	asking, cancel := half(ctx)
	defer cancel()
	var said []error
	peers, heard := r.peers(asking)
	for _, peer := range peers {
		if asking.Err() != nil {
			break
		}
		err := r.fetchFrom(asking, peer, File{Path: key.file(sha256), SHA256: sha256, Size: limit}, key)
		refused, ok := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ErrUnheard
		case ok:
			said = append(said, fmt.Errorf("%s: %w", peer, err))
			if refused.avoid {
				heard = false
				r.avoided.Add(peer, nil, avoidFor)
			}
		default:
			return diskFault("store the file of "+key.String(), err)
		}
	}
	if !heard || asking.Err() != nil {
		return errors.Join(ErrUnheard, errors.Join(said...))
	}
	return errors.Join(errNoPeer, errors.Join(said...))
}

// half returns a context that ends in the middle of the time that another one has.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// refusal is why a peer's file was not had.
type refusal struct {
	err error
	// avoid tells that the peer is not worth asking for a while, and did not say what
	// it has.
	avoid bool
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// fetchFrom gets a file from a peer. Of the file that is wanted, the path is
// that of the request and the size the most that it may have.
func (r *Replica) fetchFrom(ctx context.Context, peer netip.AddrPort, wanted File, key Key) error {
	sending, cancel := context.WithTimeout(ctx, peerBaseTime+time.Duration(wanted.Size/peerPace)*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(sending, http.MethodGet, "http://"+peer.String()+"/"+wanted.Path, http.NoBody)
	if err != nil {
		return &refusal{err: err}
	}
	request.Header.Set(PeerHeader, "1")
	response, err := r.client.Do(request)
	if err != nil {
		return &refusal{err: err, avoid: true}
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return &refusal{err: fmt.Errorf("status %d", response.StatusCode), avoid: response.StatusCode >= http.StatusInternalServerError}
	}
	if response.ContentLength > wanted.Size {
		return &refusal{err: fmt.Errorf("offers %d bytes, at most %d were expected", response.ContentLength, wanted.Size)}
	}
	scratch, remove, err := r.Scratch()
	if err != nil {
		return err
	}
	defer remove()
	wanted.Path = filepath.Join(scratch, "peer"+extension)
	file, err := spool(response.Body, wanted)
	if err != nil {
		return err
	}
	// What is here already is kept, however long it took.
	if _, err := r.Put(context.WithoutCancel(ctx), key, file); err != nil {
		return err
	}
	if r.options.Fetched != nil {
		r.options.Fetched(file.Size)
	}
	return nil
}

// spool writes what a peer sends to its end and checks that it is what is
// wanted, which also says how long it may be.
func spool(body io.Reader, wanted File) (file File, err error) {
	f, err := os.OpenFile(wanted.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// A byte more than it may have makes another digest.
	source := &failing{r: io.LimitReader(body, wanted.Size+1)}
	got, size, err := digits(io.TeeReader(source, f))
	switch {
	case source.err != nil:
		return File{}, &refusal{err: source.err, avoid: true}
	case err != nil:
		return File{}, err
	case got != wanted.SHA256:
		return File{}, &refusal{err: fmt.Errorf("sends %d bytes with the digest sha256:%s", size, got), avoid: true}
	}
	return File{Path: wanted.Path, SHA256: wanted.SHA256, Size: size}, nil
}

// peers returns the other replicas, in no order, without those that did not
// answer of late, and whether there are none of these.
func (r *Replica) peers(ctx context.Context) (_ []netip.AddrPort, all bool) {
	known := r.others.addresses(ctx)
	peers := slices.DeleteFunc(slices.Clone(known), r.avoids)
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] }) //nolint:gosec // no secret: whom to ask first
	return peers[:min(len(peers), maxPeers)], len(peers) == len(known)
}

func (r *Replica) avoids(peer netip.AddrPort) bool {
	_, found := r.avoided.Get(peer)
	return found
}
