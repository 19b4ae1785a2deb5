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

// minPlatformTime is how long a judgement by the rules of the platform may take at
// least. The time of an attempt is spec.timeout, which the owner of the object sets.
const minPlatformTime = 15 * time.Second

// platformTime bounds one judgement by the rules of the platform.
func platformTime(obj *v1alpha1.ArtifactRepository) time.Duration {
	return max(minPlatformTime, min(obj.GetTimeout(), v1alpha1.DefaultTimeout))
}

// judgeByPlatform judges what is published by the rules of the platform, by themselves,
// where they changed. It comes before everything that the owner of the object could make
// fail, panic or take long, and has time of its own.
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

// judge reads the demands on the target and on the published artifact. It refuses the
// target before anything is fetched, and judges the artifact again, unless the platform has
// done so. A suspended source is judged too: a tenant who may suspend it could keep
// published what the platform no longer accepts.
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

// rejudge judges the published artifact again if the demands on it are not those that
// accepted it: a key was rotated, a policy was changed, a signature is demanded that was
// not. It needs no new image.
func (v *evaluation) rejudge(ctx context.Context, demands trustpolicy.Demands) *judgement {
	status := v.s.Object.Status
	// Warnings that are left over from a policy that is gone go, too.
	if demands.Same(status.ObservedTrust) && (demands.Fingerprint != "" || len(status.TrustWarnings) == 0) {
		return nil
	}
	// The demands that need no registry come first: a tenant who can break the way to one
	// must not keep published what name, format or size forbid.
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
	v.d.addRulings(proof.Rulings(), demands.Constraints.Judge(content), demands.Constraints.Rulings())
	return &judgement{accepted: acceptance(demands, proof, content)}
}

// verifyPublished looks for the signatures of the published image, when it is its turn, and
// may have to wait: a registry that hangs must not occupy the workers with an image that it
// delivered once.
func (v *evaluation) verifyPublished(ctx context.Context, demands trustpolicy.Demands) (proof trust.Verified, wait time.Duration, err error) {
	target, err := v.s.Recorded()
	if err != nil {
		return proof, 0, err
	}
	origin := originOf(v.s, target)
	if deadline, ok := ctx.Deadline(); ok {
		origin.Timeout = max(origin.Timeout, time.Until(deadline)) // which may be that of the platform
	}
	origin.Judges = demands.ByPlatform
	err = v.Pipeline.Ask(ctx, origin, func(ctx context.Context, repository *pipeline.Repository) (err error) {
		// Not by demands.Verifier: a spec.verify that cannot be read must not keep the
		// rules of the platform from being heard.
		proof, err = trust.NewRules(repository, demands.Rules...).Verify(ctx, trust.Subject{Repository: repository.Name(), Digest: target.Digest})
		repository.Blame(proof.Unanswered())
		return err
	})
	if busy, ok := errors.AsType[*throttle.Busy](err); ok {
		return proof, busy.Wait, nil
	}
	return proof, 0, err
}

// publishedBytes is how many bytes of the published image were fetched. The size of the file
// stands in for it in records that do not have it.
func publishedBytes(obj *v1alpha1.ArtifactRepository) int64 {
	if size := obj.Status.Record.Size; size > 0 || obj.Status.Artifact.Size == nil {
		return size
	}
	return *obj.Status.Artifact.Size
}
