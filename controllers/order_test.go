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
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// A policy picks any of several tags of equal order. The published one stays, as long as it
// exists and the policy admits it.
func TestAnEqualPickChangesNoArtifact(t *testing.T) {
	for sentence, c := range map[string]struct {
		published, equal, newer string
		change                  func(*imagev1.ImagePolicy)
	}{
		"versions": {published: "1.0.0", equal: "v1.0.0", newer: "v1.0.1"},
		"versions behind a filter": {published: "v1.0.0", equal: "1.0.0", newer: "1.0.1", change: func(obj *imagev1.ImagePolicy) {
			obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: `^v?[0-9.]+$`}
		}},
		"versions of a calendar": {published: "2026.08.01", equal: "v2026.08.01", newer: "2026.08.02"},
		"numbers that are extracted": {published: "main-7", equal: "dev-7", newer: "dev-8", change: func(obj *imagev1.ImagePolicy) {
			obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: `^[a-z]+-(?P<n>[0-9]+)$`, Extract: "$n"}
			obj.Spec.Policy = imagev1.ImagePolicyChoice{Numerical: &imagev1.NumericalPolicy{Order: "asc"}}
		}},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			for i, tag := range []string{c.published, c.equal, c.newer} {
				s.push("app:"+tag, version(strings.Repeat("1", i+1)))
			}
			s.imageRepository("app")
			if c.change == nil {
				c.change = func(*imagev1.ImagePolicy) {}
			}
			s.imagePolicy("app", annotated, c.change)
			s.picks("app", imagev1.ImageRef{Tag: c.published})
			before := s.waitPublished("app", c.published+"@")

			s.picks("app", imagev1.ImageRef{Tag: c.equal})
			s.reconciled("app")
			g.Expect(s.waitPublished("app", c.published+"@").Status.Artifact).To(Equal(before.Status.Artifact))

			s.picks("app", imagev1.ImageRef{Tag: c.newer})
			s.waitPublished("app", c.newer+"@")
		})
	}
}

// The schema of an ImagePolicy bounds no filter. This one takes a minute to compile and
// match, without a way to stop it.
func TestAFilterOfAnySizeDelaysNoOtherSource(t *testing.T) {
	s := startScene(t)
	s.publishes("app", strings.Repeat("a", 128))
	edit(s, "app", func(obj *imagev1.ImagePolicy) {
		obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: strings.Repeat("(a?){999}", 200), Extract: strings.Repeat("$0", 500_000)}
	})
	tag := strings.Repeat("a", 127)
	s.push("app:"+tag, version("2"))

	start := time.Now()
	s.picks("app", imagev1.ImageRef{Tag: tag})
	s.waitPublished("app", tag+"@")
	NewWithT(t).Expect(time.Since(start)).To(BeNumerically("<", 20*time.Second))
}

// The schema of an ImageRepository does not bound the tags of a scan. These take minutes to
// go through, without a way to stop it.
func TestManyTagsOfAScanDelayNoOtherSource(t *testing.T) {
	s := startScene(t)
	s.publishes("app", "1.0.0")
	editStatus(s, "app", func(obj *imagev1.ImageRepository) {
		obj.Status.LastScanResult = &imagev1.ScanResult{LatestTags: slices.Repeat([]string{"a"}, 300_000)}
	})
	edit(s, "app", filtered(strings.Repeat("(a|b)", 200), ""))
	s.push("app:1.0.1", version("2"))

	start := time.Now()
	s.picks("app", imagev1.ImageRef{Tag: "1.0.1"})
	s.waitPublished("app", "1.0.1@")
	NewWithT(t).Expect(time.Since(start)).To(BeNumerically("<", 20*time.Second))
}

// A newer pick of the published digest is no reason to deploy.
func TestAPickOfTheSameDigestChangesNoArtifact(t *testing.T) {
	for sentence, reflect := range map[string]bool{"of a tag": false, "of a tag and its digest": true} {
		t.Run(sentence, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			digest, _ := s.push("app:1.0.0", version("1"))
			for _, tag := range []string{"1.0.1", "v1.0.2", "2.0.0"} {
				s.push("app:"+tag, version("1"))
			}
			s.imageRepository("app")
			s.imagePolicy("app", annotated, func(*imagev1.ImagePolicy) {})
			pick := func(tag string) {
				ref := imagev1.ImageRef{Tag: tag}
				if reflect {
					ref.Digest = digest.String()
				}
				s.picks("app", ref)
			}
			pick("1.0.0")
			before := s.waitPublished("app", "1.0.0@")
			for _, tag := range []string{"1.0.1", "v1.0.2", "1.0.1"} {
				pick(tag)
				s.reconciled("app")
				g.Expect(s.waitPublished("app", "1.0.0@").Status.Artifact).To(Equal(before.Status.Artifact))
				g.Expect(s.record("app").Status.LatestRef.Tag).To(Equal(tag))
				g.Expect(conditions.GetMessage(s.record("app"), meta.ReadyCondition)).To(ContainSubstring("the tag " + tag + ", the pick of the policy, has the same digest"))
			}
			g.Expect(s.record("app").Status.History).To(HaveLen(1))

			// The name goes when the policy does not admit it any more.
			edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.Policy.SemVer.Range = ">=1.0.1" })
			pick("1.0.1")
			s.waitPublished("app", "1.0.1@"+digest.String())
		})
	}
}

// Helm writes _ for the + of a version into a tag, and no semver policy reads this as a
// version. The source of a chart reports it.
func TestBuildsOfAChartThatThePolicyDoesNotSee(t *testing.T) {
	scanned := func(s *scene, tags ...string) {
		editStatus(s, "orders", func(obj *imagev1.ImageRepository) { obj.Status.LastScanResult = &imagev1.ScanResult{LatestTags: tags} })
	}
	message := func(s *scene) string { return conditions.GetMessage(s.record("orders"), meta.ReadyCondition) }
	const advice = "stands for the version 1.1.0+up2, which the policy does not see: let filterTags extract the version"
	for sentence, c := range map[string]struct {
		tags   []string
		change func(*imagev1.ImagePolicy)
		told   bool
	}{
		"a build of a newer version":           {tags: []string{"1.0.0", "1.1.0_up2"}, told: true},
		"with a filter that lets it pass":      {tags: []string{"1.1.0_up2"}, change: filtered("^[0-9]", ""), told: true},
		"with a filter that leaves it out":     {tags: []string{"1.1.0_up2"}, change: filtered("^[0-9.]+$", "")},
		"with a filter that extracts versions": {tags: []string{"1.1.0_up2"}, change: filtered("^(?P<v>[0-9.]+)(_.+)?$", "$v")},
		"out of the range":                     {tags: []string{"3.0.0_up2"}, change: func(obj *imagev1.ImagePolicy) { obj.Spec.Policy.SemVer.Range = "1.x" }},
		"no version":                           {tags: []string{"main_2", "1_2", "1.1_up2", "1.1.0_", "1.1.0_a_b"}},
		"another order": {tags: []string{"1.1.0_up2"}, change: func(obj *imagev1.ImagePolicy) {
			obj.Spec.Policy = imagev1.ImagePolicyChoice{Alphabetical: &imagev1.AlphabeticalPolicy{Order: "asc"}}
		}},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, g := startScene(t), NewWithT(t)
			_, err := publish.Registry{Host: s.registry.Host()}.Helm("team", publish.Chart{Name: "orders", Version: "1.0.0"})
			g.Expect(err).NotTo(HaveOccurred())
			s.imageRepository("orders")
			if c.change == nil {
				c.change = func(*imagev1.ImagePolicy) {}
			}
			s.imagePolicy("orders", annotated, c.change)
			scanned(s, c.tags...)
			s.picks("orders", imagev1.ImageRef{Tag: "1.0.0"})
			s.waitPublished("orders", "1.0.0@")
			s.eventually(func(g Gomega) { g.Expect(strings.Contains(message(s), advice)).To(Equal(c.told), message(s)) })
		})
	}

	t.Run("without a pick", func(t *testing.T) {
		s := startScene(t)
		s.imageRepository("orders")
		s.imagePolicy("orders", annotated, func(*imagev1.ImagePolicy) {})
		scanned(s, "1.1.0_up2")
		editStatus(s, "orders", func(obj *imagev1.ImagePolicy) {
			obj.Status.ObservedGeneration = obj.Generation
			conditions.MarkFalse(obj, meta.ReadyCondition, "Failed", "unable to determine latest version from provided list")
		})
		s.waitFailed("orders", v1alpha1.ReasonDependencyNotReady, "unable to determine latest version", "if it holds Helm charts, the tag 1.1.0_up2", advice)
	})
	t.Run("no chart", func(t *testing.T) {
		s, g := startScene(t), NewWithT(t)
		s.source("orders", "1.0.0")
		scanned(s, "1.1.0_up2")
		s.waitPublished("orders", "1.0.0@")
		s.reconciled("orders")
		g.Expect(message(s)).NotTo(ContainSubstring("1.1.0_up2"))
	})
}

func filtered(pattern, extract string) func(*imagev1.ImagePolicy) {
	return func(obj *imagev1.ImagePolicy) {
		obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: pattern, Extract: extract}
	}
}

func TestAPickThatIsEqualIsPublishedWhereTheOtherIsGone(t *testing.T) {
	for sentence, leave := range map[string]func(s *scene){
		"from the registry": func(s *scene) {
			s.registry.Answer(func(w http.ResponseWriter, r *http.Request) bool {
				if gone := strings.HasSuffix(r.URL.Path, "/manifests/1.0.0"); !gone {
					return false
				}
				w.WriteHeader(http.StatusNotFound)
				_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`))
				return true
			})
		},
		"from the tags that the policy admits": func(s *scene) {
			edit(s, "app", func(obj *imagev1.ImagePolicy) { obj.Spec.FilterTags = &imagev1.TagFilter{Pattern: `^v`} })
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := startScene(t)
			s.publishes("app", "1.0.0")
			s.push("app:v1.0.0", version("2"))
			leave(s)
			s.picks("app", imagev1.ImageRef{Tag: "v1.0.0"})
			edit(s, "app", func(obj *v1alpha1.ArtifactRepository) { request(obj, "now") })
			s.waitPublished("app", "v1.0.0@")
		})
	}
}
