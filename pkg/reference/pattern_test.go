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

package reference_test

import (
	"strings"
	"testing"

	"github.com/image-source/image-source-controller/pkg/reference"
)

func TestEveryPatternHasOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"**":                              "**",
		"**/app":                          "**/app",
		"ghcr.io/org/**":                  "ghcr.io/org/**",
		"GHCR.io:443/org/*":               "ghcr.io/org/*",
		"docker.io/*":                     "index.docker.io/library/*",
		"docker.io/**":                    "index.docker.io/**",
		"docker.io/app-**":                "index.docker.io/app-**",
		"registry.hub.docker.com/nginx":   "index.docker.io/library/nginx",
		"nginx":                           "index.docker.io/library/nginx",
		"org/*":                           "index.docker.io/org/*",
		"*.Example.com:443/**":            "*.example.com/**",
		"*/org/app":                       "*/org/app",
		"10.0.0.*:5000/**":                "10.0.0.*:5000/**",
		"registry.example.com:*/team/**":  "registry.example.com:*/team/**",
		"registry.example.com:50*/team/*": "registry.example.com:50*/team/*",
		"[2001:DB8::*]:5000/**":           "[2001:db8::*]:5000/**",
		"[2001:0db8::1]:5000/**":          "[2001:db8::1]:5000/**",
		"registry:443/**":                 "registry:443/**",
		"ghcr.io/org/app-*":               "ghcr.io/org/app-*",
		"ghcr.io/org/*_x":                 "ghcr.io/org/*_x",
	} {
		if got, err := reference.CanonicalPattern(text); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", text, got, err, want)
		}
		if got, err := reference.CanonicalPattern(want); err != nil || got != want {
			t.Errorf("%s does not stay, but becomes %s (%v)", want, got, err)
		}
	}
}

func TestPatternsThatCanNeverMatchAreRefused(t *testing.T) {
	never := hostile()
	for what, text := range map[string]string{
		"two dots before **":                 "ghcr.io/org/../**",
		"a dot before *":                     "ghcr.io/.*/app",
		"two dots before *":                  "ghcr.io/a..*/app",
		"three underscores and *":            "ghcr.io/*___x",
		"a dash before a slash":              "ghcr.io/*-/app",
		"an empty part":                      "ghcr.io//**",
		"a slash at the end":                 "ghcr.io/**/",
		"capitals":                           "ghcr.io/Org/**",
		"a host in letters that look alike":  "*.еxample.com/**",
		"a Kelvin sign":                      "*.K8s.example/**",
		"a dot at the end of a host with *":  "*.example.com./**",
		"an empty label":                     "*..example.com/**",
		"a port with a leading zero":         "*.example.com:0*/**",
		"a host that ends in a number":       "*.1.2/**",
		"an IPv6 address with leading zeros": "[2001:0db8::*]/**",
		"an IPv4 address in brackets":        "[127.0.0.*]/**",
		"a host that ends in *, and 443":     "*:443/**",
		"three stars":                        "ghcr.io/***",
		"two stars in a host":                "**.example.com/app",
		"a host alone":                       "*.example.com",
		"a literal of more than 255":         "ghcr.io/" + strings.Repeat("a", 248) + "**",
	} {
		never["pattern: "+what] = text
	}
	for what, text := range never {
		if canonical, err := reference.CanonicalPattern(text); err == nil {
			t.Errorf("%s: %q is accepted as %s", what, text, canonical)
		}
	}
}
