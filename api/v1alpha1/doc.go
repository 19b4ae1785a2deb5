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

// Package v1alpha1 is the API of image-source-controller: the kinds, the
// useAsSource vocabulary, and the one list of condition reasons.
//
// Types that Flux publishes are reused, so that a field means here what it
// means there.
//
// +kubebuilder:object:generate=true
// +groupName=source.contrib.fluxcd.io
package v1alpha1
