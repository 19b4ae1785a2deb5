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

package controllers_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// late delays events about ExternalArtifacts while it is locked.
type late struct {
	http.RoundTripper

	news *sync.RWMutex
}

// RoundTrip implements http.RoundTripper.
func (l late) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") == "true" && strings.HasSuffix(r.URL.Path, "/externalartifacts") {
		answer.Body = lateBody{answer.Body, l.news}
	}
	return answer, err
}

type lateBody struct {
	io.ReadCloser

	news *sync.RWMutex
}

func (b lateBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.news.RLock()
	defer b.news.RUnlock()
	return n, err
}

// The cache of ExternalArtifacts may be behind, for example after an outage of the API
// server. The last write must not be taken for the state that consumers see.
func TestACacheThatIsBehindLeavesNoExternalArtifactBehind(t *testing.T) {
	for name, test := range map[string]func(*scene, *sync.RWMutex){
		"a recovery is seen": func(s *scene, news *sync.RWMutex) {
			s.publishes("app", "1.0.0")
			news.Lock()
			var broken sync.Once
			s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
				failed := false
				broken.Do(func() { w.WriteHeader(http.StatusInternalServerError); failed = true })
				return failed
			})
			s.reconciled("app")
			s.eventually(func(g Gomega) {
				g.Expect(conditions.IsReady(get[sourcev1.ExternalArtifact](g, s, "app"))).To(BeFalse())
			})
			s.reconciled("app")
			s.waitPublished("app", "1.0.0@")
		},
		"a withdrawn artifact goes": func(s *scene, news *sync.RWMutex) {
			s.publishes("other", "1.0.0") // the caches are filled
			news.Lock()
			s.publishes("app", "1.0.0")
			s.labels(nil)
			s.eventually(gone[sourcev1.ExternalArtifact](s, "app"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			var news sync.RWMutex
			s.transport = func(next http.RoundTripper) http.RoundTripper { return late{next, &news} }
			s.start()
			defer news.Unlock()
			test(s, &news)
		})
	}
}

// overtaken is a replica that another one overtakes before it creates an ExternalArtifact.
type overtaken struct {
	http.RoundTripper

	overtake func()
	told     func(status []byte)
}

// RoundTrip implements http.RoundTripper.
func (o overtaken) RoundTrip(r *http.Request) (*http.Response, error) {
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/externalartifacts"):
		o.overtake()
	case r.Method == http.MethodPatch && strings.HasSuffix(r.URL.Path, "/externalartifacts/app/status"):
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		o.told(body)
	}
	return o.RoundTripper.RoundTrip(r)
}

// A former leader that was stopped between the record and the ExternalArtifact, and goes on,
// must not show consumers a superseded artifact.
func TestAFormerLeaderRollsNoConsumerBack(t *testing.T) {
	for name, made := range map[string]bool{
		"the other one has made the ExternalArtifact": true,
		"the other one has not made it yet":           false,
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			var once sync.Once
			var overtakes, astray atomic.Int32
			overtake := func() {
				g := NewWithT(t)
				record := s.record("app")
				record.Status.Artifact.Revision = "9.9.9@" + record.Status.Artifact.Digest
				g.Expect(s.client.Status().Update(t.Context(), record)).To(Succeed())
				overtakes.Add(1)
				if !made {
					return
				}
				kind := v1alpha1.GroupVersion.WithKind(v1alpha1.ArtifactRepositoryKind)
				external := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{
					Namespace: s.namespace, Name: "app", OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(record, kind)},
				}}
				g.Expect(s.client.Create(t.Context(), external)).To(Succeed())
			}
			told := func(status []byte) {
				if record := s.record("app"); !bytes.Contains(status, []byte(`"revision":"`+record.Status.Artifact.Revision+`"`)) {
					astray.Add(1)
				}
			}
			s.transport = func(next http.RoundTripper) http.RoundTripper {
				return overtaken{next, func() { once.Do(overtake) }, told}
			}
			s.start()
			s.publishes("app", "1.0.0")
			NewWithT(t).Expect(overtakes.Load()).To(BeNumerically("==", 1))
			NewWithT(t).Expect(astray.Load()).To(BeZero(), "consumers saw a superseded artifact")
		})
	}
}
