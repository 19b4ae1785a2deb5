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

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// platformDemands reads what the platform demands of the images of a repository, by its
// canonical name.
func (e *Evaluator) platformDemands(ctx context.Context, s source.Snapshot, repository string) trustpolicy.Demands {
	return e.Trust.Platform(ctx, s.Trust, trust.Question{
		Namespace: s.Namespace.Name, Labels: s.Namespace.Labels, Repository: repository, Required: e.Rules.RequireTrustPolicy,
	})
}

// ownDemands reads the demands of spec.verify. The work, which takes requests to the API server
// each time, counts against the namespace; wait is when to come again where the namespace
// has as much work as it may.
func (e *Evaluator) ownDemands(ctx context.Context, obj *v1alpha1.ArtifactRepository) (d trustpolicy.Demands, wait time.Duration) {
	if obj.Spec.Verify == nil {
		return d, 0
	}
	end, busy := e.Pipeline.Throttle.Occupy(obj.Namespace)
	if busy != nil {
		return trustpolicy.Demands{
			Unread: fault.Retryf(v1alpha1.ReasonVerificationError, "spec.verify is not read yet: the namespace %s has as many attempts as it may", obj.Namespace),
		}, busy.Wait
	}
	defer end()
	return e.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify), 0
}

// isOutdated tells whether the demands on images of a repository are no longer those that an
// image was verified by: rules, the labels of the namespace, or the keys and roots behind them.
func (e *Evaluator) isOutdated(ctx context.Context, obj *v1alpha1.ArtifactRepository, repository string, by trustpolicy.Demands) (bool, error) {
	now, err := e.Snapshots.platform(ctx, obj.Namespace)
	if err != nil || now.Namespace == nil {
		return true, err
	}
	// Not by ownDemands: the attempt would wait for a second place while it has the first.
	own := e.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify)
	return !by.Same(e.platformDemands(ctx, now, repository).With(own).Fingerprint), nil
}
