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
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fluxcd/pkg/kustomize"
	fluxtar "github.com/fluxcd/pkg/tar"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/resmap"
)

// validation checks what was packed, not the folder that it was packed of: a
// file that is left out is missing in the cluster too.
type validation struct {
	app *app
	// shown is the folder as the person named it.
	shown string
	// remoteBases lets kustomize fetch over the network.
	remoteBases bool

	unpacked string
	root     *os.Root
	files    []string
}

// validate unpacks an archive as kustomize-controller does and checks that all
// YAML in it parses and that all its kustomizations build.
func (v *validation) validate(ctx context.Context, archive string) error {
	unpacked, err := os.MkdirTemp("", programName+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unpacked)
	// What kustomize resolves is the real path.
	if v.unpacked, err = filepath.EvalSymlinks(unpacked); err != nil {
		return err
	}
	if err := v.unpack(archive); err != nil {
		return err
	}
	if v.root, err = os.OpenRoot(v.unpacked); err != nil {
		return err
	}
	defer v.root.Close()
	if v.files, err = v.list(); err != nil {
		return err
	}
	for _, file := range v.files {
		if ext := path.Ext(file); ext != ".yaml" && ext != ".yml" {
			continue
		}
		if err := errors.Join(ctx.Err(), v.parse(file)); err != nil {
			return err
		}
	}
	return v.build(ctx)
}

func (v *validation) unpack(archive string) error {
	file, err := os.Open(archive) //nolint:gosec // a file in a folder of our own
	if err != nil {
		return err
	}
	defer file.Close()
	return fluxtar.Untar(file, v.unpacked, fluxtar.WithMaxUntarSize(fluxtar.UnlimitedUntarSize), fluxtar.WithSkipSymlinks())
}

// list returns the files to check. The templates of Helm charts are no YAML
// before Helm has rendered them.
func (v *validation) list() ([]string, error) {
	var files []string
	err := fs.WalkDir(v.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path.Base(name) == "templates" && v.exists(path.Join(path.Dir(name), "Chart.yaml")):
			return fs.SkipDir
		case !d.IsDir():
			files = append(files, name)
		}
		return nil
	})
	return files, err
}

func (v *validation) exists(name string) bool {
	_, err := v.root.Lstat(name)
	return err == nil
}

// parse reads the documents of a file one after the other.
func (v *validation) parse(name string) error {
	file, err := v.root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for decoder := yaml.NewDecoder(file); ; {
		var document any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return v.misspelt(name, err)
		}
	}
}

// misspelt says where in a file the YAML parser stumbled.
func (v *validation) misspelt(name string, err error) error {
	line, words := lineOf(err)
	if line == 0 {
		line = v.unreadable(name)
	}
	return fmt.Errorf("%s:%d: %s", v.show(name), line, words)
}

// unreadable returns the first line of a file that is no text, for which the YAML
// parser has no line, or else the first, for which it has none either.
func (v *validation) unreadable(name string) int {
	file, err := v.root.Open(name)
	if err != nil {
		return 1
	}
	defer file.Close()
	text := bufio.NewReader(file)
	for line := 1; ; {
		switch r, size, err := text.ReadRune(); {
		case err != nil:
			return 1
		case r == '\n':
			line++
		case r == utf8.RuneError && size == 1, unicode.IsControl(r) && r != '\t' && r != '\r' && r != '\u0085':
			return line
		}
	}
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// lineOf takes the line out of the words of the YAML parser; 0 where it names
// none. It counts from zero where it is its grammar that is not met.
func lineOf(err error) (int, string) {
	words := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:")
	found := yamlLine.FindStringSubmatchIndex(words)
	if found == nil {
		return 0, oneLine(words)
	}
	line, _ := strconv.Atoi(words[found[2]:found[3]])
	words = oneLine(words[:found[0]] + words[found[1]:])
	if strings.HasPrefix(words, "did not find expected") {
		line++
	}
	return max(line, 1), words
}

func (v *validation) show(name string) string {
	return filepath.Join(v.shown, filepath.FromSlash(name))
}

// build builds every kustomization as kustomize-controller does, and with as
// little access: nothing outside of the folder can be read, no plugin runs, and
// the network is asked only where that is allowed. Components are built by
// whoever uses them.
func (v *validation) build(ctx context.Context) error {
	all, err := v.kustomizations()
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.kind == "Component" {
			continue
		}
		if !v.remoteBases {
			if remote := fetches(all, k); remote != "" {
				v.app.warnf("%s is not built, because it needs %q from the network; --remote-bases allows that", v.show(k.file), remote)
				continue
			}
		}
		_, err := await(ctx, func() (resmap.ResMap, error) {
			return kustomize.SecureBuild(v.unpacked, filepath.Join(v.unpacked, filepath.FromSlash(k.folder)), v.remoteBases)
		})
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("%s: kustomize did not finish: %w", v.show(k.file), ctx.Err())
		case err != nil:
			return v.explain(k, err)
		}
	}
	return nil
}

// kustomization is what is read of one before it is built.
type kustomization struct {
	file, folder, kind string
	// document as it is written.
	document *yaml.Node
	// folders of this tree that it uses, and what it would fetch.
	uses, remote []string
}

func (v *validation) kustomizations() ([]kustomization, error) {
	var all []kustomization
	for _, file := range v.files {
		if !slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(file)) {
			continue
		}
		k, err := v.kustomization(file)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

func (v *validation) kustomization(file string) (kustomization, error) {
	body, err := v.root.ReadFile(file)
	if err != nil {
		return kustomization{}, err
	}
	k := kustomization{file: file, folder: path.Dir(file), document: &yaml.Node{}}
	var read struct {
		Kind                         string
		Resources, Bases, Components []yaml.Node
	}
	// A file without the extension of YAML was not parsed before.
	for _, into := range []any{k.document, &read} {
		if err := yaml.Unmarshal(body, into); err != nil {
			return k, v.misspelt(file, err)
		}
	}
	k.kind = read.Kind
	for _, entry := range slices.Concat(read.Resources, read.Bases, read.Components) {
		switch local := path.Join(k.folder, entry.Value); {
		case entry.Value == "": // no path, as kustomize will say
		case v.exists(local):
			k.uses = append(k.uses, local)
		case remoteBase.MatchString(entry.Value):
			k.remote = append(k.remote, entry.Value)
		default:
			return k, fmt.Errorf("%s:%d: %q %s", v.show(file), entry.Line, entry.Value, v.whyMissing(local, entry.Value))
		}
	}
	if len(k.document.Content) > 0 {
		k.remote = append(k.remote, downloads(k.document.Content[0])...)
	}
	return k, nil
}

// whyMissing says why a file or folder that a kustomization names is not in what
// was packed: kustomize's words for that are about folders of its own.
func (v *validation) whyMissing(local, entry string) string {
	if path.IsAbs(entry) || local == ".." || strings.HasPrefix(local, "../") {
		return "is outside of the folder that is pushed, where nobody who deploys it can read it"
	}
	switch info, err := os.Lstat(v.show(local)); {
	case err != nil:
		return "is not there"
	case info.IsDir():
		return "has no file that is pushed: what .sourceignore or Flux's defaults match, and symbolic links, are left out"
	default:
		return "is not pushed: what .sourceignore or Flux's defaults match, and symbolic links, are left out"
	}
}

// downloads returns the addresses that stand where kustomize takes a path: it
// gets them by HTTP. In texts, such as annotations, they mean nothing to it.
func downloads(n *yaml.Node) (found []string) {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode {
			if i%2 == 0 || holdsNoPath(n.Content[i-1].Value) {
				continue
			}
		}
		value := child.Value
		if _, path, named := strings.Cut(value, "="); named && !strings.HasPrefix(value, "http") {
			value = path // key=path, in generators
		}
		if strings.HasPrefix(value, "https://") || strings.HasPrefix(value, "http://") {
			found = append(found, value)
		}
		found = append(found, downloads(child)...)
	}
	return found
}

// holdsNoPath tells the fields of a kustomization whose values are texts.
func holdsNoPath(field string) bool {
	switch field {
	case "commonAnnotations", "commonLabels", "labels", "buildMetadata", "metadata", "images", "namespace", "vars",
		"literals", "options", "generatorOptions", "patch", "target", "name":
		return true
	default:
		return false
	}
}

// remoteBase is how what kustomize fetches begins: with a scheme that it knows or
// with a user. GitHub alone may be named by its host, which else is a folder of that
// name: https://github.com/kubernetes-sigs/kustomize/blob/api/v0.21.1/api/internal/git/repospec.go.
var remoteBase = regexp.MustCompile(`(?i)^(git::)?((ssh|https?|file)://|[a-z][a-z0-9-]*@|github\.com[/:])`)

// fetches returns what a kustomization, or one that it uses, would fetch.
func fetches(all []kustomization, k kustomization) string {
	seen := map[string]bool{}
	for next := []kustomization{k}; len(next) > 0; next = next[1:] {
		if len(next[0].remote) > 0 {
			return next[0].remote[0]
		}
		for _, used := range next[0].uses {
			i := slices.IndexFunc(all, func(other kustomization) bool { return other.folder == used })
			if i >= 0 && !seen[used] {
				seen[used] = true
				next = append(next, all[i])
			}
		}
	}
	return ""
}

// triedAsFolder is what kustomize says around the error of a file, because it has
// then tried to read the file as a folder.
var triedAsFolder = regexp.MustCompile(`accumulation err='accumulating resources from (.+)': must build at directory: '.+': file is not directory`)

// explain says where in which file kustomize stumbled. It names paths of the
// unpacked tree and seldom a line, so the line is that of the longest value of
// the file that it speaks of or, without one, of the longest key.
func (v *validation) explain(k kustomization, err error) error {
	words := strings.NewReplacer(v.unpacked+string(filepath.Separator), "", v.unpacked, ".").Replace(err.Error())
	words = triedAsFolder.ReplaceAllString(words, "$1")
	line := 1
	keys, values := scalars(k.document)
	for _, named := range [][]*yaml.Node{keys, values} {
		longest := 2 // what is shorter is in any text
		for _, n := range named {
			if len(n.Value) > longest && strings.Contains(words, n.Value) {
				longest, line = len(n.Value), n.Line
			}
		}
	}
	return fmt.Errorf("%s:%d: kustomize cannot build it: %s", v.show(k.file), line, oneLine(words))
}

// scalars lists the keys and the values of a document.
func scalars(n *yaml.Node) (keys, values []*yaml.Node) {
	for i, child := range n.Content {
		switch {
		case child.Kind != yaml.ScalarNode:
			moreKeys, moreValues := scalars(child)
			keys, values = append(keys, moreKeys...), append(values, moreValues...)
		case n.Kind == yaml.MappingNode && i%2 == 0:
			keys = append(keys, child)
		default:
			values = append(values, child)
		}
	}
	return keys, values
}
