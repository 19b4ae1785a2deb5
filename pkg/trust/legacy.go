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
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	rekor "github.com/sigstore/cosign/v3/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v3/pkg/oci"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// legacySignature is a signature in the form of cosign 1 and 2: a payload, and
// all the rest in the annotations of its descriptor.
type legacySignature struct {
	oci.Signature

	payload []byte
	raw     []byte
	cert    *x509.Certificate // nil when the signer used a key
	log     *rekor.RekorBundle
	stamped bool // it comes with a signed timestamp
}

// parseLegacy reads one layer of a signature manifest.
func parseLegacy(body []byte, annotations map[string]string) (*legacySignature, error) {
	encoded, ok := annotations[static.SignatureAnnotationKey]
	if !ok {
		return nil, fmt.Errorf("it has no annotation %s", static.SignatureAnnotationKey)
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	if err := bound("the payload", body, maxSignatureValues); err != nil {
		return nil, err
	}
	s := &legacySignature{payload: body, raw: raw}
	var options []static.Option
	if text := annotations[static.CertificateAnnotationKey]; text != "" {
		if err := boundCertificates([]byte(text), []byte(annotations[static.ChainAnnotationKey])); err != nil {
			return nil, err
		}
		certificates, err := cryptoutils.LoadCertificatesFromPEM(strings.NewReader(text))
		if err != nil || len(certificates) == 0 {
			return nil, errors.New("its certificate cannot be read")
		}
		s.cert = certificates[0]
		if err := boundIdentity(s.cert); err != nil {
			return nil, err
		}
		options = append(options, static.WithCertChain([]byte(text), []byte(annotations[static.ChainAnnotationKey])))
	}
	if text := annotations[static.BundleAnnotationKey]; text != "" {
		if s.log, err = parseLogEntry([]byte(text)); err != nil {
			return nil, fmt.Errorf("its log entry cannot be read: %w", err)
		}
		options = append(options, static.WithBundle(s.log))
	}
	if text := annotations[static.RFC3161TimestampAnnotationKey]; text != "" {
		timestamp := &rekor.RFC3161Timestamp{}
		if err := decodeBound("the timestamp", []byte(text), timestamp); err != nil {
			return nil, fmt.Errorf("its timestamp cannot be read: %w", err)
		}
		if err := boundStamps(timestamp.SignedRFC3161Timestamp); err != nil {
			return nil, err
		}
		s.stamped = len(timestamp.SignedRFC3161Timestamp) > 0
		options = append(options, static.WithRFC3161Timestamp(timestamp))
	}
	s.Signature, err = static.NewSignature(body, encoded, options...)
	return s, err
}

// parseLogEntry reads an entry of a log and bounds its body, which is base64 of
// JSON that is decoded before anybody knows who signed it.
func parseLogEntry(text []byte) (*rekor.RekorBundle, error) {
	entry := &rekor.RekorBundle{}
	if err := decodeBound("the entry", text, entry); err != nil {
		return nil, err
	}
	encoded, ok := entry.Payload.Body.(string)
	if !ok {
		return nil, errors.New("its body is not a string")
	}
	body, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("its body is not base64: %w", err)
	}
	return entry, boundEntry(body)
}

func (s *legacySignature) format() Format { return Legacy }

func (s *legacySignature) certificate() *x509.Certificate { return s.cert }

func (s *legacySignature) verify(ctx context.Context, opts cosign.CheckOpts, digest v1.Hash) (*Evidence, error) {
	// Without it, a signature of any other image would do.
	opts.ClaimVerifier = cosign.SimpleClaimVerifier
	// Without a timestamp, a certificate that lives for minutes would be judged
	// by the clock of now.
	if opts.UseSignedTimestamps && !s.stamped {
		return nil, errors.New("it has no signed timestamp")
	}
	logged, err := cosign.VerifyImageSignature(ctx, s.Signature, digest, &opts)
	if err != nil {
		return nil, err
	}
	evidence := &Evidence{Subjects: []string{digest.String()}}
	switch {
	case opts.SigVerifier != nil:
	case logged:
		evidence.SignedAt = time.Unix(s.log.Payload.IntegratedTime, 0)
	default:
		// It was verified; cosign does not return its time.
		stamp, err := cosign.VerifyRFC3161Timestamp(s.Signature, &opts)
		if err != nil {
			return nil, err
		}
		evidence.SignedAt = stamp.Time
	}
	return evidence, nil
}

func (s *legacySignature) signedBy(key signature.Verifier) bool {
	return key.VerifySignature(bytes.NewReader(s.raw), bytes.NewReader(s.payload)) == nil
}

func (s *legacySignature) statement() (kind string, digests []string) {
	claim := &payload.SimpleContainerImage{}
	if json.Unmarshal(s.payload, claim) != nil || claim.Critical.Image.DockerManifestDigest == "" {
		return "another payload", nil
	}
	return "", []string{claim.Critical.Image.DockerManifestDigest}
}

func (s *legacySignature) times() []time.Time {
	if s.log == nil {
		return nil
	}
	return []time.Time{time.Unix(s.log.Payload.IntegratedTime, 0)}
}

// HasLegacy tells whether a legacy signature, in base64, is among those of a digest
// that a Verifier reads.
func HasLegacy(ctx context.Context, repository Repository, digest v1.Hash, encoded string) (bool, error) {
	body, err := repository.ReadManifest(ctx, legacyTag(digest))
	m := manifest{}
	if errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	if err != nil || m.decode(body) != nil {
		return false, err
	}
	return slices.ContainsFunc(m.Layers[:min(len(m.Layers), maxSignatures)], func(layer v1.Descriptor) bool {
		return layer.Annotations[static.SignatureAnnotationKey] == encoded
	}), nil
}

// legacyTag is the tag for the legacy signatures of a digest (COSIGN's SIGNATURE_SPEC.md).
func legacyTag(digest v1.Hash) string { return registry.FallbackTag(digest) + ".sig" }
