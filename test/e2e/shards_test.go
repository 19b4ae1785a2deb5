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
	"net/http"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// scopeLabel keeps a controller that takes all but one shard to one test.
const scopeLabel = "e2e.image-source-controller.test/scope"

// An ArtifactRepository that somebody wrote goes by its own label to a shard,
// from the controller that has all the others. Who was told of an address before
// is served there, the move and the next version notwithstanding, until what is
// there is withdrawn.
func TestAnArtifactRepositoryMovesByItsOwnLabel(t *testing.T) {
	t.Parallel()
	const shard = "moved-to"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	// Nothing is collected that the test asks for.
	args := append([]string{"--artifact-retention-ttl=1h"}, quickAPI...)
	scope := "," + scopeLabel + "=" + n.namespace
	from := startShard(t, "all-but-"+shard, append(args, "--watch-label-selector="+shardLabel+" notin ("+shard+")"+scope)...)
	to := startShard(t, shard, append(args, "--watch-label-selector="+shardLabel+"="+shard+scope)...)
	for _, tag := range []string{"1.0.0", "1.0.1"} {
		n.push(app, tag, configMap(app, tag))
	}
	source := named(n, app, &v1alpha1.ArtifactRepository{})
	source.Labels = map[string]string{shardLabel: "nobody", scopeLabel: n.namespace}
	source.Spec.Image, source.Spec.Insecure, source.Spec.Tag = n.ref(app), true, "1.0.0"
	n.create(source)
	first := n.published(app, "1.0.0")
	n.Expect(first.URL).To(HavePrefix("http://" + from.Address + "/"))

	content, err := os.ReadFile(fileOf(from.StorageDir, first))
	n.Expect(err).NotTo(HaveOccurred())

	change(n, source, func(obj *v1alpha1.ArtifactRepository) { obj.Labels[shardLabel] = shard })
	n.eventually(func(g Gomega) {
		external := get(n, app, &sourcev1.ExternalArtifact{})
		g.Expect(external.Labels).To(HaveKeyWithValue(shardLabel, shard))
		g.Expect(external.Status.Artifact.URL).To(Equal("http://" + to.Address + "/" + first.Path))
	})
	n.served(first)

	change(n, source, func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Tag = "1.0.1" })
	second := n.published(app, "1.0.1")
	n.Expect(second.URL).To(HavePrefix("http://" + to.Address + "/"))
	n.Expect(n.answered(from, first.Path)).To(Equal(http.StatusOK), "the version before, under the address before")
	n.Expect(n.answered(to, first.Path)).To(Equal(http.StatusOK))
	n.Expect(n.answered(from, second.Path)).To(Equal(http.StatusOK))
	n.served(first)

	n.label("")
	n.eventually(func(g Gomega) {
		g.Expect(get(n, app, &v1alpha1.ArtifactRepository{}).Status.Artifact).To(BeNil())
	})
	// Whether a disk still has it does not matter; a collection may have come meanwhile.
	n.Expect(os.MkdirAll(filepath.Dir(fileOf(from.StorageDir, first)), 0o750)).To(Succeed())
	n.Expect(os.WriteFile(fileOf(from.StorageDir, first), content, 0o600)).To(Succeed())
	for _, artifact := range []*meta.Artifact{first, second} {
		n.eventually(func(g Gomega) {
			g.Expect(n.answered(from, artifact.Path)).To(Equal(http.StatusNotFound), "what was withdrawn is served by nobody")
		})
	}

	n.Expect(env.Client.Delete(t.Context(), source)).To(Succeed())
	n.eventually(func(g Gomega) { g.Expect(fileOf(to.StorageDir, second)).NotTo(BeAnExistingFile()) })
}
