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
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	seccomp "github.com/elastic/go-seccomp-bpf"
	. "github.com/onsi/gomega"
)

// program prepares a run of the program as it is shipped, with variables beside
// those of the test.
func program(ctx context.Context, variables environment, args ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, os.Args[0], args...)
	command.Env = append(os.Environ(), programVariable+"=1")
	for name, value := range variables {
		command.Env = append(command.Env, name+"="+value)
	}
	return command
}

// ship runs the program to its end.
func ship(t *testing.T, variables environment, args ...string) result {
	t.Helper()
	var out, said bytes.Buffer
	command := program(t.Context(), variables, args...)
	command.Stdout, command.Stderr = &out, &said
	err := command.Run()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		t.Fatal(err)
	}
	return result{command.ProcessState.ExitCode(), out.String(), said.String()}
}

// outside is all that a tree could reach: a server, and a git in the search path
// that leaves its process id and its environment in a file, and waits.
type outside struct {
	requests atomic.Int64
	url      string
	// path is the search path, and left the file.
	path, left string
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		o.requests.Add(1)
		fmt.Fprint(w, configMap)
	}))
	t.Cleanup(server.Close)
	o.url = server.URL
	dir := t.TempDir()
	o.left = filepath.Join(dir, "left")
	script := "#!/bin/sh\n{ echo $$; env; } > " + o.left + ".new && mv " + o.left + ".new " + o.left + "\nread _ < " + pipe(t) + "\n"
	for _, name := range []string{"git", "helm", "docker", "ssh"} {
		NewWithT(t).Expect(os.WriteFile(filepath.Join(dir, name), []byte(script), 0o700)).To(Succeed())
	}
	o.path = dir + string(filepath.ListSeparator) + os.Getenv("PATH")
	return o
}

// hostileTrees use the network or programs, each by another way.
func hostileTrees(o *outside) map[string]map[string]string {
	host := strings.TrimPrefix(o.url, "http://")
	file := o.url + "/a.yaml"
	kustomized := func(text string) map[string]string {
		return map[string]string{"kustomization.yaml": text, "a.yaml": configMap}
	}
	function := func(spec string) map[string]string {
		return map[string]string{
			"kustomization.yaml": "resources: [a.yaml]\ntransformers: [function.yaml]\n",
			"a.yaml":             configMap,
			"function.yaml":      "apiVersion: example.com/v1\nkind: Function\nmetadata:\n  name: f\n  annotations:\n    config.kubernetes.io/function: |\n      " + spec + "\n",
			"run.sh":             "#!/bin/sh\necho ran > " + o.left + "\n",
		}
	}
	trees := map[string]map[string]string{
		"a scheme in capitals":   kustomized("resources: ['" + strings.Replace(file, "http", "HTTP", 1) + "']\n"),
		"a forced protocol":      kustomized("resources: ['git::" + o.url + "/org/repo']\n"),
		"a repository":           kustomized("resources: ['" + o.url + "/org/repo?ref=v1']\n"),
		"a local repository":     kustomized("resources: ['file:///tmp/org/repo.git']\n"),
		"an option as host":      kustomized("resources: ['ssh://-oProxyCommand=git/org/repo']\n"),
		"an option as reference": kustomized("resources: ['" + o.url + "/org/repo?ref=--upload-pack=git']\n"),
		"a user":                 kustomized("components: ['me@" + host + ":org/repo.git']\n"),
		"a host of GitHub":       kustomized("resources: ['github.com:org/repo']\n"),
		"an old field":           kustomized("bases: ['" + o.url + "/org/repo']\n"),
		"a patch":                kustomized("resources: [a.yaml]\npatches: [{path: '" + file + "'}]\n"),
		"an old patch":           kustomized("resources: [a.yaml]\npatchesStrategicMerge: ['" + file + "']\n"),
		"an older patch":         kustomized("resources: [a.yaml]\npatchesJson6902: [{path: '" + file + "', target: {version: v1, kind: ConfigMap, name: app}}]\n"),
		"a replacement":          kustomized("resources: [a.yaml]\nreplacements: [{path: '" + file + "'}]\n"),
		"a schema":               kustomized("resources: [a.yaml]\nopenapi: {path: '" + file + "'}\n"),
		"a file of a ConfigMap":  kustomized("configMapGenerator: [{name: a, files: ['" + file + "']}]\n"),
		"variables of a Secret":  kustomized("secretGenerator: [{name: a, envs: ['" + file + "']}]\n"),
		"a chart":                kustomized("helmCharts: [{name: a, repo: '" + o.url + "', version: 1.0.0}]\n"),
		"a chart of a generator": kustomized("generators:\n- |-\n  apiVersion: builtin\n  kind: HelmChartInflationGenerator\n  metadata: {name: a}\n  name: a\n  repo: " + o.url + "\n"),
		"a program as function":  function("exec: {path: ./run.sh}"),
		"an image as function":   function("container: {image: example.com/a, network: true}"),
		"a script as function":   function("starlark: {url: '" + file + "'}"),
		"a folder named like an address": {
			"kustomization.yaml":                     "resources: ['" + o.url + "/org/repo']\n",
			"http:/" + host + "/org/repo/a.yaml":     configMap,
			"http:/" + host + "/org/repo/ignored.go": "",
		},
		"a kustomization inside a chart": {
			"kustomization.yaml":             "resources: [app/templates]\n",
			"app/Chart.yaml":                 "name: a\n",
			"app/templates/Kustomization":    "resources: ['" + file + "']\n",
			"app/templates/deployment.yaml":  "{{ a }}\n",
			"app/templates/sub/.placeholder": "",
		},
		"a base of a base": {
			"kustomization.yaml":   "resources: [x]\n",
			"x/kustomization.yml":  "resources: [../y]\n",
			"y/Kustomization":      "components: [../z]\n",
			"z/kustomization.yaml": "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nresources: ['" + file + "']\n",
		},
		"a folder without a kustomization": {
			"a.yaml":               configMap,
			"x/kustomization.yaml": "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\ncomponents: ['" + o.url + "/org/repo']\n",
		},
	}
	for _, field := range []string{"resources", "components", "generators", "transformers", "validators", "crds", "configurations"} {
		trees["an address in "+field] = kustomized(field + ": ['" + file + "']\n")
	}
	return trees
}

func TestNoTreeReachesNetworkOrPrograms(t *testing.T) {
	o := newOutside(t)
	variables := environment{"PATH": o.path, passwordVariable: "secret-password"}
	for name, files := range hostileTrees(o) {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := ship(t, variables, "-f", folder(t, files), "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
			g.Expect(run.err).To(Or(ContainSubstring("error: "), ContainSubstring("--remote-bases")))
			g.Expect(o.requests.Load()).To(BeZero(), run.err)
			g.Expect(o.left).NotTo(BeAnExistingFile(), run.err)
		})
	}
}

// TestTheKernelRefusesWhatTheCheckDoesNotUse looks at a process of its own after it
// gave up the network and programs.
func TestTheKernelRefusesWhatTheCheckDoesNotUse(t *testing.T) {
	const child = "FLUX_BUNDLE_TEST_ISOLATED"
	if os.Getenv(child) == "" {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		command.Env = append(os.Environ(), child+"=1")
		out, err := command.CombinedOutput()
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
		return
	}
	g := NewWithT(t)
	g.Expect(isolate(checkJob{})).To(Succeed(), "this kernel does not confine the check: there is nothing to test on this machine")
	_, err := http.Get("http://127.0.0.1:1/") //nolint:bodyclose,forbidigo // there is no answer: this transport is the subject
	g.Expect(err).To(MatchError(ContainSubstring(refused)))
	_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	g.Expect(err).To(MatchError(syscall.EPERM))
	g.Expect(exec.Command("/bin/true").Run()).To(MatchError(syscall.EPERM))
}

// TestWhereTheKernelDoesNotConfineTheCheck runs the program where the kernel refuses
// system calls that it needs for that, as some sandboxes of CI services do.
func TestWhereTheKernelDoesNotConfineTheCheck(t *testing.T) {
	const child = "FLUX_BUNDLE_TEST_UNCONFINED"
	g := NewWithT(t)
	if calls := os.Getenv(child); calls != "" {
		g.Expect(seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionErrno | seccomp.Action(syscall.ENOSYS), Names: strings.Split(calls, ",")}},
		}})).To(Succeed())
		args := []string{"-f", manifests(t), "-t", "127.0.0.1:1/org/app:v1", "--dry-run"}
		run := ship(t, nil, args...)
		g.Expect(run.code).To(Equal(exitOK), run.err)
		g.Expect(run.err).To(ContainSubstring("warning: the kernel does not confine the process that checks the packed files: it does not "))
		run = ship(t, nil, append(args, "--strict")...)
		g.Expect(run.code).To(Equal(exitFailure))
		g.Expect(run.out).To(BeEmpty())
		g.Expect(run.err).To(ContainSubstring("error: the kernel does not confine the process"))
		return
	}
	for _, calls := range []string{"seccomp", "prlimit64,setrlimit"} {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		command.Env = append(os.Environ(), child+"="+calls)
		out, err := command.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), string(out))
	}
}

// startsGit is a tree whose remote base is fetched by the git of newOutside.
func startsGit(t *testing.T) string {
	t.Helper()
	return folder(t, map[string]string{"kustomization.yaml": "resources: ['ssh://127.0.0.1/org/repo']\n"})
}

// expectEnd waits for a process to be gone.
func expectEnd(g *WithT, o *outside) {
	body, err := os.ReadFile(o.left)
	g.Expect(err).NotTo(HaveOccurred())
	pid, err := strconv.Atoi(strings.Fields(string(body))[0])
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() bool {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(status), ") Z ") // nobody waits for it in a container without an init
	}, time.Minute).Should(BeTrue(), "git lives on")
	g.Expect(string(body)).NotTo(ContainSubstring("secret-password"))
}

func TestTrustedTreesGetNeitherPasswordNorMoreTime(t *testing.T) {
	args := []string{"-f", startsGit(t), "-t", "127.0.0.1:1/org/app:v1", "--dry-run", "--remote-bases"}
	t.Run("the time is over", func(t *testing.T) {
		g, o := NewWithT(t), newOutside(t)
		run := ship(t, environment{"PATH": o.path, passwordVariable: "secret-password"}, append(args, "--timeout", "3s")...)
		g.Expect(run.code).To(Equal(exitFailure))
		expectOneError(g, run, "gave up after 3s (--timeout)", "kustomize did not finish")
		expectEnd(g, o)
	})
	t.Run("the command is killed", func(t *testing.T) {
		g, o := NewWithT(t), newOutside(t)
		command := program(t.Context(), environment{"PATH": o.path, passwordVariable: "secret-password"}, args...)
		g.Expect(command.Start()).To(Succeed())
		g.Eventually(o.left, time.Minute).Should(BeAnExistingFile())
		g.Expect(command.Process.Kill()).To(Succeed())
		g.Expect(command.Wait()).NotTo(Succeed())
		expectEnd(g, o)
	})
}

func TestTreesThatEndKustomizeAreErrors(t *testing.T) {
	bomb := configMap + "data:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 11 {
		bomb += fmt.Sprintf("  a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", "))
	}
	cycle := configMap + "data: &a {b: *a}\n"
	for name, c := range map[string]struct {
		files map[string]string
		words string
	}{
		"an alias of what it is in, in a file of another name": {map[string]string{"kustomization.yaml": "resources: [a]\n", "a": cycle}, "stack overflow"},
		"an alias of what it is in, in a patch": {
			map[string]string{"kustomization.yaml": "resources: [a.yaml]\npatches:\n- patch: |-\n    " + strings.ReplaceAll(cycle, "\n", "\n    "), "a.yaml": configMap}, "stack overflow",
		},
		"more aliases than there is memory": {map[string]string{"kustomization.yaml": "resources: [a]\n", "a": bomb}, "memory"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := ship(t, nil, "-f", folder(t, c.files), "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
			g.Expect(run.code).To(Equal(exitFailure))
			expectOneError(g, run, "kustomization.yaml: it cannot be checked: kustomize ended with ", c.words)
		})
	}
}

// TestNoMessageOfTheCheckIsLost has messages of more than a line may have.
func TestNoMessageOfTheCheckIsLost(t *testing.T) {
	long := strings.Repeat("x", 2*maxCheckLine)
	for name, c := range map[string]struct {
		text, says string
		code       int
	}{
		"an address":              {"resources: ['https://example.com/" + long + "']\n", "warning: ", exitOK},
		"a resource that is away": {"resources: ['" + long + "']\n", "error: ", exitFailure},
		"a patch that is away":    {"resources: [a.yaml]\npatches: [{path: '" + long + "'}]\n", "error: ", exitFailure},
		"a field":                 {"resources: [a.yaml]\n" + long + ": 1\n", "error: ", exitFailure},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := ship(t, nil, "-f", folder(t, map[string]string{"kustomization.yaml": c.text, "a.yaml": configMap}), "-t", "127.0.0.1:1/org/app:v1", "--dry-run")
			g.Expect(run.code).To(Equal(c.code), run.err)
			g.Expect(run.err).To(And(ContainSubstring(c.says), ContainSubstring("kustomization.yaml"), Not(ContainSubstring("%!"))))
		})
	}
}

func TestTheCheckGetsNoEnvironment(t *testing.T) {
	g := NewWithT(t)
	s := streams{lookupEnv: func(name string) (string, bool) { return "value of " + name, true }}
	g.Expect(checkEnvironment(s, checkJob{})).To(And(Not(BeNil()), BeEmpty()), "without a list, a process gets all of its parent")
	g.Expect(checkEnvironment(s, checkJob{remoteBases: true})).To(And(ContainElement("PATH=value of PATH"), Not(ContainElement(ContainSubstring("COSIGN")))))
}
