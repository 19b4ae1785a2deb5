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
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// TestBothControllersAreMeasured runs the smallest comparison that there is. What
// it takes depends on the machine; what is asked for and written does not.
func TestBothControllersAreMeasured(t *testing.T) {
	g := NewWithT(t)
	const n = 3
	o := options{concurrent: 2, rounds: 1, out: t.TempDir()}
	r, err := run(t.Context(), o, program{scenarios: []scenario{applications(n)}})
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(r.Rows).To(HaveLen(2))
	for _, row := range r.Rows {
		g.Expect(row.Ours.Requests).To(Equal(map[string]int{"GET manifest": n, "GET blob": n}), row.Phase)
		g.Expect(row.Theirs.Requests).To(And(HaveKeyWithValue("GET blob", n), HaveKeyWithValue("HEAD manifest", n)), row.Phase)
		for name, u := range map[string]*usage{"ours": row.Ours, "theirs": row.Theirs} {
			g.Expect(u.Wall).To(BeNumerically(">", 0), name)
			g.Expect(u.Peak).To(BeNumerically(">=", u.Before), name)
			g.Expect(u.Writes).NotTo(BeEmpty(), name)
			for what, count := range u.Writes {
				g.Expect(count).To(BeNumerically(">=", 1), "%s: %s: what this program wrote is left out", name, what)
			}
		}
		g.Expect(row.Theirs.Writes).NotTo(HaveKey("POST ocirepositories"))
		g.Expect(row.Ours.Writes).NotTo(HaveKey("POST artifactrepositories"))
	}
	g.Expect(r.Limits).To(HaveLen(1))
	g.Expect(r.Limits[0].Bytes).To(BeNumerically(">", 1<<10))

	g.Expect(r.Rows[0].Ratios).To(HaveKeyWithValue("registry requests", float64(2*n)/float64(total(r.Rows[0].Theirs.Requests))))
	g.Expect(r.Versions).To(HaveKeyWithValue("source-controller", MatchRegexp(`^v1\.`)))

	g.Expect(r.write(o.out, r.markdown())).To(Succeed())
	text, err := os.ReadFile(filepath.Join(o.out, "bench.md"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(text)).To(ContainSubstring("### Ratios"))
	content, err := os.ReadFile(filepath.Join(o.out, "bench.json"))
	g.Expect(err).NotTo(HaveOccurred())
	var read report
	g.Expect(json.Unmarshal(content, &read)).To(Succeed())
	g.Expect(read.Rows).To(Equal(r.Rows))
}

// TestEveryFormatAndARebuildCanBeMeasured runs what source-controller has no match for.
func TestEveryFormatAndARebuildCanBeMeasured(t *testing.T) {
	g := NewWithT(t)
	o := options{concurrent: 2, rounds: 1, out: t.TempDir()}
	r, err := run(t.Context(), o, program{scenarios: []scenario{formats(1), rebuilt(1, o.concurrent)}})
	g.Expect(err).NotTo(HaveOccurred())
	var measured []string
	for _, row := range r.Rows {
		measured = append(measured, row.Phase)
		g.Expect(row.Theirs).To(BeNil())
		g.Expect(row.Ours.Requests).To(HaveKey("GET blob"), row.Phase)
	}
	g.Expect(measured).To(Equal([]string{"flux", "helm", "tekton", "imgpkg", "kyverno", "files", "image", "index", "publish", "rebuild"}))
}

func TestWritesAreCountedByTheAPIServersMetrics(t *testing.T) {
	g := NewWithT(t)
	counts, err := countWrites([]byte(`# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="source.toolkit.fluxcd.io",resource="ocirepositories",scope="resource",subresource="status",verb="PATCH",version="v1"} 7
apiserver_request_total{code="409",component="apiserver",dry_run="",group="source.toolkit.fluxcd.io",resource="ocirepositories",scope="resource",subresource="status",verb="PATCH",version="v1"} 1
apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="events",scope="resource",subresource="",verb="POST",version="v1"} 1.2e+06
apiserver_request_total{code="200",component="apiserver",dry_run="",group="source.toolkit.fluxcd.io",resource="ocirepositories",scope="cluster",subresource="",verb="LIST",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"} 3
apiserver_request_duration_seconds_count{resource="ocirepositories",verb="PATCH"} 9
`))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(counts).To(Equal(map[string]int{"PATCH ocirepositories/status": 8, "POST events": 1_200_000}), "every answer counts, reading does not")
}

func TestWhatAProcessTakesIsReadFromTheKernel(t *testing.T) {
	g := NewWithT(t)
	before, err := cpu(os.Getpid())
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() (time.Duration, error) { // computes while it asks
		return cpu(os.Getpid())
	}).WithTimeout(time.Minute).WithPolling(time.Microsecond).Should(BeNumerically(">=", before+30*time.Millisecond))
	resident, err := memory(os.Getpid(), "VmRSS")
	g.Expect(err).NotTo(HaveOccurred())
	peak, err := memory(os.Getpid(), "VmHWM")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(peak).To(BeNumerically(">", 1<<20))
	g.Expect(resident).To(BeNumerically(">", 1<<20))
	_, err = memory(os.Getpid(), "VmNothing")
	g.Expect(err).To(MatchError(ContainSubstring("no VmNothing")))
}

func TestNoTwoArtifactsAreAlike(t *testing.T) {
	for _, s := range []shape{tiny, {name: "words", files: 2, size: 10_000, text: prose}, {name: "bytes", files: 1, size: 10_000, text: noise, link: true}} {
		t.Run(s.name, func(t *testing.T) {
			g := NewWithT(t)
			write := func(seed string) []byte {
				var b bytes.Buffer
				g.Expect(s.write(&b, seed)).To(Succeed())
				return b.Bytes()
			}
			g.Expect(write("a/0:1.0.0")).To(Equal(write("a/0:1.0.0")))
			g.Expect(write("a/0:1.0.0")).NotTo(Equal(write("a/1:1.0.0")))
		})
	}
}

func TestTheMiddleOfRoundsCounts(t *testing.T) {
	g := NewWithT(t)
	m := middle([]*usage{
		{CPU: 3, Wall: 1, Peak: 10, Requests: map[string]int{"ping": 3}},
		{CPU: 1, Wall: 2, Peak: 30, Requests: map[string]int{"ping": 1}},
		{CPU: 2, Wall: 9, Peak: 20, Requests: map[string]int{"ping": 2}},
	})
	g.Expect(m).To(Equal(&usage{CPU: 2, Wall: 2, Peak: 20, Requests: map[string]int{"ping": 2}}))
	g.Expect(middle(nil)).To(BeNil(), "what is not measured has no middle")
}

func TestBudgetsSayWhetherTheyAreMet(t *testing.T) {
	side := func(cpu float64, requests int) *usage {
		return &usage{CPU: cpu, Before: 60 << 20, Peak: 70 << 20, Requests: map[string]int{"GET blob": requests}}
	}
	verdicts := func(r *report) map[string]bool {
		met := map[string]bool{}
		for _, b := range budgets(r) {
			met[b.What] = b.Met
		}
		return met
	}
	report := func(ours float64, requests int) *report {
		return &report{
			Rows: []row{
				{Scenario: "small", Phase: "wave", Shape: small.name, Count: 10, Ours: side(ours, requests), Theirs: side(1, 50)},
				{Scenario: "huge-10", Phase: "publish", Shape: huge.name, Count: 10, Ours: side(1, 20), Theirs: side(1, 50)},
				{Scenario: "grow-1", Phase: "idle", Sources: 1, Count: 1, Ours: side(ours, 1)},
				{Scenario: "grow-2", Phase: "idle", Sources: 2, Count: 2, Ours: side(3*ours*ours, 2)},
			},
			Latencies: []delay{{Name: "latency", Ours: &quantiles{Median: 200 * ours}}},
		}
	}
	g := NewWithT(t)
	g.Expect(verdicts(report(0.4, 20))).To(Equal(map[string]bool{
		"registry requests for a new tag":                          true,
		"registry requests for a tag and interval without change":  true,
		"CPU for a new tag of a small artifact":                    true,
		"memory above idle, ":                                      true,
		"ImagePolicy change to ExternalArtifact published, 50 KiB": true,
		"CPU of a source, idle, with 2 sources beside that with 1": true,
		"API writes for 2 sources in an interval without change":   true,
	}))
	over := verdicts(report(0.9, 21))
	g.Expect(over).To(HaveKeyWithValue("registry requests for a new tag", false))
	g.Expect(over).To(HaveKeyWithValue("CPU for a new tag of a small artifact", false))
	g.Expect(over).To(HaveKeyWithValue("ImagePolicy change to ExternalArtifact published, 50 KiB", false))
	g.Expect(over).To(HaveKeyWithValue("CPU of a source, idle, with 2 sources beside that with 1", false))
}

func TestGrowthIsComparedWithTheCheapestSmallerNumber(t *testing.T) {
	for name, test := range map[string]struct {
		phase string
		costs []float64 // of one of 1, 2, 3, ... sources
		want  []budget
	}{
		"the fewest carry what the process costs": {
			phase: "publish",
			costs: []float64{1.50, 1.18, 1.01, 1.64},
			want:  []budget{{What: "CPU of a source, publish, with 4 sources beside that with 3", Allowed: "flat", Measured: "x 1.62", scenario: "grow-4", profile: cpuTime}},
		},
		"more are cheaper": {
			phase: "publish",
			costs: []float64{3, 2, 1},
			want:  []budget{{What: "CPU of a source, publish, with 3 sources beside that with 2", Allowed: "flat", Measured: "x 0.50", Met: true, scenario: "grow-3", profile: cpuTime}},
		},
		"of idle sources a profile of their own tells": {
			phase: "idle",
			costs: []float64{1, 2},
			want: []budget{
				{What: "CPU of a source, idle, with 2 sources beside that with 1", Allowed: "flat", Measured: "x 2.00", scenario: "grow-2", profile: idleTime},
				{What: "API writes for 2 sources in an interval without change", Allowed: "0", Measured: "0", Met: true},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &report{}
			for i, cost := range test.costs {
				n := i + 1
				r.Rows = append(r.Rows, row{Scenario: fmt.Sprint("grow-", n), Phase: test.phase, Sources: n, Count: n, Ours: &usage{CPU: cost * float64(n)}})
			}
			NewWithT(t).Expect(budgets(r)).To(ContainElements(test.want))
		})
	}
}

func TestSourcesArePublishedInAThirdOfTheirInterval(t *testing.T) {
	g := NewWithT(t)
	g.Expect((&bench{}).restful(100)).To(Equal(9*time.Second), "nothing is known yet")
	g.Expect((&bench{pace: time.Second}).restful(100)).To(Equal(5 * time.Minute))
}

func TestWhatWasMeasuredInPartReplacesNoTables(t *testing.T) {
	o := options{concurrent: 1, rounds: 1, updateDocs: true, only: regexp.MustCompile("small"), out: t.TempDir()}
	NewWithT(t).Expect(measure(o)).To(MatchError(ContainSubstring("-only")))
}

func TestAProfileIsReadAsSharesOfFunctions(t *testing.T) {
	g := NewWithT(t)
	g.Expect(topOf(`File: image-source-controller
Type: cpu
Duration: 60s, Total samples = 5.69s ( 9.48%)
Showing nodes accounting for 4.32s, 75.92% of 5.69s total
      flat  flat%   sum%        cum   cum%
     3.84s 67.49% 67.49%      4.01s 70.47%  github.com/klauspost/compress/flate.(*decompressor).huffmanBufioReader
     0.48s  8.44% 75.92%      0.48s  8.44%  runtime.memmove (inline)
`)).To(Equal([]string{"67.49% flate.(*decompressor).huffmanBufioReader", "8.44% runtime.memmove"}))
	g.Expect(topOf("no profile")).To(BeEmpty())
}

func TestTablesOfADocumentAreReplaced(t *testing.T) {
	g := NewWithT(t)
	path := filepath.Join(t.TempDir(), "page.md")
	g.Expect(os.WriteFile(path, []byte("before\n"+tablesBegin+"\nold\n"+tablesEnd+"\nafter\n"), 0o600)).To(Succeed())
	g.Expect(replaceTables(path, "new\n")).To(Succeed())
	content, err := os.ReadFile(path)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(content)).To(Equal("before\n" + tablesBegin + "\n\nnew\n\n" + tablesEnd + "\nafter\n"))

	g.Expect(os.WriteFile(path, []byte("no markers"), 0o600)).To(Succeed())
	g.Expect(replaceTables(path, "new")).To(MatchError(ContainSubstring("has no lines")))
}
