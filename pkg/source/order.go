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

package source

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"

	"github.com/image-source/image-source-controller/pkg/limit"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// admits reports whether a policy could pick a tag.
func admits(spec imagev1.ImagePolicySpec, tag string) bool {
	by, ok := ordered(spec.FilterTags, tag)
	if !ok || spec.Policy.SemVer == nil {
		return ok
	}
	within, err := constraint(spec)
	if err != nil {
		return false
	}
	parsed, err := parseVersion(by)
	return err == nil && within.Check(parsed)
}

// maxScanned is the number of tags that image-reflector-controller writes into a status. The
// schema limits neither the number nor the length of tags, and tenants may be able to edit
// it.
const maxScanned = 10

// unseenBuild returns a tag of the last scan for a version with build metadata, which the
// policy does not see: Helm writes _ for the + of a version, and image-reflector-controller
// does not read it so. A status holds only a few of the tags.
func unseenBuild(spec imagev1.ImagePolicySpec, repository *imagev1.ImageRepository) string {
	if spec.Policy.SemVer == nil || repository.Status.LastScanResult == nil {
		return ""
	}
	within, err := constraint(spec)
	if err != nil {
		return ""
	}
	tags := repository.Status.LastScanResult.LatestTags
	for _, tag := range tags[:min(len(tags), maxScanned)] {
		if !reference.IsTag(tag) {
			continue
		}
		if by, ok := ordered(spec.FilterTags, tag); !ok || by != tag {
			continue
		}
		if _, err := parseVersion(tag); err == nil {
			continue
		}
		if version, err := parseVersion(versionOf(tag)); err == nil && within.Check(version) {
			return tag
		}
	}
	return ""
}

// versionOf returns the version of the chart that Helm stores under a tag.
func versionOf(tag string) string { return strings.Replace(tag, "_", "+", 1) }

// BuildAdvice returns the advice for an invisible tag.
func BuildAdvice(tag string) string {
	return fmt.Sprintf("the tag %s stands for the version %s, which the policy does not see: let filterTags extract the version from such tags", tag, versionOf(tag))
}

// inOnePlace reports whether a policy admits two tags and gives them the same place in its
// order.
func inOnePlace(spec imagev1.ImagePolicySpec, one, other string) bool {
	one, admitsOne := ordered(spec.FilterTags, one)
	other, admitsOther := ordered(spec.FilterTags, other)
	if !admitsOne || !admitsOther {
		return false
	}
	if spec.Policy.SemVer == nil {
		return one == other
	}
	a, errA := parseVersion(one)
	b, errB := parseVersion(other)
	return errA == nil && errB == nil && a.Equal(b)
}

// constraint returns the range of a semver policy. The schema of an ImagePolicy sets no
// limits.
func constraint(spec imagev1.ImagePolicySpec) (*semver.Constraints, error) {
	if size := len(spec.Policy.SemVer.Range); size > limit.MaxExpression {
		return nil, fmt.Errorf("the range has %d bytes, expected at most %d", size, limit.MaxExpression)
	}
	return semver.NewConstraint(spec.Policy.SemVer.Range)
}

// parseVersion reads a version as image-reflector-controller does: with or without a v, and
// with leading zeros, but not shortened.
func parseVersion(text string) (*semver.Version, error) {
	if strings.Count(text, ".") < 2 {
		return nil, semver.ErrInvalidSemVer
	}
	return semver.NewVersion(text)
}

// ordered returns the text by which a policy orders a valid tag, and whether its filter
// admits the tag. A filter of excessive cost admits no tag: the schema of an ImagePolicy
// sets no limits.
func ordered(filter *imagev1.TagFilter, tag string) (by string, ok bool) {
	if filter == nil {
		return tag, true
	}
	pattern, err := limit.Expression(filter.Pattern)
	if err != nil || len(filter.Extract) > limit.MaxExpression {
		return "", false
	}
	match := pattern.FindStringSubmatchIndex(tag)
	if match == nil || filter.Extract == "" {
		return tag, match != nil
	}
	return string(pattern.ExpandString(nil, filter.Extract, tag, match)), true
}
