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
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/test/publish"
)

const (
	configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\n"
	task      = "apiVersion: tekton.dev/v1\nkind: Task\nmetadata:\n  name: build\nspec: {}\n"
	policy    = "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nmetadata:\n  name: labels\n"
)

// inspected is what inspect -o json says, decoded without the types of the
// command, so that the names in it are held.
type inspected map[string]any

// inspect runs inspect -o json with the exit code that is expected.
func inspect(t *testing.T, code int, args ...string) inspected {
	t.Helper()
	g := NewWithT(t)
	r := flux(t, append([]string{"inspect", "-o", "json"}, args...)...)
	g.Expect(r.code).To(Equal(code), r.err)
	if code != exitOK {
		expectOneError(g, r)
	}
	var i inspected
	g.Expect(json.Unmarshal([]byte(r.out), &i)).To(Succeed(), r.out)
	return i
}

// paths are those of a list of files or omissions.
func (i inspected) paths(list string) []string {
	var all []string
	entries, _ := i[list].([]any)
	for _, entry := range entries {
		all = append(all, entry.(map[string]any)["path"].(string))
	}
	return all
}

// pushImage pushes an image that a test made.
func pushImage(t *testing.T, r *publish.InProcess, name string, image v1.Image, err error) string {
	t.Helper()
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(r.Shelf().Push(t.Context(), name, image)).To(Succeed())
	return r.Host() + "/" + name
}

// pushLayer pushes a Flux artifact of one layer.
func pushLayer(t *testing.T, r *publish.InProcess, name string, layer []byte) string {
	t.Helper()
	image, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
	return pushImage(t, r, name, image, err)
}

// archived is a gzip tar of any headers; files have their name as content, in
// printable characters.
func archived(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	g := NewWithT(t)
	var out bytes.Buffer
	compressor := gzip.NewWriter(&out)
	archive := tar.NewWriter(compressor)
	for _, h := range headers {
		h.Mode = 0o644
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(printable(h.Name)))
		}
		g.Expect(archive.WriteHeader(&h)).To(Succeed())
		if h.Typeflag == tar.TypeReg {
			_, err := archive.Write([]byte(printable(h.Name)))
			g.Expect(err).NotTo(HaveOccurred())
		}
	}
	g.Expect(archive.Close()).To(Succeed())
	g.Expect(compressor.Close()).To(Succeed())
	return out.Bytes()
}

func TestInspectShowsEveryFormat(t *testing.T) {
	r := serve(t)
	shelf := publish.Registry{Host: r.Host()}
	files := publish.Files{"kustomization.yaml": "resources: [a.yaml]\n", "a.yaml": configMap}
	push := func(image v1.Image, err error) func(t *testing.T, name string) {
		return func(t *testing.T, name string) { t.Helper(); pushImage(t, r, name, image, err) }
	}
	for name, c := range map[string]struct {
		push  func(t *testing.T, name string)
		args  []string
		files []string
	}{
		"Flux": {
			push: func(t *testing.T, name string) {
				t.Helper()
				_, err := shelf.FluxCLI(t.Context(), name, files)
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
			},
			files: []string{"a.yaml", "kustomization.yaml"},
		},
		"Tekton":  {push: push(publish.TektonBundle(task)), files: []string{"task-build.yaml"}},
		"Imgpkg":  {push: push(publish.ImgpkgBundle(files)), files: []string{"a.yaml", "kustomization.yaml"}},
		"Kyverno": {push: push(publish.KyvernoPolicies(policy)), files: []string{"clusterpolicy-labels.yaml"}},
		"Image":   {push: push(publish.ContainerImage(files)), args: []string{"--format", "Image"}, files: []string{"a.yaml", "kustomization.yaml"}},
		"Files": {
			push: func(t *testing.T, name string) {
				t.Helper()
				_, err := shelf.ORAS(t.Context(), name, files, publish.Packing{Parts: []publish.Part{{Title: "a.yaml"}}})
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
			},
			files: []string{"a.yaml"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			image := "org/" + strings.ToLower(name) + ":v1"
			c.push(t, image)
			i := inspect(t, exitOK, append(c.args, r.Host()+"/"+image)...)
			g.Expect(i["format"]).To(Equal(name))
			g.Expect(i.paths("files")).To(Equal(c.files))
			g.Expect(i["published"]).To(HaveKeyWithValue("revision", MatchRegexp(`^v1(\+[0-9a-f]{8})?@`+i["digest"].(string)+"$")))
			g.Expect(i["signatures"]).To(BeEmpty())
			g.Expect(i).NotTo(HaveKey("refused"))
		})
	}
}

func TestInspectShowsAChart(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	pushed, err := publish.Registry{Host: r.Host()}.Helm("charts", publish.Chart{
		Name: "podinfo", Version: "1.2.3+build", Provenance: "signed", Files: publish.Files{"templates/a.yaml": configMap},
	})
	g.Expect(err).NotTo(HaveOccurred())
	i := inspect(t, exitOK, r.Host()+"/charts/podinfo:1.2.3_build")
	g.Expect(i["format"]).To(Equal("Helm"))
	g.Expect(i["digest"]).To(Equal(pushed.Manifest.Digest))
	g.Expect(i["published"]).To(And(
		HaveKeyWithValue("digest", pushed.Chart.Digest), HaveKeyWithValue("verbatim", true), HaveKeyWithValue("chartVersion", "1.2.3+build")))
	g.Expect(i["layers"]).To(HaveLen(2))
	g.Expect(i.paths("files")).To(ContainElements("podinfo/Chart.yaml", "podinfo/templates/a.yaml"))
}

func TestTheNamesOfAnInspectionAreStable(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	layer := archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "logo.png"}, tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "a.yaml"})
	ref := pushLayer(t, r, "org/app:v1", layer)
	digest, m := raw(t, ref)
	manifest, _, err := v1.SHA256(bytes.NewReader(digest))
	g.Expect(err).NotTo(HaveOccurred())

	i := inspect(t, exitOK, ref)
	published := i["published"].(map[string]any)["digest"]
	size := i["published"].(map[string]any)["size"]
	g.Expect(published).To(MatchRegexp("^sha256:[0-9a-f]{64}$"))
	want := inspected{
		"repository": r.Host() + "/org/app", "tag": "v1", "digest": manifest.String(),
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "format": "Flux", "kind": "a Flux artifact",
		"annotations": map[string]any{
			"org.opencontainers.image.source":   "https://github.com/org/app.git",
			"org.opencontainers.image.revision": "main@sha1:0123456789abcdef0123456789abcdef01234567",
		},
		"config":    map[string]any{"mediaType": "application/vnd.cncf.flux.config.v1+json", "digest": m.Config.Digest.String(), "size": float64(m.Config.Size)},
		"layers":    []any{map[string]any{"mediaType": string(publish.FluxContent), "digest": m.Layers[0].Digest.String(), "size": float64(len(layer))}},
		"published": map[string]any{"revision": "v1@" + manifest.String(), "digest": published, "size": size, "verbatim": false},
		"files": []any{map[string]any{
			"path": "a.yaml", "size": 6.0, "sha256": sha256Of("a.yaml"),
		}},
		"omitted":    []any{map[string]any{"path": "link", "cause": "symbolic link"}, map[string]any{"path": "logo.png", "cause": "ignored"}},
		"signatures": []any{},
	}
	g.Expect(i).To(Equal(want))

	asYAML := must(t, "inspect", ref, "-o", "yaml")
	var again inspected
	g.Expect(yaml.Unmarshal([]byte(asYAML), &again)).To(Succeed())
	g.Expect(again).To(Equal(i))

	text := must(t, "inspect", ref)
	for _, line := range []string{
		"repository:  " + r.Host() + "/org/app", "digest:      " + manifest.String(), "format:      Flux\n", "archived again",
		"1 file, 6 B together:", "6 B  a.yaml", "link (symbolic link)", "logo.png (ignored)", "signatures:  none",
	} {
		g.Expect(text).To(ContainSubstring(line))
	}
}

func sha256Of(text string) string {
	sum, _, _ := v1.SHA256(strings.NewReader(text))
	return sum.Hex
}

func TestInspectReadsTheManifestOfAnIndex(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	shelf := r.Shelf()
	amd, err := shelf.Flux(t.Context(), "org/amd:v1", publish.Files{"amd.yaml": configMap})
	g.Expect(err).NotTo(HaveOccurred())
	arm, err := shelf.Flux(t.Context(), "org/arm:v1", publish.Files{"arm.yaml": configMap})
	g.Expect(err).NotTo(HaveOccurred())
	index, err := publish.Index(types.OCIImageIndex, publish.Child{Image: amd, Platform: "linux/amd64"}, publish.Child{Image: arm, Platform: "linux/arm64"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(shelf.PushIndex(t.Context(), "org/app:v1", index)).To(Succeed())
	ref := r.Host() + "/org/app:v1"
	want, err := arm.Digest()
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(inspect(t, exitOK, ref).paths("files")).To(Equal([]string{"amd.yaml"}))
	i := inspect(t, exitOK, ref, "--platform", "linux/arm64")
	g.Expect(i.paths("files")).To(Equal([]string{"arm.yaml"}))
	g.Expect(i["chosen"]).To(Equal(want.String()))
	g.Expect(i["manifests"]).To(HaveLen(2))
	g.Expect(must(t, "inspect", ref, "--platform", "linux/arm64")).To(ContainSubstring(want.String() + ", which is read"))

	i = inspect(t, exitFailure, ref, "--platform", "linux/s390x")
	g.Expect(i["refused"]).To(HaveKeyWithValue("reason", "UnsupportedMediaType"))
	g.Expect(i["manifests"]).To(HaveLen(2))
}

func TestWhatIsRefusedIsShownAsFarAsItIsKnown(t *testing.T) {
	r := serve(t)
	image, err := publish.ContainerImage(publish.Files{"bin/app": "x"})
	pushImage(t, r, "org/image:v1", image, err)
	unknown, err := publish.LayeredArtifact("application/vnd.example.config", static.NewLayer([]byte("x"), "application/vnd.example.layer"))
	pushImage(t, r, "org/unknown:v1", unknown, err)
	pushLayer(t, r, "org/escape:v1", archived(t, tar.Header{Name: "../evil.yaml"}))
	pushLayer(t, r, "org/hard:v1", archived(t, tar.Header{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}))
	pushLayer(t, r, "org/links:v1", archived(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}))
	bomb, err := publish.Layer(publish.Files{"zeros": strings.Repeat("\x00", 1<<20)})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	pushLayer(t, r, "org/bomb:v1", bomb)
	many := make([]v1.Layer, 150)
	for i := range many {
		many[i] = static.NewLayer([]byte{byte(i)}, publish.FluxContent)
	}
	huge, err := publish.FluxImage(many...)
	pushImage(t, r, "org/huge:v1", huge, err)

	few, err := publish.FluxImage(many[:2]...)
	pushImage(t, r, "org/few:v1", few, err)

	for name, c := range map[string]struct {
		args         []string
		reason, kind string
		words        string
	}{
		"org/few:v1":     {reason: "LimitExceeded", words: "--max-layers", args: []string{"--max-layers", "1"}},
		"org/image:v1":   {reason: "UnsupportedMediaType", kind: "a container image", words: "it is a container image"},
		"org/unknown:v1": {reason: "UnsupportedMediaType", words: "application/vnd.example.config"},
		"org/escape:v1":  {reason: "InvalidArtifact", kind: "a Flux artifact", words: `"../"`},
		"org/hard:v1":    {reason: "InvalidArtifact", kind: "a Flux artifact", words: "a hard link"},
		"org/links:v1":   {reason: "InvalidArtifact", kind: "a Flux artifact", words: "symbolic links and no files"},
		"org/bomb:v1":    {reason: "LimitExceeded", kind: "a Flux artifact", words: "--max-uncompressed-bytes", args: []string{"--max-uncompressed-bytes", "100000"}},
		"org/huge:v1":    {reason: "LimitExceeded", kind: "a Flux artifact", words: "--max-layers"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			args := slices.Concat(c.args, []string{r.Host() + "/" + name})
			i := inspect(t, exitFailure, args...)
			g.Expect(i["refused"]).To(And(HaveKeyWithValue("reason", c.reason), HaveKeyWithValue("final", true), HaveKeyWithValue("message", ContainSubstring(c.words))))
			g.Expect(i["digest"]).To(HavePrefix("sha256:"))
			g.Expect(i).NotTo(Or(HaveKey("format"), HaveKey("files"), HaveKey("published")))
			if c.kind != "" {
				g.Expect(i["kind"]).To(Equal(c.kind))
				g.Expect(i["layers"]).NotTo(BeEmpty())
			}
			run := flux(t, append([]string{"inspect"}, args...)...)
			g.Expect(run.code).To(Equal(exitFailure))
			g.Expect(run.out).To(ContainSubstring("refused:     " + c.reason))
			expectOneError(g, run, c.words)
		})
	}
	g := NewWithT(t)
	g.Expect(inspect(t, exitFailure, r.Host()+"/org/links:v1").paths("omitted")).To(Equal([]string{"a"}))
}

func TestInspectOfWhatIsNotThere(t *testing.T) {
	r := serve(t)
	pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	for name, c := range map[string]struct {
		args  []string
		words []string
	}{
		"no such tag":           {[]string{r.Host() + "/org/app:v2"}, []string{"v2", "404"}},
		"no such digest":        {[]string{r.Host() + "/org/app@sha256:" + strings.Repeat("0", 64)}, []string{"404"}},
		"no reference":          {[]string{"ghcr.io/UPPER:x"}, []string{"UPPER"}},
		"nobody there":          {[]string{"127.0.0.1:1/org/app:v1"}, []string{"127.0.0.1:1", "refused"}},
		"an unknown format":     {[]string{r.Host() + "/org/app:v1", "--format", "Zip"}, []string{"Zip", "expected Auto, Flux"}},
		"another format":        {[]string{r.Host() + "/org/app:v1", "--format", "Helm"}, []string{"a Flux artifact"}},
		"an unknown output":     {[]string{r.Host() + "/org/app:v1", "-o", "xml"}, []string{"xml", "json or yaml"}},
		"an unknown operation":  {[]string{r.Host() + "/org/app:v1", "--layer-operation", "move"}, []string{"move", "extract"}},
		"no argument":           {nil, []string{"0 arguments given, expected one: a reference"}},
		"an impossible timeout": {[]string{r.Host() + "/org/app:v1", "--timeout", "1ns"}, []string{"--timeout"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, append([]string{"inspect"}, c.args...)...)
			g.Expect(run.code).To(Equal(exitFailure))
			g.Expect(strings.Count(run.err, "gave up")).To(BeNumerically("<=", 1), run.err)
			expectOneError(g, run, c.words...)
		})
	}
}

func TestAWrongPasswordIsExplainedToAPerson(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	r.Answer(publish.DemandBasic(map[string]string{"somebody": "else"}))
	run := flux(t, "inspect", r.Host()+"/org/app:v1")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "401", "docker login")
	g.Expect(run.err).NotTo(ContainSubstring("secretRef"))
}

func TestInspectNamesTheTagBesideADigest(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	digest := inspect(t, exitOK, ref)["digest"].(string)
	i := inspect(t, exitOK, "oci://"+ref+"@"+digest)
	g.Expect(i["tag"]).To(Equal("v1"))
	g.Expect(i["published"]).To(HaveKeyWithValue("revision", "v1@"+digest))
	i = inspect(t, exitOK, r.Host()+"/org/app@"+digest)
	g.Expect(i).NotTo(HaveKey("tag"))
	g.Expect(i["published"]).To(HaveKeyWithValue("revision", digest))
}

func TestInspectSelectsALayerAndLeavesFilesOut(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "b.md"}))
	i := inspect(t, exitOK, ref, "--ignore-paths", "*.md,*.txt")
	g.Expect(i.paths("files")).To(Equal([]string{"a.yaml"}))
	g.Expect(i.paths("omitted")).To(Equal([]string{"b.md"}))
	g.Expect(i["published"]).To(HaveKeyWithValue("revision", MatchRegexp(`^v1\+[0-9a-f]{8}@sha256:`)))
	i = inspect(t, exitOK, ref, "--layer-media-type", string(publish.FluxContent), "--layer-operation", "copy")
	g.Expect(i["published"]).To(HaveKeyWithValue("verbatim", true))
	g.Expect(i).NotTo(HaveKey("files"))
	i = inspect(t, exitFailure, ref, "--layer-media-type", "application/none")
	g.Expect(i["refused"]).To(HaveKeyWithValue("message", ContainSubstring("application/none")))
}

func TestInspectShowsSignaturesWithoutVerifyingThem(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	key, public := keyPair(t, "")
	ref := r.Host() + "/org/app:v1"
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key, "--legacy-signature")
	g.Expect(run.code).To(Equal(exitOK), run.err)
	i := inspect(t, exitOK, ref)
	signatures := i["signatures"].([]any)
	g.Expect(signatures).To(ConsistOf(
		And(HaveKeyWithValue("format", "Sigstore bundle under the fallback tag"), HaveKeyWithValue("key", MatchRegexp("^[0-9a-f]{64}$")), Not(HaveKey("digests"))),
		Equal(map[string]any{"format": "legacy cosign signature"}),
	))
	var verified map[string]any
	g.Expect(json.Unmarshal([]byte(must(t, "verify", ref, "--key", public, "-o", "json")), &verified)).To(Succeed())
	g.Expect(signatures).To(ContainElement(HaveKeyWithValue("key", verified["signer"].(map[string]any)["key"])), "the key that is hinted at is the one that verifies")
	g.Expect(must(t, "inspect", ref)).To(And(ContainSubstring("signatures, not verified:"), ContainSubstring("legacy cosign signature"), ContainSubstring("by key sha256:")))

	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		if strings.HasSuffix(request.URL.Path, ".sig") {
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		return false
	})
	i = inspect(t, exitOK, ref)
	g.Expect(i["signatures"]).To(HaveLen(1))
	g.Expect(i["signaturesUnread"]).To(ContainSubstring("502"))
	g.Expect(must(t, "inspect", ref)).To(ContainSubstring("not all could be read"))
}

// TestASignatureOfAnyTimeIsShown puts a signature beside an artifact that says it was
// made in a year that RFC 3339 has no form for.
func TestASignatureOfAnyTimeIsShown(t *testing.T) {
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	digest := inspect(t, exitOK, ref)["digest"].(string)
	body := base64.StdEncoding.EncodeToString([]byte(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}`))
	for _, seconds := range []string{"999999999999999", "-999999999999999"} {
		g := NewWithT(t)
		signature, err := mutate.Append(empty.Image, mutate.Addendum{
			Layer: static.NewLayer([]byte("{}"), "application/vnd.dev.cosign.simplesigning.v1+json"),
			Annotations: map[string]string{
				"dev.cosignproject.cosign/signature": "AAAA",
				"dev.sigstore.cosign/bundle":         `{"Payload":{"body":"` + body + `","integratedTime":` + seconds + `}}`,
			},
		})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(r.Shelf().Push(t.Context(), "org/app:"+strings.Replace(digest, ":", "-", 1)+".sig", signature)).To(Succeed())
		g.Expect(inspect(t, exitOK, ref)["signatures"]).To(ConsistOf(HaveKeyWithValue("format", "legacy cosign signature")))
		must(t, "inspect", ref, "-o", "yaml")
	}
}

func TestNothingOfAHostileArtifactReachesTheTerminal(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	evil := "\x1b[2J\u009b31m\u202e\a\r\nfake: line"
	layer := archived(t, tar.Header{Name: "turned\u202eimage.yaml"}, tar.Header{Name: "link\u2066", Typeflag: tar.TypeSymlink, Linkname: evil})
	image, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
	g.Expect(err).NotTo(HaveOccurred())
	ref := pushImage(t, r, "org/app:v1", mutate.Annotations(image, map[string]string{"evil" + evil: evil}).(v1.Image), nil)
	alien, err := publish.LayeredArtifact(types.MediaType("application/"+evil), static.NewLayer([]byte("x"), "text/x"))
	refused := pushImage(t, r, "org/alien:v1", alien, err)

	dir := t.TempDir()
	for _, args := range [][]string{
		{"inspect", ref}, {"inspect", ref, "-o", "json"}, {"inspect", ref, "-o", "yaml"}, {"inspect", refused}, {"inspect", refused, "-o", "json"},
		{"pull", ref, "-o", dir}, {"pull", refused, "-o", dir}, {"pull", ref, "-o", folder(t, map[string]string{"turned\u202eimage.yaml": "other"})},
		{"diff", ref, dir}, {"diff", ref, t.TempDir()}, {"diff", ref, manifests(t), "-o", "yaml"}, {"diff", ref, manifests(t)},
	} {
		run := flux(t, args...)
		for _, r := range run.out + run.err {
			ok := r == '\n' || !unicode.IsControl(r) && !unicode.Is(unicode.Cf, r)
			g.Expect(ok).To(BeTrue(), "%q in the output of %q: %q", r, args, run.out+run.err)
		}
		g.Expect(run.out + run.err).NotTo(MatchRegexp("(?m)^fake: line"))
	}
	i := inspect(t, exitOK, ref)
	g.Expect(i["annotations"]).To(HaveKeyWithValue("evil"+evil, evil), "programs read what stands there")
	g.Expect(i.paths("files")).To(Equal([]string{"turned\u202eimage.yaml"}))
}
