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
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// record writes what an attempt made into the status: artifact, recipe and
// history. What was withdrawn is taken out of it; the history stays.
func record(obj *v1alpha1.ArtifactRepository, a attempt) {
	status := &obj.Status
	if publication.Current(obj) == nil {
		// Nobody can judge, or make again, what has no recipe: it must not stay.
		clearPublished(status)
	}
	if a.image.Digest.Hex != "" {
		status.LatestRef = &imagev1.ImageRef{Name: a.image.Repository, Tag: a.image.Tag, Digest: a.image.Digest.String()}
	}
	if a.plan.Action == Withdraw {
		status.LatestRef = nil
		clearPublished(status)
	}
	recordJudgement(status, a.judgement)
	if a.made == nil {
		return
	}
	made := a.made
	if !status.Artifact.HasRevision(made.Artifact.Revision) || !status.Artifact.HasDigest(made.Artifact.Digest) {
		publication.Retire(status)
		status.History = append([]v1alpha1.Publication{{
			Revision:    made.Artifact.Revision,
			Tag:         made.Image.Tag,
			Digest:      made.Image.Digest.String(),
			Format:      made.Format,
			VerifiedBy:  made.VerifiedBy,
			PublishedAt: made.Artifact.LastUpdateTime,
		}}, status.History...)
		status.History = status.History[:min(len(status.History), v1alpha1.MaxHistory)]
	}
	status.Artifact = made.Artifact.DeepCopy()
	digest, _ := publication.FileDigest(status.Artifact) // it was accepted anew, if it was withdrawn
	status.Withdrawn = slices.DeleteFunc(status.Withdrawn, func(withdrawn string) bool { return withdrawn == digest })
	status.Format = made.Format
	status.ObservedContent = made.Content
	var size int64
	if status.Record != nil {
		size = status.Record.Size
	}
	// What was not verified anew keeps the demands that it was accepted by.
	if a.verifiedAnew() {
		status.ObservedTrust = made.accepted.Observed(made.Proof)
		status.TrustWarnings = made.accepted.Warnings(made.Proof, trust.Content{Format: made.Format, Bytes: made.Bytes})
		size = made.Bytes
	}
	recipe := &v1alpha1.Recipe{
		Image: made.Image.Repository, ImageRepository: lenderOf(status.Record, a), Digest: made.Image.Digest.String(),
		Format: made.settings.Format, Platform: made.settings.Platform, LayerSelector: made.settings.LayerSelector, Ignore: made.settings.Ignore,
		ArchiveVersion: format.ArchiveVersion, Size: size,
	}
	status.Record = publication.Shorten(recipe, made.Content, v1alpha1.MaxSettingsBytes)
}

// lenderOf tells by whose access recorded content was fetched, see Recipe. Another name
// for what is published, and bytes that were made again, are no new content.
func lenderOf(before *v1alpha1.Recipe, a attempt) string {
	fetched := a.err == nil && a.plan.Action == Publish && a.verifiedAnew()
	if before == nil || fetched {
		return a.plan.Lender
	}
	return before.ImageRepository
}

// clearPublished takes what is published out of the record, where it is noted that
// it was withdrawn: a replica that sees only what took its place could not tell that
// from what was replaced. The history stays. It returns the names of the fields that
// are empty now and were not.
func clearPublished(status *v1alpha1.ArtifactRepositoryStatus) (removed []string) {
	for _, field := range []struct {
		name string
		set  bool
	}{
		{"artifact", status.Artifact != nil}, {"record", status.Record != nil}, {"format", status.Format != ""},
		{"observedContent", status.ObservedContent != ""}, {"observedTrust", status.ObservedTrust != ""},
		{"trustWarnings", len(status.TrustWarnings) > 0},
	} {
		if field.set {
			removed = append(removed, field.name)
		}
	}
	if digest, ok := publication.FileDigest(status.Artifact); ok {
		status.Withdrawn = append([]string{digest}, status.Withdrawn...)
		status.Withdrawn = status.Withdrawn[:min(len(status.Withdrawn), v1alpha1.MaxWithdrawn)]
	}
	status.Artifact, status.Record, status.Format = nil, nil, ""
	status.ObservedContent, status.ObservedTrust, status.TrustWarnings = "", "", nil
	return removed
}

// recordJudgement records who vouches now for what is published, or that it is
// published no longer. What could not be found out changes nothing.
func recordJudgement(status *v1alpha1.ArtifactRepositoryStatus, j *judgement) {
	switch {
	case j == nil || j.wait > 0 || j.err != nil && !j.rejected:
	case j.rejected:
		clearPublished(status)
	default:
		status.ObservedTrust, status.TrustWarnings = j.fingerprint, j.warnings
		if len(status.History) > 0 {
			status.History[0].VerifiedBy = j.by
		}
		delete(status.Artifact.Metadata, v1alpha1.MetadataVerifiedBy)
		if j.by != "" {
			status.Artifact.Metadata = merge(status.Artifact.Metadata, map[string]string{v1alpha1.MetadataVerifiedBy: j.by})
		}
	}
}

// mark is the one place where conditions are marked.
func mark(obj *v1alpha1.ArtifactRepository, a attempt) {
	obj.Status.ObservedGeneration = obj.Generation
	markStorage(obj, a)
	markVerification(obj, a)
	switch {
	case a.err != nil:
		markFailure(obj, a)
	case a.plan.Action == Freeze:
		markFrozen(obj)
	default:
		settle(obj, true, v1alpha1.ReasonSucceeded, publishedMessage(obj, a))
	}
}

// markFrozen marks that nothing is done. Where nothing is published because it was
// refused before, that stays the reason: it is what a person has to put right.
func markFrozen(obj *v1alpha1.ArtifactRepository) {
	message := frozenMessage(obj)
	refused := conditions.Get(obj, v1alpha1.SourceVerifiedCondition)
	if obj.Status.Artifact == nil && refused != nil && refused.Status == metav1.ConditionFalse && refused.ObservedGeneration == obj.Generation {
		settle(obj, false, refused.Reason, message+": "+refused.Message)
		return
	}
	settle(obj, obj.Status.Artifact != nil, v1alpha1.ReasonSuspended, message)
}

// markFailure marks a failure by its reason and class.
func markFailure(obj *v1alpha1.ArtifactRepository, a attempt) {
	failure := fault.Of(a.err, v1alpha1.ReasonFetchFailed)
	message := fault.Line(failure.Error())
	subjects := a.plan.Subjects()
	if artifact := obj.Status.Artifact; artifact != nil && !a.hidden {
		message += "; still published: " + artifact.Revision
		subjects = append(subjects, artifact.Revision)
	}
	markFault(obj, failure, steady(obj, failure, message, subjects...))
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

// markFault marks a failure of anything, and who is expected to do what about it.
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

// markStorage marks whether the bytes of what is published are there.
func markStorage(obj *v1alpha1.ArtifactRepository, a attempt) {
	switch artifact := obj.Status.Artifact; {
	case artifact == nil:
		conditions.Delete(obj, v1alpha1.ArtifactInStorageCondition)
	case a.stored:
		conditions.MarkTrue(obj, v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonSucceeded, "stored: %s", artifact.Revision)
	default:
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.ArtifactInStorageCondition, v1alpha1.ReasonStorageOperationFailed,
			"the bytes of %s are missing and could not be made again yet", artifact.Revision))
	}
}

// markVerification marks whether what is published carries a signature that was
// asked for, and why the newest image does not.
func markVerification(obj *v1alpha1.ArtifactRepository, a attempt) {
	failure := fault.Of(a.err, "")
	by, warnings := publication.Latest(obj).VerifiedBy, unenforced(obj)
	switch {
	case failure != nil && failure.Reason == v1alpha1.ReasonVerificationError:
		conditions.Set(obj, conditions.FalseCondition(v1alpha1.SourceVerifiedCondition, failure.Reason, "%s", fault.Line(failure.Error())))
	case a.plan.Action == Freeze && a.judgement == nil:
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

// markProgress marks that something new is stored but not yet published.
func markProgress(obj *v1alpha1.ArtifactRepository, revision string) {
	conditions.MarkReconciling(obj, v1alpha1.ReasonProgressing, "publishing %s", revision)
	if !conditions.Has(obj, meta.ReadyCondition) || obj.Status.Artifact == nil {
		conditions.MarkUnknown(obj, meta.ReadyCondition, v1alpha1.ReasonProgressing, "publishing %s", revision)
	}
}

// leavesOutLess ends a message about a line of ignore rules.
const leavesOutLess = "; it leaves out nothing, or less than it seems to"

// publishedMessage tells the published revision in a line that fits a terminal, and all else
// that a person on call should know. The whole digest, the image and the time are fields
// of the status.
func publishedMessage(obj *v1alpha1.ArtifactRepository, a attempt) string {
	message := fmt.Sprintf("published %s as %s", shorten(obj.Status.Artifact.Revision), obj.Status.Format)
	if a.plan.Note != "" {
		message += "; " + a.plan.Note
	}
	if latest := obj.Status.LatestRef; a.plan.KeepName && latest != nil && latest.Digest == obj.Status.Record.Digest && latest.Tag != publication.Latest(obj).Tag {
		message += fmt.Sprintf("; the tag %s, which the policy picks, is the same digest", latest.Tag)
	}
	if a.plan.UnseenBuild != "" && obj.Status.Format == v1alpha1.FormatHelm {
		message += "; " + source.BuildAdvice(a.plan.UnseenBuild)
	}
	if obj.Status.Record.SettingsHash != "" {
		message += fmt.Sprintf("; the content settings (ignore, layerSelector, format, platform) take more than %d KiB, so only their hash is recorded:"+
			" lost bytes cannot be made again after the settings change; shorten them", v1alpha1.MaxSettingsBytes>>10)
	}
	if ignore := obj.Spec.Ignore; ignore != nil {
		if flaw := format.PatternFlaw("spec.ignore", *ignore); flaw != "" {
			message += "; " + flaw + leavesOutLess
		}
	}
	return message + unenforced(obj)
}

// shorten leaves 12 of the digits of the digest that ends a revision, as many as Docker shows.
func shorten(revision string) string {
	if name, digits, ok := strings.Cut(revision, "sha256:"); ok && len(digits) > 12 {
		return name + "sha256:" + digits[:12]
	}
	return revision
}

func frozenMessage(obj *v1alpha1.ArtifactRepository) string {
	what := "spec.suspend of the ImagePolicy is true"
	if obj.Spec.Suspend {
		what = "spec.suspend is true"
	}
	if artifact := obj.Status.Artifact; artifact != nil {
		return fmt.Sprintf("suspended (%s): %s stays published since %s", what, artifact.Revision, since(artifact.LastUpdateTime))
	}
	return fmt.Sprintf("suspended (%s): nothing is published", what)
}

func since(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }
