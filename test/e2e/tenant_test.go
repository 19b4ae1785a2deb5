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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
	"github.com/image-source/image-source-controller/test/stage"
)

const (
	// patience bounds a wait. Nothing takes a tenth of it on an idle machine.
	patience = time.Minute
	poll     = 50 * time.Millisecond
)

// tenant is a test with a namespace of its own.
type tenant struct {
	*testing.T
	Gomega
	// namespace of the tenant, whose name also begins the names of its images.
	namespace string
}

// newTenant makes a namespace, with the value of the opt-in label unless it is empty.
func newTenant(t *testing.T, optIn string) *tenant {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "t-" + rand.String(8)}}
	if optIn != "" {
		namespace.Labels = map[string]string{v1alpha1.UseAsSource: optIn}
	}
	n := &tenant{T: t, Gomega: NewWithT(t), namespace: namespace.Name}
	n.create(namespace)
	t.Cleanup(func() {
		if t.Failed() {
			n.dump()
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		n.clear(ctx)
	})
	return n
}

// clear deletes what controllers would go on working at. The namespace stays: a
// hundred that are deleted keep an API server busier than all that is tested.
func (n *tenant) clear(ctx context.Context) {
	kustomization, release := &unstructured.Unstructured{}, &unstructured.Unstructured{}
	kustomization.SetGroupVersionKind(schema.GroupVersionKind{Group: "kustomize.toolkit.fluxcd.io", Version: "v1", Kind: "Kustomization"})
	release.SetGroupVersionKind(schema.GroupVersionKind{Group: "helm.toolkit.fluxcd.io", Version: "v2", Kind: "HelmRelease"})
	for _, kind := range []client.Object{
		kustomization, release, &sourcev1.OCIRepository{},
		&imagev1.ImagePolicy{}, &imagev1.ImageRepository{}, &v1alpha1.ArtifactRepository{}, &sourcev1.ExternalArtifact{},
	} {
		if err := env.Client.DeleteAllOf(ctx, kind, client.InNamespace(n.namespace)); err != nil {
			n.Log(err) // it ends with the control plane at the latest
		}
	}
}

// create creates objects.
func (n *tenant) create(objects ...client.Object) {
	n.Helper()
	for _, obj := range objects {
		n.Expect(env.Client.Create(n.Context(), obj)).To(Succeed(), "create %T %s", obj, obj.GetName())
	}
}

// apply applies YAML documents, in the tenant's namespace unless they name one.
func (n *tenant) apply(manifests string) {
	n.Helper()
	documents := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := documents.Decode(&obj.Object)
		if errors.Is(err, io.EOF) {
			return
		}
		n.Expect(err).NotTo(HaveOccurred(), "%s", manifests)
		obj.SetNamespace(cmp.Or(obj.GetNamespace(), n.namespace))
		err = env.Client.Apply(n.Context(), client.ApplyConfigurationFromUnstructured(obj), client.FieldOwner("e2e"), client.ForceOwnership)
		n.Expect(err).NotTo(HaveOccurred(), "apply %s %s", obj.GetKind(), obj.GetName())
	}
}

// get reads an object of the tenant by its name.
func get[T client.Object](n *tenant, name string, obj T) T {
	n.Helper()
	n.Expect(env.Client.Get(n.Context(), n.key(name), obj)).To(Succeed())
	return obj
}

func (n *tenant) key(name string) client.ObjectKey {
	return client.ObjectKey{Namespace: n.namespace, Name: name}
}

// change changes an object as kubectl edit does, again if somebody was faster.
func change[T client.Object](n *tenant, obj T, do func(T)) {
	n.Helper()
	n.Eventually(func() error {
		if err := env.Client.Get(n.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		do(obj)
		return env.Client.Update(n.Context(), obj)
	}, patience, poll).Should(Succeed())
}

// named fills in the name of an object of the tenant, for change.
func named[T client.Object](n *tenant, name string, obj T) T {
	obj.SetNamespace(n.namespace)
	obj.SetName(name)
	return obj
}

// annotate sets an annotation, and removes it if the value is empty.
func (n *tenant) annotate(obj client.Object, key, value string) {
	n.Helper()
	change(n, obj, func(obj client.Object) {
		annotations := obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[key] = value
		if value == "" {
			delete(annotations, key)
		}
		obj.SetAnnotations(annotations)
	})
}

// label sets the opt-in label of the tenant's namespace, and removes it if the
// value is empty.
func (n *tenant) label(value string) {
	n.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}}
	change(n, namespace, func(namespace *corev1.Namespace) {
		if namespace.Labels == nil {
			namespace.Labels = map[string]string{}
		}
		namespace.Labels[v1alpha1.UseAsSource] = value
		if value == "" {
			delete(namespace.Labels, v1alpha1.UseAsSource)
		}
	})
}

// eventually asks until everything that check expects holds.
func (n *tenant) eventually(check func(g Gomega)) {
	n.Helper()
	n.Eventually(check, patience, poll).Should(Succeed())
}

// published waits until a revision is what consumers see, and returns it. The
// revision may be a tag, which stands for <tag>@sha256:<any digest>.
func (n *tenant) published(name, revision string) *meta.Artifact {
	n.Helper()
	external := &sourcev1.ExternalArtifact{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), external)).To(Succeed())
		g.Expect(external.Status.Artifact).NotTo(BeNil(), "nothing is published")
		g.Expect(external.Status.Artifact.Revision).To(Or(Equal(revision), HavePrefix(revision+"@sha256:")))
		ready := conditions.Get(external, meta.ReadyCondition)
		g.Expect(ready).NotTo(BeNil())
		g.Expect(ready.Status).To(Equal(metav1.ConditionTrue), ready.Message)
	})
	return external.Status.Artifact
}

// notReady waits until an ArtifactRepository says that it is not ready for a
// reason, and returns it.
func (n *tenant) notReady(name, reason string) (*v1alpha1.ArtifactRepository, *metav1.Condition) {
	n.Helper()
	obj := &v1alpha1.ArtifactRepository{}
	var ready *metav1.Condition
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), obj)).To(Succeed())
		ready = conditions.Get(obj, meta.ReadyCondition)
		g.Expect(ready).NotTo(BeNil(), "no Ready condition")
		g.Expect(ready.Status).To(Equal(metav1.ConditionFalse), "%s: %s", ready.Reason, ready.Message)
		g.Expect(ready.Reason).To(Equal(reason), ready.Message)
	})
	return obj, ready
}

// reconciled asks an ArtifactRepository to be looked at, and returns it after
// it was. What holds now is what the controller left on purpose.
func (n *tenant) reconciled(name string) *v1alpha1.ArtifactRepository {
	n.Helper()
	obj := named(n, name, &v1alpha1.ArtifactRepository{})
	token := time.Now().Format(time.RFC3339Nano)
	n.annotate(obj, meta.ReconcileRequestAnnotation, token)
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), obj)).To(Succeed())
		g.Expect(obj.Status.LastHandledReconcileAt).To(Equal(token), "the request was not handled")
	})
	return obj
}

// gone waits until an object does not exist.
func (n *tenant) gone(name string, obj client.Object) {
	n.Helper()
	n.eventually(func(g Gomega) {
		err := env.Client.Get(n.Context(), n.key(name), obj)
		g.Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%T %s: %v", obj, name, err)
	})
}

// unpublished waits until the ExternalArtifact of a source says that nothing is
// published.
func (n *tenant) unpublished(name string) {
	n.Helper()
	n.eventually(func(g Gomega) {
		external := &sourcev1.ExternalArtifact{}
		g.Expect(env.Client.Get(n.Context(), n.key(name), external)).To(Succeed())
		g.Expect(external.Status.Artifact).To(BeNil())
		g.Expect(conditions.IsFalse(external, meta.ReadyCondition)).To(BeTrue())
	})
}

// removed waits until nothing of a source is left: no ArtifactRepository, no
// ExternalArtifact, and no byte in the storage of a controller.
func (n *tenant) removed(name string) {
	n.Helper()
	n.gone(name, &v1alpha1.ArtifactRepository{})
	n.gone(name, &sourcev1.ExternalArtifact{})
	n.eventually(func(g Gomega) { g.Expect(n.stored(name)).To(BeEmpty(), "files are left") })
}

// stored returns the files that the controller keeps for a source.
func (n *tenant) stored(name string) []string {
	var files []string
	dir := filepath.Join(env.controller.StorageDir, "externalartifact", n.namespace, name)
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		n.Expect(err).NotTo(HaveOccurred())
	}
	for _, entry := range entries {
		files = append(files, entry.Name())
	}
	return files
}

// image returns the name of an image of the tenant in the shared registry,
// without its host.
func (n *tenant) image(name string) string { return n.namespace + "/" + name }

// ref returns the name of an image of the tenant with its host.
func (n *tenant) ref(name string) string { return env.Registry().Host() + "/" + n.image(name) }

// push pushes files as a Flux artifact to the shared registry and returns the
// revision that they are to be published as.
func (n *tenant) push(name, tag string, files publish.Files) string {
	n.Helper()
	return n.pushTo(publish.Registry{Host: env.Registry().Host()}, n.image(name)+":"+tag, files)
}

// pushTo pushes files as a Flux artifact and returns their revision.
func (n *tenant) pushTo(registry publish.Registry, image string, files publish.Files) string {
	n.Helper()
	artifact, err := registry.Flux(n.Context(), image, files)
	n.Expect(err).NotTo(HaveOccurred())
	digest, err := artifact.Digest()
	n.Expect(err).NotTo(HaveOccurred())
	return image[strings.LastIndex(image, ":")+1:] + "@" + digest.String()
}

// configMap returns files that deploy a ConfigMap which says the version.
func configMap(name, version string) publish.Files {
	return publish.Files{"deploy/app.yaml": fmt.Sprintf(
		"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  version: %q\n", name, version)}
}

// scan creates an ImageRepository of the shared registry and a policy for it,
// of the same name, which picks the highest semver; mods change the policy.
func (n *tenant) scan(name string, mods ...func(*imagev1.ImageRepository, *imagev1.ImagePolicy)) {
	n.Helper()
	repository := named(n, name, &imagev1.ImageRepository{})
	repository.Spec.Image = n.ref(name)
	repository.Spec.Insecure = true
	repository.Spec.Interval.Duration = time.Second
	repository.Spec.ExclusionList = []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}
	policy := named(n, name, &imagev1.ImagePolicy{})
	policy.Spec.ImageRepositoryRef.Name = name
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: ">=0.0.0"}
	policy.Annotations = map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceTrue}
	for _, mod := range mods {
		mod(repository, policy)
	}
	n.create(repository)
	n.awaitScan(repository)
	n.create(policy)
}

// awaitScan gives the first scan of an ImageRepository some time. It need not
// succeed, but image-reflector-controller evaluates a policy five seconds later
// that comes before it.
func (n *tenant) awaitScan(repository *imagev1.ImageRepository) {
	const enough = 3 * time.Second
	ctx, cancel := context.WithTimeout(n.Context(), enough)
	defer cancel()
	_ = stage.Until(ctx, func(ctx context.Context) error {
		err := env.Client.Get(ctx, client.ObjectKeyFromObject(repository), repository)
		if err == nil && conditions.Get(repository, meta.ReadyCondition) == nil {
			err = errors.New("not scanned yet")
		}
		return err
	})
}

// dump logs everything that a person needs to understand a failure.
func (n *tenant) dump() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const kinds = "imagerepositories,imagepolicies,artifactrepositories,externalartifacts,kustomizations,helmreleases,events"
	state, err := env.Kubectl(ctx, "get", kinds, "-n", n.namespace, "-o", "yaml", "--show-managed-fields=false")
	n.Logf("namespace %s: %v\n%s", n.namespace, err, state)
	n.Logf("the controller's log about it:\n%s", logTail(env.controller.LogFile(), n.namespace))
}

// shortRevision is a revision with a digest as Ready tells it.
func shortRevision(revision string) string {
	tag, digits, _ := strings.Cut(revision, "sha256:")
	return tag + "sha256:" + digits[:12]
}

// logTail returns the last lines of a log, of those that contain all words.
func logTail(file string, words ...string) string {
	const most = 60
	content, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	var lines [][]byte
	for line := range bytes.Lines(content) {
		matches := true
		for _, word := range words {
			matches = matches && bytes.Contains(line, []byte(word))
		}
		if matches {
			lines = append(lines, line)
		}
	}
	return string(bytes.Join(lines[max(0, len(lines)-most):], nil))
}
