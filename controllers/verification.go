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

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
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

// platformDemands reads what the platform demands of the images of a repository, by its
// canonical name.
func (r *ArtifactRepositoryReconciler) platformDemands(ctx context.Context, s source.Snapshot, repository string) trustpolicy.Demands {
	return r.Trust.Platform(ctx, s.Trust, trust.Question{
		Namespace: s.Namespace.Name, Labels: s.Namespace.Labels, Repository: repository, Required: r.Rules.RequireTrustPolicy,
	})
}

// ownDemands reads the demands of spec.verify. The work, which takes requests to the API server
// each time, counts against the namespace; wait is when to come again where the namespace
// has as much work as it may.
func (r *ArtifactRepositoryReconciler) ownDemands(ctx context.Context, obj *v1alpha1.ArtifactRepository) (d trustpolicy.Demands, wait time.Duration) {
	if obj.Spec.Verify == nil {
		return d, 0
	}
	end, busy := r.Pipeline.Throttle.Occupy(obj.Namespace)
	if busy != nil {
		return trustpolicy.Demands{
			Unread: fault.Retryf(v1alpha1.ReasonVerificationError, "spec.verify is not read yet: the namespace %s has as many attempts as it may", obj.Namespace),
		}, busy.Wait
	}
	defer end()
	return r.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify), 0
}

// judgeByPlatform judges what is published by the rules of the platform, by
// themselves, where they changed. It comes before everything that the owner of the
// object could make fail, panic or take long, and has time of its own.
func (r *ArtifactRepositoryReconciler) judgeByPlatform(whole context.Context, s source.Snapshot) *judgement {
	obj, published := s.Object, publication.Current(s.Object)
	if published == nil || r.Rules.Permission(s).Choice == source.Off { // it is withdrawn anyway
		return nil
	}
	ctx, cancel := context.WithTimeout(whole, platformTime(obj))
	defer cancel()
	asked := r.platformDemands(ctx, s, published.Repository)
	if asked.SamePlatform(obj.Status.ObservedTrust) {
		return nil
	}
	return r.rejudge(ctx, s, asked)
}

// judge reads what is asked of the image to publish and of the one that is
// published, refuses the one before anything is fetched, and judges the other
// again, unless the platform has judged it. What is frozen is judged too: whoever may
// suspend a source could keep published what the platform no longer accepts. What is
// withdrawn is not.
func (r *ArtifactRepositoryReconciler) judge(ctx context.Context, s source.Snapshot, a attempt) attempt {
	if a.plan.Action == Withdraw {
		a.judgement = nil
		return a
	}
	own, wait := r.ownDemands(ctx, s.Object)
	repository := ""
	if a.plan.Action == Publish {
		repository = a.plan.Repository.Name()
		a.candidate = r.platformDemands(ctx, s, repository).With(own)
		if err := a.candidate.Refused(); err != nil && wait == 0 {
			a.plan.Action, a.err = Refuse, err
			r.Metrics.observeRulings(trustpolicy.RulingsOf(err))
		}
	}
	if published := publication.Current(s.Object); published != nil {
		a.current = a.candidate
		if published.Repository != repository {
			a.current = r.platformDemands(ctx, s, published.Repository).With(own)
		}
		if wait == 0 && a.judgement.leaves(own) {
			a.judgement = r.rejudge(ctx, s, a.current)
		}
	}
	if wait > 0 && !a.rejected() {
		a.judgement = &judgement{wait: wait}
	}
	if a.plan.Action == Freeze && a.judgement != nil {
		a.err = a.judgement.err
	}
	return a
}

// rejudge judges what is published again when what is asked of it is no longer
// what accepted it: a key was rotated, a policy was changed, a signature is asked
// for that was not. It needs no new image.
func (r *ArtifactRepositoryReconciler) rejudge(ctx context.Context, s source.Snapshot, asked trustpolicy.Demands) *judgement {
	obj := s.Object
	// Warnings that are left over from a policy that is gone go, too.
	if asked.Same(obj.Status.ObservedTrust) && (asked.Fingerprint != "" || len(obj.Status.TrustWarnings) == 0) {
		return nil
	}
	// What needs no registry is judged first: nobody who can break the way to one
	// keeps published what its name, format or size forbid.
	content := trust.Content{Format: obj.Status.Format, Bytes: publishedBytes(obj)}
	err := asked.Constraints.Refused()
	if err == nil {
		_, err = asked.Constraints.Admit(content)
	}
	if err != nil {
		r.Metrics.observeRulings(trustpolicy.RulingsOf(err))
		return judged(err)
	}
	var proof trust.Verified
	if len(asked.Rules) > 0 {
		var wait time.Duration
		if proof, wait, err = r.verifyPublished(ctx, s, asked); wait > 0 {
			return &judgement{wait: wait}
		}
	}
	if err != nil {
		r.Metrics.observeRulings(trustpolicy.RulingsOf(err))
		return judged(err)
	}
	r.Metrics.observeRulings(proof.Rulings(), asked.Constraints.Judge(content), asked.Constraints.Rulings())
	return &judgement{by: proof.By(), fingerprint: asked.Observed(proof), warnings: asked.Warnings(proof, content)}
}

// verifyPublished looks for the signatures of what is published, when it is its turn, and
// may have to wait: a registry that hangs must not occupy the workers with what it once
// delivered.
func (r *ArtifactRepositoryReconciler) verifyPublished(ctx context.Context, s source.Snapshot, asked trustpolicy.Demands) (proof trust.Verified, wait time.Duration, err error) {
	plan, err := recordedPlan(s)
	if err != nil {
		return proof, 0, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		plan.Timeout = max(plan.Timeout, time.Until(deadline)) // which may be that of the platform
	}
	plan.Judges = asked.ByPlatform
	err = r.Pipeline.Ask(ctx, plan.origin(s), func(ctx context.Context, repository *pipeline.Repository) (err error) {
		// Not by asked.Verifier: a spec.verify that cannot be read must not keep the
		// rules of the platform from being heard.
		proof, err = trust.NewRules(repository, asked.Rules...).Verify(ctx, trust.Subject{Repository: repository.Name(), Digest: plan.Digest})
		repository.Blame(proof.Unanswered())
		return err
	})
	if busy, ok := errors.AsType[*throttle.Busy](err); ok {
		return proof, busy.Wait, nil
	}
	return proof, 0, err
}

// publishedBytes is the size of what was fetched of the published image. What is
// served stands in for it in records that do not have it.
func publishedBytes(obj *v1alpha1.ArtifactRepository) int64 {
	if size := obj.Status.Record.Size; size > 0 || obj.Status.Artifact.Size == nil {
		return size
	}
	return *obj.Status.Artifact.Size
}

// outdated tells whether what is asked of an image is not what an attempt started
// with: rules, the labels of the namespace, or the keys and roots behind them. What
// it made must not be published then.
func (r *ArtifactRepositoryReconciler) outdated(ctx context.Context, obj *v1alpha1.ArtifactRepository, a attempt) (bool, error) {
	var now source.Snapshot
	var err error
	if now.Trust, err = r.Trust.InForce(ctx); err != nil {
		return false, err
	}
	now.Namespace, err = apiserver.Get(ctx, r.Client, types.NamespacedName{Name: obj.Namespace}, &corev1.Namespace{})
	if err != nil || now.Namespace == nil {
		return true, err
	}
	// Not by ownDemands: the attempt would wait for a second place while it has the first.
	asked := r.platformDemands(ctx, now, a.plan.Repository.Name()).With(r.Trust.Own(ctx, obj.Namespace, obj.Spec.Verify))
	return !a.candidate.Same(asked.Fingerprint), nil
}
