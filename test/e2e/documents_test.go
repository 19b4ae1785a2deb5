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
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// block is a fenced block of a page of the documentation.
type block struct{ page, content string }

// fence is around what a reader may copy and apply.
var fence = regexp.MustCompile("(?ms)^```(?:yaml|yml)\n(.*?)^```")

// blocks returns what every page has between fences of a kind.
func (n *tenant) blocks(root string, fence *regexp.Regexp) (all []block) {
	n.Helper()
	pages, err := filepath.Glob(filepath.Join(root, "*.md"))
	n.Expect(err).NotTo(HaveOccurred())
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ os.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	})
	n.Expect(err).NotTo(HaveOccurred())
	for _, page := range pages {
		text, err := os.ReadFile(page)
		n.Expect(err).NotTo(HaveOccurred())
		for _, match := range fence.FindAllStringSubmatch(string(text), -1) {
			name, err := filepath.Rel(root, page)
			n.Expect(err).NotTo(HaveOccurred())
			all = append(all, block{page: name, content: match[1]})
		}
	}
	return all
}

// What a reader copies from the documentation, the API server takes, and not a
// field of it is unknown. The namespaces are those of the pages.
func TestTheDocumentationApplies(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		for _, name := range []string{"apps", "platform"} {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if err := client.IgnoreNotFound(env.Client.Delete(context.Background(), namespace)); err != nil {
				t.Error(err)
			}
		}
	})
	apply := func(args ...string) {
		n.Helper()
		_, err := env.Kubectl(n.Context(), append([]string{"apply", "--server-side", "--force-conflicts", "--validate=strict"}, args...)...)
		n.Expect(err).NotTo(HaveOccurred())
	}
	apply("-k", filepath.Join(root, "config", "samples"))

	blocks := n.blocks(root, fence)
	n.Expect(blocks).NotTo(BeEmpty())
	for i, block := range blocks {
		if strings.Contains(block.content, notificationGroup) {
			continue // its kinds are there only where TestNotifications runs, which applies them
		}
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		n.Expect(os.WriteFile(file, []byte(block.content), 0o600)).To(Succeed())
		t.Log(block.page)
		apply("-f", file)
	}
}

// The page for administrators checks the policies by what an account could try. Each
// command has to be refused by its policy: a refusal by the roles proves nothing.
func TestTheChecksForAdministratorsReachThePolicies(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.published(orders, n.pushAndScan(orders, "1.0.0"))
	// What Flux aggregates into the role edit.
	n.allow(person{name: "system:serviceaccount:" + n.namespace + ":tenant"},
		rbacv1.PolicyRule{APIGroups: []string{sourcev1.GroupVersion.Group}, Resources: []string{"externalartifacts"}, Verbs: []string{"get", "patch"}})
	n.allow(person{name: "system:serviceaccount:" + n.namespace + ":provisioner"},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "patch"}})
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	page, err := os.ReadFile(filepath.Join(root, "docs", "guides", "platform-admins.md"))
	n.Expect(err).NotTo(HaveOccurred())
	var commands [][]string
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "kubectl ") && strings.Contains(line, "--as=") {
			line = strings.NewReplacer(" apps ", " "+n.namespace+" ", ":apps:", ":"+n.namespace+":", ":flux-system:", ":"+n.namespace+":").Replace(line)
			commands = append(commands, strings.Fields(line)[1:])
		}
	}
	n.Expect(commands).To(HaveLen(3))
	n.eventually(func(g Gomega) {
		says, _ := env.Kubectl(n.Context(), commands[0]...)
		g.Expect(strings.TrimSpace(says)).To(Equal("yes"))
	})
	for i, policy := range []string{"publish.source.contrib.fluxcd.io", "namespace-labels.source.contrib.fluxcd.io"} {
		n.eventually(func(g Gomega) {
			says, err := env.Kubectl(n.Context(), commands[i+1]...)
			g.Expect(err).To(HaveOccurred())
			g.Expect(says).To(And(ContainSubstring("ValidatingAdmissionPolicy '"+policy+"'"), ContainSubstring("denied request")))
		})
	}
}

// Every sample is part of what kubectl apply -k config/samples applies.
func TestEverySampleIsListed(t *testing.T) {
	t.Parallel()
	n := NewWithT(t)
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	dir := filepath.Join(root, "config", "samples")
	text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	n.Expect(err).NotTo(HaveOccurred())
	var kustomization struct{ Resources []string }
	n.Expect(yaml.Unmarshal(text, &kustomization)).To(Succeed())
	samples, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	n.Expect(err).NotTo(HaveOccurred())
	var want []string
	for _, sample := range samples {
		if name := filepath.Base(sample); name != "kustomization.yaml" {
			want = append(want, name)
		}
	}
	n.Expect(kustomization.Resources).To(ConsistOf(want))
}

// What was installed at the start is what config/default says, and applying it
// again changes nothing.
func TestTheInstallation(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	key := client.ObjectKey{Namespace: controlplane.FluxNamespace, Name: "image-source-controller"}
	deployment := &appsv1.Deployment{}
	n.Expect(env.Client.Get(n.Context(), key, deployment)).To(Succeed())
	n.Expect(env.Client.Get(n.Context(), key, &corev1.Service{})).To(Succeed())

	_, err = env.Kubectl(n.Context(), "apply", "--server-side", "--validate=strict", "-k", filepath.Join(root, "config", "default"))
	n.Expect(err).NotTo(HaveOccurred())
	again := &appsv1.Deployment{}
	n.Expect(env.Client.Get(n.Context(), key, again)).To(Succeed())
	n.Expect(again.Generation).To(Equal(deployment.Generation))

	// The Pod meets the strictest of the Pod Security Standards.
	n.Expect(env.Client.Get(n.Context(), client.ObjectKey{Name: n.namespace}, &corev1.Namespace{})).To(Succeed())
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}}
	change(n, namespace, func(namespace *corev1.Namespace) {
		namespace.Labels["pod-security.kubernetes.io/warn"] = "restricted"
	})
	n.Expect(n.kubectl("apply", "-k", filepath.Join(root, "config", "manager"))).NotTo(ContainSubstring("Warning"))
}

// The volume that survives the Pod is for one replica, which ends before the
// next one begins.
func TestTheComponentPVC(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	// Resources are named relative to the folder of a kustomization.
	overlay := t.TempDir()
	relative := func(elements ...string) string {
		path, err := filepath.Rel(overlay, filepath.Join(append([]string{root, "config"}, elements...)...))
		n.Expect(err).NotTo(HaveOccurred())
		return path
	}
	text := fmt.Sprintf("resources: [%s]\ncomponents: [%s]\nnamespace: %s\n", relative("manager"), relative("components", "pvc"), n.namespace)
	n.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(text), 0o600)).To(Succeed())
	_, err = env.Kubectl(n.Context(), "apply", "--server-side", "--validate=strict", "-k", overlay)
	n.Expect(err).NotTo(HaveOccurred())

	deployment := get(n, "image-source-controller", &appsv1.Deployment{})
	n.Expect(*deployment.Spec.Replicas).To(BeEquivalentTo(1))
	n.Expect(deployment.Spec.Strategy).To(Equal(appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}))
	// Nobody else serves while it is replaced, so nothing but a roll-out ends it.
	args := deployment.Spec.Template.Spec.Containers[0].Args
	n.Expect(n.program().value(args, "enable-leader-election")).To(Equal("false"))
	claim := get(n, "image-source-controller", &corev1.PersistentVolumeClaim{})
	n.Expect(deployment.Spec.Template.Spec.Volumes).To(ContainElement(corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
	}}))
}

// Tenants with the usual roles may write ArtifactRepositories, but not the
// record in their status.
func TestRightsOfTenants(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	for _, role := range []string{"view", "edit", "admin"} {
		binding := named(n, role, &rbacv1.RoleBinding{})
		binding.RoleRef = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
		binding.Subjects = []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: role + "-of-" + n.namespace}}
		n.create(binding)
	}
	may := func(role, verb, resource string, args ...string) bool {
		args = append([]string{"auth", "can-i", verb, resource, "-n", n.namespace, "--as", role + "-of-" + n.namespace}, args...)
		answer, _ := env.Kubectl(n.Context(), args...) // no is an error
		return strings.HasPrefix(answer, "yes")
	}
	const kind = "artifactrepositories.source.contrib.fluxcd.io"
	n.eventually(func(g Gomega) {
		g.Expect(may("view", "get", kind)).To(BeTrue())
		g.Expect(may("edit", "create", kind)).To(BeTrue())
		g.Expect(may("admin", "delete", kind)).To(BeTrue())
	})
	n.Expect(may("view", "create", kind)).To(BeFalse())
	for _, role := range []string{"view", "edit", "admin"} {
		for _, verb := range []string{"update", "patch"} {
			n.Expect(may(role, verb, kind, "--subresource=status")).To(BeFalse(), "%s may %s the record", role, verb)
		}
	}
}

// The metrics and the flags that the documentation lists exist.
func TestTheDocumentationNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.fetch(n.published("app", n.pushAndScan("app", "1.0.0"))) // counters begin with the first count
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	n.Expect(err).NotTo(HaveOccurred())

	metrics := n.read("http://" + env.controller.Metrics + "/metrics")
	for _, match := range regexp.MustCompile("(?m)^\\| `((?:image_source|gotk)_[a-z_]+)`").FindAllStringSubmatch(string(page), -1) {
		n.Expect(strings.Contains(metrics, "# TYPE "+match[1]+" ")).To(BeTrue(), "there is no metric %s", match[1])
	}
	help, _ := exec.CommandContext(n.Context(), env.Binary, "--help").CombinedOutput() // exits with 2
	for _, match := range regexp.MustCompile("(?m)^\\| `--").FindAllStringIndex(string(page), -1) {
		row, _, _ := strings.Cut(string(page)[match[0]:], "\n")
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, flag := range regexp.MustCompile("--[a-z-]+").FindAllString(cell, -1) {
			n.Expect(string(help)).To(ContainSubstring(flag), "there is no flag %s", flag)
		}
	}
}
