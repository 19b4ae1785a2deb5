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

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

const versionFiles = 300

// versionOf is a folder of many files. Half of them are the same in each version.
func versionOf(version int) map[string]string {
	files := map[string]string{}
	for i := range versionFiles {
		content := fmt.Sprintf("file: %d\n", i)
		if i%2 == 0 {
			content += fmt.Sprintf("version: %d\n", version)
		}
		files[fmt.Sprintf("d%d/%d.yaml", i%7, i)] = content
	}
	files[fmt.Sprintf("only/v%d.yaml", version)] = "a: 1\n"
	return files
}

// kill is when a command is killed: some time after a first sign of its work.
type kill struct {
	// sign is a pattern of a file or folder that the command makes.
	sign  string
	after time.Duration
}

// killed runs the command in a process of its own, kills it, and returns how long it
// ran after the sign. It ends well when it is not killed before.
func (k kill) killed(t *testing.T, args ...string) time.Duration {
	t.Helper()
	g := NewWithT(t)
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), childVariable+"="+strings.Join(args, "\n"))
	var said bytes.Buffer
	command.Stderr = &said
	g.Expect(command.Start()).To(Succeed())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	var began time.Time
	var alarm <-chan time.Time
	for poll := time.NewTicker(100 * time.Microsecond); ; {
		select {
		case err := <-ended:
			g.Expect(err).NotTo(HaveOccurred(), said.String())
			return time.Since(began)
		case <-alarm:
			g.Expect(command.Process.Kill()).To(Or(Succeed(), MatchError(os.ErrProcessDone)))
			<-ended
			return time.Since(began)
		case <-poll.C:
			if found, _ := filepath.Glob(k.sign); alarm == nil && len(found) > 0 { // the pattern is good
				began, alarm = time.Now(), time.After(k.after) // the moment is what is tested
			}
		}
	}
}

// TestAKilledPullLosesNothing kills pulls at many moments. Each file of the old
// version has its old or its new content then, and a push either has all of a
// version or is refused.
func TestAKilledPullLosesNothing(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	is := folder(t, versionOf(2))
	ref := r.Host() + "/org/app:v2"
	must(t, "-f", is, "-t", ref, "--no-validate")
	push := func(dir string) result {
		return flux(t, "-f", dir, "-t", "example.com/org/app:v1", "--dry-run", "--no-validate")
	}
	both := folder(t, versionOf(1))
	write(t, both, versionOf(2)) // a pull leaves other files alone
	whole := Or(Equal(push(folder(t, versionOf(1))).out), Equal(push(both).out))

	random := rand.New(rand.NewPCG(15, 17))
	refused, mixed := 0, 0
	for _, sign := range []string{"", oldFolder + "/*"} { // it unpacks, it moves
		pull := func(dir string, after time.Duration) time.Duration {
			return kill{filepath.Join(dir, stagePrefix+"*", sign), after}.killed(t, "pull", ref, "-o", dir, "--force")
		}
		longest := pull(folder(t, versionOf(1)), time.Minute)
		for range 20 {
			dir := folder(t, versionOf(1))
			pull(dir, time.Duration(random.Int64N(int64(longest))))
			seen, fresh := treeOf(t, dir), versionOf(2)
			changed := 0
			for name, content := range versionOf(1) {
				if seen[name] != content {
					changed++
					g.Expect(seen).To(HaveKeyWithValue(name, fresh[name]))
				}
			}
			stages, err := stagesIn(dir)
			g.Expect(err).NotTo(HaveOccurred())
			run := push(dir)
			if run.code == exitOK {
				g.Expect(run.out).To(whole)
				g.Expect(stages).To(BeEmpty())
				continue
			}
			expectOneError(g, run, stages[0], "pull again with --force")
			refused++
			if 0 < changed && changed < versionFiles/2 {
				mixed++
			}
			if refused > 1 {
				continue
			}
			run = flux(t, "pull", ref, "-o", dir, "--force") // as the error says
			g.Expect(run.code).To(Equal(exitOK), run.err)
			g.Expect(run.err).To(ContainSubstring("warning: \"" + stages[0] + `" belongs to a pull that was killed`))
			g.Expect(os.RemoveAll(stages[0])).To(Succeed())
			g.Expect(push(dir).out).To(Equal(push(both).out))
		}
	}
	t.Logf("%d of 40 pushes were refused, %d of them of files of two versions", refused, mixed)
	g.Expect(refused).To(BeNumerically(">", 0))
}

// TestAPullWithoutHardLinks pulls on a file system that has none: the old files are
// copied.
func TestAPullWithoutHardLinks(t *testing.T) {
	g := NewWithT(t)
	if os.Getenv(linklessVariable) == "" {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAPullWithoutHardLinks$")
		command.Env = append(os.Environ(), linklessVariable+"=1")
		said, err := command.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(said))
		return
	}
	forbidLinks(t)
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}, tar.Header{Name: "b.yaml"}, tar.Header{Name: "c.yaml"}))
	start := func() string {
		dir := folder(t, map[string]string{"a.yaml": "old", "b.yaml": "b.yaml"})
		g.Expect(os.Chmod(filepath.Join(dir, "a.yaml"), 0o640)).To(Succeed())
		g.Expect(os.Symlink("/nowhere", filepath.Join(dir, "c.yaml"))).To(Succeed())
		return dir
	}
	dir := start()
	must(t, "pull", ref, "-o", dir, "--force")
	g.Expect(treeOf(t, dir)).To(Equal(map[string]string{"a.yaml": "a.yaml", "b.yaml": "b.yaml", "c.yaml": "c.yaml"}))

	dir = start()
	before := modes(t, dir)
	s, err := newStage(dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.fresh.WriteFile("a.yaml", []byte("new"), 0o600)).To(Succeed())
	g.Expect(s.carryOut(t.Context(), &plan{overwritten: []string{"a.yaml", "c.yaml"}})).NotTo(Succeed(), "there is no new c.yaml")
	s.close()
	g.Expect(modes(t, dir)).To(Equal(before))
	g.Expect(os.ReadFile(filepath.Join(dir, "a.yaml"))).To(BeEquivalentTo("old"))
	g.Expect(os.Readlink(filepath.Join(dir, "c.yaml"))).To(Equal("/nowhere"))
}

// linklessVariable tells a process of the tests that it runs one test alone, which
// may take the right to make hard links.
const linklessVariable = "FLUX_BUNDLE_TEST_LINKLESS"

// forbidLinks has the kernel refuse to make hard links in this process, for good, as
// it does where the file system has none.
func forbidLinks(t *testing.T) {
	t.Helper()
	g := NewWithT(t)
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LINKAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread() // both calls are about one thread; the second has the others follow
	defer runtime.UnlockOSThread()
	g.Expect(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)).To(Succeed())
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	g.Expect(errno).To(BeZero())
	folder := t.TempDir()
	g.Expect(os.Link(folder, folder+"/link")).To(MatchError(unix.EPERM))
}
