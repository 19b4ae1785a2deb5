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
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/image-source/image-source-controller/test/controlplane"
)

// usage is what a piece of work took.
type usage struct {
	// Wall is the time from its begin to its end, CPU what all threads of the
	// controller computed; both in seconds.
	Wall, CPU float64
	// Before is the resident memory before, Peak the most during the work, After
	// what remained; in bytes.
	Before, Peak, After int64
	// Requests to the registry by method and kind, such as GET manifest.
	Requests map[string]int
	// Writes to the API server by verb and resource, those of this program left
	// out, and Events the same of Kubernetes events.
	Writes map[string]int
	Events int
}

// above is the memory that the work took beyond what an idle process has.
func (u *usage) above() int64 { return u.Peak - u.Before }

func total(counts map[string]int) (n int) {
	for count := range maps.Values(counts) {
		n += count
	}
	return n
}

// meter measures one process that works while all others that could are idle.
type meter struct {
	pid      int
	registry *controlplane.Registry
	api      kubernetes.Interface
	// own counts the writes of this program, by the same words as usage.Writes.
	own func() map[string]int
}

// reading is what all counters stand at.
type reading struct {
	at     time.Time
	cpu    time.Duration
	offset int64 // in the log of the registry
	writes map[string]int
	own    map[string]int
	memory int64
}

// begin forgets the peak of memory and reads all counters.
func (m *meter) begin(ctx context.Context) (*reading, error) {
	// 5 sets the peak back to what is resident now, see proc_pid_clear_refs(5).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", m.pid), []byte("5"), 0o200); err != nil {
		return nil, err
	}
	r := &reading{own: m.own()}
	var err error
	if r.writes, err = m.writes(ctx); err != nil {
		return nil, err
	}
	log, err := os.Stat(m.registry.LogFile())
	if err != nil {
		return nil, err
	}
	r.offset = log.Size() // the registry writes whole lines
	if r.memory, err = memory(m.pid, "VmRSS"); err != nil {
		return nil, err
	}
	r.cpu, err = cpu(m.pid)
	r.at = time.Now()
	return r, err
}

// used tells what was used since a reading. The clock stopped at done; CPU and writes of
// what the controller tidies up afterwards count.
func (m *meter) used(ctx context.Context, from *reading, done time.Time) (*usage, error) {
	u := &usage{Wall: done.Sub(from.at).Seconds(), Before: from.memory}
	now, err := cpu(m.pid)
	if err != nil {
		return nil, err
	}
	u.CPU = (now - from.cpu).Seconds()
	if u.Peak, err = memory(m.pid, "VmHWM"); err != nil {
		return nil, err
	}
	if u.After, err = memory(m.pid, "VmRSS"); err != nil {
		return nil, err
	}
	requests, _, err := m.registry.RequestsSince(from.offset)
	if err != nil {
		return nil, err
	}
	u.Requests = map[string]int{}
	for _, request := range requests {
		if request.UserAgent != userAgent {
			u.Requests[kindOf(request)]++
		}
	}
	writes, err := m.writes(ctx)
	if err != nil {
		return nil, err
	}
	own := m.own()
	u.Writes = map[string]int{}
	for what, count := range writes {
		switch count -= from.writes[what] + own[what] - from.own[what]; {
		case count == 0:
		case strings.HasSuffix(what, " events"):
			u.Events += count
		default:
			u.Writes[what] = count
		}
	}
	return u, nil
}

// settle waits until the controller has nothing more to do: one that is done
// takes less than two hundredths of a core.
func (m *meter) settle(ctx context.Context) error {
	const quiet, patience = 500 * time.Millisecond, 20 * time.Second
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		before, err := cpu(m.pid)
		if err != nil {
			return err
		}
		if err := pause(ctx, quiet); err != nil {
			return err
		}
		after, err := cpu(m.pid)
		if err != nil {
			return err
		}
		if after-before <= quiet/50 {
			return nil
		}
	}
	return nil // it is as busy as it stays
}

// apiWrite matches what the API server counts of writes. Server-side apply has a
// verb of its own.
var apiWrite = regexp.MustCompile(`^apiserver_request_total\{(.*)\} ([0-9.e+]+)$`)

// measured are the resources whose writes count: those that the controllers own.
var measured = map[string]bool{"ocirepositories": true, "artifactrepositories": true, "externalartifacts": true, "events": true}

// writes returns the API server's own count of the writes that it has answered.
func (m *meter) writes(ctx context.Context) (map[string]int, error) {
	metrics, err := m.api.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the metrics of the API server: %w", err)
	}
	return countWrites(metrics)
}

// countWrites adds up what the metrics of an API server say of the writes that
// count, as VERB resource or VERB resource/subresource.
func countWrites(metrics []byte) (map[string]int, error) {
	counts := map[string]int{}
	for line := range bytes.Lines(metrics) {
		match := apiWrite.FindSubmatch(bytes.TrimSpace(line))
		if match == nil {
			continue
		}
		labels := labelsOf(string(match[1]))
		switch labels["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION":
		default:
			continue
		}
		if !measured[labels["resource"]] {
			continue
		}
		what := labels["verb"] + " " + labels["resource"]
		if labels["subresource"] != "" {
			what += "/" + labels["subresource"]
		}
		count, err := strconv.ParseFloat(string(match[2]), 64)
		if err != nil {
			return nil, err
		}
		counts[what] += int(count)
	}
	return counts, nil
}

// label matches one label of a metric; the values that matter have no escapes.
var label = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)

func labelsOf(text string) map[string]string {
	labels := map[string]string{}
	for _, match := range label.FindAllStringSubmatch(text, -1) {
		labels[match[1]] = match[2]
	}
	return labels
}

// kindOf says what a request is about, such as GET manifest.
func kindOf(r controlplane.Request) string {
	switch {
	case r.Path == "/v2/":
		return "ping"
	case strings.Contains(r.Path, "/manifests/"):
		return r.Method + " manifest"
	case strings.Contains(r.Path, "/blobs/"):
		return r.Method + " blob"
	case strings.Contains(r.Path, "/referrers/"):
		return r.Method + " referrers"
	case strings.Contains(r.Path, "/tags/list"):
		return r.Method + " tags"
	default:
		return r.Method + " other"
	}
}

// memory returns a figure of proc_pid_status(5) in bytes: VmRSS is what a
// process has, VmHWM the most that it had.
func memory(pid int, figure string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		if name != figure {
			continue
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		return kilobytes << 10, err
	}
	return 0, errors.New("no " + figure + " in the status of the process")
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
