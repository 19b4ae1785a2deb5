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
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// contentOf is what is in a file of layerOf: its name or, in a file of patterns, that
// nothing is left out.
func contentOf(name string) string {
	if path.Base(name) == ".sourceignore" {
		return "!*\n"
	}
	return name
}

// layerOf archives files of any names and permissions.
func layerOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(contentOf(h.Name)))
		}
		if err := archive.WriteHeader(&h); err != nil {
			continue // no archive can say it
		}
		if h.Typeflag == tar.TypeReg {
			_, _ = archive.Write([]byte(contentOf(h.Name))) // to memory
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return zipped(t, out.Bytes())
}

// zipped compresses.
func zipped(t testing.TB, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	_, err := compressor.Write(content)
	if err := errors.Join(err, compressor.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestNoPathOfAnArtifactIsARepositoryOfGit pulls into a working tree, and lets git
// check out a branch there, which runs its hooks.
func TestNoPathOfAnArtifactIsARepositoryOfGit(t *testing.T) {
	r := serve(t)
	for i, name := range []string{
		".git/hooks/post-checkout", ".GIT/hooks/post-checkout", "sub/.git/hooks/post-checkout", ".git", "sub/.Git",
		"git~1/hooks/post-checkout", "GIT~2/hooks/post-checkout", ".git./hooks/post-checkout", ".git /hooks/post-checkout", ".git . ./hooks/post-checkout",
		".git::$INDEX_ALLOCATION/hooks/post-checkout", ".git:x/hooks/post-checkout", ".g\u200cit/hooks/post-checkout", ".git\ufeff/hooks/post-checkout",
		"\u202e.git/hooks/post-checkout", ".g\u00adit/hooks/post-checkout", ".gi\u034ft/hooks/post-checkout", "．ｇｉｔ/hooks/post-checkout", ".gi\ufe0ft/config",
		".gıt/hooks/post-checkout", ".gİt/config",
		`.git\hooks\post-checkout`, ".flux-bundle-AAAAAAAAAAAA/new/a.yaml", ".Flux-Bundle-x",
	} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			g := NewWithT(t)
			ref := pushLayer(t, r, fmt.Sprintf("org/app:v%d", i), layerOf(t,
				tar.Header{Name: ".sourceignore", Mode: 0o644}, tar.Header{Name: "a.yaml", Mode: 0o644}, tar.Header{Name: name, Mode: 0o755}))
			dir := folder(t, map[string]string{"mine.yaml": "mine"})
			ask(t, dir, "init", "-q")
			before := treeOf(t, dir)
			run := flux(t, "pull", ref, "-o", dir, "--force")
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.err).To(HavePrefix("error: the artifact has "))
			g.Expect(treeOf(t, dir)).To(Equal(before))
		})
	}
	for _, name := range []string{".gitignore", "git", "git~x", "a.git", ".git1", "xgit~1"} {
		NewWithT(t).Expect(isGit(name)).To(BeFalse(), name)
	}
}

// TestNoFolderBecomesARepositoryOfGit pulls parts of a bare repository, which git
// finds from any folder in it, and whose settings and hooks it runs.
func TestNoFolderBecomesARepositoryOfGit(t *testing.T) {
	r := serve(t)
	for name, c := range map[string]struct {
		there, names []string
		refused      bool
	}{
		"in the folder itself":          {nil, []string{"HEAD", "config", "objects/a", "refs/a"}, true},
		"in a folder below":             {nil, []string{"a/b/HEAD", "a/b/config", "a/b/objects/a", "a/b/refs/a"}, true},
		"with files in place":           {nil, []string{"a/HEAD", "a/config", "a/objects", "a/refs"}, true},
		"in another case":               {nil, []string{"a/head", "a/config", "a/Objects/x", "A\u200c/REFS/x"}, true},
		"with its objects elsewhere":    {nil, []string{"a/HEAD", "a/commondir", "b/objects/a", "b/refs/a", "b/config"}, true},
		"with what is there":            {[]string{"a/objects/x", "a/refs/x"}, []string{"a/HEAD", "a/config"}, true},
		"a hook in one that is there":   {[]string{"a/HEAD", "a/objects/x", "a/refs/x"}, []string{"a/hooks/post-update"}, true},
		"the settings of one around it": {[]string{"HEAD", "objects/x", "refs/x"}, []string{"config"}, true},
		"parts in different folders":    {nil, []string{"HEAD", "a/objects/x", "a/refs/x"}, false},
		"only the tip":                  {nil, []string{"a/HEAD", "a/objects/x"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			headers := []tar.Header{{Name: ".sourceignore", Mode: 0o644}}
			for _, name := range c.names {
				headers = append(headers, tar.Header{Name: name, Mode: 0o755})
			}
			ref := pushLayer(t, r, "org/"+strings.ReplaceAll(name, " ", "-")+":v1", layerOf(t, headers...))
			there := map[string]string{}
			for _, name := range c.there {
				there[name] = "mine"
			}
			dir := folder(t, there)
			run := flux(t, "pull", ref, "-o", dir, "--force")
			if !c.refused {
				g.Expect(run.code).To(Equal(exitOK), run.err)
				return
			}
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			expectOneError(g, run, "would be a git repository")
			g.Expect(treeOf(t, dir)).To(Equal(there))
		})
	}
}

// TestFilesThatProgramsObeyAreNamed pulls such files and expects to read of each
// before it is there.
func TestFilesThatProgramsObeyAreNamed(t *testing.T) {
	r := serve(t)
	named := []string{
		".envrc", "sub/.ENVRC", ".github/workflows/ci.yaml", ".gitattributes", ".gitmodules", ".vscode/tasks.json", ".idea/a.xml",
		".devcontainer/devcontainer.json", ".husky/pre-commit", ".pre-commit-config.yaml", ".gitlab-ci.yml", ".bashrc", "home/.profile",
		".ssh/authorized_keys", ".npmrc", ".gitconfig", ".config/git/config", ".v\u200dscode/tasks.json", ".envrc.", "Jenkinsfile",
		".bash_aliases", ".cache/a", ".zshenv", ".kshrc", ".tmux.conf", ".env", ".env.local", ".Rprofile", ".hg/hgrc", ".jj/repo/config.toml", ".vim/plugin/a.vim", ".emacs.d/init.el", "_vimrc",
		".eslintrc.js", ".mvn/extensions.xml", ".cirrus.yml", "azure-pipelines.yaml", "cloudbuild.yaml", "lefthook-local.toml", "AGENTS.md", ".cursorrules",
		"Library/LaunchAgents/a.plist", "Documents/PowerShell/Profile.ps1", ".unknown/.bashrc",
		"tools/hooks/post-checkout", "hooks/Pre-Push", "_darcs/prefs/defaults", "Jenkinsfile.nightly", "azure-pipelines-pr.yml", "ci.gocd.yaml",
		"bamboo-specs/bamboo.yml", "amplify.yml", "opencode.json", "all.code-workspace", "Library/Application Support/a/config",
		"tools/pre-commit.exe", "prek.toml", "CVS/Root", "buildkite/pipeline.yml", "CODEOWNERS", "rust-toolchain.toml", "lib/site-packages/a.pth", "sitecustomize.py",
		"jupyter_server_config.py", "bunfig.toml", "src/Directory.Build.props", "vimfiles/plugin/a.vim", "venv/pyvenv.cfg", "eslint.config.mjs", "AGENTS.override.md",
		"docs/a.library-ms", "a.url", "mise/config.toml", "mise.production.toml", ".mise.local.toml", "mise.toml", ".selected_editor", ".lessfilter", ".ipython/profile_default/startup/a.py",
	}
	for _, name := range named {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			g := NewWithT(t)
			ref := pushLayer(t, r, "org/app:v1", layerOf(t,
				tar.Header{Name: ".sourceignore", Mode: 0o644}, tar.Header{Name: name, Mode: 0o644}, tar.Header{Name: "Makefile", Mode: 0o644}))
			dir := t.TempDir()
			run := flux(t, "pull", ref, "-o", dir)
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.err).To(And(MatchRegexp(`(?m)^warning: ".*" takes effect by itself: .+ obeys it$`), MatchRegexp(`(?m)^error: the artifact has 1 path that .*--force`)))
			g.Expect(treeOf(t, dir)).To(BeEmpty())

			run = flux(t, "pull", ref, "-o", dir, "--force")
			g.Expect(run.code).To(Equal(exitOK), run.err)
			h, found := hazardOf(name)
			g.Expect(found).To(BeTrue())
			g.Expect(run.err).To(ContainSubstring(printable(fmt.Sprintf("%q", h.path)) + " takes effect by itself: " + h.by + " obeys it"))
			g.Expect(treeOf(t, dir)).To(HaveKey(name))

			var shown inspection
			g.Expect(json.Unmarshal([]byte(must(t, "inspect", ref, "-o", "json")), &shown)).To(Succeed())
			for _, f := range shown.Files {
				if f.Path == name {
					g.Expect(f.RunBy).To(Equal(h.by))
				} else {
					g.Expect(f.RunBy).To(BeEmpty(), f.Path)
				}
			}
			g.Expect(must(t, "inspect", ref)).To(ContainSubstring(", which " + h.by + " obeys by itself"))
		})
	}
}

// TestProgramsThatAShellFindsAreNamed pulls programs into a home whose folders of
// programs a shell searches.
func TestProgramsThatAShellFindsAreNamed(t *testing.T) {
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", layerOf(t, tar.Header{Name: "go/bin/kubectl", Mode: 0o755}, tar.Header{Name: "docs/a.md", Mode: 0o644}))
	home := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	NewWithT(t).Expect(os.Symlink(home, link)).To(Succeed())
	for name, c := range map[string]struct {
		searched string
		named    bool
	}{
		"the folder":                {filepath.Join(home, "go", "bin"), true},
		"among others":              {strings.Join([]string{"/usr/bin", filepath.Join(home, "go", "bin")}, string(filepath.ListSeparator)), true},
		"by a link":                 {filepath.Join(link, "go", "bin"), true},
		"a folder without programs": {filepath.Join(home, "docs"), false},
		"the target":                {home, false},
		"a relative one":            {"bin", true},
		"with dots":                 {"../.././go/bin/", true},
		"any folder":                {".", true},
		"any folder, by no name":    {"/usr/bin" + string(filepath.ListSeparator), true},
		"the one above":             {"..", true},
		"another relative one":      {"./node_modules/bin", false},
		"elsewhere":                 {"/usr/bin", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := environment{"PATH": c.searched}.flux(t, "pull", ref, "-o", home)
			if c.named {
				g.Expect(run.code).To(Equal(exitFailure), run.err)
				g.Expect(run.err).To(ContainSubstring(`warning: "go/bin" takes effect by itself: a shell that has the folder in PATH obeys it`))
				g.Expect(treeOf(t, home)).To(BeEmpty())
				return
			}
			g.Expect(run.code).To(Equal(exitOK), run.err)
			g.Expect(os.RemoveAll(filepath.Join(home, "go"))).To(Succeed())
			g.Expect(os.RemoveAll(filepath.Join(home, "docs"))).To(Succeed())
		})
	}
}

// TestOtherHiddenFilesAreNamed pulls files that some program may obey.
func TestOtherHiddenFilesAreNamed(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	names := []string{".unknown/a", "b/.other", ".sourceignore", ".gitignore", ".helmignore", "c/.gitkeep", "d.e"}
	var headers []tar.Header
	for _, name := range names {
		headers = append(headers, tar.Header{Name: name, Mode: 0o644})
	}
	run := flux(t, "pull", pushLayer(t, r, "org/app:v1", layerOf(t, headers...)), "-o", t.TempDir())
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(regexp.MustCompile(`(?m)^warning: (".*") is hidden`).FindAllString(run.err, -1)).To(ConsistOf(`warning: ".unknown" is hidden`, `warning: "b/.other" is hidden`))
}

// TestManyHazardsHideNoProgram pulls one file that a CI service obeys among many that
// are hidden or that a shell obeys: the line about it must be found.
func TestManyHazardsHideNoProgram(t *testing.T) {
	g := NewWithT(t)
	headers := []tar.Header{{Name: "z/Jenkinsfile", Mode: 0o644}}
	for i := range 1000 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("%d/.unknown", i), Mode: 0o644}, tar.Header{Name: fmt.Sprintf("%d/.envrc", i), Mode: 0o644})
	}
	ref := pushLayer(t, serve(t), "org/app:v1", layerOf(t, headers...))
	run := flux(t, "pull", ref, "-o", t.TempDir())
	g.Expect(run.code).To(Equal(exitFailure), run.err)
	g.Expect(strings.Count(run.err, "\n")).To(BeNumerically("<", 50))
	g.Expect(run.err).To(And(ContainSubstring(`"z/Jenkinsfile" takes effect by itself`), ContainSubstring("980 more take effect by themselves: a shell"),
		ContainSubstring("980 more are hidden"), ContainSubstring("the artifact has 1001 paths that programs obey")))
}

// TestManyHiddenFilesTakeAQuestion pulls more hidden files than are named: one of them may
// be for a program that no list has.
func TestManyHiddenFilesTakeAQuestion(t *testing.T) {
	g := NewWithT(t)
	var headers []tar.Header
	for i := range fewHazards + 1 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("%d/.unknown", i), Mode: 0o644})
	}
	ref := pushLayer(t, serve(t), "org/app:v1", layerOf(t, headers...))
	run := flux(t, "pull", ref, "-o", t.TempDir())
	g.Expect(run.code).To(Equal(exitFailure), run.err)
	g.Expect(run.err).To(ContainSubstring("the artifact has 21 paths that are hidden, of which 20 are named"))
	g.Expect(flux(t, "pull", ref, "-o", t.TempDir(), "--force").code).To(Equal(exitOK))
}

// TestNothingIsCountedBesideHazardsThatAreAllNamed pulls as many hazards as are named.
func TestNothingIsCountedBesideHazardsThatAreAllNamed(t *testing.T) {
	g := NewWithT(t)
	var headers []tar.Header
	for i := range fewHazards {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("%d/.unknown", i), Mode: 0o644}, tar.Header{Name: fmt.Sprintf("%d/.envrc", i), Mode: 0o644})
	}
	run := flux(t, "pull", pushLayer(t, serve(t), "org/app:v1", layerOf(t, headers...)), "-o", t.TempDir())
	g.Expect(run.code).To(Equal(exitFailure), run.err)
	g.Expect(strings.Count(run.err, " is hidden: ")).To(Equal(fewHazards), run.err)
	g.Expect(strings.Count(run.err, " takes effect by itself: ")).To(Equal(fewHazards), run.err)
	g.Expect(run.err).NotTo(Or(ContainSubstring("more are hidden"), ContainSubstring("more take effect")))
}

// TestPermissionsFollowTheUmask pulls files with all permissions there are.
func TestPermissionsFollowTheUmask(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ours := t.TempDir()
	g.Expect(os.Mkdir(filepath.Join(ours, "all"), 0o777)).To(Succeed())
	info, err := os.Stat(filepath.Join(ours, "all"))
	g.Expect(err).NotTo(HaveOccurred())
	umask := ^info.Mode().Perm()

	ref := pushLayer(t, r, "org/app:v1", layerOf(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o777}, tar.Header{Name: "d/run.sh", Mode: 0o777},
		tar.Header{Name: "d/a.yaml", Mode: 0o666}, tar.Header{Name: "b.yaml", Mode: 0o640}))
	dir := t.TempDir()
	must(t, "pull", ref, "-o", dir)
	g.Expect(modes(t, dir)).To(Equal(map[string]fs.FileMode{
		"d": fs.ModeDir | 0o777&^umask, "d/run.sh": 0o777 &^ umask, "d/a.yaml": 0o666 &^ umask, "b.yaml": 0o640 &^ umask,
	}))

	ref = pushLayer(t, r, "org/app:v2", layerOf(t, tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o7777}, tar.Header{Name: "d/run.sh", Mode: 0o6777}))
	dir = t.TempDir()
	must(t, "pull", ref, "-o", dir)
	for name, mode := range modes(t, dir) {
		g.Expect(mode&^(fs.ModeDir|0o777)).To(BeZero(), name)
		g.Expect(mode.Perm()&umask).To(BeZero(), name)
	}
}

func TestNamesThatWindowsReadsAsOthers(t *testing.T) {
	g := NewWithT(t)
	for _, name := range []string{"a:b", "a.", "a ", "a. .", "..", "GITHUB~1", "envrc~12", "a~1.yml"} {
		g.Expect(isPlainOnWindows(name)).To(BeFalse(), name)
	}
	for _, name := range []string{".a b.yaml", "a~", "a~b", "longer-than-six~1", "a~1.yaml"} {
		g.Expect(isPlainOnWindows(name)).To(BeTrue(), name)
	}
}
