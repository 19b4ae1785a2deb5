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

// Close has nothing to end.
func (noGuard) Close() error { return nil }
