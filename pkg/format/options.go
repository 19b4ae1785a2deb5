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

package format

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/fluxcd/pkg/sourceignore"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// DefaultPlatform is the platform that is read from an index when none is named.
const DefaultPlatform = "linux/amd64"

// Options say how a manifest becomes content.
type Options struct {
	// Format is one of the formats of api/v1alpha1. Empty or FormatAuto: the
	// media types decide. Anything else pins the format.
	Format string
	// Platform picks the manifest of an index, as os/architecture. Empty:
	// DefaultPlatform.
	Platform string
	// LayerSelector picks one layer, by media type or the first, as on
	// OCIRepository. Nil or empty: the format decides.
	LayerSelector *sourcev1.OCILayerSelector
	// Ignore are patterns of files to leave out, in the format of .sourceignore.
	// Nil: the patterns that Flux leaves out by default.
	Ignore *string
	// Limits bound what is read and written. A zero field means its default.
	Limits Limits
	// Image is the reference that messages name, such as
	// ghcr.io/org/app:1.0.0@sha256:...
	Image string
	// Report is filled by Convert; nil when nobody wants to know. It belongs to
	// one conversion.
	Report *Report
}

// Limits bound one artifact. Entries and IndexBytes bound the memory that its
// paths take; the others bound disk, time and what a consumer has to unpack.
// What else is held in memory, such as ignore files or an object that is looked
// into, has bounds that nobody sets.
type Limits struct {
	// ArtifactBytes bounds each blob that is read, and the file that is
	// published (--max-artifact-bytes).
	ArtifactBytes int64
	// UncompressedBytes bounds what a layer holds when it is unpacked, with the
	// headers and padding of its archive (--max-uncompressed-bytes).
	UncompressedBytes int64
	// Entries bounds the entries of an archive, whatever their type, and the
	// files and folders that they make, named or implied (--max-entries).
	Entries int
	// Depth bounds the elements of a path.
	Depth int
	// NameBytes bounds the length of a path.
	NameBytes int
	// IndexBytes bounds the paths of all files and folders together: they are
	// held in memory. Those with capital letters count twice but for images, which
	// tell names apart by case.
	IndexBytes int64
	// Layers bounds the layers of a manifest (--max-layers). More than 1000 are
	// never read.
	Layers int
}

// DefaultLimits returns the limits that hold where the platform sets none.
func DefaultLimits() Limits {
	return Limits{
		ArtifactBytes:     512 << 20,
		UncompressedBytes: 2 << 30,
		Entries:           100_000,
		Depth:             64,
		NameBytes:         1024,
		IndexBytes:        8 << 20,
		Layers:            100,
	}
}

// withDefaults fills what is not set.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		ArtifactBytes:     cmp.Or(l.ArtifactBytes, d.ArtifactBytes),
		UncompressedBytes: cmp.Or(l.UncompressedBytes, d.UncompressedBytes),
		Entries:           cmp.Or(l.Entries, d.Entries),
		Depth:             cmp.Or(l.Depth, d.Depth),
		NameBytes:         cmp.Or(l.NameBytes, d.NameBytes),
		IndexBytes:        cmp.Or(l.IndexBytes, d.IndexBytes),
		Layers:            cmp.Or(l.Layers, d.Layers),
	}
}

// settings are the options that decide what content a given digest becomes,
// each in one spelling: what means the default is left out.
type settings struct {
	Format         string  `json:"format,omitempty"`
	Platform       string  `json:"platform,omitempty"`
	LayerMediaType string  `json:"layerMediaType,omitempty"`
	LayerOperation string  `json:"layerOperation,omitempty"`
	Ignore         *string `json:"ignore,omitempty"`
}

func (o Options) settings() settings {
	var s settings
	if o.Format != v1alpha1.FormatAuto {
		s.Format = o.Format
	}
	if o.Platform != DefaultPlatform {
		s.Platform = o.Platform
	}
	if l := o.LayerSelector; l != nil {
		s.LayerMediaType = l.MediaType
		// With a media type the operation is extract where it is not set; without
		// one, extract asks for the first layer, and nothing for what the format gives.
		if l.MediaType == "" || l.Operation != sourcev1.OCILayerExtract {
			s.LayerOperation = l.Operation
		}
	}
	// Text without a pattern ignores nothing beyond the defaults.
	if o.Ignore != nil && len(sourceignore.ReadPatterns(strings.NewReader(*o.Ignore), nil)) > 0 {
		// A block of YAML ends with a line feed, a value of a flag does not.
		text := strings.TrimRight(*o.Ignore, "\n") + "\n"
		s.Ignore = &text
	}
	return s
}

// IsDefault reports whether the content is what it would be with no settings
// at all. A default that is written out (Auto, linux/amd64, a selector of
// nothing, an ignore without a pattern) is still the default.
func IsDefault(o Options) bool { return o.settings() == settings{} }

// ContentHash returns the hash, in hex, of all that decides how a digest
// becomes content: the settings and the version of our archive. Options that
// mean the same have the same hash.
func ContentHash(o Options) string {
	recipe := struct {
		ArchiveVersion int `json:"archiveVersion"`
		settings
	}{ArchiveVersion, o.settings()}
	b, err := json.Marshal(recipe)
	if err != nil {
		panic("format: settings always marshal: " + err.Error()) // strings and an int
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
