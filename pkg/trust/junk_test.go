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
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v3/pkg/oci/remote"
	cstatic "github.com/sigstore/cosign/v3/pkg/oci/static"

	"github.com/image-source/image-source-controller/pkg/trust"
)

// TestAnEntryThatCannotBeDecodedHidesNoSignature pushes junk among the referrers of an
// image. It must neither hide a good signature nor make a verdict unknown.
func TestAnEntryThatCannotBeDecodedHidesNoSignature(t *testing.T) {
	for name, junk := range map[string]string{
		"a digest of an unknown algorithm": `{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"blake3:` + strings.Repeat("0", 64) + `"}`,
		"a digest that is a number":        `{"digest":7}`,
		"a digest that leaves the folder":  `{"digest":"sha256:../../x"}`,
		"a type that is a list":            `{"artifactType":[]}`,
		"annotations that are a list":      `{"annotations":[]}`,
		"a predicate that is an object":    `{"annotations":{"dev.sigstore.bundle.predicateType":{}}}`,
		"a string":                         `"sha256"`,
		"a list":                           `[[[]]]`,
	} {
		for _, where := range []string{"the list of referrers", "the fallback tag"} {
			for _, first := range []bool{true, false} {
				t.Run(fmt.Sprint(name, " in ", where, ", first: ", first), func(t *testing.T) {
					g := NewWithT(t)
					s := serve(t, where == "the list of referrers")
					i, by, demand := keyed(t, s)
					good := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
					good.ArtifactType = bundleMediaType
					text, err := json.Marshal(good)
					g.Expect(err).NotTo(HaveOccurred())
					entries := []string{junk, string(text)}
					if !first {
						entries = []string{string(text), junk}
					}
					i.index(t, where, entries...)
					_, err = i.verify(t, demand)
					g.Expect(err).NotTo(HaveOccurred())

					_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": newPair(t).pem(t)}))
					expectDenied(g, err, trust.Rejected, "that cannot be read", "by another key")

					i.index(t, where, junk)
					_, err = i.verify(t, demand)
					expectDenied(g, err, trust.Rejected, "that cannot be read")
				})
			}
		}
	}
}

// index has the registry answer with an index of some entries.
func (i *image) index(t *testing.T, where string, entries ...string) {
	t.Helper()
	body := `{"schemaVersion":2,"mediaType":"` + string(types.OCIImageIndex) + `","manifests":[` + strings.Join(entries, ",") + `]}`
	part := "/manifests/sha256-" + i.digest.Hex
	if where == "the list of referrers" {
		part = "/referrers/"
	}
	i.serveAt(part, body, http.Header{"Content-Type": {string(types.OCIImageIndex)}})
}

// serveAt answers requests whose path ends with, or holds, a part.
func (i *image) serveAt(part, body string, header http.Header) {
	i.server.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, part) && (!strings.HasSuffix(part, "/") || !strings.Contains(r.URL.Path, part)) {
			return false
		}
		maps.Copy(w.Header(), header)
		_, _ = w.Write([]byte(body)) // the test reads it
		return true
	})
}

// TestWhatIsNotReadIsNamed holds that an image with signatures of another kind is not
// called unsigned.
func TestWhatIsNotReadIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		sign     func(t *testing.T, i *image, by pair)
		notation bool // is demanded
		words    string
	}{
		"a legacy signature that cosign stored as a referrer": {
			sign:  func(t *testing.T, i *image, by pair) { i.attachLegacyReferrer(t, by) },
			words: "a legacy cosign signature that is stored as a referrer",
		},
		"the same, as a registry lists it that knows no artifactType": {
			sign: func(t *testing.T, i *image, _ pair) {
				manifest := i.referrer(t, "", i.blob(t, []byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json"))
				delete(manifest, "artifactType")
				i.putUnderTag(t, manifest, string(types.OCIConfigJSON))
			},
			words: "a legacy cosign signature that is stored as a referrer",
		},
		"a signature of Notation": {
			sign: func(t *testing.T, i *image, _ pair) {
				i.attachNotation(t, newNotary(t, "any").sign(t, notationOptions{target: i.descriptor}), "")
			},
			words: "a signature of Notation, where one of cosign is expected",
		},
		"a bundle where Notation is demanded": {
			sign: func(t *testing.T, i *image, by pair) {
				i.attachBundle(t, keyBundle(t, by, statement(t, i.digest, signPredicate)))
			},
			notation: true, words: "a Sigstore bundle, where a signature of Notation is expected",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i, by, demand := keyed(t, serve(t, true))
			if c.notation {
				demand = newNotary(t, "any").demand(policy(t, "strict", nil))
			}
			c.sign(t, i, by)
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Rejected, c.words)
			g.Expect(err.Error()).NotTo(ContainSubstring("it is not signed"))

			// It hides no good signature.
			if !c.notation {
				i.signLegacy(t, by)
				_, err = i.verify(t, demand)
				g.Expect(err).NotTo(HaveOccurred())
			}
		})
	}
}

// attachLegacyReferrer stores a legacy signature with the code of cosign itself, as
// with --registry-referrers-mode=oci-1-1.
func (i *image) attachLegacyReferrer(t *testing.T, by pair) {
	t.Helper()
	g := NewWithT(t)
	digest, text := i.repository.Digest(i.digest.String()), claim(t, i, i.digest)
	entity, err := ociremote.SignedEntity(digest)
	g.Expect(err).NotTo(HaveOccurred())
	added, err := cstatic.NewSignature(text, base64.StdEncoding.EncodeToString(by.sign(t, text)))
	g.Expect(err).NotTo(HaveOccurred())
	entity, err = mutate.AttachSignatureToEntity(entity, added)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ociremote.WriteSignaturesExperimentalOCI(digest, entity)).To(Succeed())
}

// TestWhatIsUnderATagOfSignatures holds that only bytes that somebody vouches for count
// as the absence of signatures.
func TestWhatIsUnderATagOfSignatures(t *testing.T) {
	const page = "<html>be right back</html>"
	digest, _, err := v1.SHA256(strings.NewReader(page))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for name, c := range map[string]struct {
		body    string
		header  http.Header
		verdict trust.Verdict
	}{
		"a page of somebody else":         {page, http.Header{"Content-Type": {"text/html"}}, trust.Unknown},
		"nothing":                         {"", nil, trust.Unknown},
		"an empty object":                 {"{}", nil, trust.Unknown},
		"an error text":                   {`{"errors":[{"code":"UNAVAILABLE"}]}`, nil, trust.Unknown},
		"an index that is cut":            {`{"schemaVersion":2,"manifests":[`, nil, trust.Unknown},
		"bytes of another digest":         {`{"schemaVersion":2,"layers":[]}`, http.Header{"Docker-Content-Digest": {digest.String()}}, trust.Unknown},
		"a page that the registry holds":  {page, http.Header{"Docker-Content-Digest": {digest.String()}}, trust.Rejected},
		"a manifest of another kind":      {`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`, nil, trust.Rejected},
		"an index without a list":         {`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`, nil, trust.Rejected},
		"an index whose list is a number": {`{"schemaVersion":2,"manifests":7}`, nil, trust.Rejected},
		"an index with bytes behind it":   {`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]} x`, http.Header{"Docker-Content-Digest": {mustDigest(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]} x`)}}, trust.Rejected},
	} {
		for _, tag := range []string{"", ".sig"} {
			t.Run(name+" at the tag sha256-<hex>"+tag, func(t *testing.T) {
				g := NewWithT(t)
				i, _, demand := keyed(t, serve(t, false))
				i.serveAt("/manifests/sha256-"+i.digest.Hex+tag, c.body, c.header)
				_, err := i.verify(t, demand)
				expectDenied(g, err, c.verdict)
			})
		}
	}
}

func mustDigest(text string) string {
	digest, _, _ := v1.SHA256(strings.NewReader(text)) // a string can be read
	return digest.String()
}

func TestALayerThatCannotBeDecodedHidesNoLegacySignature(t *testing.T) {
	g := NewWithT(t)
	i, by, demand := keyed(t, serve(t, true))
	text := claim(t, i, i.digest)
	good := i.blob(t, text, "application/vnd.dev.cosign.simplesigning.v1+json")
	good.Annotations = map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(by.sign(t, text))}
	layer, err := json.Marshal(good)
	g.Expect(err).NotTo(HaveOccurred())
	junk := `{"digest":"blake3:` + strings.Repeat("0", 64) + `"}`
	body := `{"schemaVersion":2,"config":` + junk + `,"layers":[` + junk + `,` + string(layer) + `,7]}`
	i.serveAt("/manifests/sha256-"+i.digest.Hex+".sig", body, nil)
	_, err = i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = i.verify(t, keys(map[string][]byte{"cosign.pub": newPair(t).pem(t)}))
	expectDenied(g, err, trust.Rejected, "without a sha256 digest", "by another key")
}
