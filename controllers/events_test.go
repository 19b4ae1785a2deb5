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

package controllers

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	kuberecorder "k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/events"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/source"
)

func TestAReceiverThatHangsDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer receiver.Close()
	defer close(release)
	alerts, err := events.NewRecorderForScheme(clientgoscheme.Scheme, &kuberecorder.FakeRecorder{}, ctrl.Log, receiver.URL, "controller")
	g.Expect(err).NotTo(HaveOccurred())
	told := &Events{Recorder: &kuberecorder.FakeRecorder{}, Alerts: alerts}
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name = "apps", "app"
	told.send(pod, nil, news{corev1.EventTypeNormal, "Any", "an event happened"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- told.Start(ctx) }()
	g.Eventually(asked).WithTimeout(30 * time.Second).Should(Receive())

	cancel()
	g.Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
}

// A namespace with many events while the receiver is away loses only its own events.
func TestANamespaceWithManyEventsLosesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	alerts := kuberecorder.NewFakeRecorder(5000)
	told := &Events{Recorder: &kuberecorder.FakeRecorder{}, Alerts: alerts}
	happen := func(times int, namespace, message string) {
		pod := &corev1.Pod{}
		pod.Namespace, pod.Name = namespace, "app"
		for range times {
			told.send(pod, nil, news{corev1.EventTypeNormal, "Any", message})
		}
	}
	for _, news := range []string{"first", "second"} { // sent events make room again
		happen(2000, "busy", "any")
		happen(200, "quiet", "any")
		happen(1, "quiet", news)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- told.Start(ctx) }()
		g.Eventually(alerts.Events).WithTimeout(30 * time.Second).WithPolling(time.Millisecond).Should(Receive(ContainSubstring(news)))
		cancel()
		g.Eventually(ended).Should(Receive())
	}
}

func TestTheEventOfANewArtifactNamesItsOrigin(t *testing.T) {
	recorder := kuberecorder.NewFakeRecorder(10)
	told := &Events{Recorder: recorder}
	obj := &v1alpha1.ArtifactRepository{}
	obj.Namespace, obj.Name = "apps", "app"
	obj.Status.Artifact = &meta.Artifact{Revision: "1.0.0@sha256:aa", Metadata: map[string]string{
		"org.opencontainers.image.source":   "https://example.com/org/app.git",
		"org.opencontainers.image.revision": "main@sha1:abc",
	}}
	conditions.MarkTrue(obj, meta.ReadyCondition, v1alpha1.ReasonSucceeded, "published 1.0.0@sha256:aa as Flux")
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	(&Report{Events: told, Metrics: metrics}).tell(t.Context(), source.Snapshot{Object: obj}, delivery{
		before: &v1alpha1.ArtifactRepository{}, after: obj, decision: decision{change: publication.Promote(publication.Product{})}, recorded: true,
	})

	g := NewWithT(t)
	for range 2 { // of the ArtifactRepository, and of its ExternalArtifact
		g.Expect(recorder.Events).To(Receive(And(
			ContainSubstring("Normal "+v1alpha1.ReasonNewArtifact), ContainSubstring("1.0.0@sha256:aa"),
			ContainSubstring("origin source: https://example.com/org/app.git"), ContainSubstring("origin revision: main@sha1:abc"),
		)))
	}
}
