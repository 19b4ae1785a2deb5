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

package format

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestAFileThatBecomesAPipeEndsAPush has pipes in the places where the walk has seen
// a file and a .sourceignore: nothing tells who opens one to stop waiting.
func TestAFileThatBecomesAPipeEndsAPush(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	for _, name := range []string{"a.yaml", ".sourceignore"} {
		g.Expect(syscall.Mkfifo(filepath.Join(dir, name), 0o600)).To(Succeed())
	}
	root, err := os.OpenRoot(dir)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = root.Close() })
	p := &packing{ctx: t.Context(), from: root, packed: &Packed{IgnoreFiles: map[string][]byte{}}}
	ended := make(chan error, 2)
	go func() {
		_, err := p.open(&node{path: "a.yaml"})
		ended <- err
		rules, err := newIgnoreRules(likeFlux, nil)
		if err == nil {
			err = p.note(rules, ".sourceignore")
		}
		ended <- err
	}()
	for range 2 {
		g.Eventually(ended, time.Minute).Should(Receive(MatchError(ContainSubstring("it is no regular file"))))
	}
}
