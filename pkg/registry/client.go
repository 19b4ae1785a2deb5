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
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http/httpproxy"

	"github.com/image-source/image-source-controller/api/v1alpha1"
	"github.com/image-source/image-source-controller/pkg/fault"
	"github.com/image-source/image-source-controller/pkg/reference"
)

// Access decides what a caller may see at a registry. Its zero value is an
// anonymous caller with the system's trust roots.
type Access struct {
	// Auth is the credential; nil is anonymous. It is asked again whenever a
	// login is due, so it may be live, such as a cloud identity. One that
	// implements authn.ContextAuthenticator is given the context of the request.
	Auth authn.Authenticator
	// TLS holds trust roots and client certificates; nil is the system's roots.
	TLS *tls.Config
	// Proxy is asked for every connection; nil is what the process's
	// environment says (HTTPS_PROXY, HTTP_PROXY, NO_PROXY).
	Proxy *url.URL
	// Insecure allows plain HTTP where the registry speaks no TLS: where it answers
	// the first message of TLS with HTTP, or refuses the connection, or a proxy does
	// not tunnel to it. Any other failure of HTTPS, such as an untrusted
	// certificate, stays one. For names of
	// this host and RFC 1918 addresses the same is allowed to an access without
	// TLS; see name.Registry.Scheme of go-containerregistry.
	Insecure bool
	// Lent tells that Auth is not the caller's own but the platform's, such as the
	// identity of this process. It goes by HTTPS only, see Check.
	Lent bool
	// Fingerprint identifies credential, TLS material and proxy without
	// revealing them: callers with equal fingerprints see the same things. An
	// access without it that is not the anonymous one shares with nobody.
	Fingerprint string
	// Way identifies TLS material and proxy by the names under which they are kept,
	// such as those of Secrets and their namespace. It stays when their content
	// changes, and with it what must outlast that: that HTTPS was spoken there.
	Way string
}

// Check decides whether the access may send its credential. One that is lent goes
// to no proxy, certificate authority or plain HTTP connection that the caller chose:
// the caller may use it, and must not see it.
//
// Errors: InvalidSpec (stall).
func (a Access) Check() error {
	var chosen []string
	for _, way := range []struct {
		name  string
		taken bool
	}{
		{"insecure: true", a.Insecure}, {"certSecretRef", a.TLS != nil}, {"proxySecretRef", a.Proxy != nil},
	} {
		if way.taken {
			chosen = append(chosen, way.name)
		}
	}
	if !a.Lent || len(chosen) == 0 {
		return nil
	}
	return fault.Stallf(v1alpha1.ReasonInvalidSpec, "refused to use credentials of the platform together with %s: "+
		"they are sent only by HTTPS, with the certificate authorities and the proxy of the platform; "+
		"remove that, or name credentials of this namespace, by serviceAccountName or secretRef", strings.Join(chosen, ", "))
}

// Observation is one HTTP request that was sent, or that could not be.
type Observation struct {
	// Host is that of the registry, also when the request went to the host of
	// a login realm or of a redirect: registries must not choose labels. It is
	// empty for what went to no registry.
	Host string
	// Operation is ping, token, head-manifest, get-manifest, head-blob,
	// get-blob, get-referrers, revocation, or root.
	Operation string
	// Code is the HTTP status; 0 when there was no answer.
	Code int
	// Bytes counts what was read of the body.
	Bytes int64
	// Duration is the time until the body was closed.
	Duration time.Duration
}

// Hints say what helps, to whoever reads the errors of a client.
type Hints struct {
	// Authority is for a certificate of an authority that is not trusted.
	Authority string
	// Plain is for a registry that speaks plain HTTP only.
	Plain string
	// Certificate is for a registry that wants a client certificate.
	Certificate string
	// Proxy is for a proxy that wants a login.
	Proxy string
	// Credentials is for a registry that wants a login.
	Credentials string
}

func (h Hints) withDefaults() Hints {
	return Hints{
		Authority:   cmp.Or(h.Authority, "add the CA certificate as ca.crt to the Secret that certSecretRef names"),
		Plain:       cmp.Or(h.Plain, "set insecure: true if that is intended"),
		Certificate: cmp.Or(h.Certificate, "set tls.crt and tls.key in the Secret that certSecretRef names"),
		Proxy:       cmp.Or(h.Proxy, "check username and password in the Secret that proxySecretRef names"),
		Credentials: cmp.Or(h.Credentials, "check that secretRef or serviceAccountName gives credentials for this repository"),
	}
}

func (h Hints) all() []string {
	return []string{h.Authority, h.Plain, h.Certificate, h.Proxy, h.Credentials}
}

// Options configure a Client. A zero duration stands for its default.
type Options struct {
	// UserAgent is sent with each request.
	UserAgent string
	// AuthRealms are hosts, with an optional port, that may be sent the
	// credentials of any registry that names one as its login realm.
	AuthRealms []string
	// AllowedCIDRs are private or loopback networks that redirects and login
	// realms may lead to, beside the address of the server that leads there.
	// Link-local and metadata addresses are never allowed.
	AllowedCIDRs []netip.Prefix
	// Hints are what errors advise; those that are empty advise on the fields of
	// Flux's objects.
	Hints Hints
	// Observe is called after each HTTP request, concurrently; it may be nil.
	Observe func(Observation)

	// DialTimeout bounds a TCP connection, and again its TLS handshake. Default 10s.
	DialTimeout time.Duration
	// HeaderTimeout bounds the wait for the header of an answer. Default 30s.
	HeaderTimeout time.Duration
	// IdleTimeout bounds the time in which a body makes no progress. Default 30s.
	IdleTimeout time.Duration
	// SharedTimeout bounds a request whose answer several callers wait for:
	// ping, token, manifest. Each caller's own deadline holds besides. Default 60s.
	SharedTimeout time.Duration
	// ProofAge is how long an answer of HasBlob is believed. Default 10m.
	ProofAge time.Duration
	// ForgetAfter is how long connections, logins, tokens and proofs that nobody
	// uses are kept. Default 1h. Tags and manifests stay while there is room: that
	// is what makes the next look at a tag a HEAD, however long its interval.
	ForgetAfter time.Duration

	// Resolver looks up host names; nil is the system's.
	Resolver *net.Resolver
	// Clock tells the time; nil is time.Now.
	Clock func() time.Time
}

// Bounds of what is remembered. They hold the answers of some 10,000 sources.
const (
	maxLinks         = 256
	maxSecure        = 16384
	maxSessions      = 4096
	maxTokens        = 4096 // in each session
	maxUploads       = 64   // in each session
	maxTags          = 16384
	maxProofs        = 65536
	maxManifests     = 16384
	maxManifestBytes = 64 << 20
)

// Client is the way to all registries. A process has one, and it is safe for
// concurrent use.
type Client struct {
	options     Options
	environment func(*url.URL) (*url.URL, error)

	links *cache[accessKey, *link]
	// secure are the links, and the ways of accesses, by which a registry has given any
	// answer by HTTPS. They are many more than the links that are open, so that nobody
	// has one forgotten by opening others.
	secure    *cache[accessKey, struct{}]
	sessions  *cache[accessKey, *session]
	tags      *cache[tagKey, tagAnswer]
	manifests *cache[digestKey, *Manifest]
	proofs    *cache[digestKey, time.Time] // of blobs

	resolving sharing[tagFlight, *Manifest]
	fetching  sharing[digestKey, *Manifest]
	proving   sharing[digestKey, struct{}]
	reading   sharing[readKey, reply]
	lists     chan struct{} // see authorities

	unshared atomic.Uint64
	flights  atomic.Uint64
}

// accessKey is what decides what can be seen: answers are shared inside one only. One
// without a repository is a way to a registry.
type accessKey struct {
	host, repository, fingerprint string
	plain                         plainHTTP
}

func (k accessKey) ofRegistry() accessKey {
	k.repository = ""
	return k
}

// plainHTTP tells whether a registry may be asked by plain HTTP.
type plainHTTP int

const (
	never plainHTTP = iota
	// implied by an address on loopback or in a private network.
	implied
	// intended by whoever wrote the access.
	intended
)

type digestKey struct {
	access accessKey
	digest v1.Hash
}

// NewClient returns a client, or an error that names the option which is
// malformed or contradicts what is never allowed.
func NewClient(options Options) (*Client, error) {
	if err := options.prepare(); err != nil {
		return nil, err
	}
	forget, clock := options.ForgetAfter, options.Clock
	c := &Client{
		options:     options,
		lists:       make(chan struct{}, maxLists),
		environment: httpproxy.FromEnvironment().ProxyFunc(),
		secure:      newCache[accessKey](cacheOptions[struct{}]{entries: maxSecure, idle: forget, clock: clock}),
		sessions:    newCache[accessKey](cacheOptions[*session]{entries: maxSessions, idle: forget, clock: clock}),
		tags:        newCache[tagKey](cacheOptions[tagAnswer]{entries: maxTags, clock: clock}),
		manifests: newCache[digestKey](cacheOptions[*Manifest]{
			entries: maxManifests, clock: clock,
			weight: maxManifestBytes, weigh: func(m *Manifest) int64 { return int64(len(m.Body) + len(m.MediaType)) },
		}),
		proofs: newCache[digestKey](cacheOptions[time.Time]{entries: maxProofs, idle: forget, clock: clock}),
	}
	for _, timeout := range []*time.Duration{&c.resolving.timeout, &c.fetching.timeout, &c.proving.timeout, &c.reading.timeout} {
		*timeout = options.SharedTimeout
	}
	c.links = newCache[accessKey](cacheOptions[*link]{entries: maxLinks, idle: forget, clock: clock, dropped: c.forget})
	return c, nil
}

// forget ends the use of a link. Sessions by certificates or a proxy of somebody's own
// go with it: there are many more of them, and each would keep what the link is made of.
func (c *Client) forget(l *link) {
	l.closeIdle()
	if l.key.fingerprint != "" {
		c.sessions.remove(l.key)
	}
}

// prepare checks the options and sets the defaults of those that are not set.
func (o *Options) prepare() error {
	if !httpguts.ValidHeaderFieldValue(o.UserAgent) {
		return errors.New("the user agent must be printable text on one line")
	}
	for _, realm := range o.AuthRealms {
		if err := validateRealm(realm); err != nil {
			return err
		}
	}
	for _, prefix := range o.AllowedCIDRs {
		if err := validateAllowed(prefix); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		value *time.Duration
		unset time.Duration
	}{
		{&o.DialTimeout, 10 * time.Second},
		{&o.HeaderTimeout, 30 * time.Second},
		{&o.IdleTimeout, 30 * time.Second},
		{&o.SharedTimeout, time.Minute},
		{&o.ProofAge, 10 * time.Minute},
		{&o.ForgetAfter, time.Hour},
	} {
		if *d.value < 0 {
			return fmt.Errorf("a timeout is %s; it must not be negative", *d.value)
		}
		*d.value = cmp.Or(*d.value, d.unset)
	}
	o.UserAgent = cmp.Or(o.UserAgent, "image-source-controller")
	o.Hints = o.Hints.withDefaults()
	if o.Observe == nil {
		o.Observe = func(Observation) {}
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	return nil
}

func validateRealm(realm string) error {
	u, err := url.Parse("https://" + realm)
	if err != nil || u.Host != realm || u.Hostname() == "" || u.User != nil {
		return fmt.Errorf("registry-auth-realms: %q is not a host such as auth.example.com or auth.example.com:8443", realm)
	}
	return nil
}

// ParseNetworks reads networks in the notation of RFC 4632 and RFC 4291, such as
// 10.0.0.0/8, for Options.AllowedCIDRs. NewClient tells which of them may not be allowed.
func ParseNetworks(cidrs []string) ([]netip.Prefix, error) {
	var networks []netip.Prefix
	for _, cidr := range cidrs {
		network, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, err
		}
		networks = append(networks, network)
	}
	return networks, nil
}

func validateAllowed(prefix netip.Prefix) error {
	if !prefix.IsValid() {
		return errors.New("registry-allowed-cidrs: a network is malformed; write it as 10.0.0.0/8")
	}
	for _, never := range forbiddenNetworks() {
		if never.Bits() <= prefix.Bits() && never.Contains(prefix.Addr()) {
			return fmt.Errorf("registry-allowed-cidrs: %s is in %s, which is never allowed (link-local or metadata service)", prefix, never)
		}
	}
	return nil
}

// Repository returns the way to one repository with one access. It is cheap
// and makes no request; connections, logins and answers are shared with every
// other caller of the same access key.
//
// The registry is asked for the canonical name, see reference.Canonical. A
// repository that has no canonical name, and an access that Check refuses, answer
// everything with InvalidSpec (stall).
func (c *Client) Repository(repo name.Repository, access Access) *Repository {
	canonical, err := reference.Parse(repo.Name())
	if err != nil {
		err = fault.Stallf(v1alpha1.ReasonInvalidSpec, "%s is not the name of a repository: %w", fault.Quote(repo.Name()), err)
	}
	key := accessKey{
		host:        canonical.RegistryStr(),
		repository:  canonical.RepositoryStr(),
		fingerprint: c.fingerprint(access),
		plain:       plainOf(repo.Registry, access),
	}
	link := c.link(key, access)
	session := c.sessions.getOrPut(key.ofRegistry(), func() *session { return newSession(c, link) })
	auth := access.Auth
	if auth == nil {
		auth = authn.Anonymous
	}
	return &Repository{client: c, name: canonical.Name(), invalid: cmp.Or(err, access.Check()), access: key, session: session, auth: auth, scope: rightTo(key.repository, "pull"), registry: registryOf(key, access), way: wayOf(key, access)}
}

func (c *Client) link(key accessKey, access Access) *link {
	key = key.ofRegistry()
	if access.TLS == nil && access.Proxy == nil {
		key.fingerprint = "" // all who reach the registry as everybody does have one link
	}
	return c.links.getOrPut(key, func() *link { return newLink(c, key, access) })
}

// wayOf identifies how an access reaches a registry, whatever the content of its
// Secrets is now. It has no material where that has no name, or where there is none.
func wayOf(key accessKey, access Access) accessKey {
	key = key.ofRegistry()
	key.fingerprint = ""
	if access.Way != "" && (access.TLS != nil || access.Proxy != nil) {
		key.fingerprint = "named " + access.Way
	}
	return key
}

func plainOf(registry name.Registry, access Access) plainHTTP {
	switch {
	case access.Lent:
		return never
	case access.Insecure:
		return intended
	case registry.Scheme() == "http" && access.TLS == nil: // who brings certificates expects TLS
		return implied
	default:
		return never
	}
}

// registryOf identifies who answers, see Repository.Registry.
func registryOf(key accessKey, access Access) string {
	if access.TLS != nil || access.Proxy != nil || key.plain == intended {
		return key.ofRegistry().String()
	}
	return key.host
}

// fingerprint returns that of the access, or one that nobody else has.
func (c *Client) fingerprint(access Access) string {
	if access.Fingerprint != "" {
		return "shared " + access.Fingerprint
	}
	if access.Auth == nil && access.TLS == nil && access.Proxy == nil {
		return "anonymous"
	}
	return "unshared " + strconv.FormatUint(c.unshared.Add(1), 10)
}

// String identifies the key without telling what is in it.
func (k accessKey) String() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d", k.host, k.repository, k.fingerprint, k.plain))
	return hex.EncodeToString(sum[:])
}

type tagKey struct {
	access accessKey
	tag    string
}

type tagAnswer struct {
	digest v1.Hash
	asked  time.Time
	// noHead is until when the registry is not asked by HEAD, because it does not
	// support that.
	noHead time.Time
}

type tagFlight struct {
	tagKey
	fresh uint64 // a number of its own for a fresh query, else 0
}

// rightTo returns the scope of a login for some actions in a repository.
func rightTo(repository, actions string) string { return "repository:" + repository + ":" + actions }

// maxLists is how many lists of a certificate authority may be read at a time. Decoded, a
// list of small entries takes ten times its bytes, and forty on the way there.
const maxLists = 2
