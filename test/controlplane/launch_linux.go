package controlplane

import (
	"io"
	"os/exec"
	"syscall"
)

// confine gives cmd its own process group, so that a Ctrl-C in the terminal
// reaches only this process, and has the kernel kill it when this process dies.
func confine(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// guardGroup has nothing to do: the kernel guards.
func guardGroup(int) (io.Closer, error) {
	return noGuard{}, nil
}

type noGuard struct{}

func (noGuard) Close() error { return nil }
