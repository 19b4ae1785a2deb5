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

// Package operator puts the controller together: manager, caches, controllers, the artifact
// server beside them, and what the process does while the API server is away.
package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	fluxclient "github.com/fluxcd/pkg/runtime/client"
	helper "github.com/fluxcd/pkg/runtime/controller"

	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/serve"
)

// Name of the program.
const Name = controllers.FieldManager

// Run does what the options ask for until ctx ends. It answers probes from here on, whatever
// it waits for.
func Run(ctx context.Context, o *Options) error {
	if err := o.prepare(); err != nil {
		return err
	}
	serving := &serve.Endpoint{}
	if o.Listen.Health == "" || o.Listen.Health == "0" { // nobody asks, as with all managers
		return operate(ctx, o, serving)
	}
	probes, err := ListenProbes(ctx, o.Listen.Health, serving.Ready)
	if err != nil {
		return fmt.Errorf("--health-addr: %w", err)
	}
	running, ctx := errgroup.WithContext(ctx)
	answering, end := context.WithCancel(context.WithoutCancel(ctx))
	running.Go(func() error { return probes.Start(answering) })
	running.Go(func() error {
		defer end()
		return operate(ctx, o, serving)
	})
	return running.Wait()
}

// operate builds everything that the flags ask for, when there is an API server,
// and starts it.
func operate(ctx context.Context, o *Options, serving *serve.Endpoint) error {
	selector, err := helper.GetWatchSelector(o.Flux.Watch)
	if err != nil {
		return fmt.Errorf("--watch-label-selector: %w", err)
	}
	config, err := connect(ctx, o.Flux.Client, serving)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	mgr, err := newManager(config, o, selector)
	if err != nil {
		return err
	}
	parts, err := newParts(mgr, o, labelKeys(selector))
	if err != nil {
		return err
	}
	if err := startCaches(ctx, mgr); err != nil {
		return unlessEnded(ctx, err)
	}
	supplier, err := Setup(mgr, parts)
	if err != nil {
		return err
	}
	serving.Server, serving.Supplier, serving.Cache = newServer(o, parts, supplier), supplier, mgr.GetCache()
	ctrl.Log.Info("starting", "version", o.Version)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return manage(ctx, mgr) })
	running.Go(func() error { return StayKnown(ctx, mgr.GetConfig()) })
	running.Go(func() error { return serving.Start(ctx) })
	return running.Wait()
}

// limitsTimeout is what the API server gets to say whether it limits requests.
const limitsTimeout = 5 * time.Second

// connect returns how to reach the API server, once it is ready. Then only it is
// asked whether it limits requests by itself, which holds for the life of the
// process; that takes no context, and is begun anew where there is no answer.
func connect(ctx context.Context, o fluxclient.Options, serving *serve.Endpoint) (*rest.Config, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no way to the API server is configured: %w", err)
	}
	for {
		if err := AwaitAPIServer(ctx, config, serving.Waits); err != nil {
			return nil, err
		}
		limited := make(chan *rest.Config, 1)
		go func() { limited <- fluxclient.GetConfigOrDie(o) }()
		select {
		case config := <-limited:
			return config, nil
		case <-time.After(limitsTimeout):
			ctrl.Log.Info("the API server does not say whether it limits requests; it is asked again", "host", config.Host)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// manage runs the manager. The one that leads ends when it cannot renew its lease,
// and so has the process to. Where that is because the API server is away, nothing
// else could be done until it is back, and a new process could not even serve: this
// one serves on what it knows until then, as those do that do not lead.
func manage(ctx context.Context, mgr manager.Manager) error {
	err := mgr.Start(ctx)
	if err != nil && ctx.Err() == nil {
		ctrl.Log.Error(err, "the controllers have ended; artifacts are served until the API server is ready")
		err = errors.Join(err, unlessEnded(ctx, AwaitAPIServer(ctx, mgr.GetConfig(), func(error) {})))
	}
	return err
}
