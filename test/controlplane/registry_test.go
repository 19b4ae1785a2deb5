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

package controlplane_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/controlplane"
)

func TestRegistry(t *testing.T) {
	cp := startPlane(t, controlplane.Options{RegistryOnly: true})

	t.Run("keeps what it was given when it starts again", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{Name: "restarted"})
		digest := push(t, registry.Host()+"/app:v1")
		host := registry.Host()

		g.Expect(registry.Restart(t.Context())).To(Succeed())

		g.Expect(registry.Host()).To(Equal(host))
		g.Expect(head(host + "/app:v1")).To(Equal(digest))
	})

	t.Run("refuses connections while it is stopped", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{Name: "stopped"})

		g.Expect(registry.Stop()).To(Succeed())

		g.Expect(get(http.DefaultClient, registry.URL())).NotTo(Succeed())
	})

	t.Run("logs every request to its API", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{Name: "counted"})
		push(t, registry.Host()+"/app:v1")

		_, err := head(registry.Host() + "/app:v1")
		g.Expect(err).NotTo(HaveOccurred())

		asked := func(userAgent string) controlplane.Request {
			return controlplane.Request{Method: http.MethodHead, Path: "/v2/app/manifests/v1", Status: http.StatusOK, UserAgent: userAgent}
		}
		g.Eventually(registry.Requests, "5s").Should(ContainElement(asked("go-containerregistry")))
		_, offset, err := registry.RequestsSince(0)
		g.Expect(err).NotTo(HaveOccurred())

		_, err = head(registry.Host()+"/app:v1", remote.WithUserAgent("somebody"))
		g.Expect(err).NotTo(HaveOccurred())

		g.Eventually(func() ([]controlplane.Request, error) {
			since, _, err := registry.RequestsSince(offset)
			return since, err
		}, "5s").Should(And(ContainElement(HaveField("UserAgent", HavePrefix("somebody"))), Not(ContainElement(asked("go-containerregistry")))))
	})

	t.Run("lets only its user in", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{Name: "private", Username: "user", Password: "secret"})
		ours := remote.WithAuth(&authn.Basic{Username: "user", Password: "secret"})
		theirs := remote.WithAuth(&authn.Basic{Username: "user", Password: "guessed"})
		digest := push(t, registry.Host()+"/app:v1", ours)

		g.Expect(head(registry.Host()+"/app:v1", ours)).To(Equal(digest))
		for _, option := range []remote.Option{theirs, remote.WithAuth(authn.Anonymous)} {
			_, err := head(registry.Host()+"/app:v1", option)
			g.Expect(status(err)).To(Equal(http.StatusUnauthorized))
		}
	})

	t.Run("serves HTTPS to those who trust its authority", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{Name: "encrypted", TLS: &controlplane.RegistryTLS{}})
		trusting, err := registry.Transport()
		g.Expect(err).NotTo(HaveOccurred())
		digest := push(t, registry.Host()+"/app:v1", remote.WithTransport(trusting))

		g.Expect(head(registry.Host()+"/app:v1", remote.WithTransport(trusting))).To(Equal(digest))
		err = get(http.DefaultClient, registry.URL())
		var unknown x509.UnknownAuthorityError
		g.Expect(errors.As(err, &unknown)).To(BeTrue(), "got %v", err)
	})

	t.Run("demands a client certificate when it is told to", func(t *testing.T) {
		g := NewWithT(t)
		registry := startRegistry(t, cp, controlplane.RegistryOptions{
			Name: "mutual",
			TLS:  &controlplane.RegistryTLS{RequireClientCert: true},
		})
		presenting, err := registry.Transport()
		g.Expect(err).NotTo(HaveOccurred())
		push(t, registry.Host()+"/app:v1", remote.WithTransport(presenting))

		trusted := x509.NewCertPool()
		g.Expect(trusted.AppendCertsFromPEM(registry.CA())).To(BeTrue())
		nameless := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
		g.Expect(get(nameless, registry.URL())).To(MatchError(ContainSubstring("certificate required")))
	})

	t.Run("keeps its images in a directory of the caller", func(t *testing.T) {
		g := NewWithT(t)
		storage := t.TempDir()
		first := startRegistry(t, cp, controlplane.RegistryOptions{Name: "first", Storage: storage})
		digest := push(t, first.Host()+"/app:v1")

		second := startRegistry(t, cp, controlplane.RegistryOptions{Name: "second", Storage: storage})

		g.Expect(head(second.Host() + "/app:v1")).To(Equal(digest))
	})
}

func startRegistry(t *testing.T, cp *controlplane.ControlPlane, options controlplane.RegistryOptions) *controlplane.Registry {
	t.Helper()
	registry, err := cp.StartRegistry(t.Context(), options)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return registry
}

// get returns why a URL cannot be reached.
func get(c *http.Client, url string) error {
	response, err := c.Get(url)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// push pushes a random image and returns its digest.
func push(t *testing.T, reference string, options ...remote.Option) v1.Hash {
	t.Helper()
	g := NewWithT(t)
	image, err := random.Image(1024, 1)
	g.Expect(err).NotTo(HaveOccurred())
	tag, err := name.ParseReference(reference)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(remote.Write(tag, image, options...)).To(Succeed())
	digest, err := image.Digest()
	g.Expect(err).NotTo(HaveOccurred())
	return digest
}

// head returns the digest that a registry says a reference has.
func head(reference string, options ...remote.Option) (v1.Hash, error) {
	parsed, err := name.ParseReference(reference)
	if err != nil {
		return v1.Hash{}, err
	}
	descriptor, err := remote.Head(parsed, options...)
	if err != nil {
		return v1.Hash{}, err
	}
	return descriptor.Digest, nil
}

// status returns the HTTP status that made a request to a registry fail.
func status(err error) int {
	var failure *transport.Error
	if !errors.As(err, &failure) {
		return 0
	}
	return failure.StatusCode
}
