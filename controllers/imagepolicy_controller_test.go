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
	"bytes"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/test/publish"
)

// waitGenerated waits until a policy has the ArtifactRepository of its name.
func (s *scene) waitGenerated(name string) *v1alpha1.ArtifactRepository {
	s.Helper()
	var obj *v1alpha1.ArtifactRepository
	s.eventually(func(g Gomega) {
		obj = get[v1alpha1.ArtifactRepository](g, s, name)
		policy := get[imagev1.ImagePolicy](g, s, name)
		g.Expect(obj.Spec.ImagePolicyRef).To(Equal(&meta.LocalObjectReference{Name: name}))
		g.Expect(obj.OwnerReferences).To(Equal([]metav1.OwnerReference{
			*metav1.NewControllerRef(policy, imagev1.GroupVersion.WithKind(imagev1.ImagePolicyKind)),
		}))
	})
	return obj
}

// settle waits until the ImagePolicy controller has seen all earlier events: a policy that
// was annotated later has got its ArtifactRepository.
func (s *scene) settle() {
	s.Helper()
	policy := &imagev1.ImagePolicy{}
	policy.Namespace, policy.GenerateName = s.namespace, "sentinel-"
	policy.Spec.ImageRepositoryRef.Name = "sentinel"
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: "*"}
	annotated(policy)
	s.create(policy)
	s.waitGenerated(policy.Name)
}

func TestAnAnnotatedPolicyGetsAnArtifactRepository(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.imageRepository("app")
	s.imagePolicy("app", annotated)

	obj := s.waitGenerated("app")

	g.Expect(obj.Spec).To(Equal(v1alpha1.ArtifactRepositorySpec{ImagePolicyRef: &meta.LocalObjectReference{Name: "app"}}))
	var applied []metav1.ManagedFieldsEntry
	for _, entry := range obj.ManagedFields {
		if entry.Operation == metav1.ManagedFieldsOperationApply {
			applied = append(applied, entry)
		}
	}
	g.Expect(applied).To(HaveLen(1))
	g.Expect(applied[0].Manager).To(Equal(fieldManager))
	g.Expect(applied[0].Subresource).To(BeEmpty())
	g.Expect(string(bytes.ReplaceAll(applied[0].FieldsV1.GetRawBytes(), []byte(string(obj.OwnerReferences[0].UID)), []byte("UID")))).To(MatchJSON(
		`{"f:metadata": {"f:labels": {"f:source.contrib.fluxcd.io/made-by": {}}, "f:ownerReferences": {"k:{\"uid\":\"UID\"}": {}}}, "f:spec": {"f:imagePolicyRef": {"f:name": {}}}}`),
		"only the reference, the owner and the label of the maker")
}

func TestMarksThatComeLaterAreSeenAtOnce(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.labels(nil)
	s.start()
	s.imageRepository("app")
	s.imagePolicy("app")
	exists := func(g Gomega) { get[v1alpha1.ArtifactRepository](g, s, "app") }
	isGone := gone[v1alpha1.ArtifactRepository](s, "app")

	s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"})
	s.settle()
	isGone(g)

	edit(s, "app", useAsSource[*imagev1.ImageRepository]("true"))
	s.eventually(exists)

	edit(s, "app", useAsSource[*imagev1.ImagePolicy]("false"))
	s.eventually(isGone)

	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
	s.eventually(exists)

	edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Annotations = nil })
	s.eventually(isGone)

	s.labels(map[string]string{v1alpha1.UseAsSource: "all"})
	s.eventually(exists)

	s.labels(nil)
	s.eventually(isGone)
}

func TestOptingOutRemovesTheSourceAndItsBytes(t *testing.T) {
	for name, optOut := range map[string]func(*scene){
		"the annotation is removed": func(s *scene) { edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil }) },
		"the annotation says false": func(s *scene) { edit(s, "app", useAsSource[*imagev1.ImagePolicy]("false")) },
		"the label is removed":      func(s *scene) { s.labels(nil) },
		"the repository opts it out": func(s *scene) {
			edit(s, "app", useAsSource[*imagev1.ImageRepository]("false"))
			edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startScene(t)
			s.publishes("app", "1.0.0")

			optOut(s)

			s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
			s.eventually(func(g Gomega) { g.Expect(s.stored()).To(BeEmpty()) })
		})
	}
}

func TestATypoDoesNotRemoveASource(t *testing.T) {
	for name, c := range map[string]struct {
		typo   func(*scene)
		words  string
		repair func(*scene)
	}{
		"in the annotation of the policy": {
			typo:   func(s *scene) { edit(s, "app", useAsSource[*imagev1.ImagePolicy]("ture")) },
			words:  `"true" or "false"`,
			repair: func(s *scene) { edit(s, "app", annotated) },
		},
		"in the label of the namespace": {
			typo:   func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: "Enabled"}) },
			words:  `"enabled" or "all"`,
			repair: func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: "enabled"}) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			before := s.publishes("app", "1.0.0")
			uid := s.record("app").UID

			c.typo(s)

			s.eventually(func(g Gomega) {
				g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonInvalidSpec, c.words))
			})
			g.Expect(s.reconciled("app").UID).To(Equal(uid))
			g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))
			s.expectServed(before.Status.Artifact)

			c.repair(s)
			s.waitPublished("app", "1.0.0@")
			g.Expect(s.record("app").UID).To(Equal(uid))
		})
	}
}

func TestWarningsAreGivenOncePerValue(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	warnings := func() (messages []string) {
		for _, e := range s.events("ImagePolicy", "app") {
			if e.Type == "Warning" {
				for range max(e.Count, 1) {
					messages = append(messages, e.Message)
				}
			}
		}
		return messages
	}
	s.imageRepository("app")
	s.imagePolicy("app", useAsSource[*imagev1.ImagePolicy]("yes"))
	s.eventually(func(g Gomega) { g.Expect(warnings()).To(ConsistOf(ContainSubstring(`"yes"`))) })

	for _, label := range []string{"a", "b", "c"} {
		edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Labels = map[string]string{"touched": label} })
		s.settle()
	}
	edit(s, "app", useAsSource[*imagev1.ImagePolicy]("si"))
	s.eventually(func(g Gomega) { g.Expect(warnings()).To(ContainElement(ContainSubstring(`"si"`))) })

	g.Expect(warnings()).To(ConsistOf(ContainSubstring(`"yes"`), ContainSubstring(`"si"`)))
	gone[v1alpha1.ArtifactRepository](s, "app")(g)
}

func TestAnAnnotationWithoutTheLabelIsTold(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.labels(nil)
	s.start()
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonAccessDenied, v1alpha1.UseAsSource+"=enabled"))
	})
	gone[v1alpha1.ArtifactRepository](s, "app")(g)
}

func TestEditsOfAGeneratedObjectAreRepairedAndThoseBesideKept(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.ImagePolicyRef.Name = "other"
		obj.Spec.Ignore = new("*.md")
		obj.Labels = map[string]string{"team": "a"}
	})

	obj := s.waitGenerated("app")
	g.Expect(obj.Spec.Ignore).To(Equal(new("*.md")))
	g.Expect(obj.Labels).To(HaveKeyWithValue("team", "a"))
	s.waitPublished("app", "1.0.0+")
}

func TestAGeneratedObjectThatIsDeletedComesBack(t *testing.T) {
	s := startScene(t)
	before := s.publishes("app", "1.0.0")
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.waitGenerated("app")
	after := s.waitPublished("app", "1.0.0@")
	NewWithT(t).Expect(after.Status.Artifact.URL).To(Equal(before.Status.Artifact.URL))
	s.expectServed(after.Status.Artifact)
}

func TestTheArtifactRepositoryOfAFormerPolicyIsAdopted(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0")
	uid := s.record("app").UID

	// There is no garbage collector here, so the object outlives its owner.
	remove[imagev1.ImagePolicy](s, "app")
	s.waitFailed("app", v1alpha1.ReasonDependencyNotReady, "ImagePolicy app does not exist", "still published: 1.0.0@")
	g.Expect(s.external("app").Status.Artifact).To(Equal(before.Status.Artifact))

	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	g.Expect(s.waitGenerated("app").UID).To(Equal(uid))
	after := s.waitPublished("app", "1.0.0@")
	g.Expect(after.Status.Artifact).To(Equal(before.Status.Artifact))
}

func TestAHandWrittenObjectSatisfiesTheAnnotation(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("*.md") })
	s.source("app", "1.0.0")
	s.start()
	s.waitPublished("app", "1.0.0+")
	s.settle()
	obj := s.record("app")
	g.Expect(obj.OwnerReferences).To(BeEmpty())
	g.Expect(obj.Generation).To(BeNumerically("==", 1))

	edit(s, "app", useAsSource[*imagev1.ImagePolicy]("false"))
	s.settle()

	g.Expect(s.record("app").UID).To(Equal(obj.UID))
	s.reconciled("app")
	s.waitPublished("app", "1.0.0+")
}

func TestAnObjectThatRefersElsewhereIsAConflictUntilItIsGone(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.ImagePolicyRef.Name = "other" })
	s.start()
	s.source("app", "1.0.0")
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonNameConflict, "spec.imagePolicyRef.name to app"))
	})
	obj := s.record("app")
	g.Expect(obj.Spec.ImagePolicyRef.Name).To(Equal("other"))
	g.Expect(obj.OwnerReferences).To(BeEmpty())

	remove[v1alpha1.ArtifactRepository](s, "app")

	s.waitGenerated("app")
	s.waitPublished("app", "1.0.0@")
}

func TestAGeneratedObjectThatIsMadeToNameAnImageIsAConflict(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	s.push("other:2.0.0", publish.Files{"other.yaml": "version: 2\n"})

	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: s.image("other"), Tag: "2.0.0"}
	})

	s.waitPublished("app", "2.0.0@")
	s.eventually(func(g Gomega) {
		g.Expect(s.events("ImagePolicy", "app")).To(haveEvent(v1alpha1.ReasonNameConflict, "spec.imagePolicyRef.name to app"))
	})
	g.Expect(s.record("app").Spec.ImagePolicyRef).To(BeNil())
}

func TestAPolicyThatAnArtifactRepositoryControlsIsNoSource(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.labels(map[string]string{v1alpha1.UseAsSource: "all"})
	s.start()
	s.imageRepository("app")
	s.imagePolicy("owned", annotated, func(obj *imagev1.ImagePolicy) { obj.OwnerReferences = controlledBy("owner", "1") })
	s.imagePolicy("app")
	s.waitGenerated("app")
	s.settle()
	gone[v1alpha1.ArtifactRepository](s, "owned")(g)
}

func TestLabelsOfAWatchSelectorAreCopied(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	const key = "sharding.fluxcd.io/key"
	s.labelKeys = []string{key}
	s.start()
	s.push("app:1.0.0", nil)
	s.imageRepository("app")
	s.imagePolicy("app", annotated, func(obj *imagev1.ImagePolicy) {
		obj.Labels = map[string]string{key: "shard1", "team": "a"}
	})
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	g.Expect(s.waitGenerated("app").Labels).To(Equal(map[string]string{key: "shard1", v1alpha1.MadeByLabel: imagev1.ImagePolicyKind}))

	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Labels[key] = "shard2" })

	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Labels).To(Equal(map[string]string{key: "shard2", v1alpha1.MadeByLabel: imagev1.ImagePolicyKind}))
	})
}

func TestLabelsOfAWatchSelectorReachTheExternalArtifact(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	const key = "sharding.fluxcd.io/key"
	s.labelKeys = []string{key}
	s.start()
	s.source("app", "1.0.0")
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Labels = map[string]string{key: "shard1", "team": "a"} })
	s.eventually(func(g Gomega) {
		g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Labels).To(Equal(map[string]string{key: "shard1"}))
	})
	g.Expect(s.waitPublished("app", "1.0.0@").Status.Artifact).NotTo(BeNil())
}

func TestALabelOfAWatchSelectorThatIsTakenAwayGoesEverywhere(t *testing.T) {
	s := newScene(t)
	const key = "sharding.fluxcd.io/key"
	s.labelKeys = []string{key}
	s.start()
	s.source("app", "1.0.0")
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Labels = map[string]string{key: "shard1"} })
	s.eventually(func(g Gomega) {
		g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Labels).To(HaveKey(key))
	})

	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Labels = nil })

	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Labels).NotTo(HaveKey(key))
		g.Expect(get[sourcev1.ExternalArtifact](g, s, "app").Labels).NotTo(HaveKey(key))
	})
}

func TestAnArtifactRepositoryThatThisShardDoesNotSeeIsNotTakenOver(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	const key = "sharding.fluxcd.io/key"
	s.labelKeys, s.shard = []string{key}, labels.SelectorFromSet(labels.Set{key: "shard1"})
	s.artifactRepository("app")
	s.start()
	s.imageRepository("app")
	for _, name := range []string{"app", "seen"} {
		s.imagePolicy(name, annotated, func(obj *imagev1.ImagePolicy) {
			obj.Labels = map[string]string{key: "shard1"}
			obj.Spec.ImageRepositoryRef.Name = "app"
		})
	}
	s.waitGenerated("seen") // after app
	g.Expect(s.record("app").OwnerReferences).To(BeEmpty())
	g.Expect(s.record("app").Labels).To(BeEmpty())
}

// A policy that moves to another shard without being a source there must not leave an
// artifact behind.
func TestOptingOutIsSeenByTheShardThatThePolicyGoesTo(t *testing.T) {
	s := newScene(t)
	const key = "sharding.fluxcd.io/key"
	s.labelKeys, s.shard = []string{key}, labels.SelectorFromSet(labels.Set{key: "shard1"})
	s.start()
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n"})
	s.imageRepository("app")
	s.imagePolicy("app", annotated, func(obj *imagev1.ImagePolicy) { obj.Labels = map[string]string{key: "shard1"} })
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.waitPublished("app", "1.0.0@")
	s.stop()

	edit(s, "app", func(obj *imagev1.ImagePolicy) {
		obj.Labels[key] = "shard2"
		delete(obj.Annotations, v1alpha1.UseAsSource)
	})
	s.shard = labels.SelectorFromSet(labels.Set{key: "shard2"})
	s.start()

	s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
}

func TestWithoutTheLabelRequirementAnnotationsAreEnough(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.labels(nil)
	s.rules.NamespaceOptIn = source.NamespaceOptInNone
	s.start()
	s.imagePolicy("plain")
	s.publishes("app", "1.0.0")
	s.settle()
	gone[v1alpha1.ArtifactRepository](s, "plain")(g)
}
