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

package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/store"
)

// namesOfAFile is more than a file can have on ext4.
const namesOfAFile = 65_000

// exhaust gives a file all the names that its file system allows, and returns one of
// them; some file systems allow any number.
func exhaust(t *testing.T, file string) (name string) {
	t.Helper()
	folder := t.TempDir()
	for i := range namesOfAFile {
		err := os.Link(file, filepath.Join(folder, strconv.Itoa(i)))
		if errors.Is(err, syscall.EMLINK) {
			break
		}
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	}
	return filepath.Join(folder, "0")
}

func TestContentWithAsManyNamesAsAFileCanHaveIsPublished(t *testing.T) {
	g := NewWithT(t)
	root := t.TempDir()
	s := open(t, options(root))
	first := put(t, s, app, "shared")
	blob := filepath.Join(root, "blobs", first.SHA256)
	exhausted := exhaust(t, blob)
	other, third := store.Key{Namespace: "other", Name: "app"}, store.Key{Namespace: "third", Name: "app"}
	linked, ok, err := s.Link(t.Context(), other, first.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeTrue())
	g.Expect(linked.Digest).To(Equal(first.Digest))
	stored := put(t, s, third, "shared")
	for _, one := range []store.Stored{first, linked, stored} {
		expectFetch(t, s, one)
		g.Expect(read(t, root, one.Path)).To(Equal("shared"))
	}
	g.Expect(os.SameFile(stat(t, root, linked.Path), stat(t, root, stored.Path))).To(BeTrue(), "one copy is enough for both")

	again, ok, err := s.Link(t.Context(), app, first.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeTrue())
	expectFetch(t, s, again)
	for _, key := range []store.Key{app, other} {
		g.Expect(s.Remove(t.Context(), key)).To(Succeed())
	}
	expectFetch(t, s, stored)
	g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())

	// Damaged bytes are not copied: they have to be fetched again.
	g.Expect(os.WriteFile(exhausted, []byte("SHARED"), 0o600)).To(Succeed())
	g.Expect(os.Rename(exhausted, blob)).To(Succeed())
	if os.Link(blob, exhausted) == nil {
		return // any number of names is allowed here, and nothing has to be copied
	}
	_, ok, err = s.Link(t.Context(), other, first.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeFalse())
	expectFetch(t, s, put(t, s, other, "shared"))
}
