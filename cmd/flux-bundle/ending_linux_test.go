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
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/format"
)

// pipe makes a named pipe: who opens it to read waits for somebody who writes, and
// nothing tells such a wait to end.
func pipe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pipe")
	NewWithT(t).Expect(syscall.Mkfifo(path, 0o600)).To(Succeed())
	return path
}

func TestWhatNeverAnswersEndsWithTheCommand(t *testing.T) {
	g := NewWithT(t)
	over := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-over }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(over) })
	base := folder(t, map[string]string{"kustomization.yaml": "resources:\n- " + silent.URL + "/base.yaml\n"})

	// A credential helper that waits until the test is over.
	held := pipe(t)
	t.Cleanup(func() {
		if end, err := os.OpenFile(held, os.O_WRONLY|syscall.O_NONBLOCK, 0); err == nil {
			_ = end.Close()
		}
	})
	programs := folder(t, map[string]string{"docker-credential-held": "#!/bin/sh\nread -r answer <" + held + "\n"})
	g.Expect(os.Chmod(filepath.Join(programs, "docker-credential-held"), 0o700)).To(Succeed())
	config, err := json.Marshal(map[string]any{"credHelpers": map[string]string{"example.com": "held"}})
	g.Expect(err).NotTo(HaveOccurred())
	t.Setenv("DOCKER_CONFIG", folder(t, map[string]string{"config.json": string(config)}))
	t.Setenv("PATH", programs+string(filepath.ListSeparator)+os.Getenv("PATH"))

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"a credential helper":      {[]string{"inspect", "example.com/org/app:v1"}, `no credentials for "example.com"`},
		"a server of remote bases": {[]string{"-f", base, "-t", "example.com/org/app:v1", "--remote-bases"}, "kustomization.yaml: kustomize did not finish"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			ended := make(chan result, 1)
			go func() { ended <- flux(t, append(c.args, "--timeout", "1s")...) }()
			var run result
			g.Eventually(ended, time.Minute).Should(Receive(&run))
			g.Expect(run.code).To(Equal(exitFailure))
			expectOneError(g, run, "gave up after 1s (--timeout)", c.says)
		})
	}
}

// held is the command in a process of its own that reads a key from a pipe.
type held struct {
	*exec.Cmd
	// key ends the wait when it is written and closed.
	key   *os.File
	said  *bytes.Buffer
	ended chan error
}

// hold starts the command with a standard error of its own, or nil for one that is kept,
// by way of more programs where they are given.
func hold(t *testing.T, stderr *os.File, by ...string) *held {
	t.Helper()
	g := NewWithT(t)
	path := pipe(t)
	argv := slices.Concat(by, os.Args[:1])
	h := &held{Cmd: exec.CommandContext(t.Context(), argv[0], argv[1:]...), said: &bytes.Buffer{}, ended: make(chan error, 1)}
	args := []string{"-f", manifests(t), "-t", "example.com/org/app:v1", "-s", path, "--dry-run"}
	h.Env = append(os.Environ(), childVariable+"="+strings.Join(args, "\n"), passwordVariable+"=secret")
	if h.Stderr = h.said; stderr != nil {
		h.Stderr = stderr
	}
	g.Expect(h.Start()).To(Succeed())
	go func() { h.ended <- h.Wait() }()
	var err error
	h.key, err = os.OpenFile(path, os.O_WRONLY, 0) // waits until it is read
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = h.key.Close() })
	return h
}

// full returns the ends of a pipe that takes no more: to write to it waits, which no
// context ends.
func full(t *testing.T) (from, to *os.File) {
	t.Helper()
	g := NewWithT(t)
	var ends [2]int
	g.Expect(syscall.Pipe2(ends[:], syscall.O_NONBLOCK|syscall.O_CLOEXEC)).To(Succeed())
	from, to = os.NewFile(uintptr(ends[0]), "from"), os.NewFile(uintptr(ends[1]), "to")
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	for block := make([]byte, 4096); ; {
		if _, err := syscall.Write(ends[1], block); err != nil {
			g.Expect(err).To(Equal(syscall.EAGAIN))
			break
		}
	}
	g.Expect(syscall.SetNonblock(ends[1], false)).To(Succeed())
	return from, to
}

// release gives the command a key to go on with, and returns how it ends.
func (h *held) release(t *testing.T) (code int) {
	t.Helper()
	g := NewWithT(t)
	path, _ := keyPair(t, "secret")
	key, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = h.key.Write(key)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(h.key.Close()).To(Succeed())
	g.Eventually(h.ended, time.Minute).Should(Receive())
	return h.ProcessState.ExitCode()
}

func TestASecondSignalEndsTheCommandAtOnce(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(s.String(), func(t *testing.T) {
			g := NewWithT(t)
			_, stderr := full(t) // the command waits to say that it was interrupted
			h := hold(t, stderr)
			// Signals of one kind that come at the same time are one.
			g.Eventually(func() <-chan error {
				_ = h.Process.Signal(s) // it may have ended
				return h.ended
			}, time.Minute, 10*time.Millisecond).Should(Receive())
			g.Expect(h.ProcessState.Sys().(syscall.WaitStatus).Signal()).To(Equal(s))
		})
	}
}

func TestAClosedTerminalEndsTheCommandInOrder(t *testing.T) {
	// A program inherits a signal that is ignored, as under nohup, but none that is caught.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(caught) })
	g := NewWithT(t)
	said, stderr := full(t)
	h := hold(t, stderr)
	for range 3 {
		g.Expect(h.Process.Signal(syscall.SIGHUP)).To(Succeed())
		g.Consistently(h.ended, 50*time.Millisecond).ShouldNot(Receive())
	}
	g.Expect(stderr.Close()).To(Succeed())
	text, err := io.ReadAll(said)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Trim(string(text), "\x00")).To(HavePrefix("error: interrupted"))
	g.Eventually(h.ended, time.Minute).Should(Receive())
	g.Expect(h.ProcessState.ExitCode()).To(Equal(exitFailure))
}

func TestACommandThatOutlivesItsTerminalGoesOn(t *testing.T) {
	g := NewWithT(t)
	h := hold(t, nil, "nohup")
	g.Expect(h.Process.Signal(syscall.SIGHUP)).To(Succeed())
	g.Expect(h.release(t)).To(Equal(exitOK), h.said.String())
}

// TestUnpackingEndsWithTheCommand has no time left for the files that are to be checked.
func TestUnpackingEndsWithTheCommand(t *testing.T) {
	g := NewWithT(t)
	from, err := openLocal(t.Context(), manifests(t), false, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(from.close)
	packed, err := from.pack(t.Context(), t.TempDir(), nil, format.Limits{})
	g.Expect(err).NotTo(HaveOccurred())
	into := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(unpack(ctx, packed.Path, into)).To(MatchError(context.Canceled))
	g.Expect(treeOf(t, into)).To(BeEmpty())
}
