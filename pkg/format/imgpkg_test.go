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

package format_test

import (
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	emptyimage "github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	imgpkgLabel = `{"dev.carvel.imgpkg.bundle":"true"}`
	imagesLock  = "---\napiVersion: imgpkg.carvel.dev/v1alpha1\nkind: ImagesLock\nimages:\n- image: registry.example/app@sha256:0000000000000000000000000000000000000000000000000000000000000000\n"
)

// lock is the lock file of an imgpkg bundle.
func lock() file { return file{name: ".imgpkg/images.yml", body: imagesLock, mode: 0o600} }

func TestAnImgpkgBundleIsPublishedWithoutItsLock(t *testing.T) {
	tree := []file{
		{name: ".imgpkg", mode: 0o700, Header: folder("").Header}, lock(), {name: ".imgpkg/bundle.yml", body: "kind: Bundle\n"},
		{name: "config", mode: 0o700, Header: folder("").Header}, {name: "config/app.yml", body: "kind: Service\n", mode: 0o600}, {name: "run.sh", mode: 0o700},
		{name: "config/.imgpkg/x", body: "not at the root"}, {name: "a.png", body: "kept"}, link("l", "config"),
	}
	for name, made := range map[string]struct {
		oci   bool
		layer []byte
		of    types.MediaType
	}{
		"as imgpkg pushes it": {false, layerOf(t, tree...), types.DockerLayer},
		"as an OCI image":     {true, layerOf(t, tree...), types.OCILayer},
		"with zstd":           {true, zstandard(t, archive(t, tree...)), types.OCILayerZStd},
		"not compressed":      {true, archive(t, tree...), types.OCIUncompressedLayer},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			base := emptyimage.Image
			if made.oci {
				base = mutate.ConfigMediaType(mutate.MediaType(base, types.OCIManifestSchema1), types.OCIConfigJSON)
			}
			img, err := mutate.Config(base, v1.Config{Labels: map[string]string{"dev.carvel.imgpkg.bundle": "true"}})
			g.Expect(err).NotTo(HaveOccurred())
			img, err = mutate.AppendLayers(img, static.NewLayer(made.layer, made.of))
			g.Expect(err).NotTo(HaveOccurred())
			m, b := pushed(t, img)
			for _, pinned := range []string{"", v1alpha1.FormatImgpkg} {
				content, err := format.Convert(t.Context(), m, b, format.Options{Format: pinned}, t.TempDir())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(content.Format).To(Equal(v1alpha1.FormatImgpkg))
				g.Expect(content.SkippedLinks).To(Equal(1))
				g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{
					"config": "folder", "config/app.yml": "kind: Service\n", "run.sh": "", "a.png": "kept",
					"config/.imgpkg": "folder", "config/.imgpkg/x": "not at the root",
				}))
			}
		})
	}
}

// TestAnImgpkgBundleOfSeveralFolders is what imgpkg push -b -f config -f lock
// writes: it archives one folder after the other, each with its root.
func TestAnImgpkgBundleOfSeveralFolders(t *testing.T) {
	g := NewWithT(t)
	root, own := file{name: ".", mode: 0o700, Header: folder("").Header}, file{name: ".imgpkg", mode: 0o700, Header: folder("").Header}
	b := blobs(t.TempDir())
	layer := b.put(t, types.DockerLayer, layerOf(t, root, good, folder("apps"), file{name: "apps/a.yml", body: "a"}, own, root, own, lock(), folder("apps"), file{name: "apps/b.yml", body: "b"}))
	content, err := format.Convert(t.Context(), ofLabelled(t, b, imgpkgLabel, layer), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"deploy.yaml": good.body, "apps": "folder", "apps/a.yml": "a", "apps/b.yml": "b"}))
}

func TestImgpkgBundlesThatAreNoneAreRefused(t *testing.T) {
	b := blobs(t.TempDir())
	of := func(files ...file) []v1.Descriptor {
		return []v1.Descriptor{b.put(t, types.DockerLayer, layerOf(t, files...))}
	}
	locked := func(body string) []v1.Descriptor { return of(good, file{name: ".imgpkg/images.yml", body: body}) }
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		reason string
		words  string
	}{
		"two layers":                   {append(of(good, lock()), of(good)...), invalid, "2 layers; imgpkg writes and reads exactly one"},
		"no lock":                      {of(good, file{name: "images.yml", body: imagesLock}), invalid, "has no file .imgpkg/images.yml"},
		"a lock that is a folder":      {of(good, folder(".imgpkg/images.yml")), invalid, "has no file .imgpkg/images.yml"},
		"a lock that is a link":        {of(good, link(".imgpkg/images.yml", "../deploy.yaml")), invalid, "has no file .imgpkg/images.yml"},
		"a lock of another kind":       {locked("apiVersion: imgpkg.carvel.dev/v1alpha1\nkind: Bundle\n"), invalid, `is a "imgpkg.carvel.dev/v1alpha1" "Bundle"; expected imgpkg.carvel.dev/v1alpha1 ImagesLock`},
		"a lock of another version":    {locked("apiVersion: imgpkg.carvel.dev/v2\nkind: ImagesLock\n"), invalid, `"imgpkg.carvel.dev/v2"`},
		"a lock that is empty":         {locked(""), invalid, "an empty YAML document"},
		"a lock that is no YAML":       {locked("{"), invalid, "not YAML"},
		"a lock with a directive":      {locked("%TAG !a! b\n---\n" + imagesLock), invalid, "has a %TAG directive"},
		"a lock of 2 MiB":              {locked("#" + string(make([]byte, 2<<20))), exceeded, "1048576 bytes"},
		"two locks":                    {of(good, lock(), lock()), invalid, "two files of one name"},
		"nothing but a lock":           {of(lock()), invalid, "has no files"},
		"a hard link":                  {of(good, lock(), hardLink("l", "deploy.yaml")), invalid, `a hard link: "l"`},
		"names that differ in case":    {of(lock(), file{name: "A"}, file{name: "a"}), invalid, "differ in case only"},
		"a layer of another kind only": {[]v1.Descriptor{{MediaType: types.DockerLayer, Digest: v1.Hash{Algorithm: "sha256"}, Size: 1 << 40}}, exceeded, "--max-artifact-bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), ofLabelled(t, b, imgpkgLabel, tc.layers...), b, format.Options{}, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func TestAnImgpkgBundleIsNoPlainImage(t *testing.T) {
	b := blobs(t.TempDir())
	_, err := format.Convert(t.Context(), ofLabelled(t, b, imgpkgLabel, b.put(t, types.DockerLayer, layerOf(t, good, lock()))), b, format.Options{Format: v1alpha1.FormatImage}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "is an imgpkg bundle", "Auto or Imgpkg")
	_, err = format.Convert(t.Context(), ofImage(t, b, b.put(t, types.DockerLayer, layerOf(t, good, lock()))), b, format.Options{Format: v1alpha1.FormatImgpkg}, t.TempDir())
	expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "is a container image", "set spec.format to Image")
}

func TestHostileLayersOfAnImgpkgBundleAreRefused(t *testing.T) {
	// What would be sound elsewhere lacks the lock.
	sound := []string{"an empty tar", "an empty gzip", "only folders", "only links", "only ignored files"}
	for name, h := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			b := blobs(t.TempDir())
			m := ofLabelled(t, b, imgpkgLabel, b.put(t, types.DockerLayer, h.layer))
			_, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
			if slices.Contains(sound, name) {
				h.words = "has no file .imgpkg/images.yml"
			}
			expectFault(t, err, h.reason, fault.Stall, h.words)
		})
	}
}
