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

package source

import "github.com/image-source/image-source-controller/api/v1alpha1"

// Mark is the value of useAsSource on one object; nil where it is absent.
type Mark *string

// MarkOf returns the mark in a map of labels or annotations.
func MarkOf(m map[string]string) Mark {
	if value, ok := m[v1alpha1.UseAsSource]; ok {
		return &value
	}
	return nil
}

// Facts are the facts of an opt-in decision.
type Facts struct {
	// Namespace is the label of the policy's namespace.
	Namespace Mark
	// Policy is the annotation of the ImagePolicy.
	Policy Mark
	// PolicyOwned: an ArtifactRepository controls the ImagePolicy.
	PolicyOwned bool
	// Repository has the facts about the ImageRepository.
	Repository RepositoryFacts
}

// RepositoryFacts are the facts about an ImageRepository.
type RepositoryFacts struct {
	// Missing: there is no such object.
	Missing bool
	// Mark is its annotation.
	Mark Mark
	// Foreign: its namespace is not the namespace of the policy.
	Foreign bool
	// Admits: its accessFrom admits the policy's namespace.
	Admits bool
}
