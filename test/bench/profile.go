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
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// profile runs a scenario once more with the profilers of the contenders on, if
// that is asked for.
func (b *bench) profile(ctx context.Context, s scenario) error {
	if !b.options.profile {
		return nil
	}
	for i, c := range contenders() {
		if s.alone && i != 0 {
			continue
		}
		if _, err := b.turn(ctx, s, c, true); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	return nil
}

// The profiles that are kept.
const (
	cpuTime     = "cpu"
	idleTime    = "idle" // CPU, too, while nothing changes
	allocations = "allocs"
)

// explain runs the scenarios of budgets of CPU and memory that were not met once
// more, with the profiler of image-source-controller on, and says what it found.
func (b *bench) explain(ctx context.Context, scenarios []scenario, found []budget) error {
	for i, missed := range found {
		s := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == missed.scenario })
		if missed.Met || s < 0 {
			continue
		}
		b.say("%s: %s of %s: asking the profiler why", missed.What, missed.Measured, missed.Allowed)
		if _, err := b.turn(ctx, scenarios[s], ours{}, true); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		var err error
		if found[i].Spent, err = top(ctx, b.profileOf(missed.scenario, ours{}, missed.profile)); err != nil {
			return err
		}
	}
	return nil
}

// profileOf is the file of a profile.
func (b *bench) profileOf(scenario string, c contender, kind string) string {
	return filepath.Join(b.options.out, "profiles", fmt.Sprintf("%s-%s-%s.pprof", scenario, c, kind))
}

// top returns the functions in which most of the time or memory of a profile was
// spent, each with its share.
func top(ctx context.Context, profile string) ([]string, error) {
	const functions = "5"
	text, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount="+functions, profile).Output()
	if err != nil {
		return nil, fmt.Errorf("read the profile %s: %w", profile, err)
	}
	return topOf(string(text)), nil
}

// topOf reads what pprof prints: a head, the names of the columns, and lines of
// flat, flat%, sum%, cum, cum% and the function.
func topOf(text string) (spent []string) {
	_, table, _ := strings.Cut(text, "flat%")
	_, table, _ = strings.Cut(table, "\n")
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		const share, function = 1, 5
		if len(fields) > function {
			spent = append(spent, fields[share]+" "+path.Base(fields[function]))
		}
	}
	return spent
}

// working is long enough for what is worth a profile; what is done earlier adds
// no samples.
const working = time.Minute

// record profiles the CPU of a process for some time from now on, if this lap is
// profiled. A process has one such profile at a time.
func (l *lap) record(ctx context.Context, kind string, d time.Duration) {
	if l.profiled == "" {
		return
	}
	l.recording.Wait()
	l.recording.Go(func() {
		l.keep(ctx, fmt.Sprintf("profile?seconds=%d", int(d.Seconds())), l.profileOf(l.profiled, l.contender, kind))
	})
}

// recorded keeps a profile of the memory, and waits for that of the CPU.
func (l *lap) recorded(ctx context.Context) {
	l.keep(ctx, allocations, l.profileOf(l.profiled, l.contender, allocations))
	l.recording.Wait()
}

// keep writes what a profiler says to a file. A profile that is missing does not
// spoil a measurement.
func (l *lap) keep(ctx context.Context, what, path string) {
	err := func() error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.process.metrics+"/debug/pprof/"+what, http.NoBody)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the profiler answers %s", response.Status)
		}
		file, err := os.Create(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(file, response.Body)
		return err
	}()
	if err != nil {
		l.say("no profile %s: %v", path, err)
	}
}
