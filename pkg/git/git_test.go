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

package git

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// run runs git in a folder, without settings of this machine.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "git", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull,
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05+01:00", "GIT_COMMITTER_DATE=2026-01-02T03:04:05+01:00")
	out, err := command.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	return strings.TrimSpace(string(out))
}

// repository makes a repository with a few commits of a file that grows.
func repository(t *testing.T, options ...string) string {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	run(t, dir, append([]string{"init", "--quiet", "--initial-branch=main"}, options...)...)
	for i := range 3 {
		for j := range 30 {
			name := filepath.Join(dir, "sub", fmt.Sprintf("%d.yaml", j))
			g.Expect(os.MkdirAll(filepath.Dir(name), 0o755)).To(Succeed())
			g.Expect(os.WriteFile(name, fmt.Appendf(nil, "a: %d\nb: %d\n", j, i*(j%2)), 0o644)).To(Succeed())
		}
		run(t, dir, "add", ".")
		run(t, dir, "commit", "--quiet", "--message=one")
	}
	run(t, dir, "remote", "add", "origin", "https://example.com/app.git")
	return dir
}

// copied copies a repository.
func copied(t *testing.T, from string) string {
	t.Helper()
	dir := t.TempDir()
	NewWithT(t).Expect(os.CopyFS(dir, os.DirFS(from))).To(Succeed())
	return dir
}

// listed reads all files of the commit that is checked out, as git ls-tree prints
// them.
func listed(t *testing.T, r *Repository) (string, error) {
	t.Helper()
	id, _, err := r.Head()
	if err != nil {
		return "", err
	}
	commit, err := r.Commit(t.Context(), id)
	if err != nil {
		return "", err
	}
	var lines []string
	var list func(tree ID, folder string) error
	list = func(tree ID, folder string) error {
		entries, err := r.Tree(t.Context(), tree)
		for _, e := range entries {
			if e.Mode == ModeTree {
				if err := list(e.ID, folder+e.Name+"/"); err != nil {
					return err
				}
				continue
			}
			if _, err := r.Blob(t.Context(), e.ID); err != nil {
				return err
			}
			lines = append(lines, fmt.Sprintf("%06o blob %s\t%s%s", e.Mode, e.ID, folder, e.Name))
		}
		return err
	}
	err = list(commit.Tree, "")
	return strings.Join(lines, "\n"), err
}

func TestRepositoriesAreReadAsGitReadsThem(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T) string{
		"loose objects": func(t *testing.T) string { t.Helper(); return repository(t) },
		"a pack with deltas": func(t *testing.T) string {
			t.Helper()
			dir := repository(t)
			run(t, dir, "repack", "-adfq", "--depth=50", "--window=50")
			run(t, dir, "pack-refs", "--all")
			return dir
		},
		"a pack whose deltas name their base": func(t *testing.T) string {
			t.Helper()
			dir := repository(t)
			run(t, dir, "config", "repack.useDeltaBaseOffset", "false")
			run(t, dir, "repack", "-adfq", "--depth=50", "--window=50")
			return dir
		},
		"several packs and loose objects": func(t *testing.T) string {
			t.Helper()
			dir := repository(t)
			run(t, dir, "repack", "-dq")
			NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, "more.yaml"), []byte("a: 1\n"), 0o755)).To(Succeed())
			run(t, dir, "add", ".")
			run(t, dir, "commit", "--quiet", "--message=two")
			run(t, dir, "repack", "-dq")
			run(t, dir, "rm", "--quiet", "more.yaml")
			run(t, dir, "commit", "--quiet", "--message=three")
			return dir
		},
		"SHA-256": func(t *testing.T) string {
			t.Helper()
			dir := repository(t, "--object-format=sha256")
			run(t, dir, "repack", "-adfq")
			return dir
		},
		"a shallow clone": func(t *testing.T) string {
			t.Helper()
			dir := t.TempDir()
			run(t, dir, "clone", "--quiet", "--depth=1", "file://"+repository(t), ".")
			return dir
		},
		"a linked working tree": func(t *testing.T) string {
			t.Helper()
			dir := filepath.Join(t.TempDir(), "linked")
			run(t, repository(t), "worktree", "add", "--quiet", "-b", "feature/x", dir)
			return dir
		},
		"a commit by itself": func(t *testing.T) string {
			t.Helper()
			dir := repository(t)
			run(t, dir, "checkout", "--quiet", "--detach")
			return dir
		},
		"a submodule": func(t *testing.T) string {
			t.Helper()
			dir := repository(t)
			run(t, dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", repository(t), "base")
			return filepath.Join(dir, "base")
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := prepare(t)
			r, err := Find(filepath.Join(dir, "sub"))
			g.Expect(err).NotTo(HaveOccurred())
			defer r.Close()
			id, branch, err := r.Head()
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(id.String()).To(Equal(run(t, dir, "rev-parse", "HEAD")))
			g.Expect(branch).To(Equal(run(t, dir, "branch", "--show-current")))
			g.Expect(r.Worktree()).To(Equal(run(t, dir, "rev-parse", "--show-toplevel")))
			g.Expect(r.Origin()).To(Equal(run(t, dir, "config", "--get", "remote.origin.url")))
			g.Expect(listed(t, r)).To(Equal(run(t, dir, "ls-tree", "-r", "HEAD")))
			commit, err := r.Commit(t.Context(), id)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(commit.Time).To(Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)))
		})
	}
}

func TestTagsAreChosenAsGitDescribesACommit(t *testing.T) {
	good := repository(t)
	for name, tag := range map[string]func(t *testing.T, dir string){
		"no tag": func(t *testing.T, dir string) { t.Helper() },
		"one":    func(t *testing.T, dir string) { t.Helper(); run(t, dir, "tag", "v1") },
		"two":    func(t *testing.T, dir string) { t.Helper(); run(t, dir, "tag", "v2"); run(t, dir, "tag", "v1") },
		"one that is annotated": func(t *testing.T, dir string) {
			t.Helper()
			run(t, dir, "tag", "a")
			run(t, dir, "tag", "-am", "b", "b")
		},
		"one in a folder":        func(t *testing.T, dir string) { t.Helper(); run(t, dir, "tag", "app/v1") },
		"one of an older commit": func(t *testing.T, dir string) { t.Helper(); run(t, dir, "tag", "old", "HEAD~1") },
	} {
		for _, packed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, packed: %t", name, packed), func(t *testing.T) {
				g := NewWithT(t)
				dir := copied(t, good)
				tag(t, dir)
				if packed {
					run(t, dir, "pack-refs", "--all")
				}
				want, _ := exec.CommandContext(t.Context(), "git", "-C", dir, "describe", "--tags", "--exact-match", "HEAD").Output() // empty without a tag
				r, err := Open(dir)
				g.Expect(err).NotTo(HaveOccurred())
				defer r.Close()
				id, _, err := r.Head()
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(r.Tag(t.Context(), id)).To(Equal(strings.TrimSpace(string(want))))
			})
		}
	}
}

// loose writes an object under a name, which may be another object's.
func loose(t *testing.T, dir, name, announced string, content []byte) {
	t.Helper()
	g := NewWithT(t)
	var file bytes.Buffer
	w := zlib.NewWriter(&file)
	_, err := w.Write(append([]byte(announced+"\x00"), content...))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.Close()).To(Succeed())
	path := filepath.Join(dir, ".git/objects", name[:2], name[2:])
	g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	_ = os.Remove(path) // git writes it read-only
	g.Expect(os.WriteFile(path, file.Bytes(), 0o644)).To(Succeed())
}

// commitTree commits a tree that git would not make.
func commitTree(t *testing.T, dir, body string) {
	t.Helper()
	sum := ID(make([]byte, 20)).hash("tree", int64(len(body)))
	sum.Write([]byte(body))
	name := ID(sum.Sum(nil)).String()
	loose(t, dir, name, fmt.Sprintf("tree %d", len(body)), []byte(body))
	run(t, dir, "update-ref", "refs/heads/main", run(t, dir, "commit-tree", "-m", "one", name))
}

func TestRepositoriesThatAreRefused(t *testing.T) {
	good := repository(t)
	put := func(t *testing.T, dir, name, text string) {
		t.Helper()
		g := NewWithT(t)
		g.Expect(os.RemoveAll(filepath.Join(dir, name))).To(Succeed())
		g.Expect(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)).To(Succeed())
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		says  string
	}{
		"a commit with the content of another": {func(t *testing.T, dir string) {
			t.Helper()
			body := run(t, dir, "cat-file", "commit", "HEAD~1") + "\n"
			loose(t, dir, run(t, dir, "rev-parse", "HEAD"), fmt.Sprintf("commit %d", len(body)), []byte(body))
		}, "it is corrupt"},
		"a tree with the content of another": {func(t *testing.T, dir string) {
			t.Helper()
			loose(t, dir, run(t, dir, "rev-parse", "HEAD^{tree}"), "tree 0", nil)
		}, "it is corrupt"},
		"a tree with a way up": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "40000 ..\x00"+strings.Repeat("x", 20))
		}, "it is corrupt"},
		"a tree with a repository": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "40000 .GIT\x00"+strings.Repeat("x", 20))
		}, "it is corrupt"},
		"a tree with a path": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "100644 a/b\x00"+strings.Repeat("x", 20))
		}, "it is corrupt"},
		"a tree with a name that is there twice": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "120000 a\x00"+strings.Repeat("x", 20)+"120000 a\x00"+strings.Repeat("y", 20))
		}, "it is corrupt"},
		"a tree with a mode that has a sign": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "-140000 a\x00"+strings.Repeat("x", 20))
		}, "it is corrupt"},
		"a tree that is cut off": {func(t *testing.T, dir string) {
			t.Helper()
			commitTree(t, dir, "100644 a\x00x")
		}, "it is corrupt"},
		"an object that announces more than it has": {func(t *testing.T, dir string) {
			t.Helper()
			loose(t, dir, run(t, dir, "rev-parse", "HEAD"), "commit 1000", nil)
		}, "it is corrupt"},
		"an object that announces too much": {func(t *testing.T, dir string) {
			t.Helper()
			loose(t, dir, run(t, dir, "rev-parse", "HEAD"), "commit 99999999999", nil)
		}, "it has more than"},
		"an object that is large": {func(t *testing.T, dir string) {
			t.Helper()
			loose(t, dir, run(t, dir, "rev-parse", "HEAD"), fmt.Sprintf("commit %d", MaxObjectBytes+1), make([]byte, MaxObjectBytes+1))
		}, "it has more than"},
		"an object without an end of its head": {func(t *testing.T, dir string) {
			t.Helper()
			loose(t, dir, run(t, dir, "rev-parse", "HEAD"), strings.Repeat("x", 1<<20), nil)
		}, "it is corrupt"},
		"objects of another repository": {func(t *testing.T, dir string) {
			t.Helper()
			other := t.TempDir()
			run(t, other, "clone", "--quiet", "--bare", dir, ".")
			NewWithT(t).Expect(os.RemoveAll(filepath.Join(dir, ".git/objects"))).To(Succeed())
			put(t, dir, ".git/objects/info/alternates", filepath.Join(other, "objects")+"\n")
		}, "may be a partial clone, or share the objects of another one"},
		"objects behind a link": {func(t *testing.T, dir string) {
			t.Helper()
			other := filepath.Join(t.TempDir(), "objects")
			NewWithT(t).Expect(os.Rename(filepath.Join(dir, ".git/objects"), other)).To(Succeed())
			NewWithT(t).Expect(os.Symlink(other, filepath.Join(dir, ".git/objects"))).To(Succeed())
		}, "path escapes from parent"},
		"a repository behind a link": {func(t *testing.T, dir string) {
			t.Helper()
			other := filepath.Join(t.TempDir(), "git")
			NewWithT(t).Expect(os.Rename(filepath.Join(dir, ".git"), other)).To(Succeed())
			NewWithT(t).Expect(os.Symlink(other, filepath.Join(dir, ".git"))).To(Succeed())
		}, "it is neither a folder nor a file"},
		"a file that names a repository of nobody's working tree": {func(t *testing.T, dir string) {
			t.Helper()
			other := copied(t, good)
			NewWithT(t).Expect(os.RemoveAll(filepath.Join(dir, ".git"))).To(Succeed())
			put(t, dir, ".git", "gitdir: "+filepath.Join(other, ".git")+"\n")
		}, "is not of this working tree"},
		"a file that names the repository of another working tree": {func(t *testing.T, dir string) {
			t.Helper()
			other := copied(t, good)
			run(t, other, "worktree", "add", "--quiet", "-b", "x", filepath.Join(t.TempDir(), "linked"))
			NewWithT(t).Expect(os.RemoveAll(filepath.Join(dir, ".git"))).To(Succeed())
			put(t, dir, ".git", "gitdir: "+filepath.Join(other, ".git/worktrees/linked")+"\n")
		}, "is not of this working tree"},
		"a file that names nothing":     {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git", "x\n") }, "does not begin with"},
		"no HEAD":                       {func(t *testing.T, dir string) { t.Helper(); _ = os.Remove(filepath.Join(dir, ".git/HEAD")) }, "HEAD"},
		"HEAD of nothing":               {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "x\n") }, "is no name of an object"},
		"HEAD that leads out":           {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: ../../x\n") }, "is no reference"},
		"HEAD that leads out of refs":   {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: refs/heads/../../../x\n") }, "is no reference"},
		"a branch with a line":          {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: refs/heads/a\x1bb\n") }, "is no reference"},
		"a branch that looks like more": {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: refs/heads/main@sha1:00\n") }, "is no reference"},
		"a reference that leads to HEAD": {func(t *testing.T, dir string) {
			t.Helper()
			put(t, dir, ".git/refs/heads/main", "ref: refs/heads/main\n")
		}, "too many references"},
		"references in a table":     {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: refs/heads/.invalid\n") }, "reftable"},
		"a branch without a commit": {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/HEAD", "ref: refs/heads/new\n") }, "there is no commit yet"},
		"settings of endless size":  {func(t *testing.T, dir string) { t.Helper(); put(t, dir, ".git/config", strings.Repeat("#", 2<<20)) }, "has more than"},
		"a commit that is a tree": {func(t *testing.T, dir string) {
			t.Helper()
			put(t, dir, ".git/refs/heads/main", run(t, dir, "rev-parse", "HEAD^{tree}"))
		}, "is a tree, expected a commit"},
		"a pack that is cut off": {func(t *testing.T, dir string) {
			t.Helper()
			run(t, dir, "repack", "-adfq")
			packs, _ := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.pack")) // the pattern is one
			NewWithT(t).Expect(os.Chmod(packs[0], 0o644)).To(Succeed())
			NewWithT(t).Expect(os.Truncate(packs[0], 40)).To(Succeed())
		}, "it is corrupt"},
		"an index that is cut off": {func(t *testing.T, dir string) {
			t.Helper()
			run(t, dir, "repack", "-adfq")
			indexes, _ := filepath.Glob(filepath.Join(dir, ".git/objects/pack/*.idx")) // the pattern is one
			NewWithT(t).Expect(os.Chmod(indexes[0], 0o644)).To(Succeed())
			NewWithT(t).Expect(os.Truncate(indexes[0], 1100)).To(Succeed())
		}, "it is corrupt"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := copied(t, good)
			c.spoil(t, dir)
			r, err := Find(dir)
			if err == nil {
				defer r.Close()
				_, err = listed(t, r)
			}
			g.Expect(err).To(MatchError(ContainSubstring(c.says)))
		})
	}
}

// TestAFolderThatLooksLikeARepositoryIsContent has no .git.
func TestAFolderThatLooksLikeARepositoryIsContent(t *testing.T) {
	g := NewWithT(t)
	bare := t.TempDir()
	run(t, bare, "init", "--quiet", "--bare")
	_, err := Find(bare)
	g.Expect(err).To(MatchError(ErrNone))
}

// FuzzPatch makes objects of bases and deltas.
func FuzzPatch(f *testing.F) {
	f.Add([]byte("base"), []byte("\x04\x04\x90\x04"))
	f.Add([]byte("base"), []byte("\x04\x06\x90\x04\x02xy"))
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		if out, err := patch(base, delta); err == nil && len(out) > MaxObjectBytes {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// TestHalfOfACollisionHasNoName hashes the start of the first two files that were made
// to have the same SHA-1 (https://shattered.io).
func TestHalfOfACollisionHasNoName(t *testing.T) {
	g := NewWithT(t)
	one, err := base64.StdEncoding.DecodeString("JVBERi0xLjMKJeLjz9MKCgoxIDAgb2JqCjw8L1dpZHRoIDIgMCBSL0hlaWdodCAzIDAgUi9UeXBlIDQgMCBSL1N1YnR5cGUgNSAwIFIvRmlsdGVyIDYgMCBSL0NvbG9yU3BhY2Ug" +
		"NyAwIFIvTGVuZ3RoIDggMCBSL0JpdHNQZXJDb21wb25lbnQgOD4+CnN0cmVhbQr/2P/+ACRTSEEtMSBpcyBkZWFkISEhISGFL+wJIzl1nDmxocY8TJfh//4Bc0bckWa2fhGPApq2IbJWD/nKZ8yox/hb" +
		"qEx5AwwrPeIY+G2zqQkB1d9FwU8m/t+z3DjpasIv571yjw5FvOBG0jxXD+sUE5i7VS71oKgr4zH+pIA3uLXXHw4zLt+TrDUA603cDezBqGR5DHgsdiFWYN0wl5HQa9CvP5jNpLxGKbE=")
	g.Expect(err).NotTo(HaveOccurred())
	sum := newSHA1()
	sum.Write(one)
	g.Expect(sum.Sum(nil)).To(Equal(make([]byte, sha1.Size)))
	sum.Reset()
	sum.Write(one[1:])
	known := sha1.Sum(one[1:])
	g.Expect(sum.Sum(nil)).To(Equal(known[:]))
}
