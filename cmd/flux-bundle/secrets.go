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

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"go.yaml.in/yaml/v3"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// maxSecretBytes is how much of a file is searched for secrets.
const maxSecretBytes = 8 << 20

// confidence is a packed file with something that nobody but its owner should read.
type confidence struct{ file, what string }

// String describes the secret in a message, without its value.
func (s confidence) String() string { return fmt.Sprintf("%s (%s)", fault.Quote(s.file), s.what) }

// secretsIn finds keys and secrets in an archive that are not encrypted. It goes by
// names and marks: a password in other text is not found.
func secretsIn(ctx context.Context, archive string) ([]confidence, error) {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return nil, err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return nil, err
	}
	var found []confidence
	for entries := tar.NewReader(plain); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
		if entry.Typeflag != tar.TypeReg {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(entries, maxSecretBytes))
		if err != nil {
			return nil, err
		}
		if what := secretIn(entry.Name, body); what != "" {
			found = append(found, confidence{entry.Name, what})
		}
	}
}

var (
	// privateKey is how PEM and OpenPGP mark private keys (RFC 7468, RFC 9580).
	privateKey = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----`)
	// ageKey is how age writes identities (https://github.com/C2SP/C2SP/blob/main/age.md).
	ageKey = regexp.MustCompile(`AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]{20,}`)
	// publicOnly are marks of files with the extension of a key that hold none.
	publicOnly = regexp.MustCompile(`-----BEGIN ([A-Z0-9]+ )*(PUBLIC KEY|CERTIFICATE)( BLOCK)?-----`)
	// substituted is a value that kustomize-controller fills in.
	substituted = regexp.MustCompile(`^\$\{[^}]*\}$`)
)

// encrypted begins the values that SOPS has encrypted.
const encrypted = "ENC["

// secretIn says what is secret in a file; empty: nothing that is known.
func secretIn(name string, body []byte) string {
	base := strings.ToLower(path.Base(name))
	isEncrypted := bytes.Contains(body, []byte(encrypted))
	switch {
	case privateKey.Match(body):
		return "a private key"
	case ageKey.Match(body):
		return "a private key of age"
	case !isEncrypted && isKeyName(base) && !publicOnly.Match(body):
		return "a private key, by its name"
	case !isEncrypted && isEnvironment(base):
		return "values of environment variables"
	case path.Ext(base) == ".yaml", path.Ext(base) == ".yml", path.Ext(base) == ".json":
		return secretObject(body)
	}
	return ""
}

// isKeyName tells whether a file of that name is a private key or a store of keys.
func isKeyName(base string) bool {
	return slices.Contains([]string{".key", ".agekey", ".p12", ".pfx", ".jks", ".ppk"}, path.Ext(base)) ||
		slices.Contains([]string{"id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"}, base)
}

// isEnvironment tells whether a file has the name of the variables of a program. What
// is an example is none.
func isEnvironment(base string) bool {
	if base == ".env" {
		return true
	}
	kind, found := strings.CutPrefix(base, ".env.")
	return found && !slices.Contains([]string{"example", "sample", "template", "dist"}, kind)
}

// maxObjectBytes is the size of the largest document that is searched: etcd takes no
// larger object. What a parser makes of a document is a hundred times as large.
const maxObjectBytes = 3 << 19

// secretObject says what is secret in documents of YAML or JSON. What cannot be
// parsed is for the check to say.
func secretObject(body []byte) string {
	for text := range bytes.SplitSeq(body, []byte("\n---")) {
		mayHold := bytes.Contains(text, []byte("Secret")) || bytes.Contains(text, []byte("secretGenerator"))
		if !mayHold || len(text) > maxObjectBytes {
			continue
		}
		var document yaml.Node
		if err := yaml.Unmarshal(text, &document); err != nil {
			continue
		}
		for _, object := range document.Content {
			if what := secretFields(object); what != "" {
				return what
			}
		}
	}
	return ""
}

// secretFields says what is secret in an object or in the objects of a list.
func secretFields(object *yaml.Node) string {
	fields := fieldsOf(object)
	if items := fields["items"]; items != nil {
		for _, item := range items.Content {
			if what := secretFields(item); what != "" {
				return what
			}
		}
	}
	if kind := fields["kind"]; kind != nil && kind.Value == "Secret" && (isUnencrypted(fields["data"]) || isUnencrypted(fields["stringData"])) {
		return "a Secret that SOPS did not encrypt"
	}
	if generators := fields["secretGenerator"]; generators != nil {
		for _, generator := range generators.Content {
			if isUnencrypted(fieldsOf(generator)["literals"]) {
				return "a secretGenerator with literals"
			}
		}
	}
	return ""
}

// isUnencrypted tells whether values are there, and one of them is neither encrypted nor
// filled in later.
func isUnencrypted(values *yaml.Node) bool {
	if values == nil {
		return false
	}
	if values.Kind == yaml.AliasNode {
		values = values.Alias
	}
	for i, value := range values.Content {
		if values.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		text := value.Value
		if values.Kind == yaml.SequenceNode { // key=value
			_, text, _ = strings.Cut(text, "=")
		}
		if value.Kind != yaml.ScalarNode || text != "" && !strings.HasPrefix(text, encrypted) && !substituted.MatchString(text) {
			return true
		}
	}
	return false
}
