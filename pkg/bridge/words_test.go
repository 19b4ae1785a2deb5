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
	"fmt"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/publish"
)

func TestRevisions(t *testing.T) {
	ignoring := settings(func(o *format.Options) { o.Ignore = new("*.md") })
	mark := format.ContentHash(ignoring)[:8]
	cases := map[string]struct {
		tag     string
		content format.Options
		want    func(digest string) string
	}{
		"a tag and a digest":                        {tag: "1.0.0", want: func(d string) string { return "1.0.0@" + d }},
		"a digest alone":                            {want: func(d string) string { return d }},
		"a tag with settings":                       {tag: "1.0.0", content: ignoring, want: func(d string) string { return "1.0.0+" + mark + "@" + d }},
		"a digest with settings":                    {content: ignoring, want: func(d string) string { return "c" + mark + "@" + d }},
		"defaults that are written out are no mark": {tag: "1.0.0", content: format.Options{Format: v1alpha1.FormatAuto, Platform: format.DefaultPlatform, Ignore: new("\n")}, want: func(d string) string { return "1.0.0@" + d }},
		"limits are no setting of the content":      {tag: "1.0.0", content: format.Options{Limits: format.Limits{Entries: 50}}, want: func(d string) string { return "1.0.0@" + d }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			manifest, _ := b.push("team/app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "README.md": "# app\n"})
			r := b.request("app", "team/app:"+c.tag, nobody)
			r.Digest, r.Content = manifest, c.content
			NewWithT(t).Expect(b.publish(r).Artifact.Revision).To(Equal(c.want(manifest.String())))
		})
	}
}

func TestMetadata(t *testing.T) {
	layer, err := publish.Layer(publish.Files{"app.yaml": "version: 1\n"})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	published := func(t *testing.T, annotations map[string]string) (bridge.Outcome, map[string]string) {
		t.Helper()
		b := newBench(t)
		b.pushLayers("team/app:1.0.0", annotations, layer)
		out := b.publish(b.request("app", "team/app:1.0.0", nobody))
		return out, out.Artifact.Metadata
	}

	t.Run("holds the annotations of the manifest and our own", func(t *testing.T) {
		g := NewWithT(t)
		out, metadata := published(t, map[string]string{"org.opencontainers.image.title": "app"})
		g.Expect(metadata).To(HaveKeyWithValue("org.opencontainers.image.title", "app"))
		g.Expect(metadata).To(HaveKeyWithValue("org.opencontainers.image.source", "https://github.com/org/app.git"))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataImage, out.Image.Repository))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataTag, "1.0.0"))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataDigest, out.Image.Digest.String()))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataFormat, v1alpha1.FormatFlux))
		g.Expect(metadata).NotTo(HaveKey(v1alpha1.MetadataVerifiedBy))
	})

	t.Run("lets no annotation speak in our name", func(t *testing.T) {
		g := NewWithT(t)
		out, metadata := published(t, map[string]string{
			v1alpha1.MetadataVerifiedBy: "everybody",
			v1alpha1.MetadataDigest:     "sha256:" + strings.Repeat("0", 64),
			v1alpha1.MetadataTag:        "9.9.9",
			v1alpha1.Group + "/scanned": "yes",
		})
		g.Expect(metadata).NotTo(HaveKey(v1alpha1.Group + "/scanned"))
		g.Expect(metadata).NotTo(HaveKey(v1alpha1.MetadataVerifiedBy))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataDigest, out.Image.Digest.String()))
		g.Expect(metadata).To(HaveKeyWithValue(v1alpha1.MetadataTag, "1.0.0"))
	})

	t.Run("has at most 64 keys, ours among them", func(t *testing.T) {
		g := NewWithT(t)
		annotations := map[string]string{}
		for i := range 500 {
			annotations[fmt.Sprintf("a.example/%03d", i)] = "x"
		}
		_, metadata := published(t, annotations)
		g.Expect(metadata).To(HaveLen(64))
		for _, ours := range []string{v1alpha1.MetadataImage, v1alpha1.MetadataTag, v1alpha1.MetadataDigest, v1alpha1.MetadataFormat} {
			g.Expect(metadata).To(HaveKey(ours))
		}
		g.Expect(metadata).To(HaveKey("a.example/000"), "which ones is not left to chance")
		g.Expect(metadata).NotTo(HaveKey("a.example/499"))
	})

	t.Run("has the annotations for Flux, among any others", func(t *testing.T) {
		g := NewWithT(t)
		annotations := map[string]string{"org.opencontainers.image.revision": "main@sha1:abc", "a": strings.Repeat("x", 20<<10)}
		for i := range 70 {
			annotations[fmt.Sprintf("a.example/%03d", i)] = "x"
			annotations[fmt.Sprintf("org.opencontainers.image.%03d", i)] = "x"
		}
		_, metadata := published(t, annotations)
		g.Expect(metadata).To(HaveLen(64))
		g.Expect(metadata).To(HaveKeyWithValue("org.opencontainers.image.revision", "main@sha1:abc"))
		g.Expect(metadata).To(HaveKeyWithValue("org.opencontainers.image.source", "https://github.com/org/app.git"))
	})

	t.Run("has at most 32 KiB, ours among them", func(t *testing.T) {
		g := NewWithT(t)
		annotations := map[string]string{"huge": strings.Repeat("x", 64<<10), "small": "kept"}
		for i := range 30 {
			annotations[fmt.Sprintf("a.example/%03d", i)] = strings.Repeat("y", 2000)
		}
		_, metadata := published(t, annotations)
		size := 0
		for key, value := range metadata {
			size += len(key) + len(value)
		}
		g.Expect(size).To(BeNumerically("<=", 32<<10))
		g.Expect(size).To(BeNumerically(">", 28<<10))
		g.Expect(metadata).NotTo(HaveKey("huge"))
		g.Expect(metadata).To(HaveKey("small"), "one that is too large does not keep the others out")
		g.Expect(metadata).To(HaveKey(v1alpha1.MetadataDigest))
	})
}

// TestNoManifestGetsAPasswordIntoAMessage has a registry write the received password into
// manifests with errors.
func TestNoManifestGetsAPasswordIntoAMessage(t *testing.T) {
	const image = `"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"`
	for name, manifest := range map[string]string{
		"its type":             `{"schemaVersion":2,"mediaType":"application/%s"}`,
		"the type of a config": `{` + image + `,"config":{"mediaType":"application/%s","digest":"sha256:` + strings.Repeat("0", 64) + `"},"layers":[]}`,
		"a digest":             `{` + image + `,"config":{"digest":"%s"},"layers":[]}`,
	} {
		t.Run(name, func(t *testing.T) {
			b, g := newBench(t), NewWithT(t)
			b.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				_, password, sent := r.BasicAuth()
				if !sent {
					return publish.DemandBasic(nil)(w, r)
				}
				_, _ = fmt.Fprintf(w, manifest, password) // the client reads it
				return true
			})
			r := b.request("app", "team/app:1.0.0", access{"user", "correct-horse"})
			_, published := b.try(t.Context(), r)
			_, read := readBy(t.Context(), r, t.TempDir())
			for _, err := range []error{published, read} {
				g.Expect(err).To(MatchError(And(ContainSubstring("***"), Not(ContainSubstring("correct-horse")))))
			}
		})
	}
}
