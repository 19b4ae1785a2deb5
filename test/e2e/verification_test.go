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
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// TestTheSampleOfAVerifiedImage follows the sample as its reader would: the
// Secret gets a key of one's own, and only what that key signed is deployed.
func TestTheSampleOfAVerifiedImage(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	signer, err := publish.NewSigner()
	n.Expect(err).NotTo(HaveOccurred())
	registry := publish.Registry{Host: env.Registry().Host()}
	push := func(tag string) {
		n.push("ledger-deploy", tag, publish.Files{"app.yaml": configMap("deployed", tag)["deploy/app.yaml"]})
	}
	sign := func(tag string) {
		n.Expect(registry.Sign(n.Context(), n.image("ledger-deploy")+":"+tag, signer)).To(Succeed())
	}

	push("2.1.0")
	sign("2.1.0")
	n.sample("image_verified.yaml")
	// The key of the sample is nobody's.
	n.notReady("ledger", v1alpha1.ReasonVerificationError)
	change(n, named(n, "ledger-keys", &corev1.Secret{}), func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{"cosign.pub": signer.PublicKey}
	})
	n.published("ledger", "2.1.0")
	n.kustomized("ledger", "2.1.0")
	n.deployed("deployed", "2.1.0")
	record := get(n, "ledger", &v1alpha1.ArtifactRepository{})
	n.Expect(conditions.Get(record, v1alpha1.SourceVerifiedCondition).Status).To(Equal(metav1.ConditionTrue))
	n.Expect(record.Status.History[0].VerifiedBy).To(ContainSubstring("cosign.pub"))

	push("2.2.0")
	change(n, record, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "2.2.0" })
	kept, _ := n.notReady("ledger", v1alpha1.ReasonVerificationError)
	n.Expect(kept.Status.Artifact.Revision).To(HavePrefix("2.1.0@"), "the last good one stays")
	sign("2.2.0")
	n.published("ledger", "2.2.0")
	n.deployed("deployed", "2.2.0")
}
