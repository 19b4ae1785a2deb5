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
	"fmt"
	"io"
	"iter"
	"path"
	"regexp"
	"slices"
	"strings"

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
	err := eachStart(ctx, packed.Path, func(name string, body []byte) {
		if isManifest(name) {
			inputs.add(name, body)
		}
	})
	if err != nil {
		return nil, err
	}
	err = eachStart(ctx, packed.Path, func(name string, body []byte) {
		if what := cmp.Or(secretIn(name, body), inputs.secretIn(name, body)); what != "" {
			found = append(found, confidence{name, what})
		}
	})
	return found, err
}

// eachStart reads the first maxSecretBytes of each file of an archive.
func eachStart(ctx context.Context, archive string, visit func(name string, body []byte)) error {
	return eachFile(ctx, archive, func(header *tar.Header, content io.Reader) error {
		body, err := io.ReadAll(io.LimitReader(content, maxSecretBytes))
		if err != nil {
			return err
		}
		visit(header.Name, body)
		return nil
	})
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
const encrypted = "ENC[AES256_GCM,"

// encryptedLine is a line with such a value that is no comment.
var encryptedLine = regexp.MustCompile(`(?m)^[^#\n]*ENC\[AES256_GCM,`)

// secretIn names the secret in a file; empty: no known one.
func secretIn(name string, body []byte) string {
	base := strings.ToLower(path.Base(name))
	isEncrypted := encryptedLine.Match(body)
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

// ofSecrets is a word in every document with a Secret or a generator of one, in any case
// as kustomize reads it, and a character that YAML may write in its place.
var ofSecrets = regexp.MustCompile(`(?i)secret|\\[xu]`)

// largeSecret is how a Secret begins in a document that is too large to be parsed.
var largeSecret = regexp.MustCompile(`(?m)(^|[\s{,])"?kind"?\s*:\s*["']?Secret["']?\s*($|[,}#])`)

// secretObject names the secret in documents of YAML or JSON. What cannot be
// parsed is for the check to say.
func secretObject(body []byte) string {
	for text := range documentsOf(body, ofSecrets) {
		if len(text) > maxObjectBytes && largeSecret.Match(text) {
			return "a Secret in a document that is too large to be searched"
		}
	}
	for object := range objectsOf(body, ofSecrets) {
		if what := cmp.Or(secretFields(object), secretLiterals(object)); what != "" {
			return what
		}
	}
	return ""
}

// comments are lines with nothing but a comment, or the like in a text.
var comments = regexp.MustCompile(`(?m)^[ \t]*#.*\n?`)

// documentsOf returns the texts of the documents of YAML or JSON that match. Comments
// make none of them large.
func documentsOf(body []byte, match *regexp.Regexp) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for text := range bytes.SplitSeq(body, []byte("\n---")) {
			if len(text) > maxObjectBytes {
				text = comments.ReplaceAll(text, nil)
			}
			if match.Match(text) && !yield(text) {
				return
			}
		}
	}
}

// objectsOf returns the documents of YAML or JSON that match and can be parsed, but for
// those that are expensive to parse: large ones, and those whose tags are longer once they
// are written out.
func objectsOf(body []byte, match *regexp.Regexp) iter.Seq[*yaml.Node] {
	return func(yield func(*yaml.Node) bool) {
		for text := range documentsOf(body, match) {
			var document yaml.Node
			if len(text) > maxObjectBytes || limit.HasTagDirective(text) || yaml.Unmarshal(text, &document) != nil {
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

// secretFields names the secret in an object or in one that it holds, as a list does.
func secretFields(object *yaml.Node) string {
	if isKind(object, "Secret") && (isUnencrypted(fieldOf(object, "data")) || isUnencrypted(fieldOf(object, "stringData"))) {
		return "a Secret that SOPS did not encrypt"
	}
	for _, within := range object.Content {
		if what := secretFields(within); what != "" {
			return what
		}
	}
	return ""
}

// secretLiterals names the secret in the generators of a kustomization.
func secretLiterals(object *yaml.Node) string {
	for _, generator := range generatorsOf(object, forSecrets) {
		if isUnencrypted(fieldOf(generator, "literals")) {
			return "a secretGenerator with literals"
		}
	}
	return ""
}

// fieldOf returns a field of a mapping, by its name in any case, as kustomize reads it;
// nil: there is none.
func fieldOf(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if strings.EqualFold(resolved(n.Content[i]).Value, name) {
			return n.Content[i+1]
		}
	}
	return nil
}

// isKind tells whether an object is of a kind, in any case.
func isKind(object *yaml.Node, name string) bool {
	kind := resolved(fieldOf(object, "kind"))
	return kind != nil && strings.EqualFold(kind.Value, name)
}

// generated is the kind of objects that a generator makes.
type generated int

const (
	forSecrets generated = iota
	forConfigMaps
)

// field of a kustomization with the generators, which is the kind of one by itself, too.
func (of generated) field() string {
	return [...]string{"secretGenerator", "configMapGenerator"}[of]
}

// generatorsOf returns the generators of a kustomization, or the object itself if it is
// one, as the field generators names it. One behind many aliases is returned once.
func generatorsOf(object *yaml.Node, of generated) (generators []*yaml.Node) {
	if isKind(object, of.field()) {
		return []*yaml.Node{object}
	}
	list, known := resolved(fieldOf(object, of.field())), map[*yaml.Node]bool{}
	if list == nil {
		return nil
	}
	for _, one := range list.Content {
		if one = resolved(one); !known[one] {
			known[one] = true
			generators = append(generators, one)
		}
	}
	return generators
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

// ofResources and ofGenerators are words of kustomizations.
var (
	ofResources  = regexp.MustCompile(`(?i)resources|\\[xu]`)
	ofGenerators = regexp.MustCompile(`(?i)generator|\\[xu]`)
)

// add notes the inputs of the generators in a file. Their paths start from its folder;
// those of a generator by itself from the kustomization that names it, in a folder above.
// The resources of a kustomization count as well: kustomize reads them by any name.
func (g generatorInputs) add(name string, body []byte) {
	folder := path.Dir(name)
	if isKustomization(name) {
		for object := range objectsOf(body, ofResources) {
			for _, file := range textsOf(fieldOf(object, "resources")) {
				g.at(folder, file).shown = true
			}
		}
	}
	for object := range objectsOf(body, ofGenerators) {
		for _, of := range []generated{forSecrets, forConfigMaps} {
			folders := []string{folder}
			for above := folder; isKind(object, of.field()) && above != "."; folders = append(folders, above) {
				above = path.Dir(above)
			}
			for _, field := range []string{"files", "envs", "env"} {
				known := map[*yaml.Node]bool{} // a list behind many aliases is read once
				for _, generator := range generatorsOf(object, of) {
					list := resolved(fieldOf(generator, field))
					if known[list] {
						continue
					}
					known[list] = true
					for _, text := range textsOf(list) {
						for _, folder := range folders {
							g.note(folder, text, of, field)
						}
					}
				}
			}
		}
	}
}

// note notes an input of a generator: a path or key=path.
func (g generatorInputs) note(folder, text string, of generated, field string) {
	if field != "files" {
		i := g.at(folder, text)
		i.variables = i.variables || of == forSecrets
		return
	}
	key, file, named := strings.Cut(text, "=")
	if !named {
		key, file = path.Base(text), text
	}
	i := g.at(folder, file)
	i.secret = i.secret || of == forSecrets
	i.shown = i.shown || of == forConfigMaps
	i.key = i.key || of == forConfigMaps && isKeyName(strings.ToLower(key))
}

// at returns the input that a generator names by its path from a folder. One that is not
// packed is noted for nobody.
func (g generatorInputs) at(folder, file string) *input {
	return cmp.Or(g[path.Join(folder, file)], &input{})
}

// secretIn names the secret in the input of a generator; empty: no known one.
func (g generatorInputs) secretIn(name string, body []byte) string {
	i := g.at(".", name)
	switch {
	case i.variables && hasPlainVariable(body):
		return "variables of a secretGenerator"
	case *i == (input{}), encryptedLine.Match(body), publicOnly.Match(body), len(bytes.TrimSpace(body)) == 0:
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
	switch {
	case values == nil:
		return false
	case values.Kind == yaml.AliasNode: // SOPS writes none, and one text may have many of one long list
		return len(values.Alias.Content) > 0
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
