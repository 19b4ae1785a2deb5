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
	"crypto/sha256"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/store"
)

// freshness is the part of an interval for which an answer about a tag serves
// all sources of that tag. It is below one, so that a source alone, whose
// intervals are jittered, asks each time.
const freshness = 0.9

// origin is where the image of the plan for an object is read from. insists tells that a
// person asked.
func (p Plan) origin(obj *v1alpha1.ArtifactRepository, insists bool) pipeline.Origin {
	return pipeline.Origin{
		Namespace: obj.Namespace, Source: obj.Name, Repository: p.Repository, Access: p.Access, Timeout: p.Timeout, Judges: p.Judges, Insists: insists,
	}
}

// request turns a plan into a request to the bridge.
func (r *ArtifactRepositoryReconciler) request(obj *v1alpha1.ArtifactRepository, around Surroundings, a attempt, repository *pipeline.Repository) bridge.Request {
	plan := a.plan
	depth := store.Shallow
	if !a.stored { // else they were looked at just now
		depth = r.depth(obj, around, plan.Interval)
	}
	return bridge.Request{
		Key:         publication.Key(obj),
		Repository:  repository,
		Tag:         plan.Tag,
		Digest:      plan.Digest,
		MaxAge:      share(plan.Interval),
		Fresh:       requested(obj, around),
		Content:     r.content(obj),
		Verifier:    a.candidate.Verifier(repository),
		Constraints: a.candidate.Constraints,
		KeepName:    plan.KeepName,
		Published:   publication.Current(obj),
		Refused:     r.attention.refusal(client.ObjectKeyFromObject(obj)),
		Depth:       depth,
	}
}

// recordedPlan is the way to what the record says, whatever the spec or the
// policy say now. It is opened with what opens the image that they name now; where
// that is on another registry, with no more than may be shown there.
func recordedPlan(obj *v1alpha1.ArtifactRepository, around Surroundings) (Plan, error) {
	recipe := obj.Status.Record
	plan := Plan{Timeout: obj.GetTimeout(), Tag: publication.Latest(obj).Tag, Access: accessOfSpec(obj)}
	named := imageName(obj)
	if obj.Spec.ImagePolicyRef != nil {
		if around.Repository == nil {
			return plan, waitFor("the ImageRepository that opened %s does not exist", recipe.Image)
		}
		if key := client.ObjectKeyFromObject(around.Repository); key.Namespace == obj.Namespace || opens(around.Repository, recipe) {
			plan.Access, named = accessOf(around.Repository), around.Repository.Spec.Image
		} else {
			plan.Note = fmt.Sprintf("the image is not that of ImageRepository %s of another namespace, whose access is used for no other", key)
			named = recipe.Image
		}
	}
	if !sameRegistry(recipe.Image, named) {
		plan.Access = plan.Access.Elsewhere()
		plan.Note = "the image is on another registry than the one that is named now, where only logins that name it are used"
	}
	err := plan.Access.Check()
	if err != nil {
		return plan, err
	}
	if plan.Repository, err = parseRepository(recipe.Image, plan.Access.Insecure); err != nil {
		return plan, fault.Stallf(v1alpha1.ReasonInvalidSpec, "the record names the image %s, which is not the name of a repository: %w; publish another image", fault.Quote(recipe.Image), err)
	}
	if plan.Digest, err = reference.ParseDigest(recipe.Digest); err != nil {
		return plan, fault.Stallf(v1alpha1.ReasonInvalidSpec, "the record names the digest %s: %w; publish another image", fault.Quote(recipe.Digest), err)
	}
	return plan, nil
}

// opens tells whether the access of an ImageRepository of another namespace is lent for what
// is recorded: it was fetched by that, or is of the image that it names. Its logins may open more.
func opens(repository *imagev1.ImageRepository, recipe *v1alpha1.Recipe) bool {
	if recipe.ImageRepository == client.ObjectKeyFromObject(repository).String() {
		return true
	}
	named, err := parseRepository(repository.Spec.Image, repository.Spec.Insecure)
	return err == nil && isNameOf(recipe.Image, named)
}

// sameRegistry tells whether two images are on one registry.
func sameRegistry(one, other string) bool {
	a, errA := parseRepository(one, false)
	b, errB := parseRepository(other, false)
	return errA == nil && errB == nil && a.RegistryStr() == b.RegistryStr()
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

// tokenOf returns the reconcile request on an object as a status repeats it: the hash
// of one that is too long. It is empty where there is none.
func tokenOf(obj metav1.Object) string {
	token := obj.GetAnnotations()[meta.ReconcileRequestAnnotation]
	if len(token) <= v1alpha1.MaxRequestBytes {
		return token
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(token)))
}

// requested tells whether somebody asked for a reconcile since the last one. On
// an object that was never reconciled nothing is older than the request.
func requested(obj *v1alpha1.ArtifactRepository, around Surroundings) bool {
	if obj.Status.ObservedGeneration < 1 {
		return false
	}
	now, seen := requests(around), observedRequests(obj)
	return newToken(obj, around) != "" || now.ImagePolicy != "" && now.ImagePolicy != seen.ImagePolicy ||
		now.ImageRepository != "" && now.ImageRepository != seen.ImageRepository && !handedOn(now.ImageRepository, obj)
}

// handedOn tells whether a request on an ImageRepository is one that was seen on the
// object itself, or on its ExternalArtifact, and handed on.
func handedOn(token string, obj *v1alpha1.ArtifactRepository) bool {
	return token == obj.Status.LastHandledReconcileAt || token == observedRequests(obj).ExternalArtifact
}

// newToken returns the request that was made since the last reconcile on the
// ArtifactRepository or on its ExternalArtifact; empty when there is none.
func newToken(obj *v1alpha1.ArtifactRepository, around Surroundings) string {
	token, asked := tokenOf(obj), requests(around).ExternalArtifact
	switch {
	case obj.Status.ObservedGeneration < 1:
		return ""
	case token != "" && token != obj.Status.LastHandledReconcileAt:
		return token
	case asked != "" && asked != observedRequests(obj).ExternalArtifact:
		return asked
	default:
		return ""
	}
}

// acknowledge writes into the status which requests were seen.
func (r *ArtifactRepositoryReconciler) acknowledge(obj *v1alpha1.ArtifactRepository, around Surroundings) {
	if token := tokenOf(obj); token != "" {
		obj.Status.SetLastHandledReconcileRequest(token)
	}
	now, seen := requests(around), observedRequests(obj)
	if now.ImagePolicy == "" {
		now.ImagePolicy = seen.ImagePolicy
	}
	if now.ImageRepository == "" {
		now.ImageRepository = seen.ImageRepository
	}
	if now.ExternalArtifact == "" {
		now.ExternalArtifact = seen.ExternalArtifact
	}
	if now != seen {
		obj.Status.ObservedRequests = &now
	}
}

// requests returns the tokens on the objects around.
func requests(around Surroundings) v1alpha1.ObservedRequests {
	var now v1alpha1.ObservedRequests
	if around.Policy != nil {
		now.ImagePolicy = tokenOf(around.Policy)
	}
	if around.Repository != nil {
		now.ImageRepository = tokenOf(around.Repository)
	}
	if around.External != nil {
		now.ExternalArtifact = tokenOf(around.External)
	}
	return now
}

func observedRequests(obj *v1alpha1.ArtifactRepository) v1alpha1.ObservedRequests {
	if obj.Status.ObservedRequests == nil {
		return v1alpha1.ObservedRequests{}
	}
	return *obj.Status.ObservedRequests
}

// depth is how thoroughly the stored bytes are checked now: to their end once
// in a process and each interval, and whenever somebody asks for a reconcile;
// else only whether they are there.
func (r *ArtifactRepositoryReconciler) depth(obj *v1alpha1.ArtifactRepository, around Surroundings, interval time.Duration) store.Depth {
	if requested(obj, around) {
		interval = 0
	}
	if r.attention.inspect(client.ObjectKeyFromObject(obj), share(interval)) {
		return store.Deep
	}
	return store.Shallow
}

func share(interval time.Duration) time.Duration {
	return time.Duration(float64(interval) * freshness)
}
