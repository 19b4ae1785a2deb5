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

package store

import (
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	extension    = ".tar.gz"
	sha256Length = 64
)

// Key names the ExternalArtifact whose file is stored.
type Key struct {
	Namespace string
	Name      string
}

// String returns namespace/name.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

// valid tells whether both parts are names that Kubernetes allows: the
// namespace a DNS label, the name a DNS subdomain (RFC 1123). Such names can be
// elements of a path as they are; neither can be empty, a dot or hold a slash.
func (k Key) valid() bool {
	return len(validation.IsDNS1123Label(k.Namespace)) == 0 && len(validation.IsDNS1123Subdomain(k.Name)) == 0
}

// folder is where the key's files are, relative to the storage path.
func (k Key) folder() string {
	return path.Join(publishedFolder, k.Namespace, k.Name)
}

// file is the path of the key's file of that content, as in artifact.path.
func (k Key) file(sha256 string) string {
	return path.Join(k.folder(), sha256+extension)
}

func blobPath(sha256 string) string { return path.Join(blobsFolder, sha256) }

// parsePath is the grammar of published paths: all that the file method of a
// valid key can give for a valid digest, and nothing else.
func parsePath(p string) (key Key, sha256 string, ok bool) {
	rest, ok := strings.CutPrefix(p, publishedFolder+"/")
	if !ok {
		return Key{}, "", false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return Key{}, "", false
	}
	key = Key{Namespace: parts[0], Name: parts[1]}
	sha256, ok = parseFile(parts[2])
	if !ok || !key.valid() {
		return Key{}, "", false
	}
	return key, sha256, true
}

// parseFile returns the digest in the name of a published file.
func parseFile(name string) (sha256 string, ok bool) {
	sha256, ok = strings.CutSuffix(name, extension)
	return sha256, ok && isSHA256(sha256)
}

// validate refuses names before a file system sees them.
func validate(key Key, sha256 string) error {
	if !key.valid() {
		return fault.Stallf(v1alpha1.ReasonInvalidSpec,
			"store a file for %.300q: namespace and name must be DNS names as Kubernetes allows them", key.String())
	}
	if !isSHA256(sha256) {
		return fault.Stallf(v1alpha1.ReasonInvalidArtifact,
			"store a file of digest %.100q: expected the 64 lower case hexadecimal digits of a sha256", sha256)
	}
	return nil
}

func isSHA256(s string) bool {
	return len(s) == sha256Length && strings.Trim(s, "0123456789abcdef") == ""
}
