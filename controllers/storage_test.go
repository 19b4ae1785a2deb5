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
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/controllers"
	"github.com/image-source/image-source-controller/pkg/serve"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/test/publish"
)

// harms are the ways to damage files.
func harms() map[string]func(path string) error {
	return map[string]func(path string) error{
		"deleted":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 10) },
		"altered": func(path string) error {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content[len(content)/2] ^= 1
			return os.WriteFile(path, content, 0o600)
		},
	}
}

// request requests a reconcile of a source, which reads its file soon after.
func (s *scene) request(name string) {
	s.Helper()
	edit(s, name, func(obj *v1alpha1.ArtifactRepository) {
		metav1.SetMetaDataAnnotation(&obj.ObjectMeta, meta.ReconcileRequestAnnotation, time.Now().String())
	})
}

// sources are artifacts that are stored as they are, and archived again.
func sources() map[string]publish.Files {
	return map[string]publish.Files{
		"a clean layer":               {"app.yaml": "version: 1\n"},
		"a layer that is re-archived": {"app.yaml": "version: 1\n", ".gitignore": "left out by default\n"},
	}
}

func TestAStoredFileThatIsHarmedIsMadeAgain(t *testing.T) {
	for kind, files := range sources() {
		for how, harm := range harms() {
			t.Run(kind+" that is "+how, func(t *testing.T) {
				s, g := newScene(t), NewWithT(t)
				s.interval = time.Second
				s.start()
				s.push("app:1.0.0", files)
				s.imageRepository("app")
				s.imagePolicy("app", annotated)
				s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
				before := s.waitPublished("app", "1.0.0@")
				good, err := os.ReadFile(s.file(before.Status.Artifact))
				g.Expect(err).NotTo(HaveOccurred())

				g.Expect(harm(s.file(before.Status.Artifact))).To(Succeed())
				if how == "altered" { // a look finds the others
					s.request("app")
				}

				s.eventually(func(g Gomega) { g.Expect(os.ReadFile(s.file(before.Status.Artifact))).To(Equal(good)) })
				s.rounds(2, http.MethodHead)
				after := s.waitPublished("app", "1.0.0@")
				g.Expect(after.Status.Artifact).To(Equal(before.Status.Artifact), "consumers see no change")
				g.Expect(s.record("app").Status.History).To(HaveLen(1))
				s.expectServed(after.Status.Artifact)
			})
		}
	}
}

func TestARequestForAMissingFileHasItMadeAgain(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	// At once, because the controllers may be looking.
	for _, folder := range []string{"externalartifact", "blobs"} {
		g.Expect(os.Rename(filepath.Join(s.storage, folder), filepath.Join(t.TempDir(), folder))).To(Succeed())
	}

	code, _ := s.fetch(artifact.URL)
	g.Expect(code).To(Or(Equal(http.StatusServiceUnavailable), Equal(http.StatusOK)), "consumers retry 5xx, and take 404 for gone")

	s.eventually(func(g Gomega) { g.Expect(fileExists(s.file(artifact))).To(BeTrue()) })
	s.expectServed(artifact)
}

func TestALostDiskIsSurvived(t *testing.T) {
	for kind, files := range sources() {
		for name, c := range map[string]struct {
			meanwhile func(*scene)
			ready     bool
		}{
			"no other change": {meanwhile: func(*scene) {}, ready: true},
			"the tag moved and the policy is not ready": {meanwhile: func(s *scene) {
				s.push("app:1.0.0", publish.Files{"app.yaml": "version: moved\n"})
				editStatus(s, "app", func(obj *imagev1.ImagePolicy) { conditions.MarkFalse(obj, meta.ReadyCondition, "Failure", "no tags") })
			}},
			"the policy was changed and not evaluated since": {meanwhile: func(s *scene) {
				edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Policy.SemVer.Range = "2.x" })
			}},
			"the policy's status was tampered with": {meanwhile: func(s *scene) {
				s.picks("app", imagev1.ImageRef{Name: "evil.example/app", Tag: "1.0.0"})
			}},
			"it is suspended": {ready: true, meanwhile: func(s *scene) {
				s.push("app:1.0.0", publish.Files{"app.yaml": "version: moved\n"})
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Suspend = true })
			}},
			"another version cannot be read": {meanwhile: func(s *scene) {
				s.pushNonsense("app:1.0.1")
				s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
			}},
			"ignore was changed to an invalid value": {meanwhile: func(s *scene) {
				edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = new("*") })
			}},
		} {
			t.Run(kind+", "+name, func(t *testing.T) {
				s, g := startScene(t), NewWithT(t)
				s.push("app:1.0.0", files)
				s.imageRepository("app")
				s.imagePolicy("app", annotated)
				s.picks("app", imagev1.ImageRef{Tag: "1.0.0"})
				before := s.waitPublished("app", "1.0.0@").Status.Artifact

				s.stop()
				c.meanwhile(s)
				g.Expect(os.RemoveAll(s.storage)).To(Succeed())
				g.Expect(os.Mkdir(s.storage, 0o750)).To(Succeed())
				s.start()

				s.eventually(func(g Gomega) {
					g.Expect(fileExists(s.file(before))).To(BeTrue())
					g.Expect(conditions.IsReady(get[v1alpha1.ArtifactRepository](g, s, "app"))).To(Equal(c.ready))
				})
				s.expectServed(before)
				g.Expect(s.record("app").Status.Artifact).To(Equal(before))
				g.Expect(s.external("app").Status.Artifact).To(Equal(before))
				g.Expect(s.record("app").Status.History).To(HaveLen(1))
			})
		}
	}
}

func TestARegistryThatIsDownKeepsTheLastGood(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.interval = time.Second
	s.start()
	before := s.publishes("app", "1.0.0").Status.Artifact

	s.registry.Answer(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	s.waitFailed("app", v1alpha1.ReasonFetchFailed, "still published: 1.0.0@")
	s.expectServed(before)
	g.Expect(s.external("app").Status.Artifact).To(Equal(before))
	g.Expect(s.record("app")).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))

	s.answers()
	g.Expect(s.waitPublished("app", "1.0.0@").Status.Artifact).To(Equal(before))
}

func TestBytesThatAreHarmedWhileTheRegistryIsDownAreSaidToBeMissing(t *testing.T) {
	for how, harm := range harms() {
		t.Run(how, func(t *testing.T) {
			s, g := newScene(t), NewWithT(t)
			s.interval = time.Second
			s.start()
			before := s.publishes("app", "1.0.0").Status.Artifact
			s.registry.Answer(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
			s.waitFailed("app", v1alpha1.ReasonFetchFailed)

			// If only one of its names were gone, the bytes would still exist, and an
			// attempt between the two removals would give them the other name again.
			if how == "deleted" {
				g.Expect(os.RemoveAll(s.storage + "/blobs")).To(Succeed())
			}
			g.Expect(harm(s.file(before))).To(Succeed())
			if how == "altered" { // a look finds the others
				s.request("app")
			}

			s.eventually(func(g Gomega) {
				obj := get[v1alpha1.ArtifactRepository](g, s, "app")
				g.Expect(obj).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionFalse, v1alpha1.ReasonStorageOperationFailed))
				g.Expect(obj.Status.Artifact).To(Equal(before))
			})
			code, _ := s.fetch(before.URL)
			g.Expect(code).To(Equal(http.StatusServiceUnavailable), "damaged bytes are not served, and not said to be gone")

			s.answers()
			s.eventually(func(g Gomega) {
				g.Expect(get[v1alpha1.ArtifactRepository](g, s, "app")).To(haveCondition(v1alpha1.ArtifactInStorageCondition, metav1.ConditionTrue, v1alpha1.ReasonSucceeded))
			})
			g.Expect(s.waitPublished("app", "1.0.0@").Status.Artifact).To(Equal(before))
			s.expectServed(before)
		})
	}
}

func TestOldVersionsAreCollected(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	var all []*meta.Artifact
	for _, tag := range []string{"1.0.0", "1.0.1", "1.0.2", "1.0.3"} {
		if tag == "1.0.0" {
			all = append(all, s.publishes("app", tag).Status.Artifact)
			continue
		}
		s.pushNew(tag)
		all = append(all, s.waitPublished("app", tag+"@").Status.Artifact)
	}
	s.eventually(func(g Gomega) {
		var left []bool
		for _, artifact := range all {
			left = append(left, fileExists(s.file(artifact)))
		}
		g.Expect(left).To(Equal([]bool{false, false, true, true}), "the retention keeps two, the published one among them")
	})
	s.expectServed(all[3])
	g.Expect(s.record("app").Status.Artifact).To(Equal(all[3]))
}

func TestFilesWithoutARecordAreCollectedAtTheStart(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.start()
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	s.stop()
	orphan := s.storage + "/externalartifact/" + s.namespace + "/gone/" + strings.Repeat("a", 64) + ".tar.gz"
	g.Expect(os.MkdirAll(s.storage+"/externalartifact/"+s.namespace+"/gone", 0o750)).To(Succeed())
	g.Expect(os.WriteFile(orphan, []byte("left behind"), 0o600)).To(Succeed())
	g.Expect(os.MkdirAll(s.storage+"/tmp/unfinished", 0o750)).To(Succeed())
	s.start()
	s.eventually(func(g Gomega) { g.Expect(fileExists(orphan)).To(BeFalse()) })
	g.Expect(s.storage + "/tmp/unfinished").NotTo(BeADirectory())
	s.expectServed(artifact)
}

func TestAPathWithoutARecordIsNotFound(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	artifact := s.publishes("app", "1.0.0").Status.Artifact
	other := strings.Repeat("a", 64)
	for name, path := range map[string]string{
		"another digest of a source": "/externalartifact/" + s.namespace + "/app/" + other + ".tar.gz",
		"another source":             "/externalartifact/" + s.namespace + "/other/" + other + ".tar.gz",
		"another namespace":          "/externalartifact/elsewhere/app/" + other + ".tar.gz",
		"a folder":                   "/externalartifact/" + s.namespace + "/app/",
	} {
		code, _ := s.fetch(s.artifacts.URL + path)
		g.Expect(code).To(Equal(http.StatusNotFound), name)
	}
	s.expectServed(artifact)
}

// counting is a reader with a counter.
type counting struct {
	client.Reader
	gets atomic.Int32
}

func (c *counting) Get(ctx context.Context, key client.ObjectKey, obj client.Object, options ...client.GetOption) error {
	c.gets.Add(1)
	return c.Reader.Get(ctx, key, obj, options...)
}

func TestStrangersCauseNoFetch(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	sha256 := strings.Repeat("a", 64)
	recorded := func(name string) {
		s.artifactRepository(name)
		editStatus(s, name, func(obj *v1alpha1.ArtifactRepository) {
			path := "externalartifact/" + s.namespace + "/" + name + "/" + sha256 + ".tar.gz"
			obj.Status.Artifact = &meta.Artifact{Path: path, URL: "http://x/" + path, Revision: "1.0.0@" + digestA, Digest: "sha256:" + sha256, LastUpdateTime: metav1.Now()}
		})
	}
	recorded("app")
	live := &counting{Reader: s.client}
	enqueue := make(chan event.GenericEvent, 1)
	disk := s.alone()
	snapshots := controllers.Snapshots{Client: noCache{s.client}, Rules: s.rules}
	reconciler := &controllers.ArtifactRepositoryReconciler{
		Snapshots: snapshots, Evaluator: &controllers.Evaluator{Rules: s.rules, Snapshots: snapshots, Store: disk},
	}
	supplier := serve.NewSupplier(serve.SupplierOptions{
		Client: noCache{s.client}, Live: live, Store: disk, Remake: reconciler.Remake, Enqueue: enqueue, Rebuilds: 1,
	})
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running.Go(func() { supplier.Run(ctx) })
	missing := func(name, sha256 string) error {
		return supplier.Missing(t.Context(), store.Key{Namespace: s.namespace, Name: name}, sha256)
	}

	err := missing("app", sha256)
	g.Expect(err).To(HaveOccurred())
	g.Expect(errors.Is(err, store.ErrNotPublished)).To(BeFalse(), "a recorded file is not gone")
	var enqueued event.GenericEvent
	g.Expect(enqueue).To(Receive(&enqueued))
	g.Expect(client.ObjectKeyFromObject(enqueued.Object)).To(Equal(client.ObjectKey{Namespace: s.namespace, Name: "app"}))

	s.eventually(func(g Gomega) {
		g.Expect(missing("app", sha256)).NotTo(MatchError(store.ErrNotPublished))
		g.Expect(enqueue).To(Receive(), "it is asked for again, after a while")
	})
	enqueue <- enqueued
	recorded("second")
	g.Expect(missing("second", sha256)).To(HaveOccurred(), "a full channel delays no request")
	g.Expect(enqueue).To(Receive())

	g.Expect(missing("app", strings.Repeat("b", 64))).To(MatchError(store.ErrNotPublished))

	// Earlier requests may have used up the lookups of this second.
	s.eventually(func(g Gomega) { g.Expect(missing("unknown", sha256)).To(MatchError(store.ErrNotPublished)) })
	live.gets.Store(0)
	var strangers errgroup.Group
	for range 50 {
		strangers.Go(func() error {
			if err := missing("unknown", sha256); !errors.Is(err, store.ErrNotPublished) {
				return fmt.Errorf("told %w", err)
			}
			return nil
		})
	}
	g.Expect(strangers.Wait()).To(Succeed())
	g.Expect(live.gets.Load()).To(BeNumerically("<=", 3), "an unknown file causes one lookup a second")
	recorded("unknown")
	s.eventually(func(g Gomega) {
		err := missing("unknown", sha256)
		g.Expect(errors.Is(err, store.ErrNotPublished)).To(BeFalse(), "%v", err)
	})

	live.gets.Store(0)
	start := time.Now()
	var busy int
	for i := range 200 {
		name := hex.EncodeToString(fmt.Appendf(nil, "%d", i))
		if err := missing("x"+name, sha256); !errors.Is(err, store.ErrNotPublished) {
			busy++
		}
	}
	allowed := 20 + 20*time.Since(start).Seconds() + 1
	g.Expect(float64(live.gets.Load())).To(BeNumerically("<=", allowed), "strangers cannot make the API server work")
	g.Expect(busy+int(live.gets.Load())).To(Equal(200), "the others get a Retry-After")
}

// alone is a store without peers.
func (s *scene) alone() *store.Replica {
	s.Helper()
	g := NewWithT(s)
	local, err := store.Open(store.Options{Root: s.TempDir(), AdvertisedAddress: s.artifacts.host()})
	g.Expect(err).NotTo(HaveOccurred())
	s.Cleanup(func() { g.Expect(local.Close()).To(Succeed()) })
	replica, err := store.NewReplica(local, store.PeerOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	return replica
}

// noCache is an empty cache.
type noCache struct{ client.Client }

func (noCache) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return apierrors.NewNotFound(v1alpha1.GroupVersion.WithResource("artifactrepositories").GroupResource(), "any")
}

// noRecords cannot list records, so there is no garbage collection.
type noRecords struct{ client.Client }

func (noRecords) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.ErrUnsupported
}

func TestDeletingAPolicysObjectsLeavesNoFileOnDisk(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	s.publishes("beside", "1.0.0")
	edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Annotations = nil })
	s.eventually(gone[v1alpha1.ArtifactRepository](s, "app"))
	s.eventually(func(g Gomega) {
		g.Expect(s.stored()).NotTo(ContainElement(ContainSubstring("/app/")))
		g.Expect(s.stored()).To(HaveLen(2), "%v", s.stored())
	})
	s.expectServed(s.external("beside").Status.Artifact)
}

// A disk that was away while an object was deleted and created again has files of the former
// one, which may have been withdrawn.
func TestFilesOfAFormerObjectAreNotServedAndGo(t *testing.T) {
	s, g := startScene(t), NewWithT(t)
	publishAnew := func(tag string) *meta.Artifact {
		s.push("app:"+tag, publish.Files{"app.yaml": "version: " + tag + "\n"})
		s.artifactRepository("app", func(obj *v1alpha1.ArtifactRepository) {
			obj.Spec.ImagePolicyRef, obj.Spec.Image, obj.Spec.Tag = nil, s.image("app"), tag
		})
		return s.waitPublished("app", tag+"@").Status.Artifact
	}
	former := publishAnew("1.0.0")
	content, err := os.ReadFile(s.file(former))
	g.Expect(err).NotTo(HaveOccurred())
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.eventually(func(g Gomega) { g.Expect(fileExists(s.file(former))).To(BeFalse()) })
	remove[sourcev1.ExternalArtifact](s, "app") // there is no garbage collector for owned objects here
	now := publishAnew("1.0.1")
	g.Expect(os.WriteFile(s.file(former), content, 0o600)).To(Succeed())
	before := time.Now().Add(-time.Minute)
	g.Expect(os.Chtimes(s.file(former), before, before)).To(Succeed())

	code, _ := s.fetch(s.artifacts.URL + "/" + former.Path)
	g.Expect(code).To(Equal(http.StatusNotFound))
	s.eventually(func(g Gomega) { g.Expect(fileExists(s.file(former))).To(BeFalse(), "the collection removes it") })
	s.expectServed(now)
}

// Without a collection: withdrawn and deleted files go from each disk at once, and files of
// an object that only moved to another shard stay for their consumers.
func TestWithdrawnAndDeletedFilesAreErasedFromEachDisk(t *testing.T) {
	s, g := newScene(t), NewWithT(t)
	s.shard = labels.SelectorFromSet(labels.Set{"shard": "one"})
	process := s.launch(s.storage, launchOptions{follows: true})
	defer process.stop()
	disk := s.alone()
	has := func(name, content string) bool {
		stored, err := disk.Has(t.Context(), store.Key{Namespace: s.namespace, Name: name}, sha256Of(content))
		g.Expect(err).NotTo(HaveOccurred())
		return stored
	}
	for _, name := range []string{"app", "deleted", "moved"} {
		s.artifactRepository(name, func(obj *v1alpha1.ArtifactRepository) { obj.Labels = map[string]string{"shard": "one"} })
		s.store(disk, name, "v1")
	}
	s.store(disk, "app", "v2")
	collector := &serve.GarbageCollector{
		Client: noRecords{s.client}, Changes: process.manager.GetCache(), Objects: s.client,
		Store: disk.Store, Every: time.Hour, Observe: func(store.Collected) {},
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- collector.Start(ctx) }()
	defer func() {
		cancel()
		g.Expect(<-ended).To(Succeed())
	}()

	s.eventually(func(g Gomega) { // it may not look yet
		for _, withdrawn := range [][]string{nil, {"sha256:" + sha256Of("v1")}} {
			editStatus(s, "app", func(obj *v1alpha1.ArtifactRepository) { obj.Status.Withdrawn = withdrawn })
		}
		g.Expect(has("app", "v1")).To(BeFalse())
	})
	g.Expect(has("app", "v2")).To(BeTrue())

	edit(s, "moved", func(obj *v1alpha1.ArtifactRepository) { obj.Labels["shard"] = "two" })
	remove[v1alpha1.ArtifactRepository](s, "deleted")
	s.eventually(func(g Gomega) { g.Expect(has("deleted", "v1")).To(BeFalse()) })
	remove[v1alpha1.ArtifactRepository](s, "app")
	s.eventually(func(g Gomega) { g.Expect(has("app", "v2")).To(BeFalse()) })
	g.Expect(has("moved", "v1")).To(BeTrue())
}

// store puts content on a disk as a file of a source.
func (s *scene) store(disk *store.Replica, name, content string) {
	s.Helper()
	g := NewWithT(s)
	dir, remove, err := disk.Scratch()
	g.Expect(err).NotTo(HaveOccurred())
	defer remove()
	file := store.File{Path: filepath.Join(dir, "file"), SHA256: sha256Of(content), Size: int64(len(content))}
	g.Expect(os.WriteFile(file.Path, []byte(content), 0o600)).To(Succeed())
	_, err = disk.Put(s.Context(), store.Key{Namespace: s.namespace, Name: name}, file)
	g.Expect(err).NotTo(HaveOccurred())
}

func sha256Of(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}
