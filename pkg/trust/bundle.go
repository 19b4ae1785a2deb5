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
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	sigdsse "github.com/sigstore/sigstore/pkg/signature/dsse"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	bundleType       = "application/vnd.dev.sigstore.bundle"
	minBundleVersion = "v0.3"
	// messageKind stands for a bundle without a statement.
	messageKind = "message"
)

// cosignSignature is one signature of cosign's that may be good. Only what verify
// returns is proven; the rest is what the signature says of itself, for words.
type cosignSignature interface {
	anySignature
	// verify checks everything, and returns evidence without its signer.
	verify(ctx context.Context, opts cosign.CheckOpts, digest v1.Hash) (*Evidence, error)
	// signedBy tells whether a key made the signature, of whatever.
	signedBy(key signature.Verifier) bool
	certificate() *x509.Certificate
	// statement is what the signature says, and of which digests.
	statement() (kind string, digests []string)
	// times are when the signature was made, by those who saw it.
	times() []time.Time
}

// sigstoreBundle is a signature in the form of cosign 3.
type sigstoreBundle struct {
	*bundle.Bundle

	where    Format
	cert     *x509.Certificate
	envelope *bundle.Envelope // nil when the bundle holds no statement
}

// parseBundle reads the bytes of a bundle, and adds to work the cost of both the
// reading and the verification.
func parseBundle(body []byte, where Format, work *int) (*sigstoreBundle, error) {
	body, err := unpacked(body)
	*work += workOf(body)
	if err != nil {
		return nil, err
	}
	if err := bound("the bundle", body, maxSignatureValues); err != nil {
		return nil, err
	}
	sent := &protobundle.Bundle{}
	if err := protojson.Unmarshal(body, sent); err != nil {
		return nil, err
	}
	*work += workOf(sent.GetDsseEnvelope().GetPayload()) + keyWork*(1+len(sent.GetVerificationMaterial().GetTlogEntries()))
	if err := boundContents(sent); err != nil {
		return nil, err
	}
	parsed, err := bundle.NewBundle(sent)
	if err != nil {
		return nil, err
	}
	if !parsed.MinVersion(minBundleVersion) {
		return nil, fmt.Errorf("bundles before %s are not supported", minBundleVersion)
	}
	content, err := parsed.VerificationContent()
	if err != nil {
		return nil, err
	}
	b := &sigstoreBundle{Bundle: parsed, where: where, cert: content.Certificate()}
	if parsed.GetDsseEnvelope() != nil {
		if b.envelope, err = parsed.Envelope(); err != nil {
			return nil, err
		}
	}
	return b, boundIdentity(b.cert)
}

// boundContents bounds the documents inside of a bundle, which are decoded before
// anybody knows who signed them.
func boundContents(sent *protobundle.Bundle) error {
	material := sent.GetVerificationMaterial()
	for _, entry := range material.GetTlogEntries() {
		if err := boundEntry(entry.GetCanonicalizedBody()); err != nil {
			return err
		}
		if size := len(entry.GetInclusionProof().GetCheckpoint().GetEnvelope()); size > maxCheckpoint {
			return fmt.Errorf("an entry of a log comes with a checkpoint of %d bytes, expected at most %d", size, maxCheckpoint)
		}
	}
	var certificates, stamps [][]byte
	for _, one := range append(material.GetX509CertificateChain().GetCertificates(), material.GetCertificate()) {
		certificates = append(certificates, one.GetRawBytes())
	}
	for _, one := range material.GetTimestampVerificationData().GetRfc3161Timestamps() {
		stamps = append(stamps, one.GetSignedTimestamp())
	}
	if err := errors.Join(boundCertificates(certificates...), boundStamps(stamps...)); err != nil {
		return err
	}
	envelope := sent.GetDsseEnvelope()
	// The specification of bundles demands one, and each is verified with each key.
	if count := len(envelope.GetSignatures()); count > 1 {
		return fmt.Errorf("its envelope has %d signatures, expected one", count)
	}
	// Nothing else is decoded of an envelope.
	if envelope.GetPayloadType() == bundle.IntotoMediaType {
		return bound("the statement", envelope.GetPayload(), maxStatementValues)
	}
	return nil
}

func (b *sigstoreBundle) format() Format { return b.where }

func (b *sigstoreBundle) certificate() *x509.Certificate { return b.cert }

func (b *sigstoreBundle) verify(ctx context.Context, opts cosign.CheckOpts, digest v1.Hash) (*Evidence, error) {
	want, err := hex.DecodeString(digest.Hex)
	if err != nil {
		return nil, err
	}
	result, err := cosign.VerifyNewBundle(ctx, &opts, verify.WithArtifactDigest(digest.Algorithm, want), b.Bundle)
	if err != nil {
		return nil, err
	}
	// A bundle of a bare digest has no statement, and says nothing about images.
	if result.Statement.GetPredicateType() != ctypes.CosignSignPredicateType {
		return nil, errors.New("the statement is not a signature of an image")
	}
	evidence := &Evidence{PredicateType: result.Statement.GetPredicateType(), Subjects: subjectsOf(result.Statement)}
	for _, seen := range result.VerifiedTimestamps {
		if opts.SigVerifier == nil && (evidence.SignedAt.IsZero() || seen.Timestamp.Before(evidence.SignedAt)) {
			evidence.SignedAt = seen.Timestamp
		}
	}
	return evidence, nil
}

func (b *sigstoreBundle) signedBy(key signature.Verifier) bool {
	if b.envelope == nil {
		return false
	}
	pub, err := key.PublicKey()
	if err != nil {
		return false
	}
	verifier, err := dsse.NewEnvelopeVerifier(&sigdsse.VerifierAdapter{SignatureVerifier: key, Pub: pub})
	if err != nil {
		return false
	}
	_, err = verifier.Verify(context.Background(), b.envelope.RawEnvelope()) //nolint:forbidigo // it computes, and waits for nothing
	return err == nil
}

func (b *sigstoreBundle) statement() (kind string, digests []string) {
	if b.envelope == nil {
		return messageKind, nil
	}
	statement, err := b.envelope.Statement()
	if err != nil {
		return b.envelope.RawEnvelope().PayloadType, nil
	}
	return statement.GetPredicateType(), subjectsOf(statement)
}

// subjectsOf returns the digests that a statement is about.
func subjectsOf(statement *intoto.Statement) (digests []string) {
	for _, subject := range statement.GetSubject() {
		for algorithm, value := range subject.GetDigest() {
			digests = append(digests, algorithm+":"+strings.ToLower(value))
		}
	}
	return sorted(digests)
}

func (b *sigstoreBundle) times() []time.Time {
	entries, err := b.TlogEntries()
	if err != nil {
		return nil
	}
	var times []time.Time
	for _, entry := range entries {
		if at := entry.IntegratedTime(); !at.IsZero() {
			times = append(times, at)
		}
	}
	return times
}

// unpacked undoes gzip where it was used, within maxEnvelope bytes.
func unpacked(body []byte) ([]byte, error) {
	if !bytes.HasPrefix(body, []byte{0x1f, 0x8b}) {
		return body, nil
	}
	compressed, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return limit.ReadAll(compressed, maxEnvelope)
}
