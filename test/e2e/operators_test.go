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
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	eventv1 "github.com/fluxcd/pkg/apis/event/v1beta1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// kubectl runs kubectl in the tenant's namespace and returns what it prints.
func (n *tenant) kubectl(args ...string) string {
	n.Helper()
	output, err := env.Kubectl(n.Context(), append([]string{"-n", n.namespace}, args...)...)
	n.Expect(err).NotTo(HaveOccurred())
	return output
}

func TestWhatKubectlShows(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := n.pushAndScan("app", "1.0.0")
	n.published("app", revision)

	table := strings.Split(n.kubectl("get", "artifactrepo"), "\n")
	n.Expect(strings.Fields(table[0])).To(Equal([]string{"NAME", "READY", "STATUS", "AGE"}))
	n.Expect(strings.Fields(table[1])[:2]).To(Equal([]string{"app", "True"}))
	n.Expect(table[1]).To(ContainSubstring("published " + shortRevision(revision) + " as Flux"))
	for _, line := range table {
		n.Expect(len(line)).To(BeNumerically("<=", 80), line)
	}
	n.Expect(n.kubectl("get", "artifactrepo", "-o", "wide")).To(And(ContainSubstring("FORMAT"), ContainSubstring("REVISION"), ContainSubstring("IMAGE"), ContainSubstring(n.ref("app"))))
	for _, category := range []string{"all", "fluxcd"} {
		n.Expect(n.kubectl("get", category)).To(ContainSubstring("artifactrepository.source.contrib.fluxcd.io/app"), category)
	}
	n.Expect(n.kubectl("explain", "artifactrepository.spec.imagePolicyRef")).To(ContainSubstring("ImagePolicy"))
	n.kubectl("wait", "artifactrepository/app", "externalartifact/app", "--for=condition=Ready", "--timeout=10s")
	n.Expect(n.kubectl("describe", "artifactrepository", "app")).To(ContainSubstring("Succeeded"))
}

func TestEvents(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	revision := n.pushAndScan("app", "1.0.0")
	artifact := n.published("app", revision)
	for kind, group := range map[string]string{
		v1alpha1.ArtifactRepositoryKind: v1alpha1.Group,
		sourcev1.ExternalArtifactKind:   sourcev1.GroupVersion.Group,
	} {
		event := n.event(kind, corev1.EventTypeNormal, v1alpha1.ReasonNewArtifact)
		n.Expect(event.Message).To(ContainSubstring(shortRevision(revision)), kind)
		n.Expect(event.Annotations).To(And(
			HaveKeyWithValue(group+"/"+eventv1.MetaRevisionKey, revision),
			HaveKeyWithValue(group+"/"+eventv1.MetaDigestKey, artifact.Digest),
		), kind)
		alert := n.alert(kind, eventv1.EventSeverityInfo, v1alpha1.ReasonNewArtifact)
		n.Expect(alert.Message).To(ContainSubstring(shortRevision(revision)), kind)
		n.Expect(alert.ReportingController).To(Equal("image-source-controller"))
		n.Expect(alert.Metadata).To(HaveKeyWithValue(group+"/"+eventv1.MetaRevisionKey, revision), kind)
	}

	// Failures are told as well, and recoveries; what did not change is not.
	n.push("bad", "1.0.0", configMap("bad", "1.0.0"))
	n.scan("bad")
	n.published("bad", "1.0.0")
	change(n, named(n, "bad", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Format = v1alpha1.FormatHelm })
	n.notReady("bad", v1alpha1.ReasonUnsupportedMediaType)
	n.warnings(v1alpha1.ArtifactRepositoryKind, "bad", v1alpha1.ReasonUnsupportedMediaType)
	n.reconciled("bad")
	n.reconciled("bad")
	change(n, named(n, "bad", &v1alpha1.ArtifactRepository{}), func(obj *v1alpha1.ArtifactRepository) { obj.Spec.Format = "" })
	n.published("bad", "1.0.0")
	warnings := n.warnings(v1alpha1.ArtifactRepositoryKind, "bad", v1alpha1.ReasonUnsupportedMediaType)
	n.Expect(warnings).To(HaveLen(1))
	n.Expect(warnings[0].Count).To(BeNumerically("==", 1))
	n.eventually(func(g Gomega) {
		var told []string
		for _, alert := range env.alerts.about(n, sourcev1.ExternalArtifactKind, "bad") {
			told = append(told, alert.Severity+" "+alert.Reason)
		}
		g.Expect(told).To(Equal([]string{"info " + v1alpha1.ReasonNewArtifact, "error UnsupportedMediaType", "info Succeeded"}))
	})
}

// event waits for a Kubernetes event about the source app.
func (n *tenant) event(kind, eventType, reason string) (found corev1.Event) {
	n.Helper()
	n.eventually(func(g Gomega) {
		var list corev1.EventList
		g.Expect(env.Client.List(n.Context(), &list, client.InNamespace(n.namespace))).To(Succeed())
		var all []string
		for _, event := range list.Items {
			all = append(all, fmt.Sprintf("%s %s %s", event.InvolvedObject.Kind, event.Type, event.Reason))
			if event.InvolvedObject.Kind == kind && event.InvolvedObject.Name == "app" && event.Type == eventType && event.Reason == reason {
				found = event
			}
		}
		g.Expect(found.Name).NotTo(BeEmpty(), "no event %s %s about a %s in %v", eventType, reason, kind, all)
	})
	return found
}

// alert waits for a Flux event about the source app.
func (n *tenant) alert(kind, severity, reason string) (found eventv1.Event) {
	n.Helper()
	n.eventually(func(g Gomega) {
		alerts := env.alerts.about(n, kind, "app")
		for _, alert := range alerts {
			if alert.Severity == severity && alert.Reason == reason {
				found = alert
				return
			}
		}
		g.Expect(alerts).To(ContainElement(HaveField("Reason", reason)), "no Flux event %s %s about a %s", severity, reason, kind)
		g.Expect(alerts).To(ContainElement(HaveField("Severity", severity)), "no Flux event %s %s about a %s", severity, reason, kind)
	})
	return found
}

// read returns what an endpoint of the controller answers.
func (n *tenant) read(url string) string {
	n.Helper()
	request, err := http.NewRequestWithContext(n.Context(), http.MethodGet, url, nil)
	n.Expect(err).NotTo(HaveOccurred())
	answer, err := http.DefaultClient.Do(request)
	n.Expect(err).NotTo(HaveOccurred())
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(answer.StatusCode).To(Equal(http.StatusOK), "%s: %s", url, body)
	return string(body)
}

func TestMetricsAndProbes(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	n.fetch(n.published("app", n.pushAndScan("app", "1.0.0")))
	n.eventually(func(g Gomega) {
		metrics := n.read("http://" + env.controller.Metrics + "/metrics")
		object := fmt.Sprintf(`kind="ArtifactRepository",name="app",namespace=%q`, n.namespace)
		for _, want := range []string{
			`gotk_reconcile_duration_seconds_count{` + object + `}`,
			`gotk_suspend_status{` + object + `} 0`,
			`gotk_reconcile_condition{` + object + `,status="True",type="Ready"} 1`,
			`gotk_reconcile_condition{` + object + `,status="Unknown",type="SourceVerified"} 1`,
			`image_source_publish_duration_seconds_count `,
			`image_source_artifact_requests_total{code="200"}`,
			`image_source_artifact_bytes_total `,
			fmt.Sprintf(`image_source_registry_bytes_total{host=%q}`, env.Registry().Host()),
			fmt.Sprintf(`image_source_registry_requests_total{code="200",host=%q,operation="get-manifest"}`, env.Registry().Host()),
			fmt.Sprintf(`image_source_registry_requests_total{code="200",host=%q,operation="get-blob"}`, env.Registry().Host()),
			fmt.Sprintf(`image_source_registry_requests_total{code="200",host=%q,operation="head-manifest"}`, env.Registry().Host()),
		} {
			g.Expect(strings.Contains(metrics, want)).To(BeTrue(), "%s is missing of\n%s", want, ours(metrics, n.namespace))
		}
	})
	n.read("http://" + env.controller.Health + "/healthz")
	n.read("http://" + env.controller.Health + "/readyz")

	// An object that is gone leaves no series behind.
	n.label("")
	n.removed("app")
	n.eventually(func(g Gomega) {
		metrics := n.read("http://" + env.controller.Metrics + "/metrics")
		for line := range strings.Lines(metrics) {
			g.Expect(strings.Contains(line, `kind="ArtifactRepository"`) && strings.Contains(line, n.namespace)).To(BeFalse(), line)
		}
	})
}

// ours returns the metrics of this project and of one namespace.
func ours(metrics, namespace string) string {
	var lines []string
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "image_source") || strings.Contains(line, namespace) && !strings.Contains(line, "_bucket") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestTheLogNamesObjectAndDigest(t *testing.T) {
	t.Parallel()
	n := newTenant(t, v1alpha1.UseAsSourceEnabled)
	artifact := n.published("app", n.pushAndScan("app", "1.0.0"))
	n.eventually(func(g Gomega) {
		log, err := os.ReadFile(env.controller.LogFile())
		g.Expect(err).NotTo(HaveOccurred())
		var lines []string
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "published") && strings.Contains(line, n.namespace) {
				lines = append(lines, line)
			}
		}
		g.Expect(lines).To(ContainElement(And(ContainSubstring(artifact.Revision), ContainSubstring(artifact.Digest), ContainSubstring(`"app"`))))
	})
}
