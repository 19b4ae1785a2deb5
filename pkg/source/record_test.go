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

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/access"
	"github.com/image-source/image-source-controller/pkg/source"
)

// published is an ArtifactRepository with a policy that has published v1.0.0 of
// ghcr.io/org/app.
func published() *v1alpha1.ArtifactRepository {
	obj := newSituation().obj
	obj.Status.Artifact = &meta.Artifact{Revision: "v1.0.0@" + digestA}
	obj.Status.Record = &v1alpha1.Recipe{Image: "ghcr.io/org/app", Digest: digestA}
	obj.Status.History = []v1alpha1.Publication{{Tag: "v1.0.0", Digest: digestA}}
	return obj
}

// An earlier publication of a tenant is no reason to show the login of another namespace,
// which lends it for the content of one ImageRepository.
func TestALentAccessOpensNoOtherImage(t *testing.T) {
	const foreign = "owner/app"
	for name, c := range map[string]struct {
		image, fetchedBy string
		lent             bool
	}{
		"content fetched with it":            {image: "registry.example/before", fetchedBy: foreign, lent: true},
		"the image that it is for":           {image: "registry.example/app", lent: true},
		"another image of the same registry": {image: "registry.example/tenant"},
		"an image of another registry":       {image: "tenant.example/app"},
		"content fetched with another one":   {image: "registry.example/tenant", fetchedBy: "other/app"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			obj := published()
			obj.Status.Record.Image, obj.Status.Record.ImageRepository = c.image, c.fetchedBy
			repository := &imagev1.ImageRepository{
				ObjectMeta: metav1.ObjectMeta{Namespace: "owner", Name: "app"},
				Spec:       imagev1.ImageRepositorySpec{Image: "registry.example/app", SecretRef: &meta.LocalObjectReference{Name: "login"}},
			}

			got, err := source.Snapshot{Object: obj, Repository: repository}.Recorded()

			g.Expect(err).NotTo(HaveOccurred())
			want := access.References{Namespace: obj.Namespace}
			if c.lent {
				want = access.References{Namespace: "owner", SecretName: "login"}
			}
			got.Access.Provider = ""
			g.Expect(got.Access).To(Equal(want))
		})
	}
}
