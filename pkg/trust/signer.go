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
	"fmt"
	"time"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Format is how a signature is kept in a registry.
type Format string

const (
	// BundleReferrer is a Sigstore bundle that the registry lists as a referrer.
	BundleReferrer Format = "Sigstore bundle"
	// BundleTag is a Sigstore bundle under the tag that stands in for that list.
	BundleTag Format = "Sigstore bundle under the fallback tag"
	// Legacy is a signature under the tag sha256-<hex>.sig.
	Legacy Format = "legacy cosign signature"
	// NotationJWS is a Notary Project signature in a JSON Web Signature envelope.
	NotationJWS Format = "Notation JWS signature"
	// NotationCOSE is a Notary Project signature in a CBOR envelope.
	NotationCOSE Format = "Notation COSE signature"
)

// Signer is who signed, as it was verified.
type Signer struct {
	// Key is the sha256 fingerprint of a public key (of its PKIX encoding), in
	// hexadecimal, and Entry the entry of the Secret that holds it.
	Key, Entry string
	// Subject and Issuer are the identity in a certificate: of Fulcio, where the
	// issuer is that of the OpenID token, or of a Notation certificate and of the
	// authority that issued it.
	Subject, Issuer string
	// Format of the signature.
	Format Format
}

// String names the signer for a person.
func (s Signer) String() string {
	switch {
	case s.Key != "":
		return fmt.Sprintf("key %s (sha256:%s)", s.Entry, s.Key)
	case s == (Signer{}):
		return ""
	default:
		return fmt.Sprintf("%s (issuer %s)", cmp.Or(fault.Words(s.Subject), `""`), fault.Words(s.Issuer))
	}
}

// Evidence is one signature that an authority accepted, as far as it was verified.
type Evidence struct {
	// Signer who signed.
	Signer Signer
	// SignedAt is when a certificate signed: the earliest time that a log or a timestamp
	// authority (RFC 3161) vouches for. It is zero for keys, which may be used for years:
	// such a time proves that their signature existed, and anybody can have it recorded
	// again. It is zero for Notation, too.
	SignedAt time.Time
	// PredicateType of the in-toto statement; empty for signatures without one.
	PredicateType string
	// Subjects are the digests of all images that the signature is about.
	Subjects []string
}

// Finding is what was found in place of a good signature.
type Finding string

const (
	// Unsigned means that there is no signature at all.
	Unsigned Finding = "unsigned"
	// Malformed cannot be read, or does not match what it brings along.
	Malformed Finding = "malformed"
	// OtherKey is by a key that is not listed, or by none where one is demanded.
	OtherKey Finding = "other key"
	// OtherIdentity is by an identity that is not listed.
	OtherIdentity Finding = "other identity"
	// Untrusted is by a certificate that no listed root vouches for.
	Untrusted Finding = "untrusted"
	// OtherDigest is by a good signer, and about another image.
	OtherDigest Finding = "other digest"
	// OtherPredicate says something else than that the image is signed.
	OtherPredicate Finding = "other predicate"
	// Expired was made when its certificate was not valid, or is too old itself.
	Expired Finding = "expired"
	// Revoked is by a certificate that its authority took back.
	Revoked Finding = "revoked"
	// Unproven misses what has to come along: an entry in a log, a timestamp.
	Unproven Finding = "unproven"
)

// found is a signature that does not count.
type found struct {
	what  Finding
	words string
}

func foundf(what Finding, format string, args ...any) *found {
	return &found{what: what, words: fmt.Sprintf(format, args...)}
}
