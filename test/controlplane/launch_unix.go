//go:build unix && !linux

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
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// confine gives cmd its own process group, so that a Ctrl-C in the terminal
// reaches only this process.
func confine(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}

// guardGroup adds a shell to the process group that kills the group when its
// input ends. This process holds the other end of that pipe, which closes with
// it, however it ends.
func guardGroup(group int) (io.Closer, error) {
	shell := exec.Command("/bin/sh", "-c", "read _; kill -KILL 0")
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: group}
	input, err := shell.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := shell.Start(); err != nil {
		return nil, fmt.Errorf("starting the guard of process group %d: %w", group, err)
	}
	return &guard{shell: shell, input: input}, nil
}

type guard struct {
	shell *exec.Cmd
	input io.Closer
}

// Close ends the guard, and with it what is left of the group.
func (g *guard) Close() error {
	err := g.input.Close()
	_ = g.shell.Wait() // it dies of its own signal
	return err
}
