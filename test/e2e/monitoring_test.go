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

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/scanner"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
)

// query is what an expression of PromQL is about.
type query struct {
	// selected are the labels by which series are selected, by metric.
	selected map[string][]string
	// grouped are the labels of what comes out.
	grouped []string
}

var (
	groupings = []string{"by", "without", "on", "ignoring"}
	operators = []string{"and", "or", "unless", "bool"}
)

// understand reads an expression as far as the names of metrics and labels go.
func understand(expression string) query {
	q := query{selected: map[string][]string{}}
	tokens := tokensOf(expression)
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	for i := 0; i < len(tokens); i++ {
		switch token := tokens[i]; {
		case token == "[":
			i = end(tokens, i, "]")
		case slices.Contains(groupings, token):
			last := end(tokens, i, ")")
			q.grouped = append(q.grouped, slices.DeleteFunc(slices.Clone(tokens[i+2:last]), func(t string) bool { return t == "," })...)
			i = last
		case !isName(token), slices.Contains(operators, token), at(i+1) == "(", slices.Contains(groupings, at(i+1)):
			// punctuation, a number, a string, an operator, a function
		case at(i+1) == "{":
			last := end(tokens, i, "}")
			q.selected[token] = append(q.selected[token], matched(tokens[i+2:last])...)
			i = last
		default:
			q.selected[token] = append(q.selected[token], []string{}...)
		}
	}
	return q
}

func tokensOf(expression string) (tokens []string) {
	var lex scanner.Scanner
	lex.Init(strings.NewReader(expression))
	lex.Mode = scanner.ScanIdents | scanner.ScanFloats | scanner.ScanStrings
	for lex.Scan() != scanner.EOF {
		tokens = append(tokens, lex.TokenText())
	}
	return tokens
}

// end returns where the next of a token is; a missing one is the end.
func end(tokens []string, from int, token string) int {
	if i := slices.Index(tokens[from:], token); i >= 0 {
		return from + i
	}
	return len(tokens)
}

func isName(token string) bool { return regexp.MustCompile(`^[a-zA-Z_]\w*$`).MatchString(token) }

// matched returns the labels of the matchers of a selector.
func matched(tokens []string) (labels []string) {
	for i, token := range tokens {
		if isName(token) && (i == 0 || tokens[i-1] == ",") {
			labels = append(labels, token)
		}
	}
	return labels
}

func TestUnderstand(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	g.Expect(understand(`histogram_quantile(0.9, sum by (le, host) (rate(a_bucket{code!~"2..", pod=~"$pod"}[$__rate_interval]))) / on (host) b > 0.5 and absent(c{})`)).To(Equal(query{
		selected: map[string][]string{"a_bucket": {"code", "pod"}, "b": nil, "c": nil},
		grouped:  []string{"le", "host", "host"},
	}))
	g.Expect(understand(`sum(a) by (host)`)).To(Equal(query{selected: map[string][]string{"a": nil}, grouped: []string{"host"}}))
}

// ofTarget are the labels that series get from what they are scraped from.
var ofTarget = []string{"pod"}

// series are the labels of every series of a metrics endpoint, by its name.
func (n *tenant) series(url string) map[string][]string {
	n.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(n.read(url)))
	n.Expect(err).NotTo(HaveOccurred())
	series := map[string][]string{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			labels := slices.Clone(ofTarget)
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName())
			}
			series[name] = append(series[name], labels...)
			if metric.Histogram != nil {
				series[name+"_bucket"] = append(labels, "le")
				series[name+"_count"], series[name+"_sum"] = labels, labels
			}
		}
	}
	return series
}

// answers expects that a query selects and groups by what there is.
func (q query) answers(g Gomega, series map[string][]string, what string) {
	g.Expect(q.selected).NotTo(BeEmpty(), what)
	for metric, selected := range q.selected {
		labels, ok := series[metric]
		g.Expect(ok).To(BeTrue(), "%s: there is no %s", what, metric)
		for _, label := range slices.Concat(selected, q.grouped) {
			g.Expect(labels).To(ContainElement(label), "%s: labels of %s", what, metric)
		}
	}
}

// panel is what matters of a panel of Grafana.
type panel struct {
	Type, Title string
	Targets     []struct{ Expr, LegendFormat string }
}

type dashboard struct {
	UID        string
	Panels     []panel
	Templating struct{ List []variable }
}

type variable struct {
	Name, Type string
	// Query is a text or has one, as the type goes.
	Query json.RawMessage
}

// values returns of which series a variable takes the values of which label.
func (v variable) values() (expression, label string) {
	var query struct{ Query string }
	if err := json.Unmarshal(v.Query, &query); err != nil {
		return "", ""
	}
	inner := strings.TrimSuffix(strings.TrimPrefix(query.Query, "label_values("), ")")
	comma := strings.LastIndex(inner, ",")
	return inner[:max(comma, 0)], strings.TrimSpace(inner[comma+1:])
}

// rule is an alert of Prometheus.
type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

type ruleFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

// What the dashboard shows and the alerts watch is there on a controller that
// leads and has done some work.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	const shard = "monitored"
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	controller := startShard(t, shard, append(quickAPI, "--enable-leader-election")...)
	n.push(app, "1.0.0", configMap(app, "1.0.0"))
	n.scan(app, inShard(shard))
	n.served(n.published(app, "1.0.0"))
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	folder := filepath.Join(root, "config", "monitoring")
	series := n.series("http://" + controller.Metrics + "/metrics")

	text, err := os.ReadFile(filepath.Join(folder, "dashboard.json"))
	n.Expect(err).NotTo(HaveOccurred())
	var board dashboard
	n.Expect(json.Unmarshal(text, &board)).To(Succeed())
	n.Expect(board.UID).NotTo(BeEmpty())
	for _, variable := range board.Templating.List {
		if variable.Type != "query" {
			continue
		}
		expression, label := variable.values()
		q := understand(expression)
		q.grouped = append(q.grouped, label)
		q.answers(n, series, variable.Name)
	}
	for _, panel := range board.Panels {
		n.Expect(len(panel.Targets) > 0).To(Equal(panel.Type != "row"), panel.Title)
		for _, target := range panel.Targets {
			q := understand(target.Expr)
			q.grouped = append(q.grouped, shown(target.LegendFormat)...)
			q.answers(n, series, panel.Title)
		}
	}

	text, err = os.ReadFile(filepath.Join(folder, "rules.yaml"))
	n.Expect(err).NotTo(HaveOccurred())
	var rules ruleFile
	n.Expect(yaml.UnmarshalStrict(text, &rules)).To(Succeed())
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	n.Expect(err).NotTo(HaveOccurred())
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			understand(rule.Expr).answers(n, series, rule.Alert)
			n.Expect(rule.For).To(MatchRegexp(`^\d+m$`), rule.Alert)
			n.Expect(rule.Labels).To(HaveKey("severity"), rule.Alert)
			n.Expect(rule.Annotations).To(And(HaveKey("summary"), HaveKey("description")), rule.Alert)
			n.Expect(string(page)).To(ContainSubstring("| `"+rule.Alert+"` |"), "the documentation says what to do")
			for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(rule.Annotations["summary"], -1) {
				n.Expect(understand(rule.Expr).grouped).To(ContainElement(label[1]), rule.Alert)
			}
		}
	}
}

// shown are the labels that a legend shows.
func shown(legend string) (labels []string) {
	for _, match := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		labels = append(labels, match[1])
	}
	return labels
}

// The components for monitoring can be added to an installation, and find its
// Pods.
func TestMonitoringComponents(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	overlay := t.TempDir()
	below, err := filepath.Rel(overlay, root)
	n.Expect(err).NotTo(HaveOccurred())
	build := func(component string) string {
		n.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), fmt.Appendf(nil, "components:\n- %s\n",
			filepath.Join(below, "config", "monitoring", component)), 0o600)).To(Succeed())
		built, err := env.Kubectl(n.Context(), "kustomize", overlay)
		n.Expect(err).NotTo(HaveOccurred())
		return built
	}

	var configMap corev1.ConfigMap
	n.Expect(yaml.UnmarshalStrict([]byte(build("")), &configMap)).To(Succeed())
	n.Expect(configMap.Namespace).To(Equal(controlplane.FluxNamespace))
	n.Expect(configMap.Labels).To(HaveKeyWithValue("grafana_dashboard", "1"))
	n.Expect(configMap.Data).To(HaveKey("image-source-controller.json"))
	n.Expect(env.Client.Create(n.Context(), &configMap, client.DryRunAll)).To(Succeed())

	monitor := &unstructured.Unstructured{}
	n.Expect(yaml.Unmarshal([]byte(build("pod-monitor")), &monitor.Object)).To(Succeed())
	var deployment appsv1.Deployment
	n.Expect(env.Client.Get(n.Context(), client.ObjectKey{Namespace: controlplane.FluxNamespace, Name: "image-source-controller"}, &deployment)).To(Succeed())
	selector, _, err := unstructured.NestedStringMap(monitor.Object, "spec", "selector", "matchLabels")
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(selector).NotTo(BeEmpty())
	for key, value := range selector {
		n.Expect(deployment.Spec.Template.Labels).To(HaveKeyWithValue(key, value))
	}
	endpoints, _, err := unstructured.NestedSlice(monitor.Object, "spec", "podMetricsEndpoints")
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(endpoints).To(HaveLen(1))
	n.Expect(deployment.Spec.Template.Spec.Containers[0].Ports).To(ContainElement(HaveField("Name", endpoints[0].(map[string]any)["port"])))
}
