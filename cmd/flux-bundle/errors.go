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
	"fmt"
	"strings"
	"time"
)

// Exit codes.
const (
	exitOK = 0
	// exitFailure is for every failure, and for a difference that diff found.
	exitFailure = 1
	// exitTrouble is how diff tells that it could not compare, as diff(1) does.
	exitTrouble = 2
)

// exitError is an error that ends the process with a code of its own. Without
// a cause nothing is printed: the result said it all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// errTimeout is the cause of the end of --timeout.
type errTimeout struct{ after time.Duration }

func (e errTimeout) Error() string { return fmt.Sprintf("gave up after %s (--timeout)", e.after) }

func (errTimeout) Timeout() bool { return true }

func (errTimeout) Unwrap() error { return context.DeadlineExceeded }

// failure is an error that is told in other words than its own.
type failure struct {
	words string
	err   error
}

func (f *failure) Error() string { return f.words }

func (f *failure) Unwrap() error { return f.err }

// inFlags names flags of this command where an error of code that the controller
// uses, too, names fields of its kinds.
func inFlags(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err: err, words: flagNames().Replace(err.Error())}
}

// flagNames replaces words about fields by words about flags.
func flagNames() *strings.Replacer {
	return strings.NewReplacer(
		"let the ImageRepository's exclusionList leave out such tags", "give the tag or digest of that image",
		"spec.format", "--format",
		"spec.platform", "--platform",
		"spec.ignore", "--ignore-paths",
		"spec.timeout", "--timeout",
		"spec.layerSelector.operation", "--layer-operation",
		"spec.layerSelector", "--layer-media-type",
		"set mediaType to", "set --layer-media-type to",
		"with operation: ", "with --layer-operation ",
		" of matchOIDCIdentity", " of the certificate",
	)
}
