//go:build unix

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
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// launcher starts operating system processes such that none outlives this one.
//
// All of them are started from one thread, which lives as long as the launcher:
// Linux ties the signal that a process gets on the death of its parent to the
// thread that started it.
type launcher struct {
	starts chan func()
	done   chan struct{}
}

func newLauncher() *launcher {
	l := &launcher{starts: make(chan func()), done: make(chan struct{})}
	go l.serve()
	return l
}

func (l *launcher) serve() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		select {
		case start := <-l.starts:
			start()
		case <-l.done:
			return
		}
	}
}

// close ends the launcher. The processes that it started must have ended.
func (l *launcher) close() {
	close(l.done)
}

// start starts cmd as the leader of a process group of its own.
func (l *launcher) start(cmd *exec.Cmd) (*processGroup, error) {
	confine(cmd)
	started := make(chan error, 1)
	select {
	case l.starts <- func() { started <- cmd.Start() }:
	case <-l.done:
		return nil, errStopped
	}
	if err := <-started; err != nil {
		return nil, err
	}
	group := &processGroup{id: cmd.Process.Pid}
	guard, err := guardGroup(group.id)
	if err != nil {
		return nil, errors.Join(err, group.signal(syscall.SIGKILL), cmd.Wait())
	}
	group.guard = guard
	return group, nil
}

// runToEnd runs cmd until it ends. When ctx ends first, the process group of cmd
// is asked to end and, some seconds later, killed.
func (l *launcher) runToEnd(ctx context.Context, cmd *exec.Cmd) error {
	const grace = 5 * time.Second
	cmd.WaitDelay = grace
	group, err := l.start(cmd)
	if err != nil {
		return err
	}
	defer group.close()
	ended := make(chan struct{})
	defer close(ended)
	stop := context.AfterFunc(ctx, func() {
		_ = group.signal(syscall.SIGINT)
		select {
		case <-ended:
		case <-time.After(grace):
			_ = group.signal(syscall.SIGKILL)
		}
	})
	defer stop()
	return cmd.Wait()
}

// processGroup is the group of a started process and of all that it starts.
type processGroup struct {
	id    int
	guard io.Closer
}

// signal sends a signal to every process of the group; a group that is gone is
// no error.
func (g *processGroup) signal(sig syscall.Signal) error {
	if err := syscall.Kill(-g.id, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// close kills what the leader of the group left behind.
func (g *processGroup) close() error {
	return errors.Join(g.signal(syscall.SIGKILL), g.guard.Close())
}
