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

// Package registry talks to container registries: it resolves a reference to
// the bytes of a manifest, copies blobs, proves that a caller may see them, and lists
// the referrers of a digest.
//
// It owns the connection (addresses, redirects, TLS, proxies, deadlines), the
// login (basic, bearer tokens, anonymous), the checks of digest and size, and
// everything that is remembered between two requests. Nothing that one access
// key learned is ever told to another: an access key is the registry's host,
// the repository, the credential, TLS material and proxy, and whether plain
// HTTP is allowed.
//
// It knows no artifact format and no cluster. It trusts nothing that a registry
// says: every read is bounded, every digest is computed, every redirect, login
// realm and address is checked before it is used, and what a registry writes
// into an error is cut and stripped of secrets. It never retries, apart from one
// refresh of an expired token and one more request for a listed digest that is said to
// be missing; whoever calls backs off.
//
// The protocol is the OCI Distribution Specification 1.1; logins follow the
// token specification of CNCF Distribution.
package registry
