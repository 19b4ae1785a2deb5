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
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/runtime/leaderelection"
	"github.com/fluxcd/pkg/runtime/pprof"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/source"
)

func newManager(config *rest.Config, o *Options, selector labels.Selector) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, imagev1.AddToScheme, sourcev1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	lease, election := Name+"-leader-election", &o.Flux.LeaderElection
	if o.Flux.Watch.LabelSelector != "" {
		lease = leaderelection.GenerateID(lease, o.Flux.Watch.LabelSelector)
	}
	secrets, err := o.watchedSecrets()
	if err != nil {
		return nil, err
	}
	caches := CacheOptions(selector, secrets)
	if !o.Flux.Watch.AllNamespaces {
		caches.DefaultNamespaces = map[string]cache.Config{o.Namespace: {}}
	}
	return ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Logger:                        ctrl.Log,
		HealthProbeBindAddress:        "0", // see run
		Metrics:                       metricsserver.Options{BindAddress: o.Listen.Metrics, ExtraHandlers: pprof.GetHandlers()},
		LeaderElection:                election.Enable,
		LeaderElectionReleaseOnCancel: election.ReleaseOnCancel,
		LeaderElectionNamespace:       o.Namespace,
		LeaseDuration:                 &election.LeaseDuration,
		RenewDeadline:                 &election.RenewDeadline,
		RetryPeriod:                   &election.RetryPeriod,
		LeaderElectionID:              lease,
		Cache:                         caches,
		// Secrets are read when they are needed and never kept.
		Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}}}},
		Controller: ctrlconfig.Controller{
			RecoverPanic:            new(true),
			MaxConcurrentReconciles: o.Publish.Concurrent,
		},
	})
}

// CacheOptions let the caches keep the fields that are read, and no others. shard selects
// sources; secrets are the Secrets whose metadata is watched, by namespace.
func CacheOptions(shard labels.Selector, secrets map[string]cache.Config) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Namespace{}:            {Transform: keeping(source.KeepNamespace)},
			&imagev1.ImagePolicy{}:         {Label: shard, Transform: keeping(source.KeepPolicy)},
			&imagev1.ImageRepository{}:     {Transform: keeping(source.KeepRepository)},
			&sourcev1.ExternalArtifact{}:   {Transform: keeping(source.KeepExternal)},
			&v1alpha1.ArtifactRepository{}: {Label: shard, Transform: keeping(source.KeepArtifactRepository)},
			&corev1.Secret{}:               {Namespaces: secrets, Transform: controllers.StripSecret},
		},
	}
}

// keeping replaces an object by its kept fields. A tombstone stays as it is.
func keeping[T client.Object](keep func(T) T) toolscache.TransformFunc {
	return func(obj any) (any, error) {
		if object, ok := obj.(T); ok {
			return keep(object), nil
		}
		return obj, nil
	}
}

// watchedSecrets are the Secrets whose metadata is watched: all of the
// controller's namespace and, if a selector is set, some of the others.
func (o *Options) watchedSecrets() (map[string]cache.Config, error) {
	watched := map[string]cache.Config{o.Namespace: {}}
	if o.Flux.Watch.ConfigsLabelSelector == "" || !o.Flux.Watch.AllNamespaces {
		return watched, nil
	}
	selector, err := labels.Parse(o.Flux.Watch.ConfigsLabelSelector)
	if err != nil {
		return nil, fmt.Errorf("--watch-configs-label-selector: %w", err)
	}
	watched[cache.AllNamespaces] = cache.Config{LabelSelector: selector}
	return watched, nil
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

// labelKeys are the labels that a watch selector looks at.
func labelKeys(selector labels.Selector) []string {
	requirements, _ := selector.Requirements()
	var keys []string
	for _, requirement := range requirements {
		keys = append(keys, requirement.Key())
	}
	return keys
}
