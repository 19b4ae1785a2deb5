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

package e2e

import (
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// An owner may list tags for other namespaces, and may besides hand them what
// was pulled with the owner's credentials. Either consent can be withdrawn.
func TestImageRepositoryOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	owner, n := newTenant(t, ""), newTenant(t, v1alpha1.UseAsSourceEnabled)
	registry, push := owner.startRegistry(controlplane.RegistryOptions{Username: username, Password: password})
	owner.pullSecret("regcred", registry.Host(), login{username, password})
	// A Secret of the same name in the policy's own namespace is not the one.
	n.pullSecret("regcred", registry.Host(), login{username, "another-password-77aa"})
	first := owner.pushTo(push, "org/app:1.0.0", configMap("app", "1.0.0"))

	repository := named(owner, "app", &imagev1.ImageRepository{})
	repository.Spec = imagev1.ImageRepositorySpec{
		Image:     registry.Host() + "/org/app",
		SecretRef: &meta.LocalObjectReference{Name: "regcred"},
		Interval:  metav1.Duration{Duration: 1e9},
		AccessFrom: &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{
			{MatchLabels: map[string]string{"kubernetes.io/metadata.name": n.namespace}},
		}},
	}
	owner.create(repository)
	policy := named(n, "app", &imagev1.ImagePolicy{})
	policy.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
	policy.Spec.ImageRepositoryRef = meta.NamespacedObjectReference{Namespace: owner.namespace, Name: "app"}
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
	n.create(policy)

	n.eventually(func(g Gomega) {
		g.Expect(get(n, "app", policy).Status.LatestRef).NotTo(BeNil(), "accessFrom lets the policy read the tags")
	})
	warning := n.warnings("ImagePolicy", "app", v1alpha1.ReasonAccessDenied)[0]
	n.Expect(warning.Message).To(ContainSubstring(v1alpha1.UseAsSource + "=" + v1alpha1.UseAsSourceTrue))
	n.absent("app")

	owner.annotate(repository, v1alpha1.UseAsSource, v1alpha1.UseAsSourceTrue)
	n.published("app", first)
	n.published("app", owner.pushTo(push, "org/app:1.1.0", configMap("app", "1.1.0")))
	n.keepsToItself(password, "another-password-77aa")

	owner.annotate(repository, v1alpha1.UseAsSource, "")
	n.removed("app")

	owner.annotate(repository, v1alpha1.UseAsSource, v1alpha1.UseAsSourceTrue)
	n.published("app", "1.1.0")
	change(owner, repository, func(repository *imagev1.ImageRepository) { repository.Spec.AccessFrom = nil })
	n.removed("app")
}

// What the annotation cannot get, a hand-written object cannot get either.
func TestHandWrittenObjectWithoutTheOwnersConsent(t *testing.T) {
	t.Parallel()
	owner, n := newTenant(t, v1alpha1.UseAsSourceEnabled), newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := owner.push("app", "1.0.0", configMap("app", "1.0.0"))
	owner.scan("app", func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{}}}
		repository.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
	})
	policy := named(n, "app", &imagev1.ImagePolicy{})
	policy.Spec.ImageRepositoryRef = meta.NamespacedObjectReference{Namespace: owner.namespace, Name: "app"}
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
	n.create(policy)
	n.apply(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: by-hand
spec:
  imagePolicyRef:
    name: app
`)
	n.published("by-hand", revision)
	n.Expect(owner.published("app", revision).Revision).To(Equal(revision))

	owner.annotate(named(owner, "app", &imagev1.ImageRepository{}), v1alpha1.UseAsSource, v1alpha1.UseAsSourceFalse)
	_, ready := n.notReady("by-hand", v1alpha1.ReasonAccessDenied)
	n.Expect(ready.Message).To(ContainSubstring("consent"))
	n.gone("by-hand", &sourcev1.ExternalArtifact{})
	owner.published("app", revision)
}
