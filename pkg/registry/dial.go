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
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"
)

// scope is how far an address reaches.
type scope int

const (
	public scope = iota
	private
	loopback
	forbidden
)

func (s scope) String() string {
	return [...]string{"a public", "a private or reserved", "a loopback", "a link-local or metadata"}[s]
}

// forbiddenNetworks are never connected to: link-local addresses, and the
// addresses outside of them at which clouds serve instance metadata.
func forbiddenNetworks() []netip.Prefix {
	return networks(
		"169.254.0.0/16",
		"fe80::/10",
		"fd00:ec2::/32",      // AWS: metadata, identities of pods, DNS, time
		"fd00:42::42/128",    // Scaleway
		"fd20:ce::254/128",   // Google Cloud
		"168.63.129.16/32",   // Azure
		"100.100.100.200/32", // Alibaba Cloud
		"192.0.0.192/32",     // Oracle Cloud
	)
}

// reservedNetworks are those of IPv4, and within 2000::/3 of IPv6, that do not
// reach the Internet or reach an IPv4 address in a way that we do not follow
// (IANA special-purpose address registries).
func reservedNetworks() []netip.Prefix {
	return networks(
		"10.0.0.0/8",     // RFC 1918
		"100.64.0.0/10",  // RFC 6598, carrier-grade NAT
		"172.16.0.0/12",  // RFC 1918
		"192.0.0.0/24",   // RFC 6890, protocol assignments
		"192.88.99.0/24", // RFC 7526, relays of 6to4
		"192.168.0.0/16", // RFC 1918
		"198.18.0.0/15",  // RFC 2544, benchmarks
		"224.0.0.0/3",    // multicast, reserved, broadcast
		"2001::/23",      // RFC 2928, protocol assignments, with Teredo
		"2002::/16",      // RFC 3056, 6to4
		"3fff::/20",      // RFC 9637, documentation
	)
}

func networks(cidrs ...string) (all []netip.Prefix) {
	for _, cidr := range cidrs {
		all = append(all, netip.MustParsePrefix(cidr))
	}
	return all
}

func scopeOf(address netip.Addr) scope {
	address = plain(address)
	for _, one := range append(embedded(address), address) {
		if within(forbiddenNetworks(), one) {
			return forbidden
		}
	}
	switch {
	case address.IsLoopback(), address.IsUnspecified(), netip.MustParsePrefix("0.0.0.0/8").Contains(address):
		return loopback
	case address.Is6() && !netip.MustParsePrefix("2000::/3").Contains(address), within(reservedNetworks(), address):
		return private
	default:
		return public
	}
}

func within(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}

// plain returns the one form of an address: without a zone, and IPv4 for an IPv6
// address that is mapped (RFC 4291) or translated by the NAT64 of the Internet
// (RFC 6052), which reaches public IPv4 addresses.
func plain(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if netip.MustParsePrefix("64:ff9b::/96").Contains(address) {
		bytes := address.As16()
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return address
}

// embedded returns the IPv4 addresses that a translator or tunnel may take from
// an IPv6 address. A translator of one's own chooses the place (RFC 6052 section 2.2).
func embedded(address netip.Addr) []netip.Addr {
	b := address.As16()
	at := func(places ...int) netip.Addr {
		return netip.AddrFrom4([4]byte{b[places[0]], b[places[1]], b[places[2]], b[places[3]]})
	}
	switch {
	case netip.MustParsePrefix("::/64").Contains(address): // compatible (RFC 4291) or translated (RFC 2765)
		return []netip.Addr{at(12, 13, 14, 15)}
	case netip.MustParsePrefix("64:ff9b:1::/48").Contains(address): // NAT64 of one's own (RFC 8215)
		return []netip.Addr{at(6, 7, 9, 10), at(7, 9, 10, 11), at(9, 10, 11, 12), at(12, 13, 14, 15)}
	case netip.MustParsePrefix("2002::/16").Contains(address): // 6to4 (RFC 3056)
		return []netip.Addr{at(2, 3, 4, 5)}
	default:
		return nil
	}
}

// dialer opens the connections of one link. It judges the address that is
// connected to, not the name, so that what a name resolves to cannot change in
// between. A registry may itself be at a private or loopback address, because a
// person named it. A server may lead to public addresses, to those that the
// platform lists, and back to the one address that it answered from. What the DNS of
// the registry says opens no other: by its own name it leads to private addresses
// only from one, and to loopback only from there.
type dialer struct {
	host    string // of the registry, without the port; empty for a link to no registry
	allowed []netip.Prefix
	timeout time.Duration
	lookup  *net.Resolver
	// foreign tells that a tenant named the proxy, and not the platform.
	foreign bool

	mu      sync.Mutex
	proxies map[string]bool
}

// trip is why a request is sent and where it got to. It is a value of the
// request's context.
type trip struct {
	// cause is the trip whose answer led here; nil if no answer did.
	cause *trip
	// at is the address that answered, if it is not public and not a proxy's.
	at netip.Addr
}

type tripKey struct{}

// tripOf returns the trip of a request by its context; nil if there is none.
func tripOf(ctx context.Context) *trip {
	t, _ := ctx.Value(tripKey{}).(*trip)
	return t
}

// arrive notes where a connection leads. A request that is sent again arrives again,
// maybe elsewhere: only the last connection is the one that answered.
func (t *trip) arrive(connection net.Conn) {
	t.at = netip.Addr{}
	if end, err := netip.ParseAddrPort(connection.RemoteAddr().String()); err == nil && scopeOf(end.Addr()) != public {
		t.at = plain(end.Addr())
	}
}

// dial is the DialContext of a http.Transport.
func (d *dialer) dial(ctx context.Context, network, target string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	to := hop{host: host, target: target}
	if t := tripOf(ctx); t != nil {
		to.cause = t.cause
	}
	checked := net.Dialer{Timeout: d.timeout, KeepAlive: 30 * time.Second, Resolver: d.lookup}
	checked.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		return d.check(to, resolved)
	}
	connection, err := checked.DialContext(ctx, network, target)
	if err != nil || !d.isProxy(target) {
		return connection, err
	}
	// Nothing else ends the conversation with a SOCKS proxy once nobody waits for it.
	// The connection is good for this long, and from its first use on for any time.
	return connection, connection.SetDeadline(time.Now().Add(2 * d.timeout))
}

func (d *dialer) isProxy(target string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.proxies[target]
}

// hop is the use of a connection.
type hop struct {
	// host is the name, and target the name with its port.
	host, target string
	// cause is that of the trip.
	cause *trip
}

// check decides whether a hop may go to the address that its name resolved to.
func (d *dialer) check(to hop, resolved string) error {
	end, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	address, found, proxy := plain(end.Addr()), scopeOf(end.Addr()), d.isProxy(to.target)
	own := to.host == d.host && (to.cause == nil || scopeOf(to.cause.at) == found)
	back := to.cause != nil && to.cause.at == address
	switch {
	case found == public, proxy && !d.foreign:
		return nil
	case found != forbidden && (proxy || own || back || within(d.allowed, address)):
		return nil
	case found == forbidden:
		return refusef("refused to connect to %q at %s: it is %s address, which is never allowed", to.host, end.Addr(), found)
	}
	return refusef("refused to connect to %q at %s: it is %s address, and the server that leads there is not at it; "+
		"if that is intended, list its network in --registry-allowed-cidrs", to.host, end.Addr(), found)
}

// through returns the Proxy of a http.Transport and remembers the proxies that
// choose names: the check of addresses ends at them. So nothing else leads to them.
func (d *dialer) through(choose func(*url.URL) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(request *http.Request) (*url.URL, error) {
		proxy, err := choose(request.URL)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if proxy != nil {
			d.proxies[hostPort(proxy)] = true
		} else if d.proxies[hostPort(request.URL)] {
			return nil, refusef("refused to connect to %q: it is a proxy and no registry", request.URL.Host)
		}
		return proxy, nil
	}
}

// hostPort returns the host and port that a URL is served at.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func refusef(format string, args ...any) error {
	return &refused{words: fmt.Sprintf(format, args...)}
}

// refused is a request that was not sent, in words for a person.
type refused struct{ words string }

func (e *refused) Error() string { return e.words }
