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
	"errors"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/throttle"
)

// Remake makes the bytes that a record names again, on the replica that is asked for
// them. It goes the way of a restore (see rebuild), and records nothing: other bytes
// (serve.ErrOtherBytes) are of no use to this consumer, and are for the replica that
// leads to publish. A *throttle.Busy says when to try again.
func (r *ArtifactRepositoryReconciler) Remake(ctx context.Context, obj *v1alpha1.ArtifactRepository, from client.Client) error {
	s, err := Snapshots{from, r.Rules, r.Trust}.Around(ctx, obj)
	if err != nil {
		return err
	}
	if plan := planOf(r.Rules, s); plan.Action == Withdraw {
		return fmt.Errorf("it is about to be withdrawn: %w", plan.Why)
	}
	published := publication.Current(obj)
	if published == nil {
		return errors.New("the record has no recipe")
	}
	asked := r.platformDemands(ctx, s, published.Repository)
	own, wait := r.ownDemands(ctx, obj)
	if wait > 0 {
		return &throttle.Busy{Wait: wait}
	}
	asked = asked.With(own)
	out, _, err := r.rebuild(ctx, s, asked)
	if err != nil {
		return err
	}
	if out.Artifact.Path != obj.Status.Artifact.Path { // which is made of the digest
		return fmt.Errorf("%w: it is %s and not %s", serve.ErrOtherBytes, out.Artifact.Digest, obj.Status.Artifact.Digest)
	}
	return nil
}
