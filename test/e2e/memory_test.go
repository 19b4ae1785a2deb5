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
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/stream"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// TestMemoryDoesNotGrowWithTheSizeOfAnArtifact publishes 500 MiB, once as they
// are and once archived again because of a link that is left out, and looks at
// the most memory that the controller ever had.
func TestMemoryDoesNotGrowWithTheSizeOfAnArtifact(t *testing.T) {
	t.Parallel()
	const (
		files    = 10
		fileSize = 50 << 20
		allowed  = 128 << 20
		timeout  = 5 * time.Minute
	)
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, "memory")
	idle := memory(n, controller.PID(), "VmRSS")
	registry := publish.Registry{Host: env.Registry().Host()}
	for name, link := range map[string]bool{"clean": false, "linked": true} {
		layer := stream.NewLayer(largeTree(files, fileSize, link), stream.WithMediaType(publish.FluxContent), stream.WithCompressionLevel(gzip.NoCompression))
		artifact, err := publish.FluxImage(v1.Layer(layer))
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(registry.Push(n.Context(), n.image(name)+":1.0.0", artifact)).To(Succeed())
		n.apply(fmt.Sprintf(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: %s
  labels: {%s: memory}
spec: {image: %s, tag: "1.0.0", insecure: true, timeout: %s}
`, name, shardLabel, n.ref(name), timeout))
		n.Eventually(func(g Gomega) {
			g.Expect(get(n, name, &v1alpha1.ArtifactRepository{}).Status.Artifact).NotTo(BeNil(), "500 MiB are on their way")
		}, timeout, poll).Should(Succeed())
		published := n.published(name, "1.0.0")
		n.Expect(*published.Size).To(BeNumerically(">", files*fileSize))
	}
	n.Expect(memory(n, controller.PID(), "VmHWM")-idle).To(BeNumerically("<", allowed), "bytes above the %d of an idle controller", idle)
}

// largeTree is the tar of files that no compression shrinks.
func largeTree(files int, size int64, link bool) io.ReadCloser {
	reader, writer := io.Pipe()
	go func() {
		archive := tar.NewWriter(writer)
		noise := rand.NewChaCha8([32]byte{})
		for i := range files {
			header := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("file-%d.bin", i), Mode: 0o600, Size: size}
			if err := archive.WriteHeader(header); err != nil {
				writer.CloseWithError(err)
				return
			}
			if _, err := io.CopyN(archive, noise, size); err != nil {
				writer.CloseWithError(err)
				return
			}
		}
		if link {
			if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "link", Linkname: "file-0.bin"}); err != nil {
				writer.CloseWithError(err)
				return
			}
		}
		writer.CloseWithError(archive.Close())
	}()
	return reader
}

// memory reads a figure of a process in bytes: VmRSS is what it has, VmHWM the
// most that it ever had (proc(5)).
func memory(n *tenant, pid int, figure string) int64 {
	n.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	n.Expect(err).NotTo(HaveOccurred())
	match := regexp.MustCompile(figure + `:\s+(\d+) kB`).FindSubmatch(status)
	n.Expect(match).NotTo(BeNil(), "no %s in %s", figure, status)
	kilobytes, err := strconv.ParseInt(string(match[1]), 10, 64)
	n.Expect(err).NotTo(HaveOccurred())
	return kilobytes << 10
}
