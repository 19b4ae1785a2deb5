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
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/scanner"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/test/controlplane"
	"github.com/image-source/image-source-controller/test/stage"
)

// condition is one for a label.
type condition struct{ label, op, value string }

// query is what an expression of PromQL is about.
type query struct {
	// selected are the conditions for series, by metric.
	selected map[string][]condition
	// grouped are the labels of what comes out.
	grouped []string
}

var (
	groupings = []string{"by", "without", "on", "ignoring"}
	operators = []string{"and", "or", "unless", "bool"}
)

// understand reads an expression as far as the names of metrics and labels go.
func understand(expression string) query {
	q := query{selected: map[string][]condition{}}
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
			q.selected[token] = append(q.selected[token], []condition{}...)
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

// matched returns the conditions of a selector.
func matched(tokens []string) (conditions []condition) {
	for i, token := range tokens {
		if isName(token) && (i == 0 || tokens[i-1] == ",") {
			next := end(tokens, i, ",")
			value, _ := strconv.Unquote(tokens[next-1])
			conditions = append(conditions, condition{label: token, op: strings.Join(tokens[i+1:next-1], ""), value: value})
		}
	}
	return conditions
}

func TestUnderstand(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	g.Expect(understand(`histogram_quantile(0.9, sum by (le, host) (rate(a_bucket{code!~"2..", pod=~"$pod"}[$__rate_interval]))) / on (host) b > 0.5 and absent(c{})`)).To(Equal(query{
		selected: map[string][]condition{"a_bucket": {{"code", "!~", "2.."}, {"pod", "=~", "$pod"}}, "b": nil, "c": nil},
		grouped:  []string{"le", "host", "host"},
	}))
	g.Expect(understand(`sum(a) by (host)`)).To(Equal(query{selected: map[string][]condition{"a": nil}, grouped: []string{"host"}}))
}

func TestConditionsSelectAsInPrometheus(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	for _, c := range []condition{{"", "=", "token"}, {"", "=~", "tok.*|ping"}, {"", "!=", "tok"}, {"", "!~", "tok|ping"}, {"", "!~", "$any"}} {
		g.Expect(c.selects("token")).To(BeTrue(), "%v", c)
	}
	for _, c := range []condition{{"", "=", "tok"}, {"", "=~", "tok"}, {"", "!=", "token"}, {"", "!~", "tok.*"}} {
		g.Expect(c.selects("token")).To(BeFalse(), "%v", c)
	}
}

func TestPanelsOfCollapsedRowsAreSeen(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	inner := panel{Title: "inner"}
	g.Expect(withNested([]panel{{Title: "row", Panels: []panel{inner}}})).To(ContainElement(inner))
}

// ofTarget are the labels that series get from what they are scraped from.
var ofTarget = map[string]string{"pod": "image-source-controller-0"}

// figures are the series of a metrics endpoint, by the name of the metric.
type figures map[string][]map[string]string

// figures reads a metrics endpoint.
func (n *tenant) figures(url string) figures {
	n.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(n.read(url)))
	n.Expect(err).NotTo(HaveOccurred())
	all := figures{}
	for name, family := range families {
		for _, metric := range family.GetMetric() {
			labels := maps.Clone(ofTarget)
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			all[name] = append(all[name], labels)
			if metric.Histogram != nil {
				for _, part := range []string{"_count", "_sum", "_bucket"} {
					all[name+part] = append(all[name+part], labels)
				}
				bucket := maps.Clone(labels)
				bucket["le"] = "+Inf"
				all[name+"_bucket"] = append(all[name+"_bucket"], bucket)
			}
		}
	}
	return all
}

// possible are the values of labels that stand for what a test does not have
// happen.
type possible map[string][]string

// meanings are all status codes, and the operations that the documentation of
// the metrics lists.
func (n *tenant) meanings(operations string) possible {
	n.Helper()
	p := possible{"code": {"0"}}
	for code := range 600 {
		if http.StatusText(code) != "" {
			p["code"] = append(p["code"], strconv.Itoa(code))
		}
	}
	list := regexp.MustCompile("(?m)^\\| `image_source_registry_requests_total` .*?; `operation` is (.*?);").FindStringSubmatch(operations)
	n.Expect(list).NotTo(BeNil(), "the documentation lists no operations")
	for _, operation := range regexp.MustCompile("`(.*?)`").FindAllStringSubmatch(list[1], -1) {
		p["operation"] = append(p["operation"], operation[1])
	}
	return p
}

// answers expects that a query selects and groups by what there is.
func (q query) answers(g Gomega, there figures, known possible, what string) {
	g.Expect(q.selected).NotTo(BeEmpty(), what)
	for metric, conditions := range q.selected {
		series, ok := there[metric]
		g.Expect(ok).To(BeTrue(), "%s: there is no %s", what, metric)
		for _, label := range q.grouped {
			g.Expect(series).To(ContainElement(HaveKey(label)), "%s: labels of %s", what, metric)
		}
		for _, m := range conditions {
			g.Expect(series).To(ContainElement(HaveKey(m.label)), "%s: labels of %s", what, metric)
			if values, ok := known[m.label]; ok {
				m.isAbout(g, values, what)
				continue
			}
			var values []string
			for _, labels := range series {
				values = append(values, labels[m.label])
			}
			m.isAbout(g, values, what)
			series = slices.DeleteFunc(slices.Clone(series), func(labels map[string]string) bool { return !m.selects(labels[m.label]) })
		}
		g.Expect(series).NotTo(BeEmpty(), "%s: no series of %s fits all of %v", what, metric, conditions)
	}
}

// isAbout expects that each value which a condition names is one that there is,
// whether it is selected or left out.
func (m condition) isAbout(g Gomega, values []string, what string) {
	g.Expect(m.op).To(BeElementOf("=", "!=", "=~", "!~"), what)
	if strings.Contains(m.value, "$") { // what a variable stands for
		return
	}
	named := []string{m.value}
	if strings.HasSuffix(m.op, "~") {
		named = strings.Split(m.value, "|")
	}
	for _, name := range named {
		one := condition{op: "=" + strings.Trim(m.op, "=!"), value: name}
		g.Expect(slices.ContainsFunc(values, one.selects)).To(BeTrue(), "%s: %s is never %s", what, m.label, name)
	}
}

// selects tells whether a condition selects a value, as Prometheus does: a
// regular expression matches all of it.
func (m condition) selects(value string) bool {
	if strings.Contains(m.value, "$") {
		return true
	}
	equal := value == m.value
	if strings.HasSuffix(m.op, "~") {
		equal = regexp.MustCompile("^(?:" + m.value + ")$").MatchString(value)
	}
	return equal != strings.HasPrefix(m.op, "!")
}

// panel is what matters of a panel of Grafana.
type panel struct {
	Type, Title string
	Targets     []struct{ Expr, LegendFormat string }
	// Panels are those of a row that is collapsed.
	Panels      []panel
	FieldConfig struct {
		Defaults struct {
			Thresholds struct{ Steps []struct{ Color string } }
		}
	}
}

// withNested returns panels and all that are in them.
func withNested(panels []panel) (all []panel) {
	for _, p := range panels {
		all = append(append(all, p), withNested(p.Panels)...)
	}
	return all
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

// prometheusRule is what the Prometheus operator makes a rules file of.
type prometheusRule struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Spec       ruleFile          `json:"spec"`
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
	n.judge(controller)
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	folder := filepath.Join(root, "config", "monitoring")
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	n.Expect(err).NotTo(HaveOccurred())
	there, known := n.figures("http://"+controller.Metrics+"/metrics"), n.meanings(string(page))

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
		q.answers(n, there, known, variable.Name)
	}
	for _, panel := range withNested(board.Panels) {
		n.Expect(len(panel.Targets) > 0).To(Equal(panel.Type != "row"), panel.Title)
		if panel.Type == "stat" {
			n.Expect(panel.FieldConfig.Defaults.Thresholds.Steps).NotTo(BeEmpty(), "%s: without thresholds, Grafana colours 80 and more red", panel.Title)
		}
		for _, target := range panel.Targets {
			q := understand(target.Expr)
			q.grouped = append(q.grouped, shown(target.LegendFormat)...)
			q.answers(n, there, known, panel.Title)
		}
	}

	text, err = os.ReadFile(filepath.Join(folder, "rules", "prometheus_rule.yaml"))
	n.Expect(err).NotTo(HaveOccurred())
	var rules prometheusRule
	n.Expect(yaml.UnmarshalStrict(text, &rules)).To(Succeed())
	n.Expect(rules.Spec.Groups).NotTo(BeEmpty())
	for _, group := range rules.Spec.Groups {
		for _, rule := range group.Rules {
			understand(rule.Expr).answers(n, there, known, rule.Alert)
			n.Expect(rule.For).To(MatchRegexp(`^\d+m$`), rule.Alert)
			n.Expect(rule.Labels).To(HaveKey("severity"), rule.Alert)
			n.Expect(rule.Annotations).To(And(HaveKey("summary"), HaveKey("description")), rule.Alert)
			n.Expect(string(page)).To(ContainSubstring("| `"+rule.Alert+"` |"), "the documentation says what to do")
			for _, label := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(rule.Annotations["summary"]+rule.Annotations["description"], -1) {
				n.Expect(understand(rule.Expr).grouped).To(ContainElement(label[1]), rule.Alert)
			}
		}
	}
}

// judge creates a TrustPolicy for the tenant, and waits until a controller has
// looked at it.
func (n *tenant) judge(controller *stage.Controller) {
	n.Helper()
	policy := &v1alpha1.TrustPolicy{ObjectMeta: metav1.ObjectMeta{Name: n.namespace}}
	policy.Spec = v1alpha1.TrustPolicySpec{
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: n.namespace}},
		Images:            []v1alpha1.ImagePattern{v1alpha1.ImagePattern(n.ref("**"))},
	}
	n.create(policy)
	n.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := env.Client.Delete(ctx, policy); err != nil {
			n.Error(err)
		}
	})
	n.Eventually(func() []map[string]string {
		return n.figures("http://" + controller.Metrics + "/metrics")["gotk_reconcile_condition"]
	}, patience, poll).Should(ContainElement(And(HaveKeyWithValue("kind", "TrustPolicy"), HaveKeyWithValue("name", n.namespace))))
}

// shown are the labels that a legend shows.
func shown(legend string) (labels []string) {
	for _, match := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		labels = append(labels, match[1])
	}
	return labels
}

// podMonitor is what the Prometheus operator makes of one.
type podMonitor struct {
	Spec struct {
		NamespaceSelector   struct{ MatchNames []string }
		Selector            metav1.LabelSelector
		PodMetricsEndpoints []struct {
			Port        string
			HonorLabels bool
		}
	}
}

// The components for monitoring can be added to an installation, and find all
// of its Pods, those of shards as well.
func TestMonitoringComponents(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	const ours = "https://github.com/image-source/image-source-controller//config/%s?ref=main"
	component := func(name string) installation { return n.build("components: [" + fmt.Sprintf(ours, name) + "]\n") }

	configMaps := of[corev1.ConfigMap](component("monitoring"), "ConfigMap")
	n.Expect(configMaps).To(HaveLen(1))
	n.Expect(configMaps[0].Namespace).To(Equal(controlplane.FluxNamespace))
	n.Expect(configMaps[0].Labels).To(HaveKeyWithValue("grafana_dashboard", "1"))
	n.Expect(configMaps[0].Data).To(HaveKeyWithValue("image-source-controller.json", ContainSubstring("${")))
	n.Expect(configMaps[0].Annotations).To(HaveKeyWithValue("kustomize.toolkit.fluxcd.io/substitute", "disabled"), "Flux would take variables of Grafana for its own")
	n.Expect(env.Client.Create(n.Context(), &configMaps[0], client.DryRunAll)).To(Succeed())

	rules := component("monitoring/rules").objects
	n.Expect(rules).To(HaveLen(1))
	n.Expect(rules[0].GetKind()).To(Equal("PrometheusRule"))
	n.Expect(rules[0].GetNamespace()).To(Equal(controlplane.FluxNamespace))

	monitors := component("monitoring/pod-monitor").objects
	n.Expect(monitors).To(HaveLen(1))
	text, err := monitors[0].MarshalJSON()
	n.Expect(err).NotTo(HaveOccurred())
	var monitor podMonitor
	n.Expect(json.Unmarshal(text, &monitor)).To(Succeed())
	n.Expect(monitor.Spec.PodMetricsEndpoints).To(HaveLen(1))
	n.Expect(monitor.Spec.PodMetricsEndpoints[0].HonorLabels).To(BeTrue())
	for _, kustomization := range []string{"resources: [" + fmt.Sprintf(ours, "default") + "]\n", n.documentedShard()} {
		deployments := of[appsv1.Deployment](n.build(kustomization), "Deployment")
		n.Expect(deployments).To(HaveLen(1))
		n.Expect(monitor.Spec.NamespaceSelector.MatchNames).To(ConsistOf(deployments[0].Namespace))
		pods := deployments[0].Spec.Template
		n.Expect(matches(n, &monitor.Spec.Selector, pods)).To(BeTrue(), "the monitor does not select Pods with %v", pods.Labels)
		n.Expect(pods.Spec.Containers[0].Ports).To(ContainElement(HaveField("Name", monitor.Spec.PodMetricsEndpoints[0].Port)))
	}
}
