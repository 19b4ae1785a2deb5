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
	"net/http"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
)

// Guarded is guarded, which tests break on purpose.
func Guarded(parse func() (int, error)) (int, error) { return guarded(parse) }

// Responders is the connection to OCSP responders that verification uses.
func Responders(through http.RoundTripper) http.RoundTripper { return responders{through} }

// Wait returns when no attempt to get the root is under way.
func (p *PublicRoot) Wait() {
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	if running != nil {
		<-running
	}
}

// JudgeBundle judges the bytes of a bundle that is attached to some image, as
// they come from a registry.
func JudgeBundle(ctx context.Context, authority *Authority, body []byte) (Verdict, string) {
	parsed, err := guarded(func() (*sigstoreBundle, error) { return parseBundle(body, BundleReferrer, new(int)) })
	if err != nil {
		return Rejected, err.Error()
	}
	return judgeOne(ctx, authority, parsed)
}

// LegacyParts are what a legacy signature is made of.
type LegacyParts struct {
	Payload, Signature      []byte
	Certificate, Log, Stamp string
}

// JudgeLegacy does so for a legacy signature.
func JudgeLegacy(ctx context.Context, authority *Authority, parts LegacyParts) (Verdict, string) {
	parsed, err := guarded(func() (*legacySignature, error) {
		return parseLegacy(parts.Payload, map[string]string{
			static.SignatureAnnotationKey: base64.StdEncoding.EncodeToString(parts.Signature), static.CertificateAnnotationKey: parts.Certificate,
			static.BundleAnnotationKey: parts.Log, static.RFC3161TimestampAnnotationKey: parts.Stamp,
		})
	})
	if err != nil {
		return Rejected, err.Error()
	}
	return judgeOne(ctx, authority, parsed)
}

func judgeOne(ctx context.Context, authority *Authority, one cosignSignature) (Verdict, string) {
	subject := Subject{Repository: "example.com/app", Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}}
	e := open(ctx, Rule{Name: "rule", AnyOf: []Alternative{{Authority: authority}}}, subject)
	e.authorities[0].evaluate(ctx, one)
	ruling := e.ruling()
	return ruling.Verdict, ruling.Words
}
