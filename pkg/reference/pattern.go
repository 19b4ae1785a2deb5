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

package reference

import (
	"errors"
	"slices"
	"strings"
)

// CanonicalPattern returns the canonical form of a pattern for canonical names. In
// a pattern, * stands for any characters but a slash, none included, and ** for any
// characters. A pattern without stars has the canonical form of the name.
//
// The error says why the pattern can never match a canonical name, or what is
// unclear about it.
func CanonicalPattern(text string) (string, error) {
	if text == "**" {
		return text, nil
	}
	host, path, ok := strings.Cut(text, "/")
	switch {
	case strings.Contains(text, "***"):
		return "", errors.New("it has more than two * in a row")
	case strings.Contains(host, "**") && host != "**":
		return "", errors.New("** must stand alone in the host: it would match across the first slash")
	case !ok && (isHost(host) || strings.Contains(host, "*")):
		return "", errors.New("expected a host and the path of a repository")
	case !ok || !isHost(host) && !strings.Contains(host, "*"):
		host, path = DockerHub, text
	}
	host, err := canonicalHostPattern(host)
	if err != nil {
		return "", neverMatches(err)
	}
	// Letters fit wherever anything fits: if this one does not, nothing matches.
	canonical, err := join(host, path, strings.NewReplacer("**", "a", "*", "a").Replace(path))
	return canonical, neverMatches(err)
}

func neverMatches(err error) error {
	if err == nil {
		return nil
	}
	return errors.New("it can never match: " + err.Error())
}

// canonicalHostPattern returns the canonical form of a host in which * may stand
// for a part. An example must fit that has something in its place.
func canonicalHostPattern(text string) (string, error) {
	if !strings.Contains(text, "*") {
		return CanonicalHost(text)
	}
	if text == "**" {
		return text, nil
	}
	host, port, err := cutPort(text)
	if err != nil {
		return "", err
	}
	if port == ":443" {
		if strings.HasSuffix(host, "*") {
			return "", errors.New("a * at the end of a host stands for the port as well: remove :443, the default port")
		}
		port = ""
	}
	fits := func(part string) bool {
		example := strings.ReplaceAll(host, "*", part) + strings.ReplaceAll(port, "*", "1")
		canonical, err := CanonicalHost(example)
		return err == nil && canonical == example
	}
	if !slices.ContainsFunc([]string{"a", "1", "::1"}, fits) {
		return "", errors.New("no host in its canonical form looks like that, with or without a port")
	}
	return host + port, nil
}
