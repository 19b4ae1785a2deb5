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

// Package reference knows the one spelling of a repository's name. What the
// platform lists and what a tenant writes meet there, and only there.
package reference

import (
	"strconv"
	"strings"
)

// DockerHub is the canonical host of Docker Hub.
const DockerHub = "index.docker.io"

// Canonical returns the one spelling of the name of a repository, host and path:
// the host in lower case, without the dot that ends a name of DNS and without the
// default port, a port without leading zeros, and Docker Hub's names in full. In a
// pattern, what has a * is left as it is.
func Canonical(name string) string {
	host, path, _ := strings.Cut(name, "/")
	host = canonicalHost(host)
	if host == DockerHub && !strings.ContainsAny(path, "/*") {
		path = "library/" + path
	}
	return host + "/" + path
}

func canonicalHost(host string) string {
	host = strings.ToLower(host)
	port := ""
	// The colons of an IPv6 address are in brackets.
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	host = strings.TrimSuffix(host, ".")
	if number, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(number, 10)
	}
	switch host {
	case "docker.io", "registry-1.docker.io":
		host = DockerHub
	}
	if port == "" || port == "443" {
		return host
	}
	return host + ":" + port
}
