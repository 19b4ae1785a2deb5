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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/sign"
)

const pushExample = `  # push a folder
  flux bundle -f ./deploy -t ghcr.io/org/app-deploy:v1.0.0

  # push and sign it, under two tags; nobody who follows a tag ever sees it unsigned
  flux bundle -f ./deploy -t ghcr.io/org/app-deploy:v1.0.0 -t ghcr.io/org/app-deploy:latest -s cosign.key

  # in CI: refuse to move a tag, and keep the digest
  digest=$(COSIGN_PASSWORD="$PASSWORD" flux bundle push -f ./deploy -t "ghcr.io/org/app-deploy:$VERSION" -s cosign.key --immutable)

  # see what would be pushed
  flux bundle -f ./deploy -t ghcr.io/org/app-deploy:v1.0.0 --dry-run -o yaml`

const pushLong = `Packages a folder, or a single file, as an artifact of the format of flux push artifact and pushes it.

What is left out: what .sourceignore files say or, without one, what Flux leaves out by default, and symbolic links. A private key to
sign with and a .sourceignore that is no regular file are errors. The same files give the same layer on every machine, and
image-source-controller serves that layer as it is.

The packed files are checked first: every YAML file parses, every kustomization builds, and in a folder without a kustomization every
document is a Kubernetes object, as kustomize-controller demands it. A file that is left out is missing in the check, too. Templates of
Helm charts are not checked. The check runs in a process of its own, which sees the packed files only, has no network, starts no program
and gets no secret; so a folder of somebody else can be checked.

Private keys, .env files, Kubernetes Secrets and what a secretGenerator reads are warned of where SOPS did not encrypt them, and refused
with --strict. So is a kustomization that cannot be built without the network and, on Linux, a check that the kernel does not confine.

With --remote-bases, kustomize fetches over the network and runs git, with the rights of whoever runs the command. Trust the folder in
full before you use it: never use it for an untrusted pull request.

Annotations come from the git repository that the folder is in: source, revision (branch@sha1:commit) and created, the time of the commit.
SOURCE_DATE_EPOCH replaces that time. Every packed file is compared with the commit, and without git: no program that the repository
configures can run. If a file differs, is new or is gone, the artifact gets neither revision nor time; this includes files that git
ignores and files that git converts (Git LFS, line endings, filters).

A path within a repository or below the working directory must not lead through a symbolic link: the author of a pull request could
let it lead to other files of the machine. Name the folder that is meant, or give --follow-symlinks.

A folder that a killed or running pull writes to is refused: files of a version may be missing there.

The order: upload by digest, read the manifest back and look for the layer, sign, look for the signature in the way of verify, and only then set the tags. After that,
the tags and the signature are looked for once more. Where the registry keeps no list of referrers, the signature is listed under the tag
sha256-<hex>, and one in the older format always under sha256-<hex>.sig: if jobs with different keys sign the same digest at the same
time, one may hide the signature of another for a moment, until the other has written it again. With --immutable, each tag is looked at before and again some time after
it is set, at least half a second: of two pushes at once, the one whose digest does not stay fails. Registries cannot set a tag under a
condition, so a push without --immutable, or one that is much slower to set the tag than this one, can still move it afterwards; a digest
never moves. What is already there is not uploaded again, nor signed again by
the same key, but with --tlog: then each push adds a signature, because nobody can tell from here whether the log has one.

Standard output has the reference with the digest and nothing else.`

// push is one run of the verb.
type push struct {
	*app

	path        string
	tags        []string
	key         string
	legacy      bool
	tlog        bool
	rekor       string
	ignore      []string
	annotations []string
	source      string
	revision    string
	follow      bool
	noValidate  bool
	strict      bool
	remoteBases bool
	immutable   bool
	dryRun      bool
	output      output
}

func newPush(a *app) *cobra.Command {
	p := &push{app: a}
	cmd := &cobra.Command{
		Use:     "push -f PATH -t REFERENCE",
		Short:   "Package a folder, sign it and push it",
		Long:    pushLong,
		Example: pushExample,
		Args:    noVerb,
		RunE:    func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
	p.bind(cmd)
	return cmd
}

// pushByDefault lets a command without a verb push.
func pushByDefault(a *app, cmd *cobra.Command) {
	p := &push{app: a}
	p.bind(cmd)
	cmd.Example = pushExample
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().NFlag() == 0 {
			return cmd.Help()
		}
		return p.run(cmd.Context())
	}
}

// noVerb refuses arguments: whoever gives one means a verb, or the folder.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q", args[0])
	if similar := cmd.SuggestionsFor(args[0]); len(similar) > 0 {
		text += fmt.Sprintf(", did you mean %s?", strings.Join(similar, " or "))
	}
	return errors.New(text + "; a folder to push is named with -f, and --help lists the commands")
}

func (p *push) bind(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&p.path, "path", "f", "", "folder or file to push, by its `path`")
	fs.StringArrayVarP(&p.tags, "tag", "t", nil, "where to push: `registry/repository:tag`; may be repeated")
	fs.StringVarP(&p.key, "sign-key", "s", "", "`file` of the private key to sign with (cosign.key); its password is in COSIGN_PASSWORD or is asked for")
	fs.BoolVar(&p.legacy, "legacy-signature", false, "sign in the format that cosign had before bundles as well (the tag sha256-<hex>.sig)")
	fs.BoolVar(&p.tlog, "tlog", false, "record the signature in a transparency log, where it is public for ever")
	fs.StringVar(&p.rekor, "rekor-url", sign.PublicLog, "`address` of the transparency log that --tlog means")
	fs.StringSliceVar(&p.ignore, "ignore-paths", nil, "`patterns` of further files to leave out, in the format of .sourceignore")
	fs.StringArrayVarP(&p.annotations, "annotations", "a", nil, "annotation as `key=value`; may be repeated; an empty value removes one that comes from git")
	fs.StringVar(&p.source, "source", "", "`address` of the source (default: the address of git's remote origin)")
	fs.StringVar(&p.revision, "revision", "", "`revision` of the source, as branch@sha1:commit (default: what git has checked out)")
	fs.BoolVar(&p.follow, followFlag, false, followUsage)
	fs.BoolVar(&p.noValidate, "no-validate", false, "do not check that YAML parses, that kustomizations build and that objects are complete")
	fs.BoolVar(&p.strict, "strict", false, "refuse what is only warned of otherwise: keys and secrets that are not encrypted, rules in .sourceignore that no reader sees, kustomizations that cannot be built without the network, and a check that the kernel does not confine")
	fs.BoolVar(&p.remoteBases, "remote-bases", false, "let kustomizations use the network and run git; only for a folder that is trusted in full")
	fs.BoolVar(&p.immutable, "immutable", false, "fail if a tag exists with another digest, or gets one from another push at the same time")
	fs.BoolVar(&p.dryRun, "dry-run", false, "do everything but sign and push")
	fs.SetNormalizeFunc(formerNames)
	p.output.bind(cmd)
	exists(cmd.MarkFlagFilename("sign-key", "key"))
	complete(cmd, "tag")
}

// formerNames keeps flags working that were renamed to the names that flux push artifact has.
func formerNames(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "annotation" {
		name = "annotations"
	}
	return pflag.NormalizedName(name)
}

// pushed is the result, for programs to read. What names the first tag has the
// names of what flux push artifact prints.
type pushed struct {
	URL         string            `json:"url"`
	Repository  string            `json:"repository"`
	Tag         string            `json:"tag"`
	Digest      string            `json:"digest"`
	Tags        []string          `json:"tags"`
	Layer       packedLayer       `json:"layer"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Signed      bool              `json:"signed"`
	DryRun      bool              `json:"dryRun,omitempty"`
}

type packedLayer struct {
	Digest string `json:"digest"`
	// Size in bytes, packed and unpacked.
	Size      int64 `json:"size"`
	Files     int   `json:"files"`
	FileBytes int64 `json:"fileBytes"`
}

func (p *push) run(ctx context.Context) error {
	if err := p.check(); err != nil {
		return err
	}
	tags, err := p.references()
	if err != nil {
		return err
	}
	given, err := p.given()
	if err != nil {
		return err
	}
	var key *sign.Key
	if p.key != "" {
		if key, err = openKey(ctx, p.streams, p.key, p.follow); err != nil {
			return err
		}
	}
	scratch, err := os.MkdirTemp("", programName+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	from, err := openLocal(ctx, p.path, p.follow, p.flags.limits.UncompressedBytes)
	if err != nil {
		return p.unopened(err)
	}
	defer from.close()
	packed, err := p.pack(ctx, from, scratch)
	if err != nil {
		return err
	}
	annotations, err := p.annotate(ctx, from, packed, given)
	if err != nil {
		return err
	}
	made, err := newArtifact(packed, annotations)
	if err != nil {
		return err
	}
	if !p.dryRun {
		u := &upload{app: p.app, artifact: made, key: key, legacy: p.legacy, immutable: p.immutable}
		if p.tlog {
			u.log = p.rekor
		}
		if err := u.run(ctx, tags); err != nil {
			return err
		}
	}
	return p.print(tags, made)
}

// check refuses flags that make no sense together.
func (p *push) check() error {
	switch {
	case p.path == "":
		return errors.New("nothing says what to push: name a folder with -f, as in -f ./deploy -t ghcr.io/org/app-deploy:v1.0.0")
	case len(p.tags) == 0:
		return errors.New("nothing says where to push: name a tag with -t, such as -t ghcr.io/org/app-deploy:v1.0.0")
	case p.key == "" && (p.legacy || p.tlog):
		return errors.New("--legacy-signature and --tlog say how to sign, but there is no --sign-key to sign with")
	}
	// What is not there is told before a password is asked for.
	from, err := locate(p.path, p.follow)
	if err == nil {
		_, err = from.stat()
	}
	if err != nil {
		return p.unopened(err)
	}
	return cmp.Or(p.output.check(), p.checkLog(), checkPatterns(p.ignore))
}

// unopened says that what --path names cannot be opened.
func (p *push) unopened(err error) error {
	return fmt.Errorf("--path %s: %w", p.path, pathless(err))
}

// references reads the tags to push to.
func (p *push) references() ([]name.Tag, error) {
	var tags []name.Tag
	for _, text := range p.tags {
		image, err := p.reference(text)
		if err != nil {
			return nil, err
		}
		if image.Tag == "" || image.Digest != (v1.Hash{}) {
			return nil, fmt.Errorf("%q names no tag, expected one such as %s:v1.0.0", text, image.Repository.Name())
		}
		if tag := image.Repository.Tag(image.Tag); !slices.Contains(tags, tag) {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// annotate returns the annotations of the artifact: from its repository, then those
// that are given, the more specific last.
func (p *push) annotate(ctx context.Context, from *local, packed *format.Packed, given map[string]string) (map[string]string, error) {
	known, err := gather(ctx, from, packed)
	if ctx.Err() != nil { // whether more is known must not depend on the speed of a machine
		return nil, fmt.Errorf("cannot read the repository of %s: %w", p.path, ctx.Err())
	}
	if err != nil {
		unknown := "source, revision and time"
		if known.source != "" {
			unknown = "revision and time"
		}
		p.warnf("%s are not known: %s", unknown, oneLine(err.Error()))
	}
	if known.change != nil && p.revision == "" {
		p.warnf("%s", p.whyNoRevision(known.change))
	}
	annotations := map[string]string{sourceAnnotation: known.source, revisionAnnotation: known.revision}
	if !known.committed.IsZero() {
		annotations[createdAnnotation] = known.committed.Format(time.RFC3339)
	}
	maps.Copy(annotations, given)
	maps.DeleteFunc(annotations, func(_, value string) bool { return value == "" })
	return annotations, nil
}

func (p *push) whyNoRevision(d *difference) string {
	switch {
	case d.file == "":
		return fmt.Sprintf("%s has changes that are not committed, so the artifact names no revision; commit them, or say --revision", p.path)
	case d.converted == "":
		return fmt.Sprintf("%s has changes that are not committed, in %s, so the artifact names no revision; commit them, or say --revision", p.path, fault.Quote(d.file))
	default:
		return fmt.Sprintf("%s cannot be compared with the commit, because of %s: %s, and no filter of a repository is run here; so the artifact names no revision; say --revision",
			p.path, fault.Quote(d.file), d.converted)
	}
}

// given reads the annotations of the environment and of the flags. Those with an
// empty value are not wanted.
func (p *push) given() (map[string]string, error) {
	annotations := map[string]string{}
	created, set, err := sourceDate(p.streams)
	if err != nil {
		return nil, err
	}
	if set {
		annotations[createdAnnotation] = created.Format(time.RFC3339)
	}
	if p.source != "" {
		annotations[sourceAnnotation] = p.source
	}
	if p.revision != "" {
		annotations[revisionAnnotation] = p.revision
	}
	for _, text := range p.annotations {
		key, value, found := strings.Cut(text, "=")
		if !found || key == "" {
			return nil, unexpected("annotations", text, "key=value")
		}
		annotations[key] = value
	}
	if text := annotations[createdAnnotation]; text != "" {
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			return nil, fmt.Errorf("the annotation %s is %q, expected a time such as 2026-01-02T15:04:05Z", createdAnnotation, text)
		}
	}
	return annotations, nil
}

// pack packs the folder and checks what was packed.
func (p *push) pack(ctx context.Context, from *local, scratch string) (*format.Packed, error) {
	if err := checkFinished(ctx, filepath.Join(from.folder, from.file)); err != nil {
		return nil, err
	}
	p.statusf("packing %s", p.path)
	packed, err := from.pack(ctx, scratch, p.ignore, p.flags.limits)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.path, err)
	}
	if n := len(packed.SkippedLinks); n > 0 {
		p.warnf("left out %s, which no consumer unpacks: %s", counted(n, "symbolic link"), some(packed.SkippedLinks))
	}
	if err := p.doubt(ctx, packed); err != nil {
		return nil, err
	}
	p.statusf("packed %s (%s) as %s (%s)", counted(len(packed.Files), "file"), bytesText(packed.FileBytes), short(packed.Digest), bytesText(packed.Size))
	if p.noValidate {
		return packed, nil
	}
	v := &validation{app: p.app, shown: p.path, remoteBases: p.remoteBases, strict: p.strict}
	if from.file != "" {
		v.shown = filepath.Dir(p.path)
	}
	return packed, v.validate(ctx, packed.Path)
}

// doubt tells of a likely mistake. With --strict, it is an error.
func (p *push) doubt(ctx context.Context, packed *format.Packed) error {
	var doubts []string
	if n := len(packed.Unkept); n > 0 {
		doubts = append(doubts, fmt.Sprintf("left out %s that Flux leaves out by default, because a .sourceignore file leaves itself out: %s; add the line !.sourceignore to keep its rules",
			counted(n, "file"), some(packed.Unkept)))
	}
	secrets, err := await(ctx, func() ([]confidence, error) { return secretsIn(ctx, packed) }) // no parser can be told to end
	if err != nil {
		return err
	}
	for _, s := range secrets {
		doubts = append(doubts, fmt.Sprintf("%s is not encrypted, and everybody who may pull the artifact can read it: encrypt it with SOPS, or list it in .sourceignore", s))
	}
	if p.strict && len(doubts) > 0 {
		return fmt.Errorf("%s: %s", p.path, doubts[0])
	}
	const few = 10
	for _, text := range doubts[:min(len(doubts), few)] {
		p.warnf("%s", text)
	}
	if more := len(doubts) - few; more > 0 {
		p.warnf("%d more files have keys or secrets that are not encrypted", more)
	}
	return nil
}

func (p *push) print(tags []name.Tag, made *artifact) error {
	digest := made.manifest.digest.String()
	first := tags[0].Context().Digest(digest)
	result := pushed{
		URL: "oci://" + first.Name(), Repository: first.Context().Name(), Tag: tags[0].TagStr(), Digest: digest,
		Layer: packedLayer{
			Digest: made.packed.Digest.String(), Size: made.packed.Size,
			Files: len(made.packed.Files), FileBytes: made.packed.FileBytes,
		},
		Annotations: annotationsOf(made), Signed: p.key != "" && !p.dryRun, DryRun: p.dryRun,
	}
	for _, tag := range tags {
		result.Tags = append(result.Tags, tag.Name())
	}
	out := &p.output
	return out.print(p.out, result, func(w io.Writer) error {
		for _, repository := range repositories(tags) {
			if _, err := fmt.Fprintln(w, repository.Digest(digest).Name()); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkLog refuses what is no address of a log, and one that nothing is sent to.
func (p *push) checkLog() error {
	const flag = "rekor-url"
	address, err := url.Parse(p.rekor)
	if err != nil || address.Host == "" || address.Scheme != "https" && address.Scheme != "http" {
		return fmt.Errorf("--%s is no address of a log, expected one such as %s", flag, sign.PublicLog)
	}
	if p.rekor != sign.PublicLog && !p.tlog {
		return fmt.Errorf("--%s says where --tlog records signatures, but --tlog is not given", flag)
	}
	return nil
}
