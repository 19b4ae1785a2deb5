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

package registry_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/registry"
)

// TestCertificateAuthoritiesAreAskedByTheRulesOfRedirects holds that an address
// in a certificate, which anybody may have made, leads nowhere that a redirect
// does not.
func TestCertificateAuthoritiesAreAskedByTheRulesOfRedirects(t *testing.T) {
	loopback := quick()
	loopback.AllowedCIDRs = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	named := loopback
	named.Resolver = resolver(t, map[string]string{"crl.example.com": "169.254.169.254"})
	for name, tc := range map[string]struct {
		method  string
		target  string // empty: the server
		options registry.Options
		answer  http.HandlerFunc
		words   string // empty: it is answered
		asked   bool
	}{
		"a question by GET":                  {options: loopback, asked: true},
		"a question by POST":                 {method: http.MethodPost, options: loopback, asked: true},
		"another method":                     {method: http.MethodPut, options: loopback, words: "refused to send PUT"},
		"loopback that nobody allowed":       {options: quick(), words: "loopback"},
		"the address of metadata":            {target: "http://169.254.169.254/latest", options: loopback, words: "never allowed"},
		"a name for the address of metadata": {target: "http://crl.example.com/", options: named, words: "never allowed"},
		"no host, which would be this one":   {target: "http://:1/", options: quick(), words: "no IP"},
		"another scheme":                     {target: "ldap://127.0.0.1/", options: loopback, words: "refused"},
		"a redirect to metadata":             {options: loopback, answer: redirect("http://169.254.169.254/latest"), words: "never allowed", asked: true},
		"a redirect to itself, for ever":     {options: loopback, answer: redirect("/"), words: "more than 5 redirects", asked: true},
		"an answer of more than 1 MiB":       {options: loopback, answer: write(strings.Repeat("x", 1<<20+1)), words: "too long", asked: true},
		"an answer of 1 MiB":                 {options: loopback, answer: write(strings.Repeat("x", 1<<20)), asked: true},
		"an answer that makes no progress":   {options: loopback, answer: stall, words: "no progress", asked: true},
		"a header that does not come":        {options: loopback, answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, words: "timeout", asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var asked atomic.Bool
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(true)
				_, _ = io.Copy(io.Discard, r.Body) // or nobody would notice that the client is gone
				if _, _, ok := r.BasicAuth(); ok || r.Header.Get("Referer") != "" {
					t.Error("it was sent what is none of its business")
				}
				if tc.answer != nil {
					tc.answer(w, r)
				}
			}))
			t.Cleanup(server.Close)
			method, target := http.MethodGet, server.URL
			if tc.method != "" {
				method = tc.method
			}
			if tc.target != "" {
				target = tc.target
			}
			request, err := http.NewRequestWithContext(bounded(t), method, target, bytes.NewReader([]byte("question")))
			g.Expect(err).NotTo(HaveOccurred())
			request.SetBasicAuth("user", password)
			var body []byte
			answer, err := (&http.Client{Transport: newClient(t, tc.options).Authorities()}).Do(request)
			if err == nil {
				body, err = io.ReadAll(answer.Body)
				g.Expect(answer.Body.Close()).To(Succeed())
			}
			g.Expect(asked.Load()).To(Equal(tc.asked))
			g.Expect(len(body)).To(BeNumerically("<=", 1<<20+1))
			if tc.words == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(tc.words)))
		})
	}
}

// TestFewListsOfAuthoritiesAreReadAtATime holds that whoever names many lists in
// certificates does not have all of them decoded at once.
func TestFewListsOfAuthoritiesAreReadAtATime(t *testing.T) {
	g := NewWithT(t)
	options := quick()
	options.AllowedCIDRs = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	long := serveAt(t, "127.0.0.1:0", write(strings.Repeat("x", 1<<20)))
	short := serveAt(t, "127.0.0.1:0", write("x"))
	client := newClient(t, options)
	get := func(from host) (io.Closer, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+from.port, http.NoBody)
		g.Expect(err).NotTo(HaveOccurred())
		answer, err := (&http.Client{Transport: client.Authorities()}).Do(request)
		if err != nil {
			return nil, err
		}
		return answer.Body, nil
	}
	first, err := get(long)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = get(long)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = get(long)
	g.Expect(err).To(MatchError(context.DeadlineExceeded))
	_, err = get(short)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(first.Close()).To(Succeed())
	g.Expect(first.Close()).To(Succeed())
	_, err = get(long)
	g.Expect(err).NotTo(HaveOccurred())
}

// stall begins an answer and never ends it.
func stall(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush() // the client sees what comes
	<-r.Context().Done()
}
