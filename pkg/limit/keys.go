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

package limit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// MinRSA is the lower bound of the modulus of an RSA key, in bits. The cost of one
	// verification grows with the square of the size, and no context stops it.
	// crypto/tls has the same upper limit, crypto/rsa the same lower one.
	MinRSA = 1024
	// MaxRSA is the upper bound, see MinRSA.
	MaxRSA = 8192

	// maxNesting bounds how deep ASN.1 values may be inside of each other, and
	// maxEncodings how often a document may be encoded again.
	maxNesting, maxEncodings = 64, 6
)

// Key refuses a public key that is expensive to verify with, or that
// verification does not support: RSA keys outside of MinRSA and MaxRSA, elliptic
// curves other than P-256, P-384 and P-521, and all kinds of keys other than RSA,
// ECDSA and Ed25519.
//
// Errors: LimitExceeded (stall).
func Key(public crypto.PublicKey) error {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return rsaKey(public)
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return refusedKey("an ECDSA key on the curve %.16q, expected P-256, P-384 or P-521", public.Params().Name)
	case ed25519.PublicKey:
		return nil
	default:
		return refusedKey("a key of an unsupported kind (%T), expected RSA, ECDSA or Ed25519", public)
	}
}

func rsaKey(public *rsa.PublicKey) error {
	if bits := public.N.BitLen(); bits < MinRSA || bits > MaxRSA {
		return refusedKey("an RSA key of %d bits, expected %d to %d", bits, MinRSA, MaxRSA)
	}
	if public.E < 3 || public.E%2 == 0 || public.E > math.MaxInt32 {
		return refusedKey("an RSA key with the public exponent %d, expected an odd number from 3 to %d", public.E, math.MaxInt32)
	}
	return nil
}

func refusedKey(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, format, args...)
}

// Certificates applies Key to the keys of certificates.
func Certificates(all ...*x509.Certificate) error {
	for _, certificate := range all {
		if err := Key(certificate.PublicKey); err != nil {
			return err
		}
	}
	return nil
}

// Keys applies Key to all public keys in a document, wherever they are, and
// refuses all numbers in ASN.1 that are larger than an RSA modulus may be. The
// document is DER or BER, PEM, a JSON object, or base64 of one of them, and these
// may be inside of each other. Call it before a library decodes the document,
// because some libraries verify signatures while they decode.
//
// What is malformed is passed over: it is up to the decoder to refuse it.
//
// Errors: LimitExceeded (stall).
func Keys(document []byte) error { return encoded(document, maxEncodings) }

func encoded(document []byte, levels int) error {
	if levels == 0 {
		return refusedKey("keys inside of more than %d encodings", maxEncodings)
	}
	if bytes.Contains(document, []byte("-----BEGIN")) {
		if err := inPEM(document); err != nil {
			return err
		}
	}
	text := bytes.TrimSpace(document)
	switch {
	case len(text) == 0:
		return nil
	case text[0] == '{', text[0] == '[':
		return inJSON(text, levels-1)
	case document[0] == sequence:
		return inASN1(document, maxNesting)
	}
	if decoded := decodeBase64(text); len(decoded) > 0 {
		return encoded(decoded, levels-1)
	}
	return nil
}

func inPEM(text []byte) error {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if err := inASN1(block.Bytes, maxNesting); err != nil {
			return err
		}
	}
	return nil
}

func inJSON(text []byte, levels int) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := decoder.Token()
		if err != nil {
			return nil //nolint:nilerr // it ends here, or is malformed
		}
		// What is shorter holds no key that is refused.
		if value, ok := token.(string); ok && len(value) >= minKeyText {
			if err := encoded([]byte(value), levels); err != nil {
				return err
			}
		}
	}
}

// minKeyText is less than the length in base64 of any key with a curve or a modulus.
const minKeyText = 32

// decodeBase64 decodes what Go's decoders of JSON accept as base64: with either
// alphabet, with and without padding. It returns nothing for other text.
func decodeBase64(text []byte) []byte {
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		decoded := make([]byte, encoding.DecodedLen(len(text)))
		if n, err := encoding.Decode(decoded, text); err == nil {
			return decoded[:n]
		}
	}
	return nil
}

// Tags of ASN.1 values (ITU-T X.690). The bit constructed says that a value holds
// others.
const (
	integer, bitString, octetString = 0x02, 0x03, 0x04

	constructed = 0x20
	sequence    = 0x10 | constructed
)

// inASN1 walks ASN.1 values. It goes into strings of bytes and bits that hold a
// SEQUENCE, as keys do. Each byte is read once for each level of nesting.
func inASN1(values []byte, levels int) error {
	if levels == 0 {
		return refusedKey("ASN.1 values that are nested more than %d levels deep", maxNesting)
	}
	for len(values) > 0 {
		value, rest, ok := nextASN1(values)
		if !ok {
			return nil
		}
		if err := value.check(levels); err != nil {
			return err
		}
		values = rest
	}
	return nil
}

// asn1Value is one encoded value.
type asn1Value struct {
	tag           byte
	whole, inside []byte
}

func (v asn1Value) check(levels int) error {
	switch {
	case v.tag == integer:
		if bits := 8 * (len(v.inside) - 1); bits > MaxRSA {
			return refusedKey("a number of about %d bits, expected at most the %d of an RSA key", bits, MaxRSA)
		}
		return nil
	case v.tag == sequence:
		if v.isKey() {
			if public, err := x509.ParsePKIXPublicKey(v.whole); err == nil {
				return Key(public)
			}
		}
		return inASN1(v.inside, levels-1)
	case v.tag&constructed != 0:
		return inASN1(v.inside, levels-1)
	case v.tag == bitString && len(v.inside) > 1 && v.inside[1] == sequence:
		return inASN1(v.inside[1:], levels-1)
	case v.tag == octetString && len(v.inside) > 0 && v.inside[0] == sequence:
		return inASN1(v.inside, levels-1)
	default:
		return nil
	}
}

// isKey tells whether a SEQUENCE has the form of a SubjectPublicKeyInfo: an
// algorithm, which is a SEQUENCE, and a BIT STRING.
func (v asn1Value) isKey() bool {
	if len(v.inside) == 0 || v.inside[0] != sequence {
		return false
	}
	_, rest, ok := nextASN1(v.inside)
	return ok && len(rest) > 0 && rest[0] == bitString
}

// nextASN1 reads the tag and the length of a value. The end of a value of indefinite
// length, which BER allows, is a value of its own; so such a value extends over all
// bytes. So does a value that claims more bytes than there are.
func nextASN1(values []byte) (value asn1Value, rest []byte, ok bool) {
	at := 1
	if values[0]&0x1f == 0x1f { // the tag goes on while the high bit is set
		for at < len(values) && values[at]&0x80 != 0 {
			at++
		}
		at++
	}
	if at >= len(values) {
		return value, nil, false
	}
	length := int(values[at])
	at++
	if length == 0x80 {
		length = len(values) - at
	} else if length > 0x80 {
		bytesOfLength := min(length-0x80, len(values)-at)
		length = 0
		for _, digit := range values[at : at+bytesOfLength] {
			length = min(length<<8|int(digit), len(values))
		}
		at += bytesOfLength
	}
	end := min(at+length, len(values))
	return asn1Value{tag: values[0], whole: values[:end], inside: values[at:end]}, values[end:], true
}
