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
// It owns the verdict; it knows no cluster and does not fetch content.
package trust

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Subject is what a verdict is about: one manifest in one repository, never a tag.
type Subject struct {
	// Repository is the canonical name of the repository.
	Repository string
	// Digest of the manifest.
	Digest v1.Hash
}

// Verified is the proof that a subject met every demand that was made of it.
// Its zero value proves nothing, and only a Verifier makes another.
type Verified struct {
	subject Subject
	by      string
}

// Subject returns what was verified; ok is false for the zero value.
func (v Verified) Subject() (subject Subject, ok bool) {
	return v.subject, v.subject != Subject{}
}

// By names who verified the subject; empty when no signature was demanded.
func (v Verified) By() string { return v.by }

// Verifier holds the demands that are made of one object's images.
type Verifier interface {
	// Verify returns a proof for the subject, or an error of reason VerificationError.
	Verify(ctx context.Context, subject Subject) (Verified, error)
}

// NoDemands is the Verifier of objects for which nobody demands a signature.
type NoDemands struct{}

// Verify accepts every subject and names nobody.
func (NoDemands) Verify(_ context.Context, subject Subject) (Verified, error) {
	return Verified{subject: subject}, nil
}
