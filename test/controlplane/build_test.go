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
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestBuild(t *testing.T) {
	hello := recipe{name: "hello", module: "hello", pkg: "."}

	t.Run("builds a program that runs", func(t *testing.T) {
		g := NewWithT(t)
		b, progress := newTestBuilder(t)

		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())

		g.Expect(exec.Command(b.binary(hello)).Run()).To(Succeed())
		g.Expect(progress.String()).To(HavePrefix("building hello (1/1)"))
	})

	t.Run("does nothing when the program is up to date", func(t *testing.T) {
		g := NewWithT(t)
		b, progress := newTestBuilder(t)
		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())
		progress.Reset()

		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())

		g.Expect(progress.String()).To(BeEmpty())
	})

	t.Run("builds again what was deleted", func(t *testing.T) {
		g := NewWithT(t)
		b, _ := newTestBuilder(t)
		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())
		g.Expect(os.Remove(b.binary(hello))).To(Succeed())

		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())

		g.Expect(b.binary(hello)).To(BeAnExistingFile())
	})

	t.Run("reports what the compiler says and keeps the program that it has", func(t *testing.T) {
		g := NewWithT(t)
		b, _ := newTestBuilder(t)
		g.Expect(b.ensure(t.Context(), []recipe{hello})).To(Succeed())
		writeFile(g, filepath.Join(b.programs, "hello", "main.go"), "package main\n\nfunc main() { undefinedFunction() }\n")

		err := b.ensure(t.Context(), []recipe{hello})

		g.Expect(err).To(MatchError(ContainSubstring("undefined: undefinedFunction")))
		g.Expect(exec.Command(b.binary(hello)).Run()).To(Succeed())
		g.Expect(b.stale([]recipe{hello})).To(ConsistOf(hello), "the next build tries again")
	})

	t.Run("ends with the context and leaves no partial program", func(t *testing.T) {
		g := NewWithT(t)
		b, _ := newTestBuilder(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		err := b.ensure(ctx, []recipe{hello})

		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(filepath.Glob(b.binary(hello) + "*")).To(BeEmpty())
	})

	t.Run("waits for another process that builds, and uses what it built", func(t *testing.T) {
		g := NewWithT(t)
		b, progress := newTestBuilder(t)
		unlock, err := tryLock(filepath.Join(b.target, "build.lock"))
		g.Expect(err).NotTo(HaveOccurred())

		waiting := make(chan error, 1)
		go func() { waiting <- b.ensure(t.Context(), []recipe{hello}) }()
		g.Consistently(waiting, "300ms").ShouldNot(Receive())
		g.Expect(b.build(t.Context(), hello, "1/1")).To(Succeed())
		progress.Reset()
		unlock()

		g.Eventually(waiting, "10s").Should(Receive(BeNil()))
		g.Expect(progress.String()).To(BeEmpty())
	})

	t.Run("names the programs that there are when one is unknown", func(t *testing.T) {
		g := NewWithT(t)

		err := Build(t.Context(), BuildOptions{Programs: []string{"kube-scheduler"}})

		g.Expect(err).To(MatchError(And(ContainSubstring("kube-scheduler"), ContainSubstring(APIServer))))
	})
}

func TestSelectRecipes(t *testing.T) {
	t.Run("leaves out what is built on request unless it is named", func(t *testing.T) {
		g := NewWithT(t)
		g.Expect(selectRecipes(nil)).To(HaveLen(9))
	})

	t.Run("returns what is named, in building order", func(t *testing.T) {
		g := NewWithT(t)
		selected, err := selectRecipes([]string{"kustomize", Etcd})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(recipeNames(selected)).To(Equal([]string{Etcd, "kustomize"}))
	})
}

func TestFluxControllersShareTheirDependencies(t *testing.T) {
	g := NewWithT(t)
	places, err := locate("")
	g.Expect(err).NotTo(HaveOccurred())

	first := map[string]requirement{}
	for _, controller := range FluxControllers() {
		for _, r := range requirements(t, filepath.Join(places.programs, controller)) {
			other, shared := first[r.Path]
			if !shared {
				first[r.Path] = r
				continue
			}
			g.Expect(r.Version).To(Equal(other.Version),
				"%s requires %s at another version than a controller before it: it is compiled twice", controller, r.Path)
		}
	}
}

func TestCommittedCRDsAreThoseOfThePinnedControllers(t *testing.T) {
	g := NewWithT(t)
	committed, err := CRDDir()
	g.Expect(err).NotTo(HaveOccurred())
	pinned := t.TempDir()
	g.Expect(copyPinnedCRDs(t.Context(), pinned)).To(Succeed())

	for _, crd := range committedCRDs() {
		want, err := os.ReadFile(filepath.Join(pinned, crd.file))
		g.Expect(err).NotTo(HaveOccurred())
		got, err := os.ReadFile(filepath.Join(committed, crd.file))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(got)).To(Equal(string(want)), "run go generate ./test/controlplane to update %s", crd.file)
	}
}

func newTestBuilder(t *testing.T) (*builder, *bytes.Buffer) {
	t.Helper()
	progress := &bytes.Buffer{}
	b, err := newBuilder(t.Context(), places{programs: helloPrograms(t), target: t.TempDir()}, progress)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(b.close)
	return b, progress
}

type requirement struct{ Path, Version string }

// requirements returns what the go.mod in dir requires.
func requirements(t *testing.T, dir string) []requirement {
	t.Helper()
	g := NewWithT(t)
	edit := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	edit.Dir = dir
	output, err := edit.Output()
	g.Expect(err).NotTo(HaveOccurred())
	var file struct{ Require []requirement }
	g.Expect(json.Unmarshal(output, &file)).To(Succeed())
	return file.Require
}
