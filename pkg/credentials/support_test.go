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

package credentials_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	namespace = "apps"
	// password must never be read in an error.
	password = "correct-horse-9b2c"
)

// cluster returns a client for a cluster with the given objects. Whoever lists
// instead of asking for one object gets an error.
func cluster(objects ...client.Object) client.WithWatch {
	return fake.NewClientBuilder().WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return errors.New("only get is allowed")
		},
	}).Build()
}

// resolver returns a resolver for a cluster with the given objects.
func resolver(objects ...client.Object) *credentials.Resolver {
	return credentials.New(credentials.Options{Client: cluster(objects...)})
}

func secret(name string, kind corev1.SecretType, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: kind, Data: map[string][]byte{}}
	for key, value := range data {
		s.Data[key] = []byte(value)
	}
	return s
}

// in moves an object to another namespace.
func in[T client.Object](namespace string, object T) T {
	object.SetNamespace(namespace)
	return object
}

// pullSecret is what kubectl create secret docker-registry makes, with the
// registries of logins.
func pullSecret(name string, logins map[string]authn.AuthConfig) *corev1.Secret {
	config, err := json.Marshal(map[string]any{"auths": logins})
	if err != nil {
		panic(err)
	}
	return secret(name, corev1.SecretTypeDockerConfigJson, map[string]string{corev1.DockerConfigJsonKey: string(config)})
}

func serviceAccount(name string, pullSecrets ...string) *corev1.ServiceAccount {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, secret := range pullSecrets {
		account.ImagePullSecrets = append(account.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	return account
}

func user(name string) authn.AuthConfig {
	return authn.AuthConfig{Username: name, Password: password}
}

func repository(t testing.TB, image string) name.Repository {
	t.Helper()
	repo, err := name.NewRepository(image)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return repo
}

func resolve(t testing.TB, r *credentials.Resolver, image string, references credentials.References) registry.Access {
	t.Helper()
	if references.Namespace == "" {
		references.Namespace = namespace
	}
	access, err := r.Resolve(t.Context(), repository(t, image), references)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return access
}

// refused returns the words of an error that must be failed authentication, to
// be tried again, without the password.
func refused(t testing.TB, err error) string {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	var f *fault.Error
	g.Expect(errors.As(err, &f)).To(BeTrue(), err.Error())
	g.Expect(f.Reason).To(Equal(v1alpha1.ReasonAuthenticationFailed), err.Error())
	g.Expect(f.Class).To(Equal(fault.Retry))
	g.Expect(err.Error()).NotTo(ContainSubstring(password))
	return err.Error()
}

// server is a registry with one image, org/app:1.0.
type server struct {
	*httptest.Server
	digest v1.Hash
	image  name.Repository

	mu    sync.Mutex
	users []string
}

// guard answers in place of a registry when it returns true.
type guard = func(*server, http.ResponseWriter, *http.Request) bool

// serve starts a registry over HTTPS on loopback behind a guard.
func serve(t *testing.T, config *tls.Config, guard guard) *server {
	t.Helper()
	g := NewWithT(t)
	storage := ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guard == nil || !guard(s, w, r) {
			storage.ServeHTTP(w, r)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)

	content, err := random.Image(64, 1)
	g.Expect(err).NotTo(HaveOccurred())
	s.image = repository(t, s.Listener.Addr().String()+"/org/app")
	g.Expect(remote.Write(s.image.Tag("1.0"), content, remote.WithTransport(direct{storage}), remote.WithContext(t.Context()))).To(Succeed())
	s.digest, err = content.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return s
}

// direct hands requests to a handler without a network.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	received := r.Clone(r.Context())
	if received.Body == nil {
		received.Body = http.NoBody // a handler never sees nil
	}
	recorder := httptest.NewRecorder()
	d.ServeHTTP(recorder, received)
	answer := recorder.Result()
	answer.Request = r
	return answer, nil
}

// saw returns the users that were let in.
func (s *server) saw() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users
}

func (s *server) admit(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users = append(s.users, user)
}

// asksPassword lets in who names the user robot and the password.
func asksPassword(s *server, w http.ResponseWriter, r *http.Request) bool {
	if given, pass, _ := r.BasicAuth(); given == "robot" && pass == password {
		s.admit(given)
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	http.Error(w, "unauthorized", http.StatusUnauthorized)
	return true
}

// asksToken lets in who has the token that /token gives for the password.
func asksToken(s *server, w http.ResponseWriter, r *http.Request) bool {
	const token = "issued-token"
	switch {
	case r.URL.Path == "/token":
		if given, pass, _ := r.BasicAuth(); given != "robot" || pass != password {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return true
		}
		s.admit("robot")
		_ = json.NewEncoder(w).Encode(map[string]string{"token": token})
		return true
	case r.Header.Get("Authorization") == "Bearer "+token:
		return false
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="test"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return true
	}
}

// notesCertificate lets everybody in and notes who showed a client certificate.
func notesCertificate(s *server, _ http.ResponseWriter, r *http.Request) bool {
	if len(r.TLS.PeerCertificates) > 0 {
		s.admit(r.TLS.PeerCertificates[0].Subject.CommonName)
	}
	return false
}

// pull asks for the image of a server with an access.
func (s *server) pull(t *testing.T, access registry.Access) error {
	t.Helper()
	g := NewWithT(t)
	c, err := registry.NewClient(registry.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	found, err := c.Repository(s.image, access).Resolve(t.Context(), registry.Query{Tag: "1.0"})
	if err == nil {
		g.Expect(found.Digest).To(Equal(s.digest))
	}
	return err
}

// authority issues certificates.
type authority struct {
	pem         string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	a := &authority{certificate: template, key: key}
	a.certificate, a.pem = a.sign(t, template, key.Public())
	return a
}

func (a *authority) sign(t testing.TB, template *x509.Certificate, key any) (*x509.Certificate, string) {
	t.Helper()
	g := NewWithT(t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key, a.key)
	g.Expect(err).NotTo(HaveOccurred())
	certificate, err := x509.ParseCertificate(der)
	g.Expect(err).NotTo(HaveOccurred())
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// trust returns the configuration of a client that trusts a.
func (a *authority) trust() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

// issue returns a certificate for loopback and names, and its key, in PEM.
func (a *authority) issue(t testing.TB, names ...string) (certificate, key string) {
	t.Helper()
	g := NewWithT(t)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	g.Expect(err).NotTo(HaveOccurred())
	_, certificate = a.sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "robot"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, private.Public())
	der, err := x509.MarshalPKCS8PrivateKey(private)
	g.Expect(err).NotTo(HaveOccurred())
	return certificate, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// server returns the configuration of a server whose certificate a issued.
func (a *authority) server(t testing.TB, names ...string) *tls.Config {
	t.Helper()
	certificate, key := a.issue(t, names...)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

// mutual returns that of a server which asks for certificates that a issued.
func (a *authority) mutual(t testing.TB) *tls.Config {
	t.Helper()
	config := a.server(t)
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	config.ClientCAs.AddCert(a.certificate)
	return config
}

// proxy takes its clients to one server, whatever host they ask for, if they
// name the user gatekeeper and the password. Without a server it answers 502.
type proxy struct {
	*httptest.Server
	server *server
	// meanwhile is called before an answer is given.
	meanwhile func(*http.Request)

	mu    sync.Mutex
	hosts []string
}

func serveProxy(t *testing.T, server *server) *proxy {
	t.Helper()
	p := &proxy{server: server, meanwhile: func(*http.Request) {}}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	login := http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	if name, pass, _ := login.BasicAuth(); name != "gatekeeper" || pass != password {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.hosts = append(p.hosts, r.Host)
	p.mu.Unlock()
	p.meanwhile(r)
	if p.server == nil || r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	p.tunnel(w)
}

// tunnel connects a client to the server until either of them hangs up.
func (p *proxy) tunnel(w http.ResponseWriter) {
	there, err := net.Dial("tcp", p.server.Listener.Addr().String())
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		_, _ = io.Copy(there, buffered) // what the server read ahead, and the rest
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
}

// reached returns the hosts that were asked for.
func (p *proxy) reached() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hosts
}

// address returns how to log in there.
func (p *proxy) address() *url.URL {
	address, err := url.Parse(p.URL)
	if err != nil {
		panic(err)
	}
	address.User = url.UserPassword("gatekeeper", password)
	return address
}

// takesAll makes it the proxy that this process takes without being told. It is
// global, so who calls it cannot run beside others.
func (p *proxy) takesAll(t *testing.T) {
	t.Helper()
	before := http.DefaultTransport
	through := before.(*http.Transport).Clone()
	through.Proxy = http.ProxyURL(p.address())
	http.DefaultTransport = through
	t.Cleanup(func() { http.DefaultTransport = before })
}

// secret returns the Secret proxy for it.
func (p *proxy) secret(pass string) *corev1.Secret {
	return secret("proxy", corev1.SecretTypeOpaque, map[string]string{"address": p.URL, "username": "gatekeeper", "password": pass})
}
