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
	"runtime"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

const plainSecret = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\nstringData:\n  password: hunter2\n"

func TestKeysAndSecretsAreNotPackedWithoutAWord(t *testing.T) {
	age := "AGE-SECRET-KEY-1" + strings.Repeat("Q", 58)
	sealed := "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\ndata:\n  password: ENC[AES256_GCM,data:x,iv:y,tag:z,type:str]\nsops:\n  mac: ENC[AES256_GCM,data:x]\n"
	for name, c := range map[string]struct {
		file, body string
		want       string
	}{
		"a key of TLS":                         {"tls.key", "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "a private key"},
		"a key within other text":              {"config.txt", "x\n-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n", "a private key"},
		"a key by its name":                    {"tls.key", "\x00\x01", "a private key, by its name"},
		"an OpenPGP key":                       {"sops.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "a private key"},
		"an age key":                           {"keys.txt", "# created\n" + age + "\n", "a private key of age"},
		"an age key in a .env file":            {".env", "SOPS_AGE_KEY=" + age + "\n", "a private key of age"},
		"a .env file":                          {".env", "TOKEN=x\n", "values of environment variables"},
		"a .env file that is partly encrypted": {".env", "A=ENC[AES256_GCM,data:x]\nTOKEN=hunter2\nsops_version=3\n", "values of environment variables"},
		"a .env file that speaks of ENC[":      {".env", "# not ENC[\nTOKEN=hunter2\n", "values of environment variables"},
		"a Secret":                             {"s.yaml", plainSecret, "a Secret that SOPS did not encrypt"},
		"a Secret in base64":                   {"s.yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: s}\ndata: {password: aHVudGVyMg==}\n", "a Secret that SOPS did not encrypt"},
		"a Secret behind another document":     {"s.yaml", "---\n" + strings.ReplaceAll(plainSecret, "Secret", "ConfigMap") + "---\n" + plainSecret, "a Secret that SOPS did not encrypt"},
		"a Secret in a list":                   {"s.json", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"a":"b"}}]}`, "a Secret that SOPS did not encrypt"},
		"a Secret that is partly encrypted":    {"s.yaml", strings.Replace(sealed, "sops:", "stringData:\n  other: plain\nsops:", 1), "a Secret that SOPS did not encrypt"},
		"a Secret behind no YAML":              {"s.yaml", "a: [\n---\n" + plainSecret, "a Secret that SOPS did not encrypt"},
		"a Secret whose data is an alias":      {"s.yaml", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  annotations: &a {password: hunter2}\nstringData: *a\n", "a Secret that SOPS did not encrypt"},
		"a generator of a Secret":              {"kustomization.yaml", "secretGenerator:\n- name: s\n  literals:\n  - password=hunter2\n", "a secretGenerator with literals"},
		"a Secret in another object":           {"s.yaml", "apiVersion: v1\nkind: Template\nmetadata: {name: t}\nspec:\n  manifests:\n  - {kind: Secret, stringData: {a: hunter2}}\n", "a Secret that SOPS did not encrypt"},
		"a Secret by an escaped letter":        {"s.yaml", strings.Replace(plainSecret, "Secret", `"Sec\u0072et"`, 1), "a Secret that SOPS did not encrypt"},
		"a Secret whose kind is an alias":      {"s.yaml", "metadata: {name: &k Secret}\napiVersion: v1\nkind: *k\nstringData: {a: hunter2}\n", "a Secret that SOPS did not encrypt"},
		"a Secret behind comments":             {"s.yaml", strings.Repeat("# a line of a comment\n", 100_000) + plainSecret, "a Secret that SOPS did not encrypt"},
		"a Secret behind much else":            {"s.json", `{"kind":"List","items":[{"kind":"ConfigMap","data":{"a":"` + strings.Repeat("x", maxObjectBytes) + `"}},{"kind":"Secret","stringData":{"a":"hunter2"}}]}`, "a Secret in a document that is too large to be searched"},
		"a generator in another case":          {"kustomization.yaml", "SecretGenerator:\n- name: s\n  Literals: [password=hunter2]\n", "a secretGenerator with literals"},
		"a key that speaks of ENC[":            {"tls.key", "# ENC[AES256_GCM,\nhunter2\n", "a private key, by its name"},

		"an encrypted Secret":                 {"s.yaml", sealed, ""},
		"a Secret that is filled in later":    {"s.yaml", strings.Replace(plainSecret, "hunter2", "${PASSWORD}", 1), ""},
		"a Secret without data":               {"s.yaml", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n", ""},
		"a SecretStore":                       {"s.yaml", "apiVersion: v1\nkind: SecretStore\nmetadata:\n  name: s\ndata: {a: b}\n", ""},
		"a public key":                        {"cosign.key", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", ""},
		"an encrypted key":                    {"tls.key", `{"data":"ENC[AES256_GCM,data:x]","sops":{}}`, ""},
		"an encrypted .env file":              {".env", "#ENC[AES256_GCM,data:x]\nA=ENC[AES256_GCM,data:x]\nsops_version=3\nsops_mac=ENC[x]\n", ""},
		"an example of environment variables": {".env.example", "TOKEN=\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := folder(t, map[string]string{c.file: c.body, "b.txt": "b"})
			args := []string{"-f", dir, "-t", "localhost:5000/org/app:v1", "--dry-run", "--no-validate"}
			warned, refused := flux(t, args...), flux(t, append(args, "--strict")...)
			g.Expect(warned.code).To(BeZero(), warned.err)
			if c.want == "" {
				g.Expect(warned.err).NotTo(ContainSubstring("not encrypted"))
				g.Expect(refused.code).To(BeZero(), refused.err)
				return
			}
			for _, told := range []string{warned.err, refused.err} {
				g.Expect(told).To(ContainSubstring(`"%s" (%s) is not encrypted`, c.file, c.want))
				g.Expect(told).NotTo(Or(ContainSubstring("hunter2"), ContainSubstring(age)))
			}
			g.Expect(refused.code).To(Equal(1))
		})
	}
}

// TestAResourceOfAnyNameMayBeASecret has a kustomization name a file that is not called YAML.
func TestAResourceOfAnyNameMayBeASecret(t *testing.T) {
	dir := folder(t, map[string]string{"app/kustomization.yaml": "resources: [../secret.txt]\n", "secret.txt": plainSecret, "other.txt": plainSecret})
	run := flux(t, "-f", dir, "-t", "localhost:5000/org/app:v1", "--dry-run", "--strict")
	g := NewWithT(t)
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, `"secret.txt" (a Secret that SOPS did not encrypt) is not encrypted`)
}

// TestASearchForSecretsTakesLittleMemory has a parser make millions of values of a file.
func TestASearchForSecretsTakesLittleMemory(t *testing.T) {
	for name, body := range map[string]string{
		"a large document": "name: Secret\na: {" + strings.Repeat("a,", maxSecretBytes/2-20) + "}\n",
		"long tags":        "%TAG !a! " + strings.Repeat("x", 500_000) + "\r---\rkind: Secret\na: [" + strings.Repeat("!a!b c,", 400) + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			what := secretIn("a.yaml", []byte(body))
			runtime.ReadMemStats(&after)
			g := NewWithT(t)
			g.Expect(what).To(BeEmpty())
			g.Expect(after.TotalAlloc - before.TotalAlloc).To(BeNumerically("<", 64<<20))
		})
	}
}

// TestASearchForSecretsEndsSoon has files that a search could read again and again.
func TestASearchForSecretsEndsSoon(t *testing.T) {
	names := strings.Repeat("x,", 200_000)
	var directives strings.Builder
	for i := range 80_000 {
		fmt.Fprintf(&directives, "%%TAG !%x! b\n", i)
	}
	for name, files := range map[string]map[string]string{
		"one file of thousands of generators": {
			"kustomization.yaml": "secretGenerator:\n- {name: s, envs: [" + names + "]}\nconfigMapGenerator:\n- {name: c, files: [" + names + "]}\n",
			"x":                  strings.Repeat("#\n", 100_000),
		},
		"one list of many generators": {
			"kustomization.yaml": "x: &x [" + names + "]\nconfigMapGenerator: &g\n" + strings.Repeat("- {files: *x}\n", 30_000) + "secretGenerator: *g\n",
		},
		"one generator many times": {"kustomization.yaml": "x: &x {" + names + "}\nsecretGenerator: [" + strings.Repeat("*x,", 200_000) + "]\n"},
		"one map of many Secrets": {
			"a.yaml": "x: &x {" + strings.Repeat("a: '',", 100_000) + "}\nitems:\n" + strings.Repeat("- {kind: Secret, data: *x}\n", 25_000),
		},
		"directives that are compared with each other": {"a.yaml": "# Secret\n" + directives.String() + "---\na: b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			run := flux(t, "-f", folder(t, files), "-t", "localhost:5000/org/app:v1", "--dry-run", "--no-validate", "--timeout", "10s")
			NewWithT(t).Expect(run.code).To(BeZero(), run.err)
		})
	}
}

// TestInputsOfGeneratorsAreNotPackedWithoutAWord packs files that a kustomization makes
// Secrets or ConfigMaps of.
func TestInputsOfGeneratorsAreNotPackedWithoutAWord(t *testing.T) {
	const (
		variables = "variables of a secretGenerator"
		file      = "a file of a secretGenerator"
	)
	generator := func(of, field string) string { return of + ":\n- name: s\n  " + field + "\n" }
	for name, c := range map[string]struct {
		kustomization string
		files         map[string]string
		// told are the files that are named, and why.
		told map[string]string
	}{
		"variables":                                     {generator("secretGenerator", "envs: [prod.properties]"), map[string]string{"prod.properties": "TOKEN=hunter2\n"}, map[string]string{"prod.properties": variables}},
		"one file of variables":                         {generator("secretGenerator", "env: prod.txt"), map[string]string{"prod.txt": "# x\n\n TOKEN=hunter2"}, map[string]string{"prod.txt": variables}},
		"a file":                                        {generator("secretGenerator", "files: [password]"), map[string]string{"password": "hunter2"}, map[string]string{"password": file}},
		"a file under another key":                      {generator("secretGenerator", "files: ['token=sub/../a=b.txt']"), map[string]string{"a=b.txt": "hunter2"}, map[string]string{"a=b.txt": file}},
		"a file and an alias":                           {"x: &f [password]\n" + generator("secretGenerator", "files: *f"), map[string]string{"password": "hunter2"}, map[string]string{"password": file}},
		"literals behind an alias":                      {"x: &l [a=hunter2]\n" + generator("secretGenerator", "literals: *l"), nil, map[string]string{"kustomization.yaml": "a secretGenerator with literals"}},
		"a generator of its own":                        {"generators: [g.yaml]\n", map[string]string{"g.yaml": "apiVersion: builtin\nkind: SecretGenerator\nmetadata: {name: s}\nfiles: [password]\n", "password": "hunter2"}, map[string]string{"password": file}},
		"a generator of its own in a folder":            {"generators: [g/g.yaml]\n", map[string]string{"g/g.yaml": "apiVersion: builtin\nkind: SecretGenerator\nmetadata: {name: s}\nfiles: [password]\n", "password": "hunter2"}, map[string]string{"password": file}},
		"a key for a ConfigMap":                         {generator("configMapGenerator", "files: [tls.key=k.bin]"), map[string]string{"k.bin": "\x00hunter2"}, map[string]string{"k.bin": "a private key, by its name"}},
		"a Secret in a ConfigMap":                       {generator("configMapGenerator", "files: [manifest.tpl]"), map[string]string{"manifest.tpl": plainSecret}, map[string]string{"manifest.tpl": "a Secret that SOPS did not encrypt"}},
		"partly encrypted variables":                    {generator("secretGenerator", "envs: [a.txt]"), map[string]string{"a.txt": "A=ENC[AES256_GCM,data:x]\nB=hunter2\nsops_version=3\n"}, map[string]string{"a.txt": variables}},
		"a kustomization below another":                 {"resources: [app]\n", map[string]string{"app/Kustomization": generator("secretGenerator", "envs: [../shared.txt]"), "shared.txt": "A=hunter2"}, map[string]string{"shared.txt": variables}},
		"literals in the third name of a kustomization": {"resources: [app]\n", map[string]string{"app/Kustomization": generator("secretGenerator", "literals: [a=hunter2]")}, map[string]string{"app/Kustomization": "a secretGenerator with literals"}},

		"encrypted variables":               {generator("secretGenerator", "envs: [a.txt]"), map[string]string{"a.txt": "A=ENC[AES256_GCM,data:x]\nsops_version=3\nsops_mac=ENC[x]\n"}, nil},
		"an encrypted file":                 {generator("secretGenerator", "files: [a]"), map[string]string{"a": `{"data":"ENC[AES256_GCM,data:x]","sops":{}}`}, nil},
		"a certificate":                     {generator("secretGenerator", "files: [tls.crt]"), map[string]string{"tls.crt": "-----BEGIN CERTIFICATE-----\nAA==\n"}, nil},
		"an empty file":                     {generator("secretGenerator", "files: [a]"), map[string]string{"a": "\n"}, nil},
		"variables without a value":         {generator("secretGenerator", "envs: [a]"), map[string]string{"a": "A=\nB\nC=${LATER}\n"}, nil},
		"variables of a ConfigMap":          {generator("configMapGenerator", "envs: [a]"), map[string]string{"a": "A=b\n"}, nil},
		"a file of a ConfigMap":             {generator("configMapGenerator", "files: [a]"), map[string]string{"a": "hello"}, nil},
		"a file of the same name elsewhere": {"resources: [app]\n", map[string]string{"app/kustomization.yaml": generator("secretGenerator", "files: [password]"), "password": "hello"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			dir := folder(t, c.files)
			write(t, dir, map[string]string{"kustomization.yaml": c.kustomization})
			args := []string{"-f", dir, "-t", "localhost:5000/org/app:v1", "--dry-run", "--no-validate"}
			warned, refused := flux(t, args...), flux(t, append(args, "--strict")...)
			g.Expect(warned.code).To(BeZero(), warned.err)
			g.Expect(strings.Count(warned.err, "is not encrypted")).To(Equal(len(c.told)), warned.err)
			g.Expect(refused.code).To(Equal(min(len(c.told), 1)), refused.err)
			for path, what := range c.told {
				for _, told := range []string{warned.err, refused.err} {
					g.Expect(told).To(ContainSubstring(`"%s" (%s) is not encrypted`, path, what))
					g.Expect(told).NotTo(ContainSubstring("hunter2"))
				}
			}
		})
	}
}

func TestRulesThatNoReaderSeesAreNamed(t *testing.T) {
	g := NewWithT(t)
	dir := folder(t, map[string]string{".sourceignore": "/*\n!/deploy\n", "deploy/a.txt": "a", "deploy/logo.png": "p"})
	args := []string{"-f", dir, "-t", "localhost:5000/org/app:v1", "--dry-run", "--no-validate"}
	g.Expect(flux(t, args...).err).To(ContainSubstring(`"deploy/logo.png"; add the line !.sourceignore`))
	g.Expect(flux(t, append(args, "--strict")...).code).To(Equal(1))
	write(t, dir, map[string]string{".sourceignore": "/*\n!/deploy\n!.sourceignore\n"})
	g.Expect(flux(t, append(args, "--strict")...).code).To(BeZero())
}
