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
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// server is a registry that counts what it is asked.
type server struct {
	*httptest.Server
	handler http.Handler

	mu       sync.Mutex
	requests []string
	// instead answers a request in place of the registry when it returns true.
	instead func(http.ResponseWriter, *http.Request) bool
}

// serve starts a registry over plain HTTP on loopback.
func serve(t *testing.T) *server {
	t.Helper()
	s := newServer()
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// serveTLS starts a registry over HTTPS on loopback with a certificate for names.
func serveTLS(t *testing.T, a *authority, names ...string) *server {
	t.Helper()
	s := newServer()
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.issue(t, names...)}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// serveMutualTLS starts a registry that asks for client certificates and
// returns its host.
func serveMutualTLS(t *testing.T, s *server, a *authority) string {
	t.Helper()
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{a.issue(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.trust().RootCAs,
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.host()
}

func newServer() *server {
	return &server{handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	instead := s.instead
	s.mu.Unlock()
	if instead != nil && instead(w, r) {
		return
	}
	s.handler.ServeHTTP(w, r)
}

func (s *server) answer(instead func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = instead
}

// answerTo replaces the answer to the requests whose path contains part.
func (s *server) answerTo(part string, handler http.HandlerFunc) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		handler(w, r)
		return true
	})
}

// asked returns the requests since it was last called.
func (s *server) asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	requests := s.requests
	s.requests = nil
	return requests
}

func (s *server) host() string { return s.Listener.Addr().String() }

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.host())
	return port
}

// put stores something without going through the network.
func (s *server) put(t *testing.T, request *http.Request) {
	t.Helper()
	recorder := httptest.NewRecorder()
	s.handler.ServeHTTP(recorder, request)
	NewWithT(t).Expect(recorder.Code).To(Equal(http.StatusCreated), recorder.Body.String())
}

func (s *server) putBlob(t *testing.T, repo string, content []byte) v1.Descriptor {
	t.Helper()
	desc := descriptorOf(content)
	s.put(t, httptest.NewRequest(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+desc.Digest.String(), bytes.NewReader(content)))
	return desc
}

func (s *server) putManifest(t *testing.T, repoTag string, body []byte) v1.Hash {
	t.Helper()
	repo, tag, _ := strings.Cut(repoTag, ":")
	request := httptest.NewRequest(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(body))
	request.Header.Set("Content-Type", string(types.OCIManifestSchema1))
	s.put(t, request)
	return descriptorOf(body).Digest
}

// putImage stores a manifest with one layer.
func (s *server) putImage(t *testing.T, repoTag string, content string) (v1.Hash, v1.Descriptor) {
	t.Helper()
	repo, _, _ := strings.Cut(repoTag, ":")
	layer := s.putBlob(t, repo, []byte(content))
	layer.MediaType = types.OCILayer
	config := s.putBlob(t, repo, []byte("{}"))
	config.MediaType = types.OCIConfigJSON
	body, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return s.putManifest(t, repoTag, body), layer
}

func descriptorOf(content []byte) v1.Descriptor {
	digest, size, _ := v1.SHA256(bytes.NewReader(content))
	return v1.Descriptor{Digest: digest, Size: size}
}

// demandBasic makes the registry ask for a user and password.
func (s *server) demandBasic(user, password string) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		u, p, _ := r.BasicAuth()
		if u == user && p == password {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return true
	})
}

// tokens is a login realm at /token of a server.
type tokens struct {
	mu     sync.Mutex
	issued int
	// valid is the one token that the registry accepts.
	valid string
	// user and password are what the realm asks for; none when empty.
	user, password string
	// life is expires_in in seconds; 0 leaves it out.
	life int
	// realm overrides the URL of the realm.
	realm string
}

func (s *server) demandToken(k *tokens) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if r.URL.Path == "/token" {
			k.serve(w, r)
			return true
		}
		if k.valid != "" && r.Header.Get("Authorization") == "Bearer "+k.valid {
			return false
		}
		realm := k.realm
		if realm == "" {
			realm = s.URL + "/token"
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test, with comma",scope="repository:x:pull"`, realm))
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return true
	})
}

func (k *tokens) serve(w http.ResponseWriter, r *http.Request) {
	user, password, _ := r.BasicAuth()
	if k.user != "" && (user != k.user || password != k.password) {
		http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	k.issued++
	k.valid = fmt.Sprintf("token-%d", k.issued)
	answer := map[string]any{"token": k.valid}
	if k.life > 0 {
		answer["expires_in"] = k.life
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// expire makes the registry refuse the token that it accepted.
func (k *tokens) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.valid = ""
}

func newClient(t *testing.T, options registry.Options) *registry.Client {
	t.Helper()
	c, err := registry.NewClient(options)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return c
}

func repository(t *testing.T, image string) name.Repository {
	t.Helper()
	repo, err := name.NewRepository(image)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return repo
}

// haveFault matches an error by its reason and class.
func expectFault(t *testing.T, err error, reason string, class fault.Class) *fault.Error {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	f := fault.Of(err, "none")
	g.Expect(f.Reason).To(Equal(reason), err.Error())
	g.Expect(f.Class).To(Equal(class), err.Error())
	return f
}

// authority issues certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(der)
	g.Expect(err).NotTo(HaveOccurred())
	return &authority{certificate: certificate, key: key}
}

func (a *authority) issue(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	g := NewWithT(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	g.Expect(err).NotTo(HaveOccurred())
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return &tls.Config{RootCAs: pool}
}

// resolver serves DNS on loopback: names and their addresses, with commas between.
func resolver(t *testing.T, names map[string]string) *net.Resolver {
	t.Helper()
	listener, err := net.ListenPacket("udp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	go serveDNS(listener, names)
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", listener.LocalAddr().String())
	}}
}

func serveDNS(listener net.PacketConn, names map[string]string) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := listener.ReadFrom(buffer)
		if err != nil {
			return
		}
		var message dnsmessage.Message
		if message.Unpack(buffer[:n]) != nil || len(message.Questions) == 0 {
			continue
		}
		question := message.Questions[0]
		message.Response, message.Additionals = true, nil
		address, known := names[strings.TrimSuffix(question.Name.String(), ".")]
		if !known {
			message.RCode = dnsmessage.RCodeNameError
		}
		header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60}
		for one := range strings.SplitSeq(address, ",") {
			a, err := netip.ParseAddr(one)
			if err != nil || a.Is4() != (question.Type == dnsmessage.TypeA) {
				continue
			}
			var body dnsmessage.ResourceBody
			if a.Is4() {
				body = &dnsmessage.AResource{A: a.As4()}
			} else {
				body = &dnsmessage.AAAAResource{AAAA: a.As16()}
			}
			message.Answers = append(message.Answers, dnsmessage.Resource{Header: header, Body: body})
		}
		packed, err := message.Pack()
		if err != nil {
			continue
		}
		_, _ = listener.WriteTo(packed, from)
	}
}

// proxy is an HTTP proxy that sends everything to one server, whatever host it
// is asked for.
type proxy struct {
	*httptest.Server
	mu    sync.Mutex
	hosts []string
}

func serveProxy(t *testing.T, target string, user *url.Userinfo) *proxy {
	t.Helper()
	p := &proxy{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.hosts = append(p.hosts, r.Host)
		p.mu.Unlock()
		request := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
		name, password, _ := request.BasicAuth()
		if want, _ := user.Password(); user != nil && (name != user.Username() || password != want) {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		tunnel(w, target)
	}))
	t.Cleanup(p.Close)
	return p
}

func tunnel(w http.ResponseWriter, target string) {
	far, err := net.Dial("tcp", target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	near, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		_ = far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(far, buffered)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
	_ = near.Close()
}

func (p *proxy) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Clone(p.hosts))
}

func (p *proxy) url(t *testing.T, user *url.Userinfo) *url.URL {
	t.Helper()
	u, err := url.Parse(p.URL)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	u.User = user
	return u
}

// serveBoth listens on one port for plain HTTP and for TLS, and passes
// connections on to one server each.
func serveBoth(t *testing.T, plain string, secure func() string) (host string) {
	t.Helper()
	return serveDoor(t, plain, func(near net.Conn, from io.Reader) { join(near, from, secure()) })
}

// serveMiddle listens as serveBoth does and lets meddle have the connections for TLS.
func serveMiddle(t *testing.T, plain string, meddle func(net.Conn)) (host string) {
	t.Helper()
	return serveDoor(t, plain, func(near net.Conn, from io.Reader) {
		_, _ = io.ReadAtLeast(from, make([]byte, 1<<14), 100) // most of the first message, so that closing does not reset
		meddle(near)
	})
}

func serveDoor(t *testing.T, plain string, secure func(near net.Conn, from io.Reader)) (host string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer near.Close()
				buffered := bufio.NewReader(near)
				if first, err := buffered.Peek(1); err == nil && first[0] == 0x16 { // a TLS handshake
					secure(near, buffered)
					return
				}
				join(near, buffered, plain)
			}()
		}
	}()
	return listener.Addr().String()
}

func join(near net.Conn, from io.Reader, target string) {
	far, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(far, from)
		_ = far.Close()
	}()
	_, _ = io.Copy(near, far)
}
