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
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"testing"
)

// The limits on the shape of code.
const (
	maxMethods    = 20
	maxFields     = 12
	maxParameters = 4  // besides a context
	maxFuncLines  = 60 // with the signature, comments and braces
	maxOutline    = 45 // lines of Reconcile and evaluate, which a reader begins with
	maxMainFiles  = 1
	maxMainLines  = 150
)

// shaped are the packages that keep these limits.
func shaped() []string {
	return []string{".", "./controllers", "./pkg/access", "./pkg/apiserver", "./pkg/explain", "./pkg/operator", "./pkg/pipeline", "./pkg/publication", "./pkg/serve", "./pkg/source", "./pkg/throttle", "./pkg/trustpolicy"}
}

// shapeExceptions are the values above the limits.
func shapeExceptions() map[string]int {
	return map[string]int{}
}

// TestCodeKeepsItsShape holds types and functions to a size that fits on a screen.
func TestCodeKeepsItsShape(t *testing.T) {
	var measured []measurement
	for _, s := range load(t, shaped()...) {
		measured = append(measured, s.shape()...)
	}
	for _, complaint := range complaints(measured, shapeExceptions()) {
		t.Error(complaint)
	}
}

func TestShapeOfCode(t *testing.T) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "main.go", `package main

import "context"

type pair struct { a, b int; context.Context }

func (pair) one() {}
func (*pair) two() {
	// A comment counts.
}

type doer interface { do(int); undo() }

func (pair) evaluate(_ context.Context, a, b int, more ...string) {}
`, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]measurement{}
	for _, m := range check(t, module, set, []*ast.File{file}, importer.Default()).shape() {
		got[m.of] = m
	}
	for of, want := range map[string]measurement{
		"files of package main":            {value: 1, limit: 1},
		"lines of package main":            {value: 14, limit: 150},
		"methods of main.pair":             {value: 3, limit: 20},
		"fields of main.pair":              {value: 3, limit: 12},
		"methods of main.doer":             {value: 2, limit: 20},
		"lines of main.pair.two":           {value: 3, limit: 60},
		"lines of main.pair.evaluate":      {value: 1, limit: 45},
		"parameters of main.pair.evaluate": {value: 3, limit: 4},
	} {
		want.of = of
		if got[of] != want {
			t.Errorf("got %+v, want %+v", got[of], want)
		}
	}
}

// shape measures a package.
func (s source) shape() []measurement {
	var all []measurement
	add := func(what, name string, value, limit int) {
		all = append(all, measurement{of: fmt.Sprintf("%s of %s.%s", what, s.path, name), value: value, limit: limit})
	}
	lines := 0
	for _, f := range s.files {
		lines += s.line(f.FileEnd)
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				named, ok := s.info.Defs[n.Name].Type().(*types.Named)
				if !ok {
					return true // an alias, or a type parameter
				}
				methods := named.NumMethods()
				switch underlying := named.Underlying().(type) {
				case *types.Struct:
					add("fields", n.Name.Name, underlying.NumFields(), maxFields)
				case *types.Interface:
					methods = underlying.NumMethods()
				}
				add("methods", n.Name.Name, methods, maxMethods)
			case *ast.FuncDecl:
				signature := s.info.Defs[n.Name].(*types.Func).Signature()
				name, limit := n.Name.Name, maxFuncLines
				if name == "Reconcile" || name == "evaluate" {
					limit = maxOutline
				}
				if receiver := signature.Recv(); receiver != nil {
					name = typeName(receiver.Type()) + "." + name
				}
				add("lines", name, s.line(n.End())-s.line(n.Pos())+1, limit)
				add("parameters", name, parameters(signature), maxParameters)
			}
			return true
		})
	}
	if s.path == "main" {
		all = append(all,
			measurement{of: "files of package main", value: len(s.files), limit: maxMainFiles},
			measurement{of: "lines of package main", value: lines, limit: maxMainLines})
	}
	return all
}

// typeName returns the name of a receiver's type.
func typeName(t types.Type) string {
	if pointer, ok := t.(*types.Pointer); ok {
		t = pointer.Elem()
	}
	return t.(*types.Named).Obj().Name()
}

// parameters counts parameters without a context.
func parameters(signature *types.Signature) int {
	all := signature.Params()
	if all.Len() > 0 && all.At(0).Type().String() == "context.Context" {
		return all.Len() - 1
	}
	return all.Len()
}
