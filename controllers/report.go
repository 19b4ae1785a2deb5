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

// Report tells people and machines what became of decisions: events, metrics and the log.
type Report struct {
	Events  *Events
	Metrics *Metrics

	arrivals arrivals
}

// judged counts what the policies said about images.
func (r *Report) judged(d decision) {
	for _, rulings := range d.rulings {
		r.Metrics.observeRulings(rulings)
	}
}

// tell tells what a delivery changed, if it changed something: a new artifact, a failure, a
// recovery, a withdrawal.
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

// news returns what to tell of a delivery; its zero value if there is nothing.
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
		// Another build of this controller may say the same in other words.
	case ready.Reason == v1alpha1.ReasonDependencyNotReady && obj.Status.Artifact == nil:
		// An image that Flux has not scanned yet is no news.
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

// remarks says, for the end of an event, what is odd about a new artifact, and the signers.
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
// ExternalArtifact if it is ours and, while nothing is published, the ImagePolicy. That
// nobody opted in is told about the ImagePolicy elsewhere, once.
func selectable(s source.Snapshot, out delivery) (objects []client.Object) {
	obj := out.after
	switch {
	case s.External != nil && s.Owns(s.External):
		objects = append(objects, s.External)
	case s.External == nil && (obj.Status.Artifact != nil || out.announces()):
		// It was made just now: no cache has seen it yet.
		objects = append(objects, &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}})
	}
	if s.Policy != nil && out.change.Kind() != publication.KindRemove && (obj.Status.Artifact == nil || len(objects) == 0) {
		objects = append(objects, s.Policy)
	}
	return objects
}

// publishes tells whether something new came to be published: made now or, where an attempt
// was interrupted between the record and its copy, made before.
func (d delivery) publishes() bool { return d.change.Product() != nil || resumed(d.before) }

// observeArrival measures how long a policy's pick took to be published. An attempt that
// failed and is followed by another one is part of that. The time in which a person or
// another object has to act is not: what waits, is stuck or is suspended is measured no longer.
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
	// What was published before the pick was seen is not news. Records count in seconds.
	if !artifact.LastUpdateTime.Time.Before(awaited.Truncate(time.Second)) {
		r.Metrics.PublishDuration.Observe(time.Since(awaited).Seconds())
	}
}

// forget drops all that is known of an object that is gone.
func (r *Report) forget(ctx context.Context, key types.NamespacedName) {
	r.arrivals.forget(key)
	r.Events.forget(ctx, key)
}
