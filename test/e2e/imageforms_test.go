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
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/publish"
)

// sample applies a file of config/samples as it is, but for what a test must
// change: the namespace, the registry, and how often it is looked at.
func (n *tenant) sample(file string) {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	text, err := os.ReadFile(filepath.Join(root, "config", "samples", file))
	n.Expect(err).NotTo(HaveOccurred())
	n.apply(strings.NewReplacer(
		"namespace: apps", "namespace: "+n.namespace,
		"targetNamespace: apps", "targetNamespace: "+n.namespace,
		"image: ghcr.io/example/", "insecure: true\n  image: "+env.Registry().Host()+"/"+n.namespace+"/",
		"interval: 10m", "interval: 1s",
		"interval: 5m", "interval: 1s",
	).Replace(string(text)))
}

// kustomized waits until a Kustomization is ready with the revision of a tag.
func (n *tenant) kustomized(name, tag string) {
	n.Helper()
	kustomization := &unstructured.Unstructured{}
	kustomization.SetAPIVersion("kustomize.toolkit.fluxcd.io/v1")
	kustomization.SetKind("Kustomization")
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), kustomization)).To(Succeed())
		applied, _, err := unstructured.NestedString(kustomization.Object, "status", "lastAppliedRevision")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(applied).To(HavePrefix(tag + "@sha256:"))
		all, _, err := unstructured.NestedSlice(kustomization.Object, "status", "conditions")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(all).To(ContainElement(SatisfyAll(HaveKeyWithValue("type", "Ready"), HaveKeyWithValue("status", "True"))))
	})
}

func TestSamplesOfImages(t *testing.T) {
	t.Parallel()
	for sentence, test := range map[string]struct {
		file, name, image string
		// tags that are there at first, and those that are pushed later.
		tags, later []string
		want, next  string
		// edit is what a person does for the next one, if anything.
		edit func(*v1alpha1.ArtifactRepository)
	}{
		"a fixed tag": {
			file: "image_tag.yaml", name: "payments", image: "payments-deploy",
			tags: []string{"1.4.2", "1.5.0"}, want: "1.4.2",
			next: "1.5.0", edit: func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "1.5.0" },
		},
		"nightly builds by timestamp": {
			file: "image_nightly.yaml", name: "search-nightly", image: "search-deploy",
			tags:  []string{"nightly-20260731020000", "nightly-20260801020000", "nightly-latest", "20270101000000", "1.0.0"},
			want:  "nightly-20260801020000",
			later: []string{"nightly-20260802020000", "nightly-20260101020000", "release-20280101000000"},
			next:  "nightly-20260802020000",
		},
		"release candidates by version": {
			file: "image_candidates.yaml", name: "web-candidates", image: "web-deploy",
			tags:  []string{"1.2.0-rc.1", "1.2.0-rc.2", "1.1.0", "1.3.0-alpha.1", "0.9.0"},
			want:  "1.2.0-rc.2",
			later: []string{"1.2.0", "1.2.0-rc.10", "2.0.0-beta.1"},
			next:  "1.2.0",
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			push := func(tags []string) {
				for _, tag := range tags {
					n.push(test.image, tag, publish.Files{"app.yaml": configMap("deployed", tag)["deploy/app.yaml"]})
				}
			}
			push(test.tags)
			n.sample(test.file)
			n.published(test.name, test.want)
			n.kustomized(test.name, test.want)
			n.deployed("deployed", test.want)

			push(test.later)
			if test.edit != nil {
				change(n, named(n, test.name, &v1alpha1.ArtifactRepository{}), test.edit)
			}
			n.published(test.name, test.next)
			n.kustomized(test.name, test.next)
			n.deployed("deployed", test.next)

			record := get(n, test.name, &v1alpha1.ArtifactRepository{})
			n.Expect(record.Status.History).To(HaveLen(2), "each version once, and nothing in between")
			n.Expect(record.Status.Record.Image).To(Equal(n.ref(test.image)))
		})
	}
}

// images creates an ArtifactRepository with an image of the shared registry,
// which is looked at each second.
func (n *tenant) images(name string, change func(*v1alpha1.ArtifactRepositorySpec)) {
	n.Helper()
	obj := named(n, name, &v1alpha1.ArtifactRepository{})
	obj.Spec = v1alpha1.ArtifactRepositorySpec{Image: n.ref(name), Insecure: true, Interval: &metav1.Duration{Duration: time.Second}}
	change(&obj.Spec)
	n.create(obj)
}

// A tag that is pushed again reaches the cluster without a policy.
func TestAMovedTagOfAnImage(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	before := n.push("app", "stable", configMap("app", "1"))
	n.images("app", func(spec *v1alpha1.ArtifactRepositorySpec) { spec.Tag = "stable" })
	n.deploy("app")
	n.published("app", before)
	n.deployed("app", "1")
	after := n.push("app", "stable", configMap("app", "2"))
	n.published("app", after)
	n.deployed("app", "2")
}

// Two images with the same tags: image-reflector-controller does not notice
// the change by itself, and is asked.
func TestAnotherImageWithTheSameTags(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "of one"))
	other := n.push("other", "1.0.0", configMap("app", "of the other"))
	n.images("app", func(spec *v1alpha1.ArtifactRepositorySpec) {
		spec.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "1.x"}}
	})
	n.deploy("app")
	n.deployed("app", "of one")
	change(n, named(n, "app", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Image = n.ref("other") })
	n.published("app", other)
	n.deployed("app", "of the other")
}

// A change of the policy, an excluded signature, the pin and its end, and what
// is left when the policy goes: on the real image-reflector-controller.
func TestTheLifeOfAPolicyOfItsOwn(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceAll)
	good := n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.push("app", "1.1.0", configMap("app", "1.1.0"))
	n.push("app", "sha256-"+strings.Repeat("f", 64), configMap("app", "signature"))
	n.images("app", func(spec *v1alpha1.ArtifactRepositorySpec) {
		spec.Policy = &imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}}
	})
	n.published("app", "1.1.0")
	obj := named(n, "app", &v1alpha1.ArtifactRepository{})

	_, digest, _ := strings.Cut(good, "@")
	change(n, obj, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = digest })
	n.published("app", digest)
	n.push("app", "1.2.0", configMap("app", "1.2.0"))
	n.eventually(func(g Gomega) {
		record := &v1alpha1.ArtifactRepository{}
		g.Expect(env.Client.Get(n.Context(), n.key("app"), record)).To(Succeed())
		g.Expect(conditions.GetMessage(record, meta.ReadyCondition)).To(ContainSubstring("ImagePolicy app would pick 1.2.0"))
	})
	n.Expect(n.published("app", digest).Revision).To(Equal(digest))
	change(n, obj, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Digest = "" })
	n.published("app", "1.2.0")

	change(n, obj, func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "1.0.x"}}
	})
	n.published("app", good)
	n.Expect(get(n, "app", &v1alpha1.ArtifactRepository{}).OwnerReferences).To(BeEmpty(), "the policy is not a source by itself")

	change(n, obj, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Policy, obj.Spec.Tag = nil, "1.1.0" })
	n.published("app", "1.1.0")
	n.gone("app", &imagev1.ImagePolicy{})
	n.gone("app", &imagev1.ImageRepository{})
}

// What belongs to an ArtifactRepository goes with it.
func TestDeletingAnArtifactRepositoryRemovesItsImageObjects(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.images("app", func(spec *v1alpha1.ArtifactRepositorySpec) {
		spec.Policy = &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}}
	})
	n.published("app", "1.0.0")
	n.Expect(env.Client.Delete(n.Context(), named(n, "app", &v1alpha1.ArtifactRepository{}))).To(Succeed())
	n.removed("app")
	n.gone("app", &imagev1.ImagePolicy{})
	n.gone("app", &imagev1.ImageRepository{})
}

// A shard does not see an ImagePolicy without its label, and leaves it alone
// all the same.
func TestAnImagePolicyThatAShardDoesNotSee(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	startShard(t, n.namespace)
	n.push("app", "1.0.0", configMap("app", "1.0.0"))
	n.scan("other")
	policy := named(n, "app", &imagev1.ImagePolicy{})
	policy.Spec.ImageRepositoryRef.Name = "other"
	policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: "9.x"}
	n.create(policy)
	obj := named(n, "app", &v1alpha1.ArtifactRepository{})
	obj.Labels = map[string]string{shardLabel: n.namespace}
	obj.Spec = v1alpha1.ArtifactRepositorySpec{
		Image: n.ref("app"), Insecure: true, Interval: &metav1.Duration{Duration: time.Second},
		Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: "*"}},
	}
	n.create(obj)
	_, ready := n.notReady("app", v1alpha1.ReasonNameConflict)
	n.Expect(ready.Message).To(ContainSubstring("ImagePolicy app exists"))
	n.Expect(get(n, "app", &imagev1.ImagePolicy{}).Spec.Policy.SemVer.Range).To(Equal("9.x"))

	n.Expect(env.Client.Delete(n.Context(), policy)).To(Succeed())
	n.published("app", "1.0.0")
	n.Expect(get(n, "app", &imagev1.ImagePolicy{}).Labels).To(HaveKeyWithValue(shardLabel, n.namespace))
	n.Expect(get(n, "app", &imagev1.ImageRepository{}).Labels).To(HaveKeyWithValue(shardLabel, n.namespace))
}

// tally is a registry's front door that counts what passes, by whom.
type tally struct {
	*httptest.Server
	mu     sync.Mutex
	visits []visit
}

type visit struct {
	at                  time.Time
	agent, method, path string
}

func newTally(t *testing.T, registry *controlplane.Registry) *tally {
	t.Helper()
	target, err := url.Parse(registry.URL())
	if err != nil {
		t.Fatal(err)
	}
	c := &tally{}
	// What the registry says of its own address is to be that of the door.
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.visits = append(c.visits, visit{at: time.Now(), agent: r.UserAgent(), method: r.Method, path: r.URL.Path})
		c.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(c.Close)
	return c
}

// ours counts requests of image-source-controller from a time on.
func (c *tally) ours(from time.Time, method, part string) int {
	return c.count(from, func(v visit) bool {
		return isOurs(v) && v.method == method && strings.Contains(v.path, part)
	})
}

func (c *tally) count(from time.Time, matches func(visit) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	count := 0
	for _, v := range c.visits {
		if v.at.After(from) && matches(v) {
			count++
		}
	}
	return count
}

func isOurs(v visit) bool { return strings.HasPrefix(v.agent, "image-source-controller/") }

// Three hundred ArtifactRepositories of thirty tags cost the registry what
// thirty would. One of ten has a policy of its own, for which
// image-reflector-controller lists tags.
func TestManyArtifactRepositoriesOfFewTags(t *testing.T) {
	t.Parallel()
	const (
		images, tags, copies = 3, 10, 10
		distinct             = images * tags
		interval             = 6 * time.Second
		intervals            = 3
	)
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	door := newTally(t, env.Registry())
	for i := range distinct {
		n.push(fmt.Sprintf("app-%d", i%images), fmt.Sprintf("v%d", i/images), configMap(n.namespace, fmt.Sprint(i))) // content that no other test has
	}
	start := time.Now()
	for i := range distinct * copies {
		obj := named(n, fmt.Sprintf("app-%d", i), &v1alpha1.ArtifactRepository{})
		tag := fmt.Sprintf("v%d", i/images%tags)
		obj.Spec = v1alpha1.ArtifactRepositorySpec{
			Image: fmt.Sprintf("%s/%s/app-%d", door.Listener.Addr(), n.namespace, i%images), Insecure: true,
			Interval: &metav1.Duration{Duration: interval},
		}
		if i < distinct {
			obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: "^" + tag + "$"}
			obj.Spec.Policy = &imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}}
		} else {
			obj.Spec.Tag = tag
		}
		n.create(obj)
	}
	for i := range distinct * copies {
		n.published(fmt.Sprintf("app-%d", i), fmt.Sprintf("v%d", i/images%tags))
	}
	n.Expect(door.ours(start, http.MethodGet, "/blobs/")).To(Equal(distinct), "each content is pulled once")
	n.Expect(door.ours(start, http.MethodGet, "/manifests/")).To(Equal(distinct), "each manifest is read once")
	n.Expect(door.ours(start, http.MethodGet, "")).To(BeNumerically("<=", 2*distinct+1), "and one ping")

	idle := time.Now()
	for window := 1; window <= intervals; window++ {
		n.Eventually(func() time.Duration { return time.Since(idle) }, patience, poll).Should(BeNumerically(">=", time.Duration(window)*interval))
	}
	heads := door.ours(idle, http.MethodHead, "/manifests/")
	others := door.count(idle, func(v visit) bool { return !isOurs(v) })
	n.Logf("%d tags, %d sources, %d intervals: %d HEADs; image-reflector-controller sent %d requests", distinct, distinct*copies, intervals, heads, others)
	n.Expect(heads).To(BeNumerically("<=", distinct*(intervals+1)), "a HEAD for each tag and interval, and one where the window cuts an interval")
	n.Expect(heads).To(BeNumerically(">=", distinct*(intervals-1)), "each tag is still looked at")
	n.Expect(door.ours(idle, http.MethodGet, "")).To(BeZero(), "nothing is read again")
	n.Expect(door.count(idle, func(v visit) bool { return isOurs(v) && strings.Contains(v.path, "/tags/") })).To(BeZero(), "tags are listed by image-reflector-controller only")
}
