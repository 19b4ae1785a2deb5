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
	"fmt"
	"maps"
	"slices"
	"strings"
)

// page is Markdown that grows.
type page struct{ strings.Builder }

func (p *page) say(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// table begins a table. A column whose head begins with > holds numbers.
func (p *page) table(heads ...string) {
	line := make([]string, len(heads))
	for i, head := range heads {
		line[i] = "---"
		if number, ok := strings.CutPrefix(head, ">"); ok {
			heads[i], line[i] = number, "---:"
		}
	}
	p.say("")
	p.cells(heads...)
	p.cells(line...)
}

func (p *page) cells(cells ...string) { p.say("| %s |", strings.Join(cells, " | ")) }

// markdown is the report for people, ratios first.
func (r *report) markdown() string {
	p := &page{}
	p.say("Measured on %s with %s, %d reconciles at once in either controller: %s.", r.Started.Format("2006-01-02"), r.Machine, r.Concurrent, r.contest())
	r.tellRatios(p)
	r.tellBudgets(p)
	r.tellCosts(p)
	r.tellGrowth(p)
	r.tellLatencies(p)
	r.tellAlone(p)
	r.tellLimits(p)
	return p.String()
}

// contest names what is compared.
func (r *report) contest() string {
	var sides []string
	for _, c := range contenders() {
		sides = append(sides, strings.TrimSpace(c.String()+" "+r.Versions[c.String()]))
	}
	return strings.Join(sides, " and ")
}

func (r *report) tellBudgets(p *page) {
	if len(r.Budgets) == 0 {
		return
	}
	p.say("\n### Budgets")
	p.table("what", "allowed", ">measured", "")
	for _, b := range r.Budgets {
		verdict := "met"
		if !b.Met {
			verdict = strings.Join(append([]string{"**not met**"}, b.Spent...), "<br>")
		}
		p.cells(b.What, b.Allowed, b.Measured, verdict)
	}
	if !r.Full {
		p.say("\nNot measured: 10 artifacts of 500 MiB at once, and 5,000 sources; `-full` adds them.")
	}
}

// shaped are the rows that have two sides and are not about growth.
func (r *report) shaped() (rows []row) {
	for _, row := range r.Rows {
		if row.Theirs != nil && row.Sources == 0 {
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *report) tellRatios(p *page) {
	rows := r.shaped()
	for _, phase := range []string{"publish", "idle"} { // of the most sources
		if grown := r.growth(phase); len(grown) > 0 && grown[0].Theirs != nil {
			rows = append(rows, grown[len(grown)-1])
		}
	}
	if len(rows) == 0 {
		return
	}
	heads := []string{"what"}
	for _, name := range compared() {
		heads = append(heads, ">"+name)
	}
	p.say("\n### Ratios, image-source-controller to source-controller")
	p.table(heads...)
	for _, row := range rows {
		cells := []string{row.Title}
		for _, name := range compared() {
			cell := "-"
			if ratio, ok := row.Ratios[name]; ok {
				cell = fmt.Sprintf("%.2f", ratio)
			}
			cells = append(cells, cell)
		}
		p.cells(cells...)
	}
}

func (r *report) tellCosts(p *page) {
	rows := r.shaped()
	if len(rows) == 0 {
		return
	}
	p.say("\n### What one artifact costs, image-source-controller / source-controller")
	p.table("what", ">CPU, ms", ">physical limit, ms", ">registry requests", ">API writes", ">events", ">wall time of all, s", ">idle memory, MiB", ">peak memory, MiB")
	for _, row := range rows {
		o, t := row.Ours, row.Theirs
		count := float64(row.Count)
		p.cells(row.Title,
			pair("%.1f", 1000*o.CPU/count, 1000*t.CPU/count), r.limitOf(row.Shape),
			pair("%.2f", per(total(o.Requests), row.Count), per(total(t.Requests), row.Count)),
			pair("%.2f", per(total(o.Writes), row.Count), per(total(t.Writes), row.Count)),
			pair("%.2f", per(o.Events, row.Count), per(t.Events, row.Count)),
			pair("%.2f", o.Wall, t.Wall),
			pair("%.0f", mebibytes(o.Before), mebibytes(t.Before)), pair("%.0f", mebibytes(o.Peak), mebibytes(t.Peak)))
	}
	p.say("\nRequests of each kind:")
	p.table("what", "image-source-controller", "source-controller")
	for _, row := range rows {
		p.cells(row.Title, kinds(row.Ours.Requests, row.Count), kinds(row.Theirs.Requests, row.Count))
	}
	p.say("\nWrites of each kind:")
	p.table("what", "image-source-controller", "source-controller")
	for _, row := range rows {
		p.cells(row.Title, kinds(row.Ours.Writes, row.Count), kinds(row.Theirs.Writes, row.Count))
	}
}

// limitOf is what an artifact of a shape takes at least.
func (r *report) limitOf(shape string) string {
	for _, l := range r.Limits {
		if l.Shape != shape {
			continue
		}
		floor := l.Fetch + l.Walk
		if l.Linked {
			floor = l.Fetch + l.Again // which unpacks
		}
		return fmt.Sprintf("%.1f", 1000*floor)
	}
	return "-"
}

func (r *report) tellGrowth(p *page) {
	published, idle := r.growth("publish"), r.growth("idle")
	if len(published) == 0 || len(published) != len(idle) {
		return
	}
	p.say("\n### How costs grow, image-source-controller / source-controller")
	p.table(">sources", ">CPU to publish one, ms", ">requests to publish one", ">API writes to publish one", ">wall time of all, s",
		">memory for one, KiB", ">peak memory, MiB", ">CPU of one in an interval, ms", ">requests of one in an interval", ">API writes of all in an interval")
	for i, row := range published {
		o, t, oi, ti := row.Ours, row.Theirs, idle[i].Ours, idle[i].Theirs
		count := float64(row.Count)
		p.cells(fmt.Sprint(row.Sources),
			pair("%.1f", 1000*o.CPU/count, 1000*t.CPU/count),
			pair("%.2f", per(total(o.Requests), row.Count), per(total(t.Requests), row.Count)),
			pair("%.2f", per(total(o.Writes), row.Count), per(total(t.Writes), row.Count)),
			pair("%.1f", o.Wall, t.Wall),
			pair("%.0f", float64(oi.After-o.Before)/1024/count, float64(ti.After-t.Before)/1024/count),
			pair("%.0f", mebibytes(o.Peak), mebibytes(t.Peak)),
			pair("%.2f", 1000*oi.CPU/count, 1000*ti.CPU/count),
			pair("%.2f", per(total(oi.Requests), row.Count), per(total(ti.Requests), row.Count)),
			pair("%.0f", float64(total(oi.Writes)), float64(total(ti.Writes))))
	}
}

func (r *report) tellLatencies(p *page) {
	if len(r.Latencies) == 0 {
		return
	}
	p.say("\n### How long users wait")
	p.table("what", ">times", ">image-source-controller, median and 90 %, ms", ">source-controller, median and 90 %, ms", ">ratio of medians")
	for _, d := range r.Latencies {
		p.cells(d.Title, fmt.Sprint(d.Times), pair("%.0f", d.Ours.Median, d.Ours.P90), pair("%.0f", d.Theirs.Median, d.Theirs.P90), fmt.Sprintf("%.2f", d.Ours.Median/d.Theirs.Median))
	}
}

// tellAlone tells of what source-controller has no match for.
func (r *report) tellAlone(p *page) {
	begun := false
	for _, row := range r.Rows {
		if row.Theirs != nil {
			continue
		}
		if !begun {
			p.say("\n### What only image-source-controller does")
			p.table("what", ">CPU of one, ms", "registry requests of one", "API writes of one")
			begun = true
		}
		p.cells(row.Title, fmt.Sprintf("%.1f", 1000*row.Ours.CPU/float64(row.Count)), kinds(row.Ours.Requests, row.Count), kinds(row.Ours.Writes, row.Count))
	}
}

func (r *report) tellLimits(p *page) {
	if len(r.Limits) == 0 {
		return
	}
	p.say("\n### Physical limits, CPU of one artifact in ms")
	p.table("layer", ">KiB", ">fetch, hash, write and sync once", ">unpack and read", ">compress anew")
	for _, l := range r.Limits {
		p.cells(l.Shape, fmt.Sprint(l.Bytes>>10), fmt.Sprintf("%.2f", 1000*l.Fetch), fmt.Sprintf("%.2f", 1000*l.Walk), fmt.Sprintf("%.2f", 1000*max(0, l.Again-l.Walk)))
	}
}

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// pair formats ours and theirs alike.
func pair(format string, ours, theirs float64) string {
	return fmt.Sprintf(format+" / "+format, ours, theirs)
}

// kinds tells how many of each kind there were for each of count.
func kinds(counts map[string]int, count int) string {
	if len(counts) == 0 {
		return "none"
	}
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%.2f %s", per(counts[kind], count), kind))
	}
	return strings.Join(parts, ", ")
}
