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

// Command demo shows the main job of image-source-controller on real
// components, in one go: an artifact is pushed, a policy that picks it is
// annotated, and Flux deploys it; a newer tag is pushed, and Flux rolls it out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C, and print how to reach it")
	flag.Parse()
	if err := play(*keep); err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

// play plays the demo until it ends or is interrupted.
func play(keep bool) error {
	ctx, stop := controlplane.Interruptible(context.Background())
	defer stop()
	return (&demo{out: os.Stdout, start: time.Now()}).run(ctx, keep)
}

// patience bounds each wait of the demo. Nothing takes a tenth of it.
const patience = time.Minute

type demo struct {
	*stage.Stage
	out   io.Writer
	start time.Time
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "[%4.0fs] %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) show(text string) {
	for line := range strings.Lines(strings.TrimSpace(text) + "\n") {
		fmt.Fprint(d.out, "        ", line)
	}
}

// run plays the demo and ends what it started, whatever happens.
func (d *demo) run(ctx context.Context, keep bool) (err error) {
	d.say("Starting Kubernetes, a registry and Flux on this machine (the first build takes about 15 minutes).")
	options := controlplane.All()
	options.Progress = d.out
	if d.Stage, err = stage.Start(ctx, options); err != nil {
		return err
	}
	defer func() {
		d.say("Stopping everything.")
		err = errors.Join(err, d.Stop())
		if err == nil {
			d.say("Done.")
		}
	}()
	for _, step := range []func(context.Context) error{d.install, d.push, d.optIn, d.follow, d.annotate, d.deploy, d.rollOut} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%w\nlogs: %s", err, d.LogDir())
		}
	}
	if keep {
		d.linger(ctx)
	}
	return nil
}

func (d *demo) install(ctx context.Context) error {
	d.say("Installed config/default; running image-source-controller with the rights of its ServiceAccount.")
	_, err := d.StartController(ctx, stage.ControllerOptions{})
	return err
}

func (d *demo) push(ctx context.Context) error { return d.release(ctx, "1.0.0") }

// release pushes a version of the demo's application, as flux push artifact does.
func (d *demo) release(ctx context.Context, version string) error {
	image := "org/app-deploy:" + version
	d.say("Pushing the manifests of version %s to %s/%s", version, d.Registry().Host(), image)
	_, err := publish.Registry{Host: d.Registry().Host()}.Flux(ctx, image, publish.Files{
		"deploy/app.yaml": fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  version: %q\n", version),
	})
	return err
}

func (d *demo) optIn(ctx context.Context) error {
	d.say("The platform opts the namespace apps in.")
	return d.apply(ctx, `apiVersion: v1
kind: Namespace
metadata:
  name: apps
  labels:
    source.contrib.fluxcd.io/useAsSource: enabled
`)
}

func (d *demo) follow(ctx context.Context) error {
	d.say("A team scans its repository and picks the newest release, with Flux's own kinds.")
	return d.apply(ctx, `apiVersion: image.toolkit.fluxcd.io/v1
kind: ImageRepository
metadata:
  name: app
  namespace: apps
spec:
  image: `+d.Registry().Host()+`/org/app-deploy
  interval: 2s
  insecure: true
  exclusionList: ['^sha256-[0-9a-f]{64}(\..+)?$', '^.*\.(sig|att|sbom)$']
---
apiVersion: image.toolkit.fluxcd.io/v1
kind: ImagePolicy
metadata:
  name: app
  namespace: apps
spec:
  imageRepositoryRef:
    name: app
  policy:
    semver:
      range: ">=1.0.0"
`)
}

func (d *demo) annotate(ctx context.Context) error {
	d.say("The team makes the policy a source:")
	d.show("kubectl annotate imagepolicy app -n apps source.contrib.fluxcd.io/useAsSource=true")
	_, err := d.Kubectl(ctx, "annotate", "imagepolicy", "app", "-n", "apps", "source.contrib.fluxcd.io/useAsSource=true")
	return err
}

func (d *demo) deploy(ctx context.Context) error {
	d.say("A Kustomization refers to the source by the policy's name.")
	err := d.apply(ctx, `apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: app
  namespace: apps
spec:
  interval: 1h
  path: ./deploy
  prune: true
  targetNamespace: apps
  sourceRef:
    kind: ExternalArtifact
    name: app
`)
	if err != nil {
		return err
	}
	return d.deployed(ctx, "1.0.0")
}

func (d *demo) rollOut(ctx context.Context) error {
	d.say("A newer version is released. Nobody touches the cluster.")
	if err := d.release(ctx, "1.1.0"); err != nil {
		return err
	}
	if err := d.deployed(ctx, "1.1.0"); err != nil {
		return err
	}
	text, err := d.Kubectl(ctx, "get", "imagepolicy,artifactrepository,externalartifact,kustomization", "-n", "apps")
	d.show(text)
	return err
}

// deployed waits until a version is in the cluster.
func (d *demo) deployed(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pushed := time.Now()
	err := stage.Until(ctx, func(ctx context.Context) error {
		got, err := d.Kubectl(ctx, "get", "configmap", "app", "-n", "apps", "-o", "jsonpath={.data.version}")
		if err == nil && got != version {
			err = fmt.Errorf("version %q is deployed, not %s", got, version)
		}
		return err
	})
	if err != nil {
		text, _ := d.Kubectl(ctx, "get", "all,imagepolicies,artifactrepositories,externalartifacts,kustomizations", "-n", "apps")
		return fmt.Errorf("version %s was not deployed within %s: %w\n%s", version, patience, err, text)
	}
	d.say("Version %s is deployed, %.1f s later.", version, time.Since(pushed).Seconds())
	return nil
}

func (d *demo) linger(ctx context.Context) {
	d.say("Everything keeps running until Ctrl-C. To look around:")
	d.show("export KUBECONFIG=" + d.Kubeconfig() + "\nregistry: " + d.Registry().Host() + "\nlogs: " + d.LogDir())
	<-ctx.Done()
}

// apply applies manifests as a user would.
func (d *demo) apply(ctx context.Context, manifests string) error {
	file, err := os.CreateTemp(d.Dir, "*.yaml")
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.WriteString(manifests); err != nil {
		return err
	}
	_, err = d.Kubectl(ctx, "apply", "--server-side", "-f", file.Name())
	return err
}
