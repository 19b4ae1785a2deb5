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
	"context"
	"strings"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/v1/types"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

const (
	// intruder is the ConfigMap of all content that must never be deployed, the
	// tag of an image that holds it, and the repository of another.
	intruder = "intruder"
	// smuggled is an index of the release and of the intruder, mixed an image with a
	// layer of each, and resigned the intruder with a copy of the release's signature.
	smuggled, mixed, resigned = "smuggled", "mixed", "resigned"
	// endorsed is the intruder, signed by a key of the tenant.
	endorsed = "endorsed"
)

// What the condition says of an image that is not signed as it has to be, and of
// one that no policy lists.
const (
	unsigned = "it is not signed"
	unlisted = "no TrustPolicy that enforces lists the image"
)

// siege is an assault on a source whose namespace a TrustPolicy governs: what is
// to be deployed has to be signed by the platform's key.
type siege struct {
	*assault
	rules *governed
	// digests of the images in the repository of the source that nobody of the
	// platform signed, by tag.
	digests map[string]string
	// elsewhere is another registry, where the intruder carries the signature of
	// the platform's key.
	elsewhere *publish.InProcess
	deployed  atomic.Bool // the intruder was, if only for a moment
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	n := newGoverned(t)
	s := &siege{assault: &assault{tenant: n.tenant, attacker: n.editor()}, rules: n, elsewhere: publish.Serve()}
	t.Cleanup(s.elsewhere.Close)
	s.watchOut()
	n.push("app", allowed, configMap("app", allowed))
	n.sign("app", allowed, n.signer)
	s.stock()
	n.scan("app", seldom)
	n.deploy("app")
	s.artifact = n.published("app", allowed)
	n.deployed("app", allowed)
	return s
}

// stock pushes what the attacks try to have deployed.
func (s *siege) stock() {
	s.Helper()
	payload := configMap(intruder, foreign)
	release, err := crane.Pull(s.ref("app")+":"+allowed, crane.Insecure, crane.WithContext(s.Context()))
	s.Expect(err).NotTo(HaveOccurred())
	s.digests = map[string]string{}
	layers, err := release.Layers()
	s.Expect(err).NotTo(HaveOccurred())
	s.digests[intruder] = s.pushImage("app:"+intruder)(s.fluxFor(payload), nil)
	s.digests[resigned] = s.pushImage("app:"+resigned)(s.fluxFor(publish.Files{"deploy/app.yaml": payload["deploy/app.yaml"] + "---\n"}), nil)
	s.digests[endorsed] = s.pushImage("app:" + endorsed)(publish.ContainerImage(payload))
	s.digests[mixed] = s.pushImage("app:" + mixed)(publish.LayeredArtifact(ownConfig, append(layers, s.gzipped(payload))...))
	s.digests[smuggled] = s.pushIndex("app:"+smuggled, types.OCIImageIndex,
		publish.Child{Image: release, Platform: "linux/amd64"}, publish.Child{Image: s.fluxFor(payload), Platform: "linux/arm64"})
	s.push(intruder, allowed, payload)

	digest, err := release.Digest()
	s.Expect(err).NotTo(HaveOccurred())
	signature := func(digest string) string {
		return s.ref("app") + ":" + strings.Replace(digest, ":", "-", 1) + ".sig"
	}
	s.Expect(crane.Copy(signature(digest.String()), signature(s.digests[resigned]), crane.Insecure, crane.WithContext(s.Context()))).To(Succeed())

	// Of spec.verify any key will do: with the platform's, it accepts the release too.
	signer := s.rules.newSigner()
	s.secret("keys", corev1.SecretTypeOpaque, map[string]string{"own.pub": string(signer.PublicKey), "release.pub": string(s.rules.signer.PublicKey)})
	s.rules.sign("app", endorsed, signer)

	shelf := publish.Registry{Host: s.elsewhere.Host()}
	s.pushTo(shelf, s.image("app")+":"+allowed, payload)
	s.Expect(shelf.Sign(s.Context(), s.image("app")+":"+allowed, s.rules.signer)).To(Succeed())
}

// watchOut looks at all that is ever deployed.
func (s *siege) watchOut() {
	s.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s.Cleanup(cancel)
	changes, err := env.Client.Watch(ctx, &corev1.ConfigMapList{}, client.InNamespace(s.namespace))
	s.Expect(err).NotTo(HaveOccurred())
	go func() {
		for change := range changes.ResultChan() {
			if found, ok := change.Object.(*corev1.ConfigMap); ok && found.Name == intruder {
				s.deployed.Store(true)
			}
		}
	}()
}

// repelled expects that the source says why it does not publish something else,
// and that nothing else was ever published or deployed.
func (s *siege) repelled(name, says string) {
	s.Helper()
	s.eventually(func(g Gomega) {
		obj := get(s.tenant, "app", &v1alpha1.ArtifactRepository{})
		g.Expect(conditions.IsReady(obj)).To(BeFalse(), name)
		g.Expect(conditions.GetMessage(obj, meta.ReadyCondition)).To(ContainSubstring(says), name)
	})
	s.withstands(name)
	s.Expect(get(s.tenant, "app", &v1alpha1.ArtifactRepository{}).Status.History).To(HaveLen(1), name)
	s.Expect(s.deployed.Load()).To(BeFalse(), name)
}

// localhost spells the host of the registry in another way.
func (s *siege) localhost() string {
	return strings.Replace(s.ref("app"), "127.0.0.1", "localhost", 1)
}

// breach is one way to have something deployed that the platform did not sign.
type breach struct {
	// try does it as the attacker, undo makes it good.
	try, undo func(s *siege) error
	// says is what the condition says.
	says string
}

// onTheSpec are breaches by what a tenant may write in the generated object.
func onTheSpec() map[string]breach {
	pinned := func(tag, says string, mods ...func(*v1alpha1.ArtifactRepositorySpec)) breach {
		return breach{
			says: says,
			try: func(s *siege) error {
				return edit(s.assault, s.attacker, &v1alpha1.ArtifactRepository{}, func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec.Digest = s.digests[tag]
					for _, mod := range mods {
						mod(&obj.Spec)
					}
				})
			},
			undo: func(s *siege) error {
				return edit(s.assault, env.Client, &v1alpha1.ArtifactRepository{}, func(obj *v1alpha1.ArtifactRepository) {
					obj.Spec = v1alpha1.ArtifactRepositorySpec{ImagePolicyRef: obj.Spec.ImagePolicyRef}
				})
			},
		}
	}
	return map[string]breach{
		"a pin names a digest that nobody signed":                         pinned(intruder, unsigned),
		"a pin names a digest beside which the release's signature is":    pinned(resigned, "release-key: found"),
		"verify names the tenant's own key too, and a pin what it signed": pinned(endorsed, "release-key: found", ownKey),
		"a selector picks the other layer beside that of the release": pinned(mixed, unsigned, func(spec *v1alpha1.ArtifactRepositorySpec) {
			spec.LayerSelector = &sourcev1.OCILayerSelector{MediaType: string(ownContent)}
		}),
		"a platform picks the other child of an index that has the release": pinned(smuggled, unsigned, onARM),
		"a format is pinned for what nobody signed": pinned(endorsed, "release-key: found", func(spec *v1alpha1.ArtifactRepositorySpec) {
			spec.Format = "Image"
		}),
	}
}

func ownKey(spec *v1alpha1.ArtifactRepositorySpec) {
	spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
}

func onARM(spec *v1alpha1.ArtifactRepositorySpec) { spec.Platform = "linux/arm64" }

// onTheImage are breaches by what leads to the image.
func onTheImage() map[string]breach {
	picked := func(s *siege, ref imagev1.ImageRef) error { return editPick(s.assault, s.attacker, ref) }
	unpicked := func(s *siege) error { return undoPick(s.assault) }
	repointed := func(says string, image func(s *siege) string) breach {
		scan := func(s *siege, who client.Client, image string) error {
			return edit(s.assault, who, &imagev1.ImageRepository{}, func(obj *imagev1.ImageRepository) { obj.Spec.Image = image })
		}
		return breach{
			says: says,
			try: func(s *siege) error {
				if err := scan(s, s.attacker, image(s)); err != nil {
					return err
				}
				return picked(s, imagev1.ImageRef{Name: image(s), Tag: allowed})
			},
			undo: func(s *siege) error {
				if err := scan(s, env.Client, s.ref("app")); err != nil {
					return err
				}
				return unpicked(s)
			},
		}
	}
	return map[string]breach{
		"the policy picks a tag that nobody signed": {
			says: unsigned, undo: unpicked,
			try: func(s *siege) error { return picked(s, imagev1.ImageRef{Name: s.ref("app"), Tag: intruder}) },
		},
		"the policy picks the release's tag with another digest": {
			says: unsigned, undo: unpicked,
			try: func(s *siege) error {
				return picked(s, imagev1.ImageRef{Name: s.ref("app"), Tag: allowed, Digest: s.digests[intruder]})
			},
		},
		"the release's tag is moved": {
			says: unsigned,
			try: func(s *siege) error {
				s.retag("app@"+s.digests[intruder], allowed)
				s.reconciled("app") // nobody scans meanwhile
				return nil
			},
			undo: func(s *siege) error {
				_, digest, _ := strings.Cut(s.artifact.Revision, "@")
				s.retag("app@"+digest, allowed)
				return nil
			},
		},
		"the ImageRepository points at another repository of the list": repointed(unsigned, func(s *siege) string { return s.ref(intruder) }),
		"the ImageRepository spells the host in another way":           repointed(unlisted, (*siege).localhost),
		"the ImageRepository points at another registry, where the platform's key signed the same name": repointed(unlisted, func(s *siege) string {
			return s.elsewhere.Host() + "/" + s.image("app")
		}),
		"the policy follows an ImageRepository of a namespace that nobody governs": {
			says: unlisted,
			try: func(s *siege) error {
				other := newTenant(s.T, v1alpha1.UseAsSourceEnabled)
				other.push("app", foreign, configMap(intruder, foreign))
				other.scan("app", seldom, func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
					repository.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
					repository.Spec.AccessFrom = &acl.AccessFrom{NamespaceSelectors: []acl.NamespaceSelector{{}}}
				})
				return edit(s.assault, s.attacker, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) {
					obj.Spec.ImageRepositoryRef.Namespace = other.namespace
				})
			},
			undo: func(s *siege) error {
				return edit(s.assault, env.Client, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Namespace = "" })
			},
		},
	}
}

// A tenant with edit tries every way that there is to have something deployed
// that the platform's key did not sign. To add a way, add a row.
func TestTenantsDeployNothingUnsigned(t *testing.T) {
	t.Parallel()
	for by, breaches := range map[string]map[string]breach{
		"by what the spec says":      onTheSpec(),
		"by what leads to the image": onTheImage(),
	} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			s := newSiege(t)
			// One after the other, on one source.
			for name, breach := range breaches {
				t.Log(name)
				s.Expect(breach.try(s)).To(Succeed(), name)
				s.repelled(name, breach.says)
				s.Expect(breach.undo(s)).To(Succeed(), name)
				s.reconciled("app")
				s.Expect(s.published("app", allowed)).To(BeSamePublication(s.artifact), "after: %s", name)
			}
		})
	}
}

// ownSources are what a tenant may write instead of following the platform's
// image, by name, and what the conditions say.
func (s *siege) ownSources() map[string]struct {
	spec v1alpha1.ArtifactRepositorySpec
	says string
} {
	type source = struct {
		spec v1alpha1.ArtifactRepositorySpec
		says string
	}
	of := func(image, tag, says string, mods ...func(*v1alpha1.ArtifactRepositorySpec)) source {
		spec := v1alpha1.ArtifactRepositorySpec{Image: image, Insecure: true, Tag: tag}
		for _, mod := range mods {
			mod(&spec)
		}
		return source{spec, says}
	}
	return map[string]source{
		"unsigned":  of(s.ref("app"), intruder, unsigned),
		"elsewhere": of(s.elsewhere.Host()+"/"+s.image("app"), allowed, unlisted),
		"localhost": of(s.localhost(), allowed, unlisted),
		"capitals":  of(strings.ToUpper(s.localhost()[:9])+s.localhost()[9:], allowed, unlisted),
		"own-key":   of(s.ref("app"), endorsed, "release-key: found", ownKey),
		"platform":  of(s.ref("app"), smuggled, unsigned, onARM),
		"digest": of(s.ref("app"), "", unsigned, func(spec *v1alpha1.ArtifactRepositorySpec) {
			spec.Digest = s.digests[intruder]
		}),
		"policy": of(s.ref(intruder), "", unsigned, func(spec *v1alpha1.ArtifactRepositorySpec) {
			spec.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}}
		}),
	}
}

// Nor do tenants get anything unsigned by sources of their own, whatever those
// and the objects around them are.
func TestTenantsAddNoSourceThatIsNotSigned(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	sources := s.ownSources()
	for name, source := range sources {
		obj := named(s.tenant, name, &v1alpha1.ArtifactRepository{Spec: source.spec})
		obj.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(get(s.tenant, "app", &sourcev1.ExternalArtifact{}),
			sourcev1.GroupVersion.WithKind(sourcev1.ExternalArtifactKind))}
		obj.Finalizers = []string{"example.com/hold"}
		s.Expect(s.attacker.Create(t.Context(), obj)).To(Succeed(), name)
		s.deploy(name)
	}
	for name, source := range sources {
		obj, ready := s.notReady(name, v1alpha1.ReasonVerificationError)
		s.Expect(ready.Message).To(ContainSubstring(source.says), name)
		s.Expect(obj.Status.History).To(BeEmpty(), name)
		s.Expect(s.stored(name)).To(BeEmpty(), name)
		s.unpublished(name)
		forged := named(s.tenant, name, &sourcev1.ExternalArtifact{})
		forged.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(obj, v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind))}
		s.Expect(apierrors.IsForbidden(s.attacker.Create(t.Context(), forged))).To(BeTrue(), name)
	}
	s.Expect(s.deployed.Load()).To(BeFalse())
	for name := range sources {
		change(s.tenant, named(s.tenant, name, &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Finalizers = nil })
	}
}

// Who deletes a source and keeps what it made keeps no bytes, and whoever takes
// the name gets nothing by it but what is signed.
func TestAnOrphanIsNoWayIn(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	write := func(mod func(*v1alpha1.ArtifactRepositorySpec)) {
		t.Helper()
		obj := named(s.tenant, "kept", &v1alpha1.ArtifactRepository{Spec: v1alpha1.ArtifactRepositorySpec{Image: s.ref("app"), Insecure: true}})
		mod(&obj.Spec)
		s.Expect(s.attacker.Create(t.Context(), obj)).To(Succeed())
	}
	remove := func(name string) {
		t.Helper()
		obj := named(s.tenant, name, &v1alpha1.ArtifactRepository{})
		s.Expect(s.attacker.Delete(t.Context(), obj, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
	}
	// The generated one is made again, and takes its own back.
	uid := get(s.tenant, "app", &sourcev1.ExternalArtifact{}).UID
	remove("app")
	s.eventually(func(g Gomega) {
		external := get(s.tenant, "app", &sourcev1.ExternalArtifact{})
		g.Expect(external.UID).To(Equal(uid))
		record := &v1alpha1.ArtifactRepository{}
		g.Expect(env.Client.Get(t.Context(), s.key("app"), record)).To(Succeed())
		g.Expect(metav1.IsControlledBy(external, record)).To(BeTrue())
		g.Expect(external.Status.Artifact).To(BeSamePublication(s.artifact))
	})

	write(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Tag = allowed })
	kept := s.published("kept", allowed)
	s.deploy("kept")
	remove("kept")
	s.gone("kept", &v1alpha1.ArtifactRepository{})
	s.Expect(get(s.tenant, "kept", &sourcev1.ExternalArtifact{}).Status.Artifact).To(BeSamePublication(kept), "it was asked to stay")
	s.eventually(func(g Gomega) {
		code, _, err := download(t.Context(), kept.URL)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(404), "nobody judges it any more: it has no bytes")
	})

	write(func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Digest = s.digests[intruder] })
	_, ready := s.notReady("kept", v1alpha1.ReasonVerificationError)
	s.Expect(ready.Message).To(ContainSubstring(unsigned))
	s.eventually(func(g Gomega) {
		g.Expect(get(s.tenant, "kept", &sourcev1.ExternalArtifact{}).Status.Artifact).To(BeNil())
	})
	s.Expect(s.deployed.Load()).To(BeFalse())
}

// What is suspended, or held by a finalizer while it is deleted, is not kept from
// the platform's judgement. What is deployed stays deployed.
func TestTenantsKeepNothingThatIsNoLongerAccepted(t *testing.T) {
	t.Parallel()
	s := newSiege(t)
	s.Expect(edit(s.assault, s.attacker, &v1alpha1.ArtifactRepository{}, func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Suspend, obj.Finalizers = true, []string{"example.com/hold"}
	})).To(Succeed())
	s.Expect(edit(s.assault, s.attacker, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = true })).To(Succeed())
	s.Expect(s.reconciled("app").Status.Artifact).To(Equal(s.artifact))
	s.rules.rotate(s.rules.newSigner())
	s.rules.withdrawn("app")
	s.rules.rotate(s.rules.signer)

	// Suspended, nothing new is published, until it is released.
	s.Expect(s.reconciled("app").Status.Artifact).To(BeNil())
	s.Expect(edit(s.assault, env.Client, &imagev1.ImagePolicy{}, func(obj *imagev1.ImagePolicy) { obj.Spec.Suspend = false })).To(Succeed())
	s.Expect(edit(s.assault, env.Client, &v1alpha1.ArtifactRepository{}, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = false })).To(Succeed())
	s.published("app", allowed)
	s.Expect(s.attacker.Delete(t.Context(), named(s.tenant, "app", &v1alpha1.ArtifactRepository{}))).To(Succeed())
	s.gone("app", &sourcev1.ExternalArtifact{})
	s.eventually(func(g Gomega) { // the record follows
		g.Expect(get(s.tenant, "app", &v1alpha1.ArtifactRepository{}).Status.Artifact).To(BeNil())
	})
	s.Expect(s.stored("app")).To(BeEmpty())
	s.Expect(edit(s.assault, env.Client, &v1alpha1.ArtifactRepository{}, func(obj *v1alpha1.ArtifactRepository) { obj.Finalizers = nil })).To(Succeed())
	s.published("app", allowed)
	s.Expect(get(s.tenant, "app", &corev1.ConfigMap{}).Data).To(HaveKeyWithValue("version", allowed))
	s.Expect(s.deployed.Load()).To(BeFalse())
}
