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
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// Options configure [Start].
type Options struct {
	// Dir is where the programs are built and runs keep their files;
	// bin/controlplane of the repository if empty.
	Dir string
	// Registry starts a registry without authentication over plain HTTP, see
	// [ControlPlane.Registry].
	Registry bool
	// RegistryOnly leaves out Kubernetes: there is a registry and nothing else.
	RegistryOnly bool
	// APIServerOnly leaves out kube-controller-manager: nothing is collected, no
	// namespace ever goes, and no Flux controller runs.
	APIServerOnly bool
	// Controllers names the Flux controllers to run, of [FluxControllers].
	Controllers []string
	// ControllerArgs are further flags for a Flux controller, by its name.
	ControllerArgs map[string][]string
	// CRDPaths are files or directories of further CustomResourceDefinitions.
	// Those in [CRDDir] and those of the Controllers are always installed.
	CRDPaths []string
	// Progress receives a line for every step that takes long.
	Progress io.Writer
}

// All returns options for everything that there is.
func All() Options {
	return Options{Registry: true, Controllers: FluxControllers()}
}

func (o Options) validate() error {
	if err := checkFluxControllers(o.Controllers); err != nil {
		return err
	}
	for controller := range o.ControllerArgs {
		if !slices.Contains(o.Controllers, controller) {
			return fmt.Errorf("ControllerArgs has flags for %s, which is not one of the Controllers", controller)
		}
	}
	if o.RegistryOnly && len(o.Controllers)+len(o.CRDPaths) > 0 {
		return errors.New("RegistryOnly excludes Controllers and CRDPaths, which need Kubernetes")
	}
	if o.APIServerOnly && (o.RegistryOnly || len(o.Controllers) > 0) {
		return errors.New("APIServerOnly excludes RegistryOnly and Controllers, which need more")
	}
	return nil
}

func (o Options) programs() []string {
	var programs []string
	if !o.RegistryOnly {
		programs = append(programs, Etcd, APIServer)
	}
	if !o.RegistryOnly && !o.APIServerOnly {
		programs = append(programs, ControllerManager)
	}
	if o.wantsRegistry() {
		programs = append(programs, DistributionRegistry)
	}
	return append(programs, o.Controllers...)
}

func (o Options) wantsRegistry() bool { return o.Registry || o.RegistryOnly }

// ControlPlane is a running control plane.
type ControlPlane struct {
	dir        string
	progress   io.Writer
	run        *runDir
	supervisor *supervisor
	config     *rest.Config
	kubeconfig string
	registry   *Registry
	// apiServers starts API servers; nil without Kubernetes.
	apiServers func(ctx context.Context, name string) (process *Process, url string, err error)
	stop       func() error
}

// Start builds what is missing and starts a control plane. It returns when every
// program is ready. ctx bounds the start only: what was started lives until
// [ControlPlane.Stop], or until this process ends. After a failure nothing runs.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("starting the control plane: %w", err)
	}
	dir, err := dirOrDefault(options.Dir)
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{dir: dir, progress: options.Progress}
	if err := cp.ensureBuilt(ctx, options.programs()...); err != nil {
		return nil, err
	}
	if cp.run, err = newRunDir(dir); err != nil {
		return nil, err
	}
	cp.supervisor = newSupervisor(cp.run.logs())
	cp.stop = sync.OnceValue(func() error {
		return errors.Join(cp.supervisor.close(), cp.run.close())
	})
	if err := cp.start(ctx, options); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the control plane: %w", err), cp.Stop())
	}
	return cp, nil
}

// Stop ends every process that the control plane started and removes their data;
// the logs stay. Further calls do nothing. A nil ControlPlane has nothing to stop.
func (cp *ControlPlane) Stop() error {
	if cp == nil {
		return nil
	}
	if err := cp.stop(); err != nil {
		return fmt.Errorf("stopping the control plane: %w", err)
	}
	return nil
}

// Registry returns the registry of the control plane; nil without
// [Options.Registry].
func (cp *ControlPlane) Registry() *Registry { return cp.registry }

// LogDir returns the directory with a log file for every program.
func (cp *ControlPlane) LogDir() string { return cp.run.logs() }

// StartProgram starts a program and waits until it is ready. The program ends
// with the control plane, if not before.
func (cp *ControlPlane) StartProgram(ctx context.Context, program Program) (*Process, error) {
	return cp.supervisor.start(ctx, program)
}

// start starts everything: what does not need each other at the same time.
func (cp *ControlPlane) start(ctx context.Context, options Options) error {
	group, ctx := errgroup.WithContext(ctx)
	if options.wantsRegistry() {
		group.Go(func() (err error) {
			cp.registry, err = cp.StartRegistry(ctx, RegistryOptions{})
			return err
		})
	}
	if !options.RegistryOnly {
		group.Go(func() error { return cp.startKubernetes(ctx, options) })
	}
	return group.Wait()
}

func (cp *ControlPlane) startKubernetes(ctx context.Context, options Options) error {
	etcd, err := cp.startEtcd(ctx)
	if err != nil {
		return err
	}
	if cp.config, err = cp.startAPIServer(ctx, etcd); err != nil {
		return err
	}
	cp.kubeconfig = filepath.Join(cp.run.data(), "kubeconfig")
	if err := WriteKubeconfig(cp.kubeconfig, cp.config); err != nil {
		return err
	}
	if err := cp.populate(ctx, options); err != nil {
		return err
	}
	return cp.startControllers(ctx, options)
}

// populate creates what the controllers expect to find.
func (cp *ControlPlane) populate(ctx context.Context, options Options) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return cp.ensureNamespaces(ctx) })
	group.Go(func() error { return cp.installCRDs(ctx, options) })
	return group.Wait()
}

func (cp *ControlPlane) startControllers(ctx context.Context, options Options) error {
	if options.APIServerOnly {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return cp.startControllerManager(ctx) })
	for _, controller := range options.Controllers {
		group.Go(func() error { return cp.startFlux(ctx, controller, options.ControllerArgs[controller]) })
	}
	return group.Wait()
}

func (cp *ControlPlane) ensureBuilt(ctx context.Context, programs ...string) error {
	return Build(ctx, BuildOptions{Dir: cp.dir, Programs: programs, Progress: cp.progress})
}

// path returns the executable of a program that is built.
func (cp *ControlPlane) path(program string) string { return filepath.Join(cp.dir, program) }

// NewDir returns an empty directory that is removed with the control plane, with
// all that was mounted below it, or before the next one starts if this process is
// killed.
func (cp *ControlPlane) NewDir(name string) (string, error) {
	dir := filepath.Join(cp.run.data(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a data directory: %w", err)
	}
	return dir, nil
}
