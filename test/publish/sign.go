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
	"encoding/base64"
	"encoding/json"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
)

// Signer signs images with a key of its own. It shares no code with pkg/sign: what
// verifies signatures is tested against this and the cosign command, and what
// pkg/sign makes against everybody who verifies.
type Signer struct {
	// PublicKey in PEM format, as cosign.pub holds it.
	PublicKey []byte

	pair sign.Keypair
}

// NewSigner makes a key pair.
func NewSigner() (*Signer, error) {
	pair, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, err
	}
	public, err := pair.GetPublicKeyPem()
	return &Signer{PublicKey: []byte(public), pair: pair}, err
}

// Sign signs what a tag points at, given without the host, and stores the
// signature as cosign 1 and 2 do: under a tag of the same repository.
func (r Registry) Sign(ctx context.Context, image string, by *Signer) error {
	digest, err := r.resolve(ctx, image)
	if err != nil {
		return err
	}
	claim, err := payload.Cosign{Image: digest}.MarshalJSON()
	if err != nil {
		return err
	}
	signed, _, err := by.pair.SignData(ctx, claim)
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

// SignBundle signs as Sign does, and stores the signature as cosign 3 does: a
// bundle that refers to the image.
func (r Registry) SignBundle(ctx context.Context, image string, by *Signer) error {
	digest, err := r.resolve(ctx, image)
	if err != nil {
		return err
	}
	statement, err := signatureOf(digest)
	if err != nil {
		return err
	}
	signed, err := sign.Bundle(&sign.DSSEData{Data: statement, PayloadType: ctypes.IntotoPayloadType}, by.pair, sign.BundleOptions{Context: ctx})
	if err != nil {
		return err
	}
	bundle, err := protojson.Marshal(signed)
	if err != nil {
		return err
	}
	return ociremote.WriteAttestationNewBundleFormat(digest, bundle, ctypes.CosignSignPredicateType,
		ociremote.WithRemoteOptions(r.options(ctx)...), ociremote.WithNameOptions(name.Insecure))
}

// signatureOf returns the statement that an image is signed, in the in-toto format.
func signatureOf(image name.Digest) ([]byte, error) {
	digest, err := v1.NewHash(image.DigestStr())
	if err != nil {
		return nil, err
	}
	return json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       []any{map[string]any{"digest": map[string]string{digest.Algorithm: digest.Hex}}},
		"predicateType": ctypes.CosignSignPredicateType,
		"predicate":     map[string]any{},
	})
}

// Digest returns the name by digest of what a tag points at, given without the
// host.
func (r Registry) Digest(ctx context.Context, image string) (string, error) {
	digest, err := r.resolve(ctx, image)
	return digest.Name(), err
}

// resolve returns what a tag points at, given without the host.
func (r Registry) resolve(ctx context.Context, image string) (name.Digest, error) {
	tag, err := name.NewTag(r.Host+"/"+image, name.Insecure)
	if err != nil {
		return name.Digest{}, err
	}
	head, err := remote.Head(tag, r.options(ctx)...)
	if err != nil {
		return name.Digest{}, err
	}
	return tag.Digest(head.Digest.String()), nil
}
