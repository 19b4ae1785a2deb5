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
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// What the tests of formats share: objects that say their version, artifacts of
// them in every format, and what is expected of the cluster.

// Kinds that no control plane has by itself, see foreignKinds.
const (
	tektonAPI  = "tekton.dev/v1"
	kyvernoAPI = "kyverno.io/v1"
)

// foreignKinds makes the kinds of Tekton and Kyverno that the tests deploy
// known to the API server, with no schema and nobody who acts on them.
var foreignKinds = sync.OnceValue(func() error {
	for _, kind := range []struct{ group, plural, kind, scope string }{
		{"tekton.dev", "tasks", "Task", "Namespaced"},
		{"tekton.dev", "pipelines", "Pipeline", "Namespaced"},
		{"kyverno.io", "policies", "Policy", "Namespaced"},
		{"kyverno.io", "clusterpolicies", "ClusterPolicy", "Cluster"},
	} {
		crd := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": map[string]any{"name": kind.plural + "." + kind.group},
			"spec": map[string]any{
				"group": kind.group, "scope": kind.scope,
				"names": map[string]any{"plural": kind.plural, "singular": strings.ToLower(kind.kind), "kind": kind.kind},
				"versions": []any{map[string]any{
					"name": "v1", "served": true, "storage": true,
					"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
				}},
			},
		}}
		if err := env.Client.Create(context.Background(), crd); err != nil {
			return err
		}
	}
	return nil
})

// object is something in the cluster that says its version.
type object struct{ apiVersion, kind, name string }

func config(name string) object   { return object{"v1", "ConfigMap", name} }
func task(name string) object     { return object{tektonAPI, "Task", name} }
func pipeline(name string) object { return object{tektonAPI, "Pipeline", name} }
func policy(name string) object   { return object{kyvernoAPI, "Policy", name} }

// clusterPolicy belongs to no namespace, so it has the tenant's name.
func (n *tenant) clusterPolicy() object { return object{kyvernoAPI, "ClusterPolicy", n.namespace} }

// versionNote is the annotation by which an object says its version.
const versionNote = "e2e/version"

// yaml returns the manifest of an object.
func (n *tenant) yaml(o object, version string) string {
	namespace := "  namespace: " + n.namespace + "\n"
	if o.kind == "ClusterPolicy" {
		namespace = ""
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata:\n  name: %s\n%s  annotations:\n    %s: %q\n",
		o.apiVersion, o.kind, o.name, namespace, versionNote, version)
}

// inCluster waits until an object of a version is in the cluster.
func (n *tenant) inCluster(version string, objects ...object) {
	n.Helper()
	for _, o := range objects {
		found := &unstructured.Unstructured{}
		found.SetAPIVersion(o.apiVersion)
		found.SetKind(o.kind)
		n.eventually(func(g Gomega) {
			key := n.key(o.name)
			if o.kind == "ClusterPolicy" {
				key.Namespace = ""
			}
			g.Expect(env.Client.Get(n.Context(), key, found)).To(Succeed())
			g.Expect(found.GetAnnotations()).To(HaveKeyWithValue(versionNote, version), "%s %s", o.kind, o.name)
		})
	}
}

// reference is where artifacts are pushed to.
func (n *tenant) reference() publish.Registry { return publish.Registry{Host: env.Registry().Host()} }

// pushImage pushes what a function of publish makes, and returns its digest.
func (n *tenant) pushImage(image string) func(v1.Image, error) (digest string) {
	return func(artifact v1.Image, err error) string {
		n.Helper()
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(n.reference().Push(n.Context(), n.image(image), artifact)).To(Succeed())
		digest, err := artifact.Digest()
		n.Expect(err).NotTo(HaveOccurred())
		return digest.String()
	}
}

// flux pushes files by the library of the Flux CLI and returns the digest.
func (n *tenant) flux(image string, files publish.Files) (digest string) {
	n.Helper()
	digest, err := n.reference().FluxCLI(n.Context(), n.image(image), files)
	n.Expect(err).NotTo(HaveOccurred())
	return digest
}

// oras pushes files by the library of ORAS and returns the digest.
func (n *tenant) oras(image string, files publish.Files, packing publish.Packing) (digest string) {
	n.Helper()
	digest, err := n.reference().ORAS(n.Context(), n.image(image), files, packing)
	n.Expect(err).NotTo(HaveOccurred())
	return digest
}

// helm pushes a chart by the library of Helm and returns the digest.
func (n *tenant) helm(chart publish.Chart) (digest string) {
	n.Helper()
	pushed, err := n.reference().Helm(n.namespace, chart)
	n.Expect(err).NotTo(HaveOccurred())
	return pushed.Manifest.Digest
}

// pushIndex pushes an index and returns its digest.
func (n *tenant) pushIndex(image string, mediaType types.MediaType, children ...publish.Child) (digest string) {
	n.Helper()
	index, err := publish.Index(mediaType, children...)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(n.reference().PushIndex(n.Context(), n.image(image), index)).To(Succeed())
	sum, err := index.Digest()
	n.Expect(err).NotTo(HaveOccurred())
	return sum.String()
}

// fluxFor returns a Flux artifact of files, to be a child of an index.
func (n *tenant) fluxFor(files publish.Files) v1.Image {
	n.Helper()
	content, err := publish.Layer(files)
	n.Expect(err).NotTo(HaveOccurred())
	image, err := publish.FluxImage(static.NewLayer(content, publish.FluxContent))
	n.Expect(err).NotTo(HaveOccurred())
	return image
}

// gzipped returns files as a layer of a type of somebody's own.
func (n *tenant) gzipped(files publish.Files) v1.Layer {
	n.Helper()
	content, err := publish.Layer(files)
	n.Expect(err).NotTo(HaveOccurred())
	return static.NewLayer(content, ownContent)
}

// Types of somebody's own.
const (
	ownConfig  types.MediaType = "application/vnd.example.config.v1+json"
	ownContent types.MediaType = "application/vnd.example.deploy.v1.tar+gzip"
)

// readAs waits until a source is published of an image's digest that was read
// as a format, and until its ExternalArtifact says the same.
func (n *tenant) readAs(name, format, digest string) *meta.Artifact {
	n.Helper()
	obj, external := &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), obj)).To(Succeed())
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(conditions.IsReady(obj)).To(BeTrue(), conditions.GetMessage(obj, meta.ReadyCondition))
		g.Expect(obj.Status.Artifact).NotTo(BeNil())
		g.Expect(obj.Status.Artifact.Revision).To(HaveSuffix(digest))
		g.Expect(obj.Status.Format).To(Equal(format))
		g.Expect(env.Client.Get(n.Context(), n.key(name), external)).To(Succeed())
		g.Expect(external.Status.Artifact).To(Equal(obj.Status.Artifact))
	})
	n.Expect(obj.Status.Artifact.Metadata).To(HaveKeyWithValue(v1alpha1.MetadataFormat, format))
	return obj.Status.Artifact
}

// kustomize writes a Kustomization that deploys a folder of the source app.
func (n *tenant) kustomize(path string) {
	n.Helper()
	n.apply(fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: app
spec:
  interval: 1h
  retryInterval: 1s
  path: %s
  prune: true
  sourceRef:
    kind: ExternalArtifact
    name: app
`, path))
}

// applied waits until the Kustomization app is ready with an artifact.
func (n *tenant) applied(artifact *meta.Artifact) {
	n.Helper()
	n.consumed(object{"kustomize.toolkit.fluxcd.io/v1", "Kustomization", "app"}, func(g Gomega, found *unstructured.Unstructured) {
		revision, _, _ := unstructured.NestedString(found.Object, "status", "lastAppliedRevision")
		g.Expect(revision).To(Equal(artifact.Revision))
	})
}

// consumed waits until an object of Flux is ready, and as check expects it.
func (n *tenant) consumed(o object, check func(Gomega, *unstructured.Unstructured)) {
	n.Helper()
	found := &unstructured.Unstructured{}
	found.SetAPIVersion(o.apiVersion)
	found.SetKind(o.kind)
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(o.name), found)).To(Succeed())
		all, _, err := unstructured.NestedSlice(found.Object, "status", "conditions")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(all).To(ContainElement(SatisfyAll(
			HaveKeyWithValue("type", meta.ReadyCondition),
			HaveKeyWithValue("status", string(metav1.ConditionTrue)),
			HaveKeyWithValue("observedGeneration", found.GetGeneration()),
		)))
		check(g, found)
	})
}

// pruned waits until an object is gone.
func (n *tenant) pruned(o object) {
	n.Helper()
	found := &unstructured.Unstructured{}
	found.SetAPIVersion(o.apiVersion)
	found.SetKind(o.kind)
	n.gone(o.name, found)
}

// refused waits until the ArtifactRepository app is stalled because its artifact
// is of no format that it may have, and returns what it says.
func (n *tenant) refused() string {
	n.Helper()
	obj, ready := n.notReady("app", v1alpha1.ReasonUnsupportedMediaType)
	n.Expect(conditions.IsStalled(obj)).To(BeTrue())
	n.Expect(conditions.IsReconciling(obj)).To(BeFalse())
	return ready.Message
}

// withKinds is newTenant for tests that deploy objects of Tekton and Kyverno.
func withKinds(t *testing.T) *tenant {
	t.Helper()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.Expect(foreignKinds()).To(Succeed())
	t.Cleanup(func() {
		found := &unstructured.Unstructured{}
		found.SetAPIVersion(kyvernoAPI)
		found.SetKind("ClusterPolicy")
		found.SetName(n.namespace)
		if err := client.IgnoreNotFound(env.Client.Delete(context.Background(), found)); err != nil {
			t.Error(err)
		}
	})
	return n
}
