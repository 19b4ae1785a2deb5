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
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// TestTwoWritersConverge runs two processes as leaders, each with its own disk.
func TestTwoWritersConverge(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.start()
	other := s.launch(t.TempDir(), launchOptions{})
	t.Cleanup(other.stop)
	const sources = 5
	name := func(i int) string { return fmt.Sprintf("app-%d", i) }
	for i := range sources {
		s.source(name(i), "1.0.0")
	}
	for i := range sources {
		s.waitPublished(name(i), "1.0.0@")
	}
	for _, tag := range []string{"1.0.1", "1.0.2"} {
		for i := range sources {
			s.push(name(i)+":"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
			s.picks(name(i), imagev1.ImageRef{Tag: tag})
		}
		for i := range sources {
			s.waitPublished(name(i), tag+"@")
		}
	}

	// All pending writes are done after a quiet time longer than the intervals of both.
	s.waitStill(2 * time.Second)
	for i := range sources {
		external := s.waitPublished(name(i), "1.0.2@")
		s.expectServed(external.Status.Artifact)
		g.Expect(s.history(name(i))).To(Equal([]string{"1.0.2", "1.0.1", "1.0.0"}), "no publication is counted twice")
		g.Expect(external.OwnerReferences).To(Equal(controlledBy(name(i), s.record(name(i)).UID)))
	}
	var externals sourcev1.ExternalArtifactList
	g.Expect(s.client.List(t.Context(), &externals, client.InNamespace(s.namespace))).To(Succeed())
	g.Expect(externals.Items).To(HaveLen(sources))
}

// TestAWriterThatReadAnOldRecordStartsAgain lets another process write while a
// pull is under way.
func TestAWriterThatReadAnOldRecordStartsAgain(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	started, release := make(chan struct{}, 1), make(chan struct{})
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			started <- struct{}{}
			<-release
		}
		return false
	})
	s.pushNew("1.0.1")
	g.Eventually(started).WithTimeout(deadline).Should(Receive())

	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		written := v1alpha1.Publication{Revision: "other@" + digestA, Tag: "other", Digest: digestA, PublishedAt: metav1.Now()}
		obj.Status.History = append([]v1alpha1.Publication{written}, obj.Status.History...)
	})
	close(release)

	s.waitPublished("app", "1.0.1@")
	g.Expect(s.history("app")).To(Equal([]string{"1.0.1", "other", "1.0.0"}), "the writes of the other one are not lost")
}

// history returns the published tags, newest first.
func (s *scene) history(name string) []string {
	s.Helper()
	var tags []string
	for _, publication := range s.record(name).Status.History {
		tags = append(tags, publication.Tag)
	}
	return tags
}

// waitStill waits until the scene has been without writes for a while.
func (s *scene) waitStill(quiet time.Duration) {
	s.Helper()
	versions := func() map[string]string {
		all := map[string]string{}
		var records v1alpha1.ArtifactRepositoryList
		var externals sourcev1.ExternalArtifactList
		g := NewWithT(s)
		g.Expect(s.client.List(s.Context(), &records, client.InNamespace(s.namespace))).To(Succeed())
		g.Expect(s.client.List(s.Context(), &externals, client.InNamespace(s.namespace))).To(Succeed())
		for i := range records.Items {
			all["record "+records.Items[i].Name] = records.Items[i].ResourceVersion
		}
		for i := range externals.Items {
			all["external "+externals.Items[i].Name] = externals.Items[i].ResourceVersion
		}
		return all
	}
	last, since := versions(), time.Now()
	s.eventually(func(g Gomega) {
		if now := versions(); !maps.Equal(now, last) {
			last, since = now, time.Now()
		}
		g.Expect(time.Since(since)).To(BeNumerically(">=", quiet), "objects are still being written: %v", last)
	})
}

func TestAProcessThatFollowsAnotherTakesOver(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.start()
	before := s.publishes("app", "1.0.0")
	s.stop()
	s.push("app:1.0.1", publish.Files{"app.yaml": "version: 1.0.1\n"})
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	remove[sourcev1.ExternalArtifact](s, "app")

	s.start()

	after := s.waitPublished("app", "1.0.1@")
	g.Expect(s.record("app").Status.History).To(HaveLen(2))
	g.Expect(after.Status.Artifact.Digest).NotTo(Equal(before.Status.Artifact.Digest))
	s.expectServed(after.Status.Artifact)
}

func TestAProcessWithFinishedWorkDoesNotWrite(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.interval = time.Second
	s.start()
	s.publishes("app", "1.0.0")
	s.waitStill(time.Second)
	s.stop()
	record, external := s.record("app").ResourceVersion, s.external("app").ResourceVersion
	s.registry.Forget()

	s.start()

	// A new process knows no tag, so it asks with GET first, then with HEAD.
	s.rounds(2, "HEAD")
	g.Expect(s.registry.Count("GET", "/blobs/")).To(BeZero())
	g.Expect(s.record("app").ResourceVersion).To(Equal(record))
	g.Expect(s.external("app").ResourceVersion).To(Equal(external))
}
