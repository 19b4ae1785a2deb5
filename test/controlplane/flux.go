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
	"context"
	"fmt"
	"slices"
	"strings"
)

// startFlux starts one Flux controller.
func (cp *ControlPlane) startFlux(ctx context.Context, controller string, extra []string) error {
	data, err := cp.NewDir(controller)
	if err != nil {
		return err
	}
	temporary, err := cp.NewDir(controller + "-tmp")
	if err != nil {
		return err
	}
	_, _, err = cp.supervisor.startListening(ctx, 3, func(addresses []string) Program {
		metrics, health, storage := addresses[0], addresses[1], addresses[2]
		common := []string{"--metrics-addr=" + metrics, "--health-addr=" + health}
		return Program{
			Name: controller,
			Path: cp.path(controller),
			Args: slices.Concat(common, fluxArguments(controller, data, storage), extra),
			Env: []string{
				"KUBECONFIG=" + cp.kubeconfig,
				"RUNTIME_NAMESPACE=" + FluxNamespace,
				"TMPDIR=" + temporary,
			},
			Ready: HTTPReady("http://"+health+"/readyz", nil),
		}
	})
	return err
}

// fluxArguments returns the flags that only one of the controllers has.
func fluxArguments(controller, data, storageAddress string) []string {
	switch controller {
	case ImageReflectorController:
		return []string{"--storage-path=" + data}
	case SourceController:
		return []string{
			"--storage-path=" + data,
			"--storage-addr=" + storageAddress,
			"--storage-adv-addr=" + storageAddress,
		}
	case KustomizeController, HelmController:
		return []string{"--feature-gates=ExternalArtifact=true"}
	default:
		return nil
	}
}

// checkFluxControllers returns an error if one of the names is none of a Flux
// controller.
func checkFluxControllers(names []string) error {
	for _, name := range names {
		if !slices.Contains(FluxControllers(), name) {
			return fmt.Errorf("no Flux controller is called %q; known are %s", name, strings.Join(FluxControllers(), ", "))
		}
	}
	return nil
}
