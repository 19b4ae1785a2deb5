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
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestResultsAreWrittenInGosBenchmarkFormat(t *testing.T) {
	g := NewWithT(t)
	p := phase{name: "publish", count: 4}
	u := &usage{CPU: 0.05, Wall: 1, Peak: 1 << 20, Events: 8, Requests: map[string]int{"GET blob": 4, "GET manifest": 6}, Writes: map[string]int{"POST externalartifacts": 4}}
	g.Expect(resultLine("grow-4", p, u)).To(Equal(
		"BenchmarkGrow-4/publish 1 12.5 cpu-ms/artifact 2.5 requests/artifact 1 writes/artifact 2 events/artifact 250 wall-ms/artifact 1.04858e+06 peak-RSS-bytes\n"))
	g.Expect(resultLine("policies", phase{name: "idle", count: 1}, &usage{Peak: 1})).To(Equal(
		"BenchmarkPolicies/idle 1 0 cpu-ms/artifact 0 requests/artifact 0 writes/artifact 0 events/artifact 1 peak-RSS-bytes\n"), "no request is a result, no wall time is none")
}

func TestBenchstatsTablesAreJudged(t *testing.T) {
	const (
		cpu      = ",base,,again,,,,new,,,\n,cpu-ms/artifact,CI,cpu-ms/artifact,CI,vs base,P,cpu-ms/artifact,CI,vs base,P\n"
		requests = ",base,,again,,,,new,,,\n,requests/artifact,CI,requests/artifact,CI,vs base,P,requests/artifact,CI,vs base,P\n"
		memory   = ",base,,again,,,,new,,,\n,peak-RSS-bytes,CI,peak-RSS-bytes,CI,vs base,P,peak-RSS-bytes,CI,vs base,P\n"
		fine     = "no result is worse than allowed\n"
	)
	for name, test := range map[string]struct {
		table  string
		output string
		fails  string
	}{
		"CPU a little higher": {
			table:  cpu + "Small/publish,10,1%,10.1,1%,~,p=0.400 n=8,10.4,1%,+4.00%,p=0.000 n=8\ngeomean,10,,10.1,,+1.00%,,20,,+100.00%,\n",
			output: fine,
		},
		"CPU higher": {
			table:  cpu + "Small/publish,10,1%,10.1,1%,~,p=0.400 n=8,10.6,1%,+6.00%,p=0.010 n=8\n",
			output: "worse: Small/publish, cpu-ms/artifact: 10.6, of the base 10, allowed are 5 % more\n",
			fails:  "1 of 1 results are worse than allowed",
		},
		"CPU higher by chance": {
			table:  cpu + "Small/publish,10,9%,10.1,9%,~,p=0.400 n=8,10.6,9%,~,p=0.130 n=8\n",
			output: fine,
		},
		"CPU lower": {
			table:  cpu + "Small/publish,10,1%,10.1,1%,~,p=0.400 n=8,5,1%,-50.00%,p=0.000 n=8\n",
			output: fine,
		},
		"the base differs from itself": {
			table:  cpu + "Small/publish,10,9%,10.6,9%,~,p=0.130 n=8,12,9%,+20.00%,p=0.000 n=8\nSmall/wave,10,1%,9.4,1%,~,p=0.130 n=8,10,1%,~,p=1.000 n=8\n",
			output: "not judged: Small/publish, cpu-ms/artifact: the base differs from itself by 6.0 %, more than 5 %\nnot judged: Small/wave, cpu-ms/artifact: the base differs from itself by 6.0 %, more than 5 %\n" + fine,
		},
		"more requests": {
			table:  requests + "Small/publish,2,0%,2,0%,~,p=1.000 n=8,2.01,0%,+0.50%,p=0.000 n=8\n",
			output: "worse: Small/publish, requests/artifact: 2.01, of the base 2, allowed are 0 % more\n",
			fails:  "1 of 1 results are worse than allowed",
		},
		"requests instead of none": {
			table:  requests + "Policies/idle,0,0%,0,0%,~,p=1.000 n=8,1,0%,?,p=0.000 n=8\ngeomean,,,,,+0.00%,,1,,?,\n",
			output: "worse: Policies/idle, requests/artifact: 1, of the base 0, allowed are 0 % more\n",
			fails:  "1 of 1 results are worse than allowed",
		},
		"requests that the base repeats at times hide none": {
			table:  requests + "Small/publish,2,0%,2.01,0%,~,p=0.300 n=8,3,0%,+50.00%,p=0.000 n=8\n",
			output: "worse: Small/publish, requests/artifact: 3, of the base 2, allowed are 0 % more\n",
			fails:  "1 of 1 results are worse than allowed",
		},
		"memory is reported alone, and every table counts": {
			table: cpu + "Small/publish,10,1%,10,1%,~,p=1.000 n=8,20,1%,+100.00%,p=0.000 n=8\n\n" +
				requests + "Small/publish,2,0%,2,0%,~,p=1.000 n=8,3,0%,+50.00%,p=0.000 n=8\n\n" +
				memory + "Small/publish,1e+07,0%,1e+07,0%,~,p=1.000 n=8,9e+07,0%,+800.00%,p=0.000 n=8\n",
			output: "worse: Small/publish, cpu-ms/artifact: 20, of the base 10, allowed are 5 % more\nworse: Small/publish, requests/artifact: 3, of the base 2, allowed are 0 % more\n",
			fails:  "2 of 3 results are worse than allowed",
		},
		"nothing": {fails: "no results"},
		"two files": {
			table: ",base,,new,,,\n,cpu-ms/artifact,CI,cpu-ms/artifact,CI,vs base,P\n",
			fails: "prints 7 columns, expected 11",
		},
		"a result that is missing": {
			table: cpu + "Small/publish,10,1%,10,1%,~,p=1.000 n=8,,,,\n",
			fails: "no median in column 8",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var output bytes.Buffer
			err := verdict(&output, test.table)
			g.Expect(output.String()).To(Equal(test.output))
			if test.fails == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(ContainSubstring(test.fails)))
			}
		})
	}
}

func TestABaseIsThisBuildAProgramOrARevision(t *testing.T) {
	g := NewWithT(t)
	repository := t.TempDir()
	git := func(args ...string) string {
		command := exec.Command("git", append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com"}, args...)...)
		command.Dir = repository
		output, err := command.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(output))
		return strings.TrimSpace(string(output))
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message=first")
	git("tag", "v1")

	program, commit, err := findBase(t.Context(), repository, self)
	g.Expect([]string{program, commit}, err).To(Equal([]string{"", ""}))

	program, commit, err = findBase(t.Context(), repository, "v1")
	g.Expect([]string{program, commit}, err).To(Equal([]string{"", git("rev-parse", "HEAD")}))

	built := filepath.Join(t.TempDir(), "controller")
	g.Expect(os.WriteFile(built, nil, 0o700)).To(Succeed())
	program, commit, err = findBase(t.Context(), repository, built)
	g.Expect([]string{program, commit}, err).To(Equal([]string{built, ""}))

	_, _, err = findBase(t.Context(), repository, "v2")
	g.Expect(err).To(MatchError(ContainSubstring(`-base v2 is neither "self", nor a file, nor a revision`)))
}

func TestABaseIsComparedInScenariosOfItsOwn(t *testing.T) {
	o := options{concurrent: 1, base: self, full: true, out: t.TempDir()}
	NewWithT(t).Expect(measure(o)).To(MatchError(ContainSubstring("expected none of -full")))
}
