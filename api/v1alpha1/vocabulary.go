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

package v1alpha1

// UseAsSource is the one word that turns images into sources. It is a label of
// a Namespace (UseAsSourceEnabled, UseAsSourceAll) and an annotation of an
// ImageRepository or ImagePolicy (UseAsSourceTrue, UseAsSourceFalse).
const UseAsSource = Group + "/useAsSource"

const (
	// UseAsSourceEnabled on a Namespace lets the annotations of the image
	// objects in it count.
	UseAsSourceEnabled = "enabled"
	// UseAsSourceAll on a Namespace makes every ImagePolicy in it a source,
	// unless the policy or its ImageRepository is annotated UseAsSourceFalse.
	UseAsSourceAll = "all"
	// UseAsSourceTrue on an image object makes it a source.
	UseAsSourceTrue = "true"
	// UseAsSourceFalse on an image object keeps it from being a source.
	UseAsSourceFalse = "false"
)

// MadeByLabel names the kind of the object that an object was generated for, which has
// the same name. It tells it where the owner reference is lost, as after a restore from
// a backup; beside a controller it means nothing.
const MadeByLabel = Group + "/made-by"

// Keys of an artifact's metadata that this project sets, beside the
// annotations of the image's manifest, of which those under the group are left out.
const (
	// MetadataImage is the repository that the content was pulled from.
	MetadataImage = Group + "/image"
	// MetadataTag is the tag that was resolved; absent when there was none.
	MetadataTag = Group + "/tag"
	// MetadataDigest is the digest of the image's manifest.
	MetadataDigest = Group + "/digest"
	// MetadataFormat is the format that the content was read as.
	MetadataFormat = Group + "/format"
	// MetadataVerifiedBy names who verified the image; absent when nobody did.
	MetadataVerifiedBy = Group + "/verifiedBy"
	// MetadataChartVersion is the version in the Chart.yaml of a Helm chart, on
	// which the revision depends; absent when the content is no chart.
	MetadataChartVersion = Group + "/chartVersion"
)

// Formats that spec.format pins. FormatAuto detects one of the others from the
// media types of the manifest; FormatImage is never detected, only pinned.
const (
	FormatAuto    = "Auto"
	FormatFlux    = "Flux"
	FormatHelm    = "Helm"
	FormatTekton  = "Tekton"
	FormatImgpkg  = "Imgpkg"
	FormatFiles   = "Files"
	FormatKyverno = "Kyverno"
	FormatImage   = "Image"
)

// FormatLayer is what status.format says of content that a layer selector took
// from an image of none of the other formats, or from one of Tekton or Kyverno,
// whose objects are not checked in a layer alone. Nobody pins it.
const FormatLayer = "Layer"
