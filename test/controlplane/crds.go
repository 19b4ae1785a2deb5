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
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
)

//go:generate go run ./cmd/controlplane crds

// committedCRD is a file of [CRDDir] and the Flux controller that it comes from.
type committedCRD struct {
	controller, file string
}

func committedCRDs() []committedCRD {
	return []committedCRD{
		{ImageReflectorController, "image.toolkit.fluxcd.io_imagepolicies.yaml"},
		{ImageReflectorController, "image.toolkit.fluxcd.io_imagerepositories.yaml"},
		{SourceController, "source.toolkit.fluxcd.io_externalartifacts.yaml"},
	}
}

// UpdateCRDs replaces the files of [CRDDir] by those of the versions of the Flux
// controllers that programs/ pins.
func UpdateCRDs(ctx context.Context) error {
	target, err := CRDDir()
	if err != nil {
		return err
	}
	return copyPinnedCRDs(ctx, target)
}

// copyPinnedCRDs copies the CustomResourceDefinitions that are to be committed
// into target.
func copyPinnedCRDs(ctx context.Context, target string) error {
	places, err := locate("")
	if err != nil {
		return err
	}
	b, err := newBuilder(ctx, places, nil)
	if err != nil {
		return err
	}
	defer b.close()
	for _, crd := range committedCRDs() {
		source, err := b.crdSource(ctx, crd.controller)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(filepath.Join(source, crd.file))
		if err != nil {
			return fmt.Errorf("copying a CustomResourceDefinition of %s: %w", crd.controller, err)
		}
		if err := os.WriteFile(filepath.Join(target, crd.file), content, 0o644); err != nil {
			return fmt.Errorf("copying a CustomResourceDefinition of %s: %w", crd.controller, err)
		}
	}
	return nil
}

// crdsServedWithin bounds the time from the creation of a
// CustomResourceDefinition until the API server serves it.
const crdsServedWithin = 30 * time.Second

// installCRDs installs the CustomResourceDefinitions in CRDDir, those of the
// given Flux controllers and those at further paths, and waits until all are
// served.
func (cp *ControlPlane) installCRDs(ctx context.Context, options Options) error {
	committed, err := CRDDir()
	if err != nil {
		return err
	}
	paths := []string{committed}
	for _, controller := range options.Controllers {
		paths = append(paths, filepath.Join(cp.dir, "crds", controller))
	}
	crds, err := readCRDs(append(paths, options.CRDPaths...))
	if err != nil {
		return fmt.Errorf("reading CustomResourceDefinitions: %w", err)
	}
	if err := createCRDs(ctx, cp.config, crds); err != nil {
		return err
	}
	return waitServed(ctx, cp.config, crds)
}

// readCRDs reads the CustomResourceDefinitions in YAML files and directories of
// them, by name: of two with one name the later counts.
func readCRDs(paths []string) (map[string]*apiextensionsv1.CustomResourceDefinition, error) {
	crds := map[string]*apiextensionsv1.CustomResourceDefinition{}
	for _, path := range paths {
		files, err := yamlFiles(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if err := readCRDFile(file, crds); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return crds, nil
}

// readCRDFile adds the CustomResourceDefinitions of a file and passes over other
// objects.
func readCRDFile(file string, crds map[string]*apiextensionsv1.CustomResourceDefinition) error {
	content, err := os.Open(file)
	if err != nil {
		return err
	}
	defer content.Close()
	documents := yaml.NewYAMLOrJSONDecoder(content, 4096)
	for {
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := documents.Decode(crd); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if crd.Kind == "CustomResourceDefinition" {
			crds[crd.Name] = crd
		}
	}
}

// yamlFiles returns the YAML files directly in a directory, or path itself if it
// is a file.
func yamlFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	return filepath.Glob(filepath.Join(path, "*.yaml"))
}

func createCRDs(ctx context.Context, config *rest.Config, crds map[string]*apiextensionsv1.CustomResourceDefinition) error {
	clients, err := apiextensions.NewForConfig(config)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for name, crd := range crds {
		group.Go(func() error {
			_, err := clients.ApiextensionsV1().CustomResourceDefinitions().Create(ctx, crd, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("creating the CustomResourceDefinition %s: %w", name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// waitServed waits until discovery shows every served version of the
// CustomResourceDefinitions.
func waitServed(ctx context.Context, config *rest.Config, crds map[string]*apiextensionsv1.CustomResourceDefinition) error {
	clients, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	var missing []string
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, crdsServedWithin, true, func(context.Context) (bool, error) {
		_, lists, err := clients.ServerGroupsAndResources()
		missing = missingResources(crds, lists)
		return err == nil && len(missing) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("waiting until the API server serves %s: %w", strings.Join(missing, ", "), err)
	}
	return nil
}

// missingResources returns the resources of the CustomResourceDefinitions that
// are not in the lists.
func missingResources(crds map[string]*apiextensionsv1.CustomResourceDefinition, lists []*metav1.APIResourceList) []string {
	served := map[string]bool{}
	for _, list := range lists {
		for _, resource := range list.APIResources {
			served[list.GroupVersion+"/"+resource.Name] = true
		}
	}
	var missing []string
	for _, crd := range crds {
		for _, version := range crd.Spec.Versions {
			resource := crd.Spec.Group + "/" + version.Name + "/" + crd.Spec.Names.Plural
			if version.Served && !served[resource] {
				missing = append(missing, resource)
			}
		}
	}
	return missing
}
