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
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// rsaOf returns an RSA key whose modulus has a number of bits.
func rsaOf(bits int) *rsa.PublicKey {
	modulus := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: modulus.SetBit(modulus, 0, 1), E: 65537}
}

// certified returns a certificate for a key, in PEM.
func (a *authority) certified(t testing.TB, key *rsa.PublicKey) string {
	t.Helper()
	_, text := a.sign(t, &x509.Certificate{SerialNumber: big.NewInt(3)}, key)
	return text
}

func TestACertificateSecretThatIsOfNoUse(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t)
	certificate, key := ours.issue(t)
	_, otherKey := ours.issue(t)
	opaque := func(data map[string]string) []client.Object {
		return []client.Object{secret("certs", corev1.SecretTypeOpaque, data)}
	}
	for name, test := range map[string]struct {
		objects []client.Object
		words   []string
	}{
		"does not exist": {
			words: []string{"does not exist", "create it"},
		},
		"is of another type": {
			objects: []client.Object{secret("certs", corev1.SecretTypeBasicAuth, map[string]string{"ca.crt": ours.pem})},
			words:   []string{`its type is "kubernetes.io/basic-auth", expected Opaque or kubernetes.io/tls`},
		},
		"has nothing": {
			objects: opaque(nil),
			words:   []string{"no CA certificate or client certificate pair", "expected ca.crt"},
		},
		"has too many bytes": {
			objects: opaque(map[string]string{"ca.crt": ours.pem + strings.Repeat("# ", 192<<10)}),
			words:   []string{"ca.crt has", "expected at most 393216"},
		},
		"has a certificate without its key": {
			objects: opaque(map[string]string{"tls.crt": certificate}),
			words:   []string{"missing private key", "tls.crt with tls.key"},
		},
		"has a key without its certificate": {
			objects: opaque(map[string]string{"tls.key": key}),
			words:   []string{"missing certificate", "tls.crt with tls.key"},
		},
		"has the key of another certificate": {
			objects: opaque(map[string]string{"tls.crt": certificate, "tls.key": otherKey}),
			words:   []string{"cannot be read", "its private key in tls.key"},
		},
		"has a trust root that is no PEM": {
			objects: opaque(map[string]string{"ca.crt": password}),
			words:   []string{"cannot be read", "expected PEM", "ca.crt"},
		},
		"has a key that is no PEM": {
			objects: opaque(map[string]string{"tls.crt": certificate, "tls.key": "-----BEGIN " + password + "-----"}),
			words:   []string{"cannot be read", "expected PEM"},
		},
		"has a trust root with a large key": {
			objects: opaque(map[string]string{"ca.crt": ours.pem + ours.certified(t, rsaOf(8193))}),
			words:   []string{"ca.crt holds an RSA key of 8193 bits, expected 1024 to 8192"},
		},
		"has a trust root with a large key under its old name": {
			objects: opaque(map[string]string{"caFile": ours.certified(t, rsaOf(1<<20))}),
			words:   []string{"ca.crt holds an RSA key of 1048576 bits"},
		},
		"has a certificate with a large key": {
			objects: opaque(map[string]string{"tls.crt": ours.certified(t, rsaOf(1<<16)), "tls.key": key}),
			words:   []string{"tls.crt holds an RSA key of 65536 bits"},
		},
		"has a large private key": {
			objects: opaque(map[string]string{"tls.crt": certificate, "tls.key": string(pem.EncodeToMemory(&pem.Block{
				Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PublicKey(rsaOf(1 << 16)),
			}))}),
			words: []string{"tls.key holds a number of about 65536 bits"},
		},
		"has many trust roots": {
			objects: opaque(map[string]string{"ca.crt": strings.Repeat(ours.pem, 501)}),
			words:   []string{"501 PEM blocks, expected at most 500"},
		},
		"has a good trust root under its old name and a bad one under the present": {
			objects: opaque(map[string]string{"ca.crt": password, "caFile": ours.pem}),
			words:   []string{"cannot be read"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			access, err := resolver(test.objects...).Resolve(t.Context(), repository(t, "ghcr.io/org/app"),
				credentials.References{Namespace: namespace, CertSecretName: "certs"})
			said := refused(t, err)
			g.Expect(said).To(ContainSubstring(`Secret "apps/certs" (certSecretRef)`))
			for _, words := range test.words {
				g.Expect(said).To(ContainSubstring(words))
			}
			g.Expect(access).To(Equal(registry.Access{}))
		})
	}
}

func TestTrustRootsAreAddedToThoseOfTheSystem(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	ours := newAuthority(t)
	expected, err := x509.SystemCertPool()
	g.Expect(err).NotTo(HaveOccurred())
	expected.AddCert(ours.certificate)
	access := resolve(t, resolver(secret("roots", corev1.SecretTypeOpaque, map[string]string{"ca.crt": ours.pem})),
		"ghcr.io/org/app", credentials.References{CertSecretName: "roots", Insecure: true})
	g.Expect(access.TLS.RootCAs.Equal(expected)).To(BeTrue())
	g.Expect(access.TLS.InsecureSkipVerify).To(BeFalse(), "insecure allows plain HTTP and nothing else")
	g.Expect(access.Insecure).To(BeTrue())
}

func TestAProxySecretThatIsOfNoUse(t *testing.T) {
	t.Parallel()
	at := func(address string) []client.Object {
		return []client.Object{secret("proxy", corev1.SecretTypeOpaque, map[string]string{"address": address})}
	}
	for name, test := range map[string]struct {
		objects []client.Object
		words   string
	}{
		"does not exist":                       {words: "does not exist"},
		"has no address":                       {objects: []client.Object{secret("proxy", corev1.SecretTypeOpaque, map[string]string{"username": "u", "password": password})}, words: "no field address"},
		"has an empty address":                 {objects: at(""), words: "no URL of a proxy"},
		"has an address that is no URL":        {objects: at("http://user:" + password + "@%zz"), words: "no URL of a proxy"},
		"has an address without a scheme":      {objects: at("user:" + password + "@proxy.example.com:3128"), words: "http, https or socks5"},
		"has an address with a foreign scheme": {objects: at("ftp://user:" + password + "@proxy.example.com"), words: "http, https or socks5"},
		"has a login of any length":            {objects: []client.Object{secret("proxy", corev1.SecretTypeOpaque, map[string]string{"address": "http://proxy.example.com:3128", "username": strings.Repeat("u", 16<<10), "password": password})}, words: "expected at most 16384"},
		"has an address without a host":        {objects: at("http://user:" + password + "@:3128"), words: "no URL of a proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := resolver(test.objects...).Resolve(t.Context(), repository(t, "ghcr.io/org/app"),
				credentials.References{Namespace: namespace, ProxySecretName: "proxy"})
			NewWithT(t).Expect(refused(t, err)).To(And(ContainSubstring(`Secret "apps/proxy" (proxySecretRef)`), ContainSubstring(test.words)))
		})
	}
}

func TestWhereAProxyTakesItsLoginFrom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		data map[string]string
		url  string
	}{
		"nowhere": {
			data: map[string]string{"address": "http://proxy.example.com:3128"},
			url:  "http://proxy.example.com:3128",
		},
		"fields of their own": {
			data: map[string]string{"address": "https://proxy.example.com", "username": "user", "password": "p@ss"},
			url:  "https://user:p%40ss@proxy.example.com",
		},
		"the address": {
			data: map[string]string{"address": "socks5://user:pass@proxy.example.com:1080"},
			url:  "socks5://user:pass@proxy.example.com:1080",
		},
		"the fields rather than the address": {
			data: map[string]string{"address": "http://old:old@proxy.example.com", "username": "user", "password": "pass"},
			url:  "http://user:pass@proxy.example.com",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			access := resolve(t, resolver(secret("proxy", corev1.SecretTypeOpaque, test.data)), "ghcr.io/org/app",
				credentials.References{ProxySecretName: "proxy"})
			NewWithT(t).Expect(access.Proxy.String()).To(Equal(test.url))
		})
	}
}
