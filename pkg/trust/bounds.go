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
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-core-go/signature/jws"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// How much is decoded of a signature before anybody knows who made it.
const (
	// maxSignatureValues bounds a bundle, an entry of a log, a payload or an
	// envelope, in JSON values; those that tools write have some hundreds.
	maxSignatureValues = 20_000
	// maxStatementValues bounds a statement: that of an attestation may hold a bill
	// of materials.
	maxStatementValues = 100_000
	// maxCOSE bounds an envelope that is not JSON, in bytes: each may become a
	// value.
	maxCOSE = 512 << 10
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

// exceeds tells whether an error is about more than what is read.
func exceeds(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Reason == v1alpha1.ReasonLimitExceeded
}

// manifest is what is read of the manifest of a signature.
type manifest struct {
	ArtifactType string          `json:"artifactType"`
	Config       v1.Descriptor   `json:"config"`
	Layers       []v1.Descriptor `json:"layers"`
}

func (m *manifest) decode(body []byte) error {
	if _, err := limit.Manifest().Scan("the manifest", body); err != nil {
		return err
	}
	return json.Unmarshal(body, m)
}

// boundEnvelope bounds an envelope of the Notary Project and what is inside.
func boundEnvelope(n *notationSignature) error {
	if n.mediaType != jws.MediaTypeEnvelope {
		return boundCOSE(n)
	}
	var parts struct {
		Payload   string `json:"payload"`
		Protected string `json:"protected"`
	}
	if err := decodeBound("the envelope", n.envelope, &parts); err != nil {
		return err
	}
	for name, encoded := range map[string]string{"the payload": parts.Payload, "the protected header": parts.Protected} {
		part, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			return fmt.Errorf("%s is not base64: %w", name, err)
		}
		if err := bound(name, part, maxSignatureValues); err != nil {
			return err
		}
	}
	return nil
}

func boundCOSE(n *notationSignature) error {
	if len(n.envelope) > maxCOSE {
		return fmt.Errorf("the envelope has %d bytes, more than the %d that are read", len(n.envelope), maxCOSE)
	}
	envelope, err := signature.ParseEnvelope(n.mediaType, n.envelope)
	if err != nil {
		return err
	}
	content, err := envelope.Content()
	if err != nil {
		return err
	}
	if content.Payload.ContentType != payloadType { // whatever it is, that is said of it
		return nil
	}
	return bound("the payload", content.Payload.Content, maxSignatureValues)
}
