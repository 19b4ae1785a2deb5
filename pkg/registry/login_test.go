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
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	. "github.com/onsi/gomega"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/registry"
)

const password = "correct-horse-battery"

func user(fingerprint string) registry.Access {
	return registry.Access{Auth: &authn.Basic{Username: "user", Password: password}, Fingerprint: fingerprint}
}

func TestAWrongPasswordIsAnAuthenticationFailureThatDoesNotRepeatIt(t *testing.T) {
	for name, demand := range map[string]func(*server){
		"basic": func(s *server) { s.demandBasic("user", "another") },
		"token": func(s *server) { s.demandToken(&tokens{user: "user", password: "another"}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			demand(s)
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			NewWithT(t).Expect(err.Error()).NotTo(ContainSubstring(password))
			NewWithT(t).Expect(err.Error()).To(And(ContainSubstring("401"), ContainSubstring("check that secretRef")))
		})
	}
}

func TestAnExpiredTokenIsRefreshedOnce(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	k := &tokens{}
	s.demandToken(k)
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{})
	resolve := func() error {
		_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		return err
	}
	g.Expect(resolve()).To(Succeed())
	s.asked()
	k.expire()
	g.Expect(resolve()).To(Succeed())
	g.Expect(s.asked()).To(Equal([]string{"HEAD /v2/app/manifests/1", "GET /token", "HEAD /v2/app/manifests/1"}))
}

func TestATokenIsRenewedBeforeItExpires(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	s.demandToken(&tokens{life: 300})
	options := quick()
	now := time.Now()
	options.Clock = func() time.Time { return now }
	repo := newClient(t, options).Repository(repository(t, s.host()+"/app"), registry.Access{})
	for _, step := range []struct {
		later time.Duration
		asks  []string
	}{
		{0, []string{"GET /v2/", "GET /token", "GET /v2/app/manifests/1"}},
		{200 * time.Second, []string{"HEAD /v2/app/manifests/1"}},
		{90 * time.Second, []string{"GET /token", "HEAD /v2/app/manifests/1"}},
	} {
		now = now.Add(step.later)
		_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(s.asked()).To(Equal(step.asks))
	}
}

func TestATokenWithoutALifeLivesAMinute(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.putImage(t, "app:1", "x")
	k := &tokens{}
	s.demandToken(k)
	options := quick()
	now := time.Now()
	options.Clock = func() time.Time { return now }
	repo := newClient(t, options).Repository(repository(t, s.host()+"/app"), registry.Access{})
	for _, step := range []struct {
		later time.Duration
		asks  []string
	}{
		{0, []string{"GET /v2/", "GET /token", "GET /v2/app/manifests/1"}},
		{50 * time.Second, []string{"HEAD /v2/app/manifests/1"}},
		{5 * time.Second, []string{"GET /token", "HEAD /v2/app/manifests/1"}},
	} {
		now = now.Add(step.later)
		_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(s.asked()).To(Equal(step.asks), "no token is sent that has expired")
	}
}

func TestATokenThatIsNeverAcceptedIsAskedForTwice(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/token" {
			_, _ = io.WriteString(w, `{"access_token":"useless"}`)
			return true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	g.Expect(s.asked()).To(Equal([]string{"GET /v2/", "GET /token", "GET /v2/app/manifests/1", "GET /token", "GET /v2/app/manifests/1"}))
}

func TestManyCallersShareOneToken(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	_, layer := s.putImage(t, "app:1", "x")
	k := &tokens{}
	s.demandToken(k)
	c := newClient(t, quick())
	pull := func() {
		var all sync.WaitGroup
		results := make([]error, 20)
		for i := range results {
			all.Go(func() {
				results[i] = c.Repository(repository(t, s.host()+"/app"), user("u")).Pull(t.Context(), layer, io.Discard)
			})
		}
		all.Wait()
		g.Expect(errors.Join(results...)).NotTo(HaveOccurred())
	}
	pull()
	g.Expect(k.issued).To(Equal(1))
	k.expire()
	pull()
	g.Expect(k.issued).To(Equal(2))
}

func TestAnIdentityTokenIsExchangedByPost(t *testing.T) {
	for name, oauth := range map[string]bool{"where the realm speaks OAuth": true, "else by GET": false} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.putImage(t, "app:1", "x")
			var form string
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/token" && r.Method == http.MethodPost && !oauth:
					w.WriteHeader(http.StatusNotFound)
				case r.URL.Path == "/token":
					_ = r.ParseForm()
					form = r.Form.Encode()
					_, _ = io.WriteString(w, `{"access_token":"good"}`)
				case r.Header.Get("Authorization") == "Bearer good":
					return false
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token",service="s"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
				return true
			})
			access := registry.Access{Auth: authn.FromConfig(authn.AuthConfig{IdentityToken: "refresh-me-please"}), Fingerprint: "i"}
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access).Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(form).To(ContainSubstring("scope=repository%3Aapp%3Apull"))
			g.Expect(form).To(ContainSubstring("service=s"))
			g.Expect(strings.Contains(form, "grant_type=refresh_token") && strings.Contains(form, "refresh-me-please")).To(Equal(oauth))
		})
	}
}

func TestCredentialsStayWithTheRegistryAndItsRealms(t *testing.T) {
	a := newAuthority(t)
	names := map[string]string{}
	for _, n := range []string{
		"registry.example.com", "auth.example.com", "auth.example.org", "one.github.io", "two.github.io",
		"registry.one.svc.cluster.local", "auth.two.svc.cluster.local",
	} {
		names[n] = "127.0.0.1"
	}
	for _, tc := range []struct {
		name, registry, realm string
		realms                []string
		anonymous             bool
		reason                string // empty: the login succeeds
		words                 string
	}{
		{name: "to a realm at the registry's host", registry: "registry.example.com", realm: "https://registry.example.com:PORT/token"},
		{name: "to a realm in the registry's domain", registry: "registry.example.com", realm: "https://auth.example.com:PORT/token"},
		{name: "not to a realm in another domain", registry: "registry.example.com", realm: "https://auth.example.org:PORT/token",
			reason: v1alpha1.ReasonFetchFailed, words: "--registry-auth-realms"},
		{name: "but anonymously", registry: "registry.example.com", realm: "https://auth.example.org:PORT/token", anonymous: true},
		{name: "and to one that the platform lists", registry: "registry.example.com", realm: "https://auth.example.org:PORT/token", realms: []string{"auth.example.org:PORT"}},
		{name: "not to one that it lists by another port", registry: "registry.example.com", realm: "https://auth.example.org:PORT/token", realms: []string{"auth.example.org"},
			reason: v1alpha1.ReasonFetchFailed, words: "auth.example.org"},
		{name: "not across names below a private suffix", registry: "one.github.io", realm: "https://two.github.io:PORT/token",
			reason: v1alpha1.ReasonFetchFailed, words: "two.github.io"},
		{name: "not across the names of a cluster", registry: "registry.one.svc.cluster.local", realm: "https://auth.two.svc.cluster.local:PORT/token",
			reason: v1alpha1.ReasonFetchFailed, words: "auth.two.svc.cluster.local"},
		{name: "not to a realm without https", registry: "registry.example.com", realm: "http://registry.example.com:PORT/token",
			reason: v1alpha1.ReasonFetchFailed, words: "without https"},
		{name: "nobody asks a realm without https", registry: "registry.example.com", realm: "http://registry.example.com:PORT/token", anonymous: true,
			reason: v1alpha1.ReasonFetchFailed, words: "without https"},
		{name: "nobody asks a realm that is no URL", registry: "registry.example.com", realm: "://", anonymous: true,
			reason: v1alpha1.ReasonFetchFailed, words: "not a URL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			var hosts []string
			for n := range names {
				hosts = append(hosts, n)
			}
			s := serveTLS(t, a, hosts...)
			s.putImage(t, "app:1", "x")
			k := &tokens{user: "user", password: password, realm: strings.ReplaceAll(tc.realm, "PORT", s.port())}
			options := quick()
			options.Resolver = resolver(t, names)
			for _, realm := range tc.realms {
				options.AuthRealms = append(options.AuthRealms, strings.ReplaceAll(realm, "PORT", s.port()))
			}
			access := user("u")
			if tc.anonymous {
				access.Auth, k.user = nil, ""
			}
			access.TLS = a.trust()
			s.demandToken(k)
			_, err := newClient(t, options).Repository(repository(t, tc.registry+":"+s.port()+"/app"), access).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			if tc.reason == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			expectFault(t, err, tc.reason, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring(tc.words))
			g.Expect(k.issued).To(BeZero())
		})
	}
}

// TestARealmWithoutHTTPSIsNotAskedForARegistryThatSpeaksIt holds that an access that
// allows plain HTTP does not send a password in clear for a registry with HTTPS.
func TestARealmWithoutHTTPSIsNotAskedForARegistryThatSpeaksIt(t *testing.T) {
	for name, anonymous := range map[string]bool{"with credentials": false, "anonymously": true} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			a := newAuthority(t)
			s, realm := serveTLS(t, a), serve(t)
			k := &tokens{realm: realm.URL + "/token"}
			s.demandToken(k)
			realm.demandToken(k)
			access := user("u")
			access.TLS, access.Insecure = a.trust(), true
			if anonymous {
				access.Auth = nil
			}
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access).Resolve(t.Context(), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring("without https"))
			g.Expect(realm.asked()).To(BeEmpty())
		})
	}
}

// As of GitLab by plain HTTP, whose registry has a port of its own.
func TestPlainHTTPTrustsTheOtherPortsOfItsHost(t *testing.T) {
	for _, tc := range []struct {
		name, realm string
		anonymous   bool
		words       string // empty: the login succeeds
	}{
		{name: "with credentials at the registry's host", realm: "registry.example.com"},
		{name: "anonymously at the registry's host", realm: "registry.example.com", anonymous: true},
		{name: "not with credentials at another one in its domain", realm: "auth.example.com", words: "without https"},
		{name: "anonymously at another one", realm: "auth.example.com", anonymous: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			s, realm := serve(t), serve(t)
			s.putImage(t, "app:1", "x")
			k := &tokens{user: "user", password: password, realm: "http://" + tc.realm + ":" + realm.port() + "/token"}
			access := user("u")
			access.Insecure = true
			if tc.anonymous {
				access.Auth, k.user = nil, ""
			}
			s.demandToken(k)
			realm.demandToken(k)
			options := registry.Options{Resolver: resolver(t, map[string]string{"registry.example.com": "127.0.0.1", "auth.example.com": "127.0.0.1"})}
			_, err := newClient(t, options).Repository(repository(t, "registry.example.com:"+s.port()+"/app"), access).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			if tc.words == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			g.Expect(err.Error()).To(ContainSubstring(tc.words))
			g.Expect(realm.asked()).To(BeEmpty())
		})
	}
}

func TestARealmThatAnswersWithoutATokenIsAnAuthenticationFailure(t *testing.T) {
	for name, answer := range map[string]string{
		"no JSON":             "hello",
		"no token":            "{}",
		"a token with a line": `{"token":"a\r\nHost: evil"}`,
		"a token of any size": `{"token":"` + strings.Repeat("a", 16<<10+1) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					_, _ = io.WriteString(w, answer)
					return true
				}
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(t.Context(), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
			NewWithT(t).Expect(err.Error()).To(ContainSubstring("the answer has no token"))
		})
	}
}

type failingAuth struct{}

func (failingAuth) Authorization() (*authn.AuthConfig, error) {
	return nil, errors.New("the cloud says no to token=0123456789abcdef")
}

func TestACredentialThatCannotBeHadIsAnAuthenticationFailure(t *testing.T) {
	s := serve(t)
	_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{Auth: failingAuth{}}).
		Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	NewWithT(t).Expect(err.Error()).To(And(ContainSubstring("the cloud says no"), Not(ContainSubstring("0123456789abcdef"))))
}

func TestWhatARegistryWritesIsCutAndRedacted(t *testing.T) {
	s := serve(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		_, secret, _ := r.BasicAuth()
		message := "\x1b[31mred\x1b[0m\x00 you sent " + r.Header.Get("Authorization") + " that is " + secret +
			" see https://u:p@host/path?X-Amz-Signature=abcdef \u202e token=tttttttt eyJhbGciOi.eyJzdWIi.c2ln " +
			strings.Repeat("A1b2", 20) + strings.Repeat(" word", 1<<13)
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": "DENIED", "message": message}}})
		return true
	})
	_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	g := NewWithT(t)
	g.Expect(len([]rune(err.Error()))).To(BeNumerically("<", 500))
	g.Expect(err.Error()).NotTo(MatchRegexp(`[\x00-\x1f\x{202e}]`))
	for _, secret := range []string{password, "dXNlcjpj", "u:p@", "abcdef", "tttttttt", "eyJ", "A1b2A1b2", "31m", `\x1b`, `\u`} {
		g.Expect(err.Error()).NotTo(ContainSubstring(secret))
	}
}

func TestAnErrorOfAMegabyteIsCut(t *testing.T) {
	for name, answer := range map[string]string{
		"text": strings.Repeat("word ", 1<<18),
		"JSON": `{"errors":[{"code":"DENIED","message":"` + strings.Repeat("word ", 1<<18) + `"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.answerTo("/manifests/", code(500, answer))
			_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), registry.Access{}).Resolve(t.Context(), registry.Query{Tag: "1"})
			expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
			NewWithT(t).Expect(len([]rune(err.Error()))).To(BeNumerically("<", 450))
		})
	}
}

func TestASecretInAShortAnswerIsRedacted(t *testing.T) {
	s := serve(t)
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		_, secret, _ := r.BasicAuth()
		half := len(secret) / 2
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, "you sent "+secret+" or "+secret[:half]+"\x00"+secret[half:]+" and that is "+r.Header.Get("Authorization"))
		return true
	})
	_, err := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u")).Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	NewWithT(t).Expect(err.Error()).To(ContainSubstring("you sent *** or *** and that is Basic ***"))
}

// TestAPasswordThatIsACommonWordLeavesAdviceReadable holds that it is removed from what
// the registry says, and not from what this program does.
func TestAPasswordThatIsACommonWordLeavesAdviceReadable(t *testing.T) {
	g := NewWithT(t)
	s := serve(t)
	s.answer(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, "you sent secret") // the client reads it
		return true
	})
	access := registry.Access{Auth: &authn.Basic{Username: "user", Password: "secret"}, Fingerprint: "u"}
	repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access)
	_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
	expectFault(t, err, v1alpha1.ReasonAuthenticationFailed, fault.Retry)
	for _, said := range []string{err.Error(), repo.Conceal(err.Error()), repo.Conceal("secret, " + err.Error() + ", secret")} {
		g.Expect(said).To(ContainSubstring("(check that secretRef or serviceAccountName gives credentials for this repository)"))
		g.Expect(said).To(ContainSubstring("you sent ***"))
		g.Expect(strings.Count(said, "secret")).To(Equal(1))
	}
}

// TestNoPartOfAnAnswerGetsASecretIntoAMessage sends a password and a token back in parts
// of an answer that are repeated. The token is as short as that of a registry which keeps
// its tokens in a table.
func TestNoPartOfAnAnswerGetsASecretIntoAMessage(t *testing.T) {
	const token = "token-1"
	for name, answer := range map[string]http.HandlerFunc{
		"the text of a refusal":          code(http.StatusForbidden, "you sent "+token+" for "+password),
		"the text of a failure":          code(http.StatusInternalServerError, "you sent "+token+" for "+password),
		"a code of JSON":                 code(http.StatusForbidden, `{"errors":[{"code":"`+token+`","message":"`+password+`"}]}`),
		"the host of a redirect":         redirect("http://" + password + "." + token + ".invalid/"),
		"a redirect by another protocol": redirect("ftp://" + password + "." + token + ".invalid/"),
		"the path of a redirect":         redirect("http://127.0.0.1:1/" + password + "/" + token),
		"the type of something else":     write("<html>", "Content-Type", "text/"+password+token),
		"the type of a manifest":         write(`{"mediaType":"application/vnd.oci.image.manifest.v1+json"}`, "Content-Type", "text2/"+password+token),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch r.URL.Path {
				case "/token":
					_, _ = io.WriteString(w, `{"token":"`+token+`"}`)
				case "/v2/":
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					answer(w, r)
				}
				return true
			})
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), user("u"))
			_, failed := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			g.Expect(failed).To(HaveOccurred())
			_, read := repo.ReadManifest(t.Context(), "1")
			pulled := repo.Pull(t.Context(), descriptorOf([]byte("x")), io.Discard)
			for _, err := range []error{failed, read, pulled} {
				g.Expect(fmt.Sprint(err)).NotTo(Or(ContainSubstring(token), ContainSubstring(password)))
			}
		})
	}
}

// TestNoCutLeavesPartOfASecretInAMessage sends a password back where a text that is
// repeated is cut, so that all but its end would be left, and in quotes, where a part of
// it is escaped.
func TestNoCutLeavesPartOfASecretInAMessage(t *testing.T) {
	const secret = `correct-"horse"-battery`
	part := secret[:len(secret)-1]
	until := func(end int, text string) string {
		return text + strings.Repeat("x", end-len(part)-len(text)) + secret + secret
	}
	hidden := strings.Repeat(secret, 2800) // it gets shorter before it is cut
	for name, answer := range map[string]http.HandlerFunc{
		"in quotes":              write("<html>", "Content-Type", "text/"+secret),
		"the end of a type":      write("<html>", "Content-Type", until(253, "text/")),
		"the end of a host":      redirect("http://" + until(253, "a") + ".invalid/"),
		"the end of an encoding": write("x", "Content-Encoding", until(253, "a"), "Content-Length", "5"),
		"the end of what is looked at": code(http.StatusForbidden,
			strings.Repeat("\x00", 16<<10-3-len(part)-1)+secret[:5]+"\x00"+secret[5:]+secret),
		"the end of what is read": code(http.StatusForbidden,
			"\x1b]"+hidden+"\x07"+strings.Repeat("\x00", 64<<10-3-len(hidden)-len(part))+secret),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/v2/" {
					answer(w, r)
					return true
				}
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			})
			access := registry.Access{Auth: &authn.Basic{Username: "user", Password: secret}}
			repo := newClient(t, quick()).Repository(repository(t, s.host()+"/app"), access)
			_, failed := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
			for _, err := range []error{failed, repo.Pull(t.Context(), descriptorOf([]byte("x")), io.Discard)} {
				g.Expect(fmt.Sprint(err)).NotTo(ContainSubstring(secret[:8]))
			}
		})
	}
}

func TestAClientCertificateOpensTheRegistry(t *testing.T) {
	a := newAuthority(t)
	s := newServer()
	srv := serveMutualTLS(t, s, a)
	digest, _ := s.putImage(t, "app:1", "x")
	for _, tc := range []struct {
		name  string
		trust *tls.Config
		words string
	}{
		{"with it", &tls.Config{RootCAs: a.trust().RootCAs, Certificates: []tls.Certificate{a.issue(t, "client")}}, ""},
		{"not without it", a.trust(), "set tls.crt and tls.key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			m, err := newClient(t, quick()).Repository(repository(t, srv+"/app"), registry.Access{TLS: tc.trust, Fingerprint: tc.name}).
				Resolve(t.Context(), registry.Query{Tag: "1"})
			if tc.words != "" {
				expectFault(t, err, v1alpha1.ReasonFetchFailed, fault.Retry)
				g.Expect(err.Error()).To(ContainSubstring(tc.words))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(m.Digest).To(Equal(digest))
		})
	}
}

// TestTheLifeOfATokenMayBeAString holds for realms that write expires_in in any form.
func TestTheLifeOfATokenMayBeAString(t *testing.T) {
	for life, asked := range map[string]int{`"300"`: 1, `300`: 1, `300.5`: 1, `null`: 2, `"soon"`: 2, `0`: 2, `-1`: 2, `{}`: 2} {
		t.Run(life, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t)
			s.putImage(t, "app:1", "x")
			logins := 0
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Path == "/token":
					logins++
					_, _ = io.WriteString(w, `{"token":"good","expires_in":`+life+`}`) // the client reads it
				case r.Header.Get("Authorization") != "Bearer good":
					w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="registry"`)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					return false
				}
				return true
			})
			now := time.Now()
			options := quick()
			options.Clock = func() time.Time { return now }
			repo := newClient(t, options).Repository(repository(t, s.host()+"/app"), user("u"))
			for _, later := range []time.Duration{0, 30 * time.Second, 2 * time.Minute} {
				now = now.Add(later)
				_, err := repo.Resolve(t.Context(), registry.Query{Tag: "1"})
				g.Expect(err).NotTo(HaveOccurred())
			}
			g.Expect(logins).To(Equal(asked))
		})
	}
}
