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

package format_test

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	fluxtar "github.com/fluxcd/pkg/tar"
	"github.com/klauspost/compress/gzip"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// folderOf writes files, by their path, to a folder; one that ends in a slash is
// a folder without files.
func folderOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o777); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pack(t *testing.T, dir string, o format.PackOptions) (*format.Packed, error) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	return format.Pack(t.Context(), root, t.TempDir(), o)
}

// packedNames lists what is in an archive.
func packedNames(t *testing.T, p *format.Packed) []string {
	t.Helper()
	file, err := os.Open(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(plain); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
}

// readPacked reads a packed folder as the controller reads the artifact.
func readPacked(t *testing.T, p *format.Packed) *format.Content {
	t.Helper()
	body, err := os.ReadFile(p.Path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := convert(t, body, format.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestWhatIsPackedIsServedAsItIs(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		ignore string
		want   []string
	}{
		"a folder of manifests": {
			files: map[string]string{"b.yaml": "b", "a/c.yaml": "c", "empty/": ""},
			want:  []string{"a/", "a/c.yaml", "b.yaml", "empty/"},
		},
		"what Flux leaves out by default": {
			files: map[string]string{"a.yaml": "a", "logo.png": "p", ".github/ci.yaml": "c", ".gitignore": "x", ".git/config": "g"},
			want:  []string{"a.yaml"},
		},
		"the file of a submodule that says where its repository is": {
			files: map[string]string{"a.yaml": "a", "sub/.git": "gitdir: /home/me/app/.git/modules/sub\n", "sub/b.yaml": "b", "sub/.sourceignore": "*.txt\n"},
			want:  []string{"a.yaml", "sub/", "sub/.sourceignore", "sub/b.yaml"},
		},
		"a .sourceignore file in place of the defaults": {
			files: map[string]string{"a.yaml": "a", "logo.png": "p", "README.md": "r", ".sourceignore": "*.md\n", "sub/x.md": "x", "sub/y.yaml": "y"},
			want:  []string{".sourceignore", "a.yaml", "logo.png", "sub/", "sub/y.yaml"},
		},
		"a .sourceignore file that leaves itself out": {
			files: map[string]string{"a.yaml": "a", "logo.png": "p", "b.txt": "b", ".sourceignore": ".sourceignore\n*.txt\n"},
			want:  []string{"a.yaml"},
		},
		"patterns beside the defaults": {
			files:  map[string]string{"a.yaml": "a", "logo.png": "p", "b.txt": "b"},
			ignore: "*.txt",
			want:   []string{"a.yaml"},
		},
		"patterns that match the .sourceignore file": {
			files:  map[string]string{"a.yaml": "a", "logo.png": "p", "x.md": "x", ".sourceignore": "*.md"},
			ignore: ".sourceignore",
			want:   []string{"a.yaml"},
		},
		".sourceignore files that let one another in and are left out": {
			files: map[string]string{
				"k.yaml": "k", ".sourceignore": "a/.sourceignore\na/b/.sourceignore\n*.txt\n",
				"a/.sourceignore": "!b/.sourceignore\n", "a/b/.sourceignore": "!x.txt\n", "a/b/x.txt": "x",
			},
			want: []string{".sourceignore", "a/", "a/b/", "k.yaml"},
		},
		"a file that is let in again": {
			files: map[string]string{"a.yaml": "a", "drop/b.yaml": "b", "drop/keep.yaml": "k", ".sourceignore": "drop/*\n!drop/keep.yaml\n"},
			want:  []string{".sourceignore", "a.yaml", "drop/", "drop/keep.yaml"},
		},
		"long names and names beyond ASCII": {
			files: map[string]string{strings.Repeat("long/", 30) + "a.yaml": "a", "äöü.yaml": "u"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := folderOf(t, c.files)
			packed, err := pack(t, dir, format.PackOptions{Ignore: c.ignore})
			g.Expect(err).NotTo(HaveOccurred())
			if c.want != nil {
				g.Expect(packedNames(t, packed)).To(Equal(c.want))
			}
			content := readPacked(t, packed)
			g.Expect(content.Digest).To(Equal(packed.Digest))
			g.Expect(content.Verbatim).To(BeTrue())

			again, err := pack(t, folderOf(t, c.files), format.PackOptions{Ignore: c.ignore})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(again.Digest).To(Equal(packed.Digest))
			g.Expect(again.DiffID).To(Equal(packed.DiffID))
		})
	}
}

// TestPackedBytes holds the digest of a packed folder: with another one, every
// folder that was ever pushed is pushed again, as the same content with another
// digest.
func TestPackedBytes(t *testing.T) {
	g := NewWithT(t)
	dir := folderOf(t, map[string]string{"kustomization.yaml": "resources: [app/deploy.yaml]\n", "app/deploy.yaml": strings.Repeat("kind: Deployment\n", 1000), "app/run.sh": "#!/bin/sh\n"})
	g.Expect(os.Chmod(filepath.Join(dir, "app/run.sh"), 0o755)).To(Succeed())
	packed, err := pack(t, dir, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packed.Files).To(Equal([]string{"app/deploy.yaml", "app/run.sh", "kustomization.yaml"}))
	g.Expect(packed.FileBytes).To(BeEquivalentTo(17029 + 10))
	g.Expect(packed.Digest.String()).To(Equal("sha256:64f86069d0d3e294d4411d495fd24e352b3e8e5e8dfe1ebecaf5b29ef1e7cbbd"))
	g.Expect(packed.DiffID.String()).To(Equal("sha256:c339f03b5f5d45b9a805b1c91cc10cebcbf32516878c56833bfb722a82788317"))
}

// TestModesTimesAndOwnersDoNotCount changes all that a copy of a folder may have
// other than the folder.
func TestModesTimesAndOwnersDoNotCount(t *testing.T) {
	g := NewWithT(t)
	files := map[string]string{"a/b.yaml": "b", "run.sh": "r"}
	one, two := folderOf(t, files), folderOf(t, files)
	g.Expect(os.Chmod(filepath.Join(one, "run.sh"), 0o700)).To(Succeed())
	g.Expect(os.Chmod(filepath.Join(two, "run.sh"), 0o755)).To(Succeed())
	g.Expect(os.Chmod(filepath.Join(two, "a/b.yaml"), 0o640)).To(Succeed())
	g.Expect(os.Chmod(filepath.Join(two, "a"), 0o700)).To(Succeed())
	first, err := pack(t, one, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	second, err := pack(t, two, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(second.Digest).To(Equal(first.Digest))

	g.Expect(os.Chmod(filepath.Join(two, "run.sh"), 0o644)).To(Succeed())
	third, err := pack(t, two, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(third.Digest).NotTo(Equal(first.Digest), "a file that can no longer be run is another content")
}

func TestSymbolicLinksAreLeftOutAndTold(t *testing.T) {
	g := NewWithT(t)
	dir := folderOf(t, map[string]string{"a.yaml": "a"})
	g.Expect(os.Symlink("/etc/passwd", filepath.Join(dir, "passwd"))).To(Succeed())
	g.Expect(os.Symlink("a.yaml", filepath.Join(dir, "b.yaml"))).To(Succeed())
	packed, err := pack(t, dir, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packedNames(t, packed)).To(Equal([]string{"a.yaml"}))
	g.Expect(packed.SkippedLinks).To(ConsistOf("passwd", "b.yaml"))
}

// TestAKeyThatIsLeftOutIsNoHindrance holds both ways in which the message of a
// refused key says how to go on, and that public keys are packed.
func TestAKeyThatIsLeftOutIsNoHindrance(t *testing.T) {
	g := NewWithT(t)
	const private = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nZQ==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
	dir := folderOf(t, map[string]string{
		"a.yaml": "a", "cosign.key": private, ".sourceignore": "*.key\n", "cosign.pub": "-----BEGIN PUBLIC KEY-----\nZQ==\n-----END PUBLIC KEY-----\n",
	})
	packed, err := pack(t, dir, format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(packedNames(t, packed)).To(Equal([]string{".sourceignore", "a.yaml", "cosign.pub"}))
}

func TestWhatCannotBePacked(t *testing.T) {
	for name, c := range map[string]struct {
		files  map[string]string
		spoil  func(dir string) error
		limits format.Limits
		reason string
		words  string
	}{
		"an empty folder": {
			reason: v1alpha1.ReasonInvalidArtifact, words: "the folder has no file",
		},
		"a folder of which nothing is left": {
			files: map[string]string{"a.png": "a", "b.zip": "b"}, reason: v1alpha1.ReasonInvalidArtifact, words: "all 2 are left out",
		},
		"a FIFO": {
			files: map[string]string{"a": "a"}, spoil: func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600) },
			reason: v1alpha1.ReasonInvalidArtifact, words: `"pipe" is neither a file nor a folder`,
		},
		"a private key of cosign's": {
			files:  map[string]string{"a": "a", "keys/release": "mine:\n-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nZQ==\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"},
			reason: v1alpha1.ReasonInvalidArtifact, words: `"keys/release" is a private key`,
		},
		"an old private key of cosign's behind its certificate": {
			files:  map[string]string{"a.pem": "-----BEGIN CERTIFICATE-----\nZQ==\n-----END CERTIFICATE-----\n-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\nZQ==\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n"},
			reason: v1alpha1.ReasonInvalidArtifact, words: `"a.pem" is a private key`,
		},
		"a .sourceignore file that is a link": {
			files:  map[string]string{"a": "a", "patterns": "secret\n", "sub/secret": "s"},
			spoil:  func(dir string) error { return os.Symlink("../patterns", filepath.Join(dir, "sub/.sourceignore")) },
			reason: v1alpha1.ReasonInvalidArtifact, words: `"sub/.sourceignore" is no regular file`,
		},
		"a .sourceignore file with a line that is no pattern": {
			files:  map[string]string{"a": "a", "sub/.sourceignore": "# [\r\n!ok/[a-z]*\r\nsecret[0-9.yaml\r\n"},
			reason: v1alpha1.ReasonInvalidArtifact, words: `line 3 of "sub/.sourceignore" is "secret[0-9.yaml", which is no pattern`,
		},
		"a folder in place of a .sourceignore file": {
			files: map[string]string{"a": "a", ".sourceignore/b": "b"}, reason: v1alpha1.ReasonInvalidArtifact, words: `".sourceignore" is no regular file`,
		},
		"a name that a consumer could not create": {
			files: map[string]string{"a\\b": "a"}, reason: v1alpha1.ReasonInvalidArtifact, words: "backslash",
		},
		"names that differ in case only": {
			files: map[string]string{"a": "a", "A": "b"}, reason: v1alpha1.ReasonInvalidArtifact, words: "differ in case only",
		},
		"more files than are read": {
			files: map[string]string{"a": "a", "b": "b"}, limits: format.Limits{Entries: 1}, reason: v1alpha1.ReasonLimitExceeded, words: "--max-entries",
		},
		"more bytes than are unpacked": {
			files: map[string]string{"a": strings.Repeat("a", 10_000)}, limits: format.Limits{UncompressedBytes: 10_000},
			reason: v1alpha1.ReasonLimitExceeded, words: "--max-uncompressed-bytes",
		},
		"more bytes than are pulled": {
			files: map[string]string{"a": "some bytes"}, limits: format.Limits{ArtifactBytes: 10}, reason: v1alpha1.ReasonLimitExceeded, words: "--max-artifact-bytes",
		},
		"a .sourceignore file that is too large": {
			files:  map[string]string{"a": "a", ".sourceignore": strings.Repeat("x\n", 100_000)},
			reason: v1alpha1.ReasonLimitExceeded, words: ".sourceignore",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := folderOf(t, c.files)
			if c.spoil != nil {
				g.Expect(c.spoil(dir)).To(Succeed())
			}
			_, err := pack(t, dir, format.PackOptions{Limits: c.limits})
			g.Expect(err).To(MatchError(ContainSubstring(c.words)))
			g.Expect(fault.Of(err, "").Reason).To(Equal(c.reason))
		})
	}
}

// TestFluxUnpacksWhatIsPacked compares the tree that Flux's own code unpacks.
func TestFluxUnpacksWhatIsPacked(t *testing.T) {
	g := NewWithT(t)
	files := map[string]string{"kustomization.yaml": "k", "app/deploy.yaml": "d", "app/deep/er/x.json": "{}"}
	packed, err := pack(t, folderOf(t, files), format.PackOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	archive, err := os.Open(packed.Path)
	g.Expect(err).NotTo(HaveOccurred())
	defer archive.Close()
	out := t.TempDir()
	g.Expect(fluxtar.Untar(archive, out)).To(Succeed())
	got := map[string]string{}
	g.Expect(filepath.WalkDir(out, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		name, _ := filepath.Rel(out, path)
		got[name] = string(body)
		return err
	})).To(Succeed())
	g.Expect(got).To(Equal(files))
}

func TestFilesThatAreLeftOutWithoutAPatternAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		rules string
		want  []string
	}{
		"a .sourceignore file that leaves itself out": {"/*\n!/deploy\n", []string{"deploy/.sops.yaml", "deploy/logo.png"}},
		"a .sourceignore file that stays":             {"/*\n!/deploy\n!/.sourceignore\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			packed, err := pack(t, folderOf(t, map[string]string{
				".sourceignore": c.rules, "README.md": "r", "deploy/app.yaml": "a: b", "deploy/logo.png": "p", "deploy/.sops.yaml": "s: 1",
			}), format.PackOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(packed.Unkept).To(Equal(c.want))
			g.Expect(packed.Files).To(ContainElement("deploy/app.yaml"))
		})
	}
}

func TestAFolderThatStaysIsNotLeftOut(t *testing.T) {
	g := NewWithT(t)
	layer := layerOf(t, file{name: "deploy/", Header: tar.Header{Typeflag: tar.TypeDir}, mode: 0o755}, file{name: "deploy/app.yaml", body: "a: b"})
	content, err := convert(t, layer, format.Options{Ignore: new("/*\n!/deploy/app.yaml\n")})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeTrue())
}

// watched is a context that runs look whenever it is asked whether it is over.
type watched struct {
	context.Context
	look func() error
}

func (w watched) Err() error { return w.look() }

func TestAPackedFileIsWatchedWhileItIsRead(t *testing.T) {
	const size = 8 << 20
	for name, c := range map[string]struct {
		meanwhile func(path string) error
		want      func(g *WithT, err error)
	}{
		"the attempt ends": {
			meanwhile: func(string) error { return context.Canceled },
			want:      func(g *WithT, err error) { g.Expect(err).To(MatchError(context.Canceled)) },
		},
		"the file gets shorter": {
			meanwhile: func(path string) error { return os.Truncate(path, size/2) },
			want:      func(g *WithT, err error) { g.Expect(err).To(MatchError(ContainSubstring(`"a.yaml": it changes`))) },
		},
		"the file gets longer": {
			meanwhile: func(path string) error { return os.Truncate(path, 2*size) },
			want:      func(g *WithT, err error) { g.Expect(err).To(MatchError(ContainSubstring(`"a.yaml": it changes`))) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := folderOf(t, map[string]string{"a.yaml": strings.Repeat("a: b\n", size/5)})
			path := filepath.Join(dir, "a.yaml")
			g.Expect(os.Truncate(path, size)).To(Succeed())
			root, err := os.OpenRoot(dir)
			g.Expect(err).NotTo(HaveOccurred())
			defer root.Close()
			asked := 0
			ctx := watched{t.Context(), func() error {
				if asked++; asked == 50 { // while the file is read, a buffer at a time
					return c.meanwhile(path)
				}
				return nil
			}}
			_, err = format.Pack(ctx, root, t.TempDir(), format.PackOptions{})
			c.want(g, err)
		})
	}
}

func TestPatternsWithCharactersThatNobodySeesAreRefused(t *testing.T) {
	for name, pattern := range map[string]string{
		"a tab at the end": "secret.yaml\t", "a vertical tab": "secret.yaml\v", "a next line": "secret.yaml\u0085",
		"a space of no width": "secret\u200b.yaml", "a joiner": "secret.yaml\u200d", "a soft hyphen": "sec\u00adret.yaml",
		"a space that does not break": "secret.yaml\u00a0 ", "text from right to left": "\u202esecret.yaml",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := pack(t, folderOf(t, map[string]string{"a.yaml": "x", "secret.yaml": "y", ".sourceignore": "*.key\n" + pattern + "\n"}), format.PackOptions{})
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, `line 2 of ".sourceignore"`)
		})
	}
	for name, pattern := range map[string]string{
		"spaces at the end": "secret.yaml  ", "a carriage return": "secret.yaml\r", "a comment": "# a\u200b\t\nsecret.yaml", "an empty line": " \t\nsecret.yaml",
		"a mark at the start": "\ufeffsecret.yaml", "letters of all kinds": "secret.yaml\né/日本 語",
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			packed, err := pack(t, folderOf(t, map[string]string{"a.yaml": "x", "secret.yaml": "y", ".sourceignore": pattern + "\n"}), format.PackOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(packed.Files).NotTo(ContainElement("secret.yaml"))
			g.Expect(format.PatternFlaw("spec.ignore", pattern+"\n")).To(BeEmpty())
		})
	}
}
