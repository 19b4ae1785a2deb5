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
	"syscall"
	"testing"
	"unsafe"

	. "github.com/onsi/gomega"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// volumesVariable is the environment variable that demands the two faults that take
// a volume of their own. They need the right to mount one; without it, the two that
// do not are what there is.
const volumesVariable = "FAULTS_VOLUMES"

// A disk that takes no more bytes keeps what it has, publishes nothing that it
// does not have, and is used again as soon as it can be.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		shard, message string
		// begin has the disk fail, and returns what makes it well again.
		begin func(v *victim) (end func())
		// unread tells that nothing can be read either.
		unread bool
		// volume tells that it takes a volume of its own.
		volume bool
	}{
		"a file may not be as large": {
			shard: "disk-limit", begin: limited, message: "the file is larger than the file system of --storage-path or the process limit allows",
		},
		"the folder is gone": {
			shard: "disk-gone", begin: unmounted, unread: true, message: "--storage-path must be an existing folder",
		},
		"the disk is full": {
			shard: "disk-full", begin: filled, volume: true, message: "has no space or inodes left",
		},
		"the disk is read-only": {
			shard: "disk-read-only", begin: readOnly, volume: true, message: "mount it writable",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := newVictim(t, test.shard)
			if test.volume && !v.onVolume() {
				return
			}
			before := v.unharmed(map[string]string{app: "1.0.1"}, v.controller)[app]
			consumer := consume(v.tenant, app)
			end := test.begin(v)
			revision, _ := v.push(nil)
			v.eventually(func(g Gomega) {
				obj, ready := v.notReady(app, v1alpha1.ReasonStorageOperationFailed)
				g.Expect(ready.Message).To(ContainSubstring(test.message))
				g.Expect(obj.Status.Artifact).To(Equal(before))
				external := get(v.tenant, app, &sourcev1.ExternalArtifact{})
				g.Expect(external.Status.Artifact).To(Equal(before))
				g.Expect(conditions.GetReason(external, meta.ReadyCondition)).To(Equal(v1alpha1.ReasonStorageOperationFailed))
			})
			code, digest, err := download(t.Context(), before.URL)
			v.Expect(err).NotTo(HaveOccurred())
			if test.unread {
				v.Expect(code).To(Equal(http.StatusServiceUnavailable))
			} else {
				v.Expect(code).To(Equal(http.StatusOK))
				v.Expect(digest).To(Equal(before.Digest))
			}
			end()
			v.unharmed(map[string]string{app: revision}, v.controller)
			consumer.content()
		})
	}
}

// onVolume moves the storage to a small volume of its own, if one can be mounted,
// or has to be.
func (v *victim) onVolume() bool {
	v.Helper()
	dir := v.controller.StorageDir
	v.Expect(v.controller.Kill()).To(Succeed())
	v.wipe(dir)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		v.Expect(os.Getenv(volumesVariable)).To(BeEmpty(), "no volume can be mounted here: %v", err)
		v.Logf("no volume can be mounted here, and %s demands none: %v", volumesVariable, err)
		return false
	}
	v.Cleanup(func() { // after an interrupt, the control plane does it
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			v.Error(err)
		}
	})
	v.Expect(v.controller.Restart(v.Context())).To(Succeed())
	return true
}

// filled uses up the volume of the storage.
func filled(v *victim) (end func()) {
	v.Helper()
	ballast := filepath.Join(v.controller.StorageDir, "ballast")
	file, err := os.Create(ballast)
	v.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4<<10))
	}
	v.Expect(err).To(MatchError(syscall.ENOSPC))
	return func() { v.Expect(os.Remove(ballast)).To(Succeed()) }
}

// readOnly remounts the volume of the storage.
func readOnly(v *victim) (end func()) {
	v.Helper()
	remount := func(flags uintptr) error {
		return syscall.Mount("", v.controller.StorageDir, "", syscall.MS_REMOUNT|flags, "")
	}
	// It is busy while something is being written.
	v.Eventually(func() error { return remount(syscall.MS_RDONLY) }, patience, poll).Should(Succeed())
	return func() { v.Expect(remount(0)).To(Succeed()) }
}

// unmounted takes the folder of the storage away.
func unmounted(v *victim) (end func()) {
	v.Helper()
	here, away := v.controller.StorageDir, v.controller.StorageDir+"-away"
	v.Expect(os.Rename(here, away)).To(Succeed())
	return func() { v.Expect(os.Rename(away, here)).To(Succeed()) }
}

// limited lets the controller write no large files.
func limited(v *victim) (end func()) {
	v.Helper()
	const most = 128 << 10
	before := v.limitFiles(nil)
	v.limitFiles(&syscall.Rlimit{Cur: most, Max: before.Max})
	return func() { v.limitFiles(&before) }
}

// limitFiles sets how large a file the controller may write, unless limit is
// nil, and returns how large it was (prlimit(2)).
func (v *victim) limitFiles(limit *syscall.Rlimit) (before syscall.Rlimit) {
	v.Helper()
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(v.controller.PID()), syscall.RLIMIT_FSIZE,
		uintptr(unsafe.Pointer(limit)), uintptr(unsafe.Pointer(&before)), 0, 0)
	v.Expect(errno).To(BeZero())
	return before
}
