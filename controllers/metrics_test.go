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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/test/publish"
)

// arrivals are how many picks were measured on their way, and how many seconds
// they took altogether.
func (s *scene) arrivals() (picks int, seconds float64) {
	s.Helper()
	figures := s.figures()
	return int(figures["image_source_publish_duration_seconds_count"]), figures["image_source_publish_duration_seconds_sum"]
}

func (s *scene) publications() int {
	s.Helper()
	return int(s.figures()["image_source_publications_total"])
}

// figures are the metrics without labels.
func (s *scene) figures() map[string]float64 {
	s.Helper()
	families, err := s.running.metrics.Gather()
	NewWithT(s).Expect(err).NotTo(HaveOccurred())
	figures := map[string]float64{}
	for _, family := range families {
		name, metric := family.GetName(), family.GetMetric()[0]
		if len(metric.GetLabel()) > 0 {
			continue
		}
		figures[name] = metric.GetCounter().GetValue()
		figures[name+"_count"] = float64(metric.GetHistogram().GetSampleCount())
		figures[name+"_sum"] = metric.GetHistogram().GetSampleSum()
	}
	return figures
}

func TestAPickThatFailedAtFirstIsMeasuredFromWhenItWasSeen(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	s.reconciled("app")
	before, took := s.arrivals()

	answering("/blobs/", code(503))(s)
	s.waitFailed("app", v1alpha1.ReasonFetchFailed)
	failed := time.Now()
	s.reconciled("app") // fails as well
	least := time.Since(failed).Seconds()
	s.answers()
	s.waitPublished("app", "1.0.1@")

	s.eventually(func(g Gomega) {
		now, _ := s.arrivals()
		g.Expect(now).To(Equal(before + 1))
	})
	_, altogether := s.arrivals()
	g.Expect(altogether - took).To(BeNumerically(">", least))
	s.reconciled("app") // is no arrival
	now, _ := s.arrivals()
	g.Expect(now).To(Equal(before + 1))
	g.Expect(s.publications()).To(Equal(2))
}

func TestTheTimeThatAUserNeedsIsNotMeasured(t *testing.T) {
	for name, c := range map[string]struct {
		reason     string
		stop, free func(*scene)
	}{
		"a namespace that has yet to opt in": {
			reason: v1alpha1.ReasonAccessDenied,
			stop:   func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: "on"}) },
			free:   func(s *scene) { s.labels(map[string]string{v1alpha1.UseAsSource: v1alpha1.UseAsSourceEnabled}) },
		},
		"a source that is suspended": {
			reason: v1alpha1.ReasonSuspended,
			stop: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
			},
			free: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = false })
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			s.publishes("app", "1.0.0")
			c.stop(s)
			s.push("app:1.0.1", publish.Files{"app.yaml": "version: 2\n"})
			s.eventually(func(g Gomega) {
				g.Expect(conditions.GetReason(get[v1alpha1.ArtifactRepository](g, s, "app"), meta.ReadyCondition)).To(Equal(c.reason))
			})
			s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			edit(s, "app", func(obj *imagev1.ImagePolicy) { request(obj, "seen with the pick") })
			s.eventually(func(g Gomega) {
				obj := get[v1alpha1.ArtifactRepository](g, s, "app")
				g.Expect(obj.Status.ObservedRequests).To(HaveField("ImagePolicy", "seen with the pick"))
			})
			s.reconciled("app")
			before, _ := s.arrivals()

			c.free(s)
			s.waitPublished("app", "1.0.1@")
			s.reconciled("app")
			now, _ := s.arrivals()
			g.Expect(now).To(Equal(before))
			g.Expect(s.publications()).To(Equal(2))

			s.pushNew("1.0.2")
			s.waitPublished("app", "1.0.2@")
			s.eventually(func(g Gomega) {
				now, _ := s.arrivals()
				g.Expect(now).To(Equal(before + 1))
			})
		})
	}
}

// A registry chooses the status codes of its answers.
func TestCodesThatARegistryInventsMakeFewFigures(t *testing.T) {
	g := NewWithT(t)
	registerer := prometheus.NewRegistry()
	metrics, err := controllers.NewMetrics(registerer)
	g.Expect(err).NotTo(HaveOccurred())
	for code := range 1000 {
		metrics.ObserveRegistry(registry.Observation{Host: "registry.example.com", Operation: "ping", Code: code})
	}
	families, err := registerer.Gather()
	g.Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		g.Expect(len(family.GetMetric())).To(BeNumerically("<", 100), family.GetName())
	}
}
