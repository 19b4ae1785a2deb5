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

package source_test

import (
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/source"
)

// The schema of an ImageRepository does not limit the names of Secrets. The state of a registry is
// kept by these names, longer than the object lasts.
func TestNamesThatNoObjectCanHaveAreRefusedBeforeTheyAreKept(t *testing.T) {
	name := &meta.LocalObjectReference{Name: strings.Repeat("n", 1_000_000)}
	for field, spec := range map[string]imagev1.ImageRepositorySpec{
		"secretRef": {SecretRef: name}, "certSecretRef": {CertSecretRef: name}, "proxySecretRef": {ProxySecretRef: name},
	} {
		t.Run(field, func(t *testing.T) {
			g := NewWithT(t)
			spec.Image = "ghcr.io/org/app"
			s := source.Snapshot{Object: published(), Policy: &imagev1.ImagePolicy{}, Repository: &imagev1.ImageRepository{Spec: spec}}
			_, wanted := s.Wanted()
			_, recorded := s.Recorded()
			for _, err := range []error{wanted, recorded} {
				g.Expect(err).To(MatchError(HavePrefix(field + ": the name of the Secret has 1000000 characters, expected at most 253")))
				g.Expect(fault.Of(err, "").Reason).To(Equal(v1alpha1.ReasonInvalidSpec))
			}
		})
	}
}

// An absurdly long range is not read: the schema of an ImagePolicy has no limits.
func TestARangeOfAnySizeIsNotRead(t *testing.T) {
	for size, want := range map[int]bool{1: true, 100_000: false} {
		s := newSituation()
		s.policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: strings.Repeat(">=1.0.0 || ", size) + ">=1.0.0"}
		s.obj.Status = published().Status
		got, err := s.snapshot().Wanted()
		if err != nil || (got.Tag == "v1.0.0") != want {
			t.Errorf("a range of %d parts: got the tag %s, error %v", size+1, got.Tag, err)
		}
	}
}

// It does not bound a tag either: a filter can make hundreds of MiB of one.
func TestALongTagOfAScanTakesNoMemory(t *testing.T) {
	s := newSituation()
	s.policy.Spec.Policy.SemVer = &imagev1.SemVerPolicy{Range: "*"}
	s.policy.Spec.FilterTags = &imagev1.TagFilter{Pattern: ".*", Extract: strings.Repeat("${0}", 250)}
	s.repository.Status.LastScanResult = &imagev1.ScanResult{LatestTags: []string{strings.Repeat("a", 1_000_000)}}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = s.snapshot().Wanted()
	runtime.ReadMemStats(&after)
	NewWithT(t).Expect(after.TotalAlloc-before.TotalAlloc).To(BeNumerically("<", 16<<20), "bytes")
}
