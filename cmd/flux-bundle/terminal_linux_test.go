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
	"archive/tar"
	"bufio"
	"os"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// terminal opens a terminal: what a program sees of it, and the person before it.
func terminal(t *testing.T) (program, person *os.File) {
	t.Helper()
	g := NewWithT(t)
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = person.Close() })
	g.Expect(unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0)).To(Succeed())
	number, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	g.Expect(err).NotTo(HaveOccurred())
	program, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = program.Close() })
	return program, person
}

func TestAPersonIsAskedBeforeAnythingIsOverwritten(t *testing.T) {
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	for answer, want := range map[string]struct {
		code    int
		content string
	}{
		"y\n":   {exitOK, "a.yaml"},
		"Yes\n": {exitOK, "a.yaml"},
		"n\n":   {exitFailure, "old"},
		"\n":    {exitFailure, "old"},
		"\x04":  {exitFailure, "old"}, // the end of the input
	} {
		t.Run(strconv.Quote(answer), func(t *testing.T) {
			g := NewWithT(t)
			program, person := terminal(t)
			dir := folder(t, map[string]string{"a.yaml": "old"})
			_, err := person.WriteString(answer)
			g.Expect(err).NotTo(HaveOccurred())
			var out, said strings.Builder
			code := run(t.Context(), streams{in: program, out: &out, err: &said, lookupEnv: os.LookupEnv}, []string{"pull", ref, "-o", dir})
			g.Expect(code).To(Equal(want.code), said.String())
			g.Expect(said.String()).To(ContainSubstring("Overwrite them? [y/N]"))
			if answer == "\x04" { // else the person has ended the line
				g.Expect(said.String()).To(MatchRegexp(`(?m)^error: `))
			}
			g.Expect(treeOf(t, dir)).To(Equal(map[string]string{"a.yaml": want.content}))
		})
	}
}

func TestAQuestionEndsWithTheCommand(t *testing.T) {
	g := NewWithT(t)
	r := serve(t)
	ref := pushLayer(t, r, "org/app:v1", archived(t, tar.Header{Name: "a.yaml"}))
	program, _ := terminal(t)
	dir := folder(t, map[string]string{"a.yaml": "old"})
	var out, said strings.Builder
	code := run(t.Context(), streams{in: program, out: &out, err: &said, lookupEnv: os.LookupEnv}, []string{"pull", ref, "-o", dir, "--timeout", "1s"})
	g.Expect(code).To(Equal(exitFailure))
	g.Expect(said.String()).To(ContainSubstring("--timeout"))
	g.Expect(treeOf(t, dir)).To(Equal(map[string]string{"a.yaml": "old"}))
}

func TestDiffPaintsATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		environment environment
		painted     bool
	}{
		"in colours":                       {nil, true},
		"without, where nobody wants them": {environment{"NO_COLOR": "1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			program, person := terminal(t)
			old, now := folder(t, map[string]string{"a.yaml": "a: 1\n"}), folder(t, map[string]string{"a.yaml": "a: 2 # \u202e\n"})
			var said strings.Builder
			lookup := func(name string) (string, bool) { value, set := c.environment[name]; return value, set }
			code := run(t.Context(), streams{in: program, out: program, err: &said, lookupEnv: lookup}, []string{"diff", old, now})
			g.Expect(code).To(Equal(exitFailure), said.String())
			lines := bufio.NewScanner(person)
			var shown []string
			for len(shown) < 5 && lines.Scan() {
				shown = append(shown, strings.TrimSuffix(lines.Text(), "\r"))
			}
			want := []string{"--- a/a.yaml", "+++ b/a.yaml", "@@ -1 +1 @@", "-a: 1", `+a: 2 # \u202e`}
			if c.painted {
				for i, colour := range []string{bold, bold, cyan, red, green} {
					want[i] = colour + want[i] + reset
				}
			}
			g.Expect(shown).To(Equal(want))
		})
	}
}

// TestADiffOnATerminalOfACIServiceIsNoOrder has the service read what a terminal shows.
func TestADiffOnATerminalOfACIServiceIsNoOrder(t *testing.T) {
	const orders = "a\n::error::x\n b\n##vso[task.setvariable variable=a]b\n##[error]c\n"
	one, other := folder(t, map[string]string{"a.txt": orders + "1\n", "##[error]d.txt": "1\n"}), folder(t, map[string]string{"a.txt": orders + "2\n"})
	for _, colour := range []string{"", "1"} {
		g := NewWithT(t)
		program, person := terminal(t)
		var said strings.Builder
		lookup := func(name string) (string, bool) { return colour, name == "NO_COLOR" }
		code := run(t.Context(), streams{in: program, out: program, err: &said, lookupEnv: lookup}, []string{"diff", one, other})
		g.Expect(code).To(Equal(exitFailure), said.String())
		shown := make([]byte, 64<<10)
		n, err := person.Read(shown)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(shown[:n])).To(And(ContainSubstring("error"), Not(MatchRegexp(`(?m)^\s*::|##\pL*\[`))))
	}
}
