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

// Package access holds references to the objects with the credentials for a registry, and
// the rules for their combination. It does not read these objects.
package access

import (
	"crypto/tls"
	"net/url"
	"strings"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// References name the credentials and settings for a registry. An empty name is no
// reference.
type References struct {
	// Namespace of all these objects.
	Namespace string
	// Provider is aws, azure or gcp, and else generic or empty.
	Provider string
	// SecretName names a Secret of type kubernetes.io/dockerconfigjson (or the older
	// kubernetes.io/dockercfg). It takes precedence over Provider, see PreferProvider.
	SecretName string
	// ServiceAccountName names a ServiceAccount: the identity for Provider or, without a
	// Provider, the owner of the image pull secrets to use after SecretName. A Provider
	// without a ServiceAccountName uses an identity of the platform.
	ServiceAccountName string
	// CertSecretName names a Secret of type Opaque or kubernetes.io/tls with
	// trust roots, a client certificate, or both.
	CertSecretName string
	// ProxySecretName names a Secret with the address of a proxy.
	ProxySecretName string
	// Insecure allows plain HTTP. It never turns off the check of a certificate.
	Insecure bool
}

// Elsewhere returns the references for another registry than the intended one: the logins,
// each of which names its registry, and the proxy. A cloud identity, certificates and plain
// HTTP are for the intended registry alone.
func (r References) Elsewhere() References {
	if r.IsCloud() {
		r.ServiceAccountName = ""
	}
	r.Provider, r.CertSecretName, r.Insecure = "", "", false
	return r
}

// PreferProvider returns the references as an ImageRepository uses them: a cloud provider
// takes precedence over a Secret.
func (r References) PreferProvider() References {
	if r.namesCloud() {
		r.SecretName = ""
	}
	return r
}

// Check decides whether the references may be combined. An identity without a name is the
// platform's, and lent: Check refuses CertSecretName, ProxySecretName and Insecure beside
// it, because they decide about its recipient, see registry.Access.Check. It also refuses
// names that are too long for an object. It reads no object.
//
// Errors: InvalidSpec (stall).
func (r References) Check() error {
	for _, named := range []struct{ name, kind, by string }{
		{r.SecretName, "Secret", "secretRef"}, {r.ServiceAccountName, "ServiceAccount", "serviceAccountName"},
		{r.CertSecretName, "Secret", "certSecretRef"}, {r.ProxySecretName, "Secret", "proxySecretRef"},
	} {
		if length := len(named.name); length > maxName {
			return fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s: the name of the %s has %d characters, expected at most %d", named.by, named.kind, length, maxName)
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

// IsCloud reports whether the login is an identity in a cloud.
func (r References) IsCloud() bool { return r.SecretName == "" && r.namesCloud() }

// IsLent reports whether the login is an identity without a name in the references: the
// identity of this controller, or the ServiceAccount of --default-service-account. The
// latter is in the namespace, but the platform decided about its use.
func (r References) IsLent() bool { return r.IsCloud() && r.ServiceAccountName == "" }

// Way identifies the Secrets with the CA and the proxy, regardless of their content; no name
// of an object has a slash. It is empty without such a Secret.
func (r References) Way() string {
	if r.CertSecretName == "" && r.ProxySecretName == "" {
		return ""
	}
	return strings.Join([]string{r.Namespace, r.CertSecretName, r.ProxySecretName}, "/")
}

func (r References) namesCloud() bool { return r.Provider != "" && r.Provider != "generic" }

// maxName is the length of the longest name of an object. The schema of an ImageRepository
// does not limit its names, and they are keys of the state of a registry.
const maxName = 253
