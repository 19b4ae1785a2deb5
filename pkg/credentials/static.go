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

	names "github.com/image-source/image-source-controller/pkg/reference"
)

// maxPullSecrets bounds how many Secrets of a ServiceAccount are read for one
// login; each may be 1 MiB.
const maxPullSecrets = 32

// maxConfig bounds the entries of one Secret, in bytes, and maxEntries those of all
// Secrets that are read for one login: the search for the best one compares them all.
const (
	maxConfig  = 256 << 10
	maxEntries = 1000
)

// maxLogin bounds a login, in bytes. It is sent as a header, and kept for as long as the
// registry is used with it.
const maxLogin = 16 << 10

// static returns the login that is written in Secrets: that of the entry which
// fits the repository best, and of equally good ones the first. Without an
// entry that fits, the caller is anonymous.
func (r *Resolver) static(ctx context.Context, request request) (login, error) {
	entries, err := r.entries(ctx, request.References)
	if err != nil || len(entries) == 0 {
		return login{}, err
	}
	keychain, err := entries.keychain(ctx)
	if err != nil {
		// What it would say may quote the entries, which were checked before.
		return login{}, failed("cannot choose a login for %q among the image pull secrets", request.repository.Name())
	}
	auth, err := authn.Resolve(ctx, keychain, request.repository)
	if err != nil {
		return login{}, err
	}
	config, err := authn.Authorization(ctx, auth)
	if err != nil || *config == (authn.AuthConfig{}) {
		return login{}, err
	}
	parts := []string{config.Username, config.Password, config.Auth, config.IdentityToken, config.RegistryToken}
	if size := len(strings.Join(parts, "")); size > maxLogin {
		return login{}, failed("the login for %q among the image pull secrets has %d bytes, expected at most %d", request.repository.RegistryStr(), size, maxLogin)
	}
	return login{auth: auth, identity: append([]string{"static"}, parts...)}, nil
}

// entries reads the Secret that is named and then those of the ServiceAccount.
func (r *Resolver) entries(ctx context.Context, references References) (entries, error) {
	all := entries{}
	if references.SecretName != "" {
		from := secretOf(references, references.SecretName, "secretRef")
		secret, err := r.secret(ctx, from)
		if err != nil {
			return nil, err
		}
		if !isPullSecret(secret) {
			return nil, from.refuse("its type is %q, expected %s; create it with kubectl create secret docker-registry",
				secret.Type, corev1.SecretTypeDockerConfigJson)
		}
		if err := all.add(secret, from); err != nil {
			return nil, err
		}
	}
	if references.ServiceAccountName == "" {
		return all, nil
	}
	return all, r.addAttached(ctx, all, references)
}

// addAttached adds what the image pull secrets of the ServiceAccount say. It
// serves others too, so a Secret of another type is passed over, as the kubelet does.
func (r *Resolver) addAttached(ctx context.Context, all entries, references References) error {
	account := serviceAccountOf(references, references.ServiceAccountName, "serviceAccountName")
	found, err := r.serviceAccount(ctx, account)
	if err != nil {
		return err
	}
	if count := len(found.ImagePullSecrets); count > maxPullSecrets {
		return account.refuse("it has %d imagePullSecrets, expected at most %d; name the one that is needed in secretRef", count, maxPullSecrets)
	}
	for _, attached := range found.ImagePullSecrets {
		from := secretOf(references, attached.Name, "imagePullSecrets of ServiceAccount "+account.Name)
		secret, err := r.secret(ctx, from)
		if err != nil {
			return err
		}
		if !isPullSecret(secret) {
			continue
		}
		if err := all.add(secret, from); err != nil {
			return err
		}
	}
	return nil
}

func isPullSecret(secret *corev1.Secret) bool {
	return secret.Type == corev1.SecretTypeDockerConfigJson || secret.Type == corev1.SecretTypeDockercfg
}

// entries are the logins of several pull secrets, one for each place.
type entries map[string]json.RawMessage

// add adds the entries of a pull secret for places that have none yet. Of
// several spellings of one place in one Secret (ghcr.io, https://ghcr.io/v2/)
// the first in the order of the alphabet stays, so that the choice between them
// is always the same.
func (e entries) add(secret *corev1.Secret, from reference) error {
	key, expected := corev1.DockerConfigJsonKey, `a JSON object with the field "auths"`
	var document struct{ Auths map[string]json.RawMessage }
	var target any = &document
	if secret.Type == corev1.SecretTypeDockercfg {
		key, expected = corev1.DockerConfigKey, "a JSON object with a field for each registry"
		target = &document.Auths
	}
	if size := len(secret.Data[key]); size > maxConfig {
		return from.refuse("%s has %d bytes, expected at most %d", key, size, maxConfig)
	}
	// What encoding/json has to say may quote what it read, so it is left out.
	if json.Unmarshal(secret.Data[key], target) != nil {
		return from.refuse("%s is no valid JSON or has another form, expected %s; create it with kubectl create secret docker-registry", key, expected)
	}
	if count := len(e) + len(document.Auths); count > maxEntries {
		return from.refuse("there are %d entries with those that were read before, expected at most %d", count, maxEntries)
	}
	for _, registry := range slices.Sorted(maps.Keys(document.Auths)) {
		place, ok := placeOf(registry)
		if !ok {
			return from.refuse("%s has an entry whose registry is no valid name, expected one such as ghcr.io or https://index.docker.io/v1/", key)
		}
		var config authn.AuthConfig
		if json.Unmarshal(document.Auths[registry], &config) != nil {
			return from.refuse("%s has a malformed entry, expected username and password, or auth with both in base64; create it with kubectl create secret docker-registry", key)
		}
		if _, known := e[place]; !known {
			e[place] = document.Auths[registry]
		}
	}
	return nil
}

// keychain returns what finds the entry for an image: the one that Flux's
// controllers ask. It is given one Secret of the older format, which has
// entries and nothing else.
func (e entries) keychain(ctx context.Context) (authn.Keychain, error) {
	written, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewFromPullSecrets(ctx, []corev1.Secret{{
		Type: corev1.SecretTypeDockercfg,
		Data: map[string][]byte{corev1.DockerConfigKey: written},
	}})
}

// placeOf returns the host and path that an entry is for. As everywhere that
// Docker's configuration is read, /v1/ and /v2/ are no path. The host is canonical,
// as that of the images that are compared with it, unless it has wildcards.
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
	host, err := names.CanonicalHost(parsed.Host)
	if err != nil {
		host = parsed.Host
	}
	return host + path, true
}
