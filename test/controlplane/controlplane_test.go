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

package controlplane_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	fluxmeta "github.com/fluxcd/pkg/apis/meta"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/image-source/image-source-controller/test/controlplane"
)

const (
	soon      = "30s"
	promptly  = "200ms"
	namespace = metav1.NamespaceDefault
)

func TestControlPlane(t *testing.T) {
	options := controlplane.All()
	options.CRDPaths = []string{widgetCRD(t)}
	cp := startPlane(t, options)
	c := newClient(t, cp)

	t.Run("serves the CustomResourceDefinitions of its caller", func(t *testing.T) {
		create(t, c, object(t, `{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "app", "namespace": "default"}}`))
	})

	t.Run("has the namespaces of a Flux installation", func(t *testing.T) {
		g := NewWithT(t)
		for _, name := range []string{metav1.NamespaceDefault, controlplane.FluxNamespace} {
			g.Expect(c.Get(t.Context(), client.ObjectKey{Name: name}, &corev1.Namespace{})).To(Succeed())
		}
	})

	t.Run("collects what a deleted object owned", func(t *testing.T) {
		g := NewWithT(t)
		owner := create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner", Namespace: namespace}})
		owned := create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: "owned", Namespace: namespace,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.GetUID()}},
		}})

		g.Expect(c.Delete(t.Context(), owner)).To(Succeed())

		g.Eventually(gone(t.Context(), c, owned), soon, promptly).Should(BeTrue())
	})

	t.Run("deletes a namespace to the end", func(t *testing.T) {
		g := NewWithT(t)
		tenant := create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant"}})

		g.Expect(c.Delete(t.Context(), tenant)).To(Succeed())

		g.Eventually(gone(t.Context(), c, tenant), soon, promptly).Should(BeTrue())
	})

	t.Run("gives a ServiceAccount its own rights and no others", func(t *testing.T) {
		g := NewWithT(t)
		create(t, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot", Namespace: namespace}})
		config, err := cp.ServiceAccountConfig(t.Context(), namespace, "robot")
		g.Expect(err).NotTo(HaveOccurred())
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		g.Expect(controlplane.WriteKubeconfig(kubeconfig, config)).To(Succeed())
		loaded, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		g.Expect(err).NotTo(HaveOccurred())
		robot, err := client.New(loaded, client.Options{})
		g.Expect(err).NotTo(HaveOccurred())

		err = robot.List(t.Context(), &corev1.SecretList{}, client.InNamespace(namespace))

		g.Expect(apierrors.IsForbidden(err)).To(BeTrue(), "got %v", err)
		g.Expect(err).To(MatchError(ContainSubstring("system:serviceaccount:default:robot")))
	})

	t.Run("resolves an ImagePolicy on the registry", func(t *testing.T) {
		g := NewWithT(t)
		host := cp.Registry().Host()
		push(t, host+"/app:1.0.0")
		push(t, host+"/app:1.1.0")
		create(t, c, &imagev1.ImageRepository{
			ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: namespace},
			Spec:       imagev1.ImageRepositorySpec{Image: host + "/app", Insecure: true, Interval: metav1.Duration{Duration: time.Minute}},
		})
		policy := create(t, c, &imagev1.ImagePolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: namespace},
			Spec: imagev1.ImagePolicySpec{
				ImageRepositoryRef: fluxmeta.NamespacedObjectReference{Name: "app"},
				Policy:             imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "1.x"}},
			},
		}).(*imagev1.ImagePolicy)

		g.Eventually(func(g Gomega) {
			g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy)).To(Succeed())
			g.Expect(policy.Status.LatestRef).NotTo(BeNil())
			g.Expect(policy.Status.LatestRef.Tag).To(Equal("1.1.0"))
		}, soon, promptly).Should(Succeed())
	})

	t.Run("stores what an OCIRepository refers to", func(t *testing.T) {
		g := NewWithT(t)
		host := cp.Registry().Host()
		push(t, host+"/config:v1")
		repository := create(t, c, object(t, `{
			"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
			"metadata": {"name": "config", "namespace": "default"},
			"spec": {
				"interval": "1m", "insecure": true, "url": "oci://`+host+`/config", "ref": {"tag": "v1"},
				"layerSelector": {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "operation": "copy"}
			}
		}`))

		g.Eventually(readyReason(t.Context(), c, repository), soon, promptly).Should(Equal("Succeeded"))
	})

	t.Run("lets kustomize-controller consume an ExternalArtifact", func(t *testing.T) {
		g := NewWithT(t)
		kustomization := create(t, c, object(t, `{
			"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
			"metadata": {"name": "app", "namespace": "default"},
			"spec": {"interval": "1m", "prune": true, "sourceRef": {"kind": "ExternalArtifact", "name": "absent"}}
		}`))

		g.Eventually(readyReason(t.Context(), c, kustomization), soon, promptly).Should(Equal("ArtifactFailed"))
	})

	t.Run("lets helm-controller consume an ExternalArtifact", func(t *testing.T) {
		g := NewWithT(t)
		release := create(t, c, object(t, `{
			"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
			"metadata": {"name": "app", "namespace": "default"},
			"spec": {"interval": "1m", "chartRef": {"kind": "ExternalArtifact", "name": "absent"}}
		}`))

		g.Eventually(readyReason(t.Context(), c, release), soon, promptly).Should(Equal("ArtifactFailed"))
	})

	t.Run("lets a further API server go down and up", func(t *testing.T) {
		g := NewWithT(t)
		server, err := cp.StartAPIServer(t.Context(), "further")
		g.Expect(err).NotTo(HaveOccurred())
		config := rest.CopyConfig(cp.RESTConfig())
		config.Host = server.URL()
		other, err := client.New(config, client.Options{})
		g.Expect(err).NotTo(HaveOccurred())
		namespace := client.ObjectKey{Name: metav1.NamespaceDefault}
		g.Expect(other.Get(t.Context(), namespace, &corev1.Namespace{})).To(Succeed(), "it is the same cluster")

		g.Expect(server.Kill()).To(Succeed())
		g.Expect(other.Get(t.Context(), namespace, &corev1.Namespace{})).To(MatchError(ContainSubstring("connection refused")))
		g.Expect(c.Get(t.Context(), namespace, &corev1.Namespace{})).To(Succeed(), "others notice nothing")

		g.Expect(server.Restart(t.Context())).To(Succeed())
		g.Expect(other.Get(t.Context(), namespace, &corev1.Namespace{})).To(Succeed())
	})

	t.Run("accepts what kubectl applies", func(t *testing.T) {
		g := NewWithT(t)
		program, err := controlplane.Executable(t.Context(), controlplane.Kubectl)
		g.Expect(err).NotTo(HaveOccurred())
		overlay := t.TempDir()
		g.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"),
			[]byte("configMapGenerator:\n- {name: applied, literals: [a=b]}\ngeneratorOptions: {disableNameSuffixHash: true}\n"), 0o600)).To(Succeed())

		kubectl := exec.CommandContext(t.Context(), program, "--kubeconfig", cp.Kubeconfig(), "apply", "-k", overlay)
		output, err := kubectl.CombinedOutput()

		g.Expect(err).NotTo(HaveOccurred(), string(output))
		g.Expect(c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "applied"}, &corev1.ConfigMap{})).To(Succeed())
	})

	t.Run("stops without leaving a process", func(t *testing.T) {
		g := NewWithT(t)
		pids := cp.PIDs()
		g.Expect(pids).To(HaveLen(8 + 1))
		g.Expect(pids).To(HaveEach(Satisfy(controlplane.Alive)))

		g.Expect(cp.Stop()).To(Succeed())
		g.Expect(cp.Stop()).To(Succeed(), "stopping again does nothing")

		g.Expect(pids).NotTo(ContainElement(Satisfy(controlplane.Alive)))
		g.Expect(cp.Kubeconfig()).NotTo(BeAnExistingFile())
		g.Expect(filepath.Join(cp.LogDir(), controlplane.Etcd+".log")).To(BeAnExistingFile())
	})
}

func TestStart(t *testing.T) {
	t.Run("names the Flux controllers that there are when one is unknown", func(t *testing.T) {
		g := NewWithT(t)
		_, err := controlplane.Start(t.Context(), controlplane.Options{Controllers: []string{"notification-controller"}})
		g.Expect(err).To(MatchError(And(ContainSubstring("notification-controller"), ContainSubstring(controlplane.SourceController))))
	})

	t.Run("leaves nothing when a program does not start", func(t *testing.T) {
		g := NewWithT(t)
		cp, err := controlplane.Start(t.Context(), controlplane.Options{
			Controllers:    []string{controlplane.ImageReflectorController},
			ControllerArgs: map[string][]string{controlplane.ImageReflectorController: {"--no-such-flag"}},
		})

		g.Expect(err).To(MatchError(controlplane.ErrExited))
		g.Expect(err).To(MatchError(ContainSubstring("unknown flag: --no-such-flag")))
		g.Expect(cp.Stop()).To(Succeed(), "stopping what did not start is safe")
	})
}

func TestAPIServerOnly(t *testing.T) {
	g := NewWithT(t)
	_, err := controlplane.Start(t.Context(), controlplane.Options{APIServerOnly: true, Controllers: []string{controlplane.SourceController}})
	g.Expect(err).To(MatchError(ContainSubstring("APIServerOnly")))
	cp := startPlane(t, controlplane.Options{APIServerOnly: true, CRDPaths: []string{widgetCRD(t)}})
	g.Expect(cp.PIDs()).To(HaveLen(2), "etcd and kube-apiserver")

	c := newClient(t, cp)
	create(t, c, object(t, `{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "app", "namespace": "default"}}`))
	g.Expect(c.List(t.Context(), &imagev1.ImagePolicyList{})).To(Succeed())
}

// startPlane starts a control plane that ends with the test.
func startPlane(t *testing.T, options controlplane.Options) *controlplane.ControlPlane {
	t.Helper()
	options.Progress = os.Stderr
	cp, err := controlplane.Start(t.Context(), options)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { NewWithT(t).Expect(cp.Stop()).To(Succeed()) })
	return cp
}

func newScheme(t *testing.T) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	NewWithT(t).Expect(scheme.AddToScheme(s)).To(Succeed())
	NewWithT(t).Expect(imagev1.AddToScheme(s)).To(Succeed())
	return s
}

func newClient(t *testing.T, cp *controlplane.ControlPlane) client.Client {
	t.Helper()
	c, err := client.New(cp.RESTConfig(), client.Options{Scheme: newScheme(t)})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return c
}

func create(t *testing.T, c client.Client, object client.Object) client.Object {
	t.Helper()
	NewWithT(t).Expect(c.Create(t.Context(), object)).To(Succeed())
	return object
}

func object(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	NewWithT(t).Expect(json.Unmarshal([]byte(manifest), o)).To(Succeed())
	return o
}

// widgetCRD returns a file with a CustomResourceDefinition that Flux does not have.
func widgetCRD(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "widgets.yaml")
	NewWithT(t).Expect(os.WriteFile(file, []byte(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`), 0o600)).To(Succeed())
	return file
}

// gone returns a function that says whether an object no longer exists.
func gone(ctx context.Context, c client.Client, object client.Object) func() bool {
	return func() bool {
		return apierrors.IsNotFound(c.Get(ctx, client.ObjectKeyFromObject(object), object))
	}
}

// readyReason returns a function that returns the reason of an object's Ready
// condition.
func readyReason(ctx context.Context, c client.Client, object client.Object) func() (string, error) {
	return func() (string, error) {
		current := &unstructured.Unstructured{}
		current.SetGroupVersionKind(object.GetObjectKind().GroupVersionKind())
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), current); err != nil {
			return "", err
		}
		var status struct {
			Conditions []metav1.Condition `json:"conditions"`
		}
		content, _, err := unstructured.NestedMap(current.Object, "status")
		if err != nil {
			return "", err
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(content, &status); err != nil {
			return "", err
		}
		ready := meta.FindStatusCondition(status.Conditions, "Ready")
		if ready == nil {
			return "", nil
		}
		return ready.Reason, nil
	}
}
