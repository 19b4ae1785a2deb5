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

// Package store owns the published files on this replica's disk and the HTTP
// server that hands them to Flux's consumers.
//
// Below the storage path it keeps three folders:
//
//	externalartifact/<namespace>/<name>/<sha256>.tar.gz   what is served
//	blobs/<sha256>                                        each content once
//	tmp/<random>/                                         work in progress
//
// A served file is a hard link of its blob, so equal content of many sources
// takes its space once. A name appears only when its bytes are complete and
// flushed, and bytes are never changed under a name.
// Scrub reads all files in the background; a file is also read before this process serves
// it for the first time. One with other bytes than its name says loses its names.
//
// The package knows no registry and no cluster: what is live comes in as
// records, and a file that is missing is announced to whoever can make it. It
// neither decides who may have which content: a caller of Link has checked that.
// One process at a time has a storage path open.
//
// Replicas have a store each and the same records. What one of them lacks another
// one may have: see Replica.
package store
