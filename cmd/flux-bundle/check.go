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
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fluxcd/pkg/kustomize"
	securefs "github.com/fluxcd/pkg/kustomize/filesys"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// finding is an error in the packed files, with its place.
type finding struct {
	// File that is wrong, as it is named in the archive.
	File string `json:"file"`
	// Line in it, 0 where it has none.
	Line  int    `json:"line,omitempty"`
	Words string `json:"words"`
	// Missing is the path in the archive of a file that the words name and that
	// was not packed.
	Missing string `json:"missing,omitempty"`
}

// Error returns the finding with its place.
func (f *finding) Error() string { return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Words) }

// message is what a check tells while it runs. One field is set.
type message struct {
	// Unconfined is why the kernel does not confine the process of the check.
	Unconfined string `json:"unconfined,omitempty"`
	// At is the file or folder that is checked from now on.
	At string `json:"at,omitempty"`
	// Unbuilt is a kustomization that cannot be built without the network. Its words
	// are an address that it would fetch, in quotes.
	Unbuilt *finding `json:"unbuilt,omitempty"`
	// Finding ends the check.
	Finding *finding `json:"finding,omitempty"`
	// Done ends a check without a finding.
	Done bool `json:"done,omitempty"`
}

// check is one check of packed files.
type check struct {
	files fs.FS
	// built is the file system with these files that kustomize reads, where they
	// are in the folder root.
	built filesys.FileSystem
	root  string
	tell  func(message)
	// names of the files to check.
	names []string
	// unparsed are the files that are checked only if a kustomization names them.
	unparsed map[string]bool
	// kustomized are the folders with a kustomization, and plain those for which
	// kustomize-controller would generate one: the topmost ones with YAML and with
	// neither a kustomization nor a Helm chart in or above them.
	kustomized, plain map[string]bool
	// made are the objects of the folders with a kustomization.
	made map[string][]string
	// merges tells that kustomizations have more than objects that kustomize merges, and
	// which may not go together.
	merges bool
}

// checkTree checks packed files: all YAML parses, all kustomizations build, and
// kustomize-controller accepts folders without one. It reads nothing but the
// files. The error is a *finding where it is about these. A file can be written
// so that kustomize ends the process: callers that must live on use another one.
func checkTree(ctx context.Context, files fs.FS, tell func(message)) error {
	return (&check{files: files, built: packedFiles{files}, root: packedRoot, tell: tell}).run(ctx)
}

// checkTrusted is checkTree of a folder whose kustomizations may fetch remote
// bases, and run git to do so.
func checkTrusted(ctx context.Context, folder string, files fs.FS, tell func(message)) error {
	// kustomize works with the real path.
	root, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return err
	}
	built, err := securefs.MakeFsOnDiskSecureBuild(root)
	if err != nil {
		return err
	}
	return (&check{files: files, built: built, root: root, tell: tell}).run(ctx)
}

func (c *check) run(ctx context.Context) error {
	if err := c.list(); err != nil {
		return err
	}
	c.sort()
	for _, name := range c.names {
		if !isYAML(name) {
			continue
		}
		c.tell(message{At: name})
		if err := errors.Join(ctx.Err(), c.parse(name)); err != nil {
			return err
		}
	}
	all, err := c.kustomizations()
	if err != nil {
		return err
	}
	for _, k := range all {
		if err := errors.Join(ctx.Err(), c.build(k)); err != nil {
			return err
		}
	}
	for _, folder := range slices.Sorted(maps.Keys(c.plain)) {
		if err := errors.Join(ctx.Err(), c.buildPlain(ctx, folder)); err != nil {
			return err
		}
	}
	return nil
}

func isYAML(name string) bool {
	extension := path.Ext(name)
	return extension == ".yaml" || extension == ".yml"
}

// list finds the files to check. The templates of Helm charts are no YAML
// before Helm has rendered them.
func (c *check) list() error {
	c.unparsed = map[string]bool{}
	templates := map[string]bool{}
	return fs.WalkDir(c.files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path.Base(name) == "templates" && c.isChart(path.Dir(name)):
			templates[name] = true
		case d.IsDir():
		case isIn(path.Dir(name), templates):
			c.unparsed[name] = true
		default:
			c.unparsed[name] = !isYAML(name) && !isKustomization(name)
			c.names = append(c.names, name)
		}
		return nil
	})
}

// sort finds the folders that kustomize-controller could be told to apply.
func (c *check) sort() {
	c.kustomized, c.plain, c.made = map[string]bool{}, map[string]bool{}, map[string][]string{}
	charts, withYAML := map[string]bool{}, map[string]bool{}
	for _, name := range c.names {
		folder := path.Dir(name)
		switch {
		case isKustomization(name):
			c.kustomized[folder] = true
		case path.Base(name) == chartFile && c.isChart(folder):
			charts[folder] = true
		case isYAML(name):
			withYAML[folder] = true
		}
	}
	for folder := range withYAML {
		if !isIn(folder, c.kustomized) && !isIn(folder, charts) && (folder == "." || !isIn(path.Dir(folder), withYAML)) {
			c.plain[folder] = true
		}
	}
}

const chartFile = "Chart.yaml"

// isChart tells whether a folder is a Helm chart: one with a Chart.yaml that
// kustomize-controller does not apply. Manifests beside one that it does apply, such
// as an empty one, are applied as well.
func (c *check) isChart(folder string) bool {
	if !c.isFile(path.Join(folder, chartFile)) { // a folder of that name makes no chart
		return false
	}
	_, err := c.buildGenerated(folder, []string{"./" + chartFile})
	return err != nil
}

// isIn tells whether a folder or one above it is in a set.
func isIn(folder string, set map[string]bool) bool {
	for !set[folder] {
		if folder == "." {
			return false
		}
		folder = path.Dir(folder)
	}
	return true
}

func isKustomization(name string) bool {
	return slices.Contains(konfig.RecognizedKustomizationFileNames(), path.Base(name))
}

func (c *check) exists(name string) bool {
	_, err := fs.Stat(c.files, name)
	return err == nil
}

// isFile tells whether there is a file, and no folder.
func (c *check) isFile(name string) bool {
	info, err := fs.Stat(c.files, name)
	return err == nil && info.Mode().IsRegular()
}

// parse reads the documents of a file one after the other. Where no kustomization
// says which files are applied, each has to be a Kubernetes object.
func (c *check) parse(name string) error {
	file, err := c.files.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	text := bufio.NewReader(file)
	if start, _ := text.Peek(2); isUTF16(start) {
		return &finding{File: name, Line: 1, Words: "it is encoded in UTF-16, expected UTF-8, which is all that kustomize reads"}
	}
	if err := c.findUnread(name); err != nil {
		return err
	}
	folder := path.Dir(name)
	applied := isIn(folder, c.plain) && !isIn(folder, c.kustomized)
	var unfit error // it counts where all documents parse
	for decoder := yaml.NewDecoder(text); ; {
		var node yaml.Node
		var document any
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return unfit
		}
		if err = cmp.Or(err, node.Decode(&document)); err != nil {
			return c.misspelt(name, err)
		}
		if line, words := notApplicable(&node); applied && words != "" && unfit == nil {
			unfit = &finding{File: name, Line: line, Words: words + advice}
		}
	}
}

// unread is the start of a document that kustomize does not read. To kustomize, a document
// starts behind a line with --- that ends with a line feed, and it drops what else
// is in its text. YAML has more line breaks, and the last line needs none.
var unread = regexp.MustCompile("[\r\u0085\u2028\u2029]---([ \t\r\n\u0085\u2028\u2029]|$)" +
	"|\n---([ \t][^\n]*)?(\r[^\n]|[\u0085\u2028\u2029])" +
	"|\n---[ \t]+[^ \t\r\n#][^\n]*$" +
	"|\n---#") // to YAML, this is the name of a field

// findUnread refuses a file with a document that would not be applied.
func (c *check) findUnread(name string) error {
	body, err := fs.ReadFile(c.files, name)
	if err != nil {
		return err
	}
	found := unread.FindIndex(body)
	if found == nil {
		return nil
	}
	line := bytes.Count(body[:found[0]+1], []byte("\n")) + 1
	return &finding{File: name, Line: line, Words: "kustomize does not read the document that starts here: begin it with a line that has nothing but --- and ends with a line feed"}
}

// advice is how a file gets past the rule of a folder without a kustomization.
const advice = "; leave out with .sourceignore what is not to be applied, or name in a kustomization.yaml what is"

// notApplicable says why kustomize-controller would not apply a document, and in
// which line.
func notApplicable(document *yaml.Node) (int, string) {
	if len(document.Content) == 0 || document.Content[0].ShortTag() == "!!null" {
		return 0, ""
	}
	object := document.Content[0]
	if object.Kind != yaml.MappingNode {
		return object.Line, "this is no Kubernetes object"
	}
	fields := fieldsOf(object)
	kind := fields["kind"]
	switch {
	case fields["<<"] != nil: // what is merged is for kustomize to say
	case kind == nil || kind.Value == "":
		return object.Line, "this is no Kubernetes object: it has no kind"
	case fields["apiVersion"] == nil || fields["apiVersion"].Value == "":
		return object.Line, "this object has no apiVersion"
	case strings.HasSuffix(kind.Value, "List") && fields["items"] != nil:
	case fieldsOf(fields["metadata"])["name"] == nil || fieldsOf(fields["metadata"])["name"].Value == "":
		return object.Line, "this object has no metadata.name"
	}
	if tagged := localTag(object); tagged != nil {
		return tagged.Line, fmt.Sprintf("the tag %s means nothing to Kubernetes", fault.Quote(tagged.Tag))
	}
	return 0, ""
}

// fieldsOf returns the fields of a mapping.
func fieldsOf(n *yaml.Node) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	if n == nil || n.Kind != yaml.MappingNode {
		return fields
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		fields[n.Content[i].Value] = n.Content[i+1]
	}
	return fields
}

// localTag returns the first node whose tag is not of YAML itself.
func localTag(n *yaml.Node) *yaml.Node {
	if tag := n.ShortTag(); len(tag) > 1 && tag[0] == '!' && tag[1] != '!' {
		return n
	}
	for _, child := range n.Content {
		if found := localTag(child); found != nil {
			return found
		}
	}
	return nil
}

func isUTF16(start []byte) bool {
	return bytes.HasPrefix(start, []byte("\xff\xfe")) || bytes.HasPrefix(start, []byte("\xfe\xff")) || bytes.IndexByte(start, 0) >= 0
}

// misspelt says where in a file the YAML parser stumbled.
func (c *check) misspelt(name string, err error) *finding {
	line, words := lineOf(err)
	if line == 0 {
		line = c.unreadable(name)
	}
	if !strings.Contains(err.Error(), "unmarshal errors") {
		line = c.stumbled(name, line)
	}
	return &finding{File: name, Line: line, Words: words}
}

// stumbled returns the line up to which the text of a file does not parse, at line
// from or behind it: the parser names the line in which the collection begins that it
// does not understand. A collection in brackets does not parse before it ends.
func (c *check) stumbled(name string, from int) int {
	const maxLines, maxBytes = 200, 64 << 20 // what is not read as text any more, and what all attempts may read
	body, err := fs.ReadFile(c.files, name)
	if err != nil {
		return from
	}
	found, end, work := from, 0, 0
	line := 0
	for text := range bytes.Lines(body) {
		line++
		end += len(text)
		if line < from {
			continue
		}
		if work += end; line > found+maxLines || work > maxBytes {
			break
		}
		if parses(body[:end]) {
			found = line + 1
		}
	}
	return min(found, max(line, from))
}

// parses tells whether a text is YAML.
func parses(text []byte) bool {
	for decoder := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var node yaml.Node
		if err := decoder.Decode(&node); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

// unreadable returns the first line of a file that is no text, for which the YAML
// parser has no line, or else the first, for which it has none either.
func (c *check) unreadable(name string) int {
	file, err := c.files.Open(name)
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

// kustomization is a file with one, read but not built.
type kustomization struct {
	file, folder string
	// document as it is written.
	document *yaml.Node
	// written is what kustomize-controller builds in its place.
	written []byte
	// unfit is why the file is no kustomization but another object, such as one of
	// kustomize-controller; nil: it is one.
	unfit error
	types.Kustomization
}

func (c *check) kustomizations() ([]kustomization, error) {
	var files []string
	for _, file := range c.names {
		if isKustomization(file) {
			files = append(files, file)
		}
	}
	var all, others []kustomization
	named := map[string]bool{}
	for i := 0; i < len(files); i++ { // there may be more in the templates of a chart
		c.tell(message{At: files[i]})
		k, err := c.kustomization(files[i])
		if err != nil {
			return nil, err
		}
		if k.unfit != nil {
			others = append(others, k)
			continue
		}
		for _, resource := range k.Resources {
			named[path.Join(k.folder, resource)] = true
		}
		more, err := c.parseNamed(k)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
		c.merges = c.merges || len(k.Vars)+len(k.Configurations)+len(k.Crds)+len(k.OpenAPI) > 0 //nolint:staticcheck // kustomize still reads vars
		all = append(all, k)
	}
	// A file of that name is a kustomization for everybody but those that name the file itself.
	for _, k := range others {
		if !named[k.file] {
			return nil, c.explain(k, k.unfit)
		}
	}
	return all, nil
}

// parseNamed checks the files that kustomize reads of a kustomization and that nobody has
// checked: templates of a chart beside it, and those with any name. It returns the
// kustomizations in folders of such templates.
func (c *check) parseNamed(k kustomization) (kustomizations []string, err error) {
	read := slices.Concat(k.Resources, k.Components, k.Configurations, k.Crds, k.Generators, k.Transformers, k.Validators)
	for _, p := range k.Patches {
		read = append(read, p.Path)
	}
	for _, p := range k.PatchesStrategicMerge { //nolint:staticcheck // kustomize still reads it
		read = append(read, string(p))
	}
	for _, entry := range read {
		local := path.Join(k.folder, entry)
		for _, name := range konfig.RecognizedKustomizationFileNames() {
			if file := path.Join(local, name); c.unparsed[file] {
				kustomizations = append(kustomizations, file)
				c.unparsed[file] = false
			}
		}
		switch {
		case !c.unparsed[local]:
		case isYAML(local):
			err = c.parse(local)
		default:
			err = c.findUnread(local)
		}
		if err != nil {
			return nil, err
		}
		c.unparsed[local] = false
	}
	return kustomizations, nil
}

// kustomization reads a kustomization and finds the errors that no build shows:
// those of a Component, which is built by its users only, and those behind a
// remote base that is not fetched.
func (c *check) kustomization(file string) (kustomization, error) {
	k := kustomization{file: file, folder: path.Dir(file), document: &yaml.Node{}}
	// A file without the extension of YAML was not parsed before.
	if err := c.parse(file); err != nil {
		return k, err
	}
	body, err := fs.ReadFile(c.files, file)
	if err != nil {
		return k, err
	}
	var read struct {
		APIVersion                   string `yaml:"apiVersion"`
		Resources, Bases, Components []yaml.Node
	}
	for _, into := range []any{k.document, &read} {
		if err := yaml.Unmarshal(body, into); err != nil {
			return k, c.misspelt(file, err)
		}
	}
	group, _, _ := strings.Cut(types.KustomizationVersion, "/")
	isOther := read.APIVersion != "" && !strings.HasPrefix(read.APIVersion, group+"/")
	if err := k.Unmarshal(body); err != nil && !isOther {
		return k, c.explain(k, err)
	}
	k.FixKustomization()
	if wrong := k.EnforceFields(); isOther {
		k.unfit = errors.New(cmp.Or(strings.Join(wrong, ", "), "this is no kustomization") + "; name the file in the resources of a kustomization, or give it another name")
		return k, nil
	} else if len(wrong) > 0 {
		return k, c.explain(k, errors.New(strings.Join(wrong, ", ")))
	}
	if second := secondDocument(body); second != nil {
		return k, &finding{File: file, Line: second.Line, Words: "kustomize reads only the first document of a kustomization: move this one to another file"}
	}
	if again := fieldAgain(k.document); again != nil {
		return k, &finding{File: file, Line: again.Line, Words: fmt.Sprintf("kustomize takes the field %s for another one of this file, and drops one of them: remove it", fault.Quote(again.Value))}
	}
	if len(k.HelmCharts) > 0 {
		return k, c.explain(k, errors.New("helmCharts are not supported: kustomize-controller does not run Helm"))
	}
	for _, entry := range slices.Concat(read.Resources, read.Bases, read.Components) {
		local := path.Join(k.folder, entry.Value)
		// An empty entry is no path, as kustomize will say.
		if entry.Value == "" || c.exists(local) || remoteBase.MatchString(entry.Value) {
			continue
		}
		missing := &finding{File: file, Line: entry.Line, Words: fault.Quote(entry.Value), Missing: local}
		if path.IsAbs(entry.Value) {
			missing.Missing = entry.Value
		}
		return k, missing
	}
	if k.written, err = rewritten(body); err != nil {
		return k, c.explain(k, err)
	}
	return k, c.missingData(k)
}

// rewritten returns the kustomization that kustomize-controller writes in place of one:
// https://github.com/fluxcd/pkg/blob/kustomize/v1.35.6/kustomize/kustomize_generator.go.
func rewritten(body []byte) ([]byte, error) {
	k := types.Kustomization{TypeMeta: types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind}}
	if err := k8syaml.Unmarshal(body, &k); err != nil {
		return nil, err
	}
	if len(k.Resources) == 0 { // also where there are bases
		k.BuildMetadata = []string{types.OriginAnnotations}
	}
	return k8syaml.Marshal(k)
}

// secondDocument returns what a text has behind its first document; nil: nothing.
func secondDocument(text []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first yaml.Node
	if decoder.Decode(&first) != nil {
		return nil
	}
	for {
		var next yaml.Node
		if decoder.Decode(&next) != nil {
			return nil
		}
		if len(next.Content) > 0 && next.Content[0].ShortTag() != "!!null" {
			return next.Content[0]
		}
	}
}

// fieldAgain returns a field of a document whose name differs from that of another one in
// case only, which kustomize ignores; nil: none.
func fieldAgain(document *yaml.Node) *yaml.Node {
	var before []*yaml.Node
	for _, object := range document.Content {
		for i := 0; i+1 < len(object.Content); i += 2 {
			field := object.Content[i]
			if slices.ContainsFunc(before, func(n *yaml.Node) bool { return strings.EqualFold(n.Value, field.Value) }) {
				return field
			}
			before = append(before, field)
		}
	}
	return nil
}

// missingData finds a file that a generator of ConfigMaps or Secrets or a patch takes
// and that is not there. Kustomize would name a folder that nobody knows.
func (c *check) missingData(k kustomization) error {
	var wanted []string
	for _, g := range k.ConfigMapGenerator {
		wanted = append(wanted, sourcesOf(g.KvPairSources)...)
	}
	for _, g := range k.SecretGenerator {
		wanted = append(wanted, sourcesOf(g.KvPairSources)...)
	}
	for _, p := range k.Patches {
		wanted = append(wanted, p.Path)
	}
	for _, entry := range wanted {
		file := entry
		if _, after, found := strings.Cut(entry, "="); found {
			file = after
		}
		local := path.Join(k.folder, file)
		if file == "" || path.IsAbs(file) || c.exists(local) || remoteBase.MatchString(file) {
			continue
		}
		line := 1
		_, values := scalars(k.document)
		for _, n := range values {
			if n.Value == entry {
				line = n.Line
			}
		}
		return &finding{File: k.file, Line: line, Words: strconv.Quote(file), Missing: local}
	}
	return nil
}

// sourcesOf returns the files that a generator takes, as path or key=path.
func sourcesOf(s types.KvPairSources) []string {
	return append(slices.Concat(s.FileSources, s.EnvSources), s.EnvSource)
}

// build builds a kustomization as kustomize-controller does, without plugins.
func (c *check) build(k kustomization) error {
	if k.Kind == types.ComponentKind {
		return nil
	}
	c.tell(message{At: k.file})
	if err := k.CheckEmpty(); err != nil { // kustomize-controller would apply nothing
		return c.explain(k, err)
	}
	made, err := c.kustomize(withFile{c.built, c.pathOf(k.file), k.written}, k.folder)
	if err != nil && !c.isUnbuilt(k.file, err) {
		return c.explain(k, err)
	}
	c.made[k.folder] = made
	return nil
}

// kustomize builds a folder and looks at the result as kustomize-controller does
// before it applies it. It returns the names of the objects.
func (c *check) kustomize(files filesys.FileSystem, folder string) ([]string, error) {
	objects, err := kustomize.Build(files, c.pathOf(folder))
	if err != nil {
		return nil, err
	}
	made := make([]string, 0, objects.Size())
	for _, object := range objects.Resources() {
		if object.GetApiVersion() == "" {
			return nil, fmt.Errorf("%s %q has no apiVersion, and is not applied", object.GetKind(), object.GetName())
		}
		id := object.CurId()
		id.Namespace = id.EffectiveNamespace() // no namespace is the same one as default
		made = append(made, id.String())
	}
	_, err = objects.AsYaml()
	return made, err
}

// pathOf returns where kustomize finds a file or folder.
func (c *check) pathOf(name string) string { return filepath.Join(c.root, filepath.FromSlash(name)) }

// buildPlain builds a folder without a kustomization as kustomize-controller does:
// with a generated one, which names all files and the folders with a kustomization.
func (c *check) buildPlain(ctx context.Context, folder string) error {
	c.tell(message{At: folder})
	if generated := path.Join(folder, konfig.DefaultKustomizationFileName()); c.exists(generated) {
		return &finding{File: generated, Words: "kustomize-controller writes a file with this name, expected no folder: give the folder another name"}
	}
	var resources, made []string
	err := fs.WalkDir(c.files, folder, func(name string, d fs.DirEntry, err error) error {
		below := "./" + strings.TrimPrefix(name, folder+"/")
		_, isMade := c.made[name]
		switch {
		case err != nil:
			return err
		case isMade && (!c.merges || c.made[name] == nil): // what needs the network would end the build of all
			made = append(made, c.made[name]...)
			return fs.SkipDir
		case d.IsDir() && c.kustomized[name]:
			resources = append(resources, below)
			return fs.SkipDir
		case !d.IsDir() && isYAML(name):
			resources = append(resources, below)
		}
		return nil
	})
	if err != nil {
		return err
	}
	together := 200 // the time that kustomize needs grows with the square of the objects
	if c.merges {
		together = max(1, len(resources))
	}
	for some := range slices.Chunk(resources, together) {
		more, err := c.buildGenerated(folder, some)
		if err = errors.Join(ctx.Err(), err); err != nil {
			return err
		}
		made = append(made, more...)
	}
	slices.Sort(made)
	for i := range made[min(1, len(made)):] {
		if made[i] == made[i+1] {
			return &finding{File: folder, Words: "kustomize cannot build it: more than one file or folder in it makes " + made[i]}
		}
	}
	return nil
}

// buildGenerated builds a folder with a kustomization of resources in it, in place of any
// that is there.
func (c *check) buildGenerated(folder string, resources []string) ([]string, error) {
	content, err := k8syaml.Marshal(types.Kustomization{
		TypeMeta:  types.TypeMeta{APIVersion: types.KustomizationVersion, Kind: types.KustomizationKind},
		Resources: resources,
	})
	if err != nil {
		return nil, err
	}
	file := path.Join(folder, konfig.DefaultKustomizationFileName())
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		if other := path.Join(folder, name); c.isFile(other) {
			file = other // kustomize refuses two
		}
	}
	made, err := c.kustomize(withFile{c.built, c.pathOf(file), content}, folder)
	if err != nil && !c.isUnbuilt(folder, err) {
		return nil, &finding{File: folder, Words: "kustomize cannot build it: " + c.words(err)}
	}
	return made, nil
}

// isUnbuilt tells of what is not built for want of the network.
func (c *check) isUnbuilt(file string, err error) bool {
	what, needed := remoteIn(err)
	if needed {
		c.tell(message{Unbuilt: &finding{File: file, Words: fault.Quote(what)}})
	}
	return needed
}

// words are those of an error without the folder that kustomize reads.
func (c *check) words(err error) string {
	words := strings.NewReplacer(c.root+string(filepath.Separator), "", c.root+"/", "", c.root, ".").Replace(err.Error())
	return oneLine(triedAsFolder.ReplaceAllString(words, "$1"))
}

// triedAsFolder is what kustomize says around the error of a file, because it has
// then tried to read the file as a folder.
var triedAsFolder = regexp.MustCompile(`accumulation err='(?:accumulating|merging) resources from (.+)': must build at directory: '.+': file is not directory`)

// explain says where in which file kustomize stumbled. It seldom names a line, so
// the line is that of the longest value of the file that it speaks of or, without
// one, of the longest key.
func (c *check) explain(k kustomization, err error) *finding {
	words := c.words(err)
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
	return &finding{File: k.file, Line: line, Words: "kustomize cannot build it: " + words}
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
