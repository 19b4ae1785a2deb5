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

package operator

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	pkgcache "github.com/fluxcd/pkg/cache"
	helper "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/events"
	"github.com/fluxcd/pkg/runtime/metrics"

	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Parts are the parts of the controllers. Tests change some.
type Parts struct {
	// Rules of the platform.
	Rules source.Rules
	// Content holds the limits and settings that are the same for all sources.
	Content format.Options
	// LabelKeys are the labels that tell shards apart.
	LabelKeys []string
	// Retries say when failed reconciles are tried again.
	Retries  helper.RateLimiterOptions
	Metrics  *controllers.Metrics
	Events   *controllers.Events
	Store    *store.Replica
	Pipeline *pipeline.Pipeline
	Trust    *trustpolicy.Resolver
	// CollectEvery is how soon a file goes after the retention allows it, and ReplicateEvery
	// how soon each replica has what the one that leads published; 0: it does not replicate.
	CollectEvery, ReplicateEvery time.Duration
	// Follows tells that this replica never leads: it has no controllers.
	Follows bool
}

// newParts makes the parts that the options ask for.
func newParts(mgr manager.Manager, o *Options, labelKeys []string) (*Parts, error) {
	p := &Parts{
		Content:   format.Options{Limits: o.Publish.Limits},
		LabelKeys: labelKeys, Retries: o.Flux.RateLimiter, CollectEvery: collectEvery,
	}
	if len(o.Storage.Peers) > 0 {
		p.ReplicateEvery = replicateEvery
	}
	var err error
	if p.Rules, err = o.rules(); err != nil {
		return nil, err
	}
	if p.Metrics, err = controllers.NewMetrics(ctrlmetrics.Registry); err != nil {
		return nil, err
	}
	if p.Store, err = newStore(o, p.Metrics); err != nil {
		return nil, err
	}
	if p.Events, err = newEvents(mgr, o); err != nil {
		return nil, err
	}
	if p.Pipeline, err = newPipeline(mgr, o, p); err != nil {
		return nil, err
	}
	publicRoot, err := trust.NewPublicRoot(trust.PublicRootOptions{
		// TUF_ROOT is where cosign keeps the root as well, which The Update Framework updates.
		Folder:    cmp.Or(os.Getenv("TUF_ROOT"), filepath.Join(os.TempDir(), "sigstore-root")),
		Transport: p.Pipeline.Registry.Roots(),
	})
	if err != nil {
		return nil, err
	}
	p.Trust = NewTrust(mgr, o.Namespace, trust.Options{PublicRoot: publicRoot, Revocation: p.Pipeline.Registry.Authorities()})
	return p, nil
}

// NewTrust returns the demands of TrustPolicies, whose Secrets are in a namespace, and of
// spec.verify.
func NewTrust(mgr manager.Manager, namespace string, o trust.Options) *trustpolicy.Resolver {
	reader := controllers.TrustReader{Client: mgr.GetClient(), Secrets: mgr.GetCache(), Live: mgr.GetAPIReader()}
	return controllers.NewTrust(reader, namespace, o)
}

func newStore(o *Options, m *controllers.Metrics) (*store.Replica, error) {
	storage, err := store.NewOptions(&o.Storage.Options)
	if err != nil {
		return nil, err
	}
	local, err := store.Open(storage)
	if err != nil {
		return nil, err
	}
	return store.NewReplica(local, store.PeerOptions{
		Hosts: o.Storage.Peers, Address: o.Storage.StorageAddress, MaxBytes: o.Publish.Limits.ArtifactBytes, Fetched: m.ObserveFetched,
	})
}

// newEvents splits what Flux's recorder does at once: Kubernetes events are
// queued by client-go, but a post to a receiver blocks, and may for long.
func newEvents(mgr manager.Manager, o *Options) (*controllers.Events, error) {
	flux, err := events.NewRecorder(mgr, ctrl.Log, o.Listen.Events, Name)
	if err != nil {
		return nil, fmt.Errorf("--events-addr: %w", err)
	}
	told := &controllers.Events{Recorder: flux.EventRecorder, Metrics: helper.NewMetrics(mgr, metrics.MustMakeRecorder())}
	if o.Listen.Events != "" {
		flux.EventRecorder = &record.FakeRecorder{} // without a channel it records nothing
		told.Alerts = flux
	}
	return told, nil
}

// newPipeline returns the way from registries to the store of the parts.
func newPipeline(mgr manager.Manager, o *Options, p *Parts) (*pipeline.Pipeline, error) {
	networks, err := registry.ParseNetworks(o.Registry.AllowedCIDRs)
	if err != nil {
		return nil, fmt.Errorf("--registry-allowed-cidrs: %w", err)
	}
	access, err := registry.NewClient(registry.Options{
		UserAgent:    Name + "/" + o.Version,
		AuthRealms:   o.Registry.AuthRealms,
		AllowedCIDRs: networks,
		Observe:      p.Metrics.ObserveRegistry,
	})
	if err != nil {
		return nil, err
	}
	var tokens *pkgcache.TokenCache
	if o.Flux.TokenCache.MaxSize > 0 {
		tokens, err = pkgcache.NewTokenCache(o.Flux.TokenCache.MaxSize,
			pkgcache.WithMaxDuration(o.Flux.TokenCache.MaxDuration),
			pkgcache.WithMetricsRegisterer(ctrlmetrics.Registry),
			pkgcache.WithMetricsPrefix("gotk_token_"))
		if err != nil {
			return nil, err
		}
	}
	return NewPipeline(mgr, access, tokens, p.Store), nil
}

// NewPipeline returns the way from registries to a store, for a manager whose workers it
// shares out.
func NewPipeline(mgr manager.Manager, access *registry.Client, tokens *pkgcache.TokenCache, stored *store.Replica) *pipeline.Pipeline {
	return &pipeline.Pipeline{
		Throttle:    throttle.New(mgr.GetControllerOptions().MaxConcurrentReconciles),
		Credentials: credentials.New(credentials.Options{Client: mgr.GetClient(), TokenCache: tokens}),
		Registry:    access,
		Bridge:      bridge.New(stored, time.Now),
	}
}

// Setup adds the controllers and all that goes with them to the manager. The server of
// artifacts gets missing files from the Supplier.
func Setup(mgr manager.Manager, p *Parts) (*serve.Supplier, error) {
	limited := func() controller.Options {
		return controller.Options{RateLimiter: helper.GetRateLimiter(p.Retries)}
	}
	workers, enqueue := mgr.GetControllerOptions().MaxConcurrentReconciles, make(chan event.GenericEvent, 100)
	artifacts := newArtifacts(mgr, p)
	if !p.Follows {
		policies := &controllers.ImagePolicyReconciler{
			Client: mgr.GetClient(), Live: mgr.GetAPIReader(),
			Rules: p.Rules, LabelKeys: p.LabelKeys, Events: p.Events,
		}
		trustPolicies := &controllers.TrustPolicyReconciler{Client: mgr.GetClient(), Trust: p.Trust, Events: p.Events, Metrics: p.Metrics}
		err := cmp.Or(policies.SetupWithManager(mgr, limited()), trustPolicies.SetupWithManager(mgr, limited()), artifacts.SetupWithManager(mgr, limited(), enqueue))
		if err != nil {
			return nil, err
		}
	}
	supplier := serve.NewSupplier(serve.SupplierOptions{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Store: p.Store, Remake: artifacts.Remake, Enqueue: enqueue, Rebuilds: workers,
	})
	for _, runnable := range append(p.runnables(mgr), &serve.Scrubber{Store: p.Store.Store, Lost: supplier.Lost}) {
		if err := mgr.Add(runnable); err != nil {
			return nil, err
		}
	}
	return supplier, nil
}

// newArtifacts returns the reconciler of ArtifactRepositories.
func newArtifacts(mgr manager.Manager, p *Parts) *controllers.ArtifactRepositoryReconciler {
	snapshots := controllers.Snapshots{Client: mgr.GetClient(), Rules: p.Rules, Trust: p.Trust}
	return &controllers.ArtifactRepositoryReconciler{
		Snapshots:    snapshots,
		ImageObjects: controllers.ImageObjects{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), LabelKeys: p.LabelKeys},
		Evaluator: &controllers.Evaluator{
			Rules: p.Rules, Snapshots: snapshots, Pipeline: p.Pipeline, Store: p.Store, Trust: p.Trust, Content: p.Content,
		},
		Writer:  &controllers.Writer{Client: mgr.GetClient(), Live: mgr.GetAPIReader(), LabelKeys: p.LabelKeys, Store: p.Store},
		Backoff: helper.GetRateLimiter(p.Retries),
		Report:  &controllers.Report{Events: p.Events, Metrics: p.Metrics},
	}
}

// runnables run beside the controllers, on every replica.
func (p *Parts) runnables(mgr manager.Manager) []manager.Runnable {
	collector := &serve.GarbageCollector{
		Client: mgr.GetClient(), Changes: mgr.GetCache(), Objects: mgr.GetClient(),
		Store: p.Store.Store, Every: p.CollectEvery, Observe: p.Metrics.ObserveCollected,
	}
	if len(p.LabelKeys) > 0 { // the caches have those of this shard only
		collector.Objects = mgr.GetAPIReader()
	}
	all := []manager.Runnable{p.Events, collector}
	if p.ReplicateEvery > 0 {
		all = append(all, &serve.Replicator{Client: mgr.GetClient(), Store: p.Store, Every: p.ReplicateEvery})
	}
	return all
}

// The periods of a process, see Parts.
const (
	collectEvery   = time.Minute
	replicateEvery = 30 * time.Second
)

// shutdownTimeout is the time for running downloads to finish after the delay; the
// Deployment's grace period is longer than both.
const shutdownTimeout = 30 * time.Second

// newServer returns the server of artifacts.
func newServer(o *Options, p *Parts, supplier *serve.Supplier) *store.Server {
	return p.Store.Server(store.ServerOptions{
		Address:         o.Storage.StorageAddress,
		DrainTime:       o.Storage.ShutdownDelay,
		ShutdownTimeout: shutdownTimeout,
		HandlerOptions:  HandlerOptions(p, supplier),
	})
}

// HandlerOptions are the functions that answer for artifacts.
func HandlerOptions(p *Parts, supplier *serve.Supplier) store.HandlerOptions {
	return store.HandlerOptions{
		Publishes: supplier.Publishes, Missing: supplier.Missing, Lacking: supplier.Lacking, Observe: p.Metrics.ObserveServer,
	}
}
