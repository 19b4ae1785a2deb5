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

package registry_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const index = "application/vnd.oci.image.index.v1+json"

// write answers with a body and the headers of name and value pairs.
func write(body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		_, _ = io.WriteString(w, body)
	}
}

func code(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// raw answers with bytes of its own and closes the connection, unless it hangs.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(connection, answer)
		_ = connection.Close()
	}
}

// bounded returns the context of a request that the timeouts of the client have to
// end, long before this one does.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// quick are timeouts that make hostile servers cost little time.
func quick() registry.Options {
	return registry.Options{
		DialTimeout: 300 * time.Millisecond, HeaderTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond,
	}
}

// Whoever spares a registry that does not answer must not spare one that does.
func TestAFailureTellsWhetherTheRegistryAnswered(t *testing.T) {
	realm := []string{"WWW-Authenticate", `Bearer realm="https://auth.example.org/token"`}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   bool
	}{
		"it has no use for the request":       {code(http.StatusBadRequest, "what?"), true},
		"it limits the rate":                  {code(http.StatusTooManyRequests, "slowly"), true},
		"it is overloaded":                    {code(http.StatusServiceUnavailable, "later"), true},
		"it refuses":                          {code(http.StatusForbidden, "no"), true},
		"it ends early":                       {func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }, true},
		"it redirects to where nobody may go": {code(http.StatusTemporaryRedirect, "", "Location", "http://169.254.169.254/"), true},
		"it names a realm that nobody trusts": {code(http.StatusUnauthorized, "", realm...), true},
		"it ends the connection":              {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false},
		"it says nothing":                     {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			_, layer := s.putImage(t, "app:1", "content")
			s.answerTo("/blobs/", c.answer)
			err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).Pull(bounded(t), layer, io.Discard)
			g.Expect(err).To(HaveOccurred())
			g.Expect(fault.Of(err, "").Answered).To(Equal(c.want), err.Error())
		})
	}
}

func TestHostileManifests(t *testing.T) {
	honest := `{"schemaVersion":2,"manifests":[]}`
	digest := descriptorOf([]byte(honest)).Digest
	other := descriptorOf([]byte("other")).Digest
	for _, tc := range []struct {
		name   string
		query  registry.Query
		answer http.HandlerFunc
		reason string
		class  fault.Class
		words  string
	}{
		{"a body that does not match the digest that was asked for", registry.Query{Digest: digest},
			write(honest + " "), v1alpha1.ReasonInvalidArtifact, fault.Retry, digest.String()},
		{"a body that does not match the digest of its header", registry.Query{Tag: "1"},
			write(honest, "Docker-Content-Digest", other.String()), v1alpha1.ReasonInvalidArtifact, fault.Retry, other.String()},
		{"a manifest that says it is over 4 MiB", registry.Query{Tag: "1"},
			write("", "Content-Length", fmt.Sprint(registry.MaxManifest+1)), v1alpha1.ReasonLimitExceeded, fault.Retry, "larger than 4194304 bytes"},
		{"a manifest that is over 4 MiB and does not say so", registry.Query{Tag: "1"},
			func(w http.ResponseWriter, _ *http.Request) {
				w.(http.Flusher).Flush()
				_, _ = w.Write(bytes.Repeat([]byte(" "), registry.MaxManifest+1))
			}, v1alpha1.ReasonLimitExceeded, fault.Retry, "larger than 4194304 bytes"},
		{"a manifest that never ends", registry.Query{Tag: "1"},
			func(w http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
						return
					}
				}
			}, v1alpha1.ReasonLimitExceeded, fault.Retry, "larger than 4194304 bytes"},
		{"a manifest that ends early", registry.Query{Tag: "1"},
			raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}"), v1alpha1.ReasonFetchFailed, fault.Retry, "ended in the middle"},
		{"headers that never come", registry.Query{Tag: "1"},
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, v1alpha1.ReasonFetchFailed, fault.Retry, "took too long"},
		{"a body that stalls", registry.Query{Tag: "1"},
			func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "{")
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}, v1alpha1.ReasonFetchFailed, fault.Retry, "no progress for 300ms"},
		{"headers without end", registry.Query{Tag: "1"},
			write("", "X-Long", strings.Repeat("x", 1<<20)), v1alpha1.ReasonFetchFailed, fault.Retry, "server response headers exceeded"},
		{"an answer that is not HTTP", registry.Query{Tag: "1"},
			raw("\x1b[31mpassword=hunter22\r\n\r\n"), v1alpha1.ReasonFetchFailed, fault.Retry, "malformed HTTP"},
		{"a compressed body that nobody asked for", registry.Query{Digest: digest},
			write("\x1f\x8b\x08", "Content-Encoding", "gzip"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "digest"},
		{"a connection that is reset", registry.Query{Tag: "1"},
			func(w http.ResponseWriter, _ *http.Request) {
				connection, _, _ := w.(http.Hijacker).Hijack()
				_ = connection.(*net.TCPConn).SetLinger(0)
				_ = connection.Close()
			}, v1alpha1.ReasonFetchFailed, fault.Retry, "cannot resolve tag"},
		{"a tag that nobody pushed", registry.Query{Tag: "1"},
			code(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`), v1alpha1.ReasonImageNotFound, fault.Retry, `"MANIFEST_UNKNOWN: manifest unknown"`},
		{"a refusal", registry.Query{Tag: "1"}, code(403, ""), v1alpha1.ReasonAuthenticationFailed, fault.Retry, "403 Forbidden"},
		{"a demand for a login", registry.Query{Tag: "1"}, code(401, ""), v1alpha1.ReasonAuthenticationFailed, fault.Retry, "secretRef"},
		{"a failing registry", registry.Query{Tag: "1"}, code(500, "oh"), v1alpha1.ReasonFetchFailed, fault.Retry, `500 Internal Server Error: "oh"`},
		{"an odd status", registry.Query{Tag: "1"}, code(204, ""), v1alpha1.ReasonFetchFailed, fault.Retry, "204 No Content"},
		{"a query for nothing", registry.Query{}, code(200, ""), v1alpha1.ReasonInvalidSpec, fault.Stall, "not a tag"},
		{"a tag that leaves the repository", registry.Query{Tag: "../../other/manifests/1"}, code(200, ""), v1alpha1.ReasonInvalidSpec, fault.Stall, "not a tag"},
		{"a digest that is none", registry.Query{Digest: v1.Hash{Algorithm: "sha256", Hex: "../x"}}, code(200, ""), v1alpha1.ReasonInvalidSpec, fault.Stall, "not a sha256"},
		{"a digest of another kind", registry.Query{Digest: v1.Hash{Algorithm: "sha512", Hex: strings.Repeat("0", 128)}}, code(200, ""), v1alpha1.ReasonInvalidSpec, fault.Stall, "not a sha256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.answerTo("/manifests/", tc.answer)
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(bounded(t), tc.query)
			expectFault(t, err, tc.reason, tc.class)
			NewWithT(t).Expect(err.Error()).To(ContainSubstring(tc.words))
			NewWithT(t).Expect(err.Error()).NotTo(Or(ContainSubstring("hunter22"), ContainSubstring("\x1b")))
		})
	}
}

func TestHeadAndGetThatDifferAreRefused(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	claimed := descriptorOf([]byte("what HEAD says")).Digest
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	s.answerTo("/manifests/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Content-Digest", claimed.String())
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "what GET says")
		}
	})
	_, err = repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
	g.Expect(err.Error()).To(ContainSubstring(claimed.String()))
	s.answerTo("/blobs/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Docker-Content-Digest", claimed.String())
	})
	expectFault(t, repo.HasBlob(t.Context(), descriptorOf([]byte("else")).Digest), v1alpha1.ReasonInvalidArtifact, fault.Retry)
}

func TestTheMediaTypeIsThatOfTheContent(t *testing.T) {
	for _, tc := range []struct{ name, header, body, want string }{
		{"the header, without parameters", index + "; charset=utf-8", `{"schemaVersion":2}`, index},
		{"a manifest by what it has when the header is that of another", string(types.DockerManifestSchema2), `{"schemaVersion":2,"layers":[]}`, string(types.OCIManifestSchema1)},
		{"the body when the header is generic", "application/json", `{"schemaVersion":2,"mediaType":"` + index + `"}`, index},
		{"the body when the header is text", "text/plain; charset=utf-8", `{"mediaType":"` + index + `"}`, index},
		{"the body when the header is that of storage", "binary/octet-stream", `{"schemaVersion":2,"layers":[]}`, string(types.OCIManifestSchema1)},
		{"an index by what it has when the header is that of storage", "binary/octet-stream", `{"schemaVersion":2,"manifests":[]}`, index},
		{"an index by what it has", "application/octet-stream", `{"schemaVersion":2,"manifests":[]}`, index},
		{"a manifest by what it has", "", `{"schemaVersion":2,"layers":[]}`, string(types.OCIManifestSchema1)},
		{"nothing for schema 1", "", `{"schemaVersion":1,"layers":[]}`, ""},
		{"nothing for lists that are none", "", `{"schemaVersion":2,"manifests":null,"layers":{}}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.answerTo("/manifests/", func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Content-Type"] = []string{tc.header}
				_, _ = io.WriteString(w, tc.body)
			})
			m, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(m.MediaType)).To(Equal(tc.want))
			g.Expect(string(m.Body)).To(Equal(tc.body))
		})
	}
}

// TestAFalseMediaTypeIsNotRemembered holds that a false header, which no digest
// covers, is no longer believed than it is sent.
func TestAFalseMediaTypeIsNotRemembered(t *testing.T) {
	image := string(types.OCIManifestSchema1)
	for _, tc := range []struct{ name, header, body string }{
		{"a manifest that says what it is", index, `{"schemaVersion":2,"mediaType":"` + image + `","layers":[]}`},
		{"of another vendor", string(types.DockerManifestSchema2), `{"schemaVersion":2,"mediaType":"` + image + `","layers":[]}`},
		{"a manifest that does not", index, `{"schemaVersion":2,"layers":[]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
			s.answerTo("/manifests/", write(tc.body, "Content-Type", tc.header))
			_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
			s.answerTo("/manifests/", write(tc.body, "Content-Type", image))
			m, err := repo.Resolve(t.Context(), registry.Query{Digest: descriptorOf([]byte(tc.body)).Digest})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(m.MediaType)).To(Equal(image))
		})
	}
}

// TestAnAnswerThatNobodyVouchesForIsARetry answers a tag once with bytes that no digest
// covers, as a proxy or a failing registry does. The tag is then resolved as before.
func TestAnAnswerThatNobodyVouchesForIsARetry(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"a page":            write("<html>be right back</html>", "Content-Type", "text/html"),
		"an empty body":     write(""),
		"an empty object":   write("{}", "Content-Type", "application/json"),
		"an error text":     write(`{"errors":[{"code":"UNAVAILABLE"}]}`, "Content-Type", index),
		"JSON that is cut":  write(`{"schemaVersion":2,"layers":[`, "Content-Type", index),
		"null":              write("null", "Content-Type", index),
		"a list":            write("[]", "Content-Type", index),
		"an unknown digest": write("hello", "Docker-Content-Digest", "blake3:"+strings.Repeat("0", 64)),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			digest, _ := s.putImage(t, "app:1", "x")
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
			resolve := func() error {
				m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				if err == nil {
					g.Expect(m.Digest).To(Equal(digest))
				}
				return err
			}
			for range 2 { // a tag that is not known, and then one that is
				s.answerTo("/manifests/", answer)
				expectFault(t, resolve(), v1alpha1.ReasonFetchFailed, fault.Retry)
				_, err := repo.ReadManifest(t.Context(), "1")
				expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
				s.answer(nil)
				g.Expect(resolve()).To(Succeed())
			}
			s.asked()
			g.Expect(resolve()).To(Succeed())
			g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1"}), "a GET counts as a pull")
		})
	}
}

func TestBytesWhoseDigestTheRegistryNamesAreVouchedFor(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.answerTo("/manifests/", write("hello", "Docker-Content-Digest", descriptorOf([]byte("hello")).Digest.String()))
	m, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(m.Body)).To(Equal("hello"))
	g.Expect(m.MediaType).To(BeEmpty())
}

// TestAManifestIsNotDecodedToTellWhatItIs holds that a manifest of many small
// values costs no more than its bytes, whatever the registry calls it.
func TestAManifestIsNotDecodedToTellWhatItIs(t *testing.T) {
	for name, fill := range map[string]string{"layers": "0,", "manifests": "{},"} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			body := `{"schemaVersion":2,"` + name + `":[` + strings.Repeat(fill, (registry.MaxManifest-100)/len(fill)) + strings.TrimSuffix(fill, ",") + `]}`
			s.answerTo("/manifests/", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, body)
			})
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			runtime.ReadMemStats(&after)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.Body).To(HaveLen(len(body)))
			g.Expect(m.MediaType).NotTo(BeEmpty())
			// The body itself, as it grows: io.ReadAll allocates some times its length.
			g.Expect(after.TotalAlloc - before.TotalAlloc).To(BeNumerically("<", 10*registry.MaxManifest))
		})
	}
}

func TestHostileBlobs(t *testing.T) {
	honest := descriptorOf([]byte("twelve bytes"))
	for _, tc := range []struct {
		name   string
		desc   v1.Descriptor
		answer http.HandlerFunc
		reason string
		class  fault.Class
		words  string
	}{
		{"altered", honest, write("twelve bytez"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "its bytes have the digest"},
		{"truncated, with a length", honest, raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ntwelve"), v1alpha1.ReasonFetchFailed, fault.Retry, "ended in the middle"},
		{"truncated, without one", honest, raw("HTTP/1.1 200 OK\r\n\r\ntwelve"), v1alpha1.ReasonFetchFailed, fault.Retry, "ended after 6 of 12 bytes"},
		{"longer, without a length", honest, raw("HTTP/1.1 200 OK\r\n\r\ntwelve bytes and more"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "goes on after 12 bytes"},
		{"altered behind its end", honest, raw("HTTP/1.1 200 OK\r\n\r\ntwelve bytes\x00"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "goes on after 12 bytes"},
		{"of another length", honest, write("twelve bytes and more"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "21 bytes long, the manifest says 12"},
		{"longer than its length says", honest, raw("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\ntwelve bytez and more"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "digest"},
		{"longer than the manifest says", v1.Descriptor{Digest: honest.Digest, Size: 6}, write("twelve bytes"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "it has 12 bytes, the manifest says 6"},
		{"shorter than the manifest says", v1.Descriptor{Digest: honest.Digest, Size: 20}, write("twelve bytes"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "it has 12 bytes, the manifest says 20"},
		{"longer, in one piece", v1.Descriptor{Digest: honest.Digest, Size: 6}, raw("HTTP/1.1 200 OK\r\n\r\ntwelve bytes"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "it has 12 bytes, the manifest says 6"},
		{"shorter, in one piece", v1.Descriptor{Digest: honest.Digest, Size: 20}, raw("HTTP/1.1 200 OK\r\n\r\ntwelve bytes"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "it has 12 bytes, the manifest says 20"},
		{"longer than the manifest says, of a coding", v1.Descriptor{Digest: honest.Digest, Size: 6}, write("twelve bytes", "Content-Encoding", "gzip"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "it has 12 bytes, the manifest says 6"},
		{"larger than is measured", honest, raw("HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "999999999 bytes long"},
		{"of a negative size", v1.Descriptor{Digest: honest.Digest, Size: -1}, write("twelve bytes"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "negative"},
		{"of a digest that is none", v1.Descriptor{Digest: v1.Hash{Algorithm: "sha256", Hex: "../../x"}, Size: 1}, write("x"), v1alpha1.ReasonInvalidArtifact, fault.Stall, "must be a sha256"},
		{"compressed on the way", honest, write("\x1f\x8bxxxxxxxxxx", "Content-Encoding", "gzip"), v1alpha1.ReasonInvalidArtifact, fault.Retry, "digest"},
		{"missing", honest, code(404, ""), v1alpha1.ReasonImageNotFound, fault.Retry, "404"},
		{"stalling", honest, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "twelve")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, v1alpha1.ReasonFetchFailed, fault.Retry, "no progress for 300ms"},
		{"in broken chunks", honest, raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), v1alpha1.ReasonFetchFailed, fault.Retry, "cannot get blob"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.answerTo("/blobs/", tc.answer)
			var got bytes.Buffer
			err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Pull(bounded(t), tc.desc, &got)
			expectFault(t, err, tc.reason, tc.class)
			NewWithT(t).Expect(err.Error()).To(ContainSubstring(tc.words))
			NewWithT(t).Expect(int64(got.Len())).To(BeNumerically("<=", max(tc.desc.Size, 0)), "no more is written than the manifest says")
		})
	}
}

func TestAnEndlessBlobIsReadToABound(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.answerTo("/blobs/", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	var read int64
	c := newClient(t, registry.Options{Observe: func(o registry.Observation) {
		if o.Operation == "get-blob" {
			read = o.Bytes
		}
	}})
	err := c.Repository(repository(t, s.host()+"/app"), registry.Access{}).
		Pull(t.Context(), v1.Descriptor{Digest: descriptorOf(nil).Digest, Size: 5000}, io.Discard)
	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
	g.Expect(read).To(Equal(int64(64 << 20)))
}

func TestABodyThatDripsEndsWithTheAttempt(t *testing.T) {
	s := serve(t)
	s.answerTo("/blobs/", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
				_, _ = w.Write([]byte("x"))
				w.(http.Flusher).Flush()
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).
		Pull(ctx, v1.Descriptor{Digest: descriptorOf(nil).Digest, Size: 1 << 30}, io.Discard)
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
	NewWithT(t).Expect(err).To(MatchError(context.DeadlineExceeded))
}

var errDiskFull = errors.New("disk full")

// TestAConnectionThatIsHandedOverKeepsNobodyWaiting answers with another protocol: the
// body of such an answer is the connection, which does not end with the request.
func TestAConnectionThatIsHandedOverKeepsNobodyWaiting(t *testing.T) {
	for _, part := range []string{"/v2/", "/manifests/", "/blobs/"} {
		t.Run(part, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			_, layer := s.putImage(t, "app:1", "x")
			held := make(chan net.Conn, 10)
			s.answerTo(part, func(w http.ResponseWriter, _ *http.Request) {
				connection, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					return
				}
				held <- connection
				_, _ = io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n") // the test reads it
			})
			repo := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{})
			done := make(chan error, 1)
			go func() {
				_, resolved := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				done <- cmp.Or(resolved, repo.Pull(t.Context(), layer, io.Discard))
			}()
			g.Eventually(done, 10*time.Second).Should(Receive(MatchError(ContainSubstring("101 Switching Protocols"))))
			connection := <-held
			g.Expect(connection.SetReadDeadline(time.Now().Add(10 * time.Second))).To(Succeed())
			_, err := connection.Read(make([]byte, 1))
			g.Expect(err).To(MatchError(io.EOF), "the connection is closed")
			g.Expect(connection.Close()).To(Succeed())
		})
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errDiskFull }

func TestAnErrorOfTheWriterIsNotBlamedOnTheRegistry(t *testing.T) {
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Pull(t.Context(), layer, brokenWriter{})
	NewWithT(t).Expect(err).To(Equal(errDiskFull))
}

func TestAnEmptyBlobIsPulled(t *testing.T) {
	s := serve(t)
	layer := s.putBlob(t, "app", nil)
	NewWithT(t).Expect(newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).
		Pull(t.Context(), layer, io.Discard)).To(Succeed())
}

func TestRetryAfterIsHandedOnAndNotSlept(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct {
		name   string
		status int
		header string
		want   time.Duration
	}{
		{"seconds", 429, "7", 7 * time.Second},
		{"a date", 503, now.Add(90 * time.Second).UTC().Format(http.TimeFormat), 90 * time.Second},
		{"a date that is over", 503, now.Add(-time.Hour).UTC().Format(http.TimeFormat), 0},
		{"a negative number", 429, "-3", 0},
		{"longer than an hour", 429, "999999999999", time.Hour},
		{"nonsense", 429, "soon", 0},
		{"nothing", 429, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.answerTo("/manifests/", code(tc.status, "", "Retry-After", tc.header))
			options := quick()
			options.Clock = func() time.Time { return now }
			_, err := newClient(t, options).Repository(repository(t, s.host()+"/app"), registry.Access{}).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			f := expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			NewWithT(t).Expect(f.RetryAfter).To(BeNumerically("~", tc.want, time.Second))
			NewWithT(t).Expect(s.asked()).To(HaveLen(2), "a ping and one attempt")
		})
	}
}

func TestAPingThatFailsIsAFailure(t *testing.T) {
	for _, tc := range []struct {
		name   string
		answer http.HandlerFunc
		reason string
	}{
		{"because it is no registry", code(404, "no such page"), v1alpha1.ReasonFetchFailed},
		{"because it is overloaded", code(503, "", "Retry-After", "5"), v1alpha1.ReasonFetchFailed},
		{"because it is forbidden", code(403, ""), v1alpha1.ReasonAuthenticationFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := serve(t)
			s.answerTo("/v2/", tc.answer)
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
			for range 2 {
				_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				expectFault(t, err, tc.reason, fault.Retry)
			}
			NewWithT(t).Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /v2/"}), "a failed ping is not remembered")
		})
	}
}

// TestAHeaderIsNotKeptForItsMediaType holds that what is remembered of a manifest is
// what its bound counts.
func TestAHeaderIsNotKeptForItsMediaType(t *testing.T) {
	g := NewWithT(t)
	const manifests = 500
	s := serve(t)
	s.answerTo("/manifests/", func(w http.ResponseWriter, r *http.Request) {
		write(fmt.Sprintf(`{"schemaVersion":2,"manifests":[],"name":%q}`, r.URL.Path), "Content-Type", index+"; x="+strings.Repeat("x", 60<<10))(w, r)
	})
	client := newClient(t, registry.Options{})
	repo := client.Repository(repository(t, s.host()+"/app"), registry.Access{})
	before := inUse()
	for i := range manifests {
		m, err := repo.Resolve(t.Context(), registry.Query{Tag: fmt.Sprint(i)})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(m.MediaType).To(BeEquivalentTo(index))
	}
	g.Expect(inUse()-before).To(BeNumerically("<", manifests*20<<10), "bytes of memory")
	runtime.KeepAlive(client)
}

func inUse() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
