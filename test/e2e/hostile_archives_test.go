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
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// honest is a file that makes an archive look like any other.
var honest = entry{name: "deploy/app.yaml", content: "kind: ConfigMap\n"}

func archived(entries ...entry) func() ([]byte, error) {
	return func() ([]byte, error) { return layerOf(append([]entry{honest}, entries...)...) }
}

// bomb is an archive of one file of 2 GiB, in 2 MiB.
func bomb() ([]byte, error) {
	const part, parts = 64 << 20, 32
	var header, zeros, out bytes.Buffer
	archive := tar.NewWriter(&header)
	if err := archive.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Mode: 0o600, Size: part * parts}); err != nil {
		return nil, err
	}
	for target, content := range map[*bytes.Buffer][]byte{&out: header.Bytes(), &zeros: make([]byte, part)} {
		compressor := gzip.NewWriter(target)
		if _, err := compressor.Write(content); err != nil {
			return nil, err
		}
		if err := compressor.Close(); err != nil {
			return nil, err
		}
	}
	for range parts {
		out.Write(zeros.Bytes())
	}
	return out.Bytes(), nil
}

// many is an archive of more entries than are allowed.
func many() ([]byte, error) {
	entries := make([]entry, 2000)
	for i := range entries {
		entries[i] = entry{name: fmt.Sprint("file-", i)}
	}
	return layerOf(entries...)
}

// trailed is a layer with something behind its end.
func trailed(trail string) func() ([]byte, error) {
	return func() ([]byte, error) {
		layer, err := layerOf(honest)
		return append(layer, trail...), err
	}
}

// A hostile archive is refused with the reason that its kind of evil has, or
// published without the evil; it leaves nothing on the disk, and what was
// published before stays.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	const shard = "hostile"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, shard, append(quickAPI,
		"--max-uncompressed-bytes=67108864", "--max-entries=1000", "--max-artifact-bytes=16777216")...)
	refused := map[string]struct {
		layer           func() ([]byte, error)
		reason, message string
	}{
		"traversal":       {archived(entry{name: "../evil"}), v1alpha1.ReasonInvalidArtifact, "../evil"},
		"deep-traversal":  {archived(entry{name: "a/../../evil"}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"absolute":        {archived(entry{name: "/etc/evil"}), v1alpha1.ReasonInvalidArtifact, "/etc/evil"},
		"windows":         {archived(entry{name: `C:\evil`}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"control":         {archived(entry{name: "evil\x1b[31m"}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"hard-link":       {archived(entry{name: "evil", link: honest.name, kind: tar.TypeLink}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"device":          {archived(entry{name: "evil", kind: tar.TypeChar}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"pipe":            {archived(entry{name: "evil", kind: tar.TypeFifo}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"duplicate":       {archived(honest), v1alpha1.ReasonInvalidArtifact, honest.name},
		"dotted":          {archived(entry{name: "./" + honest.name}), v1alpha1.ReasonInvalidArtifact, honest.name},
		"case":            {archived(entry{name: strings.ToUpper(honest.name)}), v1alpha1.ReasonInvalidArtifact, "case"},
		"file-and-folder": {archived(entry{name: "evil"}, entry{name: "evil/file"}), v1alpha1.ReasonInvalidArtifact, "evil"},
		"trailing-bytes":  {trailed("evil"), v1alpha1.ReasonInvalidArtifact, "gzip"},
		"not-gzip":        {func() ([]byte, error) { return []byte("evil, and no archive at all"), nil }, v1alpha1.ReasonInvalidArtifact, "gzip"},
		"nothing":         {func() ([]byte, error) { return layerOf() }, v1alpha1.ReasonInvalidArtifact, "no files"},
		"bomb":            {bomb, v1alpha1.ReasonLimitExceeded, "67108864"},
		"many":            {many, v1alpha1.ReasonLimitExceeded, "1000"},
		"large":           {archived(entry{name: "large", content: noise(chance(t), 17<<20)}), v1alpha1.ReasonLimitExceeded, "--max-artifact-bytes"},
	}
	cleaned := map[string]func() ([]byte, error){
		"absolute-symlink": archived(entry{name: "evil", link: "/etc/passwd"}),
		"escaping-symlink": archived(entry{name: "evil", link: "../../../evil"}),
		"through-symlink":  archived(entry{name: "evil", link: "deploy"}, entry{name: "deploy/more.yaml"}),
		"setuid":           archived(entry{name: "deploy/tool", mode: 0o4755}),
	}
	push := func(name, version string, layer func() ([]byte, error)) {
		bytes, err := layer()
		n.Expect(err).NotTo(HaveOccurred())
		image, err := publish.FluxImage(static.NewLayer(bytes, publish.FluxContent))
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(publish.Registry{Host: env.Registry().Host()}.Push(t.Context(), n.image(name)+":"+version, image)).To(Succeed())
	}
	before := map[string]*meta.Artifact{}
	for name := range refused {
		before[name] = nil
	}
	for name := range cleaned {
		before[name] = nil
	}
	for name := range before {
		n.push(name, "1.0.0", configMap(n.namespace, name))
		n.scan(name, inShard(shard))
	}
	for name := range before {
		before[name] = n.published(name, "1.0.0")
	}

	for name, test := range refused {
		push(name, "1.1.0", test.layer)
	}
	for name, layer := range cleaned {
		push(name, "1.1.0", layer)
	}
	for name, test := range refused {
		ready := n.stays(name, before[name], test.reason, "")
		n.Expect(ready.Message).To(ContainSubstring(test.message), name)
		n.Expect(ready.Message).NotTo(ContainSubstring("\x1b"), name)
	}
	for name := range cleaned {
		dir := n.fetch(n.published(name, "1.1.0"))
		n.Expect(filepath.Join(dir, honest.name)).To(BeARegularFile())
		n.Expect(filepath.Join(dir, "evil")).NotTo(BeAnExistingFile(), name)
	}
	n.tidy(controller.StorageDir)
	err := filepath.WalkDir(filepath.Dir(controller.StorageDir), func(path string, _ fs.DirEntry, err error) error {
		n.Expect(filepath.Base(path)).NotTo(HavePrefix("evil"), "something got out: %s", path)
		return err
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect("/etc/evil").NotTo(BeAnExistingFile())
}
