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
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/spf13/pflag"

	"github.com/fluxcd/pkg/artifact/config"

	"github.com/image-source/image-source-controller/pkg/store"
)

func TestOpen(t *testing.T) {
	t.Run("removes what an earlier process left unfinished, and nothing else", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		before := open(t, options(root))
		stored := put(t, before, app, "v1")
		dir, _, err := before.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		write(t, dir, "half")

		reopen(t, before, options(root))
		g.Expect(files(t, root)).To(ConsistOf(stored.Path, "blobs/"+stored.SHA256))
		g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
		g.Expect(filepath.Glob(filepath.Join(root, "tmp", "*"))).To(BeEmpty())
	})

	t.Run("refuses a path that another process has open, and takes it after that", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		first := open(t, options(root))
		dir, _, err := first.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		write(t, dir, "half")

		_, err = store.Open(options(root))
		g.Expect(err).To(MatchError(store.ErrInUse))
		expectDiskFault(t, err, "a --storage-path of its own")
		g.Expect(filepath.Join(dir, "out.tar.gz")).To(BeARegularFile(), "what the other is making is left alone")

		reopen(t, first, options(root))
	})

	t.Run("takes a relative path", func(t *testing.T) {
		g := NewWithT(t)
		parent := t.TempDir()
		t.Chdir(parent)
		g.Expect(os.Mkdir("data", 0o750)).To(Succeed())
		stored := put(t, open(t, options("data")), app, "v1")
		g.Expect(read(t, parent, "data", stored.Path)).To(Equal("v1"))
	})

	t.Run("says that the storage path does not exist", func(t *testing.T) {
		_, err := store.Open(options(filepath.Join(t.TempDir(), "missing")))
		expectDiskFault(t, err, "must be an existing folder")
	})

	t.Run("says that the storage path is a file", func(t *testing.T) {
		_, err := store.Open(options(write(t, t.TempDir(), "a file").Path))
		expectDiskFault(t, err, "not a directory")
	})

	for _, folder := range []string{"externalartifact", "blobs"} {
		t.Run("says that a file is in the place of the folder "+folder, func(t *testing.T) {
			root := t.TempDir()
			NewWithT(t).Expect(os.WriteFile(filepath.Join(root, folder), nil, 0o600)).To(Succeed())
			_, err := store.Open(options(root))
			expectDiskFault(t, err, "give the controller a folder of its own")
		})
	}

	for name, tc := range map[string]struct {
		change func(*store.Options)
		words  string
	}{
		"refuses to guess the storage path":           {func(o *store.Options) { o.Root = "" }, "--storage-path"},
		"refuses to guess the address for consumers":  {func(o *store.Options) { o.AdvertisedAddress = "" }, "--storage-adv-addr"},
		"refuses a negative retention time":           {func(o *store.Options) { o.RetentionTTL = -time.Second }, "negative"},
		"refuses a negative number of retained files": {func(o *store.Options) { o.RetentionRecords = -1 }, "negative"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t.TempDir())
			tc.change(&o)
			_, err := store.Open(o)
			NewWithT(t).Expect(err).To(MatchError(ContainSubstring(tc.words)))
		})
	}
}

func TestNewOptions(t *testing.T) {
	t.Run("understands Flux's flags", func(t *testing.T) {
		g := NewWithT(t)
		var flags config.Options
		set := pflag.NewFlagSet("test", pflag.ContinueOnError)
		flags.BindFlags(set)
		g.Expect(set.Parse([]string{
			"--storage-path=/var/artifacts", "--storage-adv-addr=isc.flux-system.svc",
			"--artifact-retention-ttl=5m", "--artifact-retention-records=3", "--artifact-digest-algo=sha256",
		})).To(Succeed())
		g.Expect(store.NewOptions(&flags)).To(Equal(store.Options{
			Root: "/var/artifacts", AdvertisedAddress: "isc.flux-system.svc",
			RetentionTTL: 5 * time.Minute, RetentionRecords: 3,
		}))
	})

	t.Run("refuses another digest algorithm than sha256", func(t *testing.T) {
		_, err := store.NewOptions(&config.Options{StorageAdvAddress: "isc.flux-system.svc", ArtifactDigestAlgo: "blake3"})
		NewWithT(t).Expect(err).To(MatchError(`--artifact-digest-algo is "blake3": expected sha256, the algorithm of OCI layers, which are served as they are; remove the flag`))
	})

	t.Run("takes no digest algorithm for sha256", func(t *testing.T) {
		_, err := store.NewOptions(&config.Options{StorageAdvAddress: "isc.flux-system.svc"})
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
	})

	t.Run("says which flag is missing when the address cannot be derived", func(t *testing.T) {
		_, err := store.NewOptions(&config.Options{StorageAddress: "nonsense"})
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring("--storage-adv-addr")))
	})
}

func TestScratch(t *testing.T) {
	t.Run("gives each caller an empty folder of its own that can be removed", func(t *testing.T) {
		g := NewWithT(t)
		s := open(t, options(t.TempDir()))
		one, removeOne, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		other, removeOther, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		defer removeOther()

		g.Expect(one).NotTo(Equal(other))
		g.Expect(os.ReadDir(one)).To(BeEmpty())
		write(t, one, "work")
		write(t, other, "other work")
		removeOne()
		g.Expect(one).NotTo(BeADirectory())
		g.Expect(read(t, other, "out.tar.gz")).To(Equal("other work"))
	})

	t.Run("is not readable to others", func(t *testing.T) {
		dir, remove, err := open(t, options(t.TempDir())).Scratch()
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		defer remove()
		NewWithT(t).Expect(stat(t, dir).Mode().Perm()).To(Equal(os.FileMode(0o700)))
	})
}
