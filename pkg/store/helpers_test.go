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
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/store"
)

var app = store.Key{Namespace: "apps", Name: "app"}

// clock is a time that moves when a test says so.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{now: time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) time() time.Time         { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

// options are what a test does not care about.
func options(root string) store.Options {
	return store.Options{
		Root:              root,
		AdvertisedAddress: "image-source-controller.flux-system.svc.cluster.local.",
		RetentionTTL:      time.Minute,
		RetentionRecords:  2,
	}
}

func open(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

// reopen ends the use of a store and opens its storage path again, as the next
// process does.
func reopen(t testing.TB, s *store.Store, o store.Options) *store.Store {
	t.Helper()
	NewWithT(t).Expect(s.Close()).To(Succeed())
	return open(t, o)
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// write makes the finished file that a Put takes.
func write(t testing.TB, dir, content string) store.File {
	t.Helper()
	file := store.File{Path: filepath.Join(dir, "out.tar.gz"), SHA256: digestOf(content), Size: int64(len(content))}
	NewWithT(t).Expect(os.WriteFile(file.Path, []byte(content), 0o600)).To(Succeed())
	return file
}

func tryPut(t testing.TB, s *store.Store, key store.Key, content string) (store.Stored, error) {
	t.Helper()
	dir, remove, err := s.Scratch()
	if err != nil {
		return store.Stored{}, err
	}
	defer remove()
	return s.Put(t.Context(), key, write(t, dir, content))
}

func put(t testing.TB, s *store.Store, key store.Key, content string) store.Stored {
	t.Helper()
	stored, err := tryPut(t, s, key, content)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return stored
}

// recorded is the artifact that a controller writes for a stored file.
func recorded(stored store.Stored) meta.Artifact {
	return meta.Artifact{Path: stored.Path, URL: stored.URL, Digest: stored.Digest, Size: &stored.Size}
}

// files lists the regular files below a folder, as slash-separated relative paths.
func files(t testing.TB, root string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(root, p)
		found = append(found, filepath.ToSlash(relative))
		return err
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return found
}

func published(t testing.TB, root string) []string {
	t.Helper()
	return files(t, filepath.Join(root, "externalartifact"))
}

func read(t testing.TB, elements ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(elements...))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(content)
}

func stat(t testing.TB, elements ...string) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(filepath.Join(elements...))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return info
}

// expectDiskFault asserts what every error about the disk has in common.
func expectDiskFault(t testing.TB, err error, words string) {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).To(HaveOccurred())
	f := fault.Of(err, "unclassified")
	g.Expect(f.Reason).To(Equal(v1alpha1.ReasonStorageOperationFailed))
	g.Expect(f.Class).To(Equal(fault.Retry))
	g.Expect(err).To(MatchError(ContainSubstring(words)))
	g.Expect(err).NotTo(MatchError(MatchRegexp("tmp/[A-Z2-7]{26}")), "each attempt has another scratch folder: the message would never be the same")
}

// rerun is a command that runs the calling test alone, in a process of its
// own, with a folder to work in; inRerun tells the folder there.
func rerun(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), rerunVariable+"="+dir)
	return cmd
}

const rerunVariable = "STORE_TEST_FOLDER"

func inRerun() (dir string, ok bool) { return os.LookupEnv(rerunVariable) }
