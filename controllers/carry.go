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
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// freshness is the part of an interval for which an answer about a tag serves all sources of
// the tag. It is below one, so that a single source with jittered intervals asks each time.
const freshness = 0.9

// carry takes the target to the store, and returns the step of a failure.
func (v *evaluation) carry(ctx context.Context, repository *pipeline.Repository) (explain.Name, error) {
	step, err := v.resolveAndBuild(ctx, repository)
	pick, isEqual := v.d.target.Picked()
	if failure := fault.Of(err, ""); isEqual && failure != nil && failure.Reason == v1alpha1.ReasonImageNotFound {
		v.d.target = pick
		step, err = v.resolveAndBuild(ctx, repository)
	}
	// Each request has its own deadline; only the deadline of the attempt is spec.timeout.
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not finished within spec.timeout (%s): %w", v.s.Object.GetTimeout(), err)
	}
	v.Pipeline.Remember(publication.Key(v.s.Object), v.d.latest, v.contentHash, err)
	v.d.addRulings(trustpolicy.RulingsOf(err))
	return step, err
}

// resolveAndBuild resolves the target, and builds it unless it is already published.
func (v *evaluation) resolveAndBuild(ctx context.Context, repository *pipeline.Repository) (explain.Name, error) {
	target := v.d.target
	v.d.latest = bridge.Image{Repository: repository.Name(), Tag: target.Tag, Digest: target.Digest}
	candidates, err := bridge.Resolve(ctx, repository, bridge.Reference{
		Tag: target.Tag, Digest: target.Digest, MaxAge: freshFor(v.d.interval), Fresh: v.s.Requested(),
	})
	if err != nil {
		return explain.Resolve, err
	}
	candidate := candidates[0]
	v.d.latest = candidate.Image
	v.pass(explain.Resolve, "")
	request := bridge.Request{
		Key: publication.Key(v.s.Object), Repository: repository, Candidate: candidate,
		Content: v.content, Constraints: v.candidate.Constraints,
	}
	published := publication.Current(v.s.Object)
	if published != nil {
		published.KeepName, published.VerifiedBy = target.KeepName, acceptedBy(v.judgement, v.s.Object)
	}
	out, unchanged, err := v.Pipeline.Bridge.Reuse(ctx, request, published)
	switch {
	case err != nil:
		return explain.Build, err
	case unchanged && out.Unchanged:
		v.d.stored = true
		if v.judgement == nil || v.judgement.accepted != nil {
			v.pass(explain.Trust, acceptedBy(v.judgement, v.s.Object))
		}
		v.pass(explain.Build, "")
		return "", nil
	case unchanged:
		return explain.Build, v.promote(ctx, publication.Product{Outcome: out, Settings: request.Content, Lender: target.Lender})
	}
	return v.build(ctx, repository, request)
}

// acceptedBy names the signers of the published artifact.
func acceptedBy(j *judgement, obj *v1alpha1.ArtifactRepository) string {
	if j != nil && j.accepted != nil {
		return j.accepted.By
	}
	return publication.Latest(obj).VerifiedBy
}

// build verifies and builds a candidate.
func (v *evaluation) build(ctx context.Context, repository *pipeline.Repository, r bridge.Request) (explain.Name, error) {
	if err := v.Pipeline.Refused(r.Key, r.Candidate.Image, v.contentHash); err != nil {
		return explain.Build, err
	}
	proof, err := bridge.Verify(ctx, repository, r.Candidate, v.candidate.Verifier(repository))
	if err != nil {
		return explain.Trust, err
	}
	v.pass(explain.Trust, proof.By())
	out, err := v.Pipeline.Bridge.Build(ctx, r, proof)
	if err != nil {
		return explain.Build, err
	}
	v.d.stored = true
	made := trust.Content{Format: out.Format, Bytes: out.Bytes}
	v.d.addRulings(proof.Rulings(), v.candidate.Constraints.Judge(made), v.candidate.Constraints.Refusals)
	return explain.Build, v.promote(ctx, publication.Product{
		Outcome: out, Settings: r.Content, Lender: v.d.target.Lender, Accepted: acceptance(v.candidate, proof, made),
	})
}

// promote publishes a product, unless its demands have changed since.
func (v *evaluation) promote(ctx context.Context, product publication.Product) error {
	v.d.stored = true
	if publication.Restates(v.s.Object, product.Outcome) {
		v.pass(explain.Build, "")
		return nil
	}
	outdated, err := v.isOutdated(ctx, v.s.Object, v.d.target.Repository.Name(), v.candidate)
	switch {
	case err != nil:
		return err
	case outdated:
		v.postpone(conflictDelay)
		return nil
	}
	v.pass(explain.Build, "")
	v.d.change = publication.Promote(product)
	return nil
}

// acceptance returns the demands that an image meets, for the record.
func acceptance(demands trustpolicy.Demands, proof trust.Verified, content trust.Content) *publication.Acceptance {
	return &publication.Acceptance{By: proof.By(), Fingerprint: demands.Observed(proof), Warnings: demands.Warnings(proof, content)}
}

func freshFor(interval time.Duration) time.Duration {
	return time.Duration(float64(interval) * freshness)
}
