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
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// signed asks for signatures by the keys in the Secret keys.
func signed(obj *v1alpha1.ArtifactRepository) {
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
}

func newSigner(t *testing.T) *publish.Signer {
	t.Helper()
	signer, err := publish.NewSigner()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return signer
}

// keys writes the Secret with the accepted keys.
func (s *scene) keys(signers ...*publish.Signer) {
	s.Helper()
	data := map[string][]byte{}
	for i, signer := range signers {
		data[string(rune('a'+i))+".pub"] = signer.PublicKey
	}
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "keys"}, Data: data})
}

// rotate replaces the accepted keys.
func (s *scene) rotate(signers ...*publish.Signer) {
	s.Helper()
	edit(s, "keys", func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{}
		for i, signer := range signers {
			secret.Data[string(rune('a'+i))+".pub"] = signer.PublicKey
		}
	})
}

func (s *scene) sign(image string, signer *publish.Signer) {
	s.Helper()
	NewWithT(s).Expect(s.registry.Shelf().Sign(s.Context(), "team/"+image, signer)).To(Succeed())
}

// picked writes image objects with a pick, and pushes the tag.
func (s *scene) picked(name, tag string) {
	s.Helper()
	s.push(name+":"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
	s.imageRepository(name)
	s.imagePolicy(name)
	s.picks(name, imagev1.ImageRef{Tag: tag})
}

// verifiedSource starts a source with a signed image.
func verifiedSource(t *testing.T) (*scene, *publish.Signer, *sourcev1.ExternalArtifact) {
	s := newScene(t)
	s.start()
	signer := newSigner(t)
	s.keys(signer)
	s.picked("app", "1.0.0")
	s.sign("app:1.0.0", signer)
	s.artifactRepository("app", signed)
	return s, signer, s.waitPublished("app", "1.0.0@")
}

func TestAVerifiedSourceNamesItsSigners(t *testing.T) {
	s, _, external := verifiedSource(t)
	g := NewWithT(t)
	obj := s.record("app")
	g.Expect(obj).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	g.Expect(external).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	g.Expect(obj.Status.History[0].VerifiedBy).To(ContainSubstring("a.pub"))
	g.Expect(external.Status.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataVerifiedBy, obj.Status.History[0].VerifiedBy))
	g.Expect(obj.Status.ObservedTrust).NotTo(BeEmpty())
}

func TestAnUnsignedImageIsNotPublishedUntilItIsSigned(t *testing.T) {
	s := newScene(t)
	s.start()
	signer := newSigner(t)
	s.keys(signer)
	s.picked("app", "1.0.0")
	s.artifactRepository("app", signed)
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "it is not signed")
	g := NewWithT(t)
	g.Expect(obj.Status.Artifact).To(BeNil())
	g.Expect(obj).To(haveCondition(v1alpha1.SourceVerifiedCondition, metav1.ConditionFalse, v1alpha1.ReasonVerificationError))
	g.Expect(s.stored()).To(BeEmpty())

	s.sign("app:1.0.0", signer)
	s.waitPublished("app", "1.0.0@")
}

func TestANewImageThatIsNotSignedLeavesTheLastGoodOne(t *testing.T) {
	s, signer, external := verifiedSource(t)
	s.push("app:1.1.0", publish.Files{"app.yaml": "version: 1.1.0\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.1.0"})
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "still published: 1.0.0@")
	NewWithT(t).Expect(obj.Status.Artifact).To(Equal(external.Status.Artifact))

	s.sign("app:1.1.0", newSigner(t))
	s.reconciled("app")
	s.waitFailed("app", v1alpha1.ReasonVerificationError)
	s.sign("app:1.1.0", signer)
	s.waitPublished("app", "1.1.0@")
}

func TestARotatedKeyWithdrawsAnArtifactWithoutItsSignature(t *testing.T) {
	s, signer, _ := verifiedSource(t)
	other := newSigner(t)
	s.rotate(other)
	s.reconciled("app")
	g := NewWithT(t)
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError)
	g.Expect(obj.Status.Artifact).To(BeNil(), "the record names no artifact")
	g.Expect(s.external("app").Status.Artifact).To(BeNil(), "consumers find no artifact")
	g.Expect(s.external("app")).To(haveCondition(meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonVerificationError))

	s.rotate(other, signer)
	s.reconciled("app")
	s.waitPublished("app", "1.0.0@")
}

// A key that is removed during a pull no longer counts for the pulled image. The Secret of a
// tenant sends no event.
func TestAKeyThatIsTakenOutWhileAnImageIsPulled(t *testing.T) {
	s, signer, _ := verifiedSource(t)
	_, layer := s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
	s.sign("app:1.0.1", signer)
	waiting, release := s.stall(layer)
	defer release()
	changes, err := s.client.Watch(s.Context(), &v1alpha1.ArtifactRepositoryList{}, client.InNamespace(s.namespace))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	<-waiting
	s.rotate(newSigner(t))
	release()
	s.withdrawn("app", "spec.verify")
	for last := s.record("app").ResourceVersion; ; {
		seen := (<-changes.ResultChan()).Object.(*v1alpha1.ArtifactRepository)
		if seen.Status.Artifact != nil {
			NewWithT(t).Expect(seen.Status.Artifact.Revision).To(HavePrefix("1.0.0@"), "the other was published for a moment")
		}
		if seen.ResourceVersion == last {
			return
		}
	}
}

func TestARotatedKeyThatSignedTooChangesOnlyTheSigner(t *testing.T) {
	s, _, external := verifiedSource(t)
	other := newSigner(t)
	s.sign("app:1.0.0", other)
	before := s.record("app")
	s.rotate(other)
	s.reconciled("app")
	g := NewWithT(t)
	s.eventually(func(g Gomega) {
		after := s.record("app")
		g.Expect(after.Status.ObservedTrust).NotTo(Equal(before.Status.ObservedTrust))
		g.Expect(after.Status.History).To(HaveLen(1))
		g.Expect(after.Status.History[0].VerifiedBy).NotTo(Equal(before.Status.History[0].VerifiedBy))
	})
	now := s.waitPublished("app", "1.0.0@")
	g.Expect(now.Status.Artifact.Digest).To(Equal(external.Status.Artifact.Digest))
	g.Expect(now.Status.Artifact.Revision).To(Equal(external.Status.Artifact.Revision))
}

func TestAMissingSecretWithdrawsNoArtifact(t *testing.T) {
	s, signer, external := verifiedSource(t)
	g := NewWithT(t)
	g.Expect(s.client.Delete(s.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "keys"}})).To(Succeed())
	s.reconciled("app")
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "does not exist", "still published: 1.0.0@")
	g.Expect(obj.Status.Artifact).To(Equal(external.Status.Artifact))

	s.keys(signer)
	s.reconciled("app")
	s.waitPublished("app", "1.0.0@")
}

func TestALaterDemandForASignatureJudgesTheArtifact(t *testing.T) {
	s := newScene(t)
	s.start()
	s.keys(newSigner(t))
	s.picked("app", "1.0.0")
	s.artifactRepository("app")
	s.waitPublished("app", "1.0.0@")
	edit(s, "app", signed)
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError)
	NewWithT(t).Expect(obj.Status.Artifact).To(BeNil())
	edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Verify = nil })
	external := s.waitPublished("app", "1.0.0@")
	NewWithT(t).Expect(external.Status.Artifact.Metadata).NotTo(HaveKey(v1alpha1.MetadataVerifiedBy))
}

func TestAMissingSecretOfVerifyIsNamedOnce(t *testing.T) {
	s := startScene(t)
	s.picked("app", "1.0.0")
	s.artifactRepository("app", signed)
	obj := s.waitFailed("app", v1alpha1.ReasonVerificationError, "spec.verify: the Secret "+s.namespace+"/keys does not exist")
	NewWithT(t).Expect(conditions.GetMessage(obj, meta.ReadyCondition)).NotTo(ContainSubstring("spec.verify: spec.verify"))
}
