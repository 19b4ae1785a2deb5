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
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	ctypes "github.com/sigstore/cosign/v3/pkg/types"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Sighting is a signature as it describes itself. Nothing of it is verified:
// whoever may write to the repository may have written it.
type Sighting struct {
	// Format in which it is kept; empty for what cannot be read.
	Format Format
	// Key is the sha256 of the public key (of its PKIX encoding), in hexadecimal,
	// where a bundle hints at it in the way of cosign, and else the hint itself.
	// Legacy signatures hint at no key.
	Key string
	// Subject and Issuer are those of the certificate that comes with it, as in
	// Signer.
	Subject, Issuer string
	// Predicate is the type of what it states, such as that of an attestation.
	// It is empty for a signature, which states that the image is signed.
	Predicate string
	// Digests are those of the images that it is about.
	Digests []string
	// Times are when it was made, as a log or the signer says it, but for those that
	// RFC 3339 has no form for: an encoder would refuse all that is encoded with one.
	Times []time.Time
	// Malformed says why it cannot be read.
	Malformed string
}

// Look lists the signatures and attestations of a subject, wherever a Verifier
// would look for them, and within the same bounds. It verifies nothing.
//
// The error says what could not be read. The list is of what could.
func Look(ctx context.Context, repository Repository, subject Subject) ([]Sighting, error) {
	seen := &inspector{}
	watching := &authorityEvaluation{judge: seen}
	search := &search{
		repository: repository, subject: subject, seen: map[string]bool{},
		rules: []*ruleEvaluation{{authorities: []*authorityEvaluation{watching}}},
	}
	search.run(ctx)
	for _, what := range watching.found {
		seen.sightings = append(seen.sightings, Sighting{Malformed: repository.Conceal(what.words)})
	}
	if err := errors.Join(watching.unknown...); err != nil {
		return seen.sightings, errors.New(repository.Conceal(err.Error()))
	}
	return seen.sightings, nil
}

// inspector is a judge who looks at every signature and has no opinion.
type inspector struct{ sightings []Sighting }

func (i *inspector) reads() kind { return forBoth }

func (i *inspector) judge(_ context.Context, s anySignature) (*Evidence, *found, error) {
	sighting, err := guarded(s.describe)
	if err != nil {
		return nil, foundf(Malformed, "a signature that cannot be read: %s", fault.WordsOf(err)), nil
	}
	sighting.Times = slices.DeleteFunc(sighting.Times, func(at time.Time) bool {
		_, err := at.MarshalText()
		return err != nil
	})
	i.sightings = append(i.sightings, sighting)
	return nil, nil, nil
}

func (s *legacySignature) describe() (Sighting, error) { return describe(s), nil }

func (b *sigstoreBundle) describe() (Sighting, error) {
	s := describe(b)
	s.Key = b.keyHint()
	return s, nil
}

func describe(c cosignSignature) Sighting {
	s := Sighting{Format: c.format(), Times: c.times()}
	if s.Predicate, s.Digests = c.statement(); s.Predicate == ctypes.CosignSignPredicateType {
		s.Predicate = ""
	}
	if cert := c.certificate(); cert != nil {
		issuer, subjects := identityOf(cert)
		s.Issuer, s.Subject = issuer, strings.Join(subjects, ", ")
	}
	return s
}

// keyHint returns what a bundle says of the key that signed it.
func (b *sigstoreBundle) keyHint() string {
	content, err := b.VerificationContent()
	if err != nil || content.PublicKey() == nil {
		return ""
	}
	hint := content.PublicKey().Hint()
	// cosign hints by the sha256 of the key.
	if sum, err := base64.StdEncoding.DecodeString(hint); err == nil && len(sum) == 32 {
		return hex.EncodeToString(sum)
	}
	return hint
}

func (n *notationSignature) describe() (Sighting, error) {
	s := Sighting{Format: n.format()}
	content, err := n.content()
	if err != nil {
		return s, err
	}
	if chain := content.SignerInfo.CertificateChain; len(chain) > 0 {
		s.Subject, s.Issuer = chain[0].Subject.String(), chain[0].Issuer.String()
	}
	if at := content.SignerInfo.SignedAttributes.SigningTime; !at.IsZero() {
		s.Times = []time.Time{at}
	}
	signed, err := signedDigest(content.Payload.Content)
	if err != nil {
		return s, err
	}
	s.Digests = []string{signed.String()}
	return s, nil
}
