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
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

func redirect(target string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func TestRedirects(t *testing.T) {
	a := newAuthority(t)
	names := map[string]string{
		"registry.example.com": "127.0.0.1", "cdn.example.com": "127.0.0.1", "cdn.example.net": "127.0.0.1",
		"metadata.example.com": "169.254.169.254", "mapped.example.com": "::ffff:169.254.169.254", "ec2.example.com": "fd00:ec2::254",
		"link.example.com": "fe80::1", "private.example.com": "10.1.2.3", "shared.example.com": "100.64.1.1", "ula.example.com": "fd12::1",
	}
	for _, tc := range []struct {
		name, target string
		words        string // empty: it is followed
	}{
		{"to a host of the same domain", "https://cdn.example.com:PORT/stored?X-Signature=0123456789", ""},
		{"to another domain", "https://cdn.example.net:PORT/stored?X-Signature=0123456789", ""},
		{"from https to http", "http://cdn.example.com:PORT/stored", "from https to http"},
		{"to another protocol", "ftp://cdn.example.com/stored", "from https to ftp"},
		{"to the metadata service", "https://169.254.169.254/latest?token=0123456789", "link-local or metadata"},
		{"to a name of the metadata service", "https://metadata.example.com/", "link-local or metadata"},
		{"to a mapped address of it", "https://mapped.example.com/", "link-local or metadata"},
		{"to its literal mapped address", "https://[::ffff:169.254.169.254]/", "link-local or metadata"},
		{"to its IPv6 address", "https://ec2.example.com/", "link-local or metadata"},
		{"to a link-local name", "https://link.example.com/", "link-local or metadata"},
		{"to a private address", "https://10.1.2.3/", "--registry-allowed-cidrs"},
		{"to a private name", "https://private.example.com/", "--registry-allowed-cidrs"},
		{"to a shared address", "https://shared.example.com/", "--registry-allowed-cidrs"},
		{"to a unique local address", "https://ula.example.com/", "--registry-allowed-cidrs"},
		{"to nowhere", "https://nowhere.example.com/", `there is no host "nowhere.example.com"`},
		{"to itself, for ever", "https://registry.example.com:PORT/v2/app/blobs/again?secret=0123456789", "more than 5 redirects"},
		{"to what is no URL", "https://[::1/?secret=0123456789", "Location"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serveTLS(t, a, "registry.example.com", "cdn.example.com", "cdn.example.net")
			_, layer := s.putImage(t, "app:1", "twelve bytes")
			var leaked string
			s.demandBasic("user", password)
			authenticate := s.instead
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/stored":
					leaked += r.Header.Get("Authorization") + r.Header.Get("Referer")
					_, _ = io.WriteString(w, "twelve bytes")
				case strings.Contains(r.URL.Path, "/blobs/"):
					redirect(strings.ReplaceAll(tc.target, "PORT", s.port()))(w, r)
				default:
					return authenticate(w, r)
				}
				return true
			})
			options := quick()
			options.Resolver = resolver(t, names)
			access := user("u")
			access.TLS = a.trust()
			var got bytes.Buffer
			err := newClient(t, options).Repository(repository(t, "registry.example.com:"+s.port()+"/app"), access).Pull(t.Context(), layer, &got)
			g.Expect(leaked).To(BeEmpty())
			if tc.words == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(got.String()).To(Equal("twelve bytes"))
				return
			}
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring(tc.words))
			g.Expect(err.Error()).NotTo(ContainSubstring("0123456789"))
			g.Expect(len(s.asked())).To(BeNumerically("<=", 7))
		})
	}
}

func TestFiveRedirectsAreFollowed(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		var hop int
		if _, err := fmt.Sscanf(r.URL.RawQuery, "hop=%d", &hop); err != nil && !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		if hop == 5 {
			return false
		}
		redirect(fmt.Sprintf("%s?hop=%d", r.URL.Path, hop+1))(w, r)
		return true
	})
	g.Expect(newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).
		Pull(t.Context(), layer, io.Discard)).To(Succeed())
}

func TestWhatStorageBehindARegistryAnswersSaysNothingAboutTheImage(t *testing.T) {
	for _, status := range []int{401, 403, 404} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			storage := httptest.NewServer(code(status, ""))
			defer storage.Close()
			s := serve(t)
			_, layer := s.putImage(t, "app:1", "x")
			s.answerTo("/blobs/", redirect(storage.URL))
			err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).Pull(t.Context(), layer, io.Discard)
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			NewWithT(t).Expect(err.Error()).NotTo(ContainSubstring("secretRef"), "no credential of ours would help")
			NewWithT(t).Expect(err.Error()).To(ContainSubstring(strings.TrimPrefix(storage.URL, "http://")), "it is the storage that answers")
		})
	}
}

func TestABlobIsProvenByGetWhereStorageRefusesHead(t *testing.T) {
	g := NewWithT(t)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead { // the signature of the URL is for GET
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer storage.Close()
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	s.answerTo("/blobs/", redirect(storage.URL))
	g.Expect(newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).HasBlob(t.Context(), layer.Digest)).To(Succeed())
}

func TestTLS(t *testing.T) {
	a := newAuthority(t)
	plain := serve(t)
	stalled, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer stalled.Close()
	trusted := serveTLS(t, a, "registry.example.com")
	trusted.putImage(t, "app:1", "x")
	port := func(address string) string { return address[strings.LastIndex(address, ":"):] }
	for _, tc := range []struct {
		name, host string
		access     registry.Access
		words      string
	}{
		{"a private authority that is trusted", "registry.example.com" + port(trusted.host()), registry.Access{TLS: a.trust(), Fingerprint: "a"}, ""},
		{"a private authority that is not", "registry.example.com" + port(trusted.host()), registry.Access{}, "certSecretRef"},
		{"not by falling back to plain HTTP", "registry.example.com" + port(trusted.host()), registry.Access{Insecure: true}, "certSecretRef"},
		{"a certificate for another name", "other.example.com" + port(trusted.host()), registry.Access{TLS: a.trust(), Fingerprint: "b"}, `not valid for the name "other.example.com"`},
		{"plain HTTP", "registry.example.com" + port(plain.host()), registry.Access{}, "set insecure: true"},
		{"a handshake that stalls", "registry.example.com" + port(stalled.Addr().String()), registry.Access{}, "took too long"},
		{"no host", "nowhere.example.com", registry.Access{}, `there is no host "nowhere.example.com"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			options := quick()
			options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1", "other.example.com": "127.0.0.1"})
			_, err := newClient(t, options).Repository(repository(t, tc.host+"/app"), tc.access).Resolve(bounded(t), registry.Query{Tag: "1"})
			if tc.words == "" {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
				return
			}
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			NewWithT(t).Expect(err.Error()).To(ContainSubstring(tc.words))
		})
	}
}

func TestInsecureAllowsPlainHTTP(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	options := quick()
	options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1"})
	_, err := newClient(t, options).Repository(repository(t, "registry.example.com:"+s.port()+"/app"), registry.Access{Insecure: true}).
		Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /v2/app/manifests/1"}))
}

// TestPlainHTTPIsNotUsedWhereTLSIsSpoken holds that a server in the middle gets no
// credentials in clear by making HTTPS fail.
func TestPlainHTTPIsNotUsedWhereTLSIsSpoken(t *testing.T) {
	a := newAuthority(t)
	trusted := registry.Access{Insecure: true, TLS: a.trust()}
	reset := func(near net.Conn) { _ = near.(*net.TCPConn).SetLinger(0) }
	for title, tc := range map[string]struct {
		host   string
		access registry.Access
		secure http.HandlerFunc // what answers by HTTPS
		middle func(net.Conn)   // what answers the first message of TLS instead
		want   string
	}{
		"an untrusted certificate":                    {host: "registry.example.com", access: registry.Access{Insecure: true}, want: "certSecretRef"},
		"an untrusted certificate, with HTTP implied": {host: "127.0.0.1", want: "certSecretRef"},
		"a certificate for another name":              {host: "other.example.com", access: trusted, want: `not valid for the name "other.example.com"`},
		"an answer that is no registry's":             {host: "registry.example.com", access: trusted, secure: code(404, ""), want: "404"},
		"a registry that fails for the moment":        {host: "registry.example.com", access: trusted, secure: code(503, ""), want: "503"},
		"a redirect to where no TLS is spoken":        {host: "registry.example.com", access: trusted, secure: redirect("https://127.0.0.1:1/v2/"), want: "refused"},
		"a connection that is closed":                 {host: "registry.example.com", access: trusted, middle: func(net.Conn) {}, want: "connection"},
		"a connection that is reset":                  {host: "registry.example.com", access: trusted, middle: reset, want: "connection reset"},
		"a connection that stalls":                    {host: "registry.example.com", access: trusted, middle: func(near net.Conn) { _, _ = io.Copy(io.Discard, near) }, want: "took too long"},
		"an alert":                                    {host: "registry.example.com", access: trusted, middle: func(near net.Conn) { _, _ = near.Write([]byte{21, 3, 3, 0, 2, 2, 40}) }, want: "handshake failure"},
		"an answer that is neither TLS nor HTTP":      {host: "registry.example.com", access: trusted, middle: func(near net.Conn) { _, _ = near.Write([]byte("SSH-2.0-x\r\n")) }, want: "plain HTTP"},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			plain, secure := serve(t), serveTLS(t, a, "registry.example.com")
			plain.putImage(t, "app:1", "x")
			if tc.secure != nil {
				secure.answerTo("/", tc.secure)
			}
			door := serveBoth(t, plain.host(), secure.host)
			if tc.middle != nil {
				door = serveMiddle(t, plain.host(), tc.middle)
			}
			access := user("u")
			access.Insecure, access.TLS = tc.access.Insecure, tc.access.TLS
			options := quick()
			if tc.want != "took too long" {
				options = registry.Options{}
			}
			options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1", "other.example.com": "127.0.0.1"})
			repo := newClient(t, options).Repository(repository(t, tc.host+door[strings.LastIndex(door, ":"):]+"/app"), access)
			_, err := repo.Resolve(bounded(t), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring(tc.want))

			// A client that writes tries both by itself.
			named, err := name.NewTag(tc.host+door[strings.LastIndex(door, ":"):]+"/app:1", name.Insecure)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(headByOthers(t, repo, named)).NotTo(Succeed())
			g.Expect(plain.asked()).To(BeEmpty())
		})
	}
}

// headByOthers asks for a tag as go-containerregistry does with our connection.
func headByOthers(t *testing.T, repo *registry.Repository, tag name.Tag) error {
	t.Helper()
	_, err := remote.Head(tag, remote.WithTransport(repo.RoundTripper()), remote.WithContext(t.Context()),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	return err
}

func TestAClientThatWritesMayUsePlainHTTPWhereNoTLSIsSpoken(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	options := quick()
	options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1"})
	named, err := name.NewTag("registry.example.com:"+s.port()+"/app:1", name.Insecure)
	g.Expect(err).NotTo(HaveOccurred())
	repo := newClient(t, options).Repository(named.Repository, registry.Access{Insecure: true})
	g.Expect(headByOthers(t, repo, named)).To(Succeed())
}

func TestAManifestIsWrittenOrTheRefusalTold(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []int // one for each request, the last for those that follow
		writes  int
		refusal int
	}{
		"it is stored":                  {[]int{http.StatusCreated}, 1, 0},
		"it is refused":                 {[]int{http.StatusForbidden}, 1, http.StatusForbidden},
		"the registry is overloaded":    {[]int{http.StatusServiceUnavailable, http.StatusCreated}, 2, 0},
		"it is refused the second time": {[]int{http.StatusServiceUnavailable, http.StatusBadRequest}, 2, http.StatusBadRequest},
		"the registry stays overloaded": {[]int{http.StatusServiceUnavailable}, 3, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			s := serve(t)
			writes := 0
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodPut {
					return false
				}
				w.WriteHeader(tc.answers[min(writes, len(tc.answers)-1)])
				writes++
				return true
			})
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Writable()
			err := repo.Put(bounded(t), "1", types.OCIManifestSchema1, []byte("{}"))
			g.Expect(writes).To(Equal(tc.writes))
			if tc.refusal == 0 {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			refusal, ok := errors.AsType[*transport.Error](err)
			g.Expect(ok).To(BeTrue(), "%v", err)
			g.Expect(refusal.StatusCode).To(Equal(tc.refusal))
		})
	}
}

func TestPlainHTTPByAProxyThatDoesNotTunnel(t *testing.T) {
	for status, want := range map[int]bool{403: true, 405: true, 502: true, 503: true, 407: false, 504: false} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.putImage(t, "app:1", "x")
			through := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodConnect {
					w.WriteHeader(status)
					return
				}
				s.ServeHTTP(w, r)
			}))
			t.Cleanup(through.Close)
			address, err := url.Parse(through.URL)
			g.Expect(err).NotTo(HaveOccurred())
			access := registry.Access{Proxy: address, Insecure: true, Fingerprint: "a"}
			_, err = newClient(t, quick()).Repository(repository(t, "registry.example.com/app"), access).Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err == nil).To(Equal(want))
			g.Expect(len(s.asked()) > 0).To(Equal(want))
		})
	}
}

// TestARegistryThatSpokeHTTPSIsNotAskedInClear holds that the password of a
// registry does not go out in clear once somebody keeps its TLS from being reached,
// after any answer by HTTPS.
func TestARegistryThatSpokeHTTPSIsNotAskedInClear(t *testing.T) {
	for name, answer := range map[string]func(*server){
		"an image":   func(secure *server) { secure.demandBasic("user", password) },
		"a failure":  func(secure *server) { secure.answerTo("/v2/", code(http.StatusServiceUnavailable, "")) },
		"a redirect": func(secure *server) { secure.answerTo("/v2/", redirect("https://127.0.0.1:1/v2/")) },
	} {
		t.Run(name, func(t *testing.T) { spokeHTTPS(t, answer) })
	}
}

func spokeHTTPS(t *testing.T, answer func(*server)) {
	t.Helper()
	g := NewWithT(t)
	a := newAuthority(t)
	plain, secure := serve(t), serveTLS(t, a)
	secure.putImage(t, "app:1", "x")
	answer(secure)
	plain.demandBasic("user", password)
	var cut atomic.Bool
	door := serveBoth(t, plain.host(), func() string {
		if cut.Load() {
			return plain.host() // answers TLS with HTTP
		}
		return secure.host()
	})
	access := user("u")
	access.TLS, access.Insecure = a.trust(), true
	client := newClient(t, quick())
	repo := client.Repository(repository(t, door+"/app"), access)
	_, _ = repo.Resolve(t.Context(), registry.Query{Tag: "1"}) // whatever it says
	cut.Store(true)
	secure.CloseClientConnections()
	for i := range 300 { // more connections to others than are kept
		client.Repository(repository(t, fmt.Sprintf("registry-%d.example.com/app", i)), registry.Access{})
	}
	var err error
	for range 3 {
		repo := client.Repository(repository(t, door+"/app"), access)
		_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	}
	g.Expect(err.Error()).To(ContainSubstring("answered by HTTPS before"))
	g.Expect(plain.asked()).To(BeEmpty())
}

// TestTheMemoryOfHTTPSOutlastsARotation holds that a login or a certificate authority
// that is replaced does not open the way to plain HTTP.
func TestTheMemoryOfHTTPSOutlastsARotation(t *testing.T) {
	g := NewWithT(t)
	a := newAuthority(t)
	plain, secure := serve(t), serveTLS(t, a)
	for _, s := range []*server{plain, secure} {
		s.putImage(t, "app:1", "x")
		s.demandBasic("user", password)
	}
	var cut atomic.Bool
	door := serveBoth(t, plain.host(), func() string {
		if cut.Load() {
			return plain.host() // answers TLS with HTTP
		}
		return secure.host()
	})
	client := newClient(t, quick())
	resolve := func(fingerprint, way string) error {
		access := user(fingerprint)
		access.TLS, access.Insecure, access.Way = a.trust(), true, way
		_, err := client.Repository(repository(t, door+"/app"), access).Resolve(t.Context(), registry.Query{Tag: "1"})
		return err
	}
	g.Expect(resolve("before", "team/certificates")).To(Succeed())
	cut.Store(true)
	secure.CloseClientConnections()
	err := resolve("after", "team/certificates")
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	g.Expect(err).To(MatchError(ContainSubstring("answered by HTTPS before")))
	g.Expect(plain.asked()).To(HaveEach("GET /v2/"), "nothing but a ping, which has no login")
	g.Expect(resolve("after", "others/certificates")).To(Succeed(), "what one access sees is not the word for another")
}

// TestPlainHTTPIsNotImpliedForWhoBringsCertificates holds that a server in the middle,
// which closes the port of TLS of a private registry, gets no password in clear.
func TestPlainHTTPIsNotImpliedForWhoBringsCertificates(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	s.demandBasic("user", password)
	access := user("u")
	access.TLS = newAuthority(t).trust()
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access)
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	g.Expect(err.Error()).To(ContainSubstring("set insecure: true"))
	g.Expect(s.asked()).To(BeEmpty())
}

// TestARedirectToAnotherServerTellsNothingOfTheRegistrysHTTPS holds that one false
// answer does not keep a registry that speaks plain HTTP out until a restart.
func TestARedirectToAnotherServerTellsNothingOfTheRegistrysHTTPS(t *testing.T) {
	g := NewWithT(t)
	a := newAuthority(t)
	s, other := serve(t), serveTLS(t, a)
	s.putImage(t, "app:1", "x")
	s.answerTo("/v2/", redirect(other.URL+"/v2/"))
	access := registry.Access{Insecure: true, TLS: a.trust(), Fingerprint: "a"}
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access)
	_, _ = repo.Resolve(t.Context(), registry.Query{Tag: "1"}) // whatever the other one says
	s.answer(nil)
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
}

// TestAServerLeadsToNoPrivateAddressButItsOwn holds that neither further addresses
// of a name nor an answer open what is on other addresses of this host.
func TestAServerLeadsToNoPrivateAddressButItsOwn(t *testing.T) {
	for _, tc := range []struct {
		name, records, other string // records are the addresses of the registry
		allowed              bool
	}{
		{"to its own address", "127.0.0.1", "127.0.0.1", true},
		{"not to its neighbour", "127.0.0.1", "127.0.0.2", false},
		{"not to a further address of its name", "127.0.0.2,127.0.0.1", "127.0.0.2", false},
	} {
		for _, by := range []string{"a redirect", "a realm", "a realm, for others"} {
			t.Run(tc.name+" by "+by, func(t *testing.T) {
				g := NewWithT(t)
				s := serve(t)
				s.putImage(t, "app:1", "x")
				var reached atomic.Int32
				other := serveAt(t, tc.other+":0", func(w http.ResponseWriter, _ *http.Request) {
					reached.Add(1)
					_, _ = io.WriteString(w, `{"token":"t"}`)
				})
				target := "http://other.example.com:" + other.port + "/token"
				if by == "a redirect" {
					s.answerTo("/manifests/", redirect(target))
				} else {
					s.demandToken(&tokens{realm: target})
				}
				options := quick()
				options.Resolver = resolver(t, map[string]string{"registry.example.com": tc.records, "other.example.com": tc.other})
				named, err := name.NewTag("registry.example.com:"+s.port()+"/app:1", name.Insecure)
				g.Expect(err).NotTo(HaveOccurred())
				repo := newClient(t, options).Repository(named.Repository, registry.Access{Insecure: true})
				if by == "a realm, for others" {
					err = headByOthers(t, repo, named)
				} else {
					_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				}
				g.Expect(reached.Load() > 0).To(Equal(tc.allowed))
				if !tc.allowed {
					g.Expect(err).To(MatchError(ContainSubstring("--registry-allowed-cidrs")))
				}
			})
		}
	}
}

// TestAnUploadGoesOnWhereTheRegistryMayLead has the answer to the begin of an upload lead
// to another server.
func TestAnUploadGoesOnWhereTheRegistryMayLead(t *testing.T) {
	for _, tc := range []struct {
		name, other string
		login       bool
		allowed     bool
	}{
		{"at its own address", "127.0.0.1", false, true},
		{"at its own address, with a login", "127.0.0.1", true, true},
		{"not at its neighbour", "127.0.0.2", false, false},
		{"not at its neighbour, with a login", "127.0.0.2", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			var reached atomic.Int32
			other := serveAt(t, tc.other+":0", func(w http.ResponseWriter, r *http.Request) {
				reached.Add(1)
				s.handler.ServeHTTP(w, r)
			})
			if tc.login {
				s.demandToken(&tokens{})
			}
			demand := s.instead
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if demand != nil && demand(w, r) {
					return true
				}
				if r.Method != http.MethodPost {
					return false
				}
				stored := httptest.NewRecorder()
				s.handler.ServeHTTP(stored, r)
				w.Header().Set("Location", "http://other.example.com:"+other.port+stored.Header().Get("Location"))
				w.WriteHeader(stored.Code)
				return true
			})
			options := quick()
			options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1", "other.example.com": tc.other})
			named, err := name.NewRepository("registry.example.com:"+s.port()+"/app", name.Insecure)
			g.Expect(err).NotTo(HaveOccurred())
			repo := newClient(t, options).Repository(named, registry.Access{Insecure: true}).Writable()
			layer := static.NewLayer([]byte("x"), types.OCILayer)
			err = remote.WriteLayer(named, layer, remote.WithTransport(repo.RoundTripper()), remote.WithContext(t.Context()),
				remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
			g.Expect(reached.Load() > 0).To(Equal(tc.allowed), "%v", err)
			if tc.allowed {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(ContainSubstring("--registry-allowed-cidrs")))
			}
		})
	}
}

// TestAConnectionServesNobodyWhoCouldNotOpenIt holds that a connection to a private
// address, once the server there led to it, is not left for what others lead to.
func TestAConnectionServesNobodyWhoCouldNotOpenIt(t *testing.T) {
	g := NewWithT(t)
	var reached atomic.Int32
	target := serveAt(t, "127.0.0.2:0", func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.WriteHeader(http.StatusNotFound)
	})
	leads := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			redirect("http://other.example.com:"+target.port+"/secret")(w, r)
		}
	}
	others := serveAt(t, "127.0.0.1:0", leads)
	itself := serveAt(t, "127.0.0.2:"+others.port, leads)
	options := quick()
	options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.2,127.0.0.1", "other.example.com": "127.0.0.2"})
	repo := newClient(t, options).Repository(repository(t, "registry.example.com:"+others.port+"/app"), registry.Access{Insecure: true})
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).To(MatchError(ContainSubstring("404")))
	g.Expect(reached.Load()).To(BeEquivalentTo(1), "it led to its own address")
	g.Expect(itself.Close()).To(Succeed())
	for range 3 {
		_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		g.Expect(err).To(HaveOccurred())
	}
	g.Expect(err).To(MatchError(ContainSubstring("--registry-allowed-cidrs")))
	g.Expect(reached.Load()).To(BeEquivalentTo(1))
}

// host is a server at an address of its own.
type host struct {
	*http.Server
	port string
}

func serveAt(t *testing.T, address string, answer http.HandlerFunc) host {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	_, port, err := net.SplitHostPort(listener.Addr().String())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: answer}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return host{server, port}
}

func TestNothingLeadsToAProxy(t *testing.T) {
	g := NewWithT(t)
	a := newAuthority(t)
	s := serveTLS(t, a, "registry.example.com")
	_, layer := s.putImage(t, "app:1", "x")
	through := serveProxy(t, s.host(), nil)
	s.answerTo("/blobs/", redirect("https://"+strings.TrimPrefix(through.URL, "http://")+"/admin"))
	t.Setenv("HTTPS_PROXY", through.URL) // which is not asked for addresses on loopback
	t.Setenv("NO_PROXY", "")
	access := registry.Access{TLS: a.trust(), Fingerprint: "a"}
	err := newClient(t, quick()).Repository(repository(t, "registry.example.com/app"), access).Pull(t.Context(), layer, io.Discard)
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	g.Expect(err.Error()).To(ContainSubstring("it is a proxy and no registry"))
}

// TestNoSpellingLeadsToAProxy holds that a name which net/http maps to that of a proxy
// (UTS 46) does not lead to the private address that the proxy may be at.
func TestNoSpellingLeadsToAProxy(t *testing.T) {
	g := NewWithT(t)
	var reached atomic.Int32
	through := serveAt(t, "127.0.0.2:0", func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	t.Setenv("HTTP_PROXY", "http://proxy.example.com:"+through.port)
	t.Setenv("NO_PROXY", "proxy.example.com,registry.example.com")
	s := serve(t)
	options := quick()
	options.Resolver = resolver(t, map[string]string{"registry.example.com": "127.0.0.1", "proxy.example.com": "127.0.0.2"})
	repo := newClient(t, options).Repository(repository(t, "registry.example.com:"+s.port()+"/app"), registry.Access{Insecure: true})
	s.answerTo("/manifests/", redirect("http://elsewhere.example.net/")) // by the proxy
	_, _ = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(reached.Load()).To(BeEquivalentTo(1))
	s.answerTo("/manifests/", redirect("http://\uff50roxy.example.com:"+through.port+"/admin"))
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).To(HaveOccurred())
	g.Expect(reached.Load()).To(BeEquivalentTo(1))
}

// TestALentCredentialIsSentByNoWayOfTheCallers holds the rule of Access.Check where
// nobody asked for it.
func TestALentCredentialIsSentByNoWayOfTheCallers(t *testing.T) {
	a := newAuthority(t)
	s := serve(t)
	s.demandBasic("user", password)
	secure := serveTLS(t, a, "registry.example.com")
	secure.demandBasic("user", password)
	through := serveProxy(t, secure.host(), nil)
	for name, tc := range map[string]struct {
		host   string
		access registry.Access
	}{
		"plain HTTP":                     {s.host(), registry.Access{Insecure: true}},
		"plain HTTP that a name implies": {s.host(), registry.Access{}},
		"a certificate authority":        {secure.host(), registry.Access{TLS: a.trust()}},
		"a proxy":                        {"registry.example.com", registry.Access{TLS: a.trust(), Proxy: through.url(t, nil)}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var sent atomic.Int32
			tc.access.Auth, tc.access.Lent = countedAuth{&sent}, true
			repo := newClient(t, quick()).Repository(repository(t, tc.host+"/app"), tc.access)
			_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).To(HaveOccurred())
			g.Expect(headByOthers(t, repo, repository(t, tc.host+"/app").Tag("1"))).NotTo(Succeed())
			g.Expect(sent.Load()).To(BeZero())
		})
	}
}

// countedAuth counts how often it is asked.
type countedAuth struct{ asked *atomic.Int32 }

func (c countedAuth) Authorization() (*authn.AuthConfig, error) {
	c.asked.Add(1)
	return &authn.AuthConfig{Username: "user", Password: password}, nil
}

// A registry that moves from HTTP to HTTPS is followed, and gets no password in
// clear once that is known.
func TestARegistryThatMovesToHTTPSIsFollowed(t *testing.T) {
	for name, demand := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"open": func(http.ResponseWriter, *http.Request) bool { return false },
		"with a login": func(w http.ResponseWriter, r *http.Request) bool {
			if _, given, _ := r.BasicAuth(); given == password {
				return false
			}
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			a := newAuthority(t)
			secure := serveTLS(t, a)
			secure.putImage(t, "app:1", "x")
			secure.answer(demand)
			var moved atomic.Bool
			var inClear atomic.Int32
			plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !moved.Load() {
					secure.ServeHTTP(w, r)
					return
				}
				if r.Header.Get("Authorization") != "" {
					inClear.Add(1)
				}
				http.Redirect(w, r, "https://"+r.Host+r.URL.Path, http.StatusPermanentRedirect)
			}))
			t.Cleanup(plain.Close)
			door := serveBoth(t, plain.Listener.Addr().String(), func() string {
				if moved.Load() {
					return secure.host()
				}
				return plain.Listener.Addr().String()
			})
			access := user("u")
			access.TLS, access.Insecure = a.trust(), true
			repo := newClient(t, quick()).Repository(repository(t, door+"/app"), access)
			resolve := func() error {
				_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				return err
			}
			g.Expect(resolve()).To(Succeed())
			moved.Store(true)
			g.Expect(resolve()).To(Succeed())
			g.Expect(resolve()).To(Succeed())
			g.Expect(inClear.Load()).To(BeNumerically("<=", 1), "the request that finds out is the last one in clear")
		})
	}
}

func TestAProxyIsUsedAndTheCheckOfAddressesEndsAtIt(t *testing.T) {
	a := newAuthority(t)
	s := serveTLS(t, a, "registry.example.com")
	_, layer := s.putImage(t, "app:1", "x")
	credentials := url.UserPassword("proxyuser", "proxypassword")
	through := serveProxy(t, s.host(), credentials)
	for _, tc := range []struct {
		name          string
		host          string
		user          *url.Userinfo
		reason, words string
	}{
		{"with its user", "registry.example.com", credentials, "", ""},
		{"whatever the registry's address would be", "169.254.169.254", credentials, v1alpha1.ReasonFetchFailed, "certificate is not valid"},
		{"not with another password", "registry.example.com", url.UserPassword("proxyuser", "wrongpassword"), v1alpha1.ReasonAuthenticationFailed, "proxySecretRef"},
		{"not without a user", "registry.example.com", nil, v1alpha1.ReasonAuthenticationFailed, "407"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			repo := newClient(t, quick()).Repository(repository(t, tc.host+"/app"),
				registry.Access{TLS: a.trust(), Proxy: through.url(t, tc.user), Fingerprint: tc.name})
			err := repo.Pull(t.Context(), layer, io.Discard)
			if tc.reason == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(through.asked()).To(Equal([]string{"registry.example.com:443"}))
				return
			}
			expectFault(t, err, tc.reason, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring(tc.words))
			g.Expect(err.Error()).NotTo(ContainSubstring("wrongpassword"))
		})
	}
}

func TestTheEnvironmentsProxyIsUsed(t *testing.T) {
	g := NewWithT(t)
	a := newAuthority(t)
	s := serveTLS(t, a, "registry.example.com")
	_, layer := s.putImage(t, "app:1", "x")
	through := serveProxy(t, s.host(), nil)
	t.Setenv("HTTPS_PROXY", through.URL)
	t.Setenv("NO_PROXY", "")
	access := registry.Access{TLS: a.trust(), Fingerprint: "a"}
	g.Expect(newClient(t, quick()).Repository(repository(t, "registry.example.com/app"), access).
		Pull(t.Context(), layer, io.Discard)).To(Succeed())
	g.Expect(through.asked()).To(Equal([]string{"registry.example.com:443"}))
}

// TestAProxyThatHangsIsGivenUp holds that a proxy keeps no connection once nobody
// waits for it.
func TestAProxyThatHangsIsGivenUp(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			g := NewWithT(t)
			hangs, err := net.Listen("tcp", "127.0.0.1:0")
			g.Expect(err).NotTo(HaveOccurred())
			defer hangs.Close()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				if near, err := hangs.Accept(); err == nil {
					_, _ = io.Copy(io.Discard, near)
				}
			}()
			access := registry.Access{Proxy: &url.URL{Scheme: scheme, Host: hangs.Addr().String()}, Fingerprint: "a"}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err = newClient(t, quick()).Repository(repository(t, "registry.example.com/app"), access).Resolve(ctx, registry.Query{Tag: "1"})
			g.Expect(err).To(HaveOccurred())
			g.Eventually(ended).WithTimeout(5 * time.Second).Should(BeClosed())
		})
	}
}

// What bounds the conversation with a proxy does not bound what comes through it.
func TestWhatComesThroughAProxyMayTakeLong(t *testing.T) {
	g := NewWithT(t)
	a := newAuthority(t)
	s := serveTLS(t, a, "registry.example.com")
	_, layer := s.putImage(t, "app:1", "0123456789")
	s.answerTo("/blobs/", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 10 {
			_, _ = fmt.Fprint(w, i)
			w.(http.Flusher).Flush()
			time.Sleep(100 * time.Millisecond) //nolint:forbidigo // a slow server is the subject
		}
	})
	access := registry.Access{TLS: a.trust(), Proxy: serveProxy(t, s.host(), nil).url(t, nil), Fingerprint: "a"}
	repo := newClient(t, quick()).Repository(repository(t, "registry.example.com/app"), access)
	g.Expect(repo.Pull(t.Context(), layer, io.Discard)).To(Succeed())
	g.Expect(repo.Pull(t.Context(), layer, io.Discard)).To(Succeed())
}

func TestOptionsThatCannotBeMeantAreErrors(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options registry.Options
		words   string
	}{
		{"a realm with a scheme", registry.Options{AuthRealms: []string{"https://auth.example.com"}}, "registry-auth-realms"},
		{"a realm with a path", registry.Options{AuthRealms: []string{"auth.example.com/token"}}, "registry-auth-realms"},
		{"an empty realm", registry.Options{AuthRealms: []string{""}}, "registry-auth-realms"},
		{"a network that is never allowed", registry.Options{AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix("169.254.169.0/24")}}, "never allowed"},
		{"a network that is none", registry.Options{AllowedCIDRs: []netip.Prefix{{}}}, "registry-allowed-cidrs"},
		{"a negative timeout", registry.Options{DialTimeout: -1}, "negative"},
		{"a user agent of two lines", registry.Options{UserAgent: "a\r\nb: c"}, "user agent"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := registry.NewClient(tc.options)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(tc.words)))
		})
	}
}

// What is asked for is what policies judge: the canonical name.
func TestTheRegistryIsAskedForTheCanonicalName(t *testing.T) {
	for image, want := range map[string]string{
		"nginx":                       "index.docker.io/library/nginx",
		"GHCR.io/org/app":             "ghcr.io/org/app",
		"ghcr.io:443/org/app":         "ghcr.io/org/app",
		"registry-1.docker.io/nginx":  "index.docker.io/library/nginx",
		"registry.example.com:5000/x": "registry.example.com:5000/x",
	} {
		t.Run(image, func(t *testing.T) {
			NewWithT(t).Expect(newClient(t, registry.Options{}).Repository(repository(t, image), registry.Access{}).Name()).To(Equal(want))
		})
	}
}

func TestARepositoryWithoutACanonicalNameIsNotAskedFor(t *testing.T) {
	g := NewWithT(t)
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	for _, path := range []string{"org/../evil/app", "org//app", "org/app/", "-org/app"} {
		r := newClient(t, registry.Options{}).Repository(repository(t, host+"/"+path), registry.Access{})
		g.Expect(r.Name()).To(BeEmpty(), path)
		_, err := r.Resolve(t.Context(), registry.Query{Tag: "v1"})
		g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonInvalidSpec), path)
		_, err = r.ReadManifest(t.Context(), "v1")
		g.Expect(err).To(HaveOccurred(), path)
	}
	g.Expect(requests.Load()).To(BeZero())
}
