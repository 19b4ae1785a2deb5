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
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
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
		obj := &list.Items[i]
		// A record without an artifact keeps nothing: what it named was withdrawn.
		if artifact := obj.Status.Artifact; artifact != nil {
			records = append(records, store.Record{Key: keyOf(obj), Paths: []string{artifact.Path}, Withdrawn: withdrawnFiles(obj), Since: obj.CreationTimestamp.Time})
		}
	}
	collected, err := c.Store.Collect(ctx, records)
	c.Metrics.observeCollected(collected)
	if collected.Files > 0 {
		ctrl.LoggerFrom(ctx).Info("storage tidied", "files", collected.Files, "bytes", collected.Bytes)
	}
	return err
}

// Eraser removes from this replica's disk what was withdrawn, and what deleted
// objects published, at once: retention is for what was replaced. It runs on every
// replica.
type Eraser struct {
	// Records tell of changes.
	Records cache.Informers
	// Objects tells what there is, beyond what this replica's records may be limited to.
	Objects client.Reader
	// Store to remove from.
	Store *store.Store
}

// NeedLeaderElection is false: every replica stores.
func (*Eraser) NeedLeaderElection() bool { return false }

// Start erases until ctx ends. What it misses, because it does not run or could
// not remove it, is left to the Collector.
func (e *Eraser) Start(ctx context.Context) error {
	records, err := e.Records.GetInformer(ctx, &v1alpha1.ArtifactRepository{})
	if err != nil {
		return err
	}
	registration, err := records.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) { e.follow(ctx, before, after) },
		DeleteFunc: func(deleted any) { e.forget(ctx, deleted) },
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return records.RemoveEventHandler(registration)
}

// follow removes what was not withdrawn before. The record says so too when it
// names something else by the time that this replica sees it.
func (e *Eraser) follow(ctx context.Context, before, after any) {
	old, ok := before.(*v1alpha1.ArtifactRepository)
	now, same := after.(*v1alpha1.ArtifactRepository)
	if !ok || !same {
		return
	}
	for _, sha256 := range withdrawnFiles(now) {
		if isWithdrawn(old, sha256) {
			continue
		}
		if err := e.Store.Withdraw(ctx, keyOf(now), sha256); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "a withdrawn artifact was not removed", "artifactrepository", keyOf(now).String())
		}
	}
}

// forget removes the files of an object that is deleted. Those of one that went to
// another shard, or was made again since, are left to the Collector: consumers who
// were told of them just before still come here.
func (e *Eraser) forget(ctx context.Context, deleted any) {
	name, err := toolscache.DeletionHandlingObjectToName(deleted)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	obj, err := get(ctx, e.Objects, types.NamespacedName{Namespace: name.Namespace, Name: name.Name}, &v1alpha1.ArtifactRepository{})
	if err == nil && obj == nil {
		err = e.Store.Remove(ctx, store.Key{Namespace: name.Namespace, Name: name.Name})
	}
	if err != nil && ctx.Err() == nil {
		ctrl.LoggerFrom(ctx).Error(err, "the files of what was deleted were not removed", "artifactrepository", name.String())
	}
}

// lookTimeout bounds a look for a deleted object, which those that follow wait for.
const lookTimeout = 5 * time.Second

// withdrawnFiles are the digits of the files that a record says were withdrawn.
func withdrawnFiles(obj *v1alpha1.ArtifactRepository) []string {
	var files []string
	for _, digest := range obj.Status.Withdrawn {
		files = append(files, strings.TrimPrefix(digest, "sha256:"))
	}
	return files
}

// isWithdrawn tells whether a record says of a file that it was withdrawn.
func isWithdrawn(obj *v1alpha1.ArtifactRepository, sha256 string) bool {
	return slices.Contains(withdrawnFiles(obj), sha256)
}

// Mirror gets what records name from the other replicas before a consumer asks
// for it, so that what one of them stores does not end with its disk. It asks no
// registry: whoever leads does. It runs on every replica.
type Mirror struct {
	// Client reads from the caches.
	Client client.Client
	// Store to fill.
	Store *store.Replica
	// Every is the time between two rounds.
	Every time.Duration
}

// NeedLeaderElection is false: every replica mirrors.
func (*Mirror) NeedLeaderElection() bool { return false }

// Start mirrors until ctx ends.
func (m *Mirror) Start(ctx context.Context) error {
	tick := time.NewTicker(m.Every)
	defer tick.Stop()
	for {
		if err := m.round(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "artifacts of other replicas were not mirrored")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// round looks at each record once. A disk that does not answer ends it; what no
// other replica has is not its business.
func (m *Mirror) round(ctx context.Context) error {
	var list v1alpha1.ArtifactRepositoryList
	if err := m.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		artifact := list.Items[i].Status.Artifact
		if artifact == nil {
			continue
		}
		if _, _, err := m.Store.Check(ctx, keyOf(&list.Items[i]), *artifact, store.Shallow); err != nil {
			return err
		}
	}
	return nil
}
