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

package publication

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/format"
)

// Kind of a change.
type Kind int

const (
	// KindKeep makes no change.
	KindKeep Kind = iota
	// KindConfirm notes that today's demands accept the published artifact.
	KindConfirm
	// KindRestore gives the published image other bytes or another address.
	KindRestore
	// KindPromote publishes another image, other content or another name.
	KindPromote
	// KindWithdraw withdraws the artifact. The ExternalArtifact stays and has the reason.
	KindWithdraw
	// KindRemove removes the artifact and the ExternalArtifact.
	KindRemove
)

// Change is the effect of a decision on the published artifact. Its zero value changes
// nothing.
type Change struct {
	kind     Kind
	accepted *Acceptance
	product  *Product
}

// Acceptance records the demands on an accepted artifact.
type Acceptance struct {
	// By names the signers; empty without a demand for signatures.
	By string
	// Fingerprint of the demands.
	Fingerprint string
	// Warnings list violations of policies in the mode Warn.
	Warnings []string
}

// Product is a built file and its origin.
type Product struct {
	bridge.Outcome
	// Settings of the content.
	Settings format.Options
	// Lender is the ImageRepository of another namespace, as namespace/name, with the
	// access that fetched the content; empty if there is no such one.
	Lender string
	// Accepted are the demands in the verification of the image; nil if it only has a new
	// name, or was accepted before.
	Accepted *Acceptance
}

// Keep returns the zero value.
func Keep() Change { return Change{} }

// Confirm returns a change that notes today's demands for the published artifact.
func Confirm(by Acceptance) Change { return Change{kind: KindConfirm, accepted: &by} }

// Promote returns the change for publishing a product.
func Promote(p Product) Change { return Change{kind: KindPromote, product: &p} }

// Restore returns the change for replacing the lost bytes of the published image by a
// product.
func Restore(p Product) Change { return Change{kind: KindRestore, product: &p} }

// Withdraw returns the change that withdraws the published artifact, which must not stay.
func Withdraw() Change { return Change{kind: KindWithdraw} }

// Remove returns the change that removes the published artifact and its ExternalArtifact,
// because the source may not have them.
func Remove() Change { return Change{kind: KindRemove} }

// Confirming returns a change that also confirms the published artifact: a judgement and a
// publication may end in one decision. Nil makes no difference.
func (c Change) Confirming(by *Acceptance) Change {
	switch {
	case by == nil || c.kind == KindWithdraw || c.kind == KindRemove:
	case c.kind == KindKeep:
		return Confirm(*by)
	default:
		c.accepted = by
	}
	return c
}

// Kind returns the kind of the change.
func (c Change) Kind() Kind { return c.kind }

// Product returns the file of a change; nil without one.
func (c Change) Product() *Product { return c.product }

// Apply returns the status after a change. It does not modify its arguments.
func Apply(status v1alpha1.ArtifactRepositoryStatus, c Change) v1alpha1.ArtifactRepositoryStatus {
	after := *status.DeepCopy()
	switch c.kind {
	case KindKeep:
		return after
	case KindWithdraw:
		after, _ = Clear(after)
		return after
	case KindRemove:
		after, _ = Clear(after)
		after.LatestRef = nil
		return after
	case KindConfirm, KindRestore, KindPromote:
	}
	if c.accepted != nil && after.Artifact != nil {
		confirm(&after, *c.accepted)
	}
	if c.product != nil {
		produce(&after, *c.product, c.kind == KindPromote && c.product.Accepted != nil)
	}
	return after
}

func confirm(status *v1alpha1.ArtifactRepositoryStatus, by Acceptance) {
	status.ObservedTrust, status.TrustWarnings = by.Fingerprint, by.Warnings
	if len(status.History) > 0 {
		status.History[0].VerifiedBy = by.By
	}
	delete(status.Artifact.Metadata, v1alpha1.MetadataVerifiedBy)
	if by.By != "" {
		metadata := map[string]string{v1alpha1.MetadataVerifiedBy: by.By}
		maps.Copy(metadata, status.Artifact.Metadata)
		status.Artifact.Metadata = metadata
	}
}

// produce writes artifact, recipe and history of a product. A new name and rebuilt bytes are
// not new content.
func produce(status *v1alpha1.ArtifactRepositoryStatus, p Product, isNewContent bool) {
	if !isRecorded(*status) { // without a recipe it cannot be judged or built again
		*status, _ = Clear(*status)
	}
	if !status.Artifact.HasRevision(p.Artifact.Revision) || !status.Artifact.HasDigest(p.Artifact.Digest) {
		Retire(status)
		status.History = slices.Insert(status.History, 0, v1alpha1.Publication{
			Revision:    p.Artifact.Revision,
			Tag:         p.Image.Tag,
			Digest:      p.Image.Digest.String(),
			Format:      p.Format,
			VerifiedBy:  p.VerifiedBy,
			PublishedAt: p.Artifact.LastUpdateTime,
		})
		status.History = status.History[:min(len(status.History), v1alpha1.MaxHistory)]
	}
	status.Artifact = p.Artifact.DeepCopy()
	digest, _ := FileDigest(status.Artifact) // it was accepted again, if it was withdrawn
	status.Withdrawn = slices.DeleteFunc(status.Withdrawn, func(withdrawn string) bool { return withdrawn == digest })
	status.Format, status.ObservedContent = p.Format, p.Content
	if p.Accepted != nil {
		status.ObservedTrust, status.TrustWarnings = p.Accepted.Fingerprint, p.Accepted.Warnings
	}
	status.Record = Shorten(recipe(p, status.Record, isNewContent), p.Content, v1alpha1.MaxSettingsBytes)
}

// recipe returns the recipe of a product, which follows the recipe before, if any.
func recipe(p Product, before *v1alpha1.Recipe, isNewContent bool) *v1alpha1.Recipe {
	r := &v1alpha1.Recipe{
		Image: p.Image.Repository, Digest: p.Image.Digest.String(), ImageRepository: p.Lender,
		Format: p.Settings.Format, Platform: p.Settings.Platform, LayerSelector: p.Settings.LayerSelector, Ignore: p.Settings.Ignore,
		ArchiveVersion: format.ArchiveVersion,
	}
	if p.Accepted != nil {
		r.Size = p.Bytes
	}
	if before != nil && !isNewContent {
		r.ImageRepository = before.ImageRepository // the access that fetched the content
		r.Size = cmp.Or(r.Size, before.Size)
	}
	return r
}

// Clear returns a status without the published artifact, and the names of the cleared
// fields. The history stays. The status lists the file as withdrawn: a replica that missed
// the withdrawal would treat it as merely superseded.
func Clear(status v1alpha1.ArtifactRepositoryStatus) (after v1alpha1.ArtifactRepositoryStatus, removed []string) {
	after = *status.DeepCopy()
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
	if digest, ok := FileDigest(status.Artifact); ok {
		after.Withdrawn = slices.Insert(after.Withdrawn, 0, digest)
		after.Withdrawn = after.Withdrawn[:min(len(after.Withdrawn), v1alpha1.MaxWithdrawn)]
	}
	after.Artifact, after.Record, after.Format = nil, nil, ""
	after.ObservedContent, after.ObservedTrust, after.TrustWarnings = "", "", nil
	return after, removed
}

// Restates reports whether an outcome equals the record: the same bytes, built again after a
// loss. No user needs to hear about it.
func Restates(obj *v1alpha1.ArtifactRepository, out bridge.Outcome) bool {
	recorded, made := obj.Status.Artifact, out.Artifact
	if Current(obj) == nil || obj.Status.ObservedContent != out.Content {
		return false
	}
	made.LastUpdateTime = recorded.LastUpdateTime
	return equality.Semantic.DeepEqual(*recorded, made)
}
