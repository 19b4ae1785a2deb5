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

package limit_test

import (
	"crypto"
	"crypto/dsa" //nolint:staticcheck // the test shows that it is refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math"
	"math/big"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// rsaOf returns an RSA key whose modulus has a number of bits. Nobody can sign
// with it.
func rsaOf(bits int) *rsa.PublicKey {
	modulus := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
}

func ecdsaOn(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pkixOf(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificateFor(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "-----BEGIN"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, ecdsaOn(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func exceeds(err error) bool {
	failure := fault.Of(err, "")
	return failure != nil && failure.Reason == v1alpha1.ReasonLimitExceeded && failure.Class == fault.Stall
}

func TestKeys(t *testing.T) {
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve := func(c elliptic.Curve) crypto.PublicKey { return ecdsaOn(t, c).Public() }
	exponent := func(e int) *rsa.PublicKey { return &rsa.PublicKey{N: rsaOf(2048).N, E: e} }
	for name, c := range map[string]struct {
		key     crypto.PublicKey
		refused bool
	}{
		"RSA of 1024 bits":         {rsaOf(1024), false},
		"RSA of 8192 bits":         {rsaOf(8192), false},
		"RSA of 1023 bits":         {rsaOf(1023), true},
		"RSA of 8193 bits":         {rsaOf(8193), true},
		"RSA of a million bits":    {rsaOf(1 << 20), true},
		"RSA with exponent 3":      {exponent(3), false},
		"RSA with exponent 1":      {exponent(1), true},
		"RSA with exponent 2":      {exponent(2), true},
		"RSA with a huge exponent": {exponent(math.MaxInt32 + 2), true},
		"P-256":                    {curve(elliptic.P256()), false},
		"P-384":                    {curve(elliptic.P384()), false},
		"P-521":                    {curve(elliptic.P521()), false},
		"P-224":                    {curve(elliptic.P224()), true},
		"Ed25519":                  {ed, false},
		"DSA":                      {&dsa.PublicKey{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(exceeds(limit.Key(c.key))).To(Equal(c.refused))
		})
	}
}

// TestKeysInDocuments holds that a key is found in whatever it is wrapped.
func TestKeysInDocuments(t *testing.T) {
	inPEM := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	inJSON := func(value any) []byte {
		text, err := json.Marshal(map[string]any{"spec": map[string]any{"list": []any{"padding", value}}})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	inBase64 := func(der []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(der)) }
	indefinite := func(der []byte) []byte { return append(append([]byte{0xa0, 0x80, 0x31, 0x80}, der...), 0, 0, 0, 0) }
	for name, public := range map[string]crypto.PublicKey{"a large RSA key": rsaOf(8208), "P-224": ecdsaOn(t, elliptic.P224()).Public(), "P-256": ecdsaOn(t, elliptic.P256()).Public()} {
		refused := name != "P-256"
		key, certificate := pkixOf(t, public), certificateFor(t, public)
		for form, document := range map[string][]byte{
			"DER":                            key,
			"a certificate":                  certificate,
			"PEM":                            inPEM("PUBLIC KEY", key),
			"PEM of a certificate":           inPEM("CERTIFICATE", certificate),
			"PEM behind text":                append([]byte("{\n0\n"), inPEM("PUBLIC KEY", key)...),
			"the second block of PEM":        append(inPEM("CERTIFICATE", certificateFor(t, ecdsaOn(t, elliptic.P256()).Public())), inPEM("CERTIFICATE", certificate)...),
			"JSON with DER":                  inJSON(certificate),
			"JSON with PEM":                  inJSON(string(inPEM("CERTIFICATE", certificate))),
			"JSON with base64 of PEM":        inJSON(inPEM("PUBLIC KEY", key)),
			"JSON in base64 of JSON":         inJSON(inJSON(inPEM("PUBLIC KEY", key))),
			"JSON with raw URL base64":       inJSON(base64.RawURLEncoding.EncodeToString(certificate)),
			"base64":                         inBase64(certificate),
			"a bit string":                   append([]byte{0x30, 0x82, byte((len(key) + 5) >> 8), byte(len(key) + 5), 0x03, 0x82, byte((len(key) + 1) >> 8), byte(len(key) + 1), 0}, key...),
			"a value of indefinite length":   append([]byte{0x30, 0x80}, indefinite(certificate)...),
			"a value that claims too much":   append([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}, key...),
			"what follows a malformed value": append([]byte{0x30, 0x83, byte((len(key) + 4) >> 16), byte((len(key) + 4) >> 8), byte(len(key) + 4), 0x30, 0x02, 0x1f, 0xff}, key...),
		} {
			t.Run(name+" in "+form, func(t *testing.T) {
				NewWithT(t).Expect(exceeds(limit.Keys(document))).To(Equal(refused))
			})
		}
	}
	t.Run("PKCS #1", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(limit.Keys(x509.MarshalPKCS1PublicKey(rsaOf(8192)))).To(Succeed())
		g.Expect(exceeds(limit.Keys(x509.MarshalPKCS1PublicKey(rsaOf(8208))))).To(BeTrue())
	})
	t.Run("encodings without end", func(t *testing.T) {
		document := pkixOf(t, ecdsaOn(t, elliptic.P256()).Public())
		for range 10 {
			document = inBase64(document)
		}
		NewWithT(t).Expect(exceeds(limit.Keys(document))).To(BeTrue())
	})
	t.Run("nesting without end", func(t *testing.T) {
		var document []byte
		for range 1000 {
			document = append(document, 0x30, 0x80)
		}
		NewWithT(t).Expect(exceeds(limit.Keys(document))).To(BeTrue())
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(certificateFor(f, ecdsaOn(f, elliptic.P256()).Public()))
	f.Add([]byte(`{"a":"MAA="}`))
	f.Fuzz(func(_ *testing.T, document []byte) {
		_ = limit.Keys(document) // it ends, and does not panic
	})
}

// BenchmarkKeys measures documents of a MiB, as large as a Secret may be.
func BenchmarkKeys(b *testing.B) {
	const size = 1 << 20
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificateFor(b, ecdsaOn(b, elliptic.P256()).Public())})
	repeated := func(part []byte) (document []byte) {
		for len(document)+len(part) <= size {
			document = append(document, part...)
		}
		return document
	}
	for name, document := range map[string][]byte{
		"PEM":        repeated(certificate),
		"sequences":  append([]byte{0x30, 0x80}, repeated([]byte{0x30, 0x00})...),
		"bytes":      append([]byte{0x30, 0x80}, repeated([]byte{0x04, 0x02, 0x30, 0x00})...),
		"JSON":       append(append([]byte("["), repeated([]byte(`"MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw",`))...), "0]"...),
		"not base64": append(append([]byte(`["`), repeated([]byte("MDAw"))...), `!"]`...),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_ = limit.Keys(document)
			}
		})
	}
}
