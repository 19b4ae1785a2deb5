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
	"cmp"
	"fmt"
	"slices"
)

// budget is something that the project promises, and what was measured.
type budget struct {
	What, Allowed, Measured string
	Met                     bool
	// Spent names what took most of the CPU or of the memory, where the budget is one
	// of these and was not met.
	Spent []string `json:",omitempty"`

	scenario string // whose profile can tell
	profile  string // the kind of it
}

// sheet collects budgets of what was measured.
type sheet struct{ all []budget }

func (s *sheet) add(met bool, what, allowed, measured string) {
	s.all = append(s.all, budget{What: what, Allowed: allowed, Measured: measured, Met: met})
}

// profiled adds which profile of the scenario of a row tells why the last budget is
// not met.
func (s *sheet) profiled(r *row, kind string) {
	last := &s.all[len(s.all)-1]
	last.scenario, last.profile = r.Scenario, kind
}

const (
	// aTenthMore is what counts as the same: intervals are jittered, and CPU time
	// is never measured twice alike.
	aTenthMore = 1.1
	// flat is how much more one of many sources may cost than one of few.
	flat        = 1.25
	memoryAbove = 128 << 20
	latencyMS   = 100
)

// budgets compares a report with what is promised. What was not measured has no line.
func budgets(r *report) []budget {
	s := &sheet{}
	s.requests(r)
	s.cpu(r)
	for _, name := range []string{huge.name, hugeLinked.name} {
		if row := r.biggest(name); row != nil {
			above := row.Ours.above()
			s.add(above < memoryAbove, "memory above idle, "+row.Title, "< 128 MiB", fmt.Sprintf("%d MiB", above>>20))
			s.profiled(row, allocations)
		}
	}
	for _, d := range r.Latencies {
		if d.Name == "latency" {
			s.add(d.Ours.Median <= latencyMS, "ImagePolicy change to ExternalArtifact published, 50 KiB", "100 ms median", fmt.Sprintf("%.0f ms", d.Ours.Median))
		}
	}
	s.growth(r)
	return s.all
}

// biggest is the row of a shape with the most artifacts.
func (r *report) biggest(shape string) (found *row) {
	for i, row := range r.Rows {
		if row.Shape == shape && (found == nil || row.Count > found.Count) {
			found = &r.Rows[i]
		}
	}
	return found
}

func (s *sheet) requests(r *report) {
	if row := r.find("small", "wave"); row != nil {
		each := per(total(row.Ours.Requests), row.Count)
		s.add(each <= 2, "registry requests for a new tag", "2", fmt.Sprintf("%.2f", each))
	}
	if rows := r.growth("idle"); len(rows) > 0 {
		row := rows[len(rows)-1]
		each := per(total(row.Ours.Requests), row.Count)
		s.add(each <= aTenthMore, "registry requests for a tag and interval without change", "1", fmt.Sprintf("%.2f", each))
	}
	if row := r.find("policies", "idle"); row != nil {
		n := total(row.Ours.Requests)
		s.add(n == 0, "registry requests when the policy reflects the digest", "0", fmt.Sprint(n))
	}
}

func (s *sheet) cpu(r *report) {
	for _, b := range []struct {
		shape, phase, what, allowed string
		ratio                       float64
	}{
		{small.name, "publish", "CPU for a small artifact", "1/2 of source-controller", 1. / 2},
		{small.name, "wave", "CPU for a new tag of a small artifact", "1/2 of source-controller", 1. / 2},
		{clean.name, "publish", "CPU for a clean artifact of 16 MiB", "1/10 of source-controller", 1. / 10},
		{linked.name, "publish", "CPU for one that is archived again", "1/3 of source-controller", 1. / 3},
		{book.name, "publish", "CPU for a clean artifact of 18 MiB, prose", "1/10 of source-controller", 1. / 10},
		{linkedBook.name, "publish", "CPU for prose that is archived again", "1/3 of source-controller", 1. / 3},
	} {
		for _, row := range r.Rows {
			if row.Shape == b.shape && row.Phase == b.phase && row.Theirs != nil {
				got := row.Ours.CPU / row.Theirs.CPU
				s.add(got <= b.ratio, b.what, b.allowed, fmt.Sprintf("%.2f", got))
				s.profiled(&row, cpuTime)
			}
		}
	}
}

func (s *sheet) growth(r *report) {
	for _, phase := range []string{"publish", "idle"} {
		rows := r.growth(phase)
		if len(rows) < 2 {
			continue
		}
		// The fewest need not be the cheapest: they carry what the process costs anyway.
		of := func(r row) float64 { return r.Ours.CPU / float64(r.Count) }
		smaller, many := rows[:len(rows)-1], rows[len(rows)-1]
		few := slices.MinFunc(smaller, func(a, b row) int { return cmp.Compare(of(a), of(b)) })
		got := of(many) / of(few)
		s.add(got <= flat, fmt.Sprintf("CPU of a source, %s, with %d sources beside that with %d", phase, many.Sources, few.Sources),
			"flat", fmt.Sprintf("x %.2f", got))
		if phase == "publish" {
			s.profiled(&many, cpuTime)
		} else {
			s.profiled(&many, idleTime)
			writes := total(many.Ours.Writes)
			s.add(writes == 0, fmt.Sprintf("API writes for %d sources in an interval without change", many.Sources), "0", fmt.Sprint(writes))
		}
	}
}

func per(n, count int) float64 { return float64(n) / float64(max(count, 1)) }
