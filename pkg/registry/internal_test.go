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
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/google/go-containerregistry/pkg/name"
	. "github.com/onsi/gomega"
)

func TestWhichAddressesARegistryMayLeadTo(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("127.9.0.0/16")}
	for _, tc := range []struct {
		name, registry, other string // registry is where the answer came from
		want                  bool
	}{
		{"public to public", "203.0.113.1", "198.51.100.1", true},
		{"public to private", "203.0.113.1", "10.0.0.1", false},
		{"public to a private network that is listed", "203.0.113.1", "10.5.0.1", true},
		{"public to a mapped address in it", "203.0.113.1", "::ffff:10.5.0.1", true},
		{"public to a loopback network that is listed", "203.0.113.1", "127.9.0.1", true},
		{"public to loopback", "203.0.113.1", "127.0.0.1", false},
		{"public to IPv6 loopback", "203.0.113.1", "::1", false},
		{"public to unspecified", "203.0.113.1", "0.0.0.0", false},
		{"public to IPv6 unspecified", "203.0.113.1", "::", false},
		{"public to this network", "203.0.113.1", "0.1.2.3", false},
		{"public to unique local", "203.0.113.1", "fd12::1", false},
		{"public to shared", "203.0.113.1", "100.64.0.1", false},
		{"public to mapped private", "203.0.113.1", "::ffff:192.168.1.1", false},
		{"public to translated private", "203.0.113.1", "64:ff9b::a00:1", false},
		{"private to itself", "10.0.0.1", "10.0.0.1", true},
		{"private to itself, mapped", "10.0.0.1", "::ffff:10.0.0.1", true},
		{"unique local to itself", "fd12::1", "fd12::1", true},
		{"private to its neighbour", "10.0.0.1", "10.0.0.2", false},
		{"private to another network", "10.0.0.1", "192.168.1.1", false},
		{"private to a private network that is listed", "10.0.0.1", "10.5.0.1", true},
		{"private to shared", "10.0.0.1", "100.64.0.1", false},
		{"private to loopback", "10.0.0.1", "127.0.0.1", false},
		{"loopback to itself", "127.0.0.1", "127.0.0.1", true},
		{"loopback to another loopback", "127.0.0.1", "127.0.0.2", false},
		{"loopback to private", "127.0.0.1", "10.0.0.1", false},
		{"public to translated public", "203.0.113.1", "64:ff9b::808:808", true},
		{"public to IPv6", "203.0.113.1", "2606:4700::1", true},
		{"public to a zone", "203.0.113.1", "fd12::1%eth0", false},
		{"public to translated private by a translator of one's own", "203.0.113.1", "64:ff9b:1::a00:1", false},
		{"public to translated public by a translator of one's own", "203.0.113.1", "64:ff9b:1::808:808", false},
		{"public to metadata by a translator of one's own", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", false},
		{"public to metadata by a translator with a /48 of its own", "203.0.113.1", "64:ff9b:1:a9fe:a9:fe00::", false},
		{"public to tunnelled private", "203.0.113.1", "2002:a00:1::1", false},
		{"public to tunnelled public", "203.0.113.1", "2002:808:808::1", false},
		{"public to compatible private", "203.0.113.1", "::10.0.0.1", false},
		{"public to compatible public", "203.0.113.1", "::8.8.8.8", false},
		{"public to translated loopback", "203.0.113.1", "::ffff:0:127.0.0.1", false},
		{"public to Teredo", "203.0.113.1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", false},
		{"public to site-local", "203.0.113.1", "fec0::1", false},
		{"public to multicast", "203.0.113.1", "224.0.0.251", false},
		{"public to IPv6 multicast", "203.0.113.1", "ff02::1", false},
		{"public to broadcast", "203.0.113.1", "255.255.255.255", false},
		{"public to reserved", "203.0.113.1", "240.0.0.1", false},
		{"public to protocol assignments", "203.0.113.1", "192.0.0.8", false},
		{"public to benchmarks", "203.0.113.1", "198.19.0.1", false},
		{"public to discard", "203.0.113.1", "100::1", false},
		{"private to metadata", "10.0.0.1", "169.254.169.254", false},
		{"loopback to link-local", "127.0.0.1", "fe80::1%eth0", false},
		{"private to metadata of AWS", "fd12::1", "fd00:ec2::254", false},
		{"shared to metadata of Alibaba", "100.64.0.1", "100.100.100.200", false},
		{"public to translated metadata", "203.0.113.1", "64:ff9b::a9fe:a9fe", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			d := &dialer{host: "registry.example.com", allowed: allowed, proxies: map[string]bool{}}
			at := func(address string) string { return netip.AddrPortFrom(netip.MustParseAddr(address), 443).String() }
			other := hop{host: "other.example.com", target: "other.example.com:443"}
			other.cause = cameFrom(tc.registry)
			g.Expect(d.check(other, at(tc.other)) == nil).To(Equal(tc.want))
		})
	}
}

// cameFrom returns the trip of an answer from an address.
func cameFrom(address string) *trip {
	if from := netip.MustParseAddr(address); scopeOf(from) != public {
		return &trip{at: from}
	}
	return &trip{}
}

// TestTheNameOfARegistryLeadsNoFurtherThanItself holds that a name whose DNS changes
// between an answer and what it leads to opens nothing.
func TestTheNameOfARegistryLeadsNoFurtherThanItself(t *testing.T) {
	for _, tc := range []struct {
		name, registry, resolved string
		want                     bool
	}{
		{"public to private", "203.0.113.1", "10.0.0.1", false},
		{"public to loopback", "203.0.113.1", "127.0.0.1", false},
		{"public to public", "203.0.113.1", "198.51.100.1", true},
		{"private to loopback", "10.0.0.1", "127.0.0.1", false},
		{"private to metadata", "10.0.0.1", "169.254.169.254", false},
		{"private to another address of its own", "10.0.0.1", "10.0.0.2", true},
		{"loopback to private", "127.0.0.1", "10.0.0.1", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &dialer{host: "r"}
			to := hop{host: "r", target: "r:443", cause: cameFrom(tc.registry)}
			NewWithT(t).Expect(d.check(to, net.JoinHostPort(tc.resolved, "443")) == nil).To(Equal(tc.want))
		})
	}
}

func TestARegistryItselfMayBePrivateButNotLinkLocal(t *testing.T) {
	registry := hop{host: "r", target: "r:443"}
	d := &dialer{host: "r"}
	for _, own := range []string{"10.0.0.1", "127.0.0.1", "::1", "fd12::1"} {
		NewWithT(t).Expect(d.check(registry, net.JoinHostPort(own, "443"))).To(Succeed(), own)
	}
	for _, never := range []string{
		"169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254",
		"::ffff:0:169.254.169.254", "fe80::1", "fe80::1%eth0", "168.63.129.16", "64:ff9b:1::a83f:8110",
		"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42",
	} {
		NewWithT(t).Expect(d.check(registry, net.JoinHostPort(never, "443"))).NotTo(Succeed(), never)
	}
}

func TestAProxyOfThePlatformMayBeAnywhereAndOneOfATenantNotLinkLocal(t *testing.T) {
	g := NewWithT(t)
	linkLocal, private := hop{host: "169.254.1.1", target: "169.254.1.1:3128"}, hop{host: "10.0.0.3", target: "10.0.0.3:3128"}
	d := &dialer{host: "r", proxies: map[string]bool{linkLocal.target: true, private.target: true}}
	g.Expect(d.check(linkLocal, linkLocal.target)).To(Succeed())
	d.foreign = true
	g.Expect(d.check(private, private.target)).To(Succeed())
	g.Expect(d.check(linkLocal, linkLocal.target)).NotTo(Succeed())
}

func TestChallenges(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		want       []challenge
	}{
		{"one", `Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"`, []challenge{{scheme: "bearer", realm: "https://a/token", service: "s"}}},
		{"two", `Negotiate, Basic realm="x, y"`, []challenge{{scheme: "negotiate"}, {scheme: "basic", realm: "x, y"}}},
		{"escapes", `Basic realm="a\"b\\"`, []challenge{{scheme: "basic", realm: `a"b\`}}},
		{"without quotes", `Bearer realm=https://a/token, service=s`, []challenge{{scheme: "bearer", realm: "https://a/token", service: "s"}}},
		{"spaces", `bearer  realm = "a" , SERVICE = "s"`, []challenge{{scheme: "bearer", realm: "a", service: "s"}}},
		{"an open quote", `Bearer realm="a`, []challenge{{scheme: "bearer", realm: "a"}}},
		{"a parameter of nothing", `realm="a"`, nil},
		{"an open escape", `Bearer realm="a\`, []challenge{{scheme: "bearer", realm: "a"}}},
		{"nothing", ``, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			NewWithT(t).Expect(parseChallenges(tc.line)).To(Equal(tc.want))
		})
	}
}

func TestALongChallengeIsNotRemembered(t *testing.T) {
	g := NewWithT(t)
	answer := func(challenges ...string) *http.Response {
		return &http.Response{Header: http.Header{"Www-Authenticate": challenges}, Request: httptest.NewRequest(http.MethodGet, "/v2/", http.NoBody)}
	}
	long := strings.Repeat("x", maxChallengeBytes)
	g.Expect(challengeOf(answer(`Bearer realm="https://a/`+long+`"`, `Bearer realm="https://b"`)).realm).To(Equal("https://b")) //nolint:bodyclose // it has none
	g.Expect(challengeOf(answer(`Basic realm="` + long + `"`))).To(Equal(challenge{scheme: "basic"}))                           //nolint:bodyclose // it has none
}

// The end of what is repeated, wherever it falls, leaves no half of a secret.
func TestNoPartOfASecretIsTold(t *testing.T) {
	const known, odd = "correct horse battery", "hunter2  hunter2?\t"
	for before := range 300 {
		for _, secret := range []string{
			known, odd, "correct\x00 horse\u200b  battery", "Bearer hunter2hunter2", "https://hunter2:hunter2@host/path", "/path?sig=hunter2",
			"token=\nhunter2", strings.Repeat("hunter2", 10),
		} {
			said := clean(strings.Repeat(".", before)+" "+secret+" and more", known, odd)
			if strings.Contains(said, "hunt") || strings.Contains(said, "corr") {
				t.Errorf("after %d bytes, %q is told as %q", before, secret, said)
			}
		}
	}
}

func FuzzChallenges(f *testing.F) {
	f.Add(`Bearer realm="https://a/token",service="s", Basic realm=x`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, c := range parseChallenges(line) {
			if c.scheme == "" {
				t.Fatalf("a challenge without a scheme in %q", line)
			}
		}
	})
}

func TestACacheIsBounded(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	var dropped []string
	c := newCache[string](cacheOptions[string]{
		entries: 3, weight: 10, weigh: func(s string) int64 { return int64(len(s)) }, idle: time.Minute,
		dropped: func(s string) { dropped = append(dropped, s) }, clock: func() time.Time { return now },
	})
	for _, s := range []string{"a", "b", "c"} {
		c.put(s, s)
	}
	_, ok := c.get("a")
	g.Expect(ok).To(BeTrue())
	c.put("d", "d")
	g.Expect(dropped).To(Equal([]string{"b"}), "the least recently used goes first")
	c.put("long", strings.Repeat("x", 9))
	g.Expect(dropped).To(Equal([]string{"b", "c", "a"}), "and as many as the weight asks for")
	c.put("too long", strings.Repeat("x", 11))
	_, ok = c.get("too long")
	g.Expect(ok).To(BeFalse())
	c.put("e", "e")
	now = now.Add(2 * time.Minute)
	_, ok = c.get("e")
	g.Expect(ok).To(BeFalse(), "nobody used it for a while")
	g.Expect(c.total).To(BeZero())
}

func TestALinkThatNobodyUsesIsForgotten(t *testing.T) {
	g := NewWithT(t)
	now := time.Now()
	client, err := NewClient(Options{ForgetAfter: time.Minute, Clock: func() time.Time { return now }})
	g.Expect(err).NotTo(HaveOccurred())
	for _, host := range []string{"a.example.com", "b.example.com"} {
		client.links.getOrPut(accessKey{host: host}, func() *link { return newLink(client, accessKey{host: host}, Access{}) })
		now = now.Add(40 * time.Second)
	}
	_, ok := client.links.get(accessKey{host: "a.example.com"})
	g.Expect(ok).To(BeFalse())
	_, ok = client.links.get(accessKey{host: "b.example.com"})
	g.Expect(ok).To(BeTrue())
}

// A request may be given several connections, one after the other. What the last of
// them leads to is where its answer came from.
func TestOnlyTheConnectionThatAnswersIsTheWay(t *testing.T) {
	for _, tc := range []struct {
		name        string
		connections []string
		want        netip.Addr
	}{
		{"private", []string{"10.0.0.1:443"}, netip.MustParseAddr("10.0.0.1")},
		{"public after one of the registry's own that broke", []string{"10.0.0.1:443", "203.0.113.1:443"}, netip.Addr{}},
		{"public after one that is refused", []string{"127.0.0.1:443", "203.0.113.1:443"}, netip.Addr{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			client, err := NewClient(Options{})
			g.Expect(err).NotTo(HaveOccurred())
			l := newLink(client, accessKey{host: "r"}, Access{})
			way := &trip{cause: cameFrom("10.0.0.1")}
			request := httptest.NewRequest(http.MethodGet, "https://r/", http.NoBody)
			trace := httptrace.ContextClientTrace(l.follow(t.Context(), request, way))
			for _, address := range tc.connections {
				trace.GotConn(httptrace.GotConnInfo{Conn: connection{to: netip.MustParseAddrPort(address)}, Reused: true})
			}
			g.Expect(way.at).To(Equal(tc.want))
		})
	}
}

// connection is one to an address.
type connection struct {
	net.Conn
	to netip.AddrPort
}

func (c connection) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.to) }
func (connection) Close() error           { return nil }

// TestCertificatesAreKeptForFewLinks holds that a tenant who changes its certificates
// all the time does not have all of them kept.
func TestCertificatesAreKeptForFewLinks(t *testing.T) {
	g := NewWithT(t)
	client, err := NewClient(Options{})
	g.Expect(err).NotTo(HaveOccurred())
	repository, err := name.NewRepository("registry.example.com/app")
	g.Expect(err).NotTo(HaveOccurred())
	var pools []weak.Pointer[x509.CertPool]
	for i := range 4 * maxLinks {
		pool := x509.NewCertPool()
		pools = append(pools, weak.Make(pool))
		client.Repository(repository, Access{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, Fingerprint: strconv.Itoa(i)})
	}
	runtime.GC()
	kept := slices.DeleteFunc(pools, func(p weak.Pointer[x509.CertPool]) bool { return p.Value() == nil })
	g.Expect(len(kept)).To(BeNumerically("<=", maxLinks))
	runtime.KeepAlive(client)
}
