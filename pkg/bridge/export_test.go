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
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Remember notes more contents than the limit, and returns the kept ones.
func Remember(pulled func(number int) (blobs []v1.Hash, annotations map[string]string)) any {
	kept := newContents(time.Now)
	for number := range 2 * maxContents {
		blobs, annotations := pulled(number)
		kept.made.Add(contentID{digest: blobs[0]}, content{blobs: blobs, annotations: fitting(annotations, maxMetadataKeys, maxKeptBytes)})
	}
	return kept
}
