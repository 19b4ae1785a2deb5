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

// PIDs returns the identifiers of the processes that the control plane started.
func (cp *ControlPlane) PIDs() []int {
	cp.supervisor.mu.Lock()
	defer cp.supervisor.mu.Unlock()
	var pids []int
	for _, process := range cp.supervisor.processes {
		pids = append(pids, process.PID())
	}
	return pids
}

// Alive says whether a process exists that is no zombie.
func Alive(pid int) bool { return alive(pid) }
