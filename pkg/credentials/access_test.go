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
	"crypto/tls"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
)

func TestARegistryLetsInWhoeverHasWhatItAsksFor(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	certificate, key := ours.issue(t)
	roots := secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": ours.pem})
	for name, test := range map[string]struct {
		config *tls.Config
		guard  guard
		// objects returns what is in the cluster beside roots.
		objects    func(host string) []client.Object
		references credentials.References
		saw        string
	}{
		"a private trust root": {
			config:     ours.server(t),
			references: credentials.References{CertSecretName: "roots"},
		},
		"a private trust root under its old name": {
			config: ours.server(t),
			objects: func(string) []client.Object {
				return []client.Object{secret("old", corev1.SecretTypeOpaque, map[string]string{"caFile": ours.pem})}
			},
			references: credentials.References{CertSecretName: "old"},
		},
		"a client certificate in a Secret of type kubernetes.io/tls": {
			config: ours.mutual(t), guard: notesCertificate,
			objects: func(string) []client.Object {
				return []client.Object{secret("certs", corev1.SecretTypeTLS, map[string]string{"ca.crt": ours.pem, "tls.crt": certificate, "tls.key": key})}
			},
			references: credentials.References{CertSecretName: "certs"},
			saw:        "robot",
		},
		"a client certificate under its old names": {
			config: ours.mutual(t), guard: notesCertificate,
			objects: func(string) []client.Object {
				return []client.Object{secret("certs", corev1.SecretTypeOpaque, map[string]string{"caFile": ours.pem, "certFile": certificate, "keyFile": key})}
			},
			references: credentials.References{CertSecretName: "certs"},
			saw:        "robot",
		},
		"a password from a Secret": {
			config: ours.server(t), guard: asksPassword,
			objects: func(host string) []client.Object {
				return []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{host: user("robot")})}
			},
			references: credentials.References{CertSecretName: "roots", SecretName: "regcred"},
			saw:        "robot",
		},
		"a password from a Secret of a ServiceAccount": {
			config: ours.server(t), guard: asksPassword,
			objects: func(host string) []client.Object {
				return []client.Object{serviceAccount("puller", "regcred"), pullSecret("regcred", map[string]authn.AuthConfig{host: user("robot")})}
			},
			references: credentials.References{CertSecretName: "roots", ServiceAccountName: "puller"},
			saw:        "robot",
		},
		"a token that is given for a password": {
			config: ours.server(t), guard: asksToken,
			objects: func(host string) []client.Object {
				return []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{host: user("robot")})}
			},
			references: credentials.References{CertSecretName: "roots", SecretName: "regcred"},
			saw:        "robot",
		},
		"a client certificate and a password": {
			config: ours.mutual(t), guard: asksPassword,
			objects: func(host string) []client.Object {
				return []client.Object{
					secret("certs", corev1.SecretTypeTLS, map[string]string{"ca.crt": ours.pem, "tls.crt": certificate, "tls.key": key}),
					pullSecret("regcred", map[string]authn.AuthConfig{host: user("robot")}),
				}
			},
			references: credentials.References{CertSecretName: "certs", SecretName: "regcred"},
			saw:        "robot",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			s := serve(t, test.config, test.guard)
			objects := []client.Object{roots.DeepCopy()}
			if test.objects != nil {
				objects = append(objects, test.objects(s.image.RegistryStr())...)
			}
			access := resolve(t, resolver(objects...), s.image.Name(), test.references)
			g.Expect(s.pull(t, access)).To(Succeed())
			if test.saw != "" {
				g.Expect(s.saw()).To(ContainElement(test.saw))
			}
		})
	}
}

func TestARegistryRefusesWhoeverHasNot(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	foreign, foreignKey := theirs.issue(t)
	const wrong = "wrong-battery-4f7a"
	roots := secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": ours.pem})
	for name, test := range map[string]struct {
		config     *tls.Config
		guard      guard
		objects    func(host string) []client.Object
		references credentials.References
		reason     string
	}{
		"a wrong password": {
			config: ours.server(t), guard: asksPassword,
			objects: func(host string) []client.Object {
				return []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{host: {Username: "robot", Password: wrong}})}
			},
			references: credentials.References{CertSecretName: "roots", SecretName: "regcred"},
			reason:     v1alpha1.ReasonAuthenticationFailed,
		},
		"a wrong password for a token": {
			config: ours.server(t), guard: asksToken,
			objects: func(host string) []client.Object {
				return []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{host: {Username: "robot", Password: wrong}})}
			},
			references: credentials.References{CertSecretName: "roots", SecretName: "regcred"},
			reason:     v1alpha1.ReasonAuthenticationFailed,
		},
		"a password for another registry": {
			config: ours.server(t), guard: asksPassword,
			objects: func(string) []client.Object {
				return []client.Object{pullSecret("regcred", map[string]authn.AuthConfig{"registry.invalid": user("robot")})}
			},
			references: credentials.References{CertSecretName: "roots", SecretName: "regcred"},
			reason:     v1alpha1.ReasonAuthenticationFailed,
		},
		"no trust root": {
			config: ours.server(t),
			reason: v1alpha1.ReasonFetchFailed,
		},
		"no trust root, and plain HTTP allowed": {
			config:     ours.server(t),
			references: credentials.References{Insecure: true},
			reason:     v1alpha1.ReasonFetchFailed,
		},
		"a foreign client certificate": {
			config: ours.mutual(t), guard: notesCertificate,
			objects: func(string) []client.Object {
				return []client.Object{secret("certs", corev1.SecretTypeTLS, map[string]string{"ca.crt": ours.pem, "tls.crt": foreign, "tls.key": foreignKey})}
			},
			references: credentials.References{CertSecretName: "certs"},
			reason:     v1alpha1.ReasonFetchFailed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			s := serve(t, test.config, test.guard)
			objects := []client.Object{roots.DeepCopy()}
			if test.objects != nil {
				objects = append(objects, test.objects(s.image.RegistryStr())...)
			}
			err := s.pull(t, resolve(t, resolver(objects...), s.image.Name(), test.references))
			g.Expect(err).To(HaveOccurred())
			g.Expect(fault.Of(err, "none").Reason).To(Equal(test.reason), err.Error())
			g.Expect(err.Error()).NotTo(Or(ContainSubstring(wrong), ContainSubstring(password)))
			g.Expect(s.saw()).To(BeEmpty())
		})
	}
}

func TestAProxyIsTheOnlyWayThatIsTaken(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	const host = "registry.invalid" // nobody but the proxy can reach it
	const wrong = "wrong-battery-4f7a"
	for name, test := range map[string]struct {
		password string
		check    func(g *WithT, p *proxy, s *server, err error)
	}{
		"to a registry that asks for a password of its own": {
			password: password,
			check: func(g *WithT, p *proxy, s *server, err error) {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(p.reached()).To(ContainElement(host + ":443"))
				g.Expect(s.saw()).To(ContainElement("robot"))
			},
		},
		"also when it refuses": {
			password: wrong,
			check: func(g *WithT, p *proxy, s *server, err error) {
				g.Expect(err).To(HaveOccurred())
				g.Expect(fault.Of(err, "none").Reason).To(Equal(v1alpha1.ReasonAuthenticationFailed), err.Error())
				g.Expect(err.Error()).NotTo(ContainSubstring(wrong))
				g.Expect(p.reached()).To(BeEmpty())
				g.Expect(s.saw()).To(BeEmpty())
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, ours.server(t, host), asksPassword)
			s.image = repository(t, host+"/org/app")
			p := serveProxy(t, s)
			access := resolve(t, resolver(
				p.secret(test.password),
				secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": ours.pem}),
				pullSecret("regcred", map[string]authn.AuthConfig{host: user("robot")}),
			), s.image.Name(), credentials.References{SecretName: "regcred", CertSecretName: "roots", ProxySecretName: "proxy"})
			test.check(NewWithT(t), p, s, s.pull(t, access))
		})
	}
}
