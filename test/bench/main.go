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

// Command bench measures image-source-controller and source-controller side by
// side: on one control plane, from one registry, with the same artifacts and the
// same concurrency, one after the other and each in a process of its own. It
// says by how much they differ, whether the project's budgets are met, and what
// the machine needs at least. What it finds depends on the machine; ratios of
// one run are what counts. With -base it compares two builds of
// image-source-controller instead.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"github.com/image-source/image-source-controller/test/controlplane"
)

// options are what the flags say.
type options struct {
	// concurrent is how many reconciles each controller runs at once.
	concurrent int
	// rounds is how often what is short is measured; the median counts.
	rounds int
	// only selects scenarios by name; nil selects all.
	only *regexp.Regexp
	// full adds what takes long, or much disk.
	full bool
	// out is the folder of the results.
	out string
	// profile adds a round with the profiler on, which is not counted.
	profile bool
	// explain has the profiler say why a budget of CPU is not met.
	explain bool
	// updateDocs puts the tables into the documentation.
	updateDocs bool
	// base is another build of this controller to compare with, instead of
	// source-controller: a git revision, the path of a program, or self.
	base string
}

func main() {
	var o options
	flag.IntVar(&o.concurrent, "concurrent", 10, "reconciles at once, in each of the controllers")
	flag.IntVar(&o.rounds, "rounds", 0, "how often what is short is measured; the median counts; 3 if 0, with -base 8")
	flag.Func("only", "a regular expression that selects scenarios by name", func(s string) (err error) {
		o.only, err = regexp.Compile(s)
		return err
	})
	flag.BoolVar(&o.full, "full", false, "add 500 MiB artifacts, which take 20 GB of disk, and 5,000 sources")
	flag.StringVar(&o.out, "out", "", "the folder of the results; bin/bench if empty")
	flag.BoolVar(&o.profile, "profile", false, "profile both controllers in a further round")
	flag.BoolVar(&o.explain, "explain", true, "profile what misses a budget of CPU or memory, and name what takes most")
	flag.BoolVar(&o.updateDocs, "update-docs", false, "replace the tables in "+documentation)
	flag.StringVar(&o.base, "base", "", "compare with another build of this controller, and fail if this one is worse: a git revision, the path of a program, or "+self+" for this build itself")
	flag.Parse()
	if err := measure(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// documentation has the tables of a run between two markers.
const documentation = "docs/benchmarks.md"

// measure measures what the options ask for, and writes the results.
func measure(o options) error {
	ctx, stop := controlplane.Interruptible(context.Background())
	defer stop()
	root, err := controlplane.Root()
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join(root, "bin", "bench")
	}
	if o.rounds == 0 {
		o.rounds = 3
		if o.base != "" {
			o.rounds = 8
		}
	}
	if o.rounds < 1 || o.concurrent < 1 {
		return errors.New("-rounds and -concurrent must be at least 1")
	}
	if o.base != "" {
		if o.full || o.profile || o.updateDocs {
			return errors.New("-base measures scenarios of its own: expected none of -full, -profile and -update-docs")
		}
		return compare(ctx, root, o)
	}
	if o.updateDocs && o.only != nil {
		return errors.New("-update-docs replaces all tables: it needs all scenarios, not those of -only")
	}
	report, failed := run(ctx, o, plan(o))
	if report == nil || len(report.Rows)+len(report.Latencies) == 0 {
		return failed
	}
	text := report.markdown()
	fmt.Println(text) // what was measured before a failure is worth reading
	if err := report.write(o.out, text); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	if !o.updateDocs {
		return nil
	}
	return replaceTables(filepath.Join(root, documentation), text)
}
