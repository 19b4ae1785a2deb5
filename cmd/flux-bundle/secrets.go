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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"go.yaml.in/yaml/v3"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// maxSecretBytes is how much of a file is searched for secrets.
const maxSecretBytes = 8 << 20

// confidence is a packed file with something that nobody but its owner should read.
type confidence struct{ file, what string }

// String describes the secret in a message, without its value.
func (s confidence) String() string { return fmt.Sprintf("%s (%s)", fault.Quote(s.file), s.what) }

// secretsIn finds packed keys and secrets that are not encrypted. It goes by
// names and marks, and by the generators of kustomizations: a password in other text
// is not found.
func secretsIn(ctx context.Context, packed *format.Packed) ([]confidence, error) {
	var found []confidence
	inputs := newGeneratorInputs(packed.Files)
	err := eachFile(ctx, packed.Path, func(name string, body []byte) {
		if isManifest(name) {
			inputs.add(name, body)
		}
	})
	if err != nil {
		return nil, err
	}
	err = eachFile(ctx, packed.Path, func(name string, body []byte) {
		if what := cmp.Or(secretIn(name, body), inputs.secretIn(name, body)); what != "" {
			found = append(found, confidence{name, what})
		}
	})
	return found, err
}

// eachFile reads the first maxSecretBytes of each file of an archive.
func eachFile(ctx context.Context, archive string, visit func(name string, body []byte)) error {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		return err
	}
	for entries := tar.NewReader(plain); ; {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if entry.Typeflag != tar.TypeReg {
			continue
		}
		body, err := io.ReadAll(io.LimitReader(entries, maxSecretBytes))
		if err != nil {
			return err
		}
		visit(entry.Name, body)
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

// secretIn names the secret in a file; empty: no known one.
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
	case isEnvironment(base) && (!isEncrypted || hasPlainVariable(body)):
		return "values of environment variables"
	case isManifest(name):
		return secretObject(body)
	}
	return ""
}

// isManifest tells whether a file of that name may hold Kubernetes objects or a
// kustomization.
func isManifest(name string) bool {
	return isKustomization(name) || slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(path.Ext(name)))
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
// larger object. A parsed document takes a hundred times as much memory.
const maxObjectBytes = 3 << 19

// secretObject names the secret in documents of YAML or JSON. What cannot be
// parsed is for the check to say.
func secretObject(body []byte) string {
	for object := range objectsOf(body, "Secret", "secretGenerator") {
		if what := secretFields(object); what != "" {
			return what
		}
	}
	return ""
}

// objectsOf returns the documents of YAML or JSON that hold one of the words and can be
// parsed, but for those that are expensive to parse: large ones, and those whose tags
// are longer once they are written out.
func objectsOf(body []byte, words ...string) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		for text := range bytes.SplitSeq(body, []byte("\n---")) {
			holds := func(word string) bool { return bytes.Contains(text, []byte(word)) }
			var document yaml.Node
			isExpensive := len(text) > maxObjectBytes || limit.HasTagDirective(text)
			if isExpensive || !slices.ContainsFunc(words, holds) || yaml.Unmarshal(text, &document) != nil {
				continue
			}
			for _, object := range document.Content {
				if !yield(object) {
					return
				}
			}
		}
	}
}

// secretFields names the secret in an object or in the objects of a list.
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
	for _, generator := range generatorsOf(object, forSecrets) {
		if isUnencrypted(fieldsOf(resolved(generator))["literals"]) {
			return "a secretGenerator with literals"
		}
	}
	return ""
}

// generated is the kind of objects that a generator makes.
type generated int

const (
	forSecrets generated = iota
	forConfigMaps
)

// generatorsOf returns the generators of a kustomization, or the object itself if it is
// one, as the field generators of a kustomization names them.
func generatorsOf(object *yaml.Node, of generated) []*yaml.Node {
	field, kind := "secretGenerator", "SecretGenerator"
	if of == forConfigMaps {
		field, kind = "configMapGenerator", "ConfigMapGenerator"
	}
	fields := fieldsOf(object)
	if named := fields["kind"]; named != nil && named.Value == kind {
		return []*yaml.Node{object}
	}
	if list := fields[field]; list != nil {
		return resolved(list).Content
	}
	return nil
}

// input is a file that generators read.
type input struct {
	// variables of a secretGenerator are in it, one on each line.
	variables bool
	// secret tells that a secretGenerator takes it as it is.
	secret bool
	// shown tells that a configMapGenerator takes it as it is, or that it is a resource,
	// and key that a configMapGenerator does so under the name of a key.
	shown, key bool
}

// generatorInputs are the packed files that may be inputs of generators, by their path.
// All generators of a file count together: it is searched once.
type generatorInputs map[string]*input

// newGeneratorInputs returns the packed files without any generator.
func newGeneratorInputs(files []string) generatorInputs {
	inputs := generatorInputs{}
	for _, name := range files {
		inputs[path.Clean(name)] = &input{}
	}
	return inputs
}

// add notes the inputs of the generators in a file, whose folder their paths start from.
// The resources of a kustomization count as well: kustomize reads them by any name.
func (g generatorInputs) add(name string, body []byte) {
	if isKustomization(name) {
		for object := range objectsOf(body, "resources") {
			for _, file := range textsOf(fieldsOf(object)["resources"]) {
				g.at(name, file).shown = true
			}
		}
	}
	for object := range objectsOf(body, "Generator") {
		for _, of := range []generated{forSecrets, forConfigMaps} {
			for _, generator := range generatorsOf(object, of) {
				fields := fieldsOf(resolved(generator))
				for _, text := range textsOf(fields["files"]) {
					key, file, named := strings.Cut(text, "=")
					if !named {
						key, file = path.Base(text), text
					}
					i := g.at(name, file)
					i.secret = i.secret || of == forSecrets
					i.shown = i.shown || of == forConfigMaps
					i.key = i.key || of == forConfigMaps && isKeyName(strings.ToLower(key))
				}
				if of == forConfigMaps {
					continue
				}
				for _, file := range append(textsOf(fields["envs"]), textsOf(fields["env"])...) {
					g.at(name, file).variables = true
				}
			}
		}
	}
}

// at returns the input that a generator in a file names. One that is not packed is noted
// for nobody.
func (g generatorInputs) at(name, file string) *input {
	return cmp.Or(g[path.Join(path.Dir(name), file)], &input{})
}

// secretIn names the secret in the input of a generator; empty: no known one.
func (g generatorInputs) secretIn(name string, body []byte) string {
	i := g.at(".", name)
	switch {
	case i.variables && hasPlainVariable(body):
		return "variables of a secretGenerator"
	case *i == (input{}), bytes.Contains(body, []byte(encrypted)), publicOnly.Match(body), len(bytes.TrimSpace(body)) == 0:
		return ""
	case i.secret:
		return "a file of a secretGenerator"
	case i.key:
		return "a private key, by its name"
	case i.shown:
		return secretObject(body)
	}
	return ""
}

// hasPlainVariable tells whether a file of variables has a value that is neither
// encrypted nor filled in later. SOPS adds variables of its own.
func hasPlainVariable(body []byte) bool {
	isEncrypted := bytes.Contains(body, []byte(encrypted))
	for line := range strings.Lines(string(body)) {
		key, value, set := strings.Cut(strings.TrimSpace(line), "=")
		own := isEncrypted && strings.HasPrefix(key, "sops_")
		if set && !own && !strings.HasPrefix(key, "#") && isInClear(value) {
			return true
		}
	}
	return false
}

// textsOf returns a text, or those of a list.
func textsOf(n *yaml.Node) (texts []string) {
	switch n = resolved(n); {
	case n == nil:
	case n.Kind == yaml.ScalarNode:
		texts = append(texts, n.Value)
	default:
		for _, one := range n.Content {
			texts = append(texts, resolved(one).Value)
		}
	}
	return texts
}

// resolved follows an alias.
func resolved(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// isUnencrypted tells whether values are there, and one of them is neither encrypted nor
// filled in later.
func isUnencrypted(values *yaml.Node) bool {
	if values = resolved(values); values == nil {
		return false
	}
	for i, value := range values.Content {
		value = resolved(value)
		if values.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		text := value.Value
		if values.Kind == yaml.SequenceNode { // key=value
			_, text, _ = strings.Cut(text, "=")
		}
		if value.Kind != yaml.ScalarNode || isInClear(text) {
			return true
		}
	}
	return false
}

func isInClear(value string) bool {
	return value != "" && !strings.HasPrefix(value, encrypted) && !substituted.MatchString(value)
}
