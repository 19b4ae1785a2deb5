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
	"time"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// minPlatformTime is the shortest timeout of a judgement by the rules of the platform. The
// timeout of an attempt is spec.timeout, which the owner of the object sets.
const minPlatformTime = 15 * time.Second

// platformTime bounds one judgement by the rules of the platform.
func platformTime(obj *v1alpha1.ArtifactRepository) time.Duration {
	return max(minPlatformTime, min(obj.GetTimeout(), v1alpha1.DefaultTimeout))
}

// judgeByPlatform judges the published artifact by the rules of the platform alone, if they
// changed. It precedes every step that the owner of the object could make slow, fail or
// panic, and has its own timeout.
func (v *evaluation) judgeByPlatform(whole context.Context) *judgement {
	published := publication.Current(v.s.Object)
	if published == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(whole, platformTime(v.s.Object))
	defer cancel()
	demands := v.platformDemands(ctx, v.s, published.Repository)
	if demands.SamePlatform(v.s.Object.Status.ObservedTrust) {
		return nil
	}
	return v.rejudge(ctx, demands)
}

// judge reads the demands on the target and on the published artifact. It refuses the target
// before the first fetch, and judges the artifact again, unless the platform has done so. It
// also judges suspended sources: a tenant could otherwise suspend one to keep a rejected
// artifact published.
func (v *evaluation) judge(ctx context.Context) {
	own, wait := v.ownDemands(ctx, v.s.Object)
	repository := ""
	if v.d.passed() {
		repository = v.d.target.Repository.Name()
		v.candidate = v.platformDemands(ctx, v.s, repository).With(own)
		if err := v.candidate.Refused(); err != nil && wait == 0 {
			v.refuse(explain.Trust, err)
			v.d.addRulings(trustpolicy.RulingsOf(err))
		}
	}
	if published := publication.Current(v.s.Object); published != nil {
		v.current = v.candidate
		if published.Repository != repository {
			v.current = v.platformDemands(ctx, v.s, published.Repository).With(own)
		}
		if wait == 0 && v.judgement.leaves(len(own.Rules)) {
			v.judgement = v.rejudge(ctx, v.current)
		}
	}
	if wait > 0 && !v.judgement.rejected() {
		v.judgement = &judgement{wait: wait}
	}
}

// rejudge judges the published artifact again if its demands have changed since it was
// accepted: a key was rotated, a policy was changed, or a signature is newly required. It
// needs no new image.
func (v *evaluation) rejudge(ctx context.Context, demands trustpolicy.Demands) *judgement {
	status := v.s.Object.Status
	// Remove the warnings of a removed policy, too.
	if demands.Same(status.ObservedTrust) && (demands.Fingerprint != "" || len(status.TrustWarnings) == 0) {
		return nil
	}
	// Check the demands without a registry first: a tenant who can break the way to a
	// registry must not keep an artifact published against rules about name, format or size.
	content := trust.Content{Format: status.Format, Bytes: publishedBytes(v.s.Object)}
	err := demands.Constraints.Refused()
	if err == nil {
		_, err = demands.Constraints.Admit(content)
	}
	var proof trust.Verified
	var wait time.Duration
	if err == nil && len(demands.Rules) > 0 {
		proof, wait, err = v.verifyPublished(ctx, demands)
	}
	switch {
	case wait > 0:
		return &judgement{wait: wait}
	case err != nil:
		v.d.addRulings(trustpolicy.RulingsOf(err))
		return &judgement{err: err}
	}
	v.d.addRulings(proof.Rulings(), demands.Constraints.Judge(content), demands.Constraints.Refusals)
	return &judgement{accepted: acceptance(demands, proof, content)}
}

// verifyPublished looks for the signatures of the published image in turn, and may have to
// wait: a registry that hangs must not occupy the workers with an image that it already
// delivered.
func (v *evaluation) verifyPublished(ctx context.Context, demands trustpolicy.Demands) (proof trust.Verified, wait time.Duration, err error) {
	target, err := v.s.Recorded()
	if err != nil {
		return proof, 0, err
	}
	origin := originOf(v.s, target)
	if deadline, ok := ctx.Deadline(); ok {
		origin.Timeout = max(origin.Timeout, time.Until(deadline)) // may be the one of the platform
	}
	origin.Judges = demands.ByPlatform
	err = v.Pipeline.Ask(ctx, origin, func(ctx context.Context, repository *pipeline.Repository) (err error) {
		// Not with demands.Verifier: an unreadable spec.verify must not disable the rules of
		// the platform.
		proof, err = trust.NewRules(repository, demands.Rules...).Verify(ctx, trust.Subject{Repository: repository.Name(), Digest: target.Digest})
		repository.Blame(proof.Unanswered())
		return err
	})
	if busy, ok := errors.AsType[*throttle.Busy](err); ok {
		return proof, busy.Wait, nil
	}
	return proof, 0, err
}

// publishedBytes is the number of fetched bytes of the published image, or the size of the
// file in records without it.
func publishedBytes(obj *v1alpha1.ArtifactRepository) int64 {
	if size := obj.Status.Record.Size; size > 0 || obj.Status.Artifact.Size == nil {
		return size
	}
	return *obj.Status.Artifact.Size
}
