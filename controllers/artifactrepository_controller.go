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
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/jitter"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// orphanTime is the time that the garbage collector gets to orphan the dependents of an object
// that is deleted, and to let it go. Its finalizer can be written by anybody.
const orphanTime = 10 * time.Second

// writeTimeout bounds the writes that end a reconcile: an API server that takes
// a request and never answers must not keep the workers.
const writeTimeout = 30 * time.Second

// Reconcile carries out what an ArtifactRepository asks for and records what
// became of it.
func (r *ArtifactRepositoryReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	start := time.Now()
	// Before anything is read: a change that arrives meanwhile has to end the attempt.
	judging, attempting, end := r.attention.begin(ctx, req.NamespacedName)
	defer end()
	s, err := Snapshots{r.Client, r.Rules, r.Trust}.Snapshot(ctx, req.NamespacedName)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case s.Object == nil:
		return ctrl.Result{}, r.forget(ctx, req)
	case s.Object.DeletionTimestamp != nil:
		return r.retire(ctx, s.Object)
	case r.attention.outdated(req.NamespacedName, s.Object.ResourceVersion):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	defer r.Events.duration(ctx, s.Object, start)
	if !s.Usable() {
		return ctrl.Result{}, nil
	}
	a := r.attempt(judging, attempting, s)
	if judging.Err() != nil || attempting.Err() != nil && !a.rejected() {
		// The object was deleted, or the process ends: there is nobody to tell. Or
		// the platform has changed what it demands. What there is now gets its turn.
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	if a.postponed > 0 && !a.judgementFailed() {
		return ctrl.Result{RequeueAfter: a.postponed}, nil
	}
	writing, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	obj, err := r.conclude(writing, s, &a)
	switch {
	case apiserver.IsGone(err), apiserver.IsConflict(err):
		// The next look finds the object as it is then, or that it is gone.
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: r.next(req, obj, a)}, nil
}

// attempt judges what is published by the rules of the platform, and then carries out
// the plan for an object. A panic ends the part in which it happens, and no other, and
// so does the end of one of the contexts.
func (r *ArtifactRepositoryReconciler) attempt(judging, whole context.Context, s source.Snapshot) attempt {
	judgement, err := contained(judging, func(ctx context.Context) (*judgement, error) {
		return r.judgeByPlatform(ctx, s), nil
	})
	if err != nil {
		judgement = judged(err)
	}
	a, err := contained(whole, func(ctx context.Context) (attempt, error) {
		return r.carryOut(ctx, s, judgement), nil
	})
	if err == nil {
		return a
	}
	plan := Plan{Action: Refuse, Why: err, Interval: s.Interval(), Timeout: s.Object.GetTimeout()}
	if r.Rules.Permission(s).Choice == source.Off {
		plan.Action = Withdraw
		return attempt{plan: plan, err: err}
	}
	a = attempt{plan: plan, err: err, judgement: judgement}
	if a.rejected() {
		a.err = judgement.err
		return a
	}
	r.check(whole, s, &a)
	return a
}

// carryOut carries out the plan for an object. Whatever fails, the bytes of
// what is published are kept whole.
func (r *ArtifactRepositoryReconciler) carryOut(whole context.Context, s source.Snapshot, byPlatform *judgement) attempt {
	ctx, cancel := context.WithTimeout(whole, s.Object.GetTimeout())
	defer cancel()
	s, objectsErr := r.keepImageObjects(ctx, s)
	a := attempt{plan: planOf(r.Rules, s), judgement: byPlatform}
	a.err = a.plan.Why
	if objectsErr != nil {
		a.err = objectsErr
		// What has to be withdrawn does not wait for image objects.
		if a.plan.Action != Withdraw {
			a.plan.Action = Refuse
			if apiserver.IsConflict(objectsErr) {
				a.postponed = conflictDelay
			}
		}
	}
	a = r.judge(ctx, s, a)
	switch {
	case a.rejected():
		// It goes at once. The next reconcile publishes its replacement: a slow registry must
		// not keep a rejected artifact online.
		a.err = a.judgement.err
		return a
	case a.plan.Action == Publish && a.judgement != nil && a.judgement.wait > 0:
		a.postponed = a.judgement.wait
		return a
	}
	switch a.plan.Action {
	case Withdraw:
		return a
	case Publish:
		a = r.publishInTurn(ctx, s, a)
		if a.err == nil && a.judgement != nil && !a.verifiedAnew() {
			// Nothing new replaced what is no longer accepted, or not known to be:
			// another name for it is nothing new.
			a.err = a.judgement.err
		}
		if a.err == nil {
			return a
		}
	case Freeze, Refuse:
	}
	if lost := r.check(whole, s, &a); !lost {
		return a
	}
	return r.restore(whole, s, a)
}

// keepImageObjects makes the image objects of a spec with a policy, where the
// namespace lets anything be published, and removes them elsewhere. It returns the snapshot
// with the image objects that it made.
func (r *ArtifactRepositoryReconciler) keepImageObjects(ctx context.Context, s source.Snapshot) (source.Snapshot, error) {
	objects := imageObjects{client: r.Client, live: r.Live, labelKeys: r.LabelKeys}
	permission := r.Rules.Permission(s)
	ctx, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	var err error
	switch {
	case permission.Choice == source.Off || s.Object.Spec.Policy == nil:
		err = objects.remove(ctx, s)
	case permission.Choice == source.On && s.ImageConflict() == nil:
		s, err = objects.keep(ctx, s)
	}
	if err == nil || fault.Of(err, "").Reason != "" {
		return s, err
	}
	return s, fault.Retryf(v1alpha1.ReasonDependencyNotReady, "the ImageRepository and ImagePolicy %s could not be kept as the spec asks: %w", s.Object.Name, err)
}

// publishInTurn publishes when it is the turn of the source. Where the registry is not to
// be asked, it needs none.
func (r *ArtifactRepositoryReconciler) publishInTurn(ctx context.Context, s source.Snapshot, a attempt) attempt {
	obj, origin := s.Object, a.plan.origin(s)
	a.stored = r.stands(ctx, s, a)
	origin.Idle = a.stored
	err := r.Pipeline.Ask(ctx, origin, func(ctx context.Context, repository *pipeline.Repository) error {
		a = r.publish(ctx, s, a, repository)
		return a.err
	})
	busy, isBusy := errors.AsType[*throttle.Busy](err)
	quiet, isQuiet := errors.AsType[*throttle.Quiet](err)
	switch {
	case isBusy:
		a.postponed = busy.Wait
	case isQuiet && obj.Status.ObservedGeneration == obj.Generation && conditions.GetReason(obj, meta.ReadyCondition) == v1alpha1.ReasonFetchFailed:
		// The conditions tell already why this spec fails, and say more than could be said now.
		a.postponed = quiet.Wait
	default:
		a.err = err
	}
	return a
}

// stands tells whether the digest that a plan names is what is published, read with
// the same settings and stored undamaged.
func (r *ArtifactRepositoryReconciler) stands(ctx context.Context, s source.Snapshot, a attempt) bool {
	obj := s.Object
	published := publication.Current(obj)
	if published == nil || published.Digest != a.plan.Digest || published.Repository != a.plan.Repository.Name() ||
		published.Content != format.ContentHash(r.content(obj)) {
		return false
	}
	ok, err := r.look(ctx, obj, r.depth(s, a.plan.Interval))
	return ok && err == nil
}

// look tells whether the published bytes are stored. To read them to their
// end takes a place in the share of the namespace, as a pull does: where all are taken,
// they are read the next time.
func (r *ArtifactRepositoryReconciler) look(ctx context.Context, obj *v1alpha1.ArtifactRepository, depth store.Depth) (stored bool, err error) {
	if depth == store.Deep {
		end, busy := r.Pipeline.Throttle.Occupy(obj.Namespace)
		if busy != nil {
			depth = store.Shallow
		} else {
			defer end()
		}
	}
	_, stored, err = r.Store.Check(ctx, publication.Key(obj), *obj.Status.Artifact, depth)
	return stored, err
}

// publish has the image of a plan carried to the store.
func (r *ArtifactRepositoryReconciler) publish(ctx context.Context, s source.Snapshot, a attempt, repository *pipeline.Repository) attempt {
	obj, request := s.Object, r.request(s, a, repository)
	out, err := r.run(ctx, request)
	if failure := fault.Of(err, ""); failure != nil && failure.Reason == v1alpha1.ReasonImageNotFound {
		if picked, ok := a.plan.Picked(); ok {
			a.plan.Target = picked
			return r.publish(ctx, s, a, repository)
		}
	}
	// Requests have deadlines of their own; only the attempt's is spec.timeout.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not finished within spec.timeout (%s): %w", obj.GetTimeout(), err)
	}
	a.image, a.err, a.stored, a.depth = out.Image, err, err == nil, request.Depth
	r.Metrics.observeVerdict(a.candidate, out, err)
	r.attention.judged(client.ObjectKeyFromObject(obj), out, err)
	if err != nil || out.Unchanged || restates(obj, out) {
		return a
	}
	// A policy may have been tightened while the image was on its way.
	outdated, err := r.outdated(ctx, obj, a)
	switch {
	case err != nil:
		a.err = err
	case outdated:
		a.postponed = conflictDelay
	default:
		a.made = &product{Outcome: out, settings: request.Content, accepted: a.candidate}
	}
	return a
}

// run has the bridge carry an image to the store.
func (r *ArtifactRepositoryReconciler) run(ctx context.Context, request bridge.Request) (bridge.Outcome, error) {
	out, err := r.Pipeline.Bridge.Publish(ctx, request)
	return out, panicFault(ctx, err)
}

// restates tells whether an outcome is what the record says already: the same
// bytes, made again because they were lost. That is no news to anybody.
func restates(obj *v1alpha1.ArtifactRepository, out bridge.Outcome) bool {
	recorded, made := obj.Status.Artifact, out.Artifact
	if publication.Current(obj) == nil || obj.Status.ObservedContent != out.Content {
		return false
	}
	made.LastUpdateTime = recorded.LastUpdateTime
	return equality.Semantic.DeepEqual(*recorded, made)
}

// check looks whether the bytes of what is published are stored, and tells whether
// they are lost. It has time of its own: a registry that used up that of the
// attempt must not make it unknown what is on the disk, or on other replicas.
func (r *ArtifactRepositoryReconciler) check(ctx context.Context, s source.Snapshot, a *attempt) (lost bool) {
	obj := s.Object
	if publication.Current(obj) == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, obj.GetTimeout())
	defer cancel()
	// An attempt that failed early may not have come to the check it was to make.
	depth := max(a.depth, r.depth(s, a.plan.Interval))
	ok, err := r.look(ctx, obj, depth)
	a.stored = ok
	return !ok && err == nil
}

// restore makes the bytes of what is published again from the recipe in the
// record, which are stored no longer. As for the check, the time of the attempt
// may be used up.
func (r *ArtifactRepositoryReconciler) restore(ctx context.Context, s source.Snapshot, a attempt) attempt {
	published := publication.Current(s.Object)
	ctx, cancel := context.WithTimeout(ctx, s.Object.GetTimeout())
	defer cancel()
	out, settings, err := r.rebuild(ctx, s, a.current)
	switch {
	case err == nil:
		a.stored = true
		if out.Artifact.Digest != published.Artifact.Digest || out.Artifact.URL != published.Artifact.URL {
			a.made = &product{Outcome: out, settings: settings, accepted: a.current}
		}
	case !throttle.IsHeld(err):
		ctrl.LoggerFrom(ctx).Info("the published bytes are missing and could not be made again", "revision", published.Artifact.Revision, "error", fault.Line(err.Error()))
	}
	return a
}

// rebuild makes what the record says again, when it is its turn: a registry that hangs
// must not occupy the workers with what was lost either.
func (r *ArtifactRepositoryReconciler) rebuild(ctx context.Context, s source.Snapshot, asked trustpolicy.Demands) (out bridge.Outcome, settings format.Options, err error) {
	plan, err := recordedPlan(s)
	if err != nil {
		return out, settings, err
	}
	if settings, err = r.recordedContent(s.Object); err != nil {
		return out, settings, err
	}
	err = r.Pipeline.Ask(ctx, plan.origin(s), func(ctx context.Context, repository *pipeline.Repository) (err error) {
		out, err = r.run(ctx, bridge.Request{
			Key: publication.Key(s.Object), Repository: repository, Tag: plan.Tag, Digest: plan.Digest,
			Content: settings, Verifier: asked.Verifier(repository), Constraints: asked.Constraints,
		})
		return err
	})
	if err != nil && plan.Note != "" && !throttle.IsHeld(err) {
		err = fmt.Errorf("%s: %w", plan.Note, err)
	}
	return out, settings, err
}

// conclude records what an attempt made, publishes the record and says what
// happened: bytes, record, ExternalArtifact, in this order. A withdrawal waits for
// none of these writes.
func (r *ArtifactRepositoryReconciler) conclude(ctx context.Context, s source.Snapshot, a *attempt) (*v1alpha1.ArtifactRepository, error) {
	before, obj := s.Object, s.Object.DeepCopy()
	obj.Status.LastHandledReconcileAt, obj.Status.ObservedRequests = s.Acknowledged()
	record(obj, *a)
	a.hidden = s.External != nil && !s.Owns(s.External)
	mark(obj, *a)
	external, unread := r.external(ctx, before, obj, s.External)
	base := before
	var delivered, err error
	withdrawn := before.Status.Artifact != nil && obj.Status.Artifact == nil
	switch {
	case withdrawn:
		base, delivered, err = r.withdraw(ctx, before, obj, external, *a)
		delivered = errors.Join(delivered, unread)
		if err != nil {
			return nil, errors.Join(err, delivered)
		}
	case withheld(obj, external, *a):
		a.hidden = true
		mark(obj, *a)
	default:
		if base, err = r.recordAhead(ctx, before, obj); err != nil {
			return nil, err
		}
		if delivered = unread; unread == nil {
			delivered = r.deliver(ctx, obj, external, *a, base != before)
		}
	}
	obj.ResourceVersion = base.ResourceVersion
	now := s
	now.Object = obj
	if delivered != nil && !apiserver.IsConflict(delivered) && !apiserver.IsGone(delivered) {
		why := a.err
		if !withdrawn {
			why = nil
		}
		a.err, a.hidden = undelivered(why, delivered), a.hidden || external == nil
		mark(obj, *a)
		delivered = nil
	}
	if withdrawn {
		// The record says no longer what there is to tell, whatever becomes of the rest.
		r.Events.concluded(ctx, before, now, *a)
	}
	if delivered != nil {
		return nil, delivered
	}
	if err := r.patchStatus(ctx, base, obj); err != nil {
		return nil, err
	}
	if a.err == nil && published(before, *a) {
		r.Metrics.publications.Inc()
	}
	r.observeArrival(now, a.err)
	if !withdrawn {
		r.Events.concluded(ctx, before, now, *a)
	}
	return obj, nil
}

// observeArrival measures how long a policy's pick took to be published. An
// attempt that failed and is followed by another one is part of that. The time
// in which somebody else has to act is not: what waits, is stuck or is frozen is
// measured no longer.
func (r *ArtifactRepositoryReconciler) observeArrival(s source.Snapshot, err error) {
	if s.Policy == nil || s.Policy.Status.LatestRef == nil {
		return
	}
	if failure := fault.Of(err, v1alpha1.ReasonFetchFailed); failure != nil && failure.Class == fault.Retry {
		return
	}
	awaited := r.attention.arrived(client.ObjectKeyFromObject(s.Object), hashOf(*s.Policy.Status.LatestRef))
	artifact := s.Object.Status.Artifact
	if err != nil || awaited.IsZero() || artifact == nil {
		return
	}
	// What was published before the pick was seen is not news. Records count in seconds.
	if !artifact.LastUpdateTime.Time.Before(awaited.Truncate(time.Second)) {
		r.Metrics.PublishDuration.Observe(time.Since(awaited).Seconds())
	}
}

// undelivered says why the ExternalArtifact could not be made to say what the
// record says: somebody else's has the name, or the API server refused the write. why
// is the reason of a withdrawal, which says more.
func undelivered(why, err error) error {
	if failure := fault.Of(why, ""); failure != nil && failure.Reason != "" {
		return fault.Retryf(failure.Reason, "%w; the ExternalArtifact could not be written: %w", why, err)
	}
	var known *fault.Error
	switch {
	case errors.As(err, &known):
		return err
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return fault.Retryf(v1alpha1.ReasonAccessDenied, "the API server refused the ExternalArtifact: %w", err)
	default:
		return fault.Retryf(v1alpha1.ReasonDependencyNotReady, "the ExternalArtifact could not be written: %w", err)
	}
}

// withdraw takes what base names away from consumers and out of the record. obj is
// what base becomes. Neither write waits for the other: delivered is the error of the
// first, and err that of the second. cleared is the record after it.
func (r *ArtifactRepositoryReconciler) withdraw(ctx context.Context, base, obj *v1alpha1.ArtifactRepository, external *sourcev1.ExternalArtifact, a attempt) (cleared *v1alpha1.ArtifactRepository, delivered, err error) {
	// Another replica may lead by now, and have published what the rules accept. What
	// an object has left that is gone is nobody else's.
	if err := r.publisher().confirm(ctx, base); err != nil && !apiserver.IsGone(err) {
		return nil, nil, err
	}
	var delivering sync.WaitGroup
	delivering.Go(func() { delivered = r.deliver(ctx, obj, external, a, true) })
	cleared, err = r.clear(ctx, base)
	delivering.Wait()
	return cleared, delivered, err
}

// clear takes what is published out of the record by a patch that only removes, and
// returns the record after it. The patch is refused if the record names another
// artifact by now.
func (r *ArtifactRepositoryReconciler) clear(ctx context.Context, base *v1alpha1.ArtifactRepository) (*v1alpha1.ArtifactRepository, error) {
	named := base.Status.Artifact
	if named == nil {
		return base, nil
	}
	cleared := base.DeepCopy()
	operations := []operation{
		{Op: "test", Path: "/status/artifact/revision", Value: named.Revision},
		{Op: "test", Path: "/status/artifact/digest", Value: named.Digest},
	}
	for _, field := range clearPublished(&cleared.Status) {
		operations = append(operations, operation{Op: "remove", Path: "/status/" + field})
	}
	// This adds less than what is removed. Conditions that say that it is published go, too.
	operations = append(operations, operation{Op: "add", Path: "/status/withdrawn", Value: cleared.Status.Withdrawn}, noConditions())
	if err := patchRemoval(ctx, r.Client, cleared, operations...); err != nil {
		return nil, err
	}
	r.attention.overwrote(client.ObjectKeyFromObject(base), base.ResourceVersion)
	return cleared, nil
}

// recordAhead writes a new artifact into the record before anybody can see it,
// so that whoever is asked for its bytes finds what they are. It returns what
// the next patch starts from.
func (r *ArtifactRepositoryReconciler) recordAhead(ctx context.Context, before, obj *v1alpha1.ArtifactRepository) (*v1alpha1.ArtifactRepository, error) {
	if obj.Status.Artifact == nil || equality.Semantic.DeepEqual(before.Status.Artifact, obj.Status.Artifact) {
		return before, nil
	}
	ahead := obj.DeepCopy()
	ahead.Status.Conditions = before.DeepCopy().Status.Conditions
	ahead.Status.ObservedGeneration = before.Status.ObservedGeneration
	markProgress(ahead, ahead.Status.Artifact.Revision)
	if err := r.patchStatus(ctx, before, ahead); err != nil {
		return nil, err
	}
	obj.ResourceVersion = ahead.ResourceVersion
	return ahead, nil
}

// external returns the ExternalArtifact as it is. seen is the one in the cache,
// which is behind when it has none, although an attempt before may have made one, and when
// it says already what the record is about to say and did not: whoever believes
// that, delivers nothing, and no event tells of it. Then it is read live. With an error
// comes the one in the cache.
func (r *ArtifactRepositoryReconciler) external(ctx context.Context, before, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact) (*sourcev1.ExternalArtifact, error) {
	publisher, behind := r.publisher(), false
	changed := !equality.Semantic.DeepEqual(before.Status, obj.Status)
	switch {
	case seen == nil:
		behind = before.Status.Artifact != nil || changed && before.Status.ObservedGeneration > 0
	case changed:
		behind = source.ArtifactRepository(obj.Name).Owns(seen) && publisher.matches(seen, obj) && !publisher.matches(seen, before)
	}
	if !behind {
		return seen, nil
	}
	external, err := apiserver.Get(ctx, r.Live, client.ObjectKeyFromObject(obj), &sourcev1.ExternalArtifact{})
	if err != nil {
		return seen, err
	}
	return external, nil
}

// deliver makes the ExternalArtifact follow the record. recorded tells that the
// record was written just now; else it is as old as the cache.
func (r *ArtifactRepositoryReconciler) deliver(ctx context.Context, obj *v1alpha1.ArtifactRepository, seen *sourcev1.ExternalArtifact, a attempt, recorded bool) error {
	publisher := r.publisher()
	switch {
	case a.plan.Action == Withdraw:
		if err := publisher.withdraw(ctx, obj, seen); err != nil {
			return err
		}
		return r.Store.Remove(ctx, publication.Key(obj))
	case seen != nil && !source.ArtifactRepository(obj.Name).Owns(seen), seen == nil && obj.Status.Artifact == nil && !a.announced():
		return nil
	case seen != nil && publisher.matches(seen, obj):
		return nil
	case recorded:
		return publisher.publish(ctx, obj, seen)
	default:
		if err := publisher.confirm(ctx, obj); err != nil {
			return err
		}
		return publisher.publish(ctx, obj, seen)
	}
}

func (r *ArtifactRepositoryReconciler) publisher() publisher {
	return publisher{client: r.Client, live: r.Live, labelKeys: r.LabelKeys}
}

// patchStatus writes the status if it differs from that of base.
func (r *ArtifactRepositoryReconciler) patchStatus(ctx context.Context, base, obj *v1alpha1.ArtifactRepository) error {
	if equality.Semantic.DeepEqual(base.Status, obj.Status) {
		return nil
	}
	status := obj.Status.DeepCopy()
	if err := r.Client.Status().Patch(ctx, obj, guarded(base)); err != nil {
		return err
	}
	if obj.ResourceVersion != base.ResourceVersion {
		r.attention.overwrote(client.ObjectKeyFromObject(obj), base.ResourceVersion)
	}
	obj.Status = *status
	return nil
}

// next is the time until the next look at an object.
func (r *ArtifactRepositoryReconciler) next(req ctrl.Request, obj *v1alpha1.ArtifactRepository, a attempt) time.Duration {
	failure := fault.Of(a.err, v1alpha1.ReasonFetchFailed)
	lost := obj.Status.Artifact != nil && !a.stored
	if a.postponed > 0 {
		return a.postponed
	}
	if a.rejected() && a.plan.Action == Publish {
		return conflictDelay // its replacement is next
	}
	if a.judgement != nil && a.judgement.wait > 0 {
		return min(a.judgement.wait, a.plan.Interval)
	}
	if !lost && (failure == nil || failure.Class != fault.Retry) {
		r.Backoff.Forget(req)
		return jitter.JitteredIntervalDuration(a.plan.Interval)
	}
	delay := jitter.JitteredIntervalDuration(min(r.Backoff.When(req), a.plan.Interval))
	if failure != nil {
		// Jitter may shorten; what the registry asked for is the least.
		delay = max(delay, failure.RetryAfter)
	}
	return delay
}

// retire withdraws what an object published that is deleted but held by a
// finalizer: nobody judges it any more, so it must not stay. Whoever deleted the
// object and asked for its dependents to be orphaned keeps the ExternalArtifact, if
// nothing else holds the object.
func (r *ArtifactRepositoryReconciler) retire(ctx context.Context, obj *v1alpha1.ArtifactRepository) (ctrl.Result, error) {
	if left := time.Until(obj.DeletionTimestamp.Add(orphanTime)); left > 0 && controllerutil.ContainsFinalizer(obj, metav1.FinalizerOrphanDependents) {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	ctx, stop := context.WithTimeout(ctx, writeTimeout)
	defer stop()
	external, err := apiserver.Get(ctx, r.Client, client.ObjectKeyFromObject(obj), &sourcev1.ExternalArtifact{})
	if err != nil || external == nil && obj.Status.Artifact == nil {
		return ctrl.Result{}, err
	}
	before := obj.DeepCopy()
	clearPublished(&obj.Status)
	external, unread := r.external(ctx, before, obj, external)
	_, delivered, err := r.withdraw(ctx, before, obj, external, attempt{plan: Plan{Action: Withdraw}})
	err = errors.Join(unread, delivered, err)
	if apiserver.IsGone(err) || apiserver.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return ctrl.Result{}, err
}

// forget removes what is known and stored of an object that is gone. The files of
// one that went to another shard are left to the next collection: consumers who
// were told of them just before still come here.
func (r *ArtifactRepositoryReconciler) forget(ctx context.Context, req ctrl.Request) error {
	r.Backoff.Forget(req)
	r.attention.forget(req.NamespacedName)
	r.Events.forget(ctx, req.NamespacedName)
	if len(r.LabelKeys) > 0 { // else there is no other shard
		if obj, err := apiserver.Get(ctx, r.Live, req.NamespacedName, &v1alpha1.ArtifactRepository{}); err != nil || obj != nil {
			return err
		}
	}
	return r.Store.Remove(ctx, store.Key{Namespace: req.Namespace, Name: req.Name})
}

// withheld tells whether an ExternalArtifact stays without an artifact although the
// record names one. A withdrawal may have reached only the ExternalArtifact, so it is filled
// again when today's rules accept the artifact, and never by repair alone.
func withheld(obj *v1alpha1.ArtifactRepository, external *sourcev1.ExternalArtifact, a attempt) bool {
	empty := external == nil || source.ArtifactRepository(obj.Name).Owns(external) && external.Status.Artifact == nil
	return empty && obj.Status.Artifact != nil && !a.accepted()
}
