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

// Package trust decides whether an image may be published, and is the only
// place that can make the value which says so.
//
// It owns the verdict: what a demand is made of (keys, identities, roots,
// rules), where signatures are kept in a registry, when one counts, and the
// words that say why none did. It owns the constraints that a platform sets, too, as
// plain values. It knows no cluster and does not fetch content.
//
// Signatures are those of Sigstore's cosign, as bundles
// (https://docs.sigstore.dev/about/bundle/) and in the older form of
// COSIGN's SIGNATURE_SPEC.md, and those of the Notary Project.
package trust

import (
	"context"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// Repository is where signatures are read: the repository of the image, as the
// credentials of one object see it. *registry.Repository is one, and says what its
// methods do.
type Repository interface {
	Name() string
	Resolve(ctx context.Context, q registry.Query) (*registry.Manifest, error)
	Referrers(ctx context.Context, subject v1.Hash) (registry.Referrers, error)
	TaggedReferrers(ctx context.Context, subject v1.Hash) (registry.Referrers, error)
	ReadManifest(ctx context.Context, ref string) ([]byte, error)
	ReadBlob(ctx context.Context, digest v1.Hash, most int64) ([]byte, error)
	Conceal(message string) string
}

// Subject is what a verdict is about: one manifest in one repository, never a tag.
type Subject struct {
	// Repository is the canonical name of the repository.
	Repository string
	// Digest of the manifest.
	Digest v1.Hash
}

// String returns the reference as people write it: name@digest.
func (s Subject) String() string { return s.Repository + "@" + s.Digest.String() }

// Verified is the proof that a subject met every demand that was made of it.
// Its zero value proves nothing, and only a Verifier makes another.
type Verified struct {
	subject Subject
	rulings []Ruling
	// unanswered is as in VerificationError.
	unanswered error
}

// Subject returns what was verified; ok is false for the zero value.
func (v Verified) Subject() (subject Subject, ok bool) {
	return v.subject, v.subject != Subject{}
}

// By names who verified the subject; empty when no signature was demanded, or
// when the only demand was one that is allowed to fail.
func (v Verified) By() string {
	var by []string
	for _, ruling := range v.rulings {
		if ruling.Verdict == Accepted && ruling.Signer() != (Signer{}) && !ruling.Warn {
			by = append(by, ruling.String())
		}
	}
	return strings.Join(by, "; ")
}

// Rulings returns what came of each rule with its evidence, in the order of the rules;
// those that only warn may have failed.
func (v Verified) Rulings() []Ruling { return v.rulings }

// Unanswered returns why the registry gave no answer to a question that a rule
// which is allowed to fail had; nil for most.
func (v Verified) Unanswered() error { return v.unanswered }

// Verifier holds the demands that are made of one object's images.
type Verifier interface {
	// Verify returns a proof for the subject, or an error of reason
	// VerificationError. VerdictOf tells what the error means for what is
	// published already.
	Verify(ctx context.Context, subject Subject) (Verified, error)
}

// NoDemands is the Verifier of objects for which nobody demands a signature.
type NoDemands struct{}

// Verify accepts every subject and names nobody.
func (NoDemands) Verify(_ context.Context, subject Subject) (Verified, error) {
	return Verified{subject: subject}, nil
}
