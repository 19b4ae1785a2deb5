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
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/memory"
)

// filled is text of at most some bytes around as many equal elements as fit.
func filled(before, element, after string, most int) []byte {
	n := (most - len(before) - len(after)) / (len(element) + 1)
	return []byte(before + strings.Repeat(element+",", n) + element + after)
}

// coseOfMaps is an envelope of at most some bytes with maps in maps in a header that
// nobody signed (RFC 9052 section 4.2).
func coseOfMaps(most int) []byte {
	const before, after = "\xd2\x84\x44\xa1\x01\x38\x24\xa1\x61x\x9a", "\x42{}\x41\x00"
	maps := strings.Repeat("\xa1\x00", 20) + "\xa0"
	count := (most - len(before) - 4 - len(after)) / len(maps)
	return slices.Concat(binary.BigEndian.AppendUint32([]byte(before), uint32(count)), bytes.Repeat([]byte(maps), count), []byte(after))
}

// TestHostileSignaturesTakeLittleMemory holds that documents of many small
// values are refused before they are decoded, wherever a registry may put them.
func TestHostileSignaturesTakeLittleMemory(t *testing.T) {
	const whole, half = 4<<20 - 1024, 2 << 20
	pages := func(before, element string) func(*testing.T, *image) {
		return func(_ *testing.T, i *image) {
			page := filled(before, element, "]}", whole)
			i.server.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/referrers/") {
					return false
				}
				next := len(r.URL.Query().Get("last")) + 1
				w.Header().Set("Link", fmt.Sprintf(`<?last=%s>; rel="next"`, strings.Repeat("x", next)))
				w.Header().Set("Content-Type", string(types.OCIImageIndex))
				_, _ = w.Write(page) // the test reads it
				return true
			})
		}
	}
	bundle := func(body []byte) func(*testing.T, *image) {
		return func(t *testing.T, i *image) { t.Helper(); i.attachBundle(t, body) }
	}
	within := func(format string, part []byte) []byte {
		return fmt.Appendf(nil, format, base64.StdEncoding.EncodeToString(part))
	}
	const opening = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"x"},"tlogEntries":[`
	signedPart := base64.RawURLEncoding.EncodeToString(filled(`{"targetArtifact":{"annotations":[`, "0", `]}}`, half))
	for name, c := range map[string]struct {
		put   func(*testing.T, *image)
		words string
	}{
		"pages of empty descriptors": {pages(`{"manifests":[`, "{}"), "more than the 5000 manifests"},
		"pages of numbers":           {pages(`{"manifests":[`, "0"), "more than the 5000 manifests"},
		"pages of annotations":       {pages(`{"manifests":[{"annotations":{`, `"":""`), "not an image index"},
		"pages of something else":    {pages(`{"other":[`, "0"), "not an image index"},
		"a fallback tag": {func(t *testing.T, i *image) {
			t.Helper()
			i.server.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/manifests/sha256-"+i.digest.Hex) {
					return false
				}
				_, _ = w.Write(filled(`{"manifests":[`, "{}", "]}", whole)) // the test reads it
				return true
			})
		}, "more than the 5000 manifests"},
		"the manifest of a referrer": {func(t *testing.T, i *image) {
			t.Helper()
			body := filled(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[`, "{}", "]}", whole)
			digest, size, err := v1.SHA256(strings.NewReader(string(body)))
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			i.server.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case strings.Contains(r.URL.Path, "/referrers/"):
					w.Header().Set("Content-Type", string(types.OCIImageIndex))
					_ = json.NewEncoder(w).Encode(v1.IndexManifest{Manifests: []v1.Descriptor{{Digest: digest, Size: size, ArtifactType: bundleMediaType}}}) // the test reads it
				case strings.HasSuffix(r.URL.Path, digest.String()):
					_, _ = w.Write(body) // the test reads it
				default:
					return false
				}
				return true
			})
		}, "more than the 1000 layers"},
		"the manifest of legacy signatures": {func(_ *testing.T, i *image) {
			i.server.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, ".sig") {
					return false
				}
				_, _ = w.Write(filled(`{"layers":[`, "{}", "]}", whole)) // the test reads it
				return true
			})
		}, "more than the 1000 layers"},
		"a bundle":          {bundle(filled(opening, "{}", `]}}`, whole)), "the bundle has more than the 20000 JSON values"},
		"an entry of a log": {bundle(within(opening+`{"canonicalizedBody":"%s"}]}}`, filled(`{"spec":{"signatures":[`, "{}", "]}}", half))), "an entry of a log has more than the 100"},
		"a statement":       {bundle(within(opening+`]},"dsseEnvelope":{"payloadType":"application/vnd.in-toto+json","payload":"%s","signatures":[{"sig":"AA=="}]}}`, filled(`{"predicate":{"a":[`, "0", "]}}", half))), "the statement has more than the 100000"},
		"a payload of legacy": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachLegacy(t, filled(`{"optional":{"a":[`, "0", "]}}", whole), []byte("x"))
		}, "the payload has more than the 20000"},
		"a JWS": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, filled(`{"header":{"x5c":[`, `""`, "]}}", whole), "")
		}, "the envelope has more than the 20000"},
		"a payload of a JWS": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, []byte(`{"protected":"e30","payload":"`+signedPart+`"}`), jws.MediaTypeEnvelope)
		}, "the payload has more than the 20000"},
		"a header of a JWS": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, []byte(`{"payload":"e30","protected":"`+signedPart+`"}`), jws.MediaTypeEnvelope)
		}, "the protected header has more than the 500"},
		"a COSE that is large": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, make([]byte, 1<<20), cose.MediaTypeEnvelope)
		}, "1048576 bytes, more than the 131072"},
		"a COSE of maps": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, coseOfMaps(512<<10), cose.MediaTypeEnvelope)
		}, "a Notation COSE signature that cannot be read"},
		"a COSE of as many maps as are read": {func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, coseOfMaps(128<<10), cose.MediaTypeEnvelope)
		}, "missing content type"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			c.put(t, i)
			repository := i.open(t, registry.Access{})
			var sightings []trust.Sighting
			var err error
			grown := memory.Peak(func() { sightings, err = trust.Look(t.Context(), repository, i.subject()) })
			g.Expect(fmt.Sprint(sightings, err)).To(ContainSubstring(c.words))
			t.Logf("%s: %d KiB", name, grown>>10)
			g.Expect(grown).To(BeNumerically("<", 48<<20))

			// What a stranger put there neither passes nor hides what is good.
			_, err = i.verify(t, demand)
			g.Expect(err).To(HaveOccurred())
			if strings.Contains(name, "legacy") {
				i.signBundle(t, by)
			} else {
				i.signLegacy(t, by)
			}
			_, err = i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

// TestSignaturesAreBoundedTogether has signatures of which each is within the limits.
// Those that are read hide no good one, and the rest is not read.
func TestSignaturesAreBoundedTogether(t *testing.T) {
	const count = 30
	s := serve(t, true)
	referrers := func(artifactType string, layer func(*testing.T, *image) v1.Descriptor) func(*testing.T, *image) {
		return func(t *testing.T, i *image) {
			t.Helper()
			for n := range count {
				manifest := i.referrer(t, artifactType, layer(t, i))
				manifest["annotations"] = map[string]string{"n": fmt.Sprint(n)}
				i.put(t, manifest)
			}
		}
	}
	values := filled(`{"predicateType":"x","predicate":{"a":[`, "0", "]}}", 2*99_000)
	text := []byte(`{"a":"` + strings.Repeat("a", 4<<20-100) + `"}`)
	notary := newNotary(t, "release")
	for name, c := range map[string]struct {
		put    func(*testing.T, *image)
		demand *trust.Demand // nil: the key of the image
		good   func(*image, *testing.T, pair)
	}{
		"bundles of many values": {referrers(bundleMediaType, func(t *testing.T, i *image) v1.Descriptor {
			t.Helper()
			return i.blob(t, keyBundle(t, newPair(t), values), bundleMediaType)
		}), nil, (*image).signLegacy},
		"manifests": {func(t *testing.T, i *image) {
			t.Helper()
			bodies, index := map[string][]byte{}, v1.IndexManifest{}
			for n := range count {
				body := fmt.Appendf(nil, `{"n":%d,"a":"%s"}`, n, text[10:3<<20])
				digest, size, err := v1.SHA256(bytes.NewReader(body))
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				bodies[digest.String()] = body
				index.Manifests = append(index.Manifests, v1.Descriptor{Digest: digest, Size: size, ArtifactType: bundleMediaType})
			}
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/referrers/") {
					w.Header().Set("Content-Type", string(types.OCIImageIndex))
					_ = json.NewEncoder(w).Encode(index) // the test reads it
					return true
				}
				body, ok := bodies[path.Base(r.URL.Path)]
				if ok {
					_, _ = w.Write(body) // the test reads it
				}
				return ok
			})
			t.Cleanup(func() { s.answer(nil) })
		}, nil, (*image).signLegacy},
		"bundles that cannot be read": {referrers(bundleMediaType, func(t *testing.T, i *image) v1.Descriptor {
			t.Helper()
			return i.blob(t, text, bundleMediaType)
		}), nil, (*image).signLegacy},
		"legacy signatures": {func(t *testing.T, i *image) {
			t.Helper()
			layer := i.blob(t, text, "application/vnd.dev.cosign.simplesigning.v1+json")
			layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "AAAA"}
			manifest := i.referrer(t, "", layer)
			manifest["layers"] = slices.Repeat([]v1.Descriptor{layer}, count)
			i.putTag(t, strings.Replace(i.digest.String(), ":", "-", 1)+".sig", manifest)
		}, nil, (*image).signBundle},
		"envelopes of the Notary Project": {referrers("application/vnd.cncf.notary.signature", func(t *testing.T, i *image) v1.Descriptor {
			t.Helper()
			return i.blob(t, text, jws.MediaTypeEnvelope)
		}), new(notary.demand(policy(t, "strict", nil))), nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i, by, demand := keyed(t, s)
			c.put(t, i)
			s.asked()
			_, err := i.verify(t, *cmp.Or(c.demand, &demand))
			expectDenied(g, err, trust.Unknown, "together are too large to read them all")
			g.Expect(len(s.asked())).To(BeNumerically("<", count), "requests")
			if c.good != nil {
				c.good(i, t, by)
				_, err = i.verify(t, demand)
				g.Expect(err).NotTo(HaveOccurred())
			}
		})
	}
}

// TestListsOfManyReferrers holds how many there may be, on one page or several.
func TestListsOfManyReferrers(t *testing.T) {
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	good := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
	good.ArtifactType = bundleMediaType
	others := func(n int) []v1.Descriptor {
		list := make([]v1.Descriptor, n)
		for k := range list {
			digest, _, err := v1.SHA256(strings.NewReader(fmt.Sprint(k)))
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			list[k] = v1.Descriptor{
				MediaType: types.OCIManifestSchema1, Digest: digest, Size: 1000, ArtifactType: "application/spdx+json",
				Annotations: map[string]string{"org.opencontainers.image.created": "2026-01-01T00:00:00Z", "a": "b", "c": "d", "e": "f"},
			}
		}
		return list
	}
	long := func(letters int) []v1.Descriptor {
		list := others(1)
		list[0].Annotations = map[string]string{"x": strings.Repeat("x", letters)}
		return list
	}
	for name, c := range map[string]struct {
		pages [][]v1.Descriptor
		words string // empty: the signature is found
	}{
		"hundreds":                         {[][]v1.Descriptor{append(others(900), good)}, ""},
		"thousands on one page":            {[][]v1.Descriptor{append(others(4999), good)}, ""},
		"thousands on several pages":       {[][]v1.Descriptor{others(2500), append(others(2499), good)}, ""},
		"too many on one page":             {[][]v1.Descriptor{append(others(5000), good)}, "more than the 5000 manifests that are read"},
		"too many on several pages":        {[][]v1.Descriptor{others(3000), append(others(2000), good)}, "too long: it has more than the 5000 manifests"},
		"too many behind the one we need":  {[][]v1.Descriptor{{good}, others(5000)}, ""},
		"too many behind it on its page":   {[][]v1.Descriptor{append([]v1.Descriptor{good}, others(5000)...)}, ""},
		"a page that is longer than read":  {[][]v1.Descriptor{append([]v1.Descriptor{good}, long(5<<20)...)}, ""},
		"a long page without it":           {[][]v1.Descriptor{append(long(5<<20), good)}, "larger than 4194304 bytes"},
		"annotations of very many letters": {[][]v1.Descriptor{long(3 << 20), append(long(2<<20), good)}, "too long: it has more than the 4194304 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s.list(c.pages...)
			_, err := i.verify(t, demand)
			if c.words == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectDenied(g, err, trust.Unknown, c.words)
			}
		})
	}
}
