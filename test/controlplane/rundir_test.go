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

package controlplane

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

func TestRunDir(t *testing.T) {
	t.Run("keeps only the logs at the end", func(t *testing.T) {
		g := NewWithT(t)
		run, err := newRunDir(t.TempDir())
		g.Expect(err).NotTo(HaveOccurred())
		writeFile(g, filepath.Join(run.data(), "etcd", "db"), "state")
		writeFile(g, filepath.Join(run.logs(), "etcd.log"), "log")

		g.Expect(run.close()).To(Succeed())

		g.Expect(run.data()).NotTo(BeADirectory())
		g.Expect(filepath.Join(run.logs(), "etcd.log")).To(BeAnExistingFile())
	})

	t.Run("removes the data of a run whose process was killed", func(t *testing.T) {
		g := NewWithT(t)
		dir := t.TempDir()
		killed, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		killed.unlock()

		next, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		defer next.close()

		g.Expect(killed.data()).NotTo(BeADirectory())
		g.Expect(killed.logs()).To(BeADirectory())
	})

	t.Run("leaves the data of a run that goes on", func(t *testing.T) {
		g := NewWithT(t)
		dir := t.TempDir()
		running, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		defer running.close()

		next, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		defer next.close()

		g.Expect(running.data()).To(BeADirectory())
	})

	t.Run("forgets the oldest runs", func(t *testing.T) {
		g := NewWithT(t)
		dir := t.TempDir()
		for i := range keptRuns + 3 {
			writeFile(g, filepath.Join(dir, "runs", fmt.Sprintf("20260101-0000%02d-0", i), "lock"), "")
		}

		run, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		defer run.close()

		left, err := os.ReadDir(filepath.Join(dir, "runs"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(left).To(HaveLen(keptRuns + 1))
		g.Expect(left[0].Name()).To(Equal("20260101-000003-0"))
	})
}
