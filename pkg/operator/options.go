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
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fluxcd/pkg/apis/meta"
	artifactconfig "github.com/fluxcd/pkg/artifact/config"
	"github.com/fluxcd/pkg/auth"
	pkgcache "github.com/fluxcd/pkg/cache"
	"github.com/fluxcd/pkg/runtime/acl"
	fluxclient "github.com/fluxcd/pkg/runtime/client"
	helper "github.com/fluxcd/pkg/runtime/controller"
	"github.com/fluxcd/pkg/runtime/features"
	"github.com/fluxcd/pkg/runtime/jitter"
	"github.com/fluxcd/pkg/runtime/leaderelection"
	"github.com/fluxcd/pkg/runtime/logger"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/source"
)

// Options are what the flags say.
type Options struct {
	Listen   Listen
	Publish  Publish
	Registry Registry
	Storage  Storage
	Flux     Flux
	// Namespace is the one that the controller runs in.
	Namespace string
	// Version of this program.
	Version string
}

// Listen are addresses.
type Listen struct {
	// Metrics and Health are what the process listens on.
	Metrics, Health string
	// Events is the receiver of events; empty: none.
	Events string
}

// Publish are what holds for all sources.
type Publish struct {
	// Concurrent reconciles of each controller.
	Concurrent int
	// NamespaceOptIn and RequireTrustPolicy are those of source.Rules.
	NamespaceOptIn     string
	RequireTrustPolicy bool
	Limits             format.Limits
}

// Registry are the rules on the way to registries, see registry.Options.
type Registry struct {
	AuthRealms, AllowedCIDRs []string
	// DefaultServiceAccount is whose identity is used where an object names none.
	DefaultServiceAccount string
}

// Storage is where artifacts are kept and served.
type Storage struct {
	artifactconfig.Options

	// Peers are the host:port of the artifact servers of all replicas.
	Peers []string
	// ShutdownDelay is how long artifacts are served after a signal to end.
	ShutdownDelay time.Duration
}

// Flux are the options that all controllers of Flux have.
type Flux struct {
	Client         fluxclient.Options
	Log            logger.Options
	LeaderElection leaderelection.Options
	Watch          helper.WatchOptions
	ACL            acl.Options
	RateLimiter    helper.RateLimiterOptions
	Jitter         jitter.IntervalOptions
	Features       features.FeatureGates
	TokenCache     pkgcache.TokenFlags
}

// BindFlags declares the flags.
func (o *Options) BindFlags(fs *pflag.FlagSet) {
	const tokenCacheSize = 100
	o.Publish.Limits = format.DefaultLimits()
	limits := &o.Publish.Limits
	fs.StringVar(&o.Listen.Metrics, "metrics-addr", ":8080", "The address the metric endpoint binds to.")
	fs.StringVar(&o.Listen.Health, "health-addr", ":9440", "The address the health endpoint binds to.")
	fs.StringVar(&o.Listen.Events, "events-addr", "", "The address of the events receiver.")
	fs.IntVar(&o.Publish.Concurrent, "concurrent", 10, "The number of concurrent reconciles per controller.")
	fs.StringVar(&o.Registry.DefaultServiceAccount, auth.ControllerFlagDefaultServiceAccount, "",
		"Default service account to use for workload identity when not specified in resources.")
	fs.StringVar(&o.Publish.NamespaceOptIn, "namespace-opt-in", string(source.NamespaceOptInLabel),
		"Whether a namespace must carry the label "+v1alpha1.UseAsSource+" for anything in it to be published: label or none.")
	fs.BoolVar(&o.Publish.RequireTrustPolicy, "require-trust-policy", false,
		"Refuse images in namespaces that no TrustPolicy in mode Enforce governs.")
	fs.StringSliceVar(&o.Registry.AuthRealms, "registry-auth-realms", nil,
		"Hosts that may be sent registry credentials when a registry names one as its token service, beside its own registrable domain.")
	fs.StringSliceVar(&o.Registry.AllowedCIDRs, "registry-allowed-cidrs", nil,
		"Private networks that registries may redirect to.")
	fs.Int64Var(&limits.ArtifactBytes, "max-artifact-bytes", limits.ArtifactBytes, "The largest artifact that is pulled, in bytes.")
	fs.Int64Var(&limits.UncompressedBytes, "max-uncompressed-bytes", limits.UncompressedBytes, "The most bytes that an artifact may unpack to.")
	fs.IntVar(&limits.Entries, "max-entries", limits.Entries, "The most files and folders that an artifact may hold.")
	fs.IntVar(&limits.Depth, "max-depth", limits.Depth, "The most elements that a path in an artifact may have.")
	fs.IntVar(&limits.Layers, "max-layers", limits.Layers, "The most layers that an artifact may have.")
	fs.StringSliceVar(&o.Storage.Peers, "storage-peers", nil,
		"The host:port of the artifact servers of all replicas, separated by commas, such as that of a headless Service; a host stands for all addresses that it resolves to.")
	fs.DurationVar(&o.Storage.ShutdownDelay, "shutdown-delay", 0,
		"How long artifacts are served on after a signal to end, while consumers are led to other replicas.")
	o.Storage.Options.BindFlags(fs)
	o.Flux.Client.BindFlags(fs)
	o.Flux.Log.BindFlags(fs)
	o.Flux.LeaderElection.BindFlags(fs)
	o.Flux.Watch.BindFlags(fs)
	o.Flux.ACL.BindFlags(fs)
	o.Flux.RateLimiter.BindFlags(fs)
	o.Flux.Jitter.BindFlags(fs)
	o.Flux.Features.BindFlags(fs)
	o.Flux.TokenCache.BindFlags(fs, tokenCacheSize)
	// Secrets of other namespaces are watched only where that was granted.
	if configs := fs.Lookup("watch-configs-label-selector"); configs != nil {
		configs.DefValue, o.Flux.Watch.ConfigsLabelSelector = "", ""
		configs.Usage = "Watch for Secrets with matching labels, such as " + meta.LabelKeyWatch + "=" + meta.LabelValueWatchEnabled + ". Empty: none but those in the namespace of the controller."
	}
}

// prepare checks the flags against each other and sets what is global in
// Flux's libraries.
func (o *Options) prepare() error {
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" && o.Storage.StorageAdvAddress == "" {
		return errors.New("--storage-adv-addr is not set: in a pod it must name the Service under which consumers reach the artifacts, such as image-source-controller.flux-system.svc.cluster.local")
	}
	if o.Namespace = os.Getenv("RUNTIME_NAMESPACE"); o.Namespace == "" {
		return errors.New("RUNTIME_NAMESPACE is not set: it must name the namespace of the controller, which holds the Secrets of TrustPolicies")
	}
	if o.Publish.Concurrent < 1 {
		return fmt.Errorf("--concurrent is %d: at least one reconcile must run", o.Publish.Concurrent)
	}
	if err := checkLimits(o.Publish.Limits); err != nil {
		return err
	}
	gates := map[string]bool{}
	auth.SetFeatureGates(gates)
	if err := o.Flux.Features.WithLogger(ctrl.Log).SupportedFeatures(gates); err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	enabled, err := features.Enabled(auth.FeatureGateObjectLevelWorkloadIdentity)
	if err != nil {
		return fmt.Errorf("--feature-gates: %w", err)
	}
	if enabled {
		auth.EnableObjectLevelWorkloadIdentity()
	}
	if o.Registry.DefaultServiceAccount != "" {
		auth.SetDefaultServiceAccount(o.Registry.DefaultServiceAccount)
	}
	if auth.InconsistentObjectLevelConfiguration() {
		return auth.ErrInconsistentObjectLevelConfiguration
	}
	if err := o.Flux.Jitter.SetGlobalJitter(nil); err != nil {
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
func (o *Options) rules() (source.Rules, error) {
	rules := source.Rules{
		NamespaceOptIn:       source.NamespaceOptIn(o.Publish.NamespaceOptIn),
		NoCrossNamespaceRefs: o.Flux.ACL.NoCrossNamespaceRefs || !o.Flux.Watch.AllNamespaces,
		RequireTrustPolicy:   o.Publish.RequireTrustPolicy,
	}
	switch rules.NamespaceOptIn {
	case source.NamespaceOptInLabel, source.NamespaceOptInNone:
		return rules, nil
	default:
		return rules, fmt.Errorf("--namespace-opt-in is %q: accepted are label and none", o.Publish.NamespaceOptIn)
	}
}
