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
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// derive is the only function that derives the conditions of a source from a decision. obj
// has the status after the change, with the old conditions. hidden means: consumers do not
// see the recorded artifact.
func derive(obj *v1alpha1.ArtifactRepository, d decision, hidden bool) {
	obj.Status.ObservedGeneration = obj.Generation
	deriveStorage(obj, d.stored)
	deriveVerification(obj, d)
	switch decided := d.trail.Decided(); {
	case decided.Err != nil:
		deriveFailure(obj, d, hidden)
	case decided.Effect == v1alpha1.EffectHold:
		deriveSuspended(obj)
	default:
		settle(obj, true, v1alpha1.ReasonSucceeded, publishedMessage(obj, d))
	}
}

// deriveStorage derives the condition about the file of the published artifact.
func deriveStorage(obj *v1alpha1.ArtifactRepository, stored bool) {
	switch artifact := obj.Status.Artifact; {
	case artifact == nil:
		conditions.Delete(obj, v1alpha1.ArtifactInStorageCondition)
	case stored:
		conditions.MarkTrue(obj, v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonSucceeded, "stored: %s", shorten(artifact.Revision))
	default:
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonStorageOperationFailed,
			"the bytes of %s are missing and could not be rebuilt yet", shorten(artifact.Revision)))
	}
}

// deriveVerification derives the condition about the signatures of the published artifact,
// or the reason why the newest image has no valid ones.
func deriveVerification(obj *v1alpha1.ArtifactRepository, d decision) {
	failure := d.trail.Failed(v1alpha1.ReasonVerificationError)
	by, warnings := publication.Latest(obj).VerifiedBy, unenforced(obj)
	switch {
	case failure != nil:
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.SourceVerifiedCondition, failure.Reason, "%s", fault.Line(failure.Error())))
	case d.trail.Decided().Effect == v1alpha1.EffectHold && d.change.Kind() == publication.KindKeep:
	case obj.Status.Artifact != nil && by != "":
		conditions.MarkTrue(obj, v1alpha1.SourceVerifiedCondition, v1alpha1.ReasonSucceeded, "%s was verified: %s%s", obj.Status.Record.Digest, by, warnings)
	case obj.Status.Artifact != nil && warnings != "":
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.SourceVerifiedCondition, v1alpha1.ReasonVerificationError,
			"%s is published%s", obj.Status.Record.Digest, warnings))
	default:
		conditions.Delete(obj, v1alpha1.SourceVerifiedCondition)
	}
}

// unenforced returns the end of a message, with the violations of policies in the mode Warn.
func unenforced(obj *v1alpha1.ArtifactRepository) string {
	if len(obj.Status.TrustWarnings) == 0 {
		return ""
	}
	return "; in the mode Enforce it would be refused by " + fault.Line(strings.Join(obj.Status.TrustWarnings, "; "))
}

// deriveFailure derives the conditions of a failure.
func deriveFailure(obj *v1alpha1.ArtifactRepository, d decision, hidden bool) {
	failure := d.failure()
	message, subjects := fault.Line(failure.Error()), d.target.Subjects()
	if artifact := obj.Status.Artifact; artifact != nil && !hidden {
		message += "; still published: " + shorten(artifact.Revision)
		subjects = append(subjects, shorten(artifact.Revision))
	}
	markFault(obj, failure, steady(obj, failure, message, subjects...))
}

// deriveSuspended derives the conditions of a suspended source. If its artifact was refused
// before the suspension, this stays the reason: a user has to fix it.
func deriveSuspended(obj *v1alpha1.ArtifactRepository) {
	message := suspendedMessage(obj)
	refused := conditions.Get(obj, v1alpha1.SourceVerifiedCondition)
	if obj.Status.Artifact == nil && refused != nil && refused.Status == metav1.ConditionFalse && refused.ObservedGeneration == obj.Generation {
		settle(obj, false, refused.Reason, message+": "+refused.Message)
		return
	}
	settle(obj, obj.Status.Artifact != nil, v1alpha1.ReasonSuspended, message)
}

func suspendedMessage(obj *v1alpha1.ArtifactRepository) string {
	by := "spec.suspend of the ImagePolicy is true"
	if obj.Spec.Suspend {
		by = "spec.suspend is true"
	}
	if artifact := obj.Status.Artifact; artifact != nil {
		return fmt.Sprintf("suspended (%s): %s stays published since %s", by, shorten(artifact.Revision), artifact.LastUpdateTime.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("suspended (%s): no artifact is published", by)
}

// leavesOutLess is the end of a message about a line of ignore rules.
const leavesOutLess = "; it excludes no file, or fewer files than it seems to"

// publishedMessage returns the published revision in a line that fits a terminal, and
// remarks for the user. The whole digest, the image and the time are fields of the status.
func publishedMessage(obj *v1alpha1.ArtifactRepository, d decision) string {
	notes := []string{fmt.Sprintf("published %s as %s", shorten(obj.Status.Artifact.Revision), obj.Status.Format)}
	notes = append(notes, d.trail.Notes(explain.Target)...)
	if latest := obj.Status.LatestRef; d.target.KeepName && latest != nil && latest.Digest == obj.Status.Record.Digest && latest.Tag != publication.Latest(obj).Tag {
		notes = append(notes, fmt.Sprintf("the tag %s, the pick of the policy, has the same digest", latest.Tag))
	}
	if d.target.UnseenBuild != "" && obj.Status.Format == v1alpha1.FormatHelm {
		notes = append(notes, source.BuildAdvice(d.target.UnseenBuild))
	}
	if obj.Status.Record.SettingsHash != "" {
		notes = append(notes, fmt.Sprintf("the content settings (ignore, layerSelector, format, platform) take more than %d KiB, so only their hash is recorded:"+
			" lost bytes cannot be rebuilt after the settings change; shorten them", v1alpha1.MaxSettingsBytes>>10))
	}
	if ignore := obj.Spec.Ignore; ignore != nil {
		if flaw := format.PatternFlaw("spec.ignore", *ignore); flaw != "" {
			notes = append(notes, flaw+leavesOutLess)
		}
	}
	return strings.Join(notes, "; ") + unenforced(obj)
}

// shorten leaves 12 digits of the digest at the end of a revision, as Docker does.
func shorten(revision string) string {
	if name, digits, ok := strings.Cut(revision, "sha256:"); ok && len(digits) > 12 {
		return name + "sha256:" + digits[:12]
	}
	return revision
}

// deriveProgress derives the conditions of a recorded artifact that is about to be
// published.
func deriveProgress(obj *v1alpha1.ArtifactRepository) {
	revision := shorten(obj.Status.Artifact.Revision)
	conditions.MarkReconciling(obj, v1alpha1.ReasonProgressing, "publishing %s", revision)
	if !conditions.Has(obj, meta.ReadyCondition) {
		conditions.MarkUnknown(obj, meta.ReadyCondition, v1alpha1.ReasonProgressing, "publishing %s", revision)
	}
}

// markPolicy sets the conditions of a TrustPolicy. Notes are remarks about it.
func markPolicy(obj *v1alpha1.TrustPolicy, notes []string, err error) {
	obj.Status.ObservedGeneration = obj.Generation
	if failure := fault.Of(err, v1alpha1.ReasonVerificationError); failure != nil {
		message := fault.Line(strings.Join(append([]string{failure.Error()}, notes...), "; "))
		markFault(obj, failure, steady(obj, failure, message))
		return
	}
	settle(obj, true, v1alpha1.ReasonSucceeded, fault.Line(strings.Join(append([]string{trustpolicy.Summary(obj)}, notes...), "; ")))
}

// markFault sets the conditions of a failure. Its class decides who can fix it: a user, an
// event or time.
func markFault(obj conditions.Setter, failure *fault.Error, message string) {
	markReady(obj, metav1.ConditionFalse, failure.Reason, message)
	// Leave unchanged conditions in place: removing and setting one again would give it a
	// new time, and each attempt would write it.
	switch failure.Class {
	case fault.Retry:
		conditions.MarkReconciling(obj, v1alpha1.ReasonProgressingWithRetry, "the next attempt follows by itself")
	case fault.Stall:
		conditions.MarkStalled(obj, failure.Reason, "%s", message)
	case fault.Wait:
		rest(obj)
	}
}

// settle sets Ready and removes Reconciling and Stalled.
func settle(obj conditions.Setter, ready bool, reason, message string) {
	rest(obj)
	status := metav1.ConditionFalse
	if ready {
		status = metav1.ConditionTrue
	}
	markReady(obj, status, reason, message)
}

// rest removes Reconciling and Stalled.
func rest(obj conditions.Setter) {
	conditions.Delete(obj, meta.ReconcilingCondition)
	conditions.Delete(obj, meta.StalledCondition)
}

func markReady(obj conditions.Setter, status metav1.ConditionStatus, reason, message string) {
	conditions.Set(obj, &metav1.Condition{Type: meta.ReadyCondition, Status: status, Reason: reason, Message: message})
}
