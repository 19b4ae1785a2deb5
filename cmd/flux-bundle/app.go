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
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/image-source/image-source-controller/pkg/credentials"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/format"
	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/registry"
)

// Exit codes.
const (
	exitOK = 0
	// exitFailure is for everything that went wrong, and for what diff found.
	exitFailure = 1
	// exitTrouble is how diff tells that it could not compare, as diff(1) does.
	exitTrouble = 2
)

const programName = "flux-bundle"

// streams are what a person or a pipe is behind, and their environment.
type streams struct {
	in       io.Reader
	out, err io.Writer
	// lookupEnv returns a variable of the environment, and whether it is set.
	lookupEnv func(name string) (string, bool)
}

// app is what all verbs share.
type app struct {
	streams
	flags globalFlags
	// registries is made when the flags are known.
	registries *registry.Client
	login      login
	// cancel ends the time that --timeout gives.
	cancel context.CancelFunc
	// check checks packed files.
	check func(ctx context.Context, job checkJob, tell func(message)) error
}

// globalFlags are the flags that every verb has.
type globalFlags struct {
	insecure     bool
	provider     string
	creds        string
	timeout      time.Duration
	authRealms   []string
	allowedCIDRs []string
	limits       format.Limits
}

// bind adds the flags to a set.
func (f *globalFlags) bind(fs *pflag.FlagSet) {
	f.limits = format.DefaultLimits()
	fs.BoolVar(&f.insecure, "insecure-registry", false, "allow plain HTTP where the registry does not speak HTTPS")
	fs.StringVar(&f.provider, "provider", "generic", "`origin` of registry credentials: generic (Docker config and its helpers), aws, azure or gcp")
	fs.StringVar(&f.creds, credsFlag, "", "`credentials` of the registry: username:password or a token; - reads them from standard input. "+
		"Every process of this machine can read arguments: better set "+credsVariable)
	fs.DurationVar(&f.timeout, "timeout", 5*time.Minute, "time after which to give up")
	fs.StringSliceVar(&f.authRealms, "registry-auth-realms", nil,
		"`hosts` that may be sent registry credentials when a registry names one as its token service, beside its own registrable domain")
	fs.StringSliceVar(&f.allowedCIDRs, "registry-allowed-cidrs", nil, "private `networks` that registries may redirect to")
	fs.Int64Var(&f.limits.ArtifactBytes, "max-artifact-bytes", f.limits.ArtifactBytes, "largest artifact, in `bytes`, as the controller's flag of that name")
	fs.Int64Var(&f.limits.UncompressedBytes, "max-uncompressed-bytes", f.limits.UncompressedBytes, "most `bytes` that an artifact may unpack to, as the controller's flag of that name")
	fs.IntVar(&f.limits.Entries, "max-entries", f.limits.Entries, "most files and folders of an artifact, as the controller's flag of that name")
	fs.IntVar(&f.limits.Depth, "max-depth", f.limits.Depth, "most elements that a path in an artifact may have, as the controller's flag of that name")
	fs.IntVar(&f.limits.Layers, "max-layers", f.limits.Layers, "most layers that an artifact may have, as the controller's flag of that name")
}

// start checks the flags and prepares what the verbs use.
func (a *app) start(cmd *cobra.Command, _ []string) error {
	if err := a.flags.check(); err != nil {
		return err
	}
	networks, err := a.flags.networks()
	if err != nil {
		return err
	}
	client, err := registry.NewClient(registry.Options{
		UserAgent:    programName + "/" + version,
		AuthRealms:   a.flags.authRealms,
		AllowedCIDRs: networks,
		// Some registries hash all of an upload before they answer.
		HeaderTimeout: a.flags.timeout,
		Hints: registry.Hints{ //nolint:gosec // advice about credentials, and none itself
			Authority:   "add its CA certificate to those that this machine trusts, or name a file of trusted ones in SSL_CERT_FILE",
			Plain:       "give --insecure-registry if that is intended",
			Certificate: "client certificates are not supported here",
			Proxy:       "check user and password in HTTPS_PROXY or HTTP_PROXY",
			Credentials: "log in with docker login, or name the cloud that the registry is of with --provider",
		},
	})
	if err != nil {
		return err
	}
	a.registries = client
	var ctx context.Context
	ctx, a.cancel = context.WithTimeoutCause(cmd.Context(), a.flags.timeout, errTimeout{a.flags.timeout})
	cmd.SetContext(ctx)
	a.login, err = a.readLogin(ctx)
	return err
}

// providers are where credentials can come from.
func providers() []string { return []string{"generic", "aws", "azure", "gcp"} }

// reference reads a reference as people write it, with or without oci://, to a
// registry that the provider has credentials for.
func (a *app) reference(text string) (reference.Image, error) {
	named := strings.TrimPrefix(text, ociScheme)
	if strings.Contains(named, "://") {
		return reference.Image{}, fmt.Errorf("%q is an address, expected a reference to an artifact such as ghcr.io/org/app-deploy:v1.0.0; --insecure-registry is for plain HTTP", text)
	}
	image, err := reference.ParseImage(named, a.nameOptions()...)
	if err != nil {
		return image, fmt.Errorf("%q is no reference to an artifact, expected one such as ghcr.io/org/app-deploy:v1.0.0: %w", text, err)
	}
	if err := credentials.CheckLocal(image.Repository, a.flags.provider); err != nil {
		return image, &failure{err: err, words: fmt.Sprintf("--provider is %q, but %q is no registry of that cloud; leave --provider out for the credentials of docker login",
			a.flags.provider, image.Repository.RegistryStr())}
	}
	return image, a.login.only(image.Repository)
}

func (a *app) nameOptions() []name.Option {
	if a.flags.insecure {
		return []name.Option{name.Insecure}
	}
	return nil
}

// access returns the way to a repository with the credentials of --creds or those of
// this machine: of the Docker config and its helpers, or of a cloud.
func (a *app) access(ctx context.Context, repository name.Repository) (*registry.Repository, error) {
	granted, err := await(ctx, func() (registry.Access, error) {
		return a.grant(ctx, repository)
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("no credentials for %q: %w", repository.RegistryStr(), ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	granted.Insecure = a.flags.insecure
	return a.registries.Repository(repository, granted), nil
}

// await returns what work returns or, when ctx ends first, its error. It is for
// work that cannot be told to end: that is left behind, and ends with the command.
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

// oneReference accepts the one argument of verbs about an artifact.
func oneReference(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s given, expected one: a reference such as ghcr.io/org/app-deploy:v1.0.0", counted(len(args), "argument"))
	}
	return nil
}

// getenv returns a variable of the environment, empty when it is not set.
func (a *app) getenv(name string) string {
	value, _ := a.lookupEnv(name)
	return value
}

// warnf says something on standard error that stops nothing.
func (a *app) warnf(format string, args ...any) {
	a.statusf("warning: "+format, args...)
}

// statusf tells on standard error, and on one line, what was done. Its arguments
// may come from anywhere.
func (a *app) statusf(format string, args ...any) {
	fmt.Fprintln(a.err, printable(fmt.Sprintf(format, args...)))
}

// isTerminal tells whether a person is behind a stream.
func isTerminal(stream any) bool {
	if guarded, ok := stream.(*guard); ok {
		stream = guarded.to
	}
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// output is the flag of verbs whose result can be read by programs.
type output struct{ format string }

// bind adds -o to the flags of a verb.
func (o *output) bind(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "`format` of the result on standard output: text, json or yaml")
	complete(cmd, "output", outputs()...)
}

func outputs() []string { return []string{"text", "json", "yaml"} }

// check refuses what is no format, before any work is done.
func (o *output) check() error {
	return oneOf("output", o.format, outputs())
}

// print writes a result to w: as JSON or YAML where that is asked for, else as
// text writes it.
func (o *output) print(w io.Writer, result any, text func(w io.Writer) error) error {
	encode := encodeJSON
	switch o.format {
	case "json":
	case "yaml":
		encode = encodeYAML
	default:
		return text(w)
	}
	body, err := encode(result)
	if err != nil {
		return err
	}
	_, err = w.Write(body)
	return err
}

// complete offers values for a flag to the shell.
func complete(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	if err != nil {
		panic(err) // there is no such flag: a mistake in this program
	}
}

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
func (errTimeout) Timeout() bool   { return true }
func (errTimeout) Unwrap() error   { return context.DeadlineExceeded }

// fail prints an error as one line and returns the code to exit with.
func (a *app) fail(ctx context.Context, err error) int {
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
	fmt.Fprintf(a.err, "error: %s\n", oneLine(err.Error()))
	return code
}

// oneLine makes what may have come from anywhere fit for a line of a terminal:
// a fault.Line with the lines of the text apart from each other.
func oneLine(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = fault.Line(line); line != "" {
			lines = append(lines, line)
		}
	}
	return fault.Line(strings.Join(lines, "; "))
}
