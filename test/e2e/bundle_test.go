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
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// bundler is the command line in a folder of its own.
type bundler struct {
	*tenant
	binary, dir string
}

// newBundler builds the command line as the Makefile does.
func newBundler(n *tenant) *bundler {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	b := &bundler{tenant: n, dir: n.TempDir()}
	b.binary = filepath.Join(b.dir, "flux-bundle")
	command := exec.CommandContext(n.Context(), "go", "build", "-trimpath", "-o", b.binary, "./cmd/flux-bundle")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := command.CombinedOutput()
	n.Expect(err).NotTo(HaveOccurred(), string(output))
	return b
}

// flux runs the command and returns what it prints on standard output.
func (b *bundler) flux(args ...string) string {
	b.Helper()
	command := exec.CommandContext(b.Context(), b.binary, args...)
	command.Dir = b.dir
	command.Env = append(os.Environ(), "COSIGN_PASSWORD=correct horse", "HOME="+b.dir, "DOCKER_CONFIG="+b.dir)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	b.Expect(err).NotTo(HaveOccurred(), "%s", said.String())
	return strings.TrimSpace(string(out))
}

// write writes the folder to deploy.
func (b *bundler) write(version string) {
	b.Helper()
	dir := filepath.Join(b.dir, "deploy")
	b.Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	for name, content := range map[string]string{
		"kustomization.yaml": "resources:\n- app.yaml\n",
		"app.yaml":           configMap("shop", version)["deploy/app.yaml"],
	} {
		b.Expect(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)).To(Succeed())
	}
}

// guide applies the YAML of the guide as it is, but for what a test must change:
// the namespace, the registry, and how often it is looked at.
func (b *bundler) guide() {
	b.Helper()
	root, err := controlplane.Root()
	b.Expect(err).NotTo(HaveOccurred())
	text, err := os.ReadFile(filepath.Join(root, "docs", "guides", "bundle.md"))
	b.Expect(err).NotTo(HaveOccurred())
	blocks := fence.FindAllStringSubmatch(string(text), -1)
	b.Expect(blocks).To(HaveLen(2))
	for _, block := range blocks {
		b.apply(strings.NewReplacer(
			"namespace: apps", "namespace: "+b.namespace,
			"targetNamespace: apps", "targetNamespace: "+b.namespace,
			"image: ghcr.io/example/", "insecure: true\n  image: "+env.Registry().Host()+"/"+b.namespace+"/",
			"interval: 10m", "interval: 1s",
		).Replace(block[1]))
	}
}

// TestTheWholeWayOfABundle follows the guide with the command line alone: a key
// pair, a signed bundle, a source that verifies, and a deployment.
func TestTheWholeWayOfABundle(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	b := newBundler(n)
	b.flux("generate-key-pair")
	n.kubectl("create", "secret", "generic", "release-keys", "--from-file="+filepath.Join(b.dir, "cosign.pub"))
	push := func(version string, args ...string) (digest, layer string) {
		b.write(version)
		var pushed struct {
			Digest string
			Layer  struct{ Digest string }
		}
		out := b.flux(append([]string{"-f", "deploy", "-t", n.ref("shop-deploy") + ":" + version, "-o", "json"}, args...)...)
		n.Expect(json.Unmarshal([]byte(out), &pushed)).To(Succeed())
		return pushed.Digest, pushed.Layer.Digest
	}
	digest, layer := push("1.0.0", "-s", "cosign.key")
	b.guide()
	artifact := n.published("shop", "1.0.0@"+digest)
	n.Expect(artifact.Digest).To(Equal(layer), "the controller serves another archive than was pushed")
	n.kustomized("shop", "1.0.0")
	n.deployed("shop", "1.0.0")
	record := get(n, "shop", &v1alpha1.ArtifactRepository{})
	n.Expect(conditions.IsTrue(record, v1alpha1.SourceVerifiedCondition)).To(BeTrue())

	push("1.1.0")
	n.notReady("shop", v1alpha1.ReasonVerificationError)
	n.deployed("shop", "1.0.0")
	next, _ := push("1.1.0", "-s", "cosign.key")
	n.published("shop", "1.1.0@"+next)
	n.deployed("shop", "1.1.0")
}

// TestSourceControllerReadsABundle lets Flux's own source verify and unpack it.
func TestSourceControllerReadsABundle(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	b := newBundler(n)
	b.flux("generate-key-pair")
	b.flux("generate-key-pair", "--output-key-prefix", "other")
	b.write("1.0.0")
	n.kubectl("create", "secret", "generic", "release-keys", "--from-file="+filepath.Join(b.dir, "cosign.pub"))
	source := func(name, tag string) {
		n.apply(fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: OCIRepository
metadata:
  name: %s
spec:
  interval: 1s
  insecure: true
  url: oci://%s
  ref:
    tag: %s
  verify:
    provider: cosign
    secretRef:
      name: release-keys
`, name, n.ref("shop-deploy"), tag))
	}
	ready := func(name, status string) *unstructured.Unstructured {
		n.Helper()
		repository := &unstructured.Unstructured{}
		repository.SetAPIVersion("source.toolkit.fluxcd.io/v1")
		repository.SetKind("OCIRepository")
		n.eventually(func(g Gomega) {
			g.Expect(env.Client.Get(n.Context(), n.key(name), repository)).To(Succeed())
			all, _, err := unstructured.NestedSlice(repository.Object, "status", "conditions")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(all).To(ContainElement(SatisfyAll(HaveKeyWithValue("type", "Ready"), HaveKeyWithValue("status", status))))
		})
		return repository
	}
	verified := func(repository *unstructured.Unstructured) any {
		all, _, err := unstructured.NestedSlice(repository.Object, "status", "conditions")
		n.Expect(err).NotTo(HaveOccurred())
		for _, condition := range all {
			if condition := condition.(map[string]any); condition["type"] == "SourceVerified" {
				return condition["status"]
			}
		}
		return nil
	}

	ref := b.flux("-f", "deploy", "-t", n.ref("shop-deploy")+":1.0.0", "-s", "cosign.key")
	source("signed", "1.0.0")
	repository := ready("signed", "True")
	n.Expect(verified(repository)).To(Equal("True"))
	revision, _, err := unstructured.NestedString(repository.Object, "status", "artifact", "revision")
	n.Expect(err).NotTo(HaveOccurred())
	_, digest, _ := strings.Cut(ref, "@")
	n.Expect(revision).To(Equal("1.0.0@" + digest))

	b.write("1.0.0 with a changed byte")
	b.flux("-f", "deploy", "-t", n.ref("shop-deploy")+":1.0.1", "-s", "other.key")
	source("changed", "1.0.1")
	n.Expect(verified(ready("changed", "False"))).To(Equal("False"))
}
