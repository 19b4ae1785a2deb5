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

package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	"oras.land/oras-go/v2"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// The artifacts of TestDifferencesToOCIRepository. They are odd but harmless: no
// case is an attack, and source-controller stores each of them.

// oddity is an artifact of one layer, and the expected difference between what
// source-controller and this project make of it. Without one they are equal.
type oddity struct {
	// layer is a compressed archive, of mediaType, FluxContent if empty.
	layer     []byte
	mediaType types.MediaType
	// push replaces the artifact of the layer.
	push func(n *tenant, image string, artifact v1.Image)
	// ignore is spec.ignore of both objects, if not empty.
	ignore string
	// extract selects the layer in both objects.
	extract bool

	// refused is the reason for which this project refuses the artifact, if it
	// does, and risk a part of its message.
	refused, risk string
	// onlyTheirs are files that source-controller alone stores.
	onlyTheirs []string
}

// element is one entry of an archive.
type element struct {
	tar.Header
	content string
}

// item returns a file, a folder if its name ends in a slash.
func item(name, content string) element {
	e := element{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, content: content}
	if strings.HasSuffix(name, "/") {
		e.Typeflag, e.Mode = tar.TypeDir, 0o755
	}
	return e
}

// with returns the entry with a changed header.
func (e element) with(change func(h *tar.Header)) element {
	change(&e.Header)
	return e
}

// special returns an entry without content, of a type.
func special(flag byte, name, target string) element {
	return element{Header: tar.Header{Typeflag: flag, Name: name, Linkname: target, Mode: 0o644}}
}

// appFile is the file that every archive has.
func appFile() element { return item("app.yaml", "kind: App\n") }

// tarOf writes entries as a tar.
func tarOf(t *testing.T, entries ...element) []byte {
	t.Helper()
	return tarAs(t, tar.FormatUnknown, entries...)
}

// tarAs writes entries as a tar in a dialect.
func tarAs(t *testing.T, dialect tar.Format, entries ...element) []byte {
	t.Helper()
	var out bytes.Buffer
	archive := tar.NewWriter(&out)
	for _, e := range entries {
		e.Format, e.Size = cmp.Or(e.Format, dialect), int64(len(e.content))
		if err := archive.WriteHeader(&e.Header); err != nil {
			t.Fatal(e.Name, err)
		}
		if _, err := io.WriteString(archive, e.content); err != nil {
			t.Fatal(e.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

const (
	tarBlock   = 512
	tarEnd     = 2 * tarBlock
	tarName    = 0
	tarMode    = 100
	tarType    = 156
	tarMagic   = 257
	tarSparse  = 386
	tarRealLen = 483
)

// patched writes bytes into the first header of an archive, at the offsets.
func patched(archive []byte, fields map[int]string) []byte {
	archive = bytes.Clone(archive)
	for offset, field := range fields {
		copy(archive[offset:tarBlock], field)
	}
	const checksum = 148
	copy(archive[checksum:], "        ")
	sum := 0
	for _, b := range archive[:tarBlock] {
		sum += int(b)
	}
	copy(archive[checksum:], fmt.Sprintf("%06o\x00 ", sum))
	return archive
}

// v7 returns an archive of one file, or of one folder, as Unix V7 wrote it.
func v7(archive []byte) []byte {
	return patched(archive, map[int]string{tarType: "\x00", tarMagic: strings.Repeat("\x00", tarBlock-tarMagic)})
}

// unended returns an archive without its end.
func unended(archive []byte) []byte { return archive[:len(archive)-tarEnd] }

// joined returns bytes one after the other.
func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// compressed compresses with gzip.
func compressed(t *testing.T, content []byte) []byte {
	t.Helper()
	return compressedAs(t, gzip.DefaultCompression, gzip.Header{}, content)
}

// compressedAs compresses with gzip, at a level and with a header.
func compressedAs(t *testing.T, level int, header gzip.Header, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Header = header
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// flushed compresses each part in blocks of its own, with empty blocks between.
func flushed(t *testing.T, parts ...[]byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// headerChecked adds the checksum of its header (FHCRC) to a gzip stream whose
// header has no further fields.
func headerChecked(stream []byte) []byte {
	const flags, fixed, hasCRC = 3, 10, 2
	header := bytes.Clone(stream[:fixed])
	header[flags] |= hasCRC
	return joined(binary.LittleEndian.AppendUint16(header, uint16(crc32.ChecksumIEEE(header))), stream[fixed:])
}

// corpus returns all artifacts by a sentence about them.
func corpus(t *testing.T) map[string]oddity {
	t.Helper()
	all := map[string]oddity{}
	for _, part := range []map[string]oddity{
		dialects(t), entries(t), refusedEntries(t), endsOfArchives(t), streams(t), modes(t), ignoreFiles(t), ignoreOptions(t), layerTypes(t), manifests(t), indexes(t), configs(t),
	} {
		maps.Copy(all, part)
	}
	return all
}

// dialects are archives in the forms that tar has had.
func dialects(t *testing.T) map[string]oddity {
	t.Helper()
	deep := strings.Repeat("a-folder-with-a-long-name/", 7) + "app.yaml"
	long := strings.Repeat("long-", 40) + ".yaml"
	archive := func(dialect tar.Format, entries ...element) oddity {
		return oddity{layer: compressed(t, tarAs(t, dialect, entries...))}
	}
	at := time.Unix(1700000000, 123456789)
	timed := appFile().with(func(h *tar.Header) { h.ModTime, h.AccessTime, h.ChangeTime = at, at, at })
	return map[string]oddity{
		"USTAR":                             archive(tar.FormatUSTAR, item("deploy/", ""), item("deploy/app.yaml", "a"), appFile()),
		"USTAR with a prefix of the name":   archive(tar.FormatUSTAR, item(deep, "a")),
		"PAX":                               archive(tar.FormatPAX, timed),
		"PAX with a long name":              archive(tar.FormatPAX, item("deploy/"+long, "a"), appFile()),
		"PAX with a name beyond ASCII":      archive(tar.FormatPAX, item("übersicht/日本語.yaml", "a")),
		"PAX with a comment and attributes": archive(tar.FormatPAX, appFile().with(func(h *tar.Header) { h.PAXRecords = map[string]string{"comment": "hello", "SCHILY.xattr.user.a": "b"} })),
		"PAX with owners of any number":     archive(tar.FormatPAX, appFile().with(func(h *tar.Header) { h.Uid, h.Gid, h.Uname, h.Gname = 1<<30, 1<<30, "ü", "ö" })),
		"GNU":                               archive(tar.FormatGNU, item("deploy/", ""), item("deploy/app.yaml", "a"), appFile()),
		"GNU with a long name":              archive(tar.FormatGNU, item(deep+"/"+long, "a")),
		"GNU with times":                    archive(tar.FormatGNU, timed.with(func(h *tar.Header) { h.ModTime = time.Unix(-86400, 0) })),
		"a file of the future":              archive(tar.FormatGNU, appFile().with(func(h *tar.Header) { h.ModTime = time.Unix(1<<33+7, 0) })),
		"Unix V7":                           {layer: compressed(t, v7(tarAs(t, tar.FormatUSTAR, appFile())))},
		"Unix V7 with a folder":             {layer: compressed(t, joined(v7(unended(tarAs(t, tar.FormatUSTAR, item("deploy/", "")))), v7(tarAs(t, tar.FormatUSTAR, item("deploy/app.yaml", "a")))))},
		"another version of USTAR":          {layer: compressed(t, patched(tarAs(t, tar.FormatUSTAR, appFile()), map[int]string{tarMagic: "ustar\x00\x00\x00"}))},
		"numbers with spaces":               {layer: compressed(t, patched(tarAs(t, tar.FormatUSTAR, appFile()), map[int]string{tarMode: "   644 \x00"}))},
		"a contiguous file":                 {layer: compressed(t, patched(tarAs(t, tar.FormatUSTAR, appFile()), map[int]string{tarType: "7"}))},
		"the file type in the mode":         {layer: compressed(t, patched(tarAs(t, tar.FormatUSTAR, appFile()), map[int]string{tarMode: "0100644\x00"}))},
		"several dialects in one archive": {layer: compressed(t, joined(unended(tarAs(t, tar.FormatGNU, item(deep, "a"))),
			unended(tarAs(t, tar.FormatPAX, item("deploy/"+long, "b"))), tarAs(t, tar.FormatUSTAR, appFile())))},
	}
}

// entries are archives with names and entries that few tools write.
func entries(t *testing.T) map[string]oddity {
	t.Helper()
	archive := func(entries ...element) oddity { return oddity{layer: compressed(t, tarOf(t, entries...))} }
	global := element{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": strings.Repeat("0123456789", 4)}}}
	return map[string]oddity{
		"names that begin with ./":             archive(item("./", ""), item("./deploy/", ""), item("./deploy/app.yaml", "a"), item("./app.yaml", "b")),
		"names with and without ./":            archive(item("./deploy/a.yaml", "a"), item("deploy/b.yaml", "b"), item("././c.yaml", "c")),
		"double slashes":                       archive(item("deploy//app.yaml", "a"), item(".//b.yaml", "b")),
		"an element that is a dot":             archive(item("deploy/./app.yaml", "a")),
		"the root folder with another name":    archive(item(".", "").with(func(h *tar.Header) { h.Typeflag, h.Mode = tar.TypeDir, 0o700 }), appFile()),
		"no entries for folders":               archive(item("a/b/c/app.yaml", "a"), item("a/b.yaml", "b")),
		"folders after what is in them":        archive(item("a/b/app.yaml", "a"), item("a/b/", ""), item("a/", "")),
		"a folder twice":                       archive(item("a/", ""), item("a/app.yaml", "a"), item("a/", ""), item("a/b.yaml", "b")),
		"a folder whose name has no slash":     archive(item("a", "").with(func(h *tar.Header) { h.Typeflag, h.Mode = tar.TypeDir, 0o755 }), item("a/app.yaml", "a")),
		"empty folders":                        archive(item("a/", ""), item("a/b/", ""), appFile()),
		"empty files":                          archive(item("empty.yaml", ""), appFile()),
		"files in no order":                    archive(item("z.yaml", "z"), item("a/b.yaml", "b"), item("m.yaml", "m"), item("a/a.yaml", "a")),
		"spaces, quotes and other characters":  archive(item(" a b .yaml", "a"), item(`it's "quoted"*?[x].yaml`, "b"), item("a:b|c<d>.yaml", "c"), item("-rf.yaml", "d")),
		"two dots in a name":                   archive(item("..app.yaml", "a"), item("app..yaml", "b"), item("a..", "c")),
		"names that Windows has no files for":  archive(item("con.yaml", "a"), item("aux", "b"), item("trailing. ", "c")),
		"names of one text in two forms":       archive(item("\u00e9.yaml", "a"), item("e\u0301.yaml", "b")),
		"hidden files":                         archive(item(".hidden/.app.yaml", "a"), item("._app.yaml", "b"), appFile()),
		"symbolic links":                       archive(appFile(), special(tar.TypeSymlink, "link.yaml", "app.yaml"), special(tar.TypeSymlink, "out", "../../etc/passwd")),
		"a file below a symbolic link":         archive(item("a/app.yaml", "a"), special(tar.TypeSymlink, "b", "a"), item("b/app.yaml", "b")),
		"a symbolic link, then a file":         archive(special(tar.TypeSymlink, "app.yaml", "other"), appFile()),
		"a file that is large":                 archive(item("app.yaml", strings.Repeat("0123456789abcdef", 1<<16))),
		"a size that is a multiple of a block": archive(item("app.yaml", strings.Repeat("x", tarBlock)), item("b.yaml", "b")),
		// git archive writes the commit into such a header, which is no file.
		"a global header": {layer: archive(global, appFile()).layer, onlyTheirs: []string{"pax_global_header"}},
		// GNU tar --label writes an entry that is no file.
		"a label of the volume": {layer: compressed(t, joined(patched(unended(tarAs(t, tar.FormatUSTAR, item("backup", ""))), map[int]string{tarType: "V", tarMagic: "ustar  \x00"}), tarOf(t, appFile()))),
			onlyTheirs: []string{"backup"}},
	}
}

// refusedEntries are archives that programs read in different ways.
func refusedEntries(t *testing.T) map[string]oddity {
	t.Helper()
	refused := func(risk string, entries ...element) oddity {
		return oddity{layer: compressed(t, tarOf(t, entries...)), refused: v1alpha1.ReasonInvalidArtifact, risk: risk}
	}
	raw := func(risk string, fields map[int]string) oddity {
		return oddity{layer: compressed(t, patched(tarAs(t, tar.FormatUSTAR, item("odd", "a"), appFile()), fields)), refused: v1alpha1.ReasonInvalidArtifact, risk: risk}
	}
	sparse := patched(tarAs(t, tar.FormatGNU, item("sparse.yaml", "hello")), map[int]string{
		tarType: "S", tarMagic: "ustar  \x00",
		tarSparse: "00000000000\x0000000000005\x00", tarRealLen: "00000001000\x00",
	})
	deep := refused("a path of 65 folders", item(strings.Repeat("d/", 64)+"app.yaml", "a"))
	long := refused("a path of 1110 bytes", item(strings.Repeat(strings.Repeat("n", 99)+"/", 11)+"app.yaml.x", "a"))
	deep.refused, long.refused = v1alpha1.ReasonLimitExceeded, v1alpha1.ReasonLimitExceeded
	return map[string]oddity{
		"a file twice":                      refused("two files of one name", appFile(), item("app.yaml", "other")),
		"a file twice, once with ./":        refused("two files of one name", appFile(), item("./app.yaml", "other")),
		"names that differ in case":         refused("differ in case only", item("readme.md", "a"), item("README.md", "b"), appFile()),
		"a hard link":                       refused("a hard link", appFile(), special(tar.TypeLink, "link.yaml", "app.yaml")),
		"a name with a control character":   refused("control characters", item("Icon\r", "a"), appFile()),
		"a name that is not UTF-8":          raw("not UTF-8", map[int]string{tarName: "caf\xe9.yaml"}),
		"a file whose name ends in a slash": raw("a file by its type and something else", map[int]string{tarName: "odd/"}),
		"an unknown type":                   raw("unknown type", map[int]string{tarType: "Z"}),
		"a sparse file of GNU tar":          {layer: compressed(t, sparse), refused: v1alpha1.ReasonInvalidArtifact, risk: "a sparse file"},
		"many folders, one in another":      deep,
		"a path of more than 1 KiB":         long,
		"no entries":                        refused("has no files"),
		"folders alone":                     refused("has no files", item("a/", ""), item("a/b/", "")),
		"links alone":                       refused("symbolic links and no files", special(tar.TypeSymlink, "a", "b")),
		"nothing but what is ignored":       refused("left out by the ignore rules", item("logo.png", "a"), item(".github/ci.yaml", "b")),
	}
}

// endsOfArchives are archives with an end of another length.
func endsOfArchives(t *testing.T) map[string]oddity {
	t.Helper()
	whole := tarOf(t, appFile(), item("b.yaml", "b"))
	short := func(by int) oddity { return oddity{layer: compressed(t, whole[:len(whole)-by])} }
	return map[string]oddity{
		"no block of zeros":           short(tarEnd),
		"one block of zeros":          short(tarBlock),
		"many blocks of zeros":        {layer: compressed(t, joined(whole, make([]byte, 20*tarBlock-len(whole)%tarBlock)))},
		"zeros that are no block":     {layer: compressed(t, joined(whole, make([]byte, 77)))},
		"a file without its padding":  short(tarEnd + tarBlock - len("b")),
		"one archive after another":   {layer: compressed(t, joined(whole, tarOf(t, item("c.yaml", "c")))), refused: v1alpha1.ReasonInvalidArtifact, risk: "bytes after the end of its tar archive"},
		"archives joined at one end":  {layer: compressed(t, joined(unended(tarOf(t, item("c.yaml", "c"))), whole))},
		"text after the archive":      {layer: compressed(t, joined(whole, []byte("the end\n"))), refused: v1alpha1.ReasonInvalidArtifact, risk: "bytes after the end of its tar archive"},
		"a stream without its digest": {layer: compressed(t, whole)[:len(compressed(t, whole))-8], refused: v1alpha1.ReasonInvalidArtifact, risk: "ends too early"},
	}
}

// streams are gzip streams that few tools write.
func streams(t *testing.T) map[string]oddity {
	t.Helper()
	archive := tarOf(t, item("deploy/app.yaml", strings.Repeat("kind: App\n", 500)), appFile())
	plain := compressed(t, archive)
	header := func(level int, header gzip.Header) oddity {
		return oddity{layer: compressedAs(t, level, header, archive)}
	}
	var each [][]byte
	for block := range len(archive) / tarBlock {
		each = append(each, compressed(t, archive[block*tarBlock:(block+1)*tarBlock]))
	}
	return map[string]oddity{
		"stored blocks":                     header(gzip.NoCompression, gzip.Header{}),
		"fixed codes":                       header(gzip.HuffmanOnly, gzip.Header{}),
		"a file name and a comment":         header(gzip.BestSpeed, gzip.Header{Name: "deploy.tar", Comment: "made by hand"}),
		"a file name beyond ASCII":          header(gzip.BestSpeed, gzip.Header{Name: "é.tar"}),
		"a time and a system":               header(gzip.BestCompression, gzip.Header{ModTime: time.Unix(1700000000, 0), OS: 3}),
		"an extra field":                    header(gzip.DefaultCompression, gzip.Header{Extra: []byte("AB\x04\x00data")}),
		"a checksum of the header":          {layer: headerChecked(plain)},
		"empty blocks":                      {layer: flushed(t, archive[:100], nil, archive[100:700], archive[700:])},
		"a member for each block":           {layer: joined(each...)},
		"two members, cut within a header":  {layer: joined(compressed(t, archive[:100]), compressed(t, archive[100:]))},
		"an empty member at the start":      {layer: joined(compressed(t, nil), plain)},
		"an empty member at the end":        {layer: joined(plain, compressed(t, nil))},
		"an empty member between":           {layer: joined(compressed(t, archive[:tarBlock]), compressed(t, nil), compressed(t, archive[tarBlock:]))},
		"members with headers of their own": {layer: joined(compressedAs(t, 1, gzip.Header{Name: "a"}, archive[:tarBlock]), compressedAs(t, 9, gzip.Header{Comment: "b"}, archive[tarBlock:]))},
		"zeros in a member of their own":    {layer: joined(plain, compressed(t, make([]byte, 4*tarBlock)))},
		"zeros after the stream":            {layer: joined(plain, make([]byte, 3*tarBlock-len(plain)%tarBlock))},
		"text after the stream":             {layer: joined(plain, []byte("the end\n")), refused: v1alpha1.ReasonInvalidArtifact, risk: "bytes after its gzip stream that are not gzip"},
		"an archive in a member of its own": {layer: joined(plain, compressed(t, tarOf(t, item("c.yaml", "c")))), refused: v1alpha1.ReasonInvalidArtifact, risk: "bytes after the end of its tar archive"},
	}
}

// modes are archives of files and folders with all sorts of permissions.
func modes(t *testing.T) map[string]oddity {
	t.Helper()
	var files, folders []element
	for _, mode := range []int64{0, 0o1, 0o100, 0o111, 0o200, 0o400, 0o444, 0o555, 0o600, 0o644, 0o700, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711} {
		files = append(files, item(fmt.Sprintf("f%04o.yaml", mode), "a").with(func(h *tar.Header) { h.Mode = mode }))
		folders = append(folders, item(fmt.Sprintf("d%04o/", mode), "").with(func(h *tar.Header) { h.Mode = mode }), item(fmt.Sprintf("d%04o/app.yaml", mode), "a"))
	}
	return map[string]oddity{
		"files of all modes":   {layer: compressed(t, tarOf(t, files...))},
		"folders of all modes": {layer: compressed(t, tarOf(t, folders...))},
		"a script":             {layer: compressed(t, tarOf(t, appFile(), item("run.sh", "#!/bin/sh\n").with(func(h *tar.Header) { h.Mode = 0o755 })))},
	}
}

// ignored is a tree in which ignore files leave out this and that.
func ignored(t *testing.T, files ...element) []byte {
	t.Helper()
	return compressed(t, tarOf(t, append(files, appFile(), item("logo.png", "b"), item("notes.md", "c"), item("docs/notes.md", "d"),
		item("docs/app.yaml", "e"), item("docs/deep/notes.md", "f"), item(".git/config", "g"), item(".github/ci.yaml", "h"), item("trailing ", "i"))...))
}

// ignoreFiles are trees with ignore files in all sorts of text.
func ignoreFiles(t *testing.T) map[string]oddity {
	t.Helper()
	file := func(text string) oddity { return oddity{layer: ignored(t, item(".sourceignore", text))} }
	refused := func(text, risk string) oddity {
		return oddity{layer: file(text).layer, refused: v1alpha1.ReasonInvalidArtifact, risk: risk}
	}
	return map[string]oddity{
		"no ignore file":                        {layer: ignored(t)},
		"an ignore file without end":            file("*.md"),
		"an ignore file with negation":          file("/*\n!/docs\n/docs/*\n!/docs/app.yaml\n"),
		"negation of a default":                 file("!logo.png\n!.git/\n"),
		"negation of an ignored folder":         file("docs/\n!docs/app.yaml\n"),
		"lines that end as on Windows":          file("*.md\r\n# comment\r\n\r\n!docs/notes.md\r\n"),
		"an ignore file of comments":            file("# nothing\n\n   \n#*.md\n"),
		"an empty ignore file":                  file(""),
		"spaces around patterns":                file("*.md \n  logo.png\ntrailing \n"),
		"an escaped space":                      file("trailing\\ \n"),
		"escaped signs":                         file("\\#not-a-comment\n\\!important\n\\*.md\n"),
		"patterns with two stars":               file("**/deep/**\n**/notes.md\n"),
		"patterns that cannot compile":          file("[\n*.md\n"),
		"classes of characters":                 file("note[rst].md\nlogo.???\n"),
		"a pattern of a folder":                 file("docs/deep/\n"),
		"a pattern of the root":                 file("/notes.md\n"),
		"an ignore file that leaves out itself": file(".sourceignore\n*.md\n"),
		"ignore files in folders":               {layer: ignored(t, item(".sourceignore", "*.md\n"), item("docs/.sourceignore", "!notes.md\n"), item("docs/deep/.sourceignore", "/notes.md\n"))},
		"an ignore file in a folder alone":      {layer: ignored(t, item("docs/.sourceignore", "app.yaml\n"))},
		"an ignore file in an ignored folder":   {layer: ignored(t, item(".sourceignore", "docs/deep/\n"), item("docs/deep/.sourceignore", "!notes.md\n"))},
		"an ignore file in the folder of git":   {layer: ignored(t, item(".git/.sourceignore", "*.md\n"))},
		"an ignore file that is a folder":       {layer: ignored(t, item(".sourceignore/", ""), item(".sourceignore/a.yaml", "a"))},
		"an ignore file that is a link":         {layer: ignored(t, special(tar.TypeSymlink, ".sourceignore", "notes.md"))},
		"an ignore file at the end":             {layer: compressed(t, tarOf(t, appFile(), item("notes.md", "a"), item(".sourceignore", "*.md\n")))},
		"an ignore file of Git":                 {layer: ignored(t, item(".gitignore", "*.md\n"))},
		// Git skips the mark. With it, the first pattern would match nothing.
		"an ignore file with a byte order mark": {layer: ignored(t, item(".sourceignore", "\ufeff*.md\n/docs/app.yaml\n")), onlyTheirs: []string{"notes.md", "docs/notes.md", "docs/deep/notes.md"}},
		// In these, patterns match nothing although people see some.
		"lines that end as on an old Mac":      refused("*.md\r/docs\r", "carriage return within a line"),
		"an ignore file in UTF-16":             refused("\xff\xfe*\x00.\x00m\x00d\x00\n\x00", "NUL"),
		"an ignore file that is not UTF-8":     refused("caf\xe9.md\n", "is not UTF-8"),
		"joined ignore files with their marks": refused("*.md\n\ufeff/docs\n", "byte order mark that is not at its start"),
	}
}

// ignoreOptions are settings of spec.ignore over a tree.
func ignoreOptions(t *testing.T) map[string]oddity {
	t.Helper()
	all := map[string]oddity{}
	for name, ignore := range map[string]string{
		"patterns": "*.md\n", "negation": "/*\n!/docs\n", "comments": "# nothing\n", "spaces": "  \n", "lines as on Windows": "*.md\r\n!docs/notes.md\r\n",
		"a default": "!logo.png\n", "no end": "docs/",
	} {
		all["the option with "+name] = oddity{layer: ignored(t), ignore: ignore}
	}
	all["the option over an ignore file"] = oddity{layer: ignored(t, item(".sourceignore", "*.md\n")), ignore: "!/notes.md\n"}
	return all
}

// layerTypes are layers of all sorts of types.
func layerTypes(t *testing.T) map[string]oddity {
	t.Helper()
	all, layer := map[string]oddity{}, compressed(t, tarOf(t, appFile(), item("logo.png", "b")))
	for _, mediaType := range []types.MediaType{
		types.OCILayer, types.DockerLayer, types.OCIUncompressedLayer, types.OCILayerZStd, "application/gzip", "application/x-tar",
		"application/vnd.example.deploy.v1.tar+gzip", "application/vnd.example.deploy; charset=utf-8", "text/plain",
		"application/vnd.cncf.flux.content.v1.tar", "APPLICATION/VND.CNCF.FLUX.CONTENT.V1.TAR+GZIP",
	} {
		// The type alone does not say that the layer is to be deployed; a selector does.
		all["a layer of type "+string(mediaType)] = oddity{layer: layer, mediaType: mediaType, refused: v1alpha1.ReasonUnsupportedMediaType, risk: "a layer of type"}
		all["a selected layer of type "+string(mediaType)] = oddity{layer: layer, mediaType: mediaType, extract: true}
	}
	all["a selected layer with a file twice"] = oddity{layer: compressed(t, tarOf(t, appFile(), appFile())), extract: true, refused: v1alpha1.ReasonInvalidArtifact, risk: "two files of one name"}
	return all
}

// rawManifest is a manifest in bytes of its own.
type rawManifest struct {
	body      []byte
	mediaType types.MediaType
}

// RawManifest implements remote.Taggable.
func (m rawManifest) RawManifest() ([]byte, error) { return m.body, nil }

// MediaType tells the registry the type.
func (m rawManifest) MediaType() (types.MediaType, error) { return m.mediaType, nil }

// reworded pushes a manifest in other words.
func reworded(edit func(manifest string) string) func(*tenant, string, v1.Image) {
	return func(n *tenant, image string, artifact v1.Image) {
		n.Helper()
		n.Expect(n.reference().Push(n.Context(), image, artifact)).To(Succeed())
		body, err := artifact.RawManifest()
		n.Expect(err).NotTo(HaveOccurred())
		edited := edit(string(body))
		n.Expect(edited).NotTo(Equal(string(body)))
		n.Expect(n.reference().Put(n.Context(), image, rawManifest{[]byte(edited), types.OCIManifestSchema1})).To(Succeed())
	}
}

// built pushes another artifact than that of the layer.
func built(build func(artifact v1.Image) v1.Image) func(*tenant, string, v1.Image) {
	return func(n *tenant, image string, artifact v1.Image) {
		n.Helper()
		n.Expect(n.reference().Push(n.Context(), image, build(artifact))).To(Succeed())
	}
}

// manifests are Flux artifacts with manifests that few tools write.
func manifests(t *testing.T) map[string]oddity {
	t.Helper()
	layer := compressed(t, tarOf(t, appFile()))
	push := func(push func(*tenant, string, v1.Image)) oddity { return oddity{layer: layer, push: push} }
	annotated := func(annotations map[string]string) oddity {
		return push(built(func(artifact v1.Image) v1.Image { return mutate.Annotations(artifact, annotations).(v1.Image) }))
	}
	replace := func(old, with string) oddity {
		return push(reworded(func(manifest string) string { return strings.Replace(manifest, old, with, 1) }))
	}
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprintf("example.com/%d", i)] = strings.Repeat("x", i)
	}
	return map[string]oddity{
		"a manifest of Docker":                  push(built(func(artifact v1.Image) v1.Image { return mutate.MediaType(artifact, types.DockerManifestSchema2) })),
		"a manifest that does not say its type": replace(`"mediaType":"application/vnd.oci.image.manifest.v1+json",`, ""),
		"a manifest on several lines": push(reworded(func(manifest string) string {
			return strings.NewReplacer("{", "{\n  ", ",", ",\n\t", "}", "\r\n}").Replace(manifest) + "\n"
		})),
		"a manifest with fields of its own":  replace(`"schemaVersion":2`, `"schemaVersion":2,"x-example":{"a":[1,2,null]}`),
		"a manifest with an artifactType":    replace(`"schemaVersion":2`, `"schemaVersion":2,"artifactType":"application/vnd.example.deploy.v1"`),
		"a descriptor with a URL of nothing": replace(`"layers":[{`, `"layers":[{"urls":[],`),
		"a descriptor with annotations":      replace(`"layers":[{`, `"layers":[{"annotations":{"org.opencontainers.image.title":"deploy.tgz"},`),
		"a descriptor with a platform":       replace(`"layers":[{`, `"layers":[{"platform":{"os":"linux","architecture":"arm64"},`),
		"many annotations":                   annotated(many),
		"annotations beyond ASCII":           annotated(map[string]string{"org.opencontainers.image.title": "日本語 \u202e\u0000", "": "empty", "example.com/ü": "ä\nb"}),
		"annotations of no source":           annotated(map[string]string{"org.opencontainers.image.revision": "", "org.opencontainers.image.source": "not a URL"}),
	}
}

// indexes list one artifact, with and without a platform.
func indexes(t *testing.T) map[string]oddity {
	t.Helper()
	layer := compressed(t, tarOf(t, appFile()))
	other, err := publish.FluxImage(static.NewLayer(compressed(t, tarOf(t, item("other.yaml", "a"))), publish.FluxContent))
	if err != nil {
		t.Fatal(err)
	}
	list := func(mediaType types.MediaType, children func(artifact v1.Image) []publish.Child) oddity {
		return oddity{layer: layer, push: func(n *tenant, image string, artifact v1.Image) {
			n.Helper()
			index, err := publish.Index(mediaType, children(artifact)...)
			n.Expect(err).NotTo(HaveOccurred())
			n.Expect(n.reference().PushIndex(n.Context(), image, index)).To(Succeed())
		}}
	}
	return map[string]oddity{
		"an index of one":                list(types.OCIImageIndex, func(a v1.Image) []publish.Child { return []publish.Child{{Image: a}} }),
		"an index of one for a platform": list(types.OCIImageIndex, func(a v1.Image) []publish.Child { return []publish.Child{{Image: a, Platform: "linux/amd64"}} }),
		"a manifest list of Docker":      list(types.DockerManifestList, func(a v1.Image) []publish.Child { return []publish.Child{{Image: a, Platform: "linux/amd64"}} }),
		"an index of two platforms": list(types.OCIImageIndex, func(a v1.Image) []publish.Child {
			return []publish.Child{{Image: other, Platform: "linux/arm64"}, {Image: a, Platform: "linux/amd64"}}
		}),
		"an index of two, one of no platform": list(types.OCIImageIndex, func(a v1.Image) []publish.Child {
			return []publish.Child{{Image: a}, {Image: other, Platform: "linux/amd64"}}
		}),
		"an index of two of no platform": list(types.OCIImageIndex, func(a v1.Image) []publish.Child { return []publish.Child{{Image: a}, {Image: other}} }),
		"an index that lists one twice": list(types.OCIImageIndex, func(a v1.Image) []publish.Child {
			return []publish.Child{{Image: a, Platform: "linux/amd64"}, {Image: a, Platform: "linux/arm64"}}
		}),
		"an index of a platform in capitals": list(types.OCIImageIndex, func(a v1.Image) []publish.Child { return []publish.Child{{Image: a, Platform: "linux/amd64/v1"}} }),
	}
}

// configs are Flux layers that ORAS pushes, under configs that are not those of Flux.
func configs(t *testing.T) map[string]oddity {
	t.Helper()
	layer := compressed(t, tarOf(t, appFile(), item("logo.png", "b")))
	push := func(version oras.PackManifestVersion, artifactType string) oddity {
		return oddity{layer: layer, push: func(n *tenant, image string, _ v1.Image) {
			n.Helper()
			_, err := n.reference().ORAS(n.Context(), image, publish.Files{"deploy.tgz": string(layer)}, publish.Packing{
				Version: version, ArtifactType: artifactType, Parts: []publish.Part{{Title: "deploy.tgz", MediaType: string(publish.FluxContent)}},
			})
			n.Expect(err).NotTo(HaveOccurred())
		}}
	}
	chart := push(oras.PackManifestVersion1_0, "application/vnd.cncf.helm.config.v1+json")
	chart.refused, chart.risk = v1alpha1.ReasonInvalidArtifact, "the Helm chart has no layer of type"
	return map[string]oddity{
		"a Flux layer under the empty config":       push(oras.PackManifestVersion1_1, ""),
		"a Flux layer of an artifactType":           push(oras.PackManifestVersion1_1, "application/vnd.example.deploy.v1"),
		"a Flux layer under a config of no type":    push(oras.PackManifestVersion1_0, "application/vnd.unknown.config.v1+json"),
		"a Flux layer under a config of its own":    push(oras.PackManifestVersion1_0, "application/vnd.example.config.v1+json"),
		"a Flux layer under the config of an image": push(oras.PackManifestVersion1_0, string(types.OCIConfigJSON)),
		"a Flux layer under the config of a chart":  chart,
	}
}
