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
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

func TestWhichAddressesARegistryMayLeadTo(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("127.9.0.0/16")}
	for _, tc := range []struct {
		name, registry, other string
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
		{"private to private", "10.0.0.1", "192.168.1.1", true},
		{"private to shared", "10.0.0.1", "100.64.0.1", true},
		{"private to loopback", "10.0.0.1", "127.0.0.1", false},
		{"loopback to loopback", "127.0.0.1", "127.0.0.2", true},
		{"loopback to private", "127.0.0.1", "10.0.0.1", false},
		{"private to metadata", "10.0.0.1", "169.254.169.254", false},
		{"loopback to link-local", "127.0.0.1", "fe80::1%eth0", false},
		{"private to metadata of AWS", "fd12::1", "fd00:ec2::254", false},
		{"shared to metadata of Alibaba", "100.64.0.1", "100.100.100.200", false},
		{"public to translated metadata", "203.0.113.1", "64:ff9b::a9fe:a9fe", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := NewWithT(t)
			d := &dialer{host: "registry.example.com", allowed: allowed, own: map[scope]bool{}, proxies: map[string]bool{}}
			at := func(address string) string { return netip.AddrPortFrom(netip.MustParseAddr(address), 443).String() }
			g.Expect(d.check("registry.example.com", "registry.example.com:443", at(tc.registry))).To(Succeed())
			err := d.check("other.example.com", "other.example.com:443", at(tc.other))
			g.Expect(err == nil).To(Equal(tc.want))
		})
	}
}

func TestARegistryItselfMayBePrivateButNotLinkLocal(t *testing.T) {
	g := NewWithT(t)
	d := &dialer{host: "r", own: map[scope]bool{}, proxies: map[string]bool{"169.254.1.1:3128": true}}
	g.Expect(d.check("r", "r:443", "10.0.0.1:443")).To(Succeed())
	g.Expect(d.check("r", "r:443", "169.254.169.254:443")).NotTo(Succeed())
	g.Expect(d.check("169.254.1.1", "169.254.1.1:3128", "169.254.1.1:3128")).To(Succeed(), "a proxy of the platform")
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
		client.links.getOrPut(linkKey{host: host}, func() *link { return newLink(client, accessKey{host: host}, Access{}) })
		now = now.Add(40 * time.Second)
	}
	_, ok := client.links.get(linkKey{host: "a.example.com"})
	g.Expect(ok).To(BeFalse())
	_, ok = client.links.get(linkKey{host: "b.example.com"})
	g.Expect(ok).To(BeTrue())
}
