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
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// judgedRounds is how many rounds benchstat needs to tell a difference from noise.
const judgedRounds = 4

// unit is what is measured in a column of Go's benchmark format.
type unit struct {
	name string
	of   func(u *usage, count float64) float64
	// judged is set if an increase of more than the share allowed is a failure.
	judged  bool
	allowed float64
}

func units() []unit {
	return []unit{
		{name: "cpu-ms/artifact", judged: true, allowed: 0.05, of: func(u *usage, count float64) float64 { return 1000 * u.CPU / count }},
		{name: "requests/artifact", judged: true, of: func(u *usage, count float64) float64 { return float64(total(u.Requests)) / count }},
		{name: "writes/artifact", judged: true, of: func(u *usage, count float64) float64 { return float64(total(u.Writes)) / count }},
		{name: "events/artifact", judged: true, of: func(u *usage, count float64) float64 { return float64(u.Events) / count }},
		{name: "wall-ms/artifact", of: func(u *usage, count float64) float64 { return 1000 * u.Wall / count }},
		{name: "peak-RSS-bytes", of: func(u *usage, _ float64) float64 { return float64(u.Peak) }},
	}
}

// unitLines tell benchstat about the units.
func unitLines() string {
	var lines strings.Builder
	for _, unit := range units() {
		fmt.Fprintf(&lines, "Unit %s better=lower\n", unit.name)
	}
	return lines.String()
}

// resultLine is what a phase took, in Go's benchmark format. While nothing happens, there is no
// wall time.
func resultLine(scenario string, p phase, u *usage) string {
	line := &strings.Builder{}
	fmt.Fprintf(line, "Benchmark%s%s/%s 1", strings.ToUpper(scenario[:1]), scenario[1:], p.name)
	for _, unit := range units() {
		if value := unit.of(u, float64(p.count)); unit.judged || value > 0 {
			fmt.Fprintf(line, " %.6g %s", value, unit.name)
		}
	}
	return line.String() + "\n"
}

// difference is a row of a table of benchstat.
type difference struct {
	benchmark, unit  string
	base, again, now float64 // medians
	significant      bool    // between base and now
}

// readDifferences reads what benchstat prints as CSV for three files. A table begins
// with the names of the files and with the unit. It ends with the geometric mean.
func readDifferences(table string) (all []difference, err error) {
	const name, base, again, now, change, columns = 0, 1, 3, 7, 9, 11
	reader := csv.NewReader(strings.NewReader(table))
	reader.FieldsPerRecord = -1
	records, err := reader.ReadAll()
	if err != nil {
		return nil, err
	}
	unit := ""
	for _, record := range records {
		switch {
		case len(record) != columns:
			return nil, fmt.Errorf("benchstat prints %d columns, expected %d: %q", len(record), columns, record)
		case record[name] == "":
			unit = record[base]
			continue
		case record[name] == "geomean":
			continue
		}
		d := difference{benchmark: record[name], unit: unit, significant: record[change] != "~"}
		for column, median := range map[int]*float64{base: &d.base, again: &d.again, now: &d.now} {
			if *median, err = strconv.ParseFloat(record[column], 64); err != nil {
				return nil, fmt.Errorf("benchstat prints no median in column %d of %q: %w", column+1, record, err)
			}
		}
		all = append(all, d)
	}
	return all, nil
}

// judge says what is wrong with a difference, nothing if it is allowed. Counts are always
// judged: a retry in the base must not hide a request more. With a share allowed, nothing can
// be said where the base differs from itself by more than this share.
func (u unit) judge(d difference) (worse bool, remark string) {
	noise := math.Abs(d.again/d.base - 1)
	switch {
	case !u.judged:
		return false, ""
	case u.allowed > 0 && noise > u.allowed:
		return false, fmt.Sprintf("not judged: %s, %s: the base differs from itself by %.1f %%, more than %.0f %%", d.benchmark, u.name, 100*noise, 100*u.allowed)
	case d.significant && d.now > d.base*(1+u.allowed):
		return true, fmt.Sprintf("worse: %s, %s: %.6g, of the base %.6g, allowed are %.0f %% more", d.benchmark, u.name, d.now, d.base, 100*u.allowed)
	}
	return false, ""
}

// verdict writes what is worse than allowed, and what is not judged. It fails if
// anything is worse.
func verdict(w io.Writer, table string) error {
	found, err := readDifferences(table)
	if err != nil {
		return err
	}
	bad := 0
	for _, unit := range units() {
		for _, d := range found {
			if d.unit != unit.name {
				continue
			}
			worse, remark := unit.judge(d)
			if worse {
				bad++
			}
			if remark != "" {
				fmt.Fprintln(w, remark)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d results are worse than allowed", bad, len(found))
	}
	if len(found) == 0 {
		return errors.New("benchstat prints no results")
	}
	fmt.Fprintln(w, "no result is worse than allowed")
	return nil
}
