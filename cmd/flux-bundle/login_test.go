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
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/test/publish"
)

const (
	username = "robot"
	password = "right:password" // a colon belongs to the password
)

// private is a registry that lets in one user, or one token.
func private(t *testing.T) *publish.InProcess {
	t.Helper()
	r := serve(t)
	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		given, secret, basic := request.BasicAuth()
		if basic && given == username && secret == password || request.Header.Get("Authorization") == "Bearer a-token" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return true
	})
	return r
}

func TestCredentialsThatAreGiven(t *testing.T) {
	dir := manifests(t)
	for name, c := range map[string]struct {
		args        []string
		input       string
		environment environment
		says        string // empty: it succeeds
	}{
		"as an argument":    {args: []string{"--creds", username + ":" + password}},
		"in a variable":     {environment: environment{credsVariable: username + ":" + password}},
		"on standard input": {args: []string{"--creds", "-"}, input: username + ":" + password + "\n"},
		"as an argument, which the variable waits": {args: []string{"--creds", username + ":" + password}, environment: environment{credsVariable: "other:one"}},
		"none":                      {says: "401 Unauthorized"},
		"wrong ones":                {args: []string{"--creds", username + ":wrong-password"}, says: "401 Unauthorized"},
		"nothing on standard input": {args: []string{"--creds", "-"}, says: "--creds is -, which means standard input: it is empty"},
		"lines on standard input":   {args: []string{"--creds", "-"}, input: "a\nb\n", says: "it has more than one line"},
		"no password":               {args: []string{"--creds", username + ":"}, says: "--creds has an empty username or password"},
		"beside those of a cloud": {
			args: []string{"--creds", username + ":" + password, "--provider", "gcp"}, says: "give either --creds or --provider gcp, not both",
		},
		"for two registries": {
			args: []string{"--creds", username + ":" + password, "-t", "registry.example.com/org/app:v1"}, says: "are for one registry, but",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, r := NewWithT(t), private(t)
			var out, err bytes.Buffer
			lookup := func(name string) (string, bool) { value, set := c.environment[name]; return value, set }
			s := streams{in: strings.NewReader(c.input), out: &out, err: &err, lookupEnv: lookup}
			code := run(t.Context(), s, append([]string{"push", "-f", dir, "-t", r.Host() + "/org/app:v1"}, c.args...))

			g.Expect(err.String()).NotTo(ContainSubstring("password\n"))
			g.Expect(err.String()).NotTo(Or(ContainSubstring(password), ContainSubstring("wrong-password")))
			if c.says == "" {
				g.Expect(code).To(BeZero(), err.String())
				return
			}
			expectOneError(g, result{code, out.String(), err.String()}, c.says)
		})
	}
}

func TestGivenCredentialsRead(t *testing.T) {
	g, r := NewWithT(t), private(t)
	login := environment{credsVariable: username + ":" + password}
	ref := r.Host() + "/org/app:v1"
	g.Expect(login.flux(t, "-f", manifests(t), "-t", ref).code).To(BeZero())
	g.Expect(login.flux(t, "inspect", ref).code).To(BeZero())
	g.Expect(environment{credsVariable: "a-token"}.flux(t, "inspect", ref).code).To(BeZero())
	expectOneError(g, flux(t, "inspect", ref), "log in with docker login")
}

// No program that the command starts gets the credentials.
func TestSecretsLeaveTheEnvironment(t *testing.T) {
	g := NewWithT(t)
	for _, variable := range []string{passwordVariable, credsVariable} {
		t.Setenv(variable, "secret of "+variable)
	}
	lookup := takeSecrets(os.LookupEnv)
	for _, variable := range []string{passwordVariable, credsVariable} {
		g.Expect(os.Getenv(variable)).To(BeEmpty())
		value, found := lookup(variable)
		g.Expect(found).To(BeTrue())
		g.Expect(value).To(Equal("secret of " + variable))
	}
}

// flux push artifact has --annotations; the former name works.
func TestAnnotationsByBothNames(t *testing.T) {
	g := NewWithT(t)
	args := []string{"-f", manifests(t), "-t", "localhost:5000/org/app:v1", "--dry-run", "-o", "json"}
	g.Expect(must(t, append(args, "--annotations", "a=b", "--annotation", "c=d", "-a", "e=f")...)).To(
		And(ContainSubstring(`"a": "b"`), ContainSubstring(`"c": "d"`), ContainSubstring(`"e": "f"`)))
}

// A verb shows no global flag that says nothing to it, and accepts it.
func TestHelpHidesGlobalFlagsThatMeanNothing(t *testing.T) {
	g := NewWithT(t)
	const limit, access = "--max-entries", "--insecure-registry"
	for verb, shown := range map[string][]string{
		"push": {limit, access}, "inspect": {limit, access}, "pull": {limit, access}, "diff": {limit, access},
		"verify": {access}, "generate-key-pair": nil,
	} {
		help := must(t, verb, "--help")
		for _, flag := range []string{limit, access} {
			g.Expect(strings.Contains(help, flag)).To(Equal(strings.Contains(strings.Join(shown, " "), flag)), "%s of %s", flag, verb)
		}
	}
	key := environment{passwordVariable: ""}.flux(t, "generate-key-pair", "--output-key-prefix", t.TempDir()+"/key", "--max-entries", "5", "--insecure-registry")
	g.Expect(key.code).To(BeZero(), key.err)
	expectOneError(g, flux(t, "verify", "localhost:5000/org/app:v1", "--max-entries", "0"), "--max-entries is")
}

func TestWhatTakesLongSaysHowFarItIs(t *testing.T) {
	g := NewWithT(t)
	g.Expect(flux(t, "-f", manifests(t), "-t", "localhost:5000/org/app:v1", "--dry-run").err).To(HavePrefix("packing "))
	for _, way := range []transfer{upwards, downwards} {
		synctest.Test(t, func(t *testing.T) {
			g := NewWithT(t)
			var said bytes.Buffer
			p := &progress{streams: streams{err: &guard{to: &said}}, transfer: way, what: "layer one", repository: "example.com/app", size: 4 << 20}
			to := p.start()
			_, err := to.Write(make([]byte, 1<<20))
			g.Expect(err).NotTo(HaveOccurred())
			<-time.After(linesEvery + time.Second)
			_, err = p.start().Write(make([]byte, 2<<20)) // it begins again
			g.Expect(err).NotTo(HaveOccurred())
			<-time.After(linesEvery) // and hangs
			p.end(nil)
			g.Expect(strings.Split(said.String(), "\n")).To(ContainElements(
				way.doing()+" layer one: 1.0 MiB of 4.0 MiB", way.doing()+" layer one: 2.0 MiB of 4.0 MiB"))
		})
	}
}
