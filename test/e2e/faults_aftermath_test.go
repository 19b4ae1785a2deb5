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
	"errors"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/stage"
)

// seedVariable is the environment variable that makes the fault tests take
// other turns: other orders, other moments, other bytes.
const seedVariable = "FAULTS_SEED"

// chance returns what a test leaves to chance. It is the same in each run with
// the same seed, which a failure prints.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed, err := strconv.ParseUint(orElse(os.Getenv(seedVariable), "1"), 10, 64)
	if err != nil {
		t.Fatalf("%s must be a number: %s", seedVariable, err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to run it again: %s=%d go test ./test/e2e -run '^%s$'", seedVariable, seed, strings.ReplaceAll(t.Name(), "/", "$/^"))
		}
	})
	name := fnv.New64a()
	_, _ = name.Write([]byte(t.Name())) // never fails
	return rand.New(rand.NewPCG(seed, name.Sum64()))
}

func orElse(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// noise returns text that does not compress.
func noise(random *rand.Rand, size int) string {
	text := make([]byte, size)
	for i := range text {
		text[i] = byte(random.Uint32())
	}
	return string(text)
}

// unharmed waits until a fault has left no trace in a tenant: each source that
// is wanted, and no other, is published in its revision, with the bytes that
// its digest promises; what says that it is ready is; every object has its
// owner; and the storages of those who serve it hold what they should and
// nothing else. Revisions may be tags. What consumers saw meanwhile is for
// consume to judge.
func (n *tenant) unharmed(wanted map[string]string, controllers ...*stage.Controller) map[string]*meta.Artifact {
	n.Helper()
	for name, revision := range wanted {
		n.settled(name, revision)
	}
	var records map[string]*meta.Artifact
	n.eventually(func(g Gomega) { records = n.records(g, wanted) })
	for _, artifact := range records {
		n.served(artifact)
	}
	for _, controller := range controllers {
		n.eventually(func(g Gomega) { n.tidied(g, controller.StorageDir, records) })
	}
	return records
}

// settled waits until a source says that a revision is published, for good.
func (n *tenant) settled(name, revision string) {
	n.Helper()
	obj := &v1alpha1.ArtifactRepository{}
	n.eventually(func(g Gomega) {
		g.Expect(env.Client.Get(n.Context(), n.key(name), obj)).To(Succeed())
		g.Expect(obj.Status.Artifact).NotTo(BeNil(), "%s: %s", name, conditions.GetMessage(obj, meta.ReadyCondition))
		g.Expect(obj.Status.Artifact.Revision).To(Or(Equal(revision), HavePrefix(revision+"@")), "%s: %s", name, conditions.GetMessage(obj, meta.ReadyCondition))
		g.Expect(conditions.IsReady(obj)).To(BeTrue(), "%s: %s", name, conditions.GetMessage(obj, meta.ReadyCondition))
		g.Expect(obj.Status.ObservedGeneration).To(Equal(obj.Generation))
		g.Expect(conditions.IsTrue(obj, v1alpha1.ArtifactInStorageCondition)).To(BeTrue())
		g.Expect(conditions.Has(obj, meta.ReconcilingCondition)).To(BeFalse())
		g.Expect(conditions.Has(obj, meta.StalledCondition)).To(BeFalse())
	})
	for i := range obj.Status.History[1:] {
		n.Expect(obj.Status.History[i].Revision).NotTo(Equal(obj.Status.History[i+1].Revision), "nothing was published twice in a row")
	}
	n.Expect(obj.Status.History[0].Revision).To(Equal(obj.Status.Artifact.Revision))
}

// records expects that a tenant has the sources that are wanted and no others,
// that each has its ExternalArtifact, which says the same, and that no other
// one is left. It returns what is published.
func (n *tenant) records(g Gomega, wanted map[string]string) map[string]*meta.Artifact {
	var list v1alpha1.ArtifactRepositoryList
	g.Expect(env.Client.List(n.Context(), &list, client.InNamespace(n.namespace))).To(Succeed())
	records := map[string]*meta.Artifact{}
	owners := map[string]types.UID{}
	for i := range list.Items {
		obj := &list.Items[i]
		g.Expect(wanted).To(HaveKey(obj.Name), "a source that nobody wants")
		records[obj.Name], owners[obj.Name] = obj.Status.Artifact, obj.UID
	}
	g.Expect(records).To(HaveLen(len(wanted)), "a source is lost")

	var externals sourcev1.ExternalArtifactList
	g.Expect(env.Client.List(n.Context(), &externals, client.InNamespace(n.namespace))).To(Succeed())
	g.Expect(externals.Items).To(HaveLen(len(wanted)))
	for i := range externals.Items {
		external := &externals.Items[i]
		owner := metav1.GetControllerOf(external)
		g.Expect(owner).NotTo(BeNil(), "%s has no owner", external.Name)
		g.Expect(owner.UID).To(Equal(owners[external.Name]), "the owner of %s is gone", external.Name)
		g.Expect(external.Status.Artifact).To(Equal(records[external.Name]))
		g.Expect(conditions.IsReady(external)).To(BeTrue(), "%s: %s", external.Name, conditions.GetMessage(external, meta.ReadyCondition))
	}
	return records
}

// tidy waits until a storage holds what the records of a tenant name.
func (n *tenant) tidy(storage string) {
	n.Helper()
	n.eventually(func(g Gomega) {
		var list v1alpha1.ArtifactRepositoryList
		g.Expect(env.Client.List(n.Context(), &list, client.InNamespace(n.namespace))).To(Succeed())
		records := map[string]*meta.Artifact{}
		for i := range list.Items {
			if artifact := list.Items[i].Status.Artifact; artifact != nil {
				records[list.Items[i].Name] = artifact
			}
		}
		n.tidied(g, storage, records)
	})
}

// tidied expects that a storage holds the published files of sources, and
// nothing of others: nothing unfinished, and no content without a name. An older
// file of a source may stay until it is collected, see collected.
func (n *tenant) tidied(g Gomega, storage string, records map[string]*meta.Artifact) {
	err := filepath.WalkDir(storage, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed since it was listed
		}
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, storage+"/")
		info, err := entry.Info()
		if err != nil {
			return err
		}
		g.Expect(info.Mode().IsRegular()).To(BeTrue(), "%s is no file", name)
		g.Expect(name).NotTo(HavePrefix("tmp/"), "something unfinished is left")
		g.Expect(info.Sys().(*syscall.Stat_t).Nlink).To(BeNumerically(">", 1), "%s has no second name", name)
		if published, ok := strings.CutPrefix(name, "externalartifact/"); ok {
			namespace, source, _ := strings.Cut(filepath.Dir(published), "/")
			g.Expect(namespace).To(Equal(n.namespace), "%s belongs to nobody", name)
			g.Expect(records).To(HaveKey(source), "%s belongs to nobody", name)
		}
		return nil
	})
	g.Expect(err).NotTo(HaveOccurred())
	for source, artifact := range records {
		g.Expect(fileOf(storage, artifact)).To(BeARegularFile(), "the file of %s", source)
	}
}

// soonAfter bounds what a controller does at its start; then comes another start.
const soonAfter = 3 * time.Second

// shortRetention has a collection remove all that no record names.
var shortRetention = []string{"--artifact-retention-ttl=1s", "--artifact-retention-records=1"}

// collected expects that what is published survives a restart of a controller
// with shortRetention as it was, and that nothing else is on its disk.
func (n *tenant) collected(controller *stage.Controller, wanted map[string]string) {
	n.Helper()
	before := n.unharmed(wanted, controller)
	n.swept(controller, before)
	n.Expect(n.unharmed(wanted, controller)).To(Equal(before), "a restart changes nothing")
}

// swept restarts a controller with shortRetention, which collects at its start,
// and expects that what is published is on its disk, and nothing else.
func (n *tenant) swept(controller *stage.Controller, records map[string]*meta.Artifact) {
	n.Helper()
	n.eventually(func(g Gomega) {
		g.Expect(controller.Kill()).To(Succeed())
		g.Expect(controller.Restart(n.Context())).To(Succeed())
		g.Eventually(func(g Gomega) {
			n.tidied(g, controller.StorageDir, records)
			files, err := filepath.Glob(filepath.Join(controller.StorageDir, "externalartifact", "*", "*", "*"))
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(files).To(HaveLen(len(records)), "files that no record names")
		}, soonAfter, poll).Should(Succeed())
	})
}
