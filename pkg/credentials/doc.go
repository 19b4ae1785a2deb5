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

// Package credentials turns what an object names to open a registry - Secrets,
// a ServiceAccount, a cloud provider - into the access that pkg/registry takes.
//
// It owns what such a Secret may look like, which of several credentials wins,
// and the fingerprint by which accesses are told apart. It means the same by
// each reference as image-reflector-controller does, because the image that one
// controller scans the other must be able to fetch. Of a Secret and a cloud,
// though, Flux lets the Secret win on an OCIRepository and the cloud on an
// ImageRepository; here the Secret wins, unless PreferProvider of pkg/access is asked.
//
// It speaks to no registry and remembers nothing but its key: Secrets and
// ServiceAccounts are read one at a time, when they are needed, with the verb
// get, and cloud tokens are kept by the token cache that it is given. No error
// repeats anything of what a Secret holds.
package credentials
