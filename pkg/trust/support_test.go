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
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// The registry client is what signatures are read through.
var _ trust.Repository = (*registry.Repository)(nil)

// strangers are the names that somebody asked the network for.
var strangers struct {
	sync.Mutex

	asked []string
}

// TestMain takes the network away from every library: names are looked up
// nowhere, and what shares the connections of net/http finds nobody but on
// loopback. Both is noted.
func TestMain(m *testing.M) {
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "COSIGN_REPOSITORY", "SIGSTORE_NO_CACHE"} {
		_ = os.Unsetenv(variable) // never fails for such names
	}
	refuse := func(_ context.Context, _, address string) (net.Conn, error) {
		strangers.Lock()
		defer strangers.Unlock()
		strangers.asked = append(strangers.asked, address)
		return nil, errors.New("there is no network")
	}
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: refuse}
	http.DefaultTransport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "127.0.0.1:") {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return refuse(ctx, network, address)
	}
	home, err := os.MkdirTemp("", "trust")
	if err != nil {
		panic(err)
	}
	for _, variable := range []string{"HOME", "DOCKER_CONFIG", "XDG_CONFIG_HOME"} {
		if err := os.Setenv(variable, home); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(home) // the system removes what is left
	os.Exit(code)
}

// expectNoStrangers asserts that nobody was looked up since it was last called.
func expectNoStrangers(g *WithT) {
	strangers.Lock()
	defer strangers.Unlock()
	g.Expect(strangers.asked).To(BeEmpty(), "somebody else than the registry was to be contacted")
	strangers.asked = nil
}

// server is a registry that can be told to answer badly.
type server struct {
	*httptest.Server

	handler http.Handler

	mu       sync.Mutex
	requests []string
	instead  func(http.ResponseWriter, *http.Request) bool
}

// serve starts a registry, with a list of referrers or without.
func serve(t *testing.T, referrers bool) *server {
	t.Helper()
	s := &server{handler: ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)), ggcr.WithReferrersSupport(referrers))}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
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

// fail answers the requests whose path contains part with a status.
func (s *server) fail(part string, code int) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, part) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
			return true
		}
		return false
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

// image is one image in a registry.
type image struct {
	server     *server
	repository name.Repository
	digest     v1.Hash
	descriptor v1.Descriptor
	tagged     []v1.Descriptor // under the fallback tag
}

// push puts an image into a registry; the text makes its digest.
func push(t *testing.T, s *server, text string) *image {
	t.Helper()
	g := NewWithT(t)
	repository, err := name.NewRepository(s.Listener.Addr().String() + "/org/app")
	g.Expect(err).NotTo(HaveOccurred())
	i := &image{server: s, repository: repository}
	layer := static.NewLayer([]byte(text), "application/vnd.example")
	g.Expect(remote.WriteLayer(repository, layer)).To(Succeed())
	i.descriptor = i.put(t, map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1,
		"config": i.blob(t, []byte("{}"), types.OCIConfigJSON), "layers": []v1.Descriptor{i.blob(t, []byte(text), "application/vnd.example")},
	})
	i.digest = i.descriptor.Digest
	return i
}

// blob stores bytes and describes them.
func (i *image) blob(t *testing.T, body []byte, mediaType types.MediaType) v1.Descriptor {
	t.Helper()
	g := NewWithT(t)
	layer := static.NewLayer(body, mediaType)
	g.Expect(remote.WriteLayer(i.repository, layer)).To(Succeed())
	digest, err := layer.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: int64(len(body))}
}

// raw is a manifest as it is pushed.
type raw struct {
	body      []byte
	mediaType types.MediaType
}

func (r raw) RawManifest() ([]byte, error)        { return r.body, nil }
func (r raw) MediaType() (types.MediaType, error) { return r.mediaType, nil }

// put stores a manifest by its digest. Where the registry keeps no list of
// referrers, the client notes one under the fallback tag.
func (i *image) put(t *testing.T, manifest map[string]any) v1.Descriptor {
	t.Helper()
	g := NewWithT(t)
	body, err := json.Marshal(manifest)
	g.Expect(err).NotTo(HaveOccurred())
	digest, size, err := v1.SHA256(bytes.NewReader(body))
	g.Expect(err).NotTo(HaveOccurred())
	mediaType := manifest["mediaType"].(types.MediaType)
	g.Expect(remote.Put(i.repository.Digest(digest.String()), raw{body: body, mediaType: mediaType})).To(Succeed())
	return v1.Descriptor{MediaType: mediaType, Digest: digest, Size: size}
}

// putTag stores a manifest under a tag.
func (i *image) putTag(t *testing.T, tag string, manifest map[string]any) {
	t.Helper()
	g := NewWithT(t)
	body, err := json.Marshal(manifest)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Put(i.repository.Tag(tag), raw{body: body, mediaType: manifest["mediaType"].(types.MediaType)})).To(Succeed())
}

// referrer is a manifest that refers to the image.
func (i *image) referrer(t *testing.T, artifactType string, layer v1.Descriptor) map[string]any {
	t.Helper()
	return map[string]any{
		"schemaVersion": 2, "mediaType": types.OCIManifestSchema1, "artifactType": artifactType,
		"config": i.blob(t, []byte("{}"), types.MediaType("application/vnd.oci.empty.v1+json")),
		"layers": []v1.Descriptor{layer}, "subject": i.descriptor,
	}
}

// attach stores bytes as a referrer of the image.
func (i *image) attach(t *testing.T, artifactType string, layer v1.Descriptor) v1.Descriptor {
	t.Helper()
	return i.put(t, i.referrer(t, artifactType, layer))
}

func (i *image) subject() trust.Subject {
	return trust.Subject{Repository: i.repository.Name(), Digest: i.digest}
}

// open is the repository of the image as the client of this program sees it.
func (i *image) open(t *testing.T, access registry.Access) *registry.Repository {
	t.Helper()
	client, err := registry.NewClient(registry.Options{UserAgent: "test"})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return client.Repository(i.repository, access)
}

// verify judges the image by one demand.
func (i *image) verify(t *testing.T, demand trust.Demand) (trust.Verified, error) {
	t.Helper()
	authority, err := trust.NewAuthority(demand, trust.Options{})
	if err != nil {
		return trust.Verified{}, err
	}
	return i.verifyBy(t, rule(authority))
}

func (i *image) verifyBy(t *testing.T, rules ...trust.Rule) (trust.Verified, error) {
	t.Helper()
	return trust.NewRules(i.open(t, registry.Access{}), rules...).Verify(t.Context(), i.subject())
}

func rule(authority *trust.Authority) trust.Rule {
	return trust.Rule{Name: "spec.verify", AnyOf: []trust.Alternative{{Authority: authority}}}
}

// expectDenied asserts that an error is a *trust.VerificationError with a verdict, and that its
// words hold all of some.
func expectDenied(g *WithT, err error, verdict trust.Verdict, words ...string) {
	g.THelper()
	g.Expect(err).To(HaveOccurred())
	var failure *trust.VerificationError
	g.Expect(errors.As(err, &failure)).To(BeTrue(), "%v is no VerificationError", err)
	f := fault.Of(err, "")
	g.Expect(f.Reason).To(Equal(v1alpha1.ReasonVerificationError), err.Error())
	g.Expect(f.Class).To(Equal(fault.Retry))
	for _, word := range words {
		g.Expect(err.Error()).To(ContainSubstring(word))
	}
	g.Expect(trust.VerdictOf(err).String()).To(Equal(verdict.String()), err.Error())
	g.Expect(trust.VerdictOf(fmt.Errorf("wrapped: %w", err))).To(Equal(verdict))
}
