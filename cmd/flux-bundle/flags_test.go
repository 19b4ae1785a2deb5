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
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
)

// TestWhatCannotBeMeantIsRefusedBeforeAnyWork gives each verb values that no work
// is needed to judge: one line says what is wrong, nothing is packed, and the
// registry is not asked.
func TestAFlagThatTakesOneValueIsGivenOnce(t *testing.T) {
	g := NewWithT(t)
	a, b := folder(t, map[string]string{"a.txt": "a"}), folder(t, map[string]string{"b.txt": "b"})
	to := []string{"-t", "localhost:5000/org/app:v1", "-t", "localhost:5000/org/app:v2", "--dry-run"}
	g.Expect(flux(t, append(to, "-f", a)...).code).To(BeZero())
	for flag, args := range map[string][]string{
		"path":     {"-f", a, "--path", b},
		"revision": {"-f", a, "--revision", "x", "--revision", "y"},
		"timeout":  {"push", "-f", a, "--timeout", "1m", "--timeout", "2m"},
	} {
		expectOneError(g, flux(t, append(args, to...)...), "--"+flag+": it is given twice")
	}
}

func TestWhatCannotBeMeantIsRefusedBeforeAnyWork(t *testing.T) {
	r := serve(t)
	ref, dir := r.Host()+"/org/app:v1", manifests(t)
	must(t, "-f", dir, "-t", ref)
	r.Forget()
	_, public := keyPair(t, "")
	file := filepath.Join(dir, "kustomization.yaml")
	verbs := map[string][]string{
		"push":    {"push", "-f", dir, "-t", ref},
		"inspect": {"inspect", ref},
		"pull":    {"pull", ref, "-o", t.TempDir()},
		"verify":  {"verify", ref, "--key", public},
		"diff":    {"diff", dir, ref},
		"keys":    {"generate-key-pair"},
	}
	reading := []string{"inspect", "pull", "diff"}
	printing := []string{"push", "inspect", "verify", "diff"}
	for name, c := range map[string]struct {
		verbs []string // empty: all
		args  []string
		says  string
	}{
		"a provider that there is not": {nil, []string{"--provider", "foo"}, `--provider is "foo", expected generic, aws, azure or gcp`},
		"the provider of another registry": {
			[]string{"push", "inspect", "pull", "verify", "diff"},
			[]string{"--provider", "aws"}, `--provider is "aws", but "` + r.Host() + `" is no registry of that cloud`,
		},
		"a time that is none":                  {nil, []string{"--timeout", "5"}, `--timeout is "5", expected a time such as 30s or 5m`},
		"a time before now":                    {nil, []string{"--timeout", "-1s"}, `--timeout is "-1s", expected more than nothing`},
		"a limit that is no number":            {nil, []string{"--max-layers", "ten"}, `--max-layers is "ten", expected a whole number`},
		"a limit of no bytes":                  {nil, []string{"--max-artifact-bytes", "0"}, `--max-artifact-bytes is "0", expected at least 1`},
		"a limit of less than no bytes":        {nil, []string{"--max-uncompressed-bytes", "-1"}, `--max-uncompressed-bytes is "-1", expected at least 1`},
		"a limit of no entries":                {nil, []string{"--max-entries", "0"}, `--max-entries is "0", expected at least 1`},
		"a limit of no depth":                  {nil, []string{"--max-depth", "0"}, `--max-depth is "0", expected at least 1`},
		"a limit of no layers":                 {nil, []string{"--max-layers", "0"}, `--max-layers is "0", expected at least 1`},
		"a network that is none":               {nil, []string{"--registry-allowed-cidrs", "10.0.0"}, `--registry-allowed-cidrs is "10.0.0", expected networks such as 10.0.0.0/8`},
		"a login host that is an address":      {nil, []string{"--registry-auth-realms", "https://a/"}, `"https://a/" is not a host such as auth.example.com`},
		"a list with a quote in it":            {nil, []string{"--registry-auth-realms", `a"b`}, `--registry-auth-realms is "a\"b", expected values with commas`},
		"nothing to push":                      {[]string{"push"}, []string{"-f", ""}, "nothing says what to push: name a folder with -f"},
		"a flag that there is not":             {nil, []string{"--bogus"}, "unknown flag: --bogus; flux bundle "},
		"a switch that is neither on nor off":  {[]string{"push"}, []string{"--immutable=5"}, `--immutable is "5", expected true or false`},
		"an output that there is not":          {printing, []string{"-o", "xml"}, `--output is "xml", expected text, json or yaml`},
		"a format in small letters":            {reading, []string{"--format", "flux"}, `--format is "flux", expected Auto, Flux, Helm,`},
		"a platform of one word":               {reading, []string{"--platform", "linux"}, `--platform is "linux", expected os/architecture`},
		"an operation that there is not":       {reading, []string{"--layer-operation", "move"}, `--layer-operation is "move", expected extract or copy`},
		"a media type of one word":             {reading, []string{"--layer-media-type", "tar"}, `--layer-media-type is "tar", expected a media type such as`},
		"a pattern that matches nothing":       {append(reading, "push"), []string{"--ignore-paths", "a/[b"}, `--ignore-paths is "a/[b", expected a pattern`},
		"an annotation without a value":        {[]string{"push"}, []string{"-a", "x"}, `--annotations is "x", expected key=value`},
		"a time of creation that is none":      {[]string{"push"}, []string{"-a", "org.opencontainers.image.created=today"}, `is "today", expected a time such as`},
		"a tag of a reference that is none":    {[]string{"push"}, []string{"-t", "ghcr.io/org/app:v 1"}, `"ghcr.io/org/app:v 1" is no reference`},
		"a key to sign with that is not there": {[]string{"push"}, []string{"-s", "nope.key"}, "--sign-key nope.key: no such file"},
		"a log that is no address":             {[]string{"push"}, []string{"-s", "nope.key", "--tlog", "--rekor-url", "rekor"}, "--rekor-url is no address of a log"},
		"a log that nothing is sent to":        {[]string{"push"}, []string{"--rekor-url", "https://log.example.com"}, "--tlog is not given"},
		"a key to verify with that is not there": {
			[]string{"verify", "pull"}, []string{"--key", "nope.pub"}, `--key: cannot read "nope.pub"`,
		},
		"two demands":                      {[]string{"verify"}, []string{"--certificate-identity", "x"}, "give either --key or --certificate-identity and --certificate-oidc-issuer, not both"},
		"an identity in two ways":          {[]string{"pull"}, []string{"--certificate-identity", "x", "--certificate-identity-regexp", "x"}, "give either --certificate-identity or --certificate-identity-regexp"},
		"an expression that is none":       {[]string{"pull"}, []string{"--certificate-oidc-issuer", "x", "--certificate-identity-regexp", "["}, "--certificate-identity-regexp: error parsing regexp"},
		"a file where a folder has to be":  {[]string{"pull"}, []string{"-o", file}, "is a file, expected a folder"},
		"a folder below a file":            {[]string{"pull"}, []string{"-o", filepath.Join(file, "a", "b")}, "is a file, expected a folder"},
		"a name of keys that is a folder":  {[]string{"keys"}, []string{"--output-key-prefix", dir + "/"}, "expected how the names of two files begin"},
		"keys in a folder that is missing": {[]string{"keys"}, []string{"--output-key-prefix", "nope/cosign"}, `there is no folder "nope/"`},
		"keys in a folder that is a file":  {[]string{"keys"}, []string{"--output-key-prefix", file + "/cosign"}, "there is no folder"},
		"an argument for keys":             {[]string{"keys"}, []string{"release"}, "1 argument given, expected none: "},
	} {
		of := c.verbs
		if of == nil {
			of = []string{"push", "inspect", "pull", "verify", "diff", "keys"}
		}
		for _, verb := range of {
			t.Run(name+" for "+verb, func(t *testing.T) {
				g := NewWithT(t)
				run := flux(t, replaced(verbs[verb], c.args)...)
				code := exitFailure
				if verb == "diff" {
					code = exitTrouble
				}
				g.Expect(run.code).To(Equal(code), run.err)
				g.Expect(run.out).To(BeEmpty())
				g.Expect(run.err).To(HavePrefix("error: "), "something was done before")
				expectOneError(g, run, c.says)
				g.Expect(r.Requests()).To(BeEmpty())
			})
		}
	}
}

func TestBothSidesOfADiffAreJudgedBeforeOneIsRead(t *testing.T) {
	r := serve(t)
	ref, dir := r.Host()+"/org/app:v1", manifests(t)
	for name, c := range map[string]struct {
		second, says string
	}{
		"a reference that is none":         {"ghcr.io/ORG/app", "is no reference"},
		"a folder that is not there":       {"./nope", "./nope: no such file"},
		"a word that is neither":           {"nope", "may be a path or a name of Docker Hub"},
		"an address of the web":            {"https://ghcr.io/org/app", "is an address, expected a reference"},
		"a digest that is cut short":       {"ghcr.io/org/app@sha256:12", "is no reference"},
		"a path that is to be a reference": {"oci://" + dir, "is no reference"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := flux(t, "diff", ref, c.second)
			g.Expect(run.code).To(Equal(exitTrouble))
			expectOneError(g, run, c.says)
			g.Expect(r.Requests()).To(BeEmpty(), "the first side was read")
		})
	}
}

// TestOddButGoodValuesAreTaken guards against refusing too much.
func TestOddButGoodValuesAreTaken(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref, dir := r.Host()+"/org/app:v1", manifests(t)
	must(t, "push", "-f", dir, "-t", ref, "--provider", "", "--ignore-paths", `# [,!a/**/[ab]*,\#x,`, "--rekor-url", "https://rekor.sigstore.dev", "--registry-allowed-cidrs", "fd00::/8")
	must(t, "inspect", ref, "--platform", "linux/arm/v7", "--layer-media-type", "application/vnd.cncf.flux.content.v1.tar+gzip", "--layer-operation", "extract")
	g.Expect(os.Mkdir(filepath.Join(dir, "keys"), 0o700)).To(Succeed())
	run := environment{passwordVariable: ""}.flux(t, "generate-key-pair", "--output-key-prefix", filepath.Join(dir, "keys", "v1.release"))
	g.Expect(run.code).To(Equal(exitOK), run.err)
	g.Expect(filepath.Join(dir, "keys", "v1.release.key")).To(BeAnExistingFile())
}
