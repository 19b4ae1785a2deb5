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

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// startRegistry starts a registry for one test, and returns how to push to it.
func (n *tenant) startRegistry(options controlplane.RegistryOptions) (*controlplane.Registry, publish.Registry) {
	n.Helper()
	options.Name = "registry-" + n.namespace
	registry, err := env.StartRegistry(n.Context(), options)
	n.Expect(err).NotTo(HaveOccurred())
	n.Cleanup(func() {
		if err := registry.Stop(); err != nil {
			n.Error(err)
		}
	})
	transport, err := registry.Transport()
	n.Expect(err).NotTo(HaveOccurred())
	return registry, publish.Registry{
		Host: registry.Host(), Username: options.Username, Password: options.Password, Transport: transport,
	}
}

// secret creates or replaces a Secret of the tenant.
func (n *tenant) secret(name string, kind corev1.SecretType, data map[string]string) {
	n.Helper()
	secret := named(n, name, &corev1.Secret{})
	if err := env.Client.Get(n.Context(), n.key(name), secret); err != nil {
		secret.Type, secret.StringData = kind, data
		n.create(secret)
		return
	}
	change(n, secret, func(secret *corev1.Secret) { secret.Data, secret.StringData = nil, data })
}

// pullSecret creates or replaces a Secret as kubectl create secret
// docker-registry does.
func (n *tenant) pullSecret(name, host string, login login) {
	n.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{
		"username": login.username, "password": login.password,
		"auth": base64.StdEncoding.EncodeToString([]byte(login.username + ":" + login.password)),
	}}})
	n.Expect(err).NotTo(HaveOccurred())
	n.secret(name, corev1.SecretTypeDockerConfigJson, map[string]string{corev1.DockerConfigJsonKey: string(config)})
}

// login is a user with a password.
type login struct{ username, password string }

const (
	username = "robot"
	password = "correct-horse-9b2c"
	// unreachable is a host where nothing listens and nothing ever will: port 1
	// is below those that are given out.
	unreachable = "127.0.0.1:1"
)

func TestRegistryAccess(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options controlplane.RegistryOptions
		// grant gives an ImageRepository what it takes to reach the registry.
		grant func(n *tenant, registry *controlplane.Registry, repository *imagev1.ImageRepository)
		// check looks at what else must be so.
		check func(n *tenant)
	}{
		"with a password from a Secret": {
			options: controlplane.RegistryOptions{Username: username, Password: password},
			grant: func(n *tenant, registry *controlplane.Registry, repository *imagev1.ImageRepository) {
				n.pullSecret("regcred", registry.Host(), login{username, password})
				repository.Spec.Insecure = true
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
			},
		},
		"with the image pull secrets of a ServiceAccount": {
			options: controlplane.RegistryOptions{Username: username, Password: password},
			grant: func(n *tenant, registry *controlplane.Registry, repository *imagev1.ImageRepository) {
				n.pullSecret("regcred", registry.Host(), login{username, password})
				account := named(n, "puller", &corev1.ServiceAccount{})
				account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "regcred"}}
				n.create(account)
				repository.Spec.Insecure = true
				repository.Spec.ServiceAccountName = "puller"
			},
		},
		"with a private CA": {
			options: controlplane.RegistryOptions{TLS: &controlplane.RegistryTLS{}},
			grant: func(n *tenant, registry *controlplane.Registry, repository *imagev1.ImageRepository) {
				n.secret("certs", corev1.SecretTypeOpaque, map[string]string{"ca.crt": string(registry.CA())})
				repository.Spec.CertSecretRef = &meta.LocalObjectReference{Name: "certs"}
			},
		},
		"with a client certificate and a password": {
			options: controlplane.RegistryOptions{
				Username: username, Password: password, TLS: &controlplane.RegistryTLS{RequireClientCert: true},
			},
			grant: func(n *tenant, registry *controlplane.Registry, repository *imagev1.ImageRepository) {
				cert, key := registry.ClientCertificate()
				n.secret("certs", corev1.SecretTypeTLS, map[string]string{
					"ca.crt": string(registry.CA()), "tls.crt": string(cert), "tls.key": string(key)})
				n.pullSecret("regcred", registry.Host(), login{username, password})
				repository.Spec.CertSecretRef = &meta.LocalObjectReference{Name: "certs"}
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			registry, push := n.startRegistry(test.options)
			first := n.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))
			n.scan("app", func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
				repository.Spec.Image, repository.Spec.Insecure = registry.Host()+"/org/app", false
				test.grant(n, registry, repository)
			})
			n.published("app", first)
			n.published("app", n.pushTo(push, "org/app:1.1.0", configMap("app", "1.1.0")))
			n.keepsToItself(password)
		})
	}
}

func TestRegistryBehindAProxy(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options controlplane.RegistryOptions
		// host is what the proxy alone can reach.
		host string
		// through counts the requests that passed the proxy.
		through func(*forwardProxy) int64
	}{
		"plain HTTP is forwarded, under a name that only the proxy knows": {
			host:    "registry.invalid:5000",
			through: func(p *forwardProxy) int64 { return p.forwards.Load() },
		},
		"HTTPS is tunnelled": {
			options: controlplane.RegistryOptions{TLS: &controlplane.RegistryTLS{}},
			host:    unreachable,
			through: func(p *forwardProxy) int64 { return p.tunnels.Load() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			test.options.Username, test.options.Password = username, password
			registry, push := n.startRegistry(test.options)
			proxy := newForwardProxy(t, registry.Host())
			way := map[string]string{"address": proxy.URL, "username": proxy.username, "password": proxy.password}
			n.secret("proxy", corev1.SecretTypeOpaque, way)
			n.secret("certs", corev1.SecretTypeOpaque, map[string]string{"ca.crt": string(registry.CA())})
			n.pullSecret("regcred", test.host, login{username, password})
			first := n.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))
			n.scan("app", func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
				repository.Spec.Image = test.host + "/org/app"
				repository.Spec.Insecure = test.options.TLS == nil
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
				repository.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"}
				if test.options.TLS != nil {
					repository.Spec.CertSecretRef = &meta.LocalObjectReference{Name: "certs"}
				}
			})
			n.published("app", first)
			n.Expect(test.through(proxy)).To(BeNumerically(">=", 2))

			way["password"] = "not-that-one-5e5e"
			n.secret("proxy", corev1.SecretTypeOpaque, way)
			refused := proxy.refused.Load()
			n.reconciled("app")
			_, ready := n.notReady("app", v1alpha1.ReasonAuthenticationFailed)
			n.Expect(ready.Message).To(ContainSubstring("proxySecretRef"))
			n.Expect(proxy.refused.Load()).To(BeNumerically(">", refused))

			way["password"] = proxy.password
			n.secret("proxy", corev1.SecretTypeOpaque, way)
			n.reconciled("app")
			n.published("app", first)
			n.keepsToItself(password, proxy.password, "not-that-one-5e5e")
		})
	}
}

// The tags may be listed and a policy may have picked one, and the credentials
// still be wrong by the time the image is fetched.
func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	const wrong = "wrong-battery-4f7a"
	for name, spoil := range map[string]func(n *tenant, host string){
		"a wrong password": func(n *tenant, host string) { n.pullSecret("regcred", host, login{username, wrong}) },
		"no Secret of that name": func(n *tenant, _ string) {
			n.Expect(env.Client.Delete(n.Context(), named(n, "regcred", &corev1.Secret{}))).To(Succeed())
		},
		"a Secret without a login for that host": func(n *tenant, _ string) {
			n.pullSecret("regcred", "registry.invalid", login{username, wrong})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			registry, push := n.startRegistry(controlplane.RegistryOptions{Username: username, Password: password})
			first := n.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))
			n.pullSecret("regcred", registry.Host(), login{username, password})
			n.scan("app", func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
				repository.Spec.Image = registry.Host() + "/org/app"
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
				repository.Spec.Interval.Duration = 1e12 // its scans are over; nobody looks but us
			})
			published := n.published("app", first)

			spoil(n, registry.Host())
			n.reconciled("app")
			obj, ready := n.notReady("app", v1alpha1.ReasonAuthenticationFailed)
			n.Expect(ready.Message).To(ContainSubstring(shortRevision(first)), "what stays published")
			n.Expect(conditions.IsStalled(obj)).To(BeFalse(), "it is tried again")
			n.Expect(obj.Status.Artifact).To(Equal(published), "the last good artifact stays")
			n.keepsToItself(password, wrong)

			n.pullSecret("regcred", registry.Host(), login{username, password})
			n.reconciled("app")
			n.published("app", first)
			n.keepsToItself(password, wrong)
		})
	}
}

// A wrong password from the start keeps image-reflector-controller from
// scanning. Whoever looks at our object must find the reason there.
func TestWrongPasswordFromTheStart(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	const wrong = "wrong-staple-11d3"
	registry, push := n.startRegistry(controlplane.RegistryOptions{Username: username, Password: password})
	first := n.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))
	n.pullSecret("regcred", registry.Host(), login{username, wrong})
	n.scan("app", func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.Image = registry.Host() + "/org/app"
		repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "regcred"}
	})
	_, ready := n.notReady("app", v1alpha1.ReasonAuthenticationFailed)
	n.Expect(ready.Message).To(And(ContainSubstring("ImageRepository"), ContainSubstring("UNAUTHORIZED")))
	n.keepsToItself(password, wrong)

	n.pullSecret("regcred", registry.Host(), login{username, password})
	n.annotate(named(n, "app", &imagev1.ImageRepository{}), meta.ReconcileRequestAnnotation, "now")
	n.published("app", first)
	n.keepsToItself(password, wrong)
}

// keepsToItself fails if a secret, or what basic authentication makes of it,
// can be read anywhere but in a Secret.
func (n *tenant) keepsToItself(secrets ...string) {
	n.Helper()
	const kinds = "imagerepositories,imagepolicies,artifactrepositories,externalartifacts,events"
	state, err := env.Kubectl(n.Context(), "get", kinds, "-n", n.namespace, "-o", "yaml")
	n.Expect(err).NotTo(HaveOccurred())
	log, err := os.ReadFile(env.controller.LogFile())
	n.Expect(err).NotTo(HaveOccurred())
	alerts := fmt.Sprint(env.alerts.about(n, "ArtifactRepository", "app"), env.alerts.about(n, "ExternalArtifact", "app"))
	for place, text := range map[string]string{"the objects of the namespace": state, "the controller's log": string(log), "Flux events": alerts} {
		for _, secret := range secrets {
			encoded := base64.StdEncoding.EncodeToString([]byte(username + ":" + secret))
			n.Expect(strings.Contains(text, secret)).To(BeFalse(), "%s: the secret %s is readable", place, secret)
			n.Expect(strings.Contains(text, encoded)).To(BeFalse(), "%s: the secret %s is readable, in base64", place, secret)
		}
	}
}
