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

// Package fault is the typed error of the image path: what went wrong (a
// reason for a condition), what helps (a class), and the words for a person.
// It also holds the one rule by which what others wrote gets into these words:
// Line, Words and Quote.
//
// It owns neither the list of reasons (api/v1alpha1) nor what a condition
// looks like (controllers).
package fault

import (
	"errors"
	"fmt"
	"time"
)

// Class says what can make the failed work succeed.
type Class int

const (
	// Retry is for what time alone may heal: a registry that is down, a
	// signature not pushed yet. The work is tried again with backoff.
	Retry Class = iota
	// Wait is for what an event will announce: another object that must
	// appear or become ready. The work is tried again on that event, and
	// each interval.
	Wait
	// Stall is for what only a change of spec, policy or digest helps.
	Stall
)

// String returns the name of the class as it is written in logs.
func (c Class) String() string {
	switch c {
	case Wait:
		return "wait"
	case Stall:
		return "stall"
	default:
		return "retry"
	}
}

// Error is a failure with a reason and a class. Match it with errors.As, or
// read it with Of; wrapping it loses nothing.
type Error struct {
	// Reason is one of the reasons of api/v1alpha1.
	Reason string
	// Class says what helps.
	Class Class
	// RetryAfter is the earliest useful moment to try again as the registry
	// gave it (HTTP Retry-After, RFC 9110 section 10.2.3); zero when it gave none.
	RetryAfter time.Duration
	// Answered tells that a registry gave an answer, though not the one that was
	// asked for, or that it was not asked: whether it can be reached is not in doubt.
	Answered bool
	// Err is the cause, in words that are fit for a condition.
	Err error
}

// Error returns the words of the cause; the reason is shown beside them by
// whoever prints a condition.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Retryf returns an error that time may heal. The format takes %w.
func Retryf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Class: Retry, Err: fmt.Errorf(format, args...)}
}

// Waitf returns an error that an event will announce the end of. The format takes %w.
func Waitf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Class: Wait, Err: fmt.Errorf(format, args...)}
}

// Stallf returns an error that only another spec, policy or digest heals. The
// format takes %w.
func Stallf(reason, format string, args ...any) error {
	return &Error{Reason: reason, Class: Stall, Err: fmt.Errorf(format, args...)}
}

// Of returns the outermost Error in err's chain. An error that carries none is
// a retry with the given fallback reason: a failure that nobody classified is
// never final. The words are always those of the whole chain. Of(nil, ...) is nil.
func Of(err error, fallback string) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		return &Error{Reason: fallback, Class: Retry, Err: err}
	}
	return &Error{Reason: e.Reason, Class: e.Class, RetryAfter: e.RetryAfter, Answered: e.Answered, Err: err}
}
