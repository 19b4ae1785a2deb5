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
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v3/pkg/cosign/bundle"
	cosignremote "github.com/sigstore/cosign/v3/pkg/cosign/remote"
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

// logTimeout bounds one request to a log, which may take its time to answer.
const logTimeout = 90 * time.Second

// Options say where signatures go.
type Options struct {
	// Remote is the way to the registry for the older format and for blobs.
	Remote []remote.Option
	// Registry is the way to the repository for manifests. Attach needs it.
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

// Attach signs the manifest of a digest, which must be in the registry, and
// stores the signature as a Sigstore bundle that refers to it. It returns when the
// signature is listed where a trust.Verifier looks for it.
func (k *Key) Attach(ctx context.Context, subject name.Digest, o Options) error {
	signed, err := k.Bundle(ctx, subject.DigestStr(), o.Log)
	if err != nil {
		return err
	}
	return attach(ctx, subject, signed, o)
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
		with.TransparencyLogs = []sgsign.Transparency{rekor(log)}
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
// the tag sha256-<hex>.sig, beside those that are there. A signature of this key
// that is there already is left as it is, unless a log has to know of it.
func (k *Key) AttachLegacy(ctx context.Context, subject name.Digest, o Options) error {
	claim, err := payload.Cosign{Image: subject}.MarshalJSON()
	if err != nil {
		return err
	}
	signed, err := k.sign(ctx, claim)
	if err != nil {
		return err
	}
	var with []static.Option
	var known []mutate.SignOption
	if o.Log == "" {
		known = append(known, mutate.WithDupeDetector(cosignremote.NewDupeDetector(k.signer)))
	} else {
		entry, err := k.record(ctx, signed, claim, o.Log)
		if err != nil {
			return err
		}
		with = append(with, static.WithBundle(entry))
	}
	attached, err := static.NewSignature(claim, base64.StdEncoding.EncodeToString(signed), with...)
	if err != nil {
		return err
	}
	entity, err := ociremote.SignedEntity(subject, o.remote(ctx))
	if err != nil {
		return err
	}
	if entity, err = mutate.AttachSignatureToEntity(entity, attached, known...); err != nil {
		return err
	}
	return ociremote.WriteSignatures(subject.Repository, entity, o.remote(ctx))
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
	if err := rekor(log).GetTransparencyLogEntry(ctx, k.publicPEM, noted); err != nil {
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

// rekor returns a log. It is given one second chance.
func rekor(log string) *sgsign.Rekor {
	return sgsign.NewRekor(&sgsign.RekorOptions{BaseURL: log, Timeout: logTimeout, Retries: 1, Version: 1})
}

func (o Options) remote(ctx context.Context) ociremote.Option {
	return ociremote.WithRemoteOptions(append(slices.Clip(o.Remote), remote.WithContext(ctx))...)
}
