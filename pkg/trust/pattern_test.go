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

package trust_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/pkg/reference"
	"github.com/image-source/image-source-controller/pkg/trust"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern string
		matches []string
		misses  []string
	}{
		{"ghcr.io/org/app", []string{"ghcr.io/org/app"},
			[]string{"ghcr.io/org/app2", "ghcr.io/org", "ghcr.io/org/app/x", "ghcr.io.evil.com/org/app", "xghcr.io/org/app", "ghcrxio/org/app", "ghcr.io:8443/org/app", "evil.com/ghcr.io/org/app"}},
		{"ghcr.io/org/*", []string{"ghcr.io/org/app", "ghcr.io/org/a.b-c_d"}, []string{"ghcr.io/org/app/sub", "ghcr.io/org", "ghcr.io/other/app", "ghcr.io/organisation/app"}},
		{"ghcr.io/org/**", []string{"ghcr.io/org/app", "ghcr.io/org/app/sub/x"}, []string{"ghcr.io/org", "ghcr.io/organisation/app", "evil.com/ghcr.io/org/app"}},
		{"ghcr.io/*/app", []string{"ghcr.io/a/app", "ghcr.io/b/app"}, []string{"ghcr.io/a/b/app", "ghcr.io/app", "ghcr.io/a/app2"}},
		{"ghcr.io/**/app", []string{"ghcr.io/a/app", "ghcr.io/a/b/app"}, []string{"ghcr.io/a/app/b", "ghcr.io/a/xapp2"}},
		{"ghcr.io/org/app-*", []string{"ghcr.io/org/app-a", "ghcr.io/org/app-"}, []string{"ghcr.io/org/app", "ghcr.io/org/app-a/b"}},
		{"ghcr.io/org/*-deploy", []string{"ghcr.io/org/a-deploy"}, []string{"ghcr.io/org/a/b-deploy", "ghcr.io/org/deploy"}},
		{"ghcr.io/org/a*b*c", []string{"ghcr.io/org/abc", "ghcr.io/org/axxbyyc"}, []string{"ghcr.io/org/ab", "ghcr.io/org/a/b/c"}},
		{"ghcr.io/org/app**", []string{"ghcr.io/org/app", "ghcr.io/org/app/x", "ghcr.io/org/appliance/x"}, []string{"ghcr.io/org/ap"}},
		{"*.example.com/**", []string{"a.example.com/x", "a.example.com/x/y", "a.b.example.com/x"}, []string{"example.com/x", "example.com.evil.com/x", "evil.com/a.example.com/x"}},
		{"*/org/app", []string{"ghcr.io/org/app", "localhost:5000/org/app"}, []string{"ghcr.io/x/org/app"}},
		{"**/app", []string{"ghcr.io/app", "ghcr.io/a/b/app"}, []string{"ghcr.io/app/b"}},
		{"**", []string{"ghcr.io/org/app", "index.docker.io/library/nginx", "localhost:5000/a"}, nil},
		{"registry.example.com:443/org/app", []string{"registry.example.com/org/app"}, []string{"registry.example.com:443/org/app", "registry.example.com:444/org/app"}},
		{"registry.example.com:5000/org/app", []string{"registry.example.com:5000/org/app"}, []string{"registry.example.com/org/app"}},
		{"Registry.Example.COM/org/app", []string{"registry.example.com/org/app"}, nil},
		{"registry.example.com:443/org/*", []string{"registry.example.com/org/app"}, []string{"registry.example.com./org/app"}},
		{"docker.io/*", []string{"index.docker.io/library/nginx"}, []string{"index.docker.io/org/app"}},
		{"registry.hub.docker.com/org/*", []string{"index.docker.io/org/app"}, nil},
		{"Registry-1.Docker.IO/nginx", []string{"index.docker.io/library/nginx"}, nil},
		{"nginx", []string{"index.docker.io/library/nginx"}, []string{"ghcr.io/library/nginx"}},
		{"org/app", []string{"index.docker.io/org/app"}, []string{"ghcr.io/org/app"}},
		{"org/**", []string{"index.docker.io/org/app"}, []string{"ghcr.io/org/app", "org/app"}},
		{"docker.io/library/nginx", []string{"index.docker.io/library/nginx"}, nil},
		{"docker.io/nginx", []string{"index.docker.io/library/nginx"}, nil},
		{"docker.io/org/*", []string{"index.docker.io/org/app"}, []string{"docker.io/org/app"}},
		{"docker.io/**", []string{"index.docker.io/org/app", "index.docker.io/library/nginx"}, []string{"ghcr.io/org/app"}},
		{"index.docker.io/org/app", []string{"index.docker.io/org/app"}, nil},
		{"localhost/org/app", []string{"localhost/org/app"}, []string{"index.docker.io/localhost/org/app"}},
		{"localhost:5000/**", []string{"localhost:5000/app"}, []string{"localhost/app"}},
		{"127.0.0.1:5000/org/*", []string{"127.0.0.1:5000/org/app"}, []string{"127x0x0x1:5000/org/app"}},
		{"[::1]:5000/org/*", []string{"[::1]:5000/org/app"}, []string{"1:5000/org/app"}},
	} {
		t.Run(c.pattern, func(t *testing.T) {
			g := NewWithT(t)
			pattern, err := trust.ParsePattern(c.pattern)
			g.Expect(err).NotTo(HaveOccurred())
			for _, name := range c.matches {
				g.Expect(pattern.Matches(name)).To(BeTrue(), name)
			}
			for _, name := range append(c.misses, "") {
				g.Expect(pattern.Matches(name)).To(BeFalse(), "%q", name)
			}
		})
	}
	for name, text := range map[string]string{
		"empty":                              "",
		"only a slash":                       "/",
		"a scheme":                           "https://ghcr.io/org/app",
		"a tag":                              "ghcr.io/org/app:v1",
		"a digest":                           "ghcr.io/org/app@sha256:aa",
		"upper case in the path":             "ghcr.io/Org/app",
		"a host alone":                       "ghcr.io",
		"a host and nothing":                 "ghcr.io/",
		"an empty segment":                   "ghcr.io//app",
		"three stars":                        "ghcr.io/***",
		"two stars in a host":                "**.example.com/app",
		"two stars at the end of a host":     "ghcr.io**/app",
		"a line break":                       "ghcr.io/org/app\n",
		"a regular expression":               "ghcr.io/(org|other)/app",
		"a character that needs no escaping": "ghcr.io/org/äpp",
		"a dot at the end of the host":       "ghcr.io./org/**",
		"a dot segment":                      "ghcr.io/org/../**",
		"a part that no name has":            "ghcr.io/org-/**",
		"a port with a leading zero":         "ghcr.io:0443/org/**",
	} {
		t.Run("refused: "+name, func(t *testing.T) {
			_, err := trust.ParsePattern(text)
			NewWithT(t).Expect(err).To(HaveOccurred())
		})
	}
	NewWithT(t).Expect(trust.Pattern{}.Matches("ghcr.io/org/app")).To(BeFalse(), "the zero pattern matches nothing")
}

// byHand is what a canonical pattern means, read character by character.
func byHand(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	crosses := strings.HasPrefix(pattern, "**")
	switch {
	case crosses:
		pattern = pattern[2:]
	case pattern[0] == '*':
		pattern = pattern[1:]
	default:
		return name != "" && name[0] == pattern[0] && byHand(pattern[1:], name[1:])
	}
	for n := 0; ; n++ {
		if byHand(pattern, name[n:]) {
			return true
		}
		if n == len(name) || !crosses && name[n] == '/' {
			return false
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{{"ghcr.io/org/**", "ghcr.io/org/a"}, {"*.a.b/c*", "x.a.b/c"}, {"**", "a.b/c"}, {"a.b/*/c", "a.b/x/c"}, {"a.b/[x]", "a.b/x"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if len(text) > 40 || len(name) > 40 {
			return
		}
		pattern, err := trust.ParsePattern(text)
		if err != nil {
			return
		}
		if canonical, err := reference.CanonicalPattern(text); err != nil || canonical != text {
			return // its meaning is in the table above
		}
		if got, want := pattern.Matches(name), name != "" && byHand(text, name); got != want {
			t.Errorf("%q matches %q: got %t, want %t", text, name, got, want)
		}
	})
}
