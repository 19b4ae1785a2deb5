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
	"context"
	"errors"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// maxObjectBytes is the size up to which an object is read: most clusters
	// store none of more than 1.5 MiB.
	maxObjectBytes = 1 << 20
	// maxObjectMarks bounds what an object costs in memory once it is parsed:
	// every value of a YAML document follows one of objectMarks.
	maxObjectMarks = 100_000
	objectMarks    = "\n,:-?[{"
)

// object is what a Kubernetes object is told apart by.
type object struct {
	apiVersion, kind, name string
}

// parseObject reads what identifies the one object of a YAML or JSON document,
// which readObject has bounded. The name may be missing.
func parseObject(body []byte) (object, error) {
	if marks := countAny(body, objectMarks); marks > maxObjectMarks {
		return object{}, tooLarge("the object has more than the %d values that are read", maxObjectMarks)
	}
	root, err := onlyDocument(body)
	if err != nil {
		return object{}, err
	}
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

func tooLarge(format string, args ...any) error {
	return fault.Stallf(v1alpha1.ReasonLimitExceeded, format, args...)
}

func countAny(body []byte, marks string) int {
	n := 0
	for _, mark := range []byte(marks) {
		n += bytes.Count(body, []byte{mark})
	}
	return n
}

// onlyDocument returns the one YAML document that is not empty.
func onlyDocument(body []byte) (*yaml.Node, error) {
	var only *yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(body)); ; {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, invalid("the object is not YAML: %s", fault.Words(err.Error()))
		}
		root := document.Content[0]
		if root.ShortTag() == "!!null" {
			continue
		}
		if only != nil {
			return nil, invalid("there is more than one YAML document, of which other tools would read only the first; push each object on its own")
		}
		only = root
	}
	if only == nil {
		return nil, invalid("there is no object, but an empty YAML document")
	}
	return only, nil
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

// fileName returns the name of a file for the object, which kustomize takes for
// a manifest whether it is YAML or JSON.
func (o object) fileName() (string, error) {
	// Kinds are DNS labels but for their capitals.
	kind := strings.ToLower(o.kind)
	if problems := validation.IsDNS1035Label(kind); len(problems) > 0 {
		return "", invalid("the object has the kind %s, which is no kind of Kubernetes", fault.Quote(o.kind))
	}
	if problems := validation.IsDNS1123Subdomain(o.name); len(problems) > 0 {
		return "", invalid("the %s has the name %s, which no object can have", o.kind, fault.Quote(o.name))
	}
	return kind + "-" + o.name + ".yaml", nil
}

// collection is the objects of an artifact, each a file of its own.
type collection struct {
	*assembly
	known map[string]bool
}

func newCollection(in Input) (*collection, error) {
	a, err := newAssembly(in)
	return &collection{a, map[string]bool{}}, err
}

// put adds an object as it was written.
func (c *collection) put(o object, body []byte) error {
	name, err := o.fileName()
	if err != nil {
		return err
	}
	if c.known[name] {
		return invalid("the artifact has two objects of one kind and name, be it in two versions or namespaces: %s", o)
	}
	c.known[name] = true
	return c.addFile(name, bytes.NewReader(body))
}

// finish writes the objects as the file to publish.
func (c *collection) finish(ctx context.Context, layers []v1.Descriptor) (*Content, error) {
	content, err := c.assembly.finish(ctx)
	if err == nil && len(layers) == 1 {
		content.LayerDigest = layers[0].Digest
	}
	return content, err
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
