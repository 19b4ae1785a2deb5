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

package publication_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/publication"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func hex(i int) string { return fmt.Sprintf("%064x", i) }

// publish records publication i as the controller does.
func publish(obj *v1alpha1.ArtifactRepository, i int, recipe v1alpha1.Recipe) {
	status := &obj.Status
	publication.Retire(status)
	revision := fmt.Sprintf("1.0.%d@sha256:%s", i, hex(1000+i))
	recipe.Digest = "sha256:" + hex(1000+i)
	status.History = append([]v1alpha1.Publication{{
		Revision: revision, Tag: fmt.Sprintf("1.0.%d", i), Digest: recipe.Digest, Format: "Flux",
		PublishedAt: metav1.NewTime(start.Add(time.Duration(i) * time.Hour)),
	}}, status.History...)
	status.History = status.History[:min(len(status.History), v1alpha1.MaxHistory)]
	status.Artifact = &meta.Artifact{Path: "externalartifact/apps/app/" + hex(i) + ".tar.gz", Digest: "sha256:" + hex(i), Revision: revision}
	status.Record = publication.Shorten(&recipe, fmt.Sprintf("hash-%d", i), v1alpha1.MaxSettingsBytes)
	status.ObservedContent = fmt.Sprintf("hash-%d", i)
}

func source() *v1alpha1.ArtifactRepository {
	return &v1alpha1.ArtifactRepository{ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "app"}}
}

func TestAFormerFileHasItsOwnRecipe(t *testing.T) {
	g, obj := NewWithT(t), source()
	for i, ignore := range []string{"a", "b", strings.Repeat("c", v1alpha1.MaxFormerSettingsBytes), "d"} {
		publish(obj, i, v1alpha1.Recipe{Image: fmt.Sprintf("ghcr.io/org/app-%d", i), ImageRepository: "other/lender", Platform: "linux/amd64", Ignore: &ignore, Size: int64(i)})
	}
	before := obj.DeepCopy()
	for i, want := range []v1alpha1.Recipe{{Ignore: new("a"), Platform: "linux/amd64"}, {Ignore: new("b"), Platform: "linux/amd64"}, {SettingsHash: "hash-2"}} {
		former, replaced := publication.Former(obj, hex(i))
		g.Expect(former).NotTo(BeNil())
		want.Image, want.ImageRepository, want.Digest, want.Size = fmt.Sprintf("ghcr.io/org/app-%d", i), "other/lender", "sha256:"+hex(1000+i), int64(i)
		g.Expect(*former.Status.Record).To(Equal(want))
		g.Expect(former.Status.Artifact.Path).To(Equal("externalartifact/apps/app/" + hex(i) + ".tar.gz"))
		g.Expect(publication.Current(former).Artifact.Revision).To(Equal(fmt.Sprintf("1.0.%d@sha256:%s", i, hex(1000+i))))
		g.Expect(publication.Latest(former).Tag).To(Equal(fmt.Sprintf("1.0.%d", i)))
		g.Expect(replaced).To(BeTemporally("==", start.Add(time.Duration(i+1)*time.Hour)))
	}
	g.Expect(obj).To(Equal(before), "a query does not change the object")
}

func TestAFileWithoutARecipeIsNotMadeAgain(t *testing.T) {
	for name, change := range map[string]func(*v1alpha1.ArtifactRepository){
		"recorded by an earlier release": func(obj *v1alpha1.ArtifactRepository) {
			obj.Status.History[1].FileDigest, obj.Status.History[1].Recipe = "", nil
		},
		"another file":        func(obj *v1alpha1.ArtifactRepository) { obj.Status.History[1].FileDigest = "sha256:" + hex(7) },
		"without an artifact": func(obj *v1alpha1.ArtifactRepository) { obj.Status.Artifact = nil },
		"withdrawn before the next one": func(obj *v1alpha1.ArtifactRepository) {
			withdrawn := source()
			publish(withdrawn, 0, v1alpha1.Recipe{})
			withdrawn.Status.Artifact, withdrawn.Status.Record = nil, nil
			publish(withdrawn, 1, v1alpha1.Recipe{})
			*obj = *withdrawn
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, obj := NewWithT(t), source()
			publish(obj, 0, v1alpha1.Recipe{})
			publish(obj, 1, v1alpha1.Recipe{})
			former, _ := publication.Former(obj, hex(0))
			g.Expect(former).NotTo(BeNil())
			change(obj)
			former, _ = publication.Former(obj, hex(0))
			g.Expect(former).To(BeNil())
		})
	}
	g, obj := NewWithT(t), source()
	publish(obj, 0, v1alpha1.Recipe{})
	former, _ := publication.Former(obj, hex(0))
	g.Expect(former).To(BeNil(), "the record is the recipe of the published file")
}

// The API server accepts objects of up to 1.5 MiB; a cluster with thousands of sources
// needs much smaller ones.
func TestTheLargestObjectStaysBelow256KiB(t *testing.T) {
	text := func(length int) string { return strings.Repeat("t", length) }
	image := "ghcr.io/" + text(247)
	obj := source()
	obj.Namespace, obj.Name = text(63), text(253)
	obj.Spec = v1alpha1.ArtifactRepositorySpec{
		Image: image, FilterTags: &imagev1.TagFilter{Pattern: text(1024), Extract: text(1024)},
		Policy: &imagev1.ImagePolicyChoice{SemVer: &imagev1.SemVerPolicy{Range: text(1024)}},
		Ignore: new(strings.Repeat("🚀", 16384)), Platform: text(128),
		LayerSelector: &sourcev1.OCILayerSelector{MediaType: text(255), Operation: "extract"},
	}
	identity := sourcev1.OIDCIdentityMatch{Issuer: text(1024), Subject: text(1024)}
	obj.Spec.Verify = &sourcev1.OCIRepositoryVerification{MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{
		identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity, identity,
	}}
	settings := func(ignore string) v1alpha1.Recipe {
		return v1alpha1.Recipe{
			Image: image, ImageRepository: obj.Namespace + "/" + obj.Name, Format: "Kubernetes",
			Platform: obj.Spec.Platform, LayerSelector: obj.Spec.LayerSelector, Ignore: &ignore, Size: 1 << 40,
		}
	}
	for i := range 2 * v1alpha1.MaxHistory {
		publish(obj, i, settings(fmt.Sprint(i)+text(v1alpha1.MaxFormerSettingsBytes-550)))
		obj.Status.History[0].Tag, obj.Status.History[0].VerifiedBy = text(128), text(1024)
		obj.Status.History[0].Revision = text(128) + "@sha256:" + hex(i)
		obj.Status.Artifact.Revision = obj.Status.History[0].Revision
	}
	last := settings(*obj.Spec.Ignore)
	publish(obj, 99, last)
	for i := range v1alpha1.MaxHistory {
		obj.Status.TrustWarnings = append(obj.Status.TrustWarnings, text(1024))
		obj.Status.Withdrawn = append(obj.Status.Withdrawn, "sha256:"+hex(i))
	}
	for range 5 {
		obj.Status.Conditions = append(obj.Status.Conditions, metav1.Condition{Type: "ArtifactInStorage", Status: metav1.ConditionTrue, Reason: "Succeeded", Message: text(4096)})
	}
	obj.Status.Decision = &v1alpha1.Decision{}
	for range v1alpha1.MaxSteps {
		obj.Status.Decision.Steps = append(obj.Status.Decision.Steps, v1alpha1.Step{
			Name: "Permission", Policy: text(253), Effect: v1alpha1.EffectWithdraw, Reason: v1alpha1.ReasonStorageOperationFailed,
			Message: text(v1alpha1.MaxStepMessage), Until: &metav1.Time{Time: start},
		})
	}
	kept := 0
	for _, entry := range obj.Status.History {
		if entry.Recipe != nil && entry.Recipe.Ignore != nil {
			kept++
		}
	}
	if kept != v1alpha1.MaxHistory-1 {
		t.Errorf("%d entries of the history have settings", kept)
	}
	encoded, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	if len(encoded) >= 256<<10 {
		t.Errorf("the object takes %d bytes", len(encoded))
	}
	t.Logf("%d bytes", len(encoded))
}
