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

package layout_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// TestTheTestsThatTheSecurityPageNamesExist keeps a promise from outliving its test.
func TestTheTestsThatTheSecurityPageNamesExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) == 0 {
		t.Fatal("docs/security.md names no test")
	}
	existing := tests(t)
	for _, name := range named {
		if !existing[name[1]] {
			t.Errorf("docs/security.md names %s, which does not exist", name[1])
		}
	}
}

// TestThePagesPatchWhatGitKeeps holds that no page has a reader change a source in
// a way that the next reconciliation of a Kustomization undoes.
func TestThePagesPatchWhatGitKeeps(t *testing.T) {
	change := regexp.MustCompile(`kubectl [^|\n]*(?:patch|edit) (?:artifactrepository|imagepolicy|imagerepository)[^\n]*`)
	found := 0
	for page, text := range pages(t) {
		for _, command := range change.FindAllString(text, -1) {
			found++
			if !strings.Contains(command, "--field-manager=flux-client-side-apply") {
				t.Errorf("%s: a Kustomization undoes: %s", page, command)
			}
		}
	}
	if found == 0 {
		t.Fatal("no page changes a source")
	}
}

// pages returns the text of the README and of all pages of the documentation.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	read := func(path string) error {
		text, err := os.ReadFile(path)
		all[path] = string(text)
		return err
	}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".md" {
			return err
		}
		return read(path)
	})
	if err == nil {
		err = read(filepath.Join(root, "README.md"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tests returns the names of all tests and fuzz targets of the module.
func tests(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Za-z0-9]+)\(`)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "bin" || entry.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, name := range declared.FindAllStringSubmatch(string(text), -1) {
			all[name[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
