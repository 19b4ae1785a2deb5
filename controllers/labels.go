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
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// merge returns a copy of got with all of want.
func merge(got, want map[string]string) map[string]string {
	merged := maps.Clone(got)
	if merged == nil {
		merged = map[string]string{}
	}
	maps.Copy(merged, want)
	return merged
}

// pick returns the entries of m with one of the keys.
func pick(m map[string]string, keys []string) map[string]string {
	picked := map[string]string{}
	for _, key := range keys {
		if value, ok := m[key]; ok {
			picked[key] = value
		}
	}
	return picked
}

// relabel returns labels with the wanted values of the keys and without unwanted keys, and
// reports a change.
func relabel(labels, want map[string]string, keys []string) (map[string]string, bool) {
	if maps.Equal(pick(labels, keys), want) {
		return labels, false
	}
	now := maps.Clone(labels)
	for _, key := range keys {
		delete(now, key)
	}
	return merge(now, want), true
}

// generatedLabels are the labels of generated objects: the owner's values of the keys, and
// its kind.
func generatedLabels(obj metav1.Object, kind string, keys []string) map[string]string {
	return merge(pick(obj.GetLabels(), keys), map[string]string{v1alpha1.MadeByLabel: kind})
}
