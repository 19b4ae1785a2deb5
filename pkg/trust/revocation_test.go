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
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/crypto/ocsp"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// revoker is where an authority says which certificates it revoked: by OCSP
// (RFC 6960) and by a list (RFC 5280 section 5).
type revoker struct {
	*httptest.Server

	by      *notary
	revoked bool
	// instead answers in its place; it may be nil.
	instead http.HandlerFunc
	asked   atomic.Int32
}

func revocations(t *testing.T, by *notary) *revoker {
	t.Helper()
	r := &revoker{by: by}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.asked.Add(1)
		if r.instead != nil {
			r.instead(w, request)
			return
		}
		answer, err := r.answer(request)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(answer) // the client reads it
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *revoker) answer(request *http.Request) ([]byte, error) {
	now := time.Now()
	if path.Base(request.URL.Path) == "list.crl" {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
		if r.revoked {
			list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: r.by.leaf.SerialNumber, RevocationTime: now.Add(-time.Minute)}}
		}
		return x509.CreateRevocationList(rand.Reader, list, r.by.root, r.by.top)
	}
	question, err := io.ReadAll(request.Body)
	if request.Method == http.MethodGet {
		encoded, unescape := url.PathUnescape(path.Base(request.URL.EscapedPath()))
		if err = unescape; err == nil {
			question, err = base64.StdEncoding.DecodeString(encoded)
		}
	}
	if err != nil {
		return nil, err
	}
	asked, err := ocsp.ParseRequest(question)
	if err != nil {
		return nil, err
	}
	said := ocsp.Response{Status: ocsp.Good, SerialNumber: asked.SerialNumber, ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(time.Hour)}
	if r.revoked {
		said.Status, said.RevokedAt = ocsp.Revoked, now.Add(-time.Minute)
	}
	return ocsp.CreateResponse(r.by.root, r.by.root, said, r.by.top)
}

// TestRevocation holds that what an authority revoked is refused where the trust
// policy says so, that nobody is asked where it does not, and that whoever
// chose the address gets us nowhere that we do not go.
func TestRevocation(t *testing.T) {
	loopback := registry.Options{AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, IdleTimeout: time.Second}
	failing := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }
	endless := func(w http.ResponseWriter, _ *http.Request) {
		for range 64 << 20 / (64 << 10) {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	metadata := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
	}
	strict := policy(t, "strict", nil)
	for name, c := range map[string]struct {
		list    bool // by a list, not by OCSP
		revoked bool
		instead http.HandlerFunc
		policy  []byte
		options registry.Options
		verdict trust.Verdict
		words   string
		silent  bool // nobody is asked
	}{
		"OCSP, and it is good":                           {policy: strict, options: loopback, verdict: trust.Accepted},
		"OCSP, and it was revoked":                       {policy: strict, options: loopback, revoked: true, verdict: trust.Rejected, words: "is revoked"},
		"OCSP, and the server fails":                     {policy: strict, options: loopback, instead: failing, verdict: trust.Unknown, words: "revoked is unknown"},
		"OCSP, and the answer never ends":                {policy: strict, options: loopback, instead: endless, verdict: trust.Unknown, words: "revoked is unknown"},
		"OCSP, and it leads to the metadata service":     {policy: strict, options: loopback, instead: metadata, verdict: trust.Unknown, words: "revoked is unknown"},
		"OCSP at an address where we do not go":          {policy: strict, verdict: trust.Unknown, words: "revoked is unknown", silent: true},
		"a list, and it is not on it":                    {list: true, policy: strict, options: loopback, verdict: trust.Accepted},
		"a list, and it is on it":                        {list: true, policy: strict, options: loopback, revoked: true, verdict: trust.Rejected, words: "is revoked"},
		"a list, and the server fails":                   {list: true, policy: strict, options: loopback, instead: failing, verdict: trust.Unknown, words: "revoked is unknown"},
		"a list that never ends":                         {list: true, policy: strict, options: loopback, instead: endless, verdict: trust.Unknown, words: "revoked is unknown"},
		"a list at an address where we do not go":        {list: true, policy: strict, verdict: trust.Unknown, words: "revoked is unknown", silent: true},
		"a level that only logs it":                      {policy: policy(t, "permissive", nil), options: loopback, revoked: true, verdict: trust.Accepted, silent: true},
		"a level that logs everything":                   {policy: policy(t, "audit", nil), options: loopback, revoked: true, verdict: trust.Accepted, silent: true},
		"a policy that skips the question":               {policy: policy(t, "strict", override("revocation", "skip")), options: loopback, revoked: true, verdict: trust.Accepted, silent: true},
		"a policy that asks although its level does not": {policy: policy(t, "permissive", override("revocation", "enforce")), options: loopback, revoked: true, verdict: trust.Rejected, words: "is revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			authority := newNotary(t, "release")
			server := revocations(t, authority)
			by := authority.certified(t, func(template *x509.Certificate) {
				template.OCSPServer = []string{server.URL}
				if c.list {
					template.OCSPServer, template.CRLDistributionPoints = nil, []string{server.URL + "/list.crl"}
				}
			})
			server.by, server.revoked, server.instead = by, c.revoked, c.instead
			i := push(t, serve(t, true), name)
			i.attachNotation(t, by.sign(t, notationOptions{target: i.descriptor}), "")
			client, err := registry.NewClient(c.options)
			g.Expect(err).NotTo(HaveOccurred())
			judge, err := trust.NewAuthority(by.demand(c.policy), trust.Options{Revocation: client.Authorities()})
			g.Expect(err).NotTo(HaveOccurred())
			_, err = i.verifyBy(t, rule(judge))
			if c.verdict == trust.Accepted {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				expectDenied(g, err, c.verdict, c.words)
			}
			g.Expect(server.asked.Load() == 0).To(Equal(c.silent), "whether the server was asked")
		})
	}
	expectNoStrangers(NewWithT(t))
}
