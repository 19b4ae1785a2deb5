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
	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// Evaluator makes decisions about sources. It reads registries and the store, and writes no
// object.
type Evaluator struct {
	// Rules of the platform.
	Rules source.Rules
	// Snapshots reads objects that may have changed during an attempt.
	Snapshots Snapshots
	// Pipeline opens repositories, and carries images to the store.
	Pipeline *pipeline.Pipeline
	// Store stores the files, and asks the other replicas for missing ones.
	Store *store.Replica
	// Trust has the demands of the platform on images.
	Trust *trustpolicy.Resolver
	// Content has the common limits and settings of all objects.
	Content format.Options
}

// settings returns the settings for the conversion of an artifact to content: the limits of
// the platform, and the settings of the spec.
func (e *Evaluator) settings(obj *v1alpha1.ArtifactRepository) format.Options {
	return e.recipeSettings(v1alpha1.Recipe{
		Format: obj.Spec.Format, Platform: obj.Spec.Platform, LayerSelector: obj.Spec.LayerSelector, Ignore: obj.Spec.Ignore,
	})
}

func (e *Evaluator) recipeSettings(recipe v1alpha1.Recipe) format.Options {
	settings := e.Content
	settings.Format, settings.Platform = recipe.Format, recipe.Platform
	settings.LayerSelector, settings.Ignore = recipe.LayerSelector, recipe.Ignore
	return settings
}

// recordedSettings returns the settings of the published artifact. If only their hash is
// recorded, it returns the settings of the spec if they have the same hash.
func (e *Evaluator) recordedSettings(obj *v1alpha1.ArtifactRepository) (format.Options, error) {
	recipe := obj.Status.Record
	if recipe.SettingsHash == "" {
		return e.recipeSettings(*recipe), nil
	}
	settings := e.settings(obj)
	if format.ContentHash(settings) != recipe.SettingsHash {
		return settings, fault.Waitf(v1alpha1.ReasonStorageOperationFailed,
			"only the hash of the content settings of %s is recorded, because they take more than %d KiB, and the spec has different ones now", recipe.Digest, v1alpha1.MaxSettingsBytes>>10)
	}
	return settings, nil
}

// originOf returns the origin of the image of a target.
func originOf(s source.Snapshot, t source.Target) pipeline.Origin {
	return pipeline.Origin{
		Namespace: s.Object.Namespace, Source: s.Object.Name, Repository: t.Repository, Access: t.Access,
		Timeout: s.Object.GetTimeout(), Insists: s.Requested(),
	}
}
