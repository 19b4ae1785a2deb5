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
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// heartbeat is how often a long build says that it is alive.
const heartbeat = 20 * time.Second

// BuildOptions configure [Build].
type BuildOptions struct {
	// Dir is where the programs go; bin/controlplane of the repository if empty.
	Dir string
	// Programs names what to build; everything that a control plane runs if
	// empty.
	Programs []string
	// Progress receives a line for every step; nothing is written when nothing
	// has to be built.
	Progress io.Writer
}

// Build builds the programs of the control plane that are missing or not up to
// date. It is safe to call from several processes at once: one builds, the
// others wait. When ctx ends, so does the build, and no partial program remains.
func Build(ctx context.Context, options BuildOptions) error {
	selected, err := selectRecipes(options.Programs)
	if err != nil {
		return err
	}
	places, err := locate(options.Dir)
	if err != nil {
		return err
	}
	b, err := newBuilder(ctx, places, options.Progress)
	if err != nil {
		return err
	}
	defer b.close()
	return b.ensure(ctx, selected)
}

// Executable builds a program if it is missing or not up to date, and returns
// its path. Progress goes to standard error.
func Executable(ctx context.Context, program string) (string, error) {
	dir, err := dirOrDefault("")
	if err != nil {
		return "", err
	}
	err = Build(ctx, BuildOptions{Dir: dir, Programs: []string{program}, Progress: os.Stderr})
	return filepath.Join(dir, program), err
}

// Built returns the path of a program, and false if it is missing or not up to
// date. It builds nothing.
func Built(ctx context.Context, program string) (path string, built bool, err error) {
	selected, err := selectRecipes([]string{program})
	if err != nil {
		return "", false, err
	}
	places, err := locate("")
	if err != nil {
		return "", false, err
	}
	b, err := newBuilder(ctx, places, nil)
	if err != nil {
		return "", false, err
	}
	defer b.close()
	built, err = b.isFresh(selected[0])
	return b.binary(selected[0]), built, err
}

// places are the directories of a build.
type places struct {
	programs string // the pinned modules
	target   string // the programs built from them
}

// locate returns the places of the repository; the target is target unless that
// is empty.
func locate(target string) (places, error) {
	root, err := Root()
	if err != nil {
		return places{}, err
	}
	target, err = dirOrDefault(target)
	return places{programs: filepath.Join(root, "test", "controlplane", "programs"), target: target}, err
}

// builder builds recipes.
type builder struct {
	places
	toolchain string
	progress  io.Writer
	launch    *launcher
}

func newBuilder(ctx context.Context, places places, progress io.Writer) (*builder, error) {
	for _, dir := range []string{"stamps", "crds"} {
		if err := os.MkdirAll(filepath.Join(places.target, dir), 0o755); err != nil {
			return nil, fmt.Errorf("preparing the directory of the control plane: %w", err)
		}
	}
	b := &builder{places: places, progress: progress, launch: newLauncher()}
	var err error
	if b.toolchain, err = b.goOutput(ctx, places.programs, "env", "GOVERSION", "GOOS", "GOARCH"); err != nil {
		b.close()
		return nil, fmt.Errorf("asking for the version of Go: %w", err)
	}
	return b, nil
}

func (b *builder) close() { b.launch.close() }

// ensure builds those of the recipes that are stale, one after the other: the go
// command uses all processors by itself. Only the first look goes without the
// lock.
func (b *builder) ensure(ctx context.Context, recipes []recipe) error {
	if stale, err := b.stale(recipes); err != nil || len(stale) == 0 {
		return err
	}
	unlock, err := waitForLock(ctx, filepath.Join(b.target, "build.lock"), func() {
		b.say("waiting for another process that is building the control plane")
	})
	if err != nil {
		return fmt.Errorf("building the control plane: %w", err)
	}
	defer unlock()

	stale, err := b.stale(recipes)
	if err != nil {
		return err
	}
	for i, r := range stale {
		if err := b.build(ctx, r, fmt.Sprintf("%d/%d", i+1, len(stale))); err != nil {
			return fmt.Errorf("building %s: %w", r.name, err)
		}
	}
	return nil
}

// stale returns the recipes whose program is missing or built from other inputs.
func (b *builder) stale(recipes []recipe) ([]recipe, error) {
	var stale []recipe
	for _, r := range recipes {
		fresh, err := b.isFresh(r)
		if err != nil {
			return nil, fmt.Errorf("checking whether %s is up to date: %w", r.name, err)
		}
		if !fresh {
			stale = append(stale, r)
		}
	}
	return stale, nil
}

func (b *builder) isFresh(r recipe) (bool, error) {
	if _, err := os.Stat(b.binary(r)); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	want, err := r.stamp(b.programs, b.toolchain)
	if err != nil {
		return false, err
	}
	got, err := os.ReadFile(b.stampFile(r))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return string(got) == want, err
}

// build builds one program. The stamp is written last: an interrupted build is
// a stale one.
func (b *builder) build(ctx context.Context, r recipe, position string) error {
	stamp, err := r.stamp(b.programs, b.toolchain)
	if err != nil {
		return err
	}
	b.say("building %s (%s), about %s on two cores with a cold build cache", r.name, position, roughly(r.about))
	started := time.Now()
	stopHeartbeat := b.startHeartbeat(r.name, started)
	err = b.compile(ctx, r)
	stopHeartbeat()
	if err != nil {
		return err
	}
	if err := b.copyCRDs(ctx, r); err != nil {
		return fmt.Errorf("copying CustomResourceDefinitions: %w", err)
	}
	if err := os.WriteFile(b.stampFile(r), []byte(stamp), 0o644); err != nil {
		return err
	}
	b.say("built %s in %s", r.name, time.Since(started).Round(time.Second))
	return nil
}

// compile builds next to the final place and renames, so that a program under
// its name is always whole.
func (b *builder) compile(ctx context.Context, r recipe) error {
	partial := b.binary(r) + ".partial"
	defer os.Remove(partial)
	_, err := b.goOutput(ctx, filepath.Join(b.programs, r.module),
		"build", "-trimpath", "-buildvcs=false", "-ldflags", strings.TrimSpace("-s -w "+r.ldflags), "-o", partial, r.pkg)
	if err != nil {
		return err
	}
	return os.Rename(partial, b.binary(r))
}

// copyCRDs puts the CustomResourceDefinitions that r needs into crds/NAME.
func (b *builder) copyCRDs(ctx context.Context, r recipe) error {
	if len(r.crds) == 0 {
		return nil
	}
	target := filepath.Join(b.target, "crds", r.name)
	partial := target + ".partial"
	if err := errors.Join(os.RemoveAll(partial), os.Mkdir(partial, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(partial)
	for _, module := range r.crds {
		source, err := b.crdSource(ctx, module)
		if err != nil {
			return err
		}
		if err := copyYAML(source, partial); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(target), os.Rename(partial, target))
}

// crdSource returns the directory of CustomResourceDefinitions in the Go module
// of a Flux controller, at the version that programs/ pins.
func (b *builder) crdSource(ctx context.Context, controller string) (string, error) {
	output, err := b.goOutput(ctx, filepath.Join(b.programs, controller), "mod", "download", "-json", fluxModule(controller))
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(output), &module); err != nil {
		return "", fmt.Errorf("reading what go mod download says of %s: %w", controller, err)
	}
	return filepath.Join(module.Dir, "config", "crd", "bases"), nil
}

// goOutput runs the go command and returns its standard output. The error of a
// failing command holds what it printed.
func (b *builder) goOutput(ctx context.Context, dir string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := b.launch.runToEnd(ctx, cmd); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return "", fmt.Errorf("go %s in %s: %w\n%s%s", args[0], dir, err, stdout.Bytes(), stderr.Bytes())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (b *builder) startHeartbeat(name string, started time.Time) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(heartbeat)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				b.say("still building %s, %s so far", name, time.Since(started).Round(time.Second))
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

func (b *builder) say(format string, args ...any) {
	say(b.progress, format, args...)
}

func (b *builder) binary(r recipe) string    { return filepath.Join(b.target, r.name) }
func (b *builder) stampFile(r recipe) string { return filepath.Join(b.target, "stamps", r.name) }

// say writes one line of progress, if anybody wants it.
func say(w io.Writer, format string, args ...any) {
	if w != nil {
		fmt.Fprintf(w, format+"\n", args...)
	}
}

// roughly prints a duration as people say it.
func roughly(d time.Duration) string {
	switch minutes := int(d.Round(time.Minute) / time.Minute); {
	case d < time.Minute:
		return fmt.Sprintf("%d seconds", int(d/time.Second))
	case minutes == 1:
		return "1 minute"
	default:
		return fmt.Sprintf("%d minutes", minutes)
	}
}

func copyYAML(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("no YAML files in %s", from)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(file)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
