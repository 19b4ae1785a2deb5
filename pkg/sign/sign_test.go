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

package sign_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/go-openapi/strfmt"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	"github.com/sigstore/rekor/pkg/generated/models"
	rekortypes "github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/sign"
)

var password = []byte("correct horse")

// pushed returns an image in a registry of this process.
func pushed(t *testing.T, referrers bool) name.Digest {
	t.Helper()
	g := NewWithT(t)
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(referrers)))
	t.Cleanup(server.Close)
	image, err := random.Image(100, 1)
	g.Expect(err).NotTo(HaveOccurred())
	repository, err := name.NewRepository(server.Listener.Addr().String() + "/org/app")
	g.Expect(err).NotTo(HaveOccurred())
	digest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	at := repository.Digest(digest.String())
	g.Expect(remote.Write(at, image)).To(Succeed())
	return at
}

// options is the way to the registry of an image.
func options(t *testing.T, of name.Digest) sign.Options {
	t.Helper()
	client, err := registry.NewClient(registry.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	repository := client.Repository(of.Context(), registry.Access{}).Writable()
	return sign.Options{Remote: []remote.Option{remote.WithTransport(repository.RoundTripper())}, Registry: repository}
}

// recorded has signatures recorded in a log.
func recorded(t *testing.T, of name.Digest, log string) sign.Options {
	t.Helper()
	o := options(t, of)
	o.Log = log
	return o
}

// attacher is Key.Attach or Key.AttachLegacy.
type attacher func(ctx context.Context, subject name.Digest, o sign.Options) (*sign.Attached, error)

func attach(t *testing.T, by attacher, of name.Digest, o sign.Options) error {
	t.Helper()
	_, err := by(t.Context(), of, o)
	return err
}

func newKey(t *testing.T) *sign.Key {
	t.Helper()
	g := NewWithT(t)
	pair, err := sign.GenerateKeyPair(password)
	g.Expect(err).NotTo(HaveOccurred())
	key, err := sign.OpenKey(pair.Private, password)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(key.PublicKey()).To(Equal(pair.Public))
	return key
}

// demand is what cosign checks signatures by.
func demand(t *testing.T, key *sign.Key) *cosign.CheckOpts {
	t.Helper()
	return demandBy(t, key, crypto.SHA256)
}

func demandBy(t *testing.T, key *sign.Key, hash crypto.Hash) *cosign.CheckOpts {
	t.Helper()
	g := NewWithT(t)
	public, err := cryptoutils.UnmarshalPEMToPublicKey(key.PublicKey())
	g.Expect(err).NotTo(HaveOccurred())
	verifier, err := signature.LoadVerifier(public, hash)
	g.Expect(err).NotTo(HaveOccurred())
	return &cosign.CheckOpts{SigVerifier: verifier, IgnoreTlog: true, Offline: true, ClaimVerifier: cosign.SimpleClaimVerifier}
}

// bundlesVerify tells what cosign makes of the bundles of a digest.
func bundlesVerify(t *testing.T, of name.Digest, demand *cosign.CheckOpts) error {
	t.Helper()
	bundles, hash, err := cosign.GetBundles(t.Context(), of, []ociremote.Option{ociremote.WithRemoteOptions(remote.WithContext(t.Context()))})
	if err != nil {
		return err
	}
	digest, err := hex.DecodeString(hash.Hex)
	if err != nil {
		return err
	}
	failed := errors.New("there are no bundles")
	for _, bundle := range bundles {
		if _, failed = cosign.VerifyNewBundle(t.Context(), demand, verify.WithArtifactDigest(hash.Algorithm, digest), bundle); failed == nil {
			return nil
		}
	}
	return failed
}

func legacyVerifies(t *testing.T, of name.Digest, demand *cosign.CheckOpts) error {
	t.Helper()
	demand.RegistryClientOpts = []ociremote.Option{ociremote.WithRemoteOptions(remote.WithContext(t.Context()))}
	_, _, err := cosign.VerifyImageSignatures(t.Context(), of, demand)
	return err
}

func TestCosignAcceptsWhatIsSigned(t *testing.T) {
	for name, referrers := range map[string]bool{"by a registry that lists referrers": true, "by one that does not": false} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			of, key, other := pushed(t, referrers), newKey(t), newKey(t)
			g.Expect(bundlesVerify(t, of, demand(t, key))).NotTo(Succeed())
			g.Expect(attach(t, key.Attach, of, options(t, of))).To(Succeed())
			g.Expect(bundlesVerify(t, of, demand(t, key))).To(Succeed())
			g.Expect(bundlesVerify(t, of, demand(t, other))).NotTo(Succeed())

			g.Expect(attach(t, other.Attach, of, options(t, of))).To(Succeed())
			g.Expect(bundlesVerify(t, of, demand(t, key))).To(Succeed(), "a second signature hides the first")
			g.Expect(bundlesVerify(t, of, demand(t, other))).To(Succeed())

			g.Expect(legacyVerifies(t, of, demand(t, key))).NotTo(Succeed())
			g.Expect(attach(t, key.AttachLegacy, of, options(t, of))).To(Succeed())
			g.Expect(legacyVerifies(t, of, demand(t, key))).To(Succeed())
			g.Expect(legacyVerifies(t, of, demand(t, other))).NotTo(Succeed())
			g.Expect(attach(t, other.AttachLegacy, of, options(t, of))).To(Succeed())
			g.Expect(legacyVerifies(t, of, demand(t, key))).To(Succeed(), "a second signature replaces the first")
		})
	}
}

// TestOthersVerifyWithAHashOfTheirOwn holds what the documentation says of keys that
// are not on P-256. cosign verify takes the hash from a flag, which defaults to SHA-256;
// source-controller takes SHA-256.
func TestOthersVerifyWithAHashOfTheirOwn(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	numbers, err := rsa.GenerateKey(rand.Reader, 2048)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, c := range map[string]struct {
		key crypto.Signer
		// by is the hash by which others accept; zero: they do not.
		by crypto.Hash
	}{
		"P-256":   {onCurve(t, elliptic.P256()), crypto.SHA256},
		"RSA":     {numbers, crypto.SHA256},
		"P-384":   {onCurve(t, elliptic.P384()), crypto.SHA384},
		"P-521":   {onCurve(t, elliptic.P521()), crypto.SHA512},
		"Ed25519": {edwards, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			key, of := imported(t, c.key), pushed(t, true)
			g.Expect(key.Hash() == crypto.SHA256).To(Equal(c.by == crypto.SHA256))
			g.Expect(attach(t, key.Attach, of, options(t, of))).To(Succeed())
			g.Expect(attach(t, key.AttachLegacy, of, options(t, of))).To(Succeed())
			for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
				accepts := Not(Succeed())
				if hash == c.by {
					accepts = Succeed()
				}
				g.Expect(bundlesVerify(t, of, demandBy(t, key, hash))).To(accepts, "%s", hash)
				g.Expect(legacyVerifies(t, of, demandBy(t, key, hash))).To(accepts, "%s", hash)
			}
		})
	}
}

func onCurve(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return key
}

// imported is a key as cosign import-key-pair writes it.
func imported(t *testing.T, private crypto.Signer) *sign.Key {
	t.Helper()
	g := NewWithT(t)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(t.TempDir(), "key.pem")
	g.Expect(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)).To(Succeed())
	pair, err := cosign.ImportKeyPair(path, func(bool) ([]byte, error) { return password, nil })
	g.Expect(err).NotTo(HaveOccurred())
	key, err := sign.OpenKey(pair.PrivateBytes, password)
	g.Expect(err).NotTo(HaveOccurred())
	return key
}

// rekor is a transparency log with the keys of a Sigstore of the test: it reads
// entries, makes them canonical and signs them as Rekor does.
type rekor struct {
	*ca.VirtualSigstore
	t *testing.T
}

// ServeHTTP implements POST /api/v1/log/entries.
func (r rekor) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	entry, err := r.enter(request.Context(), request.Body)
	if err != nil || request.URL.Path != "/api/v1/log/entries" {
		r.t.Errorf("%s %s: %v", request.Method, request.URL.Path, err)
		http.Error(w, "bad entry", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", "an-entry")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(models.LogEntry{"an-entry": entry}); err != nil {
		r.t.Error(err)
	}
}

func (r rekor) enter(ctx context.Context, body io.Reader) (models.LogEntryAnon, error) {
	var none models.LogEntryAnon
	proposed, err := models.UnmarshalProposedEntry(body, runtime.JSONConsumer())
	if err != nil {
		return none, err
	}
	entry, err := rekortypes.UnmarshalEntry(proposed)
	if err != nil {
		return none, err
	}
	canonical, err := rekortypes.CanonicalizeEntry(ctx, entry)
	if err != nil {
		return none, err
	}
	id, err := r.RekorLogID()
	if err != nil {
		return none, err
	}
	encoded, now, index := base64.StdEncoding.EncodeToString(canonical), time.Now().Unix(), int64(0)
	promise, err := r.RekorSignPayload(tlog.RekorPayload{Body: encoded, IntegratedTime: now, LogIndex: index, LogID: id})
	if err != nil {
		return none, err
	}
	proof, err := r.GetInclusionProof(canonical)
	if err != nil {
		return none, err
	}
	return models.LogEntryAnon{
		Body: encoded, IntegratedTime: &now, LogIndex: &index, LogID: &id,
		Verification: &models.LogEntryAnonVerification{SignedEntryTimestamp: strfmt.Base64(promise), InclusionProof: proof},
	}, nil
}

func TestSignaturesCarryTheEntryOfALog(t *testing.T) {
	g := NewWithT(t)
	virtual, err := ca.NewVirtualSigstore()
	g.Expect(err).NotTo(HaveOccurred())
	server := httptest.NewServer(rekor{virtual, t})
	defer server.Close()
	logged := func(key *sign.Key) *cosign.CheckOpts {
		checks := demand(t, key)
		checks.IgnoreTlog, checks.TrustedMaterial = false, virtual
		return checks
	}
	of, key := pushed(t, true), newKey(t)
	g.Expect(attach(t, key.Attach, of, options(t, of))).To(Succeed())
	g.Expect(attach(t, key.AttachLegacy, of, options(t, of))).To(Succeed())
	g.Expect(bundlesVerify(t, of, logged(key))).NotTo(Succeed(), "what no log knows counts where a log has to")
	g.Expect(legacyVerifies(t, of, logged(key))).NotTo(Succeed())

	g.Expect(attach(t, key.Attach, of, recorded(t, of, server.URL))).To(Succeed())
	g.Expect(bundlesVerify(t, of, logged(key))).To(Succeed())
	g.Expect(attach(t, key.AttachLegacy, of, recorded(t, of, server.URL))).To(Succeed())
	g.Expect(legacyVerifies(t, of, logged(key))).To(Succeed())
}

// TestAHostileLogFailsTheSignature holds that a log which answers with anything but an
// entry is an error, takes little memory, and is not read for ever.
func TestAHostileLogFailsTheSignature(t *testing.T) {
	for name, c := range map[string]struct {
		entry string
		rest  string // is repeated without end
		words string
	}{
		"no entry":                    {`{}`, "", "proof of inclusion"},
		"an empty entry":              {`{"an-entry":{}}`, "", "proof of inclusion"},
		"an entry without a proof":    {`{"an-entry":{"body":"e30=","integratedTime":1,"logIndex":0,"logID":"` + strings.Repeat("0", 64) + `"}}`, "", "proof of inclusion"},
		"an answer that does not end": {`{"an-entry":{"body":"`, strings.Repeat("A", 1<<16), "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("ETag", "an-entry")
				w.WriteHeader(http.StatusCreated)
				_, err := io.WriteString(w, c.entry)
				for c.rest != "" && err == nil {
					_, err = io.WriteString(w, c.rest)
				}
			}))
			defer server.Close()
			of, key := pushed(t, true), newKey(t)
			for _, attached := range []attacher{key.Attach, key.AttachLegacy} {
				g.Expect(attach(t, attached, of, recorded(t, of, server.URL))).To(MatchError(ContainSubstring(c.words)))
			}
		})
	}
}

// TestAnEntryAboutAnotherSignatureFailsTheSignature answers with a good entry of the same
// log: that of another key on the same digest, and that of the same key on another one.
func TestAnEntryAboutAnotherSignatureFailsTheSignature(t *testing.T) {
	virtual, err := ca.NewVirtualSigstore()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	of, key := pushed(t, true), newKey(t)
	for name, c := range map[string]struct {
		key *sign.Key
		of  name.Digest
	}{
		"of another key":    {newKey(t), of},
		"of another digest": {key, pushed(t, true)},
	} {
		for format, attached := range map[string]func(*sign.Key) attacher{
			"bundle": func(k *sign.Key) attacher { return k.Attach },
			"legacy": func(k *sign.Key) attacher { return k.AttachLegacy },
		} {
			t.Run(name+", "+format, func(t *testing.T) {
				g := NewWithT(t)
				good := rekor{virtual, t}
				var first *httptest.ResponseRecorder
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
					if first == nil {
						first = httptest.NewRecorder()
						good.ServeHTTP(first, request)
					}
					maps.Copy(w.Header(), first.Header())
					w.WriteHeader(first.Code)
					_, _ = w.Write(first.Body.Bytes())
				}))
				defer server.Close()
				g.Expect(attach(t, attached(c.key), c.of, recorded(t, c.of, server.URL))).To(Succeed())
				g.Expect(attach(t, attached(key), of, recorded(t, of, server.URL))).To(MatchError(ContainSubstring("an entry about something else")))
			})
		}
	}
}

func TestALogThatRefusesFailsTheSignature(t *testing.T) {
	g := NewWithT(t)
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	of, key := pushed(t, true), newKey(t)
	g.Expect(attach(t, key.Attach, of, recorded(t, of, server.URL))).NotTo(Succeed())
	g.Expect(bundlesVerify(t, of, demand(t, key))).NotTo(Succeed(), "something was attached")
}

func TestKeysThatCannotBeOpened(t *testing.T) {
	pair, err := sign.GenerateKeyPair(password)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, c := range map[string]struct {
		text     []byte
		password string
		words    string
	}{
		"the wrong password": {pair.Private, "wrong", "the password does not open the key"},
		"no password":        {pair.Private, "", "the password does not open the key"},
		"the public key":     {pair.Public, string(password), "it holds a public key"},
		"some text":          {[]byte("hello"), "", "no PEM block"},
		"another key":        {[]byte("-----BEGIN EC PRIVATE KEY-----\n-----END EC PRIVATE KEY-----\n"), "", `"EC PRIVATE KEY"`},
		"a damaged key":      {[]byte(strings.Replace(string(pair.Private), "e", "f", 5)), string(password), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := sign.OpenKey(c.text, []byte(c.password))
			g.Expect(err).To(MatchError(ContainSubstring(c.words)))
			g.Expect(err.Error()).NotTo(ContainSubstring(string(password)))
		})
	}
}

func TestAnEmptyPasswordOpensWhatItEncrypted(t *testing.T) {
	g := NewWithT(t)
	pair, err := sign.GenerateKeyPair(nil)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = sign.OpenKey(pair.Private, nil)
	g.Expect(err).NotTo(HaveOccurred())
}

// TestWhatIsUnderATagOfSignaturesIsReadToALimit holds that the author of a manifest under
// the tag for signatures does not choose how much of it a job has to hold in memory.
func TestWhatIsUnderATagOfSignaturesIsReadToALimit(t *testing.T) {
	const size = 1 << 28
	g := NewWithT(t)
	stored := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	digest := "sha256:" + strings.Repeat("a", 64)
	var sent atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".sig"):
			w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"config":{"mediaType":"x","size":%d,"digest":%q},"layers":[]}`, size, digest)
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest):
			n, _ := io.CopyN(w, rand.Reader, size)
			sent.Add(n)
		default:
			stored.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	image, err := random.Image(100, 1)
	g.Expect(err).NotTo(HaveOccurred())
	of, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	repository, err := name.NewRepository(server.Listener.Addr().String() + "/org/app")
	g.Expect(err).NotTo(HaveOccurred())
	at := repository.Digest(of.String())
	g.Expect(remote.Write(at, image)).To(Succeed())
	err = attach(t, newKey(t).AttachLegacy, at, options(t, at))
	g.Expect(err).To(MatchError(ContainSubstring("larger than")))
	server.Close()
	g.Expect(sent.Load()).To(BeNumerically("<", 64<<20), "%v", err)
}
