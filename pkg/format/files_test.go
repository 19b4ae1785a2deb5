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
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	orasfile "oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
)

const (
	unpackMark  = "io.deis.oras.content.unpack"
	contentMark = "io.deis.oras.content.digest"
)

// orasPart is what a person hands to oras push: a path below the working
// folder and the media type, empty for the default.
type orasPart struct{ title, mediaType string }

// orasPush does what oras push does in a folder, and returns what it wrote.
func orasPush(t testing.TB, dir string, version oras.PackManifestVersion, parts ...orasPart) (url string) {
	t.Helper()
	g := NewWithT(t)
	store, err := orasfile.New(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer store.Close()
	var layers []ocispec.Descriptor
	for _, p := range parts {
		layer, err := store.Add(t.Context(), p.title, p.mediaType, "")
		g.Expect(err).NotTo(HaveOccurred())
		layers = append(layers, layer)
	}
	artifactType := ""
	if version == oras.PackManifestVersion1_1 {
		artifactType = "application/vnd.unknown.artifact.v1" // the default of the command line
	}
	manifest, err := oras.PackManifest(t.Context(), store, version, artifactType, oras.PackManifestOptions{Layers: layers})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(store.Tag(t.Context(), manifest, "1.0.0")).To(Succeed())
	url = serve(t) + "/team/app"
	_, err = oras.Copy(t.Context(), store, "1.0.0", orasRepository(t, url), "1.0.0", oras.DefaultCopyOptions)
	g.Expect(err).NotTo(HaveOccurred())
	return url
}

func orasRepository(t testing.TB, url string) *remote.Repository {
	t.Helper()
	repository, err := remote.NewRepository(url)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	repository.PlainHTTP = true
	return repository
}

// orasPull returns what oras pull writes.
func orasPull(t testing.TB, url string) map[string]string {
	t.Helper()
	g := NewWithT(t)
	dir := t.TempDir()
	store, err := orasfile.New(dir)
	g.Expect(err).NotTo(HaveOccurred())
	defer store.Close()
	_, err = oras.Copy(t.Context(), orasRepository(t, url), "1.0.0", store, "1.0.0", oras.DefaultCopyOptions)
	g.Expect(err).NotTo(HaveOccurred())
	return list(t, dir)
}

func TestWhatORASPushesIsWhatItPulls(t *testing.T) {
	dir := write(t, map[string]string{
		"app.yaml": "kind: ConfigMap\n", "same.yaml": "kind: ConfigMap\n", "empty.yaml": "", "config.json": "{}",
		"deploy/base/a.yaml": "a", "deploy/base/sub/b.yaml": "b", "deploy/other.yaml": "c", "logo.jpg": "d", ".sourceignore": "*.yaml\n",
	})
	NewWithT(t).Expect(os.Mkdir(filepath.Join(dir, "deploy", "empty"), 0o755)).To(Succeed())
	NewWithT(t).Expect(os.Chmod(filepath.Join(dir, "deploy", "other.yaml"), 0o755)).To(Succeed())
	for name, parts := range map[string][]orasPart{
		"a file":                           {{title: "app.yaml"}},
		"a file of a type of its own":      {{"app.yaml", "application/yaml"}},
		"a JSON file":                      {{"config.json", "application/json"}},
		"an empty file beside another":     {{title: "empty.yaml"}, {title: "app.yaml"}},
		"a file in a folder":               {{title: "deploy/base/a.yaml"}},
		"two files of equal bytes":         {{title: "app.yaml"}, {title: "same.yaml"}},
		"a folder":                         {{title: "deploy"}},
		"a folder in a folder":             {{title: "deploy/base"}},
		"a folder that is called a tar":    {{"deploy", string(types.OCIUncompressedLayer)}},
		"the folder itself":                {{title: "."}},
		"files and folders":                {{title: "app.yaml"}, {title: "deploy/base"}, {"deploy/other.yaml", "text/yaml"}, {title: "logo.jpg"}},
		"what Flux would leave out":        {{title: "logo.jpg"}, {title: ".sourceignore"}, {title: "app.yaml"}},
		"a folder whose name needs a dot":  {{title: "./deploy"}},
		"a folder whose name ends so":      {{title: "deploy/"}},
		"folders that meet in one of them": {{title: "deploy/base"}, {title: "deploy/empty"}},
	} {
		for packing, version := range map[string]oras.PackManifestVersion{"1.0": oras.PackManifestVersion1_0, "1.1": oras.PackManifestVersion1_1} {
			t.Run(name+", packed as "+packing, func(t *testing.T) {
				g := NewWithT(t)
				url := orasPush(t, dir, version, parts...)
				m, blobs := fetch(t, url+":1.0.0")
				for _, tc := range []fixture{{m, format.Options{}}, {m, format.Options{Format: v1alpha1.FormatFiles}}, {again(m), format.Options{}}} {
					content, err := format.Convert(t.Context(), tc.manifest, blobs, tc.options, t.TempDir())
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(content.Format).To(Equal(v1alpha1.FormatFiles))
					g.Expect(unpack(t, content.Path)).To(Equal(orasPull(t, url)))
				}
			})
		}
	}
}

func TestASingleFolderIsPublishedAsItIs(t *testing.T) {
	g := NewWithT(t)
	dir := write(t, map[string]string{"deploy/a.yaml": "a"})
	m, blobs := fetch(t, orasPush(t, dir, oras.PackManifestVersion1_1, orasPart{title: "deploy"})+":1.0.0")
	content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Verbatim).To(BeTrue())
	g.Expect(content.Digest).To(Equal(m.Layers[0].Digest))
}

func TestLinksInAFolderAreSkippedAndCounted(t *testing.T) {
	g := NewWithT(t)
	dir := write(t, map[string]string{"deploy/a.yaml": "a", "app.yaml": "b"})
	g.Expect(os.Symlink("a.yaml", filepath.Join(dir, "deploy", "link"))).To(Succeed())
	for _, parts := range [][]orasPart{{{title: "deploy"}}, {{title: "app.yaml"}, {title: "deploy"}}} {
		m, blobs := fetch(t, orasPush(t, dir, oras.PackManifestVersion1_1, parts...)+":1.0.0")
		content, err := format.Convert(t.Context(), m, blobs, format.Options{}, t.TempDir())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(content.SkippedLinks).To(Equal(1))
		tree := unpack(t, content.Path)
		g.Expect(tree).To(HaveKey("deploy/a.yaml"))
		g.Expect(tree).NotTo(HaveKey("deploy/link"))
	}
}

func TestTheIgnoreOptionFiltersFiles(t *testing.T) {
	g := NewWithT(t)
	dir := write(t, map[string]string{"deploy/a.yaml": "a", "deploy/README.md": "b", "app.md": "c", "deploy/logo.jpg": "d"})
	for _, parts := range [][]orasPart{{{title: "deploy"}}, {{title: "deploy"}, {title: "app.md"}}} {
		m, blobs := fetch(t, orasPush(t, dir, oras.PackManifestVersion1_1, parts...)+":1.0.0")
		content, err := format.Convert(t.Context(), m, blobs, format.Options{Ignore: new("*.md")}, t.TempDir())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"deploy": "folder", "deploy/a.yaml": "a", "deploy/logo.jpg": "d"}))
		_, err = format.Convert(t.Context(), m, blobs, format.Options{Ignore: new("*")}, t.TempDir())
		expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Stall, "left out by the ignore rules")
	}
}

// titled is a blob as a layer with a title, and other annotations by pairs.
func titled(desc v1.Descriptor, name string, more ...string) v1.Descriptor {
	desc.Annotations = map[string]string{title: name}
	for i := 0; i < len(more); i += 2 {
		desc.Annotations[more[i]] = more[i+1]
	}
	return desc
}

func filesManifest(layers ...v1.Descriptor) *format.Manifest {
	return &format.Manifest{MediaType: types.OCIManifestSchema1, ArtifactType: "application/vnd.unknown.artifact.v1",
		Config: v1.Descriptor{MediaType: types.OCIEmptyJSON}, Layers: layers}
}

func TestATitledArchiveIsUnpackedAtTheRoot(t *testing.T) {
	tree := []file{good, {name: "logo.jpg"}}
	unpacked := map[string]string{"deploy.yaml": good.body, "logo.jpg": ""}
	tarball := archive(t, tree...)
	for name, tc := range map[string]struct {
		mediaType types.MediaType
		body      []byte
		want      map[string]string
	}{
		"a gzip tar by its type":                 {types.OCILayer, zipped(t, tarball), unpacked},
		"a zstd tar by its type":                 {types.OCILayerZStd, zstandard(t, tarball), unpacked},
		"a tar by its magic":                     {types.OCIUncompressedLayer, tarball, unpacked},
		"what ORAS calls a tar":                  {types.OCIUncompressedLayer, []byte("kind: Pod\n"), map[string]string{"app.tar.gz": "kind: Pod\n"}},
		"a gzip tar that ORAS calls a tar":       {types.OCIUncompressedLayer, []byte("\x1f\x8b anything"), map[string]string{"app.tar.gz": "\x1f\x8b anything"}},
		"a tar by its magic, of a type for YAML": {"application/yaml", tarball, map[string]string{"app.tar.gz": string(tarball)}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			b := blobs(t.TempDir())
			desc := titled(b.put(t, tc.mediaType, tc.body), "app.tar.gz")
			content, err := format.Convert(t.Context(), filesManifest(desc), b, format.Options{}, t.TempDir())
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(unpack(t, content.Path)).To(Equal(tc.want))
			g.Expect(content.Verbatim).To(Equal(tc.mediaType == types.OCILayer))
		})
	}
}

func TestATarBesideFilesIsUnpackedAmongThem(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	m := filesManifest(titled(b.put(t, types.OCIUncompressedLayer, archive(t, good)), "app.tar"), titled(b.put(t, types.OCIUncompressedLayer, []byte("b")), "b.yaml"))
	content, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(Equal(map[string]string{"deploy.yaml": good.body, "b.yaml": "b"}))
}

func TestFilesThatAreRefused(t *testing.T) {
	b := blobs(t.TempDir())
	text := b.put(t, types.OCIUncompressedLayer, []byte("text"))
	zip := b.put(t, types.OCILayer, layerOf(t, good))
	tree := b.put(t, types.OCILayer, layerOf(t, folder("deploy"), file{name: "deploy/a.yaml"}))
	other := b.put(t, types.OCILayer, layerOf(t, file{name: "deployment/a.yaml"}))
	nothing := b.put(t, types.OCIEmptyJSON, []byte("{}"))
	plain := v1.Descriptor{MediaType: text.MediaType, Size: text.Size, Digest: text.Digest}
	folderAs := func(d v1.Descriptor, name string, more ...string) v1.Descriptor {
		return titled(d, name, append([]string{unpackMark, "true"}, more...)...)
	}
	invalid, exceeded := v1alpha1.ReasonInvalidArtifact, v1alpha1.ReasonLimitExceeded
	for name, tc := range map[string]struct {
		layers []v1.Descriptor
		reason string
		words  string
	}{
		"a title that leads up":                     {[]v1.Descriptor{titled(text, "../a")}, invalid, `contains "../"`},
		"a title that is two dots":                  {[]v1.Descriptor{folderAs(tree, "..")}, invalid, "leads out"},
		"an absolute title":                         {[]v1.Descriptor{titled(text, "/etc/a")}, invalid, "absolute"},
		"an absolute title of a folder":             {[]v1.Descriptor{folderAs(tree, "/deploy")}, invalid, "absolute"},
		"an absolute title of an archive":           {[]v1.Descriptor{titled(zip, "/a.tgz")}, invalid, "absolute"},
		"a title of Windows":                        {[]v1.Descriptor{titled(text, `C:\a`)}, invalid, "backslash"},
		"a title with a control character":          {[]v1.Descriptor{titled(text, "a\x1bb")}, invalid, "control characters"},
		"a title too long":                          {[]v1.Descriptor{titled(text, strings.Repeat("a", 300))}, exceeded, "300 bytes"},
		"a title too deep":                          {[]v1.Descriptor{titled(text, strings.Repeat("a/", 70)+"b")}, exceeded, "71 folders"},
		"a file whose title is a folder's":          {[]v1.Descriptor{titled(text, "a/")}, invalid, "name is that of a folder"},
		"a file whose title is the root":            {[]v1.Descriptor{titled(text, "./.")}, invalid, "name is that of a folder"},
		"a title twice":                             {[]v1.Descriptor{titled(text, "a"), titled(text, "a")}, invalid, `two files of one name: "a"`},
		"a title in two spellings":                  {[]v1.Descriptor{titled(text, "a"), titled(text, "./a")}, invalid, "two files of one name"},
		"titles that differ in case only":           {[]v1.Descriptor{titled(text, "a"), titled(text, "A")}, invalid, "differ in case only"},
		"a file in a file":                          {[]v1.Descriptor{titled(text, "a"), titled(text, "a/b")}, invalid, "a file and a folder of one name"},
		"a file that is in a folder too":            {[]v1.Descriptor{folderAs(tree, "deploy"), titled(text, "deploy/a.yaml")}, invalid, "two files of one name"},
		"a folder twice":                            {[]v1.Descriptor{folderAs(tree, "deploy"), folderAs(tree, "deploy")}, invalid, "two files of one name"},
		"a file and a folder of one name":           {[]v1.Descriptor{titled(text, "deploy"), folderAs(tree, "deploy")}, invalid, "a file and a folder of one name"},
		"a layer without a title":                   {[]v1.Descriptor{titled(text, "a"), plain}, invalid, "without a title"},
		"an entry outside the folder":               {[]v1.Descriptor{folderAs(zip, "deploy")}, invalid, `is the folder "deploy", but has an entry outside of it: "deploy.yaml"`},
		"an entry in a folder that begins so":       {[]v1.Descriptor{folderAs(other, "deploy"), titled(text, "a")}, invalid, "an entry outside"},
		"a wrong content digest":                    {[]v1.Descriptor{folderAs(tree, "deploy", contentMark, digest)}, invalid, "but its annotation says " + digest},
		"a wrong content digest, among others":      {[]v1.Descriptor{folderAs(tree, "deploy", contentMark, digest), titled(text, "a")}, invalid, "its annotation says"},
		"a content digest that is none":             {[]v1.Descriptor{folderAs(tree, "deploy", contentMark, "sha256:x")}, invalid, "cannot be checked"},
		"a folder that is no gzip":                  {[]v1.Descriptor{folderAs(text, "deploy")}, invalid, "gzip"},
		"an archive among files":                    {[]v1.Descriptor{titled(zip, "a.tgz"), titled(text, "a")}, invalid, "archive among other files"},
		"an archive among folders":                  {[]v1.Descriptor{folderAs(tree, "deploy"), titled(zip, "a.tgz")}, invalid, "archive among other files"},
		"two archives":                              {[]v1.Descriptor{titled(zip, "a.tgz"), titled(zip, "b.tgz")}, invalid, "archive among other files"},
		"nothing but a layer that says: no content": {[]v1.Descriptor{titled(nothing, "empty")}, invalid, "has no files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), filesManifest(tc.layers...), b, format.Options{}, t.TempDir())
			expectFault(t, err, tc.reason, fault.Stall, tc.words)
		})
	}
}

func TestALayerThatSaysThatThereIsNoContentIsNone(t *testing.T) {
	g := NewWithT(t)
	b := blobs(t.TempDir())
	m := filesManifest(b.put(t, types.OCIEmptyJSON, []byte("{}")), titled(b.put(t, types.OCILayer, layerOf(t, good)), "a.tgz"))
	content, err := format.Convert(t.Context(), m, b, format.Options{}, t.TempDir())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(unpack(t, content.Path)).To(HaveKey("deploy.yaml"))
}

func TestWhichTypesAreFiles(t *testing.T) {
	b := blobs(t.TempDir())
	yaml := func(mediaType types.MediaType) v1.Descriptor {
		return titled(b.put(t, mediaType, []byte("a: 1\n")), "a.yaml")
	}
	accepted := []types.MediaType{types.OCIUncompressedLayer, "application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml", "application/json", "text/plain"}
	for _, mediaType := range accepted {
		content, err := format.Convert(t.Context(), filesManifest(yaml(mediaType)), b, format.Options{}, t.TempDir())
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(mediaType))
		NewWithT(t).Expect(unpack(t, content.Path)).To(Equal(map[string]string{"a.yaml": "a: 1\n"}))
	}
	ofType := func(artifactType string, config types.MediaType) *format.Manifest {
		m := filesManifest(yaml("application/yaml"))
		m.ArtifactType, m.Config.MediaType = artifactType, config
		return m
	}
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		auto     bool
	}{
		"the type of ORAS 1.1":              {ofType("application/vnd.unknown.artifact.v1", types.OCIEmptyJSON), true},
		"the config of ORAS 1.0":            {ofType("", "application/vnd.unknown.config.v1+json"), true},
		"the config of an image":            {ofType("", types.OCIConfigJSON), true},
		"an empty config and no type":       {ofType("", types.OCIEmptyJSON), true},
		"a type of somebody's own":          {ofType("application/vnd.acme.config", types.OCIEmptyJSON), false},
		"a config of somebody's own":        {ofType("", "application/vnd.acme.config.v1+json"), false},
		"a layer of a type of somebody":     {filesManifest(yaml("application/vnd.acme+yaml")), false},
		"a type of ours and one of theirs":  {filesManifest(yaml("application/yaml"), titled(yaml("application/octet-stream"), "b")), false},
		"a compressed layer of Docker":      {filesManifest(yaml(types.DockerLayer)), false},
		"a type and a config of their own":  {ofType("application/vnd.acme.config", "application/vnd.acme.config.v1+json"), false},
		"a type of ours, a config of Flux'": {ofType("application/vnd.unknown.artifact.v1", "application/vnd.acme+json"), true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), tc.manifest, b, format.Options{}, t.TempDir())
			if tc.auto {
				NewWithT(t).Expect(err).NotTo(HaveOccurred())
			} else {
				expectFault(t, err, v1alpha1.ReasonUnsupportedMediaType, fault.Stall, "unsupported artifact", "(titled)")
			}
			content, err := format.Convert(t.Context(), tc.manifest, b, format.Options{Format: v1alpha1.FormatFiles}, t.TempDir())
			NewWithT(t).Expect(err).NotTo(HaveOccurred(), "whoever pins Files says what it is")
			NewWithT(t).Expect(unpack(t, content.Path)).To(HaveKeyWithValue("a.yaml", "a: 1\n"))
		})
	}
}

func TestManyFilesCountTogether(t *testing.T) {
	b := blobs(t.TempDir())
	zeros := titled(b.put(t, types.OCIUncompressedLayer, make([]byte, 1000)), "a")
	more := titled(b.put(t, types.OCIUncompressedLayer, make([]byte, 1000)), "b")
	tree := titled(b.put(t, types.OCILayer, layerOf(t, file{name: "deploy/a"}, file{name: "deploy/b"})), "deploy", unpackMark, "true")
	second := titled(b.put(t, types.OCILayer, layerOf(t, file{name: "x/a"}, file{name: "x/b"})), "x", unpackMark, "true")
	for name, tc := range map[string]struct {
		manifest *format.Manifest
		limits   format.Limits
		words    []string
	}{
		"bytes of files":      {filesManifest(zeros, more), format.Limits{UncompressedBytes: 1999}, []string{"more than 1999 bytes together", "--max-uncompressed-bytes"}},
		"bytes of archives":   {filesManifest(tree, second), format.Limits{UncompressedBytes: 3000}, []string{"--max-uncompressed-bytes"}},
		"entries of archives": {filesManifest(tree, second), format.Limits{Entries: 3}, []string{"--max-entries"}},
		"files":               {filesManifest(zeros, more), format.Limits{Entries: 1}, []string{"--max-entries"}},
		"a blob":              {filesManifest(zeros), format.Limits{ArtifactBytes: 999}, []string{"--max-artifact-bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), tc.manifest, b, format.Options{Limits: tc.limits}, t.TempDir())
			expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Stall, tc.words...)
		})
	}
}

func TestFilesLeaveNothingButTheArchive(t *testing.T) {
	g := NewWithT(t)
	b, scratch := blobs(t.TempDir()), t.TempDir()
	m := filesManifest(titled(b.put(t, types.OCIUncompressedLayer, []byte("a")), "a"), titled(b.put(t, types.OCIUncompressedLayer, []byte("b")), "b"))
	content, err := format.Convert(t.Context(), m, b, format.Options{}, scratch)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(content.Path).To(HavePrefix(scratch))
	g.Expect(list(t, scratch)).To(HaveLen(1))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = format.Convert(ctx, m, b, format.Options{}, t.TempDir())
	g.Expect(err).To(MatchError(context.Canceled))
}
