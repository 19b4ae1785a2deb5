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

// Package controllers turns objects into published artifacts, and reports on them in the
// status.
//
// The ImagePolicy controller only decides whether a policy is a source and generates an
// ArtifactRepository for it. The ArtifactRepository controller does the other work: it reads
// a Snapshot, the Evaluator makes a decision, the Writer carries it out, and the Report
// reports it. The demands of the platform (TrustPolicies) are part of each decision; the
// TrustPolicy controller only writes into the status of a policy whether it can be applied.
package controllers
