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

// Package limit bounds what it costs to read the bytes of others.
//
// Bytes alone do not bound memory: two bytes of JSON, "0," or "{}", can become
// hundreds once they are decoded. So a document is walked before it is decoded,
// and refused where it has more values than what it is meant for needs.
//
// Keys alone bound no time: one verification with a large RSA key takes minutes. So
// the keys in a document are checked before it is decoded.
//
// It knows neither registries nor formats: what is read, and how much of it, is
// up to who reads.
package limit
