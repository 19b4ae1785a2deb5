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
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/static"
	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/publish"
)

// This project publishes what source-controller stores of an artifact of one
// layer: the same files, executable or not, as the same revision. It refuses an
// artifact, or leaves out a file, only where the corpus says so.
func TestDifferencesToOCIRepository(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	all := corpus(t)
	names := map[string]string{}
	for i, sentence := range slices.Sorted(maps.Keys(all)) {
		names[sentence] = fmt.Sprintf("odd-%d", i)
		n.fetchTwice(names[sentence], all[sentence])
	}
	for sentence, o := range all {
		t.Run(sentence, func(t *testing.T) {
			(&tenant{T: t, Gomega: NewWithT(t), namespace: n.namespace}).compare(names[sentence], o)
		})
	}
}

// fetchTwice pushes an artifact and has both controllers fetch it.
func (n *tenant) fetchTwice(name string, o oddity) {
	n.Helper()
	artifact, err := publish.FluxImage(static.NewLayer(o.layer, cmp.Or(o.mediaType, publish.FluxContent)))
	n.Expect(err).NotTo(HaveOccurred())
	push := o.push
	if push == nil {
		push = built(func(artifact v1.Image) v1.Image { return artifact })
	}
	push(n, n.image(name)+":1.0.0", artifact)

	ours := named(n, name, &v1alpha1.ArtifactRepository{})
	ours.Spec = v1alpha1.ArtifactRepositorySpec{Image: n.ref(name), Tag: "1.0.0", Insecure: true, Interval: &metav1.Duration{Duration: time.Hour}}
	theirs := named(n, name, &sourcev1.OCIRepository{})
	theirs.Spec.URL, theirs.Spec.Insecure, theirs.Spec.Interval.Duration = "oci://"+n.ref(name), true, time.Hour
	theirs.Spec.Reference = &sourcev1.OCIRepositoryRef{Tag: "1.0.0"}
	if o.ignore != "" {
		ours.Spec.Ignore, theirs.Spec.Ignore = &o.ignore, &o.ignore
	}
	if o.extract {
		theirs.Spec.LayerSelector = &sourcev1.OCILayerSelector{Operation: sourcev1.OCILayerExtract}
		ours.Spec.LayerSelector = theirs.Spec.LayerSelector
	}
	n.create(ours, theirs)
}

// compare waits until both controllers are done with an artifact, and holds that
// they differ as expected.
func (n *tenant) compare(name string, o oddity) {
	n.Helper()
	theirs := named(n, name, &sourcev1.OCIRepository{})
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), theirs)).To(Succeed())
		g.Expect(conditions.IsReady(theirs)).To(BeTrue(), "source-controller stores every artifact of the corpus: %s", conditions.GetMessage(theirs, meta.ReadyCondition))
		// Flux's patch helper writes the conditions before the rest of the status.
		g.Expect(theirs.Status.Artifact).NotTo(BeNil())
	})
	if o.refused != "" {
		ours, ready := n.notReady(name, o.refused)
		n.Expect(ready.Message).To(ContainSubstring(o.risk))
		n.Expect(ours.Status.Artifact).To(BeNil())
		return
	}
	ours := named(n, name, &v1alpha1.ArtifactRepository{})
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), ours)).To(Succeed())
		g.Expect(conditions.Has(ours, meta.ReadyCondition)).To(BeTrue())
		g.Expect(conditions.IsUnknown(ours, meta.ReadyCondition)).To(BeFalse())
	})
	n.Expect(conditions.IsReady(ours)).To(BeTrue(), conditions.GetMessage(ours, meta.ReadyCondition))

	n.Expect(settings.ReplaceAllString(ours.Status.Artifact.Revision, "@")).To(Equal(theirs.Status.Artifact.Revision))
	for key, value := range theirs.Status.Artifact.Metadata {
		n.Expect(ours.Status.Artifact.Metadata).To(HaveKeyWithValue(key, value))
	}
	stored := contents(n.fetch(theirs.Status.Artifact))
	for _, file := range o.onlyTheirs {
		n.Expect(stored).To(HaveKey(file))
		delete(stored, file)
	}
	n.Expect(contents(n.fetch(ours.Status.Artifact))).To(Equal(stored))
}

// settings is the hash of ignore and layerSelector in a revision of this project.
var settings = regexp.MustCompile(`\+[0-9a-f]{8}@`)

// contents returns the files and folders of a tree by their path: the content of
// a file, and whether it is executable.
func contents(dir string) map[string]string {
	all := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, found fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := found.Info()
		if err != nil {
			return err
		}
		what := "folder"
		if !found.IsDir() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("executable %t: %q", info.Mode()&0o111 != 0, content)
		}
		all[filepath.ToSlash(path[len(dir)+1:])] = what
		return nil
	})
	return all
}
