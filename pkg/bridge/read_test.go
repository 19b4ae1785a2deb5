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

package bridge_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/publish"
)

func TestReadReturnsTheFileOfBuild(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "notes.md": "x"})
	ignore := "*.md"
	for name, content := range map[string]format.Options{
		"as it is":      {},
		"less than all": {Ignore: &ignore},
	} {
		t.Run(name, func(t *testing.T) {
			r := b.request("app", "team/app:1.0.0", nobody)
			r.Content = content
			scratch := t.TempDir()
			reading, err := readBy(t.Context(), r, scratch)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(b.stored()).To(BeEmpty(), "reading does not store")
			g.Expect(reading.candidate.Digest).To(Equal(manifest))
			g.Expect(reading.candidate.Manifest().Digest).To(Equal(manifest))
			g.Expect(filepath.Dir(reading.Content.Path)).To(Equal(scratch))

			other := newBench(t)
			other.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "notes.md": "x"})
			asked := other.request("app", "team/app:1.0.0", nobody)
			asked.Content = content
			out := other.publish(asked)
			g.Expect(reading.Revision).To(Equal(out.Artifact.Revision))
			g.Expect(reading.Content.Digest.String()).To(Equal(out.Artifact.Digest))
			read, err := os.ReadFile(reading.Content.Path)
			g.Expect(err).NotTo(HaveOccurred())
			published, err := os.ReadFile(other.file(out))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(read).To(Equal(published))
		})
	}
}

func TestAFailedReadReturnsTheKnownPart(t *testing.T) {
	b := newBench(t)
	manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})

	t.Run("of a missing image, no part", func(t *testing.T) {
		g := NewWithT(t)
		reading, err := readBy(t.Context(), b.request("app", "team/app:2.0.0", nobody), t.TempDir())
		expectFault(t, err, v1alpha1.ReasonImageNotFound, fault.Retry)
		g.Expect(reading.candidate).To(BeNil())
	})

	t.Run("of an image without a proof, its manifest and no blob", func(t *testing.T) {
		g := NewWithT(t)
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Verifier = refusing{}
		b.asked()
		reading, err := readBy(t.Context(), r, t.TempDir())
		g.Expect(err).To(HaveOccurred())
		g.Expect(reading.candidate.Digest).To(Equal(manifest))
		g.Expect(reading.candidate.Manifest()).NotTo(BeNil())
		g.Expect(reading.Content).To(BeNil())
		for _, request := range b.asked() {
			g.Expect(request).NotTo(ContainSubstring("/blobs/"))
		}
	})

	t.Run("of an image that is refused, its manifest", func(t *testing.T) {
		g := NewWithT(t)
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Content.Limits.ArtifactBytes = 1
		reading, err := readBy(t.Context(), r, t.TempDir())
		expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "--max-artifact-bytes")
		g.Expect(reading.candidate.Manifest()).NotTo(BeNil())
		g.Expect(reading.Content).To(BeNil())
	})
}
