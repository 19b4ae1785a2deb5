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
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

// repository commits manifests to a new repository.
func repository(t *testing.T) string {
	t.Helper()
	dir := manifests(t)
	ask(t, dir, "init", "--quiet", "--initial-branch=main")
	ask(t, dir, "add", ".")
	ask(t, dir, "commit", "--quiet", "--message=one")
	ask(t, dir, "remote", "add", "origin", "https://ci-token:x-oauth@github.com/org/app.git")
	return dir
}

// annotationsFor returns what an artifact of a folder is annotated with.
func (e environment) annotationsFor(t *testing.T, args ...string) (map[string]string, string) {
	t.Helper()
	g := NewWithT(t)
	run := e.flux(t, append(args, "-t", "example.com/org/app:v1", "--dry-run", "-o", "json")...)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	var got pushed
	g.Expect(json.Unmarshal([]byte(run.out), &got)).To(Succeed())
	return got.Annotations, run.err
}

func TestAnnotationsComeFromGit(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	commit := ask(t, dir, "rev-parse", "HEAD")
	clean := map[string]string{
		sourceAnnotation: "https://github.com/org/app.git", revisionAnnotation: "main@sha1:" + commit, createdAnnotation: "2026-01-02T02:04:05Z",
	}
	for _, path := range []string{dir, filepath.Join(dir, "app"), filepath.Join(dir, "app/config.yaml")} {
		got, _ := environment{}.annotationsFor(t, "-f", path)
		g.Expect(got).To(Equal(clean), path)
	}

	got, _ := environment{"SOURCE_DATE_EPOCH": "0"}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(HaveKeyWithValue(createdAnnotation, "1970-01-01T00:00:00Z"))
	got, _ = environment{}.annotationsFor(t, "-f", dir, "--source", "s", "--revision", "r", "-a", createdAnnotation+"=", "-a", "a=b=c")
	g.Expect(got).To(Equal(map[string]string{sourceAnnotation: "s", revisionAnnotation: "r", "a": "b=c"}))

	// A change elsewhere in the repository is not one of the folder.
	write(t, dir, map[string]string{"more.yaml": "a: 1\n"})
	got, _ = environment{}.annotationsFor(t, "-f", filepath.Join(dir, "app"))
	g.Expect(got).To(Equal(clean))
	got, said := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(Equal(map[string]string{sourceAnnotation: "https://github.com/org/app.git"}), "what was not committed has neither revision nor time")
	g.Expect(said).To(ContainSubstring("changes that are not committed"))
}

// TestFilesThatGitIgnoresAreNotCommitted packs them all the same: a .gitignore
// file is not one that Flux reads.
func TestFilesThatGitIgnoresAreNotCommitted(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	write(t, dir, map[string]string{".gitignore": "secret.yaml\nbuild/\nlogo.png\n", "a b.yaml": "a: 1\n", " äö.yaml": "a: 1\n"})
	ask(t, dir, "add", ".")
	ask(t, dir, "commit", "--quiet", "--message=two")
	revision := HaveKeyWithValue(revisionAnnotation, "main@sha1:"+ask(t, dir, "rev-parse", "HEAD"))
	write(t, dir, map[string]string{"logo.png": "left out by Flux"})
	got, said := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(revision, said)

	write(t, dir, map[string]string{"app/secret.yaml": strings.ReplaceAll(configMap, "name: ", "name: secret-")})
	for _, path := range []string{dir, filepath.Join(dir, "app"), filepath.Join(dir, "app/secret.yaml")} {
		got, said = environment{}.annotationsFor(t, "-f", path)
		g.Expect(got).To(And(HaveLen(1), HaveKey(sourceAnnotation)), path)
		g.Expect(said).To(ContainSubstring("changes that are not committed"))
	}
	got, said = environment{}.annotationsFor(t, "-f", dir, "--ignore-paths", "secret.yaml")
	g.Expect(got).To(revision, said)
	got, _ = environment{}.annotationsFor(t, "-f", filepath.Join(dir, "app/config.yaml"))
	g.Expect(got).To(revision)

	// A repository within that is ignored is none of this one.
	write(t, dir, map[string]string{"build/a.yaml": "a: 1\n"})
	ask(t, filepath.Join(dir, "build"), "init", "--quiet")
	got, _ = environment{}.annotationsFor(t, "-f", dir, "--ignore-paths", "secret.yaml")
	g.Expect(got).NotTo(HaveKey(revisionAnnotation))
}

func TestSubmodulesAreCommitted(t *testing.T) {
	g := NewWithT(t)
	dir, other := repository(t), repository(t)
	ask(t, dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other, "base")
	ask(t, dir, "commit", "--quiet", "--message=two")
	revision := HaveKeyWithValue(revisionAnnotation, "main@sha1:"+ask(t, dir, "rev-parse", "HEAD"))
	got, said := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(revision, said)
	ask(t, dir, "submodule", "--quiet", "deinit", "base")
	got, said = environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(revision, said)
}

func TestRevisionsOfWhatIsCheckedOut(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	commit := ask(t, dir, "rev-parse", "HEAD")
	ask(t, dir, "checkout", "--quiet", "--detach")
	got, _ := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(HaveKeyWithValue(revisionAnnotation, "sha1:"+commit))

	ask(t, dir, "tag", "v1.0.0")
	got, _ = environment{}.annotationsFor(t, "-f", dir)
	g.Expect(got).To(HaveKeyWithValue(revisionAnnotation, "v1.0.0@sha1:"+commit))

	linked := filepath.Join(t.TempDir(), "linked")
	ask(t, dir, "worktree", "add", "--quiet", "-b", "feature/x", linked)
	got, _ = environment{}.annotationsFor(t, "-f", linked)
	g.Expect(got).To(HaveKeyWithValue(revisionAnnotation, "feature/x@sha1:"+commit))
}

// TestACommitOfATimeThatCannotBeWritten has the warning say what the artifact lacks.
func TestACommitOfATimeThatCannotBeWritten(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	file := filepath.Join(t.TempDir(), "commit")
	commit := strings.Replace(ask(t, dir, "cat-file", "commit", "HEAD"), "committer a <a@example.com> 1767319445", "committer a <a@example.com> 999999999999", 1)
	g.Expect(os.WriteFile(file, []byte(commit), 0o600)).To(Succeed())
	ask(t, dir, "update-ref", "HEAD", ask(t, dir, "hash-object", "-t", "commit", "-w", file))
	got, said := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(said).To(ContainSubstring("warning: revision and time are not known"))
	g.Expect(got).To(And(HaveLen(1), HaveKey(sourceAnnotation)))
}

func TestFoldersWithoutFacts(t *testing.T) {
	g := NewWithT(t)
	got, said := environment{}.annotationsFor(t, "-f", manifests(t))
	g.Expect(got).To(BeEmpty())
	g.Expect(said).NotTo(ContainSubstring("warning"))

	empty := manifests(t)
	ask(t, empty, "init", "--quiet")
	ask(t, empty, "remote", "add", "origin", "https://github.com/org/app.git")
	got, said = environment{}.annotationsFor(t, "-f", empty)
	g.Expect(got).To(Equal(map[string]string{sourceAnnotation: "https://github.com/org/app.git"}), "there is no commit yet")
	g.Expect(said).To(ContainSubstring("changes that are not committed"))

	broken := manifests(t)
	write(t, broken, map[string]string{".git/nothing": ""})
	got, said = environment{}.annotationsFor(t, "-f", broken)
	g.Expect(got).To(BeEmpty())
	g.Expect(said).To(ContainSubstring("warning: source, revision and time are not known: cannot read the repository "))
}

// TestNoProgramOfARepositoryRuns gives git a repository that wants to run one.
func TestNoProgramOfARepositoryRuns(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	trap := filepath.Join(t.TempDir(), "ran")
	ask(t, dir, "config", "core.fsmonitor", "touch "+trap)
	_, err := exec.LookPath("touch")
	g.Expect(err).NotTo(HaveOccurred())
	_, _ = environment{}.annotationsFor(t, "-f", dir)
	g.Expect(trap).NotTo(BeAnExistingFile())
}

func TestTheTimeIsInTheConfigToo(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	created := func() any {
		body, err := crane.Config(ref)
		g.Expect(err).NotTo(HaveOccurred())
		var config map[string]any
		g.Expect(json.Unmarshal(body, &config)).To(Succeed())
		return config["created"]
	}
	run := environment{"SOURCE_DATE_EPOCH": "1700000000"}.flux(t, "-f", manifests(t), "-t", ref)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(created()).To(Equal("2023-11-14T22:13:20Z"))
	must(t, "-f", manifests(t), "-t", ref)
	g.Expect(created()).To(BeNil())
	_, m := raw(t, ref)
	g.Expect(m.Annotations).NotTo(HaveKey(createdAnnotation))
}

func TestAddressesLosePasswords(t *testing.T) {
	g := NewWithT(t)
	for address, want := range map[string]string{
		"https://token@github.com/org/app.git": "https://github.com/org/app.git",
		"https://u:p@example.com/a?b=c":        "https://example.com/a",
		"ssh://git:p@example.com/org/app.git":  "ssh://git@example.com/org/app.git",
		"git@github.com:org/app.git":           "git@github.com:org/app.git",
		"https://github.com/org/app":           "https://github.com/org/app",
		"/srv/git/app.git":                     "/srv/git/app.git",
		"file:///srv/git/app.git":              "file:///srv/git/app.git",
		// What git takes in a password, and url.Parse does not.
		"https://ci:100%sure@example.com/a.git":        "https://example.com/a.git",
		"https://ci:a b@example.com:8443/a.git":        "https://example.com:8443/a.git",
		"https://ci:p@ss@example.com/a.git":            "https://example.com/a.git",
		"https://ci:a?b#c@example.com/a.git":           "https://example.com/a.git",
		"https://100%sure@example.com":                 "https://example.com",
		"ssh://git:100%sure@example.com/a.git":         "ssh://git@example.com/a.git",
		"https://ci:a/b@example.com/a.git":             "",
		"https://ci:a\x1b[31m@example.com/a%.git":      "",
		"git@example.com:a\n::b":                       "",
		"git@example.com:" + strings.Repeat("a", 4096): "",
		"https:///token@example.com/a.git":             "", // as curl reads it
		// Tokens elsewhere.
		"https://example.com/a.git?private_token=t": "https://example.com/a.git",
		"https://example.com/a.git#t":               "https://example.com/a.git",
	} {
		g.Expect(withoutPassword(address)).To(Equal(want), address)
	}
}

// TestFactsAreNotLeftOutForWantOfTime ends the time before the repository is read.
func TestFactsAreNotLeftOutForWantOfTime(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	a := &app{streams: streams{err: io.Discard}}
	from, err := openLocal(t.Context(), dir, false, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(from.close)
	packed, err := from.pack(t.Context(), t.TempDir(), nil, format.Limits{})
	g.Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&push{app: a, path: dir}).annotate(ctx, from, packed, nil)
	g.Expect(err).To(MatchError(context.Canceled))
}
