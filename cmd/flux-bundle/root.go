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
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run is the command: it carries out args and returns the exit code.
func run(ctx context.Context, s streams, args []string) int {
	s.out, s.err = &guard{to: s.out}, &guard{to: s.err}
	a := &app{streams: s, cancel: func() {}, check: checkApart}
	root := newRoot(a) //nolint:contextcheck // the verbs get theirs when they are executed
	root.SetArgs(args)
	executed, err := root.ExecuteContextC(ctx)
	defer func() { a.cancel() }()
	if err != nil {
		return fail(executed.Context(), s.err, err) //nolint:contextcheck // that with the deadline of --timeout
	}
	return exitOK
}

// newRoot returns the command with all verbs. Without a verb it pushes.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           programName,
		Short:         "Package, sign and push what Flux deploys",
		Long:          rootLong,
		Args:          noVerb,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		// How many letters may be wrong in a verb that is not known.
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE:          a.start,
		Annotations:                map[string]string{cobra.CommandDisplayNameAnnotation: "flux bundle"},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.flags.bind(root.PersistentFlags())
	root.SetFlagErrorFunc(readable)
	complete(root, "provider", providers()...)
	pushByDefault(a, root)
	root.AddCommand(verbs(a)...)
	for _, verb := range root.Commands() {
		hide(verb, root.PersistentFlags(), meaningless(verb.Name()))
	}
	takeOnce(root)
	return root
}

// verbs are what the command can do. Without one it pushes.
func verbs(a *app) []*cobra.Command {
	return []*cobra.Command{
		newPush(a),
		newGenerateKeyPair(a.streams),
		newInspect(a),
		newPull(a),
		newVerify(a),
		newDiff(a),
		newDocs(),
		newCheck(a.streams),
	}
}

// meaningless tells which global flags say nothing to a verb.
func meaningless(verb string) func(flag string) bool {
	limits := func(flag string) bool { return strings.HasPrefix(flag, "max-") }
	switch verb {
	case "verify": // it reads manifests and signatures only
		return limits
	case "generate-key-pair":
		return func(flag string) bool { return flag != "timeout" }
	default:
		return func(string) bool { return false }
	}
}

// hide leaves global flags out of the help of a verb. They are accepted as before: a
// script may give the same ones to all verbs.
func hide(verb *cobra.Command, global *pflag.FlagSet, hidden func(flag string) bool) {
	global.VisitAll(func(f *pflag.Flag) {
		if hidden(f.Name) {
			shadow := *f
			shadow.Hidden = true
			verb.Flags().AddFlag(&shadow)
		}
	})
}

const rootLong = `flux bundle packages a folder of manifests as an OCI artifact, signs it and pushes it; and it shows, pulls, verifies and compares
artifacts exactly as image-source-controller will read them.

Without a verb it pushes: flux bundle -f ./deploy -t ghcr.io/org/app-deploy:v1.0.0 is flux bundle push with the same flags.`

// fail prints an error as one line and returns the code to exit with.
func fail(ctx context.Context, w io.Writer, err error) int {
	code := exitFailure
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
		if exit.err == nil {
			return code
		}
	}
	var expired errTimeout
	// Some errors say it in words alone.
	if errors.Is(err, context.DeadlineExceeded) && errors.As(context.Cause(ctx), &expired) && !strings.Contains(err.Error(), expired.Error()) {
		err = fmt.Errorf("%w: %w", expired, err)
	}
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("interrupted: %w", err)
	}
	fmt.Fprintf(w, "error: %s\n", oneLine(err.Error()))
	return code
}
