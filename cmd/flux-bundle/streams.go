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
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// streams are the standard streams of the command, and its environment.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// lookupEnv returns a variable of the environment, and whether it is set.
	lookupEnv func(name string) (string, bool)
}

// getenv returns a variable of the environment, empty when it is not set.
func (s streams) getenv(name string) string {
	value, _ := s.lookupEnv(name)
	return value
}

// warnf prints a warning on standard error.
func (s streams) warnf(format string, args ...any) {
	s.statusf("warning: "+format, args...)
}

// statusf prints a line of progress on standard error. Its arguments may come from
// anywhere.
func (s streams) statusf(format string, args ...any) {
	fmt.Fprintln(s.err, printable(fmt.Sprintf(format, args...)))
}

// terminalOf returns the terminal behind a stream; nil if there is none.
func terminalOf(stream any) *os.File {
	if guarded, ok := stream.(*guard); ok {
		stream = guarded.to
	}
	if file, ok := stream.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		return file
	}
	return nil
}

// isTerminal tells whether a stream is a terminal.
func isTerminal(stream any) bool { return terminalOf(stream) != nil }

// await returns the result of work or, if ctx ends first, the error of ctx. It is for
// work that cannot be cancelled: await leaves it behind, and it ends with the command.
func await[T any](ctx context.Context, work func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := work()
		done <- result{value, err}
	}()
	select {
	case got := <-done:
		return got.value, got.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// ask reads a line without showing it. A terminal cannot be told to stop waiting,
// so an interrupted question is left behind, with the terminal as it was.
func (s streams) ask(ctx context.Context, terminal *os.File, prompt string) ([]byte, error) {
	fd := int(terminal.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(s.err, prompt)
	defer fmt.Fprintln(s.err)
	password, err := await(ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	if ctx.Err() != nil {
		return nil, errors.Join(ctx.Err(), term.Restore(fd, before))
	}
	return password, err
}
