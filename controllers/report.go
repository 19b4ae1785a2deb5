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
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
)

// Report reports decisions to users and machines: events, metrics and the log.
type Report struct {
	Events  *Events
	Metrics *Metrics

	arrivals arrivals
}

// judged counts the rulings of policies on images.
func (r *Report) judged(d decision) {
	for _, rulings := range d.rulings {
		r.Metrics.observeRulings(rulings)
	}
}

// tell reports a delivery if it changed the record: a new artifact, a failure, a recovery, a
// withdrawal.
func (r *Report) tell(ctx context.Context, s source.Snapshot, out delivery) {
	if !out.recorded {
		return
	}
	obj := out.after
	r.Events.observe(ctx, obj)
	if out.failure() == nil && out.publishes() {
		r.Metrics.publications.Inc()
	}
	r.observeArrival(s, out)

	beside := selectable(s, out)
	if news := r.news(ctx, out); news.reason != "" {
		r.Events.tell(obj, beside, news)
	}
	if warnings := obj.Status.TrustWarnings; len(warnings) > 0 && (resumed(out.before) || !slices.Equal(out.before.Status.TrustWarnings, warnings)) {
		r.Events.tell(obj, beside, news{corev1.EventTypeWarning, v1alpha1.ReasonVerificationError, "published " + obj.Status.Artifact.Revision + unenforced(obj)})
	}
}

// news returns the event about a delivery; its zero value if there is no news.
func (r *Report) news(ctx context.Context, out delivery) news {
	log, before, obj := ctrl.LoggerFrom(ctx), out.before, out.after
	ready := conditions.Get(obj, meta.ReadyCondition)
	var seen, again bool
	if out.failure() != nil {
		seen, again = r.Events.failing.again(client.ObjectKeyFromObject(obj), strings.Join(out.target.Subjects(), " "))
	}
	switch {
	case before.Status.Artifact != nil && out.change.Kind() == publication.KindWithdraw:
		log.Info("no longer published", "revision", before.Status.Artifact.Revision, "reason", ready.Reason, "message", ready.Message)
		return news{corev1.EventTypeWarning, ready.Reason, fmt.Sprintf("no longer published: %s: %s", before.Status.Artifact.Revision, ready.Message)}
	case out.failure() == nil && out.publishes():
		artifact := obj.Status.Artifact
		log.Info("published", "revision", artifact.Revision, "digest", artifact.Digest, "url", artifact.URL)
		return news{corev1.EventTypeNormal, v1alpha1.ReasonNewArtifact, ready.Message + remarks(out) + origin(artifact)}
	case !again && (sameReady(before, obj) || !seen && sameState(before, obj)):
		// Another version of this controller may use other words for the same state.
	case ready.Reason == v1alpha1.ReasonDependencyNotReady && obj.Status.Artifact == nil:
		// An image that Flux has not scanned yet is not an event.
		log.Info("waiting", "message", ready.Message)
	case ready.Status == metav1.ConditionFalse:
		log.Info("not published", "reason", ready.Reason, "message", ready.Message)
		return news{corev1.EventTypeWarning, ready.Reason, ready.Message}
	case conditions.IsFalse(before, meta.ReadyCondition):
		log.Info("recovered", "message", ready.Message)
		return news{corev1.EventTypeNormal, ready.Reason, "recovered: " + ready.Message}
	}
	return news{}
}

// remarks returns the end of an event about a new artifact: its oddities, and the signers.
func remarks(out delivery) (words string) {
	if product := out.change.Product(); product != nil {
		if product.SkippedLinks > 0 {
			words += fmt.Sprintf("; symbolic links left out: %d", product.SkippedLinks)
		}
		if product.IgnoreFlaw != "" {
			words += "; " + product.IgnoreFlaw + leavesOutLess
		}
	}
	if by := publication.Latest(out.after).VerifiedBy; by != "" {
		words += "; verified: " + by
	}
	return words
}

// selectable returns the objects of a source that Flux's Alerts can select: the
// ExternalArtifact if it is ours and, without an artifact, the ImagePolicy. A missing opt-in
// is reported about the ImagePolicy elsewhere, once.
func selectable(s source.Snapshot, out delivery) (objects []client.Object) {
	obj := out.after
	switch {
	case s.External != nil && s.Owns(s.External):
		objects = append(objects, s.External)
	case s.External == nil && (obj.Status.Artifact != nil || out.announces()):
		// It is new: no cache has it yet.
		objects = append(objects, &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}})
	}
	if s.Policy != nil && out.change.Kind() != publication.KindRemove && (obj.Status.Artifact == nil || len(objects) == 0) {
		objects = append(objects, s.Policy)
	}
	return objects
}

// publishes reports whether a publication is new: made now or, if an attempt was interrupted
// between the record and its copy, made before.
func (d delivery) publishes() bool { return d.change.Product() != nil || resumed(d.before) }

// observeArrival measures the time from a policy's pick to its publication. Failed attempts
// before a retry count. The time in which a user or another object has to act does not: a
// waiting, stalled or suspended source is no longer measured.
func (r *Report) observeArrival(s source.Snapshot, out delivery) {
	if s.Policy == nil || s.Policy.Status.LatestRef == nil {
		return
	}
	failure := out.failure()
	if failure != nil && failure.Class == fault.Retry {
		return
	}
	awaited := r.arrivals.arrived(client.ObjectKeyFromObject(s.Object), hashOf(*s.Policy.Status.LatestRef))
	artifact := out.after.Status.Artifact
	if failure != nil || awaited.IsZero() || artifact == nil {
		return
	}
	// A publication before the pick is not news. Records count in seconds.
	if !artifact.LastUpdateTime.Time.Before(awaited.Truncate(time.Second)) {
		r.Metrics.PublishDuration.Observe(time.Since(awaited).Seconds())
	}
}

// forget drops the state of a deleted object.
func (r *Report) forget(ctx context.Context, key types.NamespacedName) {
	r.arrivals.forget(key)
	r.Events.forget(ctx, key)
}
