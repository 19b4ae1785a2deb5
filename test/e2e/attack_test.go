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
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

const (
	// allowed is the version that the image of the source has, and that is deployed.
	allowed = "1.0.0"
	// foreign is the version of what an attack tries to have deployed instead.
	foreign = "6.6.6"
)

// assault is a namespace that has opted in, with a source that is deployed, and
// a tenant who tries to have something else deployed in its place.
type assault struct {
	*tenant
	// attacker has the ClusterRole edit in the namespace.
	attacker person
	// artifact is what the source publishes.
	artifact *meta.Artifact
	// loot is what another namespace publishes: real bytes, really served, with
	// an object of the same name in them. lootImage and lootDigest name its image.
	loot                  *meta.Artifact
	lootImage, lootDigest string
}

func newAssault(t *testing.T) *assault {
	t.Helper()
	other := newTenant(t, v1alpha1.UseAsSourceEnabled)
	a := &assault{tenant: newTenant(t, v1alpha1.UseAsSourceEnabled), lootImage: other.ref("app")}
	other.push("app", foreign, configMap("app", foreign))
	other.scan("app", seldom)
	a.push("app", allowed, configMap("app", allowed))
	a.scan("app", seldom)
	a.deploy("app")
	a.attacker = a.editor()
	a.loot = other.published("app", foreign)
	_, a.lootDigest, _ = strings.Cut(a.loot.Revision, "@")
	a.artifact = a.published("app", allowed)
	a.deployed("app", allowed)
	return a
}

// withstands expects that the source, asked to look once more, publishes what
// it did, and that a consumer, asked to look once more, deploys that.
func (a *assault) withstands(name string) {
	a.Helper()
	recorded := a.reconciled("app").Status.Artifact
	a.Expect(recorded).NotTo(BeNil(), name)
	a.Expect(recorded).To(BeSamePublication(a.artifact), name) // who verified it may be others
	a.eventually(func(g Gomega) {
		g.Expect(get(a.tenant, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(recorded), name)
	})
	a.Expect(a.consumedRevision("app")).To(Equal(a.artifact.Revision), name)
	a.Expect(get(a.tenant, "app", &corev1.ConfigMap{}).Data).To(HaveKeyWithValue("version", allowed), name)
}

// consumedRevision has a Kustomization look at its source now, and returns the
// revision that it applied.
func (a *assault) consumedRevision(name string) (revision string) {
	a.Helper()
	kustomization := &unstructured.Unstructured{}
	kustomization.SetAPIVersion("kustomize.toolkit.fluxcd.io/v1")
	kustomization.SetKind("Kustomization")
	token := time.Now().Format(time.RFC3339Nano)
	a.annotate(named(a.tenant, name, kustomization), meta.ReconcileRequestAnnotation, token)
	a.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(a.Context(), a.key(name), kustomization)).To(Succeed())
		handled, _, _ := unstructured.NestedString(kustomization.Object, "status", "lastHandledReconcileAt")
		g.Expect(handled).To(Equal(token))
		revision, _, _ = unstructured.NestedString(kustomization.Object, "status", "lastAppliedRevision")
	})
	return revision
}

// edit changes an object of the source as somebody, again if somebody else was faster.
func edit[T client.Object](a *assault, who client.Client, obj T, do func(T)) error {
	return a.again(func() error {
		if err := who.Get(a.Context(), a.key("app"), obj); err != nil {
			return err
		}
		do(obj)
		return who.Update(a.Context(), obj)
	})
}

// editStatus is edit for the status.
func editStatus[T client.Object](a *assault, who client.Client, obj T, do func(T)) error {
	return a.again(func() error {
		if err := who.Get(a.Context(), a.key("app"), obj); err != nil {
			return err
		}
		do(obj)
		return who.Status().Update(a.Context(), obj)
	})
}

// again tries until there is no conflict.
func (a *assault) again(attempt func() error) (err error) {
	a.Helper()
	a.Eventually(func() bool {
		err = attempt()
		return apierrors.IsConflict(err)
	}, patience, poll).Should(BeFalse())
	return err
}

// attack is one way to have other bytes deployed.
type attack struct {
	// try does it, with the rights of the attacker.
	try func(a *assault) error
	// undo makes a source out of it again, for the next attack.
	undo func(a *assault) error
	// refused tells that the API server must not let it happen. Of what it lets
	// happen nothing may come.
	refused bool
}

// onExternalArtifact are attacks on what consumers read.
func onExternalArtifact() map[string]attack {
	external := func() *sourcev1.ExternalArtifact { return &sourcev1.ExternalArtifact{} }
	return map[string]attack{
		"the status shows what another namespace publishes": {refused: true, try: func(a *assault) error {
			return editStatus(a, a.attacker, external(), func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = a.loot })
		}},
		"the status shows other bytes under the revision that is expected": {refused: true, try: func(a *assault) error {
			return editStatus(a, a.attacker, external(), func(obj *sourcev1.ExternalArtifact) {
				obj.Status.Artifact.URL, obj.Status.Artifact.Digest = a.loot.URL, a.loot.Digest
			})
		}},
		"the status is applied from the server's side": {refused: true, try: func(a *assault) error {
			obj := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"artifact": map[string]any{
				"url": a.loot.URL, "digest": a.loot.Digest, "revision": a.loot.Revision, "path": a.loot.Path,
				"lastUpdateTime": a.loot.LastUpdateTime.Format(time.RFC3339),
			}}}}
			obj.SetGroupVersionKind(sourcev1.GroupVersion.WithKind(sourcev1.ExternalArtifactKind))
			named(a.tenant, "app", obj)
			return a.attacker.Status().Apply(a.Context(), client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("attacker"), client.ForceOwnership)
		}},
		"the owner reference is stripped, so that it is nobody's": {refused: true, try: func(a *assault) error {
			return edit(a, a.attacker, external(), func(obj *sourcev1.ExternalArtifact) { obj.OwnerReferences = nil })
		}},
		"the source that it names is another": {refused: true, try: func(a *assault) error {
			return edit(a, a.attacker, external(), func(obj *sourcev1.ExternalArtifact) { obj.Spec.SourceRef = nil })
		}},
		"it is deleted and one of the tenant takes its name": {refused: true, try: func(a *assault) error {
			if err := a.attacker.Delete(a.Context(), named(a.tenant, "app", external())); err != nil {
				return err
			}
			return a.attacker.Create(a.Context(), named(a.tenant, "app", external()))
		}},
		"annotations say what our metadata says": {try: func(a *assault) error {
			return edit(a, a.attacker, external(), func(obj *sourcev1.ExternalArtifact) {
				obj.Annotations = map[string]string{
					v1alpha1.Group + "/digest": a.lootDigest, v1alpha1.Group + "/image": a.lootImage,
					meta.ReconcileRequestAnnotation: "http://attacker.invalid/\n;--",
				}
			})
		}},
	}
}

// onArtifactRepository are attacks on the record, and on who keeps it.
func onArtifactRepository() map[string]attack {
	record := func() *v1alpha1.ArtifactRepository { return &v1alpha1.ArtifactRepository{} }
	return map[string]attack{
		"the record says that something else was published": {refused: true, try: func(a *assault) error {
			return editStatus(a, a.attacker, record(), func(obj *v1alpha1.ArtifactRepository) { obj.Status.Artifact = a.loot })
		}},
		"the generated object loses its owner": {try: func(a *assault) error {
			return edit(a, a.attacker, record(), func(obj *v1alpha1.ArtifactRepository) { obj.OwnerReferences = nil })
		}},
		"a pin names a digest of another repository": {
			try: func(a *assault) error {
				return edit(a, a.attacker, record(), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = a.lootDigest })
			},
			undo: func(a *assault) error {
				return edit(a, env.Client, record(), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = "" })
			},
		},
	}
}

// onImageObjects are attacks on what leads to the image. Tenants with edit may
// write all of these objects, their status as well.
func onImageObjects() map[string]attack {
	attacks := map[string]attack{
		"the ImageRepository's status says that it scans another image, and the policy's that it picked that one": {
			try: func(a *assault) error {
				if err := editStatus(a, a.attacker, &imagev1.ImageRepository{}, func(obj *imagev1.ImageRepository) {
					obj.Status.CanonicalImageName = a.lootImage
				}); err != nil {
					return err
				}
				return editPick(a, a.attacker, imagev1.ImageRef{Name: a.lootImage, Tag: foreign, Digest: a.lootDigest})
			},
			undo: undoPick,
		},
		"the ImageRepository points at a registry that does not answer, while the policy shows what it picked": {
			try: func(a *assault) error {
				return edit(a, a.attacker, &imagev1.ImageRepository{}, func(obj *imagev1.ImageRepository) { obj.Spec.Image = "127.0.0.1:1/org/app" })
			},
			undo: func(a *assault) error {
				return edit(a, env.Client, &imagev1.ImageRepository{}, func(obj *imagev1.ImageRepository) { obj.Spec.Image = a.ref("app") })
			},
		},
	}
	for name, ref := range map[string]func(a *assault) imagev1.ImageRef{
		"the policy's status picks another image": func(a *assault) imagev1.ImageRef {
			return imagev1.ImageRef{Name: a.lootImage, Tag: foreign}
		},
		"the policy's status picks another image by its digest": func(a *assault) imagev1.ImageRef {
			return imagev1.ImageRef{Name: a.lootImage, Tag: allowed, Digest: a.lootDigest}
		},
		"the policy's status picks from another host": func(a *assault) imagev1.ImageRef {
			return imagev1.ImageRef{Name: "attacker.invalid/" + a.image("app"), Tag: allowed}
		},
		"the policy's status picks a digest that another repository has": func(a *assault) imagev1.ImageRef {
			return imagev1.ImageRef{Name: a.ref("app"), Tag: allowed, Digest: a.lootDigest}
		},
		"the policy's status picks a tag that leads to another repository": func(a *assault) imagev1.ImageRef {
			return imagev1.ImageRef{Name: a.ref("app"), Tag: "../../" + strings.TrimPrefix(a.lootImage, env.Registry().Host()+"/") + "/manifests/" + foreign}
		},
	} {
		attacks[name] = attack{try: func(a *assault) error { return editPick(a, a.attacker, ref(a)) }, undo: undoPick}
	}
	for _, value := range []string{"True", " true", "all", "false ", "http://attacker.invalid/", strings.Repeat("x", 8192)} {
		attacks["the annotation says "+value[:min(len(value), 32)]] = attack{
			try: func(a *assault) error {
				return edit(a, a.attacker, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { mark(obj, value) })
			},
			undo: func(a *assault) error {
				return edit(a, env.Client, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { mark(obj, v1alpha1.UseAsSourceTrue) })
			},
		}
	}
	return attacks
}

func editPick(a *assault, who client.Client, ref imagev1.ImageRef) error {
	return editStatus(a, who, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { obj.Status.LatestRef = &ref })
}

func undoPick(a *assault) error {
	return editPick(a, env.Client, imagev1.ImageRef{Name: a.ref("app"), Tag: allowed})
}

// A tenant with edit tries every way that there is to have other bytes deployed
// than those of the image that the policy picked. To add a way, add a row.
func TestTenantsDeployNothingElse(t *testing.T) {
	t.Parallel()
	for object, attacks := range map[string]map[string]attack{
		"on the ExternalArtifact":   onExternalArtifact(),
		"on the ArtifactRepository": onArtifactRepository(),
		"on the image objects":      onImageObjects(),
	} {
		t.Run(object, func(t *testing.T) {
			t.Parallel()
			a := newAssault(t)
			// One after the other, on one source.
			for name, attack := range attacks {
				t.Log(name)
				err := attack.try(a)
				if attack.refused {
					a.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%s: %v", name, err)
				} else {
					a.Expect(err).NotTo(HaveOccurred(), name)
				}
				a.withstands(name)
				if attack.undo != nil {
					a.Expect(attack.undo(a)).To(Succeed(), name)
					a.Expect(a.published("app", allowed)).To(Equal(a.artifact), "after: %s", name)
				}
			}
		})
	}
}

// Where the admission policies are missing, an edited ExternalArtifact may be
// deployed before it is repaired, and no longer: it is, and consumers come back.
func TestConsumersComeBackAfterARepair(t *testing.T) {
	t.Parallel()
	a := newAssault(t)
	for name, attempt := range map[string]func() error{
		"the status shows what another namespace publishes": func() error {
			return editStatus(a, env.Client, &sourcev1.ExternalArtifact{}, func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = a.loot })
		},
		"the object is replaced by one that shows it": func() error {
			obj := get(a.tenant, "app", &sourcev1.ExternalArtifact{})
			if err := env.Client.Delete(a.Context(), obj); err != nil {
				return err
			}
			// The controller may have been faster: then its own is in the way.
			err := env.Client.Create(a.Context(), named(a.tenant, "app", &sourcev1.ExternalArtifact{Spec: obj.Spec}))
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
			return editStatus(a, env.Client, &sourcev1.ExternalArtifact{}, func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = a.loot })
		},
	} {
		t.Log(name)
		a.Expect(attempt()).To(Succeed(), name)
		a.eventually(func(g Gomega) {
			g.Expect(get(a.tenant, "app", &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(a.artifact), name)
		})
		// The consumer may have to hear of the repair first.
		a.eventually(func(g Gomega) { g.Expect(a.consumedRevision("app")).To(Equal(a.artifact.Revision), name) })
		a.deployed("app", allowed)
		a.withstands(name)
	}
}
