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
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultReadyWithin = time.Minute
	defaultGrace       = 10 * time.Second
	readyPoll          = 50 * time.Millisecond
	tailBytes          = 4 << 10
)

var (
	// ErrExited says that a program ended before it was ready.
	ErrExited = errors.New("exited before it was ready")
	// ErrNotReady says that a program did not become ready in time.
	ErrNotReady = errors.New("did not become ready")

	errStopped = errors.New("the control plane has been stopped")
)

// Program is a program to run under the care of a control plane.
type Program struct {
	// Name names the program in errors and its log file; unique per control
	// plane.
	Name string
	// Path is the executable.
	Path string
	// Args are its arguments, without the name of the program.
	Args []string
	// Env has KEY=VALUE entries, in addition to the environment of this process.
	Env []string
	// Dir is the working directory; that of this process if empty.
	Dir string
	// Ready returns nil once the program does its work. It is asked again and
	// again; without it the program counts as ready when it has started.
	Ready func(context.Context) error
	// ReadyWithin bounds the wait for Ready; a minute if zero.
	ReadyWithin time.Duration
	// Grace is how long the program may take to end before it is killed; ten
	// seconds if zero.
	Grace time.Duration

	// layer orders the end of a control plane: lower layers end first.
	layer int
}

// StartError says why a program did not start.
type StartError struct {
	// Name is the name of the program.
	Name string
	// LogFile is its log and Tail the end of it.
	LogFile, Tail string
	// Err wraps [ErrExited], [ErrNotReady] or the error of the context.
	Err error
}

func (e *StartError) Error() string {
	if e.Tail == "" {
		return fmt.Sprintf("%s %v; its log %s is empty", e.Name, e.Err, e.LogFile)
	}
	return fmt.Sprintf("%s %v; the end of its log %s:\n%s", e.Name, e.Err, e.LogFile, e.Tail)
}

func (e *StartError) Unwrap() error { return e.Err }

// addressInUse says whether another process was faster to listen on an address
// that was free a moment before.
func (e *StartError) addressInUse() bool {
	return errors.Is(e.Err, ErrExited) && strings.Contains(e.Tail, "address already in use")
}

// Process is a program that runs, or ran.
type Process struct {
	program Program
	logFile string
	launch  *launcher

	mu      sync.Mutex
	current *run // nil before the first start
	retired bool // never to be started again
}

// run is one life of a process.
type run struct {
	cmd    *exec.Cmd
	group  *processGroup
	exited chan struct{}
	err    error // how it ended; set before exited closes
}

// Name returns the name of the program.
func (p *Process) Name() string { return p.program.Name }

// LogFile returns the file with all that the program has printed.
func (p *Process) LogFile() string { return p.logFile }

// PID returns the process identifier of the latest start.
func (p *Process) PID() int { return p.latest().cmd.Process.Pid }

// Exited returns a channel that closes when the program, as started last, ends.
func (p *Process) Exited() <-chan struct{} { return p.latest().exited }

// Wait waits for the program to end and returns how it ended: nil for exit code
// zero, else an [exec.ExitError].
func (p *Process) Wait(ctx context.Context) error {
	r := p.latest()
	select {
	case <-r.exited:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to end: %w", p.Name(), context.Cause(ctx))
	}
}

// Stop asks the program to end, kills it if it does not within its grace, and
// waits until it is gone. It does nothing if the program has ended.
func (p *Process) Stop() error {
	r := p.latest()
	if r == nil {
		return nil
	}
	if err := r.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping %s: %w", p.Name(), err)
	}
	select {
	case <-r.exited:
		return nil
	case <-time.After(orDefault(p.program.Grace, defaultGrace)):
		return p.Kill()
	}
}

// Kill ends the program at once, as kill -9 or a crash of the machine would, and
// waits until it is gone.
func (p *Process) Kill() error {
	r := p.latest()
	if err := r.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("killing %s: %w", p.Name(), err)
	}
	select {
	case <-r.exited:
		return nil
	case <-time.After(defaultGrace):
		return fmt.Errorf("killing %s: process %d still exists %s after SIGKILL", p.Name(), r.cmd.Process.Pid, defaultGrace)
	}
}

// Restart stops the program if it runs, starts it again as it was started and
// waits until it is ready. Its log goes on in the same file.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	return p.start(ctx)
}

// retire stops the program for good.
func (p *Process) retire() error {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	return p.Stop()
}

func (p *Process) latest() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// start starts the program and waits until it is ready. A program that does not
// become ready is stopped.
func (p *Process) start(ctx context.Context) error {
	offset, err := p.launchRun()
	if err != nil {
		return fmt.Errorf("starting %s: %w", p.Name(), err)
	}
	if err := p.waitReady(ctx); err != nil {
		return errors.Join(&StartError{Name: p.Name(), LogFile: p.logFile, Tail: tail(p.logFile, offset), Err: err}, p.Stop())
	}
	return nil
}

// launchRun begins a new life of the process and returns where its part of the
// log begins.
func (p *Process) launchRun() (logOffset int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retired {
		return 0, errStopped
	}
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if logOffset, err = log.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	cmd := exec.Command(p.program.Path, p.program.Args...)
	cmd.Dir = p.program.Dir
	cmd.Env = append(os.Environ(), p.program.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	group, err := p.launch.start(cmd)
	if err != nil {
		return 0, err
	}
	p.current = &run{cmd: cmd, group: group, exited: make(chan struct{})}
	go p.current.wait()
	return logOffset, nil
}

func (p *Process) waitReady(ctx context.Context) error {
	r := p.latest()
	within := orDefault(p.program.ReadyWithin, defaultReadyWithin)
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		notReady := p.askReady(ctx)
		select {
		case <-r.exited:
			return fmt.Errorf("%w (%s)", ErrExited, r.cmd.ProcessState)
		default:
		}
		if notReady == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-r.exited:
		case <-deadline.C:
			return fmt.Errorf("%w within %s: %w", ErrNotReady, within, notReady)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNotReady, context.Cause(ctx))
		}
	}
}

func (p *Process) askReady(ctx context.Context) error {
	if p.program.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return p.program.Ready(ctx)
}

// wait waits for the process to end and ends what it left behind.
func (r *run) wait() {
	r.err = r.cmd.Wait()
	r.group.close()
	close(r.exited)
}

// signal signals the process and all that it started, unless it has ended.
func (r *run) signal(sig syscall.Signal) error {
	select {
	case <-r.exited:
		return nil
	default:
		return r.group.signal(sig)
	}
}

// HTTPReady returns a [Program.Ready] that asks for a URL until the answer is
// 200 OK. The client is http.DefaultClient if nil.
func HTTPReady(url string, client *http.Client) func(context.Context) error {
	if client == nil {
		client = http.DefaultClient
	}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s, expected 200 OK", url, response.Status)
		}
		return nil
	}
}

// tail returns the end of what a log holds beyond offset, in whole lines.
func tail(logFile string, offset int64) string {
	file, err := os.Open(logFile)
	if err != nil {
		return ""
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	from := max(offset, info.Size()-tailBytes)
	content, err := io.ReadAll(io.NewSectionReader(file, from, info.Size()-from))
	if err != nil {
		return ""
	}
	text := string(content)
	if from > offset {
		_, text, _ = strings.Cut(text, "\n")
	}
	return strings.TrimRight(text, "\n")
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}
