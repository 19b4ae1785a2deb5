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
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// Providers of signatures, as spec.verify.provider names them.
const (
	ProviderCosign   = "cosign"
	ProviderNotation = "notation"
)

// Demand is one spec.verify with its Secrets already read.
type Demand struct {
	// Provider is ProviderCosign or ProviderNotation.
	Provider string
	// Secret that secretRef names; nil when it names none. For cosign each of its
	// entries that ends in .pub holds public keys in PEM format, and any of them
	// will do. For Notation, trustpolicy.json is the trust policy and each entry
	// that ends in .crt or .pem holds certificates to trust.
	Secret *Secret
	// TrustedRoot is the Secret that trustedRootSecretRef names; nil when it names
	// none. Its entry trusted_root.json lists the authorities of a Sigstore of
	// one's own; with a key in Secret, the log that has to know each signature.
	TrustedRoot *Secret
	// Identities that may sign without a key; any of them will do.
	Identities []Identity
	// Formats of cosign's signatures that count; empty: all.
	Formats []Format
}

// Identity is one of matchOIDCIdentity. Both are regular expressions, and have
// to match all of the value.
type Identity struct {
	// Issuer of the OpenID token.
	Issuer string
	// Subject of the certificate.
	Subject string
}

// Options are what an Authority may use beside the registry.
type Options struct {
	// PublicRoot serves the demands for keyless signatures that bring no trusted
	// root along; nothing else makes it contact anybody.
	PublicRoot *PublicRoot
	// Revocation reaches the OCSP and CRL servers that the certificates of Notation
	// signatures name, where the trust policy enforces revocation. Without it nobody
	// is asked, and the status of such a certificate is unknown.
	Revocation http.RoundTripper
}

// Authority is a demand that was checked, ready to judge signatures. It is safe
// for concurrent use.
type Authority struct {
	// begin prepares to judge the signatures of one subject; strict is that of the rule.
	// Its error is the verdict, whatever signatures there are, and no judge accepts any.
	begin  func(ctx context.Context, subject Subject, strict bool) (judge, error)
	public *PublicRoot // nil when it does not judge by it
	prints []string
	notes  []string
}

// NewAuthority checks a demand. What can be left out (a malformed entry beside
// good ones) is left out and noted; what cannot is an error.
//
// Errors: VerificationError (retry) with a *VerificationError that says Rejected, when the
// Secrets leave nothing that could verify a signature; InvalidSpec (stall) for
// a demand that cannot be read.
func NewAuthority(d Demand, o Options) (*Authority, error) {
	switch d.Provider {
	case ProviderCosign:
		return newCosign(d, o)
	case ProviderNotation:
		return newNotation(d, o)
	default:
		return nil, invalidf("the provider %s is not supported; it is %s or %s", fault.Quote(d.Provider), ProviderCosign, ProviderNotation)
	}
}

func invalidf(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonInvalidSpec, "verify: "+format, args...)
}

// Fingerprint identifies the keys, identities, roots and rules that are in
// effect: while it is the same, so is every verdict that time does not change.
// It does not change with the order or the names of entries. The public root has
// one of its own, see Rules.PublicRoot.
func (a *Authority) Fingerprint() string { return digestOf(a.prints) }

// Notes say what is odd about the material, though something is left to use.
func (a *Authority) Notes() []string { return a.notes }

// digestOf returns what tells lists of strings apart.
func digestOf(parts []string) string {
	sum := sha256.New()
	for _, part := range parts {
		// Lengths keep neighbours apart. A hash never fails to write.
		_, _ = fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// sorted is for parts that are alternatives.
func sorted(parts []string) []string {
	slices.Sort(parts)
	return slices.Compact(parts)
}

func bytesPrint(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
