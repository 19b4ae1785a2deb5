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

// Package sign signs what was pushed, as cosign does: with a key pair, by
// digest, and with the signature stored beside the artifact.
//
// It owns what a private key may look like (cosign.key), what is signed (an
// in-toto statement that the digest is signed, or the older simple signing
// claim) and where it is written (a referrer of the artifact, with the fallback
// tag where the registry keeps no list of them, or the tag sha256-<hex>.sig). It
// verifies nothing, which is pkg/trust's, and asks nobody for passwords.
package sign
