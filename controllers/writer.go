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
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
)

// writeTimeout bounds the writes at the end of a reconcile: an API server that does not
// answer must not occupy the workers.
const writeTimeout = 30 * time.Second

// Writer carries out decisions, in one of two orders.
//
// A publication: bytes, record (Progressing), ExternalArtifact, conditions. The next process
// finishes and reports a record that is Progressing.
//
// A withdrawal or removal: a patch with only the removal, to the record and to the
// ExternalArtifact. Neither waits for the other. Everything else follows.
type Writer struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Live reads past the caches.
	Live client.Reader
	// LabelKeys are copied to the ExternalArtifact.
	LabelKeys []string
	// Store stores the files.
	Store *store.Replica

	written overwritten
}

// delivery is the result of carrying out a decision.
type delivery struct {
	// before is the source as it was read, and after as it is recorded.
	before, after *v1alpha1.ArtifactRepository
	// decision, with the step of a failed delivery.
	decision
	// recorded: the record is complete, and can be reported.
	recorded bool
}

// Write carries out a decision about a source.
//
// Errors: those of the API server. After a conflict, or if an object is absent, the source
// has to be read again. A refused ExternalArtifact is a step of the trail instead.
func (w *Writer) Write(ctx context.Context, s source.Snapshot, d decision) (delivery, error) {
	before := s.Object
	out := delivery{before: before, after: before.DeepCopy(), decision: d}
	out.after.Status = publication.Apply(before.Status, d.change)
	if d.latest.Digest.Hex != "" && d.change.Kind() != publication.KindRemove {
		out.after.Status.LatestRef = &imagev1.ImageRef{Name: d.latest.Repository, Tag: d.latest.Tag, Digest: d.latest.Digest.String()}
	}
	out.after.Status.LastHandledReconcileAt, out.after.Status.ObservedRequests = s.Acknowledged()
	out.conclude(s.External != nil && !s.Owns(s.External))
	external, unread := w.external(ctx, s, out.after)
	if before.Status.Artifact != nil && out.after.Status.Artifact == nil {
		return w.take(ctx, out, external, unread)
	}
	if s.Requested() && out.after.Status.Artifact != nil { // the user may doubt the bytes
		w.Store.ScrubNext(publication.Key(out.after), *out.after.Status.Artifact)
	}
	return w.publish(ctx, out, external, unread)
}

// conclude derives the conditions of the record, and its decision. A decision without news
// is not written on its own.
func (d *delivery) conclude(hidden bool) {
	obj, was := d.after, d.before.Status
	obj.Status.Conditions = d.before.DeepCopy().Status.Conditions
	derive(obj, d.decision, hidden)
	obj.Status.Decision = was.Decision
	if decided := d.trail.Decision(); !explain.Same(was.Decision, decided) || !equality.Semantic.DeepEqual(was, obj.Status) {
		obj.Status.Decision = decided
	}
}

// fail adds a step to the trail with the reason why the ExternalArtifact could not be
// written.
func (d *delivery) fail(err error, hidden bool) {
	d.trail = append(d.trail, explain.Refuse(explain.Deliver, err))
	d.conclude(hidden)
}

// publish writes a publication: the record before the ExternalArtifact, and the conditions
// last.
func (w *Writer) publish(ctx context.Context, out delivery, external *sourcev1.ExternalArtifact, unread error) (delivery, error) {
	obj, base, failed := out.after, out.before, unread
	hidden := external != nil && !isOwned(external, obj)
	if withheld(external, out) {
		hidden = true
		out.conclude(hidden)
		failed = nil
	} else {
		var err error
		if base, err = w.recordAhead(ctx, out.before, obj); err != nil {
			return out, err
		}
		if failed == nil {
			failed = w.deliver(ctx, out, external, base != out.before)
		}
	}
	obj.ResourceVersion = base.ResourceVersion
	switch {
	case apiserver.IsConflict(failed), apiserver.IsGone(failed):
		return out, failed
	case failed != nil:
		out.fail(undelivered(nil, failed), hidden || external == nil)
	}
	err := w.patchStatus(ctx, base, obj)
	out.recorded = err == nil
	return out, err
}

// take withdraws the published artifact. The record waits for no other write.
func (w *Writer) take(ctx context.Context, out delivery, external *sourcev1.ExternalArtifact, unread error) (delivery, error) {
	cleared, failed, err := w.withdraw(ctx, out, external)
	if failed = errors.Join(failed, unread); err != nil {
		return out, errors.Join(err, failed)
	}
	out.recorded = true
	out.after.ResourceVersion = cleared.ResourceVersion
	switch {
	case apiserver.IsConflict(failed), apiserver.IsGone(failed):
		return out, failed
	case failed != nil:
		out.fail(undelivered(out.failure(), failed), external != nil && !isOwned(external, out.after) || external == nil)
	}
	return out, w.patchStatus(ctx, cleared, out.after)
}

// undelivered returns the reason why the ExternalArtifact disagrees with the record: the
// name belongs to another owner, or the API server refused the write. why is the reason of a
// withdrawal, and more important.
func undelivered(why *fault.Error, err error) error {
	if why != nil {
		return fault.Retryf(why.Reason, "%w; the ExternalArtifact could not be written: %w", why, err)
	}
	switch known := fault.Of(err, ""); {
	case known.Reason != "":
		return err
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return fault.Retryf(v1alpha1.ReasonAccessDenied, "the API server refused the ExternalArtifact: %w", err)
	default:
		return fault.Retryf(v1alpha1.ReasonDependencyNotReady, "the ExternalArtifact could not be written: %w", err)
	}
}

// withdraw removes the artifact from the ExternalArtifact and from the record. failed is the
// error of the first write, and err that of the second. cleared is the record after it.
func (w *Writer) withdraw(ctx context.Context, out delivery, external *sourcev1.ExternalArtifact) (cleared *v1alpha1.ArtifactRepository, failed, err error) {
	// Another replica may be the leader by now, and have published an accepted image. The
	// remains of a deleted object belong to no other one.
	if err := w.externals().confirm(ctx, out.before); err != nil && !apiserver.IsGone(err) {
		return nil, nil, err
	}
	var delivering sync.WaitGroup
	delivering.Go(func() { failed = w.deliver(ctx, out, external, true) })
	cleared, err = w.clear(ctx, out.before)
	delivering.Wait()
	return cleared, failed, err
}

// clear removes the artifact from the record by a patch that only removes, and returns the
// record after it. The API server refuses the patch if the record has another artifact by
// now.
func (w *Writer) clear(ctx context.Context, base *v1alpha1.ArtifactRepository) (*v1alpha1.ArtifactRepository, error) {
	named := base.Status.Artifact
	if named == nil {
		return base, nil
	}
	cleared := base.DeepCopy()
	operations := []operation{
		{Op: "test", Path: "/status/artifact/revision", Value: named.Revision},
		{Op: "test", Path: "/status/artifact/digest", Value: named.Digest},
	}
	var removed []string
	cleared.Status, removed = publication.Clear(base.Status)
	for _, field := range removed {
		operations = append(operations, operation{Op: "remove", Path: "/status/" + field})
	}
	// This adds less than the patch removes. Conditions about the artifact go, too.
	operations = append(operations, operation{Op: "add", Path: "/status/withdrawn", Value: cleared.Status.Withdrawn}, noConditions())
	if err := patchRemoval(ctx, w.Client, cleared, operations...); err != nil {
		return nil, err
	}
	w.written.add(client.ObjectKeyFromObject(base), base.ResourceVersion)
	return cleared, nil
}

// recordAhead writes a new artifact into the record before consumers see it: a replica that
// gets a request for its bytes then finds the record. It returns the base of the next patch.
func (w *Writer) recordAhead(ctx context.Context, before, obj *v1alpha1.ArtifactRepository) (*v1alpha1.ArtifactRepository, error) {
	if obj.Status.Artifact == nil || equality.Semantic.DeepEqual(before.Status.Artifact, obj.Status.Artifact) {
		return before, nil
	}
	ahead := obj.DeepCopy()
	ahead.Status.Conditions = before.DeepCopy().Status.Conditions
	ahead.Status.ObservedGeneration = before.Status.ObservedGeneration
	ahead.Status.Decision = before.Status.Decision.DeepCopy()
	deriveProgress(ahead)
	if err := w.patchStatus(ctx, before, ahead); err != nil {
		return nil, err
	}
	obj.ResourceVersion = ahead.ResourceVersion
	return ahead, nil
}

// patchStatus writes the status if it differs from that of base.
func (w *Writer) patchStatus(ctx context.Context, base, obj *v1alpha1.ArtifactRepository) error {
	if equality.Semantic.DeepEqual(base.Status, obj.Status) {
		return nil
	}
	status := obj.Status.DeepCopy()
	if err := w.Client.Status().Patch(ctx, obj, guarded(base)); err != nil {
		return err
	}
	if obj.ResourceVersion != base.ResourceVersion {
		w.written.add(client.ObjectKeyFromObject(obj), base.ResourceVersion)
	}
	obj.Status = *status
	return nil
}

// external returns the current ExternalArtifact. The cached copy is stale if it is missing
// although an earlier attempt may have created one, or if it already equals the status that
// was not written yet. Then it is read live: a stale copy would hide a necessary write, and
// no event would follow. It returns the cached copy with an error.
func (w *Writer) external(ctx context.Context, s source.Snapshot, obj *v1alpha1.ArtifactRepository) (*sourcev1.ExternalArtifact, error) {
	before, seen, externals := s.Object, s.External, w.externals()
	stale, changed := false, !equality.Semantic.DeepEqual(before.Status, obj.Status)
	switch {
	case seen == nil:
		stale = before.Status.Artifact != nil || changed && before.Status.ObservedGeneration > 0
	case changed:
		stale = isOwned(seen, obj) && externals.matches(seen, obj) && !externals.matches(seen, before)
	}
	if !stale {
		return seen, nil
	}
	live, err := apiserver.Get(ctx, w.Live, client.ObjectKeyFromObject(obj), &sourcev1.ExternalArtifact{})
	if err != nil {
		return seen, err
	}
	return live, nil
}

// deliver makes the ExternalArtifact follow the record. recorded means that the record was
// written just now; else it is as old as the cache.
func (w *Writer) deliver(ctx context.Context, out delivery, seen *sourcev1.ExternalArtifact, recorded bool) error {
	externals, obj := w.externals(), out.after
	switch {
	case out.change.Kind() == publication.KindRemove:
		if err := externals.remove(ctx, obj, seen); err != nil {
			return err
		}
		return w.Store.Remove(ctx, publication.Key(obj))
	case seen != nil && !isOwned(seen, obj), seen == nil && obj.Status.Artifact == nil && !out.announces():
		return nil
	case seen != nil && externals.matches(seen, obj):
		return nil
	case recorded:
		return externals.publish(ctx, obj, seen)
	}
	if err := externals.confirm(ctx, obj); err != nil {
		return err
	}
	return externals.publish(ctx, obj, seen)
}

func (w *Writer) externals() externals {
	return externals{client: w.Client, live: w.Live, labelKeys: w.LabelKeys}
}

// Retire removes the published artifact of an object that is being deleted but has a
// finalizer: it is no longer judged, so its artifact must not stay. A deletion that orphans
// the dependents keeps the ExternalArtifact, if no other finalizer holds the object. It
// returns the time until the next try.
func (w *Writer) Retire(ctx context.Context, obj *v1alpha1.ArtifactRepository) (again time.Duration, err error) {
	if left := time.Until(obj.DeletionTimestamp.Add(orphanTime)); left > 0 && controllerutil.ContainsFinalizer(obj, metav1.FinalizerOrphanDependents) {
		return left, nil
	}
	external, err := apiserver.Get(ctx, w.Client, client.ObjectKeyFromObject(obj), &sourcev1.ExternalArtifact{})
	if err != nil || external == nil && obj.Status.Artifact == nil {
		return 0, err
	}
	out := delivery{before: obj, after: obj.DeepCopy(), decision: decision{change: publication.Remove()}}
	out.after.Status = publication.Apply(obj.Status, out.change)
	external, unread := w.external(ctx, source.Snapshot{Object: obj, External: external}, out.after)
	_, failed, err := w.withdraw(ctx, out, external)
	return 0, errors.Join(unread, failed, err)
}

// orphanTime is the time for the garbage collector to orphan the dependents of a deleted
// object and release it. Any user can write its finalizer.
const orphanTime = 10 * time.Second

// withheld reports whether an ExternalArtifact stays empty although the record has an
// artifact. A withdrawal may have reached only the ExternalArtifact, so it is filled again
// only if today's demands accept the artifact, and never by repair alone.
func withheld(external *sourcev1.ExternalArtifact, out delivery) bool {
	empty := external == nil || isOwned(external, out.after) && external.Status.Artifact == nil
	return empty && out.after.Status.Artifact != nil && out.doubted
}

func isOwned(external *sourcev1.ExternalArtifact, obj *v1alpha1.ArtifactRepository) bool {
	return source.ArtifactRepository(obj.Name).Owns(external)
}

// IsOutdated reports whether an object is older than the last write to it, which the cache
// has not seen yet.
func (w *Writer) IsOutdated(obj *v1alpha1.ArtifactRepository) bool {
	return w.written.has(client.ObjectKeyFromObject(obj), obj.ResourceVersion)
}

// Forget drops the state of a deleted object.
func (w *Writer) Forget(key client.ObjectKey) { w.written.forget(key) }

// overwritten has the last resource versions of each object that this process replaced. Its
// zero value is ready.
type overwritten struct {
	mu       sync.Mutex
	versions map[client.ObjectKey][4]string
}

func (o *overwritten) add(key client.ObjectKey, version string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.versions == nil {
		o.versions = map[client.ObjectKey][4]string{}
	}
	last := o.versions[key]
	copy(last[1:], last[:])
	last[0] = version
	o.versions[key] = last
}

func (o *overwritten) has(key client.ObjectKey, version string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := o.versions[key]
	return slices.Contains(last[:], version)
}

func (o *overwritten) forget(key client.ObjectKey) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.versions, key)
}
