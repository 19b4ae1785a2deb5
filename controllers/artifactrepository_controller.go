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
	// Snapshots reads the objects for a decision.
	Snapshots Snapshots
	// ImageObjects generates those of a spec with a policy.
	ImageObjects ImageObjects
	// Evaluator makes decisions.
	Evaluator *Evaluator
	// Writer carries decisions out.
	Writer *Writer
	// Backoff sets the delay after a failed attempt.
	Backoff workqueue.TypedRateLimiter[ctrl.Request]
	// Report reports decisions.
	Report *Report

	inflight inflight
}

// soon is the result of a reconcile with outdated objects.
var soon = ctrl.Result{RequeueAfter: conflictDelay}

// Reconcile makes a decision about an ArtifactRepository, carries it out and reports it.
func (r *ArtifactRepositoryReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	start := time.Now()
	// Before the first read: a change during the reads must end the attempt.
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
		return soon, nil // the next reconcile finds the new state of the object
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: r.next(req, out)}, nil
}

// next is the time until the next reconcile of an object.
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
		// Jitter may shorten the delay, but the registry's Retry-After is the minimum.
		delay = max(delay, failure.RetryAfter)
	}
	return delay
}

// retire removes the published artifact of an object that is being deleted but has a
// finalizer.
func (r *ArtifactRepositoryReconciler) retire(ctx context.Context, obj *v1alpha1.ArtifactRepository) (ctrl.Result, error) {
	ctx, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	again, err := r.Writer.Retire(ctx, obj)
	if apiserver.IsGone(err) || apiserver.IsConflict(err) {
		return soon, nil
	}
	return ctrl.Result{RequeueAfter: again}, err
}

// forget removes the state and the files of a deleted object. The files of an object that
// moved to another shard stay until the next garbage collection: consumers may still have
// their old address.
func (r *ArtifactRepositoryReconciler) forget(ctx context.Context, req ctrl.Request) error {
	key := store.Key{Namespace: req.Namespace, Name: req.Name}
	r.Backoff.Forget(req)
	r.Writer.Forget(req.NamespacedName)
	r.Evaluator.Pipeline.Forget(key)
	r.Report.forget(ctx, req.NamespacedName)
	if len(r.Writer.LabelKeys) > 0 { // without keys there is no other shard
		if obj, err := apiserver.Get(ctx, r.Writer.Live, req.NamespacedName, &v1alpha1.ArtifactRepository{}); err != nil || obj != nil {
			return err
		}
	}
	return r.Writer.Store.Remove(ctx, key)
}

// Remake rebuilds the recorded file of a source, see Evaluator.Remake. from is a client of
// the replica that reads the objects.
func (r *ArtifactRepositoryReconciler) Remake(ctx context.Context, obj *v1alpha1.ArtifactRepository, from client.Client) error {
	snapshots := r.Snapshots
	snapshots.Client = from
	s, err := snapshots.Around(ctx, obj)
	if err != nil {
		return err
	}
	return r.Evaluator.Remake(ctx, s)
}
