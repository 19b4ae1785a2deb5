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
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"
)

// supervisor starts processes and ends exactly those.
type supervisor struct {
	launch *launcher
	logDir string

	mu        sync.Mutex
	processes map[string]*Process
	closed    bool
}

func newSupervisor(logDir string) *supervisor {
	return &supervisor{launch: newLauncher(), logDir: logDir, processes: map[string]*Process{}}
}

// start starts a program and waits until it is ready.
func (s *supervisor) start(ctx context.Context, program Program) (*Process, error) {
	process := &Process{
		program: program,
		logFile: filepath.Join(s.logDir, program.Name+".log"),
		launch:  s.launch,
	}
	if err := s.adopt(process); err != nil {
		return nil, fmt.Errorf("starting %s: %w", program.Name, err)
	}
	if err := process.start(ctx); err != nil {
		s.disown(process)
		return nil, err
	}
	return process, nil
}

// startListening starts a program that listens on n free addresses. It tries
// again with others if another process takes one of them first.
func (s *supervisor) startListening(ctx context.Context, n int, program func(addresses []string) Program) (*Process, []string, error) {
	const attempts = 5
	var lost error
	for range attempts {
		addresses, err := freeAddresses(n)
		if err != nil {
			return nil, nil, err
		}
		process, err := s.start(ctx, program(addresses))
		var failure *StartError
		if errors.As(err, &failure) && failure.addressInUse() {
			lost = err
			continue
		}
		return process, addresses, err
	}
	return nil, nil, fmt.Errorf("no address stayed free in %d attempts: %w", attempts, lost)
}

// close ends all processes, layer by layer. Nothing can be started afterwards.
func (s *supervisor) close() error {
	var failures []error
	for _, layer := range s.retire() {
		var group errgroup.Group
		for _, process := range layer {
			group.Go(process.retire)
		}
		failures = append(failures, group.Wait())
	}
	s.launch.close()
	return errors.Join(failures...)
}

// retire refuses further programs and returns the others by layer.
func (s *supervisor) retire() [][]*Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	layers := make([][]*Process, layerCount)
	for _, process := range s.processes {
		layers[process.program.layer] = append(layers[process.program.layer], process)
	}
	return layers
}

func (s *supervisor) adopt(process *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStopped
	}
	if _, taken := s.processes[process.Name()]; taken {
		return errors.New("another program has that name")
	}
	s.processes[process.Name()] = process
	return nil
}

func (s *supervisor) disown(process *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.processes, process.Name())
}

// The layers in which a control plane ends: a program may count on those of
// higher layers until it is gone.
const (
	layerClient = iota
	layerAPIServer
	layerStorage
	layerCount
)

// FreeAddress returns an address, host and port, of the loopback interface that
// nothing listens on. It stays free while nobody listens there, as when a
// program that has to come back under its address is down: ports of the range
// that it is of are given to no connection that is opened.
func FreeAddress() (string, error) {
	addresses, err := freeAddresses(1)
	if err != nil {
		return "", err
	}
	return addresses[0], nil
}

// The range of ports that are neither anybody's by custom nor given to
// connections, on the systems that this runs on.
const (
	firstPort = 20_000
	ports     = 10_000
)

// promised are the ports that this process was given. One that is free may be
// somebody's who has not listened on it yet, in another goroutine or two lines on.
var promised sync.Map

// freeAddresses returns n different addresses, none of which was returned before.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, 0, n)
	for attempts := 0; len(addresses) < n; attempts++ {
		port := firstPort + rand.IntN(ports)
		if _, given := promised.LoadOrStore(port, true); given && attempts < ports {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil && attempts < ports {
			continue // it is taken
		}
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		addresses = append(addresses, listener.Addr().String())
		if err := listener.Close(); err != nil {
			return nil, fmt.Errorf("giving a free port back: %w", err)
		}
	}
	return addresses, nil
}
