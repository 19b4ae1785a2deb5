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
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const (
	listed    = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	referrers = "referrers/" + listed
)

// read reads something in a repository. found is false where the registry says that it
// has no such thing.
func read(ctx context.Context, t *testing.T, repo *registry.Repository, target string) (found bool, err error) {
	t.Helper()
	kind, ref, _ := strings.Cut(target, "/")
	digest, _ := v1.NewHash(ref) // a tag has none
	switch kind {
	case "referrers":
		list, err := repo.Referrers(ctx, digest)
		return !list.Absent, err
	case "blobs":
		_, err = repo.ReadBlob(ctx, digest, registry.MaxManifest)
	default:
		_, err = repo.ReadManifest(ctx, ref)
	}
	if errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func hash(t *testing.T, text string) v1.Hash {
	t.Helper()
	digest, err := v1.NewHash(text)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return digest
}

func listOf(entries ...string) string {
	return `{"schemaVersion":2,"mediaType":"` + string(types.OCIImageIndex) + `","manifests":[` + strings.Join(entries, ",") + `]}`
}

func TestReferrersAreListedPageByPage(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
	subject, other := hash(t, listed), hash(t, "sha256:"+strings.Repeat("ab", 32))
	s.answerTo("/referrers/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.Header.Get("Accept"))
		if r.URL.Query().Get("last") == "" {
			w.Header().Set("Link", "<?last=y>; rel=next")
			_, _ = io.WriteString(w, listOf(`{"digest":7}`))
			return
		}
		_, _ = io.WriteString(w, listOf(`{"artifactType":"application/x","digest":"`+other.String()+`"}`))
	})
	list, err := repo.Referrers(t.Context(), subject)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(list.Absent).To(BeFalse())
	g.Expect(list.Has(other)).To(BeTrue())
	g.Expect(list.Entries).To(HaveLen(2))
	g.Expect(list.Entries[0].Malformed).To(ContainSubstring("cannot be read"), "junk hides nothing")
	g.Expect(list.Entries[1].ArtifactType).To(Equal("application/x"))

	for _, no := range []int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable} {
		s.answerTo("/referrers/", code(no, ""))
		list, err = repo.Referrers(t.Context(), subject)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(list.Absent).To(BeTrue())
	}
	s.answerTo("/referrers/", code(http.StatusBadRequest, "", "Link", "<?last=y>; rel=next"))
	s.answerTo("/manifests/"+registry.FallbackTag(subject), write(listOf(`{"digest":"`+other.String()+`"}`)))
	list, err = repo.TaggedReferrers(t.Context(), subject)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(list.Has(other)).To(BeTrue())
	g.Expect(string(list.Index)).To(Equal(listOf(`{"digest":"` + other.String() + `"}`)))
}

// TestBytesWithAnotherDigestAreNotRead holds that the digest decides, and the limit of the
// caller.
func TestBytesWithAnotherDigestAreNotRead(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
	blob := descriptorOf([]byte("four")).Digest
	s.answerTo("/blobs/", write("four"))
	body, err := repo.ReadBlob(t.Context(), blob, 4)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(body)).To(Equal("four"))
	_, err = repo.ReadBlob(t.Context(), blob, 3)
	expectFault(t, err, v1alpha1.ReasonLimitExceeded, fault.Retry)
	g.Expect(err).To(MatchError(ContainSubstring("larger than 3 bytes")))
	s.answerTo("/blobs/", write("five"))
	_, err = repo.ReadBlob(t.Context(), blob, 4)
	expectFault(t, err, v1alpha1.ReasonInvalidArtifact, fault.Retry)
}

// TestWhatIsMissingIsAskedForTwice holds that one server of many which lags behind hides
// no manifest and no blob that is listed.
func TestWhatIsMissingIsAskedForTwice(t *testing.T) {
	for _, no := range []int{http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotAcceptable} {
		g := NewWithT(t)
		s := serve(t)
		repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
		s.answerTo("/app/", code(no, "Authorization: Bearer abcdefgh"))
		for _, target := range []string{"manifests/" + listed, "blobs/" + listed, "manifests/latest"} {
			found, err := read(t.Context(), t, repo, target)
			g.Expect(found).To(BeFalse())
			g.Expect(err == nil).To(Equal(no == http.StatusNotFound), "%d for %s: %v", no, target, err)
			if err != nil {
				g.Expect(err.Error()).NotTo(ContainSubstring("abcdefgh"))
			}
			asked := slices.DeleteFunc(s.asked(), func(r string) bool { return r == "GET /v2/" })
			g.Expect(asked).To(HaveLen(map[bool]int{true: 2, false: 1}[strings.HasSuffix(target, listed)]))
		}
	}
}

// TestOnlyARegistrySaysThatThereIsNoSuchThing holds that storage which has lost a
// signature, or a list of them, is a failure and not the absence of signatures.
func TestOnlyARegistrySaysThatThereIsNoSuchThing(t *testing.T) {
	for name, c := range map[string]struct {
		by   int
		to   string // below the other server; empty for the same path
		code int
		fail bool
	}{
		"storage does not have it":                           {http.StatusTemporaryRedirect, "/bucket/data", http.StatusNotFound, true},
		"storage with the path of a registry":                {http.StatusFound, "/docker/registry/v2/manifests", http.StatusNotFound, true},
		"storage refuses the request":                        {http.StatusTemporaryRedirect, "/bucket/data", http.StatusBadRequest, true},
		"storage has a mark in its place":                    {http.StatusTemporaryRedirect, "/bucket/data", http.StatusMethodNotAllowed, true},
		"another registry does not have it":                  {http.StatusTemporaryRedirect, "", http.StatusNotFound, false},
		"a website, where the registry has no such function": {http.StatusSeeOther, "/page", http.StatusNotFound, false},
		"a website that has no page for such a client":       {http.StatusFound, "/page", http.StatusNotAcceptable, false},
	} {
		for _, target := range []string{referrers, "manifests/latest", "blobs/" + descriptorOf(nil).Digest.String()} {
			for _, same := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, on the same host %t", name, target, same), func(t *testing.T) {
					g := NewWithT(t)
					s, other := serve(t), httptest.NewServer(code(c.code, ""))
					defer other.Close()
					s.answer(func(w http.ResponseWriter, r *http.Request) bool {
						path, base := cmp.Or(c.to, r.URL.Path), other.URL
						if same {
							path, base = cmp.Or(c.to, "/v2/mirror"+strings.TrimPrefix(r.URL.Path, "/v2")), ""
						}
						switch {
						case same && r.URL.Path == path, strings.HasPrefix(r.URL.Path, "/v2/mirror/"):
							w.WriteHeader(c.code)
						case strings.HasPrefix(r.URL.Path, "/v2/app/"):
							http.Redirect(w, r, base+path, c.by)
						default:
							return false
						}
						return true
					})
					found, err := read(t.Context(), t, newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{}), target)
					if c.fail {
						g.Expect(err).To(HaveOccurred())
						g.Expect(fault.Of(err, "").Class).To(Equal(fault.Retry))
						return
					}
					g.Expect(found).To(BeFalse())
					if target == referrers || c.code == http.StatusNotFound {
						g.Expect(err).NotTo(HaveOccurred())
					}
				})
			}
		}
	}
}

// TestStorageThatLeadsToItsPageOfErrorsSaysNothing holds that a 303 of storage is not
// the word of the registry.
func TestStorageThatLeadsToItsPageOfErrorsSaysNothing(t *testing.T) {
	s, storage := serve(t), httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sorry" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		http.Redirect(w, r, "/sorry", http.StatusSeeOther)
	}))
	defer storage.Close()
	s.answerTo("/v2/app/", redirect(storage.URL+"/bucket/data"))
	_, err := newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{}).Referrers(t.Context(), hash(t, listed))
	expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
}

// TestAnAnswerThatSaysNothingIsAFailure holds that those who read signatures are
// told as much as those who resolve an image, and are put off as long.
func TestAnAnswerThatSaysNothingIsAFailure(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		reason string
		after  time.Duration
		words  string
	}{
		"403":                      {code(http.StatusForbidden, "no"), v1alpha1.ReasonAuthenticationFailed, 0, `403 Forbidden: "no"`},
		"429 for some seconds":     {code(http.StatusTooManyRequests, "", "Retry-After", "7"), v1alpha1.ReasonFetchFailed, 7 * time.Second, "429 Too Many Requests"},
		"503 until a date":         {code(http.StatusServiceUnavailable, "", "Retry-After", now.Add(90*time.Second).UTC().Format(http.TimeFormat)), v1alpha1.ReasonFetchFailed, 90 * time.Second, "503"},
		"503 for a year":           {code(http.StatusServiceUnavailable, "", "Retry-After", "31536000"), v1alpha1.ReasonFetchFailed, time.Hour, "503"},
		"501":                      {code(http.StatusNotImplemented, ""), v1alpha1.ReasonFetchFailed, 0, "501 Not Implemented"},
		"an error text with login": {code(http.StatusInternalServerError, "Authorization: Bearer abcdefgh"), v1alpha1.ReasonFetchFailed, 0, "***"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.answerTo("/referrers/", tc.answer)
			options := quick()
			options.Clock = func() time.Time { return now.Truncate(time.Second) }
			_, err := read(t.Context(), t, newClient(t, options).Repository(repository(t, s.host()+"/app"), registry.Access{}), referrers)
			expectFault(t, err, tc.reason, fault.Retry)
			g.Expect(fault.Of(err, "").RetryAfter).To(Equal(tc.after))
			g.Expect(err.Error()).To(And(ContainSubstring("list the referrers of"), ContainSubstring(tc.words), Not(ContainSubstring("abcdefgh"))))
		})
	}
}

func TestManifestsAreAskedForInEveryTypeThatIsRead(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.answerTo("/manifests/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"accepted":%q}`, r.Header.Get("Accept"))
	})
	accepted, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).ReadManifest(t.Context(), "1")
	g.Expect(err).NotTo(HaveOccurred())
	for _, mediaType := range []types.MediaType{types.OCIManifestSchema1, types.OCIImageIndex, types.DockerManifestSchema2, types.DockerManifestList} {
		g.Expect(string(accepted)).To(ContainSubstring(string(mediaType)))
	}
}

func TestAReadUsesTheLoginOfEverythingElse(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	digest, _ := s.putImage(t, "app:1", "x")
	k := &tokens{user: "user", password: password}
	s.demandToken(k)
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u"))
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /token", "GET /v2/app/manifests/1"}))

	ask := func() {
		_, err := repo.ReadManifest(t.Context(), digest.String())
		g.Expect(err).NotTo(HaveOccurred())
	}
	ask()
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/app/manifests/" + digest.String()}))
	k.expire()
	ask()
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/app/manifests/" + digest.String(), "GET /token", "GET /v2/app/manifests/" + digest.String()}), "a token is refreshed once")
	resolved, err := repo.Resolve(t.Context(), registry.Query{Digest: digest})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(resolved.MediaType).To(Equal(types.OCIManifestSchema1))
	g.Expect(s.asked()).To(BeEmpty(), "what was resolved is not asked for")
}

func TestWhatIsNoAnswerToAReadIsAFailure(t *testing.T) {
	for name, tc := range map[string]struct {
		answers map[string]http.HandlerFunc // by a part of the path
		reason  string
		class   fault.Class
		words   string
	}{
		"a ping that finds nothing":    {map[string]http.HandlerFunc{"/v2/": code(http.StatusNotFound, "")}, v1alpha1.ReasonFetchFailed, fault.Retry, "404 Not Found"},
		"a ping that fails":            {map[string]http.HandlerFunc{"/v2/": code(http.StatusServiceUnavailable, "", "Retry-After", "7")}, v1alpha1.ReasonFetchFailed, fault.Retry, "503"},
		"a body that never ends":       {map[string]http.HandlerFunc{"/referrers/": write(strings.Repeat(" ", registry.MaxManifest+1), "Content-Type", string(types.OCIImageIndex))}, v1alpha1.ReasonLimitExceeded, fault.Retry, "larger than"},
		"a body that is cut":           {map[string]http.HandlerFunc{"/referrers/": raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")}, v1alpha1.ReasonFetchFailed, fault.Retry, "ended in the middle"},
		"a redirect to the metadata":   {map[string]http.HandlerFunc{"/referrers/": redirect("http://169.254.169.254/latest")}, v1alpha1.ReasonFetchFailed, fault.Retry, "never allowed"},
		"a redirect to a file":         {map[string]http.HandlerFunc{"/referrers/": redirect("file:///etc/passwd")}, v1alpha1.ReasonFetchFailed, fault.Retry, "refused"},
		"a realm that is not its own":  {map[string]http.HandlerFunc{"/v2/": code(http.StatusUnauthorized, "", "WWW-Authenticate", `Bearer realm="http://attacker.example.com/token"`)}, v1alpha1.ReasonFetchFailed, fault.Retry, "refused to send credentials"},
		"a header that does not come":  {map[string]http.HandlerFunc{"/referrers/": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }}, v1alpha1.ReasonFetchFailed, fault.Retry, "too long"},
		"a body that makes no advance": {map[string]http.HandlerFunc{"/referrers/": stall}, v1alpha1.ReasonFetchFailed, fault.Retry, "no progress"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			for part, answer := range tc.answers {
				s.answerTo(part, answer)
			}
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u"))
			_, err := read(bounded(t), t, repo, referrers)
			expectFault(t, err, tc.reason, tc.class)
			NewWithT(t).Expect(err.Error()).To(And(ContainSubstring(tc.words), Not(ContainSubstring(password))))
		})
	}
}

func TestAReadStaysInItsRepository(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
	for _, ref := range []string{"", "tags/list", "../../other/manifests/1", "http://example.com/x", "/v2/other/manifests/1", "a%2fb"} {
		_, err := repo.ReadManifest(t.Context(), ref)
		expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
		hash := v1.Hash{Algorithm: "sha256", Hex: ref}
		_, err = repo.ReadBlob(t.Context(), hash, 1)
		expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
		_, err = repo.Referrers(t.Context(), hash)
		expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
		if ref != "" { // sha256- is a tag
			_, err = repo.TaggedReferrers(t.Context(), hash)
			expectFault(t, err, v1alpha1.ReasonInvalidSpec, fault.Stall)
		}
	}
	g.Expect(s.asked()).To(BeEmpty())
}

func TestEqualReadsAtTheSameTimeAreOneRequest(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	c := newClient(t, registry.Options{})
	arrived, held := make(chan struct{}, 64), make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	s.answerTo("/referrers/", func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-held
		_, _ = io.WriteString(w, listOf(`{"artifactType":"application/x"}`))
	})
	ask := func(ctx context.Context, access registry.Access) ([]registry.Referrer, error) {
		list, err := c.Repository(repository(t, s.host()+"/app"), access).Referrers(ctx, hash(t, listed))
		return list.Entries, err
	}
	var all, joined sync.WaitGroup
	answers := make([][]registry.Referrer, 20)
	for i := range answers {
		joined.Add(1)
		all.Go(func() {
			answers[i], _ = ask(&announcing{Context: t.Context(), joined: joined.Done}, registry.Access{})
		})
	}
	joined.Wait()
	<-arrived
	all.Go(func() { _, _ = ask(t.Context(), user("another")) })
	g.Eventually(arrived).WithTimeout(10*time.Second).Should(Receive(), "the answer for one access is none for another")
	release()
	all.Wait()
	g.Expect(answers).To(HaveEach(HaveLen(1)))
	count := 0
	for _, request := range s.asked() {
		if strings.Contains(request, "/referrers/") {
			count++
		}
	}
	g.Expect(count).To(Equal(2))
	_, err := ask(t.Context(), registry.Access{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.asked()).To(HaveLen(1), "an answer serves those who wait for it, and nobody later")
}

func TestAReadEndsWithItsCaller(t *testing.T) {
	s := serve(t)
	s.answerTo("/referrers/", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := read(ctx, t, newClient(t, registry.Options{}).Repository(repository(t, s.host()+"/app"), registry.Access{}), referrers)
	NewWithT(t).Expect(err).To(MatchError(context.DeadlineExceeded))
}
