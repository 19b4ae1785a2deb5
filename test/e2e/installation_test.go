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
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/image-source/image-source-controller/test/controlplane"
)

// installation is what a kustomization builds, beside what Flux has installed.
type installation struct {
	*tenant
	objects []*unstructured.Unstructured
}

var (
	textFence = regexp.MustCompile("(?ms)^```text\n(.*?)^```")
	onGitHub  = regexp.MustCompile(`https://github\.com/image-source/image-source-controller//([\w/.-]+)\?ref=[\w.-]+`)
)

// build builds a kustomization. What it names of this repository on GitHub is
// taken from this tree.
func (n *tenant) build(kustomization string) installation {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	// Resources are named relative to the folder of a kustomization.
	overlay := n.TempDir()
	below, err := filepath.Rel(overlay, root)
	n.Expect(err).NotTo(HaveOccurred())
	kustomization = onGitHub.ReplaceAllString(kustomization, filepath.ToSlash(below)+"/$1")
	n.Expect(kustomization).NotTo(ContainSubstring("https://"), "nothing is fetched from elsewhere")
	n.Expect(os.WriteFile(filepath.Join(overlay, "kustomization.yaml"), []byte(kustomization), 0o600)).To(Succeed())
	built, err := env.Kubectl(n.Context(), "kustomize", overlay)
	n.Expect(err).NotTo(HaveOccurred())

	i := installation{tenant: n}
	documents := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(built), 4096)
	for {
		obj := &unstructured.Unstructured{}
		err := documents.Decode(&obj.Object)
		if errors.Is(err, io.EOF) {
			return i
		}
		n.Expect(err).NotTo(HaveOccurred())
		i.objects = append(i.objects, obj)
	}
}

// of returns the objects of a kind; they have no field that it does not know.
func of[T any](i installation, kind string) (all []T) {
	i.Helper()
	for _, obj := range i.objects {
		if obj.GetKind() != kind {
			continue
		}
		var typed T
		i.Expect(runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(obj.Object, &typed, true)).To(Succeed(), obj.GetName())
		all = append(all, typed)
	}
	return all
}

// program is what runs in the Pods.
type program struct {
	path string
	// help is what it says of its flags.
	help string
}

func (n *tenant) program() program {
	n.Helper()
	p := program{path: env.Binary}
	help, _ := exec.CommandContext(n.Context(), p.path, "--help").CombinedOutput() // exits with 2
	p.help = string(help)
	return p
}

// value returns what a flag says: the last one of the arguments counts, and
// else the default.
func (p program) value(args []string, name string) string {
	for _, arg := range slices.Backward(args) {
		switch flag, value, given := strings.Cut(arg, "="); {
		case flag != "--"+name:
		case given:
			return value
		default:
			return "true"
		}
	}
	if match := regexp.MustCompile(`--` + name + ` .*\(default "?(.*?)"?\)`).FindStringSubmatch(p.help); match != nil {
		return match[1]
	}
	return ""
}

// lacksOnly is how far the program comes when all of its flags are right.
const lacksOnly = "no way to the API server is configured"

// start runs the program in the environment of a Pod, but for a cluster, and
// returns what it says before it ends.
func (n *tenant) start(p program, args []string) string {
	n.Helper()
	noCluster := filepath.Join(n.TempDir(), "kubeconfig")
	n.Expect(os.WriteFile(noCluster, []byte("no cluster"), 0o600)).To(Succeed())
	// Several run at once, and none is asked how it is.
	command := exec.CommandContext(n.Context(), p.path, append(slices.Clone(args), "--health-addr=0")...)
	command.Env = []string{
		"KUBECONFIG=" + noCluster, "KUBERNETES_SERVICE_HOST=192.0.2.1", "RUNTIME_NAMESPACE=" + controlplane.FluxNamespace,
	}
	output, err := command.CombinedOutput()
	var exit *exec.ExitError
	n.Expect(errors.As(err, &exit)).To(BeTrue(), "%v", err)
	return string(output)
}

// fits expects that the parts of an installation are about each other.
func (i installation) fits(p program) {
	i.Helper()
	deployments := of[appsv1.Deployment](i, "Deployment")
	i.Expect(deployments).To(HaveLen(1))
	deployment := deployments[0]
	i.Expect(deployment.Namespace).To(Equal(controlplane.FluxNamespace))
	pods := deployment.Spec.Template
	i.selects(deployment.Spec.Selector, pods)
	for _, constraint := range pods.Spec.TopologySpreadConstraints {
		i.selects(constraint.LabelSelector, pods)
	}
	budgets := of[policyv1.PodDisruptionBudget](i, "PodDisruptionBudget")
	i.Expect(budgets).To(HaveLen(1))
	i.selects(budgets[0].Spec.Selector, pods)

	i.Expect(pods.Spec.Containers).To(HaveLen(1))
	container := pods.Spec.Containers[0]
	var args []string
	for _, arg := range container.Args {
		args = append(args, strings.ReplaceAll(arg, "$(RUNTIME_NAMESPACE)", controlplane.FluxNamespace))
	}
	i.Expect(i.start(p, args)).To(ContainSubstring(lacksOnly))
	flag := func(name string) string { return p.value(args, name) }
	i.listens(container, map[string]string{"http": flag("storage-addr"), "http-prom": flag("metrics-addr"), "healthz": flag("health-addr")})
	i.Expect(pods.Annotations).To(HaveKeyWithValue("prometheus.io/port", fmt.Sprint(portOf(container, "http-prom"))))
	i.probes(container)
	i.reaches(pods, flag("storage-adv-addr"))
	i.Expect(i.reaches(pods, flag("storage-peers")).Spec.ClusterIP).To(Equal(corev1.ClusterIPNone), "peers are all replicas, not any of them")
	i.admits(pods)
	i.stores(pods, flag("storage-path"))
	i.ends(pods, flag("shutdown-delay"))

	// Two need to agree on who leads, and one need not end when it cannot ask.
	i.Expect(flag("enable-leader-election")).To(Equal(fmt.Sprint(*deployment.Spec.Replicas > 1)))
	if deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		i.Expect(*deployment.Spec.Replicas).To(BeEquivalentTo(1))
	}
}

func (i installation) selects(selector *metav1.LabelSelector, pods corev1.PodTemplateSpec) {
	i.Helper()
	i.Expect(matches(i, selector, pods)).To(BeTrue(), "%s does not select Pods with %v", metav1.FormatLabelSelector(selector), pods.Labels)
}

func matches(g Gomega, selector *metav1.LabelSelector, pods corev1.PodTemplateSpec) bool {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	g.Expect(err).NotTo(HaveOccurred())
	return parsed.Matches(labels.Set(pods.Labels))
}

func portOf(container corev1.Container, name string) int32 {
	for _, port := range container.Ports {
		if port.Name == name {
			return port.ContainerPort
		}
	}
	return 0
}

// listens expects that the ports of a container are those that the program
// opens.
func (i installation) listens(container corev1.Container, addresses map[string]string) {
	i.Helper()
	i.Expect(container.Ports).To(HaveLen(len(addresses)))
	for name, address := range addresses {
		_, port, err := net.SplitHostPort(address)
		i.Expect(err).NotTo(HaveOccurred(), name)
		i.Expect(fmt.Sprint(portOf(container, name))).To(Equal(port), name)
	}
}

// probes expects that all probes ask what is answered.
func (i installation) probes(container corev1.Container) {
	i.Helper()
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		i.Expect(probe).NotTo(BeNil())
		i.Expect(probe.HTTPGet.Port.String()).To(Equal("healthz"))
		i.read("http://" + env.controller.Health + probe.HTTPGet.Path)
	}
}

// reaches expects that a host and port leads to the artifacts of the Pods by a
// Service, which it returns.
func (i installation) reaches(pods corev1.PodTemplateSpec, address string) corev1.Service {
	i.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = address, "80"
	}
	services := of[corev1.Service](i, "Service")
	at := slices.IndexFunc(services, func(s corev1.Service) bool { return host == s.Name+"."+s.Namespace+".svc.cluster.local." })
	i.Expect(at).NotTo(Equal(-1), "no Service is %s", host)
	service := services[at]
	i.selects(metav1.SetAsLabelSelector(service.Spec.Selector), pods)
	i.Expect(service.Spec.Ports).To(HaveLen(1))
	i.Expect(fmt.Sprint(service.Spec.Ports[0].Port)).To(Equal(port))
	i.Expect(service.Spec.Ports[0].TargetPort.String()).To(Equal("http"))
	if service.Spec.ClusterIP == corev1.ClusterIPNone { // nobody translates its port
		i.Expect(service.Spec.Ports[0].Port).To(Equal(portOf(pods.Spec.Containers[0], "http")))
		i.Expect(service.Spec.PublishNotReadyAddresses).To(BeTrue())
	}
	return service
}

// admits expects that the NetworkPolicy lets all ports of the Pods be reached,
// artifacts by the Pods of the namespace alone.
func (i installation) admits(pods corev1.PodTemplateSpec) {
	i.Helper()
	policies := of[networkingv1.NetworkPolicy](i, "NetworkPolicy")
	i.Expect(policies).To(HaveLen(1))
	i.selects(&policies[0].Spec.PodSelector, pods)
	var admitted []string
	for _, rule := range policies[0].Spec.Ingress {
		for _, port := range rule.Ports {
			admitted = append(admitted, port.Port.String())
			if port.Port.String() == "http" {
				i.Expect(rule.From).To(Equal([]networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}))
			}
		}
	}
	var ports []string
	for _, port := range pods.Spec.Containers[0].Ports {
		ports = append(ports, port.Name)
	}
	i.Expect(admitted).To(ConsistOf(ports))
}

// stores expects that artifacts are in a volume of their own, which exists.
func (i installation) stores(pods corev1.PodTemplateSpec, path string) {
	i.Helper()
	volumes := map[string]corev1.Volume{}
	for _, volume := range pods.Spec.Volumes {
		volumes[volume.Name] = volume
	}
	mounted := map[string]corev1.Volume{}
	for _, mount := range pods.Spec.Containers[0].VolumeMounts {
		i.Expect(volumes).To(HaveKey(mount.Name))
		mounted[mount.MountPath] = volumes[mount.Name]
	}
	i.Expect(mounted).To(And(HaveLen(len(volumes)), HaveKey(path), HaveKey("/tmp")))
	claims := of[corev1.PersistentVolumeClaim](i, "PersistentVolumeClaim")
	if claim := mounted[path].PersistentVolumeClaim; claim != nil {
		i.Expect(claims).To(ConsistOf(HaveField("Name", claim.ClaimName)))
	} else {
		i.Expect(claims).To(BeEmpty())
	}
}

// ends expects that a Pod which is told to end has the time to.
func (i installation) ends(pods corev1.PodTemplateSpec, delay string) {
	i.Helper()
	drained, err := time.ParseDuration(delay)
	i.Expect(err).NotTo(HaveOccurred())
	root, err := controlplane.Root()
	i.Expect(err).NotTo(HaveOccurred())
	source, err := os.ReadFile(filepath.Join(root, "pkg", "operator", "setup.go"))
	i.Expect(err).NotTo(HaveOccurred())
	match := regexp.MustCompile(`(?m)^const shutdownTimeout = (\d+) \* time\.Second$`).FindSubmatch(source)
	i.Expect(match).NotTo(BeNil(), "where is it said how long running downloads get?")
	downloaded, err := time.ParseDuration(string(match[1]) + "s")
	i.Expect(err).NotTo(HaveOccurred())
	grace := time.Duration(*pods.Spec.TerminationGracePeriodSeconds) * time.Second
	i.Expect(grace).To(BeNumerically(">", drained+downloaded))
}

// applies expects that the API server takes it all, but for kinds of others.
func (i installation) applies() {
	i.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion("v1")
	list.SetKind("List")
	for _, obj := range i.objects {
		if obj.GroupVersionKind().Group != "monitoring.coreos.com" {
			list.Items = append(list.Items, *obj)
		}
	}
	text, err := list.MarshalJSON()
	i.Expect(err).NotTo(HaveOccurred())
	file := filepath.Join(i.TempDir(), "installation.json")
	i.Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	_, err = env.Kubectl(i.Context(), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", file)
	i.Expect(err).NotTo(HaveOccurred())
}

// kustomizations are all that this repository offers and its documentation
// shows, by what they are.
func (n *tenant) kustomizations() map[string]string {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	const ours = "https://github.com/image-source/image-source-controller//config/%s?ref=main"
	resource := fmt.Sprintf("resources: ["+ours+"]\n", "default")
	all := map[string]string{"config/default": resource}
	err = filepath.WalkDir(filepath.Join(root, "config"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "kind: Component") {
			return err
		}
		name, err := filepath.Rel(filepath.Join(root, "config"), filepath.Dir(path))
		all["config/default with config/"+filepath.ToSlash(name)] = resource + fmt.Sprintf("components: ["+ours+"]\n", filepath.ToSlash(name))
		return err
	})
	n.Expect(err).NotTo(HaveOccurred())
	n.Expect(len(all)).To(BeNumerically(">", 5), "%v", slices.Sorted(maps.Keys(all)))
	shown := map[string]int{}
	for _, block := range n.blocks(root, textFence) {
		if strings.HasPrefix(block.content, "apiVersion: kustomize.config.k8s.io/") && onGitHub.MatchString(block.content) {
			shown[block.page]++
			all[fmt.Sprintf("kustomization %d of %s", shown[block.page], block.page)] = block.content
		}
	}
	n.Expect(shown[filepath.Join("docs", "operations.md")]).To(BeNumerically(">=", 5))
	all["a shard with a volume"] = n.documentedShard() + "components: [" + fmt.Sprintf(ours, "components/pvc") + "]\n"
	return all
}

// documentedShard is how the documentation has a shard installed.
func (n *tenant) documentedShard() string {
	n.Helper()
	root, err := controlplane.Root()
	n.Expect(err).NotTo(HaveOccurred())
	blocks := n.blocks(root, textFence)
	at := slices.IndexFunc(blocks, func(b block) bool { return strings.Contains(b.content, "\nnameSuffix: -shard1\n") })
	n.Expect(at).NotTo(Equal(-1), "no page says how a shard is installed")
	return blocks[at].content
}

// Whatever is installed in a way that is offered or documented starts, finds
// and is found.
func TestInstallationsFitTogether(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	program := n.program()
	n.Expect(n.start(program, []string{"--storage-adv-addr=localhost"})).To(ContainSubstring(lacksOnly))
	n.Expect(n.start(program, []string{"--storage-adv-addr=localhost", "--watch-label-selector=a in b"})).NotTo(ContainSubstring(lacksOnly))
	n.Expect(n.start(program, []string{"--storage-adv-addr=localhost", "--no-such-flag"})).NotTo(ContainSubstring(lacksOnly))

	for name, kustomization := range n.kustomizations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &tenant{T: t, Gomega: NewWithT(t), namespace: n.namespace}
			installation := n.build(kustomization)
			installation.fits(program)
			installation.applies()
		})
	}
}

// A shard and what it is installed beside share the rights, and nothing else:
// neither is taken for a part of the other.
func TestShardsAreInstalledBesideEachOther(t *testing.T) {
	t.Parallel()
	n := newTenant(t, "")
	usual := n.build("resources: [https://github.com/image-source/image-source-controller//config/default?ref=main]\n")
	shard := n.build(n.documentedShard())
	for _, pair := range [][2]installation{{usual, shard}, {shard, usual}} {
		one := pair[0]
		others := of[appsv1.Deployment](pair[1], "Deployment")[0].Spec.Template
		for _, deployment := range of[appsv1.Deployment](one, "Deployment") {
			n.Expect(matches(n, deployment.Spec.Selector, others)).To(BeFalse())
		}
		for _, service := range of[corev1.Service](one, "Service") {
			n.Expect(matches(n, metav1.SetAsLabelSelector(service.Spec.Selector), others)).To(BeFalse(), service.Name)
		}
		for _, budget := range of[policyv1.PodDisruptionBudget](one, "PodDisruptionBudget") {
			n.Expect(matches(n, budget.Spec.Selector, others)).To(BeFalse())
		}
		for _, policy := range of[networkingv1.NetworkPolicy](one, "NetworkPolicy") {
			n.Expect(matches(n, &policy.Spec.PodSelector, others)).To(BeFalse())
		}
	}
	account := of[appsv1.Deployment](shard, "Deployment")[0].Spec.Template.Spec.ServiceAccountName
	n.Expect(of[corev1.ServiceAccount](usual, "ServiceAccount")).To(ConsistOf(HaveField("Name", account)))
	names := func(i installation) (all []string) {
		for _, obj := range i.objects {
			all = append(all, obj.GetKind()+" "+cmp.Or(obj.GetNamespace(), "-")+"/"+obj.GetName())
		}
		return all
	}
	n.Expect(names(shard)).NotTo(ContainElement(BeElementOf(names(usual))), "one would overwrite the other")
}
