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
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// The message of a failure may differ at each attempt. This must cause neither another event
// nor a write.
func TestOneFailureIsToldOnce(t *testing.T) {
	for sentence, answer := range map[string]func(w http.ResponseWriter){
		"a request id": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, `{"errors":[{"code":"UNAVAILABLE","message":"out of order, request %s at %s"}]}`, randomID(), time.Now().Format(time.RFC3339Nano))
		},
		"a connection that is reset": func(w http.ResponseWriter) {
			panic(http.ErrAbortHandler)
		},
		"a connection that ends early": func(w http.ResponseWriter) {
			if connection, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_ = connection.Close()
			}
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := newScene(t)
			s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
				answer(w)
				return true
			})
			s.start()
			s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Tag: "1.0.0", Interval: &metav1.Duration{Duration: time.Second}}
			})
			s.waitFailed("app", v1alpha1.ReasonFetchFailed)
			s.eventually(func(g Gomega) { get[sourcev1.ExternalArtifact](g, s, "app") })
			attempts := len(s.registry.Requests())
			var version string
			s.eventually(func(g Gomega) {
				g.Expect(len(s.registry.Requests())).To(BeNumerically(">", attempts+2))
				version = s.record("app").ResourceVersion
			})
			attempts = len(s.registry.Requests())
			s.eventually(func(g Gomega) { g.Expect(len(s.registry.Requests())).To(BeNumerically(">", attempts+4)) })

			g := NewWithT(t)
			g.Expect(s.record("app").ResourceVersion).To(Equal(version), "%v", s.record("app").Status.Conditions)
			for _, kind := range []string{v1alpha1.ArtifactRepositoryKind, sourcev1.ExternalArtifactKind} {
				events := s.events(kind, "app")
				g.Expect(events).To(HaveLen(1), kind)
				g.Expect(events[0].Count).To(BeNumerically("<=", 1), kind)
			}

			// Another tag is another failure.
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "2.0.0" })
			s.eventually(func(g Gomega) {
				told := 0
				for _, event := range s.events(v1alpha1.ArtifactRepositoryKind, "app") {
					told += int(max(event.Count, 1))
				}
				g.Expect(told).To(Equal(2))
			})
		})
	}
}

func randomID() string {
	var id [12]byte
	_, _ = rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
