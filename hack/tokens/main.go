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

// Command tokens prints the size of the packages of this module that go list
// prints as JSON to its input:
//
//	go list -deps -json . | go run ./hack/tokens
//
// Tokens measure code better than lines do: they do not depend on its layout.
// Comments, imports, tests, generated files and the semicolons that Go inserts at
// the end of a line are left out. Files for other platforms count, so that the
// result does not depend on the platform.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// listed is a package as go list prints it.
type listed struct {
	Dir            string
	ImportPath     string
	GoFiles        []string
	IgnoredGoFiles []string
	Module         *struct{ Main bool }
}

// size is the size of some files. Lines include comments and imports.
type size struct{ files, lines, tokens int }

func (s *size) add(other size) {
	s.files += other.files
	s.lines += other.lines
	s.tokens += other.tokens
}

func main() {
	if err := report(os.Stdin, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// report writes a line for each package of this module, and their total.
func report(in io.Reader, out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, s size) {
		fmt.Fprintf(table, "%d\t%d\t%d\t  %s\n", s.tokens, s.lines, s.files, name)
	}
	fmt.Fprintln(table, "tokens\tlines\tfiles\t  package")
	var total size
	for decoder := json.NewDecoder(in); ; {
		var p listed
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			row("total", total)
			return table.Flush()
		case err != nil:
			return fmt.Errorf("the input is not what go list -json prints: %w", err)
		case p.Module == nil || !p.Module.Main:
			continue
		}
		s, err := measure(p)
		if err != nil {
			return err
		}
		row(p.ImportPath, s)
		total.add(s)
	}
}

// measure returns the size of a package.
func measure(p listed) (size, error) {
	var all size
	for _, name := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(filepath.Join(p.Dir, name)) //nolint:gosec // a file that go list names
		if err != nil {
			return size{}, err
		}
		s, err := measureFile(name, source)
		if err != nil {
			return size{}, err
		}
		all.add(s)
	}
	return all, nil
}

// measureFile returns the size of a file, and nothing for a generated one.
func measureFile(name string, source []byte) (size, error) {
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, name, source, parser.ImportsOnly|parser.ParseComments)
	if err != nil || ast.IsGenerated(syntax) {
		return size{}, err
	}
	inImports := func(pos token.Pos) bool {
		return slices.ContainsFunc(syntax.Decls, func(d ast.Decl) bool { return d.Pos() <= pos && pos < d.End() })
	}
	file := set.File(syntax.Pos())
	s := size{files: 1, lines: bytes.Count(source, []byte("\n"))}
	var tokens scanner.Scanner
	tokens.Init(file, source, nil, 0)
	for {
		pos, tok, literal := tokens.Scan()
		switch {
		case tok == token.EOF:
			return s, nil
		case tok == token.SEMICOLON && literal == "\n", inImports(pos):
		default:
			s.tokens++
		}
	}
}
