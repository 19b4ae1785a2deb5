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
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// screen is what a person sees of a terminal.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

// watch reads what is shown until the terminal is closed.
func watch(person io.Reader) *screen {
	s := &screen{}
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := person.Read(buf)
			s.mu.Lock()
			s.text.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// sees waits until something is shown.
func (s *screen) sees(g *WithT, text string) {
	g.THelper()
	g.Eventually(s.shown, time.Minute, time.Millisecond).Should(ContainSubstring(text))
}

// atTerminal runs the command at a terminal, without any variable set.
func atTerminal(ctx context.Context, program *os.File, args ...string) <-chan int {
	ended := make(chan int, 1)
	go func() {
		unset := func(string) (string, bool) { return "", false }
		ended <- run(ctx, streams{in: program, out: io.Discard, err: program, lookupEnv: unset}, args)
	}()
	return ended
}

func TestPasswordsAreAskedForAndNotShown(t *testing.T) {
	g := NewWithT(t)
	program, person := terminal(t)
	prefix := filepath.Join(t.TempDir(), "mine")
	shown := watch(person)
	type question struct{ prompt, answer string }
	answers := func(ended <-chan int, code int, questions ...question) {
		for _, q := range questions {
			shown.sees(g, q.prompt)
			// The prompt is shown just before the terminal hides what is typed.
			g.Eventually(func() bool { return echoes(g, program) }, time.Minute, time.Millisecond).Should(BeFalse())
			_, err := person.WriteString(q.answer + "\n")
			g.Expect(err).NotTo(HaveOccurred())
		}
		g.Eventually(ended, time.Minute).Should(Receive(Equal(code)), shown.shown())
	}
	answers(atTerminal(t.Context(), program, "generate-key-pair", "--output-key-prefix", prefix), exitFailure,
		question{"Password to encrypt", "tr0ub4dor"}, question{"The same again", "other"})
	shown.sees(g, "error: the two passwords differ")

	program, person = terminal(t)
	shown = watch(person)
	answers(atTerminal(t.Context(), program, "generate-key-pair", "--output-key-prefix", prefix), exitOK,
		question{"Password to encrypt", "tr0ub4dor"}, question{"The same again", "tr0ub4dor"})

	program, person = terminal(t)
	shown = watch(person)
	ref := serve(t).Host() + "/org/app:v1"
	answers(atTerminal(t.Context(), program, "-f", manifests(t), "-t", ref, "-s", prefix+".key"), exitOK, question{"Password for mine.key", "tr0ub4dor"})
	shown.sees(g, "signed "+strings.TrimSuffix(ref, ":v1")+"@sha256:")
	g.Expect(shown.shown()).NotTo(ContainSubstring("tr0ub4dor"))
	g.Expect(echoes(g, program)).To(BeTrue(), "the terminal still hides what is typed")
}

func TestAQuestionForAPasswordCanBeInterrupted(t *testing.T) {
	g := NewWithT(t)
	program, person := terminal(t)
	shown := watch(person)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := atTerminal(ctx, program, "generate-key-pair", "--output-key-prefix", filepath.Join(t.TempDir(), "mine"))
	shown.sees(g, "Password to encrypt")
	g.Eventually(func() bool { return echoes(g, program) }, time.Minute, time.Millisecond).Should(BeFalse())
	cancel()
	g.Eventually(ended, time.Minute).Should(Receive(Equal(exitFailure)))
	shown.sees(g, "error: interrupted")
	g.Expect(echoes(g, program)).To(BeTrue(), "the terminal still hides what is typed")

	// The question that was left behind ends with the process; here it is answered,
	// so that it does not read what the next test opens.
	_, err := person.WriteString("\n")
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() string {
		stacks := make([]byte, 1<<20)
		return string(stacks[:runtime.Stack(stacks, true)])
	}, time.Minute, time.Millisecond).ShouldNot(ContainSubstring("term.ReadPassword"))
}

func TestAnUploadIsShownAsABarOnATerminal(t *testing.T) {
	g := NewWithT(t)
	program, person := terminal(t)
	shown := watch(person)
	dir := manifests(t)
	write(t, dir, map[string]string{"large.txt": strings.Repeat("some text that is easily compressed ", 1<<18)})
	ended := atTerminal(t.Context(), program, "-f", dir, "-t", serve(t).Host()+"/org/app:v1")
	g.Eventually(ended, time.Minute).Should(Receive(Equal(exitOK)))
	shown.sees(g, "uploaded layer sha256:")
	g.Expect(shown.shown()).To(MatchRegexp(`uploading layer sha256:[0-9a-f]{12} +\d+% \|`))
}

func TestADownloadIsShownAsABarOnATerminal(t *testing.T) {
	g := NewWithT(t)
	dir, ref := manifests(t), serve(t).Host()+"/org/app:v1"
	noise := make([]byte, 2<<20)
	_, _ = rand.Read(noise) // never fails
	write(t, dir, map[string]string{"noise.bin": string(noise)})
	must(t, "-f", dir, "-t", ref)
	program, person := terminal(t)
	shown := watch(person)
	ended := atTerminal(t.Context(), program, "pull", ref, "-o", t.TempDir())
	g.Eventually(ended, time.Minute).Should(Receive(Equal(exitOK)))
	shown.sees(g, "downloaded layer sha256:")
	g.Expect(shown.shown()).To(MatchRegexp(`downloading layer sha256:[0-9a-f]{12} +\d+% \|`))
}

// echoes tells whether a terminal shows what is typed.
func echoes(g *WithT, program *os.File) bool {
	state, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	g.Expect(err).NotTo(HaveOccurred())
	return state.Lflag&unix.ECHO != 0
}
