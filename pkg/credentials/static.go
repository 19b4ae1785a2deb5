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
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/kubernetes"
	corev1 "k8s.io/api/core/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

// static returns the login that is written in Secrets: that of the entry which
// fits the repository best, and of equally good ones the first. Without an
// entry that fits, the caller is anonymous.
func (r *Resolver) static(ctx context.Context, request request) (login, error) {
	secrets, err := r.pullSecrets(ctx, request.References)
	if err != nil || len(secrets) == 0 {
		return login{}, err
	}
	keychain, err := kubernetes.NewFromPullSecrets(ctx, secrets)
	if err != nil {
		// What it would say may quote the entries, which were checked before.
		return login{}, fault.Retryf(v1alpha1.ReasonAuthenticationFailed, "cannot choose a login for %q among the image pull secrets", request.repository.Name())
	}
	auth, err := authn.Resolve(ctx, keychain, request.repository)
	if err != nil {
		return login{}, err
	}
	config, err := authn.Authorization(ctx, auth)
	if err != nil || *config == (authn.AuthConfig{}) {
		return login{}, err
	}
	return login{auth: auth, identity: []string{
		"static", config.Username, config.Password, config.Auth, config.IdentityToken, config.RegistryToken,
	}}, nil
}

// pullSecrets reads the Secret that is named and then those of the ServiceAccount.
func (r *Resolver) pullSecrets(ctx context.Context, references References) ([]corev1.Secret, error) {
	var secrets []corev1.Secret
	if references.SecretName != "" {
		from := references.refer(references.SecretName, "secretRef")
		secret, err := r.secret(ctx, from)
		if err != nil {
			return nil, err
		}
		if !isPullSecret(secret) {
			return nil, from.refuse("Secret", "its type is %q, expected %s; create it with kubectl create secret docker-registry",
				secret.Type, corev1.SecretTypeDockerConfigJson)
		}
		if secrets, err = appendEntries(secrets, secret, from); err != nil {
			return nil, err
		}
	}
	if references.ServiceAccountName == "" {
		return secrets, nil
	}
	account, err := r.serviceAccount(ctx, references.refer(references.ServiceAccountName, "serviceAccountName"))
	if err != nil {
		return nil, err
	}
	for _, named := range account.ImagePullSecrets {
		from := references.refer(named.Name, "imagePullSecrets of ServiceAccount "+account.Name)
		secret, err := r.secret(ctx, from)
		if err != nil {
			return nil, err
		}
		// A ServiceAccount serves others too: what is no registry login in it
		// is passed over, as the kubelet does.
		if !isPullSecret(secret) {
			continue
		}
		if secrets, err = appendEntries(secrets, secret, from); err != nil {
			return nil, err
		}
	}
	return secrets, nil
}

func isPullSecret(secret *corev1.Secret) bool {
	return secret.Type == corev1.SecretTypeDockerConfigJson || secret.Type == corev1.SecretTypeDockercfg
}

// appendEntries appends a checked copy of a pull secret that has one entry for
// each place. The copy is in the older format, which has entries and nothing else.
func appendEntries(secrets []corev1.Secret, secret *corev1.Secret, from reference) ([]corev1.Secret, error) {
	entries, err := entriesOf(secret, from)
	if err != nil {
		return nil, err
	}
	written, err := json.Marshal(entries)
	if err != nil {
		return nil, from.refuse("Secret", "its entries cannot be written again: %w", err)
	}
	return append(secrets, corev1.Secret{
		Type: corev1.SecretTypeDockercfg,
		Data: map[string][]byte{corev1.DockerConfigKey: written},
	}), nil
}

// entriesOf returns what a pull secret says, by registry as it is written. Of
// several spellings of one place (ghcr.io, https://ghcr.io/v2/) the first in the
// order of the alphabet stays, so that the choice between them is always the same.
func entriesOf(secret *corev1.Secret, from reference) (map[string]json.RawMessage, error) {
	key, expected := corev1.DockerConfigJsonKey, `a JSON object with the field "auths"`
	var document struct{ Auths map[string]json.RawMessage }
	var target any = &document
	if secret.Type == corev1.SecretTypeDockercfg {
		key, expected = corev1.DockerConfigKey, "a JSON object with a field for each registry"
		target = &document.Auths
	}
	// What encoding/json has to say may quote what it read, so it is left out.
	if json.Unmarshal(secret.Data[key], target) != nil {
		return nil, from.refuse("Secret", "%s is no valid JSON or has another form, expected %s; create it with kubectl create secret docker-registry", key, expected)
	}
	seen := map[string]bool{}
	for _, written := range slices.Sorted(maps.Keys(document.Auths)) {
		place, ok := placeOf(written)
		if !ok {
			return nil, from.refuse("Secret", "%s has an entry whose registry is no valid name, expected one such as ghcr.io or https://index.docker.io/v1/", key)
		}
		var config authn.AuthConfig
		if json.Unmarshal(document.Auths[written], &config) != nil {
			return nil, from.refuse("Secret", "%s has a malformed entry, expected username and password, or auth with both in base64; create it with kubectl create secret docker-registry", key)
		}
		if seen[place] {
			delete(document.Auths, written)
		}
		seen[place] = true
	}
	return document.Auths, nil
}

// placeOf returns the host and path that an entry is for. As everywhere that
// Docker's configuration is read, /v1/ and /v2/ are no path.
func placeOf(registry string) (string, bool) {
	if !strings.HasPrefix(registry, "https://") && !strings.HasPrefix(registry, "http://") {
		registry = "https://" + registry
	}
	parsed, err := url.Parse(registry)
	if err != nil {
		return "", false
	}
	path := parsed.Path
	if strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/v2/") {
		path = path[len("/v1"):]
	}
	if path == "/" {
		path = ""
	}
	return parsed.Host + path, true
}
