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

// image-source-controller publishes the images that Flux ImagePolicies pick as
// Flux ExternalArtifacts.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	artifactconfig "github.com/fluxcd/pkg/artifact/config"
	"github.com/fluxcd/pkg/auth"
	pkgcache "github.com/fluxcd/pkg/cache"
	"github.com/fluxcd/pkg/runtime/acl"
	fluxclient "github.com/fluxcd/pkg/runtime/client"
	helper "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/events"
	"github.com/fluxcd/pkg/runtime/features"
	"github.com/fluxcd/pkg/runtime/jitter"
	"github.com/fluxcd/pkg/runtime/leaderelection"
	"github.com/fluxcd/pkg/runtime/logger"
	"github.com/fluxcd/pkg/runtime/metrics"
	"github.com/fluxcd/pkg/runtime/pprof"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

const controllerName = "image-source-controller"

// version is set when a release is built.
var version = "dev"

// options are what the flags say.
type options struct {
	metricsAddr, healthAddr, eventsAddr string
	concurrent                          int
	defaultServiceAccount               string
	namespaceOptIn                      string
	authRealms                          []string
	allowedCIDRs                        []string
	limits                              format.Limits
	requireTrustPolicy                  bool
	// namespace is the one that the controller runs in.
	namespace string

	storage        artifactconfig.Options
	peers          []string
	shutdownDelay  time.Duration
	client         fluxclient.Options
	log            logger.Options
	leaderElection leaderelection.Options
	watch          helper.WatchOptions
	acl            acl.Options
	rateLimiter    helper.RateLimiterOptions
	jitter         jitter.IntervalOptions
	features       features.FeatureGates
	tokenCache     pkgcache.TokenFlags
}

func main() {
	o := parse(os.Args[1:])
	logger.SetLogger(logger.NewLogger(o.log))
	if err := run(ctrl.SetupSignalHandler(), o); err != nil {
		ctrl.Log.Error(err, "stopped")
		os.Exit(1)
	}
}

// parse reads the flags; a flag that cannot be read ends the process.
func parse(args []string) *options {
	const tokenCacheSize = 100
	o := &options{limits: format.DefaultLimits()}
	fs := pflag.NewFlagSet(controllerName, pflag.ExitOnError)
	fs.StringVar(&o.metricsAddr, "metrics-addr", ":8080", "The address the metric endpoint binds to.")
	fs.StringVar(&o.healthAddr, "health-addr", ":9440", "The address the health endpoint binds to.")
	fs.StringVar(&o.eventsAddr, "events-addr", "", "The address of the events receiver.")
	fs.IntVar(&o.concurrent, "concurrent", 10, "The number of concurrent reconciles per controller.")
	fs.StringVar(&o.defaultServiceAccount, auth.ControllerFlagDefaultServiceAccount, "",
		"Default service account to use for workload identity when not specified in resources.")
	fs.StringVar(&o.namespaceOptIn, "namespace-opt-in", string(controllers.NamespaceOptInLabel),
		"Whether a namespace must carry the label "+v1alpha1.UseAsSource+" for anything in it to be published: label or none.")
	fs.BoolVar(&o.requireTrustPolicy, "require-trust-policy", false,
		"Refuse images in namespaces that no TrustPolicy in mode Enforce governs.")
	fs.StringSliceVar(&o.authRealms, "registry-auth-realms", nil,
		"Hosts that may be sent registry credentials when a registry names one as its token service, beside its own registrable domain.")
	fs.StringSliceVar(&o.allowedCIDRs, "registry-allowed-cidrs", nil,
		"Private networks that registries may redirect to.")
	fs.Int64Var(&o.limits.ArtifactBytes, "max-artifact-bytes", o.limits.ArtifactBytes, "The largest artifact that is pulled, in bytes.")
	fs.Int64Var(&o.limits.UncompressedBytes, "max-uncompressed-bytes", o.limits.UncompressedBytes, "The most bytes that an artifact may unpack to.")
	fs.IntVar(&o.limits.Entries, "max-entries", o.limits.Entries, "The most files and folders that an artifact may hold.")
	fs.IntVar(&o.limits.Depth, "max-depth", o.limits.Depth, "The most elements that a path in an artifact may have.")
	fs.IntVar(&o.limits.Layers, "max-layers", o.limits.Layers, "The most layers that an artifact may have.")
	fs.StringSliceVar(&o.peers, "storage-peers", nil,
		"The host:port of the artifact servers of all replicas, separated by commas, such as that of a headless Service; a host stands for all addresses that it resolves to.")
	fs.DurationVar(&o.shutdownDelay, "shutdown-delay", 0,
		"How long artifacts are served on after a signal to end, while consumers are led to other replicas.")
	o.storage.BindFlags(fs)
	o.client.BindFlags(fs)
	o.log.BindFlags(fs)
	o.leaderElection.BindFlags(fs)
	o.watch.BindFlags(fs)
	o.acl.BindFlags(fs)
	o.rateLimiter.BindFlags(fs)
	o.jitter.BindFlags(fs)
	o.features.BindFlags(fs)
	o.tokenCache.BindFlags(fs, tokenCacheSize)
	// Secrets of other namespaces are watched only where that was granted.
	if configs := fs.Lookup("watch-configs-label-selector"); configs != nil {
		configs.DefValue, o.watch.ConfigsLabelSelector = "", ""
		configs.Usage = "Watch for Secrets with matching labels, such as " + meta.LabelKeyWatch + "=" + meta.LabelValueWatchEnabled + ". Empty: none but those in the namespace of the controller."
	}
	// ExitOnError: a flag that cannot be read never returns.
	_ = fs.Parse(args)
	return o
}

// run answers probes from here on, whatever it waits for, and does what the flags
// ask for.
func run(ctx context.Context, o *options) error {
	if err := o.prepare(); err != nil {
		return err
	}
	serving := &controllers.Serving{}
	if o.healthAddr == "" || o.healthAddr == "0" { // nobody asks, as with all managers
		return operate(ctx, o, serving)
	}
	probes, err := controllers.ListenProbes(ctx, o.healthAddr, serving.Ready)
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
func operate(ctx context.Context, o *options, serving *controllers.Serving) error {
	selector, err := helper.GetWatchSelector(o.watch)
	if err != nil {
		return fmt.Errorf("--watch-label-selector: %w", err)
	}
	config, err := connect(ctx, o.client, serving)
	if err != nil {
		return unlessEnded(ctx, err)
	}
	mgr, err := newManager(config, o, selector)
	if err != nil {
		return err
	}
	parts, err := newParts(mgr, o)
	if err != nil {
		return err
	}
	if err := startCaches(ctx, mgr); err != nil {
		return unlessEnded(ctx, err)
	}
	if err := setup(mgr, o, parts, labelKeys(selector), serving); err != nil {
		return err
	}
	ctrl.Log.Info("starting", "version", version)
	running, ctx := errgroup.WithContext(ctx)
	running.Go(func() error { return manage(ctx, mgr) })
	running.Go(func() error { return controllers.StayKnown(ctx, mgr.GetConfig()) })
	running.Go(func() error { return serving.Start(ctx) })
	return running.Wait()
}

// limitsTimeout is what the API server gets to say whether it limits requests.
const limitsTimeout = 5 * time.Second

// connect returns how to reach the API server, once it is ready. Then only it is
// asked whether it limits requests by itself, which holds for the life of the
// process; that takes no context, and is begun anew where there is no answer.
func connect(ctx context.Context, o fluxclient.Options, serving *controllers.Serving) (*rest.Config, error) {
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("no way to the API server is configured: %w", err)
	}
	for {
		if err := controllers.AwaitAPIServer(ctx, config, serving.Waits); err != nil {
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

// unlessEnded is no error when the process was told to end.
func unlessEnded(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return nil
}

// manage runs the manager. The one that leads ends when it cannot renew its lease,
// and so has the process to. Where that is because the API server is away, nothing
// else could be done until it is back, and a new process could not even serve: this
// one serves on what it knows until then, as those do that do not lead.
func manage(ctx context.Context, mgr manager.Manager) error {
	err := mgr.Start(ctx)
	if err != nil && ctx.Err() == nil {
		ctrl.Log.Error(err, "the controllers have ended; artifacts are served until the API server is ready")
		err = errors.Join(err, unlessEnded(ctx, controllers.AwaitAPIServer(ctx, mgr.GetConfig(), func(error) {})))
	}
	return err
}

// prepare checks the flags against each other and sets what is global in
// Flux's libraries.
func (o *options) prepare() error {
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" && o.storage.StorageAdvAddress == "" {
		return errors.New("--storage-adv-addr is not set: in a pod it must name the Service under which consumers reach the artifacts, such as image-source-controller.flux-system.svc.cluster.local")
	}
	if o.namespace = os.Getenv("RUNTIME_NAMESPACE"); o.namespace == "" {
		return errors.New("RUNTIME_NAMESPACE is not set: it must name the namespace of the controller, which holds the Secrets of TrustPolicies")
	}
	if o.concurrent < 1 {
		return fmt.Errorf("--concurrent is %d: at least one reconcile must run", o.concurrent)
	}
	if err := checkLimits(o.limits); err != nil {
		return err
	}
	gates := map[string]bool{}
	auth.SetFeatureGates(gates)
	if err := o.features.WithLogger(ctrl.Log).SupportedFeatures(gates); err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	enabled, err := features.Enabled(auth.FeatureGateObjectLevelWorkloadIdentity)
	if err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	if enabled {
		auth.EnableObjectLevelWorkloadIdentity()
	}
	if o.defaultServiceAccount != "" {
		auth.SetDefaultServiceAccount(o.defaultServiceAccount)
	}
	if auth.InconsistentObjectLevelConfiguration() {
		return auth.ErrInconsistentObjectLevelConfiguration
	}
	if err := o.jitter.SetGlobalJitter(nil); err != nil {
		return fmt.Errorf("--interval-jitter-percentage: %w", err)
	}
	return nil
}

// checkLimits refuses limits under which nothing could be published, or that parts
// of the process would understand differently.
func checkLimits(limits format.Limits) error {
	for _, limit := range []struct {
		flag  string
		value int64
	}{
		{"max-artifact-bytes", limits.ArtifactBytes},
		{"max-uncompressed-bytes", limits.UncompressedBytes},
		{"max-entries", int64(limits.Entries)},
		{"max-depth", int64(limits.Depth)},
		{"max-layers", int64(limits.Layers)},
	} {
		if limit.value < 1 {
			return fmt.Errorf("--%s is %d: expected at least 1; leave it out for the default", limit.flag, limit.value)
		}
	}
	return nil
}

// rules are what the platform sets for all namespaces.
func (o *options) rules() (controllers.Rules, error) {
	rules := controllers.Rules{
		NamespaceOptIn:       controllers.NamespaceOptIn(o.namespaceOptIn),
		NoCrossNamespaceRefs: o.acl.NoCrossNamespaceRefs || !o.watch.AllNamespaces,
		RequireTrustPolicy:   o.requireTrustPolicy,
	}
	switch rules.NamespaceOptIn {
	case controllers.NamespaceOptInLabel, controllers.NamespaceOptInNone:
		return rules, nil
	default:
		return rules, fmt.Errorf("--namespace-opt-in is %q: accepted are label and none", o.namespaceOptIn)
	}
}

func newManager(config *rest.Config, o *options, selector labels.Selector) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, imagev1.AddToScheme, sourcev1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	election := controllerName + "-leader-election"
	if o.watch.LabelSelector != "" {
		election = leaderelection.GenerateID(election, o.watch.LabelSelector)
	}
	secrets, err := o.watchedSecrets()
	if err != nil {
		return nil, err
	}
	caches := cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&imagev1.ImagePolicy{}:         {Label: selector},
			&v1alpha1.ArtifactRepository{}: {Label: selector},
			&corev1.Secret{}:               {Namespaces: secrets, Transform: controllers.StripSecret},
		},
	}
	if !o.watch.AllNamespaces {
		caches.DefaultNamespaces = map[string]cache.Config{o.namespace: {}}
	}
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Logger:                        ctrl.Log,
		HealthProbeBindAddress:        "0", // see run
		Metrics:                       metricsserver.Options{BindAddress: o.metricsAddr, ExtraHandlers: pprof.GetHandlers()},
		LeaderElection:                o.leaderElection.Enable,
		LeaderElectionReleaseOnCancel: o.leaderElection.ReleaseOnCancel,
		LeaderElectionNamespace:       o.namespace,
		LeaseDuration:                 &o.leaderElection.LeaseDuration,
		RenewDeadline:                 &o.leaderElection.RenewDeadline,
		RetryPeriod:                   &o.leaderElection.RetryPeriod,
		LeaderElectionID:              election,
		Cache:                         caches,
		// Secrets are read when they are needed and never kept.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}}}},
		Controller: ctrlconfig.Controller{
			RecoverPanic:            new(true),
			MaxConcurrentReconciles: o.concurrent,
		},
	})
}

// watchedSecrets are the Secrets whose metadata is watched: all of the
// controller's namespace and, if a selector is set, some of the others.
func (o *options) watchedSecrets() (map[string]cache.Config, error) {
	watched := map[string]cache.Config{o.namespace: {}}
	if o.watch.ConfigsLabelSelector == "" || !o.watch.AllNamespaces {
		return watched, nil
	}
	selector, err := labels.Parse(o.watch.ConfigsLabelSelector)
	if err != nil {
		return nil, fmt.Errorf("--watch-configs-label-selector: %w", err)
	}
	watched[cache.AllNamespaces] = cache.Config{LabelSelector: selector}
	return watched, nil
}

// parts are what the controllers are made of.
type parts struct {
	rules       controllers.Rules
	metrics     *controllers.Metrics
	events      *controllers.Events
	store       *store.Replica
	registry    *registry.Client
	credentials *credentials.Resolver
	trust       *trustpolicy.Resolver
}

func newParts(mgr manager.Manager, o *options) (*parts, error) {
	var p parts
	var err error
	if p.rules, err = o.rules(); err != nil {
		return nil, err
	}
	if p.metrics, err = controllers.NewMetrics(ctrlmetrics.Registry); err != nil {
		return nil, err
	}
	if p.store, err = newStore(o, p.metrics); err != nil {
		return nil, err
	}
	if p.events, err = newEvents(mgr, o); err != nil {
		return nil, err
	}
	if p.registry, err = newRegistry(o, p.metrics); err != nil {
		return nil, err
	}
	var tokens *pkgcache.TokenCache
	if o.tokenCache.MaxSize > 0 {
		tokens, err = pkgcache.NewTokenCache(o.tokenCache.MaxSize,
			pkgcache.WithMaxDuration(o.tokenCache.MaxDuration),
			pkgcache.WithMetricsRegisterer(ctrlmetrics.Registry),
			pkgcache.WithMetricsPrefix("gotk_token_"))
		if err != nil {
			return nil, err
		}
	}
	publicRoot, err := trust.NewPublicRoot(trust.PublicRootOptions{Folder: tufRoot()})
	if err != nil {
		return nil, err
	}
	reader := controllers.TrustReader{Client: mgr.GetClient(), Secrets: mgr.GetCache(), Live: mgr.GetAPIReader()}
	p.trust = controllers.NewTrust(reader, o.namespace, trust.Options{PublicRoot: publicRoot, Revocation: p.registry.Authorities()})
	p.credentials = credentials.New(credentials.Options{Client: mgr.GetClient(), TokenCache: tokens})
	return &p, nil
}

func newStore(o *options, m *controllers.Metrics) (*store.Replica, error) {
	storage, err := store.NewOptions(&o.storage)
	if err != nil {
		return nil, err
	}
	local, err := store.Open(storage)
	if err != nil {
		return nil, err
	}
	return store.NewReplica(local, store.PeerOptions{
		Hosts: o.peers, Address: o.storage.StorageAddress, MaxBytes: o.limits.ArtifactBytes, Fetched: m.ObserveFetched,
	})
}

// newEvents splits what Flux's recorder does at once: Kubernetes events are
// queued by client-go, but a post to a receiver blocks, and may for long.
func newEvents(mgr manager.Manager, o *options) (*controllers.Events, error) {
	flux, err := events.NewRecorder(mgr, ctrl.Log, o.eventsAddr, controllerName)
	if err != nil {
		return nil, fmt.Errorf("--events-addr: %w", err)
	}
	told := &controllers.Events{Recorder: flux.EventRecorder, Metrics: helper.NewMetrics(mgr, metrics.MustMakeRecorder())}
	if o.eventsAddr != "" {
		flux.EventRecorder = discard{}
		told.Alerts = flux
	}
	return told, nil
}

// discard is a recorder of Kubernetes events that records none.
type discard struct{}

// Event implements record.EventRecorder.
func (discard) Event(runtime.Object, string, string, string) {}

// Eventf implements record.EventRecorder.
func (discard) Eventf(runtime.Object, string, string, string, ...any) {}

// AnnotatedEventf implements record.EventRecorder.
func (discard) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}

// tufRoot is the folder that keeps Sigstore's public root of trust, which The
// Update Framework updates: TUF_ROOT as for cosign, else a temporary folder.
func tufRoot() string {
	return cmp.Or(os.Getenv("TUF_ROOT"), filepath.Join(os.TempDir(), "sigstore-root"))
}

func newRegistry(o *options, m *controllers.Metrics) (*registry.Client, error) {
	networks, err := registry.ParseNetworks(o.allowedCIDRs)
	if err != nil {
		return nil, fmt.Errorf("--registry-allowed-cidrs: %w", err)
	}
	return registry.NewClient(registry.Options{
		UserAgent:    controllerName + "/" + version,
		AuthRealms:   o.authRealms,
		AllowedCIDRs: networks,
		Observe:      m.ObserveRegistry,
	})
}

// startCaches starts the caches of every kind, so that a replica that does not lead
// keeps them ready all the same, after it has declared by which fields they are
// searched.
func startCaches(ctx context.Context, mgr manager.Manager) error {
	if err := controllers.IndexFields(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	for _, kind := range []client.Object{
		&corev1.Namespace{}, &imagev1.ImageRepository{}, &imagev1.ImagePolicy{},
		&v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}, &v1alpha1.TrustPolicy{}, controllers.SecretMetadata(),
	} {
		if _, err := mgr.GetCache().GetInformer(ctx, kind, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
	}
	return nil
}

// setup adds the controllers and what goes with them to the manager, and fills
// in the server that goes beside it.
func setup(mgr manager.Manager, o *options, p *parts, labelKeys []string, serving *controllers.Serving) error {
	limited := func() controller.Options {
		return controller.Options{RateLimiter: helper.GetRateLimiter(o.rateLimiter)}
	}
	policies := &controllers.ImagePolicyReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(),
		Rules: p.rules, LabelKeys: labelKeys, FieldManager: controllerName, Events: p.events,
	}
	if err := policies.SetupWithManager(mgr, limited()); err != nil {
		return err
	}
	terms := &controllers.TrustPolicyReconciler{Client: mgr.GetClient(), Trust: p.trust, Events: p.events, Metrics: p.metrics}
	if err := terms.SetupWithManager(mgr, limited()); err != nil {
		return err
	}
	poke := make(chan event.GenericEvent, 100)
	artifacts := &controllers.ArtifactRepositoryReconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(),
		Rules: p.rules, Trust: p.trust,
		Pipeline: &pipeline.Pipeline{Throttle: throttle.New(o.concurrent), Credentials: p.credentials, Registry: p.registry},
		Bridge:   bridge.New(p.store, time.Now), Store: p.store,
		Content:   format.Options{Limits: o.limits, AlwaysRearchive: o.storage.ArtifactDigestAlgo != "sha256"},
		LabelKeys: labelKeys, FieldManager: controllerName, Backoff: helper.GetRateLimiter(o.rateLimiter), Events: p.events, Metrics: p.metrics,
	}
	if err := artifacts.SetupWithManager(mgr, limited(), poke); err != nil {
		return err
	}
	collector := &controllers.Collector{
		Client: mgr.GetClient(), Store: p.store.Store, Every: collectEvery, Metrics: p.metrics,
	}
	eraser := &controllers.Eraser{Records: mgr.GetCache(), Objects: mgr.GetClient(), Store: p.store.Store}
	if len(labelKeys) > 0 { // the caches have those of this shard only
		eraser.Objects = mgr.GetAPIReader()
	}
	runnables := []manager.Runnable{p.events, collector, eraser}
	if len(o.peers) > 0 {
		runnables = append(runnables, &controllers.Mirror{Client: mgr.GetClient(), Store: p.store, Every: mirrorEvery})
	}
	for _, runnable := range runnables {
		if err := mgr.Add(runnable); err != nil {
			return err
		}
	}
	supplier := controllers.NewSupplier(controllers.SupplierOptions{Reconciler: artifacts, Poke: poke, Rebuilds: o.concurrent})
	serving.Server, serving.Supplier, serving.Cache = newServer(o, p, supplier), supplier, mgr.GetCache()
	return nil
}

// collectEvery is how soon a file goes after the retention allows it.
const collectEvery = time.Minute

// mirrorEvery is how soon each replica has what the one that leads published.
const mirrorEvery = 30 * time.Second

// shutdownTimeout is what running downloads get to finish after the delay; the
// Deployment's grace period is longer than both.
const shutdownTimeout = 30 * time.Second

func newServer(o *options, p *parts, supplier *controllers.Supplier) *store.Server {
	return p.store.Server(store.ServerOptions{
		Address:         o.storage.StorageAddress,
		DrainTime:       o.shutdownDelay,
		ShutdownTimeout: shutdownTimeout,
		HandlerOptions: store.HandlerOptions{
			Publishes: supplier.Publishes, Missing: supplier.Missing, Lacking: supplier.Lacking, Observe: p.metrics.ObserveServer,
		},
	})
}

// labelKeys are the labels that a watch selector looks at.
func labelKeys(selector labels.Selector) []string {
	requirements, _ := selector.Requirements()
	var keys []string
	for _, requirement := range requirements {
		keys = append(keys, requirement.Key())
	}
	return keys
}
