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
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"
)

// maxRedirects is how often an answer may lead somewhere else.
const maxRedirects = 5

// errStalled is the cause of a body that made no progress.
var errStalled = errors.New("the answer made no progress")

// link is the guarded connection to one registry: every request for it, to
// whatever host it leads, passes RoundTrip. It knows no credential, but sees to
// it that one goes only where it may.
//
// Links are not shared between registries, because a connection that one
// registry may use, such as to its private storage, another may not.
type link struct {
	client    *Client
	key       accessKey // without a repository
	transport *http.Transport
	dialer    *dialer
	// proxySecret is the password of the proxy, to keep it out of errors.
	proxySecret string
}

func newLink(c *Client, key accessKey, access Access) *link {
	options := c.options
	registry := &url.URL{Scheme: "https", Host: key.host}
	d := &dialer{
		host: registry.Hostname(), allowed: options.AllowedCIDRs, timeout: options.DialTimeout,
		lookup: options.Resolver, foreign: access.Proxy != nil, proxies: map[string]bool{},
	}
	choose, proxySecret := c.environment, ""
	if access.Proxy != nil {
		choose = func(*url.URL) (*url.URL, error) { return access.Proxy, nil }
		proxySecret, _ = access.Proxy.User.Password()
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if access.TLS != nil {
		trust = access.TLS.Clone()
	}
	return &link{client: c, key: key, proxySecret: proxySecret, dialer: d, transport: &http.Transport{
		Proxy:                  d.through(choose),
		OnProxyConnectResponse: checkProxy,
		DialContext:            d.dial,
		TLSClientConfig:        trust,
		TLSHandshakeTimeout:    options.DialTimeout,
		ResponseHeaderTimeout:  options.HeaderTimeout,
		ForceAttemptHTTP2:      true,
		// What is hashed must be what was sent, and what is bounded must not inflate.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: options.IdleTimeout, PingTimeout: options.DialTimeout},
	}}
}

func (l *link) closeIdle() { l.transport.CloseIdleConnections() }

// proxyAnswer is a status other than 200 with which a proxy answered CONNECT.
type proxyAnswer struct{ code int }

func (e *proxyAnswer) Error() string { return fmt.Sprintf("the proxy answered %s", status(e.code)) }

func checkProxy(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode != http.StatusOK {
		return &proxyAnswer{code: answer.StatusCode}
	}
	return nil
}

// RoundTrip implements http.RoundTripper. It refuses requests that a redirect
// or realm must not cause, and sends the others.
func (l *link) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := l.judge(request); err != nil {
		return nil, err
	}
	return l.send(request, operation(request))
}

// sendWithout sends a request of one of some methods without credentials. Errors call
// the server that it is for by a name.
func (l *link) sendWithout(request *http.Request, operation, server string, methods ...string) (*http.Response, error) {
	if err := l.judgeScheme(request); err != nil {
		return nil, err
	}
	if !slices.Contains(methods, request.Method) {
		return nil, refusef("refused to send %s to %s", request.Method, server)
	}
	request = request.Clone(request.Context())
	request.Header.Del("Authorization")
	return l.send(request, operation)
}

// send sends a request that was judged, observes it as the operation, and gives
// up on bodies that stall.
func (l *link) send(request *http.Request, operation string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	way := &trip{cause: cause(request)}
	request = request.Clone(l.follow(context.WithValue(ctx, tripKey{}, way), request, way))
	request.Header.Set("User-Agent", l.client.options.UserAgent)
	request.Header.Del("Referer") // of a redirect: may carry a signed URL

	started := l.client.options.Clock()
	observe := func(code int, bytes int64) {
		l.client.options.Observe(Observation{
			Host: l.key.host, Operation: operation, Code: code, Bytes: bytes,
			Duration: l.client.options.Clock().Sub(started),
		})
	}
	answer, err := l.transport.RoundTrip(request)
	if err == nil && answer.StatusCode == http.StatusSwitchingProtocols {
		// Its body is the connection itself, which no end of a context closes.
		_ = answer.Body.Close()
		err = refusef("the answer is %s, which was not asked for", status(answer.StatusCode))
	}
	if err != nil {
		cancel(err)
		observe(0, 0)
		return nil, err
	}
	if request.URL.Scheme == "https" && request.URL.Host == l.key.host {
		l.client.secure.put(l.key, struct{}{})
	}
	answer.Body = newBody(ctx, answer.Body, bodyOptions{
		idle: l.client.options.IdleTimeout, cancel: cancel,
		closed: func(bytes int64) { observe(answer.StatusCode, bytes) },
	})
	return answer, nil
}

// follow has the way of a request noted, unless it leads to a proxy. A connection
// that was opened for a request with more rights is closed before this one is
// written to it, and is no part of the way; net/http then dials anew, and the dialer
// refuses.
func (l *link) follow(ctx context.Context, request *http.Request, way *trip) context.Context {
	proxy, err := l.transport.Proxy(request)
	to := hop{host: request.URL.Hostname(), target: hostPort(request.URL), cause: way.cause}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		switch {
		case proxy != nil || err != nil:
			_ = info.Conn.SetDeadline(time.Time{}) // that of dial; a connection for which this fails is closed
		case l.dialer.check(to, info.Conn.RemoteAddr().String()) != nil:
			_ = info.Conn.Close() // what is written next fails, which is all that is wanted
		default:
			way.arrive(info.Conn)
		}
	}})
}

// cause returns the trip whose answer caused a request, that of a redirect or the
// challenge that names a realm; nil if nobody but us did.
func cause(request *http.Request) *trip {
	if previous := redirectedFrom(request); previous != nil {
		return tripOf(previous.Context()) //nolint:contextcheck // its answer is the subject
	}
	return tripOf(request.Context())
}

// judge decides whether a request may be sent.
func (l *link) judge(request *http.Request) error {
	if err := l.judgeScheme(request); err != nil {
		return err
	}
	secret := request.Header.Get("Authorization") != "" || request.Method == http.MethodPost
	if previous := redirectedFrom(request); secret && previous != nil && !sameOrigin(previous.URL, request.URL) {
		return refusef("refused a redirect to %q: it would carry credentials to another host", request.URL.Host)
	}
	if secret {
		return l.mayLogin(request.URL)
	}
	return nil
}

func (l *link) judgeScheme(request *http.Request) error {
	hops := 0
	for previous := redirectedFrom(request); previous != nil; previous = redirectedFrom(previous) {
		if hops++; hops > maxRedirects {
			return refusef("refused to follow more than %d redirects", maxRedirects)
		}
		if hops == 1 && previous.URL.Scheme == "https" && request.URL.Scheme != "https" {
			return refusef("refused a redirect from https to %s at %q", request.URL.Scheme, request.URL.Host)
		}
	}
	switch {
	case request.URL.Scheme == "https", request.URL.Scheme == "http" && l.key.plain != never:
		return nil
	default:
		return refusef("refused to connect to %q by %s: only https is allowed", request.URL.Host, request.URL.Scheme)
	}
}

// mayLogin decides whether credentials of the registry may be sent to a URL:
// to the registry's host, to an https host of the same registrable domain, and
// to the realms that the platform lists.
func (l *link) mayLogin(u *url.URL) error {
	asked, own := u.Hostname(), (&url.URL{Host: l.key.host}).Hostname()
	switch {
	case u.Scheme != "https" && l.key.plain == never, u.Scheme != "https" && asked != own:
		return refusef("refused to send credentials to the login realm at %q without https", u.Host)
	case asked == own, sameDomain(asked, own), l.client.listsRealm(u):
		return nil
	}
	return refusef("refused to send credentials to the login realm at %q: it is neither at the registry's host nor in its domain; "+
		"if that host is trusted, list it in --registry-auth-realms", u.Host)
}

func (c *Client) listsRealm(u *url.URL) bool {
	return slices.ContainsFunc(c.options.AuthRealms, func(realm string) bool {
		return sameOrigin(u, &url.URL{Scheme: "https", Host: strings.ToLower(realm)})
	})
}

// sameOrigin follows RFC 6454 section 5.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

// sameDomain tells whether two host names belong to one owner by the public
// suffix list. Names below a suffix that nobody registered there, such as
// those of a cluster, tell nothing about owners.
func sameDomain(a, b string) bool {
	first, second := registrable(a), registrable(b)
	return first != "" && first == second
}

func registrable(host string) string {
	if net.ParseIP(host) != nil {
		return ""
	}
	host = strings.ToLower(host)
	suffix, icann := publicsuffix.PublicSuffix(host)
	if !icann && !strings.Contains(suffix, ".") {
		return ""
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return ""
	}
	return domain
}

// redirectedFrom returns the request whose answer caused this one; nil when
// nobody but us did.
func redirectedFrom(request *http.Request) *http.Request {
	if request.Response == nil {
		return nil
	}
	return request.Response.Request
}

// original returns the request that began it all.
func original(request *http.Request) *http.Request {
	for previous := redirectedFrom(request); previous != nil; previous = redirectedFrom(request) {
		request = previous
	}
	return request
}

// operation names the purpose of the first request.
func operation(request *http.Request) string {
	path := strings.Split(original(request).URL.Path, "/")
	if len(path) < 3 || path[1] != "v2" {
		return "token"
	}
	if len(path) == 3 && path[2] == "" {
		return "ping"
	}
	kind, ok := map[string]string{"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}[path[len(path)-2]]
	if !ok {
		return "token"
	}
	return strings.ToLower(request.Method) + "-" + kind
}

// body is the body of an answer: it counts, and it cancels its request when a
// read makes no progress for the idle time.
type body struct {
	io.ReadCloser
	bodyOptions
	ctx   context.Context //nolint:containedctx // a body has no other way to know why it was cut
	timer *time.Timer
	bytes int64
	once  sync.Once
}

type bodyOptions struct {
	idle   time.Duration
	cancel context.CancelCauseFunc
	closed func(bytes int64)
}

func newBody(ctx context.Context, inner io.ReadCloser, options bodyOptions) *body {
	timer := time.AfterFunc(options.idle, func() { options.cancel(errStalled) })
	timer.Stop()
	return &body{ReadCloser: inner, bodyOptions: options, ctx: ctx, timer: timer}
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(b.idle)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.bytes += int64(n)
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

// Close implements io.Closer.
func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() {
		b.cancel(nil)
		b.closed(b.bytes)
	})
	return err
}
