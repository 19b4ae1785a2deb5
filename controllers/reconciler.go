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
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// conflictDelay is how long a reconcile that read a stale object waits for the
// caches to catch up.
const conflictDelay = 200 * time.Millisecond

// ArtifactRepositoryReconciler publishes images as ExternalArtifacts.
type ArtifactRepositoryReconciler struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Live reads past the caches.
	Live client.Reader
	// Rules of the platform.
	Rules source.Rules
	// Pipeline opens repositories, and carries images to the store.
	Pipeline *pipeline.Pipeline
	// Store keeps the bytes, and asks the other replicas for those it lacks.
	Store *store.Replica
	// Trust knows what the platform demands of images.
	Trust *trustpolicy.Resolver
	// Content holds the limits and settings that are the same for all objects.
	Content format.Options
	// LabelKeys are copied to the ExternalArtifact and to image objects.
	LabelKeys []string
	// Backoff decides when a failed attempt is tried again.
	Backoff workqueue.TypedRateLimiter[ctrl.Request]
	// Events tells people.
	Events *Events
	// Metrics of this project.
	Metrics *Metrics

	attention attention
}
