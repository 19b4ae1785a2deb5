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
	"cmp"
	"maps"
	"slices"
	"strings"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// Bounds for the annotations that a registry may put into the status of two objects.
const (
	maxMetadataKeys  = 64
	maxMetadataBytes = 32 << 10
	// maxKeptBytes bounds the annotations in memory for content from an index.
	maxKeptBytes = 8 << 10
)

// metadata returns the annotations of a manifest, as many as fit, and those of this project,
// which always fit. A manifest cannot set annotations of our group.
func metadata(annotations map[string]string, out Outcome) map[string]string {
	ours := map[string]string{
		v1alpha1.MetadataImage:        out.Image.Repository,
		v1alpha1.MetadataTag:          out.Image.Tag,
		v1alpha1.MetadataDigest:       out.Image.Digest.String(),
		v1alpha1.MetadataFormat:       out.Format,
		v1alpha1.MetadataVerifiedBy:   out.VerifiedBy,
		v1alpha1.MetadataChartVersion: out.chartVersion, // a revision depends on it, see nameable
	}
	all, size := map[string]string{}, 0
	for key, value := range ours {
		size += len(key) + len(value)
		if value != "" {
			all[key] = value
		}
	}
	foreign := maps.Clone(annotations)
	maps.DeleteFunc(foreign, func(key, _ string) bool { return strings.HasPrefix(key, v1alpha1.Group+"/") })
	maps.Copy(all, fitting(foreign, maxMetadataKeys-len(all), maxMetadataBytes-size))
	return all
}

// fitting returns the annotations that fit into a number of keys and of bytes: first those
// that Flux shows, then others of the image specification, then the rest.
func fitting(annotations map[string]string, keys, bytes int) map[string]string {
	fit := map[string]string{}
	for _, key := range slices.SortedFunc(maps.Keys(annotations), compareKeys) {
		if size := len(key) + len(annotations[key]); len(fit) < keys && size <= bytes {
			fit[key] = annotations[key]
			bytes -= size
		}
	}
	return fit
}

// compareKeys sorts annotations by their worth to readers.
func compareKeys(a, b string) int {
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

// rank is the place of a key among the annotations of the image specification
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md).
func rank(key string) int {
	standard := []string{
		specs.AnnotationSource, specs.AnnotationRevision, specs.AnnotationCreated, specs.AnnotationVersion, specs.AnnotationURL,
		specs.AnnotationTitle, specs.AnnotationRefName, specs.AnnotationBaseImageDigest, specs.AnnotationBaseImageName,
		specs.AnnotationVendor, specs.AnnotationLicenses, specs.AnnotationDocumentation, specs.AnnotationAuthors, specs.AnnotationDescription,
	}
	if place := slices.Index(standard, key); place >= 0 {
		return place
	}
	return len(standard)
}
