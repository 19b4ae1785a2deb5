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

package bridge

import (
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/image-source/image-source-controller/pkg/format"
)

// contentMark is the number of hexadecimal digits of the content hash in a revision.
const contentMark = 8

// revision returns the revision <tag>@sha256:<digest>, or sha256:<digest> without a tag
// (Flux RFC-0012). Consumers compare only revisions, so content settings other than the
// defaults are part of it: <tag>+<mark>@sha256:<digest>, or c<mark>@sha256:<digest>. A tag
// cannot contain a plus sign, so no tag can look like another one with settings.
func revision(image Image, content format.Options) string {
	mark := ""
	if !format.IsDefault(content) {
		mark = format.ContentHash(content)[:contentMark]
	}
	switch {
	case image.Tag != "" && mark != "":
		return image.Tag + "+" + mark + "@" + image.Digest.String()
	case image.Tag != "":
		return image.Tag + "@" + image.Digest.String()
	case mark != "":
		return "c" + mark + "@" + image.Digest.String()
	default:
		return image.Digest.String()
	}
}

// nameable returns the image as a revision may name it. helm-controller reads a tag that is
// a version, even a lenient one (1.2, 20260801), as a promise of this chart version, and
// refuses any other: such a tag is left out. Helm writes an underscore for the plus sign of
// a version.
func nameable(image Image, chartVersion string) Image {
	if chartVersion == "" {
		return image
	}
	promised, err := semver.NewVersion(strings.ReplaceAll(image.Tag, "_", "+"))
	if err != nil {
		return image
	}
	version, err := semver.NewVersion(chartVersion)
	if err != nil || !promised.Equal(version) {
		image.Tag = ""
	}
	return image
}
