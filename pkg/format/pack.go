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

package format

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/sourceignore"
	"github.com/fluxcd/pkg/sourceignore/gitignore"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

// Media types of what Pack makes a layer for.
const (
	FluxConfigMediaType  types.MediaType = fluxConfig
	FluxContentMediaType types.MediaType = fluxContent
)

// PackOptions say what of a folder is packed.
type PackOptions struct {
	// Ignore are patterns in the format of .sourceignore of what is left out,
	// beside what the .sourceignore files of the folder match or, where there is
	// none, what Flux leaves out by default.
	Ignore string
	// Limits bound what is packed: what they forbid could not be read again. A
	// zero field means its default.
	Limits Limits
}

// Packed is a folder as the layer of a Flux artifact.
type Packed struct {
	// Path of the archive.
	Path string
	// Digest is the sha256 of the archive, and DiffID that of the tar in it.
	Digest, DiffID v1.Hash
	// Size of the archive in bytes.
	Size int64
	// Files are the paths of the files in it, and FileBytes is what they hold
	// together.
	Files     []string
	FileBytes int64
	// SkippedLinks are the symbolic links that were left out.
	SkippedLinks []string
	// Ignored are the files that patterns left out, sorted, and IgnoreFiles are the
	// contents of the .sourceignore files that the patterns are from, by their path.
	// The folder may have changed since.
	Ignored     []string
	IgnoreFiles map[string][]byte
	// Unkept are files that no pattern of the folder leaves out, but Flux's defaults
	// do, because a .sourceignore file leaves itself out: no reader sees its patterns.
	Unkept []string
}

// Pack writes the files of a folder as an archive into scratch, which the
// caller owns and removes. Its bytes depend on the paths, the contents and the
// executable bits of the files, and on ArchiveVersion, alone.
//
// What Flux leaves out of a source is left out, so that whoever reads the
// artifact finds nothing to leave out and serves the layer's own bytes. Symbolic
// links are left out too, because no consumer unpacks them; where they lead is
// never looked at.
//
// A private key of cosign's is refused: it is there because somebody signs with
// it, and whoever pulls the artifact would get it.
//
// Errors: InvalidArtifact (stall) for a folder without files, or with a private
// key or something that is no file, LimitExceeded (stall), StorageOperationFailed
// (retry).
func Pack(ctx context.Context, from *os.Root, scratch string, o PackOptions) (*Packed, error) {
	p := &packing{ctx: ctx, from: from, limits: o.Limits.withDefaults(), packed: &Packed{IgnoreFiles: map[string][]byte{}}}
	p.tree = newTree(p.limits)
	if err := p.collect(o.Ignore); err != nil {
		return nil, err
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	slices.Sort(p.packed.Ignored)
	return p.packed, p.write(scratch)
}

// packing is a folder on its way into an archive.
type packing struct {
	ctx    context.Context //nolint:containedctx // it lives for one call of Pack
	from   *os.Root
	limits Limits
	tree   *tree
	packed *Packed
}

// collect adds to the tree what no pattern matches.
func (p *packing) collect(ignore string) error {
	rules, err := newIgnoreRules(likeFlux, nil)
	if err != nil {
		return err
	}
	err = p.walk(func(name string, d fs.DirEntry) error {
		switch {
		case path.Base(name) != sourceignore.IgnoreFile:
			return nil
		case !d.Type().IsRegular():
			return invalid("%s is no regular file, and patterns are read from nothing else: put a file in its place", fault.Quote(name))
		}
		if err := p.note(rules, name); err != nil {
			return err
		}
		folder, _ := path.Split(name)
		if flaw := PatternFlaw(fault.Quote(name), string(rules.files[strings.TrimSuffix(folder, "/")])); flaw != "" {
			return invalid("%s", flaw)
		}
		return nil
	})
	if err != nil {
		return err
	}
	flux := rules.matcher(rules.patterns())
	text, flaw := ignoreText([]byte(ignore))
	if flaw != "" {
		return invalidSpec("the text of patterns to ignore %s", flaw)
	}
	more := sourceignore.NewMatcher(sourceignore.ReadPatterns(bytes.NewReader(text), nil))
	return p.walk(func(name string, d fs.DirEntry) error {
		if _, known := p.packed.IgnoreFiles[name]; path.Base(name) == sourceignore.IgnoreFile && !known {
			return reading(name, errChanged)
		}
		elements := strings.Split(name, "/")
		for _, m := range []gitignore.Matcher{flux, more} {
			if m.Match(elements, d.IsDir()) {
				if !d.IsDir() {
					p.packed.Ignored = append(p.packed.Ignored, name)
				}
				return nil
			}
		}
		return p.add(name, d)
	})
}

// walk visits what is below the folder, in lexical order, but for what Git calls
// .git: a repository or, in a submodule or a linked working tree, a file with its
// path on this machine. Git never takes either for content.
func (p *packing) walk(visit func(name string, d fs.DirEntry) error) error {
	return fs.WalkDir(limit.FS(p.from), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return reading(name, err)
		case p.ctx.Err() != nil:
			return p.ctx.Err()
		case name == ".":
			return nil
		case d.Name() == ".git" && d.IsDir():
			return fs.SkipDir
		case d.Name() == ".git":
			return nil
		}
		return visit(name, d)
	})
}

// note adds a .sourceignore file to the rules. It is read once: all that is decided
// by it is decided by the same patterns.
func (p *packing) note(rules *ignoreRules, name string) error {
	body, known := p.packed.IgnoreFiles[name]
	if !known {
		file, err := limit.Open(p.from, name)
		if err != nil {
			return reading(name, err)
		}
		defer file.Close()
		if body, err = io.ReadAll(io.LimitReader(&source{p.ctx, file, fault.Quote(name)}, maxIgnoreBytes+1)); err != nil {
			return err
		}
		p.packed.IgnoreFiles[name] = body
	}
	return rules.note(entry{path: name}, bytes.NewReader(body))
}

func (p *packing) add(name string, d fs.DirEntry) error {
	if d.Type()&fs.ModeSymlink != 0 {
		p.packed.SkippedLinks = append(p.packed.SkippedLinks, name)
		return nil
	}
	if !d.IsDir() && !d.Type().IsRegular() {
		return invalid("%s is neither a file nor a folder; list it in %s or remove it", fault.Quote(name), sourceignore.IgnoreFile)
	}
	if err := checkName(name, p.limits); err != nil {
		return err
	}
	info, err := d.Info()
	if err != nil {
		return reading(name, err)
	}
	if err := p.tree.add(entry{path: name, folder: d.IsDir(), executable: info.Mode()&0o111 != 0}); err != nil {
		return err
	}
	p.tree.get(name).size = info.Size()
	return nil
}

// settle leaves out what a reader of the archive would: without a .sourceignore
// file that the patterns matched, others hold for the files beside it.
func (p *packing) settle() error {
	for {
		rules, err := newIgnoreRules(likeFlux, nil)
		if err != nil {
			return err
		}
		for _, n := range p.tree.nodes {
			if path.Base(n.path) == sourceignore.IgnoreFile && !n.folder {
				if err := p.note(rules, n.path); err != nil {
					return err
				}
			}
		}
		files, _, err := rules.apply(p.ctx, p.tree)
		if err != nil {
			return err
		}
		before := 0
		for key, n := range p.tree.nodes {
			if n.folder {
				continue
			}
			before++
			if n.dropped {
				delete(p.tree.nodes, key)
				p.packed.Ignored = append(p.packed.Ignored, n.path)
				p.packed.Unkept = append(p.packed.Unkept, n.path)
			}
		}
		switch {
		case files == 0 && len(p.packed.Ignored)+len(p.packed.SkippedLinks) > 0:
			return invalid("the folder has no file to pack: all %d are left out by %s or by Flux's defaults, or are symbolic links",
				len(p.packed.Ignored)+len(p.packed.SkippedLinks), sourceignore.IgnoreFile)
		case files == 0:
			return invalid("the folder has no file")
		case files == before:
			slices.Sort(p.packed.Unkept)
			return nil
		}
	}
}

func (p *packing) write(scratch string) error {
	root, err := os.OpenRoot(scratch)
	if err != nil {
		return disk("open the scratch folder", err)
	}
	defer root.Close()
	watch := &meter{
		out: io.Discard, hash: sha256.New(), limit: p.limits.UncompressedBytes,
		flag: "--max-uncompressed-bytes", words: "the files of the folder make an archive of more than %d bytes",
	}
	content, err := writeArchive(root, p.limits.ArtifactBytes, watch, p.tree.kept(), p.open)
	if err != nil {
		return err
	}
	p.packed.Path = filepath.Join(scratch, archiveName)
	p.packed.Digest, p.packed.Size = content.Digest, content.Size
	p.packed.DiffID = watch.digest()
	return nil
}

// open opens a file as it was when the folder was walked.
func (p *packing) open(n *node) (io.ReadCloser, error) {
	file, err := limit.Open(p.from, n.path)
	if err != nil {
		return nil, reading(n.path, err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() != n.size {
		err = errChanged
	}
	if err == nil {
		err = refuseKey(n, file)
	}
	if err != nil {
		return nil, errors.Join(reading(n.path, err), file.Close())
	}
	p.packed.Files = append(p.packed.Files, n.path)
	p.packed.FileBytes += n.size
	// The file's own WriteTo, which io.Copy prefers to Read, knows no context.
	return struct {
		io.Reader
		io.Closer
	}{&source{p.ctx, file, fault.Quote(n.path)}, file}, nil
}

// maxKeyBytes is more than any file that signs has.
const maxKeyBytes = 64 << 10

// refuseKey is an error for a file that holds a private key as cosign writes it.
// The file is read from its start afterwards.
func refuseKey(n *node, file io.ReadSeeker) error {
	if n.size > maxKeyBytes {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(file, n.size))
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(body); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY":
			return invalid("%s is a private key to sign with, which everybody could pull: move it to another folder, or list it in %s",
				fault.Quote(n.path), sourceignore.IgnoreFile)
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}
