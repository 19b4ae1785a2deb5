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
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// facts are what is known about where a folder comes from. A fact that is not
// known is empty.
type facts struct {
	// source is the address of the repository, without credentials.
	source string
	// revision in Flux's form: branch or tag, @, algorithm and commit.
	revision string
	// committed is the time of the commit.
	committed time.Time
	// dirty tells that what is packed is not what was committed: then neither the
	// revision nor the time is about it.
	dirty bool
}

// gather asks git about the folder of a path, and about the files of it that are
// packed. The git command is asked rather than a library, because only it reads
// every repository that it wrote: linked working trees, other ref formats, filters,
// and who may be trusted.
// It returns no facts where there is no repository.
func gather(ctx context.Context, path string, packed []string) (facts, error) {
	folder, err := folderOf(path)
	if err != nil || !isInRepository(folder) {
		return facts{}, err
	}
	g := git{ctx, folder}
	if _, err := g.ask("rev-parse", "--git-dir"); err != nil {
		return facts{}, err // there is no git, or it does not trust the repository
	}
	status, err := g.ask("status", "--porcelain", "--untracked-files=all", "--", path2spec(path))
	if err != nil {
		return facts{}, err
	}
	tracked, err := g.tracks(packed)
	if err != nil {
		return facts{}, err
	}
	// A new repository has no commit.
	commit, err := g.ask("rev-parse", "--quiet", "--verify", "HEAD")
	found := facts{dirty: status != "" || !tracked || err != nil}
	if address, err := g.ask("config", "--get", "remote.origin.url"); err == nil {
		found.source = withoutPassword(address)
	}
	if found.dirty {
		return found, nil
	}
	found.revision = g.name() + algorithmOf(commit) + ":" + commit
	seconds, err := g.ask("show", "--no-patch", "--no-show-signature", "--format=%ct", "HEAD")
	if err != nil {
		return facts{}, err
	}
	found.committed, err = epoch(seconds)
	return found, err
}

// git is the git command in a folder.
type git struct {
	ctx    context.Context //nolint:containedctx // it lives for one call of gather
	folder string
}

// ask returns what git says. The monitor that the configuration of a repository
// may name, a program of anybody's, is not run.
func (g git) ask(args ...string) (string, error) {
	command := exec.CommandContext(g.ctx, "git", append([]string{"-c", "core.fsmonitor=false", "-c", "core.hooksPath=" + os.DevNull}, args...)...) //nolint:gosec // all arguments are ours but a path after --
	command.Dir = g.folder
	command.WaitDelay = time.Second // what git started may hold on to its output
	command.Env = append(os.Environ(), "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0")
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("git %s: %s", args[0], oneLine(said.String()))
	}
	return strings.TrimSuffix(string(out), "\n"), err
}

// tracks tells whether git knows all of some files: its status says nothing of
// those that it is told to ignore, which are packed nevertheless.
func (g git) tracks(files []string) (bool, error) {
	listed, err := g.ask("ls-files", "-z", "--recurse-submodules", "--", ".")
	if err != nil {
		return false, err
	}
	known := map[string]bool{}
	for file := range strings.SplitSeq(listed, "\x00") {
		known[file] = true
	}
	return !slices.ContainsFunc(files, func(file string) bool { return !known[file] }), nil
}

// name returns the branch or the tag that is checked out, and @; nothing when
// there is none.
func (g git) name() string {
	if branch, err := g.ask("symbolic-ref", "--quiet", "--short", "HEAD"); err == nil {
		return branch + "@"
	}
	if tag, err := g.ask("describe", "--tags", "--exact-match", "HEAD"); err == nil {
		return tag + "@"
	}
	return ""
}

func algorithmOf(commit string) string {
	const sha256Digits = 64
	if len(commit) == sha256Digits {
		return "sha256"
	}
	return "sha1"
}

// folderOf returns the folder of a path that may be a file.
func folderOf(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.IsDir() {
		return path, nil
	}
	return filepath.Dir(path), nil
}

// path2spec names the path within its folder.
func path2spec(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return ":(literal)" + filepath.Base(path)
	}
	return "."
}

// isInRepository spares folders outside of a repository the question, and the
// need for git.
func isInRepository(folder string) bool {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return false
	}
	for folder := range upwardsFrom(folder) {
		if _, err := os.Lstat(filepath.Join(folder, ".git")); err == nil {
			return true
		}
	}
	return false
}

// withoutPassword drops what logs in from the address of a repository, because CI
// jobs clone with a token in it: all in front of the host, and the query. Git takes
// characters there that no URL may have, so they go before anything is parsed. What
// is no URL even then is not published at all.
func withoutPassword(address string) string {
	scheme, rest, found := strings.Cut(address, "://")
	if !found {
		return address // git@host:path, or a path
	}
	host, path, below := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(host, '@'); i >= 0 {
		user, _, _ := strings.Cut(host[:i], ":")
		host = host[i+1:]
		if scheme == "ssh" {
			host = user + "@" + host
		}
	}
	if below {
		host += "/" + path
	}
	parsed, err := url.Parse(scheme + "://" + host)
	if err != nil {
		return ""
	}
	parsed.RawQuery, parsed.ForceQuery, parsed.Fragment, parsed.RawFragment = "", false, "", ""
	return parsed.String()
}

// sourceDate is the time that SOURCE_DATE_EPOCH says, and false when it says
// none: https://reproducible-builds.org/specs/source-date-epoch/.
func (a *app) sourceDate() (time.Time, bool, error) {
	text, found := a.lookupEnv("SOURCE_DATE_EPOCH")
	if !found || text == "" {
		return time.Time{}, false, nil
	}
	date, err := epoch(text)
	if err != nil {
		return time.Time{}, false, fmt.Errorf("SOURCE_DATE_EPOCH is %q, expected seconds since 1970", text)
	}
	return date, true, nil
}

func epoch(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	date := time.Unix(seconds, 0).UTC()
	if date.Year() < 0 || date.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s is in no year that can be written", text)
	}
	return date, nil
}
