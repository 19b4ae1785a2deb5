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

package main

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-core-go/testhelper"
	"github.com/notaryproject/notation-go"
	notationregistry "github.com/notaryproject/notation-go/registry"
	notationsigner "github.com/notaryproject/notation-go/signer"
	. "github.com/onsi/gomega"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	ctypes "github.com/sigstore/cosign/v3/pkg/types"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"
	orasremote "oras.land/oras-go/v2/registry/remote"

	"github.com/image-source/image-source-controller/test/publish"
)

// judged runs verify -o json.
func judged(t *testing.T, code int, args ...string) map[string]any {
	t.Helper()
	g := NewWithT(t)
	r := flux(t, append([]string{"verify", "-o", "json"}, args...)...)
	g.Expect(r.code).To(Equal(code), r.err)
	if code != exitOK {
		expectOneError(g, r)
	}
	var v map[string]any
	g.Expect(json.Unmarshal([]byte(r.out), &v)).To(Succeed(), r.out)
	return v
}

// fileOf writes a file and returns its path.
func fileOf(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	NewWithT(t).Expect(os.WriteFile(path, content, 0o600)).To(Succeed())
	return path
}

func TestKeysVerify(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, public := keyPair(t, "")
	_, stranger := keyPair(t, "")
	signed, unsigned := r.Host()+"/org/app:v1", r.Host()+"/org/app:v2"
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", signed, "-s", key)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	must(t, "-f", folder(t, map[string]string{"a.yaml": configMap}), "-t", unsigned)
	digest, err := crane.Digest(signed)
	g.Expect(err).NotTo(HaveOccurred())

	v := judged(t, exitOK, signed, "--key", public)
	g.Expect(v["signer"]).To(HaveKeyWithValue("key", MatchRegexp("^[0-9a-f]{64}$")))
	fingerprint := v["signer"].(map[string]any)["key"].(string)
	g.Expect(v).To(Equal(map[string]any{
		"repository": r.Host() + "/org/app", "tag": "v1", "digest": digest, "verdict": "accepted",
		"signer": map[string]any{"key": fingerprint, "file": public, "format": "Sigstore bundle under the fallback tag"},
	}))
	text := must(t, "verify", signed, "--key", stranger, "--key", public)
	g.Expect(text).To(Equal(r.Host() + "/org/app@" + digest + "\nsigned by key " + public + " (sha256:" + fingerprint + "), a Sigstore bundle under the fallback tag\n"))

	v = judged(t, exitFailure, signed, "--key", stranger)
	g.Expect(v).To(And(HaveKeyWithValue("verdict", "rejected"), HaveKeyWithValue("found", ConsistOf("other key")), HaveKeyWithValue("digest", digest), Not(HaveKey("signer"))))
	v = judged(t, exitFailure, unsigned, "--key", public)
	g.Expect(v).To(And(HaveKeyWithValue("verdict", "rejected"), HaveKeyWithValue("found", ConsistOf("unsigned"))))
	run = flux(t, "verify", signed, "--key", stranger)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.out).To(BeEmpty())
	expectOneError(g, run, "by another key than "+stranger)

	v = judged(t, exitFailure, r.Host()+"/org/app:v3", "--key", public)
	g.Expect(v).To(And(HaveKeyWithValue("verdict", "unknown"), HaveKeyWithValue("message", ContainSubstring("404")), Not(HaveKey("digest"))))
	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		if strings.Contains(request.URL.Path, "/manifests/sha256-") {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	v = judged(t, exitFailure, signed, "--key", public)
	g.Expect(v).To(And(HaveKeyWithValue("verdict", "unknown"), HaveKeyWithValue("message", ContainSubstring("503")), HaveKeyWithValue("digest", digest)))
}

func TestLegacySignaturesVerify(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", manifests(t), "-t", ref)
	by, err := publish.NewSigner()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.Shelf().Sign(t.Context(), "org/app:v1", by)).To(Succeed())
	v := judged(t, exitOK, ref, "--key", fileOf(t, "release.pem", by.PublicKey))
	g.Expect(v["signer"]).To(HaveKeyWithValue("format", "legacy cosign signature"))
}

// keyless signs what a reference points at without a key, and returns the file of
// the root that vouches for it.
func keyless(t *testing.T, ref, identity, issuer string) (trustedRoot string) {
	t.Helper()
	g := NewWithT(t)
	sigstore, err := ca.NewVirtualSigstore()
	g.Expect(err).NotTo(HaveOccurred())
	certificate, key, err := sigstore.GenerateLeafCert(identity, issuer)
	g.Expect(err).NotTo(HaveOccurred())
	digest, err := crane.Digest(ref)
	g.Expect(err).NotTo(HaveOccurred())
	statement, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "predicateType": ctypes.CosignSignPredicateType, "predicate": map[string]any{},
		"subject": []any{map[string]any{"digest": map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}}},
	})
	g.Expect(err).NotTo(HaveOccurred())
	sum := sha256.Sum256(dsse.PAE(ctypes.IntotoPayloadType, statement))
	signature, err := key.(crypto.Signer).Sign(rand.Reader, sum[:], crypto.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	stamp, err := sigstore.TimestampResponse(signature)
	g.Expect(err).NotTo(HaveOccurred())
	bundle, err := protojson.Marshal(&protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: ctypes.IntotoPayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
		}},
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: certificate.Raw}},
			TimestampVerificationData: &protobundle.TimestampVerificationData{
				Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: stamp}},
			},
		},
	})
	g.Expect(err).NotTo(HaveOccurred())
	tag, err := name.NewTag(ref)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ociremote.WriteAttestationNewBundleFormat(tag.Digest(digest), bundle, ctypes.CosignSignPredicateType)).To(Succeed())
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, sigstore.FulcioCertificateAuthorities(), nil, sigstore.TimestampingAuthorities(), nil)
	g.Expect(err).NotTo(HaveOccurred())
	text, err := trusted.MarshalJSON()
	g.Expect(err).NotTo(HaveOccurred())
	return fileOf(t, "root.json", text)
}

func TestIdentitiesVerify(t *testing.T) {
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", manifests(t), "-t", ref)
	const (
		identity = "https://github.com/org/app/.github/workflows/release.yaml@refs/tags/v1"
		issuer   = "https://token.actions.githubusercontent.com"
	)
	trusted := keyless(t, ref, identity, issuer)
	other := r.Host() + "/org/other:v1"
	must(t, "-f", manifests(t), "-t", other)
	stranger := keyless(t, other, identity, issuer)
	for name, c := range map[string]struct {
		args    []string
		root    string
		verdict string
		found   string
	}{
		"the identity":                      {[]string{"--certificate-identity", identity, "--certificate-oidc-issuer", issuer}, trusted, "accepted", ""},
		"expressions":                       {[]string{"--certificate-identity-regexp", `https://github\.com/org/.*`, "--certificate-oidc-issuer-regexp", "https://.*"}, trusted, "accepted", ""},
		"an expression for a part of it":    {[]string{"--certificate-identity-regexp", `https://github\.com/org/`, "--certificate-oidc-issuer", issuer}, trusted, "rejected", "other identity"},
		"another identity":                  {[]string{"--certificate-identity", "https://github.com/org/evil", "--certificate-oidc-issuer", issuer}, trusted, "rejected", "other identity"},
		"an identity that looks the same":   {[]string{"--certificate-identity", strings.ReplaceAll(identity, ".yaml", "xyaml"), "--certificate-oidc-issuer", issuer}, trusted, "rejected", "other identity"},
		"a literal that is no expression":   {[]string{"--certificate-identity", strings.ReplaceAll(identity, "release", "re.ease"), "--certificate-oidc-issuer", issuer}, trusted, "rejected", "other identity"},
		"another issuer":                    {[]string{"--certificate-identity", identity, "--certificate-oidc-issuer", "https://issuer.example.com"}, trusted, "rejected", "other identity"},
		"a root that does not vouch for it": {[]string{"--certificate-identity", identity, "--certificate-oidc-issuer", issuer}, stranger, "rejected", "untrusted"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			code := exitOK
			if c.verdict != "accepted" {
				code = exitFailure
			}
			v := judged(t, code, append(c.args, ref, "--trusted-root", c.root)...)
			g.Expect(v["verdict"]).To(Equal(c.verdict))
			if c.found != "" {
				g.Expect(v["found"]).To(ConsistOf(c.found))
				return
			}
			g.Expect(v["signer"]).To(And(HaveKeyWithValue("subject", identity), HaveKeyWithValue("issuer", issuer)))
		})
	}
	g := NewWithT(t)
	g.Expect(inspect(t, exitOK, ref)["signatures"]).To(ConsistOf(And(HaveKeyWithValue("subject", identity), HaveKeyWithValue("issuer", issuer))))
}

func TestNotationVerifies(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", manifests(t), "-t", ref)
	leaf, authority := testhelper.GetECLeafCertificate(), testhelper.GetECRootCertificate()
	by, err := notationsigner.NewGenericSigner(leaf.PrivateKey, []*x509.Certificate{leaf.Cert, authority.Cert})
	g.Expect(err).NotTo(HaveOccurred())
	repository, err := orasremote.NewRepository(r.Host() + "/org/app")
	g.Expect(err).NotTo(HaveOccurred())
	repository.PlainHTTP = true
	_, err = notation.Sign(t.Context(), by, notationregistry.NewRepository(repository), notation.SignOptions{
		SignerSignOptions: notation.SignerSignOptions{SignatureMediaType: jws.MediaTypeEnvelope}, ArtifactReference: ref,
	})
	g.Expect(err).NotTo(HaveOccurred())
	policy := fileOf(t, "policy.json", []byte(`{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"],
		"signatureVerification": {"level": "strict", "override": {"revocation": "skip"}}, "trustStores": ["ca:any"], "trustedIdentities": ["*"]}]}`))
	trusted := fileOf(t, "authority.cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Cert.Raw}))
	stranger := fileOf(t, "stranger.cer", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testhelper.GetRSARootCertificate().Cert.Raw}))

	v := judged(t, exitOK, ref, "--notation-trust-policy", policy, "--notation-cert", trusted)
	g.Expect(v["signer"]).To(And(HaveKeyWithValue("format", "Notation JWS signature"), HaveKeyWithValue("subject", leaf.Cert.Subject.String())))
	v = judged(t, exitFailure, ref, "--notation-trust-policy", policy, "--notation-cert", stranger)
	g.Expect(v).To(And(HaveKeyWithValue("verdict", "rejected"), HaveKeyWithValue("found", ConsistOf("other identity"))))
	g.Expect(inspect(t, exitOK, ref)["signatures"]).To(ConsistOf(And(
		HaveKeyWithValue("format", "Notation JWS signature"), HaveKeyWithValue("subject", leaf.Cert.Subject.String()), Not(HaveKey("digests")))))
}

// TestOnlyThePublicRootNeedsAHome runs without one, as jobs in containers do.
func TestOnlyThePublicRootNeedsAHome(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	key, public := keyPair(t, "")
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	const identity, issuer = "https://github.com/org/app", "https://token.actions.githubusercontent.com"
	trusted := keyless(t, ref, identity, issuer)
	t.Setenv("HOME", "")
	t.Setenv("XDG_CACHE_HOME", "")

	must(t, "verify", ref, "--key", public)
	must(t, "pull", ref, "--key", public, "-o", t.TempDir())
	asked := []string{"verify", ref, "--certificate-identity", identity, "--certificate-oidc-issuer", issuer}
	must(t, append(asked, "--trusted-root", trusted)...)
	run = flux(t, asked...)
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "there is no folder to keep the public root of trust in", "TUF_ROOT")
}

func TestDemandsThatMakeNoSense(t *testing.T) {
	key, public := keyPair(t, "")
	nonsense := fileOf(t, "nonsense", []byte("nonsense"))
	large := fileOf(t, "large", make([]byte, maxTrustBytes+1))
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"nothing":                    {nil, []string{"--key", "--notation-trust-policy"}},
		"a private key":              {[]string{"--key", key}, []string{"private key", "cosign.pub"}},
		"no key":                     {[]string{"--key", nonsense}, []string{nonsense, "not a public key"}},
		"no such file":               {[]string{"--key", "none.pub"}, []string{"--key", "none.pub"}},
		"a file of another kind":     {[]string{"--key", large}, []string{"more than"}},
		"a folder":                   {[]string{"--key", t.TempDir()}, []string{"--key", "it is a folder"}},
		"a key and an identity":      {[]string{"--key", public, "--certificate-identity", "x"}, []string{"key", "certificate-identity"}},
		"an identity of nobody":      {[]string{"--certificate-identity", "x"}, []string{"--certificate-oidc-issuer"}},
		"an issuer of nobody":        {[]string{"--certificate-oidc-issuer", "x"}, []string{"--certificate-identity"}},
		"no expression":              {[]string{"--certificate-identity-regexp", "(", "--certificate-oidc-issuer", "x"}, []string{"--certificate-identity-regexp"}},
		"no trusted root":            {[]string{"--key", public, "--trusted-root", nonsense}, []string{nonsense, "not a trusted root"}},
		"certificates by themselves": {[]string{"--notation-cert", nonsense}, []string{"--notation-trust-policy"}},
		"no trust policy":            {[]string{"--notation-trust-policy", nonsense}, []string{nonsense, "not a trust policy"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, append([]string{"verify", "127.0.0.1:1/org/app:v1", "-o", "json"}, c.args...)...)
			g.Expect(run.code).To(Equal(exitFailure))
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
		})
	}
}
