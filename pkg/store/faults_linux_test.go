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
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/store"
)

// A user without rights: root is not stopped by modes, so the process gives up
// being root first.
func TestNoPermission(t *testing.T) {
	root, ok := inRerun()
	if !ok {
		expectRerun(t, nil)
		return
	}
	g := NewWithT(t)
	g.Expect(os.Chmod(root, 0o555)).To(Succeed())
	if os.Getuid() == 0 {
		g.Expect(syscall.Setgid(65534)).To(Succeed())
		g.Expect(syscall.Setuid(65534)).To(Succeed())
	}
	_, err := store.Open(options(root))
	expectDiskFault(t, err, "fsGroup")
}

// A file of another user, such as that of the container before its runAsUser was
// changed, may get no more names (fs.protected_hardlinks).
func TestContentOfAnotherUserIsPublished(t *testing.T) {
	root, ok := inRerun()
	if !ok {
		expectRerun(t, nil)
		return
	}
	g := NewWithT(t)
	if os.Getuid() != 0 {
		t.Log("only root can become another user")
		return
	}
	const another = 65534
	s := open(t, options(root))
	stored, v2 := put(t, s, app, "v1"), put(t, s, app, "v2")
	g.Expect(s.Close()).To(Succeed())
	g.Expect(filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Chown(path, -1, another); err != nil || !entry.IsDir() {
			return err
		}
		return os.Chmod(path, 0o2770)
	})).To(Succeed())
	g.Expect(syscall.Setgid(another)).To(Succeed())
	g.Expect(syscall.Setuid(another)).To(Succeed())
	s = open(t, options(root))
	expectFetch(t, s, put(t, s, store.Key{Namespace: "other", Name: "app"}, "v1"))
	linked, ok, err := s.Link(t.Context(), store.Key{Namespace: "third", Name: "app"}, v2.SHA256)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(ok).To(BeTrue())
	expectFetch(t, s, linked)
	expectFetch(t, s, stored)
}

// No more files can be opened.
func TestTooManyOpenFiles(t *testing.T) {
	root, ok := inRerun()
	if !ok {
		expectRerun(t, nil)
		return
	}
	g := NewWithT(t)
	s := open(t, options(root))
	stored := put(t, s, app, "v1")
	var before syscall.Rlimit
	g.Expect(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before)).To(Succeed())
	g.Expect(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max})).To(Succeed())
	_, putErr := tryPut(t, s, app, "v2")
	_, _, checkErr := s.Check(t.Context(), app, recorded(stored))
	g.Expect(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before)).To(Succeed())

	expectDiskFault(t, putErr, "limit of open files")
	g.Expect(checkErr).To(MatchError(ContainSubstring("limit of open files")))
	g.Expect(published(t, root)).To(HaveLen(1), "what cannot be read for now is not taken for damaged")
	put(t, s, app, "v2")
}

// A volume of its own, small, that fills up and turns read-only. Where user
// namespaces are forbidden no volume can be made, and what the operating
// system would say is covered by the table of TestRemedy.
func TestVolume(t *testing.T) {
	root, ok := inRerun()
	if !ok {
		expectRerun(t, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		})
		return
	}
	g := NewWithT(t)
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=256k,nr_inodes=40"); err != nil {
		t.Logf("no volume can be mounted here: %v", err)
		return
	}
	s := open(t, options(root))
	stored := put(t, s, app, "v1")

	// What is ready to be stored meets a full volume later than what is not.
	ready, forget, err := s.Scratch()
	g.Expect(err).NotTo(HaveOccurred())
	file := write(t, ready, "v2")
	free := fill(t, root, "inodes", 1)
	_, err = s.Put(t.Context(), store.Key{Namespace: "other", Name: "app"}, file)
	expectDiskFault(t, err, "no space or inodes left")
	_, err = tryPut(t, s, store.Key{Namespace: "other", Name: "app"}, "v2")
	expectDiskFault(t, err, "no space or inodes left")
	forget()
	g.Expect(s.Close()).To(Succeed())
	s, err = store.Open(options(root))
	g.Expect(err).NotTo(HaveOccurred(), "a full volume still serves and collects")
	expectFetch(t, s, stored)
	free()
	free = fill(t, root, "space", 64<<10)
	dir, remove, err := s.Scratch()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(filepath.Join(dir, "big"), []byte(strings.Repeat("x", 128<<10)), 0o600)).To(MatchError(syscall.ENOSPC))
	remove()
	free()
	v2 := put(t, s, app, "v2")
	ready, _, err = s.Scratch()
	g.Expect(err).NotTo(HaveOccurred())
	file = write(t, ready, "v3")

	g.Expect(syscall.Mount("", root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, "")).To(Succeed())
	_, err = s.Put(t.Context(), app, file)
	expectDiskFault(t, err, "mount it writable")
	_, err = tryPut(t, s, app, "v3")
	expectDiskFault(t, err, "mount it writable")
	_, _, err = s.Link(t.Context(), store.Key{Namespace: "other", Name: "app"}, v2.SHA256)
	expectDiskFault(t, err, "mount it writable")
	expectDiskFault(t, s.Remove(t.Context(), app), "mount it writable")
	expectFetch(t, s, v2)
	g.Expect(s.Close()).To(Succeed())
	_, err = store.Open(options(root))
	expectDiskFault(t, err, "mount it writable")
	g.Expect(syscall.Mount("", root, "", syscall.MS_REMOUNT, "")).To(Succeed())
	s = open(t, options(root))
	put(t, s, app, "v3")
	g.Expect(s.Close()).To(Succeed())
	expectWhole(t, root)
}

// fill uses a volume up with files of a size, and returns what frees it.
func fill(t *testing.T, root, name string, size int) (free func()) {
	t.Helper()
	folder := filepath.Join(root, name)
	NewWithT(t).Expect(os.Mkdir(folder, 0o750)).To(Succeed())
	for i := 0; ; i++ {
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i)), make([]byte, size), 0o600); err != nil {
			NewWithT(t).Expect(err).To(MatchError(syscall.ENOSPC))
			return func() { NewWithT(t).Expect(os.RemoveAll(folder)).To(Succeed()) }
		}
	}
}

func expectRerun(t *testing.T, attributes *syscall.SysProcAttr) {
	t.Helper()
	root, err := os.MkdirTemp("", "store")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(os.RemoveAll(root)).To(Succeed()) })
	cmd := rerun(t, root)
	cmd.SysProcAttr = attributes
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil && attributes != nil {
		t.Logf("no namespace can be made here: %v", err)
		return
	}
	NewWithT(t).Expect(cmd.Wait()).To(Succeed(), out.String())
}
