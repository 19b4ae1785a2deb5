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
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// asked calls a function for each read of an object, and answers with its error.
type asked struct {
	client.Client
	of func(client.ObjectKey) error
}

// Get implements client.Reader.
func (a asked) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return a.of(key)
}

// A change during the reads must end the attempt: the objects may be older than the change.
func TestAnAttemptBeginsBeforeObjectsAreRead(t *testing.T) {
	g, away := NewWithT(t), errors.New("no API server")
	r, key := &ArtifactRepositoryReconciler{Writer: &Writer{}}, types.NamespacedName{Namespace: "apps", Name: "app"}
	r.Writer.written.add(key, "7")
	reads := 0
	r.Snapshots.Client = asked{of: func(of client.ObjectKey) error {
		reads++
		g.Expect(r.inflight.has(of)).To(BeTrue())
		return away
	}}

	_, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
	g.Expect(err).To(MatchError(away))
	g.Expect(reads).To(Equal(1))
	g.Expect(r.inflight.has(key)).To(BeFalse())
	g.Expect(r.Writer.written.has(key, "7")).To(BeTrue(), "an error does not drop the state")
}

func TestTheContextsOfAnAttempt(t *testing.T) {
	key := types.NamespacedName{Namespace: "apps", Name: "app"}
	for name, test := range map[string]struct {
		event               func(*inflight)
		judging, attempting error
	}{
		"no event":         {func(*inflight) {}, nil, nil},
		"interrupted":      {func(f *inflight) { f.interrupt(key) }, context.Canceled, context.Canceled},
		"abandoned":        {func(f *inflight) { f.abandon(key) }, nil, context.Canceled},
		"another is ended": {func(f *inflight) { f.interrupt(types.NamespacedName{Namespace: "apps", Name: "other"}) }, nil, nil},
		"abandoned, then interrupted": {func(f *inflight) {
			f.abandon(key)
			f.interrupt(key)
		}, context.Canceled, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var running inflight
			work, end := running.begin(t.Context(), key)
			test.event(&running)
			if test.judging == nil {
				g.Expect(work.judging.Err()).NotTo(HaveOccurred())
			} else {
				g.Expect(work.judging.Err()).To(MatchError(test.judging))
			}
			if test.attempting == nil {
				g.Expect(work.attempting.Err()).NotTo(HaveOccurred())
			} else {
				g.Expect(work.attempting.Err()).To(MatchError(test.attempting))
			}
			g.Expect(work.overtaken(false)).To(Equal(test.attempting != nil))
			g.Expect(work.overtaken(true)).To(Equal(test.judging != nil), "a withdrawal is told")
			end()
			g.Expect(running.running).To(BeEmpty())
			running.interrupt(key)
		})
	}
}
