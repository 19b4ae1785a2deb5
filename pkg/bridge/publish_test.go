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
	"net/http"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/test/publish"
)

func TestANewVersionCostsTwoRequestsAndIsServedAsItsLayer(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, layer := b.push("team/app:1.0.0", publish.Files{"deploy/app.yaml": "kind: ConfigMap\n"})

	out := b.publish(b.request("app", "team/app:1.0.0", nobody))

	g.Expect(b.registry.Requests()).To(Equal([]string{
		"GET /v2/",
		"GET /v2/team/app/manifests/1.0.0",
		"GET /v2/team/app/blobs/" + layer.String(),
	}))
	path := "externalartifact/apps/app/" + layer.Hex + ".tar.gz"
	g.Expect(out.Unchanged).To(BeFalse())
	g.Expect(out.Format).To(Equal(v1alpha1.FormatFlux))
	g.Expect(out.Image).To(Equal(bridge.Image{Repository: b.registry.Host() + "/team/app", Tag: "1.0.0", Digest: manifest}))
	g.Expect(out.Artifact.Revision).To(Equal("1.0.0@" + manifest.String()))
	g.Expect(out.Artifact.Digest).To(Equal(layer.String()), "a clean layer is published as its own bytes")
	g.Expect(out.Artifact.Path).To(Equal(path))
	g.Expect(out.Artifact.URL).To(Equal("http://" + advertised + "/" + path))
	g.Expect(out.Artifact.LastUpdateTime.Time).To(Equal(noon))
	stored, err := os.ReadFile(b.file(out))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(stored).To(Equal(b.blob("team/app", layer)))
	g.Expect(*out.Artifact.Size).To(BeNumerically("==", len(stored)))
	g.Expect(b.leftovers()).To(BeEmpty())
}

func TestRequestsOfAPublication(t *testing.T) {
	b := newBench(t)
	first, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	before := b.publish(b.request("app", "team/app:1.0.0", nobody))

	t.Run("an unchanged tag costs one HEAD", func(t *testing.T) {
		g := NewWithT(t)
		b.asked()
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Published = published(before)
		out := b.publish(r)
		g.Expect(b.asked()).To(Equal([]string{"HEAD /v2/team/app/manifests/1.0.0"}))
		g.Expect(out.Unchanged).To(BeTrue())
		g.Expect(out.Artifact).To(Equal(before.Artifact))
		g.Expect(out.Format).To(Equal(before.Format))
	})

	t.Run("a known digest costs no request", func(t *testing.T) {
		g := NewWithT(t)
		b.asked()
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Digest, r.Published = first, published(before)
		g.Expect(b.publish(r).Unchanged).To(BeTrue())
		g.Expect(b.asked()).To(BeEmpty())
	})

	t.Run("another tag of the same digest renames the artifact without a pull", func(t *testing.T) {
		g := NewWithT(t)
		b.push("team/app:stable", publish.Files{"app.yaml": "version: 1\n"})
		b.asked()
		r := b.request("app", "team/app:stable", nobody)
		r.Published = published(before)
		out := b.publish(r)
		g.Expect(b.asked()).To(Equal([]string{"GET /v2/team/app/manifests/stable"}))
		g.Expect(out.Unchanged).To(BeFalse())
		g.Expect(out.Artifact.Revision).To(Equal("stable@" + first.String()))
		g.Expect(out.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataTag, "stable"))
		g.Expect(out.Artifact.URL).To(Equal(before.Artifact.URL))
		g.Expect(out.Artifact.Digest).To(Equal(before.Artifact.Digest))
	})

	t.Run("another tag of the same digest is no change if the name is kept", func(t *testing.T) {
		g := NewWithT(t)
		b.asked()
		r := b.request("app", "team/app:stable", nobody)
		r.Published = published(before)
		r.Published.KeepName = true
		out := b.publish(r)
		g.Expect(b.asked()).To(ConsistOf(HaveSuffix("/v2/team/app/manifests/stable")))
		g.Expect(out.Unchanged).To(BeTrue())
		g.Expect(out.Artifact).To(Equal(before.Artifact))
		g.Expect(out.Image.Tag).To(Equal("stable"))
	})

	t.Run("another tag of a reflected digest needs no request", func(t *testing.T) {
		g := NewWithT(t)
		b.asked()
		r := b.request("app", "team/app:reflected", nobody)
		r.Digest, r.Published = first, published(before)
		g.Expect(b.publish(r).Artifact.Revision).To(Equal("reflected@" + first.String()))
		g.Expect(b.asked()).To(BeEmpty())
	})

	t.Run("a tag that moved costs its HEAD, a manifest and a blob", func(t *testing.T) {
		g := NewWithT(t)
		second, layer := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 2\n"})
		b.asked()
		r := b.request("app", "team/app:1.0.0", nobody)
		r.Published = published(before)
		out := b.publish(r)
		g.Expect(b.asked()).To(Equal([]string{
			"HEAD /v2/team/app/manifests/1.0.0",
			"GET /v2/team/app/manifests/" + second.String(),
			"GET /v2/team/app/blobs/" + layer.String(),
		}))
		g.Expect(out.Artifact.Revision).To(Equal("1.0.0@" + second.String()))
	})
}

func TestAnAnswerAboutATagServesAllSourcesForAWhile(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	before := b.publish(b.request("one", "team/app:1.0.0", nobody))
	b.asked()

	r := b.request("one", "team/app:1.0.0", nobody)
	r.Published, r.MaxAge = published(before), 3600e9
	g.Expect(b.publish(r).Unchanged).To(BeTrue())
	g.Expect(b.asked()).To(BeEmpty(), "a young answer is not asked for again")

	r.Fresh = true
	g.Expect(b.publish(r).Unchanged).To(BeTrue())
	g.Expect(b.asked()).To(Equal([]string{"HEAD /v2/team/app/manifests/1.0.0"}), "a request gets a fresh answer")
}

func TestAFetchStaysOnTheDigestThatWasResolved(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	first, layer := b.push("team/app:latest", publish.Files{"app.yaml": "version: 1\n"})
	moved := false
	b.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if !moved && strings.Contains(r.URL.Path, "/blobs/") {
			moved = true
			_, err := b.registry.Shelf().Flux(r.Context(), "team/app:latest", publish.Files{"app.yaml": "version: 2\n"})
			g.Expect(err).NotTo(HaveOccurred())
		}
		return false
	})

	out := b.publish(b.request("app", "team/app:latest", nobody))

	g.Expect(moved).To(BeTrue())
	g.Expect(out.Artifact.Revision).To(Equal("latest@" + first.String()))
	g.Expect(out.Artifact.Digest).To(Equal(layer.String()))
}

func TestAFileThatVanishedIsMadeAgain(t *testing.T) {
	trees := map[string]func(b *bench) string{
		"from a layer that is published as it is": func(b *bench) string {
			b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			return "team/app:1.0.0"
		},
		"from a layer that has to be archived again": func(b *bench) string {
			b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", ".git/config": "dropped by default\n", ".gitignore": "dropped\n"})
			return "team/app:1.0.0"
		},
	}
	damage := map[string]func(string) error{
		"after it was deleted":   os.Remove,
		"after it was truncated": func(path string) error { return os.Truncate(path, 10) },
		"after a byte flipped": func(path string) error {
			bytes, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			bytes[len(bytes)/2] ^= 1
			return os.WriteFile(path, bytes, 0o600)
		},
	}
	for tree, push := range trees {
		for how, harm := range damage {
			t.Run(tree+", "+how, func(t *testing.T) {
				b, g := newBench(t), NewWithT(t)
				image := push(b)
				before := b.publish(b.request("app", image, nobody))
				good, err := os.ReadFile(b.file(before))
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(harm(b.file(before))).To(Succeed())
				if how == "after a byte flipped" { // a look finds the others
					b.scrub()
				}

				r := b.request("app", image, nobody)
				r.Published = published(before)
				after := b.publish(r)

				g.Expect(after.Artifact.Digest).To(Equal(before.Artifact.Digest))
				g.Expect(after.Artifact.URL).To(Equal(before.Artifact.URL))
				g.Expect(after.Artifact.Revision).To(Equal(before.Artifact.Revision))
				g.Expect(os.ReadFile(b.file(after))).To(Equal(good))
			})
		}
	}
}

func TestANewProcessOnAnEmptyDiskMakesTheSameBytes(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", ".gitignore": "dropped\n"})
	before := b.publish(b.request("app", "team/app:1.0.0", nobody))
	b.root = t.TempDir()
	b.reopen(advertised)

	r := b.request("app", "team/app:1.0.0", nobody)
	r.Digest = manifest
	after := b.publish(r)

	g.Expect(after.Artifact).To(Equal(before.Artifact))
}

func TestAnotherAddressOfTheServerIsPublishedWithoutAPull(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	before := b.publish(b.request("app", "team/app:1.0.0", nobody))
	b.reopen("moved.example:8080")
	b.asked()

	r := b.request("app", "team/app:1.0.0", nobody)
	r.Published = published(before)
	after := b.publish(r)

	g.Expect(after.Unchanged).To(BeFalse())
	g.Expect(after.Artifact.URL).To(Equal("http://moved.example:8080/" + before.Artifact.Path))
	g.Expect(after.Artifact.Digest).To(Equal(before.Artifact.Digest))
	g.Expect(after.Artifact.Metadata).To(Equal(before.Artifact.Metadata))
	g.Expect(b.registry.Count(http.MethodGet, "/blobs/")).To(BeZero())
}

func TestOtherSettingsAreOtherContent(t *testing.T) {
	b, g := newBench(t), NewWithT(t)
	manifest, layer := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "README.md": "# app\n"})
	plain := b.publish(b.request("app", "team/app:1.0.0", nobody))
	r := b.request("app", "team/app:1.0.0", nobody)
	r.Published = published(plain)
	r.Content = settings(func(o *format.Options) { o.Ignore = new("*.md\n") })

	filtered := b.publish(r)

	g.Expect(filtered.Unchanged).To(BeFalse())
	g.Expect(filtered.Artifact.Digest).NotTo(Equal(layer.String()))
	g.Expect(filtered.Artifact.Revision).To(MatchRegexp(`^1\.0\.0\+[0-9a-f]{8}@` + manifest.String() + `$`))
	g.Expect(filtered.Content).To(HavePrefix(filtered.Artifact.Revision[len("1.0.0+"):][:8]))

	r.Published = published(filtered)
	g.Expect(b.publish(r).Unchanged).To(BeTrue())
}

func TestATagThatDoesNotExistIsNotFound(t *testing.T) {
	b := newBench(t)
	b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	_, err := b.try(t.Context(), b.request("app", "team/app:2.0.0", nobody))
	expectFault(t, err, v1alpha1.ReasonImageNotFound, fault.Retry, "2.0.0", "team/app")
	b.expectNothingStored()
}

// The bridge asks for no more than these; the compiler holds it.
var (
	_ bridge.Repository = (*registry.Repository)(nil)
	_ bridge.Store      = (*store.Store)(nil)
)
