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
	"fmt"
	"iter"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// canonical returns the name that file systems may read an element of a path as.
// Some ignore case, the form of a character, and characters that nobody sees (HFS+,
// APFS, ext4 with casefold, ZFS); Windows cuts off dots and spaces at the end, and
// the name of a stream behind a colon.
func canonical(element string) string {
	visible := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
			return -1
		}
		return r
	}, element)
	name, _, _ := strings.Cut(cases.Fold().String(norm.NFKC.String(visible)), ":")
	return strings.TrimRight(name, ". ")
}

// shortGit are the names that Windows gives to .git beside its own.
var shortGit = regexp.MustCompile(`^git~[0-9]+$`)

// isGit tells whether git may take a file or folder of that name for a repository.
func isGit(element string) bool {
	name := canonical(element)
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

// isPlainOnWindows tells whether Windows reads an element of a path as it is: as no
// device, and without a stream or an end to cut off.
func isPlainOnWindows(element string) bool {
	return filepath.IsLocal(element) && !strings.Contains(element, ":") && strings.TrimRight(element, ". ") == element
}

// runner names the program that obeys a file of that name, or one in a folder of
// that name, as soon as somebody enters, opens, checks out or pushes the folder
// that it is in; empty: none is known. Files that run when they are asked for, such
// as a Makefile or a script, are not among them.
func runner(element string) string {
	switch canonical(element) {
	case ".gitattributes", ".gitconfig", ".gitmodules", ".lfsconfig", ".husky", ".pre-commit-config.yaml", "lefthook.yml", ".lefthook.yml":
		return "git"
	case ".github", ".gitlab", ".gitlab-ci.yml", ".gitea", ".forgejo", ".circleci", ".buildkite", ".tekton", ".travis.yml", ".drone.yml",
		".woodpecker", ".woodpecker.yml", ".woodpecker.yaml", "azure-pipelines.yml", "bitbucket-pipelines.yml", "jenkinsfile":
		return "a CI service"
	case ".envrc", ".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".profile", ".xprofile", ".zshenv", ".zshrc", ".zprofile",
		".zlogin", ".config", ".local", ".ssh", ".kube", ".docker", ".aws", ".gnupg", ".gdbinit", ".mise.toml", "mise.toml", ".tool-versions":
		return "a shell or another tool of the user"
	case ".npmrc", ".yarnrc", ".yarnrc.yml", ".pnpmfile.cjs", ".cargo", ".bazelrc":
		return "a package manager"
	case ".vscode", ".idea", ".fleet", ".zed", ".devcontainer", ".devcontainer.json", ".vimrc", ".exrc", ".nvimrc", ".nvim.lua",
		".dir-locals.el", ".cursor", ".claude", ".mcp.json":
		return "an editor"
	default:
		return ""
	}
}

// hazard is a file or folder that a program obeys by itself.
type hazard struct{ path, by string }

// hazardOf returns the part of a path that a program obeys by itself, if any.
func hazardOf(name string) (h hazard, found bool) {
	for end, element := range elements(name) {
		if by := runner(element); by != "" {
			return hazard{name[:end], by}, true
		}
	}
	return hazard{}, false
}

// hazards returns what programs obey by themselves in a tree, once each.
func hazards(t *tree) []hazard {
	var all []hazard
	known := map[hazard]bool{}
	for _, f := range t.files {
		if h, found := hazardOf(f.path); found && !known[h] {
			known[h] = true
			all = append(all, h)
		}
	}
	return all
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
func (t *tree) checkNames() error {
	for name := range t.paths {
		for end, element := range elements(name) {
			switch {
			case isGit(element):
				return fmt.Errorf("the artifact has %q, which git takes for a repository: its hooks and settings run programs; leave it out with --ignore-paths", name[:end])
			case strings.HasPrefix(canonical(element), stagePrefix):
				return fmt.Errorf("the artifact has %q, a name that only unfinished pulls have; leave it out with --ignore-paths", name[:end])
			case runtime.GOOS == "windows" && !isPlainOnWindows(element):
				return fmt.Errorf("the artifact has %q, which Windows takes for another file or a device; leave it out with --ignore-paths", name[:end])
			}
		}
	}
	return nil
}

// checkRepositories refuses a tree with which a folder of the target is a git
// repository, whose settings and hooks run programs. Git finds one without a folder
// .git wherever HEAD, objects and refs lie side by side, or HEAD and commondir.
func (t *tree) checkRepositories(target *os.Root) error {
	ours := map[string]bool{}
	folders := map[string]bool{".": true}
	for name := range t.paths {
		ours[canonicalPath(name)] = true
		folders[path.Dir(name)] = true
	}
	for folder := range folders {
		has := func(name string) bool {
			name = path.Join(folder, name)
			_, err := target.Lstat(name)
			return err == nil || ours[canonicalPath(name)]
		}
		if has("HEAD") && (has("commondir") || has("objects") && has("refs")) {
			return fmt.Errorf("with the artifact, %q would be a git repository (HEAD, objects and refs), whose hooks and settings run programs; "+
				"leave them out with --ignore-paths, or choose another folder", path.Join(target.Name(), folder))
		}
	}
	return nil
}
