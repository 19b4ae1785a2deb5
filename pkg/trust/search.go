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

package trust

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	// maxSignatures bounds how many signatures of one kind are looked at.
	maxSignatures = 50
	// maxWork bounds the cost of that, in bytes of JSON that are decoded, at some 25 ns
	// each. Three signatures of the largest size stay below.
	maxWork = 32 << 20
	// valueWork is the cost of a JSON value beyond its bytes, keyWork one key that
	// something is verified with, and envelopeWork a byte of an envelope of the Notary
	// Project, which its library decodes several times.
	valueWork, keyWork, envelopeWork = 50, 128 << 10, 4
)

// workOf is the cost to decode a document: all but the first value of a list or
// an object follow a comma.
func workOf(document []byte) int {
	return len(document) + valueWork*bytes.Count(document, []byte(","))
}

const (
	// legacyReferrerType is the artifactType of a legacy signature that cosign stores
	// with --registry-referrers-mode=oci-1-1.
	legacyReferrerType = "application/vnd.dev.cosign.artifact.sig.v1+json"
	// legacyReferrer describes such a signature.
	legacyReferrer = "a legacy cosign signature that is stored as a referrer, which is not read: " +
		"sign with cosign 3 or flux bundle, or without --registry-referrers-mode"
)

// anySignature is one signature of the subject, of any kind.
type anySignature interface {
	format() Format
	// describe returns what the signature says of itself, of which nothing is proven.
	describe() (Sighting, error)
}

// kind is whom a signature is for.
type kind int

const (
	forCosign kind = 1 << iota
	forNotation

	forBoth = forCosign | forNotation
)

// search reads the signatures of one subject, wherever they are kept, and shows
// each to the authorities that still need one.
type search struct {
	repository Repository
	subject    Subject
	rules      []*ruleEvaluation
	seen       map[string]bool // entries of lists, and manifests of legacy signatures
	opened     map[kind]int
	work       map[kind]int        // see maxWork
	shown      bool                // the registry has shown a manifest of the repository
	target     *ocispec.Descriptor // once it was asked for
}

// run looks everywhere, until no rule needs more. What cannot be read is
// unknown to whom it would matter, and keeps nobody from the rest.
func (s *search) run(ctx context.Context) {
	s.opened, s.work = map[kind]int{}, map[kind]int{}
	if s.needs() == 0 {
		return
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		// Somebody else took the time, which is not to be held against the registry.
		s.note(forBoth, errors.New("there was no time left to look for signatures"))
		return
	}
	places := []func(context.Context) (read bool){
		s.listed(s.repository.Referrers, BundleReferrer), s.listed(s.repository.TaggedReferrers, BundleTag), s.legacy,
	}
	// One answer without a good signature may come from a proxy, or from one server of
	// many that lags behind, so before an image is rejected each place is read again.
	unmet := func(e *ruleEvaluation) bool { return !e.met() }
	for range 2 {
		if !slices.ContainsFunc(s.rules, unmet) {
			return
		}
		places = slices.DeleteFunc(places, func(look func(context.Context) bool) bool { return s.needs() == 0 || !look(ctx) })
	}
}

// listed looks at a list of referrers: that which the registry keeps, or that under the
// fallback tag.
func (s *search) listed(referrers func(context.Context, v1.Hash) (registry.Referrers, error), where Format) func(context.Context) (read bool) {
	return func(ctx context.Context) bool {
		list, err := referrers(ctx, s.subject.Digest)
		s.note(forBoth, err)
		s.referrers(ctx, list.Entries, where)
		return err == nil
	}
}

// prove asks whether the registry shows the subject itself, where nothing else
// tells a subject without signatures from a registry that hides, or has lost for
// a while, all that is in the repository.
func (s *search) prove(ctx context.Context) {
	doubtful := false
	s.each(forBoth, func(a *authorityEvaluation) { doubtful = doubtful || len(a.unknown) == 0 })
	if s.shown || !doubtful {
		return
	}
	_, err := s.repository.ReadManifest(ctx, s.subject.Digest.String())
	s.note(forBoth, err)
}

// needs tells which kinds of signatures are still of use.
func (s *search) needs() (needed kind) {
	s.each(forBoth, func(a *authorityEvaluation) { needed |= a.judge.reads() })
	return needed
}

// each calls do for every authority that needs signatures of a kind.
func (s *search) each(of kind, do func(*authorityEvaluation)) {
	for _, e := range s.rules {
		if e.done() {
			continue
		}
		for _, a := range e.authorities {
			if a.judge != nil && a.judge.reads()&of != 0 {
				do(a)
			}
		}
	}
}

func (s *search) note(of kind, err error) {
	if err != nil {
		s.each(of, func(a *authorityEvaluation) { a.unknown = append(a.unknown, err) })
	}
}

// report notes a signature that is not one.
func (s *search) report(of kind, format string, args ...any) {
	what := foundf(Malformed, format, args...)
	s.each(of, func(a *authorityEvaluation) { a.found = append(a.found, what) })
}

// show parses a signature of a format and shows it.
func (s *search) show(ctx context.Context, of kind, in Format, parse func() (anySignature, error)) {
	one, err := guarded(parse)
	if err != nil {
		s.report(of, "a %s that cannot be read: %s", in, fault.WordsOf(err))
		return
	}
	s.each(of, func(a *authorityEvaluation) { a.evaluate(ctx, one) })
}

// referrers opens those of the listed manifests that may be signatures, the
// likely ones first.
func (s *search) referrers(ctx context.Context, listed []registry.Referrer, where Format) {
	slices.SortStableFunc(listed, func(a, b registry.Referrer) int { return cmp.Compare(rank(a), rank(b)) })
	for _, descriptor := range listed {
		key := keyOf(descriptor)
		if s.seen[key] {
			continue
		}
		s.seen[key] = true
		if descriptor.Malformed != "" {
			s.report(forBoth, "%s", descriptor.Malformed)
			continue
		}
		of := kindOf(descriptor) & s.needs()
		if of == 0 {
			s.pass(descriptor)
			continue
		}
		if err := ctx.Err(); err != nil {
			s.note(of, fmt.Errorf("there was no time to read all signatures: %w", err))
			return
		}
		if of = s.spend(of); of == 0 {
			continue
		}
		if err := s.open(ctx, descriptor, of, where); err != nil {
			s.note(of, err)
		}
	}
}

// pass names the kind of a referrer that is not read, where a person may take it for the
// signature that is missing.
func (s *search) pass(d registry.Referrer) {
	if d.ArtifactType == legacyReferrerType {
		s.report(forCosign, "%s", legacyReferrer)
	} else {
		s.mismatch(kindOf(d))
	}
}

// mismatch says that a signature is of another kind than is wanted.
func (s *search) mismatch(is kind) {
	switch is {
	case forNotation:
		s.report(forCosign, "a signature of Notation, where one of cosign is expected")
	case forCosign:
		s.report(forNotation, "a Sigstore bundle, where a signature of Notation is expected")
	}
}

// spend returns those of the kinds that may have another signature looked at.
func (s *search) spend(of kind) (left kind) {
	for _, one := range []kind{forCosign, forNotation} {
		if of&one == 0 {
			continue
		}
		s.opened[one]++
		switch {
		case s.opened[one] <= maxSignatures && s.work[one] <= maxWork:
			left |= one
		case s.opened[one] <= maxSignatures:
			s.opened[one] = maxSignatures + 1
			s.note(one, fmt.Errorf("%s has signatures that together are too large to read them all", s.subject.Digest))
		case s.opened[one] == maxSignatures+1:
			s.note(one, fmt.Errorf("%s has more than %d referrers that may be signatures, too many to read them all", s.subject.Digest, maxSignatures))
		}
	}
	return left
}

// rank puts signatures before attestations, and these before the rest, which
// may be anything.
func rank(d registry.Referrer) int {
	switch {
	case d.ArtifactType == notationType:
		return 0
	case d.Annotations.Predicate == ctypes.CosignSignPredicateType:
		return 0
	case strings.HasPrefix(d.ArtifactType, bundleType):
		return 1
	default:
		return 2
	}
}

// keyOf identifies an entry of a list by what it says. Another list may call the same
// manifest a signature.
func keyOf(d registry.Referrer) string { return fmt.Sprint(d.Digest, kindOf(d), d.Malformed) }

// kindOf tells what a listed manifest may be. Registries that do not know the
// field artifactType of a manifest list the media type of its config.
func kindOf(d registry.Referrer) kind {
	switch {
	case d.ArtifactType == notationType:
		return forNotation
	case strings.HasPrefix(d.ArtifactType, bundleType):
		return forCosign
	}
	switch d.ArtifactType {
	case "", ocispec.MediaTypeEmptyJSON, ocispec.MediaTypeImageConfig:
		return forBoth
	default:
		return 0
	}
}

// open reads one signature and shows it. What it returns could not be read.
func (s *search) open(ctx context.Context, descriptor registry.Referrer, of kind, where Format) error {
	if descriptor.Digest.Algorithm != "sha256" {
		s.report(of, "a referrer without a sha256 digest")
		return nil
	}
	body, err := s.repository.ReadManifest(ctx, descriptor.Digest.String())
	if errors.Is(err, registry.ErrNotFound) {
		s.report(of, "a referrer that the registry lists and does not have")
		return nil
	}
	if err != nil {
		return err
	}
	s.shown = true
	for _, one := range []kind{forCosign, forNotation} {
		s.work[of&one] += workOf(body)
	}
	m := manifest{}
	if err := m.decode(body); err != nil {
		s.report(of, "a referrer that is not a manifest: %s", fault.WordsOf(err))
		return nil
	}
	isBundle := len(m.Layers) == 1 && strings.HasPrefix(string(m.Layers[0].MediaType), bundleType)
	isNotation := m.ArtifactType == notationType || m.Config.MediaType == notationType
	switch {
	case isBundle && of&forCosign != 0:
		return s.openBundle(ctx, m.Layers[0], where)
	case isNotation && of&forNotation != 0:
		return s.openNotation(ctx, m)
	case isBundle:
		s.mismatch(forCosign)
	case isNotation:
		s.mismatch(forNotation)
	case of&forCosign != 0 && slices.ContainsFunc(m.Layers, func(l v1.Descriptor) bool { return l.MediaType == ctypes.SimpleSigningMediaType }):
		s.report(forCosign, "%s", legacyReferrer)
	case kindOf(descriptor) != forBoth: // it was listed as a signature
		s.report(of, "a signature whose manifest does not hold one")
	}
	return nil
}

// envelope reads the blob that a signature is in. ok is false when that was
// reported, or could not be done.
func (s *search) envelope(ctx context.Context, of kind, layer v1.Descriptor) (body []byte, ok bool, err error) {
	if layer.Size > maxEnvelope || layer.Size < 0 {
		s.report(of, "a signature of %d bytes, of which at most %d are read", layer.Size, maxEnvelope)
		return nil, false, nil
	}
	if layer.Digest.Algorithm != "sha256" {
		s.report(of, "a signature without a sha256 digest")
		return nil, false, nil
	}
	body, err = s.repository.ReadBlob(ctx, layer.Digest, maxEnvelope)
	if errors.Is(err, registry.ErrNotFound) {
		s.report(of, "a signature that the registry lists and does not have")
		return nil, false, nil
	}
	return body, err == nil, err
}

func (s *search) openBundle(ctx context.Context, layer v1.Descriptor, where Format) error {
	body, ok, err := s.envelope(ctx, forCosign, layer)
	if !ok {
		return err
	}
	s.show(ctx, forCosign, where, func() (anySignature, error) {
		work := 0
		defer func() { s.work[forCosign] += work }()
		return parseBundle(body, where, &work)
	})
	return nil
}

func (s *search) openNotation(ctx context.Context, m manifest) error {
	if len(m.Layers) != 1 || !isEnvelope(m.Layers[0]) {
		s.report(forNotation, "a Notation signature whose manifest does not hold one JWS or COSE envelope")
		return nil
	}
	body, ok, err := s.envelope(ctx, forNotation, m.Layers[0])
	if !ok {
		return err
	}
	s.work[forNotation] += envelopeWork*workOf(body) + keyWork
	target, err := s.describe(ctx)
	if err != nil {
		return err
	}
	found := &notationSignature{envelope: body, mediaType: string(m.Layers[0].MediaType), target: target}
	s.show(ctx, forNotation, found.format(), func() (anySignature, error) { return found, boundEnvelope(found) })
	return nil
}

// describe returns the subject's descriptor, which a Notation signature signs
// with its size and media type.
func (s *search) describe(ctx context.Context) (ocispec.Descriptor, error) {
	if s.target != nil {
		return *s.target, nil
	}
	described, err := s.repository.Resolve(ctx, registry.Query{Digest: s.subject.Digest})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	s.target = &ocispec.Descriptor{MediaType: string(described.MediaType), Digest: digest.Digest(s.subject.Digest.String()), Size: int64(len(described.Body))}
	return *s.target, nil
}

// legacy looks at the signatures under the tag of cosign 1 and 2.
func (s *search) legacy(ctx context.Context) (read bool) {
	if s.needs()&forCosign == 0 {
		return false
	}
	body, err := s.repository.ReadManifest(ctx, legacyTag(s.subject.Digest))
	if errors.Is(err, registry.ErrNotFound) {
		return true
	}
	if sum := bytesPrint(body); err == nil && !s.seen[sum] {
		s.seen[sum] = true
		err = s.openLegacies(ctx, body)
	}
	s.note(forCosign, err)
	return err == nil
}

func (s *search) openLegacies(ctx context.Context, body []byte) error {
	s.shown = true
	m := manifest{}
	switch err := m.decode(body); {
	case exceeds(err):
		return err
	case err != nil || len(m.Layers) == 0:
		s.report(forCosign, "a tag for legacy cosign signatures that does not hold any")
		return nil //nolint:nilerr // it was reported
	}
	var failed error
	delete(s.work, forCosign) // bundles hide no legacy signature
	for i, layer := range m.Layers {
		switch {
		case s.needs()&forCosign == 0:
			return nil
		case i >= maxSignatures:
			return errors.Join(failed, fmt.Errorf("%s has more than %d legacy cosign signatures, too many to read them all", s.subject.Digest, maxSignatures))
		case s.work[forCosign] > maxWork:
			return errors.Join(failed, fmt.Errorf("%s has legacy cosign signatures that together are too large to read them all", s.subject.Digest))
		case ctx.Err() != nil:
			return errors.Join(failed, fmt.Errorf("there was no time to read all signatures: %w", ctx.Err()))
		}
		if err := s.openLegacy(ctx, layer); err != nil {
			failed = err
		}
	}
	return failed
}

func (s *search) openLegacy(ctx context.Context, layer v1.Descriptor) error {
	body, ok, err := s.envelope(ctx, forCosign, layer)
	if !ok {
		return err
	}
	s.work[forCosign] += workOf(body) + keyWork
	s.show(ctx, forCosign, Legacy, func() (anySignature, error) { return parseLegacy(body, layer.Annotations) })
	return nil
}
