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

// platformDemands reads the demands of the platform on the images of a repository, given by
// its canonical name.
func (e *Evaluator) platformDemands(ctx context.Context, s source.Snapshot, repository string) trustpolicy.Demands {
	return e.Trust.Platform(ctx, s.Trust, trust.Question{
		Namespace: s.Namespace.Name, Labels: s.Namespace.Labels, Repository: repository, Required: e.Rules.RequireTrustPolicy,
	})
}

// ownDemands reads the demands of spec.verify. This needs requests to the API server each
// time, so it counts against the share of the namespace; wait is the delay if the share is
// used up.
func (e *Evaluator) ownDemands(ctx context.Context, obj *v1alpha1.ArtifactRepository) (d trustpolicy.Demands, wait time.Duration) {
	if obj.Spec.Verify == nil {
		return d, 0
	}
	end, busy := e.Pipeline.Throttle.Occupy(obj.Namespace)
	if busy != nil {
		return trustpolicy.Demands{
			Unread: fault.Retryf(v1alpha1.ReasonVerificationError, "spec.verify is not read yet: the namespace %s has used its share of attempts", obj.Namespace),
		}, busy.Wait
	}
	defer end()
	return e.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify), 0
}

// isOutdated reports whether the demands on the images of a repository have changed since an
// image was verified: rules, labels of the namespace, keys or roots.
func (e *Evaluator) isOutdated(ctx context.Context, obj *v1alpha1.ArtifactRepository, repository string, by trustpolicy.Demands) (bool, error) {
	now, err := e.Snapshots.platform(ctx, obj.Namespace)
	if err != nil || now.Namespace == nil {
		return true, err
	}
	// Not with ownDemands: the attempt would wait for a second place while it has the first.
	own := e.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify)
	return !by.Same(e.platformDemands(ctx, now, repository).With(own).Fingerprint), nil
}
