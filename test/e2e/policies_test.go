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
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// deploy writes a Kustomization that deploys a source into the tenant's namespace.
func (n *tenant) deploy(name string) {
	n.Helper()
	n.apply(fmt.Sprintf(`apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata:
  name: %[1]s
spec:
  interval: 1h
  retryInterval: 1s
  path: ./deploy
  prune: true
  targetNamespace: %[2]s
  sourceRef:
    kind: ExternalArtifact
    name: %[1]s
`, name, n.namespace))
}

// deployed waits until the ConfigMap of a version is in the cluster, see configMap.
func (n *tenant) deployed(name, version string) {
	n.Helper()
	n.eventually(func(g Gomega) {
		deployed := &corev1.ConfigMap{}
		g.Expect(env.Client.Get(n.Context(), n.key(name), deployed)).To(Succeed())
		g.Expect(deployed.Data).To(HaveKeyWithValue("version", version))
	})
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		filter *imagev1.TagFilter
		policy imagev1.ImagePolicyChoice
		// tags that are there at first, and those that are pushed later.
		tags, later []string
		want, next  string
	}{
		"a timestamp is filtered out of the tag and ordered by number": {
			filter: &imagev1.TagFilter{Pattern: `^main-[a-fA-F0-9]+-(?P<ts>.*)`, Extract: "$ts"},
			policy: imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "asc"}},
			tags:   []string{"main-ffffff-99", "main-0a1b2c-1767225600", "main-Fe1234-1767225599", "dev-0a1b2c-1999999999", "latest"},
			want:   "main-0a1b2c-1767225600",
			later:  []string{"main-000001-1767225601", "dev-0a1b2c-2000000000"},
			next:   "main-000001-1767225601",
		},
		"the smallest number wins in descending order": {
			policy: imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "desc"}},
			tags:   []string{"10", "9", "100"},
			want:   "9",
			later:  []string{"8", "200"},
			next:   "8",
		},
		"the last of the alphabet wins": {
			filter: &imagev1.TagFilter{Pattern: `^RELEASE\.[0-9TZ-]+$`},
			policy: imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}},
			tags:   []string{"RELEASE.2026-07-31T10-00-00Z", "RELEASE.2026-08-01T10-00-00Z", "SNAPSHOT.2027-01-01T00-00-00Z"},
			want:   "RELEASE.2026-08-01T10-00-00Z",
			later:  []string{"RELEASE.2026-08-01T10-00-01Z", "RELEASE.2026-01-01T00-00-00Z"},
			next:   "RELEASE.2026-08-01T10-00-01Z",
		},
		"the highest version within a range wins": {
			policy: imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: ">=1.0.0 <2.0.0"}},
			tags:   []string{"1.9.0", "1.10.0", "2.0.0", "1.11.0-rc.1", "v0.9.0"},
			want:   "1.10.0",
			later:  []string{"1.10.1", "2.0.1"},
			next:   "1.10.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			for _, tag := range test.tags {
				n.push("app", tag, configMap("app", tag))
			}
			n.scan("app", func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
				policy.Spec.FilterTags, policy.Spec.Policy = test.filter, test.policy
			})
			n.deploy("app")
			n.published("app", test.want)
			n.deployed("app", test.want)

			for _, tag := range test.later {
				n.push("app", tag, configMap("app", tag))
			}
			n.published("app", test.next)
			n.deployed("app", test.next)

			history := get(n, "app", &v1alpha1.ArtifactRepository{}).Status.History
			n.Expect(history[0].Tag).To(Equal(test.next))
			n.Expect(history[len(history)-1].Tag).To(Equal(test.want), "the first that was published: %v", history)
		})
	}
}

// A tag that is pushed again is another image under the same name. Who notices
// depends on the policy: it may look the digest up itself, once or always.
func TestMovedTags(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reflection imagev1.ReflectionPolicy
		interval   *metav1.Duration
		follows    bool
	}{
		"a tag without a reflected digest is looked at each interval": {
			reflection: imagev1.ReflectNever, follows: true,
		},
		"a digest that is always reflected is followed": {
			reflection: imagev1.ReflectAlways, interval: &metav1.Duration{Duration: time.Second}, follows: true,
		},
		"a digest that is reflected once is kept, wherever the tag moves": {
			reflection: imagev1.ReflectIfNotPresent, follows: false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			before := n.push("orders", "1.0.0", configMap("orders", "before"))
			n.scan("orders", func(_ *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
				policy.Spec.DigestReflectionPolicy, policy.Spec.Interval = test.reflection, test.interval
			})
			n.deploy("orders")
			n.published("orders", before)
			n.deployed("orders", "before")
			reflected := get(n, "orders", &imagev1.ImagePolicy{}).Status.LatestRef.Digest
			if test.reflection == imagev1.ReflectNever {
				n.Expect(reflected).To(BeEmpty())
			} else {
				n.Expect("1.0.0@" + reflected).To(Equal(before))
			}

			after := n.push("orders", "1.0.0", configMap("orders", "after"))
			if test.follows {
				n.published("orders", after)
				n.deployed("orders", "after")
				return
			}
			n.Expect(n.reconciled("orders").Status.Artifact.Revision).To(Equal(before))
			n.Expect(get(n, "orders", &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(before))
		})
	}
}

// What a policy picked is not always the newest thing in its registry: other
// things are stored as tags too.
func TestSignatureTagsNeverWin(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.push("app", "a", configMap("app", "a"))
	n.scan("app", func(repository *imagev1.ImageRepository, policy *imagev1.ImagePolicy) {
		repository.Spec.ExclusionList = []string{"^nothing$"}
		policy.Spec.Policy = imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}}
	})
	revision := n.published("app", "a").Revision

	n.push("app", "sha256-"+revision[len("a@sha256:"):]+".sig", configMap("app", "signature"))
	obj, ready := n.notReady("app", v1alpha1.ReasonDependencyNotReady)
	n.Expect(ready.Message).To(And(
		ContainSubstring("sha256-"), ContainSubstring("spec.exclusionList"),
		ContainSubstring(`'^sha256-[0-9a-f]{64}(\..+)?$'`), ContainSubstring(`'^.*\.(sig|att|sbom)$'`), ContainSubstring(shortRevision(revision))))
	n.Expect(obj.Status.Artifact.Revision).To(Equal(revision))
	n.Expect(get(n, "app", &sourcev1.ExternalArtifact{}).Status.Artifact.Revision).To(Equal(revision))

	repository := named(n, "app", &imagev1.ImageRepository{})
	change(n, repository, func(repository *imagev1.ImageRepository) {
		repository.Spec.ExclusionList = []string{`^sha256-[0-9a-f]{64}(\..+)?$`, `^.*\.(sig|att|sbom)$`}
	})
	n.published("app", revision)
}
