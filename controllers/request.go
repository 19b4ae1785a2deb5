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
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
)

// freshness is the part of an interval for which an answer about a tag serves
// all sources of that tag. It is below one, so that a source alone, whose
// intervals are jittered, asks each time.
const freshness = 0.9

// origin is where the image of the plan for an object is read from.
func (p Plan) origin(s source.Snapshot) pipeline.Origin {
	return pipeline.Origin{
		Namespace: s.Object.Namespace, Source: s.Object.Name, Repository: p.Repository, Access: p.Access,
		Timeout: p.Timeout, Judges: p.Judges, Insists: s.Requested(),
	}
}

// request turns a plan into a request to the bridge.
func (r *ArtifactRepositoryReconciler) request(s source.Snapshot, a attempt, repository *pipeline.Repository) bridge.Request {
	obj, plan := s.Object, a.plan
	depth := store.Shallow
	if !a.stored { // else they were looked at just now
		depth = r.depth(s, plan.Interval)
	}
	return bridge.Request{
		Key:         publication.Key(obj),
		Repository:  repository,
		Tag:         plan.Tag,
		Digest:      plan.Digest,
		MaxAge:      share(plan.Interval),
		Fresh:       s.Requested(),
		Content:     r.content(obj),
		Verifier:    a.candidate.Verifier(repository),
		Constraints: a.candidate.Constraints,
		KeepName:    plan.KeepName,
		Published:   publication.Current(obj),
		Refused:     r.attention.refusal(client.ObjectKeyFromObject(obj)),
		Depth:       depth,
	}
}

// content returns how a spec asks for an artifact to become content.
func (r *ArtifactRepositoryReconciler) content(obj *v1alpha1.ArtifactRepository) format.Options {
	return r.settings(v1alpha1.Recipe{
		Format: obj.Spec.Format, Platform: obj.Spec.Platform, LayerSelector: obj.Spec.LayerSelector, Ignore: obj.Spec.Ignore,
	})
}

// recordedContent returns how the published artifact became content. Of settings that
// are recorded as a hash only, those of the spec are taken if they have it.
func (r *ArtifactRepositoryReconciler) recordedContent(obj *v1alpha1.ArtifactRepository) (format.Options, error) {
	recipe := obj.Status.Record
	if recipe.SettingsHash == "" {
		return r.settings(*recipe), nil
	}
	content := r.content(obj)
	if format.ContentHash(content) != recipe.SettingsHash {
		return content, fault.Waitf(v1alpha1.ReasonStorageOperationFailed,
			"the content settings of %s are recorded as a hash only, because they take more than %d KiB, and the spec has other ones now", recipe.Digest, v1alpha1.MaxSettingsBytes>>10)
	}
	return content, nil
}

// settings returns how an artifact becomes content: the platform's limits, and
// what one object asks for.
func (r *ArtifactRepositoryReconciler) settings(asked v1alpha1.Recipe) format.Options {
	settings := r.Content
	settings.Format, settings.Platform = asked.Format, asked.Platform
	settings.LayerSelector, settings.Ignore = asked.LayerSelector, asked.Ignore
	return settings
}

// depth is how thoroughly the stored bytes are checked now: to their end once
// in a process and each interval, and whenever somebody asks for a reconcile;
// else only whether they are there.
func (r *ArtifactRepositoryReconciler) depth(s source.Snapshot, interval time.Duration) store.Depth {
	if s.Requested() {
		interval = 0
	}
	if r.attention.inspect(client.ObjectKeyFromObject(s.Object), share(interval)) {
		return store.Deep
	}
	return store.Shallow
}

func share(interval time.Duration) time.Duration {
	return time.Duration(float64(interval) * freshness)
}
