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

// Package stage sets the scene of the demo and of the end-to-end tests: a
// control plane with Flux, this project installed from config/default as a
// user installs it, and its controller running with the rights of its own
// ServiceAccount and no others.
package stage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// controllerName names the program, its Service and its ServiceAccount.
const controllerName = "image-source-controller"

// Stage is a control plane with this project installed.
type Stage struct {
	*controlplane.ControlPlane
	// Client has the rights of an administrator.
	Client client.WithWatch
	// Dir holds what the stage writes; it is removed with the control plane, also
	// if this process is killed.
	Dir string
	// Binary is the controller's program, which nobody else builds anew.
	Binary string

	mu      sync.Mutex
	started map[string]int // controllers, by their names
}

// Start builds what is missing, starts a control plane and installs this
// project on it. The controller is not running yet. Whoever starts a stage stops it,
// which ends its controllers too.
func Start(ctx context.Context, options controlplane.Options) (_ *Stage, err error) {
	root, err := controlplane.Root()
	if err != nil {
		return nil, err
	}
	s := &Stage{started: map[string]int{}}
	if s.ControlPlane, err = controlplane.Start(ctx, options); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if s.Dir, err = s.NewDir("stage"); err != nil {
		return nil, err
	}
	s.Binary = filepath.Join(s.Dir, controllerName)
	if err := Build(ctx, root, s.Binary, options.Progress); err != nil {
		return nil, err
	}
	if s.Client, err = client.NewWithWatch(s.RESTConfig(), client.Options{Scheme: Scheme()}); err != nil {
		return nil, err
	}
	_, err = s.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(root, "config", "default"))
	return s, err
}

// Scheme knows the kinds that the demo and the tests read and write.
func Scheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, imagev1.AddToScheme, sourcev1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err) // two kinds of one name: a mistake in this file
		}
	}
	return scheme
}

// Build builds the controller from the sources in root as the Makefile does.
func Build(ctx context.Context, root, binary string, progress io.Writer) error {
	if progress != nil {
		fmt.Fprintln(progress, "building image-source-controller")
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, ".")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", controllerName, err, output)
	}
	return nil
}

// Kubectl runs kubectl as an administrator and returns what it prints.
func (s *Stage) Kubectl(ctx context.Context, args ...string) (string, error) {
	kubectl, err := controlplane.Executable(ctx, controlplane.Kubectl)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, kubectl, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+s.Kubeconfig())
	output, err := command.CombinedOutput()
	if err != nil {
		return string(output), fmt.Errorf("kubectl %v: %w\n%s", args, err, output)
	}
	return string(output), nil
}

// Controller is a running image-source-controller.
type Controller struct {
	*controlplane.Process
	// StorageDir is where it stores artifacts.
	StorageDir string
	// Address is where it serves them, Metrics and Health where it tells of itself.
	Address, Metrics, Health string
}

// ControllerOptions configure a controller.
type ControllerOptions struct {
	// Name tells several controllers of one stage apart; the usual name if empty. One
	// that was used before gets a number.
	Name string
	// Binary is its program; that of the stage if empty.
	Binary string
	// Address is where it serves artifacts; a free one if empty.
	Address string
	// Args are flags beside those that the stage sets; of those, they win.
	Args []string
	// Env has KEY=VALUE entries.
	Env []string
	// ReadyWithin bounds the wait until it is ready; a minute if zero.
	ReadyWithin time.Duration
}

// grace is how long a controller may take to end, as terminationGracePeriodSeconds
// in config/manager says.
const grace = time.Minute

// StartController runs the controller as its own ServiceAccount and waits until
// it is ready.
func (s *Stage) StartController(ctx context.Context, options ControllerOptions) (*Controller, error) {
	options.Name = s.unused(cmp.Or(options.Name, controllerName))
	config, err := s.ServiceAccountConfig(ctx, controlplane.FluxNamespace, controllerName)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(s.Dir, options.Name+".kubeconfig")
	if err := controlplane.WriteKubeconfig(kubeconfig, config); err != nil {
		return nil, err
	}
	c := &Controller{StorageDir: filepath.Join(s.Dir, options.Name+"-data"), Address: options.Address}
	if err := os.MkdirAll(c.StorageDir, 0o750); err != nil {
		return nil, err
	}
	for _, address := range []*string{&c.Address, &c.Metrics, &c.Health} {
		if *address != "" {
			continue
		}
		if *address, err = controlplane.FreeAddress(); err != nil {
			return nil, err
		}
	}
	c.Process, err = s.StartProgram(ctx, controlplane.Program{
		Name: options.Name,
		Path: cmp.Or(options.Binary, s.Binary),
		Args: append([]string{
			"--storage-path=" + c.StorageDir, "--storage-addr=" + c.Address, "--storage-adv-addr=" + c.Address,
			"--metrics-addr=" + c.Metrics, "--health-addr=" + c.Health, "--log-encoding=console",
		}, options.Args...),
		Env:   append([]string{"KUBECONFIG=" + kubeconfig, "RUNTIME_NAMESPACE=" + controlplane.FluxNamespace}, options.Env...),
		Ready: controlplane.HTTPReady("http://"+c.Health+"/readyz", nil),

		ReadyWithin: options.ReadyWithin, Grace: grace,
	})
	return c, err
}

// unused returns a name that no controller has had: what one of them has left is
// not for another, as when a test runs twice.
func (s *Stage) unused(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[name]++
	if times := s.started[name]; times > 1 {
		return fmt.Sprintf("%s.%d", name, times)
	}
	return name
}

// Until asks again and again until condition returns nil, and returns its last
// error if it does not before ctx ends.
func Until(ctx context.Context, condition func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting: %w", err)
		case <-tick.C:
		}
	}
}
