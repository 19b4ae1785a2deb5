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

package e2e

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// timoniModule returns what timoni mod push makes, without its content.
func timoniModule() v1.Image {
	module := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	module = mutate.ConfigMediaType(module, "application/vnd.timoni.config.v1+json")
	return with(module, static.NewLayer([]byte("a module"), "application/vnd.timoni.content.v1.tar+gzip"))
}

// unknownArtifact returns an artifact of types that nobody knows.
func unknownArtifact() v1.Image {
	artifact := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	artifact = mutate.ConfigMediaType(artifact, "application/vnd.example.config.v1+json")
	return with(artifact,
		static.NewLayer([]byte("1"), "application/vnd.example.one"),
		static.NewLayer([]byte("2"), "application/vnd.example.two"),
		static.NewLayer([]byte("3"), "application/vnd.example.two"))
}

func with(image v1.Image, layers ...v1.Layer) v1.Image {
	for _, layer := range layers {
		next, err := mutate.Append(image, mutate.Addendum{Layer: layer})
		if err != nil {
			panic(err) // a layer in memory cannot fail
		}
		image = next
	}
	return image
}

func containerImage() v1.Image {
	image, err := random.Image(1024, 2)
	if err != nil {
		panic(err) // an image in memory cannot fail
	}
	return image
}

func TestUnsupportedArtifactsLeaveTheLastGoodOne(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		artifact v1.Image
		says     []string
	}{
		"a Timoni module":   {timoniModule(), []string{"Timoni", "timoni build", "supported: Flux"}},
		"a container image": {containerImage(), []string{"container image", "spec.format", "supported: Flux"}},
		"an unknown artifact": {unknownArtifact(), []string{
			"unsupported artifact", `manifest "application/vnd.oci.image.manifest.v1+json"`, `artifactType ""`,
			`config "application/vnd.example.config.v1+json"`,
			`layers [1x "application/vnd.example.one", 2x "application/vnd.example.two"]`, "supported: Flux",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			good := n.published("app", n.pushAndScan("app", "1.0.0"))
			registry := publish.Registry{Host: env.Registry().Host()}
			n.Expect(registry.Push(n.Context(), n.image("app")+":1.1.0", test.artifact)).To(Succeed())
			digest, err := test.artifact.Digest()
			n.Expect(err).NotTo(HaveOccurred())

			obj, ready := n.notReady("app", v1alpha1.ReasonUnsupportedMediaType)
			for _, words := range append(test.says, n.ref("app"), digest.String(), shortRevision(good.Revision)) {
				n.Expect(ready.Message).To(ContainSubstring(words))
			}
			n.Expect(conditions.IsStalled(obj)).To(BeTrue())
			n.Expect(obj.Status.Artifact).To(Equal(good))
			external := get(n, "app", &sourcev1.ExternalArtifact{})
			n.Expect(external.Status.Artifact).To(Equal(good))
			n.eventually(func(g Gomega) {
				external := get(n, "app", &sourcev1.ExternalArtifact{})
				g.Expect(conditions.GetReason(external, meta.ReadyCondition)).To(Equal(v1alpha1.ReasonUnsupportedMediaType))
			})
			n.fetch(good)

			n.push("app", "1.2.0", configMap("app", "1.2.0"))
			n.published("app", "1.2.0")
			n.Expect(conditions.IsStalled(get(n, "app", &v1alpha1.ArtifactRepository{}))).To(BeFalse())
		})
	}
}
