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
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

// fieldOfSpec is a field of an ArtifactRepository in a message. The path of a
// Kustomization is no such field.
var fieldOfSpec = regexp.MustCompile(`\bspec\.[a-zA-Z.]+|ImageRepository`)

func TestAdviceNamesFlagsOfTheCommand(t *testing.T) {
	r := serve(t)
	image, err := publish.ContainerImage(publish.Files{"bin/app": "x"})
	pushImage(t, r, "org/image:v1", image, err)
	ref, artifact := r.Host()+"/org/image:v1", r.Host()+"/org/app:v1"
	must(t, "-f", manifests(t), "-t", artifact)
	for title, c := range map[string]struct {
		args []string
		says string
	}{
		"a format to pin":                 {[]string{"inspect", ref}, "--format is Image"},
		"a format to pin, in a pull":      {[]string{"pull", ref, "-o", t.TempDir()}, "--format is Image"},
		"a format to pin, in a diff":      {[]string{"diff", ref, artifact}, "--format is Image"},
		"another format":                  {[]string{"inspect", artifact, "--format", "Helm"}, "set --format to Auto or Flux"},
		"no layer of a type":              {[]string{"inspect", artifact, "--layer-media-type", "a/b"}, "set --layer-media-type to one of these"},
		"everything left out":             {[]string{"inspect", artifact, "--ignore-paths", "*"}, "change --ignore-paths"},
		"an expression that is too long":  {[]string{"verify", artifact, "--certificate-oidc-issuer", "a", "--certificate-identity-regexp", strings.Repeat("a", 2000)}, "of the certificate has 2000 bytes"},
		"an expression that is too large": {[]string{"pull", artifact, "-o", t.TempDir(), "--certificate-oidc-issuer-regexp", "(a{50}){20}b{200}", "--certificate-identity", "a"}, "of the certificate is"},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, c.args...)
			g.Expect(run.code).NotTo(Equal(exitOK))
			g.Expect(run.err).To(ContainSubstring(c.says))
			g.Expect(run.err + run.out).NotTo(MatchRegexp(strings.ReplaceAll(fieldOfSpec.String(), `spec\.`, `spec\.[^p]`)))
		})
	}
}

// TestEveryFieldInAnErrorHasAFlag reads the messages of the packages that the command
// shares with the controller.
func TestEveryFieldInAnErrorHasAFlag(t *testing.T) {
	const ofKustomization = "set spec.path of the Kustomization"
	named := 0
	for _, folder := range []string{"format", "bridge", "trust"} {
		files, err := filepath.Glob(filepath.Join("..", "..", "pkg", folder, "*.go"))
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			ast.Inspect(parsed, func(n ast.Node) bool {
				text, is := n.(*ast.BasicLit)
				if !is || text.Kind != token.STRING || !fieldOfSpec.MatchString(text.Value) {
					return true
				}
				named++
				said := strings.ReplaceAll(inFlags(errors.New(text.Value)).Error(), ofKustomization, "")
				if field := fieldOfSpec.FindString(said); field != "" {
					t.Errorf("%s names %s in %s", file, field, said)
				}
				return true
			})
		}
	}
	NewWithT(t).Expect(named).To(BeNumerically(">", 10))
}
