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

package publish

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

// InProcess is a registry in this process, over plain HTTP on loopback. It
// counts what it is asked, and a test can answer in its place.
type InProcess struct {
	*httptest.Server
	shelf http.Handler

	mu       sync.Mutex
	requests []string
	instead  Instead
}

// Instead answers a request in place of a registry, or returns false to let the
// registry answer.
type Instead func(http.ResponseWriter, *http.Request) bool

// Serve starts a registry without the list of referrers of the Distribution
// Specification 1.1. Whoever starts it closes it.
func Serve() *InProcess { return serve(false) }

// ServeReferrers starts a registry that has that list.
func ServeReferrers() *InProcess { return serve(true) }

func serve(referrers bool) *InProcess {
	r := &InProcess{shelf: registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))}
	r.Server = httptest.NewServer(r)
	return r
}

// ServeHTTP implements http.Handler.
func (r *InProcess) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, request.Method+" "+request.URL.Path)
	instead := r.instead
	r.mu.Unlock()
	if instead == nil || !instead(w, request) {
		r.shelf.ServeHTTP(w, request)
	}
}

// Host returns host and port.
func (r *InProcess) Host() string { return r.Listener.Addr().String() }

// Requests returns what was asked since Forget, as METHOD /path, in order.
func (r *InProcess) Requests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Count returns how many requests since Forget were of a method and had a part
// in their path.
func (r *InProcess) Count(method, part string) int {
	count := 0
	for _, request := range r.Requests() {
		if asked, path, _ := strings.Cut(request, " "); asked == method && strings.Contains(path, part) {
			count++
		}
	}
	return count
}

// Forget starts counting from nothing.
func (r *InProcess) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = nil
}

// Answer lets instead answer from now on; nil gives the word back to the
// registry.
func (r *InProcess) Answer(instead Instead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instead = instead
}

// Shelf returns the registry behind what counts and answers, to push to: a push
// is not counted, and nothing stands in its way.
func (r *InProcess) Shelf() Registry {
	return Registry{Host: r.Host(), Transport: direct{r.shelf}}
}

// direct hands requests to a handler without a network.
type direct struct{ http.Handler }

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(request *http.Request) (*http.Response, error) {
	recorder := httptest.NewRecorder()
	incoming := request.Clone(request.Context())
	if incoming.Body == nil {
		incoming.Body = http.NoBody
	}
	d.ServeHTTP(recorder, incoming)
	response := recorder.Result()
	response.Request = request
	return response, nil
}

// DemandBasic answers 401 to all who do not come with one of the passwords.
func DemandBasic(passwords map[string]string) Instead {
	return func(w http.ResponseWriter, request *http.Request) bool {
		user, password, ok := request.BasicAuth()
		if want, known := passwords[user]; ok && known && password == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="in-process"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return true
	}
}
