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

package registry_test

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(text)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(w.Close()).To(Succeed())
	return out.Bytes()
}

// TestTheDigestDecidesWhetherAnAnswerIsDecoded serves manifests and blobs through
// proxies that compress, and from storage that labels bytes that were compressed before.
func TestTheDigestDecidesWhetherAnAnswerIsDecoded(t *testing.T) {
	manifest := []byte(`{"schemaVersion":2,"manifests":[]}`)
	for name, c := range map[string]struct {
		meant, sent []byte
		coding      string
	}{
		"text that a proxy compresses":       {manifest, zipped(t, manifest), "gzip"},
		"compressed twice":                   {zipped(t, manifest), zipped(t, zipped(t, manifest)), "gzip"},
		"a label on what is compressed":      {zipped(t, manifest), zipped(t, manifest), "gzip"},
		"a label on what is not compressed":  {manifest, manifest, "gzip"},
		"a coding that nobody knows":         {manifest, manifest, "aws-chunked"},
		"a label that says nothing is coded": {manifest, manifest, "identity"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				g := NewWithT(t)
				s := serve(t)
				answer := func(w http.ResponseWriter, r *http.Request) {
					g.Expect(r.Header.Get("Accept-Encoding")).To(Equal("identity"))
					w.Header().Set("Content-Encoding", c.coding)
					if chunked {
						w.(http.Flusher).Flush()
					}
					_, _ = w.Write(c.sent) // the client reads it
				}
				repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
				s.answerTo("/blobs/", answer)
				var got bytes.Buffer
				g.Expect(repo.Pull(t.Context(), descriptorOf(c.meant), &got)).To(Succeed())
				g.Expect(got.Bytes()).To(Equal(c.meant))

				s.answerTo("/manifests/", answer)
				m, err := repo.Resolve(t.Context(), registry.Query{Digest: descriptorOf(c.meant).Digest})
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(m.Body).To(Equal(c.meant))
				read, err := repo.ReadManifest(t.Context(), descriptorOf(c.meant).Digest.String())
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(read).To(Equal(c.meant))
			})
		}
	}
	t.Run("a manifest under a tag, and a list of referrers", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t)
		s.answerTo("/app/", write(string(zipped(t, manifest)), "Content-Encoding", "gzip", "Content-Type", index))
		repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
		m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(m.Body).To(Equal(manifest))
		list, err := repo.TaggedReferrers(t.Context(), hash(t, listed))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(list.Index).To(Equal(manifest))
		list, err = repo.Referrers(t.Context(), hash(t, listed))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(list.Absent).To(BeFalse())
	})
	t.Run("a bomb", func(t *testing.T) {
		g := NewWithT(t)
		s := serve(t)
		bomb := zipped(t, bytes.Repeat([]byte(" "), 256<<20))
		s.answerTo("/app/", write(string(bomb), "Content-Encoding", "gzip"))
		repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
		_, err := repo.Resolve(t.Context(), registry.Query{Digest: descriptorOf(manifest).Digest})
		expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
		var got strings.Builder
		expectFault(t, repo.Pull(t.Context(), descriptorOf(manifest), &got), v1alpha1.ReasonInvalidArtifact, fault.Retry)
		g.Expect(got.Len()).To(BeNumerically("<=", len(manifest)))
	})
}
