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
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/store"
)

// A process is killed in the midst of publications, several times in a row on
// the same storage. What it had acknowledged is there, and nothing is half there.
func TestKill(t *testing.T) {
	if root, ok := inRerun(); ok {
		publishUntilKilled(t, root)
	}
	g := NewWithT(t)
	root := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 6 {
		cmd := rerun(t, root)
		out, err := cmd.StdoutPipe()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(cmd.Start()).To(Succeed())
		lines := bufio.NewScanner(out)
		for i := 0; i < 20+17*round && lines.Scan(); {
			if p, ok := strings.CutPrefix(lines.Text(), "stored "); ok {
				acknowledged[p] = true
				i++
			}
		}
		g.Expect(cmd.Process.Kill()).To(Succeed())
		g.Expect(cmd.Wait()).To(MatchError("signal: killed"))
		expectWhole(t, root)
	}
	g.Expect(len(acknowledged)).To(BeNumerically(">", 100))
	for p := range acknowledged {
		g.Expect(filepath.Join(root, p)).To(BeARegularFile())
	}
}

func publishUntilKilled(t *testing.T, root string) {
	t.Helper()
	s := open(t, options(root))
	var workers sync.WaitGroup
	for worker := range 4 {
		workers.Go(func() {
			for i := 0; ; i++ {
				content := strings.Repeat(fmt.Sprintf("%d %d %d ", os.Getpid(), worker, i), 4000)
				key := store.Key{Namespace: "apps", Name: fmt.Sprintf("app-%d", i%10)}
				stored := put(t, s, key, content)
				fmt.Println("stored " + stored.Path) //nolint:forbidigo // read by the process that waits to kill this one
				put(t, s, store.Key{Namespace: "victim", Name: key.Name}, content)
				NewWithT(t).Expect(s.Remove(t.Context(), store.Key{Namespace: "victim", Name: key.Name})).To(Succeed())
			}
		})
	}
	workers.Wait()
}

// expectWhole opens a storage and reads all that is in it.
func expectWhole(t *testing.T, root string) {
	t.Helper()
	g := NewWithT(t)
	s := open(t, options(root))
	defer s.Close()
	g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())
	for _, name := range files(t, root) {
		digest := strings.TrimSuffix(filepath.Base(name), ".tar.gz")
		g.Expect(digestOf(read(t, root, name))).To(Equal(digest), name)
	}
}

// Something stands where a folder must be: the fault that needs no privileges
// and no special volume.
func TestObstacle(t *testing.T) {
	for name, obstacle := range map[string]string{
		"a file stands where blobs go":                  "blobs",
		"a file stands where published files go":        "externalartifact",
		"a file stands where the namespace's folder is": "externalartifact/apps",
		"a file stands where the key's folder is":       "externalartifact/apps/app",
		"a file stands where scratch folders go":        "tmp",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			root := t.TempDir()
			s := open(t, options(root))
			place := filepath.Join(root, obstacle)
			g.Expect(os.RemoveAll(place)).To(Succeed())
			g.Expect(os.MkdirAll(filepath.Dir(place), 0o750)).To(Succeed())
			g.Expect(os.WriteFile(place, nil, 0o600)).To(Succeed())

			_, err := tryPut(t, s, app, "v1")
			expectDiskFault(t, err, "give the controller a folder of its own")
			g.Expect(files(t, filepath.Join(root, "externalartifact"))).NotTo(ContainElement(HaveSuffix(".tar.gz")))

			g.Expect(os.Remove(place)).To(Succeed())
			stored := put(t, s, app, "v1")
			g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
			g.Expect(files(t, filepath.Join(root, "tmp"))).To(BeEmpty())
		})
	}

	t.Run("something removes the file that is to be stored", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		dir, remove, err := s.Scratch()
		g.Expect(err).NotTo(HaveOccurred())
		defer remove()
		file := write(t, dir, "v1")
		g.Expect(os.Remove(file.Path)).To(Succeed())
		_, err = s.Put(t.Context(), app, file)
		expectDiskFault(t, err, "nothing else removes files from")
		g.Expect(published(t, root)).To(BeEmpty())
	})

	t.Run("the storage path is gone for a while", func(t *testing.T) {
		g := NewWithT(t)
		root := filepath.Join(t.TempDir(), "data")
		g.Expect(os.Mkdir(root, 0o750)).To(Succeed())
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		g.Expect(os.Rename(root, root+".away")).To(Succeed())
		_, err := tryPut(t, s, app, "v2")
		expectDiskFault(t, err, "existing folder")
		_, err = s.Collect(t.Context(), nil)
		expectDiskFault(t, err, "existing folder")
		expectDiskFault(t, s.Remove(t.Context(), app), "existing folder")
		g.Expect(os.Rename(root+".away", root)).To(Succeed())
		g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
		put(t, s, app, "v2")
	})
}
