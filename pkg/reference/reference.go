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

// Package reference reads names of repositories and references to images. A
// repository has one canonical name: the one that is sent to its registry, and the
// one that policies judge.
package reference

import (
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

const (
	// DockerHub is the canonical host of Docker Hub.
	DockerHub = "index.docker.io"
	// MaxLength is the length of the longest canonical name, host and path, in
	// bytes: the limit of most clients, says the Distribution Specification.
	MaxLength = 255
)

const (
	// maxHost is the length of the longest name of DNS (RFC 1035).
	maxHost = 253
	// maxText is the length of the longest text that is read. A canonical name may be
	// shorter than the text that it is read from, but not by as much.
	maxText = 2 * MaxLength
)

var (
	// paths are the repository names of the OCI Distribution Specification.
	paths = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	// tags are the tags of that specification.
	tags = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	// domains are names of DNS (RFC 1123) in lower case.
	domains = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	// numbers end a host that URL libraries may read as an IPv4 address (WHATWG
	// URL, "ends in a number checker"). No name of DNS ends like that.
	numbers = regexp.MustCompile(`(^|\.)([0-9]+|0x[0-9a-f]*)$`)
	ports   = regexp.MustCompile(`^[1-9][0-9]{0,4}$`)
)

// Parse reads the name of a repository and returns the repository under its
// canonical name. The options are for the repository; they do not change how the
// name is read. The errors are those of Canonical.
func Parse(text string, options ...name.Option) (name.Repository, error) {
	canonical, err := Canonical(text)
	if err != nil {
		return name.Repository{}, err
	}
	return name.NewRepository(canonical, options...)
}

// Canonical returns the canonical name of a repository: host, slash and path. The
// host is in lower case and has no default port (443), an IPv6 address is as
// RFC 5952 writes it, and the names of Docker Hub are written in full.
//
// The error says which part of the name is outside of the grammar. The grammar is
// that of the OCI Distribution Specification for the path. The host is a name of
// DNS, an IPv4 address of four decimal numbers or an IPv6 address in brackets, with
// an optional port. What a URL library, a proxy or a registry could read as another
// name is no name: empty parts, dot segments, escapes, user names, other notations
// of an address.
func Canonical(text string) (string, error) {
	if len(text) > maxText {
		return "", errors.New("the name has " + strconv.Itoa(len(text)) + " characters, expected at most " + strconv.Itoa(MaxLength))
	}
	if strings.Contains(text, "://") {
		return "", errors.New("a name has no scheme: remove all before the host")
	}
	host, path := split(text)
	host, err := CanonicalHost(host)
	if err != nil {
		return "", err
	}
	return join(host, path, path)
}

// IsCanonical tells whether a name of a repository is its canonical name.
func IsCanonical(text string) bool {
	canonical, err := Canonical(text)
	return err == nil && canonical == text
}

// IsTag tells whether a text is a tag by the OCI Distribution Specification.
func IsTag(text string) bool { return tags.MatchString(text) }

// NamesHost tells whether a name or reference begins with the host of a registry.
// One that does not is a name of Docker Hub.
func NamesHost(text string) bool {
	host, _, ok := strings.Cut(text, "/")
	return ok && isHost(host)
}

// split takes the host off a name, by the rule that all clients share.
func split(text string) (host, path string) {
	if !NamesHost(text) {
		return DockerHub, text
	}
	host, path, _ = strings.Cut(text, "/")
	return host, path
}

func isHost(segment string) bool {
	return strings.ContainsAny(segment, ".:") || segment == "localhost"
}

// join returns the name of a path on a canonical host. The example is a path that
// must fit the grammar: the path itself or, for a pattern, one that it matches.
func join(host, path, example string) (string, error) {
	if host == DockerHub && !strings.Contains(path, "/") && !strings.Contains(path, "**") {
		path, example = "library/"+path, "library/"+example
	}
	if !paths.MatchString(example) {
		return "", errors.New("expected a path of lower case letters and digits in parts with one slash between them; " +
			"inside a part, a dot, one or two underscores or any number of dashes may separate letters and digits")
	}
	if length := len(host) + len("/") + len(example); length > MaxLength {
		return "", errors.New("host and path have " + strconv.Itoa(length) + " characters, expected at most " + strconv.Itoa(MaxLength))
	}
	return host + "/" + path, nil
}

// CanonicalHost returns the host and port of a registry as a canonical name has them.
// The errors are those of Canonical.
func CanonicalHost(text string) (string, error) {
	host, port, err := cutPort(text)
	if err != nil {
		return "", err
	}
	if host, err = canonicalAddress(host); err != nil {
		return "", err
	}
	if err := checkPort(port); err != nil {
		return "", err
	}
	return joinPort(host, port), nil
}

// joinPort returns a canonical host and port. The default port goes, unless it is
// all that tells the host from the first part of a name of Docker Hub.
func joinPort(host, port string) string {
	switch {
	case port != "" && (port != ":443" || !isHost(host)):
		return host + port
	case host == "docker.io" || host == "registry-1.docker.io" || host == "registry.hub.docker.com":
		return DockerHub
	default:
		return host
	}
}

// cutPort returns the host in lower case, and its port with the colon. The colons
// of an IPv6 address are in brackets.
func cutPort(text string) (host, port string, err error) {
	// Before ToLower, which makes ASCII of some other characters.
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", "", errors.New("expected a host in ASCII: write an international name in its xn-- form")
	}
	host = strings.ToLower(text)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i:]
	}
	return host, port, nil
}

func checkPort(port string) error {
	if port == "" {
		return nil
	}
	if _, err := strconv.ParseUint(port[1:], 10, 16); err != nil || !ports.MatchString(port[1:]) {
		return errors.New("expected a port from 1 to 65535, without leading zeros")
	}
	return nil
}

// canonicalAddress reads a host without its port.
func canonicalAddress(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		address, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") || !address.Is6() || address.Is4In6() || address.Zone() != "" {
			return "", errors.New("expected an IPv6 address in the brackets, without a zone; write an IPv4 address without brackets")
		}
		return "[" + address.String() + "]", nil
	}
	if numbers.MatchString(host) {
		if address, err := netip.ParseAddr(host); err != nil || !address.Is4() {
			return "", errors.New("expected an IPv4 address of four decimal numbers without leading zeros: the host ends in a number")
		}
		return host, nil
	}
	if len(host) > maxHost || !domains.MatchString(host) {
		return "", errors.New("expected a host that is a name of DNS without a dot at its end, such as ghcr.io, or an IP address")
	}
	return host, nil
}
