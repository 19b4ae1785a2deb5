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
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
)

// alertReceiver receives Flux events in the place of notification-controller.
type alertReceiver struct {
	*httptest.Server
	mu     sync.Mutex
	events []eventv1.Event
}

func newAlertReceiver() *alertReceiver {
	r := &alertReceiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		var event eventv1.Event
		if err := json.NewDecoder(request.Body).Decode(&event); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, event)
		w.WriteHeader(http.StatusAccepted)
	}))
	return r
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
