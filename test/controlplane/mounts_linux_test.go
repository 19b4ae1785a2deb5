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
	"os"
	"path/filepath"
	"syscall"
	"testing"

	. "github.com/onsi/gomega"
)

func TestMountsBelow(t *testing.T) {
	const table = `22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
90 22 0:40 / /tmp/a\040run/data/disk rw,relatime shared:9 - tmpfs tmpfs rw
91 90 0:41 / /tmp/a\040run/data/disk/deeper rw,relatime - tmpfs tmpfs rw
92 22 0:42 / /tmp/a\040run/data rw,relatime - tmpfs tmpfs rw
93 22 0:43 / /tmp/a\040run/database rw,relatime - tmpfs tmpfs rw
`
	NewWithT(t).Expect(mountsBelow(table, "/tmp/a run/data")).To(Equal([]string{"/tmp/a run/data/disk", "/tmp/a run/data/disk/deeper"}))
}

// What is mounted needs a right that not everybody has; without it there is
// nothing to detach.
func TestRunDirWithVolumes(t *testing.T) {
	mounted := func(g Gomega, r *runDir) {
		disk := filepath.Join(r.data(), "disk")
		g.Expect(os.Mkdir(disk, 0o755)).To(Succeed())
		g.Expect(syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m")).To(Or(Succeed(), MatchError(syscall.EPERM)))
		t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
		g.Expect(os.WriteFile(filepath.Join(disk, "file"), nil, 0o600)).To(Succeed())
	}
	t.Run("are detached at the end", func(t *testing.T) {
		g := NewWithT(t)
		run, err := newRunDir(t.TempDir())
		g.Expect(err).NotTo(HaveOccurred())
		mounted(g, run)

		g.Expect(run.close()).To(Succeed())

		g.Expect(run.data()).NotTo(BeADirectory())
	})
	t.Run("are detached by the next one if the process was killed", func(t *testing.T) {
		g := NewWithT(t)
		dir := t.TempDir()
		killed, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		mounted(g, killed)
		killed.unlock()

		next, err := newRunDir(dir)
		g.Expect(err).NotTo(HaveOccurred())
		defer next.close()

		g.Expect(killed.data()).NotTo(BeADirectory())
	})
}
