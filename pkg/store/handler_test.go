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

package store_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/opencontainers/go-digest"

	"github.com/image-source/image-source-controller/pkg/store"
)

type answer struct {
	StatusCode    int
	ContentLength int64
	Header        http.Header
}

// exchange sends a request as it is written, which no client library would, and
// returns the answer with its body.
func exchange(t testing.TB, address, method, target string, headers ...string) (answer, string) {
	t.Helper()
	g := NewWithT(t)
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", address)
	g.Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	g.Expect(conn.SetDeadline(time.Now().Add(20 * time.Second))).To(Succeed())
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: store", "Connection: close"}, headers...)
	_, err = io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n")
	g.Expect(err).NotTo(HaveOccurred())
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return answer{response.StatusCode, response.ContentLength, response.Header}, string(body)
}

func serve(t testing.TB, s *store.Store, o store.HandlerOptions) (address string) {
	t.Helper()
	server := httptest.NewServer(s.Handler(o))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// expectFetch fetches and checks a file as Flux's consumers do.
func expectFetch(t testing.TB, s *store.Store, stored store.Stored) {
	t.Helper()
	g := NewWithT(t)
	response, body := exchange(t, serve(t, s, store.HandlerOptions{}), "GET", "/"+stored.Path)
	g.Expect(response.StatusCode).To(Equal(http.StatusOK))
	verifier := digest.Digest(stored.Digest).Verifier()
	_, err := io.WriteString(verifier, body)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(verifier.Verified()).To(BeTrue())
	g.Expect(body).To(HaveLen(int(stored.Size)))
}

func TestHandlerServes(t *testing.T) {
	var archive bytes.Buffer
	zip := gzip.NewWriter(&archive)
	_, err := io.WriteString(zip, strings.Repeat("kind: Namespace\n", 100_000))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	NewWithT(t).Expect(zip.Close()).To(Succeed())
	content := archive.String()

	s := open(t, options(t.TempDir()))
	stored := put(t, s, store.Key{Namespace: "apps", Name: "app.example-1.com"}, content)
	address := serve(t, s, store.HandlerOptions{})
	tag := `"sha256:` + stored.SHA256 + `"`

	for name, tc := range map[string]struct {
		method  string
		headers []string
		code    int
		body    string
		length  int
	}{
		"the whole file":    {"GET", nil, 200, content, len(content)},
		"its headers alone": {"HEAD", nil, 200, "", len(content)},
		"a part":            {"GET", []string{"Range: bytes=1-3"}, 206, content[1:4], 3},
		"the end":           {"GET", []string{"Range: bytes=-5"}, 206, content[len(content)-5:], 5},
		"a part of the file that the client has begun":     {"GET", []string{"Range: bytes=1-3", "If-Range: " + tag}, 206, content[1:4], 3},
		"all of it when the client has begun another file": {"GET", []string{"Range: bytes=1-3", `If-Range: "sha256:other"`}, 200, content, len(content)},
		"nothing to whom has it":                           {"GET", []string{"If-None-Match: " + tag}, 304, "", 0},
		"nothing to whom has it, by its headers":           {"HEAD", []string{"If-None-Match: " + tag}, 304, "", 0},
		"all of it to whom has another":                    {"GET", []string{`If-None-Match: "sha256:other"`}, 200, content, len(content)},
		"the bytes as they are to whom accepts gzip":       {"GET", []string{"Accept-Encoding: gzip"}, 200, content, len(content)},
		"the file to whom adds a body":                     {"GET", []string{"Content-Length: 0"}, 200, content, len(content)},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			response, body := exchange(t, address, tc.method, "/"+stored.Path, tc.headers...)
			g.Expect(response.StatusCode).To(Equal(tc.code))
			g.Expect(body == tc.body).To(BeTrue())
			g.Expect(response.Header.Get("ETag")).To(Equal(tag))
			g.Expect(response.Header.Get("Cache-Control")).To(Equal("public, max-age=31536000, immutable"))
			g.Expect(response.Header.Get("X-Content-Type-Options")).To(Equal("nosniff"))
			g.Expect(response.Header).NotTo(HaveKey("Content-Encoding"))
			g.Expect(response.Header).NotTo(HaveKey("Last-Modified"))
			if tc.code != 304 {
				g.Expect(response.ContentLength).To(BeEquivalentTo(tc.length))
				g.Expect(response.Header.Get("Content-Type")).To(Equal("application/gzip"))
				g.Expect(response.Header.Get("Accept-Ranges")).To(Equal("bytes"))
			}
		})
	}

	t.Run("several parts at once", func(t *testing.T) {
		response, body := exchange(t, address, "GET", "/"+stored.Path, "Range: bytes=0-1,4-5")
		NewWithT(t).Expect(response.StatusCode).To(Equal(206))
		NewWithT(t).Expect(body).To(And(ContainSubstring(content[0:2]), ContainSubstring(content[4:6])))
	})

	t.Run("no part beyond the end, and no caching of that", func(t *testing.T) {
		response, _ := exchange(t, address, "GET", "/"+stored.Path, "Range: bytes=99999999-")
		NewWithT(t).Expect(response.StatusCode).To(Equal(416))
		NewWithT(t).Expect(response.Header.Get("Cache-Control")).NotTo(ContainSubstring("immutable"))
	})

	t.Run("what Flux's consumers check, to their kind of client", func(t *testing.T) {
		expectFetch(t, s, stored)
	})
}

func TestHandlerRefuses(t *testing.T) {
	root := t.TempDir()
	s := open(t, options(root))
	stored := put(t, s, app, "v1")
	dir, remove, err := s.Scratch()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	defer remove()
	scratch, err := filepath.Rel(root, write(t, dir, "secret").Path)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	file := stored.SHA256 + ".tar.gz"
	NewWithT(t).Expect(os.WriteFile(filepath.Join(root, stored.Path+".lock"), nil, 0o600)).To(Succeed())
	asked := 0
	address := serve(t, s, store.HandlerOptions{Missing: func(context.Context, store.Key, string) error {
		asked++
		return nil
	}})

	for _, target := range []string{
		"/", "/externalartifact", "/externalartifact/", "/externalartifact/apps", "/externalartifact/apps/",
		"/externalartifact/apps/app", "/externalartifact/apps/app/", "/apps/app/" + file,
		"/externalartifact/apps/" + file, "/externalartifact/" + file,
		"/externalartifact/apps/app/" + file + "/", "/externalartifact/apps/app/" + file + ".lock", "/externalartifact/apps/app/" + stored.SHA256,
		"/externalartifact/apps/app/" + strings.ToUpper(stored.SHA256) + ".tar.gz", "/externalartifact/apps/app/" + stored.SHA256[1:] + ".tar.gz",
		"/externalartifact/apps/app/x" + file, "/externalartifact/apps/app/latest.tar.gz",
		"//externalartifact/apps/app/" + file, "/externalartifact//apps/app/" + file, "/externalartifact/apps/./app/" + file,
		"/externalartifact/apps/other/../app/" + file, "/externalartifact/apps/app/../app/" + file,
		"/externalartifact/apps/app/%2e%2e/app/" + file, "/externalartifact/apps/app/..%2fapp%2f" + file,
		"/externalartifact/apps%2fapp/" + file, "/externalartifact%2fapps%2fapp%2f" + file, "/externalartifact/apps/%61pp/" + file,
		"/..%2f..%2f..%2fetc%2fpasswd", "/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", `/externalartifact\apps\app\` + file,
		"/externalartifact/apps/app/" + file + "%00", "/externalartifact/apps/app%00/" + file, "/externalartifact/apps/app;x=y/" + file,
		"/externalartifact/APPS/app/" + file, "/externalartifact/a.b/app/" + file, "/externalartifact/" + strings.Repeat("a", 64) + "/app/" + file,
		"/externalartifact/apps/" + strings.Repeat("a", 254) + "/" + file, "/externalartifact/apps/-app/" + file, "/externalartifact/apps/a..b/" + file,
		"/blobs/" + stored.SHA256, "/blobs", "/blobs/", "/tmp", "/tmp/", "/" + filepath.ToSlash(scratch), "/favicon.ico", "/metrics",
	} {
		t.Run("GET "+target, func(t *testing.T) {
			g := NewWithT(t)
			response, body := exchange(t, address, "GET", target)
			g.Expect(response.StatusCode).To(Equal(http.StatusNotFound))
			g.Expect(body).To(Equal("not found\n"))
			g.Expect(response.Header.Get("Cache-Control")).To(Equal("no-store"))
			g.Expect(response.Header.Get("X-Content-Type-Options")).To(Equal("nosniff"))
			g.Expect(response.Header).NotTo(HaveKey("Etag"))
		})
	}
	NewWithT(t).Expect(asked).To(BeZero(), "nobody is asked to make what cannot be published")

	for _, method := range []string{"PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
		for _, target := range []string{"/" + stored.Path, "/"} {
			t.Run(method+" "+target, func(t *testing.T) {
				g := NewWithT(t)
				response, _ := exchange(t, address, method, target)
				g.Expect(response.StatusCode).To(Equal(http.StatusMethodNotAllowed))
				g.Expect(response.Header.Get("Allow")).To(Equal("GET, HEAD"))
				g.Expect(read(t, root, stored.Path)).To(Equal("v1"))
			})
		}
	}

	t.Run("a symbolic link where a file should be", func(t *testing.T) {
		g := NewWithT(t)
		hex := digestOf("linked")
		g.Expect(os.Symlink(file, filepath.Join(root, "externalartifact/apps/app", hex+".tar.gz"))).To(Succeed())
		response, _ := exchange(t, serve(t, s, store.HandlerOptions{}), "GET", "/externalartifact/apps/app/"+hex+".tar.gz")
		g.Expect(response.StatusCode).To(Equal(http.StatusNotFound))
	})
}

func TestHandlerMissing(t *testing.T) {
	hex := digestOf("v1")
	target := "/externalartifact/apps/app/" + hex + ".tar.gz"
	type request struct {
		key    store.Key
		sha256 string
	}
	for name, tc := range map[string]struct {
		missing func(ctx context.Context, s *store.Store) error
		code    int
		body    string
	}{
		"a file that is made now is served": {func(_ context.Context, s *store.Store) error { put(t, s, app, "v1"); return nil }, 200, "v1"},
		"a file that nobody publishes is gone": {func(context.Context, *store.Store) error {
			return fmt.Errorf("no record: %w", store.ErrNotPublished)
		}, 404, "not found\n"},
		"a file that cannot be had now is asked for again": {func(context.Context, *store.Store) error {
			return errors.New("registry.internal: token s3cret")
		}, 503, "service unavailable\n"},
		"a file that was said to be made and is not": {func(context.Context, *store.Store) error { return nil }, 503, "service unavailable\n"},
		"a file that takes too long": {func(ctx context.Context, _ *store.Store) error {
			<-ctx.Done()
			return ctx.Err()
		}, 503, "service unavailable\n"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := open(t, options(t.TempDir()))
			var asked []request
			address := serve(t, s, store.HandlerOptions{
				HoldTimeout: 100 * time.Millisecond,
				Missing: func(ctx context.Context, key store.Key, sha256 string) error {
					asked = append(asked, request{key, sha256})
					return tc.missing(ctx, s)
				},
			})
			response, body := exchange(t, address, "GET", target)
			g.Expect(response.StatusCode).To(Equal(tc.code))
			g.Expect(body).To(Equal(tc.body))
			g.Expect(asked).To(Equal([]request{{app, hex}}))
			if tc.code == 503 {
				g.Expect(response.Header.Get("Retry-After")).To(Equal("5"))
			}
			if tc.code != 200 {
				g.Expect(response.Header.Get("Cache-Control")).To(Equal("no-store"))
			}
		})
	}

	t.Run("a missing file is gone where nobody can make it", func(t *testing.T) {
		response, _ := exchange(t, serve(t, open(t, options(t.TempDir())), store.HandlerOptions{}), "GET", target)
		NewWithT(t).Expect(response.StatusCode).To(Equal(http.StatusNotFound))
	})

	t.Run("a file that was found damaged is made again before it is served", func(t *testing.T) {
		g := NewWithT(t)
		root := t.TempDir()
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		address := serve(t, s, store.HandlerOptions{Missing: func(context.Context, store.Key, string) error {
			put(t, s, app, "v1")
			return nil
		}})
		g.Expect(os.WriteFile(filepath.Join(root, stored.Path), []byte("vX"), 0o600)).To(Succeed())
		scrub(t, s)
		_, ok, err := s.Check(t.Context(), app, recorded(stored))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(ok).To(BeFalse())
		_, body := exchange(t, address, "GET", "/"+stored.Path)
		g.Expect(body).To(Equal("v1"))
	})

	t.Run("a disk that does not answer is no missing file", func(t *testing.T) {
		g := NewWithT(t)
		root := filepath.Join(t.TempDir(), "data")
		g.Expect(os.Mkdir(root, 0o750)).To(Succeed())
		s := open(t, options(root))
		stored := put(t, s, app, "v1")
		address := serve(t, s, store.HandlerOptions{})
		folder := filepath.Join(root, "externalartifact", "apps")
		g.Expect(os.RemoveAll(folder)).To(Succeed())
		g.Expect(os.Symlink("apps", folder)).To(Succeed()) // a loop: ELOOP
		response, _ := exchange(t, address, "GET", "/"+stored.Path)
		g.Expect(response.StatusCode).To(Equal(http.StatusServiceUnavailable))
		g.Expect(response.Header.Get("Retry-After")).NotTo(BeEmpty())
	})
}

func TestHandlerObserve(t *testing.T) {
	type observed struct {
		code  int
		bytes int64
	}
	content := strings.Repeat("x", 300<<10)
	s := open(t, options(t.TempDir()))
	stored := put(t, s, app, content)
	answers := make(chan observed, 1)
	address := serve(t, s, store.HandlerOptions{Observe: func(code int, bytes int64) { answers <- observed{code, bytes} }})
	for name, tc := range map[string]struct {
		method, target string
		headers        []string
		want           observed
	}{
		"a whole file":          {"GET", "/" + stored.Path, nil, observed{200, 300 << 10}},
		"its headers":           {"HEAD", "/" + stored.Path, nil, observed{200, 0}},
		"a part of it":          {"GET", "/" + stored.Path, []string{"Range: bytes=0-9"}, observed{206, 10}},
		"nothing new":           {"GET", "/" + stored.Path, []string{`If-None-Match: "sha256:` + stored.SHA256 + `"`}, observed{304, 0}},
		"a path that is not":    {"GET", "/", nil, observed{404, int64(len("not found\n"))}},
		"a method that is not":  {"PUT", "/", nil, observed{405, int64(len("method not allowed\n"))}},
		"a range out of bounds": {"HEAD", "/" + stored.Path, []string{"Range: bytes=999999-"}, observed{416, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			exchange(t, address, tc.method, tc.target, tc.headers...)
			got := <-answers
			NewWithT(t).Expect(got.code).To(Equal(tc.want.code))
			if tc.method != "HEAD" {
				NewWithT(t).Expect(got.bytes).To(Equal(tc.want.bytes))
			}
		})
	}
}
