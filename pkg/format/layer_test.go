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
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

// good is a file that would be published, so that only the bad one is refused.
var good = file{name: "deploy.yaml", body: "kind: ConfigMap\n"}

// rawName writes a name into a header that no writer would produce.
func rawName(t testing.TB, name string) []byte {
	t.Helper()
	body := archive(t, file{name: strings.Repeat("n", len(name)), body: "x"}, good)
	copy(body, name)
	return zipped(t, checksummed(body))
}

// checksummed corrects the checksum of the first header.
func checksummed(body []byte) []byte {
	copy(body[148:156], "        ")
	sum := 0
	for _, b := range body[:512] {
		sum += int(b)
	}
	copy(body[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return body
}

// patched changes bytes of the first header.
func patched(t testing.TB, offset int, value string) []byte {
	t.Helper()
	body := archive(t, file{name: "first", body: ""}, good)
	copy(body[offset:], value)
	return zipped(t, checksummed(body))
}

// patchedTar is an archive whose first entry, a file, has another type.
func patchedTar(t testing.TB, first file, flag byte) []byte {
	t.Helper()
	body := archive(t, first, good)
	body[156] = flag
	return checksummed(body)
}

// hostile are archives that must be refused, and the words that say why. They
// seed the fuzz test too.
func hostile(t testing.TB) map[string]struct {
	layer  []byte
	reason string
	words  string
} {
	t.Helper()
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	valid := layerOf(t, good)
	tarball := archive(t, good)
	corrupt := bytes.Clone(valid)
	corrupt[len(corrupt)-8] ^= 0xff
	return map[string]struct {
		layer  []byte
		reason string
		words  string
	}{
		"a name that leads up":                           {layerOf(t, good, file{name: "../x"}), invalid, `contains "../": "../x"`},
		"a name that leads up in the middle":             {layerOf(t, good, file{name: "a/../../x"}), invalid, `contains "../"`},
		"a name that ends in two dots":                   {layerOf(t, good, folder("a/..")), invalid, "leads out of its folder"},
		"a folder that is two dots":                      {rawName(t, ".."), invalid, "leads out of its folder"},
		"a name that consumers take for leading up":      {layerOf(t, good, file{name: "foo../x"}), invalid, `contains "../": "foo../x"`},
		"an absolute name":                               {layerOf(t, good, file{name: "/etc/x"}), invalid, `absolute path: "/etc/x"`},
		"a Windows name":                                 {layerOf(t, good, file{name: `C:\x`}), invalid, `backslash: "C:\\x"`},
		"a backslash":                                    {layerOf(t, good, file{name: `a\..\x`}), invalid, "backslash"},
		"a NUL in a PAX path":                            {zipped(t, paxHeader("path", "a\x00b")), invalid, "invalid tar header"},
		"a control character":                            {layerOf(t, good, file{name: "a\x1b[31mb"}), invalid, `control characters: "a\x1b[31mb"`},
		"a line break":                                   {layerOf(t, good, file{name: "a\nb"}), invalid, "control characters"},
		"a C1 control character":                         {layerOf(t, good, file{name: "a\u0085b"}), invalid, "control characters"},
		"a name that is not UTF-8":                       {rawName(t, "a\xff\xfeb"), invalid, "not UTF-8"},
		"an empty name":                                  {rawName(t, "\x00"), invalid, "without a name"},
		"a file that is the root folder":                 {rawName(t, "./."), invalid, "which is the root folder"},
		"a file whose name ends in a slash":              {rawName(t, "dir/"), invalid, "file by its type"},
		"a PAX path that leads up":                       {zipped(t, paxHeader("path", "../../etc/x")), invalid, `contains "../": "../../etc/x"`},
		"a GNU long name that leads up":                  {layerOf(t, good, file{name: "../" + strings.Repeat("d/", 80) + "x", Header: tar.Header{Format: tar.FormatGNU}}), invalid, `contains "../"`},
		"a PAX record of 2 MiB":                          {zipped(t, paxHeader("comment", strings.Repeat("c", 2<<20))), invalid, "header field too long"},
		"a hard link":                                    {layerOf(t, good, file{name: "l", Header: tar.Header{Typeflag: tar.TypeLink, Linkname: "deploy.yaml"}}), invalid, `a hard link: "l"`},
		"a hard link out of the archive":                 {layerOf(t, good, file{name: "l", Header: tar.Header{Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}}), invalid, "a hard link"},
		"a character device":                             {layerOf(t, good, file{name: "d", Header: tar.Header{Typeflag: tar.TypeChar}}), invalid, "a device"},
		"a block device":                                 {layerOf(t, good, file{name: "d", Header: tar.Header{Typeflag: tar.TypeBlock}}), invalid, "a device"},
		"a FIFO":                                         {layerOf(t, good, file{name: "p", Header: tar.Header{Typeflag: tar.TypeFifo}}), invalid, "a FIFO"},
		"a socket, by its mode":                          {patched(t, 100, "0140644\x00"), invalid, "something else by its mode"},
		"a symlink, by its mode only":                    {patched(t, 100, "0120777\x00"), invalid, "something else by its mode"},
		"a folder, by its mode only":                     {patched(t, 100, "0040755\x00"), invalid, "something else by its mode"},
		"a GNU sparse file":                              {gnuSparse(t), invalid, "a sparse file"},
		"a PAX sparse file":                              {zipped(t, paxHeader("GNU.sparse.realsize", "5")), invalid, "a sparse file"},
		"a PAX sparse file with a map":                   {zipped(t, paxSparse()), invalid, "a sparse file"},
		"a label with content":                           {zipped(t, patchedTar(t, file{name: "label", body: "x"}, 'V')), invalid, "unknown type 'V'"},
		"a contiguous file that is a folder by its mode": {zipped(t, patchedTar(t, file{name: "first", mode: 0o040755}, '7')), invalid, "something else by its mode"},
		"an unknown type":                                {patched(t, 156, "Z"), invalid, "unknown type 'Z'"},
		"one name twice":                                 {layerOf(t, file{name: "a"}, file{name: "a", body: "other"}), invalid, `two files of one name: "a"`},
		"one name in two spellings":                      {layerOf(t, file{name: "./a"}, file{name: "a"}), invalid, `two files of one name: "a"`},
		"a file, then a folder of that name":             {layerOf(t, file{name: "a"}, folder("a")), invalid, `a file and a folder of one name: "a"`},
		"a folder, then a file of that name":             {layerOf(t, folder("a"), file{name: "a"}), invalid, "a file and a folder"},
		"a file, then a file in it":                      {layerOf(t, file{name: "a"}, file{name: "a/b"}), invalid, `a file and a folder of one name: "a"`},
		"a file deep in a folder, then the folder":       {layerOf(t, file{name: "a/b/c"}, file{name: "a/b"}), invalid, `a file and a folder of one name: "a/b"`},
		"names that differ in case only":                 {layerOf(t, file{name: "Readme"}, file{name: "README"}), invalid, "differ in case only"},
		"folders that differ in case only":               {layerOf(t, file{name: "A/x"}, file{name: "a/y"}), invalid, "differ in case only"},
		"names that differ in case only, not ASCII":      {layerOf(t, file{name: "Ärger"}, file{name: "ärger"}), invalid, "differ in case only"},
		"a name with the sign that folds to a letter":    {layerOf(t, file{name: "k"}, file{name: "\u212a"}), invalid, "differ in case only"},
		"a name of 4 KiB":                                {layerOf(t, good, file{name: strings.Repeat("n/", 2048) + "x"}), exceeded, "a path of 4097 bytes, more than the 1024"},
		"a file name of 256 bytes":                       {layerOf(t, good, file{name: strings.Repeat("n", 256)}), exceeded, "a name of 256 bytes"},
		"1,000 folders deep":                             {layerOf(t, good, file{name: strings.Repeat("d/", 400) + "x"}), exceeded, "401 folders, more than the 64"},
		"bytes after the end of the tar":                 {zipped(t, append(bytes.Clone(tarball), "hello"...)), invalid, "bytes after the end of its tar archive"},
		"a second tar after the end of the first":        {zipped(t, append(bytes.Clone(tarball), tarball...)), invalid, "bytes after the end of its tar archive"},
		"a second tar in a second gzip member":           {append(bytes.Clone(valid), layerOf(t, file{name: "b"})...), invalid, "bytes after the end of its tar archive"},
		"trailing bytes that are not gzip":               {append(bytes.Clone(valid), "hello"...), invalid, "not gzip"},
		"zeros, then bytes that are not gzip":            {append(append(bytes.Clone(valid), make([]byte, 512)...), "hello"...), invalid, "not gzip"},
		"zeros, then a second gzip stream":               {append(append(bytes.Clone(valid), make([]byte, 512)...), valid...), invalid, "not gzip"},
		"zeros without end":                              {append(bytes.Clone(valid), make([]byte, 2<<20)...), invalid, "far more bytes than what it holds"},
		"a gzip stream without its trailer":              {valid[:len(valid)-8], invalid, "ends too early"},
		"half a gzip trailer":                            {valid[:len(valid)-3], invalid, "ends too early"},
		"half a gzip stream":                             {valid[:len(valid)/2], invalid, "ends too early"},
		"a wrong checksum":                               {corrupt, invalid, "invalid checksum"},
		"half a tar":                                     {zipped(t, tarball[:520]), invalid, "ends too early"},
		"a damaged tar header":                           {zipped(t, append([]byte("xyz"), tarball[3:]...)), invalid, "invalid tar header"},
		"no gzip":                                        {tarball, invalid, "not compressed with gzip"},
		"zstd":                                           {[]byte("\x28\xb5\x2f\xfd\x00\x00\x00\x00\x00\x00"), invalid, "compressed with zstd"},
		"no bytes at all":                                {nil, invalid, "not compressed with gzip"},
		"an empty tar":                                   {zipped(t, archive(t)), invalid, "has no files"},
		"an empty gzip":                                  {zipped(t, nil), invalid, "has no files"},
		"only folders":                                   {layerOf(t, folder("a"), folder("a/b")), invalid, "has no files"},
		"only links":                                     {layerOf(t, file{name: "l", Header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: "x"}}), invalid, "symbolic links and no files"},
		"only ignored files":                             {layerOf(t, file{name: "a.jpg"}, file{name: ".github/ci.yaml"}), invalid, "left out by the ignore rules"},
	}
}

// paxHeader is a tar whose first file has one extended record, written by hand
// because writers refuse most of what is interesting.
func paxHeader(key, value string) []byte { return extended(paxRecord(key, value)) }

// paxRecord is one record, which begins with its own length.
func paxRecord(key, value string) string {
	record := fmt.Sprintf(" %s=%s\n", key, value)
	size := len(record) + 1
	for len(fmt.Sprint(size))+len(record) != size {
		size++
	}
	return fmt.Sprint(size) + record
}

func paxSparse() []byte {
	return extended(paxRecord("GNU.sparse.major", "0") + paxRecord("GNU.sparse.minor", "1") + paxRecord("GNU.sparse.numblocks", "1") +
		paxRecord("GNU.sparse.map", "0,5") + paxRecord("GNU.sparse.size", "5") + paxRecord("GNU.sparse.name", "f"))
}

// extended is a tar of one file that has this PAX header.
func extended(records string) []byte {
	var buf bytes.Buffer
	write := func(h tar.Header, body string) {
		block := make([]byte, 512)
		copy(block, h.Name)
		copy(block[100:], "0000644\x00")
		copy(block[124:], fmt.Sprintf("%011o\x00", len(body)))
		block[156] = h.Typeflag
		copy(block[257:], "ustar\x0000")
		buf.Write(checksummed(block))
		buf.WriteString(body)
		buf.Write(make([]byte, (512-len(body)%512)%512))
	}
	write(tar.Header{Name: "PaxHeaders.0/f", Typeflag: tar.TypeXHeader}, records)
	write(tar.Header{Name: "f", Typeflag: tar.TypeReg}, "hello")
	buf.Write(make([]byte, 1024))
	return buf.Bytes()
}

func gnuSparse(t testing.TB) []byte {
	t.Helper()
	body := archive(t, file{name: "sparse", Header: tar.Header{Format: tar.FormatGNU, Devmajor: 1}}, good)
	body[156] = tar.TypeGNUSparse
	copy(body[257:], "ustar  \x00")
	copy(body[483:], "00000000000\x00") // the real size
	return zipped(t, checksummed(body))
}

func TestHostileLayersAreRefused(t *testing.T) {
	for name, tc := range hostile(t) {
		t.Run(name, func(t *testing.T) {
			content, err := convert(t, tc.layer, format.Options{})
			NewWithT(t).Expect(content).To(BeNil())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func TestLimitsAreNamedWithTheirFlag(t *testing.T) {
	many := make([]file, 20)
	for i := range many {
		many[i] = file{name: fmt.Sprintf("f%d", i)}
	}
	for name, tc := range map[string]struct {
		layer  []byte
		limits format.Limits
		words  []string
	}{
		"a layer larger than what is fetched": {
			layerOf(t, good), format.Limits{ArtifactBytes: 10}, []string{"more than the 10", "--max-artifact-bytes"}},
		"a gzip bomb": {
			zipped(t, make([]byte, 8<<20)), format.Limits{UncompressedBytes: 1 << 20}, []string{"more than 1048576 bytes", "--max-uncompressed-bytes"}},
		"a file that unpacks to more than is allowed": {
			layerOf(t, file{name: "zeros", body: string(make([]byte, 8<<20))}), format.Limits{UncompressedBytes: 1 << 20}, []string{"--max-uncompressed-bytes"}},
		"padding after the archive that unpacks to more than is allowed": {
			zipped(t, append(archive(t, good), make([]byte, 8<<20)...)), format.Limits{UncompressedBytes: 1 << 20}, []string{"--max-uncompressed-bytes"}},
		"too many entries": {
			layerOf(t, many...), format.Limits{Entries: 19}, []string{"more than 19 entries", "--max-entries"}},
		"too many folders that are only implied": {
			layerOf(t, file{name: "a/b/c/d/e/f"}), format.Limits{Entries: 5}, []string{"more than 5 files and folders", "--max-entries"}},
		"too many links": {
			layerOf(t, good, link("a", "x"), link("b", "x"), link("c", "x")), format.Limits{Entries: 3}, []string{"--max-entries"}},
		"paths that fill the memory": {
			layerOf(t, many...), format.Limits{IndexBytes: 30}, []string{"more than 30 bytes together"}},
		"paths with capitals that fill the memory with the keys that they are compared by": {
			layerOf(t, file{name: "ABCDEFGHIJKLMNOPQRST"}), format.Limits{IndexBytes: 30}, []string{"more than 30 bytes together"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := convert(t, tc.layer, format.Options{Limits: tc.limits})
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, tc.words...)
		})
	}
}

func TestAnArchiveOfOursLargerThanIsAllowedIsRefused(t *testing.T) {
	tight := zippedAt(t, archive(t, file{name: "text", body: text(1 << 20)}), 9)
	_, err := convertAgain(t, tight, format.Options{Limits: format.Limits{ArtifactBytes: int64(len(tight))}})
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, "archive to publish", "--max-artifact-bytes")
}

func link(name, target string) file {
	return file{name: name, Header: tar.Header{Typeflag: tar.TypeSymlink, Linkname: target}}
}

func TestSymlinksAreSkippedAndCounted(t *testing.T) {
	g := NewWithT(t)
	content, err := convert(t, layerOf(t, good,
		link("absolute", "/etc/passwd"), link("up", "../../x"), link("chain", "up"), link("dir", "/etc"),
		file{name: "dir/passwd", body: "ours"}), format.Options{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.SkippedLinks).To(Equal(4))
	g.Expect(content.Verbatim).To(BeFalse())
	g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{
		"deploy.yaml": good.body, "dir": "folder", "dir/passwd": "ours"}))
}

func TestALinkWithABadNameIsRefusedLikeAnyEntry(t *testing.T) {
	_, err := convert(t, layerOf(t, good, link("../x", "y")), format.Options{})
	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, `contains "../"`)
}

func TestAnAttemptThatIsOverEndsTheReading(t *testing.T) {
	g := NewWithT(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := blobs(t.TempDir())
	_, err := format.Convert(ctx, fluxManifest(b.put(t, fluxContent, layerOf(t, good))), b, format.Options{}, t.TempDir())
	g.Expect(err).To(MatchError(context.Canceled))
}

func TestALocalDiskThatFailsIsRetried(t *testing.T) {
	g := NewWithT(t)
	b, scratch := blobs(t.TempDir()), t.TempDir()
	m := again(fluxManifest(b.put(t, fluxContent, layerOf(t, good))))
	g.Expect(os.Mkdir(scratch+"/spool", 0o700)).To(Succeed()) // in the way of ours
	_, err := format.Convert(t.Context(), m, b, format.Options{}, scratch)
	expectFault(t, err, v1alpha1.ReasonStorageOperationFailed, fault.Retry, "scratch file")
	g.Expect(err.Error()).NotTo(ContainSubstring(scratch))
}

func TestABlobThatIsNotThereKeepsItsError(t *testing.T) {
	b := blobs(t.TempDir())
	desc := b.put(t, fluxContent, layerOf(t, good))
	desc.Digest.Hex = strings.Repeat("0", 64)
	_, err := format.Convert(t.Context(), fluxManifest(desc), b, format.Options{}, t.TempDir())
	NewWithT(t).Expect(err).To(MatchError(os.ErrNotExist))
}
