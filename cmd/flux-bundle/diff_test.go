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
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/static"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

func TestAFolderIsWhatAPushMakesOfIt(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	dir := manifests(t)
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", dir, "-t", ref)
	write(t, dir, map[string]string{".sourceignore": "notes/\n", "notes/todo.md": "x"})
	must(t, "-f", dir, "-t", ref)
	write(t, dir, map[string]string{"notes/more.md": "y"})
	g.Expect(os.Symlink("app", filepath.Join(dir, "link"))).To(Succeed())
	g.Expect(flux(t, "diff", ref, dir)).To(Equal(result{code: exitOK}), "nothing is said where nothing differs")
	g.Expect(flux(t, "diff", dir, ref)).To(Equal(result{code: exitOK}))

	var identical map[string]any
	g.Expect(json.Unmarshal([]byte(must(t, "diff", ref, dir, "-o", "json")), &identical)).To(Succeed())
	g.Expect(identical).To(And(HaveKeyWithValue("identical", true), HaveKeyWithValue("changes", BeEmpty())))
	a, b := identical["a"].(map[string]any), identical["b"].(map[string]any)
	g.Expect(a).To(And(HaveKeyWithValue("reference", ref), HaveKeyWithValue("format", "Flux"), HaveKey("digest")))
	g.Expect(b).To(HaveKeyWithValue("path", dir))
	g.Expect(a["published"]).To(Equal(b["published"]), "what the folder would be published as is what is published")
}

// TestAnEmptyFolderIsADifference has a folder with a symbolic link alone, which stays
// behind without the link.
func TestAnEmptyFolderIsADifference(t *testing.T) {
	g := NewWithT(t)
	files := map[string]string{"a.yaml": configMap}
	without, with := folder(t, files), folder(t, files)
	g.Expect(os.MkdirAll(filepath.Join(with, "kustomization.yaml", "x"), 0o750)).To(Succeed())
	g.Expect(os.Symlink("a", filepath.Join(with, "kustomization.yaml", "x", "link"))).To(Succeed())
	g.Expect(flux(t, "diff", without, with)).To(Equal(result{code: exitFailure, out: "Folder kustomization.yaml/x/ is added: empty\n", err: "1 added\n"}))
	g.Expect(flux(t, "diff", with, without)).To(Equal(result{code: exitFailure, out: "Folder kustomization.yaml/x/ is removed: empty\n", err: "1 removed\n"}))
	g.Expect(flux(t, "diff", with, with)).To(Equal(result{code: exitOK}))
	run := flux(t, "diff", without, with, "-o", "json")
	g.Expect(run.out).To(And(ContainSubstring(`"identical": false`), ContainSubstring(`"path": "kustomization.yaml/x/"`)))
}

func TestAFileThatIsAddedMayBeExecutable(t *testing.T) {
	g := NewWithT(t)
	without, with := folder(t, map[string]string{"a.yaml": configMap}), folder(t, map[string]string{"a.yaml": configMap, "run.sh": "#!/bin/sh\n"})
	g.Expect(os.Chmod(filepath.Join(with, "run.sh"), 0o755)).To(Succeed())
	g.Expect(flux(t, "diff", without, with).out).To(Equal("File run.sh is executable\n--- /dev/null\n+++ b/run.sh\n@@ -0,0 +1 @@\n+#!/bin/sh\n"))
	g.Expect(flux(t, "diff", with, without).out).To(Equal("--- a/run.sh\n+++ /dev/null\n@@ -1 +0,0 @@\n-#!/bin/sh\n"))
}

func TestAFileThatIsNoLongerExecutableIsAChange(t *testing.T) {
	g := NewWithT(t)
	files := map[string]string{"a.yaml": configMap, "run.sh": "#!/bin/sh\n"}
	plain, executable := folder(t, files), folder(t, files)
	g.Expect(os.Chmod(filepath.Join(executable, "run.sh"), 0o755)).To(Succeed())
	run := flux(t, "diff", executable, plain)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.out).To(Equal("File run.sh is not executable any more\n"))
}

func TestChangesAreShown(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	old := folder(t, map[string]string{
		"same.yaml": "s: 1\n", "changed.yaml": "a: 1\nb: 1\nc: 1\n", "removed.yaml": "r: 1\n", "logo.bin": "\x00\x01", "escape.txt": "\x1b[2J",
		"run.sh": "#!/bin/sh\n", "large.txt": strings.Repeat("l\n", 1<<20), "unended.txt": "x", "was-empty": "",
	})
	now := folder(t, map[string]string{
		"same.yaml": "s: 1\n", "changed.yaml": "a: 1\nb: 2\nc: 1\n", "added/new.yaml": "n: 1\n", "logo.bin": "\x00\x02\x03", "escape.txt": "\x1b[3J",
		"run.sh": "#!/bin/sh\n", "large.txt": strings.Repeat("L\n", 1<<20), "unended.txt": "y", "is-empty": "",
	})
	g.Expect(os.Chmod(filepath.Join(now, "run.sh"), 0o755)).To(Succeed())
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", old, "-t", ref, "--no-validate")

	run := flux(t, "diff", ref, now)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.err).To(Equal("2 added, 2 removed, 6 changed\n"))
	g.Expect(run.out).To(Equal(`--- /dev/null
+++ b/added/new.yaml
@@ -0,0 +1 @@
+n: 1
--- a/changed.yaml
+++ b/changed.yaml
@@ -1,3 +1,3 @@
 a: 1
-b: 1
+b: 2
 c: 1
File escape.txt is changed: 4 B sha256:` + sha256Of("\x1b[2J") + ` -> 4 B sha256:` + sha256Of("\x1b[3J") + `
File is-empty is added: empty
File large.txt is changed: 2.0 MiB sha256:` + sha256Of(strings.Repeat("l\n", 1<<20)) + ` -> 2.0 MiB sha256:` + sha256Of(strings.Repeat("L\n", 1<<20)) + `
File logo.bin is changed: 2 B sha256:` + sha256Of("\x00\x01") + ` -> 3 B sha256:` + sha256Of("\x00\x02\x03") + `
--- a/removed.yaml
+++ /dev/null
@@ -1 +0,0 @@
-r: 1
File run.sh is executable
--- a/unended.txt
+++ b/unended.txt
@@ -1 +1 @@
-x
\ No newline at end of file
+y
\ No newline at end of file
File was-empty is removed: empty
`))

	run = flux(t, "diff", ref, now, "-o", "json")
	g.Expect(run.code).To(Equal(exitFailure))
	var c struct {
		Identical *bool
		Changes   []map[string]any
	}
	g.Expect(json.Unmarshal([]byte(run.out), &c)).To(Succeed())
	g.Expect(*c.Identical).To(BeFalse())
	g.Expect(c.Changes).To(HaveLen(10))
	g.Expect(c.Changes[1]).To(Equal(map[string]any{
		"path": "changed.yaml", "kind": "changed", "diff": "--- a/changed.yaml\n+++ b/changed.yaml\n@@ -1,3 +1,3 @@\n a: 1\n-b: 1\n+b: 2\n c: 1\n",
		"old": map[string]any{"path": "changed.yaml", "size": 15.0, "sha256": sha256Of("a: 1\nb: 1\nc: 1\n")},
		"new": map[string]any{"path": "changed.yaml", "size": 15.0, "sha256": sha256Of("a: 1\nb: 2\nc: 1\n")},
	}))
	g.Expect(c.Changes[7]).To(And(HaveKeyWithValue("path", "run.sh"), HaveKeyWithValue("new", HaveKeyWithValue("executable", true)), Not(HaveKey("diff"))))
}

func TestADiffIsOneThatCanBeApplied(t *testing.T) {
	g := NewWithT(t)
	var old, now strings.Builder
	for i := range 2000 {
		line := strings.Repeat("x", i%7) + "\tvalue\r\n"
		old.WriteString(line)
		switch {
		case i%13 == 0:
			now.WriteString("changed\n")
		case i%17 != 0:
			now.WriteString(line)
		}
	}
	run := flux(t, "diff", folder(t, map[string]string{"a.txt": old.String()}), folder(t, map[string]string{"a.txt": now.String()}))
	g.Expect(run.code).To(Equal(exitFailure))
	dir := folder(t, map[string]string{"a.txt": old.String(), "patch": run.out})
	ask(t, dir, "apply", "--whitespace=nowarn", "patch")
	g.Expect(treeOf(t, dir)["a.txt"]).To(Equal(now.String()))
}

func TestVersionsOfAChartAreCompared(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	for version, value := range map[string]string{"1.0.0": "a: 1\n", "1.1.0": "a: 2\n"} {
		_, err := publish.Registry{Host: r.Host()}.Helm("charts", publish.Chart{Name: "podinfo", Version: version, Files: publish.Files{"values.yaml": value}})
		g.Expect(err).NotTo(HaveOccurred())
	}
	run := flux(t, "diff", r.Host()+"/charts/podinfo:1.0.0", "oci://"+r.Host()+"/charts/podinfo:1.1.0")
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.out).To(And(ContainSubstring("-version: 1.0.0\n+version: 1.1.0\n"), ContainSubstring("+++ b/podinfo/values.yaml\n@@ -1 +1 @@\n-a: 1\n+a: 2\n")))
}

func TestTroubleHasAnExitCodeOfItsOwn(t *testing.T) {
	r := serve(t)
	dir := manifests(t)
	image, err := publish.ContainerImage(publish.Files{"a": "x"})
	refused := pushImage(t, r, "org/image:v1", image, err)
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"one argument":        {[]string{dir}, []string{"1 argument given, expected two"}},
		"an unknown flag":     {[]string{dir, dir, "--nothing"}, []string{"--nothing"}},
		"an unknown output":   {[]string{dir, dir, "-o", "xml"}, []string{"xml"}},
		"no such folder":      {[]string{dir, "./none"}, []string{"./none: no such file"}},
		"neither":             {[]string{dir, "none"}, []string{`"none" may be a path`, `"./none"`, `"oci://none"`}},
		"no such tag":         {[]string{dir, r.Host() + "/org/app:v1"}, []string{"/org/app:v1: ", "404"}},
		"an empty folder":     {[]string{dir, t.TempDir()}, []string{"no file"}},
		"what is refused":     {[]string{refused, dir}, []string{"it is a container image"}},
		"a folder named oci:": {[]string{dir, "oci://UPPER"}, []string{"UPPER"}},
		"no time":             {[]string{dir, dir, "--timeout", "-1s"}, []string{"--timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, append([]string{"diff"}, c.args...)...)
			g.Expect(run.code).To(Equal(exitTrouble), run.err)
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
		})
	}
}

func TestAFileIsWhatAPushMakesOfIt(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	file := filepath.Join(folder(t, map[string]string{"app.yaml": configMap}), "app.yaml")
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", file, "-t", ref)
	g.Expect(flux(t, "diff", ref, file)).To(Equal(result{code: exitOK}))
}

func TestAFolderInTheWorkingFolderIsAFolder(t *testing.T) {
	g := NewWithT(t)
	t.Chdir(folder(t, map[string]string{"a/x.yaml": "x: 1\n", "b/x.yaml": "x: 1\n", "localhost:1/x.yaml": "x: 2\n"}))
	g.Expect(flux(t, "diff", "./a", "./b")).To(Equal(result{code: exitOK}))
	g.Expect(flux(t, "diff", "./a", "./localhost:1").code).To(Equal(exitFailure))
	t.Chdir("a")
	g.Expect(flux(t, "diff", ".", "../b")).To(Equal(result{code: exitOK}))
}

// A pull request may bring a file or folder of any name, also that of the reference
// that it is compared with.
func TestAPathNamedLikeTheReferenceIsNotRead(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	published := manifests(t)
	must(t, "-f", published, "-t", ref)
	digest := must(t, "inspect", ref, "-o", "json")
	hostile := map[string]string{"app/config.yaml": strings.ReplaceAll(configMap, "hello", "evil"), "kustomization.yaml": "resources:\n- app/config.yaml\n"}
	t.Chdir(folder(t, nil))
	write(t, "deploy", hostile)
	for name, plant := range map[string]func() error{
		"a folder": func() error { write(t, ref, hostile); return nil },
		"a link": func() error {
			if err := os.MkdirAll(filepath.Dir(ref), 0o755); err != nil {
				return err
			}
			return os.Symlink(filepath.Join("..", "..", "deploy"), ref)
		},
	} {
		g.Expect(plant()).To(Succeed())
		run := flux(t, "diff", ref, "./deploy")
		g.Expect(run.code).To(Equal(exitFailure), "%s: %s", name, run.err)
		g.Expect(run.out).To(ContainSubstring("config.yaml"), name)
		g.Expect(must(t, "inspect", ref, "-o", "json")).To(Equal(digest), name)
		g.Expect(os.RemoveAll(r.Host())).To(Succeed())
	}
}

func TestWhatMayBeAPathOrANameIsRefused(t *testing.T) {
	t.Chdir(folder(t, nil))
	write(t, "deploy/base", map[string]string{"app.yaml": configMap})
	write(t, ".", map[string]string{"app.yaml": configMap, "org/app:v1": configMap, "localhost:1/app.yaml": configMap})
	for _, text := range []string{"deploy", "deploy/base", "app.yaml", "org/app:v1", "nginx:1.2", "localhost:1", "localhost:1/", "", "~/deploy"} {
		g := NewWithT(t)
		run := flux(t, "diff", text, "./deploy")
		g.Expect(run.code).To(Equal(exitTrouble), "%q: %s", text, run.out)
		g.Expect(run.out).To(BeEmpty())
	}
}

// No verb asks a registry for a name that it could take for another one.
func TestNamesThatMeanAnotherRepositoryAreRefused(t *testing.T) {
	r := serve(t)
	dir := manifests(t)
	_, public := keyPair(t, "")
	for _, name := range []string{"org/../evil/app:v1", "./app:v1", "/app:v1", "app/:v1", "%2e%2e/app:v1", `org\..\app:v1`, "Org/app:v1", "-app:v1", "app:..", "app:.v1", "app:v1?x", "app:v1#x"} {
		ref := r.Host() + "/" + name
		for _, args := range [][]string{
			{"push", "-f", dir, "-t", ref}, {"pull", ref, "-o", t.TempDir()}, {"inspect", ref}, {"verify", ref, "--key", public}, {"diff", ref, dir}, {"diff", "oci://" + ref, dir},
		} {
			g := NewWithT(t)
			run := flux(t, args...)
			g.Expect(run.code).NotTo(Equal(exitOK), "%s", args)
			expectOneError(g, run, "is no reference to an artifact")
		}
	}
	NewWithT(t).Expect(r.Requests()).To(BeEmpty())
}

func TestAFileThatAChartHasTwiceIsComparedTwice(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	_, err := publish.Registry{Host: r.Host()}.Helm("charts", publish.Chart{Name: "app", Version: "1.0.0", Files: publish.Files{"values.yaml": "a: 1\n"}})
	g.Expect(err).NotTo(HaveOccurred())
	var body bytes.Buffer
	compressed := gzip.NewWriter(&body)
	archive := tar.NewWriter(compressed)
	for _, file := range [][2]string{
		{"app/Chart.yaml", "apiVersion: v2\nname: app\nversion: 1.1.0\n"}, {"app/values.yaml", "a: 1\n"},
		{"app/templates/role.yaml", "kind: Role\n"}, {"app/templates/role.yaml", "kind: ClusterRole\n"},
	} {
		g.Expect(archive.WriteHeader(&tar.Header{Name: file[0], Mode: 0o644, Size: int64(len(file[1]))})).To(Succeed())
		_, err := io.WriteString(archive, file[1])
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(errors.Join(archive.Close(), compressed.Close())).To(Succeed())
	chart, err := publish.LayeredArtifact("application/vnd.cncf.helm.config.v1+json", static.NewLayer(body.Bytes(), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
	twice := pushImage(t, r, "charts/app:1.1.0", chart, err)
	run := flux(t, "diff", r.Host()+"/charts/app:1.0.0", twice)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.err).To(And(ContainSubstring("has files more than once"), ContainSubstring("app/templates/role.yaml")))
	g.Expect(run.out).To(ContainSubstring("+++ b/app/templates/role.yaml (copy 2)\n@@ -0,0 +1 @@\n+kind: ClusterRole\n"))
	g.Expect(flux(t, "diff", twice, twice).code).To(Equal(exitOK))
	var shown struct{ Files []shownFile }
	g.Expect(json.Unmarshal([]byte(must(t, "inspect", twice, "-o", "json")), &shown)).To(Succeed())
	g.Expect(shown.Files).To(ContainElement(And(HaveField("Path", "app/templates/role.yaml"), HaveField("Copy", 2))))
}

// TestAllThatHelmReadsOfAChartIsShown compares charts with entries of types that Helm takes
// for files: of the last one of a name, it takes the content.
func TestAllThatHelmReadsOfAChartIsShown(t *testing.T) {
	r := serve(t)
	push := func(tag string, more ...tar.Header) string {
		var body bytes.Buffer
		archive := tar.NewWriter(&body)
		for _, h := range append([]tar.Header{{Name: "app/Chart.yaml"}, {Name: "app/values.yaml"}}, more...) {
			content := "name: app\nversion: 1.0.0\n"
			if h.Typeflag == tar.TypeSymlink || h.Typeflag == 'V' {
				content = ""
			}
			h.Mode, h.Size = 0o644, int64(len(content))
			NewWithT(t).Expect(archive.WriteHeader(&h)).To(Succeed())
			_, err := io.WriteString(archive, content)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		}
		NewWithT(t).Expect(archive.Close()).To(Succeed())
		chart, err := publish.LayeredArtifact("application/vnd.cncf.helm.config.v1+json", static.NewLayer(zipped(t, body.Bytes()), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
		return pushImage(t, r, "charts/app:"+tag, chart, err)
	}
	plain := push("plain")
	for name, c := range map[string]struct {
		hidden  tar.Header
		refused string
	}{
		"a contiguous file":      {tar.Header{Name: "app/templates/role.yaml", Typeflag: tar.TypeCont}, ""},
		"a link":                 {tar.Header{Name: "app/templates/role.yaml", Typeflag: tar.TypeSymlink, Linkname: "x"}, ""},
		"a link of a known name": {tar.Header{Name: "app/values.yaml", Typeflag: tar.TypeSymlink, Linkname: "x"}, ""},
		"a file in a file":       {tar.Header{Name: "app/values.yaml/role.yaml"}, ""},
		"a label":                {tar.Header{Name: "app/values.yaml", Typeflag: 'V'}, "unknown type 'V'"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			ref := push(strings.ReplaceAll(name, " ", "-"), c.hidden)
			run := flux(t, "diff", plain, ref)
			if c.refused != "" {
				expectOneError(g, run, c.refused)
				return
			}
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.out).To(ContainSubstring(c.hidden.Name))
			var shown inspection
			g.Expect(json.Unmarshal([]byte(must(t, "inspect", ref, "-o", "json")), &shown)).To(Succeed())
			g.Expect(shown.Files).To(HaveLen(3))
			g.Expect(shown.Omitted).To(BeEmpty())
		})
	}
}

// TestChartsThatHelmReadsInDifferentWaysDiffer compares charts of the same files once
// unpacked, of which Helm makes other files.
func TestChartsThatHelmReadsInDifferentWaysDiffer(t *testing.T) {
	r := serve(t)
	push := func(tag string, entries ...tar.Header) string {
		var body bytes.Buffer
		archive := tar.NewWriter(&body)
		for _, h := range append([]tar.Header{{Name: "app/Chart.yaml"}}, entries...) {
			content := "name: app\nversion: 1.0.0\nfrom: " + path.Clean(h.Name) + "\n"
			if h.Typeflag == tar.TypeSymlink {
				content = ""
			}
			h.Mode, h.Size = h.Mode|0o644, int64(len(content))
			NewWithT(t).Expect(archive.WriteHeader(&h)).To(Succeed())
			_, err := io.WriteString(archive, content)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		}
		NewWithT(t).Expect(archive.Close()).To(Succeed())
		chart, err := publish.LayeredArtifact("application/vnd.cncf.helm.config.v1+json", static.NewLayer(zipped(t, body.Bytes()), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
		return pushImage(t, r, "charts/app:"+tag, chart, err)
	}
	values, others := tar.Header{Name: "app/values.yaml"}, tar.Header{Name: "other/values.yaml"}
	link := tar.Header{Name: "app/values.yaml", Typeflag: tar.TypeSymlink, Linkname: "x"}
	const folderMode = 0o040000
	noFile := link
	noFile.Mode = folderMode
	for name, c := range map[string]struct {
		before, after []tar.Header
		shown         string
	}{
		"a file below two folders": {[]tar.Header{values, others}, []tar.Header{others, values}, "app/values.yaml (copy 2)"},
		"a dot before the folder":  {[]tar.Header{values}, []tar.Header{{Name: "./app/values.yaml"}}, "app/app/values.yaml"},
		"a link that is a folder":  {[]tar.Header{values, noFile}, []tar.Header{values, link}, "app/values.yaml (copy 2) is added: empty"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tag := strings.ReplaceAll(name, " ", "-")
			run := flux(t, "diff", push(tag+"-1", c.before...), push(tag+"-2", c.after...))
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.out).To(ContainSubstring(c.shown))
		})
	}
}

// TestFilesOfAChartCanBeReadWhateverTheirPermissions unpacks a chart whose files nobody
// may read, as diff does to compare their text.
func TestFilesOfAChartCanBeReadWhateverTheirPermissions(t *testing.T) {
	g := NewWithT(t)
	archive, dir := filepath.Join(t.TempDir(), "chart.tgz"), t.TempDir()
	g.Expect(os.WriteFile(archive, layerOf(t, tar.Header{Name: "x/values.yaml"}, tar.Header{Name: "x/run.sh", Mode: 0o111}), 0o600)).To(Succeed())
	root, err := os.OpenRoot(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer root.Close()
	_, err = readChart(t.Context(), archive, root)
	g.Expect(err).NotTo(HaveOccurred())
	for name, mode := range modes(t, dir) {
		g.Expect(mode.Perm()&0o400).NotTo(BeZero(), name)
	}
}
