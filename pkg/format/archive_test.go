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
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

// golden is the digest of our archive of goldenTree. When a new release of the
// compressor, of archive/tar or of this package changes it, every artifact
// that is archived again gets another digest: raise ArchiveVersion with it.
const golden = "0d51b3c85a3ca71e9e53085398ad1f0f1786daf65806667cadc870cca984fb1e"

// goldenTree has what decides bytes: order, modes, folders named and implied,
// long and foreign names, small and large files.
func goldenTree() []file {
	return []file{
		folder("empty"),
		{name: "a/b/c.yaml", body: "kind: Service\n"},
		{name: "a-b", body: ""},
		{name: "run.sh", body: "#!/bin/sh\n", mode: 0o755},
		{name: "names/" + strings.Repeat("long", 40) + "/" + strings.Repeat("name", 40), body: "long"},
		{name: "names/grüße-世界.txt", body: "hello"},
		{name: "large.txt", body: text(300_000)},
	}
}

func rearchived(t testing.TB, layer []byte) *format.Content {
	t.Helper()
	content, err := convertAgain(t, layer, format.Options{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return content
}

func TestTheArchiveOfAFixedTreeHasAFixedDigest(t *testing.T) {
	content := rearchived(t, layerOf(t, goldenTree()...))
	NewWithT(t).Expect(content.Digest.Hex).To(Equal(golden), "see the comment of golden")
}

func TestTheArchiveDependsOnNothingButTheTree(t *testing.T) {
	g := NewWithT(t)
	want := rearchived(t, layerOf(t, goldenTree()...))
	reversed := goldenTree()
	slices.Reverse(reversed)
	dressed := goldenTree()
	for i := range dressed {
		dressed[i].name = "./" + dressed[i].name
		dressed[i].ModTime = time.Unix(1_700_000_000, 0)
		dressed[i].Uid, dressed[i].Gid, dressed[i].Uname, dressed[i].Gname = 1000, 1000, "someone", "people"
	}
	dressed = append([]file{folder("./"), folder("./a/"), folder("a/b")}, dressed...)
	for name, layer := range map[string][]byte{
		"folders named again":               layerOf(t, append(goldenTree(), folder("empty/"), folder("a"), folder("a"))...),
		"the same layer again":              layerOf(t, goldenTree()...),
		"entries in another order":          layerOf(t, reversed...),
		"no compression":                    zippedAt(t, archive(t, goldenTree()...), 0),
		"the best compression":              zippedAt(t, archive(t, goldenTree()...), 9),
		"owners, times, dots, more folders": layerOf(t, dressed...),
		"several gzip members":              inMembers(t, archive(t, goldenTree()...)),
		"a global PAX header and a link":    layerOf(t, append(goldenTree(), globalHeader(), link("l", "a-b"))...),
	} {
		got := rearchived(t, layer)
		g.Expect(got.Digest).To(Equal(want.Digest), name)
		g.Expect(got.Size).To(Equal(want.Size), name)
	}
}

func TestTheArchiveSaysNothingButTheTree(t *testing.T) {
	g := NewWithT(t)
	content := rearchived(t, layerOf(t,
		file{name: "b", mode: 0o4644}, file{name: "s", mode: 0o1777}, file{name: "z/none", Header: tar.Header{Mode: 0o1000}},
		folder("d"), file{name: "d/x", mode: 0o010}))
	body, err := os.ReadFile(content.Path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(body[:10]).To(Equal([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}))

	var got []tar.Header
	for _, h := range headers(t, content.Path) {
		g.Expect(h.ModTime.Unix()).To(BeZero())
		g.Expect(h.Uid + h.Gid).To(BeZero())
		g.Expect(h.Uname + h.Gname).To(BeEmpty())
		got = append(got, tar.Header{Name: h.Name, Mode: h.Mode, Typeflag: h.Typeflag})
	}
	g.Expect(got).To(Equal([]tar.Header{
		{Name: "b", Mode: 0o600, Typeflag: tar.TypeReg},
		{Name: "d/", Mode: 0o750, Typeflag: tar.TypeDir},
		{Name: "d/x", Mode: 0o700, Typeflag: tar.TypeReg},
		{Name: "s", Mode: 0o700, Typeflag: tar.TypeReg},
		{Name: "z/", Mode: 0o750, Typeflag: tar.TypeDir},
		{Name: "z/none", Mode: 0o600, Typeflag: tar.TypeReg},
	}))
}

func TestContentSaysWhatItsFileIs(t *testing.T) {
	g := NewWithT(t)
	for verbatim, convert := range map[bool]func(testing.TB, []byte, format.Options) (*format.Content, error){true: convert, false: convertAgain} {
		content, err := convert(t, layerOf(t, goldenTree()...), format.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		body, err := os.ReadFile(content.Path)
		g.Expect(err).NotTo(HaveOccurred())
		sum := sha256.Sum256(body)
		g.Expect(content.Digest.String()).To(Equal("sha256:" + hex.EncodeToString(sum[:])))
		g.Expect(content.Size).To(BeEquivalentTo(len(body)))
		g.Expect(content.Format).To(Equal("Flux"))
		g.Expect(content.Verbatim).To(Equal(verbatim))
	}
}

func TestOurArchiveIsACleanLayerItself(t *testing.T) {
	g := NewWithT(t)
	first := rearchived(t, layerOf(t, goldenTree()...))
	body, err := os.ReadFile(first.Path)
	g.Expect(err).NotTo(HaveOccurred())
	second, err := convert(t, body, format.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(second.Verbatim).To(BeTrue())
	g.Expect(second.Digest).To(Equal(first.Digest))
}

func TestOnlyCleanLayersArePublishedAsTheyAre(t *testing.T) {
	plain := archive(t, good)
	for name, tc := range map[string]struct {
		layer    []byte
		verbatim bool
	}{
		"files":                                   {layerOf(t, good), true},
		"files and folders":                       {layerOf(t, folder("a"), file{name: "a/b"}, good), true},
		"a root folder and names with a dot":      {layerOf(t, folder("./"), file{name: "./a"}), true},
		"type bits in the mode that agree":        {layerOf(t, file{name: "a", mode: 0o100644}), true},
		"owners and times":                        {layerOf(t, file{name: "a", Header: tar.Header{Uid: 7, Uname: "u", ModTime: time.Unix(1e9, 0)}}), true},
		"names that need PAX":                     {layerOf(t, file{name: "grüße-世界"}), true},
		"zeros up to the block size of tar":       {zipped(t, append(bytes.Clone(plain), make([]byte, 10240)...)), true},
		"no end marker":                           {zipped(t, plain[:1024]), true},
		"several gzip members":                    {inMembers(t, plain), false},
		"a gzip member with nothing in it":        {append(zipped(t, plain), zipped(t, nil)...), false},
		"zeros after the gzip stream":             {append(zipped(t, plain), make([]byte, 512)...), false},
		"a contiguous file":                       {zipped(t, patchedTar(t, file{name: "a"}, '7')), false},
		"a label of the archive":                  {zipped(t, patchedTar(t, file{name: "label"}, 'V')), false},
		"a global PAX header":                     {layerOf(t, globalHeader(), good), false},
		"a symbolic link":                         {layerOf(t, good, link("l", "deploy.yaml")), false},
		"a folder that is named again":            {layerOf(t, folder("a/"), file{name: "a/b"}, folder("a"), file{name: "a/c"}), false},
		"a root folder that is named again":       {layerOf(t, folder("./"), file{name: "./a"}, folder("./"), file{name: "./b"}), false},
		"a folder that is named after its file":   {layerOf(t, file{name: "a/b"}, folder("a")), true},
		"a setuid bit":                            {layerOf(t, file{name: "a", mode: 0o4755}), false},
		"a setgid bit":                            {layerOf(t, file{name: "a", mode: 0o2755}), false},
		"a sticky folder":                         {layerOf(t, good, file{name: "d", mode: 0o1777, Header: tar.Header{Typeflag: tar.TypeDir}}), false},
		"a file that its owner cannot read":       {layerOf(t, good, file{name: "a", mode: 0o044}), false},
		"a file that its owner cannot write":      {layerOf(t, file{name: "kustomization.yaml", mode: 0o444}), false},
		"a program that its owner cannot write":   {layerOf(t, good, file{name: "a", mode: 0o555}), false},
		"a folder that its owner cannot write":    {layerOf(t, good, file{name: "d", mode: 0o555, Header: tar.Header{Typeflag: tar.TypeDir}}), false},
		"a folder that its owner cannot enter":    {layerOf(t, good, file{name: "d", mode: 0o600, Header: tar.Header{Typeflag: tar.TypeDir}}), false},
		"files and folders of their owner alone":  {layerOf(t, file{name: "d", mode: 0o700, Header: tar.Header{Typeflag: tar.TypeDir}}, file{name: "a", mode: 0o600}), true},
		"a file with no mode at all":              {patched(t, 100, "0000000\x00"), false},
		"a file that the default rules leave out": {layerOf(t, good, file{name: "a.png"}), false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			desc := b.put(t, fluxContent, tc.layer)
			scratch := t.TempDir()
			content, err := format.Convert(t.Context(), fluxManifest(desc), b, format.Options{}, scratch)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(content.Verbatim).To(Equal(tc.verbatim))
			g.Expect(unpack(t, content.Path)).NotTo(BeEmpty())
			if tc.verbatim {
				g.Expect(content.Digest).To(Equal(desc.Digest))
				g.Expect(list(t, scratch)).To(BeEmpty())
			} else {
				g.Expect(content.Digest).NotTo(Equal(desc.Digest))
				g.Expect(list(t, scratch)).To(HaveLen(1))
			}
		})
	}
}

func TestALayerOfAnotherDigestAlgorithmIsArchivedAgain(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	content, err := format.Convert(t.Context(), fluxManifest(b.put512(t, fluxContent, layerOf(t, good))), b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeFalse())
	g.Expect(content.Digest.Algorithm).To(Equal("sha256"))
}

func globalHeader() file {
	return file{name: "pax_global_header", Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "../../elsewhere"}}}
}

// inMembers compresses each block of 512 bytes on its own, as eStargz does
// with files.
func inMembers(t testing.TB, body []byte) []byte {
	t.Helper()
	var out []byte
	for chunk := range slices.Chunk(body, 512) {
		out = append(out, zipped(t, chunk)...)
	}
	return out
}
