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
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/test/publish"
)

// follower is a process that is not the leader, with its own empty disk and address.
type follower struct {
	*scene
	storage string
	store   *store.Replica
	server  *httptest.Server
	// end ends the process; its disk stays.
	end func()
}

// follower starts a follower; without peers, only the registry has files for it.
func (s *scene) follower(peers ...string) follower {
	s.Helper()
	return s.followerOn(s.TempDir(), peers...)
}

// followerOn starts a follower on a disk.
func (s *scene) followerOn(storage string, peers ...string) follower {
	s.Helper()
	process := s.launch(storage, launchOptions{peers: peers, follows: true})
	f := follower{scene: s, storage: storage, store: process.store, server: httptest.NewServer(process.handler)}
	f.end = sync.OnceFunc(func() {
		f.server.Close()
		process.stop()
	})
	s.Cleanup(f.end)
	s.eventually(func(g Gomega) {
		var list v1alpha1.ArtifactRepositoryList
		g.Expect(process.manager.GetClient().List(s.Context(), &list)).To(Succeed())
	})
	return f
}

// asked returns the status code and the digest of a follower's answer for an artifact.
func (f follower) asked(artifact *meta.Artifact) (int, string, error) {
	request, err := http.NewRequestWithContext(f.Context(), http.MethodGet, f.server.URL+"/"+artifact.Path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	response, err := f.server.Client().Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, "", err
	}
	if response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") == "" {
		return 0, "", errors.New("503 without Retry-After")
	}
	digest, _, err := v1.SHA256(bytes.NewReader(body))
	return response.StatusCode, digest.String(), err
}

func (f follower) expectServed(artifact *meta.Artifact) {
	f.Helper()
	g := NewWithT(f)
	code, digest, err := f.asked(artifact)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(code).To(Equal(http.StatusOK))
	g.Expect(digest).To(Equal(artifact.Digest))
}

func (f follower) expectCode(artifact *meta.Artifact, want int) {
	f.Helper()
	g := NewWithT(f)
	code, _, err := f.asked(artifact)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(code).To(Equal(want))
}

func (f follower) has(artifact *meta.Artifact) bool {
	return fileExists(filepath.Join(f.storage, filepath.FromSlash(artifact.Path)))
}

func TestAFollowerGetsAMissingFileFromAPeer(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	f := s.follower(s.artifacts.host())
	s.registry.Forget()

	f.expectServed(artifact)

	g.Expect(s.registry.Requests()).To(BeEmpty(), "a peer has it")
	g.Expect(f.has(artifact)).To(BeTrue())
}

func TestAFollowerRebuildsAFileThatNoReplicaHas(t *testing.T) {
	for kind, files := range sources() {
		for name, meanwhile := range map[string]func(*scene){
			"no other change": func(*scene) {},
			"the tag moved and the policy is not ready": func(s *scene) {
				s.push("app:1.0.0", publish.Files{"app.yaml": "version: moved\n"})
				editStatus(s, "app", func(obj *imagev1.ImagePolicy) { obj.Status.LatestRef = nil })
			},
			"it is suspended": func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
			},
			"ignore was changed": func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("*.md") })
			},
			"the registry asks for a login, and the ImageRepository has one since": func(s *scene) {
				s.registry.Answer(publish.DemandBasic(map[string]string{"robot": "s3cret"}))
				s.create(s.dockerConfig(client.ObjectKey{Namespace: s.namespace, Name: "login"}, "robot", "s3cret"))
				edit(s, "app", func(obj *imagev1.ImageRepository) { obj.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} })
			},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				s := startScene(t)
				s.push("app:1.0.0", files)
				s.imageRepository("app")
				s.imagePolicy("app", annotated)
				s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
				artifact := s.waitPublished("app", "1.0.0@").Status.Artifact
				s.stop()
				meanwhile(s)

				s.follower().expectServed(artifact)
			})
		}
	}
}

// The objects of a source name another image meanwhile: the recorded image comes from a
// peer, or is rebuilt with the access that its registry may see; otherwise an error has the
// reason. No registry sees the credentials for another one.
func TestAFollowerOfASourceThatNamesAnotherImageSince(t *testing.T) {
	followed := func(s *scene) {
		s.imageRepository("app")
		s.imagePolicy("app")
		s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
		s.artifactRepository("app")
	}
	written := func(s *scene) {
		s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) {
			obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: s.image("app"), Tag: "1.0.0"}
		})
	}
	// naming makes the spec name another image, with a Secret for it.
	naming := func(image func(here, there string) string) func(*scene, string) {
		return func(s *scene, there string) {
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) {
				obj.Spec.Image, obj.Spec.SecretRef = image(s.registry.Host(), there), &meta.LocalObjectReference{Name: "login"}
			})
		}
	}
	otherRepository := naming(func(here, _ string) string { return here + "/team/other" })
	otherHost := naming(func(_, there string) string { return there + "/team/app" })
	const notNamed = "another registry than the image named now"
	for name, tc := range map[string]struct {
		source func(*scene)
		// since is an event while there was no leader; there is another registry.
		since func(s *scene, there string)
		// denied: the registry of the image requires a login. here: the login is for it, and
		// not for the other one.
		denied, here bool
		// why it cannot be made again; empty: it can.
		why string
	}{
		"another repository, and everybody may pull":               {source: written, since: otherRepository},
		"another repository, and the login of today opens both":    {source: written, since: otherRepository, denied: true, here: true},
		"another repository, and today's login is for no registry": {source: written, since: otherRepository, denied: true, why: "401 Unauthorized"},
		"another host, and everybody may pull":                     {source: written, since: otherHost},
		"another host, and the login is for both":                  {source: written, since: otherHost, denied: true, here: true},
		"another host, and the login is for that one":              {source: written, since: otherHost, denied: true, why: notNamed},
		"a policy for another host, and the login is for that one": {source: followed, denied: true, why: notNamed, since: func(s *scene, there string) {
			s.imageRepository("other", func(obj *imagev1.ImageRepository) {
				obj.Spec.Image, obj.Spec.SecretRef = there+"/team/app", &meta.LocalObjectReference{Name: "login"}
			})
			s.imagePolicy("other", func(obj *imagev1.ImagePolicy) { obj.Spec.ImageRepositoryRef.Name = "other" })
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.ImagePolicyRef.Name = "other" })
		}},
		"an ImageRepository of another host": {source: followed, denied: true, why: notNamed, since: func(s *scene, there string) {
			edit(s, "app", func(obj *imagev1.ImageRepository) {
				obj.Spec.Image, obj.Spec.SecretRef = there+"/team/app", &meta.LocalObjectReference{Name: "login"}
			})
		}},
		"an ImageRepository that is deleted": {source: followed, why: "does not exist", since: func(s *scene, _ string) {
			remove[imagev1.ImageRepository](s, "app")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1.0.0\n"})
			tc.source(s)
			artifact := s.waitPublished("app", "1.0.0@").Status.Artifact
			keeper := s.follower(s.artifacts.host())
			keeper.expectServed(artifact)
			s.stop()
			another := publish.Serve()
			defer another.Close()
			secret := s.dockerConfig(client.ObjectKey{Namespace: s.namespace, Name: "login"}, "robot", "s3cret")
			if !tc.here {
				secret.StringData[corev1.DockerConfigJsonKey] = strings.ReplaceAll(secret.StringData[corev1.DockerConfigJsonKey], s.registry.Host(), another.Host())
			}
			s.create(secret)
			tc.since(s, another.Host())
			var shown atomic.Bool
			demand := publish.DemandBasic(map[string]string{"robot": "s3cret"})
			s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") != "" {
					shown.Store(true)
				}
				return tc.denied && demand(w, r)
			})

			f := s.follower()
			if tc.why == "" {
				f.expectServed(artifact)
			} else {
				f.expectCode(artifact, http.StatusServiceUnavailable)
				g.Expect(s.log.String()).To(And(ContainSubstring("a consumer asked for published bytes that could not be had"), ContainSubstring(tc.why)))
				g.Expect(f.has(artifact)).To(BeFalse())
			}
			g.Expect(shown.Load()).To(Equal(tc.here), "whether a login was shown")
			g.Expect(another.Requests()).To(BeEmpty())
			s.registry.Forget()
			s.follower(keeper.server.Listener.Addr().String()).expectServed(artifact)
			g.Expect(s.registry.Requests()).To(BeEmpty(), "a peer has it")
		})
	}
}

func TestAFileIsRebuiltOnceForManyWaitingConsumers(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	s.stop()
	f := s.follower()
	s.registry.Forget()
	release := make(chan struct{})
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-release
		}
		return false
	})

	const waiting = 50
	var begun sync.WaitGroup
	begun.Add(waiting)
	var asking errgroup.Group
	for range waiting {
		asking.Go(func() error {
			begun.Done()
			code, digest, err := f.asked(artifact)
			if err == nil && (code != http.StatusOK || digest != artifact.Digest) {
				err = fmt.Errorf("answered %d, %s", code, digest)
			}
			return err
		})
	}
	begun.Wait()
	g.Eventually(func() int { return s.registry.Count(http.MethodGet, "/blobs/") }).WithTimeout(deadline).Should(Equal(1))
	close(release)

	g.Expect(asking.Wait()).To(Succeed())
	g.Expect(s.registry.Count(http.MethodGet, "/blobs/")).To(Equal(1))
	g.Expect(s.registry.Count(http.MethodGet, "/manifests/")).To(Equal(1))
}

func TestFewArtifactsAreMadeAgainAtOnce(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	const sources = 10
	var artifacts []*meta.Artifact
	for i := range sources {
		name := fmt.Sprintf("app-%d", i)
		s.push(name+":1.0.0", publish.Files{"app.yaml": name})
		s.imageRepository(name)
		s.imagePolicy(name, annotated)
		s.picks(name, imagev1.ImageRef{Tag: "1.0.0"})
	}
	for i := range sources {
		artifacts = append(artifacts, s.waitPublished(fmt.Sprintf("app-%d", i), "1.0.0@").Status.Artifact)
	}
	s.stop()
	f := s.follower()
	f.expectServed(artifacts[0]) // by now the registry is known to answer
	var inside atomic.Int64
	released := make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		inside.Add(1)
		defer inside.Add(-1)
		<-released
		return false
	})
	var asking errgroup.Group
	for _, artifact := range artifacts {
		asking.Go(func() error {
			code, _, err := f.asked(artifact)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("answered %d", code)
			}
			return err
		})
	}
	const allowed = 2 // of one namespace, with the four workers of the scene
	g.Eventually(inside.Load).WithTimeout(deadline).Should(BeEquivalentTo(allowed))
	g.Consistently(inside.Load).WithTimeout(300 * time.Millisecond).Should(BeEquivalentTo(allowed))
	release()
	g.Expect(asking.Wait()).To(Succeed())
}

func TestAFailureIsNotRepeatedForEachConsumer(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	s.stop()
	f := s.follower()
	var asked atomic.Int64
	s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		w.WriteHeader(http.StatusForbidden)
		return true
	})
	f.expectCode(artifact, http.StatusServiceUnavailable)
	once := asked.Load()
	g.Expect(once).To(BeNumerically(">", 0))
	start := time.Now()
	for range 50 {
		f.expectCode(artifact, http.StatusServiceUnavailable)
	}
	g.Expect(asked.Load()).To(BeNumerically("<=", once*int64(2+time.Since(start)/time.Second)))

	s.answers()
	s.eventually(func(g Gomega) {
		code, _, err := f.asked(artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusOK))
	})
}

func TestAFollowerServesNoFileThatTheKeysNoLongerAccept(t *testing.T) {
	s, _, external := verifiedSource(t)
	g := NewWithT(t)
	s.stop()
	s.rotate(newSigner(t))
	f := s.follower()
	f.expectCode(external.Status.Artifact, http.StatusServiceUnavailable)
	g.Expect(f.has(external.Status.Artifact)).To(BeFalse())
}

func TestAFollowerThatCannotJudgeServesNoFile(t *testing.T) {
	s, signer, external := verifiedSource(t)
	g := NewWithT(t)
	s.stop()
	remove[corev1.Secret](s, "keys")
	f := s.follower()
	f.expectCode(external.Status.Artifact, http.StatusServiceUnavailable)
	g.Expect(f.has(external.Status.Artifact)).To(BeFalse())

	s.keys(signer)
	s.eventually(func(g Gomega) {
		code, _, err := f.asked(external.Status.Artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusOK))
	})
}

func TestAFollowerRebuildsNoFileThatIsToBeWithdrawn(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	s.stop()
	s.labels(nil)
	f := s.follower()
	s.registry.Forget()
	f.expectCode(artifact, http.StatusServiceUnavailable)
	g.Expect(f.has(artifact)).To(BeFalse())
	g.Expect(s.registry.Requests()).To(BeEmpty())
}

func TestAFormerFileComesFromAReplicaThatHasIt(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0").Status.Artifact
	s.pushNew("1.0.1")
	s.waitPublished("app", "1.0.1@")
	f := s.follower(s.artifacts.host())
	f.expectServed(before)

	nobody := *before
	nobody.Path = filepath.Dir(before.Path) + "/" + strings.Repeat("a", 64) + ".tar.gz"
	f.expectCode(&nobody, http.StatusNotFound)
	g.Expect(f.has(&nobody)).To(BeFalse())
}

func TestAFileIsNotGoneWhileAReplicaCannotBeAsked(t *testing.T) {
	s := startScene(t)
	before := s.publishes("app", "1.0.0").Status.Artifact
	s.pushNew("1.0.1")
	s.waitPublished("app", "1.0.1@")
	nobody := *before
	nobody.Path = filepath.Dir(before.Path) + "/" + strings.Repeat("a", 64) + ".tar.gz"
	busy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer busy.Close()
	s.follower(s.artifacts.host(), busy.Listener.Addr().String()).expectCode(&nobody, http.StatusServiceUnavailable)
	s.follower(busy.Listener.Addr().String()).expectServed(before) // made again all the same
}

// Between the record and the ExternalArtifact, and while consumers of the old artifact try
// again, the leader may be lost with its disk.
func TestAFormerFileIsRebuiltForItsConsumers(t *testing.T) {
	for kind, files := range sources() {
		t.Run(kind, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			s.push("app:1.0.0", files)
			s.imageRepository("app")
			s.imagePolicy("app", annotated)
			s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
			before := s.waitPublished("app", "1.0.0@").Status.Artifact
			s.pushNew("1.0.1")
			after := s.waitPublished("app", "1.0.1@").Status.Artifact
			s.stop()
			f := s.follower()
			f.expectServed(before)
			f.expectServed(after)

			nobody := *before
			nobody.Path = filepath.Dir(before.Path) + "/" + strings.Repeat("a", 64) + ".tar.gz"
			s.eventually(func(g Gomega) { // not at will: it may have to be asked again
				code, _, err := f.asked(&nobody)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(code).To(Equal(http.StatusNotFound))
			})
			g.Expect(s.record("app").Status.Artifact).To(Equal(after), "a follower does not write")
		})
	}
}

func TestAFormerFileIsMadeAgainWithTheSettingsOfItsTime(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.push("app:1.0.0", publish.Files{"app.yaml": "version: 1\n", "notes.md": "read me\n"})
	s.imageRepository("app")
	s.imagePolicy("app", annotated)
	s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
	s.artifactRepository("own", func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.ImagePolicyRef.Name, obj.Spec.Ignore = "app", new("*.md")
	})
	published := []*meta.Artifact{s.waitPublished("own", "1.0.0").Status.Artifact}
	for _, ignore := range []*string{new("*.yaml"), nil} {
		edit(s, "own", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = ignore })
		published = append(published, s.waitPublished("own", "1.0.0").Status.Artifact)
	}
	s.pushNew("1.0.1")
	published = append(published, s.waitPublished("own", "1.0.1@").Status.Artifact)
	s.stop()

	files, f := map[string]bool{}, s.follower()
	for _, artifact := range published {
		files[artifact.Digest] = true
		f.expectServed(artifact)
	}
	g.Expect(files).To(HaveLen(4))
}

func TestAnOldFileIsGoneUnlessConsumersStillHaveItsAddress(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0").Status.Artifact
	s.pushNew("1.0.1")
	after := s.waitPublished("app", "1.0.1@").Status.Artifact
	s.stop()
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Status.History[0].PublishedAt = metav1.NewTime(time.Now().Add(-time.Hour))
	})
	f := s.follower()
	s.registry.Forget()
	f.expectCode(before, http.StatusNotFound)
	g.Expect(s.registry.Requests()).To(BeEmpty())

	led := func(to *meta.Artifact) {
		editStatus(s, "app", func(obj *sourcev1.ExternalArtifact) { obj.Status.Artifact = to })
	}
	expectSoon := func(artifact *meta.Artifact, want int) {
		t.Helper()
		s.eventually(func(g Gomega) {
			code, _, err := f.asked(artifact)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(code).To(Equal(want))
		})
	}
	led(before)
	expectSoon(before, http.StatusOK)
	g.Expect(f.has(before)).To(BeTrue())
	// These have no recipe, but consumers still have their address.
	unknown := *before
	unknown.Path = filepath.Dir(before.Path) + "/" + strings.Repeat("a", 64) + ".tar.gz"
	led(&unknown)
	expectSoon(&unknown, http.StatusServiceUnavailable)
	led(after)
	expectSoon(&unknown, http.StatusNotFound)
}

func TestStrangersCannotHaveFormerFilesRebuiltAtWill(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	before := s.publishes("app", "1.0.0").Status.Artifact
	s.pushNew("1.0.1")
	s.waitPublished("app", "1.0.1@")
	s.stop()
	f := s.follower()
	f.expectServed(before)
	s.registry.Forget()
	start := time.Now()
	for i := range 30 {
		stranger := *before
		stranger.Path = fmt.Sprintf("%s/%064x.tar.gz", filepath.Dir(before.Path), i)
		code, _, err := f.asked(&stranger)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Or(Equal(http.StatusNotFound), Equal(http.StatusServiceUnavailable)))
	}
	g.Expect(len(s.registry.Requests())).To(BeNumerically("<=", 2*int(2+time.Since(start)/time.Second)))
	for _, request := range s.registry.Requests() {
		g.Expect(request).NotTo(ContainSubstring("/blobs/"), "it has the bytes")
	}
}

func TestAFileOfACollectedImageComesFromAPeer(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.interval = time.Second
	s.start()
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	keeper := s.follower(s.artifacts.host())
	keeper.expectServed(artifact)
	s.stop()
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		http.NotFound(w, r)
		return true
	})

	// The leader comes back with an empty disk.
	s.storage = t.TempDir()
	s.running = s.launch(s.storage, launchOptions{peers: []string{keeper.server.Listener.Addr().String()}})
	s.artifacts.open(s.running.handler)
	s.eventually(func(g Gomega) {
		g.Expect(fileExists(s.file(artifact))).To(BeTrue(), "without a request")
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
	})
	s.expectServed(artifact)
	g.Expect(s.record("app").Status.Artifact).To(Equal(artifact))
}

func TestTheLeaderReportsAFileThatNoReplicaHas(t *testing.T) {
	s := newScene(t)
	s.start()
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	f := s.follower(s.artifacts.host())
	s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
		http.NotFound(w, r)
		return true
	})
	for _, folder := range []string{"externalartifact", "blobs"} {
		NewWithT(t).Expect(os.RemoveAll(filepath.Join(s.storage, folder))).To(Succeed())
	}

	// The interval is an hour: the request to the follower starts the reconcile.
	f.expectCode(artifact, http.StatusServiceUnavailable)

	s.eventually(func(g Gomega) {
		obj := get[v1alpha1.ArtifactRepository](g, s, "app")
		g.Expect(obj).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionFalse, v1alpha1.ReasonStorageOperationFailed))
		g.Expect(obj).To(haveCondition(meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonImageNotFound))
		g.Expect(obj.Status.Artifact).To(Equal(artifact))
	})
	f.expectCode(artifact, http.StatusServiceUnavailable)
}

// Two attempts test a registry. A consumer of a third source has to come again when the time
// of this source is over, not that of the two.
func TestAConsumerIsAnsweredWhileOthersAskTheRegistry(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifacts := map[string]*meta.Artifact{}
	for name, timeout := range map[string]time.Duration{"first": 9 * time.Second, "second": 9 * time.Second, "third": time.Second} {
		artifacts[name] = s.publishes(name, "1.0.0").Status.Artifact
		edit(s, name, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Timeout = &metav1.Duration{Duration: timeout} })
		s.reconciled(name)
	}
	f := s.follower()
	s.registry.Forget()
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	s.registry.Answer(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			<-held
		}
		return false
	})
	var others sync.WaitGroup
	for _, name := range []string{"first", "second"} {
		others.Go(func() { f.expectServed(artifacts[name]) })
	}
	s.eventually(func(g Gomega) { g.Expect(s.registry.Count(http.MethodGet, "/manifests/")).To(Equal(2)) })

	f.expectCode(artifacts["third"], http.StatusServiceUnavailable)

	g.Expect(s.registry.Count(http.MethodGet, "/third/")).To(BeZero())
	release()
	others.Wait()
}

func TestOtherBytesThanTheRecordNamesAreLeftToTheLeader(t *testing.T) {
	s := startScene(t)
	good := s.publishes("app", "1.0.0").Status.Artifact
	s.stop()
	// A record of an earlier release with other archive bytes.
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		earlier := strings.Repeat("a", 64)
		obj.Status.Artifact.Path = filepath.Dir(good.Path) + "/" + earlier + ".tar.gz"
		obj.Status.Artifact.URL = strings.TrimSuffix(good.URL, good.Path) + obj.Status.Artifact.Path
		obj.Status.Artifact.Digest = "sha256:" + earlier
	})
	earlier := s.record("app").Status.Artifact
	f := s.follower()
	f.expectCode(earlier, http.StatusServiceUnavailable)

	s.storage = t.TempDir()
	s.start()
	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact.Digest).To(Equal(good.Digest))
	})
	s.eventually(func(g Gomega) {
		code, digest, err := f.asked(s.record("app").Status.Artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusOK))
		g.Expect(digest).To(Equal(good.Digest))
	})
	s.waitPublished("app", "1.0.0@")
}

// An earlier release recorded digests of the algorithm of --artifact-digest-algo.
func TestARecordWithADigestOfAnotherAlgorithmIsPublishedAnew(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	good := s.publishes("app", "1.0.0")
	s.stop()
	editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) {
		obj.Status.Artifact.Digest = "sha512:" + strings.Repeat("a", 128)
	})
	s.registry.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	s.start()
	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionFalse, v1alpha1.ReasonStorageOperationFailed))
	})
	s.expectServed(good.Status.Artifact)

	s.registry.Answer(nil)
	s.eventually(func(g Gomega) {
		g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact.Digest).To(Equal(good.Status.Artifact.Digest))
	})
	now := s.waitPublished("app", "1.0.0@")
	g.Expect(now.UID).To(Equal(good.UID))
	g.Expect(s.record("app").Status.Withdrawn).To(BeEmpty())
	s.expectServed(now.Status.Artifact)
}

func TestAWithdrawnFileIsNotServedFromADiskThatHasIt(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.picked("app", "1.0.0")
	s.artifactRepository("app")
	artifact := s.waitPublished("app", "1.0.0@").Status.Artifact
	f := s.follower(s.artifacts.host())
	f.expectServed(artifact)
	_, content := s.fetch(artifact.URL)

	s.labels(nil)
	s.eventually(func(g Gomega) { g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact).To(BeNil()) })

	s.eventually(func(g Gomega) { g.Expect(f.has(artifact)).To(BeFalse(), "the retention is for superseded files") })
	s.store(f.store, "app", string(content))
	g.Expect(f.has(artifact)).To(BeTrue(), "a disk that missed it")
	s.eventually(func(g Gomega) {
		code, _, err := f.asked(artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusNotFound))
	})
}

func TestReplicasStoreFilesBeforeTheFirstRequest(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	s.registry.Forget()
	f := s.follower(s.artifacts.host())
	replicator := &serve.Replicator{Client: s.running.manager.GetClient(), Store: f.store, Every: 50 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- replicator.Start(ctx) }()
	defer func() {
		cancel()
		g.Expect(<-ended).To(Succeed())
	}()
	s.eventually(func(g Gomega) { g.Expect(f.has(artifact)).To(BeTrue()) })
	g.Expect(s.registry.Requests()).To(BeEmpty())
}

// A replica of another shard is asked for a source before it exists: a client with the
// record gets the file, even shortly after a futile lookup.
func TestARecordThatWasLookedForInVainIsNotDenied(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.start()
	s.shard = labels.SelectorFromSet(labels.Set{"shard": "another"})
	f := s.follower(s.artifacts.host())
	nobody := &meta.Artifact{Path: "externalartifact/" + s.namespace + "/app/" + strings.Repeat("a", 64) + ".tar.gz"}
	f.expectCode(nobody, http.StatusNotFound)
	ctx, stop := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer stop()
	for range 3 {
		strangers.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = f.asked(nobody)
			}
		})
	}

	s.picked("app", "1.0.0")
	s.artifactRepository("app")
	var artifact *meta.Artifact
	s.eventually(func(g Gomega) {
		artifact = get[v1alpha1.ArtifactRepository](g, s, "app").Status.Artifact
		g.Expect(artifact).NotTo(BeNil())
	})

	s.eventually(func(attempt Gomega) {
		code, digest, err := f.asked(artifact)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).NotTo(Equal(http.StatusNotFound), "the record names it")
		attempt.Expect(code).To(Equal(http.StatusOK)) // strangers may have used up the lookups
		attempt.Expect(digest).To(Equal(artifact.Digest))
	})
}

// counted counts the requests with a path suffix.
type counted struct {
	http.RoundTripper
	suffix string
	count  *atomic.Int64
}

// RoundTrip implements http.RoundTripper.
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasSuffix(r.URL.Path, c.suffix) {
		c.count.Add(1)
	}
	return c.RoundTripper.RoundTrip(r)
}

func TestStrangersDoNotHaveTheAPIServerAskedAtWill(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	var looked atomic.Int64
	s.transport = func(next http.RoundTripper) http.RoundTripper {
		return counted{next, "/artifactrepositories/app", &looked}
	}
	f := s.follower()
	nobody := &meta.Artifact{Path: "externalartifact/" + s.namespace + "/app/" + strings.Repeat("a", 64) + ".tar.gz"}
	start := time.Now()
	for range 3 {
		var strangers errgroup.Group
		for range 50 {
			strangers.Go(func() error {
				code, _, err := f.asked(nobody)
				if err == nil && code != http.StatusNotFound {
					err = fmt.Errorf("answered %d", code)
				}
				return err
			})
		}
		g.Expect(strangers.Wait()).To(Succeed())
	}
	g.Expect(looked.Load()).To(And(BeNumerically(">", 0), BeNumerically("<=", 1+time.Since(start)/time.Second)), "once a second")
}

// Invented digests cost the API server one look at each source per second, and the other
// replicas some requests, for any number of them.
func TestStrangersDoNotHaveAPublishedSourceLookedForAtWill(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	var looked, questions atomic.Int64
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		questions.Add(1)
		w.WriteHeader(http.StatusMisdirectedRequest)
	}))
	defer peer.Close()
	s.transport = func(next http.RoundTripper) http.RoundTripper {
		return counted{next, "/artifactrepositories/app", &looked}
	}
	f := s.follower(peer.Listener.Addr().String())
	start := time.Now()
	for round := range 3 {
		var strangers errgroup.Group
		for i := range 50 {
			madeUp := &meta.Artifact{Path: fmt.Sprintf("%s/%064d.tar.gz", filepath.Dir(artifact.Path), round*50+i)}
			strangers.Go(func() error {
				code, _, err := f.asked(madeUp)
				if err == nil && code == http.StatusOK {
					err = errors.New("no replica has it")
				}
				return err
			})
		}
		g.Expect(strangers.Wait()).To(Succeed())
	}
	seconds := int64(time.Since(start)/time.Second) + 1
	g.Expect(looked.Load()).To(And(BeNumerically(">", 0), BeNumerically("<=", seconds)), "once a second")
	const perSecond = 15
	g.Expect(questions.Load()).To(And(BeNumerically(">", 0), BeNumerically("<=", perSecond*(seconds+1))))

	s.eventually(func(g Gomega) { // the peer was told of it too often to be asked at once
		code, _, err := f.asked(&meta.Artifact{Path: filepath.Dir(artifact.Path) + "/" + strings.Repeat("a", 64) + ".tar.gz"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusNotFound))
	})
	f.expectServed(artifact)
}

// frozen stops all watches after it is closed.
type frozen struct {
	http.RoundTripper
	from chan struct{}
}

// RoundTrip implements http.RoundTripper.
func (f frozen) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := f.RoundTripper.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" {
		response.Body = &frozenBody{response.Body, f.from, r.Context()}
	}
	return response, err
}

type frozenBody struct {
	io.ReadCloser
	from chan struct{}
	// ctx is the context of the request of this body.
	ctx context.Context
}

// Read implements io.Reader.
func (b *frozenBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	select {
	case <-b.from:
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	default:
		return n, err
	}
}

// A client that knows a new version gets it from a replica without the event, even if
// strangers invent names meanwhile.
func TestStrangersDoNotUseUpTheLooksOfConsumers(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	s.publishes("app", "1.0.0")
	freeze := make(chan struct{})
	s.transport = func(next http.RoundTripper) http.RoundTripper { return frozen{next, freeze} }
	f := s.follower(s.artifacts.host())
	close(freeze)
	ctx, stop := context.WithCancel(t.Context())
	var strangers sync.WaitGroup
	defer strangers.Wait()
	defer stop()
	var madeUp, refused atomic.Int64
	for range 5 {
		strangers.Go(func() {
			for ctx.Err() == nil {
				code, _, _ := f.asked(&meta.Artifact{Path: fmt.Sprintf("externalartifact/%s/no-%d/%s.tar.gz", s.namespace, madeUp.Add(1), strings.Repeat("a", 64))})
				if code == http.StatusServiceUnavailable {
					refused.Add(1)
				}
			}
		})
	}
	g.Eventually(refused.Load).WithTimeout(deadline).Should(BeNumerically(">", 20), "strangers have used up theirs")

	s.pushNew("1.0.1")
	artifact := s.waitPublished("app", "1.0.1@").Status.Artifact
	f.expectServed(artifact)
}
