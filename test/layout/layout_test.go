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

// Package layout_test holds the direction of imports: what each package may
// know of the others, and of a cluster.
package layout_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/image-source/image-source-controller"

// rule is what a package may import.
type rule struct {
	// path below the module; with a slash at its end all packages below it.
	path string
	// ours are the packages of this module that it may import, by the same
	// spelling.
	ours []string
	// cluster tells that it may know a cluster.
	cluster bool
	// stdlib tells that it may import nothing but the standard library.
	stdlib bool
}

// rules has a line for every package. The words of the API and the typed error
// are for all of them; who is not listed is wrong here.
func rules() []rule {
	vocabulary := []string{"api/v1alpha1", "pkg/fault"}
	with := func(more ...string) []string { return append(slices.Clone(vocabulary), more...) }
	return []rule{
		{path: "api/v1alpha1"},
		{path: "pkg/fault", stdlib: true},
		{path: "pkg/flight", stdlib: true},
		{path: "pkg/limit", ours: vocabulary},
		{path: "pkg/reference"},
		{path: "pkg/apiserver", cluster: true},
		{path: "pkg/git", ours: []string{"pkg/limit"}},
		{path: "pkg/registry", ours: with("pkg/flight", "pkg/limit", "pkg/reference")},
		{path: "pkg/trust", ours: with("pkg/limit", "pkg/reference", "pkg/registry")},
		{path: "pkg/sign", ours: []string{"pkg/limit", "pkg/registry", "pkg/trust"}},
		{path: "pkg/format", ours: with("pkg/limit")},
		{path: "pkg/store", ours: with("pkg/flight")},
		{path: "pkg/access", ours: with("pkg/registry")},
		{path: "pkg/credentials", ours: with("pkg/access", "pkg/apiserver", "pkg/limit", "pkg/reference", "pkg/registry", "pkg/trust"), cluster: true},
		{path: "pkg/bridge", ours: with("pkg/flight", "pkg/registry", "pkg/trust", "pkg/format", "pkg/store")},
		{path: "pkg/explain", ours: with("pkg/trust")},
		{path: "pkg/publication", ours: with("pkg/bridge", "pkg/format", "pkg/reference", "pkg/store")},
		{path: "pkg/trustpolicy", ours: with("pkg/flight", "pkg/trust")},
		{path: "pkg/source", ours: with("pkg/access", "pkg/limit", "pkg/publication", "pkg/reference", "pkg/trustpolicy")},
		{path: "pkg/throttle", ours: with("pkg/flight", "pkg/trust")},
		{path: "pkg/pipeline", ours: with("pkg/access", "pkg/bridge", "pkg/credentials", "pkg/registry", "pkg/store", "pkg/throttle", "pkg/trust"), cluster: true},
		{path: "pkg/serve", ours: with("pkg/apiserver", "pkg/flight", "pkg/publication", "pkg/store", "pkg/throttle", "pkg/trust"), cluster: true},
		{path: "controllers", ours: []string{"api/", "pkg/"}, cluster: true},
		{path: "pkg/operator", ours: []string{"api/", "pkg/", "controllers"}, cluster: true},
		// The command line knows a cluster only as far as pkg/credentials does.
		{path: "cmd/flux-bundle", ours: []string{"api/v1alpha1", "pkg/"}, cluster: true},
		{path: "", ours: []string{"pkg/operator"}, cluster: true},
		{path: "hack/"},
		{path: "test/", ours: []string{"api/", "pkg/", "test/"}, cluster: true},
	}
}

// imported is a package as the go command sees it.
type imported struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsPointOneWay(t *testing.T) {
	for _, p := range packages(t) {
		path := below(p.ImportPath)
		i := slices.IndexFunc(rules(), func(r rule) bool { return covers(r.path, path) })
		if i < 0 {
			t.Errorf("%s has no rule: say in this test what it may import", p.ImportPath)
			continue
		}
		r := rules()[i]
		for _, dependency := range p.Imports {
			switch {
			case isOurs(dependency):
				if !slices.ContainsFunc(r.ours, func(allowed string) bool { return covers(allowed, below(dependency)) }) {
					t.Errorf("%s must not import %s", p.ImportPath, dependency)
				}
			case r.stdlib && strings.Contains(dependency, "."):
				t.Errorf("%s must import the standard library only, not %s", p.ImportPath, dependency)
			}
		}
		if r.cluster {
			continue
		}
		for _, dependency := range p.Deps {
			if knowsCluster(dependency) {
				t.Errorf("%s must not know a cluster, but depends on %s", p.ImportPath, dependency)
			}
		}
	}
}

// TestEveryRuleHasAPackage keeps the rules from outliving what they are about.
func TestEveryRuleHasAPackage(t *testing.T) {
	all := packages(t)
	for _, r := range rules() {
		if !slices.ContainsFunc(all, func(p imported) bool { return covers(r.path, below(p.ImportPath)) }) {
			t.Errorf("the rule for %q is about nothing", r.path)
		}
	}
}

func TestWhatKnowsACluster(t *testing.T) {
	for dependency, want := range map[string]bool{
		"k8s.io/client-go/kubernetes":              true,
		"k8s.io/client-go":                         true,
		"sigs.k8s.io/controller-runtime/pkg/cache": true,
		"sigs.k8s.io/controller-runtime":           true,
		// The API types of Flux are registered with it.
		"sigs.k8s.io/controller-runtime/pkg/scheme": false,
		"k8s.io/apimachinery/pkg/apis/meta/v1":      false,
	} {
		if got := knowsCluster(dependency); got != want {
			t.Errorf("%s: got %t, want %t", dependency, got, want)
		}
	}
}

func knowsCluster(dependency string) bool {
	if dependency == "sigs.k8s.io/controller-runtime/pkg/scheme" {
		return false
	}
	for _, family := range []string{"k8s.io/client-go", "sigs.k8s.io/controller-runtime"} {
		if dependency == family || strings.HasPrefix(dependency, family+"/") {
			return true
		}
	}
	return false
}

// packages lists the packages of this module and what they depend on, tests
// left out.
func packages(t *testing.T) []imported {
	t.Helper()
	return list[imported](t, "-json=ImportPath,Imports,Deps", "./...")
}

// readFolders opens the folders of the module: the go command takes the result
// of a test for good until what the test itself opened has changed, and does not
// see what go list reads.
func readFolders(t *testing.T) {
	t.Helper()
	for _, top := range []string{".", "api", "cmd", "controllers", "hack", "pkg", "test"} {
		err := fs.WalkDir(os.DirFS(root), top, func(path string, entry fs.DirEntry, err error) error {
			if top == "." && path != "." && entry.IsDir() {
				return fs.SkipDir
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func isOurs(path string) bool { return path == module || strings.HasPrefix(path, module+"/") }

// below returns a package's path in the module.
func below(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// covers tells whether a spelling in the rules means a package.
func covers(spelling, path string) bool {
	if strings.HasSuffix(spelling, "/") {
		return strings.HasPrefix(path, spelling)
	}
	return spelling == path
}
