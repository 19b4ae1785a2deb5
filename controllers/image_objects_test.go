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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// exclusions keep tags of signatures from winning a policy.
var exclusions = []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}

func semver(versions string) *imagev1.ImagePolicyChoice {
	return &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: versions}}
}

// byPolicy creates an ArtifactRepository with an image and a policy of its own,
// and waits until its image objects are there.
func (s *scene) byPolicy(name string, change ...func(*v1alpha1.ArtifactRepositorySpec)) {
	s.Helper()
	spec := v1alpha1.ArtifactRepositorySpec{Policy: semver("*")}
	for _, c := range change {
		c(&spec)
	}
	s.ofImage(name, spec)
	s.kept(name)
}

// kept waits until the image objects of an ArtifactRepository are there.
func (s *scene) kept(name string) {
	s.Helper()
	s.eventually(func(g Gomega) {
		get[imagev1.ImageRepository](g, s, name)
		get[imagev1.ImagePolicy](g, s, name)
	})
}

// publishedByPolicy creates an image with its own policy, which picked a tag, and waits for
// the publication.
func (s *scene) publishedByPolicy(name, tag string) *sourcev1.ExternalArtifact {
	s.Helper()
	s.push(name+":"+tag, version(tag))
	s.byPolicy(name)
	s.scanned(name)
	s.picks(name, imagev1.ImageRef{Tag: tag})
	return s.waitPublished(name, tag+"@")
}

// scanned writes into the status of an ImageRepository as image-reflector-controller does
// after a scan.
func (s *scene) scanned(name string) {
	s.Helper()
	editStatus(s, name, func(obj *imagev1.ImageRepository) {
		obj.Status.ObservedGeneration = obj.Generation
		obj.Status.CanonicalImageName = obj.Spec.Image
		conditions.MarkTrue(obj, meta.ReadyCondition, meta.SucceededReason, "successful scan")
	})
}

func TestImageObjectsFollowTheSpec(t *testing.T) {
	for sentence, test := range map[string]struct {
		spec       v1alpha1.ArtifactRepositorySpec
		repository imagev1.ImageRepositorySpec
		policy     imagev1.ImagePolicySpec
	}{
		"only a range": {
			spec: v1alpha1.ArtifactRepositorySpec{Image: "ghcr.io/org/app", Policy: semver("1.x")},
			repository: imagev1.ImageRepositorySpec{
				Image: "ghcr.io/org/app", Interval: metav1.Duration{Duration: 10 * time.Minute}, Provider: "generic", ExclusionList: exclusions,
			},
			policy: imagev1.ImagePolicySpec{Policy: *semver("1.x"), DigestReflectionPolicy: imagev1.ReflectNever},
		},
		"all fields": {
			spec: v1alpha1.ArtifactRepositorySpec{
				Image: "oci://localhost:5000/org/app", Interval: &metav1.Duration{Duration: time.Minute}, Timeout: &metav1.Duration{Duration: 20 * time.Second},
				Provider: "azure", ServiceAccountName: "puller", Insecure: true, Suspend: true,
				CertSecretRef:  &meta.LocalObjectReference{Name: "certs"},
				ProxySecretRef: &meta.LocalObjectReference{Name: "proxy"},
				FilterTags:     &imagev1.TagFilter{Pattern: `^main-[a-f0-9]+-(?P<ts>[0-9]+)$`, Extract: "$ts"},
				Policy:         &imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "desc"}},
			},
			repository: imagev1.ImageRepositorySpec{
				Image: "localhost:5000/org/app", Interval: metav1.Duration{Duration: time.Minute}, Timeout: &metav1.Duration{Duration: 20 * time.Second},
				Provider: "azure", ServiceAccountName: "puller", Insecure: true, Suspend: true,
				CertSecretRef:  &meta.LocalObjectReference{Name: "certs"},
				ProxySecretRef: &meta.LocalObjectReference{Name: "proxy"},
				ExclusionList:  exclusions,
			},
			policy: imagev1.ImagePolicySpec{
				FilterTags:             &imagev1.TagFilter{Pattern: `^main-[a-f0-9]+-(?P<ts>[0-9]+)$`, Extract: "$ts"},
				Policy:                 imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "desc"}},
				DigestReflectionPolicy: imagev1.ReflectNever,
			},
		},
		"a Secret that wins over a cloud, which the scan would ask instead": {
			spec: v1alpha1.ArtifactRepositorySpec{
				Image: "ghcr.io/org/app", Policy: semver("1.x"), Provider: "azure", SecretRef: &meta.LocalObjectReference{Name: "login"},
			},
			repository: imagev1.ImageRepositorySpec{
				Image: "ghcr.io/org/app", Interval: metav1.Duration{Duration: 10 * time.Minute}, Provider: "generic",
				SecretRef: &meta.LocalObjectReference{Name: "login"}, ExclusionList: exclusions,
			},
			policy: imagev1.ImagePolicySpec{Policy: *semver("1.x"), DigestReflectionPolicy: imagev1.ReflectNever},
		},
		"an order that the API server fills in": {
			spec: v1alpha1.ArtifactRepositorySpec{
				Image: "ghcr.io/org/app", Policy: &imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{}},
			},
			repository: imagev1.ImageRepositorySpec{
				Image: "ghcr.io/org/app", Interval: metav1.Duration{Duration: 10 * time.Minute}, Provider: "generic", ExclusionList: exclusions,
			},
			policy: imagev1.ImagePolicySpec{
				Policy: imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}}, DigestReflectionPolicy: imagev1.ReflectNever,
			},
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, g := newScene(t), NewWithT(t)
			s.labelKeys = []string{"shard"}
			s.start()
			s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Labels = map[string]string{"shard": "a", "team": "b"}
				obj.Spec = test.spec
			})
			s.kept("app")
			owner, repository, policy := s.record("app"), read[imagev1.ImageRepository](s, "app"), read[imagev1.ImagePolicy](s, "app")
			g.Expect(repository.Spec).To(Equal(test.repository))
			test.policy.ImageRepositoryRef.Name = "app"
			g.Expect(policy.Spec).To(Equal(test.policy))
			for _, object := range []client.Object{repository, policy} {
				g.Expect(metav1.IsControlledBy(object, owner)).To(BeTrue())
				g.Expect(object.GetLabels()).To(Equal(map[string]string{"shard": "a", v1alpha1.MadeByLabel: v1alpha1.ArtifactRepositoryKind}),
					"those of the watch selector, that of the maker, and no others")
				g.Expect(object.GetManagedFields()).To(ContainElement(SatisfyAll(
					HaveField("Manager", fieldManager), HaveField("Operation", metav1.ManagedFieldsOperationApply))))
			}
		})
	}
}

func TestEditsOfImageObjectsAreUndone(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	wantRepository, wantPolicy := read[imagev1.ImageRepository](s, "app").Spec, read[imagev1.ImagePolicy](s, "app").Spec

	repositories := map[string]func(*imagev1.ImageRepository){
		"another image":    func(obj *imagev1.ImageRepository) { obj.Spec.Image = s.image("evil") },
		"another interval": func(obj *imagev1.ImageRepository) { obj.Spec.Interval.Duration = time.Minute },
		"no exclusions":    func(obj *imagev1.ImageRepository) { obj.Spec.ExclusionList = []string{"^none$"} },
		"a login":          func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "mine"} },
		"suspended":        func(obj *imagev1.ImageRepository) { obj.Spec.Suspend = true },
		"open to other readers": func(obj *imagev1.ImageRepository) {
			obj.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{}}}
		},
	}
	for sentence, change := range repositories {
		edit(s, "app", change)
		s.eventually(func(g Gomega) {
			g.Expect(get[imagev1.ImageRepository](g, s, "app").Spec).To(Equal(wantRepository), sentence)
		})
	}
	policies := map[string]func(*imagev1.ImagePolicy){
		"another range": func(obj *imagev1.ImagePolicy) { obj.Spec.Policy.SemVer.Range = "9.x" },
		"two orders": func(obj *imagev1.ImagePolicy) {
			obj.Spec.Policy.Alphabetical = &imagev1.AlphabeticalPolicy{Order: "asc"}
		},
		"a filter":                   func(obj *imagev1.ImagePolicy) { obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: "rc"} },
		"another ImageRepository":    func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Name = "evil" },
		"one of another namespace":   func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Namespace = "default" },
		"a digest that is reflected": func(obj *imagev1.ImagePolicy) { obj.Spec.DigestReflectionPolicy = imagev1.ReflectIfNotPresent },
	}
	for sentence, change := range policies {
		edit(s, "app", change)
		s.eventually(func(g Gomega) {
			g.Expect(get[imagev1.ImagePolicy](g, s, "app").Spec).To(Equal(wantPolicy), sentence)
		})
	}
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")

	remove[imagev1.ImageRepository](s, "app")
	remove[imagev1.ImagePolicy](s, "app")
	s.kept("app")
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ImagePolicy app has not been evaluated")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact), "no other image was published meanwhile")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
}

// Fields of other owners on generated objects stay.
func TestAnnotationsOfImageObjectsStay(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishedByPolicy("app", "1.0.0")
	note := func(obj client.Object) { obj.SetAnnotations(map[string]string{"note": "mine"}) }
	edit(s, "app", func(obj *imagev1.ImagePolicy) { note(obj) })
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Policy = semver("1.x") })
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImagePolicy](g, s, "app").Spec.Policy).To(Equal(*semver("1.x")))
	})
	g.Expect(read[imagev1.ImagePolicy](s, "app").Annotations).To(HaveKeyWithValue("note", "mine"))
}

func TestImageObjectsOfAnotherOwner(t *testing.T) {
	for sentence, test := range map[string]struct {
		create func(*scene)
		object client.Object
		kind   string
	}{
		"an ImageRepository": {
			create: func(s *scene) { s.imageRepository("app") }, object: &imagev1.ImageRepository{}, kind: imagev1.ImageRepositoryKind,
		},
		"an ImagePolicy": {
			create: func(s *scene) { s.imagePolicy("app") }, object: &imagev1.ImagePolicy{}, kind: imagev1.ImagePolicyKind,
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, g := newScene(t), NewWithT(t)
			test.create(s)
			key := client.ObjectKey{Namespace: s.namespace, Name: "app"}
			g.Expect(s.client.Get(t.Context(), key, test.object)).To(Succeed())
			version := test.object.GetResourceVersion()
			s.start()
			s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
			s.ofImage("app", v1alpha1.ArtifactRepositorySpec{Policy: semver("*")})
			s.waitFailed("app", v1alpha1.ReasonNameConflict, test.kind+" app exists")
			g.Expect(s.client.Get(t.Context(), key, test.object)).To(Succeed())
			g.Expect(test.object.GetResourceVersion()).To(Equal(version), "it was not touched")

			g.Expect(s.client.Delete(t.Context(), test.object)).To(Succeed())
			s.kept("app")
			s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			s.waitPublished("app", "1.0.0@")
		})
	}
}

// A tenant who removes the owner of an image object takes it over.
func TestAnImageObjectWithoutItsOwner(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.OwnerReferences = nil })
	s.eventually(func(g Gomega) {
		g.Expect(metav1.IsControlledBy(get[imagev1.ImagePolicy](g, s, "app"), s.record("app"))).To(BeTrue(), "its label tells its maker")
	})
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.OwnerReferences, obj.Labels = nil, nil })
	s.waitFailed("app", v1alpha1.ReasonNameConflict, "ImagePolicy app exists", "still published")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	remove[imagev1.ImagePolicy](s, "app")
	s.kept("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
}

// An ArtifactRepository that was deleted and created again takes over the objects of its
// predecessor.
func TestImageObjectsOfAPredecessor(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishedByPolicy("app", "1.0.0")
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
	s.byPolicy("app")
	owner := s.record("app")
	s.eventually(func(g Gomega) {
		for _, object := range []client.Object{get[imagev1.ImageRepository](g, s, "app"), get[imagev1.ImagePolicy](g, s, "app")} {
			g.Expect(object.GetOwnerReferences()).To(HaveLen(1))
			g.Expect(metav1.IsControlledBy(object, owner)).To(BeTrue())
		}
	})
	s.waitPublished("app", "1.0.0@")
	g.Expect(s.events("ArtifactRepository", "app")).NotTo(haveEvent(v1alpha1.ReasonNameConflict, ""))
}

func TestAnotherPolicyOfItsOwn(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	s.push("app:7", version("7"))
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Policy = &imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "asc"}}
		obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: "^[0-9]+$"}
	})
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "has not been evaluated since it was changed", "still published: 1.0.0@")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	policy := read[imagev1.ImagePolicy](s, "app")
	g.Expect(policy.Spec.Policy).To(Equal(imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "asc"}}))
	g.Expect(policy.Spec.FilterTags).To(Equal(&imagev1.TagFilter{Pattern: "^[0-9]+$"}))
	s.picks("app", imagev1.ImageRef{Tag: "7"})
	s.waitPublished("app", "7@")
}

func TestATagInsteadOfAPolicy(t *testing.T) {
	s := startScene(t)
	s.publishedByPolicy("app", "1.0.0")
	s.push("app:stable", version("stable"))
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Policy, obj.Spec.Tag = nil, "stable" })
	s.waitPublished("app", "stable@")
	s.eventually(gone[imagev1.ImagePolicy](s, "app"))
	s.eventually(gone[imagev1.ImageRepository](s, "app"))
}

// image-reflector-controller evaluates a policy again when the list of tags differs. It
// misses two images with equal lists.
func TestAnotherImageWithTheSameTags(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	s.push("next:1.0.0", version("next"))
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Image = s.image("next") })
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, s.image("app"), s.image("next"), "still published: 1.0.0@")
	g.Expect(read[imagev1.ImageRepository](s, "app").Spec.Image).To(Equal(s.image("next")))
	g.Expect(read[imagev1.ImagePolicy](s, "app").Annotations).NotTo(HaveKey(meta.ReconcileRequestAnnotation), "the new image is not scanned yet")

	s.scanned("app")
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImagePolicy](g, s, "app").Annotations).To(HaveKeyWithValue(meta.ReconcileRequestAnnotation, Not(BeEmpty())))
	})
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))

	// It may answer from a cache without the scan: then it gets another request.
	answered := read[imagev1.ImagePolicy](s, "app").Annotations[meta.ReconcileRequestAnnotation]
	editStatus(s, "app", func(obj *imagev1.ImagePolicy) { obj.Status.LastHandledReconcileAt = answered })
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImagePolicy](g, s, "app").Annotations[meta.ReconcileRequestAnnotation]).NotTo(Equal(answered))
	})
	s.picks("app", imagev1.ImageRef{Name: s.image("next"), Tag: "1.0.0"})
	s.eventually(func(g Gomega) {
		record := get[v1alpha1.ArtifactRepository](g, s, "app")
		g.Expect(record.Status.Record.Image).To(Equal(s.image("next")))
		g.Expect(conditions.IsReady(record)).To(BeTrue())
	})
	g.Expect(s.external("app").Status.Artifact.Revision).NotTo(Equal(before.Status.Artifact.Revision))

	// Back again: the request must be a new one.
	asked := read[imagev1.ImagePolicy](s, "app").Annotations[meta.ReconcileRequestAnnotation]
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Image = s.image("app") })
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImageRepository](g, s, "app").Spec.Image).To(Equal(s.image("app")))
	})
	s.scanned("app")
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImagePolicy](g, s, "app").Annotations[meta.ReconcileRequestAnnotation]).NotTo(Equal(asked))
	})
}

// In a namespace where every policy is a source, the generated one is not: it gets no
// ArtifactRepository, and no controllers fight over it.
func TestAPolicyOfItsOwnWhereAllPoliciesAreSources(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceAll})
	s.start()
	s.push("app:1.0.0", version("1"))
	s.byPolicy("app", func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Interval = second })
	s.scanned("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")

	versions := func() map[string]string {
		g.Expect(s.record("app").OwnerReferences).To(BeEmpty())
		return map[string]string{
			"ArtifactRepository": s.record("app").ResourceVersion,
			"ExternalArtifact":   s.external("app").ResourceVersion,
			"ImagePolicy":        read[imagev1.ImagePolicy](s, "app").ResourceVersion,
			"ImageRepository":    read[imagev1.ImageRepository](s, "app").ResourceVersion,
		}
	}
	before := versions()
	s.registry.Forget()
	s.eventually(func(g Gomega) { g.Expect(s.registry.Count(http.MethodHead, "/manifests/")).To(BeNumerically(">=", 4)) })
	g.Expect(versions()).To(Equal(before), "no write for several intervals")
	var all v1alpha1.ArtifactRepositoryList
	g.Expect(s.client.List(t.Context(), &all, client.InNamespace(s.namespace))).To(Succeed())
	g.Expect(all.Items).To(HaveLen(1))
}

func TestSuspendReachesTheScan(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	s.push("app:2.0.0", version("2"))
	frozen := func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionTrue, v1alpha1.ReasonSuspended))
	}
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
	s.eventually(func(g Gomega) { g.Expect(get[imagev1.ImageRepository](g, s, "app").Spec.Suspend).To(BeTrue()) })
	s.eventually(frozen)
	s.picks("app", imagev1.ImageRef{Tag: "2.0.0"})
	s.reconciled("app")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = false })
	s.eventually(func(g Gomega) { g.Expect(get[imagev1.ImageRepository](g, s, "app").Spec.Suspend).To(BeFalse()) })
	s.waitPublished("app", "2.0.0@")

	// On the policy it is a person's word, and stays.
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = true })
	s.eventually(frozen)
	s.reconciled("app")
	g.Expect(read[imagev1.ImagePolicy](s, "app").Spec.Suspend).To(BeTrue())
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = false })
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
	g.Expect(read[imagev1.ImagePolicy](s, "app").Spec.Suspend).To(BeFalse())
}

func TestThePinBesideAPolicyOfItsOwn(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	good, _ := s.push("app:1.0.0", version("1"))
	s.push("app:2.0.0", version("bad"))
	s.push("app:3.0.0", version("3"))
	s.byPolicy("app")
	s.picks("app", imagev1.ImageRef{Tag: "2.0.0"})
	s.waitPublished("app", "2.0.0@")

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = good.String() })
	pinned := s.waitPublished("app", good.String())
	s.expectServed(pinned.Status.Artifact)
	says := func(words string) {
		t.Helper()
		s.eventually(func(g Gomega) {
			g.Expect(conditions.GetMessage(get[v1alpha1.ArtifactRepository](g, s, "app"), meta.ReadyCondition)).To(ContainSubstring(words))
			g.Expect(conditions.GetMessage(get[sourcev1.ExternalArtifact](g, s, "app"), meta.ReadyCondition)).To(ContainSubstring(words))
		})
	}
	says("pinned by spec.digest; ImagePolicy app would pick 2.0.0")
	s.picks("app", imagev1.ImageRef{Tag: "3.0.0"})
	says("ImagePolicy app would pick 3.0.0")
	g.Expect(s.external("app").Status.Artifact).To(Equal(pinned.Status.Artifact))

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = "" })
	s.waitPublished("app", "3.0.0@")
	g.Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).NotTo(ContainSubstring("pinned"))
}

func TestOptingOutRemovesImageObjects(t *testing.T) {
	s := startScene(t)
	s.publishedByPolicy("app", "1.0.0")
	s.labels(nil)
	s.waitFailed("app", v1alpha1.ReasonAccessDenied, v1alpha1.UseAsSource+"=enabled")
	s.eventually(gone[imagev1.ImagePolicy](s, "app"))
	s.eventually(gone[imagev1.ImageRepository](s, "app"))
	s.eventually(gone[sourcev1.ExternalArtifact](s, "app"))
	s.eventually(func(g Gomega) { g.Expect(s.stored()).NotTo(ContainElement(ContainSubstring(".tar.gz"))) })

	s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled})
	s.kept("app")
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
}

// A request for the newest image includes a scan of the tags.
func TestARequestReachesTheScan(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishedByPolicy("app", "1.0.0")
	token := s.reconciled("app").Status.LastHandledReconcileAt
	g.Expect(read[imagev1.ImageRepository](s, "app").Annotations).To(HaveKeyWithValue(meta.ReconcileRequestAnnotation, token))

	edit(s, "app", func(obj *sourcev1.ExternalArtifact) { request(obj, "by the artifact") })
	s.eventually(func(g Gomega) {
		g.Expect(get[imagev1.ImageRepository](g, s, "app").Annotations).To(HaveKeyWithValue(meta.ReconcileRequestAnnotation, "by the artifact"))
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.ObservedRequests).To(HaveField("ExternalArtifact", "by the artifact"))
	})
}

// Tags of signatures are excluded from the scan; if one wins all the same, the published
// artifact stays.
func TestASignatureThatWinsAPolicyOfItsOwn(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishedByPolicy("app", "1.0.0")
	s.picks("app", imagev1.ImageRef{Tag: "sha256-" + digestA[len("sha256:"):] + ".sig"})
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "stores a signature", "still published: 1.0.0@")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
}
