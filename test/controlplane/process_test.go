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
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// parentRole makes the test binary start a program and wait, so that a test can
// kill it: the parent of a process cannot be the test itself.
const parentRole = "CONTROLPLANE_TEST_PARENT_LOGS"

func TestMain(m *testing.M) {
	if logs := os.Getenv(parentRole); logs != "" {
		actAsParent(logs)
		return
	}
	log.SetLogger(logr.Discard()) // clients ask for one
	os.Exit(m.Run())
}

func TestStartProgram(t *testing.T) {
	t.Run("waits until the program is ready", func(t *testing.T) {
		g := NewWithT(t)
		marker := filepath.Join(t.TempDir(), "ready")
		program := shell("touch " + marker + "; sleep 60")
		program.Ready = func(context.Context) error {
			_, err := os.Stat(marker)
			return err
		}

		process, err := newTestSupervisor(t).start(t.Context(), program)

		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(marker).To(BeAnExistingFile())
		g.Expect(process.Exited()).NotTo(BeClosed())
	})

	t.Run("fails at once with the log of a program that exits early", func(t *testing.T) {
		g := NewWithT(t)
		program := shell("echo cannot go on; exit 3")
		program.Ready = never

		started := time.Now()
		_, err := newTestSupervisor(t).start(t.Context(), program)

		g.Expect(time.Since(started)).To(BeNumerically("<", 5*time.Second))
		g.Expect(err).To(MatchError(ErrExited))
		var failure *StartError
		g.Expect(errors.As(err, &failure)).To(BeTrue())
		g.Expect(failure.Tail).To(Equal("cannot go on"))
		g.Expect(err).To(MatchError(And(ContainSubstring("exit status 3"), ContainSubstring(failure.LogFile))))
	})

	t.Run("gives up on a program that never becomes ready, and ends it", func(t *testing.T) {
		g := NewWithT(t)
		pidFile := filepath.Join(t.TempDir(), "pid")
		program := shell("echo $$ >" + pidFile + "; sleep 60")
		program.Ready, program.ReadyWithin = never, time.Second

		_, err := newTestSupervisor(t).start(t.Context(), program)

		g.Expect(err).To(And(MatchError(ErrNotReady), MatchError(ContainSubstring("within 1s: not yet"))))
		g.Expect(alive(readPID(g, pidFile))).To(BeFalse())
	})

	t.Run("ends with the context and ends the program", func(t *testing.T) {
		g := NewWithT(t)
		pidFile := filepath.Join(t.TempDir(), "pid")
		program := shell("echo $$ >" + pidFile + "; sleep 60")
		ctx, cancel := context.WithCancel(t.Context())
		program.Ready = func(context.Context) error {
			if info, err := os.Stat(pidFile); err == nil && info.Size() > 0 {
				cancel()
			}
			return errors.New("not yet")
		}

		_, err := newTestSupervisor(t).start(ctx, program)

		g.Expect(err).To(MatchError(context.Canceled))
		g.Expect(alive(readPID(g, pidFile))).To(BeFalse())
	})

	t.Run("tries other addresses when the first ones are taken meanwhile", func(t *testing.T) {
		g := NewWithT(t)
		marker, second := filepath.Join(t.TempDir(), "marker"), filepath.Join(t.TempDir(), "second")
		_, _, err := newTestSupervisor(t).startListening(t.Context(), 1, func([]string) Program {
			return withReady(shell("if test -e "+marker+"; then touch "+second+"; exec sleep 60; fi; touch "+marker+"; echo bind: address already in use; exit 1"), func(context.Context) error {
				_, err := os.Stat(second)
				return err
			})
		})

		g.Expect(err).NotTo(HaveOccurred())
	})

	t.Run("refuses a second program of the same name", func(t *testing.T) {
		g := NewWithT(t)
		supervisor := newTestSupervisor(t)
		_, err := supervisor.start(t.Context(), shell("sleep 60"))
		g.Expect(err).NotTo(HaveOccurred())

		_, err = supervisor.start(t.Context(), shell("sleep 60"))

		g.Expect(err).To(MatchError(ContainSubstring("has that name")))
	})

	t.Run("refuses any program after the end of the control plane", func(t *testing.T) {
		g := NewWithT(t)
		supervisor := newSupervisor(t.TempDir())
		process, err := supervisor.start(t.Context(), shell("sleep 60"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(supervisor.close()).To(Succeed())

		_, err = supervisor.start(t.Context(), shell("sleep 60"))
		g.Expect(err).To(MatchError(errStopped))
		g.Expect(process.Restart(t.Context())).To(MatchError(errStopped))
	})
}

func TestProcess(t *testing.T) {
	t.Run("is killed when it ignores the request to end", func(t *testing.T) {
		g := NewWithT(t)
		ready := filepath.Join(t.TempDir(), "ready")
		program := withReady(shell("trap '' TERM; touch "+ready+"; while :; do sleep 1; done"), fileExists(ready))
		program.Grace = 300 * time.Millisecond
		process, err := newTestSupervisor(t).start(t.Context(), program)
		g.Expect(err).NotTo(HaveOccurred())

		g.Expect(process.Stop()).To(Succeed())

		g.Expect(alive(process.PID())).To(BeFalse())
		g.Expect(exitSignal(process.Wait(t.Context()))).To(Equal(syscall.SIGKILL))
	})

	t.Run("may end in its own way when it is asked to", func(t *testing.T) {
		g := NewWithT(t)
		ready := filepath.Join(t.TempDir(), "ready")
		process, err := newTestSupervisor(t).start(t.Context(),
			withReady(shell("trap 'exit 0' TERM; touch "+ready+"; while :; do sleep 0.1; done"), fileExists(ready)))
		g.Expect(err).NotTo(HaveOccurred())

		g.Expect(process.Stop()).To(Succeed())
		g.Expect(process.Stop()).To(Succeed(), "stopping again does nothing")

		g.Expect(process.Wait(t.Context())).To(Succeed())
	})

	t.Run("takes what it started with it", func(t *testing.T) {
		g := NewWithT(t)
		pidFile := filepath.Join(t.TempDir(), "pid")
		process, err := newTestSupervisor(t).start(t.Context(),
			withReady(shell("sleep 60 & echo $! >"+pidFile+".part; mv "+pidFile+".part "+pidFile+"; wait"), fileExists(pidFile)))
		g.Expect(err).NotTo(HaveOccurred())
		grandchild := readPID(g, pidFile)
		g.Expect(alive(grandchild)).To(BeTrue())

		g.Expect(process.Kill()).To(Succeed())

		g.Eventually(func() bool { return alive(grandchild) }, "5s").Should(BeFalse())
	})

	t.Run("says that it has exited", func(t *testing.T) {
		g := NewWithT(t)
		process, err := newTestSupervisor(t).start(t.Context(), shell("sleep 0.2; exit 7"))
		g.Expect(err).NotTo(HaveOccurred())

		g.Eventually(process.Exited(), "5s").Should(BeClosed())

		var exit *exec.ExitError
		g.Expect(errors.As(process.Wait(t.Context()), &exit)).To(BeTrue())
		g.Expect(exit.ExitCode()).To(Equal(7))
	})

	t.Run("starts again after a crash, with the same log", func(t *testing.T) {
		g := NewWithT(t)
		process, err := newTestSupervisor(t).start(t.Context(), shell("echo life; sleep 60"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Eventually(func() string { return tail(process.LogFile(), 0) }, "5s").Should(Equal("life"))
		first := process.PID()
		g.Expect(process.Kill()).To(Succeed())

		g.Expect(process.Restart(t.Context())).To(Succeed())

		g.Expect(process.PID()).NotTo(Equal(first))
		g.Eventually(func() string { return tail(process.LogFile(), 0) }, "5s").Should(Equal("life\nlife"))
	})

	t.Run("dies when its parent is killed", func(t *testing.T) {
		g := NewWithT(t)
		executable, err := os.Executable()
		g.Expect(err).NotTo(HaveOccurred())
		parent := exec.Command(executable)
		parent.Env = append(os.Environ(), parentRole+"="+t.TempDir())
		output, err := parent.StdoutPipe()
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(parent.Start()).To(Succeed())
		line, err := bufio.NewReader(output).ReadString('\n')
		g.Expect(err).NotTo(HaveOccurred())
		child, err := strconv.Atoi(strings.TrimSpace(line))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(alive(child)).To(BeTrue())

		g.Expect(parent.Process.Kill()).To(Succeed())

		g.Eventually(func() bool { return alive(child) }, "5s").Should(BeFalse())
		g.Expect(exitSignal(parent.Wait())).To(Equal(syscall.SIGKILL))
	})
}

func TestTail(t *testing.T) {
	t.Run("is cut at a line when the log is long", func(t *testing.T) {
		g := NewWithT(t)
		log := filepath.Join(t.TempDir(), "log")
		writeFile(g, log, strings.Repeat("a line of forty characters, all the same\n", 1000)+"the end\n")

		lines := strings.Split(tail(log, 0), "\n")

		g.Expect(lines[0]).To(Equal("a line of forty characters, all the same"))
		g.Expect(lines[len(lines)-1]).To(Equal("the end"))
		g.Expect(len(strings.Join(lines, "\n"))).To(BeNumerically("<=", tailBytes))
	})

	t.Run("leaves out what an earlier start wrote", func(t *testing.T) {
		g := NewWithT(t)
		log := filepath.Join(t.TempDir(), "log")
		writeFile(g, log, "before\nafter\n")
		g.Expect(tail(log, int64(len("before\n")))).To(Equal("after"))
	})
}

func TestFreeAddressesDifferAndAreFree(t *testing.T) {
	g := NewWithT(t)

	addresses, err := freeAddresses(3)

	g.Expect(err).NotTo(HaveOccurred())
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		g.Expect(err).NotTo(HaveOccurred())
		defer listener.Close()
	}
}

// actAsParent starts a program, prints its process identifier and waits for its
// own death.
func actAsParent(logs string) {
	process, err := newSupervisor(logs).start(context.Background(), shell("sleep 60"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(process.PID())
	select {}
}

func newTestSupervisor(t *testing.T) *supervisor {
	t.Helper()
	supervisor := newSupervisor(t.TempDir())
	t.Cleanup(func() { NewWithT(t).Expect(supervisor.close()).To(Succeed()) })
	return supervisor
}

func shell(script string) Program {
	return Program{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}}
}

func withReady(program Program, ready func(context.Context) error) Program {
	program.Ready = ready
	return program
}

func never(context.Context) error { return errors.New("not yet") }

func fileExists(path string) func(context.Context) error {
	return func(context.Context) error {
		_, err := os.Stat(path)
		return err
	}
}

// alive says whether a process exists that is no zombie: nobody waits for
// orphans when process 1 is no init.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, os.ErrNotExist) {
		state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
		return err == nil && !strings.HasPrefix(string(state), "Z")
	}
	return err == nil && !strings.Contains(string(status), "State:\tZ")
}

func readPID(g Gomega, path string) int {
	content, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	g.Expect(err).NotTo(HaveOccurred())
	return pid
}

// exitSignal returns the signal that ended a process.
func exitSignal(err error) syscall.Signal {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0
	}
	return exit.Sys().(syscall.WaitStatus).Signal()
}
