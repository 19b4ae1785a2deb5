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

package trust

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Pattern matches canonical names of repositories. A * stands for any
// characters but a slash, none included, and ** for any characters at all;
// everything else stands for itself.
//
// A pattern is brought into canonical form as a name is, see reference.Canonical; it
// is a name of Docker Hub where the first segment is no host. In the host, ** stands alone: **.example.com would reach into paths.
type Pattern struct{ expression *regexp.Regexp }

var patternText = regexp.MustCompile(`^[A-Za-z0-9._:/*\[\]-]+$`)

// ParsePattern reads a pattern. Its error says why nothing could ever match.
func ParsePattern(text string) (Pattern, error) {
	canonical, err := canonicalPattern(text)
	if err != nil {
		return Pattern{}, err
	}
	var expression strings.Builder
	for rest := canonical; rest != ""; {
		literal, stars := rest, ""
		if i := strings.Index(rest, "*"); i >= 0 {
			literal, stars = rest[:i], "*"
			if strings.HasPrefix(rest[i:], "**") {
				stars = "**"
			}
		}
		expression.WriteString(regexp.QuoteMeta(literal))
		switch stars {
		case "*":
			expression.WriteString(`[^/]*`)
		case "**":
			expression.WriteString(`.*`)
		}
		rest = rest[len(literal)+len(stars):]
	}
	compiled, err := regexp.Compile(`(?s)^` + expression.String() + `$`)
	if err != nil {
		return Pattern{}, fmt.Errorf("the pattern %s cannot be read", fault.Quote(text))
	}
	return Pattern{expression: compiled}, nil
}

// Matches tells whether a canonical name of a repository matches all of the
// pattern. The zero Pattern matches nothing.
func (p Pattern) Matches(repository string) bool {
	return p.expression != nil && repository != "" && p.expression.MatchString(repository)
}

func canonicalPattern(text string) (string, error) {
	if !patternText.MatchString(text) {
		return "", fmt.Errorf("the pattern %s must be the name of a repository, in which * and ** stand for other characters", fault.Quote(text))
	}
	if text == "**" {
		return text, nil
	}
	host, path, ok := strings.Cut(text, "/")
	switch {
	case strings.Contains(host, "**") && host != "**":
		return "", fmt.Errorf("in the pattern %s, ** must stand alone in the host: it would match across the first slash", fault.Quote(text))
	case strings.Contains(host, "***") || strings.Contains(path, "***"):
		return "", fmt.Errorf("the pattern %s has more than two * in a row", fault.Quote(text))
	case !ok && !isHost(host):
		host, path = reference.DockerHub, host
	case !isHost(host):
		host, path = reference.DockerHub, text
	}
	switch {
	case path == "" || strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.Contains(path, "//"):
		return "", fmt.Errorf("the pattern %s must be a host and the name of a repository", fault.Quote(text))
	case path != strings.ToLower(path) || strings.ContainsAny(path, ":[]"):
		return "", fmt.Errorf("the pattern %s can match no repository: names are in lower case, and tags and digests are no part of them", fault.Quote(text))
	}
	return reference.Canonical(host + "/" + path), nil
}

// isHost tells a host from the first segment of a name of Docker Hub, as every
// client does; what has a * may be any host.
func isHost(segment string) bool {
	return strings.ContainsAny(segment, ".:*") || segment == "localhost"
}
