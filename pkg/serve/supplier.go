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

package serve

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// SupplierOptions are the parts of a Supplier.
type SupplierOptions struct {
	// Client reads from the caches of this replica.
	Client client.Client
	// Live reads past them.
	Live client.Reader
	// Store has the files of this replica.
	Store *store.Replica
	// Remake makes the file that the status of obj names from its recipe, and stores it.
	// It reads the objects around obj from the client. ErrOtherBytes says that another
	// file came out, a *throttle.Busy when to try again.
	Remake func(ctx context.Context, obj *v1alpha1.ArtifactRepository, from client.Client) error
	// Enqueue asks for an object to be reconciled; only the replica that leads does.
	Enqueue chan<- event.GenericEvent
	// Rebuilds is how many files are made again at once.
	Rebuilds int
}

// ErrOtherBytes says that a recipe makes another file than the status names.
var ErrOtherBytes = errors.New("made again, it has other bytes")

// Supplier gets published files that this replica lacks, for consumers that wait: from
// the other replicas, or else made again from the recipe in the record. It writes
// nothing to the API server; the replica that leads reports the faults of a source.
//
// A stranger cannot make it work at will: it supplies only a path that a record names, or
// named until just now, once for all callers, and after a failure not again for a while.
type Supplier struct {
	SupplierOptions

	lookups flight.Group[types.NamespacedName, sighting]
	// known and unknown limit lookups of names that are known here and of others.
	known, unknown *rate.Limiter
	// recent remembers lookups, questions and enqueued objects for a pause, by kind of key.
	recent *utilcache.LRUExpireCache

	// questions to other replicas about files that no record names.
	questions flight.Group[file, struct{}]
	asking    *rate.Limiter

	// failures are those of files that records name, or named before.
	failures failures

	orders   chan order
	supplies flight.Group[file, struct{}]
	rebuilds chan struct{}
}

const (
	// liveReads per second bound the reads of the API server that strangers can cause with
	// names that are known here, and as many with those that are not.
	liveReads = 15
	// peerQuestions per second bound the questions to other replicas that strangers can cause.
	peerQuestions = 15
	// pause is how often strangers can have one object looked up, one object enqueued, and
	// one file asked of the other replicas.
	pause = time.Second
	// comeAgain is how long consumers ask for a file after the next one is published, at
	// least: Flux's controllers try ten times, with pauses of up to half a minute.
	comeAgain = 5 * time.Minute
	// maxRemembered bounds each thing that is remembered of paths.
	maxRemembered = 4000
)

// file is a file of a source.
type file struct {
	store.Key
	sha256 string
}

// order is a file to be supplied to a consumer that waits.
type order struct {
	file
	obj *v1alpha1.ArtifactRepository
	// former tells that obj is as it was when the file was published.
	former bool
	// from is the client that read obj, and is to read the objects around it.
	from client.Client
	done chan<- error
}

var (
	// errBusy says that it cannot be told now whether a file is published.
	errBusy = errors.New("too many requests for files that are not known")
	// errOvertaken says that the record names a version that consumers have not been told
	// of, and that nobody knows how to make the one that they have.
	errOvertaken = errors.New("the record names something newer, of which consumers are about to be told")
)

// NewSupplier returns a Supplier. It supplies while it runs.
func NewSupplier(o SupplierOptions) *Supplier {
	return &Supplier{
		SupplierOptions: o,
		known:           rate.NewLimiter(liveReads, liveReads),
		unknown:         rate.NewLimiter(liveReads, liveReads),
		recent:          utilcache.NewLRUExpireCache(maxRemembered),
		asking:          rate.NewLimiter(peerQuestions, peerQuestions),
		failures:        newFailures(),
		orders:          make(chan order),
		rebuilds:        make(chan struct{}, o.Rebuilds),
	}
}

// Run supplies what is ordered until ctx ends. The work belongs to no single consumer:
// a file that takes longer than they wait is there when they come back.
func (s *Supplier) Run(ctx context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	for {
		select {
		case o := <-s.orders:
			working.Go(func() {
				_, _, err := s.supplies.Do(ctx, o.file, func(ctx context.Context) (struct{}, error) {
					return struct{}{}, s.supply(ctx, o)
				})
				o.done <- err
			})
		case <-ctx.Done():
			return
		}
	}
}

// Publishes has the signature of store.HandlerOptions.Publishes. It asks the cache: a
// withdrawn file is not served, even if the disk still has it. Nor is a file that a
// former object of the same name left: its withdrawals are not known.
func (s *Supplier) Publishes(ctx context.Context, key store.Key, sha256 string) bool {
	var obj v1alpha1.ArtifactRepository
	err := s.Client.Get(ctx, types.NamespacedName(key), &obj, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if err != nil || obj.Status.Artifact == nil || publication.IsWithdrawn(&obj, sha256) {
		return false
	}
	if publication.Names(&obj, sha256) {
		return true
	}
	has, err := s.has(key, sha256, &obj)
	return err == nil && has
}

// has tells whether this disk has a file that obj published. A file that is older than
// obj is of a former object of the same name.
func (s *Supplier) has(key store.Key, sha256 string, obj *v1alpha1.ArtifactRepository) (bool, error) {
	published, err := s.Store.PublishedAt(key, sha256)
	return !published.IsZero() && !published.Before(obj.CreationTimestamp.Time), err
}

// Missing has the signature of store.HandlerOptions.Missing.
func (s *Supplier) Missing(ctx context.Context, key store.Key, sha256 string) error {
	o := order{file: file{Key: key, sha256: sha256}, from: s.Client}
	var err error
	if o.obj, err = apiserver.Get(ctx, o.from, types.NamespacedName(key), &v1alpha1.ArtifactRepository{}); err != nil || !publication.Names(o.obj, sha256) {
		limit := s.unknown
		if o.obj != nil {
			limit = s.known
		}
		o.from = uncached{s.Client, s.Live}
		if o.obj, err = s.look(ctx, o.file, limit); err != nil {
			return err
		}
	}
	switch {
	case publication.Names(o.obj, sha256):
		return s.await(ctx, o)
	case o.obj == nil || o.obj.Status.Artifact == nil || publication.IsWithdrawn(o.obj, sha256):
		return store.ErrNotPublished
	default:
		return s.formerFile(ctx, o)
	}
}

// Lacking has the signature of store.HandlerOptions.Lacking: if this replica lacks a file
// that another one asks for, the replica that leads has to know.
func (s *Supplier) Lacking(ctx context.Context, key store.Key, sha256 string) {
	obj, err := apiserver.Get(ctx, s.Client, types.NamespacedName(key), &v1alpha1.ArtifactRepository{})
	if err == nil && publication.Names(obj, sha256) {
		s.enqueue(types.NamespacedName(key))
	}
}

// Lost has the signature of store.ScrubOptions.Lost: the source of a bad file is reconciled,
// so that the file is made again before a consumer asks for it.
func (s *Supplier) Lost(ctx context.Context, key store.Key, sha256 string) {
	ctrl.LoggerFrom(ctx).Info("a stored file cannot be read, or its bytes have changed: it is not served until it is replaced; check the disk",
		"artifactrepository", key.String(), "digest", "sha256:"+sha256)
	s.send(types.NamespacedName(key))
}

// The keys of recent.
type (
	lookedUp types.NamespacedName
	enqueued types.NamespacedName
	lacked   file
)

// sighting is an object as it was when it was looked up, nil if there was none.
type sighting struct {
	obj *v1alpha1.ArtifactRepository
	at  time.Time
}

// look reads an object past the caches, which may be behind, or hold those of another
// shard only. Lookups of one object are shared, and a caller that asks for a file which
// the last one saw gets its answer. Another caller may reuse a lookup only if it started
// after the caller asked: an older one may have missed a record that the caller knows.
func (s *Supplier) look(ctx context.Context, what file, limit *rate.Limiter) (*v1alpha1.ArtifactRepository, error) {
	name, asked := types.NamespacedName(what.Key), time.Now()
	if last := s.lastSighting(name); publication.Names(last.obj, what.sha256) {
		return last.obj, nil
	}
	for {
		now, _, err := s.lookups.Do(ctx, name, func(ctx context.Context) (sighting, error) { return s.sight(ctx, name, limit) })
		if err != nil || !now.at.Before(asked) {
			return now.obj, err
		}
	}
}

// lastSighting returns the last lookup of an object, for a pause after it.
func (s *Supplier) lastSighting(name types.NamespacedName) sighting {
	last, _ := s.recent.Get(lookedUp(name))
	seen, _ := last.(sighting)
	return seen
}

// sight looks an object up within the limit. An object that was just looked up has to
// wait for a pause. Invented names have a limit of their own, so that they take nothing
// from consumers of known ones.
func (s *Supplier) sight(ctx context.Context, name types.NamespacedName, limit *rate.Limiter) (sighting, error) {
	select {
	case <-time.After(time.Until(s.lastSighting(name).at.Add(pause))):
	case <-ctx.Done():
		return sighting{}, ctx.Err()
	}
	if !limit.Allow() {
		return sighting{}, errBusy
	}
	at := time.Now()
	obj, err := apiserver.Get(ctx, s.Live, name, &v1alpha1.ArtifactRepository{})
	if err != nil {
		return sighting{}, err
	}
	if obj != nil {
		obj.ManagedFields = nil // as in the caches: it is remembered
	}
	now := sighting{obj, at}
	s.recent.Add(lookedUp(name), now, pause)
	return now, nil
}

// formerFile gets a file that no record names any more, for consumers that were told of it
// just before. The replica that published it keeps it for the retention, and so does
// that of a shard that the source has left.
func (s *Supplier) formerFile(ctx context.Context, o order) error {
	had, err := s.has(o.Key, o.sha256, o.obj)
	if had || err != nil {
		return err
	}
	if stale, err := s.Store.Has(ctx, o.Key, o.sha256); stale || err != nil {
		return cmp.Or(err, store.ErrNotPublished)
	}
	_, _, err = s.questions.Do(ctx, o.file, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.askPeers(ctx, o.file) })
	if !errors.Is(err, store.ErrNotPublished) && !errors.Is(err, store.ErrUnheard) {
		return err
	}
	if again := s.remakeFormer(ctx, o); !errors.Is(again, store.ErrNotPublished) {
		return again
	}
	return err // a replica that could not be asked may have it
}

// askPeers asks the other replicas for a file that no record names, within the limit. A
// file that they just lacked they still lack: no replica publishes it any more.
func (s *Supplier) askPeers(ctx context.Context, what file) error {
	if _, ok := s.recent.Get(lacked(what)); ok {
		return store.ErrNotPublished
	}
	if !s.asking.Allow() {
		return errBusy
	}
	had, err := s.Store.Fetch(ctx, what.Key, what.sha256)
	if err == nil && !had {
		s.recent.Add(lacked(what), nil, pause)
		err = store.ErrNotPublished
	}
	return err
}

// remakeFormer makes a file of the history again, if no replica has it.
func (s *Supplier) remakeFormer(ctx context.Context, o order) error {
	// The record is written before the ExternalArtifact: until that is written, which takes
	// as long as no replica leads, consumers are led to the version before.
	led := s.leads(ctx, o.file)
	former, replaced := publication.Former(o.obj, o.sha256)
	switch {
	case former == nil && led:
		return errOvertaken
	case former == nil, !led && time.Since(replaced) > comeAgain:
		return store.ErrNotPublished
	}
	o.obj, o.former = former, true
	err := s.await(ctx, o)
	if trust.VerdictOf(err) == trust.Rejected || errors.Is(err, ErrOtherBytes) && !led {
		return store.ErrNotPublished
	}
	return err
}

// leads tells whether the ExternalArtifact of a source leads consumers to a file, by the cache.
func (s *Supplier) leads(ctx context.Context, to file) bool {
	external, err := apiserver.Get(ctx, s.Client, types.NamespacedName(to.Key), &sourcev1.ExternalArtifact{})
	return err == nil && external != nil && publication.IsFile(external.Status.Artifact, to.sha256)
}

// await orders a file and waits for it.
func (s *Supplier) await(ctx context.Context, o order) error {
	done := make(chan error, 1)
	o.done = done
	select {
	case s.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// supply gets a file that a record names, or named before, unless that just failed.
func (s *Supplier) supply(ctx context.Context, o order) error {
	if err := s.failures.last(o.file); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.obj.GetTimeout())
	defer cancel()
	err := s.obtain(ctx, o)
	if err == nil {
		s.failures.forget(o.file)
		return nil
	}
	s.failures.add(o.file, err)
	if o.former {
		return err // the replica that leads has nothing to repair
	}
	ctrl.LoggerFrom(ctx).Info("a consumer asked for published bytes that could not be had",
		"artifactrepository", o.Key.String(), "revision", o.obj.Status.Artifact.Revision, "error", fault.Line(err.Error()))
	s.enqueue(types.NamespacedName(o.Key))
	return err
}

// obtain gets a file from this disk, another replica or the registry.
func (s *Supplier) obtain(ctx context.Context, o order) error {
	_, ok, err := s.Store.Check(ctx, o.Key, *o.obj.Status.Artifact)
	if ok || err != nil {
		return err
	}
	for {
		err = s.remake(ctx, o)
		busy, ok := errors.AsType[*throttle.Busy](err)
		if !ok {
			return err
		}
		select {
		case <-time.After(busy.Wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// remake makes a file again, when one of the rebuilds is free. A file that waits for its
// registry does not occupy one.
func (s *Supplier) remake(ctx context.Context, o order) error {
	select {
	case s.rebuilds <- struct{}{}:
		defer func() { <-s.rebuilds }()
		return s.Remake(ctx, o.obj.DeepCopy(), o.from)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enqueue asks for an object to be reconciled. A full channel is no loss: each interval
// looks at the object anyway.
func (s *Supplier) enqueue(name types.NamespacedName) {
	if _, ok := s.recent.Get(enqueued(name)); ok {
		return
	}
	s.recent.Add(enqueued(name), nil, pause)
	s.send(name)
}

func (s *Supplier) send(name types.NamespacedName) {
	obj := &v1alpha1.ArtifactRepository{}
	obj.Namespace, obj.Name = name.Namespace, name.Name
	select {
	case s.Enqueue <- event.GenericEvent{Object: obj}:
	default:
	}
}

// uncached is a client that gets single objects past the caches.
type uncached struct {
	client.Client
	live client.Reader
}

// Get implements client.Reader.
func (u uncached) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	return u.live.Get(ctx, key, obj, options...)
}
