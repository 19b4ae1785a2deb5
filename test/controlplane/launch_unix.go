//go:build unix && !linux

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
	g.shell.Wait() // killed by its own signal
	return err
}
