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
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// A controller that dies while it collects has removed nothing that a record
// names, and the one that follows collects the rest.
func TestKilledWhileCollecting(t *testing.T) {
	t.Parallel()
	const garbage, deaths = 4000, 4
	v := newVictim(t, "collecting")
	wanted := map[string]string{app: "1.0.1"}
	before := v.unharmed(wanted, v.controller)
	consumer := consume(v.tenant, app)
	v.Expect(v.controller.Kill()).To(Succeed())
	v.litter(v.controller.StorageDir, garbage)
	left := func() int {
		files, err := filepath.Glob(filepath.Join(v.controller.StorageDir, "externalartifact", "gone", "*", "*"))
		v.Expect(err).NotTo(HaveOccurred())
		return len(files)
	}
	halfway := 0
	for range deaths {
		until := 1 + v.random.IntN(max(left(), 1))
		started := make(chan error, 1)
		go func() { started <- v.controller.Restart(v.Context()) }()
		v.Eventually(left, patience, time.Millisecond).Should(BeNumerically("<", until))
		v.Expect(v.controller.Kill()).To(Succeed())
		<-started // ready or not
		v.Logf("killed when %d of %d were left, of which it should have left %d", left(), garbage, until)
		if left() > 0 {
			halfway++
		}
		v.Expect(fileOf(v.controller.StorageDir, before[app])).To(BeARegularFile())
	}
	v.Expect(halfway).To(BeNumerically(">", 0), "it was never killed in the midst of it")
	v.Expect(v.controller.Restart(v.Context())).To(Succeed())
	v.collected(v.controller, wanted)
	v.Expect(v.unharmed(wanted)).To(HaveKeyWithValue(app, BeSamePublication(before[app])))
	consumer.content()
}

// litter leaves files of sources that no longer exist, content that nothing
// names, and unfinished work.
func (n *tenant) litter(storage string, files int) {
	n.Helper()
	const sources = 40
	for i := range files {
		content := fmt.Sprint(n.namespace, i)
		sum := sha256.Sum256([]byte(content))
		digest := hex.EncodeToString(sum[:])
		blob := filepath.Join(storage, "blobs", digest)
		n.Expect(os.WriteFile(blob, []byte(content), 0o600)).To(Succeed())
		if i%sources == 0 {
			continue
		}
		folder := filepath.Join(storage, "externalartifact", "gone", fmt.Sprint("app-", i%sources))
		n.Expect(os.MkdirAll(folder, 0o750)).To(Succeed())
		n.Expect(os.Link(blob, filepath.Join(folder, digest+".tar.gz"))).To(Succeed())
	}
	unfinished := filepath.Join(storage, "tmp", "unfinished")
	n.Expect(os.MkdirAll(unfinished, 0o750)).To(Succeed())
	n.Expect(os.WriteFile(filepath.Join(unfinished, "spool"), []byte("half of"), 0o600)).To(Succeed())
}
