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
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/kustomize/api/konfig"

	"github.com/image-source/image-source-controller/pkg/fault"
)

const (
	// kyvernoPolicy is the type of a layer that is one policy in YAML.
	kyvernoPolicy     = "application/vnd.cncf.kyverno.policy.layer.v1+yaml"
	kyvernoKind       = "io.kyverno.image.kind"
	kyvernoName       = "io.kyverno.image.name"
	kyvernoAPIVersion = "io.kyverno.image.apiVersion"

	// kyvernoContent is the type of the layer that is a bundle's tree.
	kyvernoContent = "application/vnd.cncf.kyverno.bundle.content.v1.tar+gzip"
)

// kyvernoObjects are those that kyverno oci push takes, before and from 1.20 on.
func kyvernoObjects() objects {
	return objects{artifact: "the Kyverno artifact", groups: []string{"kyverno.io", "policies.kyverno.io"}, tool: "kyverno oci push"}
}

// readKyverno reads an artifact of kyverno oci push: layers that are one policy each
// or, from Kyverno 1.20 on, a bundle: one gzip tar of a tree
// (https://github.com/kyverno/kyverno/blob/main/docs/dev/oci/bundle-spec.md). It
// publishes the tree of a bundle, or each policy as a file. Layers of other types
// than that of a policy are left out, as kyverno oci pull does.
func readKyverno(ctx context.Context, in input) (*Content, error) {
	in = in.contentOnly()
	if hasType(kyvernoBundle)(in.Manifest) {
		return readKyvernoBundle(ctx, in)
	}
	layers := pick(in.Manifest.Layers, func(l v1.Descriptor) bool { return l.MediaType == kyvernoPolicy })
	if len(layers) == 0 {
		return nil, invalid("the Kyverno artifact has no policy: no layer has the type %s", kyvernoPolicy)
	}
	return publishObjects(ctx, in, layers, kyvernoObjects(), readPolicy)
}

// readKyvernoBundle publishes the tree of a bundle, all of whose objects are policies.
func readKyvernoBundle(ctx context.Context, in input) (*Content, error) {
	if layers := in.Manifest.Layers; len(layers) != 1 || layers[0].MediaType != kyvernoContent {
		return nil, invalid("the Kyverno bundle has the layers [%s]; expected one of the type %s: push it again with kyverno oci push", layerTypes(layers), kyvernoContent)
	}
	return publishTarball(ctx, in, tarball{desc: in.Manifest.Layers[0], check: checkPolicies}, asAsked)
}

// checkPolicies refuses a tree of which kustomize would make anything but policies:
// other objects, and files that it takes for instructions.
func checkPolicies(ctx context.Context, l *layer, t *tree) error {
	all := kyvernoObjects()
	return l.walk(ctx, &amount{}, func(e entry, content io.Reader) error {
		if n := t.get(e.path); e.folder || n == nil || n.dropped {
			return nil
		}
		base := path.Base(e.path)
		for _, name := range konfig.RecognizedKustomizationFileNames() {
			if strings.EqualFold(base, name) {
				return invalid("the Kyverno bundle has the file %s, which is no policy but tells kustomize what to build; leave it out with spec.ignore, or publish the folder as files", fault.Quote(e.path))
			}
		}
		if ext := path.Ext(base); ext != ".yaml" && ext != ".yml" {
			return nil
		}
		body, err := readObject(content)
		if err == nil {
			_, err = all.read(body)
		}
		if err != nil {
			return fmt.Errorf("in the file %s: %w", fault.Quote(e.path), err)
		}
		return nil
	})
}

// readPolicy returns the policy in a layer, and the words of its annotations about it.
// Kyverno leaves out what a policy does not say about itself.
func readPolicy(ctx context.Context, a *assembly, desc v1.Descriptor) (body []byte, said object, err error) {
	said = object{apiVersion: desc.Annotations[kyvernoAPIVersion], kind: desc.Annotations[kyvernoKind], name: desc.Annotations[kyvernoName]}
	file, err := a.in.open(ctx, desc)
	if err != nil {
		return nil, said, err
	}
	defer file.Close()
	body, err = readObject(scratchFile(ctx, file))
	return body, said, err
}
