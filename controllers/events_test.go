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
	corev1 "k8s.io/api/core/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	kuberecorder "k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/fluxcd/pkg/runtime/events"
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
	told.send(pod, nil, corev1.EventTypeNormal, "Any", "something happened")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- told.Start(ctx) }()
	g.Eventually(asked).WithTimeout(30 * time.Second).Should(Receive())

	cancel()
	g.Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
}
