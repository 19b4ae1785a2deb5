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

package main

import (
	"archive/tar"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

func TestTheWayUpEnds(t *testing.T) {
	g := NewWithT(t)
	g.Expect(slices.Collect(upwardsFrom(filepath.FromSlash("/a/b")))).To(Equal([]string{filepath.FromSlash("/a/b"), filepath.FromSlash("/a"), filepath.FromSlash("/")}))
	g.Expect(slices.Collect(upwardsFrom(filepath.FromSlash("/")))).To(Equal([]string{filepath.FromSlash("/")}))
}

// TestAFileSystemWithoutPermissionsHasTheSameFiles takes from the stage what such
// a file system would not have kept.
func TestAFileSystemWithoutPermissionsHasTheSameFiles(t *testing.T) {
	g := NewWithT(t)
	from := folder(t, map[string]string{"run.sh": "#!/bin/sh\n"})
	g.Expect(os.Chmod(filepath.Join(from, "run.sh"), 0o755)).To(Succeed())
	root, err := os.OpenRoot(from)
	g.Expect(err).NotTo(HaveOccurred())
	defer root.Close()
	packed, err := format.Pack(t.Context(), root, t.TempDir(), format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	s, err := newStage(folder(t, map[string]string{"run.sh": "#!/bin/sh\n"}))
	g.Expect(err).NotTo(HaveOccurred())
	defer s.close()
	pulled, err := readTree(t.Context(), packed.Path, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.overwritten).To(Equal([]string{"run.sh"}))

	g.Expect(s.fresh.Chmod("run.sh", 0o666)).To(Succeed())
	p, err = s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.overwritten).To(BeEmpty())
}

// ending is a context that is cancelled when it was looked at some times.
type ending struct {
	context.Context

	left int
}

func (e *ending) Err() error {
	if e.left--; e.left < 0 {
		return context.Canceled
	}
	return nil
}

// watching is a context that calls look whenever it is looked at, with how often it
// was.
type watching struct {
	context.Context

	looked int
	look   func(looked int) error
}

func (w *watching) Err() error {
	w.looked++
	return w.look(w.looked)
}

// TestWhatCannotBeMovedBackIsKept has somebody make a folder where a file was
// before.
func TestWhatCannotBeMovedBackIsKept(t *testing.T) {
	g := NewWithT(t)
	dir := folder(t, map[string]string{"a.yaml": "old a", "z.yaml": "old z"})
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "z.yaml"}), 0o600)).To(Succeed())
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())

	theirs := map[string]string{"a.yaml/theirs": "their own"}
	err = s.carryOut(&watching{Context: t.Context(), look: func(looked int) error {
		if looked < 4 { // two to keep, one to overwrite
			return nil
		}
		g.Expect(os.Remove(filepath.Join(dir, "a.yaml"))).To(Succeed())
		write(t, dir, theirs)
		return context.Canceled
	}}, p)
	g.Expect(err).To(MatchError(context.Canceled))
	old := filepath.Join(dir, s.name, oldFolder)
	g.Expect(err).To(MatchError(ContainSubstring(old)))
	s.close()
	g.Expect(treeOf(t, old)).To(HaveKeyWithValue("a.yaml", "old a"))
	left := treeOf(t, dir)
	g.Expect(left).To(And(HaveKeyWithValue("z.yaml", "old z"), HaveKeyWithValue("a.yaml/theirs", "their own")))
}

// TestAFileThatIsNewerThanThePlanStays has somebody make a file while another one
// thinks about the question.
func TestAFileThatIsNewerThanThePlanStays(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "b.yaml"}), 0o600)).To(Succeed())
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	theirs := map[string]string{"b.yaml": "their own"}
	write(t, dir, theirs)

	g.Expect(s.carryOut(t.Context(), p)).To(MatchError(ContainSubstring(`"b.yaml" was made`)))
	s.close()
	g.Expect(treeOf(t, dir)).To(Equal(theirs))
}

// TestEachFileIsOldOrNewAtEveryMoment looks at the folder before each file that is
// kept or moved.
func TestEachFileIsOldOrNewAtEveryMoment(t *testing.T) {
	g := NewWithT(t)
	old := map[string]string{"a.yaml": "old a", "app/b.yaml": "old b", "link.yaml": "outside", "mine.yaml": "mine"}
	dir := folder(t, old)
	outside := filepath.Join(folder(t, map[string]string{"a": "outside"}), "a")
	g.Expect(os.Remove(filepath.Join(dir, "link.yaml"))).To(Succeed())
	g.Expect(os.Symlink(outside, filepath.Join(dir, "link.yaml"))).To(Succeed())
	names := []string{"a.yaml", "app/b.yaml", "link.yaml", "new/c.yaml"}
	var headers []tar.Header
	for _, name := range names {
		headers = append(headers, tar.Header{Name: name})
	}
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, archived(t, headers...), 0o600)).To(Succeed())
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	w := &watching{Context: t.Context(), look: func(int) error {
		seen := treeOf(t, dir)
		for name, content := range old {
			g.Expect(seen[name]).To(Or(Equal(content), Equal(name)), name)
		}
		g.Expect(seen["new/c.yaml"]).To(Or(BeEmpty(), Equal("new/c.yaml")))
		return nil
	}}
	g.Expect(s.carryOut(w, p)).To(Succeed())
	g.Expect(w.looked).To(Equal(len(p.overwritten)*2 + len(p.added)))
	s.close()
	want := map[string]string{"mine.yaml": "mine"}
	for _, name := range names {
		want[name] = name
	}
	g.Expect(treeOf(t, dir)).To(Equal(want))
	g.Expect(os.ReadFile(outside)).To(BeEquivalentTo("outside"))
}

// TestANewFolderIsMovedAsAWhole holds that the number of files in a folder that the target
// does not have costs no time once they are unpacked: what is moved back has no deadline.
func TestANewFolderIsMovedAsAWhole(t *testing.T) {
	g := NewWithT(t)
	dir := folder(t, map[string]string{"there/mine.yaml": "mine"})
	headers := []tar.Header{{Name: "b.yaml"}, {Name: "there/new/c.yaml"}}
	for i := range 50 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("a/%d/x/y/z.yaml", i)})
	}
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, archived(t, headers...), 0o600)).To(Succeed())
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer s.close()
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.added).To(ConsistOf("a", "b.yaml", "there/new"))

	before := modes(t, filepath.Join(dir, "there"))
	g.Expect(s.carryOut(&ending{Context: t.Context(), left: 2}, p)).To(MatchError(context.Canceled))
	g.Expect(modes(t, filepath.Join(dir, "there"))).To(Equal(before))
	g.Expect(filepath.Join(dir, "a")).NotTo(BeAnExistingFile())
	g.Expect(s.carryOut(t.Context(), p)).To(Succeed())
	g.Expect(treeOf(t, filepath.Join(dir, "a"))).To(HaveLen(50))
}

// TestTheWorkOfAPullEndsWithItsTime ends the work of a pull for each path of an artifact.
func TestTheWorkOfAPullEndsWithItsTime(t *testing.T) {
	g := NewWithT(t)
	s, err := newStage(folder(t, map[string]string{"mine.yaml": "mine"}))
	g.Expect(err).NotTo(HaveOccurred())
	defer s.close()
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, layerOf(t, tar.Header{Name: "a/b/", Typeflag: tar.TypeDir, Mode: 0o700}), 0o600)).To(Succeed())
	_, err = readTree(&ending{Context: t.Context()}, packed, s.fresh)
	g.Expect(err).To(MatchError(context.Canceled))
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(pulled.checkNames(&ending{Context: t.Context()})).To(MatchError(context.Canceled))
	g.Expect(pulled.checkRepositories(&ending{Context: t.Context()}, s.target)).To(MatchError(context.Canceled))
	named := &tree{files: []treeFile{{path: "bin/a", mode: 0o755}}}
	_, err = hazards(&ending{Context: t.Context()}, named)
	g.Expect(err).To(MatchError(context.Canceled))
	_, err = named.onPath(&ending{Context: t.Context()}, ".", nil)
	g.Expect(err).To(MatchError(context.Canceled))
	_, err = byPath(&ending{Context: t.Context()}, named)
	g.Expect(err).To(MatchError(context.Canceled))
	_, err = s.missing(&ending{Context: t.Context()}, pulled)
	g.Expect(err).To(MatchError(context.Canceled))
	_, err = s.other(&ending{Context: t.Context()}, pulled)
	g.Expect(err).To(MatchError(context.Canceled))
}

// TestAMoveThatIsInterruptedIsUndone holds that nothing is moved any more once
// somebody has ended the work, and that what was moved before is moved back.
func TestAMoveThatIsInterruptedIsUndone(t *testing.T) {
	for name, moved := range map[string]int{
		"before the first file is kept":  0,
		"before the first file is moved": 2,
		"after the first file":           3,
		"before the last file":           5,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			old := map[string]string{"a.yaml": "old a", "z.yaml": "old z"}
			dir := folder(t, old)
			before := modes(t, dir)
			s, err := newStage(dir)
			g.Expect(err).NotTo(HaveOccurred())
			packed := filepath.Join(t.TempDir(), "layer")
			layer := archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "b.yaml"}, tar.Header{Name: "new/c.yaml"}, tar.Header{Name: "z.yaml"})
			g.Expect(os.WriteFile(packed, layer, 0o600)).To(Succeed())
			pulled, err := readTree(t.Context(), packed, s.fresh)
			g.Expect(err).NotTo(HaveOccurred())
			p, err := s.plan(t.Context(), pulled)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(p.added).To(HaveLen(2))
			g.Expect(p.overwritten).To(HaveLen(2))

			err = s.carryOut(&ending{Context: t.Context(), left: moved}, p)
			g.Expect(err).To(MatchError(context.Canceled))
			s.close()
			g.Expect(treeOf(t, dir)).To(Equal(old))
			g.Expect(modes(t, dir)).To(Equal(before), "folders and the stage are gone")
		})
	}
}
