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
	"maps"
	"slices"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// What a registry may put into the status of two objects is bounded.
const (
	maxMetadataKeys  = 64
	maxMetadataBytes = 32 << 10
)

// metadata is the annotations of a manifest, as many as fit in the order of
// their keys, and what this project says itself, which always fits and wins.
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
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		value := annotations[key]
		if _, reserved := ours[key]; reserved || len(all) == maxMetadataKeys || size+len(key)+len(value) > maxMetadataBytes {
			continue
		}
		all[key] = value
		size += len(key) + len(value)
	}
	return all
}
