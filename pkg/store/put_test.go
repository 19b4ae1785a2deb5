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
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"

	"github.com/fluxcd/pkg/artifact/storage"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/store"
)

func TestPut(t *testing.T) {
	t.Run("publishes a file where Flux's own storage would", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		o := options(root)
		o.AdvertisedAddress = "isc.flux-system.svc:9090"
		stored := put(t, open(t, o), app, "v1")

		g.Expect(stored).To(Equal(store.Stored{
			Path:   storage.ArtifactPath("ExternalArtifact", "apps", "app", digestOf("v1")+".tar.gz"),
			URL:    "http://isc.flux-system.svc:9090/externalartifact/apps/app/" + digestOf("v1") + ".tar.gz",
			Digest: "sha256:" + digestOf("v1"),
			SHA256: digestOf("v1"),
			Size:   2,
		}))
		g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
	})

	t.Run("keeps the scheme of the advertised address", func(t *testing.T) {
		o := options(t.TempDir())
		o.AdvertisedAddress = "https://isc.example.com/"
		NewWithT(t).Expect(put(t, open(t, o), app, "v1").URL).To(HavePrefix("https://isc.example.com/externalartifact/"))
	})

	t.Run("sets modes without execution or access for others, whatever the file had", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		dir, remove, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		defer remove()
		file := write(t, dir, "v1")
		g.Expect(os.Chmod(file.Path, 0o777)).To(Succeed())
		stored, err := s.Put(t.Context(), app, file)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(stat(t, root, stored.Path).Mode()).To(Equal(os.FileMode(0o640)))
		g.Expect(stat(t, root, filepath.Dir(stored.Path)).Mode().Perm() & 0o007).To(BeZero())
	})

	t.Run("moves the file instead of copying it", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		dir, remove, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		defer remove()
		file := write(t, dir, "v1")
		made := stat(t, file.Path)
		stored, err := s.Put(t.Context(), app, file)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(os.SameFile(made, stat(t, root, stored.Path))).To(BeTrue())
	})

	t.Run("stores equal content of many sources once", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		var group errgroup.Group
		for i := range 50 {
			key := store.Key{Namespace: fmt.Sprintf("ns-%d", i%5), Name: fmt.Sprintf("app-%d", i%10)}
			group.Go(func() error { _, err := tryPut(t, s, key, "shared"); return err })
		}
		g.Expect(group.Wait()).To(Succeed())

		blob := stat(t, root, "blobs", digestOf("shared"))
		names := published(t, root)
		g.Expect(names).To(HaveLen(10))
		for _, name := range names {
			g.Expect(os.SameFile(blob, stat(t, root, "externalartifact", name))).To(BeTrue())
		}
		g.Expect(files(t, filepath.Join(root, "blobs"))).To(HaveLen(1))
		g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())
	})

	t.Run("publishes many files at once", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		var group errgroup.Group
		group.SetLimit(16)
		for i := range 200 {
			key := store.Key{Namespace: "apps", Name: fmt.Sprintf("app-%d", i)}
			group.Go(func() error { _, err := tryPut(t, s, key, fmt.Sprint("content ", i)); return err })
		}
		g.Expect(group.Wait()).To(Succeed())
		g.Expect(published(t, root)).To(HaveLen(200))
	})

	t.Run("keeps names apart that differ in their separators only", func(t *testing.T) {
		g := NewWithT(t)
		s := open(t, options(t.TempDir()))
		paths := map[string]bool{}
		for _, key := range []store.Key{
			{Namespace: "a-b", Name: "c"}, {Namespace: "a", Name: "b-c"}, {Namespace: "a", Name: "b.c"},
			{Namespace: "a", Name: "b.c-d"}, {Namespace: "a", Name: "b"},
			{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("a.", 126) + "a"},
			{Namespace: "0", Name: strings.Repeat("x", 253)},
		} {
			paths[put(t, s, key, "v1").Path] = true
		}
		g.Expect(paths).To(HaveLen(7))
	})
}

func TestPutRefuses(t *testing.T) {
	hex := digestOf("v1")
	for name, tc := range map[string]struct {
		key    store.Key
		sha256 string
		reason string
	}{
		"a namespace that leaves the folder": {store.Key{Namespace: "..", Name: "app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name that leaves the folder":      {store.Key{Namespace: "apps", Name: "../app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name of a dot":                    {store.Key{Namespace: "apps", Name: "."}, hex, v1alpha1.ReasonInvalidSpec},
		"a name with an empty label":         {store.Key{Namespace: "apps", Name: "a..b"}, hex, v1alpha1.ReasonInvalidSpec},
		"an empty name":                      {store.Key{Namespace: "apps"}, hex, v1alpha1.ReasonInvalidSpec},
		"an empty namespace":                 {store.Key{Name: "app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a namespace with a dot":             {store.Key{Namespace: "a.b", Name: "app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a namespace of 64 characters":       {store.Key{Namespace: strings.Repeat("a", 64), Name: "app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name of 254 characters":           {store.Key{Namespace: "apps", Name: strings.Repeat("a", 254)}, hex, v1alpha1.ReasonInvalidSpec},
		"a name in upper case":               {store.Key{Namespace: "apps", Name: "App"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name that begins with a dash":     {store.Key{Namespace: "apps", Name: "-app"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name with a NUL":                  {store.Key{Namespace: "apps", Name: "a\x00b"}, hex, v1alpha1.ReasonInvalidSpec},
		"a name with a backslash":            {store.Key{Namespace: "apps", Name: `a\b`}, hex, v1alpha1.ReasonInvalidSpec},
		"an empty digest":                    {app, "", v1alpha1.ReasonInvalidArtifact},
		"a digest that is a path":            {app, "../../" + hex[6:], v1alpha1.ReasonInvalidArtifact},
		"a digest with its algorithm":        {app, "sha256:" + hex, v1alpha1.ReasonInvalidArtifact},
		"a digest in upper case":             {app, strings.ToUpper(hex), v1alpha1.ReasonInvalidArtifact},
		"a digest that is too long":          {app, hex + "0", v1alpha1.ReasonInvalidArtifact},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			dir, remove, err := s.Scratch()
			g.Expect(err).NotTo(HaveOccurred())
			defer remove()
			file := write(t, dir, "v1")
			file.SHA256 = tc.sha256

			_, err = s.Put(t.Context(), tc.key, file)
			f := fault.Of(err, "")
			g.Expect(f.Reason).To(Equal(tc.reason))
			g.Expect(f.Class).To(Equal(fault.Stall))
			_, _, err = s.Link(t.Context(), tc.key, tc.sha256)
			g.Expect(fault.Of(err, "").Reason).To(Equal(tc.reason))
			g.Expect(published(t, root)).To(BeEmpty())
			g.Expect(files(t, filepath.Join(root, "blobs"))).To(BeEmpty())
		})
	}

	for name, change := range map[string]func(root string, file *store.File) error{
		"a file that is shorter than it should be": func(_ string, file *store.File) error { file.Size++; return nil },
		"a file that is longer than it should be":  func(_ string, file *store.File) error { file.Size--; return nil },
		"a file that does not exist":               func(_ string, file *store.File) error { file.Path += ".missing"; return nil },
		"a folder":                                 func(_ string, file *store.File) error { file.Path = filepath.Dir(file.Path); return nil },
		"a file outside the storage path": func(root string, file *store.File) error {
			outside := filepath.Join(filepath.Dir(root), "outside")
			defer func() { file.Path = outside }()
			return os.Rename(file.Path, outside)
		},
		"a file of the store that is no scratch file": func(root string, file *store.File) error {
			blob := filepath.Join(root, "blobs", "blob")
			defer func() { file.Path = blob }()
			return os.Rename(file.Path, blob)
		},
		"a symbolic link": func(_ string, file *store.File) error {
			file.Size = int64(len("out.tar.gz.moved")) // that of the link itself
			return errors.Join(os.Rename(file.Path, file.Path+".moved"), os.Symlink("out.tar.gz.moved", file.Path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := filepath.Join(t.TempDir(), "data")
			g.Expect(os.Mkdir(root, 0o750)).To(Succeed())
			s := open(t, options(root))
			dir, remove, err := s.Scratch()
			g.Expect(err).NotTo(HaveOccurred())
			defer remove()
			file := write(t, dir, "v1")
			g.Expect(change(root, &file)).To(Succeed())
			_, err = s.Put(t.Context(), app, file)
			g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonStorageOperationFailed))
			g.Expect(published(t, root)).To(BeEmpty())
		})
	}

	t.Run("to work for a caller who has gone", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		dir, remove, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		defer remove()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = s.Put(ctx, app, write(t, dir, "v1"))
		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(fault.Of(err, "unclassified").Reason).To(Equal("unclassified"), "no fault of the disk")
		g.Expect(published(t, root)).To(BeEmpty())
	})
}

func TestPutHeals(t *testing.T) {
	for name, damage := range map[string]func(root string, stored store.Stored) error{
		"a truncated file": func(root string, stored store.Stored) error {
			return os.Truncate(filepath.Join(root, stored.Path), 1)
		},
		"a file that was replaced": func(root string, stored store.Stored) error {
			file := filepath.Join(root, stored.Path)
			return errors.Join(os.Remove(file), os.WriteFile(file, []byte("XX"), 0o600))
		},
		"a file that was replaced by a folder": func(root string, stored store.Stored) error {
			file := filepath.Join(root, stored.Path)
			return errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "in"), 0o750))
		},
		"a blob that was replaced by a folder": func(root string, stored store.Stored) error {
			blob := filepath.Join(root, "blobs", stored.SHA256)
			return errors.Join(os.Remove(blob), os.MkdirAll(filepath.Join(blob, "in"), 0o750))
		},
		"a deleted file whose blob has rotted": func(root string, stored store.Stored) error {
			file := filepath.Join(root, stored.Path)
			return errors.Join(os.WriteFile(file, []byte("XX"), 0o600), os.Remove(file))
		},
		"the loss of all published files": func(root string, _ store.Stored) error {
			return os.RemoveAll(filepath.Join(root, "externalartifact"))
		},
		"the loss of all blobs": func(root string, _ store.Stored) error {
			return os.RemoveAll(filepath.Join(root, "blobs"))
		},
		"the loss of everything below the storage path": func(root string, _ store.Stored) error {
			return errors.Join(os.RemoveAll(filepath.Join(root, "externalartifact")),
				os.RemoveAll(filepath.Join(root, "blobs")), os.RemoveAll(filepath.Join(root, "tmp")))
		},
		"a storage path that was removed and made again": func(root string, _ store.Stored) error {
			return errors.Join(os.RemoveAll(root), os.Mkdir(root, 0o750))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := filepath.Join(t.TempDir(), "data")
			g.Expect(os.Mkdir(root, 0o750)).To(Succeed())
			s := open(t, options(root))
			stored := put(t, s, app, "v1")
			g.Expect(damage(root, stored)).To(Succeed())
			g.Expect(put(t, s, app, "v1")).To(Equal(stored))
			g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
			g.Expect(os.SameFile(stat(t, root, stored.Path), stat(t, root, "blobs", stored.SHA256))).To(BeTrue())
			g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())
		})
	}
}

func TestLink(t *testing.T) {
	other := store.Key{Namespace: "other", Name: "app"}

	t.Run("gives stored content one more name", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		first := put(t, s, app, "shared")
		stored, ok, err := s.Link(t.Context(), other, first.SHA256)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
		g.Expect(stored.Path).To(Equal("externalartifact/other/app/" + first.SHA256 + ".tar.gz"))
		g.Expect(stored.Size).To(Equal(first.Size))
		g.Expect(stored.Digest).To(Equal(first.Digest))
		g.Expect(os.SameFile(stat(t, root, first.Path), stat(t, root, stored.Path))).To(BeTrue())
	})

	t.Run("says that content is not stored", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		_, ok, err := s.Link(t.Context(), other, digestOf("nothing"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse())
		g.Expect(published(t, root)).To(BeEmpty())
	})

	t.Run("keeps the content when the first key is removed", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		first := put(t, s, app, "shared")
		stored, _, err := s.Link(t.Context(), other, first.SHA256)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(s.Remove(t.Context(), app)).To(Succeed())
		g.Expect(read(t, root, stored.Path)).To(Equal("shared"))
		_, ok, err := s.Link(t.Context(), app, first.SHA256)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeTrue())
	})

	t.Run("meets the removal of the same content without a fault", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		stored := put(t, s, app, "shared")
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				for range 100 {
					_, _, err := s.Link(t.Context(), other, stored.SHA256)
					NewWithT(t).Expect(err).NotTo(HaveOccurred())
				}
			})
			group.Go(func() {
				for range 100 {
					NewWithT(t).Expect(s.Remove(t.Context(), other)).To(Succeed())
				}
			})
		}
		group.Wait()
		g.Expect(read(t, root, stored.Path)).To(Equal("shared"))
	})
}
