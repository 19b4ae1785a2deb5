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

package credentials

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fluxcd/pkg/runtime/secrets"

	"github.com/image-source/image-source-controller/pkg/limit"
)

// trust is what certificates are checked with and shown.
type trust struct {
	// config is nil where the system's trust roots do.
	config *tls.Config
	// material is what config is made of.
	material []string
}

// trust reads trust roots, which are added to those of the system, and a
// client certificate.
func (r *Resolver) trust(ctx context.Context, references References) (trust, error) {
	if references.CertSecretName == "" {
		return trust{}, nil
	}
	from := secretOf(references, references.CertSecretName, "certSecretRef")
	secret, err := r.secret(ctx, from)
	if err != nil {
		return trust{}, err
	}
	switch secret.Type {
	case "", corev1.SecretTypeOpaque, corev1.SecretTypeTLS:
	default:
		return trust{}, from.refuse("its type is %q, expected %s or %s; create it with flux create secret tls",
			secret.Type, corev1.SecretTypeOpaque, corev1.SecretTypeTLS)
	}
	written := &corev1.Secret{ObjectMeta: secret.ObjectMeta, Data: certificates(secret.Data)}
	if err := boundCertificates(from, written.Data); err != nil {
		return trust{}, err
	}
	config, err := secrets.TLSConfigFromSecret(ctx, written, secrets.WithSystemCertPool())
	var incomplete *secrets.TLSValidationError
	switch {
	case errors.As(err, &incomplete):
		return trust{}, from.refuse("%s; expected ca.crt, or tls.crt with tls.key, or all three", incomplete)
	case err != nil:
		// The cause may quote what it read.
		return trust{}, from.refuse("its certificates cannot be read; expected PEM: trust roots in ca.crt, a certificate in tls.crt, its private key in tls.key")
	}
	config.MinVersion = tls.VersionTLS12
	return trust{config: config, material: []string{
		string(written.Data[secrets.KeyCACert]), string(written.Data[secrets.KeyTLSCert]), string(written.Data[secrets.KeyTLSPrivateKey]),
	}}, nil
}

// maxCertificates bounds the certificates in a field: a handshake may try each trust
// root of the right name. maxCertificateBytes bounds the field, which is kept as long as
// the connection that it is for: the trust roots of a system take some 250 KiB.
const (
	maxCertificates     = 500
	maxCertificateBytes = 384 << 10
)

// boundCertificates refuses fields with keys that are expensive to verify or to sign
// with: crypto/tls bounds the keys that a server sends, and not those of trust roots.
func boundCertificates(from reference, data map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if size := len(data[name]); size > maxCertificateBytes {
			return from.refuse("%s has %d bytes, expected at most %d", name, size, maxCertificateBytes)
		}
		if err := limit.Keys(data[name]); err != nil {
			return from.refuse("%s holds %w", name, err)
		}
		if count := bytes.Count(data[name], []byte("-----BEGIN")); count > maxCertificates {
			return from.refuse("%s holds %d PEM blocks, expected at most %d", name, count, maxCertificates)
		}
	}
	return nil
}

// certificates returns the fields of a Secret under their present names. Those
// from before are still allowed on an ImageRepository, and lose to the others.
func certificates(data map[string][]byte) map[string][]byte {
	present := map[string][]byte{}
	for name, before := range map[string]string{
		secrets.KeyCACert:        secrets.LegacyKeyCACert,
		secrets.KeyTLSCert:       secrets.LegacyKeyTLSCert,
		secrets.KeyTLSPrivateKey: secrets.LegacyKeyTLSPrivateKey,
	} {
		if value, ok := data[name]; ok {
			present[name] = value
		} else if value, ok := data[before]; ok {
			present[name] = value
		}
	}
	return present
}

// proxy reads the address of a proxy, and how to log in there; nil without one.
func (r *Resolver) proxy(ctx context.Context, references References) (*url.URL, error) {
	if references.ProxySecretName == "" {
		return nil, nil
	}
	from := secretOf(references, references.ProxySecretName, "proxySecretRef")
	secret, err := r.secret(ctx, from)
	if err != nil {
		return nil, err
	}
	proxy, err := secrets.ProxyURLFromSecret(ctx, secret)
	switch {
	case errors.Is(err, secrets.ErrKeyNotFound):
		return nil, from.refuse("it has no field address; expected one such as http://proxy.example.com:3128")
	case err != nil || proxy.Hostname() == "":
		// The cause quotes the address, in which there may be a password.
		return nil, from.refuse("its address is no URL of a proxy; expected one such as http://proxy.example.com:3128, with the scheme http, https or socks5, and username and password in fields of their own")
	}
	if size := len(proxy.String()); size > maxLogin {
		return nil, from.refuse("its address and login have %d bytes, expected at most %d", size, maxLogin)
	}
	return proxy, nil
}
