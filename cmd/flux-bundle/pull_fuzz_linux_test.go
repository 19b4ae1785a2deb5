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
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// recipe makes an artifact of what the fuzzer draws, and names the flags to pull it
// with.
type recipe struct {
	make func(entries []tar.Header) (v1.Image, error)
	args []string
}

// recipes are the formats that write names of the artifact's author.
func recipes(t testing.TB) []recipe {
	t.Helper()
	flux := func(entries []tar.Header) (v1.Image, error) {
		return publish.FluxImage(static.NewLayer(layerOf(t, entries...), publish.FluxContent))
	}
	return []recipe{
		{flux, nil},
		{flux, []string{"--layer-operation", "copy"}},
		{func(entries []tar.Header) (v1.Image, error) { // a file for each layer, or a folder of all
			image, err := publish.LayeredArtifact(types.OCIEmptyJSON)
			for _, e := range entries {
				added := mutate.Addendum{Layer: static.NewLayer([]byte(e.Name), "text/plain"), Annotations: map[string]string{"org.opencontainers.image.title": e.Name}}
				if e.Typeflag == tar.TypeDir {
					added.Layer = static.NewLayer(layerOf(t, entries...), types.OCILayer)
					added.Annotations["io.deis.oras.content.unpack"] = "true"
				}
				if err == nil {
					image, err = mutate.Append(image, added)
				}
			}
			return image, err
		}, []string{"--format", v1alpha1.FormatFiles}},
		{func(entries []tar.Header) (v1.Image, error) { // a layer for each half
			half := len(entries) / 2
			return publish.LayeredArtifact(types.OCIConfigJSON,
				static.NewLayer(layerOf(t, entries[:half]...), types.OCILayer), static.NewLayer(layerOf(t, entries[half:]...), types.OCILayer))
		}, []string{"--format", v1alpha1.FormatImage}},
		{func(entries []tar.Header) (v1.Image, error) {
			image, err := publish.ImgpkgBundle(publish.Files{"a.yaml": "a: 1\n"})
			if err != nil {
				return nil, err
			}
			return mutate.AppendLayers(image, static.NewLayer(layerOf(t, entries...), types.DockerLayer))
		}, nil},
		{func(entries []tar.Header) (v1.Image, error) { // a chart, whose version is a name
			chart := tar.Header{Name: "app/Chart.yaml", Mode: 0o644}
			return publish.LayeredArtifact("application/vnd.cncf.helm.config.v1+json",
				static.NewLayer(layerOf(t, append([]tar.Header{chart}, entries...)...), "application/vnd.cncf.helm.chart.content.v1.tar+gzip"))
		}, nil},
	}
}

// entriesOf reads what the fuzzer draws: a name on each line, and two bytes for its
// type and its permissions.
func entriesOf(names string, bits []byte) []tar.Header {
	entries := []tar.Header{{Name: ".sourceignore", Mode: 0o644}}
	lines := strings.Split(names, "\n")
	kinds := []byte{0, 0, 0, tar.TypeDir, tar.TypeSymlink, tar.TypeLink, tar.TypeFifo, tar.TypeChar}
	for i, name := range lines[:min(len(lines), 40)] {
		var kind, mode byte
		if at := i * 2; at+1 < len(bits) {
			kind, mode = bits[at], bits[at+1]
		}
		h := tar.Header{Name: name, Typeflag: kinds[int(kind)%len(kinds)], Mode: int64(mode)<<4 | 0o400}
		if h.Typeflag == tar.TypeSymlink || h.Typeflag == tar.TypeLink {
			h.Linkname = lines[(i+1)%len(lines)]
		}
		entries = append(entries, h)
	}
	return entries
}

// world is a folder with the target of a pull, and with what a pull must not touch.
type world struct{ root, target string }

// newWorld makes it, with ways out of the target.
func newWorld(t *testing.T) world {
	t.Helper()
	w := world{root: t.TempDir()}
	w.target = filepath.Join(w.root, "target")
	write(t, w.root, map[string]string{
		"outside/file": "precious", "outside/linked": "precious", "outside/folder/file": "precious", "a.yaml": "precious",
		"target/a.yaml": "old", "target/app/b.yaml": "old",
	})
	for _, err := range []error{
		os.Mkdir(filepath.Join(w.root, "tmp"), 0o700),
		os.Symlink("../outside/folder", filepath.Join(w.target, "folder")),
		os.Symlink("../outside/file", filepath.Join(w.target, "file")),
		os.Link(filepath.Join(w.root, "outside", "linked"), filepath.Join(w.target, "linked")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TMPDIR", filepath.Join(w.root, "tmp"))
	return w
}

// seen describes all files and folders by their path, but those in skip: type,
// permissions, content and, of what is no folder, the time of its last change.
func seen(t *testing.T, root, skip string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == skip:
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		said := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(name)
			all[name] = fmt.Sprint(said, info.ModTime(), string(content))
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			leads, err := os.Readlink(name)
			all[name] = said + leads
			return err
		}
		all[name] = said
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// FuzzPull pulls artifacts of all formats with any names, types and permissions, in
// a process that can write nowhere else. Nothing outside of the target may change; a
// pull that fails leaves the target as it was; and one that succeeds writes plain
// files and folders alone, and no repository of git.
func FuzzPull(f *testing.F) {
	folder := confinable(f)
	if folder != "" {
		confine(f, folder)
	}
	for how := range recipes(f) {
		for _, names := range []string{
			"a.yaml\nnew/c.yaml\nnew", "../../outside/file\n/tmp/evil\n..\n.", "folder/file\nfile\nlinked", "folder\n../outside/folder\nfolder/file",
			".git/hooks/post-checkout\ngit~1/config", "HEAD\nobjects/a\nrefs/a", ".envrc\n.github/workflows/a.yaml", ".flux-bundle-A/new/a\na",
			"x\nx\nX\nx/y", "a\x00b\na\\b\nC:\\x\n\u202ea\na\x1b[2J", "Chart.yaml\nname: a\nversion: ../../1.0.0", "file\n/etc/passwd\nlinked\n../outside/linked",
		} {
			f.Add(uint8(how), names, []byte{0, 0x20})
			f.Add(uint8(how), names, []byte{3, 0xff, 0, 0xff, 5, 0xff})
			f.Add(uint8(how), names, []byte{4, 0xff, 0, 0, 4, 0xff, 0, 0})
		}
	}
	registry := publish.Serve()
	f.Cleanup(registry.Close)
	f.Fuzz(func(t *testing.T, how uint8, names string, bits []byte) {
		if folder == "" {
			return
		}
		chosen := recipes(t)[int(how)%len(recipes(t))]
		image, err := chosen.make(entriesOf(names, bits))
		if err != nil {
			return // no registry takes it
		}
		if err := registry.Shelf().Push(t.Context(), "org/app:v1", image); err != nil {
			return
		}
		w := newWorld(t)
		outside, before := seen(t, w.root, w.target), seen(t, w.target, "")
		run := flux(t, append([]string{"pull", registry.Host() + "/org/app:v1", "-o", w.target, "--force"}, chosen.args...)...)
		if now := seen(t, w.root, w.target); !maps.Equal(now, outside) {
			t.Fatalf("something changed outside of the target: %v, not %v", now, outside)
		}
		if strings.Contains(run.err, "permission denied") || strings.Contains(run.err, "panic") {
			t.Fatalf("something else was to be written: %s", run.err)
		}
		after := seen(t, w.target, "")
		if run.code != exitOK {
			if !maps.Equal(after, before) {
				t.Fatalf("the pull failed (%s), and the target changed: %v, not %v", run.err, after, before)
			}
			return
		}
		for name, said := range after {
			checkPulled(t, name, said, before)
		}
	})
}

// checkPulled fails for a file or folder that no pull may write.
func checkPulled(t *testing.T, name, said string, before map[string]string) {
	t.Helper()
	if before[name] == said {
		return
	}
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	if kept := info.Mode() &^ (fs.ModeDir | 0o777); kept != 0 || info.Mode()&0o022 != 0 { // the umask of tests takes these away
		t.Fatalf("%q has the mode %s", name, info.Mode())
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) {
			return -1
		}
		return unicode.ToLower(r)
	}, filepath.Base(name))
	visible, _, _ = strings.Cut(visible, ":")
	if slices.Contains([]string{".git", "git~1"}, strings.TrimRight(visible, " .")) || strings.HasPrefix(visible, stagePrefix) {
		t.Fatalf("%q was pulled", name)
	}
}
