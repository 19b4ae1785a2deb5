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
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/payload"
)

// Signer signs images with a key of its own.
type Signer struct {
	// PublicKey in PEM format, as cosign.pub holds it.
	PublicKey []byte

	key signature.Signer
}

// NewSigner makes a key pair.
func NewSigner() (*Signer, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		return nil, err
	}
	key, err := signature.LoadECDSASigner(private, crypto.SHA256)
	return &Signer{PublicKey: public, key: key}, err
}

// Sign signs what a tag points at, given without the host, and stores the
// signature as cosign does under a tag of the same repository.
func (r Registry) Sign(ctx context.Context, image string, by *Signer) error {
	tag, err := name.NewTag(r.Host+"/"+image, name.Insecure)
	if err != nil {
		return err
	}
	head, err := remote.Head(tag, r.options(ctx)...)
	if err != nil {
		return err
	}
	digest := tag.Digest(head.Digest.String())
	claim, err := payload.Cosign{Image: digest}.MarshalJSON()
	if err != nil {
		return err
	}
	signed, err := by.key.SignMessage(bytes.NewReader(claim))
	if err != nil {
		return err
	}
	attached, err := static.NewSignature(claim, base64.StdEncoding.EncodeToString(signed))
	if err != nil {
		return err
	}
	access := ociremote.WithRemoteOptions(r.options(ctx)...)
	entity, err := ociremote.SignedEntity(digest, access)
	if err != nil {
		return err
	}
	if entity, err = mutate.AttachSignatureToEntity(entity, attached); err != nil {
		return err
	}
	return ociremote.WriteSignatures(digest.Repository, entity, access)
}
