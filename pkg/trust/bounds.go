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
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/veraison/go-cose"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// How much is decoded of a signature before anybody knows who made it.
const (
	// maxEnvelope bounds a bundle, a payload or a signature, in bytes, as it is sent and
	// again unpacked.
	maxEnvelope = 4 << 20
	// maxSignatureValues bounds a bundle, a payload or an envelope, in JSON values;
	// those that tools write have some hundreds.
	maxSignatureValues = 20_000
	// maxStatementValues bounds a statement: that of an attestation may hold a bill
	// of materials.
	maxStatementValues = 100_000
	// maxEntryValues bounds an entry of a log, in JSON values: one with ten signatures
	// stays below. The decoder verifies each signature in an entry with each key in it.
	maxEntryValues = 100
	// maxCheckpoint bounds the checkpoint of a log that comes with an entry, in bytes:
	// one with the signatures of 50 witnesses stays below. A checkpoint is public, and
	// an attacker who repeats its good signature has each of them verified.
	maxCheckpoint = 16 << 10
	// maxCertificates bounds the certificates that come with one signature, and
	// maxCertificateBytes their size together.
	maxCertificates     = 16
	maxCertificateBytes = 64 << 10
	// maxStamps bounds the timestamps that come with one signature, and maxStampBytes
	// each of them: a timestamp holds certificates, too.
	maxStamps     = 4
	maxStampBytes = 16 << 10
	// maxHeaderValues bounds the protected header of a JWS, in JSON values, maxHeaders
	// that of a COSE, and the headers that it calls critical. Decoders look for each
	// header among these.
	maxHeaderValues = 500
	maxHeaders      = 100
	// maxCOSE bounds an envelope that is not JSON, in bytes: every two of them may become
	// a map, which takes 320 bytes. One with as many certificates as are read and a timestamp
	// stays below.
	maxCOSE = 128 << 10
)

// bound refuses a JSON object of more values than are read.
func bound(name string, document []byte, values int) error {
	_, err := limit.JSON{Values: values}.Scan(name, document)
	return err
}

// decodeBound decodes a JSON object of at most maxSignatureValues.
func decodeBound(name string, document []byte, into any) error {
	if err := bound(name, document, maxSignatureValues); err != nil {
		return err
	}
	return json.Unmarshal(document, into)
}

// boundEntry bounds an entry of a log, and refuses those that tools for images do not
// write: the decoders of some other kinds verify signatures with keys in many formats.
// It refuses proposals, too. A log stores hashes in place of the envelope that was
// proposed, and a decoder verifies all signatures in such an envelope with all keys.
func boundEntry(body []byte) error {
	if err := bound("an entry of a log", body, maxEntryValues); err != nil {
		return err
	}
	var entry struct {
		Kind string         `json:"kind"`
		Spec map[string]any `json:"spec"`
	}
	if err := json.Unmarshal(body, &entry); err != nil {
		return err
	}
	if proposes(entry.Spec) {
		return errors.New("an entry of a log holds the envelope that was proposed, expected its hash")
	}
	if !slices.Contains([]string{"hashedrekord", "dsse", "intoto"}, entry.Kind) {
		return fmt.Errorf("an entry of a log is of the kind %s, which is not supported", fault.Quote(entry.Kind))
	}
	return limit.Keys(body)
}

// proposes tells whether an entry of a log has an envelope in a field from which a
// decoder reads one: proposedContent in dsse 0.0.1, envelope in intoto 0.0.1, and the
// payload of envelope in intoto 0.0.2. Decoders look for these names in this case.
func proposes(spec map[string]any) bool {
	content, _ := spec["content"].(map[string]any)
	envelope, _ := content["envelope"].(map[string]any)
	_, whole := content["envelope"].(string)
	return spec["proposedContent"] != nil || whole || envelope["payload"] != nil
}

// boundCertificates bounds encoded certificates, in DER or PEM, that come with a
// signature.
func boundCertificates(encoded ...[]byte) error {
	if len(encoded) > maxCertificates {
		return fmt.Errorf("it comes with %d certificates, expected at most %d", len(encoded), maxCertificates)
	}
	size := 0
	for _, one := range encoded {
		if size += len(one); size > maxCertificateBytes {
			return fmt.Errorf("its certificates have more than %d bytes", maxCertificateBytes)
		}
		if err := limit.Keys(one); err != nil {
			return fmt.Errorf("its certificates hold %w", err)
		}
	}
	return nil
}

// boundStamps bounds signed timestamps (RFC 3161) that come with a signature.
func boundStamps(stamps ...[]byte) error {
	if len(stamps) > maxStamps {
		return fmt.Errorf("it comes with %d timestamps, expected at most %d", len(stamps), maxStamps)
	}
	for _, stamp := range stamps {
		if len(stamp) > maxStampBytes {
			return fmt.Errorf("its timestamp has %d bytes, expected at most %d", len(stamp), maxStampBytes)
		}
		if err := limit.Keys(stamp); err != nil {
			return fmt.Errorf("its timestamp holds %w", err)
		}
	}
	return nil
}

// boundIdentity bounds the values in a certificate that expressions are matched with.
func boundIdentity(certificate *x509.Certificate) error {
	if certificate == nil {
		return nil
	}
	issuer, subjects := identityOf(certificate)
	if len(subjects) > maxSubjects {
		return fmt.Errorf("its certificate is for %d subjects, expected at most %d", len(subjects), maxSubjects)
	}
	for _, value := range append(subjects, issuer) {
		if len(value) > maxIdentityValue {
			return fmt.Errorf("its certificate has an issuer or a subject of %d bytes, expected at most %d", len(value), maxIdentityValue)
		}
	}
	return limit.Certificates(certificate)
}

// exceeds tells whether an error is about more than what is read.
func exceeds(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == v1alpha1.ReasonLimitExceeded
}

// manifest is what is read of the manifest of a signature.
type manifest struct {
	ArtifactType string `json:"artifactType"`
	Config       struct {
		MediaType string `json:"mediaType"`
	} `json:"config"`
	Layers layers `json:"layers"`
}

// layers are the layers of a manifest. A descriptor that cannot be decoded is empty,
// so that it hides no other.
type layers []v1.Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (l *layers) UnmarshalJSON(text []byte) error {
	var all []json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	for _, one := range all {
		var descriptor v1.Descriptor
		if json.Unmarshal(one, &descriptor) != nil {
			descriptor = v1.Descriptor{}
		}
		*l = append(*l, descriptor)
	}
	return nil
}

func (m *manifest) decode(body []byte) error {
	if _, err := limit.Manifest().Scan("the manifest", body); err != nil {
		return err
	}
	return json.Unmarshal(body, m)
}

// boundEnvelope bounds an envelope of the Notary Project and what is inside. It comes
// before the decoder, which verifies the certificates with each other.
func boundEnvelope(n *notationSignature) error {
	read := partsOfCOSE
	if n.mediaType == jws.MediaTypeEnvelope {
		read = partsOfJWS
	}
	chain, stamp, err := read(n.envelope)
	if err != nil {
		return err
	}
	if err := cmp.Or(boundCertificates(chain...), boundStamps(stamp)); err != nil {
		return err
	}
	content, err := n.content()
	if err != nil {
		return err
	}
	if content.Payload.ContentType != payloadType { // whatever it is, that is said of it
		return nil
	}
	return bound("the payload", content.Payload.Content, maxSignatureValues)
}

// partsOfJWS returns the parts of an envelope that decoders verify with.
func partsOfJWS(envelope []byte) (chain [][]byte, stamp []byte, err error) {
	var sent struct {
		Payload   string `json:"payload"`
		Protected string `json:"protected"`
		Header    struct {
			Chain [][]byte `json:"x5c"`
			Stamp []byte   `json:"io.cncf.notary.timestampSignature"`
		} `json:"header"`
	}
	if err := decodeBound("the envelope", envelope, &sent); err != nil {
		return nil, nil, err
	}
	for _, one := range []struct {
		name, encoded string
		values        int
	}{{"the payload", sent.Payload, maxSignatureValues}, {"the protected header", sent.Protected, maxHeaderValues}} {
		part, err := base64.RawURLEncoding.DecodeString(one.encoded)
		if err != nil {
			return nil, nil, fmt.Errorf("%s is not base64: %w", one.name, err)
		}
		if err := bound(one.name, part, one.values); err != nil {
			return nil, nil, err
		}
	}
	return sent.Header.Chain, sent.Header.Stamp, nil
}

// partsOfCOSE returns the same of a COSE envelope.
func partsOfCOSE(envelope []byte) (chain [][]byte, stamp []byte, err error) {
	if len(envelope) > maxCOSE {
		return nil, nil, fmt.Errorf("the envelope has %d bytes, more than the %d that are read", len(envelope), maxCOSE)
	}
	var sent cose.Sign1Message
	if err := sent.UnmarshalCBOR(envelope); err != nil {
		return nil, nil, err
	}
	critical, _ := sent.Headers.Protected[cose.HeaderLabelCritical].([]any)
	if count := max(len(critical), len(sent.Headers.Protected)); count > maxHeaders {
		return nil, nil, fmt.Errorf("the envelope has %d protected or critical headers, expected at most %d", count, maxHeaders)
	}
	certificates, _ := sent.Headers.Unprotected[cose.HeaderLabelX5Chain].([]any)
	for _, one := range certificates {
		if certificate, ok := one.([]byte); ok {
			chain = append(chain, certificate)
		}
	}
	stamp, _ = sent.Headers.Unprotected["io.cncf.notary.timestampSignature"].([]byte)
	return chain, stamp, nil
}
