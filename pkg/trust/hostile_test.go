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
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func TestASignatureThatBreaksItsReaderEndsNothing(t *testing.T) {
	g := NewWithT(t)
	_, err := trust.Guarded(func() (int, error) { panic("a library") })
	g.Expect(err).To(MatchError(ContainSubstring("malformed")))
	n, err := trust.Guarded(func() (int, error) { return 7, nil })
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(n).To(Equal(7))
}

// TestHostileRegistriesOfSignatures holds that a registry which misbehaves where
// signatures are read gets us nowhere, and nobody a verdict: what it hides is
// unknown, however it does so.
func TestHostileRegistriesOfSignatures(t *testing.T) {
	const secret = "hunter22"
	var led []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		led = append(led, r.Method+" "+r.URL.Path)
	}))
	t.Cleanup(elsewhere.Close)
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
				return
			}
		}
	}
	stalls := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the client sees what comes
		<-r.Context().Done()
	}
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("{")) // the test reads it
	}
	to := func(target string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, target, http.StatusTemporaryRedirect)
		}
	}
	realm := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}
	text := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":"UNKNOWN","message":"\u001b[31mAuthorization: Bearer %s"}]}`, secret) // the test reads it
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		words  string
	}{
		"an answer without end":            {endless, "larger than 4194304 bytes"},
		"an answer that stalls":            {stalls, "no progress"},
		"an answer that ends early":        {short, "ended in the middle"},
		"a redirect to a metadata service": {to("http://169.254.169.254/latest"), "never allowed"},
		"a redirect in a circle":           {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, "more than 5 redirects"},
		"a redirect to another protocol":   {to("file:///etc/passwd"), "refused"},
		"a login realm on another host":    {realm, "refused to send credentials"},
		"an error text with a secret":      {text, "500 Internal Server Error"},
	} {
		for _, part := range []string{"/referrers/", "/manifests/sha256:", "/blobs/", "/manifests/sha256-"} {
			t.Run(name+" for "+part, func(t *testing.T) {
				g := NewWithT(t)
				s := serve(t, true)
				i, by, demand := keyed(t, s)
				if part != "/manifests/sha256-" {
					i.signBundle(t, by)
				}
				s.answer(func(w http.ResponseWriter, r *http.Request) bool {
					if strings.Contains(r.URL.Path, part) {
						c.answer(w, r)
						return true
					}
					return false
				})
				client, err := registry.NewClient(registry.Options{IdleTimeout: 200 * time.Millisecond})
				g.Expect(err).NotTo(HaveOccurred())
				access := registry.Access{Auth: &authn.Basic{Username: "tenant", Password: secret}, Fingerprint: "tenant"}
				authority, err := trust.NewAuthority(demand, trust.Options{})
				g.Expect(err).NotTo(HaveOccurred())
				_, err = trust.NewRules(client.Repository(i.repository, access), rule(authority)).Verify(t.Context(), i.subject())
				expectDenied(g, err, trust.Unknown, c.words)
				g.Expect(err.Error()).NotTo(Or(ContainSubstring(secret), ContainSubstring("\x1b")))
			})
		}
	}
	g := NewWithT(t)
	g.Expect(led).To(BeEmpty(), "nobody was led elsewhere")
	expectNoStrangers(g)
}

// TestTheNextPageIsOfTheSameList holds that a link to another host, or to
// another list, is read for its query only.
func TestTheNextPageIsOfTheSameList(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	stored := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
	stored.ArtifactType = bundleMediaType
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		if r.URL.RawQuery == "last=x" {
			index.Manifests = []v1.Descriptor{stored}
		}
		w.Header().Set("Link", "<http://elsewhere.example.com/v2/other/referrers/"+i.digest.String()+`?last=x>; rel="next"`)
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		_ = json.NewEncoder(w).Encode(index) // the test reads it
		return true
	})
	_, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	expectNoStrangers(g)
}

// FuzzBundle pushes bundles of any bytes to a registry: the verdict is never
// that they are good, and what is good beside them stays so.
func FuzzBundle(f *testing.F) {
	t := &testing.T{}
	s := newSigstore(t)
	by := newPair(t)
	digest := otherDigest(t)
	f.Add(keyBundle(t, newPair(t), statement(t, digest, signPredicate)))
	f.Add(keyBundle(t, by, statement(t, digest, signPredicate)))
	f.Add(keyBundle(t, by, statement(t, digest, attestation)))
	f.Add(s.identityBundle(t, s.leaf(t, leafOptions{}), statement(t, digest, signPredicate), witness{log: time.Now(), stamp: true}))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{}},"dsseEnvelope":{}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{}},"messageSignature":{}}`))
	f.Add([]byte("\x1f\x8b"))
	byKey, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	byIdentity, err := trust.NewAuthority(s.identities(t, lists{log: true}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, bundle []byte) {
		for _, authority := range []*trust.Authority{byKey, byIdentity} {
			verdict, words := trust.JudgeBundle(t.Context(), authority, bundle)
			if verdict != trust.Rejected || words == "" {
				t.Fatalf("verdict %s: %s", verdict, words)
			}
		}
	})
}

// FuzzLegacy does the same with a payload and annotations of any text.
func FuzzLegacy(f *testing.F) {
	t := &testing.T{}
	s := newSigstore(t)
	by := newPair(t)
	text := []byte(`{"critical":{"image":{"docker-manifest-digest":"sha256:aa"}}}`)
	f.Add(text, by.sign(t, text), "", "", "")
	f.Add(text, []byte("no"), "no", "{}", `{"SignedRFC3161Timestamp":"bm8="}`)
	f.Add(text, by.sign(t, text), "", `{"SignedEntryTimestamp":"bm8=","Payload":{"body":"e30=","logID":"aa"}}`, "")
	byKey, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	byIdentity, err := trust.NewAuthority(s.identities(t, lists{log: true, stamps: true}), trust.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload, signature []byte, certificate, log, stamp string) {
		for _, authority := range []*trust.Authority{byKey, byIdentity} {
			verdict, words := trust.JudgeLegacy(t.Context(), authority, trust.LegacyParts{
				Payload: payload, Signature: signature, Certificate: certificate, Log: log, Stamp: stamp,
			})
			if verdict != trust.Rejected || words == "" {
				t.Fatalf("verdict %s: %s", verdict, words)
			}
		}
	})
}
