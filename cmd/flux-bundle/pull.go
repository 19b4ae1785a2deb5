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
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

const pullLong = `pull writes what image-source-controller would publish of an artifact into a folder: the same files with the same permissions, or the chart as the one file
that it is. What the controller leaves out is left out, and what it refuses is refused.

Nothing is ever written outside of the folder, and when anything goes wrong the folder is as it was. Within a repository, or below the working directory, the path
of the folder leads through no symbolic link, unless --follow-symlinks is given: the author of a change could let it lead elsewhere. Files that are there already are overwritten after a
question, or with --force; other files are left alone. With --key and the other flags of verify, nothing is pulled that does not verify. Permissions are those
of the artifact as far as the umask allows them.

An artifact with a path that git takes for a repository is refused: .git in any spelling, and HEAD, objects and refs side by side. Files that a program obeys
by itself, such as .envrc, .gitattributes, .github/ or .vscode/, and programs in a folder that PATH has, are named before anything is written, and are written
after a question, or with --force. Of other hidden files, up to 20 are named only, and more take a question, too. Of each kind, 20 are named and the rest are counted; flux bundle
inspect lists all.

A pull that is killed loses nothing: each file has its old or its new content. It leaves a folder .flux-bundle-* with the old files behind, which the next pull
names. Until somebody removes it, push and diff refuse the folder.

The digest reference of what was pulled is printed, always as it is: unlike that of other verbs, -o names the folder.`

const pullExample = `  # pull what a cluster would get
  flux bundle pull ghcr.io/org/app-deploy:v1.0.0 -o ./deploy

  # pull only what is signed with a key
  flux bundle pull ghcr.io/org/app-deploy:v1.0.0 -o ./deploy --key cosign.pub

  # pull a chart
  flux bundle pull ghcr.io/stefanprodan/charts/podinfo:6.9.2 -o .`

// pull is one run of the verb.
type pull struct {
	*app

	content contentFlags
	demand  demandFlags
	dir     string
	force   bool
}

func newPull(a *app) *cobra.Command {
	p := &pull{app: a}
	cmd := &cobra.Command{
		Use:               "pull REFERENCE",
		Short:             "Write what would be published of an artifact into a folder",
		Long:              pullLong,
		Example:           pullExample,
		Args:              oneReference,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(); err != nil {
				return err
			}
			return p.run(cmd.Context(), args[0])
		},
	}
	p.content.bind(cmd)
	p.demand.bind(cmd)
	cmd.Flags().StringVarP(&p.dir, "output", "o", "", "`folder` to write to, which is made when it is not there")
	cmd.Flags().BoolVar(&p.force, "force", false, "overwrite files, and write those that programs obey by themselves, without a question")
	exists(cmd.MarkFlagDirname("output"))
	return cmd
}

// check refuses a folder that cannot be written to, and flags that make no sense.
func (p *pull) check() error {
	if p.dir == "" {
		return errors.New("no folder to write to is given: name one with -o, such as -o . for this one")
	}
	// The system would follow a link before ".." leads up from its target.
	p.dir = filepath.Clean(p.dir)
	if !p.demand.follow {
		if _, err := refuseStrange(p.dir); err != nil {
			return fmt.Errorf("cannot write to %q: %w", p.dir, err)
		}
	}
	return cmp.Or(checkFolder(p.dir), p.content.check(), p.demand.check())
}

func (p *pull) run(ctx context.Context, reference string) error {
	by, err := p.demand.authority(ctx, p.app)
	if err != nil {
		return err
	}
	from, err := openOrigin(ctx, p.app, reference)
	if err != nil {
		return err
	}
	options := p.content.options(p.flags.limits)
	return inScratch(func(scratch string) error {
		reading, err := from.read(ctx, options, rulesOf(from, by), scratch)
		if err != nil {
			return err
		}
		unpacking := unpacking{name: from.baseName(), options: options}
		listed, err := unpackContent(ctx, reading.Content, unpacking)
		if err != nil {
			return err
		}
		if err := p.warnOfStages(); err != nil {
			return err
		}
		stage, err := newStage(p.dir)
		if err != nil {
			return err
		}
		defer stage.close()
		if err := p.vet(ctx, stage, listed); err != nil {
			return err
		}
		unpacking.into = stage.fresh
		pulled, err := unpackContent(ctx, reading.Content, unpacking)
		if err != nil {
			return err
		}
		if err := p.place(ctx, stage, pulled); err != nil {
			return err
		}
		for _, r := range reading.Verified.Rulings() {
			p.statusf("%s", printable(newSigner(r.Signer()).String()))
		}
		p.statusf("pulled %s (%s) to %s", counted(len(pulled.files), "file"), bytesText(pulled.size()), printable(p.dir))
		_, err = fmt.Fprintf(p.out, "%s@%s\n", reading.Image.Repository, reading.Image.Digest)
		return err
	})
}

// warnOfStages names the leftovers of other pulls in the folder.
func (p *pull) warnOfStages() error {
	stages, err := stagesIn(p.dir)
	for _, stage := range stages {
		p.warnf("%s", printable(fmt.Sprintf(unfinished, stage)))
	}
	return err
}

// vet judges the names of what is about to be written: some are refused, and those
// of files that programs obey by themselves are told, before a question.
func (p *pull) vet(ctx context.Context, s *stage, listed *tree) error {
	if err := cmp.Or(listed.checkNames(ctx), listed.checkRepositories(ctx, s.target)); err != nil {
		return err
	}
	found, err := hazards(ctx, listed)
	if err != nil {
		return err
	}
	onPath, err := listed.onPath(ctx, s.target.Name(), filepath.SplitList(p.getenv("PATH")))
	if err != nil {
		return err
	}
	found = append(found, onPath...)
	p.warnOfHazards(found)
	isHidden := func(h hazard) bool { return h.by == "" }
	obeyed := slices.DeleteFunc(slices.Clone(found), isHidden)
	hidden := len(found) - len(obeyed)
	switch {
	case p.force:
		return nil
	case len(obeyed) > 0:
		return confirm(ctx, p.streams, question{fmt.Sprintf("the artifact has %s that programs obey by themselves, such as %q", counted(len(obeyed), "path"), obeyed[0].path), "write"})
	case hidden > fewHazards: // no list of such programs is complete, and not all are named
		return confirm(ctx, p.streams, question{fmt.Sprintf("the artifact has %s that are hidden, of which %d are named", counted(hidden, "path"), fewHazards), "write"})
	default:
		return nil
	}
}

// fewHazards is how many paths are named that one program obeys: nobody finds one of
// them among many thousands.
const fewHazards = 20

// warnOfHazards names what programs obey by themselves, and counts the rest of what
// one of them does.
func (p *pull) warnOfHazards(found []hazard) {
	count := map[string]int{}
	for _, h := range found {
		switch count[h.by]++; {
		case count[h.by] > fewHazards:
		case h.by == "":
			p.warnf("%s", printable(fmt.Sprintf("%q is hidden: if it is meant for a program, that may obey it by itself", h.path)))
		default:
			p.warnf("%s", printable(fmt.Sprintf("%q takes effect by itself: %s obeys it", h.path, h.by)))
		}
	}
	for _, by := range slices.Sorted(maps.Keys(count)) {
		switch more := count[by] - fewHazards; {
		case more <= 0:
		case by == "":
			p.warnf("%d more are hidden; flux bundle inspect lists all files", more)
		default:
			p.warnf("%d more take effect by themselves: %s obeys them; flux bundle inspect lists all files", more, by)
		}
	}
}

// place moves what was unpacked to where it belongs, after a question where that
// overwrites anything.
func (p *pull) place(ctx context.Context, s *stage, pulled *tree) error {
	plan, err := s.plan(ctx, pulled)
	if err != nil {
		return err
	}
	if n := len(plan.overwritten); n > 0 && !p.force {
		fact := fmt.Sprintf("%q has other content in %d of %s, such as %q", p.dir, n, counted(len(pulled.files), "file"), plan.overwritten[0])
		if err := confirm(ctx, p.streams, question{fact, "overwrite"}); err != nil {
			return err
		}
	}
	if err := s.carryOut(ctx, plan); err != nil {
		return err
	}
	if plan.other != "" {
		p.warnf("%q has other files too, such as %q, which are left alone", printable(p.dir), printable(plan.other))
	}
	return nil
}

// question is a fact about some files, and a verb for what to do with them.
type question struct{ fact, verb string }

// confirm asks a person. Without one it refuses.
func confirm(ctx context.Context, s streams, q question) error {
	if !isTerminal(s.in) {
		return fmt.Errorf("%s: give --force to %s them", q.fact, q.verb)
	}
	fmt.Fprintf(s.err, "%s. %s them? [y/N] ", printable(q.fact), strings.ToUpper(q.verb[:1])+q.verb[1:])
	said, err := await(ctx, func() (string, error) {
		line, err := bufio.NewReader(s.in).ReadString('\n') // no answer is no
		if err != nil {
			fmt.Fprintln(s.err) // nobody ended the line of the question
		}
		return strings.ToLower(strings.TrimSpace(line)), nil
	})
	switch {
	case err != nil:
		fmt.Fprintln(s.err)
		return err
	case said == "y" || said == "yes":
		return nil
	default:
		return errors.New("nothing was written")
	}
}

// checkFolder refuses a path at which there can be no folder to write to.
func checkFolder(path string) error {
	folder, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for folder := range upwardsFrom(folder) {
		switch info, err := os.Stat(folder); {
		case err != nil:
		case !info.IsDir():
			return fmt.Errorf("cannot write to %q: %q is a file, expected a folder", path, folder)
		default:
			return nil
		}
	}
	return nil
}
