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

package publish

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"time"

	"github.com/notaryproject/notation-go"
	notaryregistry "github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Notary signs images with a certificate that an authority of its own issued.
type Notary struct {
	// Authority is the authority's certificate in PEM format.
	Authority []byte
	// Identity names the signer as a trust policy does.
	Identity string

	signer notation.Signer
}

// NewNotary makes an authority, and a certificate for a signer of that name.
func NewNotary(name string) (*Notary, error) {
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: notarySubject(name + " authority"),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	top, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if authority, err = issue(authority, authority, top, top); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	leaf, err := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: notarySubject(name),
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}, authority, key, top)
	if err != nil {
		return nil, err
	}
	by, err := signer.NewGenericSigner(key, []*x509.Certificate{leaf, authority})
	return &Notary{
		Authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}),
		Identity:  "x509.subject: C=US, ST=WA, O=example.com, CN=" + name,
		signer:    by,
	}, err
}

func notarySubject(name string) pkix.Name {
	return pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"example.com"}, CommonName: name}
}

// issue returns the certificate of a key, signed by the key of its parent.
func issue(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(raw)
}

// Notarize signs what a tag points at, given without the host, as the notation
// command does. The media type is that of the envelope: JWS or COSE.
func (r Registry) Notarize(ctx context.Context, image, envelope string, by *Notary) error {
	digest, err := r.resolve(ctx, image)
	if err != nil {
		return err
	}
	repository, err := remote.NewRepository(digest.Context().Name())
	if err != nil {
		return err
	}
	repository.PlainHTTP = true
	repository.Client = &auth.Client{
		Client:     &http.Client{Transport: r.Transport},
		Credential: auth.StaticCredential(r.Host, auth.Credential{Username: r.Username, Password: r.Password}),
	}
	_, err = notation.Sign(ctx, by.signer, notaryregistry.NewRepository(repository), notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: envelope, SigningAgent: "publish"},
		ArtifactReference: digest.String(),
	})
	return err
}
