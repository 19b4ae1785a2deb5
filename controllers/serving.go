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

package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Serving is the artifact server of a replica, whether it leads or not. It runs
// beside the manager and not in it: after a signal to end, the manager gives the
// lead up at once, while consumers are served until they go elsewhere.
type Serving struct {
	// Server hands out what is stored.
	Server *store.Server
	// Supplier gets what is not.
	Supplier *Supplier
	// Cache that records are read from: nothing is served before it is synced.
	Cache cache.Cache

	ready atomic.Bool
	waits atomic.Pointer[error]
}

// Start serves until ctx ends and the server has drained.
func (s *Serving) Start(ctx context.Context) error {
	if !s.Cache.WaitForCacheSync(ctx) {
		return nil // it ends before it has begun
	}
	listener, err := s.Server.Listen(ctx)
	if err != nil {
		return err
	}
	return s.serve(ctx, listener)
}

func (s *Serving) serve(ctx context.Context, listener net.Listener) error {
	work, end := context.WithCancel(context.WithoutCancel(ctx))
	var supplying sync.WaitGroup
	supplying.Go(func() { s.Supplier.Run(work) })
	defer supplying.Wait()
	defer end()
	s.ready.Store(true)
	context.AfterFunc(ctx, func() { s.ready.Store(false) })
	return s.Server.Serve(ctx, listener)
}

// Waits says why the replica does not serve yet; nil says that nothing is waited for.
func (s *Serving) Waits(why error) { s.waits.Store(&why) }

// Ready is the readiness check of a replica: that it serves what its caches
// know, and is not about to end. Who leads does not matter.
func (s *Serving) Ready(*http.Request) error {
	if !s.ready.Load() {
		if why := s.waits.Load(); why != nil && *why != nil {
			return *why
		}
		return errors.New("artifacts are not served yet, or not for much longer")
	}
	return nil
}

// SupplierOptions are what a Supplier is made of.
type SupplierOptions struct {
	// Reconciler knows how to make bytes again.
	Reconciler *ArtifactRepositoryReconciler
	// Poke asks for an object to be reconciled; only the replica that leads does.
	Poke chan<- event.GenericEvent
	// Rebuilds is how many artifacts are made again at once.
	Rebuilds int
}

// Supplier gets published files that this replica lacks, for consumers who
// wait: from the other replicas, or else made again from the recipe in the
// record. It writes nothing to the API server; what is wrong with a source is told by the
// replica that leads.
//
// Nobody can make it work at will: only a path that a record names, or named
// until just now, is supplied, each once for all who wait, and after a failure not again
// for a while.
type Supplier struct {
	SupplierOptions

	lookups flight.Group[types.NamespacedName, sighting]
	// known and unknown limit looks for names that are known here and for others.
	known, unknown *rate.Limiter
	sightings      *lru.Cache
	poked          *lru.Cache

	// questions to other replicas about files that no record names.
	questions flight.Group[wanted, struct{}]
	asking    *rate.Limiter
	lacked    *lru.Cache

	retraced *lru.Cache
	// failures are those of what records name, retraceFailures of what they named before.
	failures, retraceFailures failures

	orders   chan order
	supplies flight.Group[wanted, struct{}]
	rebuilds chan struct{}
}

const (
	// liveReads per second bound what strangers can make the API server do with
	// names that are known here, and as many with those that are not.
	liveReads = 15
	// lookEvery is how often strangers can have one object looked for, and one file
	// asked of the other replicas.
	lookEvery = time.Second
	// peerQuestions per second bound what strangers can make the other replicas do.
	peerQuestions = 15
	// pokeEvery is how often strangers can have one object looked at again.
	pokeEvery = time.Second
	// retraceEvery is how often strangers can have it tried to make again what one
	// object published before.
	retraceEvery = time.Second
	// comeAgain is how long consumers ask for what they were told of before, at
	// the least: Flux's controllers try ten times, with pauses of up to half a minute.
	comeAgain = 5 * time.Minute
	// maxRemembered bounds each thing that is remembered of paths.
	maxRemembered = 1000
)

// wanted is a file that a record names.
type wanted struct {
	store.Key
	sha256 string
}

// order is a file to be supplied to somebody who waits.
type order struct {
	wanted
	obj *v1alpha1.ArtifactRepository
	// previous tells that obj is what the record said before, as far as is known.
	previous bool
	// from is where obj was read, and what surrounds it is to be.
	from client.Client
	done chan<- error
}

var (
	// errBusy says that it cannot be told now whether a file is published.
	errBusy = errors.New("too many requests for files that are not known")
	// errOtherBytes says that a recipe makes other bytes than those that are asked for.
	errOtherBytes = errors.New("made again, it has other bytes")
	// errOvertaken says that consumers are not told yet of what is recorded, while
	// nobody knows how to make what they were told of.
	errOvertaken = errors.New("the record names something newer, of which consumers are about to be told")
)

// NewSupplier returns a Supplier. It supplies while it runs.
func NewSupplier(o SupplierOptions) *Supplier {
	return &Supplier{
		SupplierOptions: o,
		known:           rate.NewLimiter(liveReads, liveReads),
		unknown:         rate.NewLimiter(liveReads, liveReads),
		sightings:       lru.New(maxRemembered),
		poked:           lru.New(maxRemembered),
		asking:          rate.NewLimiter(peerQuestions, peerQuestions),
		lacked:          lru.New(maxRemembered),
		retraced:        lru.New(maxRemembered),
		orders:          make(chan order),
		rebuilds:        make(chan struct{}, o.Rebuilds),
	}
}

// Run supplies what is ordered until ctx ends. The work belongs to none of
// those who wait: what takes longer than they do is there when they come back.
func (s *Supplier) Run(ctx context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	for {
		select {
		case o := <-s.orders:
			working.Go(func() {
				_, _, err := s.supplies.Do(ctx, o.wanted, func(ctx context.Context) (struct{}, error) {
					return struct{}{}, s.supply(ctx, o)
				})
				o.done <- err
			})
		case <-ctx.Done():
			return
		}
	}
}

// Publishes has the signature of store.HandlerOptions.Publishes. It asks the
// cache: what was withdrawn is not served from a disk that still has it. Neither is
// what a former object of the name has left: nobody knows what that withdrew.
func (s *Supplier) Publishes(ctx context.Context, key store.Key, sha256 string) bool {
	var obj v1alpha1.ArtifactRepository
	err := s.Reconciler.Client.Get(ctx, types.NamespacedName(key), &obj, &client.GetOptions{UnsafeDisableDeepCopy: new(true)})
	if err != nil || obj.Status.Artifact == nil || isWithdrawn(&obj, sha256) {
		return false
	}
	if names(&obj, sha256) {
		return true
	}
	has, err := s.has(key, sha256, &obj)
	return err == nil && has
}

// has tells whether this disk has a file that an object published. One that is older than
// the object was published by a former one of the same name.
func (s *Supplier) has(key store.Key, sha256 string, obj *v1alpha1.ArtifactRepository) (bool, error) {
	published, err := s.Reconciler.Store.PublishedAt(key, sha256)
	return !published.IsZero() && !published.Before(obj.CreationTimestamp.Time), err
}

// Missing has the signature of store.HandlerOptions.Missing.
func (s *Supplier) Missing(ctx context.Context, key store.Key, sha256 string) error {
	o := order{wanted: wanted{Key: key, sha256: sha256}, from: s.Reconciler.Client}
	var err error
	if o.obj, err = get(ctx, o.from, types.NamespacedName(key), &v1alpha1.ArtifactRepository{}); err != nil || !names(o.obj, sha256) {
		limit := s.unknown
		if o.obj != nil {
			limit = s.known
		}
		o.from = uncached{s.Reconciler.Client, s.Reconciler.Live}
		if o.obj, err = s.look(ctx, o.wanted, limit); err != nil {
			return err
		}
	}
	switch {
	case names(o.obj, sha256):
		return s.await(ctx, o)
	case o.obj == nil || o.obj.Status.Artifact == nil || isWithdrawn(o.obj, sha256):
		return store.ErrNotPublished
	default:
		return s.previous(ctx, o)
	}
}

// Lacking has the signature of store.HandlerOptions.Lacking: where other
// replicas lack what this one lacks too, the one that leads has to know.
func (s *Supplier) Lacking(ctx context.Context, key store.Key, sha256 string) {
	obj, err := get(ctx, s.Reconciler.Client, types.NamespacedName(key), &v1alpha1.ArtifactRepository{})
	if err == nil && names(obj, sha256) {
		s.poke(types.NamespacedName(key))
	}
}

// sighting is an object as it was when it was looked for, nil if there was none.
type sighting struct {
	obj *v1alpha1.ArtifactRepository
	at  time.Time
}

// look reads an object past the caches, which may not have seen it yet, or see
// those of another shard only. Lookups of one object are one, and what was seen a
// moment ago is an answer to who asks for what it names. To others, a lookup that
// began before it was asked for is none: the record may have been written since, and
// whoever read that must not be told that there is none.
func (s *Supplier) look(ctx context.Context, what wanted, limit *rate.Limiter) (*v1alpha1.ArtifactRepository, error) {
	name, asked := types.NamespacedName(what.Key), time.Now()
	if last := s.seen(name); asked.Before(last.at.Add(lookEvery)) && names(last.obj, what.sha256) {
		return last.obj, nil
	}
	for {
		now, _, err := s.lookups.Do(ctx, name, func(ctx context.Context) (sighting, error) { return s.sight(ctx, name, limit) })
		if err != nil || !now.at.Before(asked) {
			return now.obj, err
		}
	}
}

// seen returns how an object was seen last.
func (s *Supplier) seen(name types.NamespacedName) sighting {
	last, _ := s.sightings.Get(name)
	seen, _ := last.(sighting)
	return seen
}

// sight looks for an object, when it may: one that was looked for a moment ago
// has to wait, and all that are known here have a limit, as have all that are not.
// Whoever makes names up takes nothing from those who have been told of one.
func (s *Supplier) sight(ctx context.Context, name types.NamespacedName, limit *rate.Limiter) (sighting, error) {
	select {
	case <-time.After(time.Until(s.seen(name).at.Add(lookEvery))):
	case <-ctx.Done():
		return sighting{}, ctx.Err()
	}
	if !limit.Allow() {
		return sighting{}, errBusy
	}
	at := time.Now()
	obj, err := get(ctx, s.Reconciler.Live, name, &v1alpha1.ArtifactRepository{})
	if err != nil {
		return sighting{}, err
	}
	if obj != nil {
		obj.ManagedFields = nil // as in the caches: it is remembered
	}
	now := sighting{obj, at}
	s.sightings.Add(name, now)
	return now, nil
}

// previous gets what was published before, which no record names any more, for
// consumers who were told of it just before. It is kept for the retention by the
// replica that published it, and by that of the shard which the source has left.
func (s *Supplier) previous(ctx context.Context, o order) error {
	had, err := s.has(o.Key, o.sha256, o.obj)
	if had || err != nil {
		return err
	}
	if stale, err := s.Reconciler.Store.Has(ctx, o.Key, o.sha256); stale || err != nil {
		return cmp.Or(err, store.ErrNotPublished)
	}
	_, _, err = s.questions.Do(ctx, o.wanted, func(ctx context.Context) (struct{}, error) { return struct{}{}, s.askPeers(ctx, o.wanted) })
	if !errors.Is(err, store.ErrNotPublished) && !errors.Is(err, store.ErrUnheard) {
		return err
	}
	if again := s.retrace(ctx, o); !errors.Is(again, store.ErrNotPublished) {
		return again
	}
	return err // a replica that could not be asked may have it yet
}

// askPeers asks the other replicas for a file that no record names, when it may. What
// they lacked a moment ago they lack: nobody publishes it any more.
func (s *Supplier) askPeers(ctx context.Context, what wanted) error {
	if until, ok := s.lacked.Get(what); ok && time.Now().Before(until.(time.Time)) {
		return store.ErrNotPublished
	}
	if !s.asking.Allow() {
		return errBusy
	}
	had, err := s.Reconciler.Store.Fetch(ctx, what.Key, what.sha256)
	if err == nil && !had {
		s.lacked.Add(what, time.Now().Add(lookEvery))
		err = store.ErrNotPublished
	}
	return err
}

// retrace makes the version before the last one again, of which no disk is left: the
// history tells of what.
func (s *Supplier) retrace(ctx context.Context, o order) error {
	// The record is written first: until consumers are told of what is new, they
	// are led to what was before, for as long as nobody leads.
	led := s.leads(ctx, o.wanted)
	before := predecessor(o.obj, o.sha256)
	switch {
	case before == nil && led:
		return errOvertaken
	case before == nil, !led && time.Since(latestPublication(o.obj).PublishedAt.Time) > comeAgain:
		return store.ErrNotPublished
	}
	o.obj, o.previous = before, true
	err := s.await(ctx, o)
	if trust.VerdictOf(err) == trust.Rejected || errors.Is(err, errOtherBytes) && !led {
		return store.ErrNotPublished
	}
	return err
}

// leads tells whether the ExternalArtifact of a key leads consumers to a file,
// as far as is known here.
func (s *Supplier) leads(ctx context.Context, to wanted) bool {
	external, err := get(ctx, s.Reconciler.Client, types.NamespacedName(to.Key), &sourcev1.ExternalArtifact{})
	return err == nil && external != nil && isFile(external.Status.Artifact, to.sha256)
}

// predecessor returns an object as it was when it published the version before
// the last one, if that is what these bytes were: by the history it was another image,
// and by all that is known it was read with the settings of now. What is made of it tells.
func predecessor(obj *v1alpha1.ArtifactRepository, sha256 string) *v1alpha1.ArtifactRepository {
	if len(obj.Status.History) < 2 || publishedBy(obj) == nil || obj.Status.History[1].Digest == obj.Status.Record.Digest {
		return nil
	}
	before := obj.DeepCopy()
	status := &before.Status
	status.History = status.History[1:]
	status.Record.Digest = status.History[0].Digest
	status.Artifact = &meta.Artifact{
		Path:     path.Dir(status.Artifact.Path) + "/" + fileName(sha256),
		Digest:   "sha256:" + sha256,
		Revision: status.History[0].Revision,
	}
	return before
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

// supply gets a file that a record names, or named before, unless that failed
// just before.
func (s *Supplier) supply(ctx context.Context, o order) error {
	failures := &s.failures
	if o.previous {
		// What could not be made again while it was history may be what is recorded next.
		failures = &s.retraceFailures
	}
	if err := failures.last(o.wanted); err != nil {
		return err
	}
	if o.previous && !first(s.retraced, types.NamespacedName(o.Key), retraceEvery) {
		return errBusy
	}
	ctx, cancel := context.WithTimeout(ctx, o.obj.GetTimeout())
	defer cancel()
	err := s.obtain(ctx, o)
	if err == nil {
		failures.forget(o.wanted)
		return nil
	}
	failures.add(o.wanted, err)
	if o.previous {
		return err // which may be what anybody asked for, and is nothing to be done about
	}
	ctrl.LoggerFrom(ctx).Info("a consumer asked for published bytes that could not be had",
		"artifactrepository", o.Key.String(), "revision", o.obj.Status.Artifact.Revision, "error", fault.Line(err.Error()))
	s.poke(types.NamespacedName(o.Key))
	return err
}

// obtain gets a file from this disk, another replica or the registry.
func (s *Supplier) obtain(ctx context.Context, o order) error {
	_, ok, err := s.Reconciler.Store.Check(ctx, o.Key, *o.obj.Status.Artifact, store.Shallow)
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

// remake makes a file again, when it is its turn. Who waits for the way to a
// registry keeps nobody else from his turn.
func (s *Supplier) remake(ctx context.Context, o order) error {
	select {
	case s.rebuilds <- struct{}{}:
		defer func() { <-s.rebuilds }()
		return s.Reconciler.remake(ctx, o.obj.DeepCopy(), o.from)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// poke asks for an object to be reconciled. A full channel is no loss: the
// object is looked at each interval anyway.
func (s *Supplier) poke(name types.NamespacedName) {
	if !first(s.poked, name, pokeEvery) {
		return
	}
	obj := &v1alpha1.ArtifactRepository{}
	obj.Namespace, obj.Name = name.Namespace, name.Name
	select {
	case s.Poke <- event.GenericEvent{Object: obj}:
	default:
	}
}

// first tells whether something is done for the first time in a while for an
// object, and remembers it.
func first(known *lru.Cache, name types.NamespacedName, while time.Duration) bool {
	now := time.Now()
	if next, ok := known.Get(name); ok && now.Before(next.(time.Time)) {
		return false
	}
	known.Add(name, now.Add(while))
	return true
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

// names tells whether a record's file is the one with these bytes.
func names(obj *v1alpha1.ArtifactRepository, sha256 string) bool {
	return obj != nil && isFile(obj.Status.Artifact, sha256)
}

// isFile tells whether an artifact is the file with these bytes.
func isFile(artifact *meta.Artifact, sha256 string) bool {
	return artifact != nil && path.Base(artifact.Path) == fileName(sha256)
}

// fileName is how a file with these bytes is named.
func fileName(sha256 string) string { return sha256 + ".tar.gz" }

// failures remember what could not be supplied, and until when it is not tried
// again: twice as long after each failure. Its zero value is ready to use.
type failures struct {
	mu    sync.Mutex
	known *lru.Cache
}

// The pause after the first failure, and the longest. Consumers come back after
// some seconds; what heals is to be noticed soon.
const (
	minPause = time.Second
	maxPause = 15 * time.Second
)

type failure struct {
	err   error
	pause time.Duration
	until time.Time
}

// last returns why a file could not be supplied, while it is not tried again.
func (f *failures) last(what wanted) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.get(what); time.Now().Before(known.until) {
		return known.err
	}
	return nil
}

func (f *failures) add(what wanted, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pause := min(max(2*f.get(what).pause, minPause), maxPause)
	f.known.Add(what, failure{err: err, pause: pause, until: time.Now().Add(pause)})
}

func (f *failures) forget(what wanted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.get(what)
	f.known.Remove(what)
}

func (f *failures) get(what wanted) failure {
	if f.known == nil {
		f.known = lru.New(maxRemembered)
	}
	known, ok := f.known.Get(what)
	if !ok {
		return failure{}
	}
	return known.(failure)
}

// remake makes the bytes that a record names again, on whichever replica they
// are asked for. It goes the way of a restore (see rebuild), and records nothing:
// bytes that come out differently are of no use to who asked for these, and are
// for the replica that leads to publish. A *throttle.Busy says when to come again.
func (r *ArtifactRepositoryReconciler) remake(ctx context.Context, obj *v1alpha1.ArtifactRepository, from client.Client) error {
	around, err := observer{from, r.Rules}.aroundArtifactRepository(ctx, obj)
	if err != nil {
		return err
	}
	if plan := r.Rules.Plan(obj, around); plan.Action == Withdraw {
		return fmt.Errorf("it is about to be withdrawn: %w", plan.Why)
	}
	published := publishedBy(obj)
	if published == nil {
		return errors.New("the record has no recipe")
	}
	if around.trust, err = r.Trust.InForce(ctx); err != nil {
		return err
	}
	asked := r.platformDemands(ctx, around, published.Repository)
	own, wait := r.ownDemands(ctx, obj)
	if wait > 0 {
		return &throttle.Busy{Wait: wait}
	}
	asked = asked.With(own)
	out, _, err := r.rebuild(ctx, obj, around, asked)
	if err != nil {
		return err
	}
	if out.Artifact.Path != obj.Status.Artifact.Path { // which is made of the digest
		return fmt.Errorf("%w: it is %s and not %s", errOtherBytes, out.Artifact.Digest, obj.Status.Artifact.Digest)
	}
	return nil
}
