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

package sign

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// ErrPassword says that a password does not open a key.
var ErrPassword = errors.New("the password does not open the key")

// KeyPair is what cosign.key and cosign.pub hold.
type KeyPair struct {
	// Private is the private key in PEM format, encrypted with a password.
	Private []byte
	// Public is the public key in PEM format.
	Public []byte
}

// GenerateKeyPair makes a key pair (ECDSA, P-256) as cosign does. An empty
// password still encrypts, and opens for everybody.
func GenerateKeyPair(password []byte) (KeyPair, error) {
	made, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return KeyPair{}, err
	}
	return KeyPair{Private: made.PrivateBytes, Public: made.PublicBytes}, nil
}

// Key signs. It is safe for concurrent use.
type Key struct {
	signer    signature.SignerVerifier
	algorithm signature.AlgorithmDetails
	public    crypto.PublicKey
	publicPEM []byte
	hint      []byte
}

var _ sgsign.Keypair = (*Key)(nil)

// CheckKey tells whether text is a private key that a password may open, before
// anybody is asked for one. The error says what it is instead.
func CheckKey(text []byte) error {
	block, _ := pem.Decode(text)
	switch {
	case block == nil:
		return errors.New("it holds no PEM block, expected a private key of cosign")
	case block.Type == cosign.CosignPrivateKeyPemType, block.Type == cosign.SigstorePrivateKeyPemType:
		return nil
	case block.Type == "PUBLIC KEY":
		return errors.New("it holds a public key, expected the private one")
	default:
		return fmt.Errorf("it holds a PEM block of type %q, expected %q; cosign import-key-pair converts other keys", block.Type, cosign.SigstorePrivateKeyPemType)
	}
}

// OpenKey reads a private key as cosign writes it. It returns ErrPassword for
// the wrong password.
func OpenKey(text, password []byte) (*Key, error) {
	if err := CheckKey(text); err != nil {
		return nil, err
	}
	signer, err := cosign.LoadPrivateKey(text, password, nil)
	if err != nil {
		block, _ := pem.Decode(text)
		if _, err := encrypted.Decrypt(block.Bytes, password); err != nil {
			return nil, ErrPassword
		}
		return nil, fmt.Errorf("it holds no private key that can sign: %w", err)
	}
	return newKey(signer)
}

func newKey(signer signature.SignerVerifier) (*Key, error) {
	public, err := signer.PublicKey()
	if err != nil {
		return nil, err
	}
	encoded, err := cryptoutils.MarshalPublicKeyToPEM(public)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	// As cosign does, for ed25519 the variant that logs can record.
	algorithm, err := signature.GetDefaultAlgorithmDetails(public, options.WithED25519ph())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &Key{
		signer: signer, algorithm: algorithm, public: public, publicPEM: encoded,
		hint: []byte(base64.StdEncoding.EncodeToString(sum[:])),
	}, nil
}

// Hash returns the hash that the key signs. cosign and source-controller verify
// with SHA-256, for any key.
func (k *Key) Hash() crypto.Hash { return k.algorithm.GetHashType() }

// PublicKey returns the public key in PEM format, as cosign.pub holds it.
func (k *Key) PublicKey() []byte { return k.publicPEM }

// GetHashAlgorithm implements sgsign.Keypair.
func (k *Key) GetHashAlgorithm() protocommon.HashAlgorithm { return k.algorithm.GetProtoHashType() }

// GetSigningAlgorithm implements sgsign.Keypair.
func (k *Key) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return k.algorithm.GetSignatureAlgorithm()
}

// GetHint implements sgsign.Keypair: the fingerprint of the public key by which
// cosign finds it.
func (k *Key) GetHint() []byte { return k.hint }

// GetKeyAlgorithm implements sgsign.Keypair.
func (k *Key) GetKeyAlgorithm() string {
	switch k.public.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA"
	case *rsa.PublicKey:
		return "RSA"
	case ed25519.PublicKey:
		return "ED25519"
	default:
		return ""
	}
}

// GetPublicKey implements sgsign.Keypair.
func (k *Key) GetPublicKey() crypto.PublicKey { return k.public }

// GetPublicKeyPem implements sgsign.Keypair.
func (k *Key) GetPublicKeyPem() (string, error) { return string(k.publicPEM), nil }

// SignData implements sgsign.Keypair: it returns the signature and the digest
// that it is on.
func (k *Key) SignData(ctx context.Context, data []byte) (signed, digest []byte, err error) {
	signed, err = k.sign(ctx, data)
	if err != nil {
		return nil, nil, err
	}
	hashed := k.algorithm.GetHashType()
	if hashed == crypto.Hash(0) {
		return signed, data, nil
	}
	hasher := hashed.New()
	hasher.Write(data)
	return signed, hasher.Sum(nil), nil
}
