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
// everything else stands for itself. A pattern is brought into canonical form as a
// name is, see reference.CanonicalPattern.
type Pattern struct{ expression *regexp.Regexp }

// ParsePattern reads a pattern. The error says why the pattern can never match, or
// what is unclear about it.
func ParsePattern(text string) (Pattern, error) {
	canonical, err := reference.CanonicalPattern(text)
	if err != nil {
		return Pattern{}, fmt.Errorf("the pattern %s is not a pattern for names of repositories: %w", fault.Quote(text), err)
	}
	expression := strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`).Replace(regexp.QuoteMeta(canonical))
	compiled, err := regexp.Compile(`(?s)^` + expression + `$`)
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
