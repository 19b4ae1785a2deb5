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
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	fluxtar "github.com/fluxcd/pkg/tar"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// file is one file of a tree that is too large to be kept in memory.
type file struct {
	name string
	size int64
}

// content returns the bytes of a file, which no compression makes smaller and
// which are the same each time.
func (f file) content() io.Reader {
	seed := sha256.Sum256([]byte(f.name))
	return io.LimitReader(rand.NewChaCha8(seed), f.size)
}

// layer streams files into a layer as flux push artifact makes it.
func (n *tenant) layer(files []file) v1.Layer {
	n.Helper()
	path := filepath.Join(n.TempDir(), "layer.tar.gz")
	out, err := os.Create(path)
	n.Expect(err).NotTo(HaveOccurred())
	compressor := gzip.NewWriter(out)
	archive := tar.NewWriter(compressor)
	for _, f := range files {
		n.Expect(archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o600, Size: f.size})).To(Succeed())
		_, err := io.Copy(archive, f.content())
		n.Expect(err).NotTo(HaveOccurred())
	}
	for _, closer := range []io.Closer{archive, compressor, out} {
		n.Expect(closer.Close()).To(Succeed())
	}
	layer, err := tarball.LayerFromFile(path, tarball.WithMediaType(publish.FluxContent))
	n.Expect(err).NotTo(HaveOccurred())
	return layer
}

// fetch downloads an artifact as kustomize-controller does, checks that its
// bytes are what its digest and size promise, and unpacks it.
func (n *tenant) fetch(artifact *meta.Artifact) (dir string) {
	n.Helper()
	request, err := http.NewRequestWithContext(n.Context(), http.MethodGet, artifact.URL, nil)
	n.Expect(err).NotTo(HaveOccurred())
	answer, err := http.DefaultClient.Do(request)
	n.Expect(err).NotTo(HaveOccurred())
	defer answer.Body.Close()
	n.Expect(answer.StatusCode).To(Equal(http.StatusOK), artifact.URL)

	digest := sha256.New()
	dir = n.TempDir()
	body := io.TeeReader(answer.Body, digest)
	n.Expect(fluxtar.Untar(body, dir, fluxtar.WithMaxUntarSize(fluxtar.UnlimitedUntarSize), fluxtar.WithSkipSymlinks())).To(Succeed())
	_, err = io.Copy(io.Discard, body)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect("sha256:" + hex.EncodeToString(digest.Sum(nil))).To(Equal(artifact.Digest))
	n.Expect(*artifact.Size).To(Equal(answer.ContentLength))
	return dir
}

func TestArtifactsOfAllSizes(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]file{
		"one file":           {{name: "app.yaml", size: 100}},
		"two thousand files": manyFiles(2000, 2<<10),
		"100 MiB that compression does not shrink": manyFiles(4, 25<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			layer := n.layer(files)
			digest, err := layer.Digest()
			n.Expect(err).NotTo(HaveOccurred())
			image, err := publish.FluxImage(layer)
			n.Expect(err).NotTo(HaveOccurred())
			registry := publish.Registry{Host: env.Registry().Host()}
			n.Expect(registry.Push(n.Context(), n.image("app")+":1.0.0", image)).To(Succeed())

			n.scan("app")
			artifact := n.published("app", "1.0.0")
			n.Expect(artifact.Digest).To(Equal(digest.String()), "a clean layer is served as it is")
			dir := n.fetch(artifact)
			n.Expect(countFiles(dir)).To(Equal(len(files)))
			for _, f := range files {
				n.Expect(sameContent(filepath.Join(dir, f.name), f)).To(BeTrue(), f.name)
			}
		})
	}
}

func manyFiles(count int, size int64) (files []file) {
	for i := range count {
		files = append(files, file{name: fmt.Sprintf("deploy/%04d.yaml", i), size: size})
	}
	return files
}

func countFiles(dir string) (count int) {
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			count++
		}
		return err
	})
	return count
}

func sameContent(path string, want file) bool {
	got, err := os.Open(path)
	if err != nil {
		return false
	}
	defer got.Close()
	is, should := sha256.New(), sha256.New()
	_, err = io.Copy(is, got)
	_, other := io.Copy(should, want.content())
	return err == nil && other == nil && bytes.Equal(is.Sum(nil), should.Sum(nil))
}

// What is left out of an artifact is what an OCIRepository would leave out: by
// default, or what a .sourceignore or spec.ignore says in its place.
func TestIgnoredFiles(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	files := publish.Files{"app.yaml": "a", "docs/readme.md": "b", "logo.png": "c", ".git/config": "d", "keep/draft.txt": "e"}
	first := n.push("app", "1.0.0", files)
	n.scan("app")
	n.Expect(tree(n.fetch(n.published("app", first)))).To(ConsistOf("app.yaml", "docs/readme.md", "keep/draft.txt"))

	files["keep/.sourceignore"] = "draft.txt\n"
	revision := n.push("app", "1.1.0", files)
	n.Expect(tree(n.fetch(n.published("app", revision)))).To(ConsistOf("app.yaml", "docs/readme.md", "logo.png", "keep/.sourceignore"))

	change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) {
		ignore := "*.md\n"
		obj.Spec.Ignore = &ignore
	})
	obj := &v1alpha1.ArtifactRepository{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key("app"), obj)).To(Succeed())
		g.Expect(obj.Status.Artifact.Revision).To(MatchRegexp(`^1\.1\.0\+[0-9a-f]{8}@sha256:[0-9a-f]{64}$`),
			"consumers compare revisions, so other settings are another revision")
	})
	changed := n.published("app", obj.Status.Artifact.Revision)
	n.Expect(tree(n.fetch(changed))).To(ConsistOf("app.yaml", "logo.png", "keep/.sourceignore"))

	// The same content, made once more for somebody else, is the same bytes.
	other := named(n, "again", &v1alpha1.ArtifactRepository{})
	other.Spec.ImagePolicyRef = &meta.LocalObjectReference{Name: "app"}
	other.Spec.Ignore = obj.Spec.Ignore
	n.create(other)
	again := n.published("again", changed.Revision)
	n.Expect(again.Digest).To(Equal(changed.Digest))
	n.Expect(again.URL).NotTo(Equal(changed.URL))

	change(n, obj, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = nil })
	n.published("app", revision)
}

func tree(dir string) (names []string) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			names = append(names, filepath.ToSlash(strings.TrimPrefix(path, dir+string(filepath.Separator))))
		}
		return err
	})
	return names
}

// What a consumer sees of an artifact beside its bytes.
func TestArtifactMetadata(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app")
	artifact := n.published("app", revision)
	_, digest, _ := strings.Cut(revision, "@")
	n.Expect(artifact.Metadata).To(And(
		HaveKeyWithValue("org.opencontainers.image.revision", "main@sha1:0123456789abcdef0123456789abcdef01234567"),
		HaveKeyWithValue("org.opencontainers.image.source", "https://github.com/org/app.git"),
		HaveKeyWithValue(v1alpha1.MetadataImage, n.ref("app")),
		HaveKeyWithValue(v1alpha1.MetadataTag, "1.0.0"),
		HaveKeyWithValue(v1alpha1.MetadataDigest, digest),
		HaveKeyWithValue(v1alpha1.MetadataFormat, "Flux"),
		Not(HaveKey(v1alpha1.MetadataVerifiedBy)),
	))
	n.Expect(artifact.Path).To(Equal(fmt.Sprintf("externalartifact/%s/app/%s.tar.gz", n.namespace, strings.TrimPrefix(artifact.Digest, "sha256:"))))
	n.Expect(artifact.URL).To(Equal("http://" + env.controller.Address + "/" + artifact.Path))

	obj := &v1alpha1.ArtifactRepository{}
	n.Expect(env.Client.Get(n.Context(), client.ObjectKey{Namespace: n.namespace, Name: "app"}, obj)).To(Succeed())
	n.Expect(obj.Status.Artifact).To(Equal(artifact), "the record says the same")
	n.Expect(obj.Status.Record.Image).To(Equal(n.ref("app")))
	n.Expect(obj.Status.Record.Digest).To(Equal(digest))
	n.Expect(obj.Status.LatestRef.String()).To(Equal(n.ref("app") + ":1.0.0@" + digest))
}
