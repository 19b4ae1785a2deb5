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
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"oras.land/oras-go/v2"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// Each format is pushed with the library of its own tool, or by its written
// contract, read, and deployed by kustomize-controller.
func TestEveryFormatIsDeployed(t *testing.T) {
	t.Parallel()
	type spec = v1alpha1.ArtifactRepositorySpec
	for sentence, test := range map[string]struct {
		// push pushes app:1.0.0 and returns its digest.
		push   func(n *tenant, image string) (digest string)
		spec   func(*spec)
		format string
		path   string
		want   func(n *tenant) []object
	}{
		"what flux pushes": {
			format: v1alpha1.FormatFlux, path: "./deploy",
			push: func(n *tenant, image string) string {
				return n.flux(image, publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1"), "README.md": "#"})
			},
		},
		"files that ORAS packs by OCI 1.0": {
			format: v1alpha1.FormatFiles, path: "./deploy",
			push: func(n *tenant, image string) string {
				return n.oras(image, publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1"), "deploy/data.json": "{}"},
					publish.Packing{Version: oras.PackManifestVersion1_0, Parts: []publish.Part{{Title: "deploy/app.yaml"}, {Title: "deploy/data.json", MediaType: "application/json"}}})
			},
		},
		"a folder and a file that ORAS packs by OCI 1.1": {
			format: v1alpha1.FormatFiles, path: "./",
			push: func(n *tenant, image string) string {
				return n.oras(image, publish.Files{"deploy/base/app.yaml": n.yaml(config("app"), "1"), "more.yaml": n.yaml(config("more"), "1")},
					publish.Packing{Parts: []publish.Part{{Title: "deploy"}, {Title: "more.yaml", MediaType: "application/yaml"}}})
			},
			want: func(*tenant) []object { return []object{config("app"), config("more")} },
		},
		"files of somebody's own artifact type, by spec.format": {
			format: v1alpha1.FormatFiles, path: "./",
			push: func(n *tenant, image string) string {
				return n.oras(image, publish.Files{"app.yaml": n.yaml(config("app"), "1")},
					publish.Packing{ArtifactType: "application/vnd.example.deploy", Parts: []publish.Part{{Title: "app.yaml", MediaType: "application/vnd.example.part"}}})
			},
			spec: func(s *spec) { s.Format = v1alpha1.FormatFiles },
		},
		"what tkn pushes": {
			format: v1alpha1.FormatTekton, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.TektonBundle(n.yaml(task("build"), "1"), n.yaml(pipeline("release"), "1")))
			},
			want: func(*tenant) []object { return []object{task("build"), pipeline("release")} },
		},
		"a Tekton bundle of an OCI image with raw layers": {
			format: v1alpha1.FormatTekton, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.RawTektonBundle(n.yaml(task("build"), "1")))
			},
			spec: func(s *spec) { s.Format = v1alpha1.FormatTekton },
			want: func(*tenant) []object { return []object{task("build")} },
		},
		"what imgpkg pushes": {
			format: v1alpha1.FormatImgpkg, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.ImgpkgBundle(publish.Files{"config/app.yml": n.yaml(config("app"), "1")}))
			},
		},
		"what Kyverno pushes": {
			format: v1alpha1.FormatKyverno, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.KyvernoPolicies(n.yaml(policy("labels"), "1"), n.yaml(n.clusterPolicy(), "1")))
			},
			want: func(n *tenant) []object { return []object{policy("labels"), n.clusterPolicy()} },
		},
		"an image of three layers": {
			format: v1alpha1.FormatImage, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.ContainerImage(
					publish.Files{"deploy/app.yaml": n.yaml(config("app"), "0"), "deploy/old.yaml": "kind: Nothing\n"},
					publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1"), "deploy/.wh.old.yaml": ""},
					publish.Files{"more/more.yaml": n.yaml(config("more"), "1")}))
			},
			spec: func(s *spec) { s.Format = v1alpha1.FormatImage },
			want: func(*tenant) []object { return []object{config("app"), config("more")} },
		},
		"an image with zstd": {
			format: v1alpha1.FormatImage, path: "./deploy",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.CompressedImage(publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1")}))
			},
			spec: func(s *spec) { s.Format = v1alpha1.FormatImage },
		},
		"the platform of an index that the spec names": {
			format: v1alpha1.FormatFlux, path: "./",
			push: func(n *tenant, image string) string {
				return n.pushIndex(image, types.OCIImageIndex,
					publish.Child{Image: n.fluxFor(publish.Files{"app.yaml": n.yaml(config("app"), "amd64")}), Platform: "linux/amd64"},
					publish.Child{Image: n.fluxFor(publish.Files{"app.yaml": n.yaml(config("app"), "1")}), Platform: "linux/arm64"})
			},
			spec: func(s *spec) { s.Platform = "linux/arm64" },
		},
		"a Docker manifest list of images with an attestation": {
			format: v1alpha1.FormatImage, path: "./",
			push: func(n *tenant, image string) string {
				deploy, err := publish.ContainerImage(publish.Files{"app.yaml": n.yaml(config("app"), "1")})
				n.Expect(err).NotTo(HaveOccurred())
				attestation, err := publish.Attestation(deploy)
				n.Expect(err).NotTo(HaveOccurred())
				return n.pushIndex(image, types.DockerManifestList, attestation, publish.Child{Image: deploy, Platform: "linux/amd64"})
			},
			spec: func(s *spec) { s.Format = v1alpha1.FormatImage },
		},
		"a layer that is extracted": {
			format: v1alpha1.FormatLayer, path: "./deploy",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.LayeredArtifact(ownConfig, static.NewLayer([]byte("notes"), "text/plain"), n.gzipped(publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1")})))
			},
			spec: func(s *spec) {
				s.LayerSelector = &sourcev1.OCILayerSelector{MediaType: string(ownContent), Operation: sourcev1.OCILayerExtract}
			},
		},
		"a layer with zstd that is extracted": {
			format: v1alpha1.FormatLayer, path: "./deploy",
			push: func(n *tenant, image string) string {
				layer, err := publish.Zstandard(publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1")})
				n.Expect(err).NotTo(HaveOccurred())
				return n.pushImage(image)(publish.LayeredArtifact(ownConfig, layer))
			},
			spec: func(s *spec) { s.LayerSelector = &sourcev1.OCILayerSelector{MediaType: string(types.OCILayerZStd)} },
		},
		"a layer that is copied": {
			format: v1alpha1.FormatLayer, path: "./deploy",
			push: func(n *tenant, image string) string {
				return n.pushImage(image)(publish.LayeredArtifact(ownConfig, n.gzipped(publish.Files{"deploy/app.yaml": n.yaml(config("app"), "1")})))
			},
			spec: func(s *spec) {
				s.LayerSelector = &sourcev1.OCILayerSelector{MediaType: string(ownContent), Operation: sourcev1.OCILayerCopy}
			},
		},
		"a chart that is extracted": {
			format: v1alpha1.FormatHelm, path: "./app/crds",
			push: func(n *tenant, _ string) string {
				return n.helm(publish.Chart{Name: "app", Version: "1.0.0", Provenance: "signed",
					Files: publish.Files{"crds/app.yaml": n.yaml(config("app"), "1"), "templates/no.yaml": "{{ fail \"rendered\" }}"}})
			},
			spec: func(s *spec) { s.LayerSelector = &sourcev1.OCILayerSelector{Operation: sourcev1.OCILayerExtract} },
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			n := withKinds(t)
			digest := test.push(n, "app:1.0.0")
			n.images("app", func(s *spec) {
				s.Tag = "1.0.0"
				if test.spec != nil {
					test.spec(s)
				}
			})
			n.kustomize(test.path)
			artifact := n.readAs("app", test.format, digest)
			n.applied(artifact)
			want := []object{config("app")}
			if test.want != nil {
				want = test.want(n)
			}
			n.inCluster("1", want...)
		})
	}
}

// An annotated policy picks by tag alone: each version may be another format.
func TestAPolicyMayPickAnyFormat(t *testing.T) {
	t.Parallel()
	n := withKinds(t)
	app := config("app")
	files := func(version string) publish.Files { return publish.Files{"app.yaml": n.yaml(app, version)} }
	steps := []struct {
		tag, format string
		push        func(image, version string) (digest string)
		want        object
	}{
		{"1.0.0", v1alpha1.FormatFlux, func(image, version string) string {
			return n.flux(image, files(version))
		}, app},
		{"1.1.0", v1alpha1.FormatFiles, func(image, version string) string {
			return n.oras(image, files(version), publish.Packing{Parts: []publish.Part{{Title: "app.yaml"}}})
		}, app},
		{"1.2.0", v1alpha1.FormatTekton, func(image, version string) string {
			return n.pushImage(image)(publish.TektonBundle(n.yaml(task("app"), version)))
		}, task("app")},
		{"1.3.0", v1alpha1.FormatImgpkg, func(image, version string) string {
			return n.pushImage(image)(publish.ImgpkgBundle(files(version)))
		}, app},
		{"1.4.0", v1alpha1.FormatKyverno, func(image, version string) string {
			return n.pushImage(image)(publish.KyvernoPolicies(n.yaml(policy("app"), version)))
		}, policy("app")},
		{"1.5.0", v1alpha1.FormatFlux, func(image, version string) string {
			container, err := publish.ContainerImage(publish.Files{"usr/bin/app": "a program"})
			n.Expect(err).NotTo(HaveOccurred())
			return n.pushIndex(image, types.OCIImageIndex, publish.Child{Image: container, Platform: "linux/amd64"}, publish.Child{Image: n.fluxFor(files(version))})
		}, app},
	}
	var before object
	for i, step := range steps {
		digest := step.push("app:"+step.tag, step.tag)
		if i == 0 {
			n.scan("app")
			n.kustomize("./")
		}
		artifact := n.readAs("app", step.format, digest)
		n.Expect(artifact.Revision).To(Equal(step.tag + "@" + digest))
		n.applied(artifact)
		n.inCluster(step.tag, step.want)
		if before != (object{}) && before != step.want {
			n.pruned(before)
		}
		before = step.want
	}
	var formats []string
	for _, publication := range get(n, "app", &v1alpha1.ArtifactRepository{}).Status.History {
		formats = append([]string{publication.Format}, formats...)
	}
	n.Expect(formats).To(Equal([]string{"Flux", "Files", "Tekton", "Imgpkg", "Kyverno", "Flux"}))
}

// A change of what decides how a digest becomes content is another revision of
// the same digest, and consumers see it without waiting for an interval.
func TestSettingsOfTheContentRollOutAtOnce(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	first, second := config("first"), config("second")
	digest := n.flux("app:1.0.0", publish.Files{"a.yaml": n.yaml(first, "1"), "b.yaml": n.yaml(second, "1")})
	const seldomLooked = time.Hour
	n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) {
		s.Tag, s.Interval = "1.0.0", &metav1.Duration{Duration: seldomLooked}
	})
	n.kustomize("./")
	plain := n.readAs("app", v1alpha1.FormatFlux, digest)
	n.Expect(plain.Revision).To(Equal("1.0.0@" + digest))
	n.applied(plain)
	n.inCluster("1", first, second)

	seen := map[string]bool{plain.Revision: true}
	ignore, none := "b.yaml", "/nothing"
	for _, step := range []struct {
		setting string
		edit    func(*v1alpha1.ArtifactRepositorySpec)
		pruned  bool
	}{
		{"ignore", func(s *v1alpha1.ArtifactRepositorySpec) { s.Ignore = &ignore }, true},
		{"format", func(s *v1alpha1.ArtifactRepositorySpec) { s.Ignore, s.Format = nil, v1alpha1.FormatFlux }, false},
		{"layerSelector", func(s *v1alpha1.ArtifactRepositorySpec) {
			s.Format, s.LayerSelector = "", &sourcev1.OCILayerSelector{MediaType: string(publish.FluxContent), Operation: sourcev1.OCILayerExtract}
		}, false},
		{"ignore beside layerSelector", func(s *v1alpha1.ArtifactRepositorySpec) { s.Ignore = &ignore }, true},
		{"another ignore", func(s *v1alpha1.ArtifactRepositorySpec) { s.Ignore = &none }, false},
	} {
		change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { step.edit(&obj.Spec) })
		artifact := n.readAs("app", v1alpha1.FormatFlux, digest)
		n.Expect(artifact.Revision).To(MatchRegexp(`^1\.0\.0\+[0-9a-f]{8}@%s$`, digest), step.setting)
		n.Expect(seen).NotTo(HaveKey(artifact.Revision), step.setting)
		seen[artifact.Revision] = true
		n.applied(artifact)
		n.inCluster("1", first)
		if step.pruned {
			n.pruned(second)
		} else {
			n.inCluster("1", second)
		}
	}
	change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Ignore, obj.Spec.LayerSelector = nil, nil
	})
	n.applied(n.readAs("app", v1alpha1.FormatFlux, "1.0.0@"+digest))
	n.Expect(get(n, "app", &v1alpha1.ArtifactRepository{}).Status.Artifact.Digest).To(Equal(plain.Digest), "the same settings give the same bytes")
}

// The platform is part of the revision as well.
func TestAnotherPlatformRollsOutAtOnce(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	app := config("app")
	var children []publish.Child
	for _, architecture := range []string{"amd64", "arm64"} {
		children = append(children, publish.Child{Image: n.fluxFor(publish.Files{"app.yaml": n.yaml(app, architecture)}), Platform: "linux/" + architecture})
	}
	digest := n.pushIndex("app:1.0.0", types.OCIImageIndex, children...)
	n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) {
		s.Tag, s.Interval = "1.0.0", &metav1.Duration{Duration: time.Hour}
	})
	n.kustomize("./")
	n.applied(n.readAs("app", v1alpha1.FormatFlux, "1.0.0@"+digest))
	n.inCluster("amd64", app)

	platform := func(platform string) {
		change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Platform = platform })
	}
	platform("linux/arm64")
	artifact := n.readAs("app", v1alpha1.FormatFlux, digest)
	n.Expect(artifact.Revision).To(MatchRegexp(`^1\.0\.0\+[0-9a-f]{8}@%s$`, digest))
	n.applied(artifact)
	n.inCluster("arm64", app)

	platform("linux/s390x")
	message := n.refused()
	for _, words := range []string{"linux/s390x", "linux/amd64", "linux/arm64", shortRevision(artifact.Revision)} {
		n.Expect(message).To(ContainSubstring(words))
	}
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(artifact))
	platform("")
	n.applied(n.readAs("app", v1alpha1.FormatFlux, "1.0.0@"+digest))
	n.inCluster("amd64", app)
}

// A pinned format keeps a source what it is, whatever is pushed under its tag.
func TestAPinnedFormat(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	digest := n.flux("app:stable", publish.Files{"app.yaml": n.yaml(config("app"), "1")})
	n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) { s.Tag, s.Format = "stable", v1alpha1.FormatHelm })
	message := n.refused()
	for _, words := range []string{"spec.format is Helm", "a Flux artifact", "set spec.format to Auto or Flux", n.ref("app")} {
		n.Expect(message).To(ContainSubstring(words))
	}
	n.unpublished("app")

	change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Format = v1alpha1.FormatFlux })
	n.kustomize("./")
	good := n.readAs("app", v1alpha1.FormatFlux, digest)
	n.applied(good)
	n.inCluster("1", config("app"))

	other := n.pushImage("app:stable")(publish.ImgpkgBundle(publish.Files{"app.yaml": n.yaml(config("app"), "2")}))
	message = n.refused()
	for _, words := range []string{"spec.format is Flux", "an imgpkg bundle", "set spec.format to Auto or Imgpkg", other, shortRevision(good.Revision)} {
		n.Expect(message).To(ContainSubstring(words))
	}
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(good))
	n.inCluster("1", config("app"))

	change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Format = v1alpha1.FormatAuto })
	n.applied(n.readAs("app", v1alpha1.FormatImgpkg, "stable@"+other))
	n.inCluster("2", config("app"))
}

// What is no configuration for Kubernetes is refused with its name and a way out.
func TestRefusedFormats(t *testing.T) {
	t.Parallel()
	crossplane := func(n *tenant) (v1.Image, error) {
		image, err := publish.ContainerImage(publish.Files{"package.yaml": "apiVersion: meta.pkg.crossplane.io/v1\nkind: Provider\n"})
		n.Expect(err).NotTo(HaveOccurred())
		return labelled(image, "io.crossplane.xpkg:sha256:0")
	}
	for sentence, test := range map[string]struct {
		artifact func(n *tenant) (v1.Image, error)
		says     []string
	}{
		"a signature of cosign": {
			func(*tenant) (v1.Image, error) {
				return publish.LayeredArtifact(types.OCIConfigJSON, static.NewLayer([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json"))
			}, []string{"a signature, attestation or SBOM", "exclusionList"},
		},
		"a Crossplane package": {crossplane, []string{"a Crossplane package", "Crossplane's package manager", "Provider, Configuration or Function"}},
		"policies of conftest": {
			func(*tenant) (v1.Image, error) {
				return publish.LayeredArtifact("application/vnd.unknown.config.v1+json", static.NewLayer([]byte("package main"), "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego"))
			}, []string{"a conftest policy bundle", "Rego policies are no Kubernetes objects"},
		},
		"an image without spec.format": {
			func(*tenant) (v1.Image, error) {
				return publish.ContainerImage(publish.Files{"usr/bin/app": "a program"})
			},
			[]string{"a container image", "where spec.format is Image"},
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			digest := n.pushImage("app:1.0.0")(test.artifact(n))
			n.images("app", func(s *v1alpha1.ArtifactRepositorySpec) { s.Tag = "1.0.0" })
			message := n.refused()
			supported := "supported: Flux, Helm, Kyverno, Tekton, Imgpkg, Image, Files"
			for _, words := range append(test.says, "unsupported artifact "+n.ref("app"), digest, supported) {
				n.Expect(message).To(ContainSubstring(words))
			}
			n.unpublished("app")
			n.Expect(n.stored("app")).To(BeEmpty())
			n.Expect(n.event(v1alpha1.ArtifactRepositoryKind, "Warning", v1alpha1.ReasonUnsupportedMediaType).Message).To(ContainSubstring(test.says[0]))
		})
	}
}
