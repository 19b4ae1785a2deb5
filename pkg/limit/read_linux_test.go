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

package limit_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/limit"
)

func TestOpenWaitsForNoPipe(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	g.Expect(syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "file"), []byte("a"), 0o600)).To(Succeed())
	root, err := os.OpenRoot(dir)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = root.Close() })
	ended := make(chan error, 1)
	go func() {
		_, err := limit.Open(root, "pipe")
		ended <- err
	}()
	g.Eventually(ended, time.Minute).Should(Receive(MatchError(ContainSubstring("it is no regular file"))))
	go func() {
		_, err := fs.ReadDir(limit.FS(root), "pipe")
		ended <- err
	}()
	g.Eventually(ended, time.Minute).Should(Receive(HaveOccurred()))
	g.Expect(os.Remove(filepath.Join(dir, "pipe"))).To(Succeed())
	g.Expect(fstest.TestFS(limit.FS(root), "file")).To(Succeed())
	file, err := limit.Open(root, "file")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(file.Close()).To(Succeed())
	_, err = limit.Open(root, ".")
	g.Expect(err).To(MatchError(ContainSubstring("it is no regular file")))
}
