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

package controllers

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	rawsource "sigs.k8s.io/controller-runtime/pkg/source"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Indexes of the caches.
const (
	// policiesByRepository finds ImagePolicies by their ImageRepository, as namespace/name.
	policiesByRepository = "spec.imageRepositoryRef"
	// artifactsByPolicy finds ArtifactRepositories by their ImagePolicy.
	artifactsByPolicy = "spec.imagePolicyRef"
	// artifactsBySecret finds ArtifactRepositories by their Secrets.
	artifactsBySecret = "spec.secrets"
	// artifactsByLender finds ArtifactRepositories by the ImageRepository of another
	// namespace by whose access their content was fetched, as namespace/name.
	artifactsByLender = "status.record.imageRepository"
)

// IndexFields declares the indexes of the controllers. Call it once, before their setup.
func IndexFields(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &imagev1.ImagePolicy{}, policiesByRepository, func(obj client.Object) []string {
		return []string{source.RepositoryKey(obj.(*imagev1.ImagePolicy)).String()}
	})
	if err != nil {
		return err
	}
	err = indexer.IndexField(ctx, &v1alpha1.ArtifactRepository{}, artifactsByPolicy, func(obj client.Object) []string {
		if name := source.PolicyName(obj.(*v1alpha1.ArtifactRepository)); name != "" {
			return []string{name}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = indexer.IndexField(ctx, &v1alpha1.ArtifactRepository{}, artifactsByLender, func(obj client.Object) []string {
		if record := obj.(*v1alpha1.ArtifactRepository).Status.Record; record != nil && record.ImageRepository != "" {
			return []string{record.ImageRepository}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return indexer.IndexField(ctx, &v1alpha1.ArtifactRepository{}, artifactsBySecret, func(obj client.Object) []string {
		return source.SecretNames(obj.(*v1alpha1.ArtifactRepository))
	})
}

// SetupWithManager watches the objects that decide about a policy.
func (r *ImagePolicyReconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	options.NewQueue = newQueue
	return ctrl.NewControllerManagedBy(mgr).
		Named("imagepolicy").
		For(&imagev1.ImagePolicy{}, builder.WithPredicates(changed(source.PolicyWithoutStatus))).
		Watches(&v1alpha1.ArtifactRepository{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(changed(source.ArtifactRepositoryWithoutStatus))).
		Watches(&imagev1.ImageRepository{}, asItIs(r.policiesOfRepository), builder.WithPredicates(changed(source.RepositoryWithoutStatus))).
		Watches(&corev1.Namespace{}, asItIs(r.policiesOfNamespace), builder.WithPredicates(changed(source.KeepNamespace))).
		WithOptions(options).
		Complete(r)
}

// SetupWithManager watches the objects that decide about an ArtifactRepository, and the
// generated ones. Enqueued, if not nil, has objects to reconcile.
func (r *ArtifactRepositoryReconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options, enqueued <-chan event.GenericEvent) error {
	options.NewQueue = newQueue
	return ctrl.NewControllerManagedBy(mgr).
		Named("artifactrepository").
		For(&v1alpha1.ArtifactRepository{}, builder.WithPredicates(changed(source.ArtifactRepositoryWithoutStatus))).
		Watches(&v1alpha1.ArtifactRepository{}, interrupter(itself, r.inflight.abandon), builder.WithPredicates(deletion())).
		Watches(&sourcev1.ExternalArtifact{}, asItIs(r.drifted)).
		Watches(&imagev1.ImagePolicy{}, asItIs(r.ofPolicy), builder.WithPredicates(changed(source.KeepPolicy))).
		Watches(&imagev1.ImageRepository{}, asItIs(r.ofRepository), builder.WithPredicates(changed(source.KeepRepository))).
		Watches(&imagev1.ImageRepository{}, interrupter(r.withoutConsent, r.inflight.abandon), builder.WithPredicates(changed(source.RepositoryWithoutStatus))).
		Watches(&corev1.Namespace{}, asItIs(r.ofNamespace), builder.WithPredicates(changed(source.KeepNamespace))).
		Watches(&corev1.Namespace{}, interrupter(r.ofNamespace, r.inflight.interrupt), builder.WithPredicates(changed(source.KeepNamespace))).
		Watches(&v1alpha1.TrustPolicy{}, handler.EnqueueRequestsFromMapFunc(r.ofTrustPolicy), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.TrustPolicy{}, interrupter(r.ofTrustPolicy, r.inflight.interrupt), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, asItIs(r.ofSecret), builder.OnlyMetadata).
		Watches(&corev1.Secret{}, interrupter(r.ofPlatformSecret, r.inflight.interrupt), builder.OnlyMetadata, builder.WithPredicates(predicate.ResourceVersionChangedPredicate{})).
		WatchesRawSource(rawsource.Channel(enqueued, &handler.EnqueueRequestForObject{})).
		WithOptions(options).
		Complete(r)
}

// SetupWithManager watches TrustPolicies, and their Secrets. Only the leader writes their
// status.
func (r *TrustPolicyReconciler) SetupWithManager(mgr ctrl.Manager, options controller.Options) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("trustpolicy").
		For(&v1alpha1.TrustPolicy{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&corev1.Secret{}, asItIs(r.ofSecret), builder.OnlyMetadata).
		WithOptions(options).
		Complete(r)
}

// asItIs enqueues the results of a map function for the newest state of an object. For an
// update the library also uses the old state: this repeats the work if both have the same
// results, and reports drift that was already repaired.
func asItIs(find handler.MapFunc) handler.EventHandler {
	return latest{handler.EnqueueRequestsFromMapFunc(find)}
}

type latest struct{ handler.EventHandler }

// Update implements handler.EventHandler.
func (l latest) Update(ctx context.Context, e event.UpdateEvent, queue workqueue.TypedRateLimitingInterface[ctrl.Request]) {
	l.Generic(ctx, event.GenericEvent{Object: e.ObjectNew}, queue)
}

// changed passes updates that change a field of keep. Creation and deletion always pass.
func changed[T client.Object](keep func(T) T) predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, ok := e.ObjectOld.(T)
		if !ok {
			return true
		}
		now, ok := e.ObjectNew.(T)
		return !ok || source.IsNews(before, now, keep)
	}}
}

// deletion passes events about deleted objects, and objects that are being deleted.
func deletion() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool { return e.ObjectNew.GetDeletionTimestamp() != nil },
	}
}

func (r *ImagePolicyReconciler) policiesOfRepository(ctx context.Context, obj client.Object) []ctrl.Request {
	return listed(ctx, r.Client, &imagev1.ImagePolicyList{}, client.MatchingFields{policiesByRepository: client.ObjectKeyFromObject(obj).String()})
}

func (r *ImagePolicyReconciler) policiesOfNamespace(ctx context.Context, obj client.Object) []ctrl.Request {
	return listed(ctx, r.Client, &imagev1.ImagePolicyList{}, client.InNamespace(obj.GetName()))
}

func (r *ArtifactRepositoryReconciler) ofPolicy(ctx context.Context, obj client.Object) []ctrl.Request {
	requests := listed(ctx, r.Snapshots.Client, &v1alpha1.ArtifactRepositoryList{},
		client.InNamespace(obj.GetNamespace()), client.MatchingFields{artifactsByPolicy: obj.GetName()})
	if pick := obj.(*imagev1.ImagePolicy).Status.LatestRef; pick != nil {
		hash := hashOf(*pick)
		for _, request := range requests {
			r.Report.arrivals.await(request.NamespacedName, hash)
		}
	}
	return append(requests, r.named(ctx, obj)...)
}

// named enqueues the ArtifactRepository with an object's name, if it generates image
// objects.
func (r *ArtifactRepositoryReconciler) named(ctx context.Context, obj client.Object) []ctrl.Request {
	key := client.ObjectKeyFromObject(obj)
	repository, err := apiserver.Get(ctx, r.Snapshots.Client, key, &v1alpha1.ArtifactRepository{})
	if err != nil || repository == nil || repository.Spec.Image == "" {
		return nil
	}
	return []ctrl.Request{{NamespacedName: key}}
}

func (r *ArtifactRepositoryReconciler) ofRepository(ctx context.Context, obj client.Object) []ctrl.Request {
	// One of the same name may belong to an ArtifactRepository, or be in its way.
	requests := r.named(ctx, obj)
	policies := listed(ctx, r.Snapshots.Client, &imagev1.ImagePolicyList{}, client.MatchingFields{policiesByRepository: client.ObjectKeyFromObject(obj).String()})
	for _, policy := range policies {
		requests = append(requests, listed(ctx, r.Snapshots.Client, &v1alpha1.ArtifactRepositoryList{},
			client.InNamespace(policy.Namespace), client.MatchingFields{artifactsByPolicy: policy.Name})...)
	}
	return append(requests, listed(ctx, r.Snapshots.Client, &v1alpha1.ArtifactRepositoryList{},
		client.MatchingFields{artifactsByLender: client.ObjectKeyFromObject(obj).String()})...)
}

// withoutConsent finds the sources with a running attempt without the consent of the owner
// of an ImageRepository of another namespace. It returns no others: frequent writes to an
// ImageRepository must not end the attempts of permitted sources.
func (r *ArtifactRepositoryReconciler) withoutConsent(ctx context.Context, obj client.Object) (requests []ctrl.Request) {
	for _, request := range r.ofRepository(ctx, obj) {
		if request.Namespace == obj.GetNamespace() || !r.inflight.has(request.NamespacedName) {
			continue
		}
		s, err := Snapshots{Client: r.Snapshots.Client, Rules: r.Snapshots.Rules}.Snapshot(ctx, request.NamespacedName)
		if err != nil || s.Object == nil || s.Object.DeletionTimestamp != nil {
			continue // the next reconcile decides
		}
		if r.Snapshots.Rules.Permission(s).Choice == source.Off {
			requests = append(requests, request)
		}
	}
	return requests
}

func itself(_ context.Context, obj client.Object) []ctrl.Request {
	return []ctrl.Request{{NamespacedName: client.ObjectKeyFromObject(obj)}}
}

func (r *ArtifactRepositoryReconciler) ofNamespace(ctx context.Context, obj client.Object) []ctrl.Request {
	return listed(ctx, r.Snapshots.Client, &v1alpha1.ArtifactRepositoryList{}, client.InNamespace(obj.GetName()))
}

// ofTrustPolicy enqueues all sources of the namespaces that a policy governs. It is called
// for both the old and the new policy of an update.
func (r *ArtifactRepositoryReconciler) ofTrustPolicy(ctx context.Context, obj client.Object) []ctrl.Request {
	policies := trust.NewPolicies(trustpolicy.Parse(obj.(*v1alpha1.TrustPolicy)))
	var namespaces corev1.NamespaceList
	if err := r.Snapshots.Client.List(ctx, &namespaces, client.UnsafeDisableDeepCopy); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "objects could not be listed")
		return nil
	}
	var requests []ctrl.Request
	for i := range namespaces.Items {
		if policies.Governs(namespaces.Items[i].Labels) {
			requests = append(requests, r.ofNamespace(ctx, &namespaces.Items[i])...)
		}
	}
	return requests
}

// ofSecret enqueues the sources that depend on a Secret: by name in its namespace, or by
// their policies.
func (r *ArtifactRepositoryReconciler) ofSecret(ctx context.Context, obj client.Object) []ctrl.Request {
	requests := listed(ctx, r.Snapshots.Client, &v1alpha1.ArtifactRepositoryList{},
		client.InNamespace(obj.GetNamespace()), client.MatchingFields{artifactsBySecret: obj.GetName()})
	return append(requests, r.ofPlatformSecret(ctx, obj)...)
}

// ofPlatformSecret enqueues the sources whose policies name a Secret of the controller's
// namespace.
func (r *ArtifactRepositoryReconciler) ofPlatformSecret(ctx context.Context, obj client.Object) (requests []ctrl.Request) {
	for _, policy := range policiesNaming(ctx, r.Evaluator.Trust, obj) {
		requests = append(requests, r.ofTrustPolicy(ctx, policy)...)
	}
	return requests
}

// ofSecret enqueues the policies that name a Secret of the controller's namespace.
func (r *TrustPolicyReconciler) ofSecret(ctx context.Context, obj client.Object) (requests []ctrl.Request) {
	for _, policy := range policiesNaming(ctx, r.Trust, obj) {
		requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(policy)})
	}
	return requests
}

// policiesNaming returns the policies that name a Secret of the controller's namespace.
func policiesNaming(ctx context.Context, trust *trustpolicy.Resolver, secret client.Object) []*v1alpha1.TrustPolicy {
	if secret.GetNamespace() != trust.Namespace {
		return nil
	}
	policies, err := trust.Naming(ctx, secret.GetName())
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "objects could not be listed")
	}
	return policies
}

// drifted enqueues a repair if an ExternalArtifact disagrees with the record. Our own writes
// come back here too, and agree.
func (r *ArtifactRepositoryReconciler) drifted(ctx context.Context, obj client.Object) []ctrl.Request {
	key := client.ObjectKeyFromObject(obj)
	repository, err := apiserver.Get(ctx, r.Snapshots.Client, key, &v1alpha1.ArtifactRepository{})
	if repository == nil || err != nil || !conditions.Has(repository, meta.ReadyCondition) {
		return nil // the first attempt writes the ExternalArtifact before the conditions of the record
	}
	external := obj.(*sourcev1.ExternalArtifact)
	asked := source.Snapshot{Object: repository, External: external}.NewExternalToken() != ""
	if !asked && r.stillThere(ctx, key, external.UID) && r.Writer.externals().matches(inTheWordsOf(repository, external), repository) {
		return nil
	}
	return []ctrl.Request{{NamespacedName: key}}
}

// inTheWordsOf returns an ExternalArtifact with the reasons and messages of the record where
// its conditions have the same status. Messages can change with each attempt, and the copy
// may be seen before the record: as drift, one failed attempt would lead to the next one at
// once. The next regular reconcile replaces forged messages.
func inTheWordsOf(obj *v1alpha1.ArtifactRepository, external *sourcev1.ExternalArtifact) *sourcev1.ExternalArtifact {
	external = external.DeepCopy()
	for i := range external.Status.Conditions {
		copied := &external.Status.Conditions[i]
		if recorded := conditions.Get(obj, copied.Type); recorded != nil && recorded.Status == copied.Status {
			copied.Reason, copied.Message = recorded.Reason, recorded.Message
		}
	}
	return external
}

// stillThere reports whether the cache has the object of an event; it does not after a
// deletion.
func (r *ArtifactRepositoryReconciler) stillThere(ctx context.Context, key types.NamespacedName, uid types.UID) bool {
	external, err := apiserver.Get(ctx, r.Snapshots.Client, key, &sourcev1.ExternalArtifact{})
	return err == nil && external != nil && external.UID == uid
}

// interrupter calls end for the attempts that an event overtakes: those that find returns
// for the old and the new object. An attempt may last as long as a tenant allows, and
// neither the deletion of the object nor the rules of the platform wait for that. Do not
// register watches that fire without a real change: each event cancels a running pull, which
// then never finishes.
func interrupter(find handler.MapFunc, end func(types.NamespacedName)) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[ctrl.Request]
	interrupt := func(ctx context.Context, obj client.Object) {
		for _, request := range find(ctx, obj) {
			end(request.NamespacedName)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, _ queue) { interrupt(ctx, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, _ queue) {
			interrupt(ctx, e.ObjectOld)
			interrupt(ctx, e.ObjectNew)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) { interrupt(ctx, e.Object) },
	}
}

// listed returns the keys of the objects in a list. It reads only keys, so it does not copy
// the objects of the cache.
func listed(ctx context.Context, c client.Client, list client.ObjectList, options ...client.ListOption) (requests []ctrl.Request) {
	err := c.List(ctx, list, append(options, client.UnsafeDisableDeepCopy)...)
	if err == nil {
		err = apimeta.EachListItem(list, func(item runtime.Object) error {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(item.(client.Object))})
			return nil
		})
	}
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "objects could not be listed")
		return nil
	}
	return requests
}
