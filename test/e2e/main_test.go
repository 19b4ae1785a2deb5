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

// Package e2e tests the project as its users meet it: on a real control plane
// with the real Flux controllers and a real registry, installed from
// config/default and running with the rights of its own ServiceAccount.
//
// All tests share one control plane and one controller, and each has a
// namespace of its own, so they run in parallel. What must not disturb the
// others, such as killing the controller, is done to a shard, see startShard.
package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// env is what all tests share. It is set before the first of them runs and
// never again.
var env environment

// environment is a stage with everything running on it.
type environment struct {
	*stage.Stage
	// controller is the one that serves everything without a shard's label.
	controller *stage.Controller
	// alerts receives the Flux events of the controller and of kustomize-controller.
	alerts *alertReceiver
}

// parallel is how many tests run at once unless a flag says otherwise: they
// mostly wait.
const parallel = "6"

func TestMain(m *testing.M) {
	testing.Init()
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

// run runs the tests and ends what it started, whether they end, fail or are
// interrupted. What ends the process in another way ends its children too.
func run(m *testing.M) (code int) {
	ctx, stop := controlplane.Interruptible(context.Background())
	defer stop()
	defer func() {
		if err := env.shutDown(); err != nil {
			fmt.Fprintln(os.Stderr, "stopping the end-to-end tests:", err)
			code = max(code, 1)
		}
	}()
	if err := env.setUp(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "setting the end-to-end tests up:", err)
		return 1
	}
	ended := make(chan int, 1)
	go func() { ended <- m.Run() }()
	select {
	case code = <-ended:
		if err := env.inspectLogs(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return max(code, 1)
		}
		return code
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr, "interrupted")
		return 1
	}
}

func (e *environment) setUp(ctx context.Context) (err error) {
	root, err := controlplane.Root()
	if err != nil {
		return err
	}
	// Not while other tests wait for what happens on a busy machine.
	if err := controlplane.Build(ctx, controlplane.BuildOptions{Programs: []string{controlplane.Cosign}, Progress: os.Stderr}); err != nil {
		return err
	}
	e.alerts = newAlertReceiver()
	options := controlplane.All()
	options.Progress = os.Stderr
	// The garbage collector looks for new kinds every 30 seconds: it is to know
	// ours from its start. The installation applies them once more.
	options.CRDPaths = []string{filepath.Join(root, "config", "crd", "bases")}
	// Many tests scan at once, every second.
	options.ControllerArgs = map[string][]string{
		controlplane.ImageReflectorController: {"--concurrent=20", "--kube-api-qps=500", "--kube-api-burst=1000"},
		controlplane.KustomizeController:      {"--concurrent=10", "--requeue-dependency=1s", "--events-addr=" + e.alerts.URL},
	}
	if e.Stage, err = stage.Start(ctx, options); err != nil {
		return err
	}
	e.controller, err = e.StartController(ctx, stage.ControllerOptions{Args: []string{
		"--watch-label-selector=!" + shardLabel,
		"--events-addr=" + e.alerts.URL,
		"--concurrent=20",
		"--kube-api-qps=500", "--kube-api-burst=1000",
	}})
	return err
}

// alarms are what no log of our controllers may say, whatever the tests did to
// them: that code panicked, and that the rights of the ServiceAccount fell short.
var alarms = regexp.MustCompile(`(?i)\bpanic\b|forbidden: User "system:serviceaccount:`)

// inspectLogs returns an error that quotes the alarms in the logs.
func (e *environment) inspectLogs() error {
	logs, err := filepath.Glob(filepath.Join(e.LogDir(), "shard-*.log"))
	if err != nil {
		return err
	}
	var found []error
	for _, log := range append(logs, e.controller.LogFile()) {
		content, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(content)) {
			if alarms.MatchString(line) {
				found = append(found, fmt.Errorf("%s: %s", log, strings.TrimSpace(line)))
			}
		}
	}
	return errors.Join(found...)
}

func (e *environment) shutDown() error {
	if e.alerts != nil {
		e.alerts.Close()
	}
	if e.Stage == nil {
		return nil
	}
	return e.Stop()
}

// shardLabel is the label that a controller selects its objects by. The one
// that all tests share leaves alone what carries it.
const shardLabel = "sharding.fluxcd.io/key"

// startShard runs a further controller, for a test that does to it what the
// others must not notice. It serves the policies and ArtifactRepositories that
// carry shardLabel with the name of the shard.
func startShard(t *testing.T, shard string, args ...string) *stage.Controller {
	t.Helper()
	controller, err := env.StartController(t.Context(), stage.ControllerOptions{
		Name: "shard-" + shard,
		Args: append([]string{"--watch-label-selector=" + shardLabel + "=" + shard}, args...),
	})
	if err != nil {
		t.Fatalf("starting a controller for %s: %s", shard, err)
	}
	t.Cleanup(func() {
		if err := controller.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of its log:\n%s", logTail(controller.LogFile()))
		}
	})
	return controller
}
