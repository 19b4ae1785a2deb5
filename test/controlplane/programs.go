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

package controlplane

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Names of the programs that [Build] builds.
const (
	Etcd                     = "etcd"
	APIServer                = "kube-apiserver"
	ControllerManager        = "kube-controller-manager"
	Kubectl                  = "kubectl"
	DistributionRegistry     = "registry"
	ImageReflectorController = "image-reflector-controller"
	KustomizeController      = "kustomize-controller"
	SourceController         = "source-controller"
	HelmController           = "helm-controller"
	NotificationController   = "notification-controller" // for make interop, built only on request
	Cosign                   = "cosign"                  // a client, built only on request
)

// recipe says how one program is built.
type recipe struct {
	name string
	// module is the directory below programs/ with the pinned go.mod.
	module string
	// pkg is the main package, as go build takes it inside module.
	pkg string
	// about is how long a build takes on two cores from a cold build cache, in
	// the order of the list.
	about time.Duration
	// ldflags are linker flags in addition to those of every program.
	ldflags string
	// crds are the Go modules, by directory below programs/, whose
	// CustomResourceDefinitions the program needs.
	crds []string
	// onRequest excludes the program from the default set.
	onRequest bool
}

// kubernetesVersion makes the programs report the version of their module, as
// a release build does; charts and clients compare it.
const kubernetesVersion = "-X k8s.io/component-base/version.gitVersion=v1.36.1 -X k8s.io/client-go/pkg/version.gitVersion=v1.36.1"

// recipes lists every program, in the order in which they are built.
//
// The modules of the Flux controllers require the same versions of what they
// share, so that a package is compiled once for all of them.
func recipes() []recipe {
	return []recipe{
		{name: Etcd, module: "etcd", pkg: "go.etcd.io/etcd/server/v3", about: 30 * time.Second},
		{name: APIServer, module: "kubernetes", pkg: "./cmd/kube-apiserver", about: 5 * time.Minute, ldflags: kubernetesVersion},
		{name: ControllerManager, module: "kubernetes", pkg: "./cmd/kube-controller-manager", about: time.Minute, ldflags: kubernetesVersion},
		{name: Kubectl, module: "kubernetes", pkg: "./cmd/kubectl", about: 30 * time.Second, ldflags: kubernetesVersion},
		{name: DistributionRegistry, module: "registry", pkg: "github.com/distribution/distribution/v3/cmd/registry", about: time.Minute},
		{name: ImageReflectorController, module: "image-reflector-controller", pkg: fluxModule(ImageReflectorController), about: 2 * time.Minute, crds: []string{ImageReflectorController}},
		{name: KustomizeController, module: "kustomize-controller", pkg: fluxModule(KustomizeController), about: time.Minute, crds: []string{KustomizeController, SourceController}},
		{name: SourceController, module: "source-controller", pkg: fluxModule(SourceController), about: time.Minute, crds: []string{SourceController}},
		{name: HelmController, module: "helm-controller", pkg: fluxModule(HelmController), about: 30 * time.Second, crds: []string{HelmController, SourceController}},

		// Built only on request.
		{name: NotificationController, module: "notification-controller", pkg: fluxModule(NotificationController), about: 2 * time.Minute, crds: []string{NotificationController}, onRequest: true},
		{name: "kustomize", module: "kustomize", pkg: "sigs.k8s.io/kustomize/kustomize/v5", about: 30 * time.Second, onRequest: true},
		{name: "helm", module: "helm", pkg: "helm.sh/helm/v4/cmd/helm", about: 2 * time.Minute, onRequest: true},
		{name: Cosign, module: "cosign", pkg: "github.com/sigstore/cosign/v3/cmd/cosign", about: 2 * time.Minute, onRequest: true},
		{name: "crane", module: "crane", pkg: "github.com/google/go-containerregistry/cmd/crane", about: 30 * time.Second, onRequest: true},
	}
}

// fluxModule is the Go module of a Flux controller, which is its main package
// and the home of its CustomResourceDefinitions as well.
func fluxModule(controller string) string {
	return "github.com/fluxcd/" + controller
}

// FluxControllers names the Flux controllers that a control plane can run.
func FluxControllers() []string {
	return []string{ImageReflectorController, KustomizeController, SourceController, HelmController}
}

// selectRecipes returns the recipes of the named programs, in building order, or
// of the default set if there are no names.
func selectRecipes(names []string) ([]recipe, error) {
	all := recipes()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(r recipe) bool { return r.name == name }) {
			return nil, fmt.Errorf("no program is called %q; known are %s", name, strings.Join(recipeNames(all), ", "))
		}
	}
	return slices.DeleteFunc(all, func(r recipe) bool {
		if len(names) == 0 {
			return r.onRequest
		}
		return !slices.Contains(names, r.name)
	}), nil
}

func recipeNames(recipes []recipe) []string {
	names := make([]string, 0, len(recipes))
	for _, r := range recipes {
		names = append(names, r.name)
	}
	return names
}
