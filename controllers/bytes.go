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

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// isCurrent reports whether the target is published, read with the same settings and stored.
func (v *evaluation) isCurrent(ctx context.Context) bool {
	published := publication.Current(v.s.Object)
	if published == nil || published.Digest != v.d.target.Digest || published.Repository != v.d.target.Repository.Name() ||
		published.Content != v.contentHash {
		return false
	}
	ok, err := v.isStored(ctx, v.s.Object)
	return ok && err == nil
}

// isStored reports whether the published file is on disk.
func (e *Evaluator) isStored(ctx context.Context, obj *v1alpha1.ArtifactRepository) (bool, error) {
	_, stored, err := e.Store.Check(ctx, publication.Key(obj), *obj.Status.Artifact)
	return stored, err
}

// keepBytes rebuilds the published file if it is lost. It has its own timeout: a registry
// that used up the timeout of the attempt must not prevent a look at the disk or at other
// replicas.
func (v *evaluation) keepBytes(whole context.Context) {
	published := publication.Current(v.s.Object)
	if published == nil {
		return
	}
	ctx, cancel := context.WithTimeout(whole, v.s.Object.GetTimeout())
	defer cancel()
	var err error
	if v.d.stored, err = v.isStored(ctx, v.s.Object); v.d.stored || err != nil {
		return
	}
	again, stop := context.WithTimeout(whole, v.s.Object.GetTimeout())
	defer stop()
	product, err := v.rebuild(again, v.s, v.current)
	switch {
	case err == nil:
		v.d.stored = true
		if product.Artifact.Digest != published.Artifact.Digest || product.Artifact.URL != published.Artifact.URL {
			v.d.change = publication.Restore(product)
		}
	case !throttle.IsHeld(err):
		ctrl.LoggerFrom(ctx).Info("the published bytes are missing and could not be rebuilt",
			"revision", published.Artifact.Revision, "error", fault.Line(err.Error()))
	}
}

// rebuild rebuilds the recorded file of a source in turn: a registry that hangs must not
// occupy the workers with lost files either.
func (e *Evaluator) rebuild(ctx context.Context, s source.Snapshot, demands trustpolicy.Demands) (product publication.Product, err error) {
	target, err := s.Recorded()
	if err != nil {
		return product, err
	}
	settings, err := e.recordedSettings(s.Object)
	if err != nil {
		return product, err
	}
	err = e.Pipeline.Ask(ctx, originOf(s, target), func(ctx context.Context, repository *pipeline.Repository) error {
		product.Outcome, err = e.Pipeline.Rebuild(ctx, bridge.Request{
			Key: publication.Key(s.Object), Repository: repository, Content: settings, Constraints: demands.Constraints,
		}, bridge.Reference{Tag: target.Tag, Digest: target.Digest}, demands.Verifier(repository))
		return panicFault(ctx, err)
	})
	if err != nil && target.Note != "" && !throttle.IsHeld(err) {
		err = fmt.Errorf("%s: %w", target.Note, err)
	}
	product.Settings = settings
	product.Accepted = acceptance(demands, product.Proof, trust.Content{Format: product.Format, Bytes: product.Bytes})
	return product, err
}

// Remake rebuilds the recorded file of a source on the replica that is asked for it, and
// records nothing: this consumer cannot use other bytes (serve.ErrOtherBytes), and only the
// leader publishes them. A *throttle.Busy has the time until the next try.
func (e *Evaluator) Remake(ctx context.Context, s source.Snapshot) error {
	if !s.Usable() {
		return errors.New("its namespace is gone")
	}
	if permission := e.Rules.Permission(s); permission.Choice == source.Off {
		return fmt.Errorf("the artifact is about to be withdrawn: %w", permission.Err())
	}
	published := publication.Current(s.Object)
	if published == nil {
		return errors.New("the record has no recipe")
	}
	own, wait := e.ownDemands(ctx, s.Object)
	if wait > 0 {
		return &throttle.Busy{Wait: wait}
	}
	product, err := e.rebuild(ctx, s, e.platformDemands(ctx, s, published.Repository).With(own))
	if err != nil {
		return err
	}
	if product.Artifact.Path != s.Object.Status.Artifact.Path { // the path contains the digest
		return fmt.Errorf("%w: it is %s and not %s", serve.ErrOtherBytes, product.Artifact.Digest, s.Object.Status.Artifact.Digest)
	}
	return nil
}
