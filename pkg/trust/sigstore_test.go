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

package trust_test

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	cttls "github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	rekor "github.com/sigstore/cosign/v3/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	cstatic "github.com/sigstore/cosign/v3/pkg/oci/static"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/image-source/image-source-controller/pkg/trust"
)

const (
	issuer   = "https://issuer.example.com"
	subject  = "https://example.com/org/app/.github/workflows/release.yaml@refs/heads/main"
	stranger = "https://example.com/evil/app/.github/workflows/release.yaml@refs/heads/main"

	bundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"
)

// pair is a key pair that signs as cosign does.
type pair struct{ private crypto.Signer }

func newPair(t *testing.T) pair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return pair{private: private}
}

func (p pair) pem(t *testing.T) []byte {
	t.Helper()
	text, err := cryptoutils.MarshalPublicKeyToPEM(p.private.Public())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

func (p pair) fingerprint(t *testing.T) string {
	t.Helper()
	encoded, err := x509.MarshalPKIXPublicKey(p.private.Public())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}

// sign signs with sha256.
func (p pair) sign(t *testing.T, message []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(message)
	signature, err := p.private.Sign(rand.Reader, sum[:], crypto.SHA256)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return signature
}

// keys is a demand for a signature by any of some keys.
func keys(entries map[string][]byte) trust.Demand {
	return trust.Demand{Provider: trust.ProviderCosign, Secret: &trust.Secret{Name: "apps/keys", Data: entries}}
}

// statement says in the in-toto format that a digest is of some kind.
func statement(t *testing.T, digest v1.Hash, predicate string) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": map[string]any{},
		"subject": []map[string]any{{"digest": map[string]string{digest.Algorithm: digest.Hex}}},
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

// enveloped is a bundle of a signed statement, still without verification material.
func enveloped(t *testing.T, by pair, statement []byte) (*protobundle.Bundle, []byte) {
	t.Helper()
	signature := by.sign(t, dsse.PAE(ctypes.IntotoPayloadType, statement))
	return &protobundle.Bundle{
		MediaType: bundleMediaType,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: ctypes.IntotoPayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{},
	}, signature
}

func encoded(t *testing.T, bundle *protobundle.Bundle) []byte {
	t.Helper()
	text, err := protojson.Marshal(bundle)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

// keyBundle is a bundle by a key.
func keyBundle(t *testing.T, by pair, statement []byte) []byte {
	t.Helper()
	bundle, _ := enveloped(t, by, statement)
	bundle.VerificationMaterial.Content = &protobundle.VerificationMaterial_PublicKey{
		PublicKey: &protocommon.PublicKeyIdentifier{Hint: "hint"},
	}
	return encoded(t, bundle)
}

// attachBundle stores a bundle with the code of cosign itself.
func (i *image) attachBundle(t *testing.T, bundle []byte) {
	t.Helper()
	NewWithT(t).Expect(ociremote.WriteAttestationNewBundleFormat(i.repository.Digest(i.digest.String()), bundle, ctypes.CosignSignPredicateType)).To(Succeed())
}

// tagBundle stores a bundle where only the fallback tag leads to it.
func (i *image) tagBundle(t *testing.T, bundle []byte) {
	t.Helper()
	i.putUnderTag(t, i.referrer(t, bundleMediaType, i.blob(t, bundle, bundleMediaType)), bundleMediaType)
}

// putUnderTag stores a manifest of a signature where only the fallback tag
// leads to it.
func (i *image) putUnderTag(t *testing.T, manifest map[string]any, artifactType string) {
	t.Helper()
	delete(manifest, "subject")
	stored := i.put(t, manifest)
	stored.ArtifactType = artifactType
	i.tagged = append(i.tagged, stored)
	i.putTag(t, "sha256-"+i.digest.Hex, map[string]any{"schemaVersion": 2, "mediaType": types.OCIImageIndex, "manifests": i.tagged})
}

// claim is what a legacy signature says.
func claim(t *testing.T, i *image, digest v1.Hash) []byte {
	t.Helper()
	text, err := payload.Cosign{Image: i.repository.Digest(digest.String())}.MarshalJSON()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return text
}

// attachLegacy adds a legacy signature with the code of cosign itself.
func (i *image) attachLegacy(t *testing.T, payload, signature []byte, options ...cstatic.Option) {
	t.Helper()
	g := NewWithT(t)
	digest := i.repository.Digest(i.digest.String())
	entity, err := ociremote.SignedEntity(digest)
	g.Expect(err).NotTo(HaveOccurred())
	added, err := cstatic.NewSignature(payload, base64.StdEncoding.EncodeToString(signature), options...)
	g.Expect(err).NotTo(HaveOccurred())
	entity, err = mutate.AttachSignatureToEntity(entity, added)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ociremote.WriteSignatures(i.repository, entity)).To(Succeed())
}

// sigstore is a Sigstore of one's own: an authority for certificates, a log for
// certificates, and a log and a timestamp authority for signatures.
type sigstore struct {
	*ca.VirtualSigstore

	root, intermediate *x509.Certificate
	signer             crypto.Signer // of certificates
	certificateLog     crypto.Signer
}

func newSigstore(t *testing.T) *sigstore {
	t.Helper()
	g := NewWithT(t)
	virtual, err := ca.NewVirtualSigstore()
	g.Expect(err).NotTo(HaveOccurred())
	s := &sigstore{VirtualSigstore: virtual, certificateLog: newPair(t).private}
	top := newPair(t).private
	s.root = issue(t, authorityTemplate("root"), nil, top.Public(), top)
	s.signer = newPair(t).private
	s.intermediate = issue(t, authorityTemplate("intermediate"), s.root, s.signer.Public(), top)
	return s
}

func authorityTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"example.com"}},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
}

// issue signs a certificate; a nil parent is itself.
func issue(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	g := NewWithT(t)
	if parent == nil {
		parent = template
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(raw)
	g.Expect(err).NotTo(HaveOccurred())
	return certificate
}

// leaf is a short-lived certificate with its key.
type leaf struct {
	pair

	certificate *x509.Certificate
}

// leafOptions say what is unusual about a leaf.
type leafOptions struct {
	subject string    // empty: the good one
	from    time.Time // zero: a minute ago
	logged  bool      // with a signed certificate timestamp
}

func (s *sigstore) leaf(t *testing.T, options leafOptions) leaf {
	t.Helper()
	g := NewWithT(t)
	if options.subject == "" {
		options.subject = subject
	}
	if options.from.IsZero() {
		options.from = time.Now().Add(-time.Minute)
	}
	san, err := url.Parse(options.subject)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), URIs: []*url.URL{san}, NotBefore: options.from, NotAfter: options.from.Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(issuer)}},
	}
	l := leaf{pair: newPair(t)}
	l.certificate = issue(t, template, s.intermediate, l.private.Public(), s.signer)
	if options.logged {
		template.ExtraExtensions = append(template.ExtraExtensions, s.certificateTimestamp(t, l.certificate))
		l.certificate = issue(t, template, s.intermediate, l.private.Public(), s.signer)
	}
	return l
}

// certificateTimestamp is the extension by which the log of certificates says
// that it knows one (RFC 6962 section 3.3).
func (s *sigstore) certificateTimestamp(t *testing.T, of *x509.Certificate) pkix.Extension {
	t.Helper()
	g := NewWithT(t)
	chain := make([]*ctx509.Certificate, 0, 2)
	for _, raw := range [][]byte{of.Raw, s.intermediate.Raw} {
		parsed, err := ctx509.ParseCertificate(raw)
		g.Expect(err).NotTo(HaveOccurred())
		chain = append(chain, parsed)
	}
	at := uint64(time.Now().UnixMilli())
	key := sha256.Sum256(chain[1].RawSubjectPublicKeyInfo)
	input, err := cttls.Marshal(ct.CertificateTimestamp{
		SCTVersion: ct.V1, SignatureType: ct.CertificateTimestampSignatureType, Timestamp: at, EntryType: ct.PrecertLogEntryType,
		PrecertEntry: &ct.PreCert{IssuerKeyHash: key, TBSCertificate: of.RawTBSCertificate},
	})
	g.Expect(err).NotTo(HaveOccurred())
	log, err := x509.MarshalPKIXPublicKey(s.certificateLog.Public())
	g.Expect(err).NotTo(HaveOccurred())
	timestamp, err := cttls.Marshal(ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: sha256.Sum256(log)}, Timestamp: at,
		Signature: ct.DigitallySigned{
			Algorithm: cttls.SignatureAndHashAlgorithm{Hash: cttls.SHA256, Signature: cttls.ECDSA},
			Signature: pair{private: s.certificateLog}.sign(t, input),
		},
	})
	g.Expect(err).NotTo(HaveOccurred())
	list, err := cttls.Marshal(ctx509.SignedCertificateTimestampList{SCTList: []ctx509.SerializedSCT{{Val: timestamp}}})
	g.Expect(err).NotTo(HaveOccurred())
	value, err := asn1.Marshal(list)
	g.Expect(err).NotTo(HaveOccurred())
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// lists is what a trusted root lists beside authorities for certificates, and
// where all of them are.
type lists struct {
	log, stamps, certificates bool

	url string // empty: where there is nobody
}

// trustedRoot is the root as people write it to a Secret.
func (s *sigstore) trustedRoot(t *testing.T, has lists) []byte {
	t.Helper()
	g := NewWithT(t)
	url := cmp.Or(has.url, "https://sigstore.example.com")
	authorities := []root.CertificateAuthority{&root.FulcioCertificateAuthority{
		Root: s.root, Intermediates: []*x509.Certificate{s.intermediate}, URI: url,
		ValidityPeriodStart: s.root.NotBefore, ValidityPeriodEnd: s.root.NotAfter,
	}}
	logs, certificateLogs := map[string]*root.TransparencyLog{}, map[string]*root.TransparencyLog{}
	var stamps []root.TimestampingAuthority
	if has.log {
		logs = s.RekorLogs()
		for id, log := range logs {
			raw, err := hex.DecodeString(id)
			g.Expect(err).NotTo(HaveOccurred())
			log.ID, log.BaseURL = raw, url
		}
	}
	if has.stamps {
		stamps = s.TimestampingAuthorities()
	}
	if has.certificates {
		encoded, err := x509.MarshalPKIXPublicKey(s.certificateLog.Public())
		g.Expect(err).NotTo(HaveOccurred())
		id := sha256.Sum256(encoded)
		certificateLogs[hex.EncodeToString(id[:])] = &root.TransparencyLog{
			BaseURL: url, ID: id[:], HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
			PublicKey: s.certificateLog.Public(), ValidityPeriodStart: time.Now().Add(-time.Hour), ValidityPeriodEnd: time.Now().Add(time.Hour),
		}
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, certificateLogs, stamps, logs)
	g.Expect(err).NotTo(HaveOccurred())
	text, err := trusted.MarshalJSON()
	g.Expect(err).NotTo(HaveOccurred())
	return text
}

// identities is a demand for a signature by the good identity.
func (s *sigstore) identities(t *testing.T, has lists) trust.Demand {
	t.Helper()
	return trust.Demand{
		Provider:    trust.ProviderCosign,
		TrustedRoot: &trust.Secret{Name: "apps/root", Data: map[string][]byte{"trusted_root.json": s.trustedRoot(t, has)}},
		Identities:  []trust.Identity{{Issuer: `https://issuer\.example\.com`, Subject: `https://example\.com/org/.*`}},
	}
}

// witness is who saw that a signature was made.
type witness struct {
	log   time.Time // zero: the log did not
	stamp bool
}

// identityBundle is a bundle by an identity.
func (s *sigstore) identityBundle(t *testing.T, by leaf, statement []byte, seen witness) []byte {
	t.Helper()
	g := NewWithT(t)
	bundle, signature := enveloped(t, by.pair, statement)
	material := bundle.GetVerificationMaterial()
	material.Content = &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: by.certificate.Raw}}
	if !seen.log.IsZero() {
		envelope := &dsse.Envelope{
			Payload: base64.StdEncoding.EncodeToString(statement), PayloadType: ctypes.IntotoPayloadType,
			Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(signature)}},
		}
		entry, err := s.GenerateTlogEntry(by.certificate, envelope, signature, seen.log.Unix(), true)
		g.Expect(err).NotTo(HaveOccurred())
		logged := entry.TransparencyLogEntry()
		logged.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
		logged.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: s.promise(t, tlog.RekorPayload{
			Body: base64.StdEncoding.EncodeToString(logged.GetCanonicalizedBody()), IntegratedTime: logged.GetIntegratedTime(), LogIndex: logged.GetLogIndex(),
		})}
		material.TlogEntries = []*protorekor.TransparencyLogEntry{logged}
	}
	if seen.stamp {
		stamp, err := s.TimestampResponse(signature)
		g.Expect(err).NotTo(HaveOccurred())
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
		}
	}
	return encoded(t, bundle)
}

// certified are the annotations of a legacy signature by an identity.
func (s *sigstore) certified(t *testing.T, by leaf) cstatic.Option {
	t.Helper()
	g := NewWithT(t)
	certificate, err := cryptoutils.MarshalCertificateToPEM(by.certificate)
	g.Expect(err).NotTo(HaveOccurred())
	chain, err := cryptoutils.MarshalCertificatesToPEM([]*x509.Certificate{s.intermediate, s.root})
	g.Expect(err).NotTo(HaveOccurred())
	return cstatic.WithCertChain(certificate, chain)
}

// logged is the annotation by which the log of signatures says that it knows one.
func (s *sigstore) logged(t *testing.T, verifier, payload, signature []byte, at time.Time) cstatic.Option {
	t.Helper()
	g := NewWithT(t)
	sum := sha256.Sum256(payload)
	body, err := json.Marshal(map[string]any{
		"apiVersion": "0.0.1", "kind": "hashedrekord",
		"spec": map[string]any{
			"data":      map[string]any{"hash": map[string]any{"algorithm": "sha256", "value": hex.EncodeToString(sum[:])}},
			"signature": map[string]any{"content": signature, "publicKey": map[string]any{"content": verifier}},
		},
	})
	g.Expect(err).NotTo(HaveOccurred())
	id, err := s.RekorLogID()
	g.Expect(err).NotTo(HaveOccurred())
	entry := rekor.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogIndex: 1, LogID: id}
	promise := s.promise(t, tlog.RekorPayload{Body: entry.Body, IntegratedTime: entry.IntegratedTime, LogIndex: entry.LogIndex})
	return cstatic.WithBundle(&rekor.RekorBundle{SignedEntryTimestamp: promise, Payload: entry})
}

// promise is the log's signature on an entry.
func (s *sigstore) promise(t *testing.T, entry tlog.RekorPayload) []byte {
	t.Helper()
	g := NewWithT(t)
	id, err := s.RekorLogID()
	g.Expect(err).NotTo(HaveOccurred())
	entry.LogID = id
	promise, err := s.RekorSignPayload(entry)
	g.Expect(err).NotTo(HaveOccurred())
	return promise
}

// stamped is the annotation of a timestamp authority.
func (s *sigstore) stamped(t *testing.T, signature []byte) cstatic.Option {
	t.Helper()
	stamp, err := s.TimestampResponse(signature)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return cstatic.WithRFC3161Timestamp(&rekor.RFC3161Timestamp{SignedRFC3161Timestamp: stamp})
}

// attachIdentityLegacy adds a legacy signature by an identity.
func (s *sigstore) attachIdentityLegacy(t *testing.T, i *image, by leaf, payload []byte, seen witness) {
	t.Helper()
	signature := by.sign(t, payload)
	options := []cstatic.Option{s.certified(t, by)}
	if !seen.log.IsZero() {
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: by.certificate.Raw})
		options = append(options, s.logged(t, certificate, payload, signature, seen.log))
	}
	if seen.stamp {
		options = append(options, s.stamped(t, signature))
	}
	i.attachLegacy(t, payload, signature, options...)
}

// otherDigest is the digest of no image.
func otherDigest(t *testing.T) v1.Hash {
	t.Helper()
	digest, _, err := v1.SHA256(strings.NewReader("another image"))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return digest
}

// cosignPair is a key pair as the command makes it, with a password.
func cosignPair(t *testing.T) *cosign.KeysBytes {
	t.Helper()
	made, err := cosign.GenerateKeyPair(cosignPassword)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return made
}

func cosignPassword(bool) ([]byte, error) { return []byte("secret"), nil }
