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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
)

// concluded says what changed with an attempt, where something did: a new
// artifact, a failure, a recovery, a withdrawal.
func (e *Events) concluded(ctx context.Context, before *v1alpha1.ArtifactRepository, s source.Snapshot, a attempt) {
	obj := s.Object
	e.Metrics.RecordSuspend(ctx, obj, obj.Spec.Suspend)
	e.Metrics.RecordReadiness(ctx, obj)
	e.Metrics.RecordReconciling(ctx, obj)
	e.Metrics.RecordStalled(ctx, obj)
	e.Metrics.RecordCondition(ctx, obj, v1alpha1.SourceVerifiedCondition)

	log, beside := ctrl.LoggerFrom(ctx), selectable(s, a)
	ready := conditions.Get(obj, meta.ReadyCondition)
	var seen, again bool
	if a.err != nil {
		seen, again = e.failing.again(client.ObjectKeyFromObject(obj), strings.Join(a.plan.Subjects(), " "))
	}
	switch {
	case before.Status.Artifact != nil && obj.Status.Artifact == nil && a.judgement != nil && a.judgement.rejected:
		log.Info("no longer published", "revision", before.Status.Artifact.Revision, "reason", ready.Reason, "message", ready.Message)
		e.tell(obj, beside, news{corev1.EventTypeWarning, ready.Reason, fmt.Sprintf("no longer published: %s: %s", before.Status.Artifact.Revision, ready.Message)})
	case a.err == nil && published(before, a):
		message, artifact := ready.Message, obj.Status.Artifact
		if a.made != nil && a.made.SkippedLinks > 0 {
			message += fmt.Sprintf("; symbolic links left out: %d", a.made.SkippedLinks)
		}
		if a.made != nil && a.made.IgnoreFlaw != "" {
			message += "; " + a.made.IgnoreFlaw + leavesOutLess
		}
		if by := publication.Latest(obj).VerifiedBy; by != "" {
			message += "; verified: " + by
		}
		log.Info("published", "revision", artifact.Revision, "digest", artifact.Digest, "url", artifact.URL)
		e.tell(obj, beside, news{corev1.EventTypeNormal, v1alpha1.ReasonNewArtifact, message + origin(artifact)})
	case !again && (sameReady(before, obj) || !seen && sameState(before, obj)):
		// Another build of this controller may say the same in other words.
	case ready.Reason == v1alpha1.ReasonDependencyNotReady && obj.Status.Artifact == nil:
		// An image that Flux has not scanned yet is no news.
		log.Info("waiting", "message", ready.Message)
	case ready.Status == "False":
		log.Info("not published", "reason", ready.Reason, "message", ready.Message)
		e.tell(obj, beside, news{corev1.EventTypeWarning, ready.Reason, ready.Message})
	case conditions.IsFalse(before, meta.ReadyCondition):
		log.Info("recovered", "message", ready.Message)
		e.tell(obj, beside, news{corev1.EventTypeNormal, ready.Reason, "recovered: " + ready.Message})
	}
	if warnings := obj.Status.TrustWarnings; len(warnings) > 0 && (resumed(before) || !slices.Equal(before.Status.TrustWarnings, warnings)) {
		e.tell(obj, beside, news{corev1.EventTypeWarning, v1alpha1.ReasonVerificationError, "published " + obj.Status.Artifact.Revision + unenforced(obj)})
	}
}

// selectable returns the objects of a source that Flux's Alerts can select: the
// ExternalArtifact if it is ours and, while nothing is published, the ImagePolicy. That
// nobody opted in is told about the ImagePolicy elsewhere, once.
func selectable(s source.Snapshot, a attempt) (objects []client.Object) {
	obj := s.Object
	switch external := s.External; {
	case external != nil && s.Owns(external):
		objects = append(objects, external)
	case external == nil && (obj.Status.Artifact != nil || a.announced()):
		// It was made just now: no cache has seen it yet.
		objects = append(objects, &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.Name}})
	}
	if s.Policy != nil && a.plan.Action != Withdraw && (obj.Status.Artifact == nil || len(objects) == 0) {
		objects = append(objects, s.Policy)
	}
	return objects
}

// published tells whether something new came to be published: made now or, where
// an attempt was interrupted between the record and its copy, made before.
func published(before *v1alpha1.ArtifactRepository, a attempt) bool {
	return a.made != nil || resumed(before)
}
