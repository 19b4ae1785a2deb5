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
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// source is a package with its syntax and types. Tests and generated files are
// not in files.
type source struct {
	path  string // below the module, main for package main
	set   *token.FileSet
	files []*ast.File
	types *types.Package
	info  *types.Info
}

// load returns the packages that the patterns name, for the platform of the test.
func load(t *testing.T, patterns ...string) []source {
	t.Helper()
	type compiled struct {
		Dir        string
		ImportPath string
		GoFiles    []string
		Export     string
		DepOnly    bool
	}
	// The compiler's export data have the types of imports; without them, the source
	// of all dependencies would have to be checked.
	all := list[compiled](t, append([]string{"-export", "-deps", "-json=Dir,ImportPath,GoFiles,Export,DepOnly"}, patterns...)...)
	exports := map[string]string{}
	for _, p := range all {
		exports[p.ImportPath] = p.Export
	}
	set := token.NewFileSet()
	imports := importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	var loaded []source
	for _, p := range all {
		if p.DepOnly {
			continue
		}
		files := make([]*ast.File, len(p.GoFiles))
		for i, name := range p.GoFiles {
			var err error
			if files[i], err = parser.ParseFile(set, filepath.Join(p.Dir, name), nil, parser.ParseComments); err != nil {
				t.Fatal(err)
			}
		}
		loaded = append(loaded, check(t, p.ImportPath, set, files, imports))
	}
	return loaded
}

// check finds the types of a package.
func check(t *testing.T, path string, set *token.FileSet, files []*ast.File, imports types.Importer) source {
	t.Helper()
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	checked, err := config.Check(path, set, files, info)
	if err != nil {
		t.Fatal(err)
	}
	return source{path: cmp.Or(below(path), "main"), set: set, files: slices.DeleteFunc(files, ast.IsGenerated), types: checked, info: info}
}

// file returns the name of the file of a position.
func (s source) file(pos token.Pos) string { return filepath.Base(s.set.Position(pos).Filename) }

// line returns the line of a position.
func (s source) line(pos token.Pos) int { return s.set.Position(pos).Line }

// list returns the packages that go list prints.
func list[P any](t *testing.T, arguments ...string) []P {
	t.Helper()
	readFolders(t)
	command := exec.CommandContext(t.Context(), "go", append([]string{"list"}, arguments...)...)
	command.Dir = root
	command.Stderr = t.Output()
	output, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []P
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p P
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			if len(all) == 0 {
				t.Fatal("go list knows no package")
			}
			return all
		case err != nil:
			t.Fatalf("what go list prints: %v", err)
		}
		all = append(all, p)
	}
}

// measurement is a number that a limit holds down.
type measurement struct {
	of     string
	value  int
	limit  int
	detail string // for the reader of a failure
}

// complaints compares measurements with their limits. The exceptions are known
// values above a limit. They may only shrink: an exception that is higher than
// the value is a complaint, too.
func complaints(measurements []measurement, exceptions map[string]int) []string {
	var all []string
	measured := map[string]bool{}
	for _, m := range measurements {
		measured[m.of] = true
		exception, excepted := exceptions[m.of]
		switch limit := max(m.limit, exception); {
		case m.value > limit:
			all = append(all, fmt.Sprintf("%s: %d, the limit is %d%s", m.of, m.value, limit, m.detail))
		case excepted && m.value <= m.limit:
			all = append(all, fmt.Sprintf("%s: %d is within the limit of %d: remove its exception", m.of, m.value, m.limit))
		case m.value < exception:
			all = append(all, fmt.Sprintf("%s: %d is better than its exception: lower that from %d to %d", m.of, m.value, exception, m.value))
		}
	}
	for of := range exceptions {
		if !measured[of] {
			all = append(all, fmt.Sprintf("%s: does not exist: remove its exception", of))
		}
	}
	slices.Sort(all)
	return all
}

func TestExceptionsMayOnlyShrink(t *testing.T) {
	const of = "lines of f"
	for _, c := range []struct {
		name      string
		value     int
		exception int
		want      string
	}{
		{name: "within the limit", value: 60},
		{name: "above the limit", value: 61, want: "the limit is 60"},
		{name: "equal to its exception", value: 80, exception: 80},
		{name: "above its exception", value: 81, exception: 80, want: "the limit is 80"},
		{name: "below its exception", value: 79, exception: 80, want: "from 80 to 79"},
		{name: "an exception that is not needed", value: 60, exception: 80, want: "remove its exception"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exceptions := map[string]int{}
			if c.exception > 0 {
				exceptions[of] = c.exception
			}
			got := complaints([]measurement{{of: of, value: c.value, limit: 60}}, exceptions)
			if (c.want == "") != (len(got) == 0) || !strings.Contains(strings.Join(got, "\n"), c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if got := complaints(nil, map[string]int{of: 80}); len(got) != 1 {
		t.Errorf("an exception for a function that does not exist: got %q", got)
	}
}
