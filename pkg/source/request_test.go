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

package source_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/source"
)

func TestRequests(t *testing.T) {
	ask := func(obj metav1.Object) { obj.SetAnnotations(map[string]string{meta.ReconcileRequestAnnotation: "now"}) }
	for sentence, c := range map[string]struct {
		change    func(*situation)
		requested bool
		token     string
	}{
		"without a request":                {change: func(*situation) {}},
		"on the object":                    {change: func(s *situation) { ask(s.obj) }, requested: true, token: "now"},
		"on the ExternalArtifact":          {change: func(s *situation) { ask(s.external) }, requested: true, token: "now"},
		"on the ImagePolicy":               {change: func(s *situation) { ask(s.policy) }, requested: true},
		"on the ImageRepository":           {change: func(s *situation) { ask(s.repository) }, requested: true},
		"on an object that is new":         {change: func(s *situation) { ask(s.obj); s.obj.Status.ObservedGeneration = 0 }},
		"on the object, and was handled":   {change: func(s *situation) { ask(s.obj); s.obj.Status.LastHandledReconcileAt = "now" }},
		"handed on to the ImageRepository": {change: func(s *situation) { ask(s.repository); s.obj.Status.LastHandledReconcileAt = "now" }},
		"on an ImageRepository that was seen": {change: func(s *situation) {
			ask(s.repository)
			s.obj.Status.ObservedRequests = &v1alpha1.ObservedRequests{ImageRepository: "now"}
		}},
	} {
		t.Run(sentence, func(t *testing.T) {
			g, s := NewWithT(t), newSituation()
			s.obj.Status.ObservedGeneration, s.external = 1, external(func(*sourcev1.ExternalArtifact) {})
			c.change(s)
			now := s.snapshot()
			g.Expect(now.Requested()).To(Equal(c.requested))
			g.Expect(now.NewToken()).To(Equal(c.token))
			s.obj.Status.ObservedGeneration = 1
			s.obj.Status.LastHandledReconcileAt, s.obj.Status.ObservedRequests = now.Acknowledged()
			g.Expect(s.snapshot().Requested()).To(BeFalse(), "it is acknowledged")
		})
	}
}

func TestARequestThatIsGoneStaysAcknowledged(t *testing.T) {
	g, s := NewWithT(t), newSituation()
	seen := v1alpha1.ObservedRequests{ImagePolicy: "a", ImageRepository: "b", ExternalArtifact: "c"}
	s.obj.Status.LastHandledReconcileAt, s.obj.Status.ObservedRequests = "d", &seen
	handled, observed := s.snapshot().Acknowledged()
	g.Expect(handled).To(Equal("d"))
	g.Expect(*observed).To(Equal(seen))
}

func TestALongRequestIsRepeatedAsItsHash(t *testing.T) {
	obj := newSituation().obj
	obj.Annotations = map[string]string{meta.ReconcileRequestAnnotation: strings.Repeat("x", v1alpha1.MaxRequestBytes+1)}
	NewWithT(t).Expect(source.Token(obj)).To(And(HavePrefix("sha256:"), HaveLen(len("sha256:")+64)))
}
