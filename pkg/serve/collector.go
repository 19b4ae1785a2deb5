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
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/store"
)

// GarbageCollector removes files from the disk of this replica: withdrawn files and those
// of deleted objects at once; at its start and from time to time the files that no record
// names and that are older than the retention. The retention is for replaced files.
type GarbageCollector struct {
	// Client reads records from the caches.
	Client client.Client
	// Changes tell of changes of the records.
	Changes cache.Informers
	// Objects tells which objects exist, beyond the shard of this replica.
	Objects client.Reader
	// Store to remove from.
	Store *store.Store
	// Every is the time between two collections.
	Every time.Duration
	// Observe is told how much each collection removed.
	Observe func(store.Collected)
}

// NeedLeaderElection is false: every replica stores.
func (*GarbageCollector) NeedLeaderElection() bool { return false }

// Start removes until ctx ends. The next collection removes files that could not be
// removed, or that were withdrawn while no replica ran.
func (c *GarbageCollector) Start(ctx context.Context) error {
	records, err := c.Changes.GetInformer(ctx, &v1alpha1.ArtifactRepository{})
	if err != nil {
		return err
	}
	registration, err := records.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		UpdateFunc: func(before, after any) { c.updated(ctx, before, after) },
		DeleteFunc: func(deleted any) { c.deleted(ctx, deleted) },
	})
	if err != nil {
		return err
	}
	wait.NonSlidingUntilWithContext(ctx, func(ctx context.Context) {
		if err := c.collect(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "storage was not tidied")
		}
	}, c.Every)
	return records.RemoveEventHandler(registration)
}

func (c *GarbageCollector) collect(ctx context.Context) error {
	var list v1alpha1.ArtifactRepositoryList
	if err := c.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	records := make([]store.Record, 0, len(list.Items))
	for i := range list.Items {
		obj := &list.Items[i]
		// A record without an artifact keeps nothing: its file was withdrawn.
		if artifact := obj.Status.Artifact; artifact != nil {
			records = append(records, store.Record{
				Key: publication.Key(obj), Paths: []string{artifact.Path}, Withdrawn: publication.Withdrawn(obj), Since: obj.CreationTimestamp.Time,
			})
		}
	}
	collected, err := c.Store.Collect(ctx, records)
	c.Observe(collected)
	if collected.Files > 0 {
		ctrl.LoggerFrom(ctx).Info("storage tidied", "files", collected.Files, "bytes", collected.Bytes)
	}
	return err
}

// updated removes the files that an update of a record withdraws, even if the update
// that this replica sees already names another file.
func (c *GarbageCollector) updated(ctx context.Context, before, after any) {
	old, ok := before.(*v1alpha1.ArtifactRepository)
	now, same := after.(*v1alpha1.ArtifactRepository)
	if !ok || !same {
		return
	}
	for _, sha256 := range publication.Withdrawn(now) {
		if publication.IsWithdrawn(old, sha256) {
			continue
		}
		if err := c.Store.Withdraw(ctx, publication.Key(now), sha256); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "a withdrawn artifact was not removed", "artifactrepository", publication.Key(now).String())
		}
	}
}

// deleted removes the files of a deleted object. Those of an object that went to another
// shard, or was created again, stay until a collection: consumers that were just told of
// them still come here.
func (c *GarbageCollector) deleted(ctx context.Context, deleted any) {
	name, err := toolscache.DeletionHandlingObjectToName(deleted)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	obj, err := apiserver.Get(ctx, c.Objects, types.NamespacedName{Namespace: name.Namespace, Name: name.Name}, &v1alpha1.ArtifactRepository{})
	if err == nil && obj == nil {
		err = c.Store.Remove(ctx, store.Key{Namespace: name.Namespace, Name: name.Name})
	}
	if err != nil && ctx.Err() == nil {
		ctrl.LoggerFrom(ctx).Error(err, "the files of a deleted object were not removed", "artifactrepository", name.String())
	}
}

// lookupTimeout bounds the lookup of a deleted object: later changes wait for it.
const lookupTimeout = 5 * time.Second
