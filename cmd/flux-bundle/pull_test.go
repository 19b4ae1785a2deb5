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
	"crypto/rand"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	fluxoci "github.com/fluxcd/pkg/oci"
	"github.com/google/go-containerregistry/pkg/crane"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

// modes are the permissions of all that is in a folder.
func modes(t *testing.T, dir string) map[string]fs.FileMode {
	t.Helper()
	all := map[string]fs.FileMode{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		all[path] = info.Mode()
		return err
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return all
}

func TestPullWritesWhatFluxPulls(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	files := publish.Files{"kustomization.yaml": "resources: [app/a.yaml]\n", "app/a.yaml": configMap, ".hidden/b.yaml": "x"}
	digest, err := publish.Registry{Host: r.Host()}.FluxCLI(t.Context(), "org/app:v1", files)
	g.Expect(err).NotTo(HaveOccurred())
	ref, dir, theirs := r.Host()+"/org/app:v1", filepath.Join(t.TempDir(), "new", "folder"), t.TempDir()
	run := flux(t, "pull", ref, "-o", dir)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(run.out).To(Equal(r.Host() + "/org/app@" + digest + "\n"))
	g.Expect(run.err).To(ContainSubstring("pulled 3 files"))
	_, err = fluxoci.NewClient([]crane.Option{crane.Insecure}).Pull(t.Context(), ref, theirs)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(treeOf(t, dir)).To(Equal(treeOf(t, theirs)))
	g.Expect(treeOf(t, dir)).To(Equal(map[string]string(files)))
	g.Expect(modes(t, dir)).To(HaveLen(5), "nothing of the way is left")
}

func TestPullWritesAChartAsOneFile(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	chart := publish.Chart{Name: "podinfo", Version: "1.2.3", Provenance: "signed", Files: publish.Files{"values.yaml": "a: 1\n"}}
	_, err := publish.Registry{Host: r.Host()}.Helm("charts", chart)
	g.Expect(err).NotTo(HaveOccurred())
	dir := folder(t, map[string]string{"README.md": "mine"})
	run := flux(t, "pull", r.Host()+"/charts/podinfo:1.2.3", "-o", dir)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(run.err).NotTo(ContainSubstring("warning"))
	m, err := crane.Manifest(r.Host() + "/charts/podinfo:1.2.3")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(treeOf(t, dir)).To(HaveLen(2))
	g.Expect(string(m)).To(ContainSubstring(sha256Of(treeOf(t, dir)["podinfo-1.2.3.tgz"])), "it is the layer's own bytes")
}

func TestPermissionsAreThoseThatArePublished(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	from, dir := folder(t, map[string]string{"run.sh": "#!/bin/sh\n", "app/a.yaml": configMap}), t.TempDir()
	g.Expect(os.Chmod(filepath.Join(from, "run.sh"), 0o755)).To(Succeed())
	must(t, "-f", from, "-t", r.Host()+"/org/app:v1")
	must(t, "pull", r.Host()+"/org/app:v1", "-o", dir)
	g.Expect(modes(t, dir)).To(Equal(map[string]fs.FileMode{"run.sh": 0o700, "app": fs.ModeDir | 0o750, "app/a.yaml": 0o600}))
}

func TestPullOverwritesOnlyWhenItMay(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	first, second := r.Host()+"/org/app:v1", r.Host()+"/org/app:v2"
	must(t, "-f", folder(t, map[string]string{"a.yaml": "a: 1\n", "b.yaml": "b: 1\n", "old.yaml": "c: 1\n"}), "-t", first, "--no-validate")
	must(t, "-f", folder(t, map[string]string{"a.yaml": "a: 2\n", "b.yaml": "b: 1\n", "new/d.yaml": "d: 1\n"}), "-t", second, "--no-validate")
	dir := t.TempDir()
	must(t, "pull", first, "-o", dir)
	must(t, "pull", first, "-o", dir)
	before := treeOf(t, dir)

	run := flux(t, "pull", second, "-o", dir)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.out).To(BeEmpty())
	expectOneError(g, run, "1 of 3 files", `"a.yaml"`, "--force")
	g.Expect(treeOf(t, dir)).To(Equal(before))
	g.Expect(modes(t, dir)).To(HaveLen(3), "nothing of the attempt is left")

	run = flux(t, "pull", second, "-o", dir, "--force")
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(treeOf(t, dir)).To(Equal(map[string]string{"a.yaml": "a: 2\n", "b.yaml": "b: 1\n", "new/d.yaml": "d: 1\n", "old.yaml": "c: 1\n"}))
	g.Expect(run.err).To(ContainSubstring(`other files too, such as "old.yaml", which are left alone`))
}

// TestAPullIntoACloneOfTheSameFiles has the modes that git gives to files.
func TestAPullIntoACloneOfTheSameFiles(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	source := folder(t, map[string]string{"a.yaml": "a: 1\n", "run.sh": "#!/bin/sh\n"})
	g.Expect(os.Chmod(filepath.Join(source, "run.sh"), 0o755)).To(Succeed())
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", source, "-t", ref, "--no-validate")
	must(t, "pull", ref, "-o", source)

	g.Expect(os.Chmod(filepath.Join(source, "run.sh"), 0o644)).To(Succeed())
	run := flux(t, "pull", ref, "-o", source)
	expectOneError(g, run, "1 of 2 files", `"run.sh"`, "--force")
}

func TestNothingIsWrittenOutsideOfTheFolder(t *testing.T) {
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "app/a.yaml"}, tar.Header{Name: "b.yaml"}))
	for name, c := range map[string]struct {
		link  string
		words []string // empty: it succeeds
	}{
		"a folder that is a link to another": {"app", []string{`"app" is a folder in the artifact`}},
		"a file that is a link to another":   {"b.yaml", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			outside, dir := folder(t, map[string]string{"a.yaml": "precious"}), t.TempDir()
			target := outside
			if c.link == "b.yaml" {
				target = filepath.Join(outside, "a.yaml")
			}
			g.Expect(os.Symlink(target, filepath.Join(dir, c.link))).To(Succeed())
			run := flux(t, "pull", ref, "-o", dir, "--force")
			if c.words == nil {
				g.Expect(run.code).To(Equal(exitOK), run.err)
				g.Expect(treeOf(t, dir)).To(HaveKeyWithValue("b.yaml", "b.yaml"))
				g.Expect(modes(t, dir)["b.yaml"].IsRegular()).To(BeTrue())
			} else {
				g.Expect(run.code).To(Equal(exitFailure))
				expectOneError(g, run, c.words...)
				g.Expect(modes(t, dir)).To(HaveLen(1))
			}
			g.Expect(treeOf(t, outside)).To(Equal(map[string]string{"a.yaml": "precious"}))
		})
	}
}

// TestAPullFollowsNoLinkOfATree pulls in a tree whose author has made the folder of
// the pull a link to elsewhere.
func TestAPullFollowsNoLinkOfATree(t *testing.T) {
	ref := pushLayer(t, serve(t), "org/app:v1", archived(t, tar.Header{Name: "authorized_keys"}))
	for name, c := range map[string]struct{ link, output string }{
		"the folder":           {"deploy", "deploy"},
		"by its whole path":    {"deploy", "{tree}/deploy"},
		"a folder that it has": {"deploy", "deploy/made/for/it"},
		"a folder above":       {"a", "./a/deploy"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			tree, outside := t.TempDir(), t.TempDir()
			g.Expect(os.Symlink(outside, filepath.Join(tree, c.link))).To(Succeed())
			t.Chdir(tree)
			args := []string{"pull", ref, "-o", strings.ReplaceAll(c.output, "{tree}", tree), "--force"}
			run := flux(t, args...)
			g.Expect(run.code).To(Equal(exitFailure))
			expectOneError(g, run, "is a symbolic link", "--follow-symlinks")
			g.Expect(modes(t, outside)).To(BeEmpty())
			must(t, append(args, "--follow-symlinks")...)
			g.Expect(modes(t, outside)).NotTo(BeEmpty())
		})
	}
}

// TestNoLinkDecidesWhatIsAboveIt pulls by a path on which a tree has a link before the
// dots: to the system they lead up from what is behind it.
func TestNoLinkDecidesWhatIsAboveIt(t *testing.T) {
	g := NewWithT(t)
	ref := pushLayer(t, serve(t), "org/app:v1", archived(t, tar.Header{Name: "authorized_keys"}))
	tree, outside := t.TempDir(), t.TempDir()
	g.Expect(os.Mkdir(filepath.Join(outside, "behind"), 0o700)).To(Succeed())
	g.Expect(os.Symlink(filepath.Join(outside, "behind"), filepath.Join(tree, "deploy"))).To(Succeed())
	t.Chdir(tree)
	must(t, "pull", ref, "-o", "deploy/../rendered")
	g.Expect(modes(t, outside)).To(HaveLen(1))
	g.Expect(treeOf(t, filepath.Join(tree, "rendered"))).To(HaveKey("authorized_keys"))
}

// TestAFolderInOneThatNoEntryNames pulls a folder of which the archive does not name
// the one that it is in.
func TestAFolderInOneThatNoEntryNames(t *testing.T) {
	g := NewWithT(t)
	ref := pushLayer(t, serve(t), "org/app:v1", layerOf(t, tar.Header{Name: "a/b/c/", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "x.yaml", Mode: 0o600}))
	dir := t.TempDir()
	must(t, "pull", ref, "-o", dir)
	g.Expect(modes(t, dir)).To(And(HaveLen(4), HaveKeyWithValue("a/b/c", fs.ModeDir|0o700)))

	dir = folder(t, map[string]string{"other/mine.yaml": "mine"})
	g.Expect(os.Symlink("other", filepath.Join(dir, "a"))).To(Succeed())
	run := flux(t, "pull", ref, "-o", dir, "--force")
	expectOneError(g, run, `"a" is a folder in the artifact`)
	g.Expect(modes(t, filepath.Join(dir, "other"))).To(HaveLen(1), "made by way of a link")
}

func TestAPullThatFailsLeavesTheFolderAsItWas(t *testing.T) {
	r := serve(t)
	pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "app/a.yaml"}, tar.Header{Name: "b.yaml"}))
	pushLayer(t, r, "org/escape:v1", archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "../../evil.yaml"}))
	pushLayer(t, r, "org/absolute:v1", archived(t, tar.Header{Name: "/tmp/evil.yaml"}))
	damaged := archived(t, tar.Header{Name: "a.yaml"})
	pushLayer(t, r, "org/damaged:v1", damaged[:len(damaged)-3])
	_, stranger := keyPair(t, "")
	for name, c := range map[string]struct {
		there map[string]string
		args  []string
		words []string
	}{
		"a file where a folder has to be":  {map[string]string{"app": "mine"}, []string{"/org/app:v1"}, []string{`"app" is a folder in the artifact`}},
		"a folder where a file has to be":  {map[string]string{"b.yaml/c": "mine"}, []string{"/org/app:v1"}, []string{`"b.yaml" is a file in the artifact`}},
		"a path that leads out":            {nil, []string{"/org/escape:v1"}, []string{`"../"`}},
		"an absolute path":                 {nil, []string{"/org/absolute:v1"}, []string{"absolute"}},
		"a damaged layer":                  {map[string]string{"x": "mine"}, []string{"/org/damaged:v1"}, []string{"damaged"}},
		"too many bytes":                   {nil, []string{"/org/app:v1", "--max-uncompressed-bytes", "10"}, []string{"--max-uncompressed-bytes"}},
		"too many entries":                 {nil, []string{"/org/app:v1", "--max-entries", "1"}, []string{"--max-entries"}},
		"no such tag":                      {nil, []string{"/org/app:v9"}, []string{"404"}},
		"nobody who vouches for it":        {nil, []string{"/org/app:v1", "--key", stranger}, []string{"it is not signed"}},
		"a format that it does not have":   {nil, []string{"/org/app:v1", "--format", "Helm"}, []string{"a Flux artifact"}},
		"a selector that selects no layer": {nil, []string{"/org/app:v1", "--layer-media-type", "text/x"}, []string{"text/x"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			parent := t.TempDir()
			dir := filepath.Join(parent, "made", "for", "it")
			if c.there != nil {
				dir = folder(t, c.there)
			}
			args := append([]string{"pull", r.Host() + c.args[0], "-o", dir, "--force"}, c.args[1:]...)
			run := flux(t, args...)
			g.Expect(run.code).To(Equal(exitFailure))
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
			g.Expect(modes(t, parent)).To(BeEmpty(), "a folder is left that was made for nothing")
			if c.there != nil {
				g.Expect(treeOf(t, dir)).To(Equal(c.there))
			}
		})
	}
}

func TestAMoveThatFailsIsUndone(t *testing.T) {
	g := NewWithT(t)
	dir := folder(t, map[string]string{"a.yaml": "old a", "z.yaml": "old z"})
	before := modes(t, dir)
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	packed := filepath.Join(t.TempDir(), "layer")
	g.Expect(os.WriteFile(packed, archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "new/b.yaml"}, tar.Header{Name: "z.yaml"}), 0o600)).To(Succeed())
	pulled, err := readTree(t.Context(), packed, s.fresh)
	g.Expect(err).NotTo(HaveOccurred())
	p, err := s.plan(t.Context(), pulled)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(p.overwritten).To(Equal([]string{"a.yaml", "z.yaml"}))
	g.Expect(s.fresh.Remove("z.yaml")).To(Succeed()) // what is moved last

	g.Expect(s.carryOut(t.Context(), p)).NotTo(Succeed())
	s.close()
	g.Expect(treeOf(t, dir)).To(Equal(map[string]string{"a.yaml": "old a", "z.yaml": "old z"}))
	g.Expect(modes(t, dir)).To(Equal(before), "folders and the stage are gone")
}

func TestFoldersThatWereMadeForNothingAreRemoved(t *testing.T) {
	g := NewWithT(t)
	parent := t.TempDir()
	s, err := newStage(filepath.Join(parent, "made", "for", "it"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(modes(t, parent)).NotTo(BeEmpty())
	s.close()
	g.Expect(modes(t, parent)).To(BeEmpty())
}

func TestNothingIsPulledThatDoesNotVerify(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, public := keyPair(t, "")
	_, stranger := keyPair(t, "")
	ref, dir := r.Host()+"/org/app:v1", t.TempDir()
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	m := strings.TrimPrefix(strings.TrimSpace(must(t, "inspect", ref, "-o", "json")), "{")
	g.Expect(m).NotTo(BeEmpty())
	_, manifest := raw(t, ref)
	r.Forget()

	run = flux(t, "pull", ref, "-o", dir, "--key", stranger)
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "by another key")
	g.Expect(r.Count("GET", manifest.Layers[0].Digest.Hex)).To(BeZero(), "the content is not even asked for")

	run = flux(t, "pull", ref, "-o", dir, "--key", public)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(run.err).To(ContainSubstring("signed by key " + public))
	g.Expect(treeOf(t, dir)).To(Equal(treeOf(t, manifests(t))))
}

func TestPullNeedsAFolder(t *testing.T) {
	g := NewWithT(t)
	run := flux(t, "pull", "127.0.0.1:1/org/app:v1")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "no folder to write to is given", "-o")
	run = flux(t, "pull", "127.0.0.1:1/org/app:v1", "-o", "")
	expectOneError(g, run, "no folder to write to is given")
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	file := filepath.Join(folder(t, map[string]string{"file": "x"}), "file")
	run = flux(t, "pull", ref, "-o", file)
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "cannot write to", file)
}

// TestAFolderThatCannotBeMade has a name that is longer than any file system takes, in
// a folder that can be made.
func TestAFolderThatCannotBeMade(t *testing.T) {
	g := NewWithT(t)
	ref := pushLayer(t, serve(t), "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	parent := t.TempDir()
	run := flux(t, "pull", ref, "-o", filepath.Join(parent, "made", strings.Repeat("x", 256)))
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "cannot write to", "made")
	g.Expect(os.ReadDir(parent)).To(BeEmpty())
}

func TestALargeDownloadIsTold(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	dir := manifests(t)
	small, large := r.Host()+"/org/app:small", r.Host()+"/org/app:large"
	must(t, "-f", dir, "-t", small)
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise) // never fails
	write(t, dir, map[string]string{"noise.bin": string(noise)})
	must(t, "-f", dir, "-t", large)
	_, m := raw(t, large)
	layer := "layer " + m.Layers[0].Digest.String()[:len("sha256:")+12] + ` \(2\.0 MiB\) from ` + r.Host() + "/org/app\n"
	for _, args := range [][]string{{"pull", "-o", t.TempDir()}, {"inspect"}, {"diff", dir}} {
		run := flux(t, append(args, large)...)
		g.Expect(run.code).To(Equal(exitOK), run.err)
		g.Expect(run.err).To(MatchRegexp("^downloading " + layer + "downloaded " + layer))
		g.Expect(run.out).NotTo(ContainSubstring("downloaded"))
	}
	g.Expect(flux(t, "pull", small, "-o", t.TempDir()).err).NotTo(ContainSubstring("download"))

	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		blob := strings.Contains(request.URL.Path, "/blobs/")
		if blob {
			w.Header().Set("Content-Length", strconv.Itoa(int(m.Layers[0].Size)))
			_, _ = w.Write(noise[:1<<20]) // and nothing more comes
		}
		return blob
	})
	run := flux(t, "pull", large, "-o", t.TempDir())
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.err).To(And(ContainSubstring("downloading "), Not(ContainSubstring("downloaded "))))
}
