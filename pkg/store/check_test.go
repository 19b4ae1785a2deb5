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
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/pkg/store"
)

func TestCheckOfGoodBytes(t *testing.T) {
	absent := digestOf("absent")
	sha512Of := sha512.Sum512([]byte("v1"))
	size := int64(99)
	for name, tc := range map[string]struct {
		change func(*meta.Artifact)
		want   bool
	}{
		"finds what the record names":                                              {func(*meta.Artifact) {}, true},
		"does without a recorded size":                                             {func(a *meta.Artifact) { a.Size = nil }, true},
		"refuses a record of another size":                                         {func(a *meta.Artifact) { a.Size = &size }, false},
		"refuses a record of another digest":                                       {func(a *meta.Artifact) { a.Digest = "sha256:" + absent }, false},
		"refuses a digest of another algorithm, which an earlier release recorded": {func(a *meta.Artifact) { a.Digest = "sha512:" + hex.EncodeToString(sha512Of[:]) }, false},
		"refuses a digest without algorithm":                                       {func(a *meta.Artifact) { a.Digest = digestOf("v1") }, false},
		"refuses a digest of unknown algorithm":                                    {func(a *meta.Artifact) { a.Digest = "md5:" + absent[:32] }, false},
		"refuses a digest that is too short":                                       {func(a *meta.Artifact) { a.Digest = a.Digest[:40] }, false},
		"refuses an empty record":                                                  {func(a *meta.Artifact) { *a = meta.Artifact{} }, false},
		"refuses a path that leads elsewhere":                                      {func(a *meta.Artifact) { a.Path = "externalartifact/apps/app/../app/" + filepath.Base(a.Path) }, false},
		"refuses the path of a blob":                                               {func(a *meta.Artifact) { a.Path = "blobs/" + digestOf("v1") }, false},
		"refuses the file of another key":                                          {func(a *meta.Artifact) { a.Path = strings.Replace(a.Path, "/app/", "/other/", 1) }, false},
		"misses a file that was never stored": {func(a *meta.Artifact) {
			a.Path, a.Digest = "externalartifact/apps/app/"+absent+".tar.gz", "sha256:"+absent
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			stored := put(t, s, app, "v1")
			put(t, s, store.Key{Namespace: "apps", Name: "other"}, "v1")
			artifact := recorded(stored)
			tc.change(&artifact)
			for range 2 { // before and after the file was read
				found, ok, err := s.Check(t.Context(), app, artifact)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(ok).To(Equal(tc.want))
				g.Expect(scrub(t, s)).To(BeEmpty())
				if ok {
					g.Expect(found.Path).To(Equal(stored.Path))
					g.Expect(found.URL).To(Equal(stored.URL))
					g.Expect(found.Digest).To(Equal(artifact.Digest))
					g.Expect(found.Size).To(Equal(stored.Size))
				}
			}
			g.Expect(read(t, root, stored.Path)).To(Equal("v1"), "good bytes are never removed")
			g.Expect(published(t, root)).To(HaveLen(2))
		})
	}

	t.Run("tells the address of today", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		artifact := recorded(put(t, s, app, "v1"))
		o := options(root)
		o.AdvertisedAddress = "new.example.com"
		found, ok, err := reopen(t, s, o).Check(t.Context(), app, artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
		g.Expect(found.URL).To(Equal("http://new.example.com/" + artifact.Path))
	})
}

func TestCheckOfDamagedBytes(t *testing.T) {
	for name, tc := range map[string]struct {
		damage func(file string) error
		// unseen tells that a look does not find it.
		unseen bool
	}{
		"a flipped byte":   {func(file string) error { return os.WriteFile(file, []byte("vX"), 0o600) }, true},
		"a truncated file": {func(file string) error { return os.Truncate(file, 1) }, false},
		"a file that grew": {func(file string) error { return os.WriteFile(file, []byte("v1 and more"), 0o600) }, false},
		"a deleted file":   {os.Remove, false},
		"a file that was replaced": {func(file string) error {
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("other"), 0o600))
		}, false},
		"a symbolic link in its place": {func(file string) error {
			return errors.Join(os.Rename(file, file+".moved"), os.Symlink(filepath.Base(file)+".moved", file))
		}, false},
		"a folder in its place": {func(file string) error {
			return errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "in"), 0o750))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			stored := put(t, s, app, "v1")
			file := filepath.Join(root, stored.Path)
			g.Expect(tc.damage(file)).To(Succeed())
			_, ok, err := s.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(Equal(tc.unseen), "a look")
			scrub(t, s)
			_, ok, err = s.Check(t.Context(), app, recorded(stored))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(ok).To(BeFalse(), "a look after the file was read")
			g.Expect(file).NotTo(Or(BeAnExistingFile(), BeADirectory()), "damaged bytes are not served any more")
		})
	}

	t.Run("takes damaged bytes from every key that shares them, and from no other", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		sharer := put(t, s, store.Key{Namespace: "other", Name: "app"}, "v1")
		bystander := put(t, s, app, "v2")
		g.Expect(os.WriteFile(filepath.Join(root, stored.Path), []byte("vX"), 0o600)).To(Succeed())

		g.Expect(scrub(t, s)).To(ConsistOf(app, store.Key{Namespace: "other", Name: "app"}))
		_, ok, err := s.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse())
		g.Expect(filepath.Join(root, sharer.Path)).NotTo(BeAnExistingFile())
		g.Expect(read(t, root, bystander.Path)).To(Equal("v2"))
		_, ok, err = s.Link(t.Context(), app, stored.SHA256)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse(), "the damaged bytes are not shared any more")

		put(t, s, app, "v1")
		g.Expect(scrub(t, s)).To(BeEmpty())
		_, ok, err = s.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
	})

	t.Run("removes nothing when the caller has gone", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Scrub(ctx, store.ScrubOptions{Lost: func(context.Context, store.Key, string) { t.Error("a good file is lost") }})
		_, ok, err := s.Check(ctx, app, recorded(stored))
		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(ok).To(BeFalse())
		g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
	})
}
