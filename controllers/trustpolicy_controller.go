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
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// TrustPolicyReconciler writes into the status of each TrustPolicy whether it can be applied
// as it is. It makes no decision about a source.
type TrustPolicyReconciler struct {
	// Client reads from the caches and writes.
	Client client.Client
	// Trust parses policies.
	Trust *trustpolicy.Resolver
	// Events reports to users.
	Events *Events
	// Metrics of this project.
	Metrics *Metrics
}

// Reconcile checks a policy and writes the result.
func (r *TrustPolicyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	start := time.Now()
	obj, err := apiserver.Get(ctx, r.Client, req.NamespacedName, &v1alpha1.TrustPolicy{})
	if err != nil {
		return ctrl.Result{}, err
	}
	if obj == nil {
		r.Events.forgetTrustPolicy(ctx, req.Name)
		r.Metrics.forgetVerdicts(req.Name)
		return ctrl.Result{}, nil
	}
	defer r.Events.duration(ctx, obj, start)
	r.Metrics.expectVerdicts(obj.Name, obj.Spec.Mode)
	before := obj.DeepCopy()
	notes, failed := r.Trust.Check(ctx, obj)
	markPolicy(obj, notes, failed)
	if !equality.Semantic.DeepEqual(before.Status, obj.Status) {
		err = r.Client.Status().Patch(ctx, obj, guarded(before))
	}
	switch {
	case apiserver.IsGone(err), apiserver.IsConflict(err):
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	case err != nil:
		return ctrl.Result{}, err
	}
	r.Events.checked(ctx, before, obj)
	if failure := fault.Of(failed, ""); failure != nil && failure.Class == fault.Retry {
		return ctrl.Result{}, failed
	}
	return ctrl.Result{}, nil
}
