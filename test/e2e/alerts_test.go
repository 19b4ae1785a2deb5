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
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
)

// alertReceiver receives Flux events in the place of notification-controller, and
// passes on to one what a test asks for.
type alertReceiver struct {
	*httptest.Server
	mu     sync.Mutex
	events []eventv1.Event
	// onward are the addresses of notification-controllers, by namespace.
	onward map[string]string
}

func newAlertReceiver() *alertReceiver {
	r := &alertReceiver{onward: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		var event eventv1.Event
		if err := errors.Join(err, json.Unmarshal(body, &event)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		r.events = append(r.events, event)
		address := r.onward[event.InvolvedObject.Namespace]
		r.mu.Unlock()
		if address == "" {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		target := &url.URL{Scheme: "http", Host: address}
		request.Body = io.NopCloser(bytes.NewReader(body))
		httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, request)
	}))
	return r
}

// passOn sends the events of a namespace to a notification-controller as well.
func (r *alertReceiver) passOn(namespace, address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onward[namespace] = address
}

// about returns the events about an object of a kind.
func (r *alertReceiver) about(n *tenant, kind, name string) []eventv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []eventv1.Event
	for _, event := range r.events {
		if object := event.InvolvedObject; object.Namespace == n.namespace && object.Kind == kind && object.Name == name {
			found = append(found, event)
		}
	}
	return found
}
