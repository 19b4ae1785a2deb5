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
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// person is a user of the cluster, with a client that acts with the user's
// rights and no others.
type person struct {
	client.Client
	name string
}

// user makes a person who has no rights yet. The name is the tenant's own.
func (n *tenant) user(name string) person {
	n.Helper()
	return n.account(name + "-of-" + n.namespace)
}

// account acts as a user or a ServiceAccount that there is.
func (n *tenant) account(name string) person {
	n.Helper()
	config := env.RESTConfig()
	config.Impersonate.UserName = name
	c, err := client.New(config, client.Options{Scheme: env.Client.Scheme(), Mapper: env.Client.RESTMapper()})
	n.Expect(err).NotTo(HaveOccurred())
	return person{Client: c, name: name}
}

// bind gives a person a ClusterRole inside the tenant's namespace.
func (n *tenant) bind(who person, clusterRole string) {
	n.Helper()
	binding := named(n, "", &rbacv1.RoleBinding{})
	binding.GenerateName = "e2e-"
	binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: clusterRole}
	binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: who.name}}
	n.create(binding)
}

// allow gives a person rights in the whole cluster, as long as the test runs.
func (n *tenant) allow(who person, rules ...rbacv1.PolicyRule) {
	n.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "e2e-" + who.name}, Rules: rules}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: role.Name}}
	binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name}
	binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: who.name}}
	n.clusterWide(role, binding)
}

// clusterWide creates objects of no namespace, and removes them after the test.
func (n *tenant) clusterWide(objects ...client.Object) {
	n.Helper()
	for _, obj := range objects {
		n.create(obj)
		n.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := client.IgnoreNotFound(env.Client.Delete(ctx, obj)); err != nil {
				n.Error(err)
			}
		})
	}
}

// may tells whether the API server lets somebody do something.
func (n *tenant) may(g Gomega, who string, what authorizationv1.ResourceAttributes) bool {
	n.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: who, ResourceAttributes: &what}}
	if name, isAccount := strings.CutPrefix(who, "system:serviceaccount:"); isAccount {
		namespace, _, _ := strings.Cut(name, ":")
		review.Spec.Groups = []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"}
	}
	g.Expect(env.Client.Create(n.Context(), review)).To(Succeed())
	return review.Status.Allowed
}

// forbidden expects that an admission policy refused, and said what would help.
func forbidden(g Gomega, err error, policy, says string) {
	g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
	g.Expect(err.Error()).To(And(ContainSubstring(policy), ContainSubstring(says)))
}

const (
	publishPolicy = "publish." + v1alpha1.Group
	labelsPolicy  = "namespace-labels." + v1alpha1.Group
)

// inForce waits until the API server applies the policies: it takes new ones up
// a moment after they were installed.
func (n *tenant) inForce() {
	n.Helper()
	probe := n.user("probe")
	n.allow(probe,
		rbacv1.PolicyRule{APIGroups: []string{sourcev1.GroupVersion.Group}, Resources: []string{"externalartifacts"}, Verbs: []string{"create"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"create"}})
	labelled := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: n.namespace + "-probe", Labels: map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled},
	}}
	n.eventually(func(g Gomega) {
		forbidden(g, probe.Create(n.Context(), named(n, "probe", &sourcev1.ExternalArtifact{}), client.DryRunAll), publishPolicy, probe.name)
		forbidden(g, probe.Create(n.Context(), labelled.DeepCopy(), client.DryRunAll), labelsPolicy, probe.name)
	})
}

// fluxRoles are what an installation of Flux aggregates into view, edit and
// admin: every subresource, the status of ExternalArtifacts and of ImagePolicies too.
const fluxRoles = `apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: flux-edit
  labels:
    rbac.authorization.k8s.io/aggregate-to-edit: "true"
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
rules:
  - apiGroups: [source.toolkit.fluxcd.io, helm.toolkit.fluxcd.io, image.toolkit.fluxcd.io, kustomize.toolkit.fluxcd.io]
    resources: ["*"]
    verbs: [create, delete, deletecollection, patch, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: flux-view
  labels:
    rbac.authorization.k8s.io/aggregate-to-view: "true"
    rbac.authorization.k8s.io/aggregate-to-edit: "true"
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
rules:
  - apiGroups: [source.toolkit.fluxcd.io, helm.toolkit.fluxcd.io, image.toolkit.fluxcd.io, kustomize.toolkit.fluxcd.io]
    resources: ["*"]
    verbs: [get, list, watch]
`

// editor makes a person with the ClusterRole edit in the tenant's namespace, as
// that role is on a cluster with Flux.
func (n *tenant) editor() person {
	n.Helper()
	n.inForce()
	n.apply(fluxRoles)
	tenant := n.user("tenant")
	n.bind(tenant, "edit")
	n.eventually(func(g Gomega) {
		for _, what := range []authorizationv1.ResourceAttributes{
			{Group: sourcev1.GroupVersion.Group, Resource: "externalartifacts", Subresource: "status", Verb: "update"},
			{Group: imagev1.GroupVersion.Group, Resource: "imagepolicies", Subresource: "status", Verb: "get"},
			{Group: v1alpha1.Group, Resource: "artifactrepositories", Verb: "create"},
		} {
			what.Namespace = n.namespace
			g.Expect(n.may(g, tenant.name, what)).To(BeTrue(), "%v is not aggregated yet", what)
		}
	})
	return tenant
}

// external reads an ExternalArtifact as somebody who is about to write it, and
// changes it.
func external(who person, n *tenant, do func(*sourcev1.ExternalArtifact)) *sourcev1.ExternalArtifact {
	n.Helper()
	obj := named(n, "app", &sourcev1.ExternalArtifact{})
	n.Expect(who.Get(n.Context(), n.key("app"), obj)).To(Succeed())
	do(obj)
	return obj
}

// What an ExternalArtifact says is deployed at once: no repair would be in time.
func TestTenantsWriteNoExternalArtifacts(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	tenant := n.editor()
	artifact := n.published("app", n.pushAndScan("app", "1.0.0", seldom))
	before := get(n, "app", &sourcev1.ExternalArtifact{})

	for name, attempt := range map[string]func() error{
		"the artifact in the status is another": func() error {
			return tenant.Status().Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) {
				obj.Status.Artifact.URL = "http://attacker.invalid/x.tar.gz"
			}))
		},
		"the status is patched": func() error {
			return tenant.Status().Patch(n.Context(), named(n, "app", &sourcev1.ExternalArtifact{}),
				client.RawPatch("application/merge-patch+json", []byte(`{"status":{"artifact":null}}`)))
		},
		"a label is set": func() error {
			return tenant.Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) {
				obj.Labels = map[string]string{shardLabel: "none"}
			}))
		},
		"a label is set beside an annotation": func() error {
			return tenant.Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) {
				obj.Labels = map[string]string{shardLabel: "none"}
				obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
			}))
		},
		"the source is another": func() error {
			return tenant.Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) { obj.Spec.SourceRef.Name = "other" }))
		},
		"the owner is taken away": func() error {
			return tenant.Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) { obj.OwnerReferences = nil }))
		},
		"a finalizer keeps it from going": func() error {
			return tenant.Update(n.Context(), external(tenant, n, func(obj *sourcev1.ExternalArtifact) {
				obj.Finalizers = []string{"example.com/stay"}
			}))
		},
		"another one is created": func() error {
			return tenant.Create(n.Context(), named(n, "other", &sourcev1.ExternalArtifact{}))
		},
	} {
		n.eventually(func(g Gomega) {
			err := attempt()
			g.Expect(apierrors.IsConflict(err)).To(BeFalse())
			forbidden(g, err, publishPolicy, "publish on externalartifacts."+v1alpha1.Group)
			g.Expect(err.Error()).To(ContainSubstring(tenant.name), name)
		})
	}
	after := get(n, "app", &sourcev1.ExternalArtifact{})
	n.Expect(after.ResourceVersion).To(Equal(before.ResourceVersion))
	n.Expect(after.Status.Artifact).To(Equal(artifact))
}

// Receivers and flux reconcile write an annotation with the rights of others.
func TestTenantsMayAskForAReconciliation(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	tenant := n.editor()
	n.published("app", n.pushAndScan("app", "1.0.0", seldom))

	moved := n.push("app", "1.0.0", configMap("app", "moved"))
	obj := external(tenant, n, func(*sourcev1.ExternalArtifact) {})
	before := obj.DeepCopy()
	obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "patched", "example.com/note": "mine"}
	n.Expect(tenant.Patch(n.Context(), obj, client.MergeFrom(before))).To(Succeed())
	n.published("app", moved)
	n.eventually(func(g Gomega) {
		g.Expect(get(n, "app", &v1alpha1.ArtifactRepository{}).Status.ObservedRequests.ExternalArtifact).To(Equal("patched"))
	})

	n.eventually(func(g Gomega) {
		obj := external(tenant, n, func(obj *sourcev1.ExternalArtifact) { delete(obj.Annotations, "example.com/note") })
		g.Expect(tenant.Update(n.Context(), obj)).To(Succeed())
	})

	// A tenant who deletes it gets it back as it was.
	n.Expect(tenant.Delete(n.Context(), named(n, "app", &sourcev1.ExternalArtifact{}))).To(Succeed())
	n.published("app", moved)
}

// Other producers of ExternalArtifacts are given the verb, in a namespace or in
// the whole cluster.
func TestWhoHoldsTheVerbPublishes(t *testing.T) {
	t.Parallel()
	n, other := newTenant(t, ""), newTenant(t, "")
	n.inForce()
	n.apply(fluxRoles)
	producer := n.user("producer")
	for _, tenant := range []*tenant{n, other} {
		tenant.bind(producer, "edit")
	}
	n.bind(producer, "externalartifact-publisher")

	theirs := named(n, "app", &sourcev1.ExternalArtifact{})
	n.eventually(func(g Gomega) { g.Expect(producer.Create(n.Context(), theirs)).To(Succeed()) })
	theirs.Status.Artifact = &meta.Artifact{
		Path: "x", URL: "http://producer.invalid/x.tar.gz", Revision: "1", Digest: "sha256:" + strings.Repeat("0", 64), LastUpdateTime: metav1.Now(),
	}
	n.Expect(producer.Status().Update(n.Context(), theirs)).To(Succeed())
	theirs.Labels = map[string]string{"team": "blue"}
	n.Expect(producer.Update(n.Context(), theirs)).To(Succeed())
	n.eventually(func(g Gomega) {
		forbidden(g, producer.Create(n.Context(), named(other, "app", &sourcev1.ExternalArtifact{})), publishPolicy, other.namespace)
	})

	// The verb alone is no right to write.
	reader := n.user("reader")
	n.bind(reader, "externalartifact-publisher")
	err := reader.Create(n.Context(), named(n, "mine", &sourcev1.ExternalArtifact{}))
	n.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "%v", err)
}

// The record is what is published from. A role that is wider than ours, for
// everything of our group, still is no way to it.
func TestTheRecordIsWrittenByPublishersOnly(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.inForce()
	wide := n.user("wide")
	n.allow(wide, rbacv1.PolicyRule{
		APIGroups: []string{v1alpha1.Group}, Resources: []string{"*"},
		Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"},
	})
	artifact := n.published("app", n.pushAndScan("app", "1.0.0", seldom))
	n.eventually(func(g Gomega) {
		obj := get(n, "app", &v1alpha1.ArtifactRepository{})
		obj.Status.Artifact.URL = "http://attacker.invalid/x.tar.gz"
		forbidden(g, wide.Status().Update(n.Context(), obj), publishPolicy, wide.name)
	})
	n.eventually(func(g Gomega) {
		obj := get(n, "app", &v1alpha1.ArtifactRepository{})
		obj.Spec.Ignore = new("*.md")
		g.Expect(wide.Update(n.Context(), obj)).To(Succeed(), "the spec is the tenant's")
	})
	n.eventually(func(g Gomega) {
		obj := get(n, "app", &v1alpha1.ArtifactRepository{})
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(obj.Status.Artifact.URL).To(HavePrefix("http://" + env.controller.Address))
	})
	n.Expect(artifact.URL).To(HavePrefix("http://" + env.controller.Address))
}

// Whoever holds every verb inside a namespace holds publish there. The
// component asks for it in the whole cluster. Here it is one more policy, for
// one namespace.
func TestTheComponentClusterPublishers(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	dir := filepath.Join(root, "config")
	overlay := t.TempDir()
	relative := func(part string) string {
		path, err := filepath.Rel(overlay, filepath.Join(dir, part))
		n.Expect(err).NotTo(HaveOccurred())
		return path
	}
	kustomization := fmt.Sprintf("resources: [%s]\ncomponents: [%s]\n", relative("admission"), relative("components/cluster-publishers"))
	n.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(kustomization), 0o600)).To(Succeed())
	policy := n.policyOf(overlay, publishPolicy)
	policy.Name = "e2e-" + n.namespace
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: policy.Name}}
	binding.Spec.PolicyName = policy.Name
	binding.Spec.ValidationActions = []admissionv1.ValidationAction{admissionv1.Deny}
	binding.Spec.MatchResources = &admissionv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
		MatchLabels: map[string]string{corev1.LabelMetadataName: n.namespace},
	}}

	everything, publisher := n.user("everything"), n.user("publisher")
	n.bind(everything, "cluster-admin")
	n.allow(publisher,
		rbacv1.PolicyRule{APIGroups: []string{v1alpha1.Group}, Resources: []string{"externalartifacts"}, Verbs: []string{"publish"}},
		rbacv1.PolicyRule{APIGroups: []string{sourcev1.GroupVersion.Group}, Resources: []string{"externalartifacts"}, Verbs: []string{"create"}})
	n.eventually(func(g Gomega) {
		g.Expect(everything.Create(n.Context(), named(n, "before", &sourcev1.ExternalArtifact{}))).To(Succeed())
	})
	n.clusterWide(policy, binding)
	attempts := 0
	n.eventually(func(g Gomega) {
		attempts++
		obj := named(n, fmt.Sprintf("after-%d", attempts), &sourcev1.ExternalArtifact{})
		forbidden(g, everything.Create(n.Context(), obj), policy.Name, everything.name)
	})
	n.eventually(func(g Gomega) {
		g.Expect(publisher.Create(n.Context(), named(n, "published", &sourcev1.ExternalArtifact{}))).To(Succeed())
	})
}

// policyOf returns a policy of what kustomize builds.
func (n *tenant) policyOf(dir, name string) *admissionv1.ValidatingAdmissionPolicy {
	n.Helper()
	output, err := env.Kubectl(n.Context(), "kustomize", "--load-restrictor=LoadRestrictionsNone", dir)
	n.Expect(err).NotTo(HaveOccurred())
	for document := range strings.SplitSeq(output, "\n---\n") {
		policy := &admissionv1.ValidatingAdmissionPolicy{}
		n.Expect(yaml.Unmarshal([]byte(document), policy)).To(Succeed())
		if policy.Kind == "ValidatingAdmissionPolicy" && policy.Name == name {
			return policy
		}
	}
	n.Fatalf("%s has no policy %s", dir, name)
	return nil
}

// What belongs to an object that was deleted goes, however it was deleted: the
// policies let Kubernetes itself do its work. That namespaces go is another test,
// see TestANamespaceGoesWithoutATrace.
func TestGarbageIsCollectedUnderThePolicies(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	for _, name := range []string{"background", "foreground", "itself", "orphan"} {
		obj := named(n, name, &v1alpha1.ArtifactRepository{})
		obj.Spec.Image, obj.Spec.Tag, obj.Spec.Insecure = n.ref("app"), "1.0.0", true
		n.create(obj)
		n.published(name, "1.0.0")
	}
	remove := func(obj client.Object, propagation metav1.DeletionPropagation) {
		n.Helper()
		n.Expect(env.Client.Delete(n.Context(), obj, client.PropagationPolicy(propagation))).To(Succeed())
	}
	remove(named(n, "background", &v1alpha1.ArtifactRepository{}), metav1.DeletePropagationBackground)
	remove(named(n, "foreground", &v1alpha1.ArtifactRepository{}), metav1.DeletePropagationForeground)
	n.removed("background")
	n.removed("foreground")

	// The garbage collector takes its own finalizer from the ExternalArtifact ...
	before := get(n, "itself", &sourcev1.ExternalArtifact{})
	remove(before, metav1.DeletePropagationForeground)
	n.eventually(func(g Gomega) {
		obj := &sourcev1.ExternalArtifact{}
		g.Expect(env.Client.Get(n.Context(), n.key("itself"), obj)).To(Succeed())
		g.Expect(obj.UID).NotTo(Equal(before.UID))
	})
	// ... and an owner reference from one that is to be left.
	remove(named(n, "orphan", &v1alpha1.ArtifactRepository{}), metav1.DeletePropagationOrphan)
	n.gone("orphan", &v1alpha1.ArtifactRepository{})
	n.eventually(func(g Gomega) {
		g.Expect(get(n, "orphan", &sourcev1.ExternalArtifact{}).OwnerReferences).To(BeEmpty())
	})
}

// The consent is the platform's. Whoever may edit a Namespace, even everything
// in it, changes the labels of others but not ours.
func TestTheOptInLabelBelongsToThePlatform(t *testing.T) {
	t.Parallel()
	n, off := newTenant(t, v1alpha1.UseAsSourceEnabled), newTenant(t, "")
	n.inForce()
	namespaces := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "create", "update", "patch", "delete"}}
	inside, team, platform := n.user("inside"), n.user("team"), n.user("platform")
	n.bind(inside, "cluster-admin")
	off.bind(inside, "cluster-admin")
	n.allow(team, namespaces)
	n.allow(platform, namespaces, rbacv1.PolicyRule{APIGroups: []string{v1alpha1.Group}, Resources: []string{"trustpolicies"}, Verbs: []string{"update"}})

	write := func(who person, namespace string, do func(map[string]string), subresource ...string) error {
		obj := &corev1.Namespace{}
		if err := who.Get(n.Context(), client.ObjectKey{Name: namespace}, obj); err != nil {
			return err
		}
		do(obj.Labels)
		if len(subresource) > 0 {
			return who.SubResource(subresource[0]).Update(n.Context(), obj)
		}
		return who.Update(n.Context(), obj)
	}
	set := func(value string) func(map[string]string) {
		return func(labels map[string]string) { labels[v1alpha1.UseAsSource] = value }
	}
	unset := func(labels map[string]string) { delete(labels, v1alpha1.UseAsSource) }

	for _, who := range []person{inside, team} {
		n.eventually(func(g Gomega) {
			g.Expect(write(who, n.namespace, func(labels map[string]string) { labels["team"] = "blue" })).To(Succeed(), "other labels are free")
		})
		for name, attempt := range map[string]func() error{
			"it is set":     func() error { return write(who, off.namespace, set(v1alpha1.UseAsSourceEnabled)) },
			"it is changed": func() error { return write(who, n.namespace, set(v1alpha1.UseAsSourceAll)) },
			"it is removed": func() error { return write(who, n.namespace, unset) },
			"a label that a TrustPolicy may select by is set": func() error {
				return write(who, n.namespace, func(labels map[string]string) { labels[v1alpha1.Group+"/trust"] = "none" })
			},
		} {
			t.Log(who.name, name)
			n.eventually(func(g Gomega) { forbidden(g, attempt(), labelsPolicy, "update trustpolicies."+v1alpha1.Group) })
		}
	}
	// The API server takes labels from requests to these as well.
	for _, subresource := range []string{"status", "finalize"} {
		n.eventually(func(g Gomega) {
			forbidden(g, write(inside, off.namespace, set(v1alpha1.UseAsSourceEnabled), subresource), labelsPolicy, inside.name)
		})
		n.Expect(write(inside, off.namespace, func(labels map[string]string) { labels["team"] = subresource }, subresource)).To(Succeed())
	}

	fresh := func(suffix string, labels map[string]string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.namespace + suffix, Labels: labels}}
	}
	optedIn := map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}
	n.eventually(func(g Gomega) {
		forbidden(g, team.Create(n.Context(), fresh("-team", optedIn)), labelsPolicy, team.name)
	})
	n.Expect(team.Create(n.Context(), fresh("-team", nil))).To(Succeed())
	n.Expect(platform.Create(n.Context(), fresh("-platform", optedIn))).To(Succeed())
	for _, namespace := range []*corev1.Namespace{fresh("-team", nil), fresh("-platform", nil)} {
		n.Expect(team.Delete(n.Context(), namespace)).To(Succeed(), "a namespace may be deleted with its label")
	}

	for _, do := range []func(map[string]string){set(v1alpha1.UseAsSourceAll), unset, set(v1alpha1.UseAsSourceEnabled)} {
		n.eventually(func(g Gomega) { g.Expect(write(platform, n.namespace, do)).To(Succeed()) })
	}
}

// The API server compiles expressions without knowing what they are about; its
// controller knows, and warns of fields that are none. It looks at validations
// of a named version only, so every expression becomes one, in a copy.
func TestTheTypesInAdmissionPolicies(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	for _, name := range []string{publishPolicy, labelsPolicy} {
		installed := &admissionv1.ValidatingAdmissionPolicy{}
		n.eventually(func(g Gomega) {
			g.Expect(env.Client.Get(n.Context(), client.ObjectKey{Name: name}, installed)).To(Succeed())
			g.Expect(installed.Status.TypeChecking).NotTo(BeNil(), "the types were not checked")
			g.Expect(installed.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), name)
		})
		copied := typed(installed, "e2e-types-"+name)
		wrong := typed(installed, "e2e-wrong-"+name)
		wrong.Spec.Validations = append(wrong.Spec.Validations, admissionv1.Validation{Expression: "object.metadata.nonsense == ''"})
		n.clusterWide(copied, wrong)
		warnings := func(policy *admissionv1.ValidatingAdmissionPolicy) (found []string) {
			n.eventually(func(g Gomega) {
				g.Expect(env.Client.Get(n.Context(), client.ObjectKeyFromObject(policy), policy)).To(Succeed())
				g.Expect(policy.Status.TypeChecking).NotTo(BeNil(), "the types were not checked")
			})
			for _, warning := range policy.Status.TypeChecking.ExpressionWarnings {
				found = append(found, warning.FieldRef+": "+warning.Warning)
			}
			return found
		}
		n.Expect(warnings(copied)).To(BeEmpty(), name)
		n.Expect(warnings(wrong)).To(ConsistOf(ContainSubstring("undefined field 'nonsense'")), "the types were not looked at")
	}
}

// typed copies a policy so that the types in all of its expressions are checked.
func typed(installed *admissionv1.ValidatingAdmissionPolicy, name string) *admissionv1.ValidatingAdmissionPolicy {
	copied := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	installed.Spec.DeepCopyInto(&copied.Spec)
	spec := &copied.Spec
	for i := range spec.MatchConstraints.ResourceRules {
		spec.MatchConstraints.ResourceRules[i].APIVersions = []string{sourcev1.GroupVersion.Version, v1alpha1.GroupVersion.Version}
	}
	check := func(expression string) {
		spec.Validations = append(spec.Validations, admissionv1.Validation{Expression: "[" + expression + "].size() == 1"})
	}
	for _, variable := range spec.Variables {
		check(variable.Expression)
	}
	for _, condition := range spec.MatchConditions {
		check(condition.Expression)
	}
	return copied
}

// The API server admits the Pod where the strictest standard is enforced.
func TestThePodMeetsTheRestrictedStandard(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	n.kubectl("label", "namespace", n.namespace, "pod-security.kubernetes.io/enforce=restricted")
	deployment := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: controlplane.FluxNamespace, Name: "image-source-controller"}
	n.Expect(env.Client.Get(n.Context(), key, deployment)).To(Succeed())
	pod := named(n, "manager", &corev1.Pod{})
	pod.Labels, pod.Spec = deployment.Spec.Template.Labels, deployment.Spec.Template.Spec

	loose := pod.DeepCopy()
	loose.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil
	n.eventually(func(g Gomega) {
		err := env.Client.Create(n.Context(), loose.DeepCopy(), client.DryRunAll)
		g.Expect(err).To(MatchError(ContainSubstring("PodSecurity")), "the standard is not enforced")
	})
	n.Expect(env.Client.Create(n.Context(), pod, client.DryRunAll)).To(Succeed())
	n.Expect(pod.Spec.AutomountServiceAccountToken).To(HaveValue(BeTrue()), "without a token it cannot reach the API server")

	for _, container := range pod.Spec.Containers {
		n.Expect(*container.SecurityContext.ReadOnlyRootFilesystem).To(BeTrue())
		n.Expect(container.Resources.Limits).To(And(HaveKey(corev1.ResourceCPU), HaveKey(corev1.ResourceMemory)))
		n.Expect(container.Resources.Requests).To(And(HaveKey(corev1.ResourceCPU), HaveKey(corev1.ResourceMemory)))
		var writable []string
		for _, mount := range container.VolumeMounts {
			writable = append(writable, mount.MountPath)
		}
		n.Expect(writable).To(ContainElements("/data", "/tmp"), "downloads and trust roots go to /tmp")
	}
}
