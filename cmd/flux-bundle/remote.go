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
	"errors"
	"net/http"
	"regexp"
	"strings"
)

// noNetwork is a transport that sends nothing.
type noNetwork struct{}

const refused = "the network is not used in here"

func (noNetwork) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New(refused) }

// noGit begins the error of kustomize where the search path has no git.
const noGit = "no 'git' program on path"

// wanted finds in such an error the address that kustomize would fetch.
var wanted = regexp.MustCompile(`Get "([^"]*)": ` + refused + `|accumulating resources from '([^']*)'`)

// remoteIn tells whether an error of kustomize is that it needs the network or git,
// and for what. kustomize keeps no more than the words of an error.
func remoteIn(err error) (what string, needed bool) {
	text := err.Error()
	if !strings.Contains(text, refused) && !strings.Contains(text, noGit) {
		return "", false
	}
	if found := wanted.FindStringSubmatch(text); found != nil {
		return cmp.Or(found[1], found[2]), true
	}
	return "a remote base", true
}

// remoteBase is the beginning of an address that kustomize fetches: with a scheme that it knows or
// with a user. GitHub alone may be named by its host, which else is a folder of that
// name: https://github.com/kubernetes-sigs/kustomize/blob/api/v0.21.1/api/internal/git/repospec.go.
// It only chooses the words of an error: kustomize decides what is remote.
var remoteBase = regexp.MustCompile(`(?i)^(git::)?((ssh|https?|file)://|[a-z][a-z0-9-]*@|github\.com[/:])`)
