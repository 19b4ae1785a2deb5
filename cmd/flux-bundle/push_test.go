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
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/oci"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/sign"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// raw returns the manifest of a reference.
func raw(t *testing.T, ref string) ([]byte, v1.Manifest) {
	t.Helper()
	g := NewWithT(t)
	body, err := crane.Manifest(ref)
	g.Expect(err).NotTo(HaveOccurred())
	var m v1.Manifest
	g.Expect(json.Unmarshal(body, &m)).To(Succeed())
	return body, m
}

// TestFluxPullsWhatIsPushed unpacks with the library of flux pull artifact and of
// source-controller.
func TestFluxPullsWhatIsPushed(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	dir := manifests(t)
	write(t, dir, map[string]string{"bin/run.sh": "#!/bin/sh\n", ".sourceignore": "*.md\n", "README.md": "left out", "logo.png": "kept, as .sourceignore stands in for the defaults"})
	ref := r.Host() + "/org/app:v1"
	out := must(t, "-f", dir, "-t", ref, "--source", "https://github.com/org/app", "--revision", "main@sha1:0123")

	_, m := raw(t, ref)
	g.Expect(string(m.MediaType)).To(Equal("application/vnd.oci.image.manifest.v1+json"))
	g.Expect(m.Config.MediaType).To(Equal(oci.CanonicalConfigMediaType))
	g.Expect(m.Layers).To(HaveLen(1))
	g.Expect(m.Layers[0].MediaType).To(Equal(oci.CanonicalContentMediaType))

	unpacked := t.TempDir()
	pulled, err := oci.NewClient(oci.DefaultOptions()).Pull(t.Context(), ref, unpacked)
	g.Expect(err).NotTo(HaveOccurred())
	want := treeOf(t, dir)
	delete(want, "README.md")
	g.Expect(treeOf(t, unpacked)).To(Equal(want))
	g.Expect(pulled.Source).To(Equal("https://github.com/org/app"))
	g.Expect(pulled.Revision).To(Equal("main@sha1:0123"))
	g.Expect(out).To(Equal(r.Host()+"/org/app@sha256:"+after(pulled.Digest, "sha256:")+"\n"), "standard output is the reference alone")
}

func TestTheSameFolderHasTheSameDigest(t *testing.T) {
	g := NewWithT(t)
	one, two := serve(t), serve(t)
	first := must(t, "-f", manifests(t), "-t", one.Host()+"/org/app:v1", "-a", "x=y")
	other := manifests(t)
	g.Expect(os.Chmod(filepath.Join(other, "app"), 0o700)).To(Succeed())
	second := must(t, "push", "--path", other, "--tag", two.Host()+"/team/other:v7", "--annotation", "x=y")
	g.Expect(after(second, "@")).To(Equal(after(first, "@")))

	third := must(t, "-f", other, "-t", two.Host()+"/team/other:v7", "-a", "x=z")
	g.Expect(after(third, "@")).NotTo(Equal(after(first, "@")))
	_, m1 := raw(t, strings.TrimSpace(first))
	_, m3 := raw(t, strings.TrimSpace(third))
	g.Expect(m3.Layers).To(Equal(m1.Layers), "annotations do not change the layer")
}

func after(text, separator string) string {
	_, rest, _ := strings.Cut(text, separator)
	return rest
}

func TestWhatIsThereIsNotUploadedAgain(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	dir, ref := manifests(t), r.Host()+"/org/app:v1"
	key, _ := keyPair(t, "secret")
	signed := environment{passwordVariable: "secret"}
	g.Expect(signed.flux(t, "-f", dir, "-t", ref, "-s", key, "--legacy-signature").code).To(Equal(exitOK))
	r.Forget()
	again := signed.flux(t, "-f", dir, "-t", ref, "-s", key, "--legacy-signature")
	g.Expect(again.code).To(Equal(exitOK), again.err)
	g.Expect(again.err).To(And(ContainSubstring("is already in "+r.Host()+"/org/app"), ContainSubstring("is already signed by this key\n"),
		ContainSubstring("is already signed by this key in the older format\n")))
	g.Expect(again.err).NotTo(ContainSubstring("\nsigned "))
	for _, request := range r.Requests() {
		if strings.HasPrefix(request, http.MethodPost) || strings.HasPrefix(request, http.MethodPatch) {
			g.Expect(request).To(BeEmpty(), "a blob was uploaded")
		}
	}
	g.Expect(r.Count(http.MethodPut, "/manifests/v1")).To(BeZero())

	// Another key signs what is there, and nothing else is uploaded.
	other, _ := keyPair(t, "secret")
	r.Forget()
	resigned := signed.flux(t, "-f", dir, "-t", ref, "-s", other)
	g.Expect(resigned.err).To(And(ContainSubstring("is already in "), ContainSubstring("\nsigned "+r.Host()+"/org/app@sha256:")))
}

// TestNamesOfLinksDoNothingToATerminal names links after what a CI log and a
// terminal obey.
func TestNamesOfLinksDoNothingToATerminal(t *testing.T) {
	g := NewWithT(t)
	dir := manifests(t)
	for _, name := range []string{"a\x1b[2J", "b\n::set-output name=x::y", "c", "d"} {
		g.Expect(os.Symlink("kustomization.yaml", filepath.Join(dir, name))).To(Succeed())
	}
	run := flux(t, "-f", dir, "-t", "example.com/org/app:v1", "--dry-run")
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(run.err).To(MatchRegexp(`(?m)^warning: left out 4 symbolic links, .*: "a.*", "b.*", "c" and 1 more$`))
	g.Expect(run.err).NotTo(Or(ContainSubstring("\x1b"), ContainSubstring("\n::")))
}

// TestAFolderThatAPullLeftUnfinishedIsNotPushed pushes a folder with the stage of a
// pull that was killed: in it, below it, or above it and about to write to it.
func TestAFolderThatAPullLeftUnfinishedIsNotPushed(t *testing.T) {
	for name, c := range map[string]struct {
		pulled, pushed string
		// unpacked is a file of the artifact that the pull did not come to.
		unpacked string
		refused  bool
	}{
		"the folder":                             {"", "", "", true},
		"a folder below":                         {"app", "", "", true},
		"a folder above":                         {"", "app", "app/config.yaml", true},
		"a file beside":                          {"", "app/config.yaml", "app/config.yaml", true},
		"a folder above that does not write":     {"", "app", "other/a.yaml", false},
		"a file that the artifact does not have": {"", "app/config.yaml", "app/other.yaml", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := manifests(t)
			s, err := newStage(filepath.Join(dir, c.pulled)) // and nobody closes it
			g.Expect(err).NotTo(HaveOccurred())
			if c.unpacked != "" {
				write(t, filepath.Join(dir, c.pulled, s.name, freshFolder), map[string]string{c.unpacked: "new"})
			}
			args := []string{"-f", filepath.Join(dir, c.pushed), "-t", "example.com/org/app:v1", "--dry-run"}
			run := flux(t, args...)
			if !c.refused {
				g.Expect(run.code).To(Equal(exitOK), run.err)
				return
			}
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			expectOneError(g, run, s.name+`" belongs to a pull that was killed or still runs`, "pull again with --force")
			run = flux(t, "diff", filepath.Join(dir, c.pushed), manifests(t))
			g.Expect(run.code).To(Equal(exitTrouble), run.err)
			expectOneError(g, run, s.name)

			g.Expect(os.RemoveAll(filepath.Join(dir, c.pulled, s.name))).To(Succeed())
			must(t, args...)
		})
	}
}

// TestTheKeyThatSignsIsNotPushed pushes the folder that the key pair was made in,
// and the key by itself.
func TestTheKeyThatSignsIsNotPushed(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, _ := keyPair(t, "secret")
	write(t, filepath.Dir(key), map[string]string{"a.yaml": configMap})
	for _, path := range []string{filepath.Dir(key), key} {
		run := environment{passwordVariable: "secret"}.flux(t, "-f", path, "-t", r.Host()+"/org/app:v1", "-s", key, "--no-validate")
		g.Expect(run.code).To(Equal(exitFailure))
		expectOneError(g, run, path+`: "cosign.key" is a private key`, ".sourceignore")
	}
	g.Expect(r.Requests()).To(BeEmpty())
	must(t, "-f", filepath.Dir(key), "-t", r.Host()+"/org/app:v1", "--ignore-paths", "*.key")
}

// TestASignatureInTheOlderFormatIsNotEnough pushes what cosign signed before there
// were bundles.
func TestASignatureInTheOlderFormatIsNotEnough(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	private, public := keyPair(t, "secret")
	pem, err := os.ReadFile(private)
	g.Expect(err).NotTo(HaveOccurred())
	key, err := sign.OpenKey(pem, []byte("secret"))
	g.Expect(err).NotTo(HaveOccurred())
	dir, ref := manifests(t), r.Host()+"/org/app:v1"
	digest, err := name.NewDigest(strings.TrimSpace(must(t, "-f", dir, "-t", ref)))
	g.Expect(err).NotTo(HaveOccurred())
	client, err := registry.NewClient(registry.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = key.AttachLegacy(t.Context(), digest, sign.Options{Registry: client.Repository(digest.Context(), registry.Access{Auth: authn.Anonymous}).Writable()})
	g.Expect(err).NotTo(HaveOccurred())
	verified, err := verifies(t, ref, public)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.Rulings()[0].Signer().Format).To(Equal(trust.Legacy))

	run := environment{passwordVariable: "secret"}.flux(t, "-f", dir, "-t", ref, "-s", private)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	verified, err = verifies(t, ref, public)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.Rulings()[0].Signer().Format).NotTo(Equal(trust.Legacy))
}

func TestSeveralTags(t *testing.T) {
	g := NewWithT(t)
	one, two := serve(t), serve(t)
	tags := []string{one.Host() + "/org/app:v1", "oci://" + one.Host() + "/org/app:latest", two.Host() + "/mirror/app:v1"}
	out := must(t, "-f", manifests(t), "-t", tags[0], "-t", tags[1], "-t", tags[2])
	lines := strings.Split(strings.TrimSpace(out), "\n")
	g.Expect(lines).To(HaveLen(2), "one reference for each repository")
	for _, tag := range tags {
		digest, err := crane.Digest(strings.TrimPrefix(tag, "oci://"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(out).To(ContainSubstring(digest))
	}
}

func TestResultsForPrograms(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	var fromJSON, fromYAML pushed
	g.Expect(json.Unmarshal([]byte(must(t, "-f", manifests(t), "-t", ref, "-o", "json", "-a", "team=a")), &fromJSON)).To(Succeed())
	g.Expect(yaml.Unmarshal([]byte(must(t, "-f", manifests(t), "-t", ref, "-o", "yaml", "-a", "team=a")), &fromYAML)).To(Succeed())
	g.Expect(fromYAML).To(Equal(fromJSON))
	digest, err := crane.Digest(ref)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(fromJSON.Digest).To(Equal(digest))
	g.Expect(fromJSON.URL).To(Equal("oci://" + r.Host() + "/org/app@" + digest))
	g.Expect(fromJSON.Repository + ":" + fromJSON.Tag).To(Equal(ref))
	g.Expect(fromJSON.Annotations).To(Equal(map[string]string{"team": "a"}))
	_, m := raw(t, ref)
	g.Expect(fromJSON.Layer.Digest).To(Equal(m.Layers[0].Digest.String()))
	g.Expect(fromJSON.Layer.Files).To(Equal(2))
}

func TestADryRunPushesNothing(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	dry := must(t, "-f", manifests(t), "-t", ref, "--dry-run")
	g.Expect(r.Requests()).To(BeEmpty())
	g.Expect(must(t, "-f", manifests(t), "-t", ref)).To(Equal(dry), "the digest is that of the push")
}

func TestASingleFile(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	must(t, "-f", filepath.Join(manifests(t), "app/config.yaml"), "-t", ref)
	unpacked := t.TempDir()
	_, err := oci.NewClient(oci.DefaultOptions()).Pull(t.Context(), ref, unpacked)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(treeOf(t, unpacked)).To(HaveKey("config.yaml"))
	g.Expect(treeOf(t, unpacked)).To(HaveLen(1))
}

// TestAFileThatIsTooLargeIsNotCopiedToItsEnd has a file without an end, as far as a disk
// is concerned.
func TestAFileThatIsTooLargeIsNotCopiedToItsEnd(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(folder(t, map[string]string{"a.yaml": ""}), "a.yaml")
	g.Expect(os.Truncate(file, 1<<30)).To(Succeed())
	from, err := openLocal(t.Context(), file, false, 1000)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(from.close)
	copied, err := from.root.Stat("a.yaml")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(copied.Size()).To(BeNumerically("==", 1001))
	run := flux(t, "-f", file, "-t", "example.com/org/app:v1", "--dry-run", "--max-uncompressed-bytes", "10000")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "--max-uncompressed-bytes")
}

// verifies tells what the controller makes of the signatures of a reference.
func verifies(t *testing.T, ref, public string, formats ...trust.Format) (trust.Verified, error) {
	t.Helper()
	g := NewWithT(t)
	pem, err := os.ReadFile(public)
	g.Expect(err).NotTo(HaveOccurred())
	authority, err := trust.NewAuthority(trust.Demand{
		Provider: trust.ProviderCosign, Secret: &trust.Secret{Name: "key", Data: map[string][]byte{"cosign.pub": pem}}, Formats: formats,
	}, trust.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	client, err := registry.NewClient(registry.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	a := &app{registries: client}
	parsed, err := a.reference(ref)
	g.Expect(err).NotTo(HaveOccurred())
	text, err := crane.Digest(ref)
	g.Expect(err).NotTo(HaveOccurred())
	digest, err := v1.NewHash(text)
	g.Expect(err).NotTo(HaveOccurred())
	repository := client.Repository(parsed.Repository, registry.Access{Auth: authn.Anonymous})
	return trust.NewRules(repository, trust.Rule{Name: "key", AnyOf: []trust.Alternative{{Authority: authority}}}).
		Verify(t.Context(), trust.Subject{Repository: repository.Name(), Digest: digest})
}

func TestTheControllerAcceptsWhatIsSigned(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, public := keyPair(t, "")
	_, stranger := keyPair(t, "")
	signed, changed := r.Host()+"/org/app:v1", r.Host()+"/org/app:v2"
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", signed, "-s", key)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	verified, err := verifies(t, signed, public)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verified.Rulings()[0].Signer().Format).NotTo(Equal(trust.Legacy))
	_, err = verifies(t, signed, stranger)
	g.Expect(trust.VerdictOf(err)).To(Equal(trust.Rejected))

	dir := manifests(t)
	write(t, dir, map[string]string{"app/config.yaml": strings.Replace(treeOf(t, dir)["app/config.yaml"], "hello", "hellp", 1)})
	must(t, "-f", dir, "-t", changed)
	_, err = verifies(t, changed, public)
	g.Expect(trust.VerdictOf(err)).To(Equal(trust.Rejected), "a changed byte is accepted")
}

// TestNoTagLeadsToWhatIsNotSigned looks at the order of what is written.
func TestNoTagLeadsToWhatIsNotSigned(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, _ := keyPair(t, "secret")
	signed := environment{passwordVariable: "secret"}
	run := signed.flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "-s", key, "--legacy-signature")
	g.Expect(run.code).To(Equal(exitOK), run.err)
	var puts []string
	for _, request := range r.Requests() {
		if strings.HasPrefix(request, http.MethodPut) && strings.Contains(request, "/manifests/") {
			puts = append(puts, after(request, "/manifests/"))
		}
	}
	g.Expect(len(puts)).To(BeNumerically(">=", 4), "artifact, bundle, legacy signature and tag")
	g.Expect(puts[0]).To(HavePrefix("sha256:"), "the artifact goes by its digest")
	g.Expect(slices.Index(puts, "v1")).To(Equal(len(puts)-1), "%v: the tag comes last", puts)
}

func TestHalfOfAPushIsToldAndSetsNoTag(t *testing.T) {
	key, _ := keyPair(t, "secret")
	for name, c := range map[string]struct {
		refuse func(request *http.Request) bool
		words  []string
	}{
		"the registry takes no blobs": {
			refuse: func(request *http.Request) bool { return request.Method == http.MethodPost },
			words:  []string{"cannot push to", "403 Forbidden", "docker login", "no tag was set"},
		},
		"the registry takes no signature": {
			refuse: func(request *http.Request) bool {
				if request.Method != http.MethodPut || !strings.Contains(request.URL.Path, "/manifests/") {
					return false
				}
				body, err := io.ReadAll(request.Body)
				request.Body = io.NopCloser(strings.NewReader(string(body)))
				return err != nil || strings.Contains(string(body), "sigstore.bundle")
			},
			words: []string{"cannot sign", "403 Forbidden", "it is pushed, but not signed, and no tag was set"},
		},
		"the registry sets no tag": {
			refuse: func(request *http.Request) bool {
				return request.Method == http.MethodPut && strings.HasSuffix(request.URL.Path, "/manifests/v1")
			},
			words: []string{"cannot set the tag", "403 Forbidden", "it is pushed and signed, but no tag was set"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				if c.refuse(request) {
					http.Error(w, `{"errors":[{"code":"DENIED","message":"not\nyou \u001b[31m"}]}`, http.StatusForbidden)
					return true
				}
				return false
			})
			ref := r.Host() + "/org/app:v1"
			run := environment{passwordVariable: "secret"}.flux(t, "-f", manifests(t), "-t", ref, "-s", key)
			g.Expect(run.code).To(Equal(exitFailure))
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
			r.Answer(nil)
			_, err := crane.Digest(ref)
			g.Expect(err).To(HaveOccurred(), "the tag is set")
		})
	}
}

// expectOneError asserts that the last line of standard error is the only error,
// and what it says.
func expectOneError(g *WithT, r result, words ...string) {
	g.THelper()
	g.Expect(strings.Count(r.err, "error: ")).To(Equal(1), r.err)
	lines := strings.Split(strings.TrimSuffix(r.err, "\n"), "\n")
	g.Expect(lines[len(lines)-1]).To(HavePrefix("error: "))
	g.Expect(r.err).NotTo(ContainSubstring("\x1b"))
	for _, word := range words {
		g.Expect(lines[len(lines)-1]).To(ContainSubstring(word))
	}
}

// fluxKustomization is an object of kustomize-controller.
const fluxKustomization = "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: apps, namespace: flux-system}\n" +
	"spec: {interval: 10m, prune: true, path: ./x, sourceRef: {kind: GitRepository, name: a}}\n"

func TestBadInput(t *testing.T) {
	r := serve(t)
	ref := r.Host() + "/org/app:v1"
	key, public := keyPair(t, "secret")
	good := manifests(t)
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	defer stranger.Close()
	for name, c := range map[string]struct {
		files map[string]string // nil: the good folder
		args  []string          // after the folder
		env   environment
		words []string
	}{
		"no such folder":   {args: []string{"-f", filepath.Join(good, "nope"), "-t", ref}, words: []string{"nope", "no such file or directory"}},
		"an empty folder":  {files: map[string]string{}, args: []string{"-t", ref}, words: []string{"the folder has no file"}},
		"nothing but pngs": {files: map[string]string{"a.png": ""}, args: []string{"-t", ref}, words: []string{"the folder has no file to pack"}},
		"no tag at all":    {words: []string{"-t ghcr.io/org/app-deploy:v1.0.0"}},
		"a path of too many folders": {
			files: map[string]string{"a/b/c.yaml": "a: 1\n"}, args: []string{"-t", ref, "--max-depth", "2"}, words: []string{"a/b/c.yaml", "--max-depth"},
		},
		"broken YAML": {
			files: map[string]string{"sub/a.yaml": "a: 1\nb: [\nc: 2\n"}, args: []string{"-t", ref}, words: []string{"sub/a.yaml:2: did not find expected ',' or ']'"},
		},
		"broken YAML in a later document": {
			files: map[string]string{"a.yml": "a: 1\n---\nb: 1\nc: d: e\n"}, args: []string{"-t", ref}, words: []string{"a.yml:4: mapping values are not allowed"},
		},
		"YAML that is no text": {
			files: map[string]string{"a.yaml": "a: 1\nb: é\nc: \xff\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:3: invalid leading UTF-8 octet"},
		},
		"YAML with an order to a terminal": {
			files: map[string]string{"a.yaml": "a: 1\nb: \x1b[31m\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:2: control characters are not allowed"},
		},
		"YAML with a tab": {
			files: map[string]string{"a.yaml": "a: 1\nb:\n\tc: 1\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:3: found character that cannot start any token"},
		},
		"YAML with a field that is not as deep as its neighbours": {
			files: map[string]string{"a.yaml": "kind: A\nmetadata:\n  name: x\n labels: {}\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:4: did not find expected key"},
		},
		"YAML with an item that is not as deep as its neighbours": {
			files: map[string]string{"a.yaml": "a: 1\nb:\n- x: 1\n  c:\n    - [1,\n      2]\n- y: 1\n z: 2\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:8: did not find expected key"},
		},
		"YAML with an alias of nothing": {
			files: map[string]string{"a.yaml": "a: 1\nb: 2\nc: &x 1\nd: *y\ne: 1\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:4: unknown anchor 'y'"},
		},
		"a generator whose file is left out": {
			files: map[string]string{"kustomization.yaml": "configMapGenerator:\n- name: a\n  files:\n  - logo=logo.png\n", "logo.png": "p"}, args: []string{"-t", ref},
			words: []string{`kustomization.yaml:4: "logo.png" is not pushed: what .sourceignore or Flux's defaults match`},
		},
		"a generator whose variables are left out": {
			files: map[string]string{"kustomization.yaml": "secretGenerator:\n- name: a\n  envs: [a.env]\n", "a.env": "A=b\n", ".sourceignore": "*.env\n"}, args: []string{"-t", ref},
			words: []string{`kustomization.yaml:3: "a.env" is not pushed`},
		},
		"an object that is called like a kustomization": {
			files: map[string]string{"apps/kustomization.yaml": fluxKustomization}, args: []string{"-t", ref},
			words: []string{"apps/kustomization.yaml:", "name the file in the resources of a kustomization"},
		},
		"a folder of an object that is called like a kustomization": {
			files: map[string]string{"apps/kustomization.yaml": fluxKustomization, "kustomization.yaml": "resources: [apps]\n"}, args: []string{"-t", ref},
			words: []string{"apps/kustomization.yaml:", "name the file in the resources of a kustomization"},
		},
		"a key that is there twice": {
			files: map[string]string{"a.yaml": "a: 1\n\na: 2\n"}, args: []string{"-t", ref}, words: []string{`a.yaml:3: mapping key "a" already defined at line 1`},
		},
		"a kustomization whose file is missing": {
			files: map[string]string{"over/kustomization.yaml": "namePrefix: a-\nresources:\n- gone.yaml\n"}, args: []string{"-t", ref},
			words: []string{"over/kustomization.yaml:3: ", `"gone.yaml" is not there`},
		},
		"a kustomization whose file is left out of a folder named like a host": {
			files: map[string]string{"kustomization.yaml": "resources:\n- cert-manager.io/crds.yaml\n", "cert-manager.io/crds.yaml": "a: 1\n", ".sourceignore": "crds.yaml\n"},
			args:  []string{"-t", ref}, words: []string{`kustomization.yaml:2: "cert-manager.io/crds.yaml" is not pushed`},
		},
		"a kustomization whose base is nothing that kustomize fetches": {
			files: map[string]string{"kustomization.yaml": "resources:\n- org/repo?ref=v1\n"}, args: []string{"-t", ref}, words: []string{`kustomization.yaml:2: "org/repo?`, `" is not there`},
		},
		"a kustomization whose file is left out": {
			files: map[string]string{"kustomization.yaml": "resources:\n- a.yaml\n", "a.yaml": "a: 1\n", ".sourceignore": "a.yaml\n"}, args: []string{"-t", ref},
			words: []string{"kustomization.yaml:2: ", `"a.yaml" is not pushed: what .sourceignore`},
		},
		"a kustomization that leads out of the folder": {
			files: map[string]string{"kustomization.yaml": "resources:\n- ../../etc\n"}, args: []string{"-t", ref}, words: []string{`kustomization.yaml:2: "../../etc" is outside of the folder`},
		},
		"a component whose file is missing": {
			files: map[string]string{"kustomization.yaml": "kind: Component\nresources:\n- a.yaml\n"}, args: []string{"-t", ref}, words: []string{`kustomization.yaml:3: "a.yaml" is not there`},
		},
		"a kustomization with an unknown field": {
			files: map[string]string{"kustomization.yaml": "resourcez: []\n"}, args: []string{"-t", ref}, words: []string{"kustomization.yaml:1: ", `unknown field "resourcez"`},
		},
		"a kustomization of what is no resource": {
			files: map[string]string{"kustomization.yaml": "resources:\n- a.yaml\n", "a.yaml": "a: 1\n"}, args: []string{"-t", ref},
			words: []string{"kustomization.yaml:2: kustomize cannot build it: accumulating resources: 'a.yaml': missing Resource metadata"},
		},
		"a component with an unknown field": {
			files: map[string]string{"kustomization.yaml": "kind: Component\nresourcez: []\n"}, args: []string{"-t", ref}, words: []string{"kustomization.yaml:2: ", `unknown field "resourcez"`},
		},
		"an unknown field beside a remote base": {
			files: map[string]string{"kustomization.yaml": "resources:\n- https://127.0.0.1:1/a.yaml\nresourcez: []\n"}, args: []string{"-t", ref}, words: []string{"kustomization.yaml:3: ", `unknown field "resourcez"`},
		},
		"a kustomization of another version": {
			files: map[string]string{"kustomization.yaml": "apiVersion: v1\nkind: Kustomization\n"}, args: []string{"-t", ref}, words: []string{"kustomization.yaml:", "apiVersion for Kustomization should be"},
		},
		"a Helm chart of a repository": {
			files: map[string]string{"kustomization.yaml": "helmCharts:\n- name: a\n  repo: https://127.0.0.1:1/\n"}, args: []string{"-t", ref},
			words: []string{"kustomization.yaml:1: ", "helmCharts are not supported"},
		},
		"a Helm chart in the old way": {
			files: map[string]string{"kustomization.yaml": "helmChartInflationGenerator:\n- chartName: a\n  chartRepoUrl: https://127.0.0.1:1/\n"}, args: []string{"-t", ref},
			words: []string{"kustomization.yaml:", "helmCharts are not supported"},
		},
		"a document without kind": {
			files: map[string]string{"a/a.yaml": configMap + "---\napiVersion: v1\nmetadata: {name: a}\n"}, args: []string{"-t", ref}, words: []string{"a/a.yaml:6: this is no Kubernetes object: it has no kind"},
		},
		"a document that is a list": {
			files: map[string]string{"a.yaml": "- a\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:1: this is no Kubernetes object"},
		},
		"a document without kind, beside an empty Chart.yaml": {
			files: map[string]string{"a.yaml": "apiVersion: v1\nmetadata: {name: a}\n", "Chart.yaml": ""},
			args:  []string{"-t", ref}, words: []string{"a.yaml:1: this is no Kubernetes object"},
		},
		"a document without kind, beside a Chart.yaml of nothing": {
			files: map[string]string{"a.yaml": "apiVersion: v1\nmetadata: {name: a}\n", "Chart.yaml": "# nothing\n---\n{}\n"},
			args:  []string{"-t", ref}, words: []string{"Chart.yaml:3: this is no Kubernetes object"},
		},
		"a document without kind, beside a Chart.yaml that is an object": {
			files: map[string]string{"a.yaml": "apiVersion: v1\nmetadata: {name: a}\n", "Chart.yaml": configMap + "name: app\nversion: 1.0.0\n"},
			args:  []string{"-t", ref}, words: []string{"a.yaml:1: this is no Kubernetes object"},
		},
		"broken YAML in the templates of no chart": {
			files: map[string]string{"templates/a.yaml": "{{ .Values.a }}: [\n", "Chart.yaml": ""},
			args:  []string{"-t", ref}, words: []string{"templates/a.yaml:"},
		},
		"an object without name": {
			files: map[string]string{"a.yml": "\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: a}\n"}, args: []string{"-t", ref}, words: []string{"a.yml:2: this object has no metadata.name"},
		},
		"an object without name in a list": {
			files: map[string]string{"a.yaml": "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {}}\n"}, args: []string{"-t", ref}, words: []string{"kustomize cannot build it: ", "missing metadata.name"},
		},
		"an object without apiVersion": {
			files: map[string]string{"a.yaml": "kind: ConfigMap\nmetadata: {name: a}\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:1: this object has no apiVersion"},
		},
		"an object without apiVersion in a kustomization": {
			files: map[string]string{"kustomization.yaml": "resources: [a.yaml]\n", "a.yaml": "kind: ConfigMap\nmetadata: {name: a}\n"}, args: []string{"-t", ref}, words: []string{"kustomization.yaml:", "has no apiVersion"},
		},
		"a tag that Kubernetes does not have": {
			files: map[string]string{"a.yaml": configMap + "data:\n  a: !Ref b\n"}, args: []string{"-t", ref}, words: []string{"a.yaml:6: the tag ", "!Ref"},
		},
		"a file in UTF-16": {
			files: map[string]string{"a.yaml": "\xff\xfea\x00:\x00 \x001\x00\n\x00"}, args: []string{"-t", ref}, words: []string{"a.yaml:1: it is encoded in UTF-16"},
		},
		"a number that JSON does not have": {
			files: map[string]string{"a.yaml": configMap + "data: {a: .nan}\n"}, args: []string{"-t", ref}, words: []string{"kustomize cannot build it: ", "NaN"},
		},
		"an object of two files": {
			files: map[string]string{"a.yaml": configMap, "x/b.yaml": configMap}, args: []string{"-t", ref}, words: []string{"may not add resource with an already registered id: ConfigMap"},
		},
		"an object of a file and of a kustomization": {
			files: map[string]string{"a.yaml": configMap, "x/b.yaml": configMap, "x/kustomization.yaml": "resources: [b.yaml]\n"}, args: []string{"-t", ref}, words: []string{"more than one file or folder in it makes ConfigMap"},
		},
		"an object of a file and of a kustomization, once with the default namespace": {
			files: map[string]string{"a.yaml": configMap, "x/b.yaml": configMap, "x/kustomization.yaml": "namespace: default\nresources: [b.yaml]\n"}, args: []string{"-t", ref}, words: []string{"more than one file or folder in it makes ConfigMap"},
		},
		"an object of no namespace, once with one": {
			files: map[string]string{
				"a.yaml":   "apiVersion: v1\nkind: Namespace\nmetadata: {name: app, namespace: a}\n",
				"x/b.yaml": "apiVersion: v1\nkind: Namespace\nmetadata: {name: app}\n", "x/kustomization.yaml": "resources: [b.yaml]\n",
			}, args: []string{"-t", ref}, words: []string{"more than one file or folder in it makes Namespace"},
		},
		"a folder with a component, which nobody can deploy": {
			files: map[string]string{"a.yaml": configMap, "x/kustomization.yaml": "kind: Component\nnamePrefix: a-\n"}, args: []string{"-t", ref}, words: []string{"expected kind != 'Component'"},
		},
		"a kustomization that is no YAML": {
			files: map[string]string{"Kustomization": "a: [\n"}, args: []string{"-t", ref}, words: []string{"Kustomization:2: "},
		},
		"a reference that is none":      {args: []string{"-t", r.Host() + "/ORG/app:v1"}, words: []string{"/ORG/app:v1", "is no reference", "expected a path of lower case letters"}},
		"an address":                    {args: []string{"-t", "http://" + ref}, words: []string{"is an address, expected a reference", "--insecure-registry"}},
		"a reference without a tag":     {args: []string{"-t", r.Host() + "/org/app"}, words: []string{"names no tag"}},
		"a reference with a digest":     {args: []string{"-t", r.Host() + "/org/app@sha256:" + strings.Repeat("0", 64)}, words: []string{"names no tag"}},
		"a key that is not there":       {args: []string{"-t", ref, "-s", "nope.key"}, words: []string{"nope.key", "no such file"}},
		"a key that is a folder":        {args: []string{"-t", ref, "-s", good}, words: []string{"it is a folder, expected a file"}},
		"the public key":                {args: []string{"-t", ref, "-s", public}, words: []string{"it holds a public key"}},
		"the wrong password of the key": {args: []string{"-t", ref, "-s", key}, env: environment{passwordVariable: "wrong"}, words: []string{"the password does not open the key"}},
		"no password and no terminal":   {args: []string{"-t", ref, "-s", key}, words: []string{"set COSIGN_PASSWORD, or run on a terminal"}},
		"how to sign without a key":     {args: []string{"-t", ref, "--tlog"}, words: []string{"--sign-key"}},
		"an annotation without a value": {args: []string{"-t", ref, "-a", "x"}, words: []string{`--annotations is "x"`}},
		"a time that is none":           {args: []string{"-t", ref, "-a", "org.opencontainers.image.created=today"}, words: []string{`"today"`}},
		"SOURCE_DATE_EPOCH is a date":   {args: []string{"-t", ref}, env: environment{"SOURCE_DATE_EPOCH": "2026-01-01"}, words: []string{"SOURCE_DATE_EPOCH"}},
		"an output that there is not":   {args: []string{"-t", ref, "-o", "xml"}, words: []string{`--output is "xml"`}},
		"a provider that there is not":  {args: []string{"-t", ref, "--provider", "ibm"}, words: []string{`--provider is "ibm", expected generic, aws, azure or gcp`}},
		"the provider of another cloud": {args: []string{"-t", ref, "--provider", "aws"}, words: []string{`--provider is "aws"`, "is no registry of that cloud"}},
		"a registry that is not there":  {args: []string{"-t", "127.0.0.1:1/org/app:v1"}, words: []string{"cannot push to 127.0.0.1:1/org/app", "connection refused; no tag was set"}},
		"a registry of nobody":          {args: []string{"-t", stranger.Listener.Addr().String() + "/org/app:v1"}, words: []string{"its certificate is signed by an unknown authority", "SSL_CERT_FILE", "; no tag was set"}},
		"no time at all":                {args: []string{"-t", ref, "--timeout", "0s"}, words: []string{`--timeout is "0s"`}},
		"a network that is none":        {args: []string{"-t", ref, "--registry-allowed-cidrs", "x"}, words: []string{"--registry-allowed-cidrs"}},
		"a verb that there is not":      {args: []string{"bogus"}, words: []string{`unknown command "bogus"; a folder to push is named with -f`}},
		"a verb that is misspelt":       {args: []string{"inspec"}, words: []string{`unknown command "inspec", did you mean inspect?`}},
		"an argument of push":           {args: []string{"push", good}, words: []string{"a folder to push is named with -f"}},
		"a flag that there is not":      {args: []string{"--bogus"}, words: []string{"unknown flag: --bogus"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := good
			if c.files != nil {
				dir = folder(t, c.files)
			}
			run := c.env.flux(t, replaced([]string{"-f", dir}, c.args)...)
			g.Expect(run.code).To(Equal(exitFailure), run.out+run.err)
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
			_, err := crane.Digest(ref)
			g.Expect(err).To(HaveOccurred(), "something is under the tag")
		})
	}
}

func TestTheRegistryWantsAnotherPassword(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	r.Answer(publish.DemandBasic(map[string]string{"me": "right-password"}))
	login := func(password string) {
		auths := map[string]any{"auths": map[string]any{r.Host(): map[string]string{"username": "me", "password": password}}}
		body, err := json.Marshal(auths)
		g.Expect(err).NotTo(HaveOccurred())
		home := t.TempDir()
		write(t, home, map[string]string{"config.json": string(body)})
		t.Setenv("DOCKER_CONFIG", home)
	}
	ref := r.Host() + "/org/app:v1"
	for _, password := range []string{"", "wrong-password"} {
		if password != "" {
			login(password)
		}
		run := flux(t, "-f", manifests(t), "-t", ref)
		g.Expect(run.code).To(Equal(exitFailure))
		expectOneError(g, run, "cannot push to "+r.Host()+"/org/app", "401 Unauthorized", "docker login")
		g.Expect(run.err).NotTo(ContainSubstring("wrong-password"))
	}
	login("right-password")
	must(t, "-f", manifests(t), "-t", ref)
}

func TestATagThatMustNotMove(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	dir, ref := manifests(t), r.Host()+"/org/app:v1"
	first := must(t, "-f", dir, "-t", ref, "--immutable")
	g.Expect(must(t, "-f", dir, "-t", ref, "--immutable")).To(Equal(first), "the same again is no move")

	write(t, dir, map[string]string{"more.yaml": "a: 1\n"})
	r.Forget()
	run := flux(t, "-f", dir, "-t", ref, "-t", r.Host()+"/org/app:v2", "--immutable")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, ref+" exists as "+strings.TrimSpace(after(first, "@")), "--immutable", "nothing was pushed")
	g.Expect(r.Count(http.MethodPost, "") + r.Count(http.MethodPut, "")).To(BeZero())

	must(t, "-f", dir, "-t", ref)
}

// TestATagThatAnotherPushMovesAtTheSameTime has somebody else move or remove a tag
// as soon as it is set.
func TestATagThatAnotherPushMovesAtTheSameTime(t *testing.T) {
	for name, c := range map[string]struct {
		meddle func(t *testing.T, r *publish.InProcess)
		word   string
	}{
		"moves it": {func(t *testing.T, r *publish.InProcess) {
			t.Helper()
			_, err := r.Shelf().Flux(t.Context(), "org/app:v1", publish.Files{"other.yaml": "a: 1\n"})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		}, "another push moved it at the same time"},
		"removes it": {func(t *testing.T, r *publish.InProcess) {
			t.Helper()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+r.Host()+"/v2/org/app/manifests/v1", http.NoBody)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			response, err := r.Shelf().Transport.RoundTrip(request)
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
			NewWithT(t).Expect(response.StatusCode).To(Equal(http.StatusAccepted))
			_ = response.Body.Close()
		}, "somebody removed it at the same time"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			ref := r.Host() + "/org/app:v1"
			set := false
			r.Answer(func(_ http.ResponseWriter, request *http.Request) bool {
				tag := strings.HasSuffix(request.URL.Path, "/manifests/v1")
				if tag && set && request.Method == http.MethodHead {
					c.meddle(t, r)
				}
				set = set || tag && request.Method == http.MethodPut
				return false
			})
			run := flux(t, "-f", manifests(t), "-t", ref, "--immutable")
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.out).To(BeEmpty())
			g.Expect(run.err).To(MatchRegexp("(?m)^error: " + ref + " was set to sha256:.*" + c.word + ".*not under all of its tags$"))
		})
	}
}

// TestOnlyOneOfTwoPushesSetsATagThatMustNotMove starts two pushes of different
// content at once.
func TestOnlyOneOfTwoPushesSetsATagThatMustNotMove(t *testing.T) {
	r := serve(t)
	for round := range 8 {
		g := NewWithT(t)
		ref := fmt.Sprintf("%s/org/app:v%d", r.Host(), round)
		ends := make(chan result, 2)
		for side := range 2 {
			dir := folder(t, map[string]string{"a.yaml": fmt.Sprintf("a: %d\n", side)})
			go func() { ends <- flux(t, "-f", dir, "-t", ref, "--immutable", "--no-validate") }()
		}
		one, other := <-ends, <-ends
		g.Expect([]int{one.code, other.code}).To(ConsistOf(exitOK, exitFailure), one.err+other.err)
		winner := one
		if other.code == exitOK {
			winner = other
		}
		digest, err := r.Shelf().Digest(t.Context(), fmt.Sprintf("org/app:v%d", round))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(digest).To(HaveSuffix(strings.TrimSpace(after(winner.out, "@"))))
	}
}

// TestATagThatOnlyWhoMayPushCanMiss pushes to registries that answer 403 in place
// of 404 for a tag that is not there, as those do that make a repository with its
// first push.
func TestATagThatOnlyWhoMayPushCanMiss(t *testing.T) {
	for name, c := range map[string]struct {
		allowed string // part of the scope of a token that may know
		words   []string
	}{
		"to all who may not push": {"push", nil},
		"to everybody":            {"nobody", []string{"/org/app:v1 exists, which --immutable depends on", "403 Forbidden", "nothing was pushed"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			logins := withToken(r)
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				if logins(w, request) {
					return true
				}
				hidden := request.Method == http.MethodHead && strings.HasSuffix(request.URL.Path, "/manifests/v1") &&
					!strings.Contains(request.Header.Get("Authorization"), c.allowed)
				if hidden {
					w.WriteHeader(http.StatusForbidden)
				}
				return hidden
			})
			run := flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "--immutable")
			if c.words == nil {
				g.Expect(run.code).To(Equal(exitOK), run.err)
				return
			}
			g.Expect(run.code).To(Equal(exitFailure))
			expectOneError(g, run, c.words...)
			g.Expect(r.Count(http.MethodPut, "") + r.Count(http.MethodPost, "")).To(BeZero())
		})
	}
}

func TestWhatIsNotChecked(t *testing.T) {
	r := serve(t)
	for name, c := range map[string]struct {
		files map[string]string
		args  []string
		words string
	}{
		"broken YAML with --no-validate": {files: map[string]string{"a.yaml": "a: [\n"}, args: []string{"--no-validate"}},
		"templates of a Helm chart": {
			files: map[string]string{"charts/app/Chart.yaml": "name: app\n", "charts/app/templates/a.yaml": "{{ if .Values.a }}\na: {{ . }}\n{{ end }}\n"},
		},
		"templates of a Helm chart beside a kustomization": {
			files: map[string]string{"Chart.yaml": "name: app\n", "Kustomization": "resources: [a.yaml]\n", "a.yaml": configMap, "templates/a.yaml": "{{ if .Values.a }}\na: {{ . }}\n{{ end }}\n"},
		},
		"a base": {
			files: map[string]string{"kustomization.yaml": "bases: [base]\n", "base/kustomization.yaml": "resources: [a.yaml]\n", "base/a.yaml": configMap}, words: "'bases' is deprecated",
		},
		"kustomizations with variables, and one that kustomize would fetch": {
			files: map[string]string{
				"b.yaml":               "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
				"x/kustomization.yaml": "resources: [a.yaml]\nvars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: app}}]\n", "x/a.yaml": configMap,
				"y/kustomization.yaml": "resources:\n- https://127.0.0.1:1/a.yaml\n",
			},
			words: "--remote-bases",
		},
		"a component by itself": {
			files: map[string]string{"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n- patch: |-\n    - op: remove\n      path: /spec\n  target: {kind: Deployment, name: a}\n"},
		},
		"an object that is called like a kustomization, where a kustomization names the file": {
			files: map[string]string{"kustomization.yaml": "resources: [apps/kustomization.yaml]\n", "apps/kustomization.yaml": fluxKustomization},
		},
		"values beside a kustomization": {
			files: map[string]string{
				"kustomization.yaml": "resources: [a.yaml]\nconfigMapGenerator:\n- {name: b, files: [values.yaml]}\n",
				"a.yaml":             configMap, "values.yaml": "a: 1\n", "more/values.yaml": "a: !Ref b\n",
			},
		},
		"folders that are deployed apart": {
			files: map[string]string{
				"a/app.yaml": configMap, "b/app.yaml": configMap, "c/kustomization.yaml": "resources: [app.yaml]\n", "c/app.yaml": configMap,
				"charts/app/Chart.yaml": "name: app\n", "charts/app/values.yaml": "a: 1\n", "README.md": "# All\n",
			},
		},
		"documents that are empty, and lists": {
			files: map[string]string{"a.yaml": "# nothing\n---\n--- # more\r\n" + configMap + "---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n---"},
		},
		"objects in a file that is called like a kustomization, where a kustomization names the file": {
			files: map[string]string{
				"kustomization.yaml":      "resources: [apps/kustomization.yaml]\n---\n",
				"apps/kustomization.yaml": fluxKustomization + "---\n" + strings.ReplaceAll(fluxKustomization, "name: ", "name: other-"),
			},
		},
		"an address that is a text": {
			files: map[string]string{
				"kustomization.yaml": "resources: [a.yaml]\ncommonAnnotations: {docs: https://127.0.0.1:1/}\nconfigMapGenerator:\n- name: b\n  literals: [url=https://127.0.0.1:1/]\n",
				"a.yaml":             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
			},
		},
		"a file that kustomize would download": {
			files: map[string]string{"kustomization.yaml": "configMapGenerator:\n- name: b\n  files: [a=http://127.0.0.1:1/a]\n"},
			words: "--remote-bases",
		},
		"a patch that kustomize would download": {
			files: map[string]string{"kustomization.yaml": "patches:\n- path: http://127.0.0.1:1/a\n  target: {kind: A}\n"},
			words: "--remote-bases",
		},
		"what kustomize would fetch": {
			files: map[string]string{
				"base/kustomization.yaml": "resources:\n- https://127.0.0.1:1/org/repo//base?ref=v1\n",
				"over/kustomization.yaml": "resources:\n- ../base\n",
			},
			words: "--remote-bases",
		},
		"a base on GitHub by its host": {
			files: map[string]string{"kustomization.yaml": "resources:\n- GitHub.com/org/repo\n"}, words: "--remote-bases",
		},
		"a base that a user fetches": {
			files: map[string]string{"kustomization.yaml": "resources:\n- me@127.0.0.1:org/repo.git\n"}, words: "--remote-bases",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, append(c.args, "-f", folder(t, c.files), "-t", r.Host()+"/org/app:"+fmt.Sprint(len(name)))...)
			g.Expect(run.code).To(Equal(exitOK), run.err)
			g.Expect(run.err).To(ContainSubstring(c.words))
			if c.words == "" {
				g.Expect(run.err).NotTo(ContainSubstring("warning"))
			}
		})
	}
}

// TestKustomizeControllerWouldNotApplyIt pushes trees of which kustomize-controller drops
// a part in silence, or that it refuses.
func TestKustomizeControllerWouldNotApplyIt(t *testing.T) {
	const flow = "{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}"
	object := func(name string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n"
	}
	variable := func(of string) string {
		return "resources: [a.yaml]\nvars: [{name: V, objref: {apiVersion: v1, kind: ConfigMap, name: " + of + "}}]\n"
	}
	for name, c := range map[string]struct {
		files map[string]string
		words string
	}{
		"an object behind --- in the last line":         {map[string]string{"a.yaml": configMap + "--- " + flow}, "a.yaml:5: kustomize does not read the document"},
		"an object behind --- and a carriage return":    {map[string]string{"a.yaml": configMap + "\r---\r" + flow + "\n"}, "a.yaml:5: kustomize does not read the document"},
		"an object behind --- and a next line":          {map[string]string{"a.yaml": configMap + "#\u0085---\n" + flow + "\n"}, "a.yaml:5: kustomize does not read the document"},
		"an object behind a separator of lines":         {map[string]string{"a.yaml": configMap + "---\u2028" + flow}, "a.yaml:5: kustomize does not read the document"},
		"a field whose name is the start of a document": {map[string]string{"a.yaml": configMap + "---#a: |\n"}, "a.yaml:5: kustomize does not read the document"},
		"a patch behind --- in the last line":           {map[string]string{"kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n", "a.yaml": configMap, "p.yaml": configMap + "--- " + flow}, "p.yaml:5: kustomize does not read the document"},
		"a second document of a kustomization":          {map[string]string{"kustomization.yaml": "resources: [a.yaml]\n---\nresources: [b.yaml]\n", "a.yaml": configMap, "b.yaml": flow}, "kustomization.yaml:3: kustomize reads only the first document"},
		"a field of a kustomization in another case":    {map[string]string{"kustomization.yaml": "resources: [a.yaml]\nre\u017fources: [b.yaml]\n", "a.yaml": configMap, "b.yaml": flow}, "kustomization.yaml:2: kustomize takes the field"},
		"a file of the folder of the check":             {map[string]string{"kustomization.yaml": "configMapGenerator:\n- name: a\n  files: [/packed/a]\n", "a": "a"}, "/packed/a"},
		"one variable of two kustomizations": {map[string]string{
			"a.yaml": configMap, "b/kustomization.yaml": variable("b"), "b/a.yaml": object("b"), "c/kustomization.yaml": variable("c"), "c/a.yaml": object("c"),
		}, "recursed merging from path 'c': var 'V' already encountered"},
		"an object behind --- in a template that a kustomization names": {map[string]string{
			"Chart.yaml": "name: app\nversion: 1.0.0\n", "Kustomization": "resources: [templates/a.yaml]\n", "templates/a.yaml": configMap + "--- " + flow,
		}, "templates/a.yaml:5: kustomize does not read the document"},
		"an object behind --- in a folder of templates that a kustomization names": {map[string]string{
			"Chart.yaml": "name: app\nversion: 1.0.0\n", "kustomization.yaml": "resources: [templates]\n",
			"templates/Kustomization": "resources: [a.yaml]\n", "templates/a.yaml": configMap + "--- " + flow,
		}, "templates/a.yaml:5: kustomize does not read the document"},
		"an object behind --- in a file of any name":              {map[string]string{"kustomization.yaml": "resources: [a.txt]\n", "a.txt": configMap + "--- " + flow}, "a.txt:5: kustomize does not read the document"},
		"broken templates of an empty chart with a kustomization": {map[string]string{"Chart.yaml": "", "Kustomization": "resources: [a.yaml]\n", "a.yaml": configMap, "templates/a.yaml": "a: [\n"}, "templates/a.yaml:"},
		"annotations of a base that take no more of them": {map[string]string{
			"kustomization.yaml": "bases: [base]\n", "base/kustomization.yaml": "resources: [a.yaml]\n",
			"base/a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: x}\n",
		}, "kustomization.yaml:1: kustomize cannot build it"},
		"a folder with the name of a kustomization": {map[string]string{"a.yaml": configMap, "kustomization.yaml/a.txt": "a"}, "kustomization.yaml: kustomize-controller writes a file with this name"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, "-f", folder(t, c.files), "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
			g.Expect(run.code).To(Equal(exitFailure), run.out)
			g.Expect(run.err).To(ContainSubstring(c.words))
		})
	}
}

func TestAFolderNamedChartMakesNoChart(t *testing.T) {
	dir := folder(t, map[string]string{"app/Chart.yaml/a.txt": "a", "app/templates/a.yaml": "a: !Ref [\n"})
	run := flux(t, "-f", dir, "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
	NewWithT(t).Expect(run.code).To(Equal(exitFailure), run.out)
}

func TestWhatIsNotBuiltIsNoSuccessWithStrict(t *testing.T) {
	g := NewWithT(t)
	files := map[string]string{"a.yaml": configMap}
	for i := range 2 * maxUnbuilt {
		files[fmt.Sprintf("%d/kustomization.yaml", i)] = "resources:\n- http://127.0.0.1:1/nothing.yaml\n"
	}
	args := []string{"-f", folder(t, files), "-t", "127.0.0.1:1/org/app:v1", "--dry-run"}
	run := flux(t, args...)
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(strings.Count(run.err, "is not built")).To(Equal(maxUnbuilt))
	g.Expect(run.err).To(ContainSubstring(" more kustomizations are not built"))
	run = flux(t, append(args, "--strict")...)
	g.Expect(run.code).To(Equal(exitFailure))
	g.Expect(run.out).To(BeEmpty())
	g.Expect(run.err).To(ContainSubstring("not built for want of the network"))
}

func TestRemoteBasesAreFetchedWhenAsked(t *testing.T) {
	g := NewWithT(t)
	dir := folder(t, map[string]string{"kustomization.yaml": "resources:\n- http://127.0.0.1:1/nothing.yaml\n"})
	run := flux(t, "-f", dir, "-t", "127.0.0.1:1/org/app:v1", "--remote-bases")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "kustomization.yaml:2: ", "connection refused")
}

func TestShellCompletion(t *testing.T) {
	g := NewWithT(t)
	g.Expect(must(t, "__complete", "-f", ".", "--output", "")).To(And(ContainSubstring("json\n"), ContainSubstring("yaml\n")))
	g.Expect(must(t, "__complete", "pu")).To(ContainSubstring("push"))
	g.Expect(must(t, "__complete", "push", "--provider", "a")).To(And(ContainSubstring("aws\n"), ContainSubstring("azure\n")))
	g.Expect(must(t, "completion", "bash")).To(ContainSubstring("flux-bundle"))
}

func TestHelpHasAnExampleForEachVerb(t *testing.T) {
	g := NewWithT(t)
	for _, verb := range verbs(&app{}) {
		if verb.Name() == checkVerb {
			continue // this program alone runs it
		}
		g.Expect(verb.Example).To(ContainSubstring("flux bundle "+verb.Name()), "help of %s", verb.Name())
		g.Expect(verb.Short).NotTo(BeEmpty())
		g.Expect(must(t, verb.Name(), "--help")).To(ContainSubstring("flux bundle " + verb.Name()))
	}
}

// withToken demands tokens for repositories, and gives none that is good for
// more than one of them.
func withToken(r *publish.InProcess) publish.Instead {
	return func(w http.ResponseWriter, request *http.Request) bool {
		switch scopes := request.URL.Query()["scope"]; {
		case request.URL.Path == "/token" && len(scopes) > 1:
			http.Error(w, "for one repository at a time", http.StatusForbidden)
		case request.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"`+strings.Join(scopes, "")+`"}`)
		case !strings.HasPrefix(request.Header.Get("Authorization"), "Bearer "):
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL+`/token",service="registry"`)
			http.Error(w, "unauthorized", http.StatusUnauthorized)
		default:
			return false
		}
		return true
	}
}

// TestTwoRepositoriesOfOneRegistry pushes to registries that mount nothing: one
// that does is in test/e2e.
func TestTwoRepositoriesOfOneRegistry(t *testing.T) {
	for name, answer := range map[string]func(r *publish.InProcess) publish.Instead{
		"a registry that has it uploaded all the same": func(*publish.InProcess) publish.Instead {
			return func(http.ResponseWriter, *http.Request) bool { return false }
		},
		"a registry that refuses to mount": func(*publish.InProcess) publish.Instead {
			return func(w http.ResponseWriter, request *http.Request) bool {
				mount := request.URL.Query().Has("mount")
				if mount {
					http.Error(w, "not here", http.StatusMethodNotAllowed)
				}
				return mount
			}
		},
		"a registry that lets nobody in for both": withToken,
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			instead := answer(r)
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				// This registry keeps the blobs of all repositories in one place.
				if request.Method == http.MethodHead && strings.HasPrefix(request.URL.Path, "/v2/mirror/app/blobs/") {
					http.NotFound(w, request)
					return true
				}
				return instead(w, request)
			})
			run := flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "-t", r.Host()+"/mirror/app:v1")
			g.Expect(run.code).To(Equal(exitOK), run.err)
			r.Answer(nil)
			for _, repository := range []string{"/org/app", "/mirror/app"} {
				g.Expect(run.err).To(MatchRegexp("(?m)^uploaded layer .* to " + r.Host() + repository + "$"))
				raw(t, r.Host()+repository+":v1")
			}
		})
	}
}
