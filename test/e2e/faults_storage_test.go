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
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// What is published is made again from its record, and from nothing else: not
// from what the policy says now, which may be nothing, nor from what the tag
// points at now.
func TestRebuiltFromTheRecord(t *testing.T) {
	t.Parallel()
	const shard = "rebuilt"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, shard, quickAPI...)
	ignore := "*.md"
	revisions := map[string]string{}
	names := []string{"clean", "archived"}
	for _, name := range names {
		revisions[name] = n.push(name, "1.0.0", publish.Files{"deploy/app.yaml": name, "README.md": "about " + name})
		n.scan(name, inShard(shard), notAnnotated)
	}
	inItsShard := func(obj *v1alpha1.ArtifactRepository) { obj.Labels = map[string]string{shardLabel: shard} }
	n.writtenByHand("clean", inItsShard)
	n.writtenByHand("archived", inItsShard, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Ignore = &ignore })

	// Settings other than the defaults are part of the revision.
	mark := get(n, "archived", &v1alpha1.ArtifactRepository{})
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(t.Context(), n.key("archived"), mark)).To(Succeed())
		g.Expect(mark.Status.ObservedContent).NotTo(BeEmpty())
	})
	revisions["archived"] = strings.Replace(revisions["archived"], "@", "+"+mark.Status.ObservedContent[:8]+"@", 1)

	before := map[string]*meta.Artifact{}
	for _, name := range names {
		before[name] = n.published(name, revisions[name])
		change(n, named(n, name, &imagev1.ImagePolicy{}), func(policy *imagev1.ImagePolicy) {
			policy.Spec.Policy.SemVer.Range = ">=9.0.0"
		})
		n.notReady(name, v1alpha1.ReasonDependencyNotReady)
		n.push(name, "1.0.0", publish.Files{"deploy/app.yaml": "the tag has moved", "README.md": name})
	}

	n.Expect(controller.Kill()).To(Succeed())
	n.wipe(controller.StorageDir)
	n.Expect(controller.Restart(t.Context())).To(Succeed())

	for _, name := range shuffled(chance(t), before) {
		artifact := before[name]
		n.served(artifact)
		n.eventually(func(g Gomega) {
			obj := get(n, name, &v1alpha1.ArtifactRepository{})
			g.Expect(conditions.IsTrue(obj, v1alpha1.ArtifactInStorageCondition)).To(BeTrue(), "%v", obj.Status.Conditions)
			g.Expect(conditions.GetReason(obj, meta.ReadyCondition)).To(Equal(v1alpha1.ReasonDependencyNotReady))
			g.Expect(obj.Status.Artifact).To(Equal(artifact))
			g.Expect(get(n, name, &sourcev1.ExternalArtifact{}).Status.Artifact).To(Equal(artifact))
		})
	}
	wanted := map[string]string{"clean": "1.0.0", "archived": "1.0.0+" + mark.Status.ObservedContent[:8]}
	for _, name := range names {
		change(n, named(n, name, &imagev1.ImagePolicy{}), func(policy *imagev1.ImagePolicy) {
			policy.Spec.Policy.SemVer.Range = ">=0.0.0"
		})
	}
	for name, artifact := range n.unharmed(wanted, controller) {
		n.Expect(artifact.Digest).NotTo(Equal(before[name].Digest), "%s: what the tag points at now", name)
	}
}

// Bytes that are not what they were are found when somebody asks for a
// reconcile, and when the controller starts.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	const shard = "damaged"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, shard, quickAPI...)
	damages := map[string]func(path string){
		"flipped":   n.overwrite,
		"truncated": func(path string) { n.Expect(os.Truncate(path, 10)).To(Succeed()) },
		"extended":  func(path string) { n.extend(path) },
		"deleted":   func(path string) { n.Expect(os.Remove(path)).To(Succeed()) },
		"replaced": func(path string) {
			n.Expect(os.Remove(path)).To(Succeed())
			n.Expect(os.WriteFile(path, []byte("something else"), 0o600)).To(Succeed())
		},
		"a-folder": func(path string) {
			n.Expect(os.Remove(path)).To(Succeed())
			n.Expect(os.Mkdir(path, 0o700)).To(Succeed())
		},
	}
	published := map[string]*meta.Artifact{}
	random := chance(t)
	for _, name := range shuffled(random, damages) {
		n.push(name, "1.0.0", configMap("app", name))
		n.scan(name, inShard(shard), notAnnotated)
		n.writtenByHand(name, func(obj *v1alpha1.ArtifactRepository) { obj.Labels = map[string]string{shardLabel: shard} })
	}
	for name := range damages {
		published[name] = n.published(name, "1.0.0")
	}
	wanted := map[string]string{}
	for name, artifact := range published {
		wanted[name] = artifact.Revision
	}
	whole := func(when string) {
		for name, artifact := range n.unharmed(wanted, controller) {
			n.Expect(artifact).To(BeSamePublication(published[name]), "%s, %s", name, when)
		}
	}
	for _, name := range shuffled(random, damages) {
		damages[name](fileOf(controller.StorageDir, published[name]))
		n.reconciled(name)
		code, digest, err := download(t.Context(), published[name].URL)
		n.Expect(err).NotTo(HaveOccurred())
		n.Expect(code).To(Equal(http.StatusOK), name)
		n.Expect(digest).To(Equal(published[name].Digest), "%s, after the request was handled", name)
	}
	whole("after requests")

	n.Expect(controller.Kill()).To(Succeed())
	for _, name := range shuffled(random, damages) {
		damages[name](fileOf(controller.StorageDir, published[name]))
	}
	n.Expect(controller.Restart(t.Context())).To(Succeed())
	whole("after a restart")
}

// A file that is gone is announced as such to nobody: who asks for it waits
// until it is made again.
func TestMissingFilesAreMadeAgainWhenAskedFor(t *testing.T) {
	t.Parallel()
	const shard = "missing"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, shard, quickAPI...)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("app", inShard(shard), notAnnotated)
	n.writtenByHand("app", func(obj *v1alpha1.ArtifactRepository) { obj.Labels = map[string]string{shardLabel: shard} })
	artifact := n.published("app", "1.0.0")
	n.wipe(controller.StorageDir)
	n.eventually(func(g Gomega) {
		code, digest, err := download(t.Context(), artifact.URL)
		g.Expect(err).NotTo(HaveOccurred())
		if code != http.StatusOK && code != http.StatusServiceUnavailable {
			StopTrying(fmt.Sprintf("a file that is recorded was answered with %d", code)).Now()
		}
		// 503 is the answer while the folder vanishes under what is being made.
		g.Expect([]any{code, digest}).To(Equal([]any{http.StatusOK, artifact.Digest}))
	})
	n.Expect(n.unharmed(map[string]string{"app": "1.0.0"}, controller)).To(HaveKeyWithValue("app", BeSamePublication(artifact)))
}

// extend adds bytes to the end of a file, in place.
func (n *tenant) extend(path string) {
	n.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	n.Expect(err).NotTo(HaveOccurred())
	_, err = f.WriteString("more")
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(f.Close()).To(Succeed())
}

// A controller whose view of its own record is old must not publish from it:
// the record may have moved on.
func TestStaleRecord(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "stale")
	consumer := consume(v.tenant, app, neverDown)
	v.caughtUp()
	behind := v.api.stop(inAnswer, watches("artifactrepositories"))
	revision, _ := v.push(nil)
	v.reached(revision)
	behind.await(v.tenant)

	change(v.tenant, named(v.tenant, app, &imagev1.ImagePolicy{}), func(policy *imagev1.ImagePolicy) {
		policy.Spec.Policy.SemVer.Range = ">=9.0.0"
	})
	v.eventually(func(g Gomega) {
		g.Expect(conditions.IsFalse(get(v.tenant, app, &imagev1.ImagePolicy{}), meta.ReadyCondition)).To(BeTrue())
	})
	before := v.reconciles()
	v.eventually(func(g Gomega) {
		g.Expect(v.reconciles()).To(BeNumerically(">=", before+3), "the controller acts on what the policy says now")
	})
	v.Expect(get(v.tenant, app, &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(revision))
	behind.open()
	v.notReady(app, v1alpha1.ReasonDependencyNotReady)
	v.Expect(get(v.tenant, app, &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(revision))
	change(v.tenant, named(v.tenant, app, &imagev1.ImagePolicy{}), func(policy *imagev1.ImagePolicy) {
		policy.Spec.Policy.SemVer.Range = ">=0.0.0"
	})
	v.unharmed(map[string]string{app: revision}, v.controller)
	v.Expect(consumer.content()).To(HaveLen(1 + 1))
}

// caughtUp waits until the controller's cache holds all that it wrote itself: an
// event that is larger than any of those, and behind them, has been delivered.
func (v *victim) caughtUp() {
	v.Helper()
	v.settled(app, get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact.Revision)
	delivered := func() (total int64) {
		for _, watch := range v.api.seen(watches("artifactrepositories")) {
			total += watch.Bytes
		}
		return total
	}
	ballast := strings.Repeat("x", 64<<10)
	before := delivered()
	change(v.tenant, named(v.tenant, app, &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) {
		metav1.SetMetaDataAnnotation(&obj.ObjectMeta, "example.com/ballast", ballast)
	})
	v.eventually(func(g Gomega) { g.Expect(delivered()).To(BeNumerically(">=", before+int64(len(ballast)))) })
}

// reached waits until a revision is what consumers see, whatever the conditions say.
func (v *victim) reached(revision string) {
	v.Helper()
	v.eventually(func(g Gomega) {
		external := get(v.tenant, app, &sourcev1.ExternalArtifact{})
		g.Expect(external.Status.Artifact.Revision).To(Equal(revision))
	})
}

// reconciles returns how often the controller has looked at an ArtifactRepository.
func (v *victim) reconciles() (total int) {
	v.Helper()
	for line := range strings.Lines(v.read("http://" + v.controller.Metrics + "/metrics")) {
		if rest, ok := strings.CutPrefix(line, `controller_runtime_reconcile_total{controller="artifactrepository",`); ok {
			var count int
			_, err := fmt.Sscan(rest[strings.Index(rest, "} ")+2:], &count)
			v.Expect(err).NotTo(HaveOccurred(), line)
			total += count
		}
	}
	return total
}
