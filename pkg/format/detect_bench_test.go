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

package format_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/test/publish"
)

// BenchmarkDetect parses the manifest of a Flux artifact and detects its format.
func BenchmarkDetect(b *testing.B) {
	artifact, err := publish.FluxImage(static.NewLayer([]byte("layer"), publish.FluxContent))
	if err != nil {
		b.Fatal(err)
	}
	body, err := artifact.RawManifest()
	if err != nil {
		b.Fatal(err)
	}
	mediaType, err := artifact.MediaType()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		m, err := format.Parse(mediaType, body)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := format.Detect(m, format.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
