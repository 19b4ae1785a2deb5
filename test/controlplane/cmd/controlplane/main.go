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

// Command controlplane builds and runs the local control plane: a real
// Kubernetes API with Flux and a registry on the loopback interface, without
// containers.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/image-source/image-source-controller/test/controlplane"
)

const usage = `Usage: controlplane COMMAND

Commands:
  build [-programs a,b]   build the programs into bin/controlplane
  up [-controllers a,b]   start everything, wait for Ctrl-C and stop
  crds                    update the committed CustomResourceDefinitions`

func main() {
	ctx, stop := controlplane.Interruptible(context.Background())
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing\n%s", usage)
	}
	switch command, rest := args[0], args[1:]; command {
	case "build":
		return build(ctx, rest)
	case "up":
		return up(ctx, rest)
	case "crds":
		return controlplane.UpdateCRDs(ctx)
	case "help", "-h", "-help", "--help":
		fmt.Println(usage)
		return nil
	default:
		return fmt.Errorf("there is no command %q\n%s", command, usage)
	}
}

func build(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("build", flag.ExitOnError)
	programs := flags.String("programs", "", "comma-separated names of the programs; all that a control plane runs if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return controlplane.Build(ctx, controlplane.BuildOptions{Programs: splitNames(*programs), Progress: os.Stderr})
}

func up(ctx context.Context, args []string) error {
	options := controlplane.All()
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	controllers := flags.String("controllers", strings.Join(options.Controllers, ","), "comma-separated names of the Flux controllers to run")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options.Controllers = splitNames(*controllers)
	options.Progress = os.Stderr

	cp, err := controlplane.Start(ctx, options)
	if err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\n", cp.Kubeconfig())
	fmt.Printf("registry: %s\n", cp.Registry().Host())
	fmt.Printf("logs: %s\n", cp.LogDir())
	fmt.Println("Press Ctrl-C to stop.")
	<-ctx.Done()
	return cp.Stop()
}

func splitNames(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}
