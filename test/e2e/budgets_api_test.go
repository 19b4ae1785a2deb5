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
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// The API server is written to when something changed, and then no more often
// than the order of bytes, record and ExternalArtifact takes.
func TestWritesToTheAPIServer(t *testing.T) {
	t.Parallel()
	v := newVictim(t, "writes")
	writes := func() (writes []string) {
		// TrustPolicies are of the whole cluster: other tests change theirs meanwhile.
		for _, p := range v.api.seen(func(p passage) bool {
			return p.Method != http.MethodGet && p.Method != http.MethodHead && !strings.Contains(p.Path, "/trustpolicies/")
		}) {
			if !strings.HasSuffix(p.Path, "/events") {
				writes = append(writes, p.Method+" "+p.Path[strings.Index(p.Path, v.namespace)+len(v.namespace):])
			}
		}
		return writes
	}
	// The conditions of the first publication are the last write before.
	v.settled(app, get(v.tenant, app, &v1alpha1.ArtifactRepository{}).Status.Artifact.Revision)
	v.api.forget()
	revision, _ := v.push(nil)
	v.settled(app, revision)
	v.Expect(writes()).To(Equal([]string{
		"PATCH /artifactrepositories/app/status", // the record
		"PATCH /externalartifacts/app/status",    // its copy
		"PATCH /artifactrepositories/app/status", // the conditions
	}))

	change(v.tenant, named(v.tenant, app, &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) {
		obj.Spec.Interval = &metav1.Duration{}
		obj.Spec.Interval.Duration = 1e9
	})
	looked := func(g Gomega, times int) {
		g.Expect(len(v.registry.seen(all(byUs, has(http.MethodHead, "/manifests/"))))).To(BeNumerically(">=", times))
	}
	v.eventually(func(g Gomega) { looked(g, 1) })
	v.api.forget()
	v.registry.forget()
	v.eventually(func(g Gomega) { looked(g, 4) })
	v.Expect(writes()).To(BeEmpty(), "nothing changed")
}
