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

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/limit"
)

const (
	// maxAnswerBytes bounds what is read of a ping, a token or an error.
	maxAnswerBytes = 64 << 10
	// maxTokenBytes bounds a token, which is remembered, and sent as a header: few
	// servers take a longer one.
	maxTokenBytes = 16 << 10
	// tokenLife is that of a token whose realm does not say, as the token
	// specification wants it; maxTokenLife is the longest that is believed.
	tokenLife    = time.Minute
	maxTokenLife = 24 * time.Hour
)

// session is what one fingerprint knows of one registry: how to log in there,
// and the tokens that it got.
type session struct {
	client *Client
	link   *link
	tokens *cache[string, token] // by their scope
	// uploads are the addresses that answered where an upload goes on, by the server there.
	uploads *cache[string, netip.Addr]

	pings  sharing[struct{}, endpoint]
	logins sharing[string, token]

	found atomic.Pointer[endpoint]

	mu   sync.Mutex
	last authn.AuthConfig // what logged in last, to keep it out of errors
}

// endpoint is what a ping found out.
type endpoint struct {
	scheme string
	login  challenge
}

// ledFrom returns the context of requests that an answer of an address causes.
func ledFrom(ctx context.Context, at netip.Addr) context.Context {
	return context.WithValue(ctx, tripKey{}, &trip{at: at})
}

// token is a bearer token for one scope.
type token struct {
	value string
	// expires is before the end of its life, so that none is sent that ends on
	// the way.
	expires time.Time
}

func newSession(c *Client, l *link) *session {
	s := &session{client: c, link: l, tokens: newCache[string](cacheOptions[token]{
		entries: maxTokens, idle: c.options.ForgetAfter, clock: c.options.Clock,
	}), uploads: newCache[string](cacheOptions[netip.Addr]{
		entries: maxUploads, idle: c.options.ForgetAfter, clock: c.options.Clock,
	})}
	s.pings.timeout, s.logins.timeout = c.options.SharedTimeout, c.options.SharedTimeout
	return s
}

// endpoint returns how to reach the registry. It pings it once.
func (s *session) endpoint(ctx context.Context) (endpoint, error) {
	return s.pings.doUnless(ctx, s.known, struct{}{}, func(ctx context.Context) (endpoint, error) {
		e, err := s.ping(ctx)
		if err == nil {
			s.found.Store(&e)
		}
		return e, err
	})
}

func (s *session) known() (endpoint, bool) {
	if e := s.found.Load(); e != nil {
		return *e, true
	}
	return endpoint{}, false
}

// lost makes the next request ping again: the registry may have moved from
// HTTP to HTTPS, or to another login realm.
func (s *session) lost() { s.found.Store(nil) }

// refused takes note of a 401 and tells whether another attempt may succeed.
// It drops the token that was refused, unless another caller has already
// replaced it, and follows the registry to another realm.
func (s *session) refused(scope string, answer *http.Response) bool {
	if t, ok := s.tokens.get(scope); ok && "Bearer "+t.value == answer.Request.Header.Get("Authorization") {
		s.tokens.remove(scope)
	}
	e, ok := s.known()
	if asked := challengeOf(answer); ok && asked.scheme != "" && asked != e.login {
		e.login = asked
		s.found.Store(&e)
		return true
	}
	return !ok || e.login.scheme == "bearer"
}

// config asks a credential for what it is made of.
func (s *session) config(ctx context.Context, auth authn.Authenticator) (*authn.AuthConfig, error) {
	config, err := authn.Authorization(ctx, auth)
	if err != nil {
		return nil, fault.Retryf(v1alpha1.ReasonAuthenticationFailed, "cannot get credentials for %q: %s", s.link.key.host, clean(err.Error()))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = *config
	return config, nil
}

// secrets are the parts of a request that an answer must not repeat.
func (s *session) secrets(scope string) []string {
	t, _ := s.tokens.get(scope)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, encoded, _ := strings.Cut(basic(&s.last), " ")
	return []string{t.value, s.last.Password, s.last.Auth, s.last.IdentityToken, s.last.RegistryToken, encoded, s.link.proxySecret}
}

// ping asks for /v2/ by https and, where plain HTTP is allowed and the registry
// speaks no TLS, by http. A registry that has answered by https is never again
// asked by http: somebody on the way may have cut off the one to get the other.
func (s *session) ping(ctx context.Context) (endpoint, error) {
	e, err := s.pingBy(ctx, "https")
	if err == nil || s.link.key.plain == never || !s.speaksNoTLS(err) {
		return e, err
	}
	if _, before := s.client.secure.get(s.link.key); before {
		return e, errSpokeHTTPS()
	}
	return s.pingBy(ctx, "http")
}

func errSpokeHTTPS() error {
	return refusef("refused plain HTTP: the registry answered by HTTPS before; if it no longer speaks HTTPS, restart this program")
}

// speaksNoTLS tells whether a ping by https failed because no TLS is spoken
// there: what listens answered the first message of TLS with HTTP, nothing listens,
// or the proxy does not tunnel to it. A certificate or an answer that is no good, an
// alert, a connection that is cut or stalls and a redirect that fails tell nothing of
// the kind.
func (s *session) speaksNoTLS(err error) bool {
	var at *url.Error
	if !errors.As(err, &at) || at.URL != s.pingURL("https").String() {
		return false
	}
	if proxy, ok := errors.AsType[*proxyAnswer](err); ok {
		return proxy.code != http.StatusProxyAuthRequired && proxy.code != http.StatusGatewayTimeout
	}
	return errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, syscall.ECONNREFUSED)
}

func (s *session) pingURL(scheme string) *url.URL {
	return &url.URL{Scheme: scheme, Host: s.link.key.host, Path: "/v2/"}
}

func (s *session) pingBy(ctx context.Context, scheme string) (endpoint, error) {
	answer, err := s.get(ctx, s.pingURL(scheme), "")
	if err != nil {
		return endpoint{}, err
	}
	defer drain(answer)
	if to := answer.Request.URL; to.Host == s.link.key.host {
		scheme = to.Scheme // a redirect may have led from http to https
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return endpoint{scheme: scheme}, nil
	case http.StatusUnauthorized:
		return endpoint{scheme: scheme, login: challengeOf(answer)}, nil //nolint:contextcheck // the trip is in the answer
	default:
		failed := newAnswerError(answer, s.client.options.Clock())
		failed.ping = true
		return endpoint{}, failed
	}
}

// authorization returns the Authorization header for requests to a repository;
// empty for an anonymous caller of a registry without tokens. A token that is
// remembered costs nothing, not even the question to a live credential.
func (s *session) authorization(ctx context.Context, e endpoint, who caller) (string, error) {
	known := func() (token, bool) {
		t, ok := s.tokens.get(who.scope)
		return t, ok && s.client.options.Clock().Before(t.expires)
	}
	if t, ok := known(); ok && e.login.scheme == "bearer" {
		return "Bearer " + t.value, nil
	}
	config, err := s.config(ctx, who.auth)
	switch {
	case err != nil:
		return "", err
	case config.RegistryToken != "":
		return "Bearer " + config.RegistryToken, nil
	case e.login.scheme != "bearer":
		return basic(config), nil
	}
	t, err := s.logins.doUnless(ctx, known, who.scope, func(ctx context.Context) (token, error) {
		t, err := s.login(ctx, e, who.scope, config)
		if err != nil {
			// The registry may have named the wrong realm, and may know better by now.
			s.lost()
			return t, err
		}
		s.tokens.put(who.scope, t)
		return t, nil
	})
	if err != nil {
		return "", err
	}
	return "Bearer " + t.value, nil
}

// caller is a credential and the rights to ask for with it: scopes of the Docker
// token specification, separated by spaces.
type caller struct {
	auth  authn.Authenticator
	scope string
}

// basic returns the header of RFC 7617, empty for an anonymous caller.
func basic(config *authn.AuthConfig) string {
	switch {
	case config.Username != "" || config.Password != "":
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(config.Username+":"+config.Password))
	case config.Auth != "":
		return "Basic " + config.Auth
	default:
		return ""
	}
}

// loginError is a token that could not be had.
type loginError struct {
	realm string
	err   error
}

func (e *loginError) Error() string { return fmt.Sprintf("login at %q failed: %s", e.realm, e.err) }
func (e *loginError) Unwrap() error { return e.err }

// login asks the realm of a challenge for a token for some scopes.
// An identity token is exchanged by OAuth 2.0 (POST), all else by GET.
// It is asked by plain HTTP only where the registry itself speaks nothing else.
func (s *session) login(ctx context.Context, e endpoint, scope string, config *authn.AuthConfig) (token, error) {
	realm, err := url.Parse(e.login.realm)
	if err != nil || realm.Host == "" {
		return token{}, &loginError{realm: s.link.key.host, err: refusef("the login realm that the registry names is not a URL")}
	}
	realm.User, realm.Fragment = nil, ""
	if realm.Scheme != "https" && realm.Scheme != e.scheme {
		return token{}, refusef("refused to ask for a token at the login realm at %q without https", realm.Host)
	}
	if basic(config) != "" || config.IdentityToken != "" {
		if err := s.link.mayLogin(realm); err != nil {
			return token{}, err
		}
	}
	query := url.Values{"scope": strings.Fields(scope)}
	if e.login.service != "" {
		query.Set("service", e.login.service)
	}
	t, err := s.exchange(ledFrom(ctx, e.login.from), realm, query, config)
	if err != nil {
		return token{}, &loginError{realm: realm.Host, err: err}
	}
	return t, nil
}

func (s *session) exchange(ctx context.Context, realm *url.URL, query url.Values, config *authn.AuthConfig) (token, error) {
	if config.IdentityToken != "" {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {config.IdentityToken}, "client_id": {"image-source-controller"}}
		maps.Copy(form, query)
		answer, err := s.post(ctx, realm, form)
		if err != nil {
			return token{}, err
		}
		// Not every realm speaks OAuth 2.0; those that do not are asked by GET.
		if answer.StatusCode != http.StatusNotFound && answer.StatusCode != http.StatusMethodNotAllowed {
			return s.readToken(answer)
		}
		drain(answer)
	}
	asked := *realm
	values := asked.Query()
	maps.Copy(values, query)
	asked.RawQuery = values.Encode()
	answer, err := s.get(ctx, &asked, basic(config)) //nolint:bodyclose // readToken drains and closes it
	if err != nil {
		return token{}, err
	}
	return s.readToken(answer)
}

func (s *session) readToken(answer *http.Response) (token, error) {
	defer drain(answer)
	if answer.StatusCode != http.StatusOK {
		failed := newAnswerError(answer, s.client.options.Clock())
		failed.login = true
		return token{}, failed
	}
	var got struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	text, err := limit.ReadAll(answer.Body, maxAnswerBytes)
	if err != nil {
		return token{}, err
	}
	if json.Unmarshal(uncoded(text, v1.Hash{}, maxAnswerBytes), &got) != nil {
		return token{}, noToken(answer)
	}
	t := token{value: got.Token}
	if t.value == "" {
		t.value = got.AccessToken
	}
	if t.value == "" || len(t.value) > maxTokenBytes || strings.ContainsFunc(t.value, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return token{}, noToken(answer)
	}
	t.expires = s.client.options.Clock().Add(lifeOf(got.ExpiresIn) * 9 / 10)
	return t, nil
}

// lifeOf reads how many seconds a token lives. Some realms write a string.
func lifeOf(expiresIn []byte) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(expiresIn), `"`), 64)
	if err != nil || !(seconds >= 1) {
		return tokenLife
	}
	return time.Duration(min(seconds, maxTokenLife.Seconds())) * time.Second
}

func noToken(answer *http.Response) error {
	return fault.Retryf(v1alpha1.ReasonAuthenticationFailed,
		"login at %q failed: the answer has no token of at most %d bytes; expected JSON with a field token or access_token", answer.Request.URL.Host, maxTokenBytes)
}

// get sends a GET with a header that stays with the host it is meant for.
func (s *session) get(ctx context.Context, target *url.URL, authorization string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	return s.send(request, authorization)
}

func (s *session) post(ctx context.Context, target *url.URL, form url.Values) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return s.send(request, "")
}

// send follows redirects within the rules of the link.
func (s *session) send(request *http.Request, authorization string) (*http.Response, error) {
	client := http.Client{Transport: &authorized{link: s.link, origin: request.URL, header: authorization}}
	return client.Do(request)
}

// authorized adds a header to the requests for one origin. It is not in the
// requests that http.Client sees, so that no redirect carries it on.
type authorized struct {
	link   *link
	origin *url.URL
	header string
}

// RoundTrip implements http.RoundTripper.
func (a *authorized) RoundTrip(request *http.Request) (*http.Response, error) {
	if a.header != "" && sameOrigin(a.origin, request.URL) {
		request = request.Clone(request.Context())
		request.Header.Set("Authorization", a.header)
	}
	return a.link.RoundTrip(request)
}
