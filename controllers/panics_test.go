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
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/bridge"
	"github.com/image-source/image-source-controller/pkg/publication"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trustpolicy"
)

// panickingStore panics where content is stored, as a parser may at an artifact that was made for it.
type panickingStore struct{ bridge.Store }

func (panickingStore) Put(context.Context, store.Key, store.File) (store.Stored, error) {
	panic("index out of range")
}

// panickingReader panics where a Secret of a tenant is read.
type panickingReader struct{ trustpolicy.Reader }

func (r panickingReader) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	if namespace == "apps" {
		panic("index out of range")
	}
	return r.Reader.Secret(ctx, namespace, name)
}

// verifies demands a signature by spec.verify.
func verifies(obj *v1alpha1.ArtifactRepository) {
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
}

// A pusher can make an artifact that a parser panics at. FetchFailed would close the way to
// the registry for others, and nobody would find the stack.
func TestAPanicAtAnArtifactSaysNothingAboutItsRegistry(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	s.Pipeline.Bridge = bridge.New(panickingStore{s.Store}, time.Now)
	d := s.decide(t, s.snapshot(t), nil)
	g.Expect(d.failure()).To(MatchError(ContainSubstring("a bug in this controller")))
	g.Expect(d.failure().Reason).To(Equal(v1alpha1.ReasonProgressingWithRetry))
}

// Without them, any bytes of the image would be published and recorded as accepted.
func TestBytesAreNotMadeAgainByDemandsThatNobodyRead(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	s.platform.governs(1, v1alpha1.ModeEnforce, "**")
	snapshot := s.published(t)
	g.Expect(snapshot.Object.Status.ObservedTrust).NotTo(BeEmpty())
	g.Expect(os.Remove(filepath.Join(s.root, snapshot.Object.Status.Artifact.Path))).To(Succeed())
	snapshot.Object.Status.Artifact.URL = "http://before.example/app" // as of a server that had another address
	verifies(snapshot.Object)
	s.Trust.Reader = panickingReader{s.Trust.Reader}
	d := s.decide(t, snapshot, nil)
	g.Expect(d.failure()).To(MatchError(ContainSubstring("a bug in this controller")))
	after := publication.Apply(snapshot.Object.Status, d.change)
	g.Expect(after.ObservedTrust).To(Equal(snapshot.Object.Status.ObservedTrust))
	g.Expect(d.change.Kind()).To(Equal(publication.KindKeep))
}

// rottenStore panics where it is asked for the file of a key.
type rottenStore struct{ bridge.Store }

func (rottenStore) Link(context.Context, store.Key, string) (store.Stored, bool, error) {
	panic("index out of range")
}

func TestAPanicWhileBytesAreMadeAgainEndsNothingElse(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	snapshot.Object.Spec.Suspend = true
	s.platform.governs(1, v1alpha1.ModeEnforce, "**")
	snapshot = s.refreshed(t, snapshot)
	g.Expect(os.Remove(filepath.Join(s.root, snapshot.Object.Status.Artifact.Path))).To(Succeed())
	s.Pipeline.Bridge = bridge.New(rottenStore{s.Store}, time.Now)
	var d decision
	g.Expect(func() { d = s.decide(t, snapshot, nil) }).NotTo(Panic())
	g.Expect(d.change.Kind()).To(Equal(publication.KindConfirm), "the judgement is recorded")
	g.Expect(d.stored).To(BeFalse())
}

// A tenant can have conflicts of image objects all the time.
func TestAPanicIsToldWhateverElseWaits(t *testing.T) {
	g, s := NewWithT(t), newStage(t)
	snapshot := s.published(t)
	verifies(snapshot.Object)
	s.Trust.Reader = panickingReader{s.Trust.Reader}
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "imagepolicies"}, "app", errBroken)
	d := s.decide(t, snapshot, conflict)
	g.Expect(d.silent).To(BeFalse())
	g.Expect(d.failure()).To(MatchError(ContainSubstring("a bug in this controller")))
}
