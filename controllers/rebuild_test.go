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
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	. "github.com/onsi/gomega"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/flight"
	"github.com/image-source/image-source-controller/pkg/pipeline"
	"github.com/image-source/image-source-controller/pkg/source"
	"github.com/image-source/image-source-controller/pkg/throttle"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// A source that comes again too early delays all others.
func TestARebuildIsToldWhenToComeAgain(t *testing.T) {
	g := NewWithT(t)
	obj := &v1alpha1.ArtifactRepository{Spec: v1alpha1.ArtifactRepositorySpec{Image: "registry.example/app"}}
	obj.Status.Record = &v1alpha1.Recipe{Image: "registry.example/app", Digest: "sha256:" + digestOfNothing}
	s := source.Snapshot{Object: obj}
	target, err := s.Recorded()
	g.Expect(err).NotTo(HaveOccurred())
	e := &Evaluator{Pipeline: &pipeline.Pipeline{Throttle: &throttle.Throttle{}}}
	fill(g, e.Pipeline.Throttle, target)
	var last time.Duration
	for range 3 {
		_, err := e.rebuild(t.Context(), s, trustpolicy.Demands{})
		busy, ok := errors.AsType[*throttle.Busy](err)
		g.Expect(ok).To(BeTrue(), "%v", err)
		g.Expect(busy.Wait).To(BeNumerically(">", last))
		last = busy.Wait
	}
}

// fill takes all places of attempts that test the registry of a target.
func fill(g Gomega, t *throttle.Throttle, target source.Target) {
	request := throttle.Request{Way: throttle.Way{Host: target.Repository.RegistryStr()}}
	for {
		if _, err := t.Enter(request); err != nil {
			g.Expect(throttle.IsHeld(err)).To(BeTrue())
			return
		}
	}
}

// A panic is no answer of a registry: it must close no way of others.
func TestAPanicIsLoggedWithItsStackAndNoFaultOfARegistry(t *testing.T) {
	g := NewWithT(t)
	var log strings.Builder
	ctx := ctrl.LoggerInto(t.Context(), funcr.New(func(_, args string) { log.WriteString(args) }, funcr.Options{}))
	var group flight.Group[string, int]
	_, _, err := group.Do(ctx, "image", func(context.Context) (int, error) { panic("index out of range") })
	err = panicFault(ctx, fault.Retryf(v1alpha1.ReasonFetchFailed, "fetch: %w", err))
	g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonProgressingWithRetry))
	g.Expect(err).To(MatchError(ContainSubstring("index out of range")))
	g.Expect(log.String()).To(ContainSubstring("TestAPanicIsLoggedWithItsStack"))

	another := errors.New("another one")
	g.Expect(panicFault(ctx, another)).To(BeIdenticalTo(another))
	g.Expect(panicFault(ctx, nil)).To(Succeed())
}

const digestOfNothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
