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
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/image-source/image-source-controller/test/stage"
)

const (
	// self names this build as the base.
	self = "self"
	// turnTime bounds what one build takes for one scenario.
	turnTime = 5 * time.Minute
)

// build is a build of image-source-controller.
type build struct {
	ours
	name string
	// results is a file in Go's benchmark format.
	results *os.File
}

func (b *build) String() string { return b.name }

// comparison is what every build of this controller does in each round.
func comparison() []scenario {
	return []scenario{
		applications(100), shared(100), signed(50), policies(100, 16*time.Second), growth(200, 10*time.Second),
	}
}

// compare measures the base and this build in alternation, has benchstat compare
// them, and fails if this build is worse than [unit.judge] allows. The base takes part
// twice: its difference from itself is the noise of the machine.
func compare(ctx context.Context, root string, o options) (err error) {
	benchstat := filepath.Join(root, "bin", "tools", "benchstat")
	if _, err := os.Stat(benchstat); err != nil {
		return fmt.Errorf("%w: run make bin/tools/benchstat", err)
	}
	program, commit, err := findBase(ctx, root, o.base)
	if err != nil {
		return err
	}
	b, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Stop()) }()
	if commit != "" {
		program = filepath.Join(b.Dir, "base")
		if err := b.buildCommit(ctx, root, commit, program); err != nil {
			return err
		}
	}
	program = cmp.Or(program, b.Binary)
	builds, err := openBuilds(o.out, program, filepath.Join(b.Dir, "again"))
	if err != nil {
		return err
	}
	b.say("measuring %d rounds on %s", o.rounds, thisMachine())
	err = b.alternate(ctx, builds)
	var inputs []string
	for _, build := range builds {
		err = errors.Join(err, build.results.Close())
		inputs = append(inputs, build.name+"="+build.results.Name())
	}
	if err != nil {
		return err
	}
	text, err := output(ctx, "", benchstat, inputs...)
	if err != nil {
		return err
	}
	fmt.Printf("base: %s\n\n%s\n", cmp.Or(commit, o.base), text)
	table, err := output(ctx, "", benchstat, append([]string{"-format=csv"}, inputs...)...)
	if err != nil {
		return err
	}
	if o.rounds < judgedRounds {
		fmt.Printf("nothing is judged: %d rounds are measured, benchstat needs %d\n", o.rounds, judgedRounds)
		return nil
	}
	return verdict(os.Stdout, table)
}

// findBase returns the program of a base, or the commit to build it from; neither if
// the base is this build.
func findBase(ctx context.Context, root, base string) (program, commit string, err error) {
	if base == self {
		return "", "", nil
	}
	if info, err := os.Stat(base); err == nil && info.Mode().IsRegular() {
		program, err := filepath.Abs(base)
		return program, "", err
	}
	commit, err = output(ctx, root, "git", "rev-parse", "--verify", "--end-of-options", base+"^{commit}")
	if err != nil {
		return "", "", fmt.Errorf("-base %s is neither %q, nor a file, nor a revision: %w", base, self, err)
	}
	return "", strings.TrimSpace(commit), nil
}

// buildCommit builds the controller of a commit in a worktree that it removes.
func (b *bench) buildCommit(ctx context.Context, root, commit, program string) (err error) {
	b.say("checking out %s", commit)
	tree := filepath.Join(b.Dir, "base-sources")
	if _, err := output(ctx, root, "git", "worktree", "add", "--detach", tree, commit); err != nil {
		return err
	}
	defer func() {
		_, failed := output(context.WithoutCancel(ctx), root, "git", "worktree", "remove", "--force", tree)
		err = errors.Join(err, failed)
	}()
	return stage.Build(ctx, tree, program, os.Stderr)
}

// output returns what a command prints. A command that is interrupted can tidy up.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Dir = dir
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	text, err := command.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return string(text), nil
}

// openBuilds returns the builds in the order of the columns, each with a new file
// of results. The second program is made as a copy: resident memory has pages of the
// program's file, and differs by megabytes between two files of the same content.
func openBuilds(folder, program, second string) ([]*build, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(second, content, 0o700); err != nil {
		return nil, err
	}
	builds := []*build{
		{name: "base", ours: ours{program: program}}, {name: "again", ours: ours{program: second}}, {name: "new"},
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	for _, build := range builds {
		if build.results, err = os.Create(filepath.Join(folder, build.name+".txt")); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(build.results, unitLines()); err != nil {
			return nil, err
		}
	}
	return builds, nil
}

// alternate measures round by round. The order of the builds changes with every round.
func (b *bench) alternate(ctx context.Context, builds []*build) error {
	if err := b.push(ctx, warm, b.options.concurrent, first); err != nil {
		return err
	}
	scenarios := slices.DeleteFunc(comparison(), func(s scenario) bool { return !b.options.selects(s.name) })
	for _, s := range scenarios {
		b.say("%s: pushing", s.name)
		if err := s.prepare(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	order := slices.Clone(builds)
	for round := range b.options.rounds {
		b.say("round %d of %d", round+1, b.options.rounds)
		for _, s := range scenarios {
			for _, build := range order {
				if err := b.note(ctx, s, build); err != nil {
					return fmt.Errorf("%s: %s: %w\nlogs: %s", s.name, build, err, b.LogDir())
				}
			}
		}
		slices.Reverse(order)
	}
	return nil
}

// note has a build run a scenario and writes the results.
func (b *bench) note(ctx context.Context, s scenario, which *build) error {
	ctx, cancel := context.WithTimeoutCause(ctx, turnTime, fmt.Errorf("not done after %s", turnTime))
	defer cancel()
	used, err := b.turn(ctx, s, which, false)
	if err != nil {
		return err
	}
	for i, u := range used {
		if _, err := io.WriteString(which.results, resultLine(s.name, s.phases[i], u)); err != nil {
			return err
		}
	}
	return nil
}
