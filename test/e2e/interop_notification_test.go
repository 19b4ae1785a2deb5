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
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

const (
	notificationGroup = "notification.toolkit.fluxcd.io"
	// What the guide has a reader fill in.
	webhookToken  = "a-long-random-string"
	chatAddress   = "https://chat.example.com/hooks/flux"
	commitAddress = "https://github.com/example/orders"
	// What publish.Registry.FluxCLI says that an artifact was built from.
	builtFrom   = "https://github.com/org/app.git"
	builtCommit = "0123456789abcdef0123456789abcdef01234567"
)

// TestNotifications applies the YAML of the guide about receivers and alerts on a
// control plane with the real notification-controller.
func TestNotifications(t *testing.T) {
	t.Parallel()
	program, built, err := controlplane.Built(t.Context(), controlplane.NotificationController)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	if !built {
		t.Skip("make interop builds notification-controller and runs this test")
	}
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	hooks := n.startNotificationController(program)
	chat, forge := newInbox(t), newForge(t)
	guide := n.guide("docs/guides/receivers-and-alerts.md", map[string]string{
		chatAddress: chat.URL, "type: github": "type: gitea", commitAddress: forge.URL + "/example/orders",
	})
	for _, block := range guide {
		n.apply(block)
	}

	n.flux(orders+":1.0.0", configMap(orders, "1.0.0"))
	n.flux("orders-latest:latest", configMap("orders-latest", "first"))
	n.scan(orders, seldom)
	latest := named(n, "orders-latest", &v1alpha1.ArtifactRepository{})
	latest.Spec.Image, latest.Spec.Tag, latest.Spec.Insecure = n.ref("orders-latest"), "latest", true
	n.create(latest)
	n.deployAs("orders", orders)
	n.deployed(orders, "1.0.0")
	n.published("orders-latest", "latest")

	// A webhook on the ImageRepository deploys what was pushed.
	revision := "1.1.0@" + n.flux(orders+":1.1.0", configMap(orders, "1.1.0"))
	n.Expect(n.webhook(hooks, "pushed")).To(Equal(http.StatusOK))
	n.deployed(orders, "1.1.0")
	// One on the ExternalArtifact follows the tag.
	moved := "latest@" + n.flux("orders-latest:latest", configMap("orders-latest", "moved"))
	n.Expect(n.webhook(hooks, "moved")).To(Equal(http.StatusOK))
	n.published("orders-latest", moved)
	n.eventually(func(g Gomega) {
		status := get(n, orders, &v1alpha1.ArtifactRepository{}).Status
		g.Expect(status.ObservedRequests.ImagePolicy).NotTo(BeEmpty())
	})
	n.needsTheAPIVersion(hooks)

	// The chat is told of the new version and where it is from.
	n.eventually(func(g Gomega) {
		event := chat.about(sourcev1.ExternalArtifactKind, orders, revision)
		g.Expect(event).NotTo(BeNil())
		g.Expect(event.Severity).To(Equal(eventv1.EventSeverityInfo))
		g.Expect(event.Message).To(And(ContainSubstring("origin source: "+builtFrom), ContainSubstring("origin revision: main@sha1:"+builtCommit)))
		g.Expect(event.Metadata).To(HaveKeyWithValue(eventv1.MetaRevisionKey, revision))
	})
	// The commit is told that it was applied.
	n.eventually(func(g Gomega) { g.Expect(forge.told()).To(HaveKeyWithValue(builtCommit, "success")) })

	// A failure is told as well.
	broken := named(n, "orders-broken", &v1alpha1.ArtifactRepository{})
	broken.Spec.Image, broken.Spec.Tag, broken.Spec.Insecure = n.ref("nothing-there"), "latest", true
	n.create(broken)
	n.eventually(func(g Gomega) {
		event := chat.failure("orders-broken")
		g.Expect(event).NotTo(BeNil())
		g.Expect(event.Reason).To(Equal(v1alpha1.ReasonImageNotFound))
	})
}

// startNotificationController runs the program, has it receive the events of the
// tenant, and returns the address of its webhooks.
func (n *tenant) startNotificationController(program string) (hooks string) {
	n.Helper()
	_, err := env.Kubectl(n.Context(), "apply", "--server-side", "-f", filepath.Join(filepath.Dir(program), "crds", filepath.Base(program)))
	n.Expect(err).NotTo(HaveOccurred())
	_, err = env.Kubectl(n.Context(), "wait", "--for=condition=established", "crd", "receivers."+notificationGroup, "alerts."+notificationGroup, "providers."+notificationGroup)
	n.Expect(err).NotTo(HaveOccurred())
	var addresses [4]string
	for i := range addresses {
		addresses[i], err = controlplane.FreeAddress()
		n.Expect(err).NotTo(HaveOccurred())
	}
	events, hooks, metrics, health := addresses[0], addresses[1], addresses[2], addresses[3]
	process, err := env.StartProgram(n.Context(), controlplane.Program{
		Name: controlplane.NotificationController + "-" + n.namespace, Path: program, // a test may run twice on one control plane
		Args: []string{
			"--events-addr=" + events, "--receiverAddr=" + hooks, "--metrics-addr=" + metrics, "--health-addr=" + health,
			"--log-encoding=console",
		},
		Env:   []string{"KUBECONFIG=" + env.Kubeconfig(), "RUNTIME_NAMESPACE=" + controlplane.FluxNamespace},
		Ready: controlplane.HTTPReady("http://"+health+"/readyz", nil),
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Cleanup(func() {
		env.alerts.passOn(n.namespace, "")
		if err := process.Stop(); err != nil {
			n.Error(err)
		}
		if n.Failed() {
			n.Logf("the end of its log:\n%s", logTail(process.LogFile()))
		}
	})
	env.alerts.passOn(n.namespace, events)
	return hooks
}

// guide returns the YAML of a page for the tenant's namespace, with values of the
// test in the place of those of the page.
func (n *tenant) guide(page string, values map[string]string) (blocks []string) {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	for _, block := range n.blocks(root, fence) {
		if block.page != filepath.FromSlash(page) {
			continue
		}
		content := strings.ReplaceAll(block.content, "namespace: apps", "namespace: "+n.namespace)
		for old, value := range values {
			content = strings.ReplaceAll(content, old, value)
		}
		blocks = append(blocks, content)
	}
	n.Expect(blocks).NotTo(BeEmpty())
	return blocks
}

// webhook calls a Receiver as the guide does, and returns the status code.
func (n *tenant) webhook(hooks, receiver string) int {
	n.Helper()
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(schema.GroupVersionKind{Group: notificationGroup, Version: "v1", Kind: "Receiver"})
	var path string
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(receiver), found)).To(Succeed())
		path, _, _ = unstructured.NestedString(found.Object, "status", "webhookPath")
		g.Expect(path).NotTo(BeEmpty())
	})
	const body = `{"pushed": "orders-deploy"}`
	signature := hmac.New(sha256.New, []byte(webhookToken))
	signature.Write([]byte(body))
	request, err := http.NewRequestWithContext(n.Context(), http.MethodPost, "http://"+hooks+path, strings.NewReader(body))
	n.Expect(err).NotTo(HaveOccurred())
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(signature.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	n.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	return response.StatusCode
}

// needsTheAPIVersion holds what the guide says of kinds without apiVersion.
func (n *tenant) needsTheAPIVersion(hooks string) {
	n.Helper()
	for _, kind := range []string{sourcev1.ExternalArtifactKind, imagev1.ImagePolicyKind} {
		name := "bare-" + strings.ToLower(kind)
		n.apply("apiVersion: " + notificationGroup + "/v1\nkind: Receiver\nmetadata:\n  name: " + name +
			"\nspec:\n  type: generic-hmac\n  secretRef:\n    name: webhook\n  resources:\n    - kind: " + kind + "\n      name: " + orders + "\n")
		n.Expect(n.webhook(hooks, name)).To(Equal(http.StatusInternalServerError), kind)
	}
}

// deployAs writes a Kustomization of its own name that deploys a source.
func (n *tenant) deployAs(name, source string) {
	n.Helper()
	n.apply("apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata:\n  name: " + name +
		"\nspec:\n  interval: 1h\n  retryInterval: 1s\n  path: ./deploy\n  prune: true\n  targetNamespace: " + n.namespace +
		"\n  sourceRef:\n    kind: ExternalArtifact\n    name: " + source + "\n")
}

// inbox receives what a generic provider sends.
type inbox struct {
	*httptest.Server
	mu     sync.Mutex
	events []eventv1.Event
}

func newInbox(t *testing.T) *inbox {
	t.Helper()
	i := &inbox{}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		var event eventv1.Event
		if err := json.NewDecoder(request.Body).Decode(&event); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		i.mu.Lock()
		defer i.mu.Unlock()
		i.events = append(i.events, event)
	}))
	t.Cleanup(i.Close)
	return i
}

// about returns the event that says that a revision is published, if it came.
func (i *inbox) about(kind, name, revision string) *eventv1.Event {
	return i.find(func(event eventv1.Event) bool {
		return event.InvolvedObject.Kind == kind && event.InvolvedObject.Name == name &&
			event.Reason == v1alpha1.ReasonNewArtifact && strings.Contains(event.Message, shortRevision(revision))
	})
}

// failure returns an event of the severity error about an ExternalArtifact, if one came.
func (i *inbox) failure(name string) *eventv1.Event {
	return i.find(func(event eventv1.Event) bool {
		return event.InvolvedObject.Kind == sourcev1.ExternalArtifactKind && event.InvolvedObject.Name == name && event.Severity == eventv1.EventSeverityError
	})
}

func (i *inbox) find(is func(eventv1.Event) bool) *eventv1.Event {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, event := range i.events {
		if is(event) {
			return &event
		}
	}
	return nil
}

// forge answers as Gitea does to a client that sets commit statuses.
type forge struct {
	*httptest.Server
	mu     sync.Mutex
	states map[string]string
}

func newForge(t *testing.T) *forge {
	t.Helper()
	f := &forge{states: map[string]string{}}
	const statuses = "/api/v1/repos/example/orders/statuses/{commit}"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/version", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"version": "1.24.0"}`)
	})
	mux.HandleFunc("GET /api/v1/repos/example/orders/commits/{commit}/statuses", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) })
	mux.HandleFunc("GET "+statuses, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) })
	mux.HandleFunc("POST "+statuses, func(w http.ResponseWriter, request *http.Request) {
		var status struct{ State string }
		if err := json.NewDecoder(request.Body).Decode(&status); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.states[request.PathValue("commit")] = status.State
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{}`)
	})
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

// told returns the states of commits.
func (f *forge) told() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.states)
}
