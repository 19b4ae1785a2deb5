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
	"testing"

	"github.com/image-source/image-source-controller/pkg/reference"
)

func TestEveryNameHasOneSpelling(t *testing.T) {
	for name, want := range map[string]string{
		"ghcr.io/org/app":                        "ghcr.io/org/app",
		"GHCR.io/org/app":                        "ghcr.io/org/app",
		"ghcr.io./org/app":                       "ghcr.io/org/app",
		"ghcr.io:443/org/app":                    "ghcr.io/org/app",
		"ghcr.io:0443/org/app":                   "ghcr.io/org/app",
		"ghcr.io:/org/app":                       "ghcr.io/org/app",
		"GHCR.IO.:00443/org/app":                 "ghcr.io/org/app",
		"ghcr.io:05000/org/app":                  "ghcr.io:5000/org/app",
		"ghcr.io.:5000/org/app":                  "ghcr.io:5000/org/app",
		"ghcr.io:1443/org/app":                   "ghcr.io:1443/org/app",
		"ghcr.io:65979/org/app":                  "ghcr.io:65979/org/app",
		"docker.io/org/app":                      "index.docker.io/org/app",
		"docker.io/nginx":                        "index.docker.io/library/nginx",
		"index.docker.io/nginx":                  "index.docker.io/library/nginx",
		"Registry-1.Docker.io.:0443/nginx":       "index.docker.io/library/nginx",
		"registry-1.docker.io/org/app":           "index.docker.io/org/app",
		"registry-1.docker.io:5000/org/app":      "index.docker.io:5000/org/app",
		"[2001:DB8::1]:443/org/app":              "[2001:db8::1]/org/app",
		"[2001:db8::1]/org/app":                  "[2001:db8::1]/org/app",
		"[2001:db8::443]:5000/app":               "[2001:db8::443]:5000/app",
		"docker.io/*":                            "index.docker.io/*",
		"*.example.com:0443/**":                  "*.example.com/**",
		"registry.example.com:*/team/**":         "registry.example.com:*/team/**",
		"localhost:5000/app":                     "localhost:5000/app",
		"127.0.0.1:5000/team/app":                "127.0.0.1:5000/team/app",
		"mirror.example.com/docker.io/org/nginx": "mirror.example.com/docker.io/org/nginx",
	} {
		if got := reference.Canonical(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
		if got := reference.Canonical(want); got != want {
			t.Errorf("%s does not stay, but becomes %s", want, got)
		}
	}
}
