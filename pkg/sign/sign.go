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
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v3/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v3/pkg/oci"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	cosigntypes "github.com/sigstore/cosign/v3/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	sgsign "github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// PublicLog is Sigstore's public transparency log.
const PublicLog = "https://rekor.sigstore.dev"

// Options say where signatures go.
type Options struct {
	// Remote is the way to the registry for the older format and for blobs.
	Remote []remote.Option
	// Registry is the way to the repository for manifests, and to what a reader finds.
	Registry Registry
	// Log is the address of a transparency log (Rekor, version 1 of its API) that
	// every signature is recorded in; empty: none.
	Log string
}

// Registry reads and writes one repository. *registry.Repository is one.
type Registry interface {
	trust.Repository
	// Put stores a manifest under a tag or digest.
	Put(ctx context.Context, ref string, mediaType types.MediaType, body []byte) error
}

// Attached is a signature in a registry.
type Attached struct {
	keep func(ctx context.Context) error
}

// Keep looks for the signature where a trust.Verifier does, and writes it again if
// another job that signs the same digest has overwritten it.
func (a *Attached) Keep(ctx context.Context) error { return a.keep(ctx) }

// Attach signs the manifest of a digest, which must be in the registry, and
// stores the signature as a Sigstore bundle that refers to it. It returns when the
// signature is listed where a trust.Verifier looks for it.
func (k *Key) Attach(ctx context.Context, subject name.Digest, o Options) (*Attached, error) {
	signed, err := k.Bundle(ctx, subject.DigestStr(), o.Log)
	if err != nil {
		return nil, err
	}
	of, body, err := store(ctx, subject, signed, o)
	if err != nil {
		return nil, err
	}
	a := &Attached{func(ctx context.Context) error { return list(ctx, o.Registry, of, body) }}
	return a, a.Keep(ctx)
}

// Bundle signs a digest and returns the Sigstore bundle, with the entry of a log
// where one is given. A bundle holds an in-toto statement with cosign's
// predicate type for signatures.
func (k *Key) Bundle(ctx context.Context, digest, log string) ([]byte, error) {
	statement, err := statementOf(digest)
	if err != nil {
		return nil, err
	}
	with := sgsign.BundleOptions{Context: ctx}
	if log != "" {
		by, err := rekor(log)
		if err != nil {
			return nil, err
		}
		with.TransparencyLogs = []sgsign.Transparency{by}
	}
	signed, err := sgsign.Bundle(&sgsign.DSSEData{Data: statement, PayloadType: cosigntypes.IntotoPayloadType}, k, with)
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(signed)
}

func statementOf(digest string) ([]byte, error) {
	algorithm, hex, found := strings.Cut(digest, ":")
	if !found {
		return nil, fmt.Errorf("%q is no digest", digest)
	}
	return protojson.Marshal(&intoto.Statement{
		Type:          intoto.StatementTypeUri,
		Subject:       []*intoto.ResourceDescriptor{{Digest: map[string]string{algorithm: hex}}},
		PredicateType: cosigntypes.CosignSignPredicateType,
		Predicate:     &structpb.Struct{},
	})
}

// AttachLegacy signs as cosign did before bundles: a simple signing claim under
// the tag sha256-<hex>.sig, beside those that are there. It returns when the
// signature is there for a trust.Verifier: another job may overwrite the tag at the
// same time, and then the signature is written again.
func (k *Key) AttachLegacy(ctx context.Context, subject name.Digest, o Options) (*Attached, error) {
	claim, err := payload.Cosign{Image: subject}.MarshalJSON()
	if err != nil {
		return nil, err
	}
	signed, err := k.sign(ctx, claim)
	if err != nil {
		return nil, err
	}
	var with []static.Option
	if o.Log != "" {
		entry, err := k.record(ctx, signed, claim, o.Log)
		if err != nil {
			return nil, err
		}
		with = append(with, static.WithBundle(entry))
	}
	made, err := static.NewSignature(claim, base64.StdEncoding.EncodeToString(signed), with...)
	if err != nil {
		return nil, err
	}
	a := &Attached{func(ctx context.Context) error { return keepLegacy(ctx, subject, made, o) }}
	return a, a.Keep(ctx)
}

// keepLegacy has a signature under the tag of a digest. Another job may overwrite the
// tag at the same time: then the signature is written again.
func keepLegacy(ctx context.Context, subject name.Digest, made oci.Signature, o Options) error {
	of, err := v1.NewHash(subject.DigestStr())
	if err != nil {
		return err
	}
	encoded, err := made.Base64Signature()
	if err != nil {
		return err
	}
	for range maxListings {
		if found, err := trust.HasLegacy(ctx, o.Registry, of, encoded); found || err != nil {
			return err
		}
		entity, err := ociremote.SignedEntity(subject, o.remote(ctx))
		if err != nil {
			return err
		}
		if entity, err = mutate.AttachSignatureToEntity(entity, made); err != nil {
			return err
		}
		if err := ociremote.WriteSignatures(subject.Repository, entity, o.remote(ctx)); err != nil {
			return err
		}
	}
	return fmt.Errorf("the registry takes the signature of %s, but a reader does not find it under its tag for legacy signatures; "+
		"if other jobs sign the same digest at the same time, try again", of)
}

// record notes a signature of a claim in a log and returns what proves it, in
// the form that legacy signatures carry.
func (k *Key) record(ctx context.Context, signed, claim []byte, log string) (*bundle.RekorBundle, error) {
	digest := sha256.Sum256(claim)
	noted := &protobundle.Bundle{
		VerificationMaterial: &protobundle.VerificationMaterial{},
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest[:]},
			Signature:     signed,
		}},
	}
	by, err := rekor(log)
	if err != nil {
		return nil, err
	}
	if err := by.GetTransparencyLogEntry(ctx, k.publicPEM, noted); err != nil {
		return nil, err
	}
	return legacyEntry(noted.VerificationMaterial.TlogEntries[0])
}

func legacyEntry(entry *protorekor.TransparencyLogEntry) (*bundle.RekorBundle, error) {
	promise := entry.GetInclusionPromise().GetSignedEntryTimestamp()
	if len(promise) == 0 {
		return nil, errors.New("the log gives no signed timestamp for the entry, which legacy signatures need")
	}
	return &bundle.RekorBundle{
		SignedEntryTimestamp: promise,
		Payload: bundle.RekorPayload{
			Body:           base64.StdEncoding.EncodeToString(entry.CanonicalizedBody),
			IntegratedTime: entry.IntegratedTime,
			LogIndex:       entry.LogIndex,
			LogID:          fmt.Sprintf("%x", entry.GetLogId().GetKeyId()),
		},
	}, nil
}

func (k *Key) sign(ctx context.Context, data []byte) ([]byte, error) {
	return k.signer.SignMessage(bytes.NewReader(data), options.WithContext(ctx))
}

func (o Options) remote(ctx context.Context) ociremote.Option {
	return ociremote.WithRemoteOptions(append(slices.Clip(o.Remote), remote.WithContext(ctx))...)
}
