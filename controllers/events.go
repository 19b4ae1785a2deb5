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
	"crypto/sha256"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	kuberecorder "k8s.io/client-go/tools/record"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	helper "github.com/fluxcd/pkg/runtime/controller"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
)

// maxPending bounds the events that wait to be sent. Above it, old events are kept and the
// newest is dropped: a reconcile never waits for a receiver. maxPendingOfOne bounds those of
// one namespace, so that others find room.
const (
	maxPending      = 1000
	maxPendingOfOne = maxPending / 4
)

// Events reports to users and machines: Kubernetes events, Flux events, and Flux's metrics
// of objects. A separate goroutine posts Flux events, because a receiver that is down must
// not delay a reconcile.
type Events struct {
	// Recorder writes Kubernetes events.
	Recorder kuberecorder.EventRecorder
	// Alerts posts Flux events; nil without a receiver.
	Alerts kuberecorder.EventRecorder
	// Metrics are Flux's metrics of objects.
	Metrics helper.Metrics

	once    sync.Once
	pending chan func()
	waiting waiting
	said    said
	failing failing
}

// queue returns the queue of events to be sent.
func (e *Events) queue() chan func() {
	e.once.Do(func() { e.pending = make(chan func(), maxPending) })
	return e.pending
}

// Start posts Flux events until ctx ends. It does not wait then for a receiver that is down,
// which may take most of a minute: the lease of the leader is released only after all
// runnables have ended.
func (e *Events) Start(ctx context.Context) error {
	for {
		select {
		case send := <-e.queue():
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				send()
			}()
			select {
			case <-sent:
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// NeedLeaderElection is false: each replica sends its own events.
func (*Events) NeedLeaderElection() bool { return false }

// news is the content of an event.
type news struct {
	// kind is the type of the event: Normal or Warning.
	kind string
	// reason in CamelCase, and message of any length.
	reason, message string
}

// send sends an event about an object, with metadata under the object's group.
func (e *Events) send(obj client.Object, metadata map[string]string, n news) {
	obj, message := obj.DeepCopyObject().(client.Object), fault.Line(n.message)
	e.Recorder.AnnotatedEventf(obj, metadata, n.kind, n.reason, "%s", message)
	if e.Alerts == nil {
		return
	}
	if !e.enqueue(obj.GetNamespace(), func() { e.Alerts.AnnotatedEventf(obj, metadata, n.kind, n.reason, "%s", message) }) {
		ctrl.Log.Info("a Flux event was dropped: too many wait to be sent", "namespace", obj.GetNamespace(), "name", obj.GetName(), "reason", n.reason)
	}
}

// enqueue reports whether there was room for an event of a namespace.
func (e *Events) enqueue(namespace string, post func()) bool {
	if !e.waiting.enter(namespace) {
		return false
	}
	select {
	case e.queue() <- func() {
		e.waiting.leave(namespace)
		post()
	}:
		return true
	default:
		e.waiting.leave(namespace)
		return false
	}
}

// waiting counts the queued events of each namespace.
type waiting struct {
	mu    sync.Mutex
	count map[string]int
}

// enter counts one more event of a namespace, and reports whether there was room for it.
func (w *waiting) enter(namespace string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count[namespace] >= maxPendingOfOne {
		return false
	}
	if w.count == nil {
		w.count = map[string]int{}
	}
	w.count[namespace]++
	return true
}

func (w *waiting) leave(namespace string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count[namespace]--; w.count[namespace] == 0 {
		delete(w.count, namespace)
	}
}

// warnOnce warns about an object once per value and process.
func (e *Events) warnOnce(obj client.Object, warning source.Warning) {
	if !e.said.first(obj.GetUID(), warning) {
		return
	}
	e.send(obj, nil, news{corev1.EventTypeWarning, warning.Reason, warning.Message})
}

// duration records the duration of a reconcile.
func (e *Events) duration(ctx context.Context, obj conditions.Getter, start time.Time) {
	e.Metrics.RecordDuration(ctx, obj, start)
}

// origin returns the end of a message, with the origin of the content according to the
// manifest.
func origin(artifact *meta.Artifact) (words string) {
	for _, from := range []struct{ name, key string }{
		{"origin source", "org.opencontainers.image.source"}, {"origin revision", "org.opencontainers.image.revision"},
	} {
		if value := artifact.Metadata[from.key]; value != "" {
			words += "; " + from.name + ": " + fault.Words(value)
		}
	}
	return words
}

// resumed reports whether the last attempt was interrupted between the record and its copy:
// it did not report its publication.
func resumed(before *v1alpha1.ArtifactRepository) bool {
	return conditions.GetReason(before, meta.ReconcilingCondition) == v1alpha1.ReasonProgressing
}

// tell sends an event about an ArtifactRepository, and a copy about objects that Flux's
// Alerts can select.
func (e *Events) tell(obj *v1alpha1.ArtifactRepository, selectable []client.Object, n news) {
	e.send(obj, revisionMetadata(obj, v1alpha1.Group), n)
	for _, beside := range selectable {
		var metadata map[string]string
		if _, ok := beside.(*sourcev1.ExternalArtifact); ok {
			metadata = revisionMetadata(obj, sourcev1.GroupVersion.Group)
		}
		e.send(beside, metadata, n)
	}
}

// revisionMetadata is printed by Flux's notification-controller beside an event: its keys
// are in the group of the object of the event.
func revisionMetadata(obj *v1alpha1.ArtifactRepository, group string) map[string]string {
	artifact := obj.Status.Artifact
	if artifact == nil {
		return nil
	}
	return map[string]string{
		group + "/" + eventv1.MetaRevisionKey: artifact.Revision,
		group + "/" + eventv1.MetaDigestKey:   artifact.Digest,
	}
}

// sameReady reports whether Ready has not changed. During retries only the reason counts:
// messages of networks and servers may differ at each attempt.
func sameReady(before, obj conditions.Getter) bool {
	return sameState(before, obj) &&
		(conditions.GetMessage(before, meta.ReadyCondition) == conditions.GetMessage(obj, meta.ReadyCondition) ||
			conditions.IsFalse(obj, meta.ReadyCondition) && classOf(obj) == fault.Retry)
}

// sameState reports whether Ready differs at most in its message.
func sameState(before, obj conditions.Getter) bool {
	was, now := conditions.Get(before, meta.ReadyCondition), conditions.Get(obj, meta.ReadyCondition)
	return was != nil && was.Status == now.Status && was.Reason == now.Reason && classOf(before) == classOf(obj)
}

// classOf returns the class of the failure in the conditions of an object.
func classOf(obj conditions.Getter) fault.Class {
	switch {
	case conditions.IsStalled(obj):
		return fault.Stall
	case conditions.GetReason(obj, meta.ReconcilingCondition) == v1alpha1.ReasonProgressingWithRetry:
		return fault.Retry
	default:
		return fault.Wait
	}
}

// failing has the subject of the last event about each failing object.
type failing struct {
	mu   sync.Mutex
	told map[types.NamespacedName]failed
}

type failed struct {
	subject string
	at      time.Time
}

// repeatAfter is the time until the event about a lasting failure is repeated.
const repeatAfter = time.Hour

// again reports whether this process has already seen the object fail, and whether to report
// a failure again although it has the same reason: it has another subject, or lasts for
// long. A new process treats the first failure as reported.
func (f *failing) again(key types.NamespacedName, subject string) (seen, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, known := f.told[key]
	if known && last.subject == subject && time.Since(last.at) < repeatAfter {
		return true, false
	}
	if f.told == nil {
		f.told = map[types.NamespacedName]failed{}
	}
	f.told[key] = failed{subject: subject, at: time.Now()}
	return known, known
}

func (f *failing) forget(key types.NamespacedName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.told, key)
}

// observe records the conditions of an ArtifactRepository in the metrics.
func (e *Events) observe(ctx context.Context, obj *v1alpha1.ArtifactRepository) {
	e.Metrics.RecordSuspend(ctx, obj, obj.Spec.Suspend)
	e.Metrics.RecordReadiness(ctx, obj)
	e.Metrics.RecordReconciling(ctx, obj)
	e.Metrics.RecordStalled(ctx, obj)
	e.Metrics.RecordCondition(ctx, obj, v1alpha1.SourceVerifiedCondition)
}

// forget drops the metrics of a deleted ArtifactRepository.
func (e *Events) forget(ctx context.Context, key types.NamespacedName) {
	e.failing.forget(key)
	obj, now := gone(&v1alpha1.ArtifactRepository{}, key)
	e.Metrics.RecordSuspend(ctx, obj, false)
	e.Metrics.RecordReadiness(ctx, obj)
	e.Metrics.RecordReconciling(ctx, obj)
	e.Metrics.RecordStalled(ctx, obj)
	e.Metrics.DeleteCondition(ctx, obj, v1alpha1.SourceVerifiedCondition)
	e.Metrics.RecordDuration(ctx, obj, now)
}

// forgetTrustPolicy drops the metrics of a deleted TrustPolicy.
func (e *Events) forgetTrustPolicy(ctx context.Context, name string) {
	obj, now := gone(&v1alpha1.TrustPolicy{}, types.NamespacedName{Name: name})
	e.Metrics.RecordReadiness(ctx, obj)
	e.Metrics.RecordDuration(ctx, obj, now)
}

// forgetImagePolicy drops the metrics of a deleted ImagePolicy.
func (e *Events) forgetImagePolicy(ctx context.Context, key types.NamespacedName) {
	obj, now := gone(&imagev1.ImagePolicy{}, key)
	e.Metrics.RecordDuration(ctx, obj, now)
}

// gone returns a deleted object for Flux's metrics, and the time: to record a metric of it
// removes the metric.
func gone[T client.Object](obj T, key types.NamespacedName) (T, time.Time) {
	now := metav1.Now()
	obj.SetNamespace(key.Namespace)
	obj.SetName(key.Name)
	obj.SetDeletionTimestamp(&now)
	return obj, now.Time
}

// checked sends an event about a TrustPolicy if its condition changed.
func (e *Events) checked(ctx context.Context, before, obj *v1alpha1.TrustPolicy) {
	e.Metrics.RecordReadiness(ctx, obj)
	if sameReady(before, obj) {
		return
	}
	eventType, now := corev1.EventTypeNormal, conditions.Get(obj, meta.ReadyCondition)
	if now.Status == metav1.ConditionFalse {
		eventType = corev1.EventTypeWarning
	}
	e.Recorder.Event(obj, eventType, now.Reason, now.Message)
}

// said has the warnings that were sent. It is bounded: when it is full it starts again, and
// a warning may be sent twice.
type said struct {
	mu       sync.Mutex
	warnings map[saidKey]struct{}
}

// saidKey identifies a warning. It has the hash of the value, which can be as long as an
// annotation: a tenant could fill the memory with values.
type saidKey struct {
	uid   types.UID
	place source.Place
	value [sha256.Size]byte
}

const maxSaid = 10_000

// first reports whether a warning about an object is new, and notes it.
func (s *said) first(uid types.UID, warning source.Warning) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := saidKey{uid: uid, place: warning.Place, value: sha256.Sum256([]byte(warning.Value))}
	if _, ok := s.warnings[key]; ok {
		return false
	}
	if s.warnings == nil || len(s.warnings) >= maxSaid {
		s.warnings = map[saidKey]struct{}{}
	}
	s.warnings[key] = struct{}{}
	return true
}
