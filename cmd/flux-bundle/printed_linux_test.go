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
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

// orders are texts that a terminal or a CI service would obey.
const orders = "x\x1b[2J\x1b]0;title\a\r\n::error::injected\n \u00a0::add-mask::x\n##[error]x ##vso[task.setvariable variable=a]b\u202egnp\u2066\u009b31m"

var ciCommand = regexp.MustCompile(`(?m)^\s*::|##\pL*\[`)

// expectNoOrders fails where a run printed what something would obey.
func expectNoOrders(g *WithT, run result) {
	g.THelper()
	for _, text := range []string{run.out, run.err} {
		text = strings.ReplaceAll(text, "\r\n", "\n") // the end of a line, as in a diff for patch(1)
		for _, r := range text {
			g.Expect(r == '\n' || r == '\t' || isPlain(r)).To(BeTrue(), "%q in %q", r, text)
		}
		g.Expect(ciCommand.FindString(text)).To(BeEmpty(), text)
	}
}

// TestNoVerbPrintsWhatSomethingWouldObey runs all verbs as they are shipped over
// trees, artifacts and registries that are full of orders.
func TestNoVerbPrintsWhatSomethingWouldObey(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	push := func(tag string, content string) string {
		layer, err := publish.Layer(publish.Files{"::error::a.yaml": content, "##[error]b.txt": content, "\u202egnp.yaml": content})
		g.Expect(err).NotTo(HaveOccurred())
		artifact, err := publish.FluxImage(static.NewLayer(layer, publish.FluxContent))
		g.Expect(err).NotTo(HaveOccurred())
		artifact = mutate.Annotations(artifact, map[string]string{"::error::k": orders, orders: "v"}).(v1.Image)
		image := "org/app:" + tag
		g.Expect(r.Shelf().Push(t.Context(), image, artifact)).To(Succeed())
		return r.Host() + "/" + image
	}
	first := push("v1", configMap+"# "+orders+"\n")
	second := push("v2", configMap+"\n::error::y\n##vso[x]\u202e\n")
	_, public := keyPair(t, "secret")
	tree := folder(t, map[string]string{
		"kustomization.yaml": "resources: [a.yaml]\nvars:\n- name: \"a\\n::error::b\\e[31m ##[error]\\u202e\"\n  objref: {apiVersion: v1, kind: ConfigMap, name: app}\n",
		"a.yaml":             configMap,
	})
	unfetched := folder(t, map[string]string{"kustomization.yaml": "resources: [\"http://127.0.0.1:1/\\n::error::\\e[31m\\u202e\"]\n"})
	misspelt := folder(t, map[string]string{"::error::\u202e.yaml": "a: [\n::error::\n"})
	unknown := folder(t, map[string]string{"kustomization.yaml": "\"\\n::error::\\e[31m ##[error]\\u202e\": 1\n"})
	missing := folder(t, map[string]string{"kustomization.yaml": "resources: [\"\\n::error::\\e[31m ##[error]\\u202e\"]\n"})
	named := t.TempDir()
	for _, name := range []string{"\n::error::x.yaml", "\x1b[31m.yaml"} {
		g.Expect(os.WriteFile(filepath.Join(named, name), []byte(configMap), 0o600)).To(Succeed())
	}
	linked := folder(t, map[string]string{"a.yaml": configMap})
	g.Expect(os.Symlink("a.yaml", filepath.Join(linked, "\n::error::\x1b[31m"))).To(Succeed())
	to := r.Host() + "/org/pushed:v1"
	for name, args := range map[string][]string{
		"push": {"push", "-f", tree, "-t", to}, "push as YAML": {"push", "-f", tree, "-t", to, "-a", "a=" + orders, "-o", "yaml"},
		"push of an address": {"-f", unfetched, "-t", to}, "push of no YAML": {"-f", misspelt, "-t", to}, "push of an unknown field": {"-f", unknown, "-t", to},
		"push of a file that is missing": {"-f", missing, "-t", to}, "push of hostile names": {"-f", named, "-t", to}, "push of links": {"-f", linked, "-t", to},
		"push of a hostile path": {"-f", orders, "-t", to}, "push to a hostile reference": {"-f", tree, "-t", orders}, "a hostile verb": {orders}, "a hostile flag": {"--" + orders},
		"a hostile value": {"push", "--timeout", orders}, "a hostile short flag": {"-\x1b[31m"},
		"inspect": {"inspect", first}, "inspect as JSON": {"inspect", first, "-o", "json"}, "inspect as YAML": {"inspect", first, "-o", "yaml"},
		"pull": {"pull", first, "-o", filepath.Join(t.TempDir(), "a")}, "pull to a hostile path": {"pull", first, "-o", filepath.Join(t.TempDir(), orders)},
		"diff": {"diff", first, second}, "diff as JSON": {"diff", first, second, "-o", "json"}, "diff as YAML": {"diff", first, second, "-o", "yaml"},
		"verify": {"verify", first, "--key", public}, "verify with a hostile key": {"verify", first, "--key", orders},
		"generate-key-pair": {"generate-key-pair", "--output-key-prefix", filepath.Join(t.TempDir(), orders)}, "completion": {"__complete", "push", "--" + orders, ""},
	} {
		t.Run(name, func(t *testing.T) {
			expectNoOrders(NewWithT(t), ship(t, environment{passwordVariable: "secret"}, args...))
		})
	}
	r.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Warning", "299 - \"::error::x\"")
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"::error::\u001b[31m","message":"a\n::error::b\u001b[31m\r##[error]\u202e"}]}`)
		return true
	})
	for _, args := range [][]string{
		{"push", "-f", tree, "-t", to}, {"inspect", first}, {"pull", first, "-o", filepath.Join(t.TempDir(), "b")}, {"diff", first, second}, {"verify", first, "--key", public},
	} {
		t.Run(args[0]+" of a registry that refuses", func(t *testing.T) {
			g := NewWithT(t)
			run := ship(t, nil, args...)
			g.Expect(run.code).NotTo(Equal(exitOK))
			expectNoOrders(g, run)
		})
	}
}

// TestScriptsOfShellsAreNotChanged: nothing in them would be obeyed, and a shell
// runs them.
func TestScriptsOfShellsAreNotChanged(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		NewWithT(t).Expect(must(t, "completion", shell)).NotTo(MatchRegexp(`\\x(3a|5b)`), shell)
	}
}

func TestAGuardLetsTextPassInAnyParts(t *testing.T) {
	g := NewWithT(t)
	const text = "a\tb\r\nc: d::e # f [g] ## h\né 漢 👩‍🚀\n"
	var whole, parts strings.Builder
	_, err := (&guard{to: &whole}).Write([]byte(text))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(whole.String()).To(Equal(text))

	byByte := &guard{to: &parts}
	for _, b := range []byte("é\n :: x\n##a[b\x1b\n") {
		_, err := byByte.Write([]byte{b})
		g.Expect(err).NotTo(HaveOccurred())
	}
	g.Expect(parts.String()).To(Equal("é\n :\\x3a x\n##a\\x5bb\\x1b\n"))
}
