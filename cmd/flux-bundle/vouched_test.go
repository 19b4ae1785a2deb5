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
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	. "github.com/onsi/gomega"
	"github.com/sigstore/cosign/v3/pkg/cosign"

	"github.com/image-source/image-source-controller/pkg/trust"
	"github.com/image-source/image-source-controller/test/publish"
)

// TestASignatureIsBelievedWhenAReaderFindsIt pushes to registries that answer the
// question for referrers in odd ways. If a push succeeds, our reader and that of cosign
// find the signature.
func TestASignatureIsBelievedWhenAReaderFindsIt(t *testing.T) {
	g := NewWithT(t)
	key, public := keyPair(t, "")
	blake := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"blake3:` + strings.Repeat("0", 64) + `"}]}`
	for title, answer := range map[string]http.HandlerFunc{
		"404": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"400": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) },
		"405": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) },
		"406": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotAcceptable) },
		"a page": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>")) // the command reads it
		},
		"an object": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte("{}"))
		},
	} {
		for _, junk := range []bool{false, true} {
			r := serve(t)
			ref := r.Host() + "/org/app:v1"
			tagged := func(http.ResponseWriter, *http.Request) bool { return false }
			if junk { // somebody else pushed it before
				digest := strings.TrimSpace(after(must(t, "-f", manifests(t), "-t", ref), "@sha256:"))
				tagged = holds("/manifests/sha256-"+digest, blake)
			}
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				if strings.Contains(request.URL.Path, "/referrers/") {
					answer(w, request)
					return true
				}
				return tagged(w, request)
			})
			run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key)
			g.Expect(run.code).To(Equal(exitOK), title+": "+run.err)
			_, err := verifies(t, ref, public)
			g.Expect(err).NotTo(HaveOccurred(), title)
			if title == "405" || junk { // cosign takes neither
				continue
			}
			of, err := name.NewDigest(strings.TrimSpace(run.out))
			g.Expect(err).NotTo(HaveOccurred())
			bundles, _, err := cosign.GetBundles(t.Context(), of, nil)
			g.Expect(err).NotTo(HaveOccurred(), title)
			g.Expect(bundles).NotTo(BeEmpty(), title)
		}
	}
}

// holds has a manifest under a path, which others may write. The registry of the tests
// decodes digests, so it cannot store an unknown one.
func holds(path, body string) publish.Instead {
	var mu sync.Mutex
	stored := []byte(body)
	return func(w http.ResponseWriter, request *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasSuffix(request.URL.Path, path) {
			return false
		}
		if request.Method == http.MethodPut {
			stored, _ = io.ReadAll(request.Body) // what cannot be read is not found again
			w.WriteHeader(http.StatusCreated)
			return true
		}
		digest, _, _ := v1.SHA256(bytes.NewReader(stored)) // memory can be read
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.String())
		_, _ = w.Write(stored) // the test reads it
		return true
	}
}

// TestTheBytesOfAManifestAreThoseThatWerePushed pushes to registries that store a
// manifest in other bytes.
func TestTheBytesOfAManifestAreThoseThatWerePushed(t *testing.T) {
	key, _ := keyPair(t, "")
	for title, c := range map[string]struct {
		part  string // of the manifests that are stored in other bytes
		words []string
	}{
		"by digest":        {"/manifests/sha256:", []string{"does not give back the manifest sha256:", "no tag was set"}},
		"under a tag only": {"/manifests/v1", []string{"stores the manifest in other bytes", "no other push moved the tag"}},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			var mu sync.Mutex
			stored := map[string][]byte{}
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				at := request.URL.Path
				if request.Method == http.MethodPut && strings.Contains(at, c.part) {
					body, _ := io.ReadAll(request.Body)
					body = append(body, '\n')
					digest, _, _ := v1.SHA256(bytes.NewReader(body))
					stored[at], stored["/v2/org/app/manifests/"+digest.String()] = body, body
					w.WriteHeader(http.StatusCreated)
					return true
				}
				body, found := stored[at]
				if found {
					digest, _, _ := v1.SHA256(bytes.NewReader(body))
					w.Header().Set("Docker-Content-Digest", digest.String())
					w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
					_, _ = w.Write(body) // the command reads it
				}
				return found
			})
			for _, args := range [][]string{{"-s", key}, nil} {
				run := environment{passwordVariable: ""}.flux(t, append([]string{"-f", manifests(t), "-t", r.Host() + "/org/app:v1"}, args...)...)
				g.Expect(run.code).To(Equal(exitFailure), run.err)
				g.Expect(run.out).To(BeEmpty())
				expectOneError(g, run, c.words...)
			}
		})
	}
}

// TestWhatARegistryClaimsToHaveStored pushes to registries that answer as if they had
// stored something.
func TestWhatARegistryClaimsToHaveStored(t *testing.T) {
	for title, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request) (answered bool)
		words  []string
	}{
		"a layer, as soon as an upload begins": {func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusCreated)
			}
			return r.Method == http.MethodPost
		}, []string{"does not give back the layer", "no tag was set"}},
		"a layer, at the end of an upload": {func(w http.ResponseWriter, r *http.Request) bool {
			ends := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/")
			if ends {
				w.WriteHeader(http.StatusCreated)
			}
			return ends
		}, []string{"does not give back the layer", "no tag was set"}},
		"a tag, by the page for logging in": {func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/login":
				_, _ = io.WriteString(w, "<html>") // the command reads it
			case !strings.HasSuffix(r.URL.Path, "/manifests/v1"):
				return false
			case r.Method == http.MethodPut:
				http.Redirect(w, r, "/login", http.StatusFound)
			default: // who may push need not be let read
				w.WriteHeader(http.StatusForbidden)
			}
			return true
		}, []string{"cannot set the tag", "nothing would be stored", "no tag was set"}},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			r.Answer(c.answer)
			run := flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "--no-validate")
			g.Expect(run.code).To(Equal(exitFailure), run.err)
			g.Expect(run.out).To(BeEmpty())
			expectOneError(g, run, c.words...)
		})
	}
}

// TestAPushObeysTheRulesOfTheNetwork holds that the flags about login realms and
// networks work on a push as they do on a pull.
func TestAPushObeysTheRulesOfTheNetwork(t *testing.T) {
	realm := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(realm.Close)
	at, err := url.Parse(realm.URL)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	elsewhere := at.Host
	r := serve(t)
	_, port, err := net.SplitHostPort(r.Host())
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	host := "localhost:" + port // another name than that of the realm
	r.Answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+elsewhere+`/token",service="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	config := `{"auths":{"` + host + `":{"username":"robot","password":"word"}}}`
	t.Setenv("DOCKER_CONFIG", folder(t, map[string]string{"config.json": config}))
	for _, c := range []struct {
		flags []string
		words string
	}{
		{nil, "refused to send credentials to the login realm"},
		{[]string{"--registry-auth-realms", elsewhere}, "signed by an unknown authority"},
	} {
		run := flux(t, append([]string{"-f", manifests(t), "-t", host + "/org/app:v1"}, c.flags...)...)
		g := NewWithT(t)
		g.Expect(run.code).To(Equal(exitFailure))
		expectOneError(g, run, c.words)
	}
}

// TestARegistryThatNamesNoDigestsIsPushedToAgain pushes a tag twice to a registry that
// sends no Docker-Content-Digest.
func TestARegistryThatNamesNoDigestsIsPushedToAgain(t *testing.T) {
	g := NewWithT(t)
	key, public := keyPair(t, "")
	r := serve(t)
	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		answer, err := r.Shelf().Transport.RoundTrip(request)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		answer.Header.Del("Docker-Content-Digest")
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body) // the command reads it
		return true
	})
	ref := r.Host() + "/org/app:v1"
	for range 2 {
		for _, immutable := range []string{"--immutable=false", "--immutable"} {
			run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key, immutable)
			g.Expect(run.code).To(Equal(exitOK), run.err)
		}
	}
	r.Answer(nil)
	_, err := verifies(t, ref, public)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = crane.Digest(ref)
	g.Expect(err).NotTo(HaveOccurred())
}

// TestASignatureThatAnotherJobOverwritesIsListedAgain overwrites what is under the tag
// of signatures, as a job does that read it before this one wrote it.
func TestASignatureThatAnotherJobOverwritesIsListedAgain(t *testing.T) {
	const (
		empty    = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
		bundles  = "/manifests/sha256-[0-9a-f]+$"
		older    = "/manifests/sha256-.*[.]sig$"
		whenDone = "/manifests/v1$"
	)
	key, public := keyPair(t, "")
	for title, c := range map[string]struct{ after, overwritten string }{
		"a bundle, right after it is written":                        {bundles, bundles},
		"a bundle, when the tag is set":                              {whenDone, bundles},
		"a signature in the older format, right after it is written": {older, older},
		"a signature in the older format, when the tag is set":       {whenDone, older},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			ref := r.Host() + "/org/app:v1"
			var mu sync.Mutex
			var list string // its path
			written, lost := false, false
			r.Answer(func(_ http.ResponseWriter, request *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				// The request after the one that wrote comes when the other job has written.
				if written && !lost && list != "" {
					lost = true
					method := http.MethodPut
					if c.overwritten == older { // its other signatures do not matter
						method = http.MethodDelete
					}
					overwrite, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Host()+list, strings.NewReader(empty))
					g.Expect(err).NotTo(HaveOccurred())
					overwrite.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
					answer, err := r.Shelf().Transport.RoundTrip(overwrite)
					g.Expect(err).NotTo(HaveOccurred())
					g.Expect(answer.Body.Close()).To(Succeed())
				}
				put := func(path string) bool {
					return request.Method == http.MethodPut && regexp.MustCompile(path).MatchString(request.URL.Path)
				}
				if put(c.overwritten) {
					list = request.URL.Path
				}
				written = written || put(c.after)
				return false
			})
			run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", ref, "-s", key, "--legacy-signature")
			g.Expect(run.code).To(Equal(exitOK), run.err)
			g.Expect(lost).To(BeTrue())
			for _, formats := range [][]trust.Format{{trust.BundleTag}, {trust.Legacy}} {
				_, err := verifies(t, ref, public, formats...)
				g.Expect(err).NotTo(HaveOccurred(), "%s", formats)
			}
		})
	}
}

// TestALegacySignatureIsBelievedWhenAReaderFindsIt pushes to a registry that takes the
// tag of a legacy signature and does not have it afterwards.
func TestALegacySignatureIsBelievedWhenAReaderFindsIt(t *testing.T) {
	g := NewWithT(t)
	key, _ := keyPair(t, "")
	r := serve(t)
	r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
		if request.Method == http.MethodPut && strings.HasSuffix(request.URL.Path, ".sig") {
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "-s", key, "--legacy-signature")
	g.Expect(run.code).To(Equal(exitFailure))
	expectOneError(g, run, "in the older format", "a reader does not find it under its tag for legacy signatures", "no tag was set")
	g.Expect(r.Count(http.MethodPut, "/manifests/v1")).To(BeZero())
}

// TestTwoJobsSignTheSameDigestAtOnce runs the program twice with one key. Both read the
// tags of signatures before one of them writes.
func TestTwoJobsSignTheSameDigestAtOnce(t *testing.T) {
	g := NewWithT(t)
	key, public := keyPair(t, "")
	r := serve(t)
	ref, dir := r.Host()+"/org/app:v1", manifests(t)
	digest := strings.TrimSpace(after(must(t, "-f", dir, "-t", ref), "@sha256:"))
	gates := map[string]*gate{"": newGate(2), ".sig": newGate(2)}
	r.Answer(func(_ http.ResponseWriter, request *http.Request) bool {
		_, suffix, is := strings.Cut(request.URL.Path, "/manifests/sha256-"+digest)
		if is && request.Method == http.MethodPut {
			gates[suffix].pass(request.Context())
		}
		return false
	})
	var jobs [2]*exec.Cmd
	var said [2]bytes.Buffer
	for i := range jobs {
		jobs[i] = exec.CommandContext(t.Context(), os.Args[0], "-f", dir, "-t", ref, "-s", key, "--legacy-signature")
		jobs[i].Env = append(os.Environ(), programVariable+"=1", passwordVariable+"=")
		jobs[i].Stderr = &said[i]
		g.Expect(jobs[i].Start()).To(Succeed())
	}
	for i, job := range jobs {
		g.Expect(job.Wait()).To(Succeed(), said[i].String())
	}
	r.Answer(nil)
	bundles, err := crane.Manifest(r.Host() + "/org/app:sha256-" + digest)
	g.Expect(err).NotTo(HaveOccurred())
	index, err := v1.ParseIndexManifest(bytes.NewReader(bundles))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(index.Manifests).To(HaveLen(2), "each job has an entry of its own")
	g.Expect(index.Manifests[0].Digest).NotTo(Equal(index.Manifests[1].Digest))
	legacy, err := crane.Manifest(r.Host() + "/org/app:sha256-" + digest + ".sig")
	g.Expect(err).NotTo(HaveOccurred())
	listed, err := v1.ParseManifest(bytes.NewReader(legacy))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(listed.Layers).To(HaveLen(2))
	_, err = verifies(t, ref, public)
	g.Expect(err).NotTo(HaveOccurred())
}

// gate holds back requests until a number of them has come.
type gate struct {
	left atomic.Int32
	open chan struct{}
}

func newGate(count int32) *gate {
	g := &gate{open: make(chan struct{})}
	g.left.Store(count)
	return g
}

func (g *gate) pass(ctx context.Context) {
	if g.left.Add(-1) == 0 {
		close(g.open)
	}
	select {
	case <-g.open:
	case <-ctx.Done():
	}
}

func TestAdviceFitsTheRefusal(t *testing.T) {
	for title, c := range map[string]struct {
		code        int
		body, words string
	}{
		"an upload that is too large": {http.StatusRequestEntityTooLarge, "", "limits the size of uploads"},
		"an address without pushes":   {http.StatusMethodNotAllowed, "", "takes no pushes"},
		"a blob that got lost":        {http.StatusNotFound, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}`, "push again"},
	} {
		t.Run(title, func(t *testing.T) {
			g := NewWithT(t)
			r := serve(t)
			r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
				if request.Method != http.MethodPut || !strings.Contains(request.URL.Path, "/manifests/") {
					return false
				}
				http.Error(w, c.body, c.code)
				return true
			})
			run := flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1")
			g.Expect(run.code).To(Equal(exitFailure))
			expectOneError(g, run, c.words)
			g.Expect(run.err).NotTo(ContainSubstring("see that the repository exists"))
		})
	}
}

// TestAPushRepeatsNoSecret holds that a registry gets neither the password nor the token
// of a push into the log of a CI service.
func TestAPushRepeatsNoSecret(t *testing.T) {
	const password, token = "a-pass-word", "table-entry"
	key, _ := keyPair(t, "")
	hits := func(method, part string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, part) }
	}
	for title, of := range map[string]func(*http.Request) bool{
		"an upload that begins":  hits(http.MethodPost, "/blobs/uploads/"),
		"an upload that goes on": hits(http.MethodPatch, "/blobs/uploads/"),
		"a manifest":             hits(http.MethodPut, "/manifests/sha256:"),
		"what was pushed":        hits(http.MethodGet, "/manifests/sha256:"),
		"an older signature":     hits(http.MethodPut, ".sig"),
		"a tag":                  hits(http.MethodPut, "/manifests/v1"),
	} {
		for how, answer := range map[string]http.HandlerFunc{
			"by a refusal": func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s of %s"}]}`, r.Header.Get("Authorization"), password+" "+token)
			},
			"by a redirect": func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+password+"."+token+".invalid/", http.StatusTemporaryRedirect)
			},
		} {
			t.Run(title+" "+how, func(t *testing.T) {
				g := NewWithT(t)
				r := serve(t)
				config := `{"auths":{"` + r.Host() + `":{"username":"robot","password":"` + password + `"}}}`
				t.Setenv("DOCKER_CONFIG", folder(t, map[string]string{"config.json": config}))
				r.Answer(func(w http.ResponseWriter, request *http.Request) bool {
					switch {
					case request.URL.Path == "/token":
						fmt.Fprintf(w, `{"token":%q}`, token)
					case request.Header.Get("Authorization") == "":
						w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.URL+`/token",service="registry"`)
						w.WriteHeader(http.StatusUnauthorized)
					case of(request):
						answer(w, request)
					default:
						return false
					}
					return true
				})
				run := environment{passwordVariable: ""}.flux(t, "-f", manifests(t), "-t", r.Host()+"/org/app:v1", "-s", key, "--legacy-signature", "--no-validate")
				g.Expect(run.code).To(Equal(exitFailure))
				g.Expect(run.err).NotTo(Or(ContainSubstring(password), ContainSubstring(token)))
			})
		}
	}
}
