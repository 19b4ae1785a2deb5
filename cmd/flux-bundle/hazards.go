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
	"fmt"
	"iter"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// canonical returns the name that file systems may read an element of a path as.
// Some ignore case, by upper case letters, lower case letters or both, the form of a
// character, and characters that nobody sees (HFS+, APFS, ext4 with casefold, ZFS);
// Windows cuts off dots and spaces at the end, and the name of a stream behind a colon.
func canonical(element string) string {
	name := strings.ToLower(element)
	if strings.ContainsFunc(element, func(r rune) bool { return r > unicode.MaxASCII }) {
		name = plain(element)
	}
	name, _, _ = strings.Cut(name, ":")
	return strings.TrimRight(name, ". ")
}

// plain returns a name without regard to case, forms of characters and those that
// nobody sees.
func plain(name string) string {
	visible := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, name)
	return cases.Fold().String(strings.ToLower(strings.ToUpper(norm.NFKC.String(visible))))
}

// shortGit are the names that Windows gives to .git beside its own.
var shortGit = regexp.MustCompile(`^git~[0-9]+$`)

// isGit tells whether git may take a file or folder of that canonical name for a
// repository.
func isGit(name string) bool {
	return name == ".git" || shortGit.MatchString(name)
}

// canonicalPath is canonical for all elements of a path.
func canonicalPath(name string) string {
	var all []string
	for element := range strings.SplitSeq(name, "/") {
		all = append(all, canonical(element))
	}
	return strings.Join(all, "/")
}

// shortName are the names that Windows gives to files beside their own, such as
// GITHUB~1 to .github.
var shortName = regexp.MustCompile(`^[^.]{1,6}~[0-9]+(\.[^.]{0,3})?$`)

// isPlainOnWindows tells whether Windows reads an element of a path as it is: as no
// device, as no second name of another file, and without a stream or an end to cut off.
func isPlainOnWindows(element string) bool {
	return filepath.IsLocal(element) && !strings.Contains(element, ":") && strings.TrimRight(element, ". ") == element && !shortName.MatchString(element)
}

// runner names the program that obeys a file of that canonical name, or one in a
// folder of that name, as soon as somebody logs in, enters, opens, checks out or pushes the
// folder that it is in; empty: none is known. Files that run when they are asked for,
// such as a Makefile or a script, are not among them.
func runner(name string) string {
	const tool = "a shell or another tool of the user"
	switch strings.TrimSuffix(name, ".exe") { // git looks for a hook by this name, too, on Windows
	case ".gitattributes", ".gitconfig", ".gitmodules", ".lfsconfig", ".husky", ".githooks", ".pre-commit-config.yaml", ".pre-commit-config.yml",
		"prek.toml", "hk.pkl", "captainhook.json":
		return "git"
	// Hooks: core.hooksPath names any folder.
	case "applypatch-msg", "pre-applypatch", "post-applypatch", "pre-commit", "pre-merge-commit", "prepare-commit-msg", "commit-msg", "post-commit",
		"pre-rebase", "post-checkout", "post-merge", "pre-push", "pre-receive", "post-receive", "post-update", "proc-receive", "push-to-checkout",
		"reference-transaction", "pre-auto-gc", "post-rewrite", "sendemail-validate", "fsmonitor-watchman", "post-index-change":
		return "git"
	case ".hg", ".hgsub", ".jj", ".svn", ".bzr", ".sl", ".pijul", "_darcs", ".fslckout", "_fossil_", "cvs", "_mtn":
		return "a version control system"
	case ".github", ".gitlab", ".gitlab-ci.yml", ".gitea", ".forgejo", ".circleci", "circle.yml", ".buildkite", ".tekton", ".travis.yml", ".drone.yml",
		".woodpecker", ".woodpecker.yml", ".woodpecker.yaml", "azure-pipelines.yml", "azure-pipelines.yaml", ".azure-pipelines", ".azuredevops",
		"bitbucket-pipelines.yml", "jenkinsfile", "appveyor.yml", ".appveyor.yml", ".cirrus.yml", ".cirrus.star", ".builds", ".build.yml", ".semaphore",
		".gitpod.yml", ".teamcity", ".harness", ".prow.yaml", ".zuul.yaml", ".zuul.d", "zuul.yaml", "zuul.d", "screwdriver.yaml", "codefresh.yml", ".codefresh",
		"wercker.yml", "cloudbuild.yaml", "cloudbuild.yml", "cloudbuild.json", "buildspec.yml", "buildspec.yaml", ".packit.yaml", ".mergify.yml",
		"renovate.json", "renovate.json5", "netlify.toml", "vercel.json", "bamboo-specs", "bitrise.yml", "codemagic.yaml", "shippable.yml", "buddy.yml",
		"codeship-steps.yml", "codeship-services.yml", "amplify.yml", "heroku.yml", "render.yaml", "atlantis.yaml", "digger.yml", "bors.toml", "buildkite", "buildkite.yml", "buildkite.yaml", "buildkite.json",
		"readthedocs.yml", "railway.json", "railway.toml", "codeowners":
		return "a CI service"
	case ".profile", ".xprofile", ".xsession", ".login", ".logout", ".tmux.conf", ".tmux", ".pam_environment", ".environment", ".autoenv", ".autoenv.zsh",
		".config", ".local", ".cache", ".ssh", ".kube", ".docker", ".aws", ".azure", ".gnupg", ".gdbinit", ".lldbinit", ".rprofile", ".renviron",
		".mise", "mise", ".tool-versions", ".selected_editor", ".lessfilter", ".byobu", ".vnc", ".xclients", ".i3", ".ghci", ".iex.exs", ".ipython", ".julia",
		".fzf.bash", ".fzf.zsh", ".p10k.zsh", ".terraform.d", ".oh-my-zsh", ".forward", ".rhosts", "_netrc", "windowspowershell",
		"rust-toolchain", "rust-toolchain.toml", "sitecustomize.py", "usercustomize.py", "startup.m":
		return tool
	case ".pnpmfile.cjs", ".pnp.cjs", ".pnp.loader.mjs", ".yarn", ".cargo", ".rustup", ".bundle", ".gem", ".gradle", ".mvn", ".m2", ".sbt", ".pip", ".nuget",
		".nix-profile", ".nix-defexpr", "bunfig.toml", "pnpmfile.js", "nuget.config", "directory.build.props", "directory.build.targets":
		return "a package manager"
	case ".vscode", ".idea", ".fleet", ".zed", ".vs", ".nova", ".helix", ".theia", ".devcontainer", ".devcontainer.json", ".vim", ".nvim", "_vimrc", "_gvimrc", "_exrc",
		".nvim.lua", ".emacs", ".emacs.d", ".emacs.el", ".dir-locals.el", ".dir-locals-2.el", ".ycm_extra_conf.py",
		".cursor", ".cursorrules", ".windsurf", ".windsurfrules", ".clinerules", ".roo", ".continue", ".kiro", ".junie", ".gemini", ".codex", ".opencode",
		".aider.conf.yml", ".claude", ".claude.json", ".mcp.json", "claude.md", "claude.local.md", "agents.md", "gemini.md",
		"opencode.json", "opencode.jsonc", "crush.json", "mcp.json", "vimfiles", "_emacs", "_dir-locals.el", "pyvenv.cfg":
		return "an editor"
	case "launchagents", "launchdaemons", "application support", "appdata", "start menu", "autorun.inf", "desktop.ini":
		return "the desktop"
	}
	switch {
	case isGit(name), strings.HasPrefix(strings.TrimPrefix(name, "."), "lefthook"):
		return "git"
	case strings.HasPrefix(name, ".bash"), strings.HasPrefix(name, ".zsh"), strings.HasPrefix(name, ".zlog"), strings.HasPrefix(name, ".zprofile"),
		name == ".env", strings.HasPrefix(name, ".env."), strings.HasSuffix(name, "profile.ps1"), settingsFile.MatchString(name), pythonFile.MatchString(name):
		return tool
	case pipelineFile.MatchString(name):
		return "a CI service"
	case strings.HasSuffix(name, ".code-workspace"), scriptedSettings.MatchString(name), agentFile.MatchString(name):
		return "an editor"
	case shortcut.MatchString(name):
		return "the desktop"
	default:
		return ""
	}
}

// settingsFile are names that many programs give to settings, which often run code,
// such as .kshrc, .npmrc or .eslintrc.js, and those of mise for any environment.
var settingsFile = regexp.MustCompile(`^(\..*rc(\.[a-z0-9]+)?|\.?mise\.(.+\.)?toml)$`)

// scriptedSettings are programs that checks and formatters of an editor load, such as
// eslint.config.js.
var scriptedSettings = regexp.MustCompile(`^[a-z0-9_-]+\.config\.[cm]?[jt]s$`)

// agentFile are instructions that agents in an editor read.
var agentFile = regexp.MustCompile(`^(agents?|claude|gemini|qwen|warp|crush|codex|copilot|opencode)(\.[a-z]+)?\.md$`)

// pythonFile are names that Python runs lines of at its start, and Jupyter at its own.
var pythonFile = regexp.MustCompile(`^(.*\.pth|jupyter_[a-z_]*config\.(py|json))$`)

// shortcut are names of files that lead the desktop of Windows, which looks there when the
// folder is opened, to a server.
var shortcut = regexp.MustCompile(`\.(lnk|url|scf|library-ms|search-ms|searchconnector-ms)$`)

// pipelineFile are names that pipelines have by custom where a repository has several.
var pipelineFile = regexp.MustCompile(`^((azure-pipelines|buildspec|cloudbuild)[-._].*\.(ya?ml|json)|jenkinsfile[-._].*|.*[-._]jenkinsfile|.*\.gocd\.(ya?ml|json))$`)

// isHidden tells whether a canonical name is one that settings of programs have by custom,
// other than names that only leave out or keep.
func isHidden(name string) bool {
	switch name {
	case ".gitignore", ".gitkeep", ".keep", ".sourceignore", ".helmignore", ".krmignore", ".dockerignore", ".editorconfig", ".imgpkg":
		return false
	default:
		return strings.HasPrefix(name, ".")
	}
}

// hazard is a file or folder that a program obeys by itself. Where by is empty, it is
// hidden, and no such program is known.
type hazard struct{ path, by string }

// hazardOf returns the part of a path that a program obeys by itself, if any.
func hazardOf(file string) (h hazard, found bool) {
	for end, element := range elements(file) {
		name := canonical(element)
		if by := runner(name); by != "" {
			return hazard{file[:end], by}, true
		}
		if !found && isHidden(name) {
			h, found = hazard{path: file[:end]}, true
		}
	}
	return h, found
}

// hazards returns what programs obey by themselves in a tree, once each.
func hazards(ctx context.Context, t *tree) ([]hazard, error) {
	var all []hazard
	known := map[hazard]bool{}
	for _, f := range t.files {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if h, found := hazardOf(f.path); found && !known[h] {
			known[h] = true
			all = append(all, h)
		}
	}
	return all, nil
}

// onPath returns the folders of a tree with programs that a shell finds by a list of
// folders to search. The target itself is what somebody has asked for, unless the list
// has a relative path, which leads from whatever folder the shell is in.
func (t *tree) onPath(ctx context.Context, target string, searched []string) ([]hazard, error) {
	var anywhere, below []string
	for _, folder := range searched {
		if !filepath.IsAbs(folder) {
			folder = path.Clean(filepath.ToSlash(folder))
			for folder == ".." || strings.HasPrefix(folder, "../") {
				_, folder, _ = strings.Cut(folder, "/")
			}
			anywhere = append(anywhere, canonicalPath(folder))
		} else if inside, err := filepath.Rel(realPath(target), realPath(folder)); err == nil && inside != "." && filepath.IsLocal(inside) {
			below = append(below, canonicalPath(filepath.ToSlash(inside)))
		}
	}
	var all []hazard
	for _, folder := range t.programFolders() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		name := canonicalPath(folder)
		if slices.Contains(below, name) || slices.ContainsFunc(anywhere, func(end string) bool { return end == "" || strings.HasSuffix("/"+name, "/"+end) }) {
			all = append(all, hazard{folder, "a shell that has the folder in PATH"})
		}
	}
	return all, nil
}

// programFolders returns the folders with files that may be executed: on Windows, where
// only the name tells, all folders with files.
func (t *tree) programFolders() []string {
	folders := map[string]bool{}
	for _, f := range t.files {
		if f.executable() || runtime.GOOS == "windows" {
			folders[path.Dir(f.path)] = true
		}
	}
	return slices.Sorted(maps.Keys(folders))
}

// realPath returns an absolute path without symbolic links, as far as it exists.
func realPath(name string) string {
	whole, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	for folder := range upwardsFrom(whole) {
		if known, err := filepath.EvalSymlinks(folder); err == nil {
			return filepath.Join(known, strings.TrimPrefix(whole, folder))
		}
	}
	return whole
}

// elements yields the elements of a path, and where each ends.
func elements(name string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		end := 0
		for element := range strings.SplitSeq(name, "/") {
			end += len(element)
			if !yield(end, element) {
				return
			}
			end++
		}
	}
}

// paths yields all files and folders of a tree.
func (t *tree) paths(yield func(name string) bool) {
	for _, f := range t.files {
		if !yield(f.path) {
			return
		}
	}
	for name := range t.folders {
		if !yield(name) {
			return
		}
	}
}

// checkNames refuses paths that no folder is safe with.
func (t *tree) checkNames(ctx context.Context) error {
	for file := range t.paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		for end, element := range elements(file) {
			name := canonical(element)
			switch {
			case isGit(name):
				return fmt.Errorf("the artifact has %q, which git takes for a repository: its hooks and settings run programs; leave it out with --ignore-paths", file[:end])
			case strings.HasPrefix(name, stagePrefix):
				return fmt.Errorf("the artifact has %q, a name that only unfinished pulls have; leave it out with --ignore-paths", file[:end])
			case runtime.GOOS == "windows" && !isPlainOnWindows(element):
				return fmt.Errorf("the artifact has %q, which Windows takes for another file or a device; leave it out with --ignore-paths", file[:end])
			}
		}
	}
	return nil
}

// checkRepositories refuses a tree with which a folder of the target is a git
// repository, whose settings and hooks run programs. Git finds one without a folder
// .git wherever HEAD, objects and refs lie side by side, or HEAD and commondir.
func (t *tree) checkRepositories(ctx context.Context, target *os.Root) error {
	ours := map[string]bool{}
	folders := map[string]bool{".": true}
	for name := range t.paths {
		if err := ctx.Err(); err != nil {
			return err
		}
		ours[canonicalPath(name)] = true
		folders[path.Dir(name)] = true
	}
	// Outermost first: a missing folder has nothing in it.
	there := map[string]bool{".": true}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		isThere := func(name string) bool {
			_, err := target.Lstat(name)
			return err == nil
		}
		there[folder] = there[path.Dir(folder)] && isThere(folder)
		has := func(name string) bool {
			name = path.Join(folder, name)
			return there[folder] && isThere(name) || ours[canonicalPath(name)]
		}
		if has("HEAD") && (has("commondir") || has("objects") && has("refs")) {
			return fmt.Errorf("with the artifact, %q would be a git repository (HEAD, objects and refs), whose hooks and settings run programs; "+
				"leave them out with --ignore-paths, or choose another folder", path.Join(target.Name(), folder))
		}
	}
	return nil
}
