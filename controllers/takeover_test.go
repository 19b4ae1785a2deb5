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
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/yaml"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// fixture is a source with the name app, as a former build left it.
type fixture struct {
	// Tags of the image app in the registry.
	Tags []string
	// Disk holds the files of the store in base64, by their paths.
	Disk map[string]string
	// Objects, owners before their dependents.
	Objects []*unstructured.Unstructured
}

// outcomes other than a mere takeover, by the names of the fixtures.
var outcomes = map[string]struct {
	// events to be sent, as kind and reason.
	events []string
	// revision of the ExternalArtifact, by its beginning, if it changes.
	revision string
	// republished: the record is new.
	republished bool
	// withdrawn: no artifact is published any more.
	withdrawn bool
}{
	// The former build had recorded it, and told neither consumers nor people: both is made
	// up for.
	"progressing": {events: []string{"ArtifactRepository NewArtifact", "ExternalArtifact NewArtifact"}, revision: "2.0.0@"},
	// An artifact without a recipe cannot be judged or rebuilt: it is removed from the
	// record. The pick of the policy is published in its place at once, here the same image
	// again.
	"without-recipe": {events: []string{"ArtifactRepository NewArtifact", "ExternalArtifact NewArtifact"}, republished: true},
	// The artifact of a deleted object is no longer judged: it must not stay until the
	// finalizer is removed. The user who deleted it gets no event.
	"deleted": {withdrawn: true},
}

// An upgrade is not an event: the sources of a former build in the API server and on the
// disk are taken over without a publication, a withdrawal or an event, even if their
// conditions use other words.
func TestSourcesOfFormerBuildsAreTakenOver(t *testing.T) {
	files, err := filepath.Glob("testdata/takeover/*/*.yaml")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(files).NotTo(BeEmpty())
	for _, file := range files {
		build, state := filepath.Base(filepath.Dir(file)), strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(build+" "+state, func(t *testing.T) { takeOver(t, file, state, false) })
		t.Run(build+" "+state+" in other words", func(t *testing.T) { takeOver(t, file, state, true) })
	}
}

func takeOver(t *testing.T, file, state string, reword bool) {
	s, g := newScene(t), NewWithT(t)
	var mu sync.Mutex
	var told []string
	heard := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(slices.Values(told))
	}
	s.overheard = func(about runtime.Object, reason, message string) {
		mu.Lock()
		defer mu.Unlock()
		kind, err := apiutil.GVKForObject(about, scheme())
		if err != nil {
			t.Error(err)
		}
		told = append(told, kind.Kind+" "+reason)
		t.Logf("event: %s %s: %s", kind.Kind, reason, message)
	}
	s.leave(file, reword)
	before, outcome := s.record("app"), outcomes[state]
	external, announced := s.announced("app")

	s.start()
	if outcome.withdrawn {
		s.eventually(func(g Gomega) { g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil()) })
		s.eventually(gone[sourcev1.ExternalArtifact](s, "app"))
		g.Expect(heard()).To(BeEmpty())
		return
	}
	// The first reconcile needs no request, which would itself be a reason to look closer.
	// The request shows then that the source has come to rest.
	s.eventually(func(g Gomega) { g.Expect(s.looks("app")).To(BeNumerically(">", 0)) })
	after := s.reconciled("app")

	// Events are sent behind the reconcile.
	s.eventually(func(g Gomega) { g.Expect(len(heard())).To(BeNumerically(">=", len(outcome.events))) })
	g.Expect(heard()).To(Equal(outcome.events))
	if outcome.republished {
		g.Expect(after.Status.Artifact.Revision).To(Equal(before.Status.Artifact.Revision))
		g.Expect(after.Status.Record).NotTo(BeNil())
	} else {
		g.Expect(after.Status.Artifact).To(Equal(before.Status.Artifact))
		g.Expect(after.Status.History).To(Equal(before.Status.History))
		g.Expect(s.publications() > 0).To(Equal(outcome.revision != ""))
	}
	g.Expect(after.Status.Withdrawn).To(Equal(before.Status.Withdrawn))
	now, _ := s.announced("app")
	if announced {
		g.Expect(now.UID).To(Equal(external.UID), "it was not deleted meanwhile")
	}
	if outcome.revision == "" && !outcome.republished {
		g.Expect(now.Status.Artifact).To(Equal(external.Status.Artifact))
	} else {
		g.Expect(now.Status.Artifact).To(Equal(after.Status.Artifact))
		g.Expect(now.Status.Artifact.Revision).To(HavePrefix(outcome.revision))
	}
	if now.Status.Artifact != nil {
		s.expectServed(now.Status.Artifact)
	}
}

// announced returns the ExternalArtifact, if it exists. Former builds made no
// ExternalArtifact for a source without a publication; an empty one is no news to consumers.
func (s *scene) announced(name string) (external *sourcev1.ExternalArtifact, ok bool) {
	s.Helper()
	external = &sourcev1.ExternalArtifact{}
	err := s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, external)
	NewWithT(s).Expect(client.IgnoreNotFound(err)).To(Succeed())
	return external, err == nil
}

// looks is how often the ArtifactRepository was reconciled by this process.
func (s *scene) looks(name string) (looks int) {
	families, err := s.running.metrics.Gather()
	NewWithT(s).Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		if family.GetName() != "gotk_reconcile_duration_seconds" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if labels["kind"] == v1alpha1.ArtifactRepositoryKind && labels["name"] == name {
				looks += int(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	return looks
}

// leave fills registry, disk and API server as a former build left them, if need be with
// other words in the conditions of the source.
func (s *scene) leave(file string, reword bool) {
	s.Helper()
	g := NewWithT(s)
	text, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	text = []byte(strings.NewReplacer("${namespace}", s.namespace, "${registry}", s.registry.Host(), "${storage}", s.artifacts.host()).Replace(string(text)))
	var left fixture
	g.Expect(yaml.UnmarshalStrict(text, &left)).To(Succeed())
	for _, tag := range left.Tags {
		s.push("app:"+tag, version(tag))
	}
	for path, content := range left.Disk {
		decoded, err := base64.StdEncoding.DecodeString(content)
		g.Expect(err).NotTo(HaveOccurred())
		path = filepath.Join(s.storage, filepath.FromSlash(path))
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o750)).To(Succeed())
		g.Expect(os.WriteFile(path, decoded, 0o600)).To(Succeed())
	}
	uids := map[types.UID]types.UID{}
	for _, obj := range left.Objects {
		if obj.GetKind() == "Namespace" {
			s.labels(obj.GetLabels())
			continue
		}
		s.put(obj, uids, reword)
	}
}

// put writes an object with its status, and notes its new UID.
func (s *scene) put(obj *unstructured.Unstructured, uids map[types.UID]types.UID, reword bool) {
	s.Helper()
	g := NewWithT(s)
	created := obj.DeepCopy()
	created.SetUID("")
	created.SetResourceVersion("")
	created.SetDeletionTimestamp(nil)
	owners := created.GetOwnerReferences()
	for i := range owners {
		owners[i].UID = uids[owners[i].UID]
		g.Expect(owners[i].UID).NotTo(BeEmpty(), "the owner comes first")
	}
	created.SetOwnerReferences(owners)
	g.Expect(s.client.Create(s.Context(), created)).To(Succeed())
	if obj.GetNamespace() == "" {
		s.Cleanup(func() { _ = s.client.Delete(s.T.Context(), created) })
	}
	uids[obj.GetUID()] = created.GetUID()
	if obj.GetDeletionTimestamp() != nil {
		g.Expect(s.client.Delete(s.Context(), created)).To(Succeed())
		g.Expect(s.client.Get(s.Context(), client.ObjectKeyFromObject(created), created)).To(Succeed())
	}
	status, ok := obj.Object["status"].(map[string]any)
	if !ok {
		return
	}
	observed(status, created.GetGeneration()-obj.GetGeneration())
	conditions, _, _ := unstructured.NestedSlice(status, "conditions")
	for _, condition := range conditions {
		if condition := condition.(map[string]any); reword && ofASource(obj) {
			condition["message"] = fmt.Sprintf("as it was said before: %s", condition["message"])
		}
	}
	if conditions != nil {
		status["conditions"] = conditions
	}
	created.Object["status"] = status
	g.Expect(s.client.Status().Update(s.Context(), created)).To(Succeed())
}

// ofASource tells whether the conditions of an object are those of a source. Those of a
// TrustPolicy and of Flux's objects are not reworded.
func ofASource(obj *unstructured.Unstructured) bool {
	return obj.GetKind() == v1alpha1.ArtifactRepositoryKind || obj.GetKind() == sourcev1.ExternalArtifactKind
}

// observed changes the generations in a status: an object that is created again starts from
// the first.
func observed(status map[string]any, by int64) {
	const field = "observedGeneration"
	move := func(in map[string]any) {
		if generation, ok := in[field].(int64); ok {
			in[field] = generation + by
		}
	}
	move(status)
	conditions, _ := status["conditions"].([]any)
	for _, condition := range conditions {
		move(condition.(map[string]any))
	}
}
