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
	"fmt"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

// governed is a tenant whose namespace a TrustPolicy governs. The policy and the
// Secret with its keys have the name of the namespace.
type governed struct {
	*tenant
	signer *publish.Signer
}

// newGoverned makes a tenant whose images have to be signed by a key.
func newGoverned(t *testing.T) *governed {
	t.Helper()
	n := &governed{tenant: newTenant(t, v1alpha1.UseAsSourceEnabled)}
	n.signer = n.newSigner()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.FluxNamespace, Name: n.namespace}}
	secret.Data = map[string][]byte{"release.pub": n.signer.PublicKey}
	policy := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}}
	policy.Spec = v1alpha1.TrustPolicySpec{
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: n.namespace}},
		Images:            []v1alpha1.ImagePattern{v1alpha1.ImagePattern(n.ref("**"))},
		Authorities: []v1alpha1.TrustAuthority{{Name: "release-key", Verify: sourcev1.OCIRepositoryVerification{
			Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: n.namespace},
		}}},
	}
	n.create(secret, policy)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, obj := range []client.Object{policy, secret} {
			if err := client.IgnoreNotFound(env.Client.Delete(ctx, obj)); err != nil {
				t.Error(err)
			}
		}
	})
	return n
}

func (n *governed) newSigner() *publish.Signer {
	n.Helper()
	signer, err := publish.NewSigner()
	n.Expect(err).NotTo(HaveOccurred())
	return signer
}

func (n *governed) sign(name, tag string, signer *publish.Signer) {
	n.Helper()
	n.Expect(publish.Registry{Host: env.Registry().Host()}.Sign(n.Context(), n.image(name)+":"+tag, signer)).To(Succeed())
}

// rotate replaces the keys of the policy.
func (n *governed) rotate(signer *publish.Signer) {
	n.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: controlplane.FluxNamespace, Name: n.namespace}}
	change(n.tenant, secret, func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{"release.pub": signer.PublicKey}
	})
}

// regovern changes the policy.
func (n *governed) regovern(do func(*v1alpha1.TrustPolicySpec)) {
	n.Helper()
	policy := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}}
	change(n.tenant, policy, func(policy *v1alpha1.TrustPolicy) { do(&policy.Spec) })
}

// withdrawn waits until consumers find nothing.
func (n *governed) withdrawn(name string) {
	n.Helper()
	external, record := &sourcev1.ExternalArtifact{}, &v1alpha1.ArtifactRepository{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), external)).To(Succeed())
		g.Expect(external.Status.Artifact).To(BeNil(), "it is still published")
		g.Expect(env.Client.Get(n.Context(), n.key(name), record)).To(Succeed())
		g.Expect(record.Status.Artifact).To(BeNil(), "it is still recorded")
	})
}

// rarely scans so seldom, that nothing happens during a test but by an event.
func rarely(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
	repository.Spec.Interval.Duration = time.Hour
}

// An annotated source, of which its tenant wrote no word about signatures, is
// published as the platform's policy says, from the first image to the last.
func TestATrustPolicyGovernsAnAnnotatedSource(t *testing.T) {
	t.Parallel()
	n := newGoverned(t)
	n.eventually(func(g Gomega) {
		var policy v1alpha1.TrustPolicy
		g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: n.namespace}, &policy)).To(Succeed())
		g.Expect(conditions.IsReady(&policy)).To(BeTrue(), "%v", policy.Status.Conditions)
		g.Expect(policy.Status.ObservedGeneration).To(Equal(policy.Generation))
	})
	n.pushAndScan("app", "1.0.0", rarely)
	obj, ready := n.notReady("app", v1alpha1.ReasonVerificationError)
	n.Expect(obj.Status.Artifact).To(BeNil())
	n.Expect(ready.Message).To(And(ContainSubstring(n.namespace), ContainSubstring("release-key"), ContainSubstring("it is not signed")))
	n.Expect(n.stored("app")).To(BeEmpty())

	n.sign("app", "1.0.0", n.signer)
	n.reconciled("app")
	artifact := n.published("app", "1.0.0")
	by := fmt.Sprintf(`TrustPolicy %q (release-key): key release.pub`, n.namespace)
	n.Expect(artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataVerifiedBy, ContainSubstring(by)))
	external := get(n.tenant, "app", &sourcev1.ExternalArtifact{})
	n.Expect(conditions.GetMessage(external, v1alpha1.SourceVerifiedCondition)).To(ContainSubstring(by))

	// What the platform changes, it changes for what is published, at once.
	other := n.newSigner()
	n.rotate(other)
	n.withdrawn("app")
	n.eventually(func(g Gomega) { // beside the warning that it was not signed
		warnings := n.warnings(sourcev1.ExternalArtifactKind, "app", v1alpha1.ReasonVerificationError)
		g.Expect(warnings).To(ContainElement(HaveField("Message", ContainSubstring("no longer published: "+artifact.Revision))))
	})
	n.rotate(n.signer)
	n.published("app", "1.0.0")
	n.regovern(func(spec *v1alpha1.TrustPolicySpec) { spec.Formats = []v1alpha1.TrustFormat{"Helm"} })
	n.withdrawn("app")
	n.regovern(func(spec *v1alpha1.TrustPolicySpec) { spec.Formats = nil })
	n.published("app", "1.0.0")
	n.regovern(func(spec *v1alpha1.TrustPolicySpec) { spec.Images = []v1alpha1.ImagePattern{"ghcr.io/org/**"} })
	n.withdrawn("app")

	// A policy that only warns says so.
	n.regovern(func(spec *v1alpha1.TrustPolicySpec) { spec.Mode = v1alpha1.ModeWarn })
	n.published("app", "1.0.0")
	n.Expect(conditions.GetMessage(n.reconciled("app"), meta.ReadyCondition)).To(ContainSubstring("in the mode Enforce it would be refused"))
	metrics := n.read("http://" + env.controller.Metrics + "/metrics")
	for _, want := range []string{
		fmt.Sprintf(`image_source_trust_verdicts_total{mode="Enforce",policy=%q,verdict="accepted"}`, n.namespace),
		fmt.Sprintf(`image_source_trust_verdicts_total{mode="Enforce",policy=%q,verdict="rejected"}`, n.namespace),
		fmt.Sprintf(`gotk_reconcile_condition{kind="TrustPolicy",name=%q,namespace="",status="True",type="Ready"} 1`, n.namespace),
	} {
		n.Expect(metrics).To(ContainSubstring(want))
	}
}

// Shards see every policy, Namespace and Secret, whatever their own label is;
// and a controller that starts judges what its predecessor left before it
// publishes anything.
func TestAShardIsGovernedFromItsStart(t *testing.T) {
	t.Parallel()
	n := newGoverned(t)
	controller := startShard(t, n.namespace, quickAPI...)
	n.pushAndScan("app", "1.0.0", inShard(n.namespace))
	n.notReady("app", v1alpha1.ReasonVerificationError)
	n.sign("app", "1.0.0", n.signer)
	n.published("app", "1.0.0")

	n.Expect(controller.Stop()).To(Succeed())
	changes, err := env.Client.Watch(t.Context(), &sourcev1.ExternalArtifactList{}, client.InNamespace(n.namespace))
	n.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	n.push("app", "1.1.0", configMap("app", "1.1.0"))
	n.eventually(func(g Gomega) {
		g.Expect(get(n.tenant, "app", &imagev1.ImagePolicy{}).Status.LatestRef.Tag).To(Equal("1.1.0"))
	})
	n.rotate(n.newSigner())
	n.Expect(controller.Restart(t.Context())).To(Succeed())
	n.withdrawn("app")
	n.rotate(n.signer)
	n.sign("app", "1.1.0", n.signer)
	n.published("app", "1.1.0")
	for seen := ""; seen != "1.1.0"; {
		external := n.next(changes)
		if external.Status.Artifact == nil {
			seen = "nothing"
			continue
		}
		tag := external.Status.Artifact.Metadata[v1alpha1.MetadataTag]
		n.Expect(tag == "1.0.0" && seen == "nothing").To(BeFalse(), "what was withdrawn was published again")
		n.Expect(tag == "1.1.0" && seen != "nothing").To(BeFalse(), "1.1.0 was published before it was signed")
		seen = tag
	}
}

// next waits for the next change of an ExternalArtifact.
func (n *governed) next(changes watch.Interface) (external *sourcev1.ExternalArtifact) {
	n.Helper()
	var event watch.Event
	n.Eventually(changes.ResultChan(), patience).Should(Receive(&event), "a change, from a watch that goes on")
	n.Expect(event.Object).To(BeAssignableToTypeOf(external))
	return event.Object.(*sourcev1.ExternalArtifact)
}

// With the component watch-secrets, a key that a tenant rotates in a labelled
// Secret counts at once.
func TestTheComponentWatchSecrets(t *testing.T) {
	t.Parallel()
	n := &governed{tenant: newTenant(t, v1alpha1.UseAsSourceEnabled)}
	n.signer = n.newSigner()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	component := filepath.Join(root, "config", "components", "watch-secrets")
	for _, file := range []string{"role.yaml", "role_binding.yaml"} {
		_, err := env.Kubectl(t.Context(), "apply", "--server-side", "--validate=strict", "-f", filepath.Join(component, file))
		n.Expect(err).NotTo(HaveOccurred())
	}
	t.Cleanup(func() {
		if _, err := env.Kubectl(context.Background(), "delete", "-f", filepath.Join(component, "role.yaml"), "-f", filepath.Join(component, "role_binding.yaml")); err != nil {
			t.Error(err)
		}
	})
	startShard(t, n.namespace, append(quickAPI, "--watch-configs-label-selector="+meta.LabelKeyWatch+"="+meta.LabelValueWatchEnabled)...)
	secret := named(n.tenant, "keys", &corev1.Secret{})
	secret.Labels = map[string]string{meta.LabelKeyWatch: meta.LabelValueWatchEnabled}
	secret.Data = map[string][]byte{"cosign.pub": n.signer.PublicKey}
	n.create(secret)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.sign("app", "1.0.0", n.signer)
	obj := named(n.tenant, "app", &v1alpha1.ArtifactRepository{})
	obj.Labels = map[string]string{shardLabel: n.namespace}
	obj.Spec = v1alpha1.ArtifactRepositorySpec{
		Image: n.ref("app"), Insecure: true, Tag: "1.0.0", Interval: &metav1.Duration{Duration: time.Hour},
		Verify: &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}},
	}
	n.create(obj)
	n.published("app", "1.0.0")
	change(n.tenant, secret, func(secret *corev1.Secret) {
		secret.Data = map[string][]byte{"cosign.pub": n.newSigner().PublicKey}
	})
	n.withdrawn("app")
}

// A controller of one namespace knows the policies of the cluster all the same,
// and one that requires them publishes nothing without.
func TestAControllerOfOneNamespaceIsGovernedToo(t *testing.T) {
	t.Parallel()
	n := newGoverned(t)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.push("free", "1.0.0", configMap("free", "1.0.0"))
	// The namespace that is watched is the one that the controller runs in.
	secret := named(n.tenant, n.namespace, &corev1.Secret{})
	secret.Data = map[string][]byte{"release.pub": n.signer.PublicKey}
	n.create(secret)
	role := named(n.tenant, "controller", &rbacv1.Role{})
	role.Rules = []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}},
	}
	binding := named(n.tenant, "controller", &rbacv1.RoleBinding{})
	binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "controller"}
	binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: controlplane.FluxNamespace, Name: "image-source-controller"}}
	n.create(role, binding)
	controller, err := env.StartController(t.Context(), stage.ControllerOptions{
		Name: "shard-" + n.namespace,
		Args: []string{"--watch-label-selector=" + shardLabel + "=" + n.namespace, "--watch-all-namespaces=false", "--require-trust-policy"},
		Env:  []string{"RUNTIME_NAMESPACE=" + n.namespace},
	})
	n.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		if err := controller.Stop(); err != nil {
			t.Error(err)
		}
	})
	obj := named(n.tenant, "app", &v1alpha1.ArtifactRepository{})
	obj.Labels = map[string]string{shardLabel: n.namespace}
	obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: n.ref("app"), Insecure: true, Tag: "1.0.0", Interval: &metav1.Duration{Duration: time.Hour}}
	n.create(obj)
	n.notReady("app", v1alpha1.ReasonVerificationError)
	n.sign("app", "1.0.0", n.signer)
	n.reconciled("app")
	n.published("app", "1.0.0")
	n.Expect(env.Client.Delete(n.Context(), &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}})).To(Succeed())
	n.withdrawn("app")
	_, ready := n.notReady("app", v1alpha1.ReasonVerificationError)
	n.Expect(ready.Message).To(ContainSubstring("--require-trust-policy"))
}

// Tenants read no policy of the platform unless they are let, and write none.
func TestTenantsWriteNoTrustPolicies(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.eventually(func(g Gomega) {
		var view rbacv1.ClusterRole
		g.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: "view"}, &view)).To(Succeed())
		g.Expect(view.Rules).To(ContainElement(And(HaveField("Resources", ContainElement("trustpolicies")), HaveField("Verbs", ConsistOf("get", "list", "watch")))))
	})
	for _, name := range []string{"edit", "admin"} {
		var role rbacv1.ClusterRole
		n.Expect(env.Client.Get(t.Context(), client.ObjectKey{Name: name}, &role)).To(Succeed())
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				if resource == "trustpolicies" || resource == "trustpolicies/status" {
					n.Expect(rule.Verbs).To(ConsistOf("get", "list", "watch"), name)
				}
			}
		}
	}
}
