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

	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/apiserver"
	"github.com/image-source/image-source-controller/pkg/explain"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/throttle"
)

// evaluate makes the decision about a source. objects is the error of its image objects. A
// panic, and the end of one of the contexts of the attempt, ends only the part in which it
// happens.
func (e *Evaluator) evaluate(w work, s source.Snapshot, objects error) decision {
	if permission := e.Rules.Permission(s); permission.Choice == source.Off {
		return remove(s, permission, objects)
	}
	v := &evaluation{Evaluator: e, s: s, d: decision{interval: s.Interval()}}
	judged, err := contained(w.judging, func(ctx context.Context) (*judgement, error) { return v.judgeByPlatform(ctx), nil })
	if v.judgement = judged; err != nil {
		v.judgement = &judgement{err: err}
	}
	if !v.judgement.rejected() {
		v.contain(w.attempting, func(ctx context.Context) { v.attempt(ctx, objects) })
	}
	if v.judgement.rejected() {
		return v.withdraw(w.judging)
	}
	// An objection to the published artifact is reported even if the rest has to wait.
	v.d.silent = v.d.silent && (v.judgement == nil || v.judgement.err == nil)
	if !v.d.passed() && !v.d.silent {
		v.contain(w.attempting, v.keepBytes)
	}
	return v.decided()
}

// contain runs a part of the evaluation and reports its panic. After a panic the decision
// changes no artifact, and lost bytes are not rebuilt: their demands may not have been read.
func (v *evaluation) contain(ctx context.Context, part func(context.Context)) {
	_, err := contained(ctx, func(ctx context.Context) (any, error) {
		part(ctx)
		return nil, nil
	})
	if err != nil {
		v.d.change, v.d.silent, v.d.wait = publication.Keep(), false, 0
		v.current.Unread = err
		v.refuse(explain.Build, err)
	}
}

// attempt takes the steps from the objects to a publication, within spec.timeout.
func (v *evaluation) attempt(ctx context.Context, objects error) {
	ctx, cancel := context.WithTimeout(ctx, v.s.Object.GetTimeout())
	defer cancel()
	v.aim(objects)
	v.judge(ctx)
	switch {
	case v.judgement.rejected():
	case v.d.trail.Decided().Name == explain.Suspend:
		v.doubt()
	case !v.d.passed():
	case v.judgement != nil && v.judgement.wait > 0:
		v.postpone(v.judgement.wait)
	default:
		v.publish(ctx)
	}
}

// aim takes the steps that only need objects.
func (v *evaluation) aim(objects error) {
	permission := v.Rules.Permission(v.s)
	switch {
	case objects != nil:
		v.refuse(explain.ImageObjects, objects)
		if apiserver.IsConflict(objects) {
			v.postpone(conflictDelay)
		}
		return
	case permission.Choice == source.Undecided && (v.s.Repository != nil || v.s.Object.Spec.ImagePolicyRef == nil):
		v.refuse(explain.Permission, permission.Err())
		return
	}
	v.pass(explain.Permission, "")
	if err := v.s.NameConflict(); err != nil {
		v.refuse(explain.Deliver, err)
		return
	}
	if v.s.Suspended() {
		v.d.trail = append(v.d.trail, explain.Hold(explain.Suspend, v1alpha1.ReasonSuspended, ""))
		return
	}
	var err error
	if v.d.target, err = v.s.Wanted(); err != nil {
		v.refuse(explain.Target, err)
		return
	}
	v.pass(explain.Target, v.d.target.Note)
}

// publish publishes the target in the turn of the source. It needs no turn if it sends no
// request to the registry.
func (v *evaluation) publish(ctx context.Context) {
	v.content = v.settings(v.s.Object)
	v.contentHash = format.ContentHash(v.content)
	origin := originOf(v.s, v.d.target)
	v.d.stored = v.isCurrent(ctx)
	origin.Idle = v.d.stored
	step := explain.Resolve
	err := v.Pipeline.Ask(ctx, origin, func(ctx context.Context, repository *pipeline.Repository) (err error) {
		step, err = v.carry(ctx, repository)
		return panicFault(ctx, err)
	})
	busy, isBusy := errors.AsType[*throttle.Busy](err)
	quiet, isQuiet := errors.AsType[*throttle.Quiet](err)
	switch {
	case isBusy:
		v.postpone(busy.Wait)
	case isQuiet && toldFetchFailed(v.s.Object):
		v.postpone(quiet.Wait)
	case err != nil:
		v.refuse(step, err)
		return
	}
	v.doubt()
}

// doubt lets the judgement decide if no new image replaced an artifact that is not accepted,
// or not known to be. A new name is not a new image.
func (v *evaluation) doubt() {
	product := v.d.change.Product()
	if v.judgement == nil || v.judgement.err == nil || product != nil && product.Accepted != nil {
		return
	}
	v.refuse(explain.Published, v.judgement.err)
}

// toldFetchFailed reports whether the conditions already have the failure of this spec, with
// a better message than a new one.
func toldFetchFailed(obj *v1alpha1.ArtifactRepository) bool {
	ready := apimeta.FindStatusCondition(obj.Status.Conditions, meta.ReadyCondition)
	return obj.Status.ObservedGeneration == obj.Generation && ready != nil && ready.Reason == v1alpha1.ReasonFetchFailed
}

// remove is the decision about a source that may not have an artifact. It reports a failure
// to remove the image objects, for another attempt soon.
func remove(s source.Snapshot, denied source.Permission, objects error) decision {
	d := decision{
		change: publication.Remove(), trail: explain.Trail{explain.Withdraw(explain.Permission, denied.Err())}, interval: s.Interval(),
	}
	if denied.Lent {
		d.interval = conflictDelay // the interval of the spec applies after the removal
	}
	if objects != nil {
		d.trail = append(d.trail, explain.Refuse(explain.ImageObjects, objects))
	}
	return d
}

// withdraw is the decision to withdraw the published artifact. The next reconcile publishes
// its replacement: a slow registry must not keep a rejected artifact online.
func (v *evaluation) withdraw(ctx context.Context) decision {
	if !v.s.Suspended() { // the next failure is about the same image, and no news
		v.contain(ctx, func(context.Context) { v.d.target, _ = v.s.Wanted() })
	}
	v.d.change, v.d.silent, v.d.wait = publication.Withdraw(), false, 0
	step := explain.Withdraw(explain.Published, v.judgement.err)
	step.Policy = policyOf(v.judgement.err)
	v.d.trail = append(v.d.trail, step)
	if !v.s.Suspended() {
		v.d.wait = conflictDelay
	}
	return v.d
}

// decided returns the decision together with the judgement.
func (v *evaluation) decided() decision {
	obj, replaced := v.s.Object, v.d.change.Product() != nil
	if v.judgement != nil {
		v.d.change = v.d.change.Confirming(v.judgement.accepted)
		product := v.d.change.Product()
		v.d.doubted = v.judgement.accepted == nil && (product == nil || product.Accepted == nil)
		if v.judgement.wait > 0 && v.d.wait == 0 {
			v.d.wait = min(v.judgement.wait, v.d.interval)
		}
	}
	if obj.Status.Artifact != nil && publication.Current(obj) == nil && !replaced {
		v.d.change = publication.Withdraw() // without a recipe it cannot be judged or built again
	}
	return v.d
}
