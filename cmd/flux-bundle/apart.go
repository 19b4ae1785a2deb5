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
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/image-source/image-source-controller/pkg/fault"
)

// Packed files are checked in a process of its own: kustomize fetches every address
// in a file, runs git, and crashes on some files. The process has no network, no
// program to start and no secret, and its time and memory are bounded.

// checkVerb is the verb of the process. It is no part of the interface.
const checkVerb = "check-packed"

// checkJob says what to check.
type checkJob struct {
	// folder with the packed files and nothing else.
	folder string
	// remoteBases tells that the files are trusted to use the network and git.
	remoteBases bool
	// strict tells that nothing is checked where the kernel does not confine the process.
	strict bool
}

// The bounds of the process. kustomize-controller has 1 GiB by default.
const (
	maxCheckMemory = 2 << 30
	maxCheckStack  = 64 << 20
	// maxCheckLine bounds a line of its output in bytes.
	maxCheckLine = 64 << 10
	// checkGrace is for how long its pipes stay open when it has ended.
	checkGrace = 5 * time.Second
)

// checkApart checks packed files in a process of its own and returns a *finding
// where one is found.
func checkApart(ctx context.Context, s streams, job checkJob, tell func(message)) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var end message
	var said checkLog
	var unread error
	command := exec.CommandContext(ctx, self, checkVerb, //nolint:gosec // this program itself
		fmt.Sprintf("--remote-bases=%t", job.remoteBases), fmt.Sprintf("--strict=%t", job.strict))
	command.Dir = job.folder
	command.Env = checkEnvironment(s, job)
	command.WaitDelay = checkGrace
	command.Stdout = &lines{each: func(line []byte) {
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			unread = err // a message that nobody hears may be why not to push
			return
		}
		if m.Finding != nil || m.Done {
			end = m
		}
		tell(m)
	}}
	command.Stderr = &lines{each: said.add}
	setApart(command)
	// Its end of the pipe closes with this process, however that ends.
	alive, err := command.StdinPipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	err = command.Run()
	for _, line := range said.lines {
		s.warnf("kustomize: %s", line)
	}
	switch {
	case end.Finding != nil:
		return end.Finding
	case ctx.Err() != nil:
		return ctx.Err()
	case unread != nil:
		return fmt.Errorf("a message of the process that checks it cannot be read: %w", unread)
	case end.Done && err == nil:
		return nil
	case said.crash != "":
		return fmt.Errorf("kustomize ended with %q", said.crash)
	default:
		return fmt.Errorf("the process that checks it ended early: %w", err)
	}
}

// checkEnvironment returns the environment of the process: empty or, for trusted
// files, the variables that git and TLS need. The password of a key is never in it.
func checkEnvironment(s streams, job checkJob) []string {
	environment := []string{}
	if !job.remoteBases {
		return environment
	}
	for _, name := range []string{
		"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSH_ASKPASS",
		"GIT_ASKPASS", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_TERMINAL_PROMPT",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR",
		"APPDATA", "LOCALAPPDATA", "PATHEXT", "TEMP", "TMP", "USERPROFILE", // of Windows
	} {
		if value, set := s.lookupEnv(name); set {
			environment = append(environment, name+"="+value)
		}
	}
	return environment
}

// checkLog keeps what the process says on standard error.
type checkLog struct {
	// lines, without repetitions and with a bound.
	lines []string
	// crash is why the Go runtime ended the process.
	crash string
	// ended tells that the rest is about the crash.
	ended bool
}

func (l *checkLog) add(text []byte) {
	const most = 10
	line := oneLine(string(text))
	for _, start := range []string{"fatal error: ", "panic: "} {
		if words, found := strings.CutPrefix(line, start); found && l.crash == "" {
			l.crash, l.ended = fault.Words(words), true
		}
	}
	l.ended = l.ended || strings.HasPrefix(line, "runtime: ")
	if !l.ended && line != "" && len(l.lines) < most && !slices.Contains(l.lines, line) {
		l.lines = append(l.lines, line)
	}
}

// lines is a writer that hands on one line after the other, of which it keeps
// maxCheckLine bytes.
type lines struct {
	each func(line []byte)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	for text := p; len(text) > 0; {
		line, after, ended := bytes.Cut(text, []byte("\n"))
		l.rest = append(l.rest, line[:min(len(line), maxCheckLine-len(l.rest))]...)
		if ended {
			l.each(l.rest)
			l.rest = l.rest[:0]
		}
		text = after
	}
	return len(p), nil
}

// newCheck returns the verb of the process that checks packed files. It is for
// this program alone.
func newCheck(s streams) *cobra.Command {
	var job checkJob
	cmd := &cobra.Command{
		Use:    checkVerb,
		Short:  "Check packed files for push",
		Hidden: true,
		Args:   cobra.NoArgs,
		// No registry is used.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE:              func(cmd *cobra.Command, _ []string) error { return serveCheck(cmd.Context(), s, job) },
	}
	cmd.Flags().BoolVar(&job.remoteBases, "remote-bases", false, "the files are trusted")
	cmd.Flags().BoolVar(&job.strict, "strict", false, "check nothing where the kernel does not confine this process")
	return cmd
}

// serveCheck checks the packed files in the working directory and writes one
// message on each line. They are in the working directory, not in the folder of the job.
func serveCheck(ctx context.Context, s streams, job checkJob) error {
	debug.SetMaxStack(maxCheckStack)
	debug.SetMemoryLimit(maxCheckMemory * 3 / 4) // the collector's bound, below that of the system
	log.SetFlags(0)
	encoder := json.NewEncoder(unguarded(s.out))
	if file, ok := unguarded(s.err).(*os.File); ok {
		os.Stdout, os.Stderr = file, file // kustomize writes to them, and messages are alone on standard output
	}
	tell := func(m message) { _ = encoder.Encode(m) } // nobody reads what cannot be written
	if err := isolate(job); err != nil {
		tell(message{Unconfined: oneLine(err.Error())})
		if job.strict {
			return encoder.Encode(message{Done: true})
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, s.in) // it ends with the process that started this one
		endApart()
		cancel()
	}()
	root, err := os.OpenRoot(".")
	if err != nil {
		return err
	}
	defer root.Close()
	end := message{Done: true}
	_, err = await(ctx, func() (struct{}, error) {
		if job.remoteBases {
			return struct{}{}, checkTrusted(ctx, ".", root.FS(), tell)
		}
		return struct{}{}, checkTree(ctx, root.FS(), tell)
	})
	if found, ok := errors.AsType[*finding](err); ok {
		end, err = message{Finding: found}, nil
	}
	return errors.Join(err, encoder.Encode(end))
}

// isolate takes memory, and for files that are not trusted the network and other
// programs, from this process, for ever. It closes the ways out, because a list of
// fields with addresses is never complete.
//
// Errors: the kernel refuses a bound. The others hold all the same.
func isolate(job checkJob) error {
	err := boundMemory(maxCheckMemory)
	if job.remoteBases {
		return err
	}
	http.DefaultTransport = noNetwork{} //nolint:forbidigo // kustomize offers no other way to set its transport
	return errors.Join(err, denySystemCalls())
}
