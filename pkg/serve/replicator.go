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

	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/store"
)

// Replicator copies the files that records name from the other replicas before a consumer
// asks for them, so that a file does not end with one disk. It asks no registry: the
// replica that leads does. It runs on every replica.
type Replicator struct {
	// Client reads records from the caches.
	Client client.Client
	// Store to fill.
	Store *store.Replica
	// Every is the time between two rounds.
	Every time.Duration
}

// NeedLeaderElection is false: every replica stores.
func (*Replicator) NeedLeaderElection() bool { return false }

// Start copies until ctx ends.
func (r *Replicator) Start(ctx context.Context) error {
	wait.NonSlidingUntilWithContext(ctx, func(ctx context.Context) {
		if err := r.round(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "artifacts of other replicas were not copied")
		}
	}, r.Every)
	return nil
}

// round looks at each record once. A disk that does not answer ends it; a file that no
// other replica has is left to the one that leads.
func (r *Replicator) round(ctx context.Context) error {
	var list v1alpha1.ArtifactRepositoryList
	if err := r.Client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range list.Items {
		artifact := list.Items[i].Status.Artifact
		if artifact == nil {
			continue
		}
		if _, _, err := r.Store.Check(ctx, publication.Key(&list.Items[i]), *artifact); err != nil {
			return err
		}
	}
	return nil
}
