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

// derive is the one place where the conditions of a source follow from a decision. obj has
// the status after the change, and the conditions of before. hidden tells that consumers do
// not see the recorded artifact.
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

// deriveStorage tells whether the bytes of the published artifact are there.
func deriveStorage(obj *v1alpha1.ArtifactRepository, stored bool) {
	switch artifact := obj.Status.Artifact; {
	case artifact == nil:
		conditions.Delete(obj, v1alpha1.ArtifactInStorageCondition)
	case stored:
		conditions.MarkTrue(obj, v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonSucceeded, "stored: %s", shorten(artifact.Revision))
	default:
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonStorageOperationFailed,
			"the bytes of %s are missing and could not be made again yet", shorten(artifact.Revision)))
	}
}

// deriveVerification tells whether the published artifact carries the signatures that are
// demanded, and why the newest image does not.
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

// unenforced says, for the end of a message, what policies that only warn would
// refuse.
func unenforced(obj *v1alpha1.ArtifactRepository) string {
	if len(obj.Status.TrustWarnings) == 0 {
		return ""
	}
	return "; if it were enforced, it would be refused by " + fault.Line(strings.Join(obj.Status.TrustWarnings, "; "))
}

// deriveFailure tells the reason and class of a failure.
func deriveFailure(obj *v1alpha1.ArtifactRepository, d decision, hidden bool) {
	failure := d.failure()
	message, subjects := fault.Line(failure.Error()), d.target.Subjects()
	if artifact := obj.Status.Artifact; artifact != nil && !hidden {
		message += "; still published: " + shorten(artifact.Revision)
		subjects = append(subjects, shorten(artifact.Revision))
	}
	markFault(obj, failure, steady(obj, failure, message, subjects...))
}

// deriveSuspended tells that nothing is done. Where nothing is published because it was
// refused before, that stays the reason: a person has to put it right.
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
	return fmt.Sprintf("suspended (%s): nothing is published", by)
}

// leavesOutLess ends a message about a line of ignore rules.
const leavesOutLess = "; it leaves out nothing, or less than it seems to"

// publishedMessage tells the published revision in a line that fits a terminal, and all else
// that a person on call should know. The whole digest, the image and the time are fields
// of the status.
func publishedMessage(obj *v1alpha1.ArtifactRepository, d decision) string {
	notes := []string{fmt.Sprintf("published %s as %s", shorten(obj.Status.Artifact.Revision), obj.Status.Format)}
	notes = append(notes, d.trail.Notes(explain.Target)...)
	if latest := obj.Status.LatestRef; d.target.KeepName && latest != nil && latest.Digest == obj.Status.Record.Digest && latest.Tag != publication.Latest(obj).Tag {
		notes = append(notes, fmt.Sprintf("the tag %s, which the policy picks, is the same digest", latest.Tag))
	}
	if d.target.UnseenBuild != "" && obj.Status.Format == v1alpha1.FormatHelm {
		notes = append(notes, source.BuildAdvice(d.target.UnseenBuild))
	}
	if obj.Status.Record.SettingsHash != "" {
		notes = append(notes, fmt.Sprintf("the content settings (ignore, layerSelector, format, platform) take more than %d KiB, so only their hash is recorded:"+
			" lost bytes cannot be made again after the settings change; shorten them", v1alpha1.MaxSettingsBytes>>10))
	}
	if ignore := obj.Spec.Ignore; ignore != nil {
		if flaw := format.PatternFlaw("spec.ignore", *ignore); flaw != "" {
			notes = append(notes, flaw+leavesOutLess)
		}
	}
	return strings.Join(notes, "; ") + unenforced(obj)
}

// shorten leaves 12 of the digits of the digest that ends a revision, as many as Docker shows.
func shorten(revision string) string {
	if name, digits, ok := strings.Cut(revision, "sha256:"); ok && len(digits) > 12 {
		return name + "sha256:" + digits[:12]
	}
	return revision
}

// deriveProgress tells that something new is recorded and about to be published.
func deriveProgress(obj *v1alpha1.ArtifactRepository) {
	revision := shorten(obj.Status.Artifact.Revision)
	conditions.MarkReconciling(obj, v1alpha1.ReasonProgressing, "publishing %s", revision)
	if !conditions.Has(obj, meta.ReadyCondition) {
		conditions.MarkUnknown(obj, meta.ReadyCondition, v1alpha1.ReasonProgressing, "publishing %s", revision)
	}
}

// markPolicy marks whether a TrustPolicy can be applied. Notes are what is odd
// about it.
func markPolicy(obj *v1alpha1.TrustPolicy, notes []string, err error) {
	obj.Status.ObservedGeneration = obj.Generation
	if failure := fault.Of(err, v1alpha1.ReasonVerificationError); failure != nil {
		message := fault.Line(strings.Join(append([]string{failure.Error()}, notes...), "; "))
		markFault(obj, failure, steady(obj, failure, message))
		return
	}
	settle(obj, true, v1alpha1.ReasonSucceeded, fault.Line(strings.Join(append([]string{trustpolicy.Summary(obj)}, notes...), "; ")))
}

// markFault marks a failure of anything, and whether a person, an event or time can heal it.
func markFault(obj conditions.Setter, failure *fault.Error, message string) {
	markReady(obj, metav1.ConditionFalse, failure.Reason, message)
	// What stays is left in place: a condition that were taken away and set
	// again would get a new time, and be written, at each attempt.
	switch failure.Class {
	case fault.Retry:
		conditions.MarkReconciling(obj, v1alpha1.ReasonProgressingWithRetry, "the next attempt follows by itself")
	case fault.Stall:
		conditions.MarkStalled(obj, failure.Reason, "%s", message)
	case fault.Wait:
		rest(obj)
	}
}

// settle marks Ready, and that nothing is under way.
func settle(obj conditions.Setter, ready bool, reason, message string) {
	rest(obj)
	status := metav1.ConditionFalse
	if ready {
		status = metav1.ConditionTrue
	}
	markReady(obj, status, reason, message)
}

// rest marks that nothing is under way, and nothing is stuck.
func rest(obj conditions.Setter) {
	conditions.Delete(obj, meta.ReconcilingCondition)
	conditions.Delete(obj, meta.StalledCondition)
}

func markReady(obj conditions.Setter, status metav1.ConditionStatus, reason, message string) {
	conditions.Set(obj, &metav1.Condition{Type: meta.ReadyCondition, Status: status, Reason: reason, Message: message})
}
