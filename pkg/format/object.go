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

package format

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/kustomize/kyaml/kio"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxObjectBytes is the size up to which an object is read: most clusters
	// store none of more than 1.5 MiB.
	maxObjectBytes = 1 << 20
	// maxObjectMarks bounds what an object costs in memory once it is parsed:
	// every value and every comment of a YAML document follows one of objectMarks.
	// Two values follow a comma or a question mark if one of them is left out, so
	// that these count twice.
	maxObjectMarks = 100_000
	objectMarks    = "\n,,:-??[{#"
	// maxRareBreaks bounds the line breaks of YAML 1.1 that are no line feeds. A parser
	// keeps each comment that ends with one beyond ASCII by itself, which takes half a KiB,
	// and a key may follow a carriage return, which is none of objectMarks.
	maxRareBreaks = 1000
	// maxExpandedBytes bounds a text of YAML whose aliases are written out, as JSON,
	// where each value takes expandedNodeBytes beyond its own: decoders write them out.
	// In memory it takes four times as much.
	maxExpandedBytes  = 4 << 20
	expandedNodeBytes = 50
	// maxObjectsBytes and maxObjectsMarks bound the objects of an artifact together.
	maxObjectsBytes = 16 << 20
	maxObjectsMarks = 500_000
)

// object is what a Kubernetes object is told apart by.
type object struct {
	apiVersion, kind, name string
}

// objects are the only objects that an artifact may have, and what was read of
// them.
type objects struct {
	// artifact names it in messages.
	artifact string
	// tool pushes such an artifact.
	tool string
	// groups of the API that the objects may be of.
	groups []string
	bytes  int
	marks  int
}

// only reads a file that is one object.
func (r *objects) only(body []byte) (object, error) {
	found, err := r.read(body)
	if err != nil {
		return object{}, err
	}
	return theOne(found)
}

// theOne returns the only element of what the documents of a file are.
func theOne[T any](documents []T) (one T, err error) {
	switch len(documents) {
	case 0:
		return one, invalid("there is no object, but an empty YAML document")
	case 1:
		return documents[0], nil
	default:
		return one, invalid("there is more than one YAML document, of which other tools would read only the first; push each object on its own")
	}
}

// read returns the objects that kustomize makes of a file of YAML or JSON, which
// readObject has bounded. It refuses a file of which another parser would make
// other objects, and objects of other groups.
func (r *objects) read(body []byte) ([]object, error) {
	if err := r.count(body); err != nil {
		return nil, err
	}
	found, err := r.parsed(body)
	if err != nil {
		return nil, err
	}
	// kustomize splits a file by its lines before it parses the parts.
	parts, err := (&kio.ByteReader{Reader: bytes.NewReader(body), OmitReaderAnnotations: true, DisableUnwrapping: true}).Read()
	if err != nil {
		return nil, invalid("kustomize cannot read the object: %s", fault.WordsOf(err))
	}
	if len(parts) != len(found) {
		return nil, invalid("the file has %d YAML documents, but kustomize reads %d: separate documents by --- alone on a line", len(found), len(parts))
	}
	for i, part := range parts {
		o, err := r.manifest(part.YNode())
		if err != nil {
			return nil, err
		}
		if o != found[i] {
			return nil, invalid("the object is %s to a parser of YAML, and %s to kustomize", found[i], o)
		}
	}
	return found, nil
}

// parsed returns the objects that a parser of YAML sees, and keeps no more.
func (r *objects) parsed(body []byte) ([]object, error) {
	roots, err := documents(body)
	if err != nil {
		return nil, err
	}
	found := make([]object, len(roots))
	for i, root := range roots {
		if found[i], err = r.manifest(root); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// count bounds what parsing costs.
func (r *objects) count(body []byte) error {
	if err := checkYAML(body); err != nil {
		return err
	}
	r.bytes += len(body)
	r.marks += countAny(body, objectMarks)
	if r.bytes > maxObjectsBytes || r.marks > maxObjectsMarks {
		return tooLarge("%s has objects of more than %d bytes or %d values together, the most that are read", r.artifact, maxObjectsBytes, maxObjectsMarks)
	}
	return nil
}

// manifest returns the object that a document is.
func (r *objects) manifest(root *yaml.Node) (object, error) {
	o, err := identify(root)
	if err != nil {
		return object{}, err
	}
	if err := cmp.Or(checkPlain(root), checkKeys(root)); err != nil {
		return object{}, err
	}
	if _, err := o.plainKind(); err != nil {
		return object{}, err
	}
	group, version := o.groupVersion()
	if problems := validation.IsDNS1035Label(version); len(problems) > 0 {
		return object{}, invalid("the object has the apiVersion %s, which is none of Kubernetes", fault.Quote(o.apiVersion))
	}
	if !slices.Contains(r.groups, group) {
		return object{}, invalid("%s has the object %s; only objects of the group %s belong into one: publish others as files", r.artifact, o, strings.Join(r.groups, " or "))
	}
	return o, nil
}

// checkKeys refuses what is, or could be taken for, a list of objects, and keys
// that decoders without regard to case take for others. It refuses keys that the
// substitution of variables changes, too: kustomize-controller substitutes in the
// text of an object, in which each key at the top begins a line.
func checkKeys(root *yaml.Node) error {
	for i := 0; i < len(root.Content); i += 2 {
		key := root.Content[i].Value
		if strings.ContainsFunc(key, func(r rune) bool { return (r < 'a' || 'z' < r) && (r < 'A' || 'Z' < r) && (r < '0' || '9' < r) }) {
			return invalid("the object has the key %s, expected letters and digits only", fault.Quote(key))
		}
		if strings.EqualFold(key, "items") {
			return invalid("the object has the key %s, by which it is taken for a list of objects; push each object on its own", fault.Quote(key))
		}
		if key == "kind" && strings.HasSuffix(strings.ToLower(root.Content[i+1].Value), "list") {
			return invalid("the object has the kind %s, a list of objects; push each object on its own", fault.Quote(root.Content[i+1].Value))
		}
		for _, field := range []string{"apiVersion", "kind", "metadata"} {
			if key != field && strings.EqualFold(key, field) {
				return invalid("the object has the key %s, which some readers take for %s", fault.Quote(key), field)
			}
		}
	}
	return nil
}

// checkPlain refuses what parsers resolve in different ways: aliases, explicit
// tags, merge keys, and keys that are no strings.
func checkPlain(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0 {
		return invalid("line %d of the object has an alias or a tag of YAML; write out what it stands for", n.Line)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && (child.Kind != yaml.ScalarNode || child.ShortTag() == "!!merge") {
			return invalid("line %d of the object has a key that is no string, or merges another mapping; write out what it stands for", child.Line)
		}
		if err := checkPlain(child); err != nil {
			return err
		}
	}
	return nil
}

// parseObject reads what identifies the one object of a YAML or JSON document,
// which readObject has bounded. The name may be missing.
func parseObject(body []byte) (object, error) {
	if err := checkYAML(body); err != nil {
		return object{}, err
	}
	roots, err := documents(body)
	if err != nil {
		return object{}, err
	}
	root, err := theOne(roots)
	if err != nil {
		return object{}, err
	}
	return identify(root)
}

// identify returns what an object says of itself. The name may be missing.
func identify(root *yaml.Node) (object, error) {
	fields, err := fieldsOf(root)
	if err != nil {
		return object{}, err
	}
	metadata, err := fieldsOf(fields["metadata"])
	if err != nil {
		return object{}, err
	}
	o := object{apiVersion: text(fields["apiVersion"]), kind: text(fields["kind"]), name: text(metadata["name"])}
	if o.apiVersion == "" || o.kind == "" {
		return object{}, invalid("the object has no apiVersion or no kind, so that it is none of Kubernetes")
	}
	return o, nil
}

// checkYAML refuses a text that is no YAML to all readers, or expensive to parse. It
// comes before a parser, which no context stops.
func checkYAML(body []byte) error {
	if flaw := checkText(body); flaw != "" {
		return invalid("the text is not YAML: it %s", flaw)
	}
	if countAny(body, objectMarks) > maxObjectMarks {
		return tooLarge("the YAML has more than the %d values that are read", maxObjectMarks)
	}
	if limit.HasTagDirective(body) {
		return invalid("the YAML has a %%TAG directive, by which a few bytes become a tag of any length; write out the tags")
	}
	breaks := bytes.Count(body, []byte("\r")) - bytes.Count(body, []byte("\r\n"))
	for _, rare := range []string{"\u0085", "\u2028", "\u2029"} {
		breaks += bytes.Count(body, []byte(rare))
	}
	if breaks > maxRareBreaks {
		return tooLarge("the YAML has more than the %d line breaks that are read of U+0085, U+2028, U+2029 and carriage returns alone; end lines with a line feed", maxRareBreaks)
	}
	return nil
}

// checkAliases refuses a text whose first document is far longer once its aliases are
// written out. Text that checkYAML has passed may become many GiB.
func checkAliases(body []byte) error {
	if !bytes.Contains(body, []byte("*")) {
		return nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal(body, &document); err != nil {
		return invalid("the text cannot be decoded: %s", fault.WordsOf(err))
	}
	if expanded(&document, map[*yaml.Node]int{}) > maxExpandedBytes {
		return tooLarge("the YAML has more than the %d bytes that are read, once its aliases are written out", maxExpandedBytes)
	}
	return nil
}

// expanded returns the bytes of a node whose aliases are written out, at most one more
// than are read. The sizes of nodes are known from the first visit on.
func expanded(n *yaml.Node, known map[*yaml.Node]int) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if size, ok := known[n]; ok {
		return size
	}
	known[n] = maxExpandedBytes + 1 // what holds itself has no end
	text, err := json.Marshal(n.Value)
	if err != nil { // a string is always written
		return maxExpandedBytes + 1
	}
	size := len(text) + expandedNodeBytes
	for _, child := range n.Content {
		size = min(size+expanded(child, known), maxExpandedBytes+1)
	}
	known[n] = size
	return size
}

func countAny(body []byte, marks string) int {
	n := 0
	for _, mark := range []byte(marks) {
		n += bytes.Count(body, []byte{mark})
	}
	return n
}

// documents returns the YAML documents that are not empty.
func documents(body []byte) ([]*yaml.Node, error) {
	var roots []*yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(body)); ; {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return roots, nil
		}
		if err != nil {
			return nil, invalid("the object is not YAML: %s", fault.WordsOf(err))
		}
		if root := document.Content[0]; root.ShortTag() != "!!null" {
			roots = append(roots, root)
		}
	}
}

// fieldsOf returns the values of a mapping that a reader looks for by name, and
// none of a node that is missing. It does not decode the node, since decoders
// compare every two keys, and follows no alias, since kustomize does not.
func fieldsOf(n *yaml.Node) (map[string]*yaml.Node, error) {
	if n == nil {
		return nil, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, invalid("the object, or its metadata, is not a YAML mapping")
	}
	fields := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i].Value
		if _, twice := fields[key]; twice {
			return nil, invalid("the object has the key %s twice", fault.Quote(key))
		}
		fields[key] = n.Content[i+1]
	}
	return fields, nil
}

// text returns the value of a string, empty for anything else.
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return ""
	}
	return n.Value
}

// groupVersion splits the apiVersion.
func (o object) groupVersion() (group, version string) {
	if group, version, ok := strings.Cut(o.apiVersion, "/"); ok {
		return group, version
	}
	return "", o.apiVersion
}

// isCalled tells whether what was said about the object is true: its apiVersion
// in full or the version alone, its kind in any case, its name.
func (o object) isCalled(said object) bool {
	_, version := o.groupVersion()
	return (said.apiVersion == o.apiVersion || said.apiVersion == version) &&
		strings.EqualFold(said.kind, o.kind) && said.name == o.name
}

// String names the object in a message.
func (o object) String() string {
	return fault.Words(o.apiVersion) + " " + fault.Words(o.kind) + " " + fault.Quote(o.name)
}

// plainKind returns the kind in lower case. Kinds are DNS labels but for their capitals.
func (o object) plainKind() (string, error) {
	kind := strings.ToLower(o.kind)
	if problems := validation.IsDNS1035Label(kind); len(problems) > 0 {
		return "", invalid("the object has the kind %s, which is no kind of Kubernetes", fault.Quote(o.kind))
	}
	return kind, nil
}

// fileName returns the name of a file for the object, which kustomize takes for
// a manifest whether it is YAML or JSON.
func (o object) fileName() (string, error) {
	kind, err := o.plainKind()
	if err != nil {
		return "", err
	}
	if problems := validation.IsDNS1123Subdomain(o.name); len(problems) > 0 {
		return "", invalid("the %s has the name %s, which no object can have", o.kind, fault.Quote(o.name))
	}
	return kind + "-" + o.name + ".yaml", nil
}

// publishObjects publishes the objects of an artifact, each as a file
// <kind>-<name>.yaml of its own. A layer is read into an object and what its
// annotations say of that, where empty is nothing.
func publishObjects(ctx context.Context, in input, layers []v1.Descriptor, accepted objects,
	read func(ctx context.Context, a *assembly, desc v1.Descriptor) (body []byte, said object, err error),
) (*Content, error) {
	if err := in.fetch(ctx, layers); err != nil {
		return nil, err
	}
	return in.assemble(ctx, func(a *assembly) error {
		for i, desc := range layers {
			body, said, err := read(ctx, a, desc)
			if err == nil {
				err = a.addObject(&accepted, body, said)
			}
			if err != nil {
				return inLayer(i, layers, err)
			}
		}
		return nil
	})
}

// addObject adds an object as it was written.
func (a *assembly) addObject(accepted *objects, body []byte, said object) error {
	o, err := accepted.only(body)
	if err != nil {
		return err
	}
	said = object{apiVersion: cmp.Or(said.apiVersion, o.apiVersion), kind: cmp.Or(said.kind, o.kind), name: cmp.Or(said.name, o.name)}
	if !o.isCalled(said) {
		return invalid("%s has a layer whose annotations say %s, but it holds %s; push it again with %s", accepted.artifact, said, o, accepted.tool)
	}
	name, err := o.fileName()
	if err != nil {
		return err
	}
	if a.tree.get(name) != nil {
		return invalid("the artifact has two objects of one kind and name, be it in two versions or namespaces: %s", o)
	}
	return a.addFile(name, bytes.NewReader(body))
}

// readObject reads an object to its end, which must come soon.
func readObject(from io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(from, maxObjectBytes+1))
	if err != nil {
		return nil, broken("the object is damaged", err)
	}
	if len(body) > maxObjectBytes {
		return nil, tooLarge("the object has more than the %d bytes that are read", maxObjectBytes)
	}
	return body, nil
}
