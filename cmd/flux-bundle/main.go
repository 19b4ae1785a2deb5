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
	"log"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/sirupsen/logrus"
)

func main() { os.Exit(start(os.Args[1:])) }

// start runs the command with the streams and the environment of this process, and
// returns the exit code.
func start(args []string) int {
	s := streams{in: os.Stdin, out: os.Stdout, err: os.Stderr, lookupEnv: os.LookupEnv}
	silence(s)
	return execute(s, args)
}

// silence keeps libraries from printing by themselves: their logs pass the same
// guard as all else, and what they write to the standard streams by themselves is
// dropped.
func silence(s streams) {
	log.SetOutput(&guard{to: s.err})
	logrus.SetOutput(&guard{to: s.err})
	if null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0); err == nil {
		os.Stdout, os.Stderr = null, null
	}
}

// execute runs the command until a signal ends it in order: what it has written
// half is taken back. A second one, by somebody who does not want to wait for that,
// ends the process at once, but not a second SIGHUP: the kernel and the shell both
// send one when a terminal is closed. What is ignored from the start, as nohup does,
// stays ignored.
func execute(s streams, args []string) int {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}
	ctx, stop := signal.NotifyContext(context.Background(), slices.DeleteFunc(signals, signal.Ignored)...)
	defer stop()
	s.lookupEnv = takeSecrets(s.lookupEnv)
	context.AfterFunc(ctx, func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
	return run(ctx, s, args)
}

// takeSecrets removes secrets from the environment of this process: programs that it
// starts, such as credential helpers, inherit the rest. The function that it returns
// still finds them.
func takeSecrets(lookupEnv func(string) (string, bool)) func(string) (string, bool) {
	for _, variable := range []string{passwordVariable, credsVariable} {
		lookupEnv = takeSecret(lookupEnv, variable)
	}
	return lookupEnv
}

func takeSecret(lookupEnv func(string) (string, bool), variable string) func(string) (string, bool) {
	secret, found := lookupEnv(variable)
	_ = os.Unsetenv(variable) // the name is a valid one
	return func(name string) (string, bool) {
		if name == variable {
			return secret, found
		}
		return lookupEnv(name)
	}
}
