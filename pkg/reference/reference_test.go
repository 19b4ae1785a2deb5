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
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/image-source/image-source-controller/pkg/reference"
)

func TestEveryNameHasOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"ghcr.io/org/app":                        "ghcr.io/org/app",
		"GHCR.io/org/app":                        "ghcr.io/org/app",
		"ghcr.io:443/org/app":                    "ghcr.io/org/app",
		"GHCR.IO:443/org/app":                    "ghcr.io/org/app",
		"ghcr.io:1443/org/app":                   "ghcr.io:1443/org/app",
		"ghcr.io:80/org/app":                     "ghcr.io:80/org/app",
		"ghcr.io:65535/org/app":                  "ghcr.io:65535/org/app",
		"ghcr.io/a.b/c_d/e__f/g---h/0":           "ghcr.io/a.b/c_d/e__f/g---h/0",
		"nginx":                                  "index.docker.io/library/nginx",
		"org/app":                                "index.docker.io/org/app",
		"docker.io/org/app":                      "index.docker.io/org/app",
		"docker.io/nginx":                        "index.docker.io/library/nginx",
		"Docker.IO:443/nginx":                    "index.docker.io/library/nginx",
		"index.docker.io/nginx":                  "index.docker.io/library/nginx",
		"registry-1.docker.io/org/app":           "index.docker.io/org/app",
		"registry.hub.docker.com/org/app":        "index.docker.io/org/app",
		"registry-1.docker.io:5000/app":          "registry-1.docker.io:5000/app",
		"[2001:DB8::1]:443/org/app":              "[2001:db8::1]/org/app",
		"[2001:0db8:0:0:0:0:0:1]/org/app":        "[2001:db8::1]/org/app",
		"[2001:db8::443]:5000/app":               "[2001:db8::443]:5000/app",
		"localhost/app":                          "localhost/app",
		"localhost:443/app":                      "localhost/app",
		"localhost:5000/app":                     "localhost:5000/app",
		"registry:443/app":                       "registry:443/app",
		"registry:5000/app":                      "registry:5000/app",
		"127.0.0.1:5000/team/app":                "127.0.0.1:5000/team/app",
		"xn--bcher-kva.example/app":              "xn--bcher-kva.example/app",
		"mirror.example.com/docker.io/org/nginx": "mirror.example.com/docker.io/org/nginx",
	} {
		if got, err := reference.Canonical(text); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", text, got, err, want)
		}
		if got, err := reference.Canonical(want); err != nil || got != want {
			t.Errorf("%s does not stay, but becomes %s (%v)", want, got, err)
		}
	}
}

// hostile are names that a URL library, a proxy or a registry may read as others.
func hostile() map[string]string {
	return map[string]string{
		"an empty name":                         "",
		"a host alone":                          "ghcr.io/",
		"no host":                               "/org/app",
		"two dots":                              "ghcr.io/org/../evil/app",
		"two dots at the start":                 "ghcr.io/../evil/app",
		"two dots at the end":                   "ghcr.io/org/app/..",
		"one dot":                               "ghcr.io/org/./app",
		"a path of a file":                      "./org/app",
		"a path upwards":                        "../org/app",
		"an empty part":                         "ghcr.io/org//app",
		"an empty part at the start":            "ghcr.io//org/app",
		"a slash at the end":                    "ghcr.io/org/app/",
		"an escape":                             "ghcr.io/org/%2e%2e/evil",
		"an escaped slash":                      "ghcr.io/org%2fapp",
		"a backslash":                           `ghcr.io/org\..\evil`,
		"capitals":                              "ghcr.io/Org/app",
		"a host without a dot in capitals":      "LOCALHOST/app",
		"a part that begins with a dash":        "ghcr.io/-org/app",
		"a part that ends with a dash":          "ghcr.io/org-/app",
		"a part that begins with a dot":         "ghcr.io/.org/app",
		"a part that ends with a dot":           "ghcr.io/org./app",
		"two dots in a part":                    "ghcr.io/org..x/app",
		"three underscores":                     "ghcr.io/o___x/app",
		"two separators":                        "ghcr.io/o-.x/app",
		"a tag":                                 "ghcr.io/org/app:v1",
		"a digest":                              "ghcr.io/org/app@sha256:" + strings.Repeat("a", 64),
		"a scheme":                              "https://ghcr.io/org/app",
		"a scheme without slashes":              "https:ghcr.io/org/app",
		"a user":                                "ghcr.io@evil.example/org/app",
		"a user and a password":                 "user:password@ghcr.io/org/app",
		"a query":                               "ghcr.io/org/app?x=/",
		"a fragment":                            "ghcr.io/org/app#x",
		"a query in the host":                   "ghcr.io?/org/app",
		"parameters":                            "ghcr.io/org/app;x=y",
		"a space":                               "ghcr.io/org/ app",
		"a space in the host":                   "ghcr.io /org/app",
		"a line break":                          "ghcr.io/org/app\n",
		"a line break in the host":              "ghcr.io\n/org/app",
		"a zero byte":                           "ghcr.io/org/app\x00",
		"letters that look alike":               "ghcr.io/оrg/app",
		"a host in letters that look alike":     "ghcr.iо/org/app",
		"a host with an umlaut":                 "bücher.example/app",
		"a Kelvin sign, in lower case a k":      "K8s.example/app",
		"a dot of another script":               "ghcr。io/org/app",
		"no text at all":                        "ghcr.io/\xff/app",
		"a dot at the end of the host":          "ghcr.io./org/app",
		"a dot at the end before a port":        "ghcr.io.:443/org/app",
		"a dot at the start of the host":        ".ghcr.io/org/app",
		"an empty label":                        "ghcr..io/org/app",
		"a label that begins with a dash":       "-x.ghcr.io/org/app",
		"a label that ends with a dash":         "x-.ghcr.io/org/app",
		"an underscore in the host":             "my_registry.example/app",
		"a label of 64 letters":                 strings.Repeat("a", 64) + ".example/app",
		"a host of 254 letters":                 strings.Repeat("a.", 126) + "aa/app",
		"an empty port":                         "ghcr.io:/org/app",
		"a port with leading zeros":             "ghcr.io:0443/org/app",
		"a port of zero":                        "ghcr.io:0/org/app",
		"a port that is too high":               "ghcr.io:65536/org/app",
		"a port that is a word":                 "ghcr.io:https/org/app",
		"a port with a sign":                    "ghcr.io:+443/org/app",
		"two ports":                             "ghcr.io:443:443/org/app",
		"an IPv4 address of two numbers":        "127.1:5000/app",
		"an IPv4 address of one number":         "2130706433:5000/app",
		"a hexadecimal IPv4 address":            "0x7f.1:5000/app",
		"a hexadecimal number":                  "0x7f000001:5000/app",
		"an octal IPv4 address":                 "0177.0.0.1:5000/app",
		"an IPv4 address with leading zeros":    "127.0.0.01:5000/app",
		"an IPv4 address of large numbers":      "256.0.0.1:5000/app",
		"an IPv4 address of five numbers":       "127.0.0.0.1:5000/app",
		"a name of DNS that ends in a number":   "example.1/app",
		"an IPv4 address in brackets":           "[127.0.0.1]:5000/app",
		"an IPv4 address as an IPv6 one":        "[::ffff:127.0.0.1]:5000/app",
		"the same in hexadecimal":               "[::ffff:7f00:1]:5000/app",
		"an IPv6 address with a zone":           "[fe80::1%25eth0]:5000/app",
		"an IPv6 address without brackets":      "2001:db8::1/app",
		"an IPv6 address with half a bracket":   "[2001:db8::1:5000/app",
		"an IPv6 address and something else":    "[2001:db8::1]x:5000/app",
		"a name that is longer than 255":        "ghcr.io/" + strings.Repeat("a", 248),
		"a name of Docker Hub that is too long": strings.Repeat("a", 232),
	}
}

func TestHostileNamesAreRefused(t *testing.T) {
	for what, text := range hostile() {
		if canonical, err := reference.Canonical(text); err == nil {
			t.Errorf("%s: %q is accepted as %s", what, text, canonical)
		}
		if _, err := reference.Parse(text, name.Insecure); err == nil {
			t.Errorf("%s: %q can be parsed", what, text)
		}
		if reference.IsCanonical(text) {
			t.Errorf("%s: %q is canonical", what, text)
		}
	}
	for _, text := range []string{"ghcr.io/" + strings.Repeat("a", 247), strings.Repeat("a", 231)} {
		if canonical, err := reference.Canonical(text); err != nil || len(canonical) != reference.MaxLength {
			t.Errorf("%s is %s: %v", text, canonical, err)
		}
	}
}

func TestReferences(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for text, want := range map[string][3]string{
		"ghcr.io/org/app":                   {"ghcr.io/org/app"},
		"ghcr.io/org/app:v1":                {"ghcr.io/org/app", "v1"},
		"GHCR.io:443/org/app:V1_":           {"ghcr.io/org/app", "V1_"},
		"ghcr.io/org/app@" + digest:         {"ghcr.io/org/app", "", digest},
		"ghcr.io/org/app:v1@" + digest:      {"ghcr.io/org/app", "v1", digest},
		"localhost:5000/app":                {"localhost:5000/app"},
		"[::1]:5000/app:v1":                 {"[::1]:5000/app", "v1"},
		"nginx:1":                           {"index.docker.io/library/nginx", "1"},
		"docker.io/nginx:" + digest[7:]:     {"index.docker.io/library/nginx", digest[7:]},
		"localhost/app:" + digest[:6] + "x": {"localhost/app", "sha256x"},
	} {
		got, err := reference.ParseImage(text)
		if err != nil || got.Repository.Name() != want[0] || got.Tag != want[1] || (got.Digest.Hex != "" || want[2] != "") && got.Digest.String() != want[2] {
			t.Errorf("%s is %v (%v), want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"ghcr.io/org/app:", "ghcr.io/org/app:..", "ghcr.io/org/app:-x", "ghcr.io/org/app:.x", "ghcr.io/org/app:a b", "ghcr.io/org/app:%2e",
		"ghcr.io/org/app:" + strings.Repeat("a", 129), "ghcr.io/org/app:v1:v2", "ghcr.io/org/app@", "ghcr.io/org/app@sha256:", "@" + digest,
		"ghcr.io/org/app@sha256:" + strings.Repeat("A", 64), "ghcr.io/org/app@sha512:" + strings.Repeat("a", 128),
		"ghcr.io/org/app@" + digest + "@" + digest, "ghcr.io/org/app@" + digest + ":v1", "ghcr.io/org/../app:v1", "ghcr.io/org/app/:v1",
	} {
		if got, err := reference.ParseImage(text); err == nil {
			t.Errorf("%s is accepted as %v", text, got)
		}
	}
}

// wire tells for which host and path a registry is asked by go-containerregistry,
// after net/http and a registry's multiplexer have cleaned the path.
type wire struct{ asked []string }

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(sent *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	// What a server reads of the request line and of Host.
	received, err := http.NewRequest(sent.Method, sent.URL.RequestURI(), http.NoBody)
	if err != nil {
		return nil, err
	}
	received.Host, received.RequestURI = sent.URL.Host, sent.URL.RequestURI()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) {
		w.asked = append(w.asked, r.Host+r.URL.EscapedPath())
	})
	mux.ServeHTTP(answer, received)
	result := answer.Result()
	result.Request = sent
	return result, nil
}

// FuzzWhatIsJudgedIsAskedFor holds that the name that policies judge is the name
// that a registry is asked for: no cleaning of a URL makes another one of it.
func FuzzWhatIsJudgedIsAskedFor(f *testing.F) {
	for _, text := range hostile() {
		f.Add(text)
	}
	for _, text := range []string{"nginx", "GHCR.io:443/org/app", "[2001:DB8::1]:5000/a__b/c--d", "registry:443/app", "registry.hub.docker.com/x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		repository, err := reference.Parse(text)
		if err != nil {
			return
		}
		canonical := repository.Name()
		if !reference.IsCanonical(canonical) || len(canonical) > reference.MaxLength {
			t.Fatalf("%q becomes %s, which does not stay", text, canonical)
		}
		// go-containerregistry reads the same path; it does not know all hosts of Docker Hub.
		theirs, err := name.NewRepository(text)
		if err != nil || strings.TrimPrefix(theirs.RepositoryStr(), "library/") != strings.TrimPrefix(repository.RepositoryStr(), "library/") {
			t.Fatalf("%q is %s here, and %s there: %v", text, canonical, theirs, err)
		}
		w := &wire{}
		_, err = remote.Head(repository.Tag("v1"), remote.WithTransport(w), remote.WithContext(t.Context()))
		if len(w.asked) != 2 {
			t.Fatalf("%q: asked for %q: %v", text, w.asked, err)
		}
		want := repository.RegistryStr() + "/v2/" + strings.TrimPrefix(canonical, repository.RegistryStr()+"/") + "/manifests/v1"
		if w.asked[1] != want {
			t.Fatalf("%q is judged as %s, and the registry is asked for %s", text, canonical, w.asked[1])
		}
		if u, err := url.Parse("https://" + canonical); err != nil || u.Host+u.EscapedPath() != canonical || u.JoinPath().String() != "https://"+canonical {
			t.Fatalf("%s is %v as a URL: %v", canonical, u, err)
		}
	})
}
