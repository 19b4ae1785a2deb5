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
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"golang.org/x/sys/unix"
)

// denySystemCalls has the kernel refuse sockets and other programs to all threads
// of this process.
func denySystemCalls() error {
	err := seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{{
				Action: seccomp.ActionErrno | seccomp.Action(unix.EPERM),
				Names:  []string{"socket", "connect", "execve", "execveat", "ptrace", "io_uring_setup"},
			}},
		},
	})
	if err != nil {
		return fmt.Errorf("it does not refuse sockets and programs: %w", err)
	}
	return nil
}

// boundMemory has the kernel end this process before it holds more memory.
func boundMemory(size uint64) error {
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: size, Max: size}); err != nil {
		return fmt.Errorf("it does not bound the memory: %w", err)
	}
	return nil
}
