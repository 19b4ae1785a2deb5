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

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// quickAPI keeps client-side rate limits out of what is tested.
var quickAPI = []string{"--kube-api-qps=500", "--kube-api-burst=1000"}

// inShard puts a policy into a shard.
func inShard(shard string) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
	return func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
		policy.Labels = map[string]string{shardLabel: shard}
	}
}

// through lets a registry be reached at another host, such as that of a gate.
func through(n *tenant, host, image string) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
	return func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.Image = host + "/" + n.image(image)
	}
}

// every sets how often a repository is scanned and its sources are looked at.
func every(interval time.Duration) func(*imagev1.ImageRepository, *imagev1.ImagePolicy) {
	return func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
		repository.Spec.Interval.Duration = interval
	}
}

// notAnnotated is for a policy whose ArtifactRepository is written by hand.
func notAnnotated(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
	delete(policy.Annotations, v1alpha1.UseAsSource)
}

// writtenByHand creates an ArtifactRepository that follows the policy of the
// same name and looks at it by itself once an hour only: whatever else happens
// to it has another cause.
func (n *tenant) writtenByHand(name string, mods ...func(*v1alpha1.ArtifactRepository)) {
	n.Helper()
	obj := named(n, name, &v1alpha1.ArtifactRepository{})
	obj.Spec.ImagePolicyRef = &meta.LocalObjectReference{Name: name}
	obj.Spec.Interval = &metav1.Duration{Duration: time.Hour}
	for _, mod := range mods {
		mod(obj)
	}
	n.create(obj)
}

// picked waits until a policy picks a tag.
func (n *tenant) picked(name, tag string) {
	n.Helper()
	policy := &imagev1.ImagePolicy{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), policy)).To(Succeed())
		g.Expect(policy.Status.LatestRef).NotTo(BeNil())
		g.Expect(policy.Status.LatestRef.Tag).To(Equal(tag))
	})
}

// served waits until an artifact's URL answers with its bytes.
func (n *tenant) served(artifact *meta.Artifact) {
	n.Helper()
	n.eventually(func(g Gomega) {
		code, sum, err := download(n.Context(), artifact.URL)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(code).To(Equal(http.StatusOK))
		g.Expect(sum).To(Equal(artifact.Digest))
	})
}

// download fetches a URL as a consumer does. It returns the digest of the body.
func download(ctx context.Context, url string) (code int, digest string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	answer, err := plainClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, answer.Body); err != nil {
		return answer.StatusCode, "", err
	}
	return answer.StatusCode, "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// plainClient opens a connection for each request, so that none of a
// controller that was killed is used again.
var plainClient = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// consumer is who uses a source all the time and must never be led astray: it
// fetches what the record names, and takes note of all that is published and
// recorded.
type consumer struct {
	n    *tenant
	name string
	stop context.CancelFunc
	done sync.WaitGroup
	// spoilt tells that whoever serves is never down: no fetch may fail.
	spoilt bool

	mu       sync.Mutex
	wrong    []string
	fetched  int
	promised map[string][2]string // URL and digest by revision
	sequence []string             // revisions as they were published
	last     types.UID            // of the object that was published last
	owner    types.UID            // of the ArtifactRepository behind it
	heritage *metav1.Time         // when an owner that is gone published it; nil: this one did
}

// neverDown has a consumer of what is never killed blame each fetch that fails.
func neverDown(c *consumer) { c.spoilt = true }

// consume watches and fetches a source until content is called. The tags of the
// source must be of the form 1.0.<n>, and never go back.
func consume(n *tenant, name string, mods ...func(*consumer)) *consumer {
	n.Helper()
	ctx, stop := context.WithCancel(n.Context())
	c := &consumer{n: n, name: name, stop: stop, promised: map[string][2]string{}}
	for _, mod := range mods {
		mod(c)
	}
	n.Cleanup(stop)
	c.watch(ctx, &sourcev1.ExternalArtifactList{}, func(obj runtime.Object) {
		if external, ok := obj.(*sourcev1.ExternalArtifact); ok && external.Name == name {
			c.note(external)
		}
	})
	c.watch(ctx, &v1alpha1.ArtifactRepositoryList{}, func(obj runtime.Object) {
		if record, ok := obj.(*v1alpha1.ArtifactRepository); ok && record.Name == name {
			c.judge(record)
		}
	})
	c.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.fetch(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	return c
}

// watch takes note of each state of what is in the namespace of a consumer.
func (c *consumer) watch(ctx context.Context, list client.ObjectList, note func(runtime.Object)) {
	c.n.Helper()
	states, err := env.Client.Watch(ctx, list, client.InNamespace(c.n.namespace))
	c.n.Expect(err).NotTo(HaveOccurred())
	c.done.Go(func() {
		defer states.Stop()
		for {
			select {
			case event, ok := <-states.ResultChan():
				if !ok {
					c.blame(fmt.Sprintf("the watch of a %T ended early", list), ctx.Err() == nil)
					return
				}
				note(event.Object)
			case <-ctx.Done():
				return
			}
		}
	})
}

func (c *consumer) blame(what string, really bool) {
	if !really {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, time.Now().Format(time.StampMilli)+" "+what)
}

// note judges what was published.
func (c *consumer) note(external *sourcev1.ExternalArtifact) {
	artifact := external.Status.Artifact
	ready := conditions.Get(external, meta.ReadyCondition)
	if conditions.IsReady(external) {
		c.blame("it was ready with nothing to fetch", artifact == nil)
		c.blame(fmt.Sprintf("it was ready with %v, and said: %s", artifact, ready.Message),
			artifact != nil && ready.Reason == v1alpha1.ReasonSucceeded && !strings.HasPrefix(ready.Message, "published "+shortRevision(artifact.Revision)+" "))
	}
	c.mu.Lock()
	c.inherit(external)
	if artifact == nil {
		had, owner := c.last == external.UID && c.heritage == nil, c.owner
		c.mu.Unlock()
		// An object that was deleted and made again starts empty, and so does one whose
		// owner was: the record of the new owner is empty yet. It takes the artifact
		// away before it writes the owner.
		c.blame("what was published was taken away", had && c.isOf(owner))
		return
	}
	c.last = external.UID
	now, before := [2]string{artifact.URL, artifact.Digest}, ""
	known, ok := c.promised[artifact.Revision]
	if len(c.sequence) > 0 {
		before = c.sequence[len(c.sequence)-1]
	}
	c.promised[artifact.Revision] = now
	if before != artifact.Revision {
		c.sequence = append(c.sequence, artifact.Revision)
	}
	c.mu.Unlock()
	c.blame(fmt.Sprintf("%s was %v, now %v", artifact.Revision, known, now), ok && known != now)
	c.blame(fmt.Sprintf("%s was published after %s", artifact.Revision, before), before != "" && patchLevel(artifact.Revision) < patchLevel(before))
}

// judge judges what was recorded. A record that is ahead of its conditions says
// that something is under way.
func (c *consumer) judge(record *v1alpha1.ArtifactRepository) {
	if !conditions.IsTrue(record, meta.ReadyCondition) {
		return
	}
	artifact := record.Status.Artifact
	c.blame("the record was ready with nothing to fetch", artifact == nil)
	if artifact == nil || conditions.IsReconciling(record) {
		return
	}
	message := conditions.GetMessage(record, meta.ReadyCondition)
	c.blame(fmt.Sprintf("the record was ready with %s, and said: %s", artifact.Revision, message), !strings.HasPrefix(message, "published "+shortRevision(artifact.Revision)+" "))
	c.blame(fmt.Sprintf("the record was ready with %s, which is not stored", artifact.Revision), !conditions.IsTrue(record, v1alpha1.ArtifactInStorageCondition))
}

// inherit takes note of what stands there by an owner that is gone.
func (c *consumer) inherit(external *sourcev1.ExternalArtifact) {
	var owner types.UID
	if ref := metav1.GetControllerOf(external); ref != nil {
		owner = ref.UID
	}
	artifact := external.Status.Artifact
	switch {
	case owner != c.owner && c.owner != "" && artifact != nil:
		c.heritage = artifact.LastUpdateTime.DeepCopy()
	case artifact != nil && c.heritage != nil && !artifact.LastUpdateTime.Equal(c.heritage):
		c.heritage = nil
	}
	c.owner = owner
}

// isOf tells whether an ArtifactRepository is still there.
func (c *consumer) isOf(owner types.UID) bool {
	record := c.source(c.n.Context())
	return record != nil && record.UID == owner
}

// fetch fetches what the record names. It may fail where the controller may be
// down, but it may not be told that the file is gone, nor get other bytes.
func (c *consumer) fetch(ctx context.Context) {
	record := c.source(ctx)
	if record == nil || record.Status.Artifact == nil {
		return
	}
	recorded := record.Status.Artifact
	code, digest, err := download(ctx, recorded.URL)
	failed := err != nil || code >= http.StatusInternalServerError
	if ctx.Err() != nil || failed && !c.spoilt {
		return
	}
	if code == http.StatusOK && digest == recorded.Digest {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fetched++
		return
	}
	// A record that was replaced meanwhile binds nobody.
	now := c.source(ctx)
	if now == nil || now.UID != record.UID || now.Status.Artifact == nil || now.Status.Artifact.URL != recorded.URL {
		return
	}
	c.blame(fmt.Sprintf("%s, which the record names, was answered with %d, %s, %v", recorded.URL, code, digest, err), true)
}

// source is the consumer's source as it is now; nil if there is none.
func (c *consumer) source(ctx context.Context) *v1alpha1.ArtifactRepository {
	obj := &v1alpha1.ArtifactRepository{}
	if err := env.Client.Get(ctx, c.n.key(c.name), obj); err != nil {
		return nil
	}
	return obj
}

// content ends the consumer, who must have got what the records promised. It
// returns what was published, in order.
func (c *consumer) content() []string {
	c.n.Helper()
	c.stop()
	c.done.Wait()
	c.n.Expect(c.wrong).To(BeEmpty(), "a consumer of %s was led astray", c.name)
	c.n.Expect(c.fetched).To(BeNumerically(">", 0), "nothing was ever fetched")
	return c.sequence
}

// patchLevel is n of a revision 1.0.<n>@sha256:...
func patchLevel(revision string) int {
	var level int
	if _, err := fmt.Sscanf(revision, "1.0.%d", &level); err != nil {
		return -1
	}
	return level
}

// wipe empties a storage, as the loss of a disk does.
func (n *tenant) wipe(storage string) {
	n.Helper()
	entries, err := os.ReadDir(storage)
	n.Expect(err).NotTo(HaveOccurred())
	for _, entry := range entries {
		n.Expect(os.RemoveAll(filepath.Join(storage, entry.Name()))).To(Succeed())
	}
}

// fileOf returns the path of an artifact's file in a storage.
func fileOf(storage string, artifact *meta.Artifact) string {
	return filepath.Join(storage, filepath.FromSlash(artifact.Path))
}

// overwrite writes other bytes of the same length into a file, in place, as a
// disk that rots does.
func (n *tenant) overwrite(path string) {
	n.Helper()
	before, err := os.ReadFile(path)
	n.Expect(err).NotTo(HaveOccurred())
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	n.Expect(err).NotTo(HaveOccurred())
	_, err = f.Write(bytes.Repeat([]byte{before[len(before)/2] ^ 0xff}, len(before)))
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(f.Close()).To(Succeed())
}
