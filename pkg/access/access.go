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

// Package access holds the names of the objects that open a registry, and the rules for
// using them together. It reads none of these objects.
package access

import (
	"crypto/tls"
	"net/url"
	"strings"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// References name what opens a registry. An empty name is no reference.
type References struct {
	// Namespace is where all that is named here is read.
	Namespace string
	// Provider is aws, azure or gcp, and else generic or empty.
	Provider string
	// SecretName names a Secret of type kubernetes.io/dockerconfigjson (or the
	// older kubernetes.io/dockercfg). It wins over Provider, see PreferProvider.
	SecretName string
	// ServiceAccountName names a ServiceAccount: the identity to show to
	// Provider, or, without one, whose image pull secrets to use after SecretName.
	// Provider without it uses an identity of the platform.
	ServiceAccountName string
	// CertSecretName names a Secret of type Opaque or kubernetes.io/tls with
	// trust roots, a client certificate, or both.
	CertSecretName string
	// ProxySecretName names a Secret with the address of a proxy.
	ProxySecretName string
	// Insecure allows plain HTTP. It never turns off the check of a certificate.
	Insecure bool
}

// Elsewhere returns what of these may be used at another registry than the one that
// they were written for: logins, of which each names its registry, and the way out.
// An identity in a cloud, certificates and plain HTTP were for that one alone.
func (r References) Elsewhere() References {
	if r.IsCloud() {
		r.ServiceAccountName = ""
	}
	r.Provider, r.CertSecretName, r.Insecure = "", "", false
	return r
}

// PreferProvider returns what these mean on an ImageRepository, where a cloud
// wins over a Secret.
func (r References) PreferProvider() References {
	if r.namesCloud() {
		r.SecretName = ""
	}
	return r
}

// Check decides whether the references may be used together. An identity that they do
// not name is the platform's, and lent: CertSecretName, ProxySecretName and Insecure,
// which say where it would go, are refused beside it, see registry.Access.Check. So are
// names that are too long for an object. It reads nothing.
//
// Errors: InvalidSpec (stall).
func (r References) Check() error {
	for _, named := range []struct{ name, kind, by string }{
		{r.SecretName, "Secret", "secretRef"}, {r.ServiceAccountName, "ServiceAccount", "serviceAccountName"},
		{r.CertSecretName, "Secret", "certSecretRef"}, {r.ProxySecretName, "Secret", "proxySecretRef"},
	} {
		if length := len(named.name); length > maxName {
			return fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s names a %s by %d characters, expected at most %d", named.by, named.kind, length, maxName)
		}
	}
	access := registry.Access{Lent: r.IsLent(), Insecure: r.Insecure}
	if r.CertSecretName != "" {
		access.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if r.ProxySecretName != "" {
		access.Proxy = &url.URL{}
	}
	return access.Check()
}

// IsCloud tells whether the login is an identity in a cloud.
func (r References) IsCloud() bool { return r.SecretName == "" && r.namesCloud() }

// IsLent tells whether the login is an identity that the references do not name:
// that of this controller, or the ServiceAccount of --default-service-account. The
// latter is one of the namespace, but the platform decided that it is used.
func (r References) IsLent() bool { return r.IsCloud() && r.ServiceAccountName == "" }

// Way identifies the Secrets that say how a registry is reached, whatever is in them;
// no name of an object has a slash. It is empty without any.
func (r References) Way() string {
	if r.CertSecretName == "" && r.ProxySecretName == "" {
		return ""
	}
	return strings.Join([]string{r.Namespace, r.CertSecretName, r.ProxySecretName}, "/")
}

func (r References) namesCloud() bool { return r.Provider != "" && r.Provider != "generic" }

// maxName is the length of the longest name of an object. The schema of an
// ImageRepository does not limit the names in it, and the state of a registry is kept
// by these names.
const maxName = 253
