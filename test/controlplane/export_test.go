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
