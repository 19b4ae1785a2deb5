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
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/git"
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
	// change tells that what is packed is not what was committed: then neither the
	// revision nor the time is about it.
	change *difference
}

// gather reads where a folder or file comes from, and compares what was packed of
// it with the commit. Nothing of the repository is run: no git command, which
// would obey the configuration of the repository.
// It returns no facts where there is no repository, and with an error those that
// are known all the same.
func gather(ctx context.Context, from *local, packed *format.Packed) (facts, error) {
	repository, err := git.Find(from.folder)
	if errors.Is(err, git.ErrNone) {
		return facts{}, nil
	}
	if err != nil {
		return facts{}, err
	}
	defer repository.Close()
	found, err := factsOf(ctx, repository, from, packed)
	if err != nil {
		err = fmt.Errorf("cannot read the repository %s: %w", repository.Worktree(), err)
	}
	return found, err
}

func factsOf(ctx context.Context, repository *git.Repository, from *local, packed *format.Packed) (facts, error) {
	found := facts{source: withoutPassword(repository.Origin())}
	id, branch, err := repository.Head()
	if errors.Is(err, git.ErrNoCommit) {
		found.change = &difference{}
		return found, nil
	}
	if err != nil {
		return found, err
	}
	commit, err := repository.Commit(ctx, id)
	if err != nil {
		return found, err
	}
	found.change, err = differs(ctx, repository, from, packedOf{packed, id, commit.Tree})
	if err != nil || found.change != nil {
		return found, err
	}
	if branch == "" {
		if branch, err = repository.Tag(ctx, id); err != nil {
			return found, err
		}
	}
	if branch != "" {
		branch += "@"
	}
	found.committed, err = writable(commit.Time)
	if err == nil {
		found.revision = branch + id.Algorithm() + ":" + id.String()
	}
	return found, err
}

// withoutPassword drops what logs in from the address of a repository, because CI
// jobs clone with a token in it: all in front of the host, and the query. Git takes
// characters there that no URL may have, so they go before anything is parsed. What
// is no URL even then is not published at all, nor is a text that no address is.
func withoutPassword(address string) string {
	const longest = 2048
	if len(address) > longest || strings.ContainsFunc(address, unicode.IsControl) {
		return ""
	}
	scheme, rest, found := strings.Cut(address, "://")
	if !found {
		return address // git@host:path, or a path
	}
	host, path, below := strings.Cut(rest, "/")
	if host == "" && scheme != "file" {
		return "" // curl finds a host behind more slashes, and what logs in there
	}
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
func sourceDate(s streams) (time.Time, bool, error) {
	text, found := s.lookupEnv("SOURCE_DATE_EPOCH")
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
	return writable(time.Unix(seconds, 0).UTC())
}

// writable refuses a time that RFC 3339 cannot express.
func writable(date time.Time) (time.Time, error) {
	if date.Year() < 0 || date.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%d seconds since 1970 are in no year that can be written", date.Unix())
	}
	return date, nil
}
