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

package store

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/image-source/image-source-controller/pkg/flight"
)

const (
	// peersFor is how long the addresses of the replicas are believed, after a
	// lookup in vain too.
	peersFor = 2 * time.Second
	// lookupTime bounds a lookup of all hosts.
	lookupTime = time.Second
	// lookupPatience is how long a lookup is waited for by who could do with the
	// addresses that were found last: a name server that is well answers within it.
	lookupPatience = 100 * time.Millisecond
)

type hostPort struct {
	host string
	port uint16
}

func splitHostPort(address string) (hostPort, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return hostPort{}, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return hostPort{host: host, port: uint16(number)}, err
}

// directory knows where the other replicas are. All callers share one lookup.
type directory struct {
	hosts    []hostPort
	own      uint16 // the port of this replica's server
	resolver *net.Resolver

	mu    sync.Mutex
	known []netip.AddrPort
	until time.Time

	lookups flight.Group[struct{}, struct{}]
}

// addresses returns where the other replicas are. When that cannot be found out,
// or not soon, the addresses that were found last are as good as any. Without
// them, a lookup is waited for until ctx ends.
func (d *directory) addresses(ctx context.Context) []netip.AddrPort {
	known, current := d.last()
	if current {
		return known
	}
	looked := make(chan struct{})
	go func(ctx context.Context) { // the lookup ends with none of its callers
		defer close(looked)
		_, _, _ = d.lookups.Do(ctx, struct{}{}, d.renew)
	}(context.WithoutCancel(ctx))
	if len(known) > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookupPatience)
		defer cancel()
	}
	select {
	case <-looked:
		known, _ = d.last()
	case <-ctx.Done():
	}
	return known
}

// last returns the addresses that were found last, and whether they are still believed.
func (d *directory) last() (known []netip.AddrPort, current bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.known), time.Now().Before(d.until)
}

// renew looks the hosts up. What was known stays when none of them is found.
func (d *directory) renew(ctx context.Context) (struct{}, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	found, ok := d.find(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok {
		d.known = found
	}
	d.until = time.Now().Add(peersFor)
	return struct{}{}, nil
}

// find returns the addresses of all hosts but this replica's own, and whether
// there is any host at all.
func (d *directory) find(ctx context.Context) (found []netip.AddrPort, ok bool) {
	resolver := d.resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	for _, host := range d.hosts {
		addresses, err := resolver.LookupNetIP(ctx, "ip", host.host)
		if err != nil {
			continue
		}
		for _, address := range addresses {
			found = append(found, netip.AddrPortFrom(address.Unmap(), host.port))
		}
	}
	ok = len(found) > 0
	slices.SortFunc(found, netip.AddrPort.Compare)
	return slices.DeleteFunc(slices.Compact(found), d.isOwn), ok
}

// isOwn tells whether an address is this replica's own server. Were one taken
// for a peer by mistake, it would answer that it lacks the file.
func (d *directory) isOwn(peer netip.AddrPort) bool {
	if peer.Port() != d.own {
		return false
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(address net.Addr) bool {
		network, ok := address.(*net.IPNet)
		if !ok {
			return false
		}
		ip, ok := netip.AddrFromSlice(network.IP)
		return ok && ip.Unmap() == peer.Addr()
	})
}
