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
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/image-source/image-source-controller/pkg/format"
)

// What can be said against the value of a flag without any work is said before
// any is done, in these words: what was found, and what was expected.

// unexpected refuses the value of a flag.
func unexpected(flag, value, expected string) error {
	return fmt.Errorf("--%s is %q, expected %s", flag, value, expected)
}

// oneOf refuses a value that is none of those that there are.
func oneOf(flag, value string, all []string) error {
	if slices.Contains(all, value) {
		return nil
	}
	last := len(all) - 1
	return unexpected(flag, value, strings.Join(all[:last], ", ")+" or "+all[last])
}

// once is the value of a flag that takes one: the last of several would win without
// a word. The completion of a shell parses arguments more than once.
type once struct {
	pflag.Value
	given *string
}

var errTwice = errors.New("it is given twice with different values, expected once")

// Set implements pflag.Value.
func (o *once) Set(value string) error {
	if o.given != nil && *o.given != value {
		return errTwice
	}
	o.given = &value
	return o.Value.Set(value)
}

// takeOnce has the flags of a command and of its verbs refuse a second value, but for
// those that take several.
func takeOnce(cmd *cobra.Command) {
	for _, flags := range []*pflag.FlagSet{cmd.PersistentFlags(), cmd.Flags()} {
		flags.VisitAll(func(f *pflag.Flag) {
			_, isWrapped := f.Value.(*once)
			if _, takesSeveral := f.Value.(pflag.SliceValue); !takesSeveral && !isWrapped {
				f.Value = &once{Value: f.Value}
			}
		})
	}
	for _, verb := range cmd.Commands() {
		takeOnce(verb)
	}
}

// readable puts what the flag library says of a value into words for those who
// do not write Go.
func readable(cmd *cobra.Command, err error) error {
	if wrong, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if errors.Is(err, errTwice) {
			return fmt.Errorf("--%s: %w", wrong.GetFlag().Name, errTwice)
		}
		if expected := expectedOf(wrong.GetFlag().Value.Type()); expected != "" {
			return unexpected(wrong.GetFlag().Name, wrong.GetValue(), expected)
		}
	}
	if _, ok := errors.AsType[*pflag.NotExistError](err); ok {
		return fmt.Errorf("%w; %s --help lists those that there are", err, cmd.CommandPath())
	}
	return err
}

// expectedOf describes a type of the flag library; empty for what takes any value.
func expectedOf(kind string) string {
	switch kind {
	case "bool":
		return "true or false"
	case "duration":
		return "a time such as 30s or 5m"
	case "int", "int64":
		return "a whole number"
	case "stringSlice":
		return "values with commas between them, and quotes around all of a value or nowhere"
	default:
		return ""
	}
}

// checkPatterns refuses patterns that would match nothing because they are none:
// a file that was to be left out would be published.
func checkPatterns(patterns []string) error {
	for _, pattern := range patterns {
		if !format.IsPattern(pattern) {
			return unexpected("ignore-paths", pattern, `a pattern as in .sourceignore: every [ needs its ], and \ something behind it`)
		}
	}
	return nil
}

func contradiction(one, other string) error {
	return fmt.Errorf("give either %s or %s, not both: they are different demands", one, other)
}

// complete offers values for a flag to the shell.
func complete(cmd *cobra.Command, flag string, values ...string) {
	exists(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// exists panics if a flag that is configured does not exist: a mistake in this program.
func exists(err error) {
	if err != nil {
		panic(err)
	}
}
