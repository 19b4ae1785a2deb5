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
	"errors"
	"io/fs"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
)

// TestNothingIsReadBeforeAllOfItIsThere holds that an artifact of which a blob is
// missing, which time may heal, costs no more than its blobs in each attempt.
func TestNothingIsReadBeforeAllOfItIsThere(t *testing.T) {
	b := blobs(t.TempDir())
	damaged := []byte("neither an archive nor an object: \t{")
	missing := v1.Descriptor{MediaType: types.OCILayer, Size: 1, Digest: v1.Hash{Algorithm: "sha256", Hex: "00"}}
	of := func(mediaType types.MediaType, desc v1.Descriptor) v1.Descriptor {
		desc.MediaType = mediaType
		return desc
	}
	for name, m := range map[string]*format.Manifest{
		v1alpha1.FormatImage:   ofImage(t, b, b.put(t, types.OCILayer, damaged), missing),
		v1alpha1.FormatFiles:   filesManifest(titled(b.put(t, types.OCILayer, damaged), "a", unpackMark, "true"), titled(missing, "b", unpackMark, "true")),
		v1alpha1.FormatTekton:  ofImage(t, b, with(b.put(t, types.OCILayer, damaged), about("v1", "task", "a")), with(missing, about("v1", "task", "b"))),
		v1alpha1.FormatKyverno: {Config: v1.Descriptor{MediaType: kyvernoConfig}, Layers: []v1.Descriptor{b.put(t, kyvernoPolicy, damaged), of(kyvernoPolicy, missing)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := format.Convert(t.Context(), m, b, format.Options{Format: name}, t.TempDir())
			NewWithT(t).Expect(errors.Is(err, fs.ErrNotExist)).To(BeTrue(), "%v", err)
		})
	}
}
