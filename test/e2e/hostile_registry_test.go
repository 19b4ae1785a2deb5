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

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode"

	. "github.com/onsi/gomega"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	imagev1 "github.com/fluxcd/image-reflector-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"

	"github.com/image-source/image-source-controller/api/v1alpha1"
)

// lie answers in the place of a registry, which it may ask.
type lie func(g *gate, w http.ResponseWriter, r *http.Request)

// truth returns what the registry itself answers.
func (g *gate) truth(r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	g.next.ServeHTTP(answer, r)
	return answer
}

// rewritten answers with another manifest, under its own digest, as if that were
// what somebody had pushed: to HEAD and GET, by tag and by digest.
func rewritten(rewrite func(manifest map[string]any)) lie {
	var mu sync.Mutex
	told := map[string][]byte{}
	return func(g *gate, w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked := path.Base(r.URL.Path)
		body, known := told[asked]
		if !known {
			get := r.Clone(r.Context())
			get.Method = http.MethodGet
			body = again(g.truth(get).Body.Bytes(), rewrite)
		}
		digest, _, err := v1.SHA256(bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		told[digest.String()] = body
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		w.Header().Set("Docker-Content-Digest", digest.String())
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body) // a client that is gone is fine
	}
}

// again is a manifest rewritten.
func again(body []byte, rewrite func(manifest map[string]any)) []byte {
	var manifest map[string]any
	if err := json.Unmarshal(body, &manifest); err != nil {
		panic(err)
	}
	rewrite(manifest)
	body, err := json.Marshal(manifest)
	if err != nil {
		panic(err)
	}
	return body
}

// firstLayer returns the descriptor of a manifest's first layer.
func firstLayer(manifest map[string]any) map[string]any {
	return manifest["layers"].([]any)[0].(map[string]any)
}

// endless answers until the client has had enough.
func endless(_ *gate, w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
			return
		}
	}
}

// A registry that lies is not believed, nothing of what it says gets into a
// status as it is, and what was good stays published.
func TestHostileRegistries(t *testing.T) {
	t.Parallel()
	const secret = "hunter2hunter2"
	manifest := all(byUs, has(http.MethodGet, "/manifests/"))
	anyManifest := all(byUs, func(p passage) bool { return strings.Contains(p.Path, "/manifests/") })
	blob := all(byUs, has(http.MethodGet, "/blobs/"))
	for name, test := range map[string]struct {
		match   matcher
		lie     lie
		reason  string
		message string
	}{
		"a manifest that does not match its digest": {
			match: manifest, reason: v1alpha1.ReasonInvalidArtifact, message: "its bytes have the digest",
			lie: func(g *gate, w http.ResponseWriter, r *http.Request) {
				truth := g.truth(r)
				w.Header().Set("Docker-Content-Digest", truth.Header().Get("Docker-Content-Digest"))
				w.Header().Set("Content-Type", truth.Header().Get("Content-Type"))
				_, _ = w.Write(append(truth.Body.Bytes(), ' '))
			},
		},
		"a manifest that is an index too": {
			match: anyManifest, reason: v1alpha1.ReasonInvalidArtifact, message: "manifests",
			lie: rewritten(func(manifest map[string]any) { manifest["manifests"] = []any{} }),
		},
		"a manifest whose layer is elsewhere": {
			match: anyManifest, reason: v1alpha1.ReasonInvalidArtifact, message: "urls",
			lie: rewritten(func(manifest map[string]any) { firstLayer(manifest)["urls"] = []string{"http://169.254.169.254/"} }),
		},
		"a manifest that lies about the size of its layer": {
			match: anyManifest, reason: v1alpha1.ReasonInvalidArtifact, message: "bytes, the manifest says 1",
			lie: rewritten(func(manifest map[string]any) { firstLayer(manifest)["size"] = 1 }),
		},
		"a manifest without end": {
			match: manifest, reason: v1alpha1.ReasonLimitExceeded, message: "larger than 4194304 bytes", lie: endless,
		},
		"a blob that ends early": {
			match: blob, reason: v1alpha1.ReasonFetchFailed, message: "ended",
			lie: func(g *gate, w http.ResponseWriter, r *http.Request) {
				body := g.truth(r).Body.Bytes()
				_, _ = w.Write(body[:len(body)/2])
				w.(*passing).flush()
				_, _ = w.Write(nil)
			},
		},
		"a blob of other bytes": {
			match: blob, reason: v1alpha1.ReasonInvalidArtifact, message: "its bytes have the digest",
			lie: func(g *gate, w http.ResponseWriter, r *http.Request) {
				body := g.truth(r).Body.Bytes()
				body[len(body)-1] ^= 0xff
				_, _ = w.Write(body)
			},
		},
		"a blob without end": {
			match: blob, reason: v1alpha1.ReasonInvalidArtifact, message: "where the manifest says it ends", lie: endless,
		},
		"a redirect to a metadata service": {
			match: blob, reason: v1alpha1.ReasonFetchFailed, message: "link-local or metadata address, which is never allowed",
			lie: func(_ *gate, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://169.254.169.254/latest/meta-data?token="+secret, http.StatusTemporaryRedirect)
			},
		},
		"redirects in a circle": {
			match: blob, reason: v1alpha1.ReasonFetchFailed, message: "redirects",
			lie: func(_ *gate, w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, r.URL.String(), http.StatusTemporaryRedirect)
			},
		},
		"a login realm on another host": {
			match: manifest, reason: v1alpha1.ReasonFetchFailed, message: `refused to send credentials to the login realm at "login.example.com"`,
			lie: func(_ *gate, w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://login.example.com/token",service="gate"`)
				w.WriteHeader(http.StatusUnauthorized)
			},
		},
		"an error text with colours and secrets": {
			match: manifest, reason: v1alpha1.ReasonFetchFailed, message: "503 Service Unavailable",
			lie: func(_ *gate, w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintf(w, "\x1b[31mgo away\x1b[0m\r\n\x00 token=%s %s\n%s",
					secret, r.Header.Get("Authorization"), strings.Repeat("blah ", 200_000))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newTenant(t, v1alpha1.UseAsSourceEnabled)
			gate := newGate(t, env.Registry().URL())
			n.push(app, "1.0.0", configMap(n.namespace, "1.0.0"))
			n.pullSecret("pull", gate.host(), login{username, password})
			n.scan(app, through(n, gate.host(), app), func(repository *imagev1.ImageRepository, _ *imagev1.ImagePolicy) {
				repository.Spec.SecretRef = &meta.LocalObjectReference{Name: "pull"}
			})
			before := n.published(app, "1.0.0")

			end := gate.answer(all(test.match, func(p passage) bool { return !strings.HasSuffix(p.Path, "/manifests/1.0.0") }),
				func(w http.ResponseWriter, r *http.Request) { test.lie(gate, w, r) })
			n.push(app, "1.1.0", configMap(n.namespace, "1.1.0"))
			ready := n.stays(app, before, test.reason, test.message)
			n.Expect(len([]rune(ready.Message))).To(BeNumerically("<=", 1100))
			n.Expect(strings.IndexFunc(ready.Message, unicode.IsControl)).To(Equal(-1), "%q", ready.Message)
			n.keepsToItself(secret, password)
			end()
			n.served(n.published(app, "1.1.0"))
		})
	}
}
