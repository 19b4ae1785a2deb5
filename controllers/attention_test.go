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

	"github.com/image-source/image-source-controller/pkg/bridge"
)

// asked calls a function for each object that is read, and answers with its error.
type asked struct {
	client.Client
	of func(client.ObjectKey) error
}

// Get implements client.Reader.
func (a asked) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	return a.of(key)
}

// A change that arrives while objects are read must end the attempt: the objects may be
// from before it.
func TestAnAttemptBeginsBeforeObjectsAreRead(t *testing.T) {
	g, away := NewWithT(t), errors.New("no API server")
	r, key := &ArtifactRepositoryReconciler{}, types.NamespacedName{Namespace: "apps", Name: "app"}
	refused := &bridge.Refusal{Err: away}
	r.attention.on(key, func(n *note) { n.refused = refused })
	reads := 0
	r.Client = asked{of: func(of client.ObjectKey) error {
		reads++
		g.Expect(r.attention.attends(of)).To(BeTrue())
		return away
	}}

	_, err := r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
	g.Expect(err).To(MatchError(away))
	g.Expect(reads).To(Equal(1))
	g.Expect(r.attention.attends(key)).To(BeFalse())
	g.Expect(r.attention.refusal(key)).To(BeIdenticalTo(refused), "an error forgets nothing")
}

func TestTheEndOfAnAttemptRemembersNoForgottenObject(t *testing.T) {
	g, key := NewWithT(t), types.NamespacedName{Namespace: "apps", Name: "app"}
	var a attention
	_, _, end := a.begin(t.Context(), key)
	a.forget(key)
	end()
	g.Expect(a.notes).To(BeEmpty())
}
