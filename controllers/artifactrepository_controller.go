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
	"time"

	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/runtime/jitter"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/store"
)

// ArtifactRepositoryReconciler publishes images as ExternalArtifacts.
type ArtifactRepositoryReconciler struct {
	// Snapshots reads the objects that decide.
	Snapshots Snapshots
	// ImageObjects keeps those of a spec with a policy.
	ImageObjects ImageObjects
	// Evaluator decides.
	Evaluator *Evaluator
	// Writer carries decisions out.
	Writer *Writer
	// Backoff decides when a failed attempt is tried again.
	Backoff workqueue.TypedRateLimiter[ctrl.Request]
	// Report tells of decisions.
	Report *Report

	inflight inflight
}

// soon is the result of a reconcile whose objects have changed meanwhile.
var soon = ctrl.Result{RequeueAfter: conflictDelay}

// Reconcile decides about an ArtifactRepository, carries the decision out and tells it.
func (r *ArtifactRepositoryReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	start := time.Now()
	// Before anything is read: a change that arrives meanwhile has to end the attempt.
	work, end := r.inflight.begin(ctx, req.NamespacedName)
	defer end()
	s, err := r.Snapshots.Snapshot(ctx, req.NamespacedName)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case s.Object == nil:
		return ctrl.Result{}, r.forget(ctx, req)
	case s.Object.DeletionTimestamp != nil:
		return r.retire(ctx, s.Object)
	case r.Writer.IsOutdated(s.Object):
		return soon, nil
	}
	defer r.Report.Events.duration(ctx, s.Object, start)
	if !s.Usable() {
		return ctrl.Result{}, nil
	}
	s, kept := r.ImageObjects.Ensure(work.attempting, s, r.Evaluator.Rules.Permission(s)) //nolint:contextcheck // begin made it from ctx
	d := r.Evaluator.evaluate(work, s, kept)
	r.Report.judged(d)
	switch {
	case work.overtaken(d.withdraws()):
		return soon, nil
	case d.silent:
		return ctrl.Result{RequeueAfter: d.wait}, nil
	}
	writing, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	out, err := r.Writer.Write(writing, s, d)
	r.Report.tell(ctx, s, out)
	if apiserver.IsGone(err) || apiserver.IsConflict(err) {
		return soon, nil // the next look finds the object as it is then, or that it is gone
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: r.next(req, out)}, nil
}

// next is the time until the next look at an object.
func (r *ArtifactRepositoryReconciler) next(req ctrl.Request, out delivery) time.Duration {
	if out.wait > 0 {
		return out.wait
	}
	failure := out.failure()
	lost := out.after.Status.Artifact != nil && !out.stored
	if !lost && (failure == nil || failure.Class != fault.Retry) {
		r.Backoff.Forget(req)
		return jitter.JitteredIntervalDuration(out.interval)
	}
	delay := jitter.JitteredIntervalDuration(min(r.Backoff.When(req), out.interval))
	if failure != nil {
		// Jitter may shorten; what the registry asked for is the least.
		delay = max(delay, failure.RetryAfter)
	}
	return delay
}

// retire takes away what an object published that is deleted, but held by a finalizer.
func (r *ArtifactRepositoryReconciler) retire(ctx context.Context, obj *v1alpha1.ArtifactRepository) (ctrl.Result, error) {
	ctx, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	again, err := r.Writer.Retire(ctx, obj)
	if apiserver.IsGone(err) || apiserver.IsConflict(err) {
		return soon, nil
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// forget removes what is known and stored of an object that is gone. The files of one that
// went to another shard are left to the next collection: consumers that were told of them
// just before still come here.
func (r *ArtifactRepositoryReconciler) forget(ctx context.Context, req ctrl.Request) error {
	key := store.Key{Namespace: req.Namespace, Name: req.Name}
	r.Backoff.Forget(req)
	r.Writer.Forget(req.NamespacedName)
	r.Evaluator.Pipeline.Forget(key)
	r.Report.forget(ctx, req.NamespacedName)
	if len(r.Writer.LabelKeys) > 0 { // else there is no other shard
		if obj, err := apiserver.Get(ctx, r.Writer.Live, req.NamespacedName, &v1alpha1.ArtifactRepository{}); err != nil || obj != nil {
			return err
		}
	}
	return r.Writer.Store.Remove(ctx, key)
}

// Remake makes the recorded file of a source again, see Evaluator.Remake. The objects are read
// through a client of the replica.
func (r *ArtifactRepositoryReconciler) Remake(ctx context.Context, obj *v1alpha1.ArtifactRepository, from client.Client) error {
	snapshots := r.Snapshots
	snapshots.Client = from
	s, err := snapshots.Around(ctx, obj)
	if err != nil {
		return err
	}
	return r.Evaluator.Remake(ctx, s)
}
