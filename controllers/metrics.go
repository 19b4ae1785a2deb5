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

package controllers

import (
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/registry"
	"github.com/image-source/image-source-controller/pkg/store"
	"github.com/image-source/image-source-controller/pkg/trust"
)

// Metrics are the metrics of this project, beside those of the Flux and Kubernetes
// libraries. Tenants choose no label value except the host of a registry, with a bound on
// distinct hosts.
type Metrics struct {
	// PublishDuration is the time between a new pick of a policy and the write of its
	// ExternalArtifact, failed attempts included.
	PublishDuration prometheus.Histogram

	publications     prometheus.Counter
	registryRequests *prometheus.CounterVec
	registryBytes    *prometheus.CounterVec
	hosts            hosts
	artifactRequests *prometheus.CounterVec
	artifactBytes    prometheus.Counter
	peerFiles        prometheus.Counter
	peerBytes        prometheus.Counter
	collectedFiles   prometheus.Counter
	collectedBytes   prometheus.Counter
	verdicts         *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(registerer prometheus.Registerer) (*Metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "image_source", Name: name, Help: help}
	}
	m := &Metrics{
		PublishDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "image_source", Name: "publish_duration_seconds",
			Help:    "Time from a new pick of an ImagePolicy to the write of its ExternalArtifact, failed attempts included.",
			Buckets: prometheus.ExponentialBucketsRange(0.01, 600, 14),
		}),
		publications: prometheus.NewCounter(counter("publications_total", "Artifacts published: new versions, and new content of known ones.")),
		registryRequests: prometheus.NewCounterVec(counter("registry_requests_total",
			"Requests to registries by host, operation and status code; code 0 is no answer."), []string{"host", "operation", "code"}),
		registryBytes:    prometheus.NewCounterVec(counter("registry_bytes_total", "Bytes read from registries by host."), []string{"host"}),
		artifactRequests: prometheus.NewCounterVec(counter("artifact_requests_total", "Requests to the artifact server by status code."), []string{"code"}),
		artifactBytes:    prometheus.NewCounter(counter("artifact_bytes_total", "Bytes served by the artifact server.")),
		peerFiles:        prometheus.NewCounter(counter("peer_files_total", "Files fetched from other replicas.")),
		peerBytes:        prometheus.NewCounter(counter("peer_bytes_total", "Bytes of files fetched from other replicas.")),
		collectedFiles:   prometheus.NewCounter(counter("storage_collected_files_total", "Stored files removed because no object refers to them.")),
		collectedBytes:   prometheus.NewCounter(counter("storage_collected_bytes_total", "Bytes freed by removing stored files.")),
		verdicts: prometheus.NewCounterVec(counter("trust_verdicts_total",
			"Verdicts on images by TrustPolicy, verdict and mode; the empty policy is spec.verify."), []string{"policy", "verdict", "mode"}),
	}
	for _, collector := range []prometheus.Collector{m.PublishDuration, m.publications, m.registryRequests, m.registryBytes,
		m.artifactRequests, m.artifactBytes, m.peerFiles, m.peerBytes, m.collectedFiles, m.collectedBytes, m.verdicts} {
		if err := registerer.Register(collector); err != nil {
			return nil, err
		}
	}
	m.expectVerdicts("", v1alpha1.ModeEnforce)
	return m, nil
}

// ObserveRegistry counts a request to a registry.
func (m *Metrics) ObserveRegistry(o registry.Observation) {
	host := m.hosts.label(o.Host)
	m.registryRequests.WithLabelValues(host, o.Operation, codeLabel(o.Code)).Inc()
	m.registryBytes.WithLabelValues(host).Add(float64(o.Bytes))
}

// codeLabel is the value of the label code. Codes unknown to HTTP, of which a registry may
// send hundreds, are reduced to their class.
func codeLabel(code int) string {
	if code == 0 || http.StatusText(code) != "" {
		return strconv.Itoa(code)
	}
	return strconv.Itoa(code/100) + "xx"
}

// maxHosts bounds the values of the label host, which tenants choose.
const maxHosts = 500

// hosts are the registries with their own label value.
type hosts struct {
	mu    sync.Mutex
	known map[string]struct{}
}

// label is the label value of a registry: its host, or "other" if there are too many.
func (h *hosts) label(host string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.known[host]; ok {
		return host
	}
	if len(h.known) >= maxHosts {
		return "other"
	}
	if h.known == nil {
		h.known = map[string]struct{}{}
	}
	h.known[host] = struct{}{}
	return host
}

// ObserveServer counts an answer of the artifact server.
func (m *Metrics) ObserveServer(code int, bytes int64) {
	m.artifactRequests.WithLabelValues(strconv.Itoa(code)).Inc()
	m.artifactBytes.Add(float64(bytes))
}

// ObserveFetched counts a file from another replica.
func (m *Metrics) ObserveFetched(bytes int64) {
	m.peerFiles.Inc()
	m.peerBytes.Add(float64(bytes))
}

// ObserveCollected counts the files that a garbage collection removed.
func (m *Metrics) ObserveCollected(c store.Collected) {
	m.collectedFiles.Add(float64(c.Files))
	m.collectedBytes.Add(float64(c.Bytes))
}

// expectVerdicts starts the verdicts of a policy at 0, so that the first one is an increase.
func (m *Metrics) expectVerdicts(policy string, mode v1alpha1.Mode) {
	for _, verdict := range []trust.Verdict{trust.Accepted, trust.Rejected, trust.Unknown} {
		m.verdicts.WithLabelValues(policy, verdict.String(), string(mode))
	}
}

// observeRulings counts the ruling of each policy on one image: of several, the least
// favourable one.
func (m *Metrics) observeRulings(said ...[]trust.Ruling) {
	type judge struct {
		policy string
		warn   bool
	}
	worst := map[judge]trust.Verdict{}
	for _, ruling := range slices.Concat(said...) {
		by := judge{ruling.Policy, ruling.Warn}
		if verdict, ok := worst[by]; !ok || verdict == trust.Accepted || ruling.Verdict == trust.Rejected {
			worst[by] = ruling.Verdict
		}
	}
	for by, verdict := range worst {
		mode := v1alpha1.ModeEnforce
		if by.warn {
			mode = v1alpha1.ModeWarn
		}
		m.verdicts.WithLabelValues(by.policy, verdict.String(), string(mode)).Inc()
	}
}

// forgetVerdicts drops the verdicts of a deleted policy.
func (m *Metrics) forgetVerdicts(name string) {
	m.verdicts.DeletePartialMatch(prometheus.Labels{"policy": name})
}
