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
	"sync"
	"syscall"
	"time"
)

// scope is how far an address reaches, and so who may lead us to it.
type scope int

const (
	public scope = iota
	private
	loopback
	forbidden
)

func (s scope) String() string {
	return [...]string{"a public", "a private", "a loopback", "a link-local or metadata"}[s]
}

// forbiddenNetworks are never connected to: link-local addresses, and the
// addresses outside of them at which clouds serve instance metadata.
func forbiddenNetworks() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("fe80::/10"),
		netip.MustParsePrefix("fd00:ec2::254/128"),  // AWS
		netip.MustParsePrefix("fd20:ce::254/128"),   // Google Cloud
		netip.MustParsePrefix("168.63.129.16/32"),   // Azure
		netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
		netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	}
}

func scopeOf(address netip.Addr) scope {
	address = embedded(address)
	for _, network := range forbiddenNetworks() {
		if network.Contains(address) {
			return forbidden
		}
	}
	switch {
	case address.IsLoopback(), address.IsUnspecified(), netip.MustParsePrefix("0.0.0.0/8").Contains(address):
		return loopback
	case address.IsPrivate(), netip.MustParsePrefix("100.64.0.0/10").Contains(address): // RFC 1918, RFC 4193, RFC 6598
		return private
	default:
		return public
	}
}

// embedded returns the IPv4 address that an IPv6 one stands for: mapped
// (RFC 4291) or translated by NAT64 (RFC 6052).
func embedded(address netip.Addr) netip.Addr {
	address = address.Unmap().WithZone("")
	if netip.MustParsePrefix("64:ff9b::/96").Contains(address) {
		bytes := address.As16()
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return address
}

// dialer opens the connections of one link and refuses the addresses that the
// registry has no business to send us to. It judges the address that is
// connected to, not the name, so that what a name resolves to cannot change in
// between.
type dialer struct {
	host    string // of the registry, without the port
	allowed []netip.Prefix
	timeout time.Duration
	lookup  *net.Resolver

	mu      sync.Mutex
	own     map[scope]bool // where the registry itself turned out to be
	proxies map[string]bool
}

// refusedAddress is an address that is not connected to.
type refusedAddress struct {
	host    string
	address netip.Addr
	scope   scope
}

func (e *refusedAddress) Error() string {
	if e.scope == forbidden {
		return fmt.Sprintf("refused to connect to %q at %s: it is %s address, which is never allowed", e.host, e.address, e.scope)
	}
	return fmt.Sprintf("refused to connect to %q at %s: it is %s address and the registry itself is not at one; "+
		"if that is intended, list its network in --registry-allowed-cidrs", e.host, e.address, e.scope)
}

// dial is the DialContext of a http.Transport.
func (d *dialer) dial(ctx context.Context, network, target string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	checked := net.Dialer{Timeout: d.timeout, KeepAlive: 30 * time.Second, Resolver: d.lookup}
	checked.ControlContext = func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		return d.check(host, target, resolved)
	}
	return checked.DialContext(ctx, network, target)
}

func (d *dialer) check(host, target, resolved string) error {
	end, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	found := scopeOf(end.Addr())
	switch {
	case found == public, d.proxies[target]:
		return nil
	case found == forbidden:
	case host == d.host:
		d.own[found] = true
		return nil
	case d.own[found], d.lists(end.Addr()):
		return nil
	}
	return &refusedAddress{host: host, address: end.Addr(), scope: found}
}

func (d *dialer) lists(address netip.Addr) bool {
	for _, network := range d.allowed {
		if network.Contains(embedded(address)) {
			return true
		}
	}
	return false
}

// through returns the Proxy of a http.Transport and remembers the proxies that
// choose names: the check of addresses ends at them.
func (d *dialer) through(choose func(*url.URL) (*url.URL, error)) func(*http.Request) (*url.URL, error) {
	return func(request *http.Request) (*url.URL, error) {
		proxy, err := choose(request.URL)
		if proxy == nil || err != nil {
			return nil, err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.proxies[hostPort(proxy)] = true
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
