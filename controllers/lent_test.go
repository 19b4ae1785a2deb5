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

package controllers_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// A tenant who may write objects in a namespace cannot have the cloud token of the
// controller, or the request for it, sent to a proxy of the tenant.
func TestATenantsProxyGetsNoIdentityOfTheController(t *testing.T) {
	const image = "europe-docker.pkg.dev/project/app"
	proxy := &meta.LocalObjectReference{Name: "proxy"}
	for name, test := range map[string]struct {
		write func(*scene)
		heal  func(*scene)
	}{
		"of an ArtifactRepository": {
			write: func(s *scene) {
				s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Image: image, Tag: "1.0.0", Provider: "gcp", Insecure: true, ProxySecretRef: proxy})
			},
			heal: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Image, obj.Spec.Provider, obj.Spec.ProxySecretRef = s.image("app"), "", nil
				})
			},
		},
		"of an ArtifactRepository that is scanned": {
			write: func(s *scene) {
				s.ofImage("app", v1alpha1.ArtifactRepositorySpec{
					Image: image, Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}}, Provider: "gcp", ProxySecretRef: proxy, Insecure: true,
				})
				s.waitFailed("app", v1alpha1.ReasonInvalidSpec)
				gone[imagev1.ImageRepository](s, "app")(NewWithT(s))
			},
			heal: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Image, obj.Spec.Provider, obj.Spec.ProxySecretRef = s.image("app"), "", nil
				})
				s.eventually(func(g Gomega) { get[imagev1.ImagePolicy](g, s, "app") })
				editStatus(s, "app", func(obj *imagev1.ImageRepository) { obj.Status.ObservedGeneration = obj.Generation })
				s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			},
		},
		"of an ImageRepository": {
			write: func(s *scene) {
				s.imageRepository("app", func(obj *imagev1.ImageRepository) {
					obj.Spec.Image, obj.Spec.Provider, obj.Spec.Insecure, obj.Spec.ProxySecretRef = image, "gcp", true, proxy
				})
				s.imagePolicy("app", annotated)
				s.picks("app", imagev1.ImageRef{Name: image, Tag: "1.0.0"})
			},
			heal: func(s *scene) {
				edit(s, "app", func(obj *imagev1.ImageRepository) {
					obj.Spec.Image, obj.Spec.Provider, obj.Spec.ProxySecretRef = s.image("app"), "", nil
				})
				s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			var reached atomic.Int32
			tenants := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				reached.Add(1)
				w.Header().Set("WWW-Authenticate", `Basic realm="give it to me"`)
				w.WriteHeader(http.StatusUnauthorized)
			}))
			t.Cleanup(tenants.Close)
			s.create(&corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "proxy"}, StringData: map[string]string{"address": tenants.URL},
			})
			test.write(s)
			obj := s.waitFailed("app", v1alpha1.ReasonInvalidSpec, "credentials of the platform", "insecure: true", "proxySecretRef", "serviceAccountName")
			g.Expect(obj).To(haveCondition(meta.StalledCondition, metav1.ConditionTrue, v1alpha1.ReasonInvalidSpec))
			s.reconciled("app")
			g.Expect(reached.Load()).To(BeZero())
			test.heal(s)
			s.waitPublished("app", "1.0.0@")
		})
	}
}
