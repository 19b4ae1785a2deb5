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

package controlplane

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestStamp(t *testing.T) {
	tests := []struct {
		name    string
		change  func(g Gomega, programs string, r *recipe, toolchain *string)
		changes bool
	}{
		{"stays when nothing changes", func(Gomega, string, *recipe, *string) {}, false},
		{"stays when a file changes that is no input of the build", func(g Gomega, programs string, _ *recipe, _ *string) {
			writeFile(g, filepath.Join(programs, "hello", "README.md"), "text")
		}, false},
		{"stays when the estimate changes", func(_ Gomega, _ string, r *recipe, _ *string) { r.about++ }, false},
		{"changes with go.mod", func(g Gomega, programs string, _ *recipe, _ *string) {
			writeFile(g, filepath.Join(programs, "hello", "go.mod"), "module hello\n\ngo 1.25\n")
		}, true},
		{"changes with go.sum", func(g Gomega, programs string, _ *recipe, _ *string) {
			writeFile(g, filepath.Join(programs, "hello", "go.sum"), "sum")
		}, true},
		{"changes with a Go file in a subdirectory", func(g Gomega, programs string, _ *recipe, _ *string) {
			writeFile(g, filepath.Join(programs, "hello", "cmd", "main.go"), "package main")
		}, true},
		{"changes with the toolchain", func(_ Gomega, _ string, _ *recipe, toolchain *string) { *toolchain = "go1.99" }, true},
		{"changes with the linker flags", func(_ Gomega, _ string, r *recipe, _ *string) { r.ldflags = "-X a=b" }, true},
		{"changes with the module of its CustomResourceDefinitions", func(g Gomega, programs string, _ *recipe, _ *string) {
			writeFile(g, filepath.Join(programs, "crds", "go.mod"), "module other\n")
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := NewWithT(t)
			programs := helloPrograms(t)
			writeFile(g, filepath.Join(programs, "crds", "go.mod"), "module crds\n")
			r, toolchain := recipe{name: "hello", module: "hello", pkg: ".", crds: []string{"crds"}}, "go1.26"

			before, err := r.stamp(programs, toolchain)
			g.Expect(err).NotTo(HaveOccurred())
			tt.change(g, programs, &r, &toolchain)
			after, err := r.stamp(programs, toolchain)
			g.Expect(err).NotTo(HaveOccurred())

			g.Expect(after != before).To(Equal(tt.changes))
		})
	}
}

// helloPrograms returns a directory of programs with a single small one.
func helloPrograms(t *testing.T) string {
	t.Helper()
	g := NewWithT(t)
	programs := t.TempDir()
	writeFile(g, filepath.Join(programs, "hello", "go.mod"), "module hello\n\ngo 1.26\n")
	writeFile(g, filepath.Join(programs, "hello", "main.go"), "package main\n\nfunc main() {}\n")
	return programs
}

func writeFile(g Gomega, path, content string) {
	g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	g.Expect(os.WriteFile(path, []byte(content), 0o644)).To(Succeed())
}
