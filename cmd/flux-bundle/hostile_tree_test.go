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
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

// command runs the command in a process of its own, with a password in its
// environment, and returns what it says on standard error.
func command(t *testing.T, dir string, args ...string) (said string, err error) {
	t.Helper()
	c := exec.CommandContext(t.Context(), os.Args[0])
	c.Dir = dir
	c.Env = append(os.Environ(), "PWD="+dir, childVariable+"="+strings.Join(args, "\n"), passwordVariable+"=secret")
	var out bytes.Buffer
	c.Stderr = &out
	err = c.Run()
	return out.String(), err
}

// hostileSettings are settings with which git runs a program.
func hostileSettings(program string) string {
	return fmt.Sprintf(`[core]
	repositoryformatversion = 0
	bare = false
	fsmonitor = %[1]q
	hooksPath = hooks
	pager = %[1]q
	sshCommand = %[1]q
	alternateRefsCommand = %[1]q
[filter "x"]
	clean = %[1]q
	smudge = %[1]q
	process = %[1]q
	required = true
[diff "x"]
	textconv = %[1]q
	command = %[1]q
[log]
	showSignature = true
[gpg]
	program = %[1]q
[credential]
	helper = "!%[2]s"
[alias]
	status = "!%[2]s"
[include]
	path = ../included
`, program, program)
}

// TestNoProgramOfATreeRuns packs trees that bring a repository of their own.
func TestNoProgramOfATreeRuns(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, dir, settings string) (folder string){
		"a foreign tree with its .git": func(t *testing.T, dir, settings string) string {
			t.Helper()
			write(t, dir, map[string]string{".git/config": settings, ".git/info/attributes": "* filter=x diff=x\n", "included": settings})
			return dir
		},
		"an embedded bare repository that is tracked": func(t *testing.T, dir, settings string) string {
			t.Helper()
			deploy := filepath.Join(dir, "deploy")
			write(t, deploy, map[string]string{
				"HEAD": "ref: refs/heads/main\n", "objects/.keep": "", "refs/heads/.keep": "", "a.yaml": "a: 1\n",
				".gitattributes": "* filter=x diff=x\n",
			})
			// The index makes git look at the file.
			ask(t, deploy, "--git-dir=.", "--work-tree=.", "add", "a.yaml")
			write(t, deploy, map[string]string{
				"a.yaml": "a: 2\n", "included": settings, "config": strings.Replace(settings, "bare = false", "worktree = .", 1),
			})
			ask(t, dir, "add", "--force", ".")
			ask(t, dir, "commit", "--quiet", "--message=two")
			return deploy
		},
		"a linked working tree of a hostile repository": func(t *testing.T, dir, settings string) string {
			t.Helper()
			linked := filepath.Join(t.TempDir(), "linked")
			ask(t, dir, "worktree", "add", "--quiet", "-b", "x", linked)
			write(t, dir, map[string]string{".git/config": settings, ".git/info/attributes": "* filter=x diff=x\n", "included": settings})
			return linked
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, trap := repository(t), filepath.Join(t.TempDir(), "ran")
			program := filepath.Join(t.TempDir(), "program")
			g.Expect(os.WriteFile(program, []byte("#!/bin/sh\nenv >"+trap+"\ncat\n"), 0o700)).To(Succeed())
			folder := plant(t, dir, hostileSettings(program))
			g.Expect(os.RemoveAll(trap)).To(Succeed())
			said, err := command(t, folder, "-f", ".", "-t", "example.com/org/app:v1", "--dry-run", "--no-validate")
			g.Expect(err).NotTo(HaveOccurred(), said)
			g.Expect(trap).NotTo(BeAnExistingFile())
		})
	}
}

// TestNoProgramGetsThePassword has a credential helper write down its environment.
func TestNoProgramGetsThePassword(t *testing.T) {
	g := NewWithT(t)
	key, _ := keyPair(t, "secret")
	trap := filepath.Join(t.TempDir(), "environment")
	programs := folder(t, map[string]string{"docker-credential-trap": "#!/bin/sh\nenv >" + trap + "\necho credentials not found in native keychain\nexit 1\n"})
	g.Expect(os.Chmod(filepath.Join(programs, "docker-credential-trap"), 0o700)).To(Succeed())
	t.Setenv("DOCKER_CONFIG", folder(t, map[string]string{"config.json": `{"credHelpers":{"127.0.0.1:1":"trap"}}`}))
	t.Setenv("PATH", programs+string(filepath.ListSeparator)+os.Getenv("PATH"))
	said, err := command(t, t.TempDir(), "-f", manifests(t), "-t", "127.0.0.1:1/org/app:v1", "-s", key, "--no-validate")
	g.Expect(err).To(HaveOccurred())
	g.Expect(said).To(ContainSubstring("connection refused"), "the password opens the key")
	environment, err := os.ReadFile(trap)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(environment)).To(And(ContainSubstring("PATH="), Not(ContainSubstring(passwordVariable))))
}

// TestNothingHidesAChange has git say that nothing changed.
func TestNothingHidesAChange(t *testing.T) {
	const file = "app/config.yaml"
	modify := func(t *testing.T, dir string) {
		t.Helper()
		write(t, dir, map[string]string{file: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n"})
	}
	for name, hide := range map[string]func(t *testing.T, dir string){
		"a flag of the index that skips the file": func(t *testing.T, dir string) {
			t.Helper()
			ask(t, dir, "update-index", "--skip-worktree", file)
			modify(t, dir)
		},
		"a flag of the index that assumes no change": func(t *testing.T, dir string) {
			t.Helper()
			ask(t, dir, "update-index", "--assume-unchanged", file)
			modify(t, dir)
		},
		"a mode that git is told not to look at": func(t *testing.T, dir string) {
			t.Helper()
			ask(t, dir, "config", "core.fileMode", "false")
			NewWithT(t).Expect(os.Chmod(filepath.Join(dir, file), 0o755)).To(Succeed())
		},
		"a filter that gives the committed content": func(t *testing.T, dir string) {
			t.Helper()
			ask(t, dir, "config", "filter.x.clean", "git show HEAD:"+file)
			write(t, dir, map[string]string{".git/info/attributes": file + " filter=x\n"})
			modify(t, dir)
		},
		"a rule that ignores a new file": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{".git/info/exclude": "new.yaml\n", "app/new.yaml": "a: 1\n"})
		},
		"a replaced commit": func(t *testing.T, dir string) {
			t.Helper()
			commit := ask(t, dir, "rev-parse", "HEAD")
			modify(t, dir)
			ask(t, dir, "commit", "--quiet", "--all", "--message=two")
			ask(t, dir, "replace", commit, "HEAD")
			ask(t, dir, "update-ref", "refs/heads/main", commit)
		},
		"a file that was committed and is gone": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{"app/more.yaml": "a: 1\n"})
			ask(t, dir, "add", ".")
			ask(t, dir, "commit", "--quiet", "--message=two")
			ask(t, dir, "update-index", "--skip-worktree", "app/more.yaml")
			NewWithT(t).Expect(os.Remove(filepath.Join(dir, "app/more.yaml"))).To(Succeed())
		},
		"a link in the place of a file": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{"app/more.yaml": "a: 1\n"})
			ask(t, dir, "add", ".")
			ask(t, dir, "commit", "--quiet", "--message=two")
			ask(t, dir, "update-index", "--skip-worktree", "app/more.yaml")
			NewWithT(t).Expect(os.Remove(filepath.Join(dir, "app/more.yaml"))).To(Succeed())
			NewWithT(t).Expect(os.Symlink("config.yaml", filepath.Join(dir, "app/more.yaml"))).To(Succeed())
		},
		"another .sourceignore that is not packed itself": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{".sourceignore": "/*\n!/app\n!/kustomization.yaml\n", "app/more.yaml": "a: 1\n"})
			ask(t, dir, "add", ".")
			ask(t, dir, "commit", "--quiet", "--message=two")
			ask(t, dir, "update-index", "--skip-worktree", ".sourceignore")
			write(t, dir, map[string]string{".sourceignore": "/*\n!/app\n!/kustomization.yaml\nmore.yaml\n"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := repository(t)
			got, said := environment{}.annotationsFor(t, "-f", dir)
			g.Expect(got).To(HaveKey(revisionAnnotation), said)
			hide(t, dir)
			got, said = environment{}.annotationsFor(t, "-f", dir)
			g.Expect(got).To(And(HaveKey(sourceAnnotation), Not(HaveKey(revisionAnnotation)), Not(HaveKey(createdAnnotation))), said)
		})
	}
}

// TestAFolderThatChangesMeanwhileIsNoCommit has the folder as it was committed again
// before the packed files are compared with the commit.
func TestAFolderThatChangesMeanwhileIsNoCommit(t *testing.T) {
	const file, rules = "app/more.yaml", ".sourceignore"
	for name, packed := range map[string]func(t *testing.T, dir string){
		"a file is away": func(t *testing.T, dir string) {
			t.Helper()
			NewWithT(t).Expect(os.Remove(filepath.Join(dir, file))).To(Succeed())
		},
		"a folder is away": func(t *testing.T, dir string) {
			t.Helper()
			NewWithT(t).Expect(os.RemoveAll(filepath.Join(dir, "app"))).To(Succeed())
		},
		"a file is a link": func(t *testing.T, dir string) {
			t.Helper()
			NewWithT(t).Expect(os.Remove(filepath.Join(dir, file))).To(Succeed())
			NewWithT(t).Expect(os.Symlink("config.yaml", filepath.Join(dir, file))).To(Succeed())
		},
		"other patterns leave a file out": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{rules: "/other\n" + rules + "\n" + file + "\n"})
		},
		"patterns in a folder leave a file out, and themselves": func(t *testing.T, dir string) {
			t.Helper()
			write(t, dir, map[string]string{"app/" + rules: rules + "\nmore.yaml\n"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := repository(t)
			write(t, dir, map[string]string{file: "a: 1\n", rules: "/other\n" + rules + "\n"})
			ask(t, dir, "add", ".")
			ask(t, dir, "commit", "--quiet", "--message=two")
			g.Expect(factsWhen(t, dir, func() {}).revision).NotTo(BeEmpty())
			found := factsWhen(t, dir, func() { packed(t, dir) }, func() {
				ask(t, dir, "clean", "--quiet", "--force")
				ask(t, dir, "reset", "--quiet", "--hard")
			})
			g.Expect(found.revision).To(BeEmpty())
			g.Expect(found.change).NotTo(BeNil())
		})
	}
}

// factsWhen packs a folder and compares it with its commit, with a step before each.
func factsWhen(t *testing.T, dir string, steps ...func()) facts {
	t.Helper()
	g := NewWithT(t)
	steps[0]()
	from, err := openLocal(t.Context(), dir, false, 0)
	g.Expect(err).NotTo(HaveOccurred())
	defer from.close()
	packed, err := format.Pack(t.Context(), from.root, t.TempDir(), format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	for _, step := range steps[1:] {
		step()
	}
	found, err := gather(t.Context(), from, packed)
	g.Expect(err).NotTo(HaveOccurred())
	return found
}

// TestTheEnvironmentOfGitHasNoSay sets what moves a repository for git.
func TestTheEnvironmentOfGitHasNoSay(t *testing.T) {
	g := NewWithT(t)
	dir, other := repository(t), repository(t)
	ask(t, other, "commit", "--quiet", "--allow-empty", "--message=two")
	clean, said := environment{}.annotationsFor(t, "-f", dir)
	g.Expect(clean).To(HaveKey(revisionAnnotation), said)
	for variable, value := range map[string]string{
		"GIT_DIR": filepath.Join(other, ".git"), "GIT_WORK_TREE": other, "GIT_INDEX_FILE": filepath.Join(other, ".git/index"),
		"GIT_OBJECT_DIRECTORY": filepath.Join(other, ".git/objects"), "GIT_CEILING_DIRECTORIES": filepath.Dir(dir), "GIT_NAMESPACE": "x",
	} {
		t.Run(variable, func(t *testing.T) {
			g := NewWithT(t)
			t.Setenv(variable, value)
			got, said := environment{}.annotationsFor(t, "-f", dir)
			g.Expect(got).To(Equal(clean), said)
			g.Expect(said).NotTo(ContainSubstring("warning"))
		})
	}
}

// TestNamesOfFilesThatMeanSomethingToGit commits files with the names of a commit,
// an option and a pattern.
func TestNamesOfFilesThatMeanSomethingToGit(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	write(t, dir, map[string]string{"HEAD": "", "main": "", "--help": "", ":(exclude)app": "", "*": "", "\"q\"": ""})
	ask(t, dir, "add", ".")
	ask(t, dir, "commit", "--quiet", "--message=two")
	for _, path := range []string{dir, filepath.Join(dir, "HEAD"), filepath.Join(dir, "--help"), filepath.Join(dir, "*")} {
		got, said := environment{}.annotationsFor(t, "-f", path)
		g.Expect(got).To(And(HaveKeyWithValue(revisionAnnotation, "main@sha1:"+ask(t, dir, "rev-parse", "refs/heads/main")), HaveKey(createdAnnotation)), path+said)
	}
}

// TestSubmodulesAreComparedWithTheirCommit hides changes of a submodule from git.
func TestSubmodulesAreComparedWithTheirCommit(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(t *testing.T, submodule string)
		claimed bool
	}{
		"no change": {func(*testing.T, string) {}, true},
		"a file of it": {func(t *testing.T, submodule string) {
			t.Helper()
			write(t, submodule, map[string]string{"app/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n"})
		}, false},
		"a file that is new in it": {func(t *testing.T, submodule string) {
			t.Helper()
			write(t, submodule, map[string]string{"app/new.yaml": "a: 1\n"})
		}, false},
		"another commit of it": {func(t *testing.T, submodule string) {
			t.Helper()
			write(t, submodule, map[string]string{"app/new.yaml": "a: 1\n"})
			ask(t, submodule, "add", ".")
			ask(t, submodule, "commit", "--quiet", "--message=two")
		}, false},
		"files without their repository": {func(t *testing.T, submodule string) {
			t.Helper()
			NewWithT(t).Expect(os.Remove(filepath.Join(submodule, ".git"))).To(Succeed())
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir, other := repository(t), repository(t)
			ask(t, dir, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other, "base")
			ask(t, dir, "config", "--file=.gitmodules", "submodule.base.ignore", "all")
			ask(t, dir, "config", "submodule.base.ignore", "all")
			ask(t, dir, "commit", "--quiet", "--all", "--message=two")
			c.change(t, filepath.Join(dir, "base"))
			got, said := environment{}.annotationsFor(t, "-f", dir)
			revision := HaveKey(revisionAnnotation)
			if !c.claimed {
				revision = Not(revision)
			}
			g.Expect(got).To(revision, said)
		})
	}
}

// TestWhatGitConvertsIsNamed commits files that git stores in another form.
func TestWhatGitConvertsIsNamed(t *testing.T) {
	const pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
	for name, c := range map[string]struct {
		attributes, committed, onDisk, says string
	}{
		"Git LFS":      {"*.yaml filter=lfs\n", pointer, "a: 1\n", "Git LFS keeps its content"},
		"line endings": {"*.yaml text eol=crlf\n", "a: 1\nb: 2\n", "a: 1\r\nb: 2\r\n", "its line endings are converted"},
		"a keyword":    {"*.yaml ident\n", "# $Id$\na: 1\n", "# $Id: 0123 $\na: 1\n", "a .gitattributes file has it converted"},
		"an encoding":  {"*.yaml working-tree-encoding=latin1\n", "a: é\n", "a: e\n", "a .gitattributes file has it converted"},
		"a plain edit": {"*.png filter=lfs\n", "a: 1\n", "a: 2\n", "has changes that are not committed"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := repository(t)
			write(t, dir, map[string]string{"app/b.yaml": c.committed})
			ask(t, dir, "add", ".")
			write(t, dir, map[string]string{".gitattributes": c.attributes})
			ask(t, dir, "add", ".gitattributes")
			ask(t, dir, "commit", "--quiet", "--message=two")
			write(t, dir, map[string]string{"app/b.yaml": c.onDisk})
			for _, path := range []string{dir, filepath.Join(dir, "app"), filepath.Join(dir, "app/b.yaml")} {
				got, said := environment{}.annotationsFor(t, "-f", path, "--no-validate")
				g.Expect(got).NotTo(HaveKey(revisionAnnotation), said)
				g.Expect(said).To(ContainSubstring(c.says))
			}
		})
	}
}

// TestManyAttributesHoldUpNobody has patterns for git that take minutes to try.
func TestManyAttributesHoldUpNobody(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	file := filepath.Join("app", strings.Repeat(strings.Repeat("a", 18)+"/", 50), "a.yaml")
	write(t, dir, map[string]string{file: "a: 1\n"})
	ask(t, dir, "add", ".")
	ask(t, dir, "commit", "--quiet", "--message=two")
	write(t, dir, map[string]string{file: "a: 2\n"})
	pattern := strings.Repeat("*a", 40) + "b filter=x\n"
	for at := filepath.Dir(file); at != "app"; at = filepath.Dir(at) {
		write(t, dir, map[string]string{filepath.Join(at, ".gitattributes"): strings.Repeat(pattern, 1<<20/len(pattern))})
	}
	const timeout = 5 * time.Second
	start := time.Now()
	flux(t, "-f", filepath.Join(dir, "app"), "-t", "127.0.0.1:1/org/app:v1", "--dry-run", "--no-validate", "--timeout", timeout.String())
	g.Expect(time.Since(start)).To(BeNumerically("<", 2*timeout))
}

// TestAPlantedLinkIsNotFollowed leads paths within a repository out of it.
func TestAPlantedLinkIsNotFollowed(t *testing.T) {
	g := NewWithT(t)
	dir := repository(t)
	home := folder(t, map[string]string{"docker/config.json": `{"auths":{}}`, "docker/a.yaml": "a: 1\n"})
	key, public := keyPair(t, "secret")
	link := func(to, name string) {
		g.Expect(os.Symlink(to, filepath.Join(dir, name))).To(Succeed())
	}
	link(filepath.Join(home, "docker"), "deploy")
	link(home, "middle")
	link(filepath.Join(home, "docker/config.json"), "file.json")
	link("app", "inside")
	link("nowhere", "dangling")
	link(key, "cosign.key")
	link(public, "cosign.pub")
	link(filepath.Join(home, "docker"), "app/deploy")
	plain := folder(t, nil) // a tree without a repository
	g.Expect(os.Symlink(filepath.Join(home, "docker"), filepath.Join(plain, "deploy"))).To(Succeed())
	away := folder(t, nil)
	g.Expect(os.Symlink(filepath.Join(dir, "app"), filepath.Join(away, "app"))).To(Succeed())

	const says = "is a symbolic link"
	push := func(path string, more ...string) []string {
		return append([]string{"push", "-f", path, "-t", "example.com/org/app:v1", "--dry-run", "--no-validate"}, more...)
	}
	for name, c := range map[string]struct {
		in   string
		args []string
	}{
		"a folder":                                 {dir, push("deploy")},
		"a folder, from somewhere else":            {plain, push(filepath.Join(dir, "deploy"))},
		"a folder, by an absolute path":            {dir, push(filepath.Join(dir, "deploy"))},
		"a folder, with a slash at the end":        {dir, push("./deploy/")},
		"a folder, from one beside it":             {filepath.Join(dir, "app"), push("../deploy")},
		"a folder in the middle":                   {dir, push("middle/docker")},
		"a file":                                   {dir, push("file.json")},
		"a file below a link":                      {dir, push("deploy/config.json")},
		"a folder of the same repository":          {dir, push("inside")},
		"the working directory itself":             {filepath.Join(dir, "deploy"), push(".")},
		"nothing":                                  {dir, push("dangling")},
		"a tree without a repository":              {plain, push("deploy")},
		"a folder behind a link to the repository": {plain, push(filepath.Join(away, "app/deploy"))},
		"the key":                               {dir, push("app", "-s", "cosign.key")},
		"a key to verify with":                  {dir, []string{"verify", "127.0.0.1:1/org/app:v1", "--key", "cosign.pub"}},
		"a key to pull with":                    {dir, []string{"pull", "127.0.0.1:1/org/app:v1", "-o", "new", "--key", "./cosign.pub"}},
		"a root of trust":                       {dir, []string{"verify", "127.0.0.1:1/org/app:v1", "--trusted-root", "middle/docker/config.json", "--key", public}},
		"a policy":                              {dir, []string{"verify", "127.0.0.1:1/org/app:v1", "--notation-trust-policy", "file.json"}},
		"a certificate":                         {dir, []string{"verify", "127.0.0.1:1/org/app:v1", "--notation-trust-policy", public, "--notation-cert", "file.json"}},
		"a place for a new key":                 {dir, []string{"generate-key-pair", "--output-key-prefix", "middle/docker/new"}},
		"a place for a new key, here":           {filepath.Join(dir, "deploy"), []string{"generate-key-pair"}},
		"a side of diff":                        {dir, []string{"diff", "./app", "./deploy"}},
		"a side of diff, by a name and a slash": {dir, []string{"diff", "./deploy/", "./app"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			said, err := command(t, c.in, c.args...)
			g.Expect(err).To(HaveOccurred(), said)
			g.Expect(said).To(And(ContainSubstring(says), ContainSubstring("--follow-symlinks")))
			if c.args[0] == "push" {
				said, err = command(t, c.in, append(c.args, "--follow-symlinks")...)
				if name == "nothing" {
					g.Expect(err).To(HaveOccurred(), said)
					return
				}
				g.Expect(err).NotTo(HaveOccurred(), said)
			}
		})
	}
	g.Expect(treeOf(t, home)).To(HaveLen(2), "a key was written outside")
}

// TestNoErrorTellsOfFilesOutside has a link to a folder outside. The words of an
// error must not depend on its files.
func TestNoErrorTellsOfFilesOutside(t *testing.T) {
	g := NewWithT(t)
	outside := folder(t, map[string]string{"there": "x"})
	said := map[string]string{}
	for _, name := range []string{"there", "away"} {
		dir := folder(t, map[string]string{"kustomization.yaml": "resources: [link/" + name + "]\n"})
		g.Expect(os.Symlink(outside, filepath.Join(dir, "link"))).To(Succeed())
		run := flux(t, "-f", dir, "-t", "example.com/org/app:v1", "--dry-run")
		g.Expect(run.code).To(Equal(exitFailure))
		_, said[name], _ = strings.Cut(run.err, "link/"+name)
	}
	g.Expect(said["there"]).To(And(ContainSubstring("is not there"), Equal(said["away"])))
}

// TestNoErrorTellsOfFilesOfGit names what git has in the folder on this machine alone.
func TestNoErrorTellsOfFilesOfGit(t *testing.T) {
	dir := repository(t)
	for field, format := range map[string]string{"resources": "resources: [%s]\n", "files": "configMapGenerator: [{name: a, files: [%s]}]\n"} {
		said := map[string]bool{}
		for _, name := range []string{"config", "hooks", "nothing"} {
			g := NewWithT(t)
			write(t, dir, map[string]string{"kustomization.yaml": fmt.Sprintf(format, "sub/../.git/"+name)})
			run := flux(t, "-f", dir, "-t", "example.com/org/app:v1", "--dry-run")
			g.Expect(run.code).To(Equal(exitFailure))
			_, words, _ := strings.Cut(run.err, "/.git/"+name)
			said[words] = true
		}
		NewWithT(t).Expect(said).To(Equal(map[string]bool{"\" is not there\n": true}), "the words for %s tell of files of git", field)
	}
}

// TestNoErrorTellsWhereAPlantedLinkLeads has the same link lead to a folder, a file and
// nothing.
func TestNoErrorTellsWhereAPlantedLinkLeads(t *testing.T) {
	outside := folder(t, map[string]string{"folder/a.yaml": "a: 1\n", "file": "a: 1\n"})
	dir := repository(t)
	link := filepath.Join(dir, "deploy")
	const ref = "127.0.0.1:1/org/app:v1"
	for _, args := range [][]string{
		{"push", "-f", link, "-t", ref, "--dry-run"}, {"push", "-f", filepath.Join(dir, "app"), "-t", ref, "-s", link},
		{"diff", link, ref}, {"diff", filepath.Join(dir, "app"), link}, {"diff", link + "/a.yaml", ref},
		{"pull", ref, "-o", link}, {"pull", ref, "-o", link + "/new"}, {"verify", ref, "--key", link}, {"verify", ref, "--key", link + "/a.yaml"},
		{"generate-key-pair", "--output-key-prefix", link + "/new"},
	} {
		said := map[string]bool{}
		for _, to := range []string{"folder", "file", "nothing"} {
			g := NewWithT(t)
			g.Expect(os.RemoveAll(link)).To(Succeed())
			g.Expect(os.Symlink(filepath.Join(outside, to), link)).To(Succeed())
			run := environment{passwordVariable: "secret"}.flux(t, args...)
			g.Expect(run.code).NotTo(Equal(exitOK))
			g.Expect(run.err).To(ContainSubstring("is a symbolic link"))
			said[run.err] = true
		}
		NewWithT(t).Expect(said).To(HaveLen(1), "%q tells by its words where the link leads", args)
	}
}

// TestNoErrorTellsWhereALinkInAPlantedStageLeads commits what looks like the stage of a pull.
func TestNoErrorTellsWhereALinkInAPlantedStageLeads(t *testing.T) {
	outside := folder(t, map[string]string{"there/app/a.yaml": "a: 1\n"})
	for link, below := range map[string]string{freshFolder: "", freshFolder + "/app": "/app"} {
		dir := repository(t)
		planted := filepath.Join(dir, stagePrefix+"x", filepath.FromSlash(link))
		NewWithT(t).Expect(os.MkdirAll(filepath.Dir(planted), 0o700)).To(Succeed())
		said := map[string]bool{}
		for _, to := range []string{"there", "nothing"} {
			g := NewWithT(t)
			g.Expect(os.RemoveAll(planted)).To(Succeed())
			g.Expect(os.Symlink(filepath.Join(outside, to)+below, planted)).To(Succeed())
			run := flux(t, "push", "-f", filepath.Join(dir, "app"), "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
			said[run.err] = true
		}
		NewWithT(t).Expect(said).To(HaveLen(1), "the words tell where %s leads", link)
	}
}

// TestPathsWithoutALinkInTheTreeAreFollowed leads to a repository by a link.
func TestPathsWithoutALinkInTheTreeAreFollowed(t *testing.T) {
	g := NewWithT(t)
	dir, elsewhere := repository(t), t.TempDir()
	g.Expect(os.Symlink(dir, filepath.Join(elsewhere, "link"))).To(Succeed())
	want, _ := environment{}.annotationsFor(t, "-f", filepath.Join(dir, "app"))
	g.Expect(want).To(HaveKey(revisionAnnotation))
	got, said := environment{}.annotationsFor(t, "-f", filepath.Join(elsewhere, "link", "app"))
	g.Expect(got).To(Equal(want), said)
	// What is written as a step back is one, wherever a link leads.
	g.Expect(os.Symlink(elsewhere, filepath.Join(dir, "out"))).To(Succeed())
	got, said = environment{}.annotationsFor(t, "-f", dir+"/out/../app")
	g.Expect(got).To(Equal(want), said)
}

// TestFactsAreThoseOfTheRealPath follows a link of one repository to another.
func TestFactsAreThoseOfTheRealPath(t *testing.T) {
	g := NewWithT(t)
	dir, other := repository(t), repository(t)
	ask(t, other, "remote", "set-url", "origin", "https://example.com/other.git")
	write(t, other, map[string]string{"app/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: other\n"})
	for _, linked := range []string{"app", "app/config.yaml"} {
		name := strings.ReplaceAll(linked, "/", "-")
		g.Expect(os.Symlink(filepath.Join(other, linked), filepath.Join(dir, name))).Should(Or(Succeed(), MatchError(os.ErrExist)))
	}
	got, said := environment{}.annotationsFor(t, "-f", filepath.Join(dir, "app-config.yaml"), "--follow-symlinks")
	g.Expect(got).To(Equal(map[string]string{sourceAnnotation: "https://example.com/other.git"}), said)
	g.Expect(os.RemoveAll(filepath.Join(dir, "app"))).To(Succeed())
	g.Expect(os.Symlink(filepath.Join(other, "app"), filepath.Join(dir, "app"))).To(Succeed())
	got, said = environment{}.annotationsFor(t, "-f", filepath.Join(dir, "app"), "--follow-symlinks")
	g.Expect(got).To(Equal(map[string]string{sourceAnnotation: "https://example.com/other.git"}), said)
}
