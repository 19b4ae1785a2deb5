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

package source_test

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
)

func TestOwnership(t *testing.T) {
	label := map[string]string{v1alpha1.MadeByLabel: v1alpha1.ArtifactRepositoryKind}
	policy := func(m metav1.ObjectMeta) metav1.Object { return &imagev1.ImagePolicy{ObjectMeta: m} }
	for sentence, c := range map[string]struct {
		object metav1.Object
		owned  bool
		anyOf  bool // it is made for some ArtifactRepository
	}{
		"its controller":                   {policy(metav1.ObjectMeta{Name: "app", OwnerReferences: controlledBy("app", "1")}), true, true},
		"a controller that was made again": {policy(metav1.ObjectMeta{Name: "app", OwnerReferences: controlledBy("app", "gone")}), true, true},
		"the controller of another name":   {policy(metav1.ObjectMeta{Name: "app", OwnerReferences: controlledBy("other", "1"), Labels: label}), false, true},
		"no controller, and the label":     {policy(metav1.ObjectMeta{Name: "app", Labels: label}), true, true},
		"the label on one of another name": {policy(metav1.ObjectMeta{Name: "other", Labels: label}), false, true},
		"the label of another kind":        {policy(metav1.ObjectMeta{Name: "app", Labels: map[string]string{v1alpha1.MadeByLabel: imagev1.ImagePolicyKind}}), false, false},
		"neither controller nor label":     {policy(metav1.ObjectMeta{Name: "app"}), false, false},
		"the label on an ExternalArtifact": {&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "app", Labels: label}}, false, false},
		"the source of an ExternalArtifact": {external(func(e *sourcev1.ExternalArtifact) {
			e.Spec.SourceRef = &meta.NamespacedObjectKindReference{APIVersion: v1alpha1.Group + "/v9", Kind: v1alpha1.ArtifactRepositoryKind, Name: "app", Namespace: "apps"}
		}), true, true},
	} {
		t.Run(sentence, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(source.ArtifactRepository("app").Owns(c.object)).To(Equal(c.owned))
			g.Expect(source.ArtifactRepository("").Owns(c.object)).To(Equal(c.anyOf))
			g.Expect(source.ImagePolicy("elsewhere").Owns(c.object)).To(BeFalse())
		})
	}
}
