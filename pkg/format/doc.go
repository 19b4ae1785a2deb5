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

// Package format turns an OCI manifest and its blobs into the one file that is
// published: a gzip tar that Flux's consumers read.
//
// It owns what a manifest is (Parse), which format it has (Detect) and how its
// blobs become a file whose bytes depend on nothing but the tree (Convert). It
// knows no registry, no cluster and no store: blobs come in as files that were
// pulled to their end and checked, and one file goes out.
//
// A format is one file of this package and one row of the table in format.go.
package format
