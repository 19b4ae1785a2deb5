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
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// orders is the source of the guide about sources in Git.
const orders = "orders-deploy"

// TestGitKeepsWhatTheGuidePatches runs the commands of the guide against a
// source that a Kustomization applies, and has it applied once more.
func TestGitKeepsWhatTheGuidePatches(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	first := n.push(orders, "1.0.0", configMap(orders, "1.0.0"))
	_, digest, _ := strings.Cut(first, "@")
	second := n.push(orders, "1.1.0", configMap(orders, "1.1.0"))
	n.inGit(fmt.Sprintf(`apiVersion: source.contrib.fluxcd.io/v1alpha1
kind: ArtifactRepository
metadata:
  name: %s
  namespace: %s
spec:
  interval: 1s
  image: %s
  insecure: true
  policy:
    semver:
      range: 1.x
`, orders, n.namespace, n.ref(orders)))
	n.published(orders, second)
	n.appliedAgain("fleet")

	guide := n.patches("docs/guides/sources-in-git.md")
	n.Expect(guide).To(HaveLen(4), "pin, follow, suspend, resume")
	const pinnedInTheGuide = "sha256:6c2d5a0e7f7c3b1e4d8a9f0b2c4d6e8f1a3b5c7d9e0f2a4b6c8d0e1f3a5b7c9d"
	pin := strings.ReplaceAll(guide[0], pinnedInTheGuide, digest)
	follow, suspend, resume := guide[1], guide[2], guide[3]

	// The page warns of this, and the other commands would be vain without it.
	n.shell(strings.ReplaceAll(pin, " --field-manager=flux-client-side-apply", ""))
	n.appliedAgain("fleet")
	n.Expect(get(n, orders, &v1alpha1.ArtifactRepository{}).Spec.Digest).To(BeEmpty(), "kubectl patch alone does not last")

	n.shell(pin)
	n.published(orders, digest)
	n.appliedAgain("fleet")
	n.Expect(n.reconciled(orders).Status.Artifact.Revision).To(HaveSuffix(digest))
	n.published(orders, digest)

	n.shell(follow)
	n.published(orders, second)
	n.appliedAgain("fleet")
	n.published(orders, second)

	n.shell(suspend)
	n.appliedAgain("fleet")
	n.push(orders, "1.2.0", configMap(orders, "1.2.0"))
	suspended := n.reconciled(orders)
	n.Expect(conditions.GetReason(suspended, meta.ReadyCondition)).To(Equal(v1alpha1.ReasonSuspended))
	n.Expect(suspended.Status.Artifact.Revision).To(Equal(second))

	n.shell(resume)
	n.published(orders, "1.2.0")
	n.appliedAgain("fleet")
	n.Expect(get(n, orders, &v1alpha1.ArtifactRepository{}).Spec.Suspend).To(BeFalse())
}

// inGit has a Kustomization apply a manifest; an OCIRepository of source-controller
// stands for the repository in Git.
func (n *tenant) inGit(manifest string) {
	n.Helper()
	n.push("fleet", "main", publish.Files{"fleet.yaml": manifest})
	n.apply(fmt.Sprintf(`apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata:
  name: fleet
spec:
  interval: 1h
  url: oci://%s
  insecure: true
  ref:
    tag: main
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: fleet
spec:
  interval: 1h
  retryInterval: 1s
  path: ./
  prune: true
  sourceRef:
    kind: OCIRepository
    name: fleet
`, n.ref("fleet")))
}

// appliedAgain asks a Kustomization to reconcile and waits until it has applied
// its objects.
func (n *tenant) appliedAgain(name string) {
	n.Helper()
	kustomization := named(n, name, &unstructured.Unstructured{})
	kustomization.SetGroupVersionKind(schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"})
	token := time.Now().Format(time.RFC3339Nano)
	n.annotate(kustomization, meta.ReconcileRequestAnnotation, token)
	n.consumed(object{"kustomize.toolkit.fluxcd.io/v1", "Kustomization", name}, func(g Gomega, found *unstructured.Unstructured) {
		handled, _, _ := unstructured.NestedString(found.Object, "status", "lastHandledReconcileAt")
		g.Expect(handled).To(Equal(token))
	})
}

// patches returns the commands of a page that patch an object, for the namespace
// of the tenant.
func (n *tenant) patches(page string) (commands []string) {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
	n.Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "kubectl -n apps patch ") {
			commands = append(commands, strings.Replace(line, "-n apps", "-n "+n.namespace, 1))
		}
	}
	return commands
}

// shell runs a command line of a page as a reader does.
func (n *tenant) shell(line string) {
	n.Helper()
	kubectl, err := controlplane.Executable(n.Context(), controlplane.Kubectl)
	n.Expect(err).NotTo(HaveOccurred())
	command := exec.CommandContext(n.Context(), "bash", "-c", line)
	command.Env = append(os.Environ(), "KUBECONFIG="+env.Kubeconfig(), "PATH="+filepath.Dir(kubectl)+string(os.PathListSeparator)+os.Getenv("PATH"))
	output, err := command.CombinedOutput()
	n.Expect(err).NotTo(HaveOccurred(), "%s\n%s", line, output)
}
