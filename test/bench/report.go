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
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/image-source/image-source-controller/test/controlplane"
)

// report is what a run found.
type report struct {
	// Versions are those of the controllers, by name.
	Versions   map[string]string
	Machine    machine
	Concurrent int
	Full       bool
	Started    time.Time
	Budgets    []budget
	Rows       []row
	Latencies  []delay
	Limits     []limit
}

// machine is where it was found, in general words.
type machine struct {
	Cores     int
	Processor string
	Memory    int64 // bytes
	Kernel    string
	Go        string
}

func (m machine) String() string {
	return fmt.Sprintf("%d cores (%s), %d GiB of memory, Linux %s, %s", m.Cores, m.Processor, m.Memory>>30, m.Kernel, m.Go)
}

// row is a phase of a scenario, with the median of all rounds.
type row struct {
	Scenario, Phase, Title string
	// Count is what the costs are divided by, Sources the number in a row of
	// growth, Shape that of the artifacts.
	Count, Sources int
	Shape          string
	Rounds         int
	// Ratios are of ours to theirs, by the names of what is compared.
	Ratios       map[string]float64 `json:",omitempty"`
	Ours, Theirs *usage             // Theirs is nil for what source-controller cannot do
}

// compared is what rows have ratios of, in the order of the tables.
func compared() []string {
	return []string{"CPU", "wall time", "peak memory", "registry requests", "API writes"}
}

// ratios compares what was used. Nothing is compared with nothing.
func ratios(ours, theirs *usage) map[string]float64 {
	if theirs == nil {
		return nil
	}
	all := map[string]float64{}
	for name, of := range map[string]func(*usage) float64{
		"CPU":               func(u *usage) float64 { return u.CPU },
		"wall time":         func(u *usage) float64 { return u.Wall },
		"peak memory":       func(u *usage) float64 { return float64(u.Peak) },
		"registry requests": func(u *usage) float64 { return float64(total(u.Requests)) },
		"API writes":        func(u *usage) float64 { return float64(total(u.Writes)) },
	} {
		if of(theirs) > 0 {
			all[name] = of(ours) / of(theirs)
		}
	}
	return all
}

func newReport(ctx context.Context, o options) (*report, error) {
	versions, err := versions(ctx)
	return &report{Versions: versions, Machine: thisMachine(), Concurrent: o.concurrent, Full: o.full, Started: time.Now().UTC().Truncate(time.Second)}, err
}

// versions tells what is compared: of theirs the version of the module that the
// program was built from, of ours what git calls the sources.
func versions(ctx context.Context) (map[string]string, error) {
	program, err := controlplane.Executable(ctx, controlplane.SourceController)
	if err != nil {
		return nil, err
	}
	built, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, err
	}
	known := map[string]string{theirs{}.String(): built.Main.Version}
	// A copy of the sources without their history is measured all the same.
	if name, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output(); err == nil {
		known[ours{}.String()] = strings.TrimSpace(string(name))
	}
	return known, nil
}

func newRow(scenario string, p phase, took [2][]*usage) row {
	r := row{
		Scenario: scenario, Phase: p.name, Title: p.title, Count: p.count, Sources: p.sources, Shape: p.shape,
		Rounds: len(took[0]), Ours: middle(took[0]), Theirs: middle(took[1]),
	}
	r.Ratios = ratios(r.Ours, r.Theirs)
	return r
}

// middle is the usage of the round with the median of CPU, with the medians of
// wall time and of memory.
func middle(rounds []*usage) *usage {
	if len(rounds) == 0 {
		return nil
	}
	pick := func(of func(*usage) float64) float64 {
		var values []float64
		for _, u := range rounds {
			values = append(values, of(u))
		}
		return median(values)
	}
	m := &usage{
		Wall:   pick(func(u *usage) float64 { return u.Wall }),
		CPU:    pick(func(u *usage) float64 { return u.CPU }),
		Before: int64(pick(func(u *usage) float64 { return float64(u.Before) })),
		Peak:   int64(pick(func(u *usage) float64 { return float64(u.Peak) })),
		After:  int64(pick(func(u *usage) float64 { return float64(u.After) })),
		Events: int(pick(func(u *usage) float64 { return float64(u.Events) })),
	}
	for _, u := range rounds {
		if u.CPU == m.CPU {
			m.Requests, m.Writes = u.Requests, u.Writes
		}
	}
	return m
}

// find returns a row; nil if that was not measured.
func (r *report) find(scenario, phase string) *row {
	for i := range r.Rows {
		if r.Rows[i].Scenario == scenario && r.Rows[i].Phase == phase {
			return &r.Rows[i]
		}
	}
	return nil
}

// growth returns the rows of a phase for numbers of sources that grow.
func (r *report) growth(phase string) (rows []row) {
	for _, row := range r.Rows {
		if row.Sources > 0 && row.Phase == phase {
			rows = append(rows, row)
		}
	}
	return rows
}

// write writes a report as JSON and as Markdown.
func (r *report) write(folder, text string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "bench.json"), append(content, '\n'), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "bench.md"), []byte(text), 0o600)
}

// The lines of a document between which the tables of a run stand.
const (
	tablesBegin = "<!-- begin: tables of make bench -->"
	tablesEnd   = "<!-- end: tables of make bench -->"
)

// replaceTables replaces what a document has between the markers.
func replaceTables(path, text string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(content), tablesBegin)
	_, after, ends := strings.Cut(rest, tablesEnd)
	if !begins || !ends {
		return fmt.Errorf("%s has no lines %q and %q", path, tablesBegin, tablesEnd)
	}
	return os.WriteFile(path, []byte(before+tablesBegin+"\n\n"+strings.TrimSpace(text)+"\n\n"+tablesEnd+after), 0o644)
}

// thisMachine describes this machine as far as it matters.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Processor: runtime.GOARCH, Memory: installedMemory(), Kernel: kernelVersion(), Go: runtime.Version()}
	if model := processor(); model != "" {
		m.Processor += ", " + model
	}
	return m
}

// processor is the model of the processor; empty where nobody says.
func processor() string {
	content, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		if name, value, found := strings.Cut(lines.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
