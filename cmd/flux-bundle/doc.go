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

// Command flux-bundle packages, signs and pushes what image-source-controller
// and Flux deploy, and shows, pulls, verifies and compares what is in a
// registry. It works by itself and as a plugin of the Flux CLI, which runs it
// as flux bundle.
//
// Each verb has a file of its own, and root.go lists them. They share the app in
// app.go: streams, global flags and access to registries. Files do not refer to each
// other in a circle.
package main
