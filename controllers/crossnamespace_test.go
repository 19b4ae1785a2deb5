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
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// owner is a namespace with a shared ImageRepository, and a registry that only its Secret
// opens.
type owner struct {
	*scene
	namespace string
}

// newOwner makes the owner's side; the tenant is the scene's own namespace.
func newOwner(t *testing.T) owner {
	t.Helper()
	s := newScene(t)
	o := owner{scene: s, namespace: s.makeNamespace(nil)}
	s.beside = []string{o.namespace}
	s.registry.Answer(publish.DemandBasic(map[string]string{"owner": "secret"}))
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.create(s.dockerConfig(client.ObjectKey{Namespace: o.namespace, Name: "login"}, "owner", "secret"))
	s.create(&imagev1.ImageRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.namespace, Name: "app", Annotations: map[string]string{v1alpha1.UseAsSource: "true"}},
		Spec: imagev1.ImageRepositorySpec{
			Image: s.image("app"), Interval: metav1.Duration{Duration: time.Hour},
			SecretRef:  &meta.LocalObjectReference{Name: "login"},
			AccessFrom: &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{MatchLabels: map[string]string{corev1.LabelMetadataName: s.namespace}}}},
		},
	})
	return o
}

// change changes the owner's ImageRepository.
func (o owner) change(change func(*imagev1.ImageRepository)) {
	o.Helper()
	g := NewWithT(o)
	obj := &imagev1.ImageRepository{}
	g.Expect(o.client.Get(o.Context(), client.ObjectKey{Namespace: o.namespace, Name: "app"}, obj)).To(Succeed())
	before := obj.DeepCopy()
	change(obj)
	g.Expect(o.client.Patch(o.Context(), obj, client.MergeFrom(before))).To(Succeed())
}

// tenantPolicy is the tenant's policy on the owner's ImageRepository.
func (o owner) tenantPolicy(change ...func(*imagev1.ImagePolicy)) {
	o.Helper()
	o.imagePolicy("app", append(change, func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Namespace = o.namespace })...)
	o.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
}

// refusals are the ways to end access, with their messages.
func refusals() map[string]struct {
	refuse func(owner)
	words  string
	allow  func(owner)
} {
	consent := func(value string) func(owner) {
		return func(o owner) { o.change(useAsSource[*imagev1.ImageRepository](value)) }
	}
	return map[string]struct {
		refuse func(owner)
		words  string
		allow  func(owner)
	}{
		"the owner withdraws consent": {
			refuse: func(o owner) { o.change(func(obj *imagev1.ImageRepository) { obj.Annotations = nil }) },
			words:  "its owner consents", allow: consent("true"),
		},
		"the owner refuses consent": {refuse: consent("false"), words: "its owner consents", allow: consent("true")},
		"accessFrom admits no namespace": {
			refuse: func(o owner) { o.change(func(obj *imagev1.ImageRepository) { obj.Spec.AccessFrom = nil }) },
			words:  "accessFrom",
			allow: func(o owner) {
				o.change(func(obj *imagev1.ImageRepository) {
					obj.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{}}}
				})
			},
		},
		"accessFrom has invalid labels": {
			refuse: func(o owner) { o.change(admitting("no label!")) },
			words:  "accessFrom", allow: func(o owner) { o.change(admitting(o.scene.namespace)) },
		},
	}
}

// admitting admits the namespaces with a label, even an invalid one.
func admitting(namespace string) func(*imagev1.ImageRepository) {
	return func(obj *imagev1.ImageRepository) {
		obj.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}}}
	}
}

func TestAnImageRepositoryOfAnotherNamespaceIsUsedWithItsOwnersConsent(t *testing.T) {
	o := newOwner(t)
	g := NewWithT(t)
	o.start()
	o.tenantPolicy(annotated)
	external := o.waitPublished("app", "1.0.0@")
	o.expectServed(external.Status.Artifact)
	g.Expect(o.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1), "with the Secret of the owner's namespace")
}

func TestWithoutConsentAGeneratedSourceGoes(t *testing.T) {
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t)
			o.start()
			o.tenantPolicy(annotated)
			o.waitPublished("app", "1.0.0@")

			c.refuse(o)

			o.eventually(gone[v1alpha1.ArtifactRepository](o.scene, "app"))
			o.eventually(func(g Gomega) {
				g.Expect(o.stored()).To(BeEmpty())
				g.Expect(o.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonAccessDenied, c.words))
			})
			c.allow(o)
			o.waitPublished("app", "1.0.0@")
		})
	}
}

func TestWithoutConsentAHandWrittenSourceIsWithdrawn(t *testing.T) {
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t)
			g := NewWithT(t)
			o.start()
			o.artifactRepository("app")
			o.tenantPolicy()
			o.waitPublished("app", "1.0.0@")

			c.refuse(o)

			obj := o.waitFailed("app", v1alpha1.ReasonAccessDenied, c.words)
			g.Expect(obj.Status.Artifact).To(BeNil())
			gone[sourcev1.ExternalArtifact](o.scene, "app")(g)
			g.Expect(o.stored()).To(BeEmpty())
			c.allow(o)
			o.waitPublished("app", "1.0.0@")
		})
	}
}

// Content that was fetched with the access of an owner needs the owner's consent, regardless
// of later edits of the tenant.
func TestConsentAppliesToContentFetchedWithIt(t *testing.T) {
	own := func(o owner, spec func(*v1alpha1.ArtifactRepositorySpec)) {
		edit(o.scene, "app", func(obj *v1alpha1.ArtifactRepository) {
			obj.Spec.ImagePolicyRef, obj.Spec.Image = nil, o.image("app")
			spec(&obj.Spec)
		})
	}
	for name, dodge := range map[string]func(o owner, digest string){
		"the object names the image and its tag": func(o owner, _ string) {
			own(o, func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Tag = "1.0.0" })
		},
		"the object names the image and the digest that it has": func(o owner, digest string) {
			own(o, func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Digest = digest })
		},
		"the object is suspended": func(o owner, _ string) {
			own(o, func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Tag, spec.Suspend = "1.0.0", true })
		},
		"the policy is gone": func(o owner, _ string) {
			NewWithT(o).Expect(o.client.Delete(o.Context(), &imagev1.ImagePolicy{ObjectMeta: metav1.ObjectMeta{Namespace: o.scene.namespace, Name: "app"}})).To(Succeed())
		},
		"the policy refers to a repository of the tenant's own": func(o owner, _ string) {
			o.imageRepository("app")
			edit(o.scene, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Namespace = "" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwner(t)
			g := NewWithT(t)
			o.start()
			o.artifactRepository("app")
			o.tenantPolicy()
			o.waitPublished("app", "1.0.0@")
			dodge(o, o.record("app").Status.Record.Digest)
			o.eventually(func(g Gomega) {
				obj := o.record("app")
				g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
			})
			g.Expect(o.record("app").Status.Artifact).NotTo(BeNil(), "the owner consents")

			o.change(func(obj *imagev1.ImageRepository) { obj.Annotations = nil })

			o.eventually(func(g Gomega) {
				g.Expect(o.record("app").Status.Artifact).To(BeNil())
				g.Expect(o.stored()).To(BeEmpty())
			})
			g.Consistently(func() any { return o.record("app").Status.Artifact }).WithTimeout(time.Second).Should(BeNil())
		})
	}
}

// A tenant's pull, which may take an hour, delays no withdrawal of consent.
func TestWithdrawnConsentWaitsForNoAttempt(t *testing.T) {
	o := newOwner(t)
	hostile, pulls := trickling(t)
	defer o.stop()
	o.start()
	o.artifactRepository("app")
	o.tenantPolicy()
	o.waitPublished("app", "1.0.0@")
	edit(o.scene, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec = v1alpha1.ArtifactRepositorySpec{
			Image: hostile.Host() + "/team/app", Tag: "1", Timeout: &metav1.Duration{Duration: 50 * time.Minute},
		}
	})
	NewWithT(t).Eventually(pulls).WithTimeout(deadline).Should(Receive())

	o.change(func(obj *imagev1.ImageRepository) { obj.Annotations = nil })

	o.eventually(func(g Gomega) {
		g.Expect(o.record("app").Status.Artifact).To(BeNil())
		// The next attempt pulls the image of the spec into a scratch file.
		g.Expect(slices.DeleteFunc(o.stored(), func(file string) bool { return strings.HasPrefix(file, "/tmp/") })).To(BeEmpty())
	})
}

// Content that the tenant fetched with its own access is the tenant's.
func TestConsentDoesNotApplyToContentFetchedWithoutIt(t *testing.T) {
	o := newOwner(t)
	g := NewWithT(t)
	o.start()
	o.artifactRepository("app")
	o.tenantPolicy()
	o.waitPublished("app", "1.0.0@")
	g.Expect(o.record("app").Status.Record.ImageRepository).To(Equal(o.namespace + "/app"))
	o.create(o.dockerConfig(client.ObjectKey{Namespace: o.scene.namespace, Name: "mine"}, "owner", "secret"))
	o.push("app:2.0.0", publish.Files{"app.yaml": "version: 2\n"})
	edit(o.scene, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.ImagePolicyRef, obj.Spec.Image, obj.Spec.Tag = nil, o.image("app"), "2.0.0"
		obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "mine"}
	})
	published := o.waitPublished("app", "2.0.0@")
	g.Expect(o.record("app").Status.Record.ImageRepository).To(BeEmpty())

	o.change(func(obj *imagev1.ImageRepository) { obj.Annotations = nil })

	edit(o.scene, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
	})
	o.eventually(func(g Gomega) { g.Expect(o.record("app").Status.LastHandledReconcileAt).To(Equal("now")) })
	g.Expect(o.external("app").Status.Artifact).To(Equal(published.Status.Artifact))
}

func TestATypoInTheConsentKeepsTheArtifact(t *testing.T) {
	o := newOwner(t)
	g := NewWithT(t)
	o.start()
	o.artifactRepository("app")
	o.tenantPolicy()
	before := o.waitPublished("app", "1.0.0@")

	o.change(useAsSource[*imagev1.ImageRepository]("ture"))

	o.waitFailed("app", v1alpha1.ReasonAccessDenied, `"ture"`, "still published")
	g.Expect(o.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	o.expectServed(before.Status.Artifact)
}

func TestReferencesToOtherNamespacesCanBeForbidden(t *testing.T) {
	o := newOwner(t)
	g := NewWithT(t)
	o.rules.NoCrossNamespaceRefs = true
	o.start()
	o.artifactRepository("app")
	o.tenantPolicy()
	o.imagePolicy("annotated", annotated, func(obj *imagev1.ImagePolicy) {
		obj.Spec.ImageRepositoryRef = meta.NamespacedObjectReference{Name: "app", Namespace: o.namespace}
	})
	o.waitFailed("app", v1alpha1.ReasonAccessDenied, "--no-cross-namespace-refs")
	o.eventually(func(g Gomega) {
		g.Expect(o.events("ImagePolicy", "annotated")).To(haveEvent(v1alpha1.ReasonAccessDenied, "--no-cross-namespace-refs"))
	})
	gone[v1alpha1.ArtifactRepository](o.scene, "annotated")(g)
	gone[sourcev1.ExternalArtifact](o.scene, "app")(g)
	g.Expect(o.registry.Requests()).To(BeEmpty())
}

func TestANamespaceThatIsNotWatchedIsNotReferredTo(t *testing.T) {
	s := newScene(t)
	s.rules.NoCrossNamespaceRefs = true // as --watch-all-namespaces=false sets it
	s.start()
	s.imagePolicy("app", func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Namespace = "elsewhere" })
	s.artifactRepository("app")
	s.waitFailed("app", v1alpha1.ReasonAccessDenied, "--watch-all-namespaces=false")
}

func TestTheSamePrivateImageWithoutTheSecretIsRefused(t *testing.T) {
	o := newOwner(t)
	g := NewWithT(t)
	o.start()
	o.tenantPolicy(annotated)
	first := o.waitPublished("app", "1.0.0@")

	// The tenant names the image itself, without the owner's Secret.
	o.create(&imagev1.ImageRepository{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.scene.namespace, Name: "sneaky"},
		Spec:       imagev1.ImageRepositorySpec{Image: o.image("app"), Interval: metav1.Duration{Duration: time.Hour}},
	})
	o.imagePolicy("sneaky", annotated)
	o.picks("sneaky", imagev1.ImageRef{Name: o.image("app"), Tag: "1.0.0", Digest: o.record("app").Status.LatestRef.Digest})

	obj := o.waitFailed("sneaky", v1alpha1.ReasonAuthenticationFailed)
	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(o.external("sneaky").Status.Artifact).To(BeNil())
	g.Expect(o.stored()).NotTo(ContainElement(ContainSubstring("sneaky")), "not a byte")
	g.Expect(o.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
	o.expectServed(first.Status.Artifact)

	// With a Secret of its own it gets the stored bytes.
	o.create(o.dockerConfig(client.ObjectKey{Namespace: o.scene.namespace, Name: "mine"}, "owner", "secret"))
	edit(o.scene, "sneaky", func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "mine"} })
	o.waitPublished("sneaky", "1.0.0@")
	g.Expect(o.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1), "without another pull")
}
