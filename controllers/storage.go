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
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/store"
)

// Collector removes from this replica's disk what no record names, at its start
// and from time to time. It runs on every replica, because every replica
// stores.
type Collector struct {
	// Client reads from the caches.
	Client client.Client
	// Store to keep tidy.
	Store *store.Store
	// Every is the time between two collections.
	Every time.Duration
	// Metrics counts what was removed.
	Metrics *Metrics
}

// NeedLeaderElection is false: every replica collects.
func (*Collector) NeedLeaderElection() bool { return false }

// Start collects until ctx ends. A collection that fails is logged, and the
// next one tries again.
func (c *Collector) Start(ctx context.Context) error {
	tick := time.NewTicker(c.Every)
	defer tick.Stop()
	for {
		if err := c.collect(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "storage was not tidied")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Collector) collect(ctx context.Context) error {
	var list v1alpha1.ArtifactRepositoryList
	if err := c.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	records := make([]store.Record, 0, len(list.Items))
	for i := range list.Items {
		record := store.Record{Key: keyOf(&list.Items[i])}
		if artifact := list.Items[i].Status.Artifact; artifact != nil {
			record.Paths = []string{artifact.Path}
		}
		records = append(records, record)
	}
	collected, err := c.Store.Collect(ctx, records)
	c.Metrics.observeCollected(collected)
	if collected.Files > 0 {
		ctrl.LoggerFrom(ctx).Info("storage tidied", "files", collected.Files, "bytes", collected.Bytes)
	}
	return err
}

// Absent answers for well-formed paths whose file is not on this disk: it tells
// what is published and being made again from what is not.
type Absent struct {
	// Client reads from the caches, Live past them.
	Client, Live client.Reader
	// Poke asks for an object to be looked at again.
	Poke chan<- event.GenericEvent

	lookups flight.Group[types.NamespacedName, *meta.Artifact]
	limit   *rate.Limiter
	unknown *lru.Cache
	poked   *lru.Cache
}

const (
	// liveReads per second bound what strangers can make the API server do.
	liveReads = 20
	// unknownFor is how long an object that does not exist is believed not to.
	unknownFor = time.Second
	maxUnknown = 1000
	// pokeEvery is how often strangers can have one object looked at again.
	pokeEvery = time.Second
	maxPoked  = 1000
)

// errBeingMade says of a file that its bytes are being made again.
var errBeingMade = errors.New("the published bytes are being made again")

// errBusy says that it cannot be told now whether a file is published.
var errBusy = errors.New("too many requests for files that are not known")

// NewAbsent returns an Absent.
func NewAbsent(cached, live client.Reader, poke chan<- event.GenericEvent) *Absent {
	return &Absent{Client: cached, Live: live, Poke: poke, limit: rate.NewLimiter(liveReads, liveReads), unknown: lru.New(maxUnknown), poked: lru.New(maxPoked)}
}

// Missing has the signature of store.HandlerOptions.Missing.
func (a *Absent) Missing(ctx context.Context, key store.Key, sha256 string) error {
	name := types.NamespacedName(key)
	if obj, err := get(ctx, a.Client, name, &v1alpha1.ArtifactRepository{}); err == nil && obj != nil && names(obj.Status.Artifact, sha256) {
		return a.beingMade(name)
	}
	artifact, err := a.look(ctx, name)
	switch {
	case err != nil:
		return err
	case names(artifact, sha256):
		return a.beingMade(name)
	default:
		return store.ErrNotPublished
	}
}

// beingMade asks for the bytes to be made again. A full channel is no loss:
// the object is looked at each interval anyway.
func (a *Absent) beingMade(name types.NamespacedName) error {
	if next, ok := a.poked.Get(name); ok && time.Now().Before(next.(time.Time)) {
		return errBeingMade
	}
	a.poked.Add(name, time.Now().Add(pokeEvery))
	obj := &v1alpha1.ArtifactRepository{}
	obj.Namespace, obj.Name = name.Namespace, name.Name
	select {
	case a.Poke <- event.GenericEvent{Object: obj}:
	default:
	}
	return errBeingMade
}

// look reads an object's record past the caches, which may not have seen it
// yet. Lookups of one object are one, and all are limited.
func (a *Absent) look(ctx context.Context, name types.NamespacedName) (*meta.Artifact, error) {
	if until, ok := a.unknown.Get(name); ok && time.Now().Before(until.(time.Time)) {
		return nil, nil
	}
	artifact, _, err := a.lookups.Do(ctx, name, func(ctx context.Context) (*meta.Artifact, error) {
		if !a.limit.Allow() {
			return nil, errBusy
		}
		obj, err := get(ctx, a.Live, name, &v1alpha1.ArtifactRepository{})
		if err != nil {
			return nil, err
		}
		if obj == nil || obj.Status.Artifact == nil {
			a.unknown.Add(name, time.Now().Add(unknownFor))
			return nil, nil
		}
		return obj.Status.Artifact, nil
	})
	return artifact, err
}

// names tells whether an artifact's file is the one with these bytes.
func names(artifact *meta.Artifact, sha256 string) bool {
	return artifact != nil && strings.HasSuffix(artifact.Path, "/"+sha256+".tar.gz")
}
