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
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

// childVariable turns the binary of the tests into the command; it holds the
// arguments.
const childVariable = "FLUX_BUNDLE_TEST_CHILD"

// programVariable turns the binary of the tests into the program as it is shipped.
const programVariable = "FLUX_BUNDLE_TEST_PROGRAM"

// child runs the command and says how much memory it needed at most.
func child(args []string) int {
	code := execute(streams{in: strings.NewReader(""), out: io.Discard, err: os.Stderr, lookupEnv: os.LookupEnv}, args)
	status, err := os.Open("/proc/self/status")
	if err != nil {
		panic(err)
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if kib, found := strings.CutPrefix(lines.Text(), "VmHWM:"); found {
			fmt.Fprintln(os.Stdout, strings.Fields(kib)[0])
		}
	}
	return code
}

// TestMain gives every test an empty home: no credentials, no settings of git.
// A test may run the binary again as the command itself, and the command does so to
// check what it has packed.
func TestMain(m *testing.M) {
	if _, found := os.LookupEnv(programVariable); found || len(os.Args) > 1 && os.Args[1] == checkVerb {
		os.Exit(start(os.Args[1:]))
	}
	if args, found := os.LookupEnv(childVariable); found {
		os.Exit(child(strings.Split(args, "\n")))
	}
	home, err := os.MkdirTemp("", "flux-bundle")
	if err != nil {
		panic(err)
	}
	for variable, value := range map[string]string{
		"HOME": home, "DOCKER_CONFIG": home, "XDG_CONFIG_HOME": home, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.DevNull,
	} {
		if err := os.Setenv(variable, value); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	_ = os.RemoveAll(home) // the system removes what is left
	os.Exit(code)
}

// environment is what a command is run with.
type environment map[string]string

// result is what a command did.
type result struct {
	code     int
	out, err string
}

// flux runs the command without a terminal.
func (e environment) flux(t *testing.T, args ...string) result {
	t.Helper()
	var out, err bytes.Buffer
	lookup := func(name string) (string, bool) { value, set := e[name]; return value, set }
	code := run(t.Context(), streams{in: strings.NewReader(""), out: &out, err: &err, lookupEnv: lookup}, args)
	return result{code, out.String(), err.String()}
}

// flux runs the command in an empty environment.
func flux(t *testing.T, args ...string) result {
	t.Helper()
	return environment{}.flux(t, args...)
}

// must is flux for what has to succeed; it returns standard output.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := flux(t, args...)
	NewWithT(t).Expect(r.code).To(Equal(exitOK), r.err)
	return r.out
}

// serve starts a registry in this process.
func serve(t *testing.T) *publish.InProcess {
	t.Helper()
	r := publish.Serve()
	t.Cleanup(r.Close)
	return r
}

// folder writes files, by their path, to a folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, files)
	return dir
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	g := NewWithT(t)
	for name, content := range files {
		path := filepath.Join(dir, name)
		g.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		g.Expect(os.WriteFile(path, []byte(content), 0o644)).To(Succeed())
	}
}

// treeOf reads all files of a folder.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(body)
		return err
	})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return files
}

// manifests is a folder that can be deployed.
func manifests(t *testing.T) string {
	t.Helper()
	return folder(t, map[string]string{
		"kustomization.yaml": "resources:\n- app/config.yaml\n",
		"app/config.yaml":    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app\ndata:\n  greeting: hello\n",
	})
}

// ask runs git in a folder, as somebody, at a time.
func ask(t *testing.T, dir string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "git", args...)
	command.Dir = dir
	command.Env = append(os.Environ(),
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05+01:00", "GIT_COMMITTER_DATE=2026-01-02T03:04:05+01:00")
	out, err := command.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), string(out))
	return strings.TrimSpace(string(out))
}

// keyPair makes cosign.key and cosign.pub and returns their paths.
func keyPair(t *testing.T, password string) (private, public string) {
	t.Helper()
	prefix := filepath.Join(t.TempDir(), "cosign")
	r := environment{passwordVariable: password}.flux(t, "generate-key-pair", "--output-key-prefix", prefix)
	NewWithT(t).Expect(r.code).To(Equal(exitOK), r.err)
	return prefix + ".key", prefix + ".pub"
}

// replaced returns arguments followed by others, without the flags and values of the
// first that the others give again.
func replaced(args, by []string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		if len(by) > 0 && len(args[i]) == len("-f") && args[i] == by[0] {
			i++
			continue
		}
		kept = append(kept, args[i])
	}
	return append(kept, by...)
}
