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
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// keyed is an image that may be signed by a key, and the demand for that.
func keyed(t *testing.T, s *server) (*image, pair, trust.Demand) {
	t.Helper()
	by := newPair(t)
	return push(t, s, t.Name()), by, keys(map[string][]byte{"cosign.pub": by.pem(t)})
}

func (i *image) signBundle(t *testing.T, by pair) {
	t.Helper()
	i.attachBundle(t, keyBundle(t, by, statement(t, i.digest, signPredicate)))
}

func (i *image) signLegacy(t *testing.T, by pair) {
	t.Helper()
	text := claim(t, i, i.digest)
	i.attachLegacy(t, text, by.sign(t, text))
}

// TestWhatCannotBeReadIsUnknown holds that an outage is never taken for the
// absence of signatures.
func TestWhatCannotBeReadIsUnknown(t *testing.T) {
	for name, c := range map[string]struct {
		part string
		code int
	}{
		"500 on referrers":                      {"/referrers/", http.StatusInternalServerError},
		"501 on referrers":                      {"/referrers/", http.StatusNotImplemented},
		"503 on referrers":                      {"/referrers/", http.StatusServiceUnavailable},
		"429 on referrers":                      {"/referrers/", http.StatusTooManyRequests},
		"401 on referrers":                      {"/referrers/", http.StatusUnauthorized},
		"403 on referrers":                      {"/referrers/", http.StatusForbidden},
		"503 on the tag of legacy signatures":   {".sig", http.StatusServiceUnavailable},
		"403 on the tag of legacy signatures":   {".sig", http.StatusForbidden},
		"503 on the fallback tag":               {"/manifests/sha256-", http.StatusServiceUnavailable},
		"503 on everything":                     {"/v2/", http.StatusServiceUnavailable},
		"503 on the manifests of the referrers": {"/manifests/sha256:", http.StatusServiceUnavailable},
		"503 on blobs":                          {"/blobs/", http.StatusServiceUnavailable},
		"404 on everything":                     {"/v2/", http.StatusNotFound},
		"404 on all but the list of referrers":  {"/manifests/", http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			i.attachBundle(t, keyBundle(t, newPair(t), statement(t, i.digest, signPredicate)))
			s.fail(c.part, c.code)
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Unknown, "cannot verify "+i.subject().String())
			if c.code == http.StatusServiceUnavailable {
				g.Expect(err.Error()).To(ContainSubstring("503 Service Unavailable"))
				g.Expect(fault.Of(err, "").RetryAfter).To(Equal(7 * time.Second))
			}

			s.answer(nil)
			_, err = i.verify(t, demand)
			expectDenied(g, err, trust.Rejected, "by another key")
			i.signLegacy(t, by)
			_, err = i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

// TestWhatStorageHasLostIsUnknown holds that storage behind a registry does not say
// that an image is not signed.
func TestWhatStorageHasLostIsUnknown(t *testing.T) {
	for _, part := range []string{"/referrers/", "/manifests/sha256:", "/manifests/sha256-", "/blobs/", ".sig"} {
		t.Run(part, func(t *testing.T) {
			g := NewWithT(t)
			storage := httptest.NewServer(http.NotFoundHandler())
			defer storage.Close()
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			i.signBundle(t, by)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case strings.Contains(r.URL.Path, part):
					http.Redirect(w, r, storage.URL+"/data", http.StatusTemporaryRedirect)
				case part != "/blobs/" && part != "/manifests/sha256:" && strings.Contains(r.URL.Path, "/referrers/"):
					w.WriteHeader(http.StatusNotFound)
				default:
					return false
				}
				return true
			})
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Unknown, "404 Not Found")
		})
	}
}

// TestOneAnswerDoesNotMakeAnImageCountAsUnsigned has each request for a signature or for
// a list of signatures answered once by somebody who does not have it.
func TestOneAnswerDoesNotMakeAnImageCountAsUnsigned(t *testing.T) {
	for _, referrers := range []bool{true, false} {
		for _, c := range []struct {
			part string
			// legacy has the image signed in the older format, and hidden by another key
			// in the form that is not under test.
			legacy bool
		}{
			{"/referrers/", false}, {"/manifests/sha256:", false}, {"/blobs/", false},
			{"/manifests/sha256-", false}, {".sig", true}, {"/blobs/", true},
		} {
			for _, code := range []int{http.StatusOK, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable} {
				t.Run(fmt.Sprintf("%d for %s, legacy %t, by a registry that lists referrers %t", code, c.part, c.legacy, referrers), func(t *testing.T) {
					g := NewWithT(t)
					s := serve(t, referrers)
					i, by, demand := keyed(t, s)
					sign, hide := i.signBundle, i.signLegacy
					if c.legacy {
						sign, hide = hide, sign
					}
					sign(t, by)
					hide(t, newPair(t))
					answered := map[string]bool{}
					s.answer(func(w http.ResponseWriter, r *http.Request) bool {
						if answered[r.URL.Path] || !strings.Contains(r.URL.Path, c.part) {
							return false
						}
						answered[r.URL.Path] = true
						w.Header().Set("Content-Type", "text/html")
						w.WriteHeader(code)
						_, _ = w.Write([]byte("<html>")) // the test reads it
						return true
					})
					_, err := i.verify(t, demand)
					g.Expect(trust.VerdictOf(err)).NotTo(Equal(trust.Rejected), "%v", err)
				})
			}
		}
	}
}

// TestOneOutdatedAnswerDoesNotRejectAnImage has the list of referrers, or the manifest of
// legacy signatures, answered once as it was before the image was signed, or by a server
// that calls the signature something else.
func TestOneOutdatedAnswerDoesNotRejectAnImage(t *testing.T) {
	const empty = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	for _, c := range []struct {
		name, part         string
		referrers, renamed bool
	}{
		{"an empty list of referrers", "/referrers/", true, false},
		{"an empty list under the tag", "/manifests/sha256-", false, false},
		{"a list under the tag with another type", "/manifests/sha256-", false, true},
		{"no legacy signatures", ".sig", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, c.referrers)
			i, by, demand := keyed(t, s)
			if c.part == ".sig" {
				i.signLegacy(t, by)
			} else {
				i.signBundle(t, by)
			}
			body := empty
			if c.renamed {
				listed, err := s.Client().Get(s.URL + "/v2/org/app" + c.part + i.digest.Hex)
				g.Expect(err).NotTo(HaveOccurred())
				defer listed.Body.Close()
				text, err := io.ReadAll(listed.Body)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(string(text)).To(ContainSubstring("sigstore.bundle"))
				body = strings.ReplaceAll(string(text), "sigstore.bundle", "something.else")
			}
			answered := map[string]bool{}
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if answered[r.URL.Path] || !strings.Contains(r.URL.Path, c.part) {
					return false
				}
				answered[r.URL.Path] = true
				w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
				_, _ = w.Write([]byte(body)) // the test reads it
				return true
			})
			_, err := i.verify(t, demand)
			g.Expect(answered).NotTo(BeEmpty())
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

// TestNoListOfSignaturesGetsAPasswordIntoAMessage sends a password back in parts of a list
// of referrers that are repeated.
func TestNoListOfSignaturesGetsAPasswordIntoAMessage(t *testing.T) {
	const password = "correct-horse"
	for name, list := range map[string]string{
		"something else":     `"` + password + `"`,
		"a digest of a list": `{"manifests":[{"digest":"` + password + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, _, demand := keyed(t, s)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				_, sent, _ := r.BasicAuth()
				switch {
				case sent == "":
					w.Header().Set("WWW-Authenticate", "Basic")
					w.WriteHeader(http.StatusUnauthorized)
				case strings.Contains(r.URL.Path, "/referrers/"):
					w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					_, _ = w.Write([]byte(strings.ReplaceAll(list, password, sent))) // the test reads it
				default:
					return false
				}
				return true
			})
			repository := i.open(t, registry.Access{Auth: &authn.Basic{Username: "user", Password: password}})
			authority, err := trust.NewAuthority(demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			_, denied := trust.NewRules(repository, rule(authority)).Verify(t.Context(), i.subject())
			g.Expect(denied).To(MatchError(ContainSubstring("***")))
			seen, err := trust.Look(t.Context(), repository, i.subject())
			shown := fmt.Sprint(denied, seen, err)
			g.Expect(shown).NotTo(ContainSubstring(password))
		})
	}
}

// TestARegistryThatDoesNotAnswer holds that a verdict tells a registry that
// does not answer from one that answers something else than signatures.
func TestARegistryThatDoesNotAnswer(t *testing.T) {
	hangs := func(part string) func(http.ResponseWriter, *http.Request) bool {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, part) {
				<-r.Context().Done()
				return true
			}
			return false
		}
	}
	breaks := func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	refuses := func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	fails := func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request) bool
		verdict trust.Verdict
		cause   OmegaMatcher
	}{
		"it hangs over the list of referrers":        {hangs("/referrers/"), trust.Unknown, MatchError(context.DeadlineExceeded)},
		"it hangs over a manifest that it lists":     {hangs("/manifests/sha256:"), trust.Unknown, MatchError(context.DeadlineExceeded)},
		"it hangs over the blob of a signature":      {hangs("/blobs/"), trust.Unknown, MatchError(context.DeadlineExceeded)},
		"it hangs over the tag of legacy signatures": {hangs(".sig"), trust.Unknown, MatchError(context.DeadlineExceeded)},
		"it ends every connection":                   {breaks, trust.Unknown, HaveOccurred()},
		"it refuses":                                 {refuses, trust.Unknown, Not(HaveOccurred())},
		"it says that it fails":                      {fails, trust.Unknown, Not(HaveOccurred())},
		"it answers, and there is no good signature": {nil, trust.Rejected, Not(HaveOccurred())},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, _, demand := keyed(t, s)
			i.attachBundle(t, keyBundle(t, newPair(t), statement(t, i.digest, signPredicate)))
			s.answer(c.answer)
			defer s.CloseClientConnections()
			authority, err := trust.NewAuthority(demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			for _, warn := range []bool{false, true} {
				ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
				defer cancel()
				rules := trust.NewRules(i.open(t, registry.Access{}), trust.Rule{Warn: warn, AnyOf: []trust.Alternative{{Authority: authority}}})
				proof, err := rules.Verify(ctx, i.subject())
				if warn {
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(proof.Unanswered()).To(c.cause)
					continue
				}
				expectDenied(g, err, c.verdict, "")
				var failure *trust.VerificationError
				g.Expect(errors.As(err, &failure)).To(BeTrue())
				g.Expect(failure.Unanswered).To(c.cause)
			}
		})
	}
}

func TestTimeThatSomebodyElseTookIsNotHeldAgainstTheRegistry(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, _, demand := keyed(t, s)
	authority, err := trust.NewAuthority(demand, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	rules := trust.NewRules(i.open(t, registry.Access{}), trust.Rule{AnyOf: []trust.Alternative{{Authority: authority}}})
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_, err = rules.Verify(late, i.subject())
	expectDenied(g, err, trust.Unknown, "no time left")
	var failure *trust.VerificationError
	g.Expect(errors.As(err, &failure)).To(BeTrue())
	g.Expect(failure.Unanswered).NotTo(HaveOccurred())
}

func TestAGoodSignatureIsEnoughWhereTheRestCannotBeRead(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	i.signLegacy(t, by)
	s.fail("/referrers/", http.StatusInternalServerError)
	verified, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(trust.Legacy))
}

func TestARegistryWithoutTheListOfReferrers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"400": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"405": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"406": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotAcceptable) },
		"some page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>")) // the test reads it
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, false)
			i, by, demand := keyed(t, s)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/referrers/") {
					answer(w, r)
					return true
				}
				return false
			})
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Rejected, "not signed")
			s.answer(nil)
			i.signBundle(t, by)
			_, err = i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

func TestAListOfReferrersThatIsBroken(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, _, demand := keyed(t, s)
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		_, _ = w.Write([]byte(`{"manifests": 7}`)) // the test reads it
		return true
	})
	_, err := i.verify(t, demand)
	expectDenied(g, err, trust.Unknown, "not an image index")
}

// list answers the question for referrers page by page.
func (s *server) list(pages ...[]v1.Descriptor) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		n := len(r.URL.Query().Get("last"))
		if n+1 < len(pages) {
			w.Header().Set("Link", fmt.Sprintf(`<%s?last=%s>; rel="next"`, r.URL.Path, strings.Repeat("x", n+1)))
		}
		w.Header().Set("Content-Type", string(types.OCIImageIndex))
		_ = json.NewEncoder(w).Encode(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: pages[n]}) // the test reads it
		return true
	})
}

func TestPagesOfReferrers(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	stored := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
	stored.ArtifactType = bundleMediaType

	s.list(nil, nil, []v1.Descriptor{stored})
	_, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred(), "the third page has it")

	pages := make([][]v1.Descriptor, 30)
	pages[29] = []v1.Descriptor{stored}
	s.list(pages...)
	_, err = i.verify(t, demand)
	expectDenied(g, err, trust.Unknown, "10 pages")
}

// TestEveryFormOfALinkToTheNextPage holds that no page is missed because of the form of
// a header.
func TestEveryFormOfALinkToTheNextPage(t *testing.T) {
	for link, verdict := range map[string]trust.Verdict{
		`<%s?last=x>; rel="next"`:                          trust.Accepted,
		`<%s?last=x>;rel=next`:                             trust.Accepted,
		`<%s?last=x>; title="a, b"; REL = "last Next"`:     trust.Accepted,
		`</first?a=b>; rel="first", <%s?last=x>; rel=next`: trust.Accepted,
		`<%s?last=x>; rel=next; title=x, </z?a=b>; rel=x`:  trust.Accepted,
		`<%s/second>; rel="next"`:                          trust.Unknown,
		`<%s/second?a=b>; rel="next"`:                      trust.Unknown,
		`<https://example.com/api%s?last=x>; rel="next"`:   trust.Accepted,
		`<?last=x>; title="%s"; rel="next"`:                trust.Accepted,
		`<./..%s?last=x>; rel="next"`:                      trust.Accepted,
		`<%s?last=x>; rel="nextish"`:                       trust.Rejected,
	} {
		t.Run(link, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			stored := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
			stored.ArtifactType = bundleMediaType
			s.list(nil, []v1.Descriptor{stored})
			list := s.instead
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				return list(linked{w, fmt.Sprintf(link, r.URL.Path)}, r)
			})
			_, err := i.verify(t, demand)
			g.Expect(trust.VerdictOf(err)).To(Equal(verdict), "%v", err)
		})
	}
}

// linked sends another Link than the one that was set.
type linked struct {
	http.ResponseWriter
	link string
}

func (w linked) Write(body []byte) (int, error) {
	if w.Header().Get("Link") != "" {
		w.Header().Set("Link", w.link)
	}
	return w.ResponseWriter.Write(body)
}

// TestTheRestOfAListThatCannotBeReadIsUnknown holds that a registry which has sent the
// first page of a list cannot be taken for one that keeps no list.
func TestTheRestOfAListThatCannotBeReadIsUnknown(t *testing.T) {
	for name, rest := range map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"400": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"406": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotAcceptable) },
		"some page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>")) // the test reads it
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			i.signBundle(t, by)
			s.list(nil, nil)
			first := s.instead
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Query().Has("last") {
					rest(w, r)
					return true
				}
				return first(w, r)
			})
			_, err := i.verify(t, demand)
			expectDenied(g, err, trust.Unknown, "cannot list the referrers")
		})
	}
}

// TestAListIsKnownByItsContent holds that a proxy which changes a header hides no
// signature.
func TestAListIsKnownByItsContent(t *testing.T) {
	for _, mediaType := range []string{"application/json", "text/plain", "", string(types.OCIManifestSchema1)} {
		t.Run(mediaType, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i, by, demand := keyed(t, s)
			stored := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
			stored.ArtifactType = bundleMediaType
			s.list([]v1.Descriptor{stored})
			list := s.instead
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				return list(typed{w, mediaType}, r)
			})
			_, err := i.verify(t, demand)
			g.Expect(err).NotTo(HaveOccurred())
		})
	}
}

// typed sends another Content-Type than the one that was set.
type typed struct {
	http.ResponseWriter
	mediaType string
}

func (w typed) Write(body []byte) (int, error) {
	w.Header()["Content-Type"] = []string{w.mediaType}
	return w.ResponseWriter.Write(body)
}

func TestReferrersThatCannotBeSignatures(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, _, demand := keyed(t, s)
	sbom := i.attach(t, "application/spdx+json", i.blob(t, []byte("{}"), "application/spdx+json"))
	other := sbom
	other.ArtifactType = "application/spdx+json"
	missing := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: otherDigest(t), ArtifactType: bundleMediaType}
	odd := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("a", 128)}, ArtifactType: bundleMediaType}
	claims := sbom
	claims.ArtifactType = bundleMediaType

	s.list([]v1.Descriptor{sbom, other})
	_, err := i.verify(t, demand)
	expectDenied(g, err, trust.Rejected, "not signed")

	s.list([]v1.Descriptor{missing, odd, claims})
	_, err = i.verify(t, demand)
	expectDenied(g, err, trust.Rejected, "lists and does not have", "without a sha256 digest", "does not hold one")
}

func TestBoundsOfWhatIsRead(t *testing.T) {
	t.Run("of more bundles than are read, the rest is unknown", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, _, demand := keyed(t, s)
		var listed []v1.Descriptor
		for n := range 60 {
			body := fmt.Appendf(nil, `{"n": %d}`, n)
			one := i.attach(t, bundleMediaType, i.blob(t, body, bundleMediaType))
			one.ArtifactType = bundleMediaType
			listed = append(listed, one)
		}
		s.list(listed)
		s.asked()
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Unknown, "more than 50 referrers")
		blobs := 0
		for _, request := range s.asked() {
			if strings.Contains(request, "/blobs/") {
				blobs++
			}
		}
		g.Expect(blobs).To(Equal(50))
	})
	t.Run("signatures are read before attestations", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, by, demand := keyed(t, s)
		var listed []v1.Descriptor
		for n := range 60 {
			one := i.attach(t, bundleMediaType, i.blob(t, fmt.Appendf(nil, `{"n": %d}`, n), bundleMediaType))
			one.ArtifactType = bundleMediaType
			listed = append(listed, one)
		}
		good := i.attach(t, bundleMediaType, i.blob(t, keyBundle(t, by, statement(t, i.digest, signPredicate)), bundleMediaType))
		good.ArtifactType = bundleMediaType
		good.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": signPredicate}
		s.list(append(listed, good))
		_, err := i.verify(t, demand)
		g.Expect(err).NotTo(HaveOccurred())
	})
	t.Run("of more legacy signatures than are read, the rest is unknown", func(t *testing.T) {
		g := NewWithT(t)
		i, _, demand := keyed(t, serve(t, true))
		text := claim(t, i, i.digest)
		layer := i.blob(t, text, "application/vnd.dev.cosign.simplesigning.v1+json")
		layer.Annotations = map[string]string{"dev.cosignproject.cosign/signature": "bm8="}
		layers := make([]v1.Descriptor, 60)
		for n := range layers {
			layers[n] = layer
		}
		i.putTag(t, "sha256-"+i.digest.Hex+".sig", map[string]any{
			"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": i.blob(t, []byte("{}"), types.OCIConfigJSON), "layers": layers,
		})
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Unknown, "more than 50 legacy")
	})
	t.Run("a bundle of more than 4 MiB is not read", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, _, demand := keyed(t, s)
		i.attachBundle(t, bytes.Repeat([]byte(" "), 4<<20+1))
		s.asked()
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Rejected, "at most 4194304 are read")
		g.Expect(s.asked()).NotTo(ContainElement(ContainSubstring("/blobs/")))
	})
	t.Run("a bundle that unpacks to more than 4 MiB is not unpacked", func(t *testing.T) {
		g := NewWithT(t)
		i, _, demand := keyed(t, serve(t, true))
		i.attachBundle(t, zipped(t, bytes.Repeat([]byte(" "), 64<<20)))
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Rejected, "too long")
	})
	t.Run("a compressed bundle is one too", func(t *testing.T) {
		g := NewWithT(t)
		i, by, demand := keyed(t, serve(t, true))
		i.attachBundle(t, zipped(t, keyBundle(t, by, statement(t, i.digest, signPredicate))))
		_, err := i.verify(t, demand)
		g.Expect(err).NotTo(HaveOccurred())
	})
	t.Run("a blob that goes on for longer than it says is not read to its end", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, by, demand := keyed(t, s)
		i.signBundle(t, by)
		s.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			for range 1024 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return true
				}
			}
			return true
		})
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Unknown, "larger than 4194304 bytes")
	})
	t.Run("a blob with other bytes than its digest says is nothing to judge by", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, by, demand := keyed(t, s)
		i.signBundle(t, by)
		s.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/blobs/") {
				return false
			}
			_, _ = w.Write([]byte("other")) // the test reads it
			return true
		})
		_, err := i.verify(t, demand)
		expectDenied(g, err, trust.Unknown, "its bytes have the digest")
	})
	t.Run("nothing goes on after the deadline", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t, true)
		i, by, demand := keyed(t, s)
		i.signBundle(t, by)
		authority, err := trust.NewAuthority(demand, trust.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		ctx, cancel := context.WithCancel(t.Context())
		s.answer(func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/referrers/") {
				cancel()
				<-r.Context().Done()
				return true
			}
			return false
		})
		_, err = trust.NewRules(i.open(t, registry.Access{}), rule(authority)).Verify(ctx, i.subject())
		expectDenied(g, err, trust.Unknown)
	})
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(w.Close()).To(Succeed())
	return out.Bytes()
}

func TestOnlyTheObjectsOwnCredentialsAreUsed(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	i.signBundle(t, by)
	// What the process could log in with, if it looked.
	config, err := json.Marshal(map[string]any{"auths": map[string]any{s.Listener.Addr().String(): map[string]string{"username": "process", "password": "hunter22"}}})
	g.Expect(err).NotTo(HaveOccurred())
	folder := t.TempDir()
	g.Expect(os.WriteFile(filepath.Join(folder, "config.json"), config, 0o600)).To(Succeed())
	t.Setenv("DOCKER_CONFIG", folder)
	t.Setenv("COSIGN_REPOSITORY", s.Listener.Addr().String()+"/somewhere/else")

	users := map[string]bool{}
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		user, password, _ := r.BasicAuth()
		users[user] = true
		if user == "tenant" && password == "word" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	authority, err := trust.NewAuthority(demand, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())

	_, err = trust.NewRules(i.open(t, registry.Access{}), rule(authority)).Verify(t.Context(), i.subject())
	expectDenied(g, err, trust.Unknown, "401 Unauthorized")
	g.Expect(err.Error()).NotTo(ContainSubstring("hunter22"))
	s.asked()
	access := registry.Access{Auth: &authn.Basic{Username: "tenant", Password: "word"}, Fingerprint: "tenant"}
	_, err = trust.NewRules(i.open(t, access), rule(authority)).Verify(t.Context(), i.subject())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(users).NotTo(HaveKey("process"))
	for _, request := range s.asked() {
		g.Expect(request).To(Or(HaveSuffix(" /v2/"), HavePrefix("GET /v2/org/app/")))
	}
	expectNoStrangers(g)
}

func TestATokenIsAskedForOnce(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	i.signBundle(t, by)
	tokens := 0
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			tokens++
			g.Expect(r.URL.Query().Get("scope")).To(Equal("repository:org/app:pull"))
			_, _ = w.Write([]byte(`{"token": "good"}`)) // the client reads it
			return true
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		default:
			return false
		}
	})
	_, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(tokens).To(Equal(1))
}

// TestNobodyButTheRegistryIsContacted holds that with keys, with a root of one's
// own and with a trust policy, a verification needs nothing but the registry,
// whatever it comes to: not those whom the root and the certificates name, who
// are here and answer, and not the public Sigstore.
func TestNobodyButTheRegistryIsContacted(t *testing.T) {
	stranger := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s was asked", r.Method, r.URL)
	}))
	t.Cleanup(stranger.Close)
	s := newSigstore(t)
	everything := lists{log: true, stamps: true, url: stranger.URL}
	trusted := newPair(t)
	key := func(demand trust.Demand) trust.Demand {
		demand.Secret = &trust.Secret{Name: "keys", Data: map[string][]byte{"cosign.pub": trusted.pem(t)}}
		return demand
	}
	byIdentity := func(t *testing.T, i *image, seen witness) {
		t.Helper()
		by := s.leaf(t, leafOptions{})
		i.attachBundle(t, s.identityBundle(t, by, statement(t, i.digest, signPredicate), seen))
		s.attachIdentityLegacy(t, i, by, claim(t, i, i.digest), seen)
	}
	notary := newNotary(t, "release").signer(t, "release", stranger.URL)
	byNotary := func(t *testing.T, i *image) {
		t.Helper()
		i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
	}
	unsigned := func(*testing.T, *image) {}
	for name, c := range map[string]struct {
		demand  trust.Demand
		sign    func(*testing.T, *image)
		verdict trust.Verdict
	}{
		"a key, signed":         {key(trust.Demand{Provider: trust.ProviderCosign}), func(t *testing.T, i *image) { t.Helper(); i.signBundle(t, trusted) }, trust.Accepted},
		"a key, signed as ever": {key(trust.Demand{Provider: trust.ProviderCosign}), func(t *testing.T, i *image) { t.Helper(); i.signLegacy(t, trusted) }, trust.Accepted},
		"a key, unsigned":       {key(trust.Demand{Provider: trust.ProviderCosign}), unsigned, trust.Rejected},
		"a key, by a stranger": {key(trust.Demand{Provider: trust.ProviderCosign}), func(t *testing.T, i *image) {
			t.Helper()
			i.signLegacy(t, newPair(t))
			i.signBundle(t, newPair(t))
		}, trust.Rejected},
		"a root, signed and logged":    {s.identities(t, everything), func(t *testing.T, i *image) { t.Helper(); byIdentity(t, i, witness{log: time.Now()}) }, trust.Accepted},
		"a root, signed and stamped":   {s.identities(t, lists{stamps: true, url: stranger.URL}), func(t *testing.T, i *image) { t.Helper(); byIdentity(t, i, witness{stamp: true}) }, trust.Accepted},
		"a root, and no entry for it":  {s.identities(t, everything), func(t *testing.T, i *image) { t.Helper(); byIdentity(t, i, witness{}) }, trust.Rejected},
		"a root, unsigned":             {s.identities(t, everything), unsigned, trust.Rejected},
		"a key and a root, not logged": {key(s.identities(t, everything)), func(t *testing.T, i *image) { t.Helper(); i.signLegacy(t, trusted); i.signBundle(t, trusted) }, trust.Rejected},
		"Notation, unsigned":           {notary.demand(policy(t, "strict", nil)), unsigned, trust.Rejected},
		"Notation, strict":             {notary.demand(policy(t, "strict", nil)), byNotary, trust.Unknown},
		"Notation, and nobody asks":    {notary.demand(policy(t, "strict", override("revocation", "skip"))), byNotary, trust.Accepted},
		"Notation, permissive":         {notary.demand(policy(t, "permissive", nil)), byNotary, trust.Accepted},
		"Notation, audit":              {notary.demand(policy(t, "audit", nil)), byNotary, trust.Accepted},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			i := push(t, serve(t, true), name)
			c.sign(t, i)
			var asked []string
			client, err := registry.NewClient(registry.Options{Observe: func(o registry.Observation) { asked = append(asked, o.Host) }})
			g.Expect(err).NotTo(HaveOccurred())
			authority, err := trust.NewAuthority(c.demand, trust.Options{PublicRoot: forbiddenRoot(t)})
			g.Expect(err).NotTo(HaveOccurred())
			_, err = trust.NewRules(client.Repository(i.repository, registry.Access{}), rule(authority)).Verify(t.Context(), i.subject())
			if c.verdict == trust.Accepted {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectDenied(g, err, c.verdict)
			}
			g.Expect(asked).To(HaveEach(i.repository.RegistryStr()))
			expectNoStrangers(g)
		})
	}
}

// forbiddenRoot is a public root that must not be needed.
func forbiddenRoot(t *testing.T) *trust.PublicRoot {
	t.Helper()
	public, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: t.TempDir(), Transport: forbidden{t}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return public
}

type forbidden struct{ t *testing.T }

func (f forbidden) RoundTrip(r *http.Request) (*http.Response, error) {
	f.t.Errorf("%s was contacted", r.URL)
	return nil, errors.New("nobody is to be contacted")
}

// TestOneDigest holds that the verifier never asks what a tag of the image
// points at, and judges nothing but its own repository.
func TestOneDigest(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, true)
	i, by, demand := keyed(t, s)
	i.signLegacy(t, by)
	i.putTag(t, "v1", map[string]any{"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "config": i.blob(t, []byte("{}"), types.OCIConfigJSON), "layers": []v1.Descriptor{}})
	s.asked()
	verified, err := i.verify(t, demand)
	g.Expect(err).NotTo(HaveOccurred())
	proven, _ := verified.Subject()
	g.Expect(proven).To(Equal(i.subject()))
	for _, request := range s.asked() {
		g.Expect(request).To(Or(HaveSuffix("/v2/"), ContainSubstring("sha256")), request)
	}

	authority, err := trust.NewAuthority(demand, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	other := i.subject()
	other.Repository = "example.com/other"
	_, err = trust.NewRules(i.open(t, registry.Access{}), rule(authority)).Verify(t.Context(), other)
	expectDenied(g, err, trust.Unknown, "example.com/other")
	_, err = trust.NewRules(i.open(t, registry.Access{}), rule(authority)).Verify(t.Context(), trust.Subject{Repository: i.subject().Repository})
	expectDenied(g, err, trust.Unknown)
}
