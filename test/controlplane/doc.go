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

// Package controlplane runs a real Kubernetes control plane with Flux on the
// loopback interface, without containers: etcd, kube-apiserver,
// kube-controller-manager, registries and the Flux controllers.
//
// Every program is built from a pinned Go module below programs/ into
// bin/controlplane of the repository, once; [Build] knows how, [Start] runs
// what was built and [ControlPlane.Stop] ends it. There is no scheduler, no
// kubelet and no cluster network: no Pod ever runs.
//
// A test that needs only an API server has [Options.APIServerOnly].
//
// The package owns programs and their processes. It does not own what the tests
// do with them: fixtures, assertions and scenarios live elsewhere.
package controlplane
