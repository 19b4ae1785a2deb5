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
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// demandToken makes a registry want a token for each repository; anybody gets one.
func (s *server) demandToken() {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			_, _ = w.Write([]byte(`{"token": "good"}`)) // the client reads it
		case r.Header.Get("Authorization") != "Bearer good":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return false
		}
		return true
	})
}

// spent returns what a registry was asked since the last time, shortened to
// what differs.
func (s *server) spent(i *image) []string {
	short := strings.NewReplacer(
		"/v2/org/app/manifests/"+i.digest.String(), "the image",
		"/v2/org/app/", "", i.digest.String(), "of the image", "sha256-"+i.digest.Hex, "tag",
	)
	var spent []string
	for _, request := range s.asked() {
		request, _, _ = strings.Cut(short.Replace(request), "/sha256:")
		spent = append(spent, request)
	}
	return spent
}

// TestAVerificationCostsItsSignatures holds that to verify an image costs the
// requests for its signatures and no others: the login is that of the image. Before an
// image is rejected, each place is asked for once more.
func TestAVerificationCostsItsSignatures(t *testing.T) {
	const list, tag, legacy = "GET referrers/of the image", "GET manifests/tag", "GET manifests/tag.sig"
	bundle := []string{"GET manifests", "GET blobs"}
	by := newPair(t)
	notary := newNotary(t, "release")
	for name, c := range map[string]struct {
		referrers bool
		demand    trust.Demand
		sign      func(*testing.T, *image)
		costs     []string
	}{
		"a bundle by referrers":    {true, keys(map[string][]byte{"cosign.pub": by.pem(t)}), func(t *testing.T, i *image) { t.Helper(); i.signBundle(t, by) }, bundle},
		"a bundle by fallback tag": {false, keys(map[string][]byte{"cosign.pub": by.pem(t)}), func(t *testing.T, i *image) { t.Helper(); i.signBundle(t, by) }, append([]string{tag}, bundle...)},
		"a legacy signature":       {true, keys(map[string][]byte{"cosign.pub": by.pem(t)}), func(t *testing.T, i *image) { t.Helper(); i.signLegacy(t, by) }, []string{tag, legacy, "GET blobs"}},
		"no signature":             {true, keys(map[string][]byte{"cosign.pub": by.pem(t)}), func(*testing.T, *image) {}, []string{tag, legacy, list, tag, legacy}},
		"one of Notation": {true, notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
		}, bundle},
		"one of Notation under tag": {false, notary.demand(policy(t, "strict", nil)), func(t *testing.T, i *image) {
			t.Helper()
			i.attachNotation(t, notary.sign(t, notationOptions{target: i.descriptor}), "")
		}, append([]string{tag}, bundle...)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, c.referrers)
			authority, err := trust.NewAuthority(c.demand, trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			repository := push(t, s, name).open(t, registry.Access{})
			for _, version := range []string{"the first", "the second"} {
				i := push(t, s, version)
				c.sign(t, i)
				s.asked()
				s.demandToken()
				_, err = repository.Resolve(t.Context(), registry.Query{Digest: i.digest})
				g.Expect(err).NotTo(HaveOccurred())
				resolved := []string{"GET the image"}
				if version == "the first" {
					resolved = []string{"GET /v2/", "GET /token", "GET the image"}
				}
				g.Expect(s.spent(i)).To(Equal(resolved), "%s is resolved", version)

				_, err = trust.NewRules(repository, rule(authority)).Resolved().Verify(t.Context(), i.subject())
				if name == "no signature" {
					expectDenied(g, err, trust.Rejected)
				} else {
					g.Expect(err).NotTo(HaveOccurred())
				}
				g.Expect(s.spent(i)).To(Equal(append([]string{list}, c.costs...)), "%s is verified", version)
				s.answer(nil)
			}
		})
	}
}

// TestOnlyWhatIsToBeRejectedIsAskedForAgain holds that what nobody has resolved
// costs a request more, past what is remembered of it, where nothing else shows
// that the registry knows it.
func TestOnlyWhatIsToBeRejectedIsAskedForAgain(t *testing.T) {
	const list, tag, legacy, again = "GET referrers/of the image", "GET manifests/tag", "GET manifests/tag.sig", "GET the image"
	by := newPair(t)
	for name, c := range map[string]struct {
		sign  func(*testing.T, *image)
		costs []string
	}{
		"a good signature": {func(t *testing.T, i *image) { t.Helper(); i.signLegacy(t, by) }, []string{tag, legacy, "GET blobs"}},
		"another key":      {func(t *testing.T, i *image) { t.Helper(); i.signLegacy(t, newPair(t)) }, []string{tag, legacy, "GET blobs", list, tag, legacy}},
		"no signature":     {func(*testing.T, *image) {}, []string{tag, legacy, list, tag, legacy, again}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, true)
			i := push(t, s, name)
			c.sign(t, i)
			authority, err := trust.NewAuthority(keys(map[string][]byte{"cosign.pub": by.pem(t)}), trust.Options{})
			g.Expect(err).NotTo(HaveOccurred())
			repository := i.open(t, registry.Access{})
			_, err = repository.Resolve(t.Context(), registry.Query{Digest: i.digest})
			g.Expect(err).NotTo(HaveOccurred())
			s.asked()
			_, err = trust.NewRules(repository, rule(authority)).Verify(t.Context(), i.subject())
			if name == "a good signature" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectDenied(g, err, trust.Rejected)
			}
			g.Expect(s.spent(i)).To(Equal(append([]string{list}, c.costs...)))
		})
	}
}
