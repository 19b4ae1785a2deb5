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

package git

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestNoPipeHoldsUpAReader has a pipe that nobody writes to in each place of a
// repository where a stranger can put one.
func TestNoPipeHoldsUpAReader(t *testing.T) {
	good := repository(t)
	run(t, good, "repack", "-adq")
	link := func(to string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			t.Helper()
			g := NewWithT(t)
			g.Expect(os.RemoveAll(filepath.Join(dir, ".git"))).To(Succeed())
			g.Expect(os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: "+to+"\n"), 0o644)).To(Succeed())
		}
	}
	nothing := func(t *testing.T, _ string) { t.Helper() }
	for pipe, prepare := range map[string]func(t *testing.T, dir string){
		"pipe":                link("pipe"),
		"worktrees/pipe":      link("worktrees/pipe"),
		"at/worktrees":        link("at/worktrees/x"),
		".git/HEAD":           nothing,
		".git/config":         nothing,
		".git/packed-refs":    nothing,
		".git/refs":           nothing,
		".git/refs/heads":     nothing,
		".git/refs/tags":      nothing,
		".git/refs/tags/pipe": nothing,
		".git/objects":        nothing,
		".git/objects/pack":   nothing,
		".git/objects/" + run(t, good, "rev-parse", "HEAD")[:2]: nothing,
		".git/objects/pack/pack-0.idx":                          nothing,
	} {
		t.Run(pipe, func(t *testing.T) {
			g := NewWithT(t)
			dir := copied(t, good)
			prepare(t, dir)
			path := filepath.Join(dir, pipe)
			g.Expect(os.RemoveAll(path)).To(Succeed())
			g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
			g.Expect(syscall.Mkfifo(path, 0o600)).To(Succeed())
			done := make(chan struct{})
			go func() {
				defer close(done)
				r, err := Find(dir)
				if err != nil {
					return
				}
				defer r.Close()
				_, _ = listed(t, r)
				if id, _, err := r.Head(); err == nil {
					_, _ = r.Tag(t.Context(), id)
				}
			}()
			g.Eventually(done, time.Minute).Should(BeClosed())
		})
	}
}
